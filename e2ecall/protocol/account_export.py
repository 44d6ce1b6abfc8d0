"""An account as a file that moves to another device (spec/account.md): sealed and opened.

Identity, contacts and policy; never a key of a ratchet, a prekey or a device. What becomes of it on
the other device is `e2ecall.client.account`.
"""

from typing import Annotated, Final

from msgspec import Meta, Struct
from msgspec.structs import astuple

from e2ecall.crypto.aead import XCHACHA_NONCE_BYTES, XChaCha20Poly1305
from e2ecall.crypto.argon2 import RECOMMENDED, SALT_BYTES, Argon2Cost, argon2id
from e2ecall.crypto.random import generate_bytes
from e2ecall.errors import ExportError, LocalProtocolError, RemoteProtocolError, StoreError
from e2ecall.protocol.encoding import decode_stored, encode_stored
from e2ecall.secret import Secret
from relay.wire.codec import decode, encode
from relay.wire.errors import WireError
from relay.wire.labels import labelled
from relay.wire.messages import Policy, Token
from relay.wire.records import AddressText, DeviceId, Hash64, Key32, UnixSeconds

MAGIC: Final = b"e2ecall account\n"
VERSION: Final = 2
"""Of what is written; exports of version 1, which say less, can be read."""

PADDING: Final = 4_096
"""Bytes: the length tells no more of the number of contacts than this."""

MAX_EXPORT: Final = 2 << 20

_LENGTH_BYTES: Final = 2
_MAX_HEADER: Final = 256


class FirstContact(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``[address, identity key or nil, verified, blocked, token for them, token of theirs, used]``.

    As in version 1. ``used`` is the last use in Unix seconds: it decides which tokens the relay
    keeps.
    """

    address: AddressText
    identity_key: Key32 | None
    verified: bool
    blocked: bool
    token: Token | None
    given_token: Token | None
    used: UnixSeconds

    def __repr__(self) -> str:
        """Show the address alone: tokens are secrets."""
        return f"{type(self).__name__}({self.address!r})"


class ExportedContact(FirstContact, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The same, and ``[..., fingerprint, audio, video]``.

    ``fingerprint`` is of the identity in an invitation that was taken up (REACH-09), ``audio`` and
    ``video`` are the rule for this person's calls (REACH-12); each may be nil.
    """

    fingerprint: Hash64 | None = None
    audio: bool | None = None
    video: bool | None = None


class ExportedRelay(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``[name, its Ed25519 key as pinned]``."""

    name: Annotated[str, Meta(min_length=1, max_length=255)]
    key: Key32


class ExportedAccount(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``[version, address, identity seed, device id, list version, policy, relays, contacts]``.

    And then whether first calls ring (REACH-06), whose calls ring and whose pictures are seen
    (REACH-12). ``newest_device_id`` and ``list_version`` are the least that the account had then.
    """

    version: Annotated[int, Meta(ge=VERSION, le=VERSION)]
    address: AddressText
    identity_seed: Key32
    newest_device_id: DeviceId
    list_version: Annotated[int, Meta(ge=1, le=0xFFFF_FFFF)]
    policy: Policy
    relays: tuple[ExportedRelay, ...]
    contacts: tuple[ExportedContact, ...]
    strangers_ring: bool = True
    audio: Policy = Policy.EVERYONE
    video: Policy = Policy.EVERYONE

    def __repr__(self) -> str:
        """Show the address alone."""
        return f"ExportedAccount({self.address!r})"


class _FirstAccount(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Version 1: without rules for calls, and without what invitations pinned."""

    version: Annotated[int, Meta(ge=1, le=1)]
    address: AddressText
    identity_seed: Key32
    newest_device_id: DeviceId
    list_version: Annotated[int, Meta(ge=1, le=0xFFFF_FFFF)]
    policy: Policy
    relays: tuple[ExportedRelay, ...]
    contacts: tuple[FirstContact, ...]

    def account(self) -> ExportedAccount:
        return ExportedAccount(
            VERSION,
            self.address,
            self.identity_seed,
            self.newest_device_id,
            self.list_version,
            self.policy,
            self.relays,
            tuple(ExportedContact(*astuple(contact)) for contact in self.contacts),
        )


class _Header(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    version: Annotated[int, Meta(ge=0, le=255)]
    salt: Annotated[bytes, Meta(min_length=SALT_BYTES, max_length=SALT_BYTES)]
    memory_kib: int
    iterations: int
    lanes: int
    nonce: Annotated[bytes, Meta(min_length=XCHACHA_NONCE_BYTES, max_length=XCHACHA_NONCE_BYTES)]


def seal_export(
    account: ExportedAccount, passphrase: Secret, *, cost: Argon2Cost, salt: bytes, nonce: bytes
) -> bytes:
    """Return the file; ``salt`` and ``nonce`` are fresh random bytes.

    Raises:
        StoreError: it would be longer than what could be read again.
        LocalProtocolError: the passphrase is empty.
    """
    if not len(passphrase):
        raise LocalProtocolError("an empty passphrase protects nothing")
    header = encode(_Header(VERSION, salt, cost.memory_kib, cost.iterations, cost.lanes, nonce))
    start = MAGIC + len(header).to_bytes(_LENGTH_BYTES) + header
    plain = encode_stored(account) + b"\x80"
    padded = plain + bytes(-len(plain) % PADDING)
    cipher = _cipher(passphrase, salt, cost)
    return start + cipher.encrypt(nonce, padded, labelled("account export", start))


def generate_export(
    account: ExportedAccount, passphrase: Secret, cost: Argon2Cost = RECOMMENDED
) -> bytes:
    """Draw salt and nonce and return the file; raises as `seal_export`."""
    salt, nonce = generate_bytes(SALT_BYTES), generate_bytes(XCHACHA_NONCE_BYTES)
    return seal_export(account, passphrase, cost=cost, salt=salt, nonce=nonce)


def open_export(data: bytes, passphrase: Secret) -> ExportedAccount:
    """Return the account in a file of `seal_export`.

    Raises:
        ExportError: it is no such file, of a newer version, damaged, or of another passphrase.
    """
    header, start = _read_header(data)
    try:
        cost = Argon2Cost(header.memory_kib, header.iterations, header.lanes)
        cipher = _cipher(passphrase, header.salt, cost)
        padded = cipher.decrypt(header.nonce, data[len(start) :], labelled("account export", start))
    except LocalProtocolError as error:  # the cost: refused before it is spent
        raise _damaged() from error
    except RemoteProtocolError as error:
        raise ExportError(
            "the passphrase does not open this export",
            hint="if you are sure of it, the file is damaged: take another copy",
        ) from error
    plain, mark, padding = padded.rpartition(b"\x80")
    if not mark or any(padding):
        raise _damaged()
    try:
        if header.version == VERSION:
            return decode_stored(plain, ExportedAccount)
        return decode_stored(plain, _FirstAccount).account()
    except StoreError as error:
        raise _damaged() from error


def _read_header(data: bytes) -> tuple[_Header, bytes]:
    """Return the header and all bytes up to its end; nothing of it is authenticated yet."""
    if not data.startswith(MAGIC):
        raise ExportError("this is not an exported account")
    at = len(MAGIC) + _LENGTH_BYTES
    end = at + int.from_bytes(data[len(MAGIC) : at])
    if len(data) > MAX_EXPORT:
        raise _damaged()
    try:
        header = decode(data[at:end], _Header, limit=_MAX_HEADER)
    except WireError as error:
        raise _damaged() from error
    if header.version not in {1, VERSION}:
        raise ExportError(
            "this export has a version that this program does not know", hint="update e2ecall"
        )
    return header, data[:end]


def _cipher(passphrase: Secret, salt: bytes, cost: Argon2Cost) -> XChaCha20Poly1305:
    return XChaCha20Poly1305(argon2id(passphrase, salt=salt, cost=cost, length=32))


def _damaged() -> ExportError:
    return ExportError("this export is damaged", hint="take another copy of it")
