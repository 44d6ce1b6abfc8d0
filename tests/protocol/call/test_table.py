"""The transition table and its picture in the specification."""

from pathlib import Path

import pytest

from e2ecall.errors import LocalProtocolError, Reason, RemoteProtocolError
from e2ecall.protocol.call_table import (
    TABLE,
    Action,
    CallState,
    Received,
    Role,
    next_state,
    render_table,
)
from e2ecall.protocol.rekey_table import REKEY_TABLE, next_rekey_state, render_rekey_table

SPEC = Path(__file__).parents[3] / "spec" / "call.md"
KEYS = SPEC.with_name("callkeys.md")


@pytest.mark.parametrize("role", list(Role))
def test_spec_shows_this_table(role):
    """The diagram in spec/call.md is exactly what the table renders to."""
    assert f"```mermaid\n{render_table(role)}\n```" in SPEC.read_text(encoding="utf-8")


@pytest.mark.parametrize("role", list(Role))
def test_spec_shows_the_table_of_epochs(role):
    """The diagram in spec/callkeys.md is exactly what its table renders to."""
    assert f"```mermaid\n{render_rekey_table(role)}\n```" in KEYS.read_text(encoding="utf-8")


@pytest.mark.parametrize("role", list(Role))
def test_unlisted_steps_of_epochs_raise(role):
    """What the table of epochs does not list is refused; what it lists, a connected call can do."""
    for state, steps in REKEY_TABLE[role].items():
        assert steps.keys() <= TABLE[role][CallState.CONNECTED].keys()
        for trigger in {*Action, *Received} - set(steps):
            with pytest.raises(LocalProtocolError):
                next_rekey_state(role, state, trigger)


@pytest.mark.parametrize("role", list(Role))
def test_media_states_are_behind_the_answer(role):
    """P1: only Answer (caller) or accept (callee) leads into a state with media."""
    media = {CallState.CONNECTING, CallState.CONNECTED}
    ways = {
        trigger
        for state, steps in TABLE[role].items()
        for trigger, following in steps.items()
        if state not in media and following in media
    }
    assert ways == ({Received.ANSWER} if role is Role.CALLER else {Action.ACCEPT})


@pytest.mark.parametrize("role", list(Role))
def test_alerting_is_behind_the_reveal(role):
    """CALL-04: only Reveal leads to a ringing phone."""
    ways = {
        trigger
        for steps in TABLE[role].values()
        for trigger, following in steps.items()
        if following is CallState.ALERTING and trigger is not Received.CANDIDATES
    } - {Received.MEDIA_STATE}
    assert ways == (set() if role is Role.CALLER else {Received.REVEAL})


@pytest.mark.parametrize("role", list(Role))
def test_end_is_final_and_reachable(role):
    """Every state can end, and from the end nothing leads anywhere."""
    assert TABLE[role][CallState.ENDED] == {}
    for state, steps in TABLE[role].items():
        if state not in (CallState.IDLE, CallState.ENDED):
            assert CallState.ENDED in steps.values()


@pytest.mark.parametrize("role", list(Role))
def test_unlisted_steps_raise(role):
    """CALL-12: what the table does not list is refused, by who did it."""
    for state, steps in TABLE[role].items():
        for received in set(Received) - set(steps):
            with pytest.raises(RemoteProtocolError) as refused:
                next_state(role, state, received)
            assert refused.value.reason is Reason.UNEXPECTED_MESSAGE
        for action in set(Action) - set(steps):
            with pytest.raises(LocalProtocolError):
                next_state(role, state, action)
