"""Comparing identities, blocking, and a new passphrase, from the command line."""

import re
import shutil

import pytest

OTHER = "0" * 60


@pytest.fixture(scope="module")
def met(e2ecall, alice, bob):
    """Have alice and bob written to each other."""
    assert e2ecall("message", "bobby", "hello", *alice.options).code == 0
    assert e2ecall("message", "alice", "hello", *bob.options).code == 0
    return alice, bob


def shown(e2ecall, account, name):
    (event,) = e2ecall("verify", name, *account.options, "--json").events
    return event


def is_verified(e2ecall, account):
    return [event["verified"] for event in e2ecall("contacts", *account.options, "--json").events]


def test_digits_and_code(e2ecall, met):
    """SAS-03, SAS-05: both see the same 60 digits of each other; people see a QR code, too."""
    alice, bob = met
    ours, theirs = shown(e2ecall, alice, "bobby"), shown(e2ecall, bob, "alice")
    assert ours["fingerprint"] == theirs["own_fingerprint"]
    assert ours["own_fingerprint"] == theirs["fingerprint"]
    assert re.fullmatch(r"\d{5}( \d{5}){11}", ours["fingerprint"])
    assert ours["code"].startswith("e2ecall-verify:")
    assert ours["changed_fingerprint"] is None
    done = e2ecall("verify", "bobby", *alice.options)
    for digits in (ours["fingerprint"], ours["own_fingerprint"]):
        assert " ".join(digits.split()[:4]) in done.stdout
    assert any(block in done.stdout for block in "█▀▄")
    assert ours["code"] in done.stdout


def test_verified_by_a_scan(e2ecall, met):
    """SAS-06: what the other one shows verifies them; a wrong code says what it may mean."""
    alice, bob = met
    wrong = e2ecall("verify", "bobby", "--scanned", OTHER, *alice.options)
    assert wrong.code == 1
    assert "is not the fingerprint that is known of" in wrong.stderr
    assert "somebody may be between you" in wrong.stderr
    mistaken = shown(e2ecall, alice, "bobby")["code"]
    done = e2ecall("verify", "bobby", "--scanned", mistaken, *alice.options)
    assert (done.code, f"code of {alice.address}" in done.stderr) == (1, True)
    assert is_verified(e2ecall, alice) == [False]
    code = shown(e2ecall, bob, "alice")["code"]
    done = e2ecall("verify", "bobby", "--scanned", code, *alice.options, "--json")
    assert done.events == [{"event": "verified", "peer": "bobby"}]
    assert is_verified(e2ecall, alice) == [True]


def test_confirmed(e2ecall, met):
    """SAS-07: --confirm shows the digits and says that they were compared."""
    _, bob = met
    done = e2ecall("verify", "alice", "--confirm", *bob.options, "--json")
    assert [event["event"] for event in done.events] == ["fingerprint", "verified"]
    assert is_verified(e2ecall, bob) == [True]


def test_refused(e2ecall, met):
    """What cannot be compared or accepted is refused with its reason and a hint."""
    alice, _ = met
    for arguments, text in (
        (["nobody"], "the identity of nobody@"),
        (["alice"], "this is your own address"),
        (["bobby", "--scanned", "12345"], "neither a fingerprint nor"),
        (["bobby", "--accept", OTHER], "no other identity of"),
        (["bobby", "--accept", OTHER, "--confirm"], "give one of"),
    ):
        done = e2ecall("verify", *arguments, *alice.options)
        assert (done.code, done.stdout) == (1, "")
        assert text in done.stderr


def test_blocked(e2ecall, met, carol):
    """P8, IDENTITY-16: a blocked person's messages do not arrive, and they are told nothing."""
    alice, _ = met
    assert e2ecall("block", "carol", *alice.options).stdout == "carol is blocked.\n"
    done = e2ecall("message", "alice", "hello", *carol.options)
    assert (done.code, done.stderr) == (0, "")
    done = e2ecall("message", "carol", "hello", *alice.options)
    assert (done.code, "hint: unblock them first" in done.stderr) == (1, True)
    listed = e2ecall("contacts", *alice.options)
    assert f"{carol.address}  (blocked)" in listed.stdout
    done = e2ecall("unblock", "carol", *alice.options, "--json")
    assert done.events == [{"event": "unblocked", "peer": "carol"}]
    assert e2ecall("message", "carol", "hello", *alice.options).code == 0


def test_passphrase(e2ecall, folder, bob):
    """STORE-14: after a change the new passphrase opens the store, and the old one does not."""
    store = folder / "changed.db"
    shutil.copy(bob.store, store)
    shutil.copy(bob.store.with_name("store.db.json"), store.with_name("changed.db.json"))
    (old, new, empty) = (bob.options[3], folder / "new", folder / "empty")
    for path, text in ((new, "battery staple\n"), (empty, "\n")):
        path.write_text(text)
        path.chmod(0o600)
    common = ["--store", store, "--passphrase-file"]
    refused = e2ecall("passphrase", "--new-file", empty, *common, old)
    assert (refused.code, "holds no passphrase" in refused.stderr) == (1, True)
    done = e2ecall("passphrase", "--new-file", new, *common, old, "--json")
    assert done.events == [{"event": "passphrase_changed"}]
    assert e2ecall("verify", "alice", *common, new).code == 0
    refused = e2ecall("verify", "alice", *common, old)
    assert (refused.code, "the passphrase does not open" in refused.stderr) == (1, True)
