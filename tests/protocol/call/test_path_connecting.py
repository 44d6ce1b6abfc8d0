"""Paths that die before both ends have seen a frame (spec/call.md, CALL-47)."""

import pytest

from e2ecall.protocol.call_events import Ended, EndReason, PathDue, RekeyDue, ReplacePath
from e2ecall.protocol.call_table import CallState, Role
from e2ecall.protocol.messages import PathRequest
from tests.protocol.call.conftest import of

CONNECTED = [tuple(Role), (Role.CALLER,), (Role.CALLEE,), ()]


@pytest.fixture
def early(pair):
    """Return a pair that has answered, and seen no frame yet."""
    pair.run(5)
    for call in (pair.caller, pair.callee):
        call.events()
    return pair


def end(pair, role):
    return pair.caller if role is Role.CALLER else pair.callee


@pytest.mark.parametrize("connected", CONNECTED)
def test_a_path_is_replaced_whoever_saw_a_frame(early, kit, connected):
    """CALL-47, CALL-43: both ends get the new one, and nothing else counts as a first frame."""
    for role in connected:
        end(early, role).media_connected(kit.now)
    early.replace(kit.now + 4)
    early.answer_by_path(kit.now + 4)
    early.get_ready(kit.now + 4)
    early.callee.receive(early.path_ready, kit.now + 4)
    both = [of(ReplacePath, call.events()) for call in (early.caller, early.callee)]
    assert both[0].keys.keys == both[1].keys.keys
    assert (both[0].local, both[0].remote) == (both[1].remote, both[1].local)
    for role in Role:
        call = end(early, role)
        call.path_alive(1, kit.now + 5)
        seen = CallState.CONNECTED if role in connected else CallState.CONNECTING
        assert (call.state, call.epoch) == (seen, 1)
        if role not in connected:
            call.media_connected(kit.now + 6)
        assert call.state is CallState.CONNECTED
        call.on_time(kit.now + 15)
        assert len(call._channel._live) == 1
        assert not call.on_time(kit.now + 364)
        assert call.on_time(kit.now + 366)


@pytest.mark.parametrize("connected", [(), (Role.CALLEE,)])
def test_a_callee_asks_while_it_connects(early, kit, connected):
    """CALL-47, CALL-40: and a caller that has seen no frame begins the path."""
    for role in connected:
        end(early, role).media_connected(kit.now)
    early.lose(Role.CALLEE, kit.now + 3)
    (request,) = early.callee.messages_to_send()
    assert isinstance(request, PathRequest)
    early.caller.receive(request, kit.now + 3)
    early.caller.on_time(kit.now + 3)
    assert PathDue() in early.caller.events()


@pytest.mark.parametrize("role", list(Role))
def test_the_time_to_connect_goes_on(early, kit, role):
    """CALL-47, CALL-13: a path that is heard and brings no frame does not make it longer."""
    early.replace(kit.now + 4)
    early.answer_by_path(kit.now + 4)
    early.get_ready(kit.now + 4)
    early.callee.receive(early.path_ready, kit.now + 4)
    call = end(early, role)
    call.path_alive(1, kit.now + 5)
    assert not call.on_time(kit.now + 29.9)
    assert call.on_time(kit.now + 30)
    assert call.events()[-1] == Ended(EndReason.TIMEOUT, False)


def test_no_rekey_before_media(early, kit):
    """CALL-47, CALLKEY-14: a worn key of an end that connects brings no Rekey."""
    early.caller.key_worn(0, kit.now + 1)
    early.replace(kit.now + 4)
    early.answer_by_path(kit.now + 4)
    early.get_ready(kit.now + 4)
    early.caller.key_worn(1, kit.now + 5)
    early.caller.on_time(kit.now + 29)
    assert RekeyDue() not in early.caller.events()
