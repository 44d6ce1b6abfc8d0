"""New epochs within a call: when, and what is lost, repeated or late (spec/callkeys.md)."""

import pytest
from msgspec.structs import replace

from e2ecall.errors import LocalProtocolError, Reason
from e2ecall.protocol.call_events import Ended, EndReason, RekeyDue, RekeyProposed
from e2ecall.protocol.call_exchange import RekeySecrets
from e2ecall.protocol.call_table import Role
from e2ecall.protocol.messages import RekeyRequest
from tests.protocol.call.conftest import refuse


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
    assert refuse(talk.caller, lost, kit.now + 16) is Reason.REPLAYED
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
        assert refuse(talk.callee, changed, kit.now) is Reason.UNEXPECTED_MESSAGE


def test_a_rekey_of_an_epoch_not_entered_is_refused(talk, kit):
    """CALLKEY-13: no epoch begins at a callee that does not send in the one before yet."""
    talk.propose(kit.now)
    talk.agree(kit.now)
    talk.caller.receive(talk.rekey_reply, kit.now)
    talk.propose(kit.now + 10)
    assert refuse(talk.callee, talk.rekey, kit.now + 10) is Reason.UNEXPECTED_MESSAGE


def test_r11_old_messages_of_rekeying_do_not_come_back(talk, kit):
    """R11, CALL-12: every message of a former change is refused or ignored in all later ones."""
    talk.change_epoch(kit.now)
    first = (talk.rekey, talk.rekey_reply)
    for number in range(1, 4):
        now = kit.now + 11 * number
        for call, message in zip((talk.callee, talk.caller), first, strict=True):
            call.events()
            assert refuse(call, message, now) in (Reason.BAD_MAC, Reason.REPLAYED)
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
        assert refuse(call, message, kit.now) is Reason.WRONG_CALL
        renamed = replace(message, call_id=talk.offer.call_id)
        assert refuse(call, renamed, kit.now) is Reason.BAD_MAC
