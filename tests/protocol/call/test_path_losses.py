"""Another path whose messages are lost or repeated, or that fails (spec/call.md)."""

import pytest
from msgspec.structs import replace

from e2ecall.errors import Reason
from e2ecall.protocol.call_events import (
    Ended,
    EndReason,
    PathAgreed,
    PathDue,
    RekeyDue,
    ReplacePath,
)
from e2ecall.protocol.call_exchange import CalleeSecrets, RekeySecrets
from e2ecall.protocol.call_table import Role
from e2ecall.protocol.messages import PathReady, PathRequest
from tests.protocol.call.conftest import TURN, of, refuse
from tests.protocol.call.test_secrets import secrets_in


def test_what_had_no_effect_is_said_again(talk, kit):
    """CALL-45: Path and PathReady every 3 s with fresh counters, and no more once they had it."""
    path = talk.replace()
    talk.caller.on_time(kit.now + 3)
    (copy,) = talk.caller.messages_to_send()
    assert replace(copy, counter=path.counter, mac=path.mac) == path
    assert copy.counter > path.counter
    talk.answer_by_path(kit.now + 3)
    talk.callee.receive(copy, kit.now + 3)
    (again,) = talk.callee.messages_to_send()
    reply = talk.made_path_reply
    assert replace(again, counter=reply.counter, mac=reply.mac) == reply
    ready = talk.get_ready(kit.now + 3)
    talk.caller.receive(again, kit.now + 3)
    talk.caller.on_time(kit.now + 6)
    (copy,) = talk.caller.messages_to_send()
    assert replace(copy, counter=ready.counter, mac=ready.mac) == ready
    talk.callee.receive(copy, kit.now + 6)
    talk.callee.events()
    talk.callee.receive(ready, kit.now + 6)
    assert talk.callee.events() == []
    talk.caller.path_alive(1, kit.now + 6)
    talk.caller.on_time(kit.now + 12)
    assert talk.caller.messages_to_send() == []


def test_a_copy_before_the_answer_is_ignored(talk, kit):
    """CALL-41: while the callee fetches its ticket a copy of the Path changes nothing."""
    talk.replace()
    talk.caller.on_time(kit.now + 3)
    (copy,) = talk.caller.messages_to_send()
    talk.callee.receive(talk.path, kit.now)
    talk.callee.events()
    talk.callee.receive(copy, kit.now + 3)
    assert talk.callee.events() == talk.callee.messages_to_send() == []


def test_another_path_for_the_same_epoch_is_refused(talk, kit):
    """CALL-41, CALLKEY-13: nor is a Rekey taken where a Path was, nor the other way round."""
    talk.replace()
    talk.answer_by_path()
    secrets = RekeySecrets.generate()
    call_id = talk.offer.call_id
    for other in (
        secrets.path(call_id, 40, 1, kit.media("r")),
        secrets.rekey(call_id, 41, 1),
    ):
        assert refuse(talk.callee, talk.sign(Role.CALLER, other), kit.now) is (
            Reason.UNEXPECTED_MESSAGE
        )


def test_a_path_where_a_rekey_was_is_refused(talk, kit):
    """CALLKEY-13: a Rekey that was answered is final for its epoch."""
    talk.propose()
    talk.agree()
    path = RekeySecrets.generate().path(talk.offer.call_id, 40, 1, kit.media("r"))
    reason = refuse(talk.callee, talk.sign(Role.CALLER, path), kit.now)
    assert reason is Reason.UNEXPECTED_MESSAGE
    ready = PathReady(talk.offer.call_id, 41, 1, (kit.relayed,), bytes(64))
    signed = replace(ready, mac=talk.callee._channel.newest.mac(Role.CALLER, ready))
    assert refuse(talk.callee, signed, kit.now) is Reason.UNEXPECTED_MESSAGE


@pytest.mark.parametrize("out", ["a Path", "a Rekey"])
def test_a_reply_of_the_other_kind_is_refused(talk, kit, out):
    """CALLKEY-10: a Path is answered by a PathReply and a Rekey by a RekeyReply, or by nothing."""
    first = talk.replace() if out == "a Path" else talk.propose()
    secrets = CalleeSecrets.generate(first)
    reply = (
        secrets.reply(first, 20)
        if out == "a Path"
        else secrets.path_reply(first, 20, kit.media("q"), TURN, (kit.relayed,))
    )
    keys = talk.keys.following(first, reply, secrets.x25519_secret, secrets.mlkem_secret)
    signed = replace(reply, mac=keys.mac(Role.CALLEE, reply))
    assert refuse(talk.caller, signed, kit.now) is Reason.UNEXPECTED_MESSAGE


def test_a_path_that_fails_is_followed_by_the_next(talk, kit):
    """CALL-45, CALL-44: in an epoch of its own, and not within 5 s of the one before."""
    talk.replace()
    talk.answer_by_path()
    talk.get_ready()
    talk.callee.receive(talk.path_ready, kit.now)
    talk.caller.events()
    talk.caller.path_failed(0, kit.now + 1)  # another one: without effect
    talk.caller.path_failed(1, kit.now + 1)
    talk.caller.path_failed(1, kit.now + 1)
    talk.caller.on_time(kit.now + 4.9)
    assert talk.caller.events() == []
    talk.caller.on_time(kit.now + 5)
    assert talk.caller.events() == [PathDue()]
    talk.caller.replace_path(RekeySecrets.generate(), kit.media("r"), kit.now + 5)
    *_, talk.path = talk.caller.messages_to_send()
    talk.answer_by_path(kit.now + 5, "s")
    talk.get_ready(kit.now + 5)
    talk.callee.receive(talk.path_ready, kit.now + 5)
    assert of(ReplacePath, talk.callee.events()).keys.keys.epoch == 2


def test_a_caller_that_cannot_allocate_begins_anew(talk, kit):
    """CALL-45, CALLKEY-19: the callee, which waits for a PathReady, takes the next Path instead."""
    talk.replace()
    talk.answer_by_path()
    talk.caller.receive(talk.made_path_reply, kit.now)
    assert talk.caller.events() == [PathAgreed(1, TURN, kit.media("p"))]
    talk.caller.path_failed(1, kit.now)
    talk.caller.ready_path(1, [kit.relayed], kit.now)
    assert talk.caller.messages_to_send() == []
    talk.caller.on_time(kit.now + 5)
    talk.caller.replace_path(RekeySecrets.generate(), kit.media("r"), kit.now + 5)
    *_, talk.path = talk.caller.messages_to_send()
    talk.answer_by_path(kit.now + 5, "s")
    assert talk.callee.epoch == 1
    talk.get_ready(kit.now + 5)
    talk.callee.receive(talk.path_ready, kit.now + 5)
    assert talk.caller._channel.sending == talk.callee._channel.sending


def test_a_callee_whose_path_fails_asks_for_the_next(talk, kit):
    """CALL-45: and a caller that already hears it gives it up for a new one."""
    talk.move()
    talk.callee._move = None
    talk.replace(kit.now + 20, "r")
    talk.answer_by_path(kit.now + 20, "s")
    talk.get_ready(kit.now + 20)
    talk.callee.receive(talk.path_ready, kit.now + 20)
    talk.callee.path_failed(2, kit.now + 30)
    (request,) = talk.callee.messages_to_send()
    assert request.epoch == 3
    talk.caller.on_time(kit.now + 30)
    talk.caller.receive(request, kit.now + 30)
    assert PathDue() in talk.caller.events()


def test_the_old_path_may_be_heard_while_the_new_one_is_made(talk, kit):
    """CALL-40, CALL-46: then nothing ends, and the new path still takes its place."""
    talk.replace()
    talk.caller.path_alive(0, kit.now + 1)
    talk.answer_by_path(kit.now + 1)
    talk.get_ready(kit.now + 1)
    talk.caller.path_alive(0, kit.now + 2)
    talk.caller.on_time(kit.now + 4)
    assert any(isinstance(m, PathReady) for m in talk.caller.messages_to_send())
    assert not talk.caller.on_time(kit.now + 60)


def test_a_path_that_dies_within_a_move_starts_the_clock(talk, kit):
    """CALL-46: a path asked for by the peer may turn out dead at this end; then 30 s count."""
    talk.callee.receive(talk.replace(), kit.now)
    talk.callee.events()
    talk.lose(Role.CALLEE, kit.now + 1)
    assert talk.callee.messages_to_send() == []
    talk.callee.path_lost(kit.now, kit.now + 5)  # the clock runs already
    assert talk.callee.on_time(kit.now - 1.5 + 30)


# --- an agreement that comes to nothing -----------------------------------------------------------


def test_a_callee_is_understood_while_it_waits(talk, kit):
    """CALLKEY-16: however long the PathReady takes, what its callee says until then is taken."""
    talk.replace()
    talk.answer_by_path()
    talk.caller.receive(talk.made_path_reply, kit.now)
    for seconds in (9, 11, 25):
        talk.caller.on_time(kit.now + seconds)
        talk.callee.send_text("are you there?", kit.now + seconds)
        *_, text = talk.callee.messages_to_send()
        talk.caller.receive(text, kit.now + seconds)
        assert talk.caller.events()[-1].text == "are you there?"
    talk.callee.hangup(kit.now + 26)
    *_, hangup = talk.callee.messages_to_send()
    talk.caller.receive(hangup, kit.now + 26)
    assert talk.caller.events()[-1] == Ended(EndReason.HANGUP, True)


@pytest.mark.parametrize("comes", ["up", "to nothing"])
def test_former_keys_of_a_caller_go_when_that_is_settled(talk, kit, comes):
    """CALLKEY-16: ten seconds after its path took over, or was given up, they are gone."""
    old = talk.keys.secret.expose()
    talk.replace()
    talk.answer_by_path()
    talk.get_ready()
    talk.callee.receive(talk.path_ready, kit.now)
    if comes == "up":
        talk.caller.path_alive(1, kit.now + 5)
    else:
        talk.caller.path_failed(1, kit.now + 5)
    talk.caller.on_time(kit.now + 14.9)
    assert old in secrets_in(talk.caller)
    talk.caller.on_time(kit.now + 15)
    assert old not in secrets_in(talk.caller)


def test_a_path_that_was_given_up_is_followed_whatever_is_heard(talk, kit):
    """CALL-45: the former path may live again; the callee still waits in the epoch before."""
    talk.replace()
    talk.answer_by_path()
    talk.caller.receive(talk.made_path_reply, kit.now)
    talk.caller.path_failed(1, kit.now + 1)
    for call in (talk.caller, talk.callee):
        call.path_alive(0, kit.now + 2)
    talk.caller.events()
    talk.caller.on_time(kit.now + 5)
    assert talk.caller.events() == [PathDue()]
    talk.caller.replace_path(RekeySecrets.generate(), kit.media("r"), kit.now + 5)
    *_, talk.path = talk.caller.messages_to_send()
    talk.answer_by_path(kit.now + 5, "s")
    talk.get_ready(kit.now + 5)
    talk.callee.receive(talk.path_ready, kit.now + 5)
    assert talk.caller._channel.sending == talk.callee._channel.sending
    assert talk.caller.epoch == 2


@pytest.mark.parametrize("role", list(Role))
def test_a_worn_key_of_the_former_path_asks_for_nothing(talk, kit, role):
    """CALLKEY-14: frames still go under it, but what takes its place is agreed on, or follows."""
    talk.replace()
    talk.answer_by_path()
    talk.get_ready()
    talk.callee.receive(talk.path_ready, kit.now)
    call = talk.caller if role is Role.CALLER else talk.callee
    call.path_alive(0, kit.now + 1)
    call.events()
    before = kit.snapshot(call)
    call.key_worn(0, kit.now + 1)
    assert kit.snapshot(call) == before
    call.path_failed(1, kit.now + 6)
    asks = call.events() if role is Role.CALLER else call.messages_to_send()
    assert [type(one) for one in asks] == [PathDue if role is Role.CALLER else PathRequest]


def test_what_was_asked_for_meanwhile_waits_for_the_former_keys(talk, kit):
    """CALLKEY-13: between a path that was given up and the next no Rekey begins."""
    talk.replace()
    talk.answer_by_path()
    talk.get_ready()
    talk.callee.receive(talk.path_ready, kit.now)
    talk.caller.events()
    talk.caller.key_worn(1, kit.now)
    talk.caller._begun = (kit.now,) * 10  # CALL-44: the next one may not begin for long
    talk.caller.path_failed(1, kit.now + 14)
    talk.caller.on_time(kit.now + 15)
    assert talk.caller.events() == []
    talk.caller.on_time(kit.now + 24)
    talk.caller.path_alive(0, kit.now + 24)
    talk.caller.on_time(kit.now + 30)
    assert RekeyDue() in talk.caller.events()
