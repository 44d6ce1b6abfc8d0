"""The operator's command line, as a child process (relay/README.md)."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time

import pytest

from relay.services.tickets import Side, open_id, password
from tests.relay.nodes import node_config


def run(*arguments, cwd=None, environment=None):
    return subprocess.run(
        [sys.executable, "-m", "relay.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
    )


def refused(*arguments, code=1, **options):
    """Run what has to fail; return what a person reads."""
    done = run(*arguments, **options)
    assert done.returncode == code
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("e2ecall-relay: error: ")
    return done.stderr


def test_ready_line(start_relay):
    """The first line of stdout says where the relay listens; SIGTERM when idle exits 0 soon."""
    relay = start_relay()
    assert list(relay.ready) == ["event", "signalling", "turn", "pid"]
    assert relay.ready["event"] == "ready"
    assert relay.ready["pid"] == relay.process.pid
    assert relay.url == f"ws://127.0.0.1:{relay.address[1]}/v1"
    host, _, port = relay.ready["turn"].removeprefix("turn:").partition("?")[0].rpartition(":")
    assert relay.ready["turn"] == f"turn:127.0.0.1:{port}?transport=udp"
    with contextlib.closing(socket.create_connection(relay.address)):
        pass
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(5)
        binding = b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12)
        udp.sendto(binding, (host, int(port)))
        assert udp.recv(1500)[:2] == b"\x01\x01"
    code, seconds = relay.terminate()
    assert code == 0
    assert seconds < 5
    assert relay.log.read_text() == ""


def test_two_at_once(start_relay):
    """Two development relays run side by side."""
    first, second = start_relay(), start_relay()
    assert first.url != second.url
    assert first.terminate()[0] == second.terminate()[0] == 0


def test_chosen_addresses(start_relay, tmp_path):
    """--signalling, --turn, --turn-secret and --data-dir are used."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = tmp_path / "deep" / "data"
    relay = start_relay(
        "--signalling", f"localhost:{port}", "--turn", "127.0.0.1:0", "--data-dir", data
    )
    assert relay.url == f"ws://localhost:{port}/v1"
    assert (data / "relay.sqlite").exists()
    message = refused("serve", "--dev", "--data-dir", data)
    assert "another relay uses the data directory" in message
    message = refused("serve", "--dev", "--signalling", f"127.0.0.1:{port}")
    assert "cannot listen" in message
    assert relay.terminate()[0] == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["serve"], "no configuration"),
        (["serve", "--dev", "--workers", "65"], "between 0 and 64"),
        (["serve", "--config", "missing.toml"], "cannot read missing.toml"),
        (["serve", "--dev", "--signalling", "nowhere"], "HOST:PORT"),
        (["serve", "--dev", "--turn", "127.0.0.1:99999"], "no valid port"),
        (["serve", "--dev", "--turn", "localhost:0"], "numeric address"),
        (["serve", "--capture", "kept"], "--capture is for development"),
        (["check", "--config", "missing.toml"], "cannot read missing.toml"),
        (["ticket", "--turn-secret", ""], "empty"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refusals(arguments, text, tmp_path):
    """What cannot be done is said in words, with exit code 1."""
    assert text in refused(*arguments, cwd=tmp_path)


def test_refusal_of_a_relay_that_had_begun(tmp_path):
    """What turns out when the relay listens already is said in words as well; where its socket
    cannot be, what is there stays.
    """
    taken = tmp_path / "file"
    taken.write_text("of somebody else")
    for place in (taken, taken / "admin.sock"):
        environment = {"RELAY__OPERATION__ADMIN_SOCKET": str(place)}
        assert "cannot listen on" in refused("serve", "--dev", environment=environment)
    assert taken.read_text() == "of somebody else"


@pytest.mark.parametrize("option", ["--signalling", "--turn"])
def test_port_in_use(option):
    """A port that another program has is told, and how to find that program."""
    with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        udp.bind(("127.0.0.1", 0))
        used = tcp if option == "--signalling" else udp
        address = f"127.0.0.1:{used.getsockname()[1]}"
        message = refused("serve", "--dev", option, address)
    assert "Address already in use" in message
    assert "hint: another program has this port" in message


@pytest.mark.parametrize(
    "arguments", [["serve", "--bogus"], ["bogus"], ["ticket"], ["ticket", "--count", "0"]]
)
def test_wrong_command_line(arguments):
    """A wrong command line exits with 2."""
    refused(*arguments, code=2)


def test_ticket():
    """`ticket` prints one JSON object a line, whose credentials the relay accepts."""
    done = run("ticket", "--turn-secret", "the secret", "--count", 3)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    seen = set()
    for line in lines:
        assert list(line) == ["a", "b"]
        opened = []
        for side in ("a", "b"):
            assert set(line[side]) == {"username", "password"}
            username = line[side]["username"]
            opened.append(open_id(b"the secret", username, time.time()))
            assert line[side]["password"] == password(b"the secret", username)
        assert opened[0].ticket_id == opened[1].ticket_id
        assert [identity.side for identity in opened] == [Side.A, Side.B]
        seen.add(opened[0].ticket_id)
    assert len(seen) == 3


def test_init_then_check(tmp_path):
    """`check` accepts what `init` wrote, unchanged; a second `init` overwrites nothing."""
    assert run("init", cwd=tmp_path).returncode == 0
    assert (tmp_path / "turn.secret").stat().st_mode & 0o777 == 0o600
    before = (tmp_path / "turn.secret").read_text()
    done = run("check", "--config", "relay.toml", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "exists already" in refused("init", cwd=tmp_path)
    assert (tmp_path / "turn.secret").read_text() == before


def test_serves_what_init_wrote(start_relay, tmp_path):
    """`serve --config` runs on what `init` wrote."""
    assert run("init", cwd=tmp_path).returncode == 0
    relay = start_relay(
        "--config",
        tmp_path / "relay.toml",
        "--signalling",
        "127.0.0.1:0",
        "--turn",
        "127.0.0.1:0",
        dev=False,
    )
    assert (tmp_path / "data" / "relay.key").exists()
    assert relay.terminate()[0] == 0


def test_unknown_keys(tmp_path):
    """An unknown key is an error, in the file and in the environment."""
    config = tmp_path / "relay.toml"
    config.write_text('[relay]\nname = "relay.example"\ncolour = "red"\n')
    assert "colour" in refused("check", "--config", config)
    config.write_text('[relay]\nname = "relay.example"\n')
    environment = {"RELAY__RELAY__COLOUR": "red"}
    message = refused("check", "--config", config, environment=environment)
    assert "RELAY__RELAY__COLOUR" in message


def test_help():
    """Without arguments the commands are listed."""
    done = run()
    assert done.returncode == 0
    for command in ("serve", "ticket", "init", "check"):
        assert command in done.stdout


def test_damaged_key(tmp_path):
    """A damaged relay key is refused, and left as it is."""
    (tmp_path / "relay.key").write_bytes(b"short")
    assert "relay's key" in refused("serve", "--dev", "--data-dir", tmp_path)
    assert (tmp_path / "relay.key").read_bytes() == b"short"


def test_several_addresses(start_relay, tmp_path):
    """Signalling listens at each address of `signalling.listen`; the first is the one announced."""
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        port = probe.getsockname()[1]
    relay = start_relay(
        "--config",
        node_config(tmp_path / "node", "north", None),
        dev=False,
        environment={"RELAY__SIGNALLING__LISTEN": f"127.0.0.1:0,[::1]:{port}"},
    )
    assert relay.address[0] == "127.0.0.1"
    for place in (relay.address, ("::1", port)):
        with socket.create_connection(place, timeout=10) as client:
            client.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
    assert relay.terminate()[0] == 0
