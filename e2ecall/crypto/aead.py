"""Authenticated encryption with fixed parameters: the three AEADs of the protocol.

AES-256-GCM for SFrame (RFC 9605), AES-256-GCM-SIV (RFC 8452) for the ratchet,
XChaCha20-Poly1305 for the store. Tags have their full 16 bytes. Nonces are the caller's:
nothing here prevents their reuse.
"""

from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESGCMSIV
from nacl import bindings
from nacl.exceptions import CryptoError

from e2ecall.errors import LocalProtocolError, Reason, RemoteProtocolError
from e2ecall.secret import Secret

KEY_BYTES: Final = 32
TAG_BYTES: Final = 16
GCM_NONCE_BYTES: Final = 12
XCHACHA_NONCE_BYTES: Final = 24

_Transform = Callable[[bytes, bytes, bytes | None], bytes]


class AES256GCM:
    """AES-256-GCM under one key; keep the object, setting a key up costs more than a frame."""

    __slots__ = ("_decrypt", "encrypt")

    encrypt: _Transform
    """``encrypt(nonce, plaintext, aad)`` returns ciphertext || 16-byte tag.

    The library's bound method itself: a wrapper would cost as much as a small frame.
    """

    def __init__(self, key: Secret) -> None:
        cipher = AESGCM(_checked(key))
        self.encrypt = cipher.encrypt
        self._decrypt = cipher.decrypt

    def decrypt(self, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes:
        """Return the plaintext of ciphertext || tag.

        Raises:
            RemoteProtocolError: `Reason.NOT_AUTHENTIC`.
        """
        try:
            return self._decrypt(nonce, ciphertext, aad)
        except InvalidTag as error:
            raise RemoteProtocolError(Reason.NOT_AUTHENTIC) from error


class AES256GCMSIV:
    """AES-256-GCM-SIV (RFC 8452) under one key: a repeated nonce reveals only repetition."""

    __slots__ = ("_cipher",)

    def __init__(self, key: Secret) -> None:
        self._cipher = AESGCMSIV(_checked(key))

    def encrypt(self, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
        """Return ciphertext || 16-byte tag; the nonce has 12 bytes."""
        return self._cipher.encrypt(nonce, plaintext, aad)

    def decrypt(self, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes:
        """Return the plaintext of ciphertext || tag.

        Raises:
            RemoteProtocolError: `Reason.NOT_AUTHENTIC`.
        """
        if len(ciphertext) < TAG_BYTES:
            raise RemoteProtocolError(Reason.NOT_AUTHENTIC)
        try:
            return self._cipher.decrypt(nonce, ciphertext, aad)
        except InvalidTag as error:
            raise RemoteProtocolError(Reason.NOT_AUTHENTIC) from error


class XChaCha20Poly1305:
    """XChaCha20-Poly1305 (libsodium, IETF variant) under one key, with random 24-byte nonces."""

    __slots__ = ("_key",)

    def __init__(self, key: Secret) -> None:
        _checked(key)
        self._key = key

    def encrypt(self, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
        """Return ciphertext || 16-byte tag; the nonce has 24 bytes."""
        return bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(
            plaintext, aad, nonce, self._key.expose()
        )

    def decrypt(self, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes:
        """Return the plaintext of ciphertext || tag.

        Raises:
            RemoteProtocolError: `Reason.NOT_AUTHENTIC`.
        """
        if len(nonce) != XCHACHA_NONCE_BYTES or len(ciphertext) < TAG_BYTES:
            raise RemoteProtocolError(Reason.NOT_AUTHENTIC)
        try:
            return bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(
                ciphertext, aad, nonce, self._key.expose()
            )
        except CryptoError as error:
            raise RemoteProtocolError(Reason.NOT_AUTHENTIC) from error


def _checked(key: Secret) -> bytes:
    if len(key) != KEY_BYTES:
        raise LocalProtocolError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
    return key.expose()
