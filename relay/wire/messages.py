"""The signalling frames (spec/wire.md): requests of a client, replies and pushes of a relay.

Each WebSocket message is one frame ``[id, [type, fields ...]]``; a push has id 0. Types and
layouts only: what they do is in `relay.services` and `e2ecall.io`.
"""

from enum import IntEnum, unique
from typing import Annotated

from msgspec import Meta, Struct

from relay.wire.limits import (
    BOX_BYTES,
    CHALLENGE_BYTES,
    CODE_BYTES,
    MAX_BUNDLE_FIELDS,
    MAX_ENVELOPE,
    MAX_INVITATIONS,
    MAX_MESSAGE_TEXT,
    MAX_TOKENS,
    MESSAGE_ID_BYTES,
    TOKEN_BYTES,
)
from relay.wire.records import (
    DeviceId,
    Key32,
    PreKey,
    PreKeyBundle,
    Signature,
    SignedDeviceList,
    SignedSenderCertificate,
    UnixSeconds,
)

PROTOCOL_VERSION = 1

Username = Annotated[str, Meta(min_length=3, max_length=32)]
Token = Annotated[bytes, Meta(min_length=TOKEN_BYTES, max_length=TOKEN_BYTES)]
RegistrationCode = Annotated[bytes, Meta(min_length=CODE_BYTES, max_length=CODE_BYTES)]
MessageId = Annotated[bytes, Meta(min_length=MESSAGE_ID_BYTES, max_length=MESSAGE_ID_BYTES)]
Box = Annotated[bytes, Meta(min_length=BOX_BYTES, max_length=BOX_BYTES)]
DeliveryId = Annotated[int, Meta(ge=1, le=0x7FFF_FFFF_FFFF_FFFF)]
EnvelopeBytes = Annotated[bytes, Meta(min_length=1, max_length=MAX_ENVELOPE)]
Count = Annotated[int, Meta(ge=0, le=0xFFFF)]


class _Message(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Every message is an immutable array of fields behind its type number."""


@unique
class ErrorCode(IntEnum):
    """Why a request was refused."""

    BAD_REQUEST = 1
    NOT_LOGGED_IN = 2
    LOGIN_FAILED = 3
    USERNAME_TAKEN = 4
    BAD_USERNAME = 5
    REGISTRATION_CLOSED = 6
    NOT_REACHABLE = 7
    """No such user, or one who does not accept this: the relay never says which."""
    TOO_MANY = 8
    STALE = 9
    RETRY = 10


@unique
class Policy(IntEnum):
    """Who may fetch an account's bundle and send to it."""

    EVERYONE = 1
    CONTACTS = 2
    """Whoever shows one of the account's delivery tokens."""
    NOBODY = 3


@unique
class Binding(IntEnum):
    """What a log-in on this connection is bound to, besides the challenge."""

    NONE = 0
    ENDPOINT = 1
    """The certificate at the end of TLS."""


class TurnCredential(_Message, frozen=True):
    """``[username, password]`` for one side of one call's media, RFC 8489 long-term form."""

    username: Annotated[str, Meta(min_length=1, max_length=128)]
    password: Annotated[str, Meta(min_length=1, max_length=128)]

    def __repr__(self) -> str:
        """Show the user name alone."""
        return f"TurnCredential({self.username!r})"


class AccountRecipient(_Message, frozen=True, tag=1):
    """``[1, username, device_id]``."""

    username: Username
    device_id: DeviceId


class BoxRecipient(_Message, frozen=True, tag=2):
    """``[2, box]``: a random reply box."""

    box: Box


# --- requests ---------------------------------------------------------------------------------


class Register(_Message, frozen=True, tag=1):
    """Create an account; the signature is the identity key's over `register_bytes`.

    ``code`` is what a relay asks for that registers by invitation.
    """

    username: Username
    device_list: SignedDeviceList
    signature: Signature
    code: RegistrationCode | None


class Login(_Message, frozen=True, tag=2):
    """Authenticate this connection; the signature is the device's over `login_bytes`."""

    username: Username
    device_id: DeviceId
    signature: Signature


class UpdateDeviceList(_Message, frozen=True, tag=3):
    """Replace the account's device list by its next version."""

    device_list: SignedDeviceList


class PublishPrekeys(_Message, frozen=True, tag=4):
    """Add one-time prekeys and replace signed, sealing and last-resort ones."""

    prekeys: Annotated[tuple[PreKey, ...], Meta(max_length=MAX_BUNDLE_FIELDS)]


class PrekeyStatus(_Message, frozen=True, tag=5):
    """Ask how many one-time prekeys the relay still holds for this device."""


class FetchBundle(_Message, frozen=True, tag=6):
    """Ask for the prekeys of a device, or of the account's first when ``device_id`` is nil."""

    username: Username
    device_id: DeviceId | None
    token: Token | None


class FetchCertificate(_Message, frozen=True, tag=7):
    """Ask for a fresh sender certificate."""


class SetPolicy(_Message, frozen=True, tag=8):
    """Choose who can reach this account."""

    policy: Policy


class PutTokens(_Message, frozen=True, tag=9):
    """Replace the set of delivery-token hashes (SHA-256) that this account accepts."""

    hashes: Annotated[tuple[Key32, ...], Meta(max_length=MAX_BUNDLE_FIELDS)]


class OpenBox(_Message, frozen=True, tag=10):
    """Receive on the reply box that belongs to ``key``: box = SHA-256 of the labelled key."""

    key: Key32


class Send(_Message, frozen=True, tag=11):
    """Store an envelope for a recipient; the reply never tells whether anybody is there."""

    recipient: AccountRecipient | BoxRecipient
    message_id: MessageId
    envelope: EnvelopeBytes
    token: Token | None


class Ack(_Message, frozen=True, tag=12):
    """The deliveries were stored by the client; the relay forgets them."""

    delivery_ids: Annotated[tuple[DeliveryId, ...], Meta(min_length=1, max_length=64)]


class MediaTicket(_Message, frozen=True, tag=13):
    """Ask for the two TURN credentials of a call (authenticated only)."""


class DeleteAccount(_Message, frozen=True, tag=14):
    """Remove the account for good; the signature is the identity key's over `deletion_bytes`."""

    signature: Signature


class FetchOwnList(_Message, frozen=True, tag=15):
    """Ask for the own device list; the signature is the identity key's over `recovery_bytes`."""

    username: Username
    signature: Signature


class Enrol(_Message, frozen=True, tag=16):
    """Store the next device list; the signature is the identity key's over `register_bytes`."""

    username: Username
    device_list: SignedDeviceList
    signature: Signature


class Invitation(_Message, frozen=True):
    """``[hash, expires]``: the SHA-256 of a delivery token that is good until then."""

    hash: Key32
    expires: UnixSeconds


class PutInvitations(_Message, frozen=True, tag=17):
    """Replace the set of invitations of this account that nobody has taken up yet."""

    invitations: Annotated[tuple[Invitation, ...], Meta(max_length=MAX_INVITATIONS)]


class FetchAbuseContact(_Message, frozen=True, tag=18):
    """Ask which account of this relay takes reports."""


class AddTokens(_Message, frozen=True, tag=19):
    """Give a part of a set of token hashes that is too long for PutTokens.

    ``begin`` is how many hashes came before; with 0 a set begins anew.
    """

    begin: Annotated[int, Meta(ge=0, le=MAX_TOKENS)]
    hashes: Annotated[tuple[Key32, ...], Meta(min_length=1, max_length=MAX_BUNDLE_FIELDS)]


class UseTokens(_Message, frozen=True, tag=20):
    """Replace the set of delivery-token hashes by the ``count`` that AddTokens gave."""

    count: Annotated[int, Meta(ge=1, le=MAX_TOKENS)]


Request = (
    Register
    | Login
    | UpdateDeviceList
    | PublishPrekeys
    | PrekeyStatus
    | FetchBundle
    | FetchCertificate
    | SetPolicy
    | PutTokens
    | OpenBox
    | Send
    | Ack
    | MediaTicket
    | DeleteAccount
    | FetchOwnList
    | Enrol
    | PutInvitations
    | FetchAbuseContact
    | AddTokens
    | UseTokens
)


# --- replies ----------------------------------------------------------------------------------


class Done(_Message, frozen=True, tag=64):
    """The request was carried out (for Send: accepted, whatever became of it)."""


class Failure(_Message, frozen=True, tag=65):
    """The request was refused and changed nothing."""

    code: ErrorCode
    text: Annotated[str, Meta(max_length=MAX_MESSAGE_TEXT)]
    retry_after: Annotated[int, Meta(ge=0, le=86_400)]


class PrekeyCounts(_Message, frozen=True, tag=66):
    """One-time prekeys left."""

    x25519: Count
    mlkem1024: Count


class Bundle(_Message, frozen=True, tag=67):
    """Answer to FetchBundle."""

    bundle: PreKeyBundle


class Certificate(_Message, frozen=True, tag=68):
    """Answer to FetchCertificate."""

    certificate: SignedSenderCertificate


class BoxOpened(_Message, frozen=True, tag=69):
    """Answer to OpenBox: the address of the box, to be given to the peer."""

    box: Box


class Ticket(_Message, frozen=True, tag=70):
    """Answer to MediaTicket: ``a`` for the callee who asked, ``b`` for the caller."""

    a: TurnCredential
    b: TurnCredential
    expires: UnixSeconds


class OwnList(_Message, frozen=True, tag=71):
    """Answer to FetchOwnList; ``newest_device_id`` is the highest that the account ever had."""

    device_list: SignedDeviceList
    newest_device_id: DeviceId


class AbuseContact(_Message, frozen=True, tag=72):
    """Answer to FetchAbuseContact; nil: nobody takes reports."""

    username: Username | None


Reply = (
    Done
    | Failure
    | PrekeyCounts
    | Bundle
    | Certificate
    | BoxOpened
    | Ticket
    | OwnList
    | AbuseContact
)


# --- pushes -----------------------------------------------------------------------------------


class Hello(_Message, frozen=True, tag=96):
    """First frame of a connection: who the relay is and what this connection has to sign."""

    version: Annotated[int, Meta(ge=1, le=0xFFFF)]
    relay: Annotated[str, Meta(min_length=1, max_length=255)]
    relay_key: Key32
    challenge: Annotated[bytes, Meta(min_length=CHALLENGE_BYTES, max_length=CHALLENGE_BYTES)]
    turn: Annotated[tuple[str, ...], Meta(max_length=8)]
    time: UnixSeconds
    binding: Binding


class Deliver(_Message, frozen=True, tag=97):
    """An envelope; ``box`` says for which reply box, nil for the device that logged in."""

    delivery_id: DeliveryId
    box: Box | None
    envelope: EnvelopeBytes


class Displaced(_Message, frozen=True, tag=98):
    """The same device logged in elsewhere; this connection ends."""


class GoingAway(_Message, frozen=True, tag=99):
    """The relay stops; reconnect after ``delay_ms``."""

    delay_ms: Annotated[int, Meta(ge=0, le=600_000)]


class PrekeysLow(_Message, frozen=True, tag=100):
    """One-time prekeys of this device are running out: more should be published."""


class SetAside(_Message, frozen=True, tag=101):
    """So many envelopes of this device were never acknowledged and are not delivered any more."""

    count: Annotated[int, Meta(ge=1, le=0xFFFF)]


Push = Hello | Deliver | Displaced | GoingAway | PrekeysLow | SetAside

RequestId = Annotated[int, Meta(ge=1, le=0xFFFF_FFFF)]


class ClientFrame(_Message, frozen=True):
    """``[id, request]``."""

    id: RequestId
    body: Request


class ServerFrame(_Message, frozen=True):
    """``[id, reply]``, or ``[0, push]``."""

    id: Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]
    body: Reply | Push
