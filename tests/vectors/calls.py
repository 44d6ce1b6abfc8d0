"""Operations of calls: messages, keys, whole calls (spec/call.md, callkeys.md, sas.md)."""

from typing import Any

from msgspec import to_builtins
from msgspec.structs import replace

from e2ecall.crypto.mlkem import MLKEM768
from e2ecall.crypto.x25519 import X25519KeyPair
from e2ecall.errors import RemoteProtocolError
from e2ecall.protocol import description, messages, verification
from e2ecall.protocol import sas as codes
from e2ecall.protocol.call import Call
from e2ecall.protocol.call_events import Ended, PathProposed, RekeyProposed
from e2ecall.protocol.call_exchange import CalleeSecrets, CallerSecrets, RekeySecrets
from e2ecall.protocol.call_table import Role
from e2ecall.protocol.callkeys import EpochKeys, Party, verify_commitment
from e2ecall.protocol.encoding import decode_remote
from e2ecall.protocol.messages import (
    Candidate,
    CandidateType,
    MediaDescription,
    Offer,
    Path,
    Payload,
    PayloadKind,
    Rekey,
    Stream,
)
from e2ecall.secret import Secret
from relay.wire.messages import TurnCredential
from relay.wire.records import PreKey
from tests.vectors.harness import Given, MismatchError, Refusal, operation


@operation
def payload(given: Given):
    sealing_key = given["sealing_key"]
    value = Payload(
        PayloadKind(given["kind"]),
        given["sent_at_ms"],
        None
        if sealing_key is None
        else decode_remote(given.hex("sealing_key"), PreKey, limit=4096),
        None if given["token"] is None else given.hex("token"),
        given.hex("body"),
    )
    encoded = messages.encode_payload(value)
    if messages.decode_payload(encoded) != value:
        raise MismatchError("the payload reads as another one")
    return {"encoded": encoded}


@operation
def read_payload(given: Given):
    return {"payload": to_builtins(messages.decode_payload(given.hex("data")))}


@operation
def read_text(given: Given):
    return {"text": messages.decode_text(given.hex("data"))}


@operation
def call_message(given: Given):
    message = messages.decode_call_message(given.hex("encoded"))
    if messages.encode_call_message(message) != given.hex("encoded"):
        raise MismatchError("the message is encoded in another way")
    return {"fields": to_builtins(message, builtin_types=(bytes,))}


@operation
def read_call_message(given: Given):
    messages.decode_call_message(given.hex("data"))
    return {}


def _media(data: bytes) -> MediaDescription:
    return decode_remote(data, MediaDescription, limit=4096)


@operation
def check_media(given: Given):
    description.check_media_description(_media(given.hex("media")))
    return {}


def _candidates(values: Any) -> tuple[Candidate, ...]:
    return tuple(Candidate(CandidateType(kind), *rest) for kind, *rest in values)


@operation
def check_candidates(given: Given):
    description.check_candidates(_candidates(given["candidates"]))
    return {}


def _offer(given: Given) -> Offer:
    offer = messages.decode_call_message(given.hex("offer"))
    assert isinstance(offer, Offer)
    return offer


def _party(given: Given) -> Party:
    return Party(
        given["address"],
        given["device_id"],
        given.hex("identity_key"),
        given.hex("session_hash"),
    )


_SOMEBODY = Party("a@b.example", 1, bytes(32), bytes(64))


@operation
def incoming_offer(given: Given):
    sent_at = given["sent_at_ms"] / 1000
    offer = _offer(given)
    call = Call.incoming(_SOMEBODY, _SOMEBODY, offer, sent_at=sent_at, now=given["now"])
    return {"state": call.state.value}


@operation
def call_keys(given: Given):
    caller, callee = _party(given.part("caller")), _party(given.part("callee"))
    offer, nonce = _offer(given), given.hex("nonce")
    ringing = messages.decode_call_message(given.hex("ringing"))
    own = given.part("caller_secrets")
    secrets = CallerSecrets(
        offer.call_id,
        X25519KeyPair.from_private(own.secret("x25519_private")),
        MLKEM768.from_seed(own.secret("mlkem_seed")),
        Secret(offer.seed),
        given.secret("nonce"),
    )
    made = secrets.offer(
        caller,
        callee,
        media=offer.media,
        wants_video=offer.wants_video,
        reply_box=offer.reply_box,
    )
    if made != offer:
        raise MismatchError("the caller makes another Offer")
    keys = secrets.derive(caller, callee, offer, ringing)
    answer = _callee_secrets(given.part("callee_secrets"), offer, ringing.mlkem_ciphertext)
    if answer.derive(caller, callee, offer, ringing) != keys:
        raise MismatchError("the ends derive different keys")
    verify_commitment(offer, caller, callee, nonce)
    return {
        "commitment": made.commitment,
        "transcript": keys.transcript,
        "x25519_secret": answer.x25519_secret,
        "mlkem_secret": MLKEM768.decapsulate(secrets.mlkem.seed, ringing.mlkem_ciphertext),
        "call_key": keys.call_key,
        "epoch_secret": keys.first_epoch().secret,
        "sas": keys.sas(nonce).digits,
    }


def _callee_secrets(given: Given, shares: Offer | Rekey | Path, ciphertext: bytes) -> CalleeSecrets:
    own = X25519KeyPair.from_private(given.secret("x25519_private"))
    secret = own.exchange(shares.x25519_share)
    return CalleeSecrets(own.public, ciphertext, secret, given.secret("mlkem_secret"))


def _epoch(given: Given) -> EpochKeys:
    return EpochKeys(given.hex("transcript"), given["epoch"], given.secret("epoch_secret"))


def _rekey_secrets(given: Given) -> RekeySecrets:
    return RekeySecrets(
        X25519KeyPair.from_private(given.secret("x25519_private")),
        MLKEM768.from_seed(given.secret("mlkem_seed")),
    )


def _exchange(given: Given) -> tuple[Any, Any]:
    return tuple(messages.decode_call_message(given.hex(name)) for name in ("rekey", "reply"))


@operation
def rekey(given: Given):
    before, (proposal, reply) = _epoch(given), _exchange(given)
    before.verify(Role.CALLER, proposal)
    secrets = _rekey_secrets(given.part("caller_secrets"))
    head = proposal.call_id, proposal.counter, before.epoch + 1
    moves = isinstance(proposal, Path)
    made = secrets.path(*head, proposal.media) if moves else secrets.rekey(*head)
    if replace(made, mac=proposal.mac) != proposal:
        raise MismatchError("the caller makes another Rekey or Path")
    after = secrets.following(before, proposal, reply)
    answer = _callee_secrets(given.part("callee_secrets"), proposal, reply.mlkem_ciphertext)
    answered = (
        answer.path_reply(proposal, reply.counter, reply.media, reply.turn, reply.candidates)
        if moves
        else answer.reply(proposal, reply.counter)
    )
    if replace(answered, mac=reply.mac) != reply:
        raise MismatchError("the callee makes another reply")
    if answer.following(before, proposal, reply) != after:
        raise MismatchError("the ends derive different keys")
    after.verify(Role.CALLEE, reply)
    return {
        "transcript": after.transcript,
        "epoch": after.epoch,
        "x25519_secret": answer.x25519_secret,
        "mlkem_secret": MLKEM768.decapsulate(secrets.mlkem.seed, reply.mlkem_ciphertext),
        "epoch_secret": after.secret,
    }


@operation
def take_rekey_reply(given: Given):
    """Derive as the caller and verify the reply; its shares are those of the Rekey's answer."""
    proposal, reply = _exchange(given)
    after = _rekey_secrets(given.part("caller_secrets")).following(_epoch(given), proposal, reply)
    after.verify(Role.CALLEE, reply)
    return {}


@operation
def frame_key(given: Given):
    key = _epoch(given).frame_key(Role(given["sender"]), Stream(given["stream"]))
    return {"kid": key.kid, "base_key": key.base_key}


@operation
def call_mac(given: Given):
    message = messages.decode_call_message(given.hex("message"))
    keys, sender = _epoch(given), Role(given["sender"])
    keys.verify(sender, message)
    return {"mac": keys.mac(sender, replace(message, mac=bytes(64)))}


@operation
def verify_call_mac(given: Given):
    message = messages.decode_call_message(given.hex("message"))
    _epoch(given).verify(Role(given["sender"]), message)
    return {}


@operation
def open_commitment(given: Given):
    caller, callee = _party(given.part("caller")), _party(given.part("callee"))
    verify_commitment(_offer(given), caller, callee, given.hex("nonce"))
    return {}


@operation
def sas(given: Given):
    code = codes.SAS(given["bits"])
    return {
        "emoji": [symbol for symbol, _ in code.emoji],
        "names": [name for _, name in code.emoji],
        "digits": code.digits,
    }


@operation
def safety_number(given: Given):
    number = codes.identity_fingerprint(given["address"], given.hex("identity_key"))
    return {"fingerprint": number}


@operation
def verification_code(given: Given):
    return {"code": _code(given).encode()}


@operation
def compare(given: Given):
    verification.compare(given["shown"], _code(given))
    return {"verified": True}


def _code(given: Given) -> verification.VerificationCode:
    names = ("shower", "shower_key", "reader", "reader_key")
    own = given["own"]
    shower, shower_key, reader, reader_key = (own[name] for name in names)
    return verification.VerificationCode(
        shower, bytes.fromhex(shower_key), reader, bytes.fromhex(reader_key)
    )


class _End:
    """One end of a call that lives through the events of a trace."""

    def __init__(self, given: Given) -> None:
        self.given = given
        self.role = Role(given["role"])
        parties = [_party(given.part(name)) for name in ("caller", "callee")]
        self.local, self.remote = parties if self.role is Role.CALLER else reversed(parties)
        self.now = float(given["now"])
        self.call: Call | None = None
        self.sas = None
        for event in given["events"]:
            self._live(Given(event, given.file))

    def receive(self, message: messages.CallMessage) -> None:
        if self.call is None:
            assert isinstance(message, Offer)
            self.call = Call.incoming(
                self.local, self.remote, message, sent_at=self.now, now=self.now
            )
        else:
            self.call.receive(message, self.now)
            self.sas = self.call.sas or self.sas

    def _live(self, event: Given) -> None:
        if "do" in event:
            getattr(self, f"_{event['do']}")(event)
        else:
            self.receive(messages.decode_call_message(event.hex("receive")))
        sent = [messages.encode_call_message(message) for message in self.call.messages_to_send()]
        if event["sends"] is not None and sent != event.hexes("sends"):
            raise MismatchError(f"other messages leave than after {dict(event)}"[:300])

    def _place(self, event: Given) -> None:
        own = self.given.part("secrets")
        secrets = CallerSecrets(
            own.hex("call_id"),
            X25519KeyPair.from_private(own.secret("x25519_private")),
            MLKEM768.from_seed(own.secret("mlkem_seed")),
            own.secret("seed"),
            own.secret("nonce"),
        )
        self.call = Call.place(
            self.local,
            self.remote,
            media=_media(self.given.hex("media")),
            wants_video=event["wants_video"],
            reply_box=self.given.hex("reply_box"),
            secrets=secrets,
            now=self.now,
        )

    def _ring(self, _: Given) -> None:
        own = self.given.part("secrets")
        self.call.ring(
            media=_media(self.given.hex("media")),
            reply_box=self.given.hex("reply_box"),
            turn=TurnCredential(*self.given["turn"]),
            secrets=_callee_secrets(own, self.call.offer, own.hex("mlkem_ciphertext")),
            now=self.now,
        )

    def _accept(self, event: Given) -> None:
        candidates = _candidates(event["candidates"])
        self.call.accept(
            audio=event["audio"], video=event["video"], candidates=candidates, now=self.now
        )

    def _add_candidates(self, event: Given) -> None:
        self.call.add_candidates(_candidates(event["candidates"]), self.now)

    def _set_media_state(self, event: Given) -> None:
        names = ("muted", "camera", "screen", "held", "recording")
        given = {name: event[name] for name in names if name in event}
        self.call.set_media_state(**given, now=self.now)

    def _send_text(self, event: Given) -> None:
        self.call.send_text(event["text"], self.now)

    def _renegotiate(self, event: Given) -> None:
        self.call.renegotiate(video=event["video"], now=self.now)

    def _connect(self, _: Given) -> None:
        self.call.media_connected(self.now)

    def _wait(self, event: Given) -> None:
        self.now += event["seconds"]
        self.call.on_time(self.now)

    def _rekey(self, event: Given) -> None:
        self.call.rekey(_rekey_secrets(event.part("secrets")), self.now)

    def _answer_rekey(self, event: Given) -> None:
        own = event.part("secrets")
        (asked,) = (e.rekey for e in self.call.events() if isinstance(e, RekeyProposed))
        secrets = _callee_secrets(own, asked, own.hex("mlkem_ciphertext"))
        self.call.answer_rekey(secrets, self.now)

    def _enter_epoch(self, event: Given) -> None:
        self.call.enter_epoch(event["epoch"], self.now)

    def _path_lost(self, event: Given) -> None:
        self.call.path_lost(self.now - event["seconds"], self.now)

    def _path_alive(self, event: Given) -> None:
        self.call.path_alive(event["epoch"], self.now)

    def _replace_path(self, event: Given) -> None:
        secrets = _rekey_secrets(event.part("secrets"))
        self.call.replace_path(secrets, _media(event.hex("media")), self.now)

    def _answer_path(self, event: Given) -> None:
        own = event.part("secrets")
        (asked,) = (e.path for e in self.call.events() if isinstance(e, PathProposed))
        self.call.answer_path(
            _callee_secrets(own, asked, own.hex("mlkem_ciphertext")),
            _media(event.hex("media")),
            TurnCredential(*event["turn"]),
            _candidates(event["candidates"]),
            self.now,
        )

    def _ready_path(self, event: Given) -> None:
        self.call.ready_path(event["epoch"], _candidates(event["candidates"]), self.now)

    def _key_worn(self, event: Given) -> None:
        self.call.key_worn(event["epoch"], self.now)

    def _hangup(self, event: Given) -> None:
        told = messages.LeaveReason(event["told"]) if "told" in event else None
        self.call.hangup(self.now, *() if told is None else (told,))

    def _decline(self, _: Given) -> None:
        self.call.decline(self.now)

    def _busy(self, _: Given) -> None:
        self.call.busy(self.now)

    def _cancel(self, _: Given) -> None:
        self.call.cancel(self.now)


@operation
def call(given: Given):
    end = _End(given)
    code = None if end.sas is None else end.sas.digits
    return {"sas": code, "state": end.call.state.value}


@operation
def call_receive(given: Given):
    end = _End(given)
    message = messages.decode_call_message(given.hex("message"))
    before = end.call.state, end.call.deadline(), end.call.events()
    try:
        end.receive(message)
    except RemoteProtocolError:
        if (end.call.state, end.call.deadline()) != before[:2] or end.call.events():
            raise MismatchError("a refused message changed the call") from None
        raise
    return {"state": end.call.state.value}


@operation
def call_breach(given: Given):
    """The message is not refused: it ends the call, and the last event says why."""
    end = _End(given)
    end.call.events()
    end.receive(messages.decode_call_message(given.hex("message")))
    *_, last = end.call.events()
    if not isinstance(last, Ended) or last.detail is None:
        return {"state": end.call.state.value}
    return Refusal("call", last.detail.value)
