"""coturn's own test client, in its client-to-client mode, against our relay (spec/turn.md).

It has one credential for all of its connections, so that they are of one side of a ticket; and it
leaves an allocation behind for each one that it uses. Hence the raised quota. Without ``-c`` it
asks for pairs of ports by EVEN-PORT with a reservation, which is 508 here (TURN-12).
"""

import re
import subprocess

import pytest

pytestmark = [pytest.mark.system("turnutils_uclient"), pytest.mark.timeout(120)]

MESSAGES = 25
TRIES = 400
"""It draws channel numbers up to 0x7FFF, as RFC 5766 had them; RFC 8656 ends at 0x4FFF, and beyond
the answer has to be 400 (TURN-17). Both of a run are good in one of 16."""

OPTIONS = {"udp": [], "tcp": ["-t"], "tls": ["-t", "-S"]}


@pytest.fixture(params=OPTIONS)
def transport(request):
    return request.param


def uclient(relay, transport, credential, *options):
    """Run the client on loopback; return its exit code and what it printed."""
    host, port = relay.turn[transport]
    command = ["turnutils_uclient", "-y", "-c", *OPTIONS[transport], *options]
    if transport == "tls":
        command += ["-E", str(relay.certificate)]
    command += ["-n", str(MESSAGES), "-l", "500", "-p", str(port)]
    command += ["-u", credential.username, "-w", credential.password, host]
    ran = subprocess.run(command, capture_output=True, timeout=60, check=False)
    return ran.returncode, (ran.stdout + ran.stderr).decode()


def assert_all_arrived(output, connections):
    """Every message came, by the client's own count."""
    sent, received = re.findall(r"tot_send_msgs=(\d+), tot_recv_msgs=(\d+)", output)[-1]
    assert (int(sent), int(received)) == (connections * MESSAGES, connections * MESSAGES)
    assert "Total lost packets 0 (0.000000%), total send dropped 0 (0.000000%)" in output


def test_send_and_data(relay, transport):
    """TURN-16, TURN-33, TURN-34: four connections, linked in pairs, exchange all messages by Send
    and Data indications, with needless further requests in between.
    """
    credential, _ = relay.tickets(1)[0]
    code, output = uclient(relay, transport, credential, "-s", "-G", "-X", "-m", "4")
    assert code == 0, output
    assert_all_arrived(output, 4)


def test_channels(relay, transport):
    """TURN-17, TURN-34: two connections exchange all messages by ChannelData; a channel number
    beyond those of RFC 8656 is refused with 400 and nothing else.
    """
    for credential, _ in relay.tickets(TRIES):
        code, output = uclient(relay, transport, credential, "-m", "1", "-v")
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
    code, output = uclient(relay, "udp", wrong, "-s", "-m", "2")
    assert code != 0
    assert "Cannot complete Allocation" in output
