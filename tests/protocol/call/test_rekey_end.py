"""Calls that end in a change of epochs, or for want of one (spec/callkeys.md, "Rekeying")."""

import pytest
from msgspec.structs import replace

from e2ecall.errors import LocalProtocolError
from e2ecall.protocol.call_channel import MAX_MESSAGES
from e2ecall.protocol.call_events import Ended, EndReason, RekeyDue
from e2ecall.protocol.call_exchange import CalleeSecrets, RekeySecrets
from e2ecall.protocol.call_table import CallState, Role
from e2ecall.protocol.messages import LeaveReason
from tests.protocol.call.test_secrets import secrets_in

STAGES = {
    "nothing came": lambda talk: None,
    "rekey out": lambda talk: talk.propose(),
    "reply out": lambda talk: (talk.propose(), talk.agree()),
}


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("stage", STAGES)
def test_an_overdue_rekey_ends_the_call(talk, kit, role, stage):
    """CALLKEY-17: at 360 s without a new epoch, however far it came; the peer is told little."""
    STAGES[stage](talk)
    call = talk.caller if role is Role.CALLER else talk.callee
    call.on_time(kit.now + 359.9)
    assert call.state is CallState.CONNECTED
    call.messages_to_send()
    call.events()
    assert call.on_time(kit.now + 360)
    (hangup,) = call.messages_to_send()
    assert hangup.reason is LeaveReason.FAILED
    assert call.events() == [Ended(EndReason.KEYS_EXPIRED, False)]
    assert call.deadline() is None


def test_rekeying_keeps_a_call_alive(talk, kit):
    """CALLKEY-17: with a Rekey every five minutes a call goes on for a day."""
    for number in range(1, 289):
        now = kit.now + 300 * number
        for call in (talk.caller, talk.callee):
            assert not call.on_time(now)
        talk.change_epoch(now)
    assert talk.caller.epoch == talk.callee.epoch == 288


@pytest.mark.parametrize("stage", [*STAGES, "crossing"])
def test_no_secret_of_a_rekey_outlives_the_call(talk, kit, stage):
    """CALL-16, CALLKEY-09: a call that ends in the middle of a change keeps no key of it."""
    talk.change_epoch() if stage == "crossing" else STAGES[stage](talk)
    for call in (talk.caller, talk.callee):
        call.leave(kit.now)
        call.messages_to_send()
        call.events()
        assert secrets_in(call) == set()


@pytest.mark.parametrize("role", list(Role))
def test_what_comes_after_the_deadline_has_no_effect(talk, kit, role):
    """CALL-13: no step of rekeying brings a call back whose time is over."""
    talk.propose()
    talk.agree()
    call = talk.caller if role is Role.CALLER else talk.callee
    secrets = CalleeSecrets.generate(talk.rekey)
    {
        Role.CALLER: lambda: call.rekey(RekeySecrets.generate(), kit.now + 360),
        Role.CALLEE: lambda: call.answer_rekey(secrets, kit.now + 360),
    }[role]()
    assert call.state is CallState.ENDED
    with pytest.raises(LocalProtocolError):
        call.enter_epoch(1, kit.now + 361)


def test_a_frame_after_the_deadline_has_no_effect(talk, kit):
    """CALL-13: the first frame of an epoch that comes too late does not begin it."""
    talk.propose()
    talk.agree()
    talk.callee.enter_epoch(1, kit.now + 360)
    assert talk.callee.state is CallState.ENDED


def test_answers_need_a_rekey(talk, kit):
    """CALLKEY-13: a callee gives its shares to a Rekey alone, and once."""
    secrets = CalleeSecrets.generate(RekeySecrets.generate().rekey(talk.offer.call_id, 0, 1))
    before = kit.snapshot(talk.callee)
    with pytest.raises(LocalProtocolError):
        talk.callee.answer_rekey(secrets, kit.now)
    assert kit.snapshot(talk.callee) == before
    talk.propose()
    talk.agree()
    with pytest.raises(LocalProtocolError):
        talk.callee.answer_rekey(secrets, kit.now)


@pytest.mark.parametrize("role", list(Role))
def test_used_up_messages_end_the_call_when_keys_expire(talk, kit, role):
    """CALLKEY-17: an end that may send no more cannot rekey, and does not go on with old keys."""
    call = talk.caller if role is Role.CALLER else talk.callee
    if role is Role.CALLEE:
        talk.propose()
        talk.agree()
    call._channel._counter = MAX_MESSAGES - 1
    if role is Role.CALLER:
        call.on_time(kit.now + 300)
    else:
        copy = talk.sign(Role.CALLER, replace(talk.rekey, counter=9))
        call.receive(copy, kit.now)
    assert call.messages_to_send() == []
    assert not any(isinstance(event, RekeyDue) for event in call.events())
    assert call.on_time(kit.now + 360)
    assert call.events() == [Ended(EndReason.KEYS_EXPIRED, False)]
