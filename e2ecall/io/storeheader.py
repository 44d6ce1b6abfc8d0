"""The header of a store (spec/store.md, "File"): how a passphrase opens the master key.

Bytes and keys only; where the header lies is `e2ecall.io.storefile`.
"""

from typing import Annotated, Final

from msgspec import Meta, Struct

from e2ecall.crypto.aead import XCHACHA_NONCE_BYTES, XChaCha20Poly1305
from e2ecall.crypto.argon2 import SALT_BYTES, Argon2Cost, argon2id
from e2ecall.crypto.random import generate_bytes, generate_secret
from e2ecall.secret import Secret
from relay.wire.codec import decode, encode
from relay.wire.labels import labelled

_MASTER_BYTES: Final = 32
_WRAPPED_BYTES: Final = 48
_MAX_HEADER: Final = 1024


class Header(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``[format, salt, memory_kib, iterations, lanes, nonce, wrapped master key]``, in clear."""

    format: Annotated[int, Meta(ge=0, le=255)]
    salt: Annotated[bytes, Meta(min_length=SALT_BYTES, max_length=SALT_BYTES)]
    memory_kib: int
    iterations: int
    lanes: int
    nonce: Annotated[bytes, Meta(min_length=XCHACHA_NONCE_BYTES, max_length=XCHACHA_NONCE_BYTES)]
    wrapped: Annotated[bytes, Meta(min_length=_WRAPPED_BYTES, max_length=_WRAPPED_BYTES)]

    @property
    def cost(self) -> Argon2Cost:
        """The cost of the passphrase.

        Raises:
            LocalProtocolError: it is not acceptable (STORE-02).
        """
        return Argon2Cost(self.memory_kib, self.iterations, self.lanes)


def generate_header(version: int, passphrase: Secret, cost: Argon2Cost) -> tuple[bytes, Secret]:
    """Draw a master key; return the encoded header that wraps it, and the key."""
    master = generate_secret(_MASTER_BYTES)
    salt, nonce = generate_bytes(SALT_BYTES), generate_bytes(XCHACHA_NONCE_BYTES)

    def header(wrapped: bytes) -> Header:
        return Header(version, salt, cost.memory_kib, cost.iterations, cost.lanes, nonce, wrapped)

    bare = header(bytes(_WRAPPED_BYTES))
    wrapped = _wrapper(passphrase, bare).encrypt(nonce, master.expose(), _aad(bare))
    return encode(header(wrapped)), master


def read_header(data: bytes) -> Header:
    """Read a header, which nothing vouches for before `unwrap`.

    Raises:
        WireError: it is none.
    """
    return decode(data, Header, limit=_MAX_HEADER)


def unwrap(header: Header, passphrase: Secret) -> Secret:
    """Return the master key; takes as long as the header's cost says.

    Raises:
        LocalProtocolError: the header asks for a cost that is not acceptable (STORE-02).
        RemoteProtocolError: another passphrase, or the header was altered.
    """
    wrapper = _wrapper(passphrase, header)
    return Secret(wrapper.decrypt(header.nonce, header.wrapped, _aad(header)))


def _wrapper(passphrase: Secret, header: Header) -> XChaCha20Poly1305:
    return XChaCha20Poly1305(argon2id(passphrase, salt=header.salt, cost=header.cost, length=32))


def _aad(header: Header) -> bytes:
    cost = encode([header.memory_kib, header.iterations, header.lanes])
    return labelled("store master key", bytes([header.format]), header.salt, cost)
