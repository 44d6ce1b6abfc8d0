"""New epochs within a call (spec/callkeys.md, "Rekeying"), step by step at both ends."""

import pytest
from msgspec.structs import replace

from e2ecall.errors import LocalProtocolError, Reason, RemoteProtocolError
from e2ecall.protocol.call_channel import MAX_MESSAGES
from e2ecall.protocol.call_events import Ended, EndReason, NewEpoch, RekeyDue, RekeyProposed
from e2ecall.protocol.call_exchange import CalleeSecrets, RekeySecrets
from e2ecall.protocol.call_table import CallState, Role
from e2ecall.protocol.callkeys import EpochKeys
from e2ecall.protocol.messages import (
    LeaveReason,
    MediaState,
    Rekey,
    RekeyReply,
    RekeyRequest,
    Stream,
)
from e2ecall.protocol.rekey_table import RekeyState
from e2ecall.secret import Secret
from tests.protocol.call.test_secrets import secrets_in


@pytest.fixture
def talk(pair):
    """Return a pair that is connected, without the events up to there."""
    pair.run(6)
    for call in (pair.caller, pair.callee):
        call.events()
    return pair


def say(call, now):
    """Return a MediaState that the call sends."""
    call.set_media_state(muted=True, camera=False, now=now)
    return call.messages_to_send()[-1]


def refuse(kit, call, message, now):
    """Expect a refusal that leaves the call as it was, and return its reason."""
    call.on_time(now)
    before = kit.snapshot(call)
    with pytest.raises(RemoteProtocolError) as refused:
        call.receive(message, now)
    assert kit.snapshot(call) == before
    return refused.value.reason


# --- what the keys hang on ------------------------------------------------------------------------


def test_n2_no_key_of_an_epoch_comes_again(kit, talk):
    """N2, CALLKEY-11, SFRAME-10: over many epochs all frame keys, key ids and MAC keys differ."""
    seen = []
    for number in range(6):
        now = kit.now + 11 * number
        if number:
            talk.change_epoch(now)
            assert talk.caller.epoch == talk.callee.epoch == number
        ends = [call._channel.sending for call in (talk.caller, talk.callee)]
        assert ends[0] == ends[1]
        keys = [ends[0].frame_key(role, stream) for role in Role for stream in Stream]
        seen += [key.kid for key in keys] + [key.base_key.expose() for key in keys]
        seen += [ends[0].secret.expose()[:32], ends[0].transcript]
        message = MediaState(bytes(16), 0, True, False, False, False, False, kit.unsigned)
        seen += [ends[0].mac(role, message) for role in Role]
    assert len(set(seen)) == len(seen)


BEFORE = EpochKeys(b"t" * 64, 4, Secret(b"e" * 64))
X25519, MLKEM = Secret(b"x" * 32), Secret(b"k" * 32)
REKEY = Rekey(b"i" * 16, 3, 5, b"s" * 32, b"k" * 1184, bytes(64))
REPLY = RekeyReply(b"i" * 16, 7, 5, b"r" * 32, b"c" * 1088, bytes(64))


@pytest.mark.parametrize("lacking", ["X25519", "ML-KEM", "epoch secret", "transcript"])
def test_n3_each_half_and_the_old_secret_are_needed(lacking):
    """N3, CALLKEY-11: who lacks X25519, ML-KEM or the old epoch's secret alone has another key."""
    other = Secret(b"?" * 32)
    before = {
        "epoch secret": EpochKeys(BEFORE.transcript, 4, Secret(b"?" * 64)),
        "transcript": EpochKeys(b"?" * 64, 4, BEFORE.secret),
    }.get(lacking, BEFORE)
    x25519 = other if lacking == "X25519" else X25519
    mlkem = other if lacking == "ML-KEM" else MLKEM
    right = BEFORE.following(REKEY, REPLY, X25519, MLKEM)
    assert before.following(REKEY, REPLY, x25519, mlkem).secret != right.secret
    assert right.epoch == 5


def test_the_transcript_covers_both_messages():
    """CALLKEY-10: it changes with each field of both bodies, and not with counters or MACs."""
    right = BEFORE.following(REKEY, REPLY, X25519, MLKEM)
    seen = {right.transcript}
    for name, value in (("epoch", 6), ("x25519_share", b"?" * 32), ("mlkem_key", b"?" * 1184)):
        changed = replace(REKEY, **{name: value})
        seen.add(BEFORE.following(changed, REPLY, X25519, MLKEM).transcript)
    for name, value in (("epoch", 6), ("x25519_share", b"?" * 32), ("mlkem_ciphertext", b"?" * 99)):
        changed = replace(REPLY, **{name: value})
        seen.add(BEFORE.following(REKEY, changed, X25519, MLKEM).transcript)
    assert len(seen) == 7
    copies = (replace(message, counter=9, mac=b"m" * 64) for message in (REKEY, REPLY))
    assert BEFORE.following(*copies, X25519, MLKEM) == right


def test_fresh_shares_for_every_epoch(talk, kit):
    """CALLKEY-11: no two Rekeys, and no two answers, show the same share, key or ciphertext."""
    seen = set()
    for number in range(3):
        talk.change_epoch(kit.now + 11 * number)
        seen |= {talk.rekey.x25519_share, talk.rekey.mlkem_key}
        seen |= {talk.rekey_reply.x25519_share, talk.rekey_reply.mlkem_ciphertext}
    assert len(seen) == 12


def test_the_code_and_the_media_stay(talk, kit):
    """CALL-20: a new epoch changes neither the spoken code nor anything else that is shown."""
    code = talk.caller.sas
    talk.change_epoch()
    assert talk.caller.sas == talk.callee.sas == code
    (shown,) = talk.callee.events()
    assert isinstance(shown, NewEpoch)
    assert talk.caller.state is talk.callee.state is CallState.CONNECTED


# --- when -----------------------------------------------------------------------------------------


def test_a_rekey_is_due_after_five_minutes(talk, kit):
    """CALLKEY-14: the caller's is due 300 s after media was up, and after each epoch began."""
    assert talk.caller.deadline() == kit.now + 300
    talk.caller.on_time(kit.now + 299.9)
    assert talk.caller.events() == []
    talk.caller.on_time(kit.now + 300)
    assert talk.caller.events() == [RekeyDue()]
    talk.change_epoch(kit.now + 301)
    talk.caller.events()
    talk.caller.on_time(kit.now + 601 - 0.1)
    assert talk.caller.events() == []
    talk.caller.on_time(kit.now + 601)
    assert talk.caller.events() == [RekeyDue()]


def test_the_callee_does_not_begin(talk, kit):
    """CALLKEY-13: a callee sends nothing by itself at any age of its keys, and no Rekey ever."""
    talk.callee.on_time(kit.now + 359)
    assert talk.callee.messages_to_send() == []
    assert talk.callee.events() == []
    with pytest.raises(LocalProtocolError):
        talk.callee.rekey(RekeySecrets.generate(), kit.now + 359)


def test_the_callee_asks_when_a_key_is_worn(talk, kit):
    """CALLKEY-14, SFRAME-05: it asks at once and every 15 s, until the Rekey comes."""
    talk.callee.key_worn(0, kit.now)
    (request,) = talk.callee.messages_to_send()
    assert isinstance(request, RekeyRequest)
    talk.callee.on_time(kit.now + 14)
    assert talk.callee.messages_to_send() == []
    talk.callee.on_time(kit.now + 15)
    (again,) = talk.callee.messages_to_send()
    assert (again.epoch, again.counter) == (1, request.counter + 1)
    for message in (again, request):  # a second one asks for nothing more
        talk.caller.receive(message, kit.now + 15)
    assert talk.caller.events() == [RekeyDue()]
    talk.change_epoch(kit.now + 15)
    talk.callee.on_time(kit.now + 31)
    assert talk.callee.messages_to_send() == []


def test_the_caller_rekeys_when_its_own_key_is_worn(talk, kit):
    """CALLKEY-14, SFRAME-05: a worn frame key of the caller makes the next epoch due at once."""
    talk.caller.key_worn(0, kit.now + 5)
    assert talk.caller.events() == [RekeyDue()]


def test_a_worn_key_of_another_epoch_or_call_is_no_matter(talk, kit):
    """CALLKEY-14: what is reported of a former epoch, or after the end, changes nothing."""
    talk.change_epoch()
    for call in (talk.caller, talk.callee):
        call.events()
        before = kit.snapshot(call)
        call.key_worn(0, kit.now)
        call.key_worn(2, kit.now)
        assert kit.snapshot(call) == before
        call.leave(kit.now)
        call.key_worn(1, kit.now)
        assert len(call.messages_to_send()) == 1


@pytest.mark.parametrize("asks", [True, False])
def test_no_rekey_while_old_keys_live(talk, kit, asks):
    """CALLKEY-13, CALLKEY-14: a request, or a worn key, waits until the former keys are gone."""
    talk.change_epoch()
    talk.caller.events()
    with pytest.raises(LocalProtocolError):
        talk.caller.rekey(RekeySecrets.generate(), kit.now)
    if asks:
        request = RekeyRequest(talk.offer.call_id, 50, 2, kit.unsigned)
        talk.caller.receive(talk.sign(Role.CALLEE, request), kit.now + 1)
    else:
        talk.caller.key_worn(1, kit.now + 1)
    assert talk.caller.events() == []
    assert talk.caller.deadline() == kit.now + 10
    talk.caller.on_time(kit.now + 10)
    assert talk.caller.events() == [RekeyDue()]


def test_a_request_while_a_rekey_is_out(talk, kit):
    """CALLKEY-13: a Rekey that is under way answers every request; no second one begins."""
    talk.propose()
    talk.callee.key_worn(0, kit.now)
    (request,) = talk.callee.messages_to_send()
    before = talk.caller.deadline()
    talk.caller.receive(request, kit.now)
    assert talk.caller.events() == talk.caller.messages_to_send() == []
    assert talk.caller.deadline() == before
    with pytest.raises(LocalProtocolError):
        talk.caller.rekey(RekeySecrets.generate(), kit.now)


def test_a_request_that_was_overtaken(talk, kit):
    """CALLKEY-13: a request for the epoch that has begun meanwhile has no effect."""
    talk.callee.key_worn(0, kit.now)
    (request,) = talk.callee.messages_to_send()
    talk.change_epoch()
    talk.caller.events()
    talk.caller.receive(request, kit.now)
    talk.caller.on_time(kit.now + 299)
    assert talk.caller.events() == []


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("by_peer", [False, True])
def test_a_call_that_ends_as_a_step_is_due_asks_for_none(talk, kit, role, by_peer):
    """CALL-16, CALLKEY-14: at the end of a call no shares are asked for that could not be used."""
    call, peer = talk.caller, talk.callee
    if role is Role.CALLEE:
        call, peer = peer, call
        talk.propose()
        call.receive(talk.rekey, kit.now + 300)
    if by_peer:
        peer.hangup(kit.now + 300)
        call.receive(peer.messages_to_send()[-1], kit.now + 300)
    else:
        call.hangup(kit.now + 300)
    assert call.events() == [Ended(EndReason.HANGUP, by_peer)]


# --- lost, repeated, late -------------------------------------------------------------------------


def test_a_lost_rekey_is_sent_again(talk, kit):
    """CALLKEY-13: a copy differs in counter and MAC alone, and has the effect of the first."""
    lost = talk.propose(kit.now)
    talk.caller.on_time(kit.now + 14)
    assert talk.caller.messages_to_send() == []
    talk.caller.on_time(kit.now + 15)
    (copy,) = talk.caller.messages_to_send()
    assert copy == replace(lost, counter=lost.counter + 1, mac=copy.mac)
    assert copy.mac != lost.mac
    talk.rekey = copy
    talk.agree(kit.now + 15)
    talk.cross(kit.now + 15)
    assert talk.caller._channel.sending == talk.callee._channel.sending
    talk.callee.receive(lost, kit.now + 16)  # it was only late
    assert talk.callee.messages_to_send() == []


def test_a_lost_reply_is_given_again(talk, kit):
    """CALLKEY-13: a copy of the Rekey gets the same shares, which lead to the same epoch."""
    talk.propose(kit.now)
    lost = talk.agree(kit.now)
    talk.caller.on_time(kit.now + 15)
    (copy,) = talk.caller.messages_to_send()
    talk.callee.receive(copy, kit.now + 15)
    assert not any(isinstance(e, RekeyProposed) for e in talk.callee.events())
    (reply,) = talk.callee.messages_to_send()
    assert reply == replace(lost, counter=lost.counter + 1, mac=reply.mac)
    talk.rekey_reply = reply
    talk.cross(kit.now + 15)
    assert talk.caller._channel.sending == talk.callee._channel.sending
    talk.caller.receive(lost, kit.now + 16)  # it was only late: verified and ignored
    assert refuse(kit, talk.caller, lost, kit.now + 16) is Reason.REPLAYED
    assert talk.caller.epoch == 1


def test_a_copy_before_the_answer(talk, kit):
    """CALLKEY-13: a copy that comes before the first was answered asks for no second answer."""
    talk.propose(kit.now)
    talk.callee.receive(talk.rekey, kit.now)
    copy = replace(talk.rekey, counter=talk.rekey.counter + 1)
    talk.callee.receive(talk.sign(Role.CALLER, copy), kit.now)
    assert talk.callee.events() == [RekeyProposed(talk.rekey)]
    assert talk.callee.messages_to_send() == []


def test_another_rekey_for_the_same_epoch_is_refused(talk, kit):
    """CALLKEY-13: the first Rekey is final, whichever of its values another one changes."""
    talk.propose(kit.now)
    talk.agree(kit.now)
    other = RekeySecrets.generate().rekey(talk.offer.call_id, 60, 1)
    for changes in (
        {"x25519_share": other.x25519_share},
        {"mlkem_key": other.mlkem_key},
    ):
        changed = talk.sign(Role.CALLER, replace(talk.rekey, counter=60, **changes))
        assert refuse(kit, talk.callee, changed, kit.now) is Reason.UNEXPECTED_MESSAGE


def test_a_rekey_of_an_epoch_not_entered_is_refused(talk, kit):
    """CALLKEY-13: no epoch begins at a callee that does not send in the one before yet."""
    talk.propose(kit.now)
    talk.agree(kit.now)
    talk.caller.receive(talk.rekey_reply, kit.now)
    talk.propose(kit.now + 10)
    assert refuse(kit, talk.callee, talk.rekey, kit.now + 10) is Reason.UNEXPECTED_MESSAGE


def test_r11_old_messages_of_rekeying_do_not_come_back(talk, kit):
    """R11, CALL-12: every message of a former change is refused or ignored in all later ones."""
    talk.change_epoch(kit.now)
    first = (talk.rekey, talk.rekey_reply)
    for number in range(1, 4):
        now = kit.now + 11 * number
        for call, message in zip((talk.callee, talk.caller), first, strict=True):
            call.events()
            assert refuse(kit, call, message, now) in (Reason.BAD_MAC, Reason.REPLAYED)
        talk.change_epoch(now)
    assert talk.caller._channel.sending == talk.callee._channel.sending


def test_p6_messages_of_another_calls_rekeying(kit, talk):
    """P6: a Rekey, reply or request of another call with the same peer fails, also renamed."""
    other = kit.Pair().run(6)
    other.propose()
    other.agree()
    talk.propose()
    request = RekeyRequest(other.offer.call_id, 9, 1, kit.unsigned)
    request = other.sign(Role.CALLEE, request)
    for call, message in (
        (talk.callee, other.rekey),
        (talk.caller, other.rekey_reply),
        (talk.caller, request),
    ):
        assert refuse(kit, call, message, kit.now) is Reason.WRONG_CALL
        renamed = replace(message, call_id=talk.offer.call_id)
        assert refuse(kit, call, renamed, kit.now) is Reason.BAD_MAC


# --- which epoch ----------------------------------------------------------------------------------


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
    assert refuse(kit, call, late[1], kit.now + 10) is Reason.BAD_MAC


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


# --- the end --------------------------------------------------------------------------------------


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
