"""SFrame (RFC 9605, spec/sframe.md) written a second time, and its vectors.

`protect` also knows the other AES-GCM suite of the RFC, to be checked against the RFC's vectors.
"""

from dataclasses import dataclass
from typing import Any

from spec.vectors.generator.calls import CALL, Epoch
from spec.vectors.generator.form import VectorFile
from spec.vectors.generator.primitives import draw, flipped, gcm, hkdf, u8, u16, u64


@dataclass(frozen=True)
class Suite:
    """A cipher suite of RFC 9605 section 4.5 with AES-GCM."""

    number: int
    digest: str
    key_bytes: int


SUITES = {4: Suite(4, "sha256", 16), 5: Suite(5, "sha512", 32)}
OURS = SUITES[5]

MICROPHONE, CAMERA = 0, 1


def header(kid: int, ctr: int) -> bytes:
    """Return the minimal SFrame header."""
    k, kid_bytes = _value(kid)
    c, ctr_bytes = _value(ctr)
    return u8(k << 4 | c) + kid_bytes + ctr_bytes


def _value(value: int) -> tuple[int, bytes]:
    if value < 8:
        return value, b""
    data = value.to_bytes((value.bit_length() + 7) // 8)
    return 8 | len(data) - 1, data


def key_and_salt(base_key: bytes, kid: int, suite: Suite = OURS) -> tuple[bytes, bytes]:
    """Return the sframe_key and sframe_salt of a base key."""
    tail = u64(kid) + u16(suite.number)
    key = hkdf(suite.digest, b"", base_key, b"SFrame 1.0 Secret key " + tail, suite.key_bytes)
    return key, hkdf(suite.digest, b"", base_key, b"SFrame 1.0 Secret salt " + tail, 12)


def ciphertext(
    base_key: bytes,
    kid: int,
    ctr: int,
    plaintext: bytes,
    metadata: bytes,
    suite: Suite = OURS,
    shown: bytes | None = None,
) -> bytes:
    """Return SFrame header, ciphertext and tag; ``shown`` is a header of a tester's choice."""
    key, salt = key_and_salt(base_key, kid, suite)
    nonce = (int.from_bytes(salt) ^ ctr).to_bytes(12)
    head = header(kid, ctr) if shown is None else shown
    return head + gcm(key, nonce, plaintext, head + metadata)


def protect(
    base_key: bytes, kid: int, ctr: int, frame: bytes, prefix: int, shown: bytes | None = None
) -> bytes:
    """Return the protected frame."""
    clear, body = frame[:prefix], frame[prefix:]
    return clear + ciphertext(base_key, kid, ctr, body, clear, shown=shown)


_KEY_FRAME = bytes([0x10, 0x02, 0x00, 0x9D, 0x01, 0x2A, 0x80, 0x02, 0x68, 0x01])
"""A VP8 key frame's first ten bytes: 640 times 360."""

FRAMES: dict[str, tuple[str, int, bytes]] = {
    "opus": ("opus", 0, draw("opus frame", 80)),
    "opus_of_one_byte": ("opus", 0, b"\xf8"),
    "opus_empty": ("opus", 0, b""),
    "opus_that_looks_like_a_key_frame": ("opus", 0, b"\x00" + draw("opus", 20)),
    "vp8_key": ("vp8", 10, _KEY_FRAME + draw("key frame", 300)),
    "vp8_key_of_ten_bytes": ("vp8", 10, _KEY_FRAME),
    "vp8_delta": ("vp8", 1, b"\x31" + draw("delta frame", 120)),
    "vp8_delta_of_one_byte": ("vp8", 1, b"\x11"),
}
"""Codec, clear prefix and frame."""

_KIDS = {
    0: "caller's microphone",
    1: "caller's camera",
    3: "caller's screen sound",
    0x10: "callee's microphone",
    0x11: "callee's camera",
    0x1000: "epoch 1",
    0xFFFFFFFF << 12 | 0x12: "last epoch",
}
_COUNTERS = (0, 1, 7, 8, 255, 256, 65_535, 65_536, 2**24 - 1)


def sframe() -> VectorFile:
    """sframe.json."""
    file = VectorFile("sframe.md")
    for kid, whose in _KIDS.items():
        base_key = draw(f"base key {kid}")
        key, salt = key_and_salt(base_key, kid)
        given = {"base_key": base_key, "kid": kid}
        output = {"key": key, "salt": salt}
        name = f"key_and_salt_{whose.replace(' ', '_').replace(chr(39), '')}"
        file.accept("sframe_key", name, "SFRAME-01", given, output)
        for ctr in _COUNTERS:
            given = {"kid": kid, "ctr": ctr}
            output = {"header": header(kid, ctr)}
            file.accept("sframe_header", f"header_{kid:x}_{ctr}", "SFRAME-02", given, output)
    _key_ids(file)
    _frames(file)
    _refused_headers(file)
    _refused_frames(file)
    return file


def _key_ids(file: VectorFile) -> None:
    for epoch in (0, 1, 2**32 - 1):
        for sender in (0, 1):
            for stream in range(4):
                role = ("caller", "callee")[sender]
                kid = Epoch(b"", epoch, b"").kid(stream, role)
                given = {"epoch": epoch, "sender": sender, "stream": stream}
                name = f"kid_{epoch}_{sender}_{stream}"
                file.accept("sframe_kid", name, "SFRAME-08", given, {"kid": kid})


def _frames(file: VectorFile) -> None:
    base_key, kid = CALL.epoch.base_key(CAMERA, "caller"), CALL.epoch.kid(CAMERA, "caller")
    for ctr in _COUNTERS:
        for name, (codec, prefix, frame) in FRAMES.items():
            if ctr not in {0, 300} and name not in {"opus", "vp8_delta"}:
                continue
            _frame(file, f"frame_{name}_{ctr}", base_key, kid, ctr, codec, prefix, frame)
    for kid in (0x10, 0x1000, 0xFFFFFFFF << 12 | 0x12):
        codec, prefix, frame = FRAMES["opus"]
        base_key = draw(f"base key {kid}")
        _frame(file, f"frame_of_kid_{kid:x}", base_key, kid, 9, codec, prefix, frame)


def _frame(
    file: VectorFile,
    name: str,
    base_key: bytes,
    kid: int,
    ctr: int,
    codec: str,
    prefix: int,
    frame: bytes,
) -> None:
    """Add a frame, opened, and protected unless so many had to be sent before it."""
    protected = protect(base_key, kid, ctr, frame, prefix)
    given = {"base_key": base_key, "kid": kid, "codec": codec}
    output = {"clear_prefix": prefix, "frame": frame}
    opened = given | {"protected": protected}
    file.accept("sframe_open", f"{name}_opened", "SFRAME-07", opened, output)
    if ctr <= 65_536:
        given |= {"ctr": ctr, "frame": frame}
        output = {"clear_prefix": prefix, "protected": protected}
        file.accept("sframe_protect", name, "SFRAME-04", given, output)


def _refused_headers(file: VectorFile) -> None:
    for name, data in {
        "empty": b"",
        "kid_cut_off": b"\x90\x01",
        "ctr_cut_off": b"\x09\x01",
        "ctr_missing": b"\x08",
        "all_lengths_cut_off": b"\xff" + bytes([1]) * 15,
        "kid_below_eight_extended": b"\x80\x07",
        "ctr_below_eight_extended": b"\x08\x07",
        "kid_with_leading_zero": b"\x90\x00\x10",
        "ctr_with_leading_zero": b"\x09\x00\x10",
        "ctr_zero_extended": b"\x08\x00",
        "kid_zero_extended": b"\x80\x00",
        "ctr_of_eight_bytes_with_leading_zero": b"\x0f\x00" + b"\xff" * 7,
    }.items():
        file.refuse(
            "read_sframe_header",
            f"header_{name}",
            "SFRAME-03",
            {"header": data},
            "sframe",
            "bad_frame_header",
        )


def _refused_frames(file: VectorFile) -> None:
    kid = 0x11
    base_key, (_, prefix, delta) = draw("refusals"), FRAMES["vp8_delta"]
    key_frame = FRAMES["vp8_key"][2]
    keys = [{"kid": kid, "base_key": base_key}, {"kid": 0x10, "base_key": draw("microphone")}]

    def made(ctr: int, frame: bytes = delta, clear: int = prefix, **options: Any) -> bytes:
        return protect(base_key, kid, ctr, frame, clear, **options)

    def refuse(
        name: str, requirement: str, frame: bytes, reason: str, *, after: list[bytes] | None = None,
        removed: bool = False,
    ) -> None:  # fmt: skip
        given = {
            "keys": keys,
            "codec": "vp8",
            "before": after or [],
            "removed": [kid] if removed else [],
            "frame": frame,
        }
        file.refuse("sframe_receive", f"frame_{name}", requirement, given, "sframe", reason)

    good, key_good = made(300), made(300, key_frame, 10)
    size = len(header(kid, 300))
    for name, altered in {
        "prefix_altered": flipped(good, 0, 0x10),
        "ciphertext_altered": flipped(good, 1 + size),
        "tag_altered": flipped(good, -1),
        "tag_cut_off": good[:-1],
        "tag_truncated_to_eight": good[:-8],
        "without_tag": good[: 1 + size],
        "extended": good + b"\0",
        "ctr_altered": flipped(good, size),
        "key_prefix_altered": flipped(key_good, 9),
        "of_another_key": protect(draw("another"), kid, 300, delta, 1),
        "of_another_stream": delta[:1] + ciphertext(base_key, kid, 300, delta[1:], delta[:1],
                                                    shown=header(0x10, 300)),
        "with_prefix_not_authenticated": delta[:1] + ciphertext(base_key, kid, 300, delta[1:], b""),
        "with_prefix_before_header": delta[:1] + _aad_swapped(base_key, kid, 300, delta),
    }.items():  # fmt: skip
        refuse(name, "SFRAME-01", altered, "not_authentic")
    for name, unknown in {
        "unknown_kid": protect(base_key, 0x12, 0, delta, 1),
        "own_sender": protect(base_key, 0x01, 0, delta, 1),
        "next_epoch": protect(base_key, 0x1011, 0, delta, 1),
    }.items():
        refuse(name, "SFRAME-08", unknown, "unknown_frame_key")
    refuse("kid_removed", "SFRAME-08", made(5), "unknown_frame_key", removed=True)
    for ctr in (2**24, 2**32, 2**64 - 1):
        refuse(f"ctr_{ctr}", "SFRAME-05", made(ctr), "bad_frame_header")
    for name, shown in {
        "ctr_extended": b"\x88\x11\x05",
        "ctr_with_leading_zero": b"\x89\x11\x00\x05",
        "kid_with_leading_zero": b"\x95\x00\x11",
    }.items():
        refuse(name, "SFRAME-03", made(5, shown=shown), "bad_frame_header")
    refuse("replayed", "SFRAME-06", made(4), "replayed", after=[made(4)])
    refuse("replayed_first", "SFRAME-06", made(0), "replayed", after=[made(0), made(900)])
    refuse("1024_behind", "SFRAME-06", made(976), "replayed", after=[made(2000)])
    for name, data in {"empty": b"", "prefix_alone": delta[:1], "of_nothing_else": b"\x01"}.items():
        refuse(name, "SFRAME-03", data, "bad_frame_header")
    refuse("key_prefix_cut_off", "SFRAME-07", key_good[:9], "bad_frame_header")
    _refused_epochs(file)
    window = {
        "keys": keys,
        "codec": "vp8",
        "frames": [made(ctr) for ctr in (2000, 977, 1999, 0x7FF, 3022, 1999 + 2)],
    }
    output = {"frames": [delta] * 6}
    file.accept("sframe_window", "frames_out_of_order", "SFRAME-06", window, output)


def _refused_epochs(file: VectorFile) -> None:
    """Refuse frames that belong to another epoch than they say, or to one that is over."""
    _, prefix, delta = FRAMES["vp8_delta"]
    kids = {epoch: epoch << 12 | 0x11 for epoch in range(4)}
    base_keys = {epoch: draw(f"base key of epoch {epoch}") for epoch in kids}

    def made(epoch: int, ctr: int, *, shown: int | None = None) -> bytes:
        kid = kids[epoch if shown is None else shown]
        head = header(kid, ctr)
        return delta[:1] + ciphertext(base_keys[epoch], kids[epoch], ctr, delta[1:], delta[:1],
                                      shown=head)  # fmt: skip

    keys = [{"kid": kids[epoch], "base_key": base_keys[epoch]} for epoch in (1, 2)]
    given = {"keys": keys, "codec": "vp8", "before": [], "removed": [], "frame": b""}

    def refuse(name: str, frame: bytes, reason: str, **changes: Any) -> None:
        values = given | {"frame": frame} | changes
        requirement = "SFRAME-11" if "retire_before" in changes else "SFRAME-10"
        file.refuse("sframe_receive", f"frame_{name}", requirement, values, "sframe", reason)

    refuse("of_epoch_not_begun", made(3, 0), "unknown_frame_key")
    refuse("shown_as_of_next_epoch", made(1, 0, shown=2), "not_authentic")
    refuse("shown_as_of_former_epoch", made(2, 0, shown=1), "not_authentic")
    refuse("replayed_after_next_epoch", made(1, 3), "replayed", before=[made(1, 3), made(2, 0)])
    for ctr in (0, 7, 400):
        frame = made(1, ctr)
        refuse(f"{ctr}_of_retired_epoch", frame, "unknown_frame_key", retire_before=2)
    both = {
        "keys": keys,
        "codec": "vp8",
        "frames": [made(1, 0), made(2, 0), made(1, 1), made(2, 1), made(2, 300), made(1, 2)],
    }
    if prefix != 1:
        raise ValueError("a delta frame has one clear byte")
    file.accept("sframe_window", "frames_of_two_epochs", "SFRAME-10", both, {"frames": [delta] * 6})


def _aad_swapped(base_key: bytes, kid: int, ctr: int, frame: bytes) -> bytes:
    """Return a frame whose AAD has the prefix first: not what SFRAME-01 says."""
    key, salt = key_and_salt(base_key, kid)
    nonce = (int.from_bytes(salt) ^ ctr).to_bytes(12)
    head = header(kid, ctr)
    return head + gcm(key, nonce, frame[1:], frame[:1] + head)
