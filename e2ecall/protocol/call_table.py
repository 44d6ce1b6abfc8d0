"""The states of a call and every step between them (spec/call.md, "States"): one table.

A step that is not listed does not exist. Whether a message is authentic, and what a step does
besides changing the state, is `e2ecall.protocol.call`.
"""

from collections.abc import Mapping
from enum import StrEnum, unique
from typing import Final, TypeVar

from e2ecall.errors import LocalProtocolError, Reason, RemoteProtocolError


@unique
class Role(StrEnum):
    """Which end of the call this is."""

    CALLER = "caller"
    CALLEE = "callee"


@unique
class CallState(StrEnum):
    """Where a call stands, seen from one end."""

    IDLE = "idle"
    """Nothing came in or went out."""
    OFFERED = "offered"
    """Caller: the Offer is out."""
    RINGING = "ringing"
    """Caller: Ringing came in, Reveal is out, the other phone rings."""
    INVITED = "invited"
    """Callee: an Offer came in, nothing went out."""
    AWAITING_REVEAL = "awaiting_reveal"
    """Callee: Ringing is out, the phone is still silent."""
    ALERTING = "alerting"
    """Callee: Reveal opened the commitment, the phone rings."""
    CONNECTING = "connecting"
    """Both: the Answer is out or in, media may start."""
    CONNECTED = "connected"
    """Both: media flows."""
    ENDED = "ended"
    """Both: over for good."""


@unique
class Action(StrEnum):
    """What this end does, or what befalls it."""

    PLACE = "place"
    INVITE = "invite"
    RING = "ring"
    ACCEPT = "accept"
    DECLINE = "decline"
    BUSY = "busy"
    CANCEL = "cancel"
    HANG_UP = "hang up"
    ADD_CANDIDATES = "add candidates"
    SET_MEDIA_STATE = "set media state"
    SEND_TEXT = "send text"
    RENEGOTIATE = "renegotiate"
    MEDIA_UP = "media up"
    SUPERSEDE = "supersede"
    REKEY = "rekey"
    ANSWER_REKEY = "answer rekey"
    REQUEST_REKEY = "request rekey"
    ENTER_EPOCH = "enter epoch"
    """The peer's first authenticated frame of the new epoch is there."""
    RETIRE_KEYS = "retire keys"
    """The former epoch's keys are dropped."""
    REPLACE_PATH = "replace path"
    ANSWER_PATH = "answer path"
    READY_PATH = "ready path"
    REQUEST_PATH = "request path"
    TIME_OUT = "time-out"
    FAIL = "fail"
    BREACH = "breach"
    """The peer proved to hold another key, or sent what ends a call at once."""


@unique
class Received(StrEnum):
    """What came in; the value is the name of the message."""

    OFFER = "Offer"
    RINGING = "Ringing"
    REVEAL = "Reveal"
    ANSWER = "Answer"
    DECLINE = "Decline"
    BUSY = "Busy"
    CANCEL = "Cancel"
    HANGUP = "Hangup"
    CANDIDATES = "Candidates"
    MEDIA_STATE = "MediaState"
    REKEY = "Rekey"
    REKEY_REPLY = "RekeyReply"
    REKEY_REQUEST = "RekeyRequest"
    TEXT = "Text"
    RENEGOTIATE = "Renegotiate"
    PATH = "Path"
    PATH_REPLY = "PathReply"
    PATH_READY = "PathReady"
    PATH_REQUEST = "PathRequest"


Trigger = Action | Received

State = TypeVar("State", bound=StrEnum)

A, R, S = Action, Received, CallState

TABLE: Final[Mapping[Role, Mapping[CallState, Mapping[Trigger, CallState]]]] = {
    Role.CALLER: {
        S.IDLE: {A.PLACE: S.OFFERED},
        S.OFFERED: {
            R.RINGING: S.RINGING,
            R.DECLINE: S.ENDED,
            R.BUSY: S.ENDED,
            A.CANCEL: S.ENDED,
            A.SUPERSEDE: S.ENDED,
            A.TIME_OUT: S.ENDED,
            A.FAIL: S.ENDED,
        },
        S.RINGING: {
            R.ANSWER: S.CONNECTING,
            R.CANDIDATES: S.RINGING,
            R.MEDIA_STATE: S.RINGING,
            A.ADD_CANDIDATES: S.RINGING,
            A.SET_MEDIA_STATE: S.RINGING,
            R.DECLINE: S.ENDED,
            R.HANGUP: S.ENDED,
            A.CANCEL: S.ENDED,
            A.TIME_OUT: S.ENDED,
            A.FAIL: S.ENDED,
            A.BREACH: S.ENDED,
        },
        S.CONNECTING: {
            A.MEDIA_UP: S.CONNECTED,
            R.CANDIDATES: S.CONNECTING,
            R.MEDIA_STATE: S.CONNECTING,
            A.ADD_CANDIDATES: S.CONNECTING,
            A.SET_MEDIA_STATE: S.CONNECTING,
            R.TEXT: S.CONNECTING,
            R.RENEGOTIATE: S.CONNECTING,
            A.SEND_TEXT: S.CONNECTING,
            A.RENEGOTIATE: S.CONNECTING,
            R.PATH_REPLY: S.CONNECTING,
            R.PATH_REQUEST: S.CONNECTING,
            A.REPLACE_PATH: S.CONNECTING,
            A.READY_PATH: S.CONNECTING,
            A.RETIRE_KEYS: S.CONNECTING,
            R.HANGUP: S.ENDED,
            A.HANG_UP: S.ENDED,
            A.TIME_OUT: S.ENDED,
            A.FAIL: S.ENDED,
            A.BREACH: S.ENDED,
        },
        S.CONNECTED: {
            R.CANDIDATES: S.CONNECTED,
            R.MEDIA_STATE: S.CONNECTED,
            A.ADD_CANDIDATES: S.CONNECTED,
            A.SET_MEDIA_STATE: S.CONNECTED,
            R.TEXT: S.CONNECTED,
            R.RENEGOTIATE: S.CONNECTED,
            A.SEND_TEXT: S.CONNECTED,
            A.RENEGOTIATE: S.CONNECTED,
            R.REKEY_REPLY: S.CONNECTED,
            R.REKEY_REQUEST: S.CONNECTED,
            A.REKEY: S.CONNECTED,
            A.RETIRE_KEYS: S.CONNECTED,
            R.PATH_REPLY: S.CONNECTED,
            R.PATH_REQUEST: S.CONNECTED,
            A.REPLACE_PATH: S.CONNECTED,
            A.READY_PATH: S.CONNECTED,
            R.HANGUP: S.ENDED,
            A.HANG_UP: S.ENDED,
            A.TIME_OUT: S.ENDED,  # a Rekey is overdue, or the path is gone
            A.FAIL: S.ENDED,
            A.BREACH: S.ENDED,
        },
        S.ENDED: {},
    },
    Role.CALLEE: {
        S.IDLE: {A.INVITE: S.INVITED},
        S.INVITED: {
            A.RING: S.AWAITING_REVEAL,
            R.CANCEL: S.ENDED,
            A.DECLINE: S.ENDED,
            A.BUSY: S.ENDED,
            A.TIME_OUT: S.ENDED,
            A.FAIL: S.ENDED,
        },
        S.AWAITING_REVEAL: {
            R.REVEAL: S.ALERTING,
            R.CANDIDATES: S.AWAITING_REVEAL,
            R.MEDIA_STATE: S.AWAITING_REVEAL,
            R.CANCEL: S.ENDED,
            A.DECLINE: S.ENDED,
            A.TIME_OUT: S.ENDED,
            A.FAIL: S.ENDED,
            A.BREACH: S.ENDED,
        },
        S.ALERTING: {
            A.ACCEPT: S.CONNECTING,
            R.CANDIDATES: S.ALERTING,
            R.MEDIA_STATE: S.ALERTING,
            R.CANCEL: S.ENDED,
            A.DECLINE: S.ENDED,
            A.TIME_OUT: S.ENDED,
            A.FAIL: S.ENDED,
            A.BREACH: S.ENDED,
        },
        S.CONNECTING: {
            A.MEDIA_UP: S.CONNECTED,
            R.CANDIDATES: S.CONNECTING,
            R.MEDIA_STATE: S.CONNECTING,
            A.ADD_CANDIDATES: S.CONNECTING,
            A.SET_MEDIA_STATE: S.CONNECTING,
            R.TEXT: S.CONNECTING,
            R.RENEGOTIATE: S.CONNECTING,
            A.SEND_TEXT: S.CONNECTING,
            A.RENEGOTIATE: S.CONNECTING,
            R.PATH: S.CONNECTING,
            R.PATH_READY: S.CONNECTING,
            A.ANSWER_PATH: S.CONNECTING,
            A.REQUEST_PATH: S.CONNECTING,
            A.RETIRE_KEYS: S.CONNECTING,
            R.CANCEL: S.ENDED,  # it crossed the Answer
            R.HANGUP: S.ENDED,
            A.HANG_UP: S.ENDED,
            A.TIME_OUT: S.ENDED,
            A.FAIL: S.ENDED,
            A.BREACH: S.ENDED,
        },
        S.CONNECTED: {
            R.CANDIDATES: S.CONNECTED,
            R.MEDIA_STATE: S.CONNECTED,
            A.ADD_CANDIDATES: S.CONNECTED,
            A.SET_MEDIA_STATE: S.CONNECTED,
            R.TEXT: S.CONNECTED,
            R.RENEGOTIATE: S.CONNECTED,
            A.SEND_TEXT: S.CONNECTED,
            A.RENEGOTIATE: S.CONNECTED,
            R.REKEY: S.CONNECTED,
            A.ANSWER_REKEY: S.CONNECTED,
            A.REQUEST_REKEY: S.CONNECTED,
            A.ENTER_EPOCH: S.CONNECTED,
            A.RETIRE_KEYS: S.CONNECTED,
            R.PATH: S.CONNECTED,
            R.PATH_READY: S.CONNECTED,
            A.ANSWER_PATH: S.CONNECTED,
            A.REQUEST_PATH: S.CONNECTED,
            R.HANGUP: S.ENDED,
            A.HANG_UP: S.ENDED,
            A.TIME_OUT: S.ENDED,  # a Rekey is overdue, or the path is gone
            A.FAIL: S.ENDED,
            A.BREACH: S.ENDED,
        },
        S.ENDED: {},
    },
}


def next_state(role: Role, state: CallState, trigger: Trigger) -> CallState:
    """Return where ``trigger`` leads.

    Raises:
        LocalProtocolError: the action is not possible in this state.
        RemoteProtocolError: UNEXPECTED_MESSAGE, the message is not due in this state.
    """
    following = TABLE[role][state].get(trigger)
    if following is not None:
        return following
    if isinstance(trigger, Received):
        raise RemoteProtocolError(Reason.UNEXPECTED_MESSAGE)
    raise LocalProtocolError(f"a call that is {state} cannot {trigger} as the {role}")


def render_table(role: Role) -> str:
    """Return the table of one role as a Mermaid state diagram; messages stand in brackets."""
    lines = ["stateDiagram-v2", *render_steps(TABLE[role]), f"    {CallState.ENDED} --> [*]"]
    return "\n".join(lines)


def render_steps(table: Mapping[State, Mapping[Trigger, State]]) -> list[str]:
    """Return the lines of a diagram that show the steps of a table."""
    lines = []
    for state, steps in table.items():
        targets: dict[State, list[str]] = {}
        for trigger, following in steps.items():
            name = f"[{trigger}]" if isinstance(trigger, Received) else str(trigger)
            targets.setdefault(following, []).append(name)
        source = "[*]" if state is CallState.IDLE else state
        lines += [f"    {source} --> {to}: {', '.join(names)}" for to, names in targets.items()]
    return lines
