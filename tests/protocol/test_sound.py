"""Frames of sound: what they bring along, and what is refused."""

import pytest

from e2ecall.errors import Reason, RemoteProtocolError
from e2ecall.protocol.sound import MAX_COPIES, Sound, pack, unpack

OPUS = 96


@pytest.mark.parametrize("count", range(MAX_COPIES + 1))
def test_what_is_packed_can_be_unpacked(count):
    """MEDIA-32: every copy comes out with how far it is back, the frame's own packet last."""
    before = [bytes((n + 1,)) * (10 + n) for n in range(count)]
    sounds = unpack(pack(b"own", before, OPUS), OPUS)
    wanted = [Sound(count - n, (count - n) * 960, data) for n, data in enumerate(before)]
    assert sounds == [*wanted, Sound(0, 0, b"own")]


def test_the_layout_is_that_of_rfc_2198():
    """MEDIA-32: header of a copy with 960 ticks and 3 bytes, then the last header."""
    assert pack(b"\x0a\x0b", [b"\x01\x02\x03"], OPUS).hex() == "e00f0003" + "60" + "010203" + "0a0b"


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param("", id="empty"),
        pytest.param("60", id="own_packet_empty"),
        pytest.param("610a", id="another_payload_type"),
        pytest.param("e10f000160010a", id="copy_of_another_payload_type"),
        pytest.param("e00f0000600a", id="copy_empty"),
        pytest.param("e00f0003600102", id="copy_cut_off"),
        pytest.param("e00f", id="header_cut_off"),
        pytest.param("e00f0001", id="no_last_header"),
        pytest.param("e0000001" * 3 + "60" + "01020304", id="three_copies"),
    ],
)
def test_sound_of_another_layout_is_refused(frame):
    """MEDIA-32: what is not exactly of the layout is refused whole."""
    with pytest.raises(RemoteProtocolError) as refused:
        unpack(bytes.fromhex(frame), OPUS)
    assert refused.value.reason is Reason.MALFORMED
