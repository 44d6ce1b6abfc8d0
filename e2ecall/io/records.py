"""What a store keeps and how a record is sealed (spec/store.md, "Records").

Keys and bytes only: it opens no file, and knows nothing of what the records mean.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, unique
from typing import Final

from msgspec import Struct

from e2ecall.crypto.aead import TAG_BYTES, XCHACHA_NONCE_BYTES, XChaCha20Poly1305
from e2ecall.crypto.kdf import labelled_kdf, labelled_mac
from e2ecall.crypto.random import generate_bytes
from e2ecall.errors import StoreError
from e2ecall.secret import Secret
from relay.wire.codec import decode, encode
from relay.wire.labels import labelled

MAX_RECORD: Final = 1 << 20
"""Bytes of a record with its kind and key; the largest, a peer with six sessions, stays below."""

NAME_BYTES: Final = 32

_KEY_BYTES: Final = 32


@unique
class RecordKind(IntEnum):
    """What a record is; sealed with it, so that one kind cannot stand in for another."""

    ACCOUNT = 1
    PREKEYS = 2
    PEER = 3
    CONTACT = 4
    RELAY = 5
    GUARD = 6
    INBOX = 7
    REQUEST = 8
    REACH = 9
    INVITATION = 10
    HISTORY = 11
    CALL_RULE = 12
    GAP = 13


Records = dict[tuple[RecordKind, bytes], bytes]
"""Values by kind and key: all that a store holds."""


@dataclass(frozen=True, slots=True)
class Change:
    """Put ``value`` under (kind, key), or delete what is there when ``value`` is None."""

    kind: RecordKind
    key: bytes = field(repr=False)
    value: bytes | None = field(repr=False)


class Record(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``[kind, key, value]``, the plaintext of a row."""

    kind: RecordKind
    key: bytes
    value: bytes

    def __repr__(self) -> str:
        """Show the kind alone: records hold keys."""
        return f"Record({self.kind!r})"


class RecordKeys:
    """The three keys below the master key: to seal rows, to name them, to vouch for their set."""

    def __init__(self, master: Secret) -> None:
        def derive(purpose: str) -> Secret:
            return Secret(labelled_kdf(purpose, salt=b"", secrets=[master], length=_KEY_BYTES))

        self._cipher = XChaCha20Poly1305(derive("store record key"))
        self._naming_key = derive("store naming key")
        self._manifest_key = derive("store manifest key")

    def name(self, kind: RecordKind, key: bytes) -> bytes:
        """Return the row id of a record: it tells nothing without the key (STORE-04)."""
        mac = labelled_mac("store record name", self._naming_key, bytes([kind]), key)
        return mac[:NAME_BYTES]

    def seal(self, record: Record) -> tuple[bytes, bytes]:
        """Return row id and row value. The id is authenticated with it (STORE-05).

        Raises:
            StoreError: longer than `MAX_RECORD`; it could not be read again.
        """
        name = self.name(record.kind, record.key)
        plain = encode(record)
        if len(plain) > MAX_RECORD:
            raise StoreError("a record is too long for the store")
        nonce = generate_bytes(XCHACHA_NONCE_BYTES)
        return name, nonce + self._cipher.encrypt(nonce, plain, labelled("store record", name))

    def open(self, name: bytes, sealed: bytes) -> Record:
        """Return what is in a row.

        Raises:
            RemoteProtocolError: it is not what was written under this id.
            WireError: it was written in another format.
        """
        nonce, ciphertext = sealed[:XCHACHA_NONCE_BYTES], sealed[XCHACHA_NONCE_BYTES:]
        plain = self._cipher.decrypt(nonce, ciphertext, labelled("store record", name))
        return decode(plain, Record, limit=MAX_RECORD)

    def manifest(self, tags: Mapping[bytes, bytes]) -> bytes:
        """Return the 64-byte MAC over which rows there are, by id and tag (STORE-06)."""
        rows = b"".join(name + tags[name] for name in sorted(tags))
        return labelled_mac("store manifest", self._manifest_key, rows)


def tag(sealed: bytes) -> bytes:
    """Return the tag at the end of a row's value: it names exactly this writing of it."""
    return sealed[-TAG_BYTES:]
