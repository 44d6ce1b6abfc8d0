"""Another path within a call (spec/call.md, "Another path"), from one to the next."""

import pytest

from e2ecall.errors import LocalProtocolError
from e2ecall.protocol.call_events import (
    Ended,
    EndReason,
    NewEpoch,
    PathAgreed,
    PathDue,
    PathProposed,
    ReplacePath,
)
from e2ecall.protocol.call_exchange import CalleeSecrets, RekeySecrets
from e2ecall.protocol.call_table import CallState, Role
from e2ecall.protocol.messages import Path, PathReady, PathReply, Stream
from tests.protocol.call.conftest import TURN, of
from tests.protocol.call.test_secrets import secrets_in


def test_both_ends_get_the_same_path(talk, kit):
    """CALL-43, CALLKEY-20: each connects when the exchange is authentic, under one set of keys."""
    talk.replace()
    talk.answer_by_path()
    assert not any(isinstance(event, ReplacePath) for event in talk.callee.events())
    talk.get_ready()
    at_caller = of(ReplacePath, talk.caller.events())
    assert talk.callee.epoch == 0
    talk.callee.receive(talk.path_ready, kit.now)
    at_callee = of(ReplacePath, talk.callee.events())
    assert talk.caller.epoch == talk.callee.epoch == 1
    assert (at_caller.local, at_caller.remote) == (at_callee.remote, at_callee.local)
    assert at_caller.keys.keys == at_callee.keys.keys
    assert at_caller.keys.keys.epoch == 1
    assert at_caller.remote_candidates == at_callee.remote_candidates == (kit.relayed,)
    assert (at_caller.local, at_caller.remote) == (kit.media("p"), kit.media("q"))


def test_the_code_and_the_call_stay(talk, kit):
    """CALLKEY-08: after any number of paths the spoken code is the one that was compared."""
    code, call_id = talk.caller.sas, talk.caller.call_id
    for number in range(1, 4):
        assert talk.move(kit.now + 20 * number, "pqrstu"[2 * number - 2 :]) == number
    assert talk.caller.sas == talk.callee.sas == code
    assert talk.caller.call_id == call_id
    assert talk.caller.state is talk.callee.state is CallState.CONNECTED


def test_n2_every_path_has_keys_of_its_own(talk, kit):
    """N2, SFRAME-04, CALLKEY-19: no frame key or key id is of two paths."""
    seen = []
    for number in range(4):
        if number:
            talk.move(kit.now + 20 * number, "pqrstu"[2 * number - 2 :])
        keys = [talk.keys.frame_key(role, stream) for role in Role for stream in Stream]
        seen += [key.kid for key in keys] + [key.base_key.expose() for key in keys]
    assert len(set(seen)) == len(seen)


def test_messages_go_on_in_the_epoch_of_the_path(talk, kit):
    """CALLKEY-12: what is said after a move is authentic at the other end."""
    talk.move()
    talk.caller.send_text("here again", kit.now)
    (text,) = talk.caller.messages_to_send()
    talk.callee.receive(text, kit.now)
    assert talk.callee.events()[-1].text == "here again"


def test_a_move_is_a_new_epoch(talk, kit):
    """CALLKEY-14: five minutes count from the move, and old keys go ten seconds after it."""
    talk.move(kit.now + 100)
    old = len(talk.caller._channel._live)
    assert old == 2
    for call in (talk.caller, talk.callee):
        call.on_time(kit.now + 110)
        assert len(call._channel._live) == 1
        assert not call.on_time(kit.now + 459)
        assert call.on_time(kit.now + 460)


def test_paths_that_never_come_about_keep_no_keys_alive(talk, kit):
    """CALLKEY-20, CALLKEY-17: no agreement makes up for frames that go on under older keys."""
    for number, letters in enumerate(("pq", "rs", "tu")):
        now = kit.now + 100 * (number + 1)
        talk.replace(now, letters[0])
        talk.answer_by_path(now, letters[1])
        talk.get_ready(now)
        talk.callee.receive(talk.path_ready, now)
        for call in (talk.caller, talk.callee):
            call.path_failed(number + 1, now + 10)
            call.path_alive(0, now + 11)  # the first path, which frames still take
            assert not call.on_time(now + 15)
    for call in (talk.caller, talk.callee):
        assert not call.on_time(kit.now + 359)
        assert call.on_time(kit.now + 360)
        assert call.events()[-1] == Ended(EndReason.KEYS_EXPIRED, False)


def test_the_next_path_is_pursued_when_the_one_before_is_heard_late(talk, kit):
    """CALLKEY-20, CALL-45: the age of its epoch counts, and the Path that is out is sent again."""
    talk.replace()
    talk.answer_by_path()
    talk.get_ready()
    talk.callee.receive(talk.path_ready, kit.now)
    talk.caller.path_failed(1, kit.now + 5)
    talk.caller.replace_path(RekeySecrets.generate(), kit.media("r"), kit.now + 5)
    talk.caller.messages_to_send()
    talk.caller.path_alive(1, kit.now + 6)
    talk.caller.on_time(kit.now + 8)
    assert [type(message) for message in talk.caller.messages_to_send()] == [Path]
    assert not talk.caller.on_time(kit.now + 365)
    assert talk.caller.on_time(kit.now + 366)


def test_a_path_that_is_begun_as_a_rekey_is_due(talk, kit):
    """CALLKEY-20: the keys of the new path make the Rekey needless, which is not asked for then."""
    talk.caller.path_lost(kit.now + 297, kit.now + 299.9)
    assert talk.caller.events()[-1] == PathDue()
    talk.caller.replace_path(RekeySecrets.generate(), kit.media("p"), kit.now + 300)
    assert [type(message) for message in talk.caller.messages_to_send()] == [Path]
    assert talk.caller.events() == []


def test_answers_need_a_path(talk, kit):
    """CALL-41: a callee gives its shares to a Path alone, and once; a Rekey is answered as one."""
    path = RekeySecrets.generate().path(talk.offer.call_id, 0, 1, kit.media("p"))
    secrets = CalleeSecrets.generate(path)
    rekey = talk.propose()
    for step in (lambda: None, lambda: talk.callee.receive(rekey, kit.now)):
        step()
        with pytest.raises(LocalProtocolError):
            talk.callee.answer_path(secrets, kit.media("q"), TURN, [kit.relayed], kit.now)
    other = kit.Pair().run(6)
    other.callee.receive(other.replace(), kit.now)
    with pytest.raises(LocalProtocolError):
        other.callee.answer_rekey(secrets, kit.now)


def test_no_frame_enters_the_epoch_of_a_path(talk, kit):
    """CALLKEY-20: only the PathReady does; media has no keys of it before."""
    talk.replace()
    talk.answer_by_path()
    with pytest.raises(LocalProtocolError):
        talk.callee.enter_epoch(1, kit.now)
    assert not any(isinstance(event, NewEpoch) for event in talk.callee.events())


STAGES = (
    lambda talk: talk.replace(),
    lambda talk: (talk.replace(), talk.callee.receive(talk.path, 1_800_000_000.0)),
    lambda talk: (talk.replace(), talk.answer_by_path()),
    lambda talk: (talk.replace(), talk.answer_by_path(), talk.get_ready()),
    lambda talk: talk.move(),
)


@pytest.mark.parametrize("stage", range(len(STAGES)))
def test_no_secret_of_a_path_outlives_the_call(talk, kit, stage):
    """CALL-16, CALLKEY-09: a call that ends in a move keeps no key of it, and asks for nothing."""
    STAGES[stage](talk)
    for call in (talk.caller, talk.callee):
        call.leave(kit.now)
        asking = (PathDue, PathProposed, PathAgreed)
        assert not any(isinstance(event, asking) for event in call.events())
        call.messages_to_send()
        assert secrets_in(call) == set()
        assert call.deadline() is None


def test_replies_have_their_kind(talk):
    """CALLKEY-05: the messages of a move are the four that the specification names."""
    talk.replace()
    assert isinstance(talk.answer_by_path(), PathReply)
    assert isinstance(talk.get_ready(), PathReady)
