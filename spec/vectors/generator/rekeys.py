"""Traces of calls that change their keys (spec/callkeys.md, "Rekeying")."""

from spec.vectors.generator.calls import (
    CALL,
    FIRST,
    OTHER_CANDIDATE,
    SECOND,
    Rekeying,
)
from spec.vectors.generator.encoding import Value
from spec.vectors.generator.notation import BAD_POINTS, unreduced
from spec.vectors.generator.steps import (
    ALERTED,
    ANSWER,
    RUNG,
    Event,
    Refused,
    altered,
    does,
    gets,
    muted,
    mutes,
    waits,
)


def rekey_of(change: Rekeying, counter: int) -> list[Value]:
    """Return the Rekey of a change."""
    return CALL.message("Rekey", "caller", counter, *change.rekey, epoch=change.before)


def reply_of(change: Rekeying, counter: int) -> list[Value]:
    """Return its RekeyReply."""
    return CALL.message("RekeyReply", "callee", counter, *change.reply, epoch=change.after)


def proposes(change: Rekeying, counter: int) -> Event:
    """Return that the caller begins a change."""
    secrets = {
        "x25519_private": change.drawn("caller dh"),
        "mlkem_seed": change.drawn("kem", 64),
    }
    return does("rekey", rekey_of(change, counter), secrets=secrets)


def answers(change: Rekeying, counter: int) -> Event:
    """Return that the callee answers it."""
    secrets = {
        "x25519_private": change.drawn("callee dh"),
        "mlkem_secret": change.encapsulated[0],
        "mlkem_ciphertext": change.encapsulated[1],
    }
    return does("answer_rekey", reply_of(change, counter), secrets=secrets)


CALLER_UP = [*RUNG, gets(ANSWER), does("connect")]
CALLEE_UP = [
    *ALERTED,
    does("accept", ANSWER, audio=True, video=True, candidates=[OTHER_CANDIDATE]),
    does("connect"),
]
PROPOSED = [*CALLER_UP, waits(300), proposes(FIRST, 1)]
AGREED = [*CALLEE_UP, gets(rekey_of(FIRST, 1)), answers(FIRST, 1)]
CALLER_CROSSES = [*PROPOSED, gets(reply_of(FIRST, 1))]
CALLEE_CROSSES = [*AGREED, does("enter_epoch", epoch=1)]


def _rekeyed_caller() -> list[Event]:
    """Two changes: a repeated Rekey, a late message of the old epoch, and a request."""
    return [
        *PROPOSED,
        mutes("caller", 2),
        waits(15, rekey_of(FIRST, 3)),
        gets(muted("callee", 1)),
        gets(reply_of(FIRST, 2)),
        mutes("caller", 4, FIRST),
        gets(muted("callee", 3)),
        gets(reply_of(FIRST, 4)),
        gets(muted("callee", 5, FIRST)),
        waits(10),
        gets(CALL.message("RekeyRequest", "callee", 6, 2, epoch=FIRST.after)),
        proposes(SECOND, 5),
        gets(reply_of(SECOND, 7)),
        does("hangup", CALL.message("Hangup", "caller", 6, 1, epoch=SECOND.after)),
    ]


def _rekeyed_callee() -> list[Event]:
    """The same at the other end."""
    return [
        *CALLEE_UP,
        gets(rekey_of(FIRST, 1)),
        answers(FIRST, 1),
        mutes("callee", 2),
        gets(muted("caller", 2)),
        gets(rekey_of(FIRST, 3), reply_of(FIRST, 3)),
        gets(muted("caller", 4, FIRST)),
        does("enter_epoch", epoch=1),
        gets(rekey_of(FIRST, 5)),
        mutes("callee", 4, FIRST),
        does(
            "key_worn",
            epoch=1,
        ),
        waits(10, CALL.message("RekeyRequest", "callee", 5, 2, epoch=FIRST.after)),
        waits(15, CALL.message("RekeyRequest", "callee", 6, 2, epoch=FIRST.after)),
        gets(rekey_of(SECOND, 6)),
        answers(SECOND, 7),
        waits(15),
        does("enter_epoch", epoch=2),
        gets(CALL.message("Hangup", "caller", 7, 1, epoch=SECOND.after)),
    ]


def _overdue_caller() -> list[Event]:
    hangup = CALL.message("Hangup", "caller", 2, 3)
    return [*PROPOSED, waits(60, hangup)]


def _overdue_callee() -> list[Event]:
    hangup = CALL.message("Hangup", "callee", 2, 3)
    return [*AGREED, waits(359), waits(1, hangup)]


def refused_rekeys() -> list[Refused]:
    """Return messages of rekeying that are refused, each with what was before."""
    other = Rekeying(CALL.epoch, "another")
    late = muted("callee", 5)
    bad_share: list[Value] = [1, BAD_POINTS["low_order_1"], FIRST.rekey[2]]
    key = FIRST.rekey[2]
    if not isinstance(key, bytes):
        raise TypeError("a KEM key is binary")
    bad_key: list[Value] = [*FIRST.rekey[:2], unreduced(key)]
    no_share: list[Value] = [1, bytes(32), FIRST.reply[2]]
    told = "unexpected_message"
    wrong = Rekeying(CALL.epoch, "wrong")
    return [
        ("rekey_by_callee", "CALL-20", "caller", CALLER_UP, rekey_of(FIRST, 1), told),
        ("rekey_reply_by_caller", "CALL-20", "callee", CALLEE_UP, reply_of(FIRST, 1), told),
        (
            "rekey_request_by_caller",
            "CALL-20",
            "callee",
            CALLEE_UP,
            CALL.message("RekeyRequest", "caller", 1, 1),
            told,
        ),
        ("rekey_before_media", "CALL-20", "callee", CALLEE_UP[:-1], rekey_of(FIRST, 1), told),
        (
            "rekey_mac_altered",
            "CALL-05",
            "callee",
            CALLEE_UP,
            altered(rekey_of(FIRST, 1)),
            "bad_mac",
        ),
        (
            "rekey_of_epoch_after_next",
            "CALLKEY-12",
            "callee",
            CALLEE_UP,
            rekey_of(SECOND, 1),
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
        ("rekey_with_other_shares", "CALLKEY-13", "callee", AGREED, rekey_of(other, 2), told),
        ("rekey_before_entering", "CALLKEY-13", "callee", AGREED, rekey_of(SECOND, 2), told),
        ("rekey_replayed", "CALL-12", "callee", AGREED, rekey_of(FIRST, 1), "replayed"),
        ("rekey_reply_unasked", "CALLKEY-12", "caller", CALLER_UP, reply_of(FIRST, 1), "bad_mac"),
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
            altered(reply_of(FIRST, 1)),
            "bad_mac",
        ),
        ("rekey_reply_to_another", "CALLKEY-10", "caller", PROPOSED, reply_of(wrong, 1), "bad_mac"),
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
            reply_of(FIRST, 0),
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
            [*CALLER_CROSSES, waits(10)],
            late,
            "bad_mac",
        ),
        (
            "message_of_epoch_not_agreed",
            "CALLKEY-12",
            "caller",
            PROPOSED,
            muted("callee", 5, FIRST),
            "bad_mac",
        ),
        (
            "message_of_former_epoch_with_third_agreed",
            "CALLKEY-16",
            "callee",
            [*CALLEE_CROSSES, gets(rekey_of(SECOND, 2)), answers(SECOND, 2)],
            muted("caller", 5),
            "bad_mac",
        ),
        (
            "message_of_old_epoch_replayed",
            "CALL-12",
            "callee",
            [*AGREED, gets(muted("caller", 2)), does("enter_epoch", epoch=1)],
            muted("caller", 2),
            "replayed",
        ),
        (
            "message_counter_used_in_old_epoch",
            "CALL-12",
            "callee",
            [*AGREED, gets(muted("caller", 2)), does("enter_epoch", epoch=1)],
            muted("caller", 2, FIRST),
            "replayed",
        ),
    ]


def rekeyed_calls() -> list[tuple[str, str, list[Event]]]:
    """Return the traces of whole calls, each with its name and role."""
    return [
        ("rekeyed_caller", "caller", _rekeyed_caller()),
        ("rekeyed_callee", "callee", _rekeyed_callee()),
        ("rekey_overdue_caller", "caller", _overdue_caller()),
        ("rekey_overdue_callee", "callee", _overdue_callee()),
    ]
