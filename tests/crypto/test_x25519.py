"""X25519: RFC 7748's example, and every kind of key that has to be refused (P3)."""

import os

import pytest

from e2ecall.crypto import x25519
from e2ecall.crypto.x25519 import X25519KeyPair, check_public_key, expect_public_keys
from e2ecall.errors import Reason
from e2ecall.secret import Secret

P = 2**255 - 19
LOW_ORDER = (
    0,
    1,
    P - 1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)


def encoded(u: int) -> bytes:
    return u.to_bytes(32, "little")


def is_on_curve(u: int) -> bool:
    """Euler's criterion for v^2 = u^3 + 486662 u^2 + u, independent of the code under test."""
    return pow((u**3 + 486662 * u**2 + u) % P, (P - 1) // 2, P) == 1


def test_rfc_7748():
    """PQXDH-02: the key agreement is RFC 7748's (the example of its section 6.1)."""
    one, two = (
        X25519KeyPair.from_private(Secret(bytes.fromhex(private)))
        for private in (
            "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
            "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
        )
    )
    assert one.public.hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    assert two.public.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert one.exchange(two.public).expose().hex() == shared
    assert two.exchange(one.public).expose().hex() == shared


def test_generated_keys_are_accepted():
    """PQXDH-02: no honest key is refused."""
    for _ in range(50):
        check_public_key(X25519KeyPair.generate().public)


@pytest.mark.parametrize("u", LOW_ORDER, ids=hex)
def test_low_order(u, refused):
    """P3: points of order 1, 2, 4 and 8 are refused, in each of their encodings."""
    mine = X25519KeyPair.generate()
    values = [u, u + P, u + 2**255]
    for value in values:
        if value < 2**256:
            with refused(Reason.BAD_POINT):
                mine.exchange(encoded(value))


def test_non_canonical(refused):
    """P3: 2^255 - 19 and above, and a set top bit, are refused."""
    honest = int.from_bytes(X25519KeyPair.generate().public, "little")
    for value in (P, P + 9, P + 18, 2**255 - 1, honest + 2**255, 2**256 - 1):
        with refused(Reason.BAD_POINT):
            check_public_key(encoded(value))


def test_twist(refused):
    """P3: exactly the points of the curve are accepted, none of the twist."""
    accepted = 0
    for _ in range(200):
        u = int.from_bytes(os.urandom(32), "little") % P
        if is_on_curve(u):
            check_public_key(encoded(u))
            accepted += 1
        else:
            with refused(Reason.BAD_POINT):
                check_public_key(encoded(u))
    assert 50 < accepted < 150


def test_keys_checked_together(refused):
    """P3: checking keys together accepts none that alone is refused, wherever it stands."""
    twist = next(u for u in range(2, 99) if not is_on_curve(u))
    for bad in (*LOW_ORDER, twist, P + 9):
        for place in range(4):
            keys = [X25519KeyPair.generate().public for _ in range(3)]
            keys.insert(place, encoded(bad))
            expect_public_keys(keys)
            for key in keys:
                if key == encoded(bad):
                    with refused(Reason.BAD_POINT):
                        check_public_key(key)
                else:
                    check_public_key(key)


@pytest.mark.parametrize("count", range(1, 7))
def test_keys_checked_together_are_remembered(count, monkeypatch):
    """Of two keys or more each passes its own check without another computation."""
    keys = [X25519KeyPair.generate().public for _ in range(count)]
    expect_public_keys(keys)
    if count > 1:
        monkeypatch.setattr(x25519, "_are_on_curve", None)
    for key in keys:
        check_public_key(key)


def test_what_is_remembered_is_bounded():
    """Keys of strangers do not pile up in memory."""
    for _ in range(300):
        check_public_key(X25519KeyPair.generate().public)
    assert 0 < len(x25519._good) <= 256
    x25519.forget_checked_keys()
    assert not x25519._good


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_length(refused, length):
    """P3: a key of another length is refused."""
    with refused(Reason.BAD_POINT):
        check_public_key(b"\x09" + bytes(max(length - 1, 0)) if length else b"")


def test_low_order_is_refused_twice(monkeypatch, refused):
    """P3: were the check of the key missing, an all-zero result would still be refused."""
    monkeypatch.setattr(x25519, "check_public_key", lambda _public: None)
    for u in LOW_ORDER:
        with refused(Reason.BAD_POINT):
            x25519.exchange(Secret(b"k" * 32), encoded(u))
