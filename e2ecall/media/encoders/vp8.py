"""VP8 for real time (spec/media.md, "Video"), and what its frames say in the clear.

Rate control is the encoder's own; which rate to aim at is `e2ecall.media.bitrate`. It neither
paces nor encrypts.
"""

from fractions import Fraction
from typing import Final

from av import CodecContext, VideoCodecContext, VideoFrame
from av.video.frame import PictureType

from e2ecall.errors import MediaError
from e2ecall.media.sources import VIDEO_CLOCK

MAX_PIXELS: Final = 3840 * 2160
"""Pixels of a received picture: a decoder allocates for what a key frame claims."""

KEY_FRAME_HEADER: Final = 10
"""Bytes of tag, start code and size in front of a key frame (RFC 6386 section 9.1)."""

_START_CODE: Final = b"\x9d\x01\x2a"
_TIME_BASE: Final = Fraction(1, VIDEO_CLOCK)
_KEY_FRAME_DISTANCE: Final = 3_000
"""Frames between unasked key frames: losses are answered by asking."""


_CLAIMED_RATE: Final = 1
"""Pictures a second that a context is told to expect. libvpx takes over the frequency that the
time stamps show at once where it differs from this, and slowly where it does not."""


class VP8Encoder:
    """Encodes pictures of one size; a new size makes a new context and so a key frame.

    FFmpeg gives libvpx a bitrate once, when a context is opened. What a picture may cost is that
    rate times the time since the picture before, so the rate is changed by time stamps that run
    faster or slower than the clock; nobody else sees them (decision 0032).
    """

    def __init__(self, frame_rate: float, bit_rate: int) -> None:
        self._frame_rate = frame_rate
        self._bit_rate = bit_rate
        self._opened_rate = bit_rate
        self._codec: VideoCodecContext | None = None
        self._pts = 0

    @property
    def bit_rate(self) -> int:
        """Bits a second that are aimed at."""
        return self._bit_rate

    def aim(self, bit_rate: int, frame_rate: float) -> None:
        """Aim at another rate, or expect another frequency, from the next picture on."""
        self._bit_rate = bit_rate
        self._frame_rate = frame_rate

    def open(self, width: int, height: int) -> None:
        """Make the context for pictures of this size ahead of time."""
        codec = CodecContext.create("libvpx", "w")
        assert isinstance(codec, VideoCodecContext)
        codec.width, codec.height = width, height
        codec.pix_fmt = "yuv420p"
        codec.time_base = _TIME_BASE
        codec.framerate = Fraction(_CLAIMED_RATE)
        codec.bit_rate = self._bit_rate
        codec.gop_size = _KEY_FRAME_DISTANCE
        codec.qmin, codec.qmax = 2, 56
        codec.thread_count = 1
        self._opened_rate = self._bit_rate
        rate = str(self._bit_rate)
        codec.options = {
            "deadline": "realtime",
            "cpu-used": "-8",
            "lag-in-frames": "0",
            "error-resilient": "default",
            "minrate": rate,  # minrate = maxrate is constant bitrate
            "maxrate": rate,
            "bufsize": str(self._bit_rate // 2),
            "undershoot-pct": "100",
            "overshoot-pct": "15",
            "static-thresh": "1",
        }
        codec.open()
        self._codec = codec

    def close(self) -> None:
        """Let go of the context and its threads; another picture would open a new one."""
        self._codec = None

    def encode(self, frame: VideoFrame, *, key_frame: bool) -> bytes:
        """Return the encoded picture, a key frame if asked for or if the context is new.

        Raises:
            MediaError: the encoder gave nothing, which a real-time encoder does not do.
        """
        frame = _even_yuv420p(frame)
        codec = self._codec
        if codec is None or (codec.width, codec.height) != (frame.width, frame.height):
            self.open(frame.width, frame.height)
            codec = self._codec
        assert codec is not None
        frame.pict_type = PictureType.I if key_frame else PictureType.NONE
        step = VIDEO_CLOCK / self._frame_rate * self._bit_rate / self._opened_rate
        self._pts += max(round(step), 1)
        frame.pts, frame.time_base = self._pts, _TIME_BASE
        packets = codec.encode(frame)
        if len(packets) != 1 or not packets[0].size:
            raise MediaError("the VP8 encoder gave no frame")
        return bytes(packets[0])


def check_picture(data: bytes) -> int:
    """Check what a decrypted VP8 frame claims, before a decoder allocates for it.

    Returns the pixels of a key frame, and 0 for any other, which has those of the last key frame.

    Raises:
        ValueError: a key frame without start code, or larger than `MAX_PIXELS`.
    """
    if not data:
        raise ValueError("an empty frame")
    if data[0] & 1:
        return 0
    if len(data) < KEY_FRAME_HEADER or data[3:6] != _START_CODE:
        raise ValueError("a key frame without its header")
    width = int.from_bytes(data[6:8], "little") & 0x3FFF
    height = int.from_bytes(data[8:10], "little") & 0x3FFF
    if not 0 < width * height <= MAX_PIXELS:
        raise ValueError("a picture of a size that is not shown")
    return width * height


def _even_yuv420p(frame: VideoFrame) -> VideoFrame:
    width, height = frame.width & ~1, frame.height & ~1
    if frame.format.name == "yuv420p" and (width, height) == (frame.width, frame.height):
        return frame
    return frame.reformat(width=width, height=height, format="yuv420p")
