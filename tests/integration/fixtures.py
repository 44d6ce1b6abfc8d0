"""The fixtures that tests with a real relay share; the conftest of each folder takes them."""

import anyio.from_thread
import pytest

from e2ecall.crypto.argon2 import Argon2Cost
from e2ecall.io.store import Store
from e2ecall.testing import running_relay
from tests.integration.people import two_people


@pytest.fixture(autouse=True)
def quick_stores(monkeypatch):
    """Let passphrases cost little in this process: these tests open hundreds of stores."""
    cheap = Argon2Cost(memory_kib=64, iterations=1, lanes=1)
    monkeypatch.setitem(Store.open.__func__.__kwdefaults__, "cost", cheap)


@pytest.fixture(scope="session")
def relay():
    """A running relay; usernames have to be fresh."""
    with (
        anyio.from_thread.start_blocking_portal("trio") as portal,
        portal.wrap_async_context_manager(running_relay()) as process,
    ):
        yield process


@pytest.fixture
def people(tmp_path, relay):
    """Open clients of a caller and a callee, as an async context manager."""
    return lambda **options: two_people(tmp_path, relay, **options)
