"""Codes and digits that people compare (spec/sas.md, "Fingerprints")."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2ecall.errors import LocalProtocolError, VerificationFailedError
from e2ecall.protocol.sas import identity_fingerprint
from e2ecall.protocol.verification import VerificationCode, compare

ALICE, BOB = "alice@relay.example", "bob@relay.example"
KEYS = st.binary(min_size=32, max_size=32)


def codes(alice, bob):
    """Return what both show when each knows the other's key."""
    return VerificationCode(ALICE, alice, BOB, bob), VerificationCode(BOB, bob, ALICE, alice)


@given(KEYS, KEYS)
def test_both_ways(alice, bob):
    """SAS-05, SAS-06: each reads what the other shows, and both agree."""
    ours, theirs = codes(alice, bob)
    assert VerificationCode.decode(ours.encode()) == ours
    compare(theirs.encode(), ours)
    compare(f" {ours.encode()}\n", theirs)


@given(KEYS, KEYS, KEYS, KEYS)
def test_somebody_in_between(alice, bob, for_alice, for_bob):
    """SAS-06, R5: keys that are not the other's are found, by either scan."""
    ours = VerificationCode(ALICE, alice, BOB, for_alice)
    theirs = VerificationCode(BOB, bob, ALICE, for_bob)
    if (for_alice, for_bob) == (bob, alice):
        return
    for shown, own in ((theirs, ours), (ours, theirs)):
        with pytest.raises(VerificationFailedError, match="identity") as caught:
            compare(shown.encode(), own)
        assert "nothing was verified" in caught.value.hint


@given(st.data())
def test_altered_anywhere(data):
    """SAS-05, M1: a code with any character altered, missing or added verifies nothing."""
    ours, theirs = codes(bytes(range(32)), bytes(range(32, 64)))
    text = theirs.encode()
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from("ABab01-_+/= \u0663").filter(lambda c: c != text[at]))
    for altered in (
        text[:at] + other + text[at + 1 :],
        text[:at] + text[at + 1 :],
        text[:at] + other + text[at:],
    ):
        if altered.strip() != text:
            with pytest.raises((LocalProtocolError, VerificationFailedError)):
                compare(altered, ours)


def test_digits():
    """SAS-07: all 60 digits count, and spaces do not."""
    ours, _ = codes(bytes(32), bytes(range(32)))
    digits = identity_fingerprint(BOB, bytes(range(32)))
    compare(digits, ours)
    compare(digits.replace(" ", "\n"), ours)
    for at, digit in enumerate(digits):
        if digit != " ":
            wrong = digits[:at] + str((int(digit) + 5) % 10) + digits[at + 1 :]
            with pytest.raises(VerificationFailedError):
                compare(wrong, ours)
    for other in (digits[:-1], digits + "0", "", "no digits at all", "e2ecall"):
        with pytest.raises(LocalProtocolError, match="neither") as caught:
            compare(other, ours)
        assert caught.value.hint


def test_for_other_people():
    """SAS-06: a code of or for somebody else is a mistake, and is told as one."""
    ours, theirs = codes(bytes(32), bytes(range(32)))
    with pytest.raises(LocalProtocolError, match=f"code of {ALICE}, not of {BOB}"):
        compare(ours.encode(), ours)
    with pytest.raises(LocalProtocolError, match="this code is for carol"):
        ours.check(VerificationCode(BOB, theirs.shower_key, "carol@relay.example", bytes(32)))
