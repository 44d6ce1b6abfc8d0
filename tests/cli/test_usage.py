"""The command line before any relay is asked: help, usage, and what is missing."""

import re
import sys

import pytest

from e2ecall.config import Settings, default_store

from .conftest import run_many

VERBS = ("register", "call", "listen", "message", "contacts", "policy", "demo")


def test_help_names_every_command():
    """The help names every command, and loads neither the demo nor a media library for it."""
    (done,), modules = run_many(["--help"])
    assert done.code == 0
    assert all(f" {verb} " in done.stdout for verb in VERBS)
    assert not modules & {"av", "aiortc", "numpy", "e2ecall.cli.demo.command"}


def test_help_of_commands():
    """Every command but the demo tells the common options with their variables; none loads av."""
    ends, modules = run_many(*([verb, "--help"] for verb in VERBS))
    assert {done.code for done in ends} == {0}
    text = "".join(re.sub(r"[\s│]+", "", done.stdout) for done in ends)
    for option in ("STORE", "PASSPHRASE_FILE", "RELAY", "CA", "JSON"):
        assert text.count(f"E2ECALL_{option}]") == len(VERBS) - 1
    assert not modules & {"av", "aiortc"}


def test_no_command():
    """Without a command the help is shown, and --version tells the version alone."""
    (nothing, version), _ = run_many([], ["--version"])
    assert "Usage: e2ecall COMMAND" in nothing.stdout
    assert version.stdout.strip().count(".") == 2


WRONG = {
    "frobnicate": ("frobnicate", "e2ecall --help"),
    "verify": ("NAME", "e2ecall verify --help"),
    "call bobby --seconds 0": ("--seconds", "e2ecall call --help"),
    "call bobby --audio missing.wav": ("missing.wav", "e2ecall call --help"),
    "policy friends": ("everyone", "e2ecall policy --help"),
    "message bobby hello you": ("you", "e2ecall message --help"),
    "contacts --frobnicate": ("--frobnicate", "e2ecall contacts --help"),
}


def test_wrong_usage():
    """A wrong command line exits with 2, says what is wrong, and points to the right help."""
    ends, _ = run_many(*(line.split() for line in WRONG))
    for done, (text, hint) in zip(ends, WRONG.values(), strict=True):
        assert (done.code, done.stdout) == (2, "")
        error, second = done.stderr.splitlines()
        assert error.startswith("e2ecall: error: ")
        assert text in error
        assert second == f"hint: {hint}"


@pytest.fixture
def refused(e2ecall, tmp_path):
    """Give a function that runs a command that must be refused, and returns error and hint."""

    def run(*arguments, **options):
        done = e2ecall(*arguments, **options)
        assert (done.code, done.stdout) == (1, "")
        lines = done.stderr.splitlines()
        assert lines[0].startswith("e2ecall: error: ")
        assert all(line.startswith("hint: ") for line in lines[1:])
        return done.stderr

    return run


def test_no_store(refused, tmp_path):
    """Without a store there is no question for a passphrase, but the command to begin with."""
    store = tmp_path / "none.db"
    text = refused("contacts", E2ECALL_STORE=store)
    assert f"no store at {store}" in text
    assert "e2ecall register" in text
    assert not list(tmp_path.iterdir())


def test_default_store(monkeypatch, tmp_path):
    """The store is in the folder for user data; a relative folder does not count, says XDG."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", "data")
    assert default_store() == tmp_path / ".local" / "share" / "e2ecall" / "store.db"
    monkeypatch.setenv("XDG_DATA_HOME", f"{tmp_path}/data")
    assert default_store() == tmp_path / "data" / "e2ecall" / "store.db"


def test_settings(tmp_path):
    """What is remembered beside a store comes back, and no other file is left."""
    store = tmp_path / "s.db"
    assert Settings.load(store) == Settings()
    settings = Settings(relay="wss://relay.example", ca='/a/"quoted"/ü.pem')
    settings.save(store)
    assert Settings.load(store) == settings
    assert [path.name for path in tmp_path.iterdir()] == ["s.db.json"]


def test_no_relay(refused, tmp_path):
    """Who registers without saying where is asked for the relay, and no file is made."""
    assert "--relay URL" in refused("register", "alice", "--store", tmp_path / "s.db")
    assert not list(tmp_path.iterdir())


def test_no_terminal(refused, tmp_path):
    """Where nobody can be asked for the passphrase it is not read from a pipe that would echo."""
    store = ["--store", tmp_path / "s.db", "--relay", "wss://relay.example"]
    text = refused("register", "alice", *store, stdin="secret\nsecret\n")
    assert "--passphrase-file" in text
    assert "secret" not in text


def test_bad_passphrase_file(refused, tmp_path):
    """A passphrase file without a passphrase is refused."""
    file = tmp_path / "passphrase"
    file.write_text("\nsecond line\n")
    common = ["--store", tmp_path / "s.db", "--relay", "wss://relay.example"]
    text = refused("register", "alice", *common, E2ECALL_PASSPHRASE_FILE=file)
    assert "holds no passphrase" in text


def test_readable_passphrase_file(e2ecall, tmp_path):
    """A passphrase file that others can read is used, with a warning that says what to do."""
    file = tmp_path / "passphrase"
    file.write_text("secret\n")
    file.chmod(0o644)
    common = ["--store", tmp_path / "s.db", "--relay", "nonsense", "--passphrase-file", file]
    done = e2ecall("register", "alice", *common)
    assert done.code == 1
    assert f"warning: others can read {file}\nhint: chmod 600 {file}\n" in done.stderr
    assert "secret" not in done.stderr


def test_bad_username(tmp_path):
    """What cannot be a username is refused before anything is made, and shown harmlessly."""
    store = tmp_path / "new" / "s.db"
    common = ["--store", str(store), "--relay", "wss://relay.example"]
    names = ["Alice", "al", "alice@relay.example", "alice\x1b[2J"]
    for done in run_many(*(["register", name, *common] for name in names))[0]:
        assert done.code == 1
        assert "3 to 32 characters" in done.stderr
        assert "\x1b" not in done.stderr
    assert not store.parent.exists()


def test_bad_relay(tmp_path, passphrase_file):
    """What is not the URL of a relay, or would go without TLS, is refused; no store is made."""
    common = ["--store", str(tmp_path / "s.db"), "--passphrase-file", str(passphrase_file)]
    urls = ["https://relay.example", "ws://relay.example", "wss://x:0x1", "nonsense"]
    ends, _ = run_many(*(["register", "alice", "--relay", url, *common] for url in urls))
    for done, url in zip(ends, urls, strict=True):
        assert done.code == 1
        assert url in done.stderr
    assert not list(tmp_path.iterdir())


def test_unreachable_relay(refused, tmp_path, passphrase_file):
    """A relay that cannot be reached is an error at once."""
    common = ["--store", tmp_path / "s.db", "--passphrase-file", passphrase_file]
    text = refused("register", "alice", "--relay", "ws://127.0.0.1:9", *common)
    assert "cannot connect to the relay 127.0.0.1:9" in text


def test_damaged_settings(refused, tmp_path):
    """Settings that are not what was written are refused, with a way out."""
    store = tmp_path / "s.db"
    store.touch()
    (tmp_path / "s.db.json").write_text('{"relay": 7}')
    text = refused("contacts", "--store", store)
    assert "s.db.json is damaged" in text
    assert "delete it" in text


def test_media_that_cannot_be(tmp_path):
    """What cannot be sent or recorded is refused before anybody is called."""
    file = tmp_path / "text.mp4"
    file.write_text("no film")
    ends, _ = run_many(
        ["call", "bobby", "--record", str(tmp_path / "none" / "a.mp4")],
        ["listen", "--record", str(tmp_path / "a.avi")],
        ["call", "bobby", "--video", str(file)],
    )
    assert [done.code for done in ends] == [1, 1, 1]
    for done, text in zip(
        ends, ["no folder", "not an MP4 file", "cannot be read as media"], strict=True
    ):
        assert text in done.stderr


def test_folder_without_permission(refused, tmp_path, passphrase_file):
    """Where no folder can be made for the store, the error says so."""
    (tmp_path / "file").touch()
    common = ["--relay", "wss://relay.example", "--passphrase-file", passphrase_file]
    text = refused("register", "alice", "--store", tmp_path / "file" / "s.db", *common)
    assert "cannot create the folder" in text
