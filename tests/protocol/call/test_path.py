"""Another path within a call (spec/call.md, "Another path"), step by step at both ends."""

import pytest
from msgspec.structs import replace

from e2ecall.errors import LocalProtocolError, Reason, RemoteProtocolError
from e2ecall.protocol.call_channel import MAX_MESSAGES
from e2ecall.protocol.call_events import (
    Ended,
    EndReason,
    EpochConfirmed,
    NewEpoch,
    PathAgreed,
    PathDue,
    PathProposed,
    ReplacePath,
)
from e2ecall.protocol.call_exchange import CalleeSecrets, RekeySecrets
from e2ecall.protocol.call_table import CallState, Role
from e2ecall.protocol.messages import (
    Candidate,
    CandidateType,
    LeaveReason,
    Path,
    PathReady,
    PathReply,
    PathRequest,
    Stream,
)
from tests.protocol.call.conftest import TURN
from tests.protocol.call.test_rekey import refuse
from tests.protocol.call.test_secrets import secrets_in

OUTSIDE = Candidate(CandidateType.HOST, "192.0.2.1", 9)


@pytest.fixture
def talk(pair):
    """Return a pair that is connected, without the events up to there."""
    pair.run(6)
    for call in (pair.caller, pair.callee):
        call.events()
    return pair


def of(kind, events):
    (event,) = (event for event in events if isinstance(event, kind))
    return event


def end(talk, role):
    return talk.caller if role is Role.CALLER else talk.callee


# --- from one path to the next --------------------------------------------------------------------


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


# --- who begins -----------------------------------------------------------------------------------


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


# --- copies, losses, failures ---------------------------------------------------------------------


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
        assert refuse(kit, talk.callee, talk.sign(Role.CALLER, other), kit.now) is (
            Reason.UNEXPECTED_MESSAGE
        )


def test_a_path_where_a_rekey_was_is_refused(talk, kit):
    """CALLKEY-13: a Rekey that was answered is final for its epoch."""
    talk.propose()
    talk.agree()
    path = RekeySecrets.generate().path(talk.offer.call_id, 40, 1, kit.media("r"))
    reason = refuse(kit, talk.callee, talk.sign(Role.CALLER, path), kit.now)
    assert reason is Reason.UNEXPECTED_MESSAGE
    ready = PathReady(talk.offer.call_id, 41, 1, (kit.relayed,), bytes(64))
    signed = replace(ready, mac=talk.callee._channel.newest.mac(Role.CALLER, ready))
    assert refuse(kit, talk.callee, signed, kit.now) is Reason.UNEXPECTED_MESSAGE


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
    assert refuse(kit, talk.caller, signed, kit.now) is Reason.UNEXPECTED_MESSAGE


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


# --- the limits -----------------------------------------------------------------------------------


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
    assert refuse(kit, talk.callee, talk.path, kit.now) is Reason.LIMIT
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
    """CALL-13: nor does it before the call is connected."""
    for call in (talk.caller, talk.callee):
        call.leave(kit.now)
        call.messages_to_send()
        call.events()
        call.path_lost(kit.now, kit.now)
        call.path_alive(0, kit.now)
        call.path_failed(0, kit.now)
        assert call.deadline() is None
        assert call.messages_to_send() == call.events() == []
    early = kit.Pair().run(5)
    early.caller.path_lost(kit.now, kit.now)
    early.caller.path_alive(0, kit.now)
    early.caller.path_failed(0, kit.now)
    assert early.caller.deadline() == kit.now + 30


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


# --- what a relay, or somebody who has the ratchet, could try (R8) --------------------------------


@pytest.mark.parametrize("kind", [Path, PathReply, PathReady])
def test_r8_nothing_of_a_path_can_be_swapped(talk, kit, kind):
    """R8, CALL-43: another fingerprint, credential, codec or address is refused, ratchet or not."""
    talk.replace()
    if kind is not Path:
        talk.answer_by_path()
    if kind is PathReady:
        talk.get_ready()
    message, call = {
        Path: lambda: (talk.path, talk.callee),
        PathReply: lambda: (talk.made_path_reply, talk.caller),
        PathReady: lambda: (talk.path_ready, talk.callee),
    }[kind]()
    call.events()
    for changes in swaps(message, kit):
        assert refuse(kit, call, replace(message, **changes), kit.now) is Reason.BAD_MAC
    call.receive(message, kit.now)


def swaps(message, kit):
    """Give changes of everything in a message of a path that somebody in between would change."""
    if not isinstance(message, PathReady):
        media = message.media
        (sound, picture) = media.streams
        yield {"media": replace(media, fingerprint=b"m" * 32)}
        yield {"media": replace(media, ice_ufrag="mine")}
        yield {"media": replace(media, ice_pwd="m" * 24)}
        yield {"media": replace(media, streams=(sound, replace(picture, payload_type=99)))}
        yield {"media": replace(media, streams=(replace(sound, ssrc=77), picture))}
        yield {"x25519_share": RekeySecrets.generate().x25519.public}
    if isinstance(message, PathReply):
        yield {"turn": replace(message.turn, username="another")}
    if not isinstance(message, Path):
        yield {"candidates": (replace(kit.relayed, port=9),)}
    yield {"counter": message.counter + 1}


def test_r8_the_transcript_covers_both_descriptions(talk, kit):
    """R8, CALLKEY-10: ends that saw other descriptions have other keys, also with right MACs."""
    path = talk.replace()
    secrets = CalleeSecrets.generate(path)
    reply = secrets.path_reply(path, 1, kit.media("q"), TURN, (kit.relayed,))
    shared = secrets.x25519_secret, secrets.mlkem_secret
    right = talk.keys.following(path, reply, *shared)
    seen = {right.secret.expose()}
    for changes in swaps(path, kit):
        if "counter" not in changes:
            seen.add(talk.keys.following(replace(path, **changes), reply, *shared).secret.expose())
    for changes in swaps(reply, kit):
        if "counter" not in changes:
            seen.add(talk.keys.following(path, replace(reply, **changes), *shared).secret.expose())
    assert len(seen) == 1 + 6 + 8


def test_r8_who_has_the_ratchet_cannot_begin_a_path(talk, kit):
    """R8, CALLKEY-11: a Path or reply that was made without the call's keys is refused."""
    forged = RekeySecrets.generate().path(talk.offer.call_id, 30, 1, kit.media("m"))
    assert refuse(kit, talk.callee, forged, kit.now) is Reason.BAD_MAC
    path = talk.replace()
    secrets = CalleeSecrets.generate(path)
    reply = secrets.path_reply(path, 1, kit.media("m"), TURN, (kit.relayed,))
    assert refuse(kit, talk.caller, reply, kit.now) is Reason.BAD_MAC


def test_r4_offers_of_a_path_cannot_be_replayed(talk, kit):
    """R4, CALL-41: after a move its Path, reply and PathReady are worth nothing, at either end."""
    first = {}
    for number in range(1, 4):
        talk.move(kit.now + 20 * number, "pqrstu"[2 * number - 2 :])
        first = first or {
            talk.callee: (talk.path, talk.path_ready),
            talk.caller: (talk.made_path_reply,),
        }
        for call, messages in first.items():
            call.on_time(kit.now + 20 * number)
            call.events()
            call.messages_to_send()
            for message in messages:
                with pytest.raises(RemoteProtocolError):
                    call.receive(message, kit.now + 20 * number)
            assert call.events() == call.messages_to_send() == []
            assert call.epoch == number


def test_copies_under_new_counters_are_ignored(talk, kit):
    """CALL-41: what had its effect is verified and then without effect, in the time of old keys."""
    talk.replace()
    talk.caller.on_time(kit.now + 3)
    (copy,) = talk.caller.messages_to_send()
    talk.answer_by_path(kit.now + 3)
    talk.get_ready(kit.now + 3)
    talk.callee.receive(talk.path_ready, kit.now + 3)
    talk.callee.events()
    talk.callee.receive(copy, kit.now + 3)
    assert talk.callee.events() == talk.callee.messages_to_send() == []


# --- descriptions and candidates ------------------------------------------------------------------


def used_again(kit):
    """Give descriptions in which something of the former one is used again, or is missing."""
    fresh, former = kit.media("p"), kit.media("c")
    yield replace(fresh, fingerprint=former.fingerprint)
    yield replace(fresh, ice_ufrag=former.ice_ufrag)
    yield replace(fresh, ice_pwd=former.ice_pwd)
    yield replace(fresh, streams=former.streams)
    yield replace(fresh, streams=fresh.streams[:1])
    yield replace(fresh, streams=(replace(fresh.streams[0], ssrc=former.streams[1].ssrc),) * 1)
    yield replace(fresh, streams=fresh.streams[::-1])


@pytest.mark.parametrize("number", range(7))
def test_a_path_needs_a_fresh_description(talk, kit, number):
    """CALL-42: the same streams, and nothing that was used before; from the peer and by itself."""
    media = list(used_again(kit))[number]
    path = RekeySecrets.generate().path(talk.offer.call_id, 30, 1, media)
    reason = refuse(kit, talk.callee, talk.sign(Role.CALLER, path), kit.now)
    assert reason is Reason.BAD_MEDIA_DESCRIPTION
    talk.lose()
    talk.caller.on_time(kit.now)
    talk.caller.events()
    before = kit.snapshot(talk.caller)
    with pytest.raises(LocalProtocolError):
        talk.caller.replace_path(RekeySecrets.generate(), media, kit.now)
    assert kit.snapshot(talk.caller) == before


def test_a_reply_needs_a_fresh_description(talk, kit):
    """CALL-42: the callee's is held to the same; its own answer too."""
    path = talk.replace()
    talk.callee.receive(path, kit.now)
    secrets = CalleeSecrets.generate(path)
    with pytest.raises(LocalProtocolError):
        talk.callee.answer_path(secrets, kit.media("d"), TURN, [kit.relayed], kit.now)
    reply = secrets.path_reply(path, 20, kit.media("d"), TURN, (kit.relayed,))
    keys = talk.keys.following(path, reply, secrets.x25519_secret, secrets.mlkem_secret)
    signed = replace(reply, mac=keys.mac(Role.CALLEE, reply))
    assert refuse(kit, talk.caller, signed, kit.now) is Reason.BAD_MEDIA_DESCRIPTION


@pytest.mark.parametrize("role", list(Role))
def test_candidates_outside_the_relay_end_the_call(talk, kit, role):
    """CALL-11, CALL-42: also on a later path; no check is sent there."""
    path = talk.replace()
    if role is Role.CALLER:
        secrets = CalleeSecrets.generate(path)
        reply = secrets.path_reply(path, 20, kit.media("q"), TURN, (OUTSIDE,))
        keys = talk.keys.following(path, reply, secrets.x25519_secret, secrets.mlkem_secret)
        message, call = replace(reply, mac=keys.mac(Role.CALLEE, reply)), talk.caller
    else:
        talk.answer_by_path()
        ready = PathReady(talk.offer.call_id, 20, 1, (OUTSIDE,), bytes(64))
        keys, call = talk.callee._channel.newest, talk.callee
        message = replace(ready, mac=keys.mac(Role.CALLER, ready))
    call.events()
    call.receive(message, kit.now)
    ended = Ended(EndReason.PROTOCOL_ERROR, False, Reason.BAD_CANDIDATE)
    assert call.events() == [ended]


@pytest.mark.parametrize("candidates", [[], [OUTSIDE], "nine"])
def test_an_end_sends_no_address_but_relayed_ones(talk, kit, candidates):
    """CALL-11: neither in a PathReply nor in a PathReady, and at most eight."""
    candidates = [kit.relayed] * 9 if candidates == "nine" else candidates
    path = talk.replace()
    talk.callee.receive(path, kit.now)
    secrets = CalleeSecrets.generate(path)
    with pytest.raises(LocalProtocolError):
        talk.callee.answer_path(secrets, kit.media("q"), TURN, candidates, kit.now)
    talk.callee.answer_path(secrets, kit.media("q"), TURN, [kit.relayed], kit.now)
    *_, reply = talk.callee.messages_to_send()
    talk.caller.receive(reply, kit.now)
    with pytest.raises(LocalProtocolError):
        talk.caller.ready_path(1, candidates, kit.now)
    talk.caller.ready_path(1, [kit.relayed], kit.now)
    talk.caller.ready_path(1, [kit.relayed], kit.now)  # once is enough
    assert len([m for m in talk.caller.messages_to_send() if isinstance(m, PathReady)]) == 1


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
