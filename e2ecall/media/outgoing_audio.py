"""Sound that is sent (spec/media.md, "Audio"); see `outgoing` for what it shares with pictures."""

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from aiortc.rtp import AnyRtcpPacket, RtcpRrPacket, RtcpSrPacket
from av import AudioFrame

from e2ecall.media.encoders.opus import OpusEncoder, check_sound
from e2ecall.media.outgoing import OutgoingStream
from e2ecall.media.sources import SAMPLE_RATE, SAMPLES_PER_FRAME, AudioSource, silence
from e2ecall.media.voice_rate import VoiceRate
from e2ecall.protocol.messages import Codec
from e2ecall.protocol.sound import MAX_COPIES, pack

logger: Final = logging.getLogger(__name__)


class OutgoingAudio(OutgoingStream):
    """Sound at a constant rate and size; muted, ended and failed sources become silence.

    Rate and size follow the network (MEDIA-31), and nothing else.
    """

    kind = "audio"
    _codec = Codec.OPUS

    def __init__(
        self,
        source: AudioSource | None,
        name: str,
        payload_type: int,
        path_rate: Callable[[], int | None],
    ) -> None:
        """``path_rate`` tells what pictures may take of the path, None if there are none."""
        super().__init__(clock=SAMPLE_RATE, ticks_per_frame=SAMPLES_PER_FRAME, name=name)
        self._given = source
        self._source = source
        self._payload_type = payload_type
        self._path_rate = path_rate
        self._rate = VoiceRate()
        self._encoder: OpusEncoder | None = None
        self._before: deque[bytes] = deque(maxlen=MAX_COPIES)

    def feedback(self, packet: AnyRtcpPacket) -> None:
        """Take a report of loss: the rate of sound follows it, and what pictures may take."""
        if isinstance(packet, RtcpRrPacket | RtcpSrPacket):
            for report in packet.reports:
                if report.ssrc == self.ssrc:
                    share = report.fraction_lost / 256
                    self._rate.choose(share, self._path_rate(), time.monotonic())

    def _open(self) -> None:
        if self._encoder is None:
            self._encoder = OpusEncoder(self._rate.setting.bit_rate)

    def _encode(self) -> bytes:
        frame = self._next_sound()
        setting = self._rate.setting
        if self._encoder is None or self._encoder.bit_rate != setting.bit_rate:
            # A fresh one is not made to hear what came before: that would make a dip (measured).
            self._encoder = OpusEncoder(setting.bit_rate)
        packet = self._encoder.encode(frame)
        while len(self._before) < MAX_COPIES:  # the size is constant from the first frame on
            self._before.append(packet)
        copies = list(self._before)[MAX_COPIES - setting.copies :]
        self._before.append(packet)
        return pack(packet, copies, self._payload_type)

    def _next_sound(self) -> AudioFrame:
        if self._source is not None:
            try:
                frame = self._source.read()
                if frame is not None and not self.muted:  # a muted source still moves on
                    check_sound(frame)
                    return frame
            except Exception:
                logger.exception("an audio source failed; silence is sent from here on")
                frame = None
            if frame is None:
                self._source = None
        return silence()

    def _close_source(self) -> None:
        if self._given is not None:
            self._given.close()

    def _drop_encoder(self) -> None:
        self._encoder = None
