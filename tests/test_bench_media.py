"""The load generator of the media benchmark counts what arrives, and only that."""

import sys

import pytest

from tests.bench.media.clients import Clients, open_socket
from tests.bench.media.servers import echo
from tests.bench.media.stun import Credential
from tests.bench.media.traffic import Plan, Traffic
from tests.bench.media.usage import cpu_time

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the load generator needs Linux"
)

PLAN = Plan(rate=4_000, burst=4, size=300, seconds=0.3, warm=0.1)


@pytest.fixture
def clients():
    """Give four clients of a server that sends everything back to whom it came from."""
    with echo(None) as server, open_socket() as sock:
        several = Clients(sock, server.address)
        nobody = Credential("", "")
        for number, client in enumerate(several.add([(nobody, nobody)] * 2)):
            client.peer, client.channel = client, 0x4000 + number
        yield several, lambda: cpu_time(server.pids)


@pytest.mark.parametrize("trains", [False, True])
def test_every_packet_counts(clients, trains):
    """What comes back to the client that is expected to get it is delivered, all of it, once, and
    the server's work is seen; single packets and trains alike.
    """
    several, usage = clients
    plan = Plan(**{**vars(PLAN), "trains": trains})
    outcome = Traffic(several, usage).run(plan)
    assert (outcome.sent, outcome.delivered, outcome.wrong) == (1_200, 1_200, 0)
    assert outcome.usage > 0
    assert 0 < outcome.p50 <= outcome.p99


def test_another_client_is_wrong(clients):
    """What comes to another client than the sender's peer is lost, and counted as wrong."""
    several, usage = clients
    first, second, *_ = several.all
    first.peer = second
    outcome = Traffic(several, usage).run(PLAN)
    assert (outcome.sent, outcome.delivered, outcome.wrong) == (1_200, 900, 300)


def test_silence_is_loss():
    """Where nobody answers everything is lost."""
    with open_socket() as sock, open_socket() as deaf:
        several = Clients(sock, ("127.0.0.1", deaf.getsockname()[1]))
        nobody = Credential("", "")
        for client in several.add([(nobody, nobody)]):
            client.channel = 0x4000
        outcome = Traffic(several, lambda: 0).run(PLAN)
    assert (outcome.delivered, outcome.loss) == (0, 1.0)
