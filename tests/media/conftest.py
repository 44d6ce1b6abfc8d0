"""Fixtures of the media tests; the peers themselves are in `peers`."""

import socket
from collections.abc import Generator

import pytest

from tests.media.peers import TURNThread


@pytest.fixture
def turn() -> Generator[TURNThread]:
    """The relay's TURN server, running."""
    server = TURNThread()
    yield server
    server.stop()


@pytest.fixture
def silent_server() -> Generator[str]:
    """The URI of a UDP port at which nobody answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"turn:127.0.0.1:{sock.getsockname()[1]}"
