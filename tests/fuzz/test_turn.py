"""The fuzzer of the TURN core, for a moment (`make fuzz SECONDS=600` goes on)."""

import random
import subprocess
import sys

import pytest

from relay.turn.allocation import AllocationTable
from relay.turn.forwarding import Forwarding
from relay.turn.server import TURNServer
from tests.fuzz.turn import FaultError, fuzz


def test_a_moment():
    """M4, T1: clients that mutate all they send meet no other exception and leave no ticket.

    TURN-02, TURN-31, TURN-51.
    """
    counted = fuzz(range(60))
    assert counted["episodes"] == 60
    # It does reach what it looks at.
    for name in ("successes", "channel data", "data indications"):
        assert counted[name] > 50, counted
    for code in (400, 401, 403, 420, 437, 438, 441, 442, 486):
        assert counted[f"refusals {code}"], counted


def test_fresh_seeds():
    """The same with seeds that nobody has tried."""
    start = random.randrange(10**9)
    assert fuzz(range(start, start + 20))["frames"] > 1000


def open_world(monkeypatch):
    def peer(self, now, ticket_id, relayed):
        return self._by_relayed.get(relayed)

    monkeypatch.setattr(AllocationTable, "peer", peer)
    monkeypatch.setattr(AllocationTable, "has_host", lambda *_: True)


def immortal(monkeypatch):
    monkeypatch.setattr(Forwarding, "disconnect", lambda *_: None)


def clumsy(monkeypatch):
    original = TURNServer.receive

    def receive(self, now, five_tuple, datagram):
        if datagram.endswith(b"\xff"):
            raise IndexError
        return original(self, now, five_tuple, datagram)

    monkeypatch.setattr(TURNServer, "receive", receive)


@pytest.mark.parametrize("fault", [open_world, immortal, clumsy])
def test_faults_are_found(monkeypatch, fault):
    """A server that forgets the ticket or old routes, or stumbles, is found out."""
    fault(monkeypatch)
    with pytest.raises((FaultError, IndexError)) as caught:
        fuzz(range(200))
    assert caught.value.__notes__


def test_command_line():
    """The command says what it did."""
    command = [sys.executable, "-m", "tests.fuzz.turn", "--seconds", "0.5", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "from seed 1" in done.stdout
    assert "episodes" in done.stdout
