"""How often, how long and until when a path is replaced (spec/call.md, "Another path")."""

import pytest

from e2ecall.errors import Reason
from e2ecall.protocol.call_channel import MAX_MESSAGES
from e2ecall.protocol.call_events import Ended, EndReason, PathDue
from e2ecall.protocol.call_exchange import CalleeSecrets, RekeySecrets
from e2ecall.protocol.call_table import CallState, Role
from e2ecall.protocol.messages import LeaveReason
from tests.protocol.call.conftest import TURN, refuse


def end(talk, role):
    return talk.caller if role is Role.CALLER else talk.callee


def test_paths_are_limited(talk, kit):
    """CALL-44: whatever dies how often, ten begin in ten minutes, at least 5 s apart."""
    times, now = [], kit.now
    letters = iter("ghijklmnop" * 90)
    while now < kit.now + 590:
        if talk.caller.epoch:
            talk.caller.path_failed(talk.caller.epoch, now)
        if now - kit.now in (200, 400):  # what keeps the call alive is not counted
            talk.change_epoch(now)
        talk.caller.path_lost(now, now)
        talk.caller.on_time(now)
        if PathDue() in talk.caller.events():
            times.append(now)
            talk.caller.replace_path(RekeySecrets.generate(), kit.media(next(letters)), now)
            *_, talk.path = talk.caller.messages_to_send()
            talk.answer_by_path(now, next(letters))
            talk.get_ready(now)
            talk.callee.receive(talk.path_ready, now)
        talk.caller.path_alive(0, now)
        now += 1
    assert times == [kit.now + 5 * number for number in range(10)]
    now = kit.now + 600
    talk.caller.path_lost(now, now)
    talk.caller.on_time(now)
    assert PathDue() in talk.caller.events()


def test_a_callee_takes_no_more_than_that(talk, kit):
    """CALL-44: the thirteenth Path in ten minutes is refused without effect, whoever sent it."""
    letters = iter("ghijklmnop" * 9)
    for _ in range(12):
        talk.caller._begun = ()
        talk.caller.path_failed(talk.caller.epoch, kit.now)
        talk.move(kit.now, next(letters) + next(letters))
    talk.caller._begun = ()
    talk.replace(kit.now, "g")
    assert refuse(talk.callee, talk.path, kit.now) is Reason.LIMIT
    assert talk.callee.epoch == 12


@pytest.mark.parametrize("role", list(Role))
def test_thirty_seconds_of_nothing_end_the_call(talk, kit, role):
    """CALL-46, CALL-13: both ends say that the connection was lost, however far a move came."""
    talk.lose(role)
    call = end(talk, role)
    assert not call.on_time(kit.now + 27.4)
    call.messages_to_send()
    assert call.on_time(kit.now + 27.5)
    (hangup,) = call.messages_to_send()
    assert hangup.reason is LeaveReason.FAILED
    assert call.events()[-1] == Ended(EndReason.CONNECTION_LOST, False)
    assert call.deadline() is None


def test_a_move_that_is_never_heard_does_not_stop_the_clock(talk, kit):
    """CALL-46: a relay that carries all messages and no media ends the call, in time."""
    talk.replace()
    talk.answer_by_path()
    talk.get_ready()
    talk.caller.events()
    talk.caller.path_failed(1, kit.now + 10)
    assert talk.caller.on_time(kit.now + 27.5)
    assert talk.caller.state is CallState.ENDED


def test_what_media_says_after_the_end_has_no_effect(talk, kit):
    """CALL-13: nor does it before the call has media."""
    for call in (talk.caller, talk.callee):
        call.leave(kit.now)
        call.messages_to_send()
        call.events()
        call.path_lost(kit.now, kit.now)
        call.path_alive(0, kit.now)
        call.path_failed(0, kit.now)
        assert call.deadline() is None
        assert call.messages_to_send() == call.events() == []
    early = kit.Pair().run(4)
    early.caller.path_lost(kit.now, kit.now)
    early.caller.path_alive(0, kit.now)
    early.caller.path_failed(0, kit.now)
    assert early.caller.deadline() == kit.now + 60


@pytest.mark.parametrize("role", list(Role))
def test_used_up_messages_replace_no_path(talk, kit, role):
    """CALL-12: an end that may send no more waits for its end, and answers no Path."""
    call = end(talk, role)
    path = talk.replace() if role is Role.CALLEE else None
    call._channel._counter = MAX_MESSAGES - 1
    call.events()
    call.path_lost(kit.now, kit.now)
    call.on_time(kit.now + 10)
    if path is not None:
        call.receive(path, kit.now + 10)
    assert call.events() == call.messages_to_send() == []
    assert call.on_time(kit.now + 30)


@pytest.mark.parametrize("role", list(Role))
def test_actions_after_the_deadline_have_no_effect(talk, kit, role):
    """CALL-13: no step of a move brings a call back whose time is over."""
    talk.replace()
    if role is Role.CALLEE:
        talk.callee.receive(talk.path, kit.now)
        secrets = CalleeSecrets.generate(talk.path)
        talk.callee.answer_path(secrets, kit.media("q"), TURN, [kit.relayed], kit.now + 361)
        assert talk.callee.state is CallState.ENDED
        return
    talk.answer_by_path()
    talk.caller.receive(talk.made_path_reply, kit.now)
    talk.caller.ready_path(1, [kit.relayed], kit.now + 361)
    assert talk.caller.state is CallState.ENDED
    other = kit.Pair().run(6)
    other.lose()
    other.caller.replace_path(RekeySecrets.generate(), kit.media("p"), kit.now + 361)
    assert other.caller.state is CallState.ENDED
