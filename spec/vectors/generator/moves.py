"""Traces of calls whose path is replaced (spec/call.md, "Another path")."""

from spec.vectors.generator.calls import (
    CALL,
    CANDIDATE,
    FIRST,
    LATER_MOVE,
    MOVE,
    MOVED,
    OTHER_CANDIDATE,
    Moving,
    Rekeying,
    media,
)
from spec.vectors.generator.encoding import Value, enc
from spec.vectors.generator.notation import BAD_POINTS
from spec.vectors.generator.rekeys import (
    AGREED,
    CALLEE_UP,
    CALLER_UP,
    PROPOSED,
    rekey_of,
    reply_of,
)
from spec.vectors.generator.steps import (
    ALERTED,
    Event,
    Refused,
    does,
    gets,
    muted,
    mutes,
    waits,
)


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
    return does("replace_path", _path(move, counter), secrets=secrets, media=new)


def _answers_path(move: Moving, counter: int) -> Event:
    secrets = {
        "x25519_private": move.drawn("callee dh"),
        "mlkem_secret": move.encapsulated[0],
        "mlkem_ciphertext": move.encapsulated[1],
    }
    return does(
        "answer_path",
        _path_reply(move, counter),
        secrets=secrets,
        media=enc(move.reply[3]),
        turn=move.turn,
        candidates=[OTHER_CANDIDATE],
    )


def _readies(move: Moving, counter: int) -> Event:
    epoch = move.after.number
    return does("ready_path", _path_ready(move, counter), epoch=epoch, candidates=[CANDIDATE])


def _loses(seconds: float, *sends: list[Value]) -> Event:
    return does("path_lost", *sends, seconds=seconds)


def _moved_caller() -> list[Event]:
    """A path that is lost and replaced: copies, a request that came too late, a text after it."""
    return [
        *CALLER_UP,
        _loses(2.5),
        _replaces(MOVE, 1),
        gets(_path_request(1, 1)),
        waits(3, _path(MOVE, 2)),
        gets(_path_reply(MOVE, 2)),
        _readies(MOVE, 3),
        gets(_path_reply(MOVE, 3)),
        waits(3, _path_ready(MOVE, 4)),
        does("path_alive", epoch=1),
        waits(30),
        mutes("caller", 5, MOVE),
        gets(CALL.message("Hangup", "callee", 4, 1, epoch=MOVE.after)),
    ]


def _moved_callee() -> list[Event]:
    """The same at the other end, which asks for it."""
    return [
        *CALLEE_UP,
        _loses(2.5, _path_request(1, 1)),
        waits(3, _path_request(2, 1)),
        gets(_path(MOVE, 1)),
        gets(_path(MOVE, 2)),
        _answers_path(MOVE, 3),
        gets(_path(MOVE, 3), _path_reply(MOVE, 4)),
        mutes("callee", 5),
        gets(_path_ready(MOVE, 4)),
        gets(_path_ready(MOVE, 5)),
        does("path_alive", epoch=1),
        waits(30),
        mutes("callee", 6, MOVE),
        gets(CALL.message("Hangup", "caller", 6, 1, epoch=MOVE.after)),
    ]


def _moved_during_rekey_caller() -> list[Event]:
    return [
        *PROPOSED,
        _loses(2.5, rekey_of(FIRST, 2)),
        gets(reply_of(FIRST, 1)),
        _replaces(LATER_MOVE, 3),
        gets(_path_reply(LATER_MOVE, 2)),
        _readies(LATER_MOVE, 4),
        does("hangup", CALL.message("Hangup", "caller", 5, 1, epoch=LATER_MOVE.after)),
    ]


def _moved_during_rekey_callee() -> list[Event]:
    """No frame of the epoch that was agreed on came; the Path stands in for it."""
    return [
        *AGREED,
        _loses(2.5, _path_request(2, 2, FIRST)),
        gets(_path(LATER_MOVE, 2)),
        mutes("callee", 3, FIRST),
        _answers_path(LATER_MOVE, 4),
        gets(_path_ready(LATER_MOVE, 3)),
        gets(CALL.message("Hangup", "caller", 4, 1, epoch=LATER_MOVE.after)),
    ]


def _moved_while_connecting_caller() -> list[Event]:
    """The path dies before a frame was seen at this end, which then sees one on the next."""
    return [
        *CALLER_UP[:-1],
        _loses(2.5),
        _replaces(MOVE, 1),
        gets(_path_reply(MOVE, 1)),
        _readies(MOVE, 2),
        does("path_alive", epoch=1),
        does("connect"),
        waits(30),
        mutes("caller", 3, MOVE),
        gets(CALL.message("Hangup", "callee", 2, 1, epoch=MOVE.after)),
    ]


def _moved_while_connecting_callee() -> list[Event]:
    """The same at the other end, which has seen none either."""
    return [
        *CALLEE_UP[:-1],
        _loses(2.5, _path_request(1, 1)),
        gets(_path(MOVE, 1)),
        _answers_path(MOVE, 2),
        gets(_path_ready(MOVE, 2)),
        does("path_alive", epoch=1),
        does("connect"),
        waits(30),
        mutes("callee", 3, MOVE),
        gets(CALL.message("Hangup", "caller", 3, 1, epoch=MOVE.after)),
    ]


def _waiting_callee_is_heard() -> list[Event]:
    """The caller takes long to allocate, and the callee, which waits, mutes and hangs up."""
    return [
        *CALLER_UP,
        _loses(2.5),
        _replaces(MOVE, 1),
        gets(_path_reply(MOVE, 1)),
        waits(11),
        gets(muted("callee", 2)),
        gets(CALL.message("Hangup", "callee", 3, 1)),
    ]


def _lost_caller() -> list[Event]:
    """Nobody answers, and after 30 s the call is over."""
    copies = [waits(3, _path(MOVE, 2 + number)) for number in range(9)]
    hangup = CALL.message("Hangup", "caller", 11, 3)
    return [*CALLER_UP, _loses(2.5), _replaces(MOVE, 1), *copies, waits(0.5, hangup)]


def _lost_callee() -> list[Event]:
    asked = [waits(3, _path_request(2 + number, 1)) for number in range(9)]
    hangup = CALL.message("Hangup", "callee", 11, 3)
    return [*CALLEE_UP, _loses(2.5, _path_request(1, 1)), *asked, waits(0.5, hangup)]


def refused_paths() -> list[Refused]:
    """Return messages of another path that are refused, each with what was before."""
    other = Moving(CALL.epoch, "another move")
    first, reply = list(MOVE.rekey), list(MOVE.reply)
    bad_share: list[Value] = [1, BAD_POINTS["low_order_1"], *first[2:]]
    swapped: list[Value] = [*first[:3], media("mallory", MOVED)]
    stale: list[Value] = [*first[:3], media("caller", MOVED)]
    fewer: list[Value] = [*first[:3], media("newcaller", [[0, 1, 111, 9, None, None]])]
    out = [*CALLER_UP, _loses(2.5), _replaces(MOVE, 1)]
    taken = [*CALLEE_UP, gets(_path(MOVE, 1)), _answers_path(MOVE, 1)]
    told = "unexpected_message"
    return [
        ("path_by_callee", "CALL-41", "caller", CALLER_UP, _path(MOVE, 1), told),
        ("path_reply_by_caller", "CALL-41", "callee", CALLEE_UP, _path_reply(MOVE, 1), told),
        ("path_ready_by_callee", "CALL-41", "caller", out, _path_ready(MOVE, 1), told),
        ("path_request_by_caller", "CALL-41", "callee", CALLEE_UP, _path_request(1, 1), told),
        ("path_before_answer", "CALL-12", "callee", ALERTED, _path(MOVE, 1), told),
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
        ("rekey_after_path", "CALLKEY-13", "callee", taken, rekey_of(FIRST, 2), told),
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
        ("rekey_reply_to_path", "CALLKEY-10", "caller", out, reply_of(FIRST, 1), told),
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


def moved_calls() -> list[tuple[str, str, list[Event]]]:
    """Return the traces of whole calls, each with its name and role."""
    return [
        ("moved_caller", "caller", _moved_caller()),
        ("moved_callee", "callee", _moved_callee()),
        ("moved_during_rekey_caller", "caller", _moved_during_rekey_caller()),
        ("moved_during_rekey_callee", "callee", _moved_during_rekey_callee()),
        ("moved_while_connecting_caller", "caller", _moved_while_connecting_caller()),
        ("moved_while_connecting_callee", "callee", _moved_while_connecting_callee()),
        ("waiting_callee_is_heard", "caller", _waiting_callee_is_heard()),
        ("lost_caller", "caller", _lost_caller()),
        ("lost_callee", "callee", _lost_callee()),
    ]
