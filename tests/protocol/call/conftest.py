"""Two real ends of a call, and every message that one of them could send in it."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from e2ecall.errors import RemoteProtocolError
from e2ecall.protocol.call import Call
from e2ecall.protocol.call_core import MEDIA_STATES
from e2ecall.protocol.call_events import PathAgreed, PathDue, PathProposed, RekeyProposed
from e2ecall.protocol.call_exchange import CalleeSecrets, CallerSecrets, RekeySecrets
from e2ecall.protocol.call_table import CallState, Received, Role
from e2ecall.protocol.callkeys import EpochKeys, Party
from e2ecall.protocol.messages import (
    Answer,
    Busy,
    Cancel,
    Candidate,
    Candidates,
    CandidateType,
    Codec,
    Decline,
    Hangup,
    LeaveReason,
    MediaDescription,
    MediaState,
    Path,
    PathReady,
    PathReply,
    PathRequest,
    Rekey,
    RekeyReply,
    RekeyRequest,
    Renegotiate,
    Reveal,
    Ringing,
    Stream,
    StreamDescription,
    Text,
)
from relay.wire.messages import TurnCredential

NOW = 1_800_000_000.0
UNSIGNED = bytes(64)
CALLER = Party("alice@relay.example", 1, b"A" * 32, b"a" * 64)
CALLEE = Party("bob@relay.example", 2, b"B" * 32, b"b" * 64)
RELAYED = Candidate(CandidateType.RELAY, "198.18.7.9", 4000)
TURN = TurnCredential("user of a path", "password")


def media(letter: str = "x") -> MediaDescription:
    """Describe a microphone and a camera, with SSRCs from 1 on, or of its own for a path."""
    first = 1 if letter in "abcdefx" else 10 * ord(letter)
    return MediaDescription(
        letter.encode() * 32,
        letter * 4,
        letter * 22,
        (
            StreamDescription(Stream.MICROPHONE, Codec.OPUS, 111, first, None, None),
            StreamDescription(Stream.CAMERA, Codec.VP8, 96, first + 1, 97, first + 2),
        ),
    )


def place(now: float = NOW, **changes) -> Call:
    """Place a call with fresh secrets."""
    values = {
        "media": media("c"),
        "wants_video": True,
        "reply_box": b"c" * 32,
        "secrets": CallerSecrets.generate(),
        "now": now,
    }
    return Call.place(CALLER, CALLEE, **(values | changes))


def ring(call: Call, now: float = NOW, **changes) -> None:
    """Let the callee's phone send its Ringing."""
    values = {
        "media": media("d"),
        "reply_box": b"d" * 32,
        "turn": TurnCredential("user", "password"),
        "secrets": CalleeSecrets.generate(call.offer),
        "now": now,
    }
    call.ring(**(values | changes))


@dataclass
class Pair:
    """A caller and a callee, advanced together step by step; nothing is delivered unasked."""

    caller: Call = field(default_factory=place)
    callee: Call = field(init=False)
    keys: EpochKeys | None = None
    next_keys: EpochKeys | None = None
    ringing: Ringing | None = None

    def __post_init__(self) -> None:
        (self.offer,) = self.caller.messages_to_send()
        self.callee = Call.incoming(CALLEE, CALLER, self.offer, sent_at=NOW, now=NOW)

    def ring(self) -> None:
        ring(self.callee)
        (self.ringing,) = self.callee.messages_to_send()
        self.keys = self.callee._channel._sending

    def show_ringing(self) -> None:
        self.caller.receive(self.ringing, NOW)
        (self.reveal,) = self.caller.messages_to_send()

    def show_reveal(self) -> None:
        self.callee.receive(self.reveal, NOW)

    def accept(self) -> None:
        self.callee.accept(audio=True, video=True, candidates=[RELAYED], now=NOW)
        (self.answer,) = self.callee.messages_to_send()

    def show_answer(self) -> None:
        self.caller.receive(self.answer, NOW)

    def connect(self) -> None:
        self.caller.media_connected(NOW)
        self.callee.media_connected(NOW)

    def run(self, steps: int) -> Pair:
        """Take the first ``steps`` of: ring, ringing in, reveal in, accept, answer in, connect."""
        for step in self.STEPS[:steps]:
            step(self)
        return self

    STEPS = (ring, show_ringing, show_reveal, accept, show_answer, connect)

    def message(self, kind: Received, sender: Role, *, counter: int = 50, signed: bool = True):
        """Make a well-formed message of this call, with a right MAC once there are keys."""
        call_id, reason = self.offer.call_id, LeaveReason.NORMAL
        nonce = getattr(self, "reveal", None) and self.reveal.nonce
        mac = UNSIGNED if signed else None
        message = {
            Received.OFFER: lambda: self.offer,
            Received.RINGING: lambda: self.ringing or self.shadow_ringing(),
            Received.REVEAL: lambda: Reveal(call_id, counter, nonce or b"n" * 32, UNSIGNED),
            Received.ANSWER: lambda: Answer(call_id, counter, True, True, (RELAYED,), UNSIGNED),
            Received.DECLINE: lambda: Decline(call_id, counter, reason, mac),
            Received.BUSY: lambda: Busy(call_id, counter, reason, mac),
            Received.CANCEL: lambda: Cancel(call_id, counter, reason, mac),
            Received.HANGUP: lambda: Hangup(call_id, counter, reason, UNSIGNED),
            Received.CANDIDATES: lambda: Candidates(call_id, counter, (RELAYED,), UNSIGNED),
            Received.MEDIA_STATE: lambda: MediaState(
                call_id, counter, True, False, False, False, False, UNSIGNED
            ),
            Received.TEXT: lambda: Text(call_id, counter, "hello", UNSIGNED),
            Received.RENEGOTIATE: lambda: Renegotiate(call_id, counter, True, UNSIGNED),
            Received.REKEY: lambda: RekeySecrets.generate().rekey(call_id, counter, 1),
            Received.REKEY_REPLY: lambda: self.reply(counter),
            Received.REKEY_REQUEST: lambda: RekeyRequest(call_id, counter, 1, UNSIGNED),
            Received.PATH: lambda: RekeySecrets.generate().path(call_id, counter, 1, media("p")),
            Received.PATH_REPLY: lambda: self.path_reply(counter),
            Received.PATH_READY: lambda: self.ready(counter),
            Received.PATH_REQUEST: lambda: PathRequest(call_id, counter, 1, UNSIGNED),
        }[kind]()
        of_next = (Received.REKEY_REPLY, Received.PATH_REPLY, Received.PATH_READY)
        if kind in of_next and self.next_keys is not None:
            return replace(message, mac=self.next_keys.mac(sender, message))
        if kind in (Received.OFFER, Received.RINGING) or message.mac is None or self.keys is None:
            return message
        return self.sign(sender, message)

    def reply(self, counter: int) -> RekeyReply:
        """Answer the caller's Rekey without advancing the callee; a connected caller sends one."""
        if self.caller.state is not CallState.CONNECTED:
            return RekeyReply(self.offer.call_id, counter, 1, b"s" * 32, bytes(1088), UNSIGNED)
        if self.next_keys is None:
            self.propose()
            secrets = CalleeSecrets.generate(self.rekey)
            self.made_reply = secrets.reply(self.rekey, counter)
            self.next_keys = secrets.following(self.keys, self.rekey, self.made_reply)
        return replace(self.made_reply, counter=counter)

    def path_reply(self, counter: int) -> PathReply:
        """Answer the caller's Path without advancing the callee; a caller with media sends one."""
        path = RekeySecrets.generate().path(self.offer.call_id, 0, 1, media("p"))
        has_media = self.caller.state in MEDIA_STATES
        if has_media and self.next_keys is None:
            path = self.replace()
        if not has_media or self.next_keys is None:
            secrets = CalleeSecrets.generate(path)
            self.made_reply = secrets.path_reply(path, counter, media("q"), TURN, (RELAYED,))
            if has_media:
                self.next_keys = secrets.following(self.keys, path, self.made_reply)
        return replace(self.made_reply, counter=counter)

    def ready(self, counter: int) -> PathReady:
        """Make a PathReady; a pair with media is brought to where the callee waits for it."""
        both = self.caller.state, self.callee.state
        if all(state in MEDIA_STATES for state in both) and not self.next_keys:
            self.replace()
            self.answer_by_path()
            self.next_keys = self.callee._channel.newest
        return PathReady(self.offer.call_id, counter, 1, (RELAYED,), UNSIGNED)

    def lose(self, role: Role = Role.CALLER, now: float = NOW) -> None:
        """Let the media of one end hear nothing for a while."""
        (self.caller if role is Role.CALLER else self.callee).path_lost(now - 2.5, now)

    def replace(self, now: float = NOW, letter: str = "p") -> Path:
        """Have the caller begin another path."""
        self.lose(now=now)
        self.caller.on_time(now)
        assert PathDue() in self.caller.events()
        self.caller.replace_path(RekeySecrets.generate(), media(letter), now)
        *_, self.path = self.caller.messages_to_send()
        return self.path

    def answer_by_path(self, now: float = NOW, letter: str = "q") -> PathReply:
        """Have the callee answer the Path."""
        self.callee.receive(self.path, now)
        (proposed,) = (e for e in self.callee.events() if isinstance(e, PathProposed))
        secrets = CalleeSecrets.generate(proposed.path)
        self.callee.answer_path(secrets, media(letter), TURN, [RELAYED], now)
        *_, self.made_path_reply = self.callee.messages_to_send()
        return self.made_path_reply

    def get_ready(self, now: float = NOW) -> PathReady:
        """Have the caller take the reply, and say where it is."""
        self.caller.receive(self.made_path_reply, now)
        (agreed,) = (e for e in self.caller.events() if isinstance(e, PathAgreed))
        self.caller.ready_path(agreed.epoch, [RELAYED], now)
        *_, self.path_ready = self.caller.messages_to_send()
        return self.path_ready

    def move(self, now: float = NOW, letters: str = "pq") -> int:
        """Take all steps to another path and hear it at both ends; return its epoch."""
        self.replace(now, letters[0])
        self.answer_by_path(now, letters[1])
        self.get_ready(now)
        self.callee.receive(self.path_ready, now)
        for call in (self.caller, self.callee):
            call.path_alive(self.path.epoch, now)
        self.keys = self.caller._channel.sending
        return self.path.epoch

    def propose(self, now: float = NOW) -> Rekey:
        """Have the caller begin a new epoch."""
        self.caller.rekey(RekeySecrets.generate(), now)
        *_, self.rekey = self.caller.messages_to_send()
        return self.rekey

    def agree(self, now: float = NOW) -> RekeyReply:
        """Have the callee answer the Rekey."""
        self.callee.receive(self.rekey, now)
        (proposed,) = (e for e in self.callee.events() if isinstance(e, RekeyProposed))
        self.callee.answer_rekey(CalleeSecrets.generate(proposed.rekey), now)
        *_, self.rekey_reply = self.callee.messages_to_send()
        return self.rekey_reply

    def cross(self, now: float = NOW) -> None:
        """Have the caller take the reply, and its first frame in the new epoch arrive."""
        self.caller.receive(self.rekey_reply, now)
        self.callee.enter_epoch(self.caller.epoch, now)
        self.keys = self.caller._channel.sending

    def change_epoch(self, now: float = NOW) -> None:
        """Take all steps from one epoch to the next."""
        self.propose(now)
        self.agree(now)
        self.cross(now)

    def sign(self, sender: Role, message):
        """Put the right MAC of ``sender`` on a message."""
        return replace(message, mac=self.keys.mac(sender, message))

    def shadow_ringing(self) -> Ringing:
        """Return a valid Ringing without advancing the callee."""
        shadow = Call.incoming(CALLEE, CALLER, self.offer, sent_at=NOW, now=NOW)
        ring(shadow)
        (ringing,) = shadow.messages_to_send()
        return ringing


def ended(pair: Pair) -> Pair:
    pair.caller.hangup(NOW)
    pair.callee.hangup(NOW)
    pair.caller.messages_to_send()
    pair.callee.messages_to_send()
    return pair


REACH = {
    (Role.CALLER, CallState.OFFERED): Pair,
    (Role.CALLER, CallState.RINGING): lambda: Pair().run(4),
    (Role.CALLER, CallState.CONNECTING): lambda: Pair().run(5),
    (Role.CALLER, CallState.CONNECTED): lambda: Pair().run(6),
    (Role.CALLER, CallState.ENDED): lambda: ended(Pair().run(6)),
    (Role.CALLEE, CallState.INVITED): Pair,
    (Role.CALLEE, CallState.AWAITING_REVEAL): lambda: Pair().run(2),
    (Role.CALLEE, CallState.ALERTING): lambda: Pair().run(3),
    (Role.CALLEE, CallState.CONNECTING): lambda: Pair().run(5),
    (Role.CALLEE, CallState.CONNECTED): lambda: Pair().run(6),
    (Role.CALLEE, CallState.ENDED): lambda: ended(Pair().run(6)),
}


def snapshot(call: Call) -> tuple:
    """Return all that a refusal must leave as it was."""
    channel = call._channel
    return (
        call.state,
        call.deadline(),
        call.sas,
        call._ringing,
        call._secrets,
        call._remote_candidates,
        call._local_candidates,
        call.controls,
        call._media_state_counter,
        call._renegotiate_counter,
        list(call._outgoing),
        list(call._events),
        call._rekey_state,
        call._rekey,
        call._rekey_secrets,
        call._rekey_reply,
        call._due,
        call._retire_at,
        call._move,
        call._wanted,
        call._moved,
        call._agreed,
        call._began,
        call._begun,
        call._path_due,
        call._lost_deadline,
        call._described,
        channel._counter,
        channel._sending,
        channel._live,
        channel._window._highest,
        list(channel._window._slots),
    )


@dataclass(frozen=True)
class Kit:
    """What the tests of calls share."""

    now = NOW
    caller = CALLER
    callee = CALLEE
    relayed = RELAYED
    unsigned = UNSIGNED
    reach = REACH
    Pair = Pair

    media = staticmethod(media)
    place = staticmethod(place)
    ring = staticmethod(ring)
    snapshot = staticmethod(snapshot)

    @staticmethod
    def at(role: Role, state: CallState) -> tuple[Pair, Call]:
        """Return a pair whose end of this role is in this state, and that end."""
        pair = REACH[role, state]()
        call = pair.caller if role is Role.CALLER else pair.callee
        assert call.state is state
        call.events()
        return pair, call


@pytest.fixture
def kit() -> Kit:
    return Kit()


@pytest.fixture
def pair() -> Pair:
    return Pair()


@pytest.fixture
def talk(pair: Pair) -> Pair:
    """Return a pair that is connected, without the events up to there."""
    pair.run(6)
    for call in (pair.caller, pair.callee):
        call.events()
    return pair


def of(kind, events):
    """Return the one event of a kind."""
    (event,) = (event for event in events if isinstance(event, kind))
    return event


def refuse(call: Call, message, now: float = NOW):
    """Expect a refusal that leaves the call as it was, and return its reason."""
    call.on_time(now)
    before = snapshot(call)
    with pytest.raises(RemoteProtocolError) as refused:
        call.receive(message, now)
    assert snapshot(call) == before
    return refused.value.reason
