"""A relay as whoever calls through it finds it: its addresses come from its hello."""

import os
import ssl
from types import SimpleNamespace

import pytest
from websockets.sync.client import connect

from relay.wire.codec import decode
from relay.wire.limits import MAX_FRAME
from relay.wire.messages import ServerFrame
from tests.bench.media.servers import our_relay
from tests.relay.authority import make_authority

QUOTA = "64"


@pytest.fixture
def relay(monkeypatch, tmp_path):
    """Run a relay with TLS and raised quotas; ``turn[transport]`` is where it serves which."""
    certificate, key = make_authority(tmp_path)
    monkeypatch.setenv("RELAY__TLS__CERTIFICATE", os.fspath(certificate))
    monkeypatch.setenv("RELAY__TLS__KEY", os.fspath(key))
    monkeypatch.setenv("RELAY__LIMITS__ALLOCATIONS_PER_SIDE", QUOTA)
    with our_relay(None) as server:
        trust = ssl.create_default_context(cafile=certificate)
        with connect(server.signalling, ssl=trust, compression=None) as socket:
            hello = decode(socket.recv(), ServerFrame, limit=MAX_FRAME).body
        yield SimpleNamespace(
            tickets=server.tickets,
            urls=hello.turn,
            turn={_transport(url): _address(url) for url in hello.turn},
            trust=trust,
            certificate=certificate,
        )


def _transport(url):
    return "tls" if url.startswith("turns:") else url.rpartition("=")[2]


def _address(url):
    host, _, port = url.partition(":")[2].partition("?")[0].rpartition(":")
    return host, int(port)
