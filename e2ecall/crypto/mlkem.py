"""ML-KEM-768 and ML-KEM-1024 (FIPS 203) with private keys kept as their 64-byte seeds.

Encapsulation keys are checked as FIPS 203 section 7.2 asks before use. A manipulated
ciphertext gives another shared secret (implicit rejection), never an error. What a seed expands to
is kept in memory beside the seed.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.mlkem import (
    MLKEM768PrivateKey,
    MLKEM768PublicKey,
    MLKEM1024PrivateKey,
    MLKEM1024PublicKey,
)

from e2ecall.errors import Reason, RemoteProtocolError
from e2ecall.secret import Beside, Secret

SEED_BYTES: Final = 64
SHARED_SECRET_BYTES: Final = 32

_LOADED_KEYS: Final = 64
"""Public keys kept expanded: each is checked on arrival and used a moment later."""

_expanded_keys: Final = Beside[Any]()
_own_publics: Final = Beside[bytes]()
"""Private and public keys of seeds that are in use: expanding a seed costs four decapsulations."""


@dataclass(frozen=True, slots=True)
class KEMKeyPair:
    """A decapsulation key as its seed (d || z, FIPS 203) with its encapsulation key."""

    seed: Secret
    public: bytes


@dataclass(frozen=True, slots=True)
class KEM:
    """One parameter set. Lengths are in bytes; use `MLKEM768` or `MLKEM1024`."""

    name: str
    public_bytes: int
    ciphertext_bytes: int
    _private_key: Any
    _public_key: Any

    def generate(self) -> KEMKeyPair:
        """Draw a fresh key pair."""
        key = self._private_key.generate()
        seed = Secret(key.private_bytes_raw())
        _expanded_keys.put(seed, key)
        return KEMKeyPair(seed, self._public(seed, key))

    def from_seed(self, seed: Secret) -> KEMKeyPair:
        """Expand a stored 64-byte seed."""
        return KEMKeyPair(seed, self._public(seed, self._expanded(seed)))

    def check_public_key(self, public: bytes) -> None:
        """Accept ``public`` only with the right length and all coefficients reduced.

        Raises:
            RemoteProtocolError: `Reason.BAD_KEM_KEY`.
        """
        self.load_public_key(public)

    def encapsulate(self, public: bytes) -> tuple[Secret, bytes]:
        """Encapsulate to ``public``; return ``(32-byte shared secret, ciphertext)``.

        Raises:
            RemoteProtocolError: `Reason.BAD_KEM_KEY`, as in `check_public_key`.
        """
        shared, ciphertext = self.load_public_key(public).encapsulate()
        return Secret(shared), ciphertext

    def decapsulate(self, seed: Secret, ciphertext: bytes) -> Secret:
        """Return the 32-byte shared secret of ``ciphertext``.

        Raises:
            RemoteProtocolError: `Reason.MALFORMED` for a ciphertext of another length.
        """
        self._check_length(ciphertext)
        return Secret(self._expanded(seed).decapsulate(ciphertext))

    def open_ciphertext(self, seed: Secret, ciphertext: bytes) -> tuple[Secret, bytes]:
        """Return ``(shared secret, own encapsulation key)``.

        Raises:
            RemoteProtocolError: as `decapsulate` does.
        """
        self._check_length(ciphertext)
        key = self._expanded(seed)
        return Secret(key.decapsulate(ciphertext)), self._public(seed, key)

    def _check_length(self, ciphertext: bytes) -> None:
        if len(ciphertext) != self.ciphertext_bytes:
            raise RemoteProtocolError(Reason.MALFORMED)

    def _expanded(self, seed: Secret) -> Any:
        key = _expanded_keys.get(seed)
        if key is None:
            key = self._private_key.from_seed_bytes(seed.expose())
            _expanded_keys.put(seed, key)
        return key

    def _public(self, seed: Secret, key: Any) -> bytes:
        public = _own_publics.get(seed)
        if public is None:
            public = key.public_key().public_bytes_raw()
            _own_publics.put(seed, public)
        return public

    def load_public_key(self, public: bytes) -> Any:
        """Return the library's object for a checked key, for `e2ecall.crypto.hpke` alone.

        Raises:
            RemoteProtocolError: `Reason.BAD_KEM_KEY`.
        """
        if len(public) != self.public_bytes:
            raise RemoteProtocolError(Reason.BAD_KEM_KEY)
        return _load_public_key(self._public_key, public)


@lru_cache(maxsize=_LOADED_KEYS)
def _load_public_key(kind: Any, public: bytes) -> Any:
    try:
        return kind.from_public_bytes(public)
    except ValueError as error:
        raise RemoteProtocolError(Reason.BAD_KEM_KEY) from error


MLKEM768: Final = KEM("ML-KEM-768", 1184, 1088, MLKEM768PrivateKey, MLKEM768PublicKey)
MLKEM1024: Final = KEM("ML-KEM-1024", 1568, 1568, MLKEM1024PrivateKey, MLKEM1024PublicKey)
