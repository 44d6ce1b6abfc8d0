"""Opus at constant bitrate (spec/media.md, "Audio"): every packet has the same size.

MEDIA-03: variable bitrate and discontinuous transmission tell speech from silence, and even which
words were said, to whoever sees packet sizes. It neither paces nor encrypts.
"""

from fractions import Fraction
from typing import Final

from av import AudioCodecContext, AudioFrame, CodecContext

from e2ecall.errors import MediaError
from e2ecall.media.sources import SAMPLE_RATE, SAMPLES_PER_FRAME

_TIME_BASE: Final = Fraction(1, SAMPLE_RATE)


class OpusEncoder:
    """Encodes 20 ms of mono ``s16`` at 48 kHz into one packet of `packet_bytes`.

    FFmpeg gives libopus a bitrate once, so that another one takes another encoder.
    """

    def __init__(self, bit_rate: int) -> None:
        self.bit_rate = bit_rate
        self.packet_bytes = bit_rate * SAMPLES_PER_FRAME // SAMPLE_RATE // 8
        codec = CodecContext.create("libopus", "w")
        assert isinstance(codec, AudioCodecContext)
        codec.bit_rate = bit_rate
        codec.format = "s16"
        codec.layout = "mono"
        codec.sample_rate = SAMPLE_RATE
        codec.time_base = _TIME_BASE
        codec.options = {"application": "voip", "vbr": "off", "frame_duration": "20"}
        codec.open()
        self._codec = codec
        self._samples = 0

    def encode(self, frame: AudioFrame) -> bytes:
        """Return the packet of one frame.

        Raises:
            MediaError: the frame is not 20 ms of mono ``s16`` at 48 kHz, or it came out in
                another size, which must never be sent.
        """
        check_sound(frame)
        frame.pts = self._samples
        frame.time_base = _TIME_BASE
        self._samples += SAMPLES_PER_FRAME
        packets = self._codec.encode(frame)
        if len(packets) != 1 or packets[0].size != self.packet_bytes:
            raise MediaError("the Opus encoder does not keep the bitrate constant")
        return bytes(packets[0])


def check_sound(frame: AudioFrame) -> None:
    """Accept 20 ms of mono ``s16`` at 48 kHz.

    Raises:
        MediaError: it is something else, which has no constant size.
    """
    if (frame.samples, frame.sample_rate, frame.format.name, frame.layout.name) != (
        SAMPLES_PER_FRAME,
        SAMPLE_RATE,
        "s16",
        "mono",
    ):
        raise MediaError("an audio source must give 20 ms of mono s16 at 48 kHz")
