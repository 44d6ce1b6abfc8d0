"""Frames of sound (spec/media.md, MEDIA-32), written again from RFC 2198."""

from typing import Final

from spec.vectors.generator.form import VectorFile
from spec.vectors.generator.primitives import draw

_TICKS: Final = 960


def frame(payload_type: int, before: list[bytes], own: bytes) -> bytes:
    """Return a frame of sound."""
    bits = ""
    for place, packet in enumerate(before):
        back = _TICKS * (len(before) - place)
        bits += f"1{payload_type:07b}{back:014b}{len(packet):010b}"
    bits += f"0{payload_type:07b}"
    return int(bits, 2).to_bytes(len(bits) // 8) + b"".join(before) + own


def media() -> VectorFile:
    """media.json."""
    file = VectorFile("media.md")
    packets = {size: [draw(f"opus {size} {n}", size) for n in range(3)] for size in (60, 80, 160)}
    narrow, usual, best = packets.values()
    for name, payload_type, before, own in (
        ("narrow", 96, narrow[:1], narrow[1]),
        ("lossy", 96, narrow[:2], narrow[2]),
        ("usual", 96, usual[:1], usual[1]),
        ("best", 96, best[:1], best[1]),
        ("of_the_screen", 101, usual[:1], usual[1]),
        ("after_a_change_of_setting", 96, [usual[0], narrow[0]], narrow[1]),
        ("without_a_copy", 127, [], b"\xf8"),
        ("of_the_longest_packet", 96, [draw("long", 1023)], usual[0]),
    ):
        given = {"payload_type": payload_type, "before": before, "own": own}
        output = {"frame": frame(payload_type, before, own)}
        file.accept("sound_frame", f"sound_{name}", "MEDIA-32", given, output)
    good = frame(96, usual[:1], usual[1])
    for name, data in {
        "empty": b"",
        "own_packet_empty": frame(96, usual[:1], b""),
        "copy_empty": frame(96, [b""], usual[0]),
        "copy_cut_off": good[: 5 + 79],
        "own_packet_cut_off": good[: 5 + 80],
        "header_cut_off": good[:3],
        "last_header_missing": good[:4],
        "of_another_payload_type": frame(97, usual[:1], usual[1]),
        "copy_of_another_payload_type": bytes([good[0] ^ 1]) + good[1:],
        "own_of_another_payload_type": good[:4] + b"\x61" + good[5:],
        "three_copies": frame(96, usual, usual[0]),
        "plain_opus": b"\x78" + usual[0],
    }.items():
        given = {"payload_type": 96, "frame": data}
        file.refuse("read_sound_frame", f"sound_{name}", "MEDIA-32", given, "sound", "malformed")
    return file
