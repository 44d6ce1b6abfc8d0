"""How far the change to a new epoch is (spec/callkeys.md, "Rekeying"): one table, as of the call.

It refines the state CONNECTED of `e2ecall.protocol.call_table`, whose actions and messages it uses,
and CONNECTING, where paths alone begin epochs. What a step does is `e2ecall.protocol.call_epochs`.
"""

from collections.abc import Mapping
from enum import StrEnum, unique
from typing import Final

from e2ecall.errors import LocalProtocolError
from e2ecall.protocol.call_table import Action, Received, Role, Trigger, render_steps


@unique
class RekeyState(StrEnum):
    """Which epochs' keys one end of a connected call has."""

    STEADY = "steady"
    """One epoch's."""
    PROPOSED = "proposed"
    """Caller: one epoch's, or two as before; a Rekey or a Path is out."""
    AGREED = "agreed"
    """Callee: two epochs'; its reply is out, and it still sends in the old one."""
    CROSSING = "crossing"
    """Two epochs': this end sends in the new one, and the old one's keys are about to go."""


A, R, S = Action, Received, RekeyState

REKEY_TABLE: Final[Mapping[Role, Mapping[RekeyState, Mapping[Trigger, RekeyState]]]] = {
    Role.CALLER: {
        S.STEADY: {A.REKEY: S.PROPOSED, A.REPLACE_PATH: S.PROPOSED},
        S.PROPOSED: {
            R.REKEY_REPLY: S.CROSSING,
            R.PATH_REPLY: S.CROSSING,
            A.RETIRE_KEYS: S.PROPOSED,
        },
        S.CROSSING: {A.RETIRE_KEYS: S.STEADY, A.REPLACE_PATH: S.PROPOSED},
    },
    Role.CALLEE: {
        S.STEADY: {A.ANSWER_REKEY: S.AGREED, A.ANSWER_PATH: S.AGREED},
        S.AGREED: {A.ENTER_EPOCH: S.CROSSING, R.PATH_READY: S.CROSSING, R.PATH: S.CROSSING},
        S.CROSSING: {
            A.RETIRE_KEYS: S.STEADY,
            A.ANSWER_REKEY: S.AGREED,
            A.ANSWER_PATH: S.AGREED,
        },
    },
}


def next_rekey_state(role: Role, state: RekeyState, trigger: Trigger) -> RekeyState:
    """Return where ``trigger`` leads.

    Raises:
        LocalProtocolError: it is not possible in this state.
    """
    following = REKEY_TABLE[role][state].get(trigger)
    if following is None:
        raise LocalProtocolError(f"keys that are {state} cannot {trigger} at the {role}")
    return following


def render_rekey_table(role: Role) -> str:
    """Return the table of one role as a Mermaid state diagram, as `render_table` does."""
    steps = render_steps(REKEY_TABLE[role])
    return "\n".join(["stateDiagram-v2", f"    [*] --> {RekeyState.STEADY}", *steps])
