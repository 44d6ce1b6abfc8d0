"""One path of a media transport: a TURN allocation, ICE and DTLS over it, and its RTP streams.

spec/media.md, "Life of a transport". A path is used once and never restarted; which of several a
call uses, and what is sent and rendered, is `e2ecall.media.session`.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from aiortc import RTCDtlsTransport, RTCIceTransport, RTCRtpSender

from e2ecall.errors import LocalProtocolError, MediaError, RemoteProtocolError
from e2ecall.media import description, hooks
from e2ecall.media.events import FailureReason
from e2ecall.media.ice import RelayConnection, allocate, relay_gatherer
from e2ecall.media.identity import MediaIdentity
from e2ecall.media.incoming import IncomingStream
from e2ecall.media.outgoing import OutgoingStream
from e2ecall.media.settings import Settings
from e2ecall.protocol.description import check_candidates, check_media_description
from e2ecall.protocol.messages import Candidate, MediaDescription, Stream, StreamDescription

logger: Final = logging.getLogger(__name__)

STEP_TIMEOUT: Final = 5.0
"""Seconds for each part that is closed: sinks are not ours, and may finish a file."""

Receive = Callable[[StreamDescription], IncomingStream]
"""Makes what takes one stream of the peer."""


class MediaPath:
    """Lives on the media loop. ``epoch`` is the one in which it was begun, 0 for the first."""

    def __init__(self, identity: MediaIdentity, settings: Settings, epoch: int = 0) -> None:
        self.identity = identity
        self.epoch = epoch
        self.connection: RelayConnection | None = None
        self.ice: RTCIceTransport | None = None
        self.dtls: RTCDtlsTransport | None = None
        self.incoming: dict[Stream, IncomingStream] = {}
        self.senders: list[RTCRtpSender] = []
        self.heard_at = 0.0
        self.malformed = 0
        self.ended = asyncio.Event()
        self.quiet = asyncio.Event()
        """Set when it sends no more, once it is being closed."""
        self._settings = settings
        self._gatherer: Any = None
        self._gathering: asyncio.Task[Any] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._closing: asyncio.Task[None] | None = None

    @property
    def ended_by_peer(self) -> bool:
        """Whether the peer ended it in an authenticated way."""
        return self.ended.is_set() and self.dtls is not None and hooks.ended_by_peer(self.dtls)

    async def gather(
        self, turn_uris: Sequence[str], username: str, password: str
    ) -> tuple[Candidate, ...]:
        """Allocate at the relay and send nothing towards the peer; see `MediaPeer.gather`."""
        if self._gathering is not None or self._closing is not None:
            raise LocalProtocolError("this media transport has gathered already")
        local = self.identity.description
        self._gatherer, self.connection = relay_gatherer(
            turn_uris,
            username,
            password,
            ice_ufrag=local.ice_ufrag,
            ice_pwd=local.ice_pwd,
            tls=self._settings.tls,
        )
        self._gathering = asyncio.current_task()
        candidates = await allocate(self.connection)
        try:
            check_candidates(candidates, allowed_networks=self._settings.networks)
        except RemoteProtocolError as error:
            raise MediaError("the relay gave an address that no call may use") from error
        return candidates

    def check(self, remote: MediaDescription, candidates: Sequence[Candidate]) -> None:
        """Refuse what no path may be opened to: checked when it came, and where it is used.

        Raises:
            RemoteProtocolError: BAD_MEDIA_DESCRIPTION or BAD_CANDIDATE.
            LocalProtocolError: nothing was gathered, or it was opened before.
        """
        if self.connection is None or self.dtls is not None or self._closing is not None:
            raise LocalProtocolError("a media transport starts once, after gathering")
        check_media_description(remote)
        check_candidates(candidates, allowed_networks=self._settings.networks)

    async def open(self, *, controlling: bool, remote: MediaDescription, receive: Receive) -> None:
        """Register receivers, so that the peer's very first packet finds them; send nothing."""
        assert self.connection is not None  # `check` comes first
        self.connection.expected = description.payload_types(remote)
        self.ice = ice = RTCIceTransport(self._gatherer)
        self.dtls = dtls = RTCDtlsTransport(ice, [self.identity.certificate])
        hooks.fix_roles(ice, dtls, controlling=controlling)
        hooks.observe_authentic(dtls, self.heard, self._count_malformed)
        rtcp_ssrc = self.identity.description.streams[0].ssrc
        for described in remote.streams:
            incoming = self.incoming[described.stream] = receive(described)
            await incoming.start(dtls, rtcp_ssrc)
            self._spawn(incoming.deliver())
            self._spawn(incoming.send_feedback())

    async def connect(
        self, remote: MediaDescription, candidates: Sequence[Candidate], within: float
    ) -> FailureReason | None:
        """Do ICE and DTLS within so many seconds; return why they failed, or None."""
        ice, dtls = self.ice, self.dtls
        assert ice is not None  # it was opened
        assert dtls is not None
        for candidate in candidates:
            await ice.addRemoteCandidate(description.ice_candidate(candidate))
        await ice.addRemoteCandidate(None)
        dtls.on("statechange", lambda: self.ended.set() if dtls.state == "closed" else None)
        try:
            async with asyncio.timeout(within):
                await ice.start(description.ice_parameters(remote))
                if ice.state != "completed":
                    return FailureReason.NOT_CONNECTED
                await dtls.start(description.dtls_parameters(remote))
        except TimeoutError:
            return FailureReason.NOT_CONNECTED
        if dtls.state == "connected":
            self.heard()
            return None
        # The handshake itself succeeded: then it was the certificate that did not match.
        return FailureReason.WRONG_FINGERPRINT if dtls.encrypted else FailureReason.NOT_CONNECTED

    async def send(self, outgoing: Mapping[Stream, OutgoingStream]) -> None:
        """Begin to send the streams of the own description."""
        assert self.dtls is not None  # it is connected
        for described in self.identity.description.streams:
            track = outgoing.get(described.stream)
            if track is None:
                continue
            sender = hooks.new_sender(track, self.dtls, described.ssrc, described.rtx_ssrc)
            track.ssrc = described.ssrc
            hooks.observe_feedback(sender, track.feedback)
            await sender.send(description.send_parameters(described))
            self.senders.append(sender)

    async def stop_sending(self) -> None:
        """Send nothing more; the streams go on, and may be sent elsewhere."""
        senders, self.senders = self.senders, []
        for sender in senders:
            sender.replaceTrack(None)  # else it would stop the track
        for sender in senders:
            await sender.stop()

    def end(self) -> None:
        """Take and render nothing more."""
        for incoming in self.incoming.values():
            incoming.end()

    def give_up(self) -> None:
        """Take and send nothing more; call `close` then, of which the peer is not told.

        MEDIA-41: to a peer that came to use this path, close_notify would mean that media is over.
        """
        self.end()
        if self.connection is not None:
            self.connection.speechless = True

    def heard(self) -> None:
        """Note that something authentic came from the peer."""
        self.heard_at = time.monotonic()

    async def close(self) -> None:
        """Stop what was started, once; goes on to its end whoever waits for it is cancelled."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        """Stop in aiortc's order."""
        if self._gathering is not None and self._gathering is not asyncio.current_task():
            await cancelled(self._gathering)
        await close_all([self.stop_sending])
        self.quiet.set()
        steps: list[Callable[[], Awaitable[object]]]
        steps = [incoming.stop for incoming in self.incoming.values()]
        if self.dtls is not None:
            steps.append(self.dtls.stop)
        if self.ice is not None:
            steps.append(self.ice.stop)
        elif self.connection is not None:
            steps.append(self.connection.close)
        steps.append(self._end_tasks)
        await close_all(steps)

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            await cancelled(task)

    def _spawn(self, coroutine: Any) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(coroutine))

    def _count_malformed(self) -> None:
        self.malformed += 1


async def close_all(steps: Sequence[Callable[[], Awaitable[object]]]) -> None:
    """Take every step in turn, whatever an earlier one did."""
    for step in steps:
        try:
            async with asyncio.timeout(STEP_TIMEOUT):
                await step()
        except Exception:
            logger.exception("a part of the media transport failed to close")


async def cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait for its end."""
    task.cancel()
    await asyncio.wait([task])
