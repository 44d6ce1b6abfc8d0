"""Accounts and messages from the command line, at a real relay."""

import signal
import stat

from .conftest import run_many


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_register(alice, relay):
    """Registering makes a store and a folder for its owner alone, and remembers the relay."""
    assert alice.address == f"alice@{relay.removeprefix('ws://')}"
    assert (mode(alice.store), mode(alice.store.parent)) == (0o600, 0o700)
    settings = alice.store.with_name("store.db.json").read_text()
    assert relay in settings
    assert "correct horse" not in settings


def test_username_taken(e2ecall, alice, relay, folder, passphrase_file):
    """A username that is taken is refused, and the store that was begun for it is gone."""
    store = folder / "second.db"
    common = ["--store", store, "--passphrase-file", passphrase_file]
    done = e2ecall("register", "alice", "--relay", relay, *common)
    assert done.code == 1
    assert done.stderr == ("e2ecall: error: this username is taken\nhint: choose another one\n")
    assert not store.exists()


def test_register_twice(e2ecall, alice):
    """A store that has an account keeps it."""
    done = e2ecall("register", "somebody", *alice.options)
    assert done.code == 1
    assert f"this store belongs to {alice.address} already" in done.stderr
    assert alice.store.exists()


def test_wrong_passphrase(e2ecall, alice, folder):
    """A wrong passphrase is refused, told apart from other errors, and not repeated."""
    wrong = folder / "wrong"
    wrong.write_text("battery staple")
    wrong.chmod(0o600)
    before = alice.store.read_bytes()
    done = e2ecall("contacts", "--store", alice.store, "--passphrase-file", wrong)
    assert (done.code, done.stdout) == (1, "")
    assert "the passphrase does not open" in done.stderr
    assert "battery" not in done.stderr
    assert alice.store.read_bytes() == before


def test_another_relay(e2ecall, alice):
    """An account is not shown to another relay than its own."""
    elsewhere = ["--relay", "ws://127.0.0.1:9"]
    done = e2ecall("message", "bobby", "hello", *alice.options, *elsewhere)
    assert done.code == 1
    assert "is not an account of 127.0.0.1:9" in done.stderr
    # What is in the store needs no relay.
    for command in ("contacts", "history", "policy"):
        assert e2ecall(command, *alice.options, *elsewhere).code == 0


def test_bad_authorities(e2ecall, alice, passphrase_file):
    """A file without certificates is no --ca."""
    done = e2ecall("contacts", *alice.options, "--ca", passphrase_file)
    assert done.code == 1
    assert "cannot read CA certificates" in done.stderr


def test_message(e2ecall, start, alice, bob):
    """A message waits for its reader, is shown once, and its sender becomes a contact."""
    done = e2ecall("message", "bobby", "first\x1b[2J\nline", *alice.options)
    assert (done.code, done.stdout) == (0, "Sent to bobby.\n")
    done = e2ecall("message", bob.address, *alice.options, "--json", stdin="from a pipe\n")
    assert done.events == [{"event": "sent", "to": bob.address}]

    listening = start("listen", *bob.options)
    texts = [listening.next("message") for _ in range(2)]
    assert [text["text"] for text in texts] == ["first\x1b[2J\nline", "from a pipe"]
    assert {(text["sender"], text["proven"]) for text in texts} == {(alice.address, True)}

    busy = e2ecall("contacts", *bob.options)
    assert busy.code == 1
    assert "in use by another program" in busy.stderr

    listening.interrupt()
    ended = listening.finish()
    assert (ended.code, ended.stderr) == (130, "")

    done = e2ecall("contacts", *bob.options)
    assert done.stdout.startswith(f"not verified  {alice.address}  (a request")
    again = start("listen", *bob.options)
    again.next("listening")
    again.interrupt(signal.SIGTERM)
    assert again.finish().code == 143
    assert not again.named("message")


def test_policy(e2ecall, alice):
    """The policy can be set, with all options from the environment."""
    store, file = alice.options[1], alice.options[3]
    environment = {
        "E2ECALL_STORE": store, "E2ECALL_PASSPHRASE_FILE": file, "E2ECALL_JSON": "1"
    }  # fmt: skip
    assert e2ecall("policy", "contacts", **environment).events == [
        {"event": "policy", "policy": "contacts", "first_call": "rings"}
        | {"audio": "everyone", "video": "everyone"}
    ]
    assert e2ecall("policy", "everyone", *alice.options).stdout.startswith("Everyone can")
    e2ecall("policy", "--audio", "contacts", "--video", "nobody", *alice.options)
    shown = e2ecall("policy", *alice.options).stdout
    assert shown.endswith("Calls of contacts ring; pictures of nobody are seen.\n")
    shown = e2ecall("policy", "--audio", "nobody", "--video", "contacts", *alice.options).stdout
    assert shown.endswith(
        "Calls with sound alone ring if they are of nobody, calls with pictures if they are of "
        "contacts; pictures of contacts are seen.\n"
    )
    shown = e2ecall("policy", "--first-call", "waits", *alice.options).stdout
    assert "First calls wait as requests." in shown
    assert e2ecall("policy", "contacts", *alice.options, "--json").events == [
        {"event": "policy", "policy": "contacts", "first_call": "waits"}
        | {"audio": "nobody", "video": "contacts"}
    ]
    shown = e2ecall("policy", "nobody", *alice.options).stdout
    assert shown == "Nobody can call you or send you messages.\n"


def test_allow(e2ecall, alice):
    """One person's calls and pictures can be let in or not, and the contacts say so."""
    done = e2ecall("allow", "mallory", "--audio", "no", *alice.options, "--json")
    assert done.events == [{"event": "allowed", "peer": "mallory", "audio": False, "video": None}]


REFUSED = [
    (["message", "nobody", "hello"], "there is no such user"),
    (["message", "No-Body", "hello"], "'No-Body' is not an address"),
    (["message", "bobby", ""], "the message is empty"),
    (["message", "bobby", "\udcff"], "not text in UTF-8"),
    (["message", "bobby", "x" * 40_000], "too long"),
    (["call", "nobody"], "there is no such user"),
    (["call", "alice"], "this is your own address"),
    (["listen", "--accept", "No-Body"], "--accept: a username has"),
]


def test_refused(alice, bob):
    """What cannot be sent or called is refused with its reason."""
    options = list(map(str, alice.options))
    ends, _ = run_many(*([*arguments, *options] for arguments, _ in REFUSED))
    for done, (_, text) in zip(ends, REFUSED, strict=True):
        assert (done.code, done.stdout) == (1, "")
        assert done.stderr.startswith("e2ecall: error: ")
        assert text in done.stderr
