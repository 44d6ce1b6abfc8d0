"""Vectors of spec/call.md: payloads and call messages, and what no receiver may take for one."""

from spec.vectors.generator.calls import (
    BODIES,
    CALL,
    CAMERA,
    CANDIDATE,
    MICROPHONE,
    NUMBERS,
    SCREEN,
    SCREEN_SOUND,
    media,
)
from spec.vectors.generator.encoding import Value, enc
from spec.vectors.generator.form import VectorFile
from spec.vectors.generator.people import ALICE, NOW, Prekey
from spec.vectors.generator.primitives import draw
from spec.vectors.generator.traces import traces

_SEALING = Prekey.named("alice", 2, 9).record(ALICE.address, ALICE.devices[0])
_MS = NOW * 1000


def call() -> VectorFile:
    """call.json."""
    file = VectorFile("call.md", {"now": NOW})
    _payloads(file)
    _messages(file)
    _refused_payloads(file)
    _refused_messages(file)
    _media(file)
    _candidates(file)
    _freshness(file)
    traces(file)
    return file


def _payloads(file: VectorFile) -> None:
    text = "Grüße, 世界".encode()
    cases: dict[str, list[Value]] = {
        "text": [2, _MS, None, None, text],
        "text_first": [2, _MS, _SEALING, draw("token", 16), b"hello"],
        "text_longest": [2, 2**48 - 1, None, None, b"x" * 16_384],
        "call": [1, _MS, None, None, enc(CALL.offer)],
        "at_time_zero": [1, 0, None, draw("token", 16), b"\0"],
    }
    for name, fields in cases.items():
        given = dict(
            zip(("kind", "sent_at_ms", "sealing_key", "token", "body"), fields, strict=True)
        )
        given["sealing_key"] = None if fields[2] is None else enc(fields[2])
        output = {"encoded": enc(fields)}
        file.accept("payload", f"payload_{name}", "WIRE-04", given, output)


def _messages(file: VectorFile) -> None:
    audio = [*CALL.offer[:6], media("all", [MICROPHONE, CAMERA, SCREEN, SCREEN_SOUND]), False]
    cases: dict[str, list[Value]] = {
        "offer": CALL.offer,
        "offer_of_four_streams": [*audio, CALL.offer[8]],
        "ringing": CALL.ringing,
        "answer_without_candidates": CALL.message("Answer", "callee", 2**32 - 1, False, False, []),
        "answer_of_eight_candidates": CALL.message(
            "Answer", "callee", 65_535, True, False, [CANDIDATE] * 8
        ),
    }
    for name, characters in {"longest": "x" * 1_000, "widest": "😀" * 1_000}.items():
        cases[f"text_{name}"] = CALL.message("Text", "callee", 65_534, characters)
    cases["media_state_of_all"] = CALL.message("MediaState", "callee", 1, *[True] * 5)
    cases["hangup_for_another_call"] = CALL.message("Hangup", "callee", 1, 4)
    for kind, body in BODIES.items():
        cases[kind.lower()] = CALL.message(kind, "caller", NUMBERS[kind], *body)
    for kind in ("Decline", "Busy", "Cancel"):
        cases[f"{kind.lower()}_without_mac"] = CALL.bare(kind, 0, 1)
    for name, fields in cases.items():
        given = {"encoded": enc(fields)}
        file.accept("call_message", f"message_{name}", "WIRE-04", given, {"fields": fields})


def _refused_payloads(file: VectorFile) -> None:
    good = enc([2, _MS, None, None, b"hello"])
    for name, data in {
        "of_kind_zero": enc([0, _MS, None, None, b"hello"]),
        "of_kind_four": enc([4, _MS, None, None, b"hello"]),
        "empty_body": enc([2, _MS, None, None, b""]),
        "body_too_long": enc([2, _MS, None, None, bytes(16_385)]),
        "body_as_string": enc([2, _MS, None, None, "hello"]),
        "time_too_large": enc([2, 2**48, None, None, b"hello"]),
        "time_negative": good.replace(b"\xcf" + _MS.to_bytes(8), b"\xff"),
        "time_as_float": good.replace(b"\xcf" + _MS.to_bytes(8), b"\xcb" + bytes(8)),
        "token_too_short": enc([2, _MS, None, bytes(15), b"hello"]),
        "token_too_long": enc([2, _MS, None, bytes(17), b"hello"]),
        "of_six_fields": enc([2, _MS, None, None, b"hello", None]),
        "of_four_fields": enc([2, _MS, None, None]),
        "as_map": b"\x80",
        "as_number": b"\x01",
        "with_trailing_byte": good + b"\0",
        "cut_off": good[:-1],
        "empty": b"",
        "array_not_shortest": b"\xdc\x00\x05" + good[1:],
        "array_32": b"\xdd\x00\x00\x00\x05" + good[1:],
        "kind_not_shortest": b"\x95\xcc\x02" + good[2:],
        "time_in_fewer_bytes_than_said": b"\x95\x02\xcf" + bytes(7) + b"\x05" + good[11:],
        "body_not_shortest": good[:-7] + b"\xc5\x00\x05hello",
        "with_extension": good[:-7] + b"\xd4\x00\x00",
        "nil_as_false": good[:11] + b"\xc2" + good[12:],
    }.items():
        given = {"data": data}
        file.refuse("read_payload", f"payload_{name}", "WIRE-04", given, "encoding", "malformed")
    given = {"data": b"\xff\xfehello"}
    file.refuse("read_text", "text_not_utf8", "WIRE-04", given, "encoding", "malformed")


def _refused_messages(file: VectorFile) -> None:
    def changed(message: list[Value], at: int, value: Value) -> bytes:
        return enc([*message[:at], value, *message[at + 1 :]])

    offer, ringing = CALL.offer, CALL.ringing
    answer = CALL.message("Answer", "callee", 0, True, True, [CANDIDATE])
    hangup = CALL.message("Hangup", "callee", 0, 1)
    candidates = CALL.message("Candidates", "caller", 0, [CANDIDATE])
    text = CALL.message("Text", "callee", 0, "hello")
    stated = CALL.message("MediaState", "callee", 0, *BODIES["MediaState"])
    asked = CALL.message("Renegotiate", "callee", 0, True)
    path, reply, ready = (
        CALL.message(kind, "caller", 0, *BODIES[kind])
        for kind in ("Path", "PathReply", "PathReady")
    )
    good = enc(hangup)
    cases = {
        "of_type_zero": changed(hangup, 0, 0),
        "of_type_eleven": changed(hangup, 0, 11),
        "of_type_sixteen": changed(hangup, 0, 16),
        "of_type_twenty": changed(hangup, 0, 20),
        "path_without_media": enc([*path[:6], path[7]]),
        "path_reply_of_no_candidates": changed(reply, 8, []),
        "path_reply_of_nine_candidates": changed(reply, 8, [CANDIDATE] * 9),
        "path_ready_of_no_candidates": changed(ready, 4, []),
        "path_request_of_epoch_zero": enc(CALL.message("PathRequest", "callee", 0, 0)),
        "call_id_too_short": changed(hangup, 1, bytes(15)),
        "call_id_too_long": changed(hangup, 1, bytes(17)),
        "counter_too_large": changed(hangup, 2, 2**32),
        "counter_nil": changed(hangup, 2, None),
        "reason_zero": changed(hangup, 3, 0),
        "reason_six": changed(hangup, 3, 6),
        "mac_too_short": changed(hangup, 4, bytes(63)),
        "mac_truncated": changed(hangup, 4, bytes(16)),
        "mac_empty": changed(hangup, 4, b""),
        "hangup_without_mac": changed(hangup, 4, None),
        "answer_without_mac": changed(answer, 6, None),
        "answer_audio_as_number": changed(answer, 3, 1),
        "answer_of_nine_candidates": changed(answer, 5, [CANDIDATE] * 9),
        "candidates_of_none": changed(candidates, 3, []),
        "candidates_of_nine": changed(candidates, 3, [CANDIDATE] * 9),
        "candidate_type_zero": changed(candidates, 3, [[0, "198.18.0.7", 1]]),
        "candidate_type_five": changed(candidates, 3, [[5, "198.18.0.7", 1]]),
        "candidate_port_zero": changed(candidates, 3, [[1, "198.18.0.7", 0]]),
        "candidate_port_too_large": changed(candidates, 3, [[1, "198.18.0.7", 65_536]]),
        "offer_share_too_short": changed(offer, 2, bytes(31)),
        "offer_mlkem_key_too_short": changed(offer, 3, bytes(1183)),
        "offer_mlkem_key_of_1024": changed(offer, 3, bytes(1568)),
        "offer_seed_too_short": changed(offer, 4, bytes(16)),
        "offer_commitment_truncated": changed(offer, 5, bytes(32)),
        "offer_video_as_number": changed(offer, 7, 1),
        "offer_box_too_short": changed(offer, 8, bytes(31)),
        "offer_with_another_field": enc([*offer, None]),
        "offer_without_box": enc(offer[:-1]),
        "ringing_ciphertext_too_short": changed(ringing, 3, bytes(1087)),
        "ringing_turn_without_password": changed(ringing, 6, ["user"]),
        "ringing_turn_user_empty": changed(ringing, 6, ["", "password"]),
        "text_empty": changed(text, 3, ""),
        "text_of_1001_characters": changed(text, 3, "x" * 1_001),
        "text_as_binary": changed(text, 3, b"hello"),
        "text_not_utf8": enc(text).replace(b"\xa5hello", b"\xa5hell\xff"),
        "text_of_half_a_character": enc(text).replace(b"\xa5hello", b"\xa5\xed\xa0\x80ab"),
        "text_without_mac": changed(text, 4, None),
        "media_state_of_two_fields": enc([*stated[:5], stated[-1]]),
        "media_state_held_as_number": changed(stated, 6, 1),
        "renegotiate_as_number": changed(asked, 3, 1),
        "renegotiate_without_mac": changed(asked, 4, None),
        "with_trailing_byte": good + b"\xc0",
        "cut_off": good[:-1],
        "counter_not_shortest": good[:19] + b"\xcc\x00" + good[20:],
        "longer_than_4096": changed(offer, 8, bytes(4096)),
    }
    fingerprint, ufrag, pwd, streams = media("x")
    descriptions: dict[str, list[Value]] = {
        "fingerprint_too_short": [bytes(31), ufrag, pwd, streams],
        "fingerprint_of_sha1": [bytes(20), ufrag, pwd, streams],
        "ufrag_too_short": [fingerprint, "abc", pwd, streams],
        "ufrag_too_long": [fingerprint, "a" * 257, pwd, streams],
        "ufrag_with_space": [fingerprint, "ab c", pwd, streams],
        "ufrag_with_newline": [fingerprint, "abcd\n", pwd, streams],
        "pwd_too_short": [fingerprint, ufrag, "a" * 21, streams],
        "pwd_with_colon": [fingerprint, ufrag, "a" * 21 + ":", streams],
        "pwd_not_ascii": [fingerprint, ufrag, "a" * 21 + "é", streams],
        "no_streams": [fingerprint, ufrag, pwd, []],
        "five_streams": [fingerprint, ufrag, pwd, [MICROPHONE] * 5],
        "stream_four": [fingerprint, ufrag, pwd, [[4, 1, 111, 1, None, None]]],
        "codec_three": [fingerprint, ufrag, pwd, [[0, 3, 111, 1, None, None]]],
        "payload_type_95": [fingerprint, ufrag, pwd, [[0, 1, 95, 1, None, None]]],
        "payload_type_128": [fingerprint, ufrag, pwd, [[0, 1, 128, 1, None, None]]],
        "ssrc_zero": [fingerprint, ufrag, pwd, [[0, 1, 111, 0, None, None]]],
        "ssrc_too_large": [fingerprint, ufrag, pwd, [[0, 1, 111, 2**32, None, None]]],
    }
    for name, description in descriptions.items():
        cases[f"media_{name}"] = changed(offer, 6, description)
    for name, data in cases.items():
        given = {"data": data}
        file.refuse(
            "read_call_message", f"message_{name}", "WIRE-04", given, "encoding", "malformed"
        )


def _media(file: VectorFile) -> None:
    def given(*streams: Value) -> dict[str, Value]:
        return {"media": enc(media("checked", list(streams)))}

    for name, good in {
        "microphone": given(MICROPHONE),
        "microphone_and_camera": given(MICROPHONE, CAMERA),
        "all": given(MICROPHONE, CAMERA, SCREEN, SCREEN_SOUND),
        "camera_without_retransmission": given([1, 2, 96, 7, None, None]),
    }.items():
        file.accept("check_media", f"media_{name}", "CALL-10", good, {})
    for name, bad in {
        "descending": given(CAMERA, MICROPHONE),
        "twice": given(MICROPHONE, [0, 1, 111, 5, None, None]),
        "microphone_as_vp8": given([0, 2, 96, 5, None, None]),
        "camera_as_opus": given([1, 1, 111, 5, None, None]),
        "screen_sound_as_vp8": given([3, 2, 96, 5, None, None]),
        "ssrc_twice": given(MICROPHONE, [1, 2, 96, 0x11111111, None, None]),
        "rtx_ssrc_as_ssrc": given([1, 2, 96, 5, 97, 5]),
        "rtx_without_ssrc": given([1, 2, 96, 5, 97, None]),
        "rtx_without_payload_type": given([1, 2, 96, 5, None, 6]),
        "rtx_of_opus": given([0, 1, 111, 5, 112, 6]),
        "payload_type_of_two_codecs": given([0, 1, 96, 5, None, None], [1, 2, 96, 6, None, None]),
        "payload_type_as_rtx": given([1, 2, 96, 5, 96, 6]),
    }.items():
        file.refuse("check_media", f"media_{name}", "CALL-10", bad, "call", "bad_media_description")


def _candidates(file: VectorFile) -> None:
    for address in ("198.18.0.0", "198.18.0.7", "198.19.255.255"):
        given: dict[str, Value] = {"candidates": [[1, address, 1]]}
        file.accept("check_candidates", f"candidate_{address}", "CALL-11", given, {})
    refused: dict[str, list[Value]] = {
        "host": [2, "198.18.0.7", 5000],
        "srflx": [3, "198.18.0.7", 5000],
        "prflx": [4, "198.18.0.7", 5000],
        "below_network": [1, "198.17.255.255", 5000],
        "above_network": [1, "198.20.0.0", 5000],
        "private": [1, "192.168.1.1", 5000],
        "loopback": [1, "127.0.0.1", 5000],
        "ipv6": [1, "2001:db8::1", 5000],
        "ipv4_in_ipv6": [1, "::ffff:198.18.0.7", 5000],
        "leading_zero": [1, "198.18.0.07", 5000],
        "name": [1, "relay.example", 5000],
        "three_numbers": [1, "198.18.7", 5000],
        "with_space": [1, "198.18.0.7 ", 5000],
        "second": [1, "10.0.0.1", 5000],
    }
    for name, candidate in refused.items():
        given = {"candidates": [CANDIDATE, candidate] if name == "second" else [candidate]}
        file.refuse(
            "check_candidates", f"candidate_{name}", "CALL-11", given, "call", "bad_candidate"
        )


def _freshness(file: VectorFile) -> None:
    for name, sent_at_ms in {
        "now": _MS,
        "60_s_old": _MS - 60_000,
        "30_s_ahead": _MS + 30_000,
    }.items():
        given: dict[str, Value] = {"sent_at_ms": sent_at_ms, "offer": enc(CALL.offer)}
        file.accept("incoming_offer", f"offer_{name}", "CALL-01", given, {"state": "invited"})
    for name, sent_at_ms in {
        "too_old": _MS - 60_001,
        "too_far_ahead": _MS + 30_001,
        "of_a_day_ago": _MS - 86_400_000,
    }.items():
        given = {"sent_at_ms": sent_at_ms, "offer": enc(CALL.offer)}
        file.refuse("incoming_offer", f"offer_{name}", "CALL-01", given, "call", "expired")
    no_camera = [*CALL.offer[:6], media("caller", [MICROPHONE]), *CALL.offer[7:]]
    given = {"sent_at_ms": _MS, "offer": enc(no_camera)}
    name, reason = "offer_wants_video_without_camera", "bad_media_description"
    file.refuse("incoming_offer", name, "CALL-10", given, "call", reason)
