"""coturn's own test client, in its client-to-client mode, against our relay (spec/turn.md).

It has one credential for all of its connections, so that they are of one side of a ticket; and it
leaves an allocation behind for each one that it uses. Hence the raised quota. Without ``-c`` it
asks for pairs of ports by EVEN-PORT with a reservation, which is 508 here (TURN-12).
"""

import re
import subprocess

import pytest

from tests.bench.media.servers import our_relay

pytestmark = [pytest.mark.system("turnutils_uclient"), pytest.mark.timeout(120)]

QUOTA = "64"
MESSAGES = 25
TRIES = 400
"""It draws channel numbers up to 0x7FFF, as RFC 5766 had them; RFC 8656 ends at 0x4FFF, and beyond
the answer has to be 400 (TURN-17). Both of a run are good in one of 16."""


@pytest.fixture
def relay(monkeypatch):
    monkeypatch.setenv("RELAY__LIMITS__ALLOCATIONS_PER_SIDE", QUOTA)
    with our_relay(None) as server:
        yield server


def uclient(relay, credential, *options):
    """Run the client on loopback; return its exit code and what it printed."""
    host, port = relay.address
    command = ["turnutils_uclient", "-y", "-c", *options, "-n", str(MESSAGES), "-l", "500"]
    command += ["-u", credential.username, "-w", credential.password, "-p", str(port), host]
    ran = subprocess.run(command, capture_output=True, timeout=60, check=False)
    return ran.returncode, (ran.stdout + ran.stderr).decode()


def assert_all_arrived(output, connections):
    """Every message came, by the client's own count."""
    sent, received = re.findall(r"tot_send_msgs=(\d+), tot_recv_msgs=(\d+)", output)[-1]
    assert (int(sent), int(received)) == (connections * MESSAGES, connections * MESSAGES)
    assert "Total lost packets 0 (0.000000%), total send dropped 0 (0.000000%)" in output


@pytest.mark.parametrize("options", [["-X"], ["-G"]], ids=["plain", "repeated"])
def test_send_and_data(relay, options):
    """TURN-16, TURN-33, TURN-34: four connections, linked in pairs, exchange all messages by Send
    and Data indications; with IPv4 asked for, and with needless further requests.
    """
    credential, _ = relay.tickets(1)[0]
    code, output = uclient(relay, credential, "-s", "-m", "4", *options)
    assert code == 0, output
    assert_all_arrived(output, 4)


def test_channels(relay):
    """TURN-17, TURN-34: two connections exchange all messages by ChannelData; a channel number
    beyond those of RFC 8656 is refused with 400 and nothing else.
    """
    for credential, _ in relay.tickets(TRIES):
        code, output = uclient(relay, credential, "-m", "1", "-v")
        if code == 0:
            break
        assert output.rstrip().endswith("channel bind: error 400 (Bad request)"), output
    else:
        pytest.fail(f"no run of {TRIES} drew two channel numbers of RFC 8656")
    numbers = [int(text, 16) for text in re.findall(r"success: 0x([0-9a-f]+)", output)]
    assert len(numbers) == 2
    assert all(0x4000 <= number <= 0x4FFF for number in numbers)
    assert_all_arrived(output, 2)


def test_strangers(relay):
    """TURN-20: with a password that is not the ticket's, the client gets no allocation."""
    (credential, _), (_, other) = relay.tickets(2)
    wrong = type(credential)(credential.username, other.password)
    code, output = uclient(relay, wrong, "-s", "-m", "2")
    assert code != 0
    assert "Cannot complete Allocation" in output
