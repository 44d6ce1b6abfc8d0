"""Which epoch's keys count at which end while it changes (spec/callkeys.md, "Rekeying")."""

import pytest
from msgspec.structs import replace

from e2ecall.errors import LocalProtocolError, Reason, RemoteProtocolError
from e2ecall.protocol.call_events import NewEpoch
from e2ecall.protocol.call_exchange import CalleeSecrets
from e2ecall.protocol.call_table import Role
from e2ecall.protocol.messages import MediaState
from e2ecall.protocol.rekey_table import RekeyState
from tests.protocol.call.conftest import refuse
from tests.protocol.call.test_secrets import secrets_in


def say(call, now):
    """Return a MediaState that the call sends."""
    call.set_media_state(muted=True, camera=False, now=now)
    return call.messages_to_send()[-1]


def test_messages_under_way_are_understood_in_both_epochs(talk, kit):
    """CALLKEY-12, CALLKEY-15: until old keys are gone each end reads what the other can send."""
    talk.propose(kit.now)
    by_caller = [say(talk.caller, kit.now)]
    talk.agree(kit.now)
    by_callee = [say(talk.callee, kit.now)]
    talk.caller.receive(talk.rekey_reply, kit.now)
    by_caller.append(say(talk.caller, kit.now))  # of the new epoch, before any frame of it
    by_callee.append(say(talk.callee, kit.now))  # still of the old one
    for message in by_caller:
        talk.callee.receive(message, kit.now)
    for message in by_callee:
        talk.caller.receive(message, kit.now)
    talk.callee.enter_epoch(1, kit.now)
    talk.caller.receive(say(talk.callee, kit.now), kit.now)
    old, new = by_caller
    keys = talk.caller._channel.sending
    keys.verify(Role.CALLER, new)
    with pytest.raises(RemoteProtocolError):
        keys.verify(Role.CALLER, old)


def test_the_callee_enters_with_the_callers_first_frame(talk, kit):
    """CALLKEY-15: until then it signs in the old epoch; another epoch's frame moves nothing."""
    talk.propose(kit.now)
    talk.agree(kit.now)
    assert talk.callee.epoch == 0
    for epoch in (0, 2):
        before = kit.snapshot(talk.callee)
        with pytest.raises(LocalProtocolError):
            talk.callee.enter_epoch(epoch, kit.now)
        assert kit.snapshot(talk.callee) == before
    talk.callee.enter_epoch(1, kit.now)
    assert talk.callee.epoch == 1
    with pytest.raises(LocalProtocolError):
        talk.callee.enter_epoch(1, kit.now)


def test_media_is_told_to_receive_before_the_reply_leaves(talk, kit):
    """CALLKEY-15: the step that makes the reply tells of the epoch, and not to send in it yet."""
    talk.propose(kit.now)
    talk.callee.receive(talk.rekey, kit.now)
    talk.callee.events()
    talk.callee.answer_rekey(CalleeSecrets.generate(talk.rekey), kit.now)
    (told,) = talk.callee.events()
    assert isinstance(told, NewEpoch)
    assert (told.send, told.keys.keys.epoch) == (False, 1)
    (talk.rekey_reply,) = talk.callee.messages_to_send()
    talk.caller.receive(talk.rekey_reply, kit.now)
    (at_caller,) = talk.caller.events()
    assert (at_caller.send, at_caller.keys.keys) == (True, told.keys.keys)


@pytest.mark.parametrize("role", list(Role))
def test_old_keys_are_dropped_after_ten_seconds(talk, kit, role):
    """CALLKEY-16: then no message of the old epoch is accepted, and no secret of it is found."""
    old = talk.keys
    talk.change_epoch(kit.now)
    call = talk.caller if role is Role.CALLER else talk.callee
    peer = Role.CALLEE if role is Role.CALLER else Role.CALLER
    message = MediaState(talk.offer.call_id, 50, True, False, False, False, False, kit.unsigned)
    late = [replace(message, counter=n) for n in (50, 51)]
    late = [replace(m, mac=old.mac(peer, m)) for m in late]
    call.receive(late[0], kit.now + 9.9)
    call.events()
    assert old.secret.expose() in secrets_in(call)
    call.on_time(kit.now + 10)
    assert old.secret.expose() not in secrets_in(call)
    assert refuse(call, late[1], kit.now + 10) is Reason.BAD_MAC


def test_a_third_epoch_ends_the_first_at_once(talk, kit):
    """CALLKEY-16: a callee that agrees on the next epoch before 10 s were over drops the oldest."""
    old = talk.keys
    talk.propose(kit.now)
    talk.agree(kit.now)
    talk.caller.receive(talk.rekey_reply, kit.now)
    talk.callee.enter_epoch(1, kit.now + 5)
    talk.propose(kit.now + 10)
    talk.callee.events()
    assert talk.callee._rekey_state is RekeyState.CROSSING
    talk.agree(kit.now + 10)
    talk.callee.events()
    assert old.secret.expose() not in secrets_in(talk.callee)
    talk.cross(kit.now + 10)
    assert talk.caller._channel.sending == talk.callee._channel.sending
