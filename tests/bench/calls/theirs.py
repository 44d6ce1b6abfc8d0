"""The same call by plain aiortc: its own encoders, jitter buffers and rate control.

Relayed candidates alone, as ours, and one transport for all (MAX_BUNDLE), which is the quickest
that aiortc has.
"""

import asyncio
import contextlib
import time
from fractions import Fraction
from typing import Any

from aiortc import (
    RTCBundlePolicy,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.rtcconfiguration import RTCIceTransportPolicy
from av import AudioFrame, VideoFrame

from e2ecall.media.sources import (
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    VIDEO_CLOCK,
    audio_frame,
)
from tests.bench.calls.endpoint import Lines, Studio
from tests.bench.calls.material import RATE
from tests.bench.calls.witness import Witness


class _Track(MediaStreamTrack):
    """A track that keeps time as aiortc's own examples do."""

    def __init__(self, studio: Studio, rate: int, clock: int) -> None:
        super().__init__()
        self._studio, self._rate, self._clock = studio, rate, clock
        self._number, self._start = 0, 0.0

    async def _due(self) -> tuple[int, int, Fraction]:
        """Wait for the next frame's moment; return its number and time stamp."""
        if self.readyState != "live":
            raise MediaStreamError
        number = self._number
        if number == 0:
            self._start = time.monotonic()
        await asyncio.sleep(max(0.0, self._start + number / self._rate - time.monotonic()))
        self._number += 1
        return number, number * self._clock // self._rate, Fraction(1, self._clock)


class _Sound(_Track):
    kind = "audio"

    async def recv(self) -> AudioFrame:
        number, pts, time_base = await self._due()
        frame = audio_frame(self._studio.samples(number))
        frame.pts, frame.time_base = pts, time_base
        return frame


class _Picture(_Track):
    kind = "video"

    async def recv(self) -> VideoFrame:
        number, pts, time_base = await self._due()
        frame = VideoFrame.from_ndarray(self._studio.picture(number), format="yuv420p")
        frame.pts, frame.time_base = pts, time_base
        return frame


async def call(
    lines: Lines, role: str, turn: tuple[str, str, str], studio: Studio, witness: Witness
) -> None:
    """Connect, send and receive until told to stop; see `endpoint`."""
    uri, username, password = turn
    servers = [RTCIceServer(urls=uri, username=username, credential=password)]
    connection = RTCPeerConnection(
        RTCConfiguration(
            iceServers=servers,
            bundlePolicy=RTCBundlePolicy.MAX_BUNDLE,
            iceTransportPolicy=RTCIceTransportPolicy.RELAY,
        )
    )
    watching: list[asyncio.Task[None]] = []

    @connection.on("track")
    def _(track: Any) -> None:
        watching.append(asyncio.create_task(_watch(track, witness)))

    @connection.on("connectionstatechange")
    def _() -> None:
        if connection.connectionState == "connected":
            lines.say("connected")
        elif connection.connectionState == "failed":
            lines.say("failed")

    connection.addTrack(_Sound(studio, SAMPLE_RATE // SAMPLES_PER_FRAME, SAMPLE_RATE))
    if role == "caller":
        connection.addTrack(_Picture(studio, RATE, VIDEO_CLOCK))
        await connection.setLocalDescription(await connection.createOffer())
        lines.say(connection.localDescription.sdp)
        answer = RTCSessionDescription(await lines.read(), "answer")
        await connection.setRemoteDescription(answer)
    else:
        await connection.setRemoteDescription(RTCSessionDescription(await lines.read(), "offer"))
        await connection.setLocalDescription(await connection.createAnswer())
        lines.say(connection.localDescription.sdp)
    await lines.read()
    await connection.close()
    for task in watching:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _watch(track: Any, witness: Witness) -> None:
    with contextlib.suppress(MediaStreamError):
        while True:
            frame = await track.recv()
            sent = float(frame.pts * frame.time_base)
            (witness.sound if track.kind == "audio" else witness.picture)(frame, sent)
