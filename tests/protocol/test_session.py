"""The pairwise session (spec/ratchet.md, "Sessions"), between two real endpoints."""

import random
from dataclasses import replace

import msgspec
import pytest

from e2ecall.errors import LocalProtocolError, Reason
from e2ecall.protocol.peer import (
    MAX_ARCHIVED,
    is_unanswered,
    with_sealing_key,
    with_skipped_keys,
    without_expired_keys,
)
from e2ecall.protocol.prekeys import maintain
from e2ecall.protocol.ratchet import skipped_count
from e2ecall.protocol.sealing import SealingKeyExpiredError
from e2ecall.protocol.session import Unsealed, unseal
from relay.wire.messages import PrekeyCounts

DAY = 86_400


def test_first_message_and_reply(alice, bob):
    """SESSION-01: a message and its reply pass; the handshake repeats until that reply."""
    peer = alice.initiate(bob)
    assert not peer.established
    first = bob.receive(alice.send(bob, b"one"))
    second = bob.receive(alice.send(bob, b"two", call=True))
    assert (first.plaintext, first.initial) == (b"one", True)
    assert (second.plaintext, second.initial) == (b"two", False)
    assert first.session_id == second.session_id
    reply = alice.receive(bob.send(alice, b"three"))
    assert (reply.plaintext, reply.initial) == (b"three", False)
    assert alice.peers[bob.address].established
    third = bob.receive(alice.send(bob, b"four"))
    assert third.plaintext == b"four"


def test_a_renewed_list_leaves_the_session_alone(talking):
    """SESSION-01: both sides know a session by the same handshake hash, also after renewals."""
    alice, bob = talking
    alice.local = alice.local.renewed(alice.now)
    one, two = alice.peers[bob.address].active, bob.peers[alice.address].active
    assert one.ratchet.handshake_hash == two.ratchet.handshake_hash


def test_repeated_handshakes_in_any_order(alice, bob):
    """SESSION-01: any of the first messages can be the one that begins the session."""
    alice.initiate(bob)
    envelopes = [alice.send(bob, b"%d" % n) for n in range(4)]
    received = [bob.receive(envelopes[n]) for n in (2, 0, 3, 1)]
    assert [one.plaintext for one in received] == [b"2", b"0", b"3", b"1"]
    assert [one.initial for one in received] == [True, False, False, False]
    assert len(bob.peers[alice.address].sessions) == 1


def test_keys_are_used_up(alice, bob):
    """PQXDH-05: the one-time keys of a handshake are gone once its message has decrypted."""
    alice.initiate(bob)
    handshake = alice.peers[bob.address].active.handshake
    envelope = alice.send(bob, b"m")
    assert handshake.one_time_prekey_id in bob.prekeys.one_time_x25519
    bob.receive(envelope)
    assert handshake.one_time_prekey_id not in bob.prekeys.one_time_x25519
    assert handshake.kem_prekey_id not in bob.prekeys.one_time_mlkem1024


def test_r3_last_resort(alice, bob):
    """R3, PREKEYS-03: without one-time keys it works, and both sides can see which kind it was."""
    assert not alice.initiate(bob).active.last_resort_kem
    peer = alice.initiate(bob, one_time=False)
    assert peer.active.last_resort_kem
    assert not peer.active.one_time_prekey
    received = bob.receive(alice.send(bob, b"m"))
    assert received.peer.active.last_resort_kem
    assert not received.peer.active.one_time_prekey


def test_own_address(alice):
    """One cannot begin a session with oneself."""
    with pytest.raises(LocalProtocolError):
        alice.initiate(alice)


def test_sealing_key_renewal(talking):
    """SESSION-06: an expired sealing key stops sending; a newer one that the peer signed helps."""
    alice, bob = talking
    later = alice.now + 17 * DAY
    bob.prekeys, _ = maintain(bob.prekeys, bob.local, PrekeyCounts(100, 100), now=later)
    alice.now = bob.now = alice.now + 18 * DAY
    with pytest.raises(SealingKeyExpiredError):
        alice.send(bob, b"m")
    peer = with_sealing_key(alice.peers[bob.address], bob.prekeys.sealing_key, now=alice.now)
    alice.peers[bob.address] = peer
    assert bob.receive(alice.send(bob, b"m")).plaintext == b"m"


def test_older_sealing_key_changes_nothing(talking):
    """SESSION-06: an older key of the peer does not replace a newer one."""
    alice, bob = talking
    old = bob.prekeys.sealing_key
    bob.prekeys, _ = maintain(
        bob.prekeys, bob.local, PrekeyCounts(100, 100), now=alice.now + 2 * DAY
    )
    peer = with_sealing_key(alice.peers[bob.address], bob.prekeys.sealing_key, now=alice.now)
    assert with_sealing_key(peer, old, now=alice.now) == peer


def test_a_sealing_key_of_a_clock_that_was_ahead(talking):
    """PREKEYS-13, SESSION-06: a key that was made while its owner's clock was ahead, and so expires
    after all others, is replaced by its owner in two days and then by its peers.
    """
    alice, bob = talking
    enough = PrekeyCounts(100, 100)
    bob.prekeys, _ = maintain(bob.prekeys, bob.local, enough, now=alice.now + 300 * DAY)
    ahead = bob.prekeys.sealing_key
    peer = with_sealing_key(alice.peers[bob.address], ahead, now=alice.now)
    bob.prekeys, published = maintain(bob.prekeys, bob.local, enough, now=alice.now)
    assert published == ()
    bob.prekeys, _ = maintain(bob.prekeys, bob.local, enough, now=alice.now + 2 * DAY)
    assert bob.prekeys.sealing_key != ahead
    peer = with_sealing_key(peer, bob.prekeys.sealing_key, now=alice.now + 2 * DAY)
    assert peer.sealing_key == bob.prekeys.sealing_key


def test_sealing_key_of_another(talking, endpoint, refused):
    """SESSION-06: a sealing key that the peer's device did not sign is refused."""
    alice, bob = talking
    with refused(Reason.BAD_SIGNATURE):
        with_sealing_key(
            alice.peers[bob.address], endpoint("bob").prekeys.sealing_key, now=alice.now
        )


def test_crossing(alice, bob):
    """SESSION-03: two who initiate at once lose no message and end in one session."""
    alice.initiate(bob)
    bob.initiate(alice)
    to_bob, to_alice = alice.send(bob, b"a1", call=True), bob.send(alice, b"b1", call=True)
    assert bob.receive(to_bob).plaintext == b"a1"
    assert alice.receive(to_alice).plaintext == b"b1"
    assert len(alice.peers[bob.address].sessions) == 2
    # They answer each other at once, too: each in the session that it received last.
    to_bob, to_alice = alice.send(bob, b"a2", call=True), bob.send(alice, b"b2", call=True)
    for received, text in ((bob.receive(to_bob), b"a2"), (alice.receive(to_alice), b"b2")):
        assert received.plaintext == text
    settle(alice, bob)


def test_crossed_answer_stays_in_the_session_of_its_offer(alice, bob):
    """SESSION-04: who receives a crossed first message answers in that message's session."""
    alice.initiate(bob)
    bob.initiate(alice)
    to_bob, to_alice = alice.send(bob, b"offer", call=True), bob.send(alice, b"offer", call=True)
    offer = bob.receive(to_bob)
    alice.receive(to_alice)
    ringing = alice.receive(bob.send(alice, b"ringing", call=True))
    assert ringing.session_id == offer.session_id
    reveal = bob.receive(alice.send(bob, b"reveal", call=True))
    assert reveal.session_id == offer.session_id


def settle(alice, bob):
    """Send in both directions, one after the other; both are in one session after a round."""
    bob.receive(alice.send(bob, b"m"))
    alice.receive(bob.send(alice, b"m"))
    assert alice.peers[bob.address].active.session_id == bob.peers[alice.address].active.session_id


def test_late_first_message(alice, bob):
    """R7, SESSION-03: a first message that is held back for long does not separate the sides."""
    bob.initiate(alice)
    held = bob.send(alice, b"held back")
    alice.initiate(bob)
    bob.receive(alice.send(bob, b"offer"))
    alice.receive(bob.send(alice, b"ringing"))
    bob.receive(alice.send(bob, b"reveal"))
    assert alice.receive(held).plaintext == b"held back"
    settle(alice, bob)


def test_replaced_initiative_in_reverse(alice, bob):
    """R7, SESSION-03: two handshakes of one side that arrive in reverse do not separate them."""
    alice.initiate(bob)
    first = alice.send(bob, b"1")
    alice.initiate(bob)
    second = alice.send(bob, b"2")
    for envelope, text in ((second, b"2"), (first, b"1")):
        assert bob.receive(envelope).plaintext == text
    settle(alice, bob)


@pytest.mark.parametrize("seed", range(25))
def test_any_order(alice, bob, seed):
    """R7, SESSION-04: whatever order envelopes come in and sessions begin in, both sides agree."""
    chance = random.Random(seed)
    waiting = {alice.address: [], bob.address: []}
    for step in range(30):
        one, other = chance.sample([alice, bob], 2)
        if chance.random() < 0.5:
            peer = one.peers.get(other.address)
            if peer is None or (not peer.established and chance.random() < 0.2):
                one.initiate(other)
            waiting[other.address].append(one.send(other, b"%d" % step))
        elif waiting[one.address]:
            mail = waiting[one.address]
            one.receive(mail.pop(chance.choice([0, -1, chance.randrange(len(mail))])))
        alice.now = bob.now = alice.now + 3_600
    for one in (alice, bob):
        chance.shuffle(waiting[one.address])
        for envelope in waiting[one.address]:
            one.receive(envelope)
    for one, other in ((alice, bob), (bob, alice)):
        if other.address not in one.peers:
            one.initiate(other)
    settle(alice, bob)


def replaced(talking):
    """Return a message in a session that its recipient has replaced by one of its own."""
    alice, bob = talking
    late = alice.send(bob, b"late")
    bob.initiate(alice)
    return late


def test_new_session_replaces_the_old(talking):
    """SESSION-02, SESSION-04: what was on its way when a session was replaced separates nobody."""
    alice, bob = talking
    late = replaced(talking)
    new = bob.send(alice, b"new")
    old = bob.receive(late)
    assert old.plaintext == b"late"
    assert bob.peers[alice.address].active.session_id == old.session_id
    received = alice.receive(new)
    assert received.initial
    assert alice.peers[bob.address].active.session_id == received.session_id
    settle(alice, bob)


def test_held_back_until_the_session_is_replaced(talking):
    """R7, SESSION-03: a message held back while its sender begins anew silences no later call."""
    alice, bob = talking
    held = bob.send(alice, b"held back")
    bob.initiate(alice)
    alice.receive(bob.send(alice, b"new"))
    alice.receive(held)
    offer = bob.receive(alice.send(bob, b"offer", call=True))
    assert bob.peers[alice.address].active.session_id == offer.session_id
    settle(alice, bob)


@pytest.mark.parametrize("seed", range(10))
def test_replaced_in_any_order(talking, seed):
    """R7, SESSION-04: nor does any order of envelopes while answered sessions are replaced."""
    chance = random.Random(seed)
    ends = list(talking)
    waiting = {one.address: [] for one in ends}
    for step in range(30):
        one, other = chance.sample(ends, 2)
        if step in (8, 16):
            one.initiate(other)
        if chance.random() < 0.5:
            waiting[other.address].append(one.send(other, b"%d" % step))
        elif mail := waiting[one.address]:
            one.receive(mail.pop(chance.randrange(len(mail))))
        for end in ends:
            end.now += 3_600
    for one in ends:
        chance.shuffle(waiting[one.address])
        for envelope in waiting[one.address]:
            one.receive(envelope)
    settle(*ends)


def test_archive_is_bounded(talking):
    """SESSION-02: one active and five archived sessions are kept, each at most 14 days."""
    alice, bob = talking
    for _ in range(MAX_ARCHIVED):
        bob.initiate(alice)
        alice.receive(bob.send(alice, b"new"))
    for peer in (alice.peers[bob.address], bob.peers[alice.address]):
        assert len(peer.sessions) == 1 + MAX_ARCHIVED
    end = bob.now + 14 * DAY
    for now, left in ((end - 1, 1 + MAX_ARCHIVED), (end, 1)):
        peer = without_expired_keys(bob.peers[alice.address], now=now)
        assert len(peer.sessions) == left


def test_archived_session_expires(talking):
    """SESSION-02: after 14 days a replaced session decrypts nothing."""
    _, bob = talking
    late = replaced(talking)
    bob.now += 14 * DAY
    assert bob.refuses(late).reason is Reason.UNKNOWN_SESSION


def test_dropped_session(talking):
    """SESSION-02: a sixth replacement drops the oldest session for good."""
    alice, bob = talking
    late = replaced(talking)
    for _ in range(MAX_ARCHIVED):
        bob.initiate(alice)
    assert bob.refuses(late).reason is Reason.UNKNOWN_SESSION


def test_sessions_in_a_row(talking):
    """SESSION-07: a peer that begins session after session is held up, and let in an hour later."""
    alice, bob = talking
    for _ in range(MAX_ARCHIVED):
        bob.initiate(alice)
        alice.receive(bob.send(alice, b"new"))
    bob.initiate(alice)
    envelope = bob.send(alice, b"one too many")
    assert alice.refuses(envelope).reason is Reason.LIMIT
    alice.now += 3_600
    assert alice.receive(envelope).plaintext == b"one too many"


def test_unanswered(alice, bob):
    """SESSION-08: a session without a reply is given up after a day, or when its list runs out."""
    session = alice.initiate(bob).active
    assert not is_unanswered(session, now=alice.now + DAY - 1)
    assert is_unanswered(session, now=alice.now + DAY)
    bob.receive(alice.send(bob, b"m"))
    alice.receive(bob.send(alice, b"m"))
    assert not is_unanswered(alice.peers[bob.address].active, now=alice.now + 99 * DAY)
    alice.now += 5 * DAY
    session = alice.initiate(bob).active
    assert not is_unanswered(session, now=alice.now + 3_599)
    assert is_unanswered(session, now=alice.now + 3_600)


def test_healing_after_lost_state(talking):
    """SESSION-02: who restored an old state is reached again after a new handshake."""
    alice, bob = talking
    old = bob.peers[alice.address]
    alice.receive(bob.send(alice, b"1"))
    bob.receive(alice.send(bob, b"2"))
    bob.peers[alice.address] = replace(old, sessions=())
    assert bob.refuses(alice.send(bob, b"3")).reason is Reason.UNKNOWN_SESSION
    bob.initiate(alice)
    assert alice.receive(bob.send(alice, b"4")).plaintext == b"4"
    assert bob.receive(alice.send(bob, b"5")).plaintext == b"5"


def test_renewed_device_list(talking):
    """IDENTITY-05: a handshake carries a newer device list and is accepted with it."""
    alice, bob = talking
    bob.local = bob.local.renewed(bob.now + 10 * DAY)
    bob.initiate(alice)
    received = alice.receive(bob.send(alice, b"m"))
    assert received.peer.device_list.body.version == 2


def test_handshake_with_an_own_older_list(alice, bob):
    """PQXDH-08: a bundle fetched before a renewal still works; an unknown list does not."""
    alice.initiate(bob)
    envelope = alice.send(bob, b"m")
    renewed = bob.local.renewed(bob.now)
    bob.local = replace(renewed, previous_lists=())
    assert bob.refuses(envelope).reason is Reason.STALE_DEVICE_LIST
    bob.local = renewed
    assert bob.receive(envelope).plaintext == b"m"


def test_a_session_comes_back_until_it_ends(alice, bob):
    """SESSION-05: of two sessions either can come back, however often the active one changed."""
    alice.initiate(bob)
    bob.initiate(alice)
    to_bob, to_alice = alice.send(bob, b"1"), bob.send(alice, b"1")
    bob.receive(to_bob)
    alice.receive(to_alice)
    held = bob.send(alice, b"held back")
    for n in range(3):
        bob.receive(alice.send(bob, b"%d" % n))
        alice.receive(bob.send(alice, b"%d" % n))
    assert alice.receive(held).session_id == alice.peers[bob.address].active.session_id
    settle(alice, bob)
    alice.now = bob.now = alice.now + 14 * DAY
    for one, other in ((alice, bob), (bob, alice)):
        peer = without_expired_keys(one.peers[other.address], now=one.now)
        assert peer.sessions == one.peers[other.address].sessions[:1]


def test_claimed_identity(alice, bob, refused):
    """What an initial message claims can be read before it is received, and may be nonsense."""
    peer = alice.initiate(bob)
    unsealed = unseal(bob.local, bob.prekeys, alice.send(bob, b"m"))
    assert unsealed.claimed_identity == alice.local.identity.public
    initial = unsealed.frame.initial
    nonsense = msgspec.structs.replace(initial.device_list, body=b"\xc0")
    frame = replace(unsealed.frame, initial=msgspec.structs.replace(initial, device_list=nonsense))
    with refused(Reason.MALFORMED):
        _ = Unsealed(frame, unsealed.claim).claimed_identity
    bob.receive(alice.send(bob, b"m"))
    alice.receive(bob.send(alice, b"m"))
    assert alice.peers[bob.address].active.session_id == peer.active.session_id
    assert unseal(bob.local, bob.prekeys, alice.send(bob, b"m")).claimed_identity is None


def test_older_sealing_key_in_a_handshake(talking):
    """SESSION-06: nor does one that comes in a handshake, which may have waited for days."""
    alice, bob = talking
    bob.initiate(alice)
    late = bob.send(alice, b"late")
    bob.prekeys, _ = maintain(
        bob.prekeys, bob.local, PrekeyCounts(100, 100), now=alice.now + 2 * DAY
    )
    newer = bob.prekeys.sealing_key
    alice.peers[bob.address] = with_sealing_key(alice.peers[bob.address], newer, now=alice.now)
    assert alice.receive(late).initial
    assert alice.peers[bob.address].sealing_key == newer


def test_older_sealing_key_in_a_bundle(talking):
    """SESSION-06: nor one that a relay serves when a new session is begun."""
    alice, bob = talking
    bob.prekeys, _ = maintain(
        bob.prekeys, bob.local, PrekeyCounts(100, 100), now=alice.now + 2 * DAY
    )
    newer = bob.prekeys.sealing_key
    alice.peers[bob.address] = with_sealing_key(alice.peers[bob.address], newer, now=alice.now)
    assert alice.initiate(bob).sealing_key == newer


def test_skipped_keys_of_all_sessions(talking):
    """P4, RATCHET-14: over a peer's room the session active longest ago loses its own."""
    alice, bob = talking
    skipped = []
    for _ in range(2):
        skipped.append([alice.send(bob, b"%d" % n) for n in range(3)])
        bob.receive(alice.send(bob, b"m"))
        alice.initiate(bob)
    peer = bob.peers[alice.address]
    assert with_skipped_keys(peer, 6) == peer
    for room, left in ((5, [3, 2]), (3, [3, 0]), (2, [2, 0]), (0, [0, 0])):
        kept = with_skipped_keys(peer, room)
        assert [skipped_count(session.ratchet) for session in kept.sessions] == left
    bob.peers[alice.address] = with_skipped_keys(peer, 4)
    assert bob.refuses(skipped[0][0]).reason is Reason.REPLAYED
    for envelope, text in ((skipped[0][2], b"2"), (skipped[1][0], b"0")):
        assert bob.receive(envelope).plaintext == text
