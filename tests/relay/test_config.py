"""The configuration (relay/README.md)."""

import pytest

from relay.config import host_port, load
from relay.diagnosis import check
from relay.errors import OperatorError

GOOD = """
[relay]
name = "relay.example"
[turn]
secret = "long enough a secret"
"""


@pytest.fixture
def read(tmp_path):
    def read_(text, environment=None):
        path = tmp_path / "relay.toml"
        path.write_text(text)
        return load(path, environment or {})

    return read_


def refusal(function, *arguments):
    with pytest.raises(OperatorError) as caught:
        function(*arguments)
    return str(caught.value)


def test_defaults(read, tmp_path):
    """A name and a secret are enough; paths are relative to the file."""
    config = read(GOOD)
    check(config)
    assert config.relay.data_dir == str(tmp_path / "data")
    assert config.signalling.listen == "127.0.0.1:8080"
    assert config.tls.certificate == ""


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[relay]\ncolour = 1", "colour"),
        ("[colours]\nred = 1", "colours"),
        ("colour = 1", "colour"),
        ("[limits]\nconnections = 'many'", "connections"),
        ("[limits]\nconnections = 0", "connections"),
        ("[limits]\nwrite_seconds = -1.0", "write_seconds"),
        ("[relay]\nregistration = 'maybe'", "registration"),
        ("[turn]\nticket_seconds = 100000", "ticket_seconds"),
        ("relay = 1", "relay"),
        ("[storage]\nbackend = 'oracle'", "storage.backend"),
    ],
)
def test_bad_file(read, text, named):
    """An unknown key or a wrong value is an error that names it."""
    assert named in refusal(read, text)


def test_not_toml(read):
    """A file that is no TOML is refused."""
    assert "not TOML" in refusal(read, "relay: name")


def test_environment(read, tmp_path):
    """RELAY__SECTION__KEY wins over the file, for every kind of value."""
    secret = tmp_path / "secret"
    secret.write_text("another long secret\n")
    config = read(
        GOOD,
        {
            "RELAY__RELAY__NAME": "other.example:8443",
            "RELAY__SIGNALLING__BEHIND_PROXY": "true",
            "RELAY__SIGNALLING__ORIGINS": "https://a.example, https://b.example",
            "RELAY__LIMITS__CONNECTIONS": "7",
            "RELAY__LIMITS__WRITE_SECONDS": "0.5",
            "RELAY__TURN__SECRET_FILE": str(secret),
            "PATH": "unrelated",
        },
    )
    assert config.relay.name == "other.example:8443"
    assert config.signalling.behind_proxy is True
    assert config.signalling.origins == ("https://a.example", "https://b.example")
    assert (config.limits.connections, config.limits.write_seconds) == (7, 0.5)
    assert config.turn.secret == "another long secret"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RELAY__COLOURS__RED", "1"),
        ("RELAY__RELAY__COLOUR", "1"),
        ("RELAY__RELAY", "1"),
        ("RELAY__RELAY__NAME_FILE_FILE", "1"),
        ("RELAY__LIMITS__CONNECTIONS", "many"),
        ("RELAY__LIMITS__CONNECTIONS", "0"),
    ],
)
def test_bad_environment(read, name, value):
    """A variable that names no key, or has no such value, is an error that names it."""
    assert name in refusal(read, GOOD, {name: value})


def test_secret_file(read, tmp_path):
    """A secret can stand in a file of its own; missing, or given twice, it is an error."""
    (tmp_path / "secret").write_text("long enough a secret\n")
    config = read("[turn]\nsecret_file = 'secret'")
    assert config.turn.secret == "long enough a secret"
    assert "secret_file" in refusal(read, "[turn]\nsecret_file = 'missing'")
    both = "[turn]\nsecret_file = 'secret'\nsecret = 'x'"
    assert "exclude" in refusal(read, both)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD.replace('"relay.example"', '""'), "relay.name is missing"),
        (GOOD.replace("relay.example", "Relay.Example"), "lower case"),
        (GOOD.replace("relay.example", "https://relay.example"), "relay.name"),
        (GOOD.replace("long enough a secret", "short"), "turn.secret"),
        (GOOD + "[signalling]\nlisten = '0.0.0.0:443'", "without TLS"),
        (GOOD + "[signalling]\nlisten = '8080'", "HOST:PORT"),
        (GOOD + "[tls]\nkey = 'key.pem'", "together"),
    ],
)
def test_unsafe(read, text, said):
    """What could not be served, or not safely, is refused before anything starts."""
    assert said in refusal(check, read(text))


def test_behind_proxy(read):
    """A proxy that speaks TLS may be said to be there."""
    check(read(GOOD + "[signalling]\nlisten = '0.0.0.0:80'\nbehind_proxy = true"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_host_port(text, expected):
    """HOST:PORT, with brackets around IPv6."""
    assert host_port(text, "it") == expected


@pytest.mark.parametrize(
    "text", ["", "80", ":80", "::1:80", "a:b", "a:-1", "a:65536", "[a]:1", "a:²"]
)
def test_not_host_port(text):
    """Anything else is refused."""
    assert "it" in refusal(host_port, text, "it")


def test_storage(read, tmp_path):
    """PostgreSQL needs a dsn, which a file may hold; SQLite has no use for one."""
    assert "storage.dsn" in refusal(check, read(GOOD + "[storage]\nbackend = 'postgres'"))
    (tmp_path / "dsn").write_text("host=db password=secret\n")
    config = read(GOOD + "[storage]\nbackend = 'postgres'\ndsn_file = 'dsn'\nnode = 'north'")
    check(config)
    assert config.storage.dsn == "host=db password=secret"
    assert "storage.node" in refusal(check, read(GOOD + "[storage]\nnode = 'north'"))


def test_own_turn_server(read):
    """turn.own_host is one of the hosts in turn.urls."""
    text = GOOD + "urls = ['turn:a.example:1', 'turn:b.example:2']\nown_host = "
    check(read(text + "'b.example'"))
    assert "turn.own_host" in refusal(check, read(text + "'c.example'"))


def test_lists_in_the_environment(read):
    """A list in the environment is separated by commas, also one that is bounded."""
    found = read(GOOD, {"RELAY__TURN__URLS": "turn:a.example:1, turn:b.example:2"})
    assert found.turn.urls == ("turn:a.example:1", "turn:b.example:2")
