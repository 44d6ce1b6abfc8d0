"""Vectors of spec/sealing.md: frames, HPKE, and whole envelopes."""

from typing import Any

from spec.vectors.generator import hpke
from spec.vectors.generator.encoding import Value, enc
from spec.vectors.generator.form import VectorFile
from spec.vectors.generator.people import ALICE, BOB, NOW, Prekey
from spec.vectors.generator.pqxdh import FULL
from spec.vectors.generator.primitives import draw, flipped, labelled, u8, u16, u32

_DEVICE = BOB.devices[0]
_KEYS = [Prekey.named("bob", 2, key_id) for key_id in (2, 12, 40)]
_SESSION = draw("session id", 16)
_MESSAGE = draw("a ratchet message", 2400)


def frame(kind: int, session_id: bytes, body: bytes, size: int) -> bytes:
    """Return a padded frame."""
    data = u8(kind) + session_id + u32(len(body)) + body
    return data + bytes(size - len(data))


def initial_body(initial: bytes, message: bytes) -> bytes:
    """Return the body of a frame of kind 1."""
    return u16(len(initial)) + initial + message


def info(address: str, device_id: int, key_id: int) -> bytes:
    """Return HPKE's info."""
    return labelled("sealing", address.encode(), u16(device_id), u32(key_id))


def envelope(name: str, key: Prekey, padded: bytes, bound: bytes | None = None) -> hpke.Sealed:
    """Seal a frame to bob's key."""
    bound = info(BOB.address, _DEVICE.device_id, key.key_id) if bound is None else bound
    m, ephemeral = draw(f"{name} m"), draw(f"{name} ephemeral")
    return hpke.seal(key.key, padded, bound, m=m, ephemeral=ephemeral)


def sealing() -> VectorFile:
    """sealing.json."""
    recipient: dict[str, Value] = {
        "address": BOB.address,
        "identity_seed": BOB.identity_seed,
        "device_id": _DEVICE.device_id,
        "signing_seed": _DEVICE.signing_seed,
        "dh_private": _DEVICE.dh_private,
        "device_list": enc(BOB.signed_list()),
        "prekeys": [[key.kind, key.key_id, key.private] for key in _KEYS],
    }
    file = VectorFile("sealing.md", {"now": NOW, "recipient": recipient})
    _frames(file)
    _envelopes(file)
    _refused_frames(file)
    _refused_envelopes(file)
    return file


def _frames(file: VectorFile) -> None:
    initial = enc(FULL.initial())
    cases: list[tuple[str, bytes | None, bytes, bool, int]] = [
        ("message_smallest_class", None, _MESSAGE, False, 4096),
        ("message_fills_class", None, draw("fill", 4096 - 21), False, 4096),
        ("message_one_byte_more", None, draw("fill", 4096 - 20), False, 8192),
        ("call_message", None, _MESSAGE, True, 8192),
        ("call_message_fills_class", None, draw("fill", 8192 - 21), True, 8192),
        ("call_message_larger", None, draw("fill", 8192 - 20), True, 16_384),
        ("message_largest_class", None, draw("fill", 16_384), False, 32_768),
        ("initial", initial, FULL.first_message(b"hello"), False, 8192),
        ("initial_call", initial, FULL.first_message(b"hello"), True, 8192),
    ]
    for name, im, message, call, size in cases:
        kind, body = (2, message) if im is None else (1, initial_body(im, message))
        given = {"session_id": _SESSION, "initial_message": im, "message": message, "call": call}
        output = {"frame": frame(kind, _SESSION, body, size)}
        file.accept("frame", f"frame_{name}", "SEALING-04", given, output)
    given = {
        "session_id": _SESSION,
        "initial_message": None,
        "message": bytes(16_384 - 20),
        "call": True,
    }
    name = "frame_call_message_too_long"
    file.refuse("frame", name, "SEALING-04", given, "sealing", "message_too_long")
    given |= {"message": bytes(32_768 - 20), "call": False}
    file.refuse("frame", "frame_too_long", "SEALING-04", given, "sealing", "message_too_long")


def _envelopes(file: VectorFile) -> None:
    padded = frame(2, _SESSION, _MESSAGE, 4096)
    for key in _KEYS:
        sealed = envelope(f"key {key.key_id}", key, padded)
        given: dict[str, Any] = {
            "private": key.private,
            "info": info(BOB.address, _DEVICE.device_id, key.key_id),
            "sealed": sealed.enc + sealed.ciphertext,
        }
        steps = {
            "encapsulated": sealed.enc,
            "shared_secret": sealed.shared_secret,
            "key": sealed.key,
            "nonce": sealed.nonce,
        }
        output: dict[str, Any] = {"public": key.key, "plaintext": padded}
        name = f"hpke_with_key_{key.key_id}"
        file.accept("hpke_open", name, "SEALING-03", given, output, steps)
        given = {"envelope": u8(1) + sealed.enc + sealed.ciphertext}
        output = {"session_id": _SESSION, "initial_message": None, "message": _MESSAGE}
        name = f"envelope_to_key_{key.key_id}"
        file.accept("open_envelope", name, "SEALING-02", given, output)
    im, message = enc(FULL.initial()), FULL.first_message(b"hello")
    sealed = envelope(
        "initial", _KEYS[2], frame(1, FULL.keys()[96:], initial_body(im, message), 8192)
    )
    given = {"envelope": u8(1) + sealed.enc + sealed.ciphertext}
    output = {"session_id": FULL.keys()[96:], "initial_message": im, "message": message}
    file.accept("open_envelope", "envelope_initial", "SEALING-01", given, output)


def _refused_frames(file: VectorFile) -> None:
    good = frame(2, _SESSION, _MESSAGE, 4096)
    used = 21 + len(_MESSAGE)
    cases = {
        "padding_first_byte": flipped(good, used),
        "padding_last_byte": flipped(good, -1, 0x80),
        "of_no_class": good[:-1],
        "of_twelve_kilobytes": good + bytes(8192),
        "empty": b"",
        "length_too_large": good[:17] + u32(4096 - 20) + good[21:],
        "length_largest": good[:17] + u32(2**32 - 1) + good[21:],
        "length_too_small": good[:17] + u32(len(_MESSAGE) - 1) + good[21:],
    }
    for name, data in cases.items():
        given = {"frame": data}
        file.refuse("read_frame", f"frame_{name}", "SEALING-05", given, "sealing", "bad_padding")
    for kind in (0, 3, 255):
        given = {"frame": u8(kind) + good[1:]}
        name = f"frame_of_kind_{kind}"
        file.refuse("read_frame", name, "SEALING-06", given, "sealing", "malformed")
    im, message = enc(FULL.initial()), FULL.first_message(b"hello")
    for name, body in {
        "initial_longer_than_body": u16(len(im) + len(message) + 1) + im + message,
        "initial_cut_off": u16(len(im) - 1) + im + message,
        "initial_with_trailing_byte": u16(len(im) + 1) + im + b"\0" + message,
        "initial_empty": u16(0) + message,
        "initial_without_body": b"",
        "initial_not_canonical": u16(len(im) + 2) + b"\xdc\x00\x0c" + im[1:] + message,
    }.items():
        given = {"frame": frame(1, _SESSION, body, 8192)}
        file.refuse("read_frame", f"frame_{name}", "SEALING-06", given, "encoding", "malformed")
    given = {"frame": frame(1, _SESSION, initial_body(bytes(8193), message), 16_384)}
    name = "frame_initial_too_long"
    file.refuse("read_frame", name, "SEALING-06", given, "encoding", "malformed")


def _refused_envelopes(file: VectorFile) -> None:
    padded, key = frame(2, _SESSION, _MESSAGE, 4096), _KEYS[2]
    sealed = envelope("refused", key, padded)
    good = u8(1) + sealed.enc + sealed.ciphertext
    device_id = _DEVICE.device_id

    def bound(name: str, *to: Any) -> bytes:
        other = envelope(name, key, padded, info(*to))
        return u8(1) + other.enc + other.ciphertext

    unknown = envelope("unknown", Prekey.named("bob", 2, 41), padded)
    for name, data in {
        "ciphertext_altered": flipped(good, 2000),
        "tag_altered": flipped(good, -1),
        "mlkem_ciphertext_altered": flipped(good, 1),
        "x25519_share_altered": flipped(good, 1 + 1088),
        "x25519_share_low_order": good[:1089] + bytes(32) + good[1121:],
        "for_another_address": bound("address", ALICE.address, device_id, key.key_id),
        "for_another_device": bound("device", BOB.address, 7, key.key_id),
        "for_another_key_id": bound("key id", BOB.address, device_id, 12),
        "to_unknown_key": u8(1) + unknown.enc + unknown.ciphertext,
        "all_zero": u8(1) + bytes(len(good) - 1),
    }.items():
        file.refuse(
            "open_envelope",
            f"envelope_{name}",
            "SEALING-03",
            {"envelope": data},
            "sealing",
            "not_authentic",
        )
    for version in (0, 2):
        given = {"envelope": u8(version) + good[1:]}
        name = f"envelope_of_version_{version}"
        file.refuse("open_envelope", name, "SEALING-06", given, "sealing", "bad_version")
    given = {"envelope": b""}
    file.refuse("open_envelope", "envelope_empty", "SEALING-06", given, "sealing", "bad_version")
    other_size = envelope("size", key, padded[:-1])
    for how, data in {
        "one_byte_less": good[:-1],
        "one_byte_more": good + b"\0",
        "of_another_size": u8(1) + other_size.enc + other_size.ciphertext,
    }.items():
        given = {"envelope": data}
        name = f"envelope_{how}"
        file.refuse("open_envelope", name, "SEALING-05", given, "sealing", "bad_padding")
    nonzero = envelope("nonzero", key, flipped(padded, -1))
    given = {"envelope": u8(1) + nonzero.enc + nonzero.ciphertext}
    name = "envelope_padding_not_zero"
    file.refuse("open_envelope", name, "SEALING-05", given, "sealing", "bad_padding")
