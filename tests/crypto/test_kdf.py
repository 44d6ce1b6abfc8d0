"""Hash, KDF and MAC against published vectors and against their definition."""

import hashlib
import hmac

from e2ecall.crypto.kdf import (
    hkdf,
    hmac_sha512,
    labelled_hash,
    labelled_kdf,
    labelled_mac,
    verify_equal,
    verify_mac,
)
from e2ecall.errors import Reason
from e2ecall.secret import Secret


def by_definition(salt, ikm, info, length):
    """RFC 5869 section 2, written out."""
    key = hmac.digest(salt, ikm, "sha512")
    output, block = b"", b""
    for counter in range(1, -(-length // 64) + 1):
        block = hmac.digest(key, block + info + bytes([counter]), "sha512")
        output += block
    return output[:length]


def test_hkdf():
    """HKDF-SHA-512 is RFC 5869's, for one block and for several."""
    for length in (16, 64, 65, 200):
        output = hkdf(salt=b"salt", ikm=Secret(b"ikm"), info=b"info", length=length)
        assert output == by_definition(b"salt", b"ikm", b"info", length)


def test_labelled_hash():
    """H is SHA-512 over the length-prefixed label and parts."""
    data = b"\x00\x10e2ecall/1 thing" + b"\0\0\0\x01a" + b"\0\0\0\0"
    expected = b"\x00\x0fe2ecall/1 thing" + data[17:]
    assert labelled_hash("thing", b"a", b"") == hashlib.sha512(expected).digest()
    assert labelled_hash("thing", b"ab") != labelled_hash("thing", b"a", b"b")
    assert labelled_hash("thing", b"a") != labelled_hash("other", b"a")


def test_labelled_kdf():
    """KDF length-prefixes its secrets and takes label and context as info."""
    output = labelled_kdf(
        "thing", salt=b"s", secrets=(Secret(b"ab"), Secret(b"")), context=(b"c",), length=80
    )
    ikm = b"\0\0\0\x02ab" + b"\0\0\0\0"
    assert output == by_definition(b"s", ikm, b"\x00\x0fe2ecall/1 thing\0\0\0\x01c", 80)


def test_hmac_sha512():
    """RFC 4231 test case 2."""
    tag = hmac_sha512(Secret(b"Jefe"), b"what do ya want for nothing?")
    assert tag.hex().startswith("164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd6")
    assert len(tag) == 64


def test_mac_verification(refused):
    """R12, PQXDH-01: a wrong or shortened MAC is refused."""
    tag = labelled_mac("thing", Secret(b"k" * 32), b"a")
    verify_mac(tag, tag)
    for wrong in (tag[:-1], tag[:16], b"", tag[:-1] + bytes([tag[-1] ^ 1])):
        with refused(Reason.BAD_MAC):
            verify_mac(tag, wrong)
    with refused(Reason.BAD_COMMITMENT):
        verify_equal(b"a", b"b", Reason.BAD_COMMITMENT)
