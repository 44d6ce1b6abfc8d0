"""What happens at the very moment a deadline passes (spec/call.md, "Time")."""

import pytest

from e2ecall.protocol.call_events import Ended, EndReason
from e2ecall.protocol.call_table import CallState, Role

LATE = {
    "failed": lambda call, now: call.failed(EndReason.MEDIA_FAILED, now),
    "media_connected": lambda call, now: call.media_connected(now),
    "add_candidates": lambda call, now: call.add_candidates((), now),
    "send_text": lambda call, now: call.send_text("hello", now),
    "renegotiate": lambda call, now: call.renegotiate(video=True, now=now),
    "set_media_state": lambda call, now: call.set_media_state(muted=True, camera=False, now=now),
}


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("what", LATE)
def test_what_befalls_a_call_after_its_deadline_raises_nothing(kit, role, what):
    """CALL-13: what a peer can time to come just after a deadline ends the call and no more."""
    _, call = kit.at(role, CallState.CONNECTING)
    call.messages_to_send()
    LATE[what](call, call.deadline() + 0.02)
    assert call.state is CallState.ENDED
    assert call.events() == [Ended(EndReason.TIMEOUT, by_peer=False)]
    assert len(call.messages_to_send()) == 1


def test_glare_after_the_deadline(kit):
    """CALL-13: an own call that has timed out is not superseded as well."""
    _, call = kit.at(Role.CALLER, CallState.OFFERED)
    call.superseded(call.deadline())
    assert call.events() == [Ended(EndReason.NO_ANSWER, by_peer=False)]


def test_the_clock_is_looked_at_once(kit):
    """`on_time` says whether it ended the call, and does so only once."""
    _, call = kit.at(Role.CALLER, CallState.RINGING)
    deadline = call.deadline()
    assert not call.on_time(deadline - 1)
    assert call.on_time(deadline)
    assert not call.on_time(deadline + 1)
