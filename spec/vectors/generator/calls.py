"""A call's values and keys (spec/call.md, spec/callkeys.md), with nothing left to chance."""

from dataclasses import dataclass
from typing import ClassVar

from spec.vectors.generator.encoding import Value, enc
from spec.vectors.generator.mlkem import encapsulate
from spec.vectors.generator.people import ALICE, BOB, Account
from spec.vectors.generator.primitives import DH, KDF, MAC, H, dh_key, draw, kem_key, u8, u16, u32

NUMBERS = {
    "Offer": 1,
    "Ringing": 2,
    "Reveal": 3,
    "Answer": 4,
    "Decline": 5,
    "Busy": 6,
    "Cancel": 7,
    "Hangup": 8,
    "Candidates": 9,
    "MediaState": 10,
    "Rekey": 11,
    "RekeyReply": 12,
    "RekeyRequest": 13,
    "Text": 14,
    "Renegotiate": 15,
    "Path": 16,
    "PathReply": 17,
    "PathReady": 18,
    "PathRequest": 19,
}
DIRECTION = {"caller": b"\x01", "callee": b"\x02"}
SENDER = {"caller": 0, "callee": 1}

MICROPHONE: Value = [0, 1, 111, 0x11111111, None, None]
CAMERA: Value = [1, 2, 96, 0x22222222, 97, 0x33333333]
SCREEN: Value = [2, 2, 96, 0x44444444, 97, 0x55555555]
SCREEN_SOUND: Value = [3, 1, 111, 2**32 - 1, None, None]


def media(who: str, streams: Value = (MICROPHONE, CAMERA)) -> list[Value]:
    """Return a media description."""
    pwd = f"{who}/password+{'x' * 22}"
    return [draw(f"{who} fingerprint"), f"{who[:3]}+", pwd, streams]


def state(
    muted: bool,
    camera: bool,
    screen: bool = False,
    held: bool = False,
    recording: bool = False,
) -> list[Value]:
    """Return the body of a MediaState."""
    return [muted, camera, screen, held, recording]


CANDIDATE: Value = [1, "198.18.0.7", 49_152]
OTHER_CANDIDATE: Value = [1, "198.19.255.254", 65_535]


@dataclass(frozen=True)
class Party:
    """One end, as four parts of a hash."""

    account: Account
    session_hash: bytes

    @property
    def parts(self) -> tuple[bytes, ...]:
        """Address, device id, identity key, session hash."""
        device_id = u16(self.account.devices[0].device_id)
        address = self.account.address.encode()
        return address, device_id, self.account.identity_key, self.session_hash

    @property
    def shown(self) -> dict[str, bytes | int | str]:
        """The same for a vector."""
        return {
            "address": self.account.address,
            "device_id": self.account.devices[0].device_id,
            "identity_key": self.account.identity_key,
            "session_hash": self.session_hash,
        }


@dataclass(frozen=True)
class CallValues:
    """One call, by its name: all shares, secrets and keys."""

    name: str
    caller_account: Account = ALICE
    callee_account: Account = BOB
    wants_video: bool = True

    def drawn(self, what: str, length: int = 32) -> bytes:
        """Draw one value of this call."""
        return draw(f"call {self.name} {what}", length)

    @property
    def call_id(self) -> bytes:
        """16 bytes."""
        return self.drawn("id", 16)

    @property
    def caller(self) -> Party:
        """The caller's end."""
        return Party(self.caller_account, self.drawn("session hash", 64))

    @property
    def callee(self) -> Party:
        """The callee's end."""
        return Party(self.callee_account, self.drawn("session hash", 64))

    @property
    def commitment(self) -> bytes:
        """C."""
        parts = *self.caller.parts, *self.callee.parts
        return H("call commitment", self.call_id, *parts, self.drawn("nonce"))

    @property
    def encapsulated(self) -> tuple[bytes, bytes]:
        """ML-KEM secret and ciphertext."""
        return encapsulate(768, kem_key(768, self.drawn("kem", 64)), self.drawn("m"))

    @property
    def offer(self) -> list[Value]:
        """The Offer."""
        return [
            1,
            self.call_id,
            dh_key(self.drawn("caller dh")),
            kem_key(768, self.drawn("kem", 64)),
            self.drawn("seed"),
            self.commitment,
            media("caller"),
            self.wants_video,
            self.drawn("caller box"),
        ]

    @property
    def ringing(self) -> list[Value]:
        """The Ringing."""
        return [
            2,
            self.call_id,
            dh_key(self.drawn("callee dh")),
            self.encapsulated[1],
            media("callee"),
            self.drawn("callee box"),
            ["1800043200:" + "a" * 44, "cGFzc3dvcmQgb2YgdGhlIGNhbGxlcg=="],
        ]

    @property
    def transcript(self) -> bytes:
        """T."""
        parts = *self.caller.parts, *self.callee.parts
        data = enc(self.offer), enc(self.ringing)
        return H("call transcript", u16(1), self.call_id, *parts, *data)

    @property
    def dh_secret(self) -> bytes:
        """The X25519 secret."""
        return DH(self.drawn("caller dh"), dh_key(self.drawn("callee dh")))

    @property
    def call_key(self) -> bytes:
        """The call key."""
        secrets = [self.dh_secret, self.encapsulated[0], self.drawn("seed")]
        return KDF("call key", self.transcript, secrets, [], 64)

    @property
    def epoch(self) -> "Epoch":
        """Epoch 0."""
        secret = KDF("call epoch", self.transcript, [self.call_key], [u32(0)], 64)
        return Epoch(self.transcript, 0, secret)

    @property
    def sas(self) -> int:
        """The spoken code's 24 bits."""
        code = KDF("call sas", self.transcript, [self.call_key], [self.drawn("nonce")], 3)
        return int.from_bytes(code)

    def message(
        self, kind: str, sender: str, counter: int, *body: Value, epoch: "Epoch | None" = None
    ) -> list[Value]:
        """Return a message after Ringing with its MAC, of epoch 0 or of another."""
        mac = (epoch or self.epoch).mac(self.call_id, kind, sender, counter, *body)
        return [NUMBERS[kind], self.call_id, counter, *body, mac]

    def bare(self, kind: str, counter: int, reason: int) -> list[Value]:
        """Return a Decline, Busy or Cancel without a MAC."""
        return [NUMBERS[kind], self.call_id, counter, reason, None]


@dataclass(frozen=True)
class Epoch:
    """One epoch's keys."""

    transcript: bytes
    number: int
    secret: bytes

    def mac_key(self, sender: str) -> bytes:
        """The MAC key of a direction."""
        context = [u32(self.number), DIRECTION[sender]]
        return KDF("call mac key", self.transcript, [self.secret], context, 64)

    def base_key(self, stream: int, sender: str) -> bytes:
        """The SFrame base key of a stream."""
        context = [u32(self.number), u8(stream), u8(SENDER[sender])]
        return KDF("call frame key", self.transcript, [self.secret], context, 32)

    def kid(self, stream: int, sender: str) -> int:
        """The SFrame key id of a stream (spec/sframe.md)."""
        return self.number << 12 | SENDER[sender] << 4 | stream

    def mac(self, call_id: bytes, kind: str, sender: str, counter: int, *body: Value) -> bytes:
        """The MAC of a message."""
        return MAC(
            "call message",
            self.mac_key(sender),
            call_id,
            DIRECTION[sender],
            u8(NUMBERS[kind]),
            u32(counter),
            enc(list(body)),
        )


@dataclass(frozen=True)
class Rekeying:
    """The change from one epoch to the next: both ends' shares, and what they lead to."""

    KINDS: ClassVar = ("Rekey", "RekeyReply")

    before: Epoch
    name: str = "video"

    def drawn(self, what: str, length: int = 32) -> bytes:
        """Draw one value of this change."""
        return draw(f"rekey {self.name} {self.before.number + 1} {what}", length)

    @property
    def encapsulated(self) -> tuple[bytes, bytes]:
        """ML-KEM secret and ciphertext."""
        return encapsulate(768, kem_key(768, self.drawn("kem", 64)), self.drawn("m"))

    @property
    def rekey(self) -> list[Value]:
        """The body of the Rekey."""
        share = dh_key(self.drawn("caller dh"))
        return [self.before.number + 1, share, kem_key(768, self.drawn("kem", 64))]

    @property
    def reply(self) -> list[Value]:
        """The body of the RekeyReply."""
        share = dh_key(self.drawn("callee dh"))
        return [self.before.number + 1, share, self.encapsulated[1]]

    @property
    def dh_secret(self) -> bytes:
        """The X25519 secret."""
        return DH(self.drawn("caller dh"), dh_key(self.drawn("callee dh")))

    @property
    def after(self) -> Epoch:
        """The next epoch."""
        number = u32(self.before.number + 1)
        first, reply = (u8(NUMBERS[kind]) for kind in self.KINDS)
        bodies = first, enc(self.rekey), reply, enc(self.reply)
        transcript = H("call rekey", self.before.transcript, number, *bodies)
        secrets = [self.before.secret, self.dh_secret, self.encapsulated[0]]
        secret = KDF("call epoch", transcript, secrets, [number], 64)
        return Epoch(transcript, self.before.number + 1, secret)


MOVED: Value = (
    [0, 1, 111, 0x66666666, None, None],
    [1, 2, 96, 0x77777777, 97, 0x88888888],
)
"""The streams of a path that is not the first."""


@dataclass(frozen=True)
class Moving(Rekeying):
    """The change to an epoch with a path of its own."""

    KINDS: ClassVar = ("Path", "PathReply")

    @property
    def rekey(self) -> list[Value]:
        """The body of the Path."""
        return [*super().rekey, media("newcaller", MOVED)]

    @property
    def turn(self) -> list[Value]:
        """The caller's TURN credential on this path."""
        return ["1800043260:" + "b" * 44, "bmV3IHBhc3N3b3JkIG9mIHRoZSBjYWxsZXI="]

    @property
    def reply(self) -> list[Value]:
        """The body of the PathReply."""
        return [*super().reply, media("newcallee", MOVED), self.turn, [OTHER_CANDIDATE]]

    @property
    def ready(self) -> list[Value]:
        """The body of the PathReady."""
        return [self.before.number + 1, [CANDIDATE]]


CALL = CallValues("video")
"""The call that most vectors are about."""

FIRST = Rekeying(CALL.epoch)
SECOND = Rekeying(FIRST.after)
"""Its first two changes of epoch."""

MOVE = Moving(CALL.epoch, "move")
LATER_MOVE = Moving(FIRST.after, "move")
"""The same call on another path, in its second or its third epoch."""

BODIES: dict[str, list[Value]] = {
    "Reveal": [CALL.drawn("nonce")],
    "Answer": [True, True, [CANDIDATE]],
    "Decline": [1],
    "Busy": [1],
    "Cancel": [2],
    "Hangup": [3],
    "Candidates": [[CANDIDATE, OTHER_CANDIDATE]],
    "MediaState": state(True, False),
    "Rekey": FIRST.rekey,
    "RekeyReply": FIRST.reply,
    "RekeyRequest": [1],
    "Text": ["Grüße, 世界"],
    "Renegotiate": [True],
    "Path": MOVE.rekey,
    "PathReply": MOVE.reply,
    "PathReady": MOVE.ready,
    "PathRequest": [1],
}
"""A body of each message after Ringing."""
