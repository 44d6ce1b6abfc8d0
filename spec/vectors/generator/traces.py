"""Vectors of whole calls (spec/call.md, "States"): each end's messages, byte for byte.

A trace is one end's life as events: what its user does, what comes in, and what it then sends.
"""

from spec.vectors.generator.calls import (
    CALL,
    CANDIDATE,
    OTHER_CANDIDATE,
    CallValues,
    media,
    state,
)
from spec.vectors.generator.encoding import Value, enc
from spec.vectors.generator.form import VectorFile
from spec.vectors.generator.moves import (
    moved_calls,
    refused_paths,
)
from spec.vectors.generator.primitives import dh_key
from spec.vectors.generator.rekeys import (
    refused_rekeys,
    rekeyed_calls,
)
from spec.vectors.generator.steps import (
    ALERTED,
    ANSWER,
    ASKED,
    AWAITING,
    EARLY,
    HANGUP,
    HELD,
    INVITED,
    MUTED,
    PLACED,
    REVEAL,
    RUNG,
    WORDS,
    Event,
    Refused,
    altered,
    does,
    end,
    gets,
)


def traces(file: VectorFile) -> None:
    """Add the traces to call.json."""
    for name, role, events in _whole_calls():
        output = {"sas": f"{CALL.sas:08d}" if len(events) > 2 else None, "state": "ended"}
        file.accept("call", f"call_{name}", "CALL-12", end(role, events), output)
    for name, requirement, role, before, message, reason in (
        *_refused(),
        *refused_rekeys(),
        *refused_paths(),
    ):
        given = end(role, before) | {"message": enc(message)}
        layer = {"bad_point": "x25519", "bad_kem_key": "ml-kem"}.get(reason, "call")
        file.refuse("call_receive", f"call_{name}", requirement, given, layer, reason)
    for name, requirement, role, before, message, reason in _breaches():
        given = end(role, before) | {"message": enc(message)}
        file.refuse("call_breach", f"call_{name}", requirement, given, "call", reason)


def _whole_calls() -> list[tuple[str, str, list[Event]]]:
    accepted = does("accept", ANSWER, audio=True, video=True, candidates=[OTHER_CANDIDATE])
    hangup = does("hangup", HANGUP)
    add = does("add_candidates", EARLY, candidates=[CANDIDATE])
    mute = does("set_media_state", MUTED, muted=True, camera=True)
    hold = does("set_media_state", HELD, muted=True, camera=True, held=True, recording=True)
    write = does("send_text", WORDS, text="Grüße, 世界")
    ask = does("renegotiate", ASKED, video=True)
    controls = [gets(message) for message in (MUTED, HELD, WORDS, ASKED)]
    later = does("hangup", CALL.message("Hangup", "caller", 2, 5), told=5)
    declined = CALL.message("Decline", "callee", 0, 1)
    cancelled = CALL.message("Cancel", "caller", 1, 1)
    return [
        ("caller", "caller", [*RUNG, add, gets(ANSWER), gets(MUTED), hangup]),
        ("callee", "callee", [*ALERTED, gets(EARLY), accepted, mute, gets(HANGUP)]),
        ("controlled_caller", "caller", [*RUNG, add, gets(ANSWER), *controls, later]),
        (
            "controlled_callee",
            "callee",
            [*ALERTED, gets(EARLY), accepted, mute, hold, write, ask, gets(HANGUP)],
        ),
        ("declined_callee", "callee", [*ALERTED, does("decline", declined)]),
        ("declined_caller", "caller", [*RUNG, gets(declined)]),
        ("cancelled_caller", "caller", [*RUNG, does("cancel", cancelled)]),
        ("cancelled_callee", "callee", [*ALERTED, gets(cancelled)]),
        ("busy_callee", "callee", [*INVITED, does("busy", CALL.bare("Busy", 0, 1))]),
        ("busy_caller", "caller", [*PLACED, gets(CALL.bare("Busy", 0, 1))]),
        ("given_up_caller", "caller", [*PLACED, does("cancel", CALL.bare("Cancel", 0, 1))]),
        ("given_up_callee", "callee", [*INVITED, gets(CALL.bare("Cancel", 0, 1))]),
        *rekeyed_calls(),
        *moved_calls(),
    ]


def _refused() -> list[Refused]:
    talking = [*RUNG, gets(ANSWER)]
    accepted = does("accept", ANSWER, audio=True, video=True, candidates=[OTHER_CANDIDATE])
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
        ("hangup_mac_altered", "CALL-05", "callee", answered, altered(HANGUP), "bad_mac"),
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
        ("candidates_mac_altered", "CALL-05", "callee", ALERTED, altered(EARLY), "bad_mac"),
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
        ("candidates_twice", "CALL-12", "callee", [*ALERTED, gets(EARLY)], EARLY, "replayed"),
        (
            "counter_behind_window",
            "CALL-12",
            "callee",
            [*ALERTED, gets(CALL.message("MediaState", "caller", 65, *state(True, True)))],
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
            [*ALERTED, gets(CALL.message("Candidates", "caller", 1, [CANDIDATE] * 8))],
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


def _breaches() -> list[Refused]:
    """Messages that end a call at once: the peer holds another key, or aims past the relay."""
    wrong_nonce = CALL.message("Reveal", "caller", 0, CALL.drawn("another nonce"))
    host: Value = [2, "192.168.1.1", 5000]
    silent = [*PLACED, {"receive": enc(_ringing_without_camera()), "sends": None}]
    values = CALL
    if dh_key(values.drawn("caller dh")) != values.offer[2]:
        raise ValueError("the Offer shows another share")
    return [
        ("reveal_mac_altered", "CALL-05", "callee", AWAITING, altered(REVEAL), "bad_mac"),
        (
            "reveal_of_another_nonce",
            "CALLKEY-01",
            "callee",
            AWAITING,
            wrong_nonce,
            "bad_commitment",
        ),
        ("answer_mac_altered", "CALL-05", "caller", RUNG, altered(ANSWER), "bad_mac"),
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
