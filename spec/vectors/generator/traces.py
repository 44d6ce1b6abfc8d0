"""Vectors of whole calls (spec/call.md, "States"): each end's messages, byte for byte.

A trace is one end's life as events: what its user does, what comes in, and what it then sends.
"""

from typing import Any

from spec.vectors.generator.calls import (
    CALL,
    CANDIDATE,
    FIRST,
    LATER_MOVE,
    MOVE,
    MOVED,
    OTHER_CANDIDATE,
    SECOND,
    CallValues,
    Moving,
    Rekeying,
    media,
    state,
)
from spec.vectors.generator.encoding import Value, enc
from spec.vectors.generator.form import VectorFile
from spec.vectors.generator.notation import BAD_POINTS, unreduced
from spec.vectors.generator.primitives import dh_key, flipped

Event = dict[str, Any]


def caller_secrets(values: CallValues) -> dict[str, bytes]:
    """Return what the caller draws."""
    return {
        "call_id": values.call_id,
        "x25519_private": values.drawn("caller dh"),
        "mlkem_seed": values.drawn("kem", 64),
        "seed": values.drawn("seed"),
        "nonce": values.drawn("nonce"),
    }


def callee_secrets(values: CallValues) -> dict[str, bytes]:
    """Return what the callee draws, with the secret inside its encapsulation."""
    return {
        "x25519_private": values.drawn("callee dh"),
        "mlkem_secret": values.encapsulated[0],
        "mlkem_ciphertext": values.encapsulated[1],
    }


def _end(role: str, events: list[Event], values: CallValues = CALL) -> dict[str, Any]:
    secrets = caller_secrets(values) if role == "caller" else callee_secrets(values)
    return {
        "role": role,
        "caller": values.caller.shown,
        "callee": values.callee.shown,
        "secrets": secrets,
        "media": enc(media(role)),
        "reply_box": values.drawn(f"{role} box"),
        "turn": values.ringing[6],
        "events": events,
    }


def _does(action: str, *sends: list[Value], **options: Any) -> Event:
    return {"do": action, **options, "sends": [enc(message) for message in sends]}


def _gets(message: list[Value], *sends: list[Value]) -> Event:
    return {"receive": enc(message), "sends": [enc(answer) for answer in sends]}


REVEAL = CALL.message("Reveal", "caller", 0, CALL.drawn("nonce"))
EARLY = CALL.message("Candidates", "caller", 1, [CANDIDATE])
ANSWER = CALL.message("Answer", "callee", 0, True, True, [OTHER_CANDIDATE])
MUTED = CALL.message("MediaState", "callee", 1, *state(True, True))
HELD = CALL.message("MediaState", "callee", 2, *state(True, True, held=True, recording=True))
WORDS = CALL.message("Text", "callee", 3, "Grüße, 世界")
ASKED = CALL.message("Renegotiate", "callee", 4, True)
HANGUP = CALL.message("Hangup", "caller", 2, 1)

PLACED = [_does("place", CALL.offer, wants_video=True)]
RUNG = [*PLACED, _gets(CALL.ringing, REVEAL)]
INVITED = [{"receive": enc(CALL.offer), "sends": []}]
AWAITING = [*INVITED, _does("ring", CALL.ringing)]
ALERTED = [*AWAITING, _gets(REVEAL)]


def traces(file: VectorFile) -> None:
    """Add the traces to call.json."""
    for name, role, events in _whole_calls():
        output = {"sas": f"{CALL.sas:08d}" if len(events) > 2 else None, "state": "ended"}
        file.accept("call", f"call_{name}", "CALL-12", _end(role, events), output)
    for name, requirement, role, before, message, reason in (
        *_refused(),
        *_refused_rekeys(),
        *_refused_paths(),
    ):
        given = _end(role, before) | {"message": enc(message)}
        layer = {"bad_point": "x25519", "bad_kem_key": "ml-kem"}.get(reason, "call")
        file.refuse("call_receive", f"call_{name}", requirement, given, layer, reason)
    for name, requirement, role, before, message, reason in _breaches():
        given = _end(role, before) | {"message": enc(message)}
        file.refuse("call_breach", f"call_{name}", requirement, given, "call", reason)


def _whole_calls() -> list[tuple[str, str, list[Event]]]:
    accepted = _does("accept", ANSWER, audio=True, video=True, candidates=[OTHER_CANDIDATE])
    hangup = _does("hangup", HANGUP)
    add = _does("add_candidates", EARLY, candidates=[CANDIDATE])
    mute = _does("set_media_state", MUTED, muted=True, camera=True)
    hold = _does("set_media_state", HELD, muted=True, camera=True, held=True, recording=True)
    write = _does("send_text", WORDS, text="Grüße, 世界")
    ask = _does("renegotiate", ASKED, video=True)
    controls = [_gets(message) for message in (MUTED, HELD, WORDS, ASKED)]
    later = _does("hangup", CALL.message("Hangup", "caller", 2, 5), told=5)
    declined = CALL.message("Decline", "callee", 0, 1)
    cancelled = CALL.message("Cancel", "caller", 1, 1)
    return [
        ("caller", "caller", [*RUNG, add, _gets(ANSWER), _gets(MUTED), hangup]),
        ("callee", "callee", [*ALERTED, _gets(EARLY), accepted, mute, _gets(HANGUP)]),
        ("controlled_caller", "caller", [*RUNG, add, _gets(ANSWER), *controls, later]),
        (
            "controlled_callee",
            "callee",
            [*ALERTED, _gets(EARLY), accepted, mute, hold, write, ask, _gets(HANGUP)],
        ),
        ("declined_callee", "callee", [*ALERTED, _does("decline", declined)]),
        ("declined_caller", "caller", [*RUNG, _gets(declined)]),
        ("cancelled_caller", "caller", [*RUNG, _does("cancel", cancelled)]),
        ("cancelled_callee", "callee", [*ALERTED, _gets(cancelled)]),
        ("busy_callee", "callee", [*INVITED, _does("busy", CALL.bare("Busy", 0, 1))]),
        ("busy_caller", "caller", [*PLACED, _gets(CALL.bare("Busy", 0, 1))]),
        ("given_up_caller", "caller", [*PLACED, _does("cancel", CALL.bare("Cancel", 0, 1))]),
        ("given_up_callee", "callee", [*INVITED, _gets(CALL.bare("Cancel", 0, 1))]),
        ("rekeyed_caller", "caller", _rekeyed_caller()),
        ("rekeyed_callee", "callee", _rekeyed_callee()),
        ("rekey_overdue_caller", "caller", _overdue_caller()),
        ("rekey_overdue_callee", "callee", _overdue_callee()),
        ("moved_caller", "caller", _moved_caller()),
        ("moved_callee", "callee", _moved_callee()),
        ("moved_during_rekey_caller", "caller", _moved_during_rekey_caller()),
        ("moved_during_rekey_callee", "callee", _moved_during_rekey_callee()),
        ("lost_caller", "caller", _lost_caller()),
        ("lost_callee", "callee", _lost_callee()),
    ]


_Refused = tuple[str, str, str, list[Event], list[Value], str]


def _altered(message: list[Value]) -> list[Value]:
    mac = message[-1]
    if not isinstance(mac, bytes):
        raise TypeError("no MAC to alter")
    return [*message[:-1], flipped(mac, 63)]


def _refused() -> list[_Refused]:
    talking = [*RUNG, _gets(ANSWER)]
    accepted = _does("accept", ANSWER, audio=True, video=True, candidates=[OTHER_CANDIDATE])
    answered = [*ALERTED, accepted]
    other = CallValues("another")
    own = CALL.message("Hangup", "caller", 5, 1)
    share = CALL.ringing[2:3]
    bad_share: list[Value] = [*CALL.ringing[:2], bytes(32), *CALL.ringing[3:]]
    if share == bad_share[2:3]:
        raise ValueError("the share was not altered")
    busy = CALL.message("Busy", "callee", 1, 1)
    return [
        ("ringing_twice", "CALL-03", "caller", RUNG, CALL.ringing, "unexpected_message"),
        ("ringing_of_low_order", "PQXDH-02", "caller", PLACED, bad_share, "bad_point"),
        ("answer_before_ringing", "CALL-12", "caller", PLACED, ANSWER, "unexpected_message"),
        ("answer_twice", "CALL-12", "caller", talking, ANSWER, "unexpected_message"),
        ("offer_to_caller", "CALL-12", "caller", RUNG, CALL.offer, "unexpected_message"),
        ("reveal_to_caller", "CALL-12", "caller", RUNG, REVEAL, "unexpected_message"),
        ("reveal_twice", "CALL-12", "callee", ALERTED, REVEAL, "unexpected_message"),
        ("reveal_before_ringing", "CALL-04", "callee", INVITED, REVEAL, "unexpected_message"),
        ("hangup_before_answer", "CALL-12", "callee", ALERTED, HANGUP, "unexpected_message"),
        ("busy_after_ringing", "CALL-12", "caller", RUNG, busy, "unexpected_message"),
        ("of_another", "CALL-12", "caller", talking, other.bare("Cancel", 0, 1), "wrong_call"),
        (
            "hangup_of_another",
            "CALL-12",
            "callee",
            answered,
            other.message("Hangup", "caller", 1, 1),
            "wrong_call",
        ),
        ("hangup_mac_altered", "CALL-05", "callee", answered, _altered(HANGUP), "bad_mac"),
        ("hangup_reflected", "CALLKEY-05", "caller", talking, own, "bad_mac"),
        (
            "hangup_with_mac_of_cancel",
            "CALLKEY-05",
            "callee",
            answered,
            [8, *CALL.message("Cancel", "caller", 2, 1)[1:]],
            "bad_mac",
        ),
        (
            "hangup_with_another_counter",
            "CALLKEY-05",
            "callee",
            answered,
            [8, CALL.call_id, 3, 1, HANGUP[-1]],
            "bad_mac",
        ),
        (
            "hangup_with_another_reason",
            "CALLKEY-05",
            "callee",
            answered,
            [8, CALL.call_id, 2, 3, HANGUP[-1]],
            "bad_mac",
        ),
        ("candidates_mac_altered", "CALL-05", "callee", ALERTED, _altered(EARLY), "bad_mac"),
        ("cancel_without_mac", "CALL-06", "callee", ALERTED, CALL.bare("Cancel", 1, 1), "bad_mac"),
        ("decline_without_mac", "CALL-06", "caller", RUNG, CALL.bare("Decline", 0, 1), "bad_mac"),
        (
            "decline_with_mac_before_keys",
            "CALL-06",
            "caller",
            PLACED,
            CALL.message("Decline", "callee", 0, 1),
            "bad_mac",
        ),
        ("candidates_twice", "CALL-12", "callee", [*ALERTED, _gets(EARLY)], EARLY, "replayed"),
        (
            "counter_behind_window",
            "CALL-12",
            "callee",
            [*ALERTED, _gets(CALL.message("MediaState", "caller", 65, *state(True, True)))],
            EARLY,
            "replayed",
        ),
        (
            "counter_too_large",
            "CALL-12",
            "callee",
            ALERTED,
            CALL.message("MediaState", "caller", 65_535, *state(True, True)),
            "limit",
        ),
        (
            "ninth_candidate",
            "CALL-12",
            "callee",
            [*ALERTED, _gets(CALL.message("Candidates", "caller", 1, [CANDIDATE] * 8))],
            CALL.message("Candidates", "caller", 2, [CANDIDATE]),
            "limit",
        ),
        (
            "ringing_with_wrong_codec",
            "CALL-10",
            "caller",
            PLACED,
            [*CALL.ringing[:4], media("callee", [[0, 2, 96, 1, None, None]]), *CALL.ringing[5:]],
            "bad_media_description",
        ),
    ]


def _rekey(change: Rekeying, counter: int) -> list[Value]:
    return CALL.message("Rekey", "caller", counter, *change.rekey, epoch=change.before)


def _reply(change: Rekeying, counter: int) -> list[Value]:
    return CALL.message("RekeyReply", "callee", counter, *change.reply, epoch=change.after)


def _muted(sender: str, counter: int, change: Rekeying | None = None) -> list[Value]:
    epoch = None if change is None else change.after
    return CALL.message("MediaState", sender, counter, *state(True, False), epoch=epoch)


def _mutes(sender: str, counter: int, change: Rekeying | None = None) -> Event:
    sent = _muted(sender, counter, change)
    return _does("set_media_state", sent, muted=True, camera=False)


def _proposes(change: Rekeying, counter: int) -> Event:
    secrets = {
        "x25519_private": change.drawn("caller dh"),
        "mlkem_seed": change.drawn("kem", 64),
    }
    return _does("rekey", _rekey(change, counter), secrets=secrets)


def _answers(change: Rekeying, counter: int) -> Event:
    secrets = {
        "x25519_private": change.drawn("callee dh"),
        "mlkem_secret": change.encapsulated[0],
        "mlkem_ciphertext": change.encapsulated[1],
    }
    return _does("answer_rekey", _reply(change, counter), secrets=secrets)


def _waits(seconds: float, *sends: list[Value]) -> Event:
    return _does("wait", *sends, seconds=seconds)


CALLER_UP = [*RUNG, _gets(ANSWER), _does("connect")]
CALLEE_UP = [
    *ALERTED,
    _does("accept", ANSWER, audio=True, video=True, candidates=[OTHER_CANDIDATE]),
    _does("connect"),
]
PROPOSED = [*CALLER_UP, _waits(300), _proposes(FIRST, 1)]
AGREED = [*CALLEE_UP, _gets(_rekey(FIRST, 1)), _answers(FIRST, 1)]
CALLER_CROSSES = [*PROPOSED, _gets(_reply(FIRST, 1))]
CALLEE_CROSSES = [*AGREED, _does("enter_epoch", epoch=1)]


def _rekeyed_caller() -> list[Event]:
    """Two changes: a repeated Rekey, a late message of the old epoch, and a request."""
    return [
        *PROPOSED,
        _mutes("caller", 2),
        _waits(15, _rekey(FIRST, 3)),
        _gets(_muted("callee", 1)),
        _gets(_reply(FIRST, 2)),
        _mutes("caller", 4, FIRST),
        _gets(_muted("callee", 3)),
        _gets(_reply(FIRST, 4)),
        _gets(_muted("callee", 5, FIRST)),
        _waits(10),
        _gets(CALL.message("RekeyRequest", "callee", 6, 2, epoch=FIRST.after)),
        _proposes(SECOND, 5),
        _gets(_reply(SECOND, 7)),
        _does("hangup", CALL.message("Hangup", "caller", 6, 1, epoch=SECOND.after)),
    ]


def _rekeyed_callee() -> list[Event]:
    """The same at the other end."""
    return [
        *CALLEE_UP,
        _gets(_rekey(FIRST, 1)),
        _answers(FIRST, 1),
        _mutes("callee", 2),
        _gets(_muted("caller", 2)),
        _gets(_rekey(FIRST, 3), _reply(FIRST, 3)),
        _gets(_muted("caller", 4, FIRST)),
        _does("enter_epoch", epoch=1),
        _gets(_rekey(FIRST, 5)),
        _mutes("callee", 4, FIRST),
        _does(
            "key_worn",
            epoch=1,
        ),
        _waits(10, CALL.message("RekeyRequest", "callee", 5, 2, epoch=FIRST.after)),
        _waits(15, CALL.message("RekeyRequest", "callee", 6, 2, epoch=FIRST.after)),
        _gets(_rekey(SECOND, 6)),
        _answers(SECOND, 7),
        _waits(15),
        _does("enter_epoch", epoch=2),
        _gets(CALL.message("Hangup", "caller", 7, 1, epoch=SECOND.after)),
    ]


def _path(move: Moving, counter: int) -> list[Value]:
    return CALL.message("Path", "caller", counter, *move.rekey, epoch=move.before)


def _path_reply(move: Moving, counter: int) -> list[Value]:
    return CALL.message("PathReply", "callee", counter, *move.reply, epoch=move.after)


def _path_ready(move: Moving, counter: int) -> list[Value]:
    return CALL.message("PathReady", "caller", counter, *move.ready, epoch=move.after)


def _path_request(counter: int, epoch: int, change: Rekeying | None = None) -> list[Value]:
    of = None if change is None else change.after
    return CALL.message("PathRequest", "callee", counter, epoch, epoch=of)


def _replaces(move: Moving, counter: int) -> Event:
    secrets = {
        "x25519_private": move.drawn("caller dh"),
        "mlkem_seed": move.drawn("kem", 64),
    }
    new = enc(move.rekey[3])
    return _does("replace_path", _path(move, counter), secrets=secrets, media=new)


def _answers_path(move: Moving, counter: int) -> Event:
    secrets = {
        "x25519_private": move.drawn("callee dh"),
        "mlkem_secret": move.encapsulated[0],
        "mlkem_ciphertext": move.encapsulated[1],
    }
    return _does(
        "answer_path",
        _path_reply(move, counter),
        secrets=secrets,
        media=enc(move.reply[3]),
        turn=move.turn,
        candidates=[OTHER_CANDIDATE],
    )


def _readies(move: Moving, counter: int) -> Event:
    epoch = move.after.number
    return _does("ready_path", _path_ready(move, counter), epoch=epoch, candidates=[CANDIDATE])


def _loses(seconds: float, *sends: list[Value]) -> Event:
    return _does("path_lost", *sends, seconds=seconds)


def _moved_caller() -> list[Event]:
    """A path that is lost and replaced: copies, a request that came too late, a text after it."""
    return [
        *CALLER_UP,
        _loses(2.5),
        _replaces(MOVE, 1),
        _gets(_path_request(1, 1)),
        _waits(3, _path(MOVE, 2)),
        _gets(_path_reply(MOVE, 2)),
        _readies(MOVE, 3),
        _gets(_path_reply(MOVE, 3)),
        _waits(3, _path_ready(MOVE, 4)),
        _does("path_alive", epoch=1),
        _waits(30),
        _mutes("caller", 5, MOVE),
        _gets(CALL.message("Hangup", "callee", 4, 1, epoch=MOVE.after)),
    ]


def _moved_callee() -> list[Event]:
    """The same at the other end, which asks for it."""
    return [
        *CALLEE_UP,
        _loses(2.5, _path_request(1, 1)),
        _waits(3, _path_request(2, 1)),
        _gets(_path(MOVE, 1)),
        _gets(_path(MOVE, 2)),
        _answers_path(MOVE, 3),
        _gets(_path(MOVE, 3), _path_reply(MOVE, 4)),
        _mutes("callee", 5),
        _gets(_path_ready(MOVE, 4)),
        _gets(_path_ready(MOVE, 5)),
        _does("path_alive", epoch=1),
        _waits(30),
        _mutes("callee", 6, MOVE),
        _gets(CALL.message("Hangup", "caller", 6, 1, epoch=MOVE.after)),
    ]


def _moved_during_rekey_caller() -> list[Event]:
    return [
        *PROPOSED,
        _loses(2.5, _rekey(FIRST, 2)),
        _gets(_reply(FIRST, 1)),
        _replaces(LATER_MOVE, 3),
        _gets(_path_reply(LATER_MOVE, 2)),
        _readies(LATER_MOVE, 4),
        _does("hangup", CALL.message("Hangup", "caller", 5, 1, epoch=LATER_MOVE.after)),
    ]


def _moved_during_rekey_callee() -> list[Event]:
    """No frame of the epoch that was agreed on came; the Path stands in for it."""
    return [
        *AGREED,
        _loses(2.5, _path_request(2, 2, FIRST)),
        _gets(_path(LATER_MOVE, 2)),
        _mutes("callee", 3, FIRST),
        _answers_path(LATER_MOVE, 4),
        _gets(_path_ready(LATER_MOVE, 3)),
        _gets(CALL.message("Hangup", "caller", 4, 1, epoch=LATER_MOVE.after)),
    ]


def _lost_caller() -> list[Event]:
    """Nobody answers, and after 30 s the call is over."""
    copies = [_waits(3, _path(MOVE, 2 + number)) for number in range(9)]
    hangup = CALL.message("Hangup", "caller", 11, 3)
    return [*CALLER_UP, _loses(2.5), _replaces(MOVE, 1), *copies, _waits(0.5, hangup)]


def _lost_callee() -> list[Event]:
    asked = [_waits(3, _path_request(2 + number, 1)) for number in range(9)]
    hangup = CALL.message("Hangup", "callee", 11, 3)
    return [*CALLEE_UP, _loses(2.5, _path_request(1, 1)), *asked, _waits(0.5, hangup)]


def _refused_paths() -> list[_Refused]:
    other = Moving(CALL.epoch, "another move")
    first, reply = list(MOVE.rekey), list(MOVE.reply)
    bad_share: list[Value] = [1, BAD_POINTS["low_order_1"], *first[2:]]
    swapped: list[Value] = [*first[:3], media("mallory", MOVED)]
    stale: list[Value] = [*first[:3], media("caller", MOVED)]
    fewer: list[Value] = [*first[:3], media("newcaller", [[0, 1, 111, 9, None, None]])]
    out = [*CALLER_UP, _loses(2.5), _replaces(MOVE, 1)]
    taken = [*CALLEE_UP, _gets(_path(MOVE, 1)), _answers_path(MOVE, 1)]
    told = "unexpected_message"
    return [
        ("path_by_callee", "CALL-41", "caller", CALLER_UP, _path(MOVE, 1), told),
        ("path_reply_by_caller", "CALL-41", "callee", CALLEE_UP, _path_reply(MOVE, 1), told),
        ("path_ready_by_callee", "CALL-41", "caller", out, _path_ready(MOVE, 1), told),
        ("path_request_by_caller", "CALL-41", "callee", CALLEE_UP, _path_request(1, 1), told),
        ("path_before_media", "CALL-12", "callee", CALLEE_UP[:-1], _path(MOVE, 1), told),
        (
            "path_with_another_description",
            "CALL-43",
            "callee",
            CALLEE_UP,
            [16, CALL.call_id, 1, *swapped, _path(MOVE, 1)[-1]],
            "bad_mac",
        ),
        (
            "path_of_epoch_after_next",
            "CALL-41",
            "callee",
            CALLEE_UP,
            _path(LATER_MOVE, 1),
            "bad_mac",
        ),
        (
            "path_of_used_description",
            "CALL-42",
            "callee",
            CALLEE_UP,
            CALL.message("Path", "caller", 1, *stale),
            "bad_media_description",
        ),
        (
            "path_of_other_streams",
            "CALL-42",
            "callee",
            CALLEE_UP,
            CALL.message("Path", "caller", 1, *fewer),
            "bad_media_description",
        ),
        (
            "path_of_low_order",
            "PQXDH-02",
            "callee",
            CALLEE_UP,
            CALL.message("Path", "caller", 1, *bad_share),
            "bad_point",
        ),
        ("path_after_another", "CALL-41", "callee", taken, _path(other, 2), told),
        ("path_after_rekey", "CALLKEY-13", "callee", AGREED, _path(MOVE, 2), told),
        ("rekey_after_path", "CALLKEY-13", "callee", taken, _rekey(FIRST, 2), told),
        ("path_replayed", "CALL-12", "callee", taken, _path(MOVE, 1), "replayed"),
        (
            "path_reply_with_mac_of_old_epoch",
            "CALLKEY-12",
            "caller",
            out,
            CALL.message("PathReply", "callee", 1, *reply),
            "bad_mac",
        ),
        ("path_reply_to_another", "CALLKEY-10", "caller", out, _path_reply(other, 1), "bad_mac"),
        ("rekey_reply_to_path", "CALLKEY-10", "caller", out, _reply(FIRST, 1), told),
        ("path_reply_to_rekey", "CALLKEY-10", "caller", PROPOSED, _path_reply(MOVE, 1), told),
        (
            "path_ready_with_mac_of_old_epoch",
            "CALLKEY-12",
            "callee",
            taken,
            CALL.message("PathReady", "caller", 2, *MOVE.ready),
            "bad_mac",
        ),
    ]


def _overdue_caller() -> list[Event]:
    hangup = CALL.message("Hangup", "caller", 2, 3)
    return [*PROPOSED, _waits(60, hangup)]


def _overdue_callee() -> list[Event]:
    hangup = CALL.message("Hangup", "callee", 2, 3)
    return [*AGREED, _waits(359), _waits(1, hangup)]


def _refused_rekeys() -> list[_Refused]:
    other = Rekeying(CALL.epoch, "another")
    late = _muted("callee", 5)
    bad_share: list[Value] = [1, BAD_POINTS["low_order_1"], FIRST.rekey[2]]
    key = FIRST.rekey[2]
    if not isinstance(key, bytes):
        raise TypeError("a KEM key is binary")
    bad_key: list[Value] = [*FIRST.rekey[:2], unreduced(key)]
    no_share: list[Value] = [1, bytes(32), FIRST.reply[2]]
    told = "unexpected_message"
    wrong = Rekeying(CALL.epoch, "wrong")
    return [
        ("rekey_by_callee", "CALL-20", "caller", CALLER_UP, _rekey(FIRST, 1), told),
        ("rekey_reply_by_caller", "CALL-20", "callee", CALLEE_UP, _reply(FIRST, 1), told),
        (
            "rekey_request_by_caller",
            "CALL-20",
            "callee",
            CALLEE_UP,
            CALL.message("RekeyRequest", "caller", 1, 1),
            told,
        ),
        ("rekey_before_media", "CALL-20", "callee", CALLEE_UP[:-1], _rekey(FIRST, 1), told),
        (
            "rekey_mac_altered",
            "CALL-05",
            "callee",
            CALLEE_UP,
            _altered(_rekey(FIRST, 1)),
            "bad_mac",
        ),
        (
            "rekey_of_epoch_after_next",
            "CALLKEY-12",
            "callee",
            CALLEE_UP,
            _rekey(SECOND, 1),
            "bad_mac",
        ),
        (
            "rekey_with_mac_of_its_own_epoch",
            "CALLKEY-12",
            "callee",
            AGREED,
            CALL.message("Rekey", "caller", 2, *FIRST.rekey, epoch=FIRST.after),
            "bad_mac",
        ),
        (
            "rekey_with_mac_of_former_epoch",
            "CALLKEY-12",
            "callee",
            CALLEE_CROSSES,
            CALL.message("Rekey", "caller", 2, *SECOND.rekey),
            "bad_mac",
        ),
        (
            "rekey_of_low_order",
            "PQXDH-02",
            "callee",
            CALLEE_UP,
            CALL.message("Rekey", "caller", 1, *bad_share),
            "bad_point",
        ),
        (
            "rekey_with_bad_kem_key",
            "PREKEYS-02",
            "callee",
            CALLEE_UP,
            CALL.message("Rekey", "caller", 1, *bad_key),
            "bad_kem_key",
        ),
        ("rekey_with_other_shares", "CALLKEY-13", "callee", AGREED, _rekey(other, 2), told),
        ("rekey_before_entering", "CALLKEY-13", "callee", AGREED, _rekey(SECOND, 2), told),
        ("rekey_replayed", "CALL-12", "callee", AGREED, _rekey(FIRST, 1), "replayed"),
        ("rekey_reply_unasked", "CALLKEY-12", "caller", CALLER_UP, _reply(FIRST, 1), "bad_mac"),
        (
            "rekey_reply_with_mac_of_old_epoch",
            "CALLKEY-12",
            "caller",
            PROPOSED,
            CALL.message("RekeyReply", "callee", 1, *FIRST.reply),
            "bad_mac",
        ),
        (
            "rekey_reply_altered",
            "CALLKEY-12",
            "caller",
            PROPOSED,
            _altered(_reply(FIRST, 1)),
            "bad_mac",
        ),
        ("rekey_reply_to_another", "CALLKEY-10", "caller", PROPOSED, _reply(wrong, 1), "bad_mac"),
        (
            "rekey_reply_of_low_order",
            "PQXDH-02",
            "caller",
            PROPOSED,
            CALL.message("RekeyReply", "callee", 1, *no_share, epoch=FIRST.after),
            "bad_point",
        ),
        (
            "rekey_reply_of_used_counter",
            "CALL-12",
            "caller",
            PROPOSED,
            _reply(FIRST, 0),
            "replayed",
        ),
        (
            "rekey_request_of_epoch_after_next",
            "CALLKEY-12",
            "caller",
            CALLER_UP,
            CALL.message("RekeyRequest", "callee", 1, 2),
            "bad_mac",
        ),
        (
            "message_of_retired_epoch",
            "CALLKEY-16",
            "caller",
            [*CALLER_CROSSES, _waits(10)],
            late,
            "bad_mac",
        ),
        (
            "message_of_epoch_not_agreed",
            "CALLKEY-12",
            "caller",
            PROPOSED,
            _muted("callee", 5, FIRST),
            "bad_mac",
        ),
        (
            "message_of_former_epoch_with_third_agreed",
            "CALLKEY-16",
            "callee",
            [*CALLEE_CROSSES, _gets(_rekey(SECOND, 2)), _answers(SECOND, 2)],
            _muted("caller", 5),
            "bad_mac",
        ),
        (
            "message_of_old_epoch_replayed",
            "CALL-12",
            "callee",
            [*AGREED, _gets(_muted("caller", 2)), _does("enter_epoch", epoch=1)],
            _muted("caller", 2),
            "replayed",
        ),
        (
            "message_counter_used_in_old_epoch",
            "CALL-12",
            "callee",
            [*AGREED, _gets(_muted("caller", 2)), _does("enter_epoch", epoch=1)],
            _muted("caller", 2, FIRST),
            "replayed",
        ),
    ]


def _breaches() -> list[_Refused]:
    """Messages that end a call at once: the peer holds another key, or aims past the relay."""
    wrong_nonce = CALL.message("Reveal", "caller", 0, CALL.drawn("another nonce"))
    host: Value = [2, "192.168.1.1", 5000]
    silent = [*PLACED, {"receive": enc(_ringing_without_camera()), "sends": None}]
    values = CALL
    if dh_key(values.drawn("caller dh")) != values.offer[2]:
        raise ValueError("the Offer shows another share")
    return [
        ("reveal_mac_altered", "CALL-05", "callee", AWAITING, _altered(REVEAL), "bad_mac"),
        (
            "reveal_of_another_nonce",
            "CALLKEY-01",
            "callee",
            AWAITING,
            wrong_nonce,
            "bad_commitment",
        ),
        ("answer_mac_altered", "CALL-05", "caller", RUNG, _altered(ANSWER), "bad_mac"),
        (
            "answer_with_host_candidate",
            "CALL-11",
            "caller",
            RUNG,
            CALL.message("Answer", "callee", 0, True, True, [host]),
            "bad_candidate",
        ),
        (
            "candidates_with_host",
            "CALL-11",
            "callee",
            ALERTED,
            CALL.message("Candidates", "caller", 1, [host]),
            "bad_candidate",
        ),
        ("answer_under_another_key", "CALL-05", "caller", silent, ANSWER, "bad_mac"),
    ]


def _ringing_without_camera() -> list[Value]:
    return [*CALL.ringing[:4], media("callee", [[0, 1, 111, 1, None, None]]), *CALL.ringing[5:]]
