"""ML-KEM: agreement, key checks, lengths (P3)."""

import gc

import pytest

from e2ecall.crypto import hpke, mlkem, x25519
from e2ecall.crypto.mlkem import MLKEM768, MLKEM1024
from e2ecall.errors import Reason
from e2ecall.secret import Secret

both = pytest.mark.parametrize("kem", [MLKEM768, MLKEM1024], ids=lambda kem: kem.name)


@both
def test_agreement(kem):
    """Both sides get the same secret, from the seed alone, with FIPS 203's lengths."""
    keys = kem.generate()
    shared, ciphertext = kem.encapsulate(keys.public)
    assert kem.decapsulate(keys.seed, ciphertext) == shared
    assert kem.open_ciphertext(keys.seed, ciphertext) == (shared, keys.public)
    assert kem.from_seed(Secret(keys.seed.expose())) == keys
    assert (len(keys.seed), len(shared)) == (64, 32)
    assert (len(keys.public), len(ciphertext)) == (kem.public_bytes, kem.ciphertext_bytes)


@both
def test_implicit_rejection(kem):
    """FIPS 203: an altered ciphertext gives another secret and no error."""
    keys = kem.generate()
    shared, ciphertext = kem.encapsulate(keys.public)
    altered = bytes([ciphertext[0] ^ 1]) + ciphertext[1:]
    assert kem.decapsulate(keys.seed, altered) != shared


@both
def test_bad_public_keys(kem, refused):
    """P3: unreduced coefficients and wrong lengths are refused."""
    good = kem.generate().public
    unreduced = b"\x01\x0d\x00" + good[3:]
    for bad in (unreduced, b"\xff" * len(good), good[:-1], good + b"\0", b""):
        with refused(Reason.BAD_KEM_KEY):
            kem.check_public_key(bad)
        with refused(Reason.BAD_KEM_KEY):
            kem.encapsulate(bad)


@both
def test_bad_ciphertext_lengths(kem, refused):
    """P3: a ciphertext of another length is refused."""
    keys = kem.generate()
    for length in (0, kem.ciphertext_bytes - 1, kem.ciphertext_bytes + 1):
        with refused(Reason.MALFORMED):
            kem.decapsulate(keys.seed, bytes(length))


def _kept():
    gc.collect()
    tables = (mlkem._expanded_keys, mlkem._own_publics, hpke._loaded, x25519._derived)
    return [len(table) for table in tables]


def test_what_was_expanded_goes_with_its_secret():
    """S4: an expanded key is in memory no longer than the secret that it was made from."""
    before = _kept()
    keys = [kem.generate() for kem in (MLKEM768, MLKEM1024)]
    sealing = hpke.SealingKeyPair.generate()
    sealed = hpke.generate_sealed(sealing.public, b"text", b"")
    assert hpke.open_sealed(sealing.private, sealed, b"") == b"text"
    dh = x25519.X25519KeyPair.generate()
    assert _kept() == [n + more for n, more in zip(before, (2, 2, 1, 1), strict=True)]
    del keys, sealing, dh
    assert _kept() == before
