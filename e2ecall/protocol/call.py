"""One call between two devices, for both roles (spec/call.md): messages in, messages out.

Drives the exchange and says what may happen when; the steps are the table of
`e2ecall.protocol.call_table`. It opens no media, sends nothing itself and reads no clock: ``now``
is Unix seconds. What a peer sends out of order is refused and changes nothing.
"""

from collections.abc import Sequence
from enum import Enum, unique
from ipaddress import IPv4Network
from typing import Final, Self

from e2ecall.errors import LocalProtocolError, Reason, RemoteProtocolError
from e2ecall.protocol.call_channel import UNSIGNED
from e2ecall.protocol.call_controls import CallControls
from e2ecall.protocol.call_core import MEDIA_STATES, CallBasis
from e2ecall.protocol.call_events import (
    Alert,
    EndReason,
    PeerRinging,
    RemoteCandidates,
    SasReady,
    StartMedia,
)
from e2ecall.protocol.call_exchange import CalleeSecrets, CallerSecrets
from e2ecall.protocol.call_table import Action, CallState, Received, Role
from e2ecall.protocol.callkeys import Party, verify_commitment
from e2ecall.protocol.controls import Controls
from e2ecall.protocol.description import (
    RELAYED_NETWORKS,
    check_candidates,
    check_directions,
    check_media_description,
    describes,
)
from e2ecall.protocol.messages import (
    MAX_CANDIDATES,
    Answer,
    AuthenticatedMessage,
    Busy,
    CallMessage,
    Cancel,
    Candidate,
    Candidates,
    Decline,
    Hangup,
    LeaveReason,
    MediaDescription,
    MediaState,
    Offer,
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
    Text,
)
from relay.wire.messages import TurnCredential

OFFER_LIFETIME: Final = 60.0
"""Seconds after which an Offer no longer rings; the client shows a missed call."""
CLOCK_SKEW: Final = 30.0
"""Seconds a peer's clock may be ahead."""
REVEAL_TIMEOUT: Final = 10.0
"""Seconds from Ringing to the Reveal that opens the commitment."""
RING_TIMEOUT: Final = 60.0
"""Seconds a phone rings."""
CONNECT_TIMEOUT: Final = 30.0
"""Seconds from Answer to media."""

_BEFORE_KEYS: Final = (CallState.OFFERED, CallState.INVITED, CallState.AWAITING_REVEAL)
"""Where the peer may still be without keys, so that its Decline, Busy or Cancel has no MAC."""

_SAID: Final = {
    LeaveReason.FAILED: EndReason.PEER_FAILED,
    LeaveReason.OTHER_CALL: EndReason.BUSY,
    LeaveReason.CALL_BACK: EndReason.CALL_BACK,
}
"""What a peer may say at the end of any call, and how it is told."""


@unique
class Glare(Enum):
    """What becomes of an Offer that arrives while this end calls."""

    OURS = "ours"
    """The same peer's, and it loses: drop it without a word."""
    THEIRS = "theirs"
    """The same peer's, and it wins: `Call.superseded` here, then ring and accept theirs."""
    BUSY = "busy"
    """Another peer's, or too late for glare: answer Busy."""


class Call(CallControls):
    """One end of one call. Not safe for use from several tasks at once.

    After every method: send `messages_to_send` in order, then act on `events`, then arm a timer
    for `deadline` that calls `on_time`. Methods raise LocalProtocolError where the state does
    not allow them, and then have changed nothing.
    """

    # --- beginnings ---------------------------------------------------------------------------

    @classmethod
    def place(
        cls,
        local: Party,
        remote: Party,
        *,
        media: MediaDescription,
        wants_video: bool,
        reply_box: bytes,
        secrets: CallerSecrets,
        now: float,
        allowed_networks: Sequence[IPv4Network] = RELAYED_NETWORKS,
    ) -> Self:
        """Call ``remote``: the Offer is the first message to send, to the callee's account.

        ``reply_box`` is this end's box at the callee's relay. ``secrets`` must be fresh.
        """
        _check_local(media, video=wants_video)
        offer = secrets.offer(
            local, remote, media=media, wants_video=wants_video, reply_box=reply_box
        )
        call = cls(CallBasis(Role.CALLER, local, remote, offer, tuple(allowed_networks)))
        call._secrets = secrets
        call._controls = Controls(camera=wants_video)
        call._step(Action.PLACE, now + OFFER_LIFETIME)
        call._outgoing.append(offer)
        return call

    @classmethod
    def incoming(
        cls,
        local: Party,
        remote: Party,
        offer: Offer,
        *,
        sent_at: float,
        now: float,
        allowed_networks: Sequence[IPv4Network] = RELAYED_NETWORKS,
    ) -> Self:
        """Take an Offer that came in. Nothing is sent before `ring`, `decline` or `busy`.

        ``sent_at`` is the payload's inner timestamp, in seconds.

        Raises:
            RemoteProtocolError: EXPIRED for an Offer older than `OFFER_LIFETIME` (a missed call)
                or from further ahead than `CLOCK_SKEW`; BAD_MEDIA_DESCRIPTION.
        """
        if not -CLOCK_SKEW <= now - sent_at <= OFFER_LIFETIME:  # CALL-01
            raise RemoteProtocolError(Reason.EXPIRED)
        check_media_description(offer.media)
        check_directions(offer.media, audio=False, video=offer.wants_video)
        call = cls(CallBasis(Role.CALLEE, local, remote, offer, tuple(allowed_networks)))
        call._step(Action.INVITE, min(sent_at, now) + OFFER_LIFETIME)
        return call

    def glare(self, offer: Offer, sender: Party) -> Glare:
        """Return what to do with an Offer that arrives while this call lives (CALL-09).

        Both ends compare the same two CallIds, and only before any Ringing, so they agree.

        Raises:
            RemoteProtocolError: WRONG_CALL, where it has this call's own CallId.
        """
        if offer.call_id == self.call_id:
            raise RemoteProtocolError(Reason.WRONG_CALL)
        if self._state is not CallState.OFFERED or sender.address != self._remote.address:
            return Glare.BUSY
        return Glare.OURS if self.call_id < offer.call_id else Glare.THEIRS

    # --- what this end does -------------------------------------------------------------------

    def ring(
        self,
        *,
        media: MediaDescription,
        reply_box: bytes,
        turn: TurnCredential,
        secrets: CalleeSecrets,
        now: float,
    ) -> None:
        """Answer the Offer with a Ringing; the phone stays silent until `Alert`.

        ``turn`` is the caller's credential, ``reply_box`` this end's box. `ExchangeGuard.start`
        comes first, and ``secrets`` must be fresh and made for this Offer.
        """
        self.on_time(now)
        self._check(Action.RING)
        _check_local(media, video=False)
        ringing = Ringing(
            call_id=self.call_id,
            x25519_share=secrets.x25519_share,
            mlkem_ciphertext=secrets.mlkem_ciphertext,
            media=media,
            reply_box=reply_box,
            turn=turn,
        )
        keys = secrets.derive(self._remote, self._local, self._offer, ringing)
        self._ringing = ringing
        self._call_keys = keys
        self._channel.set_keys(keys.first_epoch())
        self._step(Action.RING, now + REVEAL_TIMEOUT)
        self._outgoing.append(ringing)

    def accept(
        self, *, audio: bool, video: bool, candidates: Sequence[Candidate] = (), now: float
    ) -> None:
        """Answer. ``audio`` and ``video`` are what this end sends; `StartMedia` follows.

        ``candidates`` are those gathered so far; later ones go to `add_candidates`.
        """
        self.on_time(now)
        self._check(Action.ACCEPT)
        ringing = self._need_ringing()
        try:
            check_directions(ringing.media, audio=audio, video=video)
        except RemoteProtocolError as error:
            raise LocalProtocolError("the Ringing described no such stream") from error
        self._check_own_candidates(candidates)
        counter = self._channel.next_counter()
        answer = Answer(self.call_id, counter, audio, video, tuple(candidates), UNSIGNED)
        self._outgoing.append(self._channel.sign(answer))
        self._local_candidates += len(candidates)
        self._step(Action.ACCEPT, now + CONNECT_TIMEOUT)
        self._controls = Controls(camera=video)
        self._start_media(
            local=ringing.media,
            remote=self._offer.media,
            audio=audio,
            video=video,
            peer_audio=describes(self._offer.media, Stream.MICROPHONE),
            peer_video=self._offer.wants_video,
        )

    def add_candidates(self, candidates: Sequence[Candidate], now: float) -> None:
        """Tell the peer of this end's relayed addresses: the caller's as soon as they exist.

        The peer uses none before the Answer. Without effect where the deadline has passed.
        """
        if self.on_time(now):
            return
        self._check(Action.ADD_CANDIDATES)
        if not candidates:
            raise LocalProtocolError("there is no candidate to add")
        self._check_own_candidates(candidates)
        counter = self._channel.next_counter()
        message = Candidates(self.call_id, counter, tuple(candidates), UNSIGNED)
        self._outgoing.append(self._channel.sign(message))
        self._local_candidates += len(candidates)

    def media_connected(self, now: float) -> None:
        """Media flows: DTLS is up and the peer's first frame was authenticated.

        Without effect where the deadline has passed: the call has ended then.
        """
        if self.on_time(now):
            return
        self._step(Action.MEDIA_UP, None)
        self._begin_epoch(now)

    # --- what the peer does -------------------------------------------------------------------

    def receive(self, message: CallMessage, now: float) -> None:
        """Act on a message that came through the ratchet session with ``remote``.

        A Reveal or Answer that proves another key, or a candidate outside the relay, ends the
        call (an `Ended` event). Whatever else is wrong is refused and changes nothing.

        Raises:
            RemoteProtocolError: WRONG_CALL, UNEXPECTED_MESSAGE, BAD_MAC, REPLAYED, LIMIT,
                BAD_POINT, BAD_KEM_KEY or BAD_MEDIA_DESCRIPTION.
        """
        self.on_time(now)
        if message.call_id != self.call_id:
            raise RemoteProtocolError(Reason.WRONG_CALL)
        self._check(Received(type(message).__name__))
        assert not isinstance(message, Offer)  # the table lists none
        if isinstance(message, Ringing):
            self._receive_ringing(message, now)
        elif isinstance(message, RekeyReply):
            self._receive_rekey_reply(message, now)
        elif isinstance(message, PathReply):
            self._receive_path_reply(message, now)
        else:
            self._receive_authenticated(message, now)

    def _receive_ringing(self, ringing: Ringing, now: float) -> None:
        secrets = self._secrets
        assert secrets is not None  # a caller has them until its Ringing
        check_media_description(ringing.media)
        keys = secrets.derive(self._local, self._remote, self._offer, ringing)
        nonce = secrets.nonce.expose()
        # CALL-03: this Ringing is final. The nonce leaves only after everything that enters key
        # or code is fixed.
        self._ringing = ringing
        self._secrets = None
        self._channel.set_keys(keys.first_epoch())
        self._sas = keys.sas(nonce)
        self._step(Received.RINGING, now + RING_TIMEOUT)
        reveal = Reveal(self.call_id, self._channel.next_counter(), nonce, UNSIGNED)
        self._outgoing.append(self._channel.sign(reveal))
        self._events += [PeerRinging(ringing.turn), SasReady(self._sas)]

    def _receive_authenticated(self, message: AuthenticatedMessage, now: float) -> None:
        if message.mac is None:
            if self._state not in _BEFORE_KEYS:  # CALL-06
                raise RemoteProtocolError(Reason.BAD_MAC)
        else:
            try:
                self._channel.verify(message)
            except RemoteProtocolError as error:
                if not isinstance(message, Reveal | Answer):
                    raise
                # CALL-05: these two confirm the key, so a wrong MAC means another key.
                self._breach(EndReason.NOT_AUTHENTIC, error.reason)
                return
        self._channel.check_counter(message)
        self._act_on(message, now)
        self._channel.commit(message)

    def _act_on(self, message: AuthenticatedMessage, now: float) -> None:
        match message:
            case Reveal():
                self._receive_reveal(message, now)
            case Answer():
                self._receive_answer(message, now)
            case Candidates():
                self._receive_candidates(message)
            case MediaState() | Text() | Renegotiate():
                self._receive_control(message)
            case Rekey() | RekeyRequest() | Path() | PathReady() | PathRequest():
                self._receive_about_epoch(message, now)
            case Decline():
                self._peer_left(Received.DECLINE, EndReason.DECLINED, message.reason)
            case Busy():
                self._peer_left(Received.BUSY, EndReason.BUSY, message.reason)
            case Cancel():
                self._peer_left(Received.CANCEL, EndReason.CANCELLED, message.reason)
            case _:
                assert isinstance(message, Hangup)
                self._peer_left(Received.HANGUP, EndReason.HANGUP, message.reason)

    def _receive_reveal(self, reveal: Reveal, now: float) -> None:
        assert self._call_keys is not None  # a callee has them from its Ringing to the Reveal
        try:
            verify_commitment(self._offer, self._remote, self._local, reveal.nonce)
        except RemoteProtocolError as error:
            self._breach(EndReason.NOT_AUTHENTIC, error.reason)
            return
        self._sas = self._call_keys.sas(reveal.nonce)
        self._call_keys = None
        self._step(Received.REVEAL, now + RING_TIMEOUT)
        self._events += [SasReady(self._sas), Alert(self._offer.wants_video)]

    def _receive_answer(self, answer: Answer, now: float) -> None:
        ringing = self._need_ringing()
        try:
            check_directions(ringing.media, audio=answer.audio, video=answer.video)
            check_candidates(answer.candidates, allowed_networks=self._allowed_networks)
            self._check_room(len(answer.candidates))
        except RemoteProtocolError as error:
            self._breach(EndReason.PROTOCOL_ERROR, error.reason)
            return
        self._remote_candidates += answer.candidates
        self._step(Received.ANSWER, now + CONNECT_TIMEOUT)
        self._start_media(
            local=self._offer.media,
            remote=ringing.media,
            audio=describes(self._offer.media, Stream.MICROPHONE),
            video=self._offer.wants_video,
            peer_audio=answer.audio,
            peer_video=answer.video,
        )

    def _receive_candidates(self, message: Candidates) -> None:
        self._check_room(len(message.candidates))
        try:
            check_candidates(message.candidates, allowed_networks=self._allowed_networks)
        except RemoteProtocolError as error:  # CALL-11: it would lead media past the relay
            self._breach(EndReason.PROTOCOL_ERROR, error.reason)
            return
        self._remote_candidates += message.candidates
        if self._state in MEDIA_STATES:  # CALL-07: until then they wait for `StartMedia`
            self._events.append(RemoteCandidates(message.candidates))

    def _peer_left(self, received: Received, reason: EndReason, told: LeaveReason) -> None:
        if told in _SAID:
            reason = _SAID[told]
        elif told is LeaveReason.NO_ANSWER and received is Received.DECLINE:
            reason = EndReason.NO_ANSWER
        self._end(received, reason, None, by_peer=True)

    # --- helpers ------------------------------------------------------------------------------

    def _start_media(
        self,
        *,
        local: MediaDescription,
        remote: MediaDescription,
        audio: bool,
        video: bool,
        peer_audio: bool,
        peer_video: bool,
    ) -> None:
        self._events.append(
            StartMedia(
                keys=self._channel.media_keys,
                local=local,
                remote=remote,
                remote_candidates=self._remote_candidates,
                audio=audio,
                video=video,
                peer_audio=peer_audio,
                peer_video=peer_video,
            )
        )

    def _need_ringing(self) -> Ringing:
        assert self._ringing is not None  # no state before it asks
        return self._ringing

    def _check_room(self, more: int) -> None:
        if len(self._remote_candidates) + more > MAX_CANDIDATES:
            raise RemoteProtocolError(Reason.LIMIT)

    def _check_own_candidates(self, candidates: Sequence[Candidate]) -> None:
        """Refuse to send what would show this end's address (CALL-11)."""
        if self._local_candidates + len(candidates) > MAX_CANDIDATES:
            raise LocalProtocolError(f"at most {MAX_CANDIDATES} candidates belong to a call")
        try:
            check_candidates(candidates, allowed_networks=self._allowed_networks)
        except RemoteProtocolError as error:
            raise LocalProtocolError("only relayed addresses may be sent to a peer") from error


def _check_local(media: MediaDescription, *, video: bool) -> None:
    try:
        check_media_description(media)
        check_directions(media, audio=False, video=video)
    except RemoteProtocolError as error:
        raise LocalProtocolError("the media description is not a valid one") from error
