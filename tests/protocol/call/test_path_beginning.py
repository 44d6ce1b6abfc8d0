"""Who begins another path, and in which epoch (spec/call.md, "Another path")."""

import pytest
from msgspec.structs import replace

from e2ecall.errors import LocalProtocolError
from e2ecall.protocol.call_events import EpochConfirmed, PathDue, PathProposed
from e2ecall.protocol.call_exchange import CalleeSecrets, RekeySecrets
from e2ecall.protocol.call_table import Role
from e2ecall.protocol.messages import PathRequest
from tests.protocol.call.conftest import TURN


def test_a_path_that_is_heard_again_is_kept(talk, kit):
    """CALL-40: nothing leaves for a path that came back before anything was said."""
    talk.lose()
    talk.caller.path_alive(0, kit.now)
    talk.caller.replace_path(RekeySecrets.generate(), kit.media("p"), kit.now)
    assert talk.caller.messages_to_send() == []
    assert talk.caller.deadline() == kit.now + 300


def test_the_callee_asks(talk, kit):
    """CALL-40, CALL-45: a callee that hears nothing asks at once, and every 3 s."""
    talk.lose(Role.CALLEE)
    (request,) = talk.callee.messages_to_send()
    assert isinstance(request, PathRequest)
    talk.callee.on_time(kit.now + 2.9)
    assert talk.callee.messages_to_send() == []
    talk.callee.on_time(kit.now + 3)
    (again,) = talk.callee.messages_to_send()
    assert again.epoch == request.epoch == 1
    talk.caller.receive(again, kit.now + 3)
    talk.caller.receive(request, kit.now + 3)
    assert set(talk.caller.events()) == {PathDue()}
    talk.caller.replace_path(RekeySecrets.generate(), kit.media("p"), kit.now + 3)
    (talk.path,) = talk.caller.messages_to_send()
    talk.answer_by_path(kit.now + 3)
    talk.callee.on_time(kit.now + 20)
    assert talk.callee.messages_to_send() == []


def test_when_both_notice_the_callers_word_counts(talk, kit):
    """CALL-41: a request that meets a Path for the same epoch has no effect, before and after."""
    talk.replace()
    talk.lose(Role.CALLEE)
    (request,) = talk.callee.messages_to_send()
    talk.caller.receive(request, kit.now)
    assert talk.caller.events() == talk.caller.messages_to_send() == []
    talk.answer_by_path()
    talk.get_ready()
    talk.caller.events()
    talk.caller.receive(replace(talk.sign(Role.CALLEE, replace(request, counter=30))), kit.now)
    assert talk.caller.events() == talk.caller.messages_to_send() == []
    assert talk.caller.epoch == 1


def test_neither_goes_the_other_way(talk, kit):
    """CALL-41, CALL-12: a callee begins no path, and a caller answers none."""
    for action in (
        lambda: talk.callee.replace_path(RekeySecrets.generate(), kit.media("p"), kit.now),
        lambda: talk.callee.ready_path(1, [kit.relayed], kit.now),
        lambda: talk.caller.answer_path(None, kit.media("p"), TURN, [kit.relayed], kit.now),
    ):
        with pytest.raises(LocalProtocolError):
            action()


def test_a_rekey_under_way_comes_first(talk, kit):
    """CALL-41, CALLKEY-19: it is hurried, and the path takes the epoch after it."""
    talk.propose()
    talk.lose()
    talk.caller.on_time(kit.now)
    (copy,) = talk.caller.messages_to_send()
    assert copy.epoch == talk.rekey.epoch == 1
    talk.caller.replace_path(RekeySecrets.generate(), kit.media("p"), kit.now)
    assert talk.caller.messages_to_send() == []
    talk.agree()
    talk.callee.events()
    talk.caller.receive(talk.rekey_reply, kit.now)
    talk.caller.on_time(kit.now)
    assert PathDue() in talk.caller.events()
    talk.caller.replace_path(RekeySecrets.generate(), kit.media("p"), kit.now)
    *_, talk.path = talk.caller.messages_to_send()
    assert talk.path.epoch == 2
    # No frame of epoch 1 has come, nor will it: the Path stands in for it.
    talk.callee.receive(talk.path, kit.now)
    confirmed, proposed = talk.callee.events()
    assert confirmed == EpochConfirmed(1)
    assert isinstance(proposed, PathProposed)
    assert talk.callee.epoch == 1
    secrets = CalleeSecrets.generate(proposed.path)
    talk.callee.answer_path(secrets, kit.media("q"), TURN, [kit.relayed], kit.now)
    *_, talk.made_path_reply = talk.callee.messages_to_send()
    talk.get_ready()
    talk.callee.receive(talk.path_ready, kit.now)
    assert talk.caller._channel.sending == talk.callee._channel.sending
    assert talk.caller.epoch == 2


def test_a_callee_that_waits_for_a_frame_asks_for_the_epoch_after(talk, kit):
    """CALLKEY-12: its request has a MAC of the newest epoch, and so is no request of the former."""
    talk.propose()
    talk.agree()
    talk.caller.receive(talk.rekey_reply, kit.now)
    talk.caller.events()
    talk.lose(Role.CALLEE)
    (request,) = talk.callee.messages_to_send()
    assert (request.epoch, talk.callee.epoch) == (2, 0)
    talk.caller.receive(request, kit.now)
    assert talk.caller.events() == [PathDue()]


def test_old_keys_go_while_a_path_is_out(talk, kit):
    """CALLKEY-16: a Path that waits for its answer does not keep the keys of the epoch before."""
    talk.change_epoch()
    talk.caller.events()
    talk.replace(kit.now + 5)
    assert len(talk.caller._channel._live) == 2
    talk.caller.on_time(kit.now + 10)
    assert len(talk.caller._channel._live) == 1
    assert talk.caller._rekey is not None


def test_no_rekey_begins_while_a_path_is_made(talk, kit):
    """CALLKEY-19: a callee with a worn key gets its epoch after the move, not within it."""
    talk.replace()
    talk.answer_by_path()
    talk.get_ready()
    talk.callee.receive(talk.path_ready, kit.now)
    talk.caller.events()
    talk.callee.key_worn(1, kit.now)
    talk.callee.on_time(kit.now + 10)
    talk.caller.on_time(kit.now + 10)
    (request,) = talk.callee.messages_to_send()
    talk.caller.receive(request, kit.now + 10)
    assert talk.caller.events() == []
    talk.caller.path_alive(1, kit.now + 10)
    talk.caller.on_time(kit.now + 25)
    assert [type(event).__name__ for event in talk.caller.events()] == ["RekeyDue"]
