"""Ed25519: RFC 8032's example and what strict verification refuses (P3)."""

import pytest

from e2ecall.crypto.ed25519 import Ed25519KeyPair, verify
from e2ecall.errors import Reason
from e2ecall.secret import Secret

L = 2**252 + 27742317777372353535851937790883648493
P = 2**255 - 19


def test_rfc_8032():
    """IDENTITY-02: signatures are RFC 8032's (section 7.1, test 1)."""
    seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
    keys = Ed25519KeyPair.from_seed(Secret(bytes.fromhex(seed)))
    assert keys.public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert keys.sign(b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e"
        "39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )
    verify(keys.public, b"", keys.sign(b""))


def test_altered(refused):
    """A signature of another message, key, or length is refused."""
    keys = Ed25519KeyPair.generate()
    signature = keys.sign(b"message")
    verify(keys.public, b"message", signature)
    for key, message, shown in (
        (keys.public, b"massage", signature),
        (Ed25519KeyPair.generate().public, b"message", signature),
        (keys.public, b"message", signature[:-1]),
        (keys.public, b"message", signature + b"\0"),
        (keys.public[:-1], b"message", signature),
        (keys.public, b"message", bytes(64)),
    ):
        with refused(Reason.BAD_SIGNATURE):
            verify(key, message, shown)


def test_unreduced_scalar(refused):
    """P3: s + L in the place of s is refused: a message has one signature by its key."""
    keys = Ed25519KeyPair.generate()
    signature = keys.sign(b"m")
    s = int.from_bytes(signature[32:], "little") + L
    with refused(Reason.BAD_SIGNATURE):
        verify(keys.public, b"m", signature[:32] + s.to_bytes(32, "little"))


@pytest.mark.parametrize("y", [0, 1, P - 1, P, P + 1, 2**255 - 1], ids=hex)
@pytest.mark.parametrize("sign", [0, 1])
def test_low_order_key(refused, y, sign):
    """P3: under low-order or non-canonical keys no signature holds, also not R = A, s = 0."""
    key = (y | sign << 255).to_bytes(32, "little")
    for r in (key, b"\x01" + bytes(31)):
        with refused(Reason.BAD_SIGNATURE):
            verify(key, b"m", r + bytes(32))
