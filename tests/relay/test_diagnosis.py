"""What `check` says of a configuration (relay/README.md)."""

import pytest

from tests.relay.authority import make_authority
from tests.relay.test_cli import refused, run

EVERYTHING = """\
[relay]
name = "https://relay.example"
data_dirs = "data"

[signalling]
listen = "0.0.0.0:8080"
origins = ["https://calls.example/"]
trusted_proxies = ["10.0.0.1/8"]

[tls]
key = "missing.pem"

[turn]
listen = "relay.example:3478"
secret = "short"
"""


def lines_of(message):
    return {
        line.removeprefix("e2ecall-relay: error: ")
        for line in message.splitlines()
        if not line.startswith("hint")
    }


def test_everything_at_once(tmp_path):
    """Every error is told in one go, with file, line and key, and what to do about it."""
    config = tmp_path / "relay.toml"
    config.write_text(EVERYTHING.replace("data_dirs", "data_dir"))
    message = refused("check", "--config", config)
    starts = [
        ("2", "relay.name is not host or host:port"),
        ("6", "signalling.listen is reachable from outside without TLS"),
        ("8", "signalling.trusted_proxies names no address or network"),
        ("7", "signalling.origins has no origin of a web page"),
        ("11", "tls.key is given and tls.certificate is not"),
        ("11", "tls.key cannot be read"),
        ("14", "turn.listen needs a numeric address"),
        ("15", "turn.secret has to have at least"),
    ]
    told = lines_of(message)
    for number, text in starts:
        assert any(line.startswith(f"{config}, line {number}: {text}") for line in told), text
    assert len(told) == len(starts)
    assert message.count("hint: ") == len(starts) - 1


@pytest.mark.parametrize(
    ("text", "told", "hint"),
    [
        (EVERYTHING, "line 3: relay.data_dirs is no known key", "did you mean data_dir?"),
        (
            "\n[signaling]\nlisten = ''",
            "line 2: signaling is no section",
            "did you mean signalling?",
        ),
        ("[zzz]\n", "line 1: zzz is no section", "whole list"),
        ("tls = 'x'", "line 1: tls is a section", "write [tls]"),
        ("limits.connections = 0", "line 1: limits.connections has no valid value", ""),
        ("[limits]\n\nconnections = 'x'", "line 3: limits.connections has no valid value", ""),
        ("[relay]\nname = ", "is not TOML", ""),
        ("[signalling]\nlisten = []", "line 2: signalling.listen names no address", "as in"),
        (
            "[storage]\nbackend = 'mysql'",
            "line 2: storage.backend has no valid value",
            "one of sqlite, postgres",
        ),
        ("[turn]\nurls = ['stun:a:1']", "line 2: turn.urls has no URL", "as in"),
        ("[turn]\nurls = ['turn:a.b:1?transport=sctp']", "line 2: turn.urls has no URL", "as in"),
        (
            "[turn]\nsecret_file = 'none'\nlisten = 1",
            "line 2: turn.secret_file cannot be read",
            "has to be able to read it",
        ),
        (
            "[turn]\nsecret_file = 'none'\nlisten = 1",
            "line 3: turn.listen has no valid value",
            "",
        ),
        ("[turn]\nsecret = 'x'\nsecret_file = 'y'", "line 2: turn.secret and turn.s", "keep one"),
    ],
)
def test_wrong_keys(tmp_path, text, told, hint):
    """An unknown key or a wrong value is told with its line, and what was perhaps meant."""
    config = tmp_path / "relay.toml"
    config.write_text(text)
    message = refused("check", "--config", config)
    assert told in message
    assert hint in message


def test_environment_is_named(tmp_path):
    """What comes from the environment is told as coming from there."""
    config = tmp_path / "relay.toml"
    config.write_text('[relay]\nname = "relay.example"\n[turn]\nsecret = "long enough a secret"\n')
    assert run("check", "--config", config).returncode == 0
    environment = {"RELAY__TURN__SECRET": "short"}
    message = refused("check", "--config", config, environment=environment)
    assert "RELAY__TURN__SECRET in the environment: turn.secret" in message
    message = refused("check", "--config", config, environment={"RELAY__LIMIT__CONNECTIONS": "5"})
    assert "hint: did you mean RELAY__LIMITS__CONNECTIONS?" in message


def test_data_directory(tmp_path):
    """A data directory that cannot come to be is told before the relay starts."""
    (tmp_path / "file").write_text("")
    config = tmp_path / "relay.toml"
    config.write_text(
        '[relay]\nname = "relay.example"\ndata_dir = "file/data"\n'
        '[turn]\nsecret = "long enough a secret"\n'
    )
    assert "is a file" in refused("check", "--config", config)


@pytest.mark.parametrize(
    ("begins", "ends", "told"), [(-2, -1, "has expired"), (1, 2, "is not valid yet")]
)
def test_dates_of_the_certificate(tmp_path, begins, ends, told):
    """A certificate that clients refuse by its dates is told, and what to do."""
    config = tmp_path / "relay.toml"
    certificate, _ = make_authority(tmp_path, begins=begins, ends=ends)
    config.write_text(
        '[relay]\nname = "relay.example"\n[turn]\nsecret = "long enough a secret"\n'
        '[tls]\ncertificate = "certificate.pem"\nkey = "key.pem"\n'
    )
    message = refused("check", "--config", config)
    assert f"{certificate} {told}: clients refuse it" in message
    assert "hint: put a new chain and key" in message
    make_authority(tmp_path)
    assert run("check", "--config", config).returncode == 0
