"""Two people call each other at once (spec/call.md, "Glare"): P10."""

import pytest
from msgspec.structs import replace

from e2ecall.errors import LocalProtocolError, Reason, RemoteProtocolError
from e2ecall.protocol.call import Call, Glare
from e2ecall.protocol.call_events import Ended, EndReason
from e2ecall.protocol.call_exchange import CallerSecrets
from e2ecall.protocol.call_table import CallState


def secrets(call_id):
    fresh = CallerSecrets.generate()
    return CallerSecrets(call_id, fresh.x25519, fresh.mlkem, fresh.seed, fresh.nonce)


@pytest.mark.parametrize(("mine", "theirs"), [(b"\x01", b"\x02"), (b"\x02", b"\x01")])
def test_same_winner_on_both_sides(kit, mine, theirs):
    """P10: whichever Offer is seen first, the lower CallId wins on both sides."""
    here = kit.place(secrets=secrets(mine * 16))
    there = Call.place(
        kit.callee,
        kit.caller,
        media=kit.media("z"),
        wants_video=False,
        reply_box=b"z" * 32,
        secrets=secrets(theirs * 16),
        now=kit.now,
    )
    verdicts = here.glare(there.offer, kit.callee), there.glare(here.offer, kit.caller)
    expected = (Glare.OURS, Glare.THEIRS) if mine < theirs else (Glare.THEIRS, Glare.OURS)
    assert verdicts == expected
    winner, loser = (here, there) if mine < theirs else (there, here)
    winner.messages_to_send()
    loser.messages_to_send()
    loser.superseded(kit.now)
    assert loser.messages_to_send() == []
    assert loser.events() == [Ended(EndReason.SUPERSEDED, by_peer=False)]
    answering = Call.incoming(
        winner.remote, winner.local, winner.offer, sent_at=kit.now, now=kit.now
    )
    kit.ring(answering)
    winner.receive(answering.messages_to_send()[0], kit.now)
    answering.receive(winner.messages_to_send()[0], kit.now)
    answering.accept(audio=True, video=False, now=kit.now)
    winner.receive(answering.messages_to_send()[0], kit.now)
    assert winner.state is answering.state is CallState.CONNECTING


@pytest.mark.parametrize("steps", [2, 5, 6])
def test_no_glare_after_ringing(kit, pair, steps):
    """CALL-09: once a Ringing came in, a crossing Offer only finds the callee busy."""
    pair.run(steps)
    lower = replace(pair.offer, call_id=bytes(16))
    assert pair.caller.glare(lower, kit.callee) is Glare.BUSY
    with pytest.raises(LocalProtocolError):
        pair.caller.superseded(kit.now)


def test_no_glare_for_a_callee(kit, pair):
    """CALL-09: an end that is being called does not compare CallIds."""
    assert pair.callee.glare(kit.place().offer, kit.caller) is Glare.BUSY


def test_third_party_finds_the_line_busy(kit, pair):
    """Somebody else's Offer is no glare, however low its CallId."""
    lower = replace(pair.offer, call_id=bytes(16))
    stranger = type(kit.callee)("carol@relay.example", 1, b"C" * 32, b"c" * 64)
    assert pair.caller.glare(lower, stranger) is Glare.BUSY


def test_own_call_id_in_a_foreign_offer(kit, pair):
    """An Offer that carries the CallId of the live call is refused."""
    with pytest.raises(RemoteProtocolError) as refused:
        pair.caller.glare(pair.offer, kit.callee)
    assert refused.value.reason is Reason.WRONG_CALL
