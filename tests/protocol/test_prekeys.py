"""Prekeys (spec/prekeys.md): making, rotation, refill, verification of bundles."""

from dataclasses import replace

import msgspec
import pytest

from e2ecall.errors import IdentityChangedError, Reason, StoreError
from e2ecall.protocol.bundle import verify_bundle
from e2ecall.protocol.prekeys import (
    MAX_KEPT,
    MAX_ONE_TIME,
    MAX_UNPROVEN_EPHEMERALS,
    MAX_USED_EPHEMERALS,
    are_ahead,
    batches,
    maintain,
    sign_prekey,
    without_expired,
)
from e2ecall.protocol.prekeystore import prekeys_from_bytes, prekeys_to_bytes
from relay.wire.codec import encode
from relay.wire.messages import PrekeyCounts, PublishPrekeys
from relay.wire.records import PREKEY_BYTES, PreKey, PreKeyKind

DAY = 86_400
FULL = PrekeyCounts(100, 100)


def kinds(prekeys):
    return {kind: sum(prekey.kind == kind for prekey in prekeys) for kind in PreKeyKind}


def check(bundle, endpoint, known=None, now=None):
    return verify_bundle(bundle, address=endpoint.address, now=now or endpoint.now, known=known)


def test_generated(bob):
    """PREKEYS-01: a new device has 100 one-time keys of both kinds and one of each other kind."""
    assert kinds(bob.published) == {1: 1, 2: 1, 3: 100, 4: 100, 5: 1}
    assert all(len(prekey.key) == PREKEY_BYTES[prekey.kind] for prekey in bob.published)
    assert len({prekey.key_id for prekey in bob.published}) == len(bob.published)


def test_batches(bob):
    """PREKEYS-08: every batch is a request below 48 KiB, and nothing gets lost."""
    split = batches(bob.published)
    assert [prekey for batch in split for prekey in batch] == bob.published
    assert all(len(encode(PublishPrekeys(batch))) < 49_152 for batch in split)
    assert batches([]) == []


def test_rotation(bob):
    """PREKEYS-04: after two days new keys are current, the old ones stay for 16 days more."""
    state, published = maintain(bob.prekeys, bob.local, FULL, now=bob.now + 2 * DAY - 1)
    assert not published
    state, published = maintain(state, bob.local, FULL, now=bob.now + 2 * DAY)
    assert kinds(published) == {1: 1, 2: 1, 3: 0, 4: 0, 5: 1}
    assert state.sealing_key == next(key for key in published if key.kind == PreKeyKind.SEALING)
    assert len(state.sealing_keys()) == 2
    state, _ = maintain(state, bob.local, FULL, now=bob.now + 18 * DAY - 1)
    old = bob.prekeys.rotated[0]
    assert state.find(old.kind, old.key_id).retired
    state, _ = maintain(state, bob.local, FULL, now=bob.now + 18 * DAY)
    assert all(key.key_id != old.key_id for key in state.rotated)


def test_absence(bob):
    """PREKEYS-05: after a long absence the last keys still live, for the mail that waited."""
    state, _ = maintain(bob.prekeys, bob.local, FULL, now=bob.now + 40 * DAY)
    assert len(state.sealing_keys()) == 2


def test_forgetting_alone(bob):
    """PREKEYS-12: private keys are forgotten at their time without anything new being drawn."""
    state, _ = maintain(bob.prekeys, bob.local, FULL, now=bob.now + 2 * DAY)
    end = bob.now + 18 * DAY
    assert without_expired(state, now=end - 1) == state
    left = without_expired(state, now=end)
    assert (len(state.rotated), len(left.rotated)) == (6, 3)
    assert left.next_key_id == state.next_key_id
    assert not without_expired(state, now=bob.now + 196 * DAY).one_time_x25519


def test_keys_of_a_clock_that_was_ahead(bob):
    """PREKEYS-13: whether keys were made over a day ahead shows, of each kind; and the current ones
    are replaced two days after the clock was found to be right.
    """
    assert not are_ahead(bob.published, now=bob.now - DAY)
    by_kind = {prekey.kind: prekey for prekey in bob.published}
    for prekey in by_kind.values():
        assert not are_ahead([prekey], now=bob.now - DAY)
        assert are_ahead([prekey], now=bob.now - DAY - 1)
    before = bob.now - 300 * DAY
    state, published = maintain(bob.prekeys, bob.local, FULL, now=before)
    assert published == ()
    assert {key.created for key in state.rotated} == {before}
    _, published = maintain(state, bob.local, FULL, now=before + 2 * DAY)
    assert kinds(published) == {1: 1, 2: 1, 3: 0, 4: 0, 5: 1}


def test_refill(bob):
    """PREKEYS-06: below 25 at the relay a kind is filled up to 100; without counts nothing is."""
    for counts, expected in (
        (PrekeyCounts(25, 25), (0, 0)),
        (PrekeyCounts(24, 25), (76, 0)),
        (PrekeyCounts(100, 0), (0, 100)),
        (None, (0, 0)),
    ):
        _, published = maintain(bob.prekeys, bob.local, counts, now=bob.now)
        assert (kinds(published)[3], kinds(published)[4]) == expected


def test_bounded(bob):
    """PREKEYS-07: a relay that always answers "none left" grows the state to 400 keys a kind."""
    state = bob.prekeys
    for _ in range(6):
        state, published = maintain(state, bob.local, PrekeyCounts(0, 0), now=bob.now)
    assert len(state.one_time_x25519) == len(state.one_time_mlkem1024) == MAX_ONE_TIME
    assert published[-1].key_id in state.one_time_mlkem1024


def test_stored(bob):
    """The state is restored exactly, in about 12 KB; other records are refused."""
    state = bob.prekeys.consumed(1, b"e" * 32, one_time_id=5, kem_id=150)
    record = prekeys_to_bytes(state)
    assert prekeys_from_bytes(record) == state
    assert len(record) < 13_000
    with pytest.raises(StoreError):
        prekeys_from_bytes(record + b"\0")


def test_ephemerals_are_bounded(bob, refused):
    """PQXDH-06: a signed prekey admits 1 024 initial messages; at half of it it is rotated."""
    spk = bob.prekeys.rotated[0]
    half = frozenset(n.to_bytes(32) for n in range(MAX_USED_EPHEMERALS // 2))
    crowded = replace(spk, used_ephemerals=half)
    state = replace(bob.prekeys, rotated=(crowded, *bob.prekeys.rotated[1:]))
    state.check_ephemeral(spk.key_id, b"n" * 32)
    with refused(Reason.REPLAYED):
        state.check_ephemeral(spk.key_id, bytes(32))
    _, published = maintain(state, bob.local, FULL, now=bob.now + DAY - 1)
    assert not published
    _, published = maintain(state, bob.local, FULL, now=bob.now + DAY)
    assert kinds(published)[PreKeyKind.SIGNED_X25519] == 1
    full = replace(spk, used_ephemerals=frozenset(n.to_bytes(32) for n in range(1024)))
    state = replace(bob.prekeys, rotated=(full, *bob.prekeys.rotated[1:]))
    with refused(Reason.LIMIT):
        state.check_ephemeral(spk.key_id, b"n" * 32)


def test_unproven_ephemerals_are_fewer(bob, refused):
    """PREKEYS-09: unproven senders use up their own share of a signed prekey and no more."""
    spk, state = bob.prekeys.rotated[0], bob.prekeys
    for number in range(MAX_UNPROVEN_EPHEMERALS):
        ephemeral = number.to_bytes(32)
        state.check_ephemeral(spk.key_id, ephemeral, proven=False)
        state = state.consumed(spk.key_id, ephemeral, one_time_id=None, kem_id=3, proven=False)
    with refused(Reason.LIMIT):
        state.check_ephemeral(spk.key_id, b"n" * 32, proven=False)
    state.check_ephemeral(spk.key_id, b"n" * 32, proven=True)
    _, published = maintain(state, bob.local, FULL, now=bob.now + DAY)
    assert kinds(published)[PreKeyKind.SIGNED_X25519] == 1
    assert prekeys_from_bytes(prekeys_to_bytes(state)) == state


def test_rotated_keys_are_bounded(bob):
    """PREKEYS-04: however the clock goes, at most 20 keys of a kind are kept, the newest."""
    state, now = bob.prekeys, bob.now
    for _ in range(60):
        retired = tuple(replace(key, retired=int(now) * 2) for key in state.rotated[:-3])
        now += 2 * DAY
        state = replace(state, rotated=(*retired, *state.rotated[-3:]))
        state, _ = maintain(state, bob.local, FULL, now=now)
    assert len(state.sealing_keys()) == MAX_KEPT
    assert state.sealing_keys()[0].key_id == state.sealing_key.key_id


def test_one_time_keys_age(bob):
    """PREKEYS-10: a one-time private key is forgotten when no envelope can use it any more."""
    kept = 196 * DAY
    state, published = maintain(
        bob.prekeys, bob.local, PrekeyCounts(0, 100), now=bob.now + 90 * DAY
    )
    later = [key.key_id for key in published if key.kind == PreKeyKind.ONE_TIME_X25519]
    before = prekeys_from_bytes(prekeys_to_bytes(state))
    assert before == state
    state, _ = maintain(before, bob.local, FULL, now=bob.now + kept - 1)
    assert len(state.one_time_x25519) == 200
    assert len(state.refills) == 2
    state, _ = maintain(state, bob.local, FULL, now=bob.now + kept)
    assert list(state.one_time_x25519) == later
    assert not state.one_time_mlkem1024
    assert len(state.refills) == 1
    state, _ = maintain(state, bob.local, FULL, now=bob.now + 90 * DAY + kept)
    assert not state.one_time_x25519
    assert not state.refills


def test_bundle(bob, refused):
    """PREKEYS-02: a served bundle verifies until one of its keys expires."""
    bundle = bob.bundle()
    assert check(bundle, bob).one_time_prekey == bundle.one_time_prekey
    with refused(Reason.EXPIRED):
        check(bundle, bob, now=bob.now + 18 * DAY)


@pytest.mark.parametrize("slot", ["signed_prekey", "sealing_key", "kem_prekey", "one_time_prekey"])
def test_expired_prekey(bob, refused, slot):
    """PREKEYS-02: one prekey that is out of date is enough to refuse a bundle."""
    bundle = bob.bundle()
    prekey: PreKey = getattr(bundle, slot)
    old = sign_prekey(bob.local, prekey.kind, prekey.key_id, expires=int(bob.now), key=prekey.key)
    with refused(Reason.EXPIRED):
        check(msgspec.structs.replace(bundle, **{slot: old}), bob)


@pytest.mark.parametrize("slot", ["signed_prekey", "sealing_key", "kem_prekey", "one_time_prekey"])
def test_r1_swapped_keys(bob, refused, slot):
    """R1: a key in another slot, under another id, kind, expiry or device does not verify."""
    bundle = bob.bundle()
    prekey: PreKey = getattr(bundle, slot)
    others = [getattr(bundle, name) for name in bundle.__struct_fields__[2:] if name != slot]
    for other in others:
        with refused(Reason.MALFORMED):
            check(msgspec.structs.replace(bundle, **{slot: other}), bob)
        renamed = msgspec.structs.replace(other, kind=prekey.kind)
        expected = Reason.BAD_SIGNATURE if len(other.key) == len(prekey.key) else Reason.MALFORMED
        with refused(expected):
            check(msgspec.structs.replace(bundle, **{slot: renamed}), bob)
    for change in ({"key_id": prekey.key_id + 1}, {"expires": prekey.expires + 1}):
        altered = msgspec.structs.replace(prekey, **change)
        with refused(Reason.BAD_SIGNATURE):
            check(msgspec.structs.replace(bundle, **{slot: altered}), bob)


def test_r1_last_resort_as_one_time(bob, refused):
    """R1: the last-resort key under the one-time kind does not verify."""
    bundle = bob.bundle(one_time=False)
    renamed = msgspec.structs.replace(bundle.kem_prekey, kind=PreKeyKind.ONE_TIME_MLKEM1024)
    with refused(Reason.BAD_SIGNATURE):
        check(msgspec.structs.replace(bundle, kem_prekey=renamed), bob)


def test_r5_another_users_bundle(alice, bob, endpoint, refused):
    """R5: another user's bundle is refused; an own one for a known contact is IdentityChanged."""
    with refused(Reason.WRONG_ADDRESS):
        check(alice.bundle(), bob)
    known = check(bob.bundle(), bob).device_list
    with pytest.raises(IdentityChangedError):
        check(endpoint("bob").bundle(), bob, known=known)


@pytest.mark.parametrize("key", [bytes(32), b"\x01" + bytes(31), b"\xff" * 32], ids=str)
def test_p3_bad_points_in_bundle(bob, refused, key):
    """P3: validly signed prekeys that are no valid points are refused."""
    for slot, kind in (
        ("signed_prekey", PreKeyKind.SIGNED_X25519),
        ("one_time_prekey", PreKeyKind.ONE_TIME_X25519),
    ):
        bundle = bob.bundle()
        bad = sign_prekey(bob.local, kind, 7, expires=int(bob.now) + 9, key=key)
        with refused(Reason.BAD_POINT):
            check(msgspec.structs.replace(bundle, **{slot: bad}), bob)


def test_p3_bad_kem_keys_in_bundle(bob, refused):
    """P3: validly signed ML-KEM keys with unreduced coefficients are refused."""
    expires = int(bob.now) + 9
    kem = PreKeyKind.LAST_RESORT_MLKEM1024
    bad = sign_prekey(bob.local, kem, 7, expires=expires, key=b"\xff" * 1568)
    with refused(Reason.BAD_KEM_KEY):
        check(msgspec.structs.replace(bob.bundle(), kem_prekey=bad), bob)
    point = bob.bundle().sealing_key.key[-32:]
    for key, reason in (
        (b"\xff" * 1184 + point, Reason.BAD_KEM_KEY),
        (bob.bundle().sealing_key.key[:-32] + bytes(32), Reason.BAD_POINT),
    ):
        bad = sign_prekey(bob.local, PreKeyKind.SEALING, 7, expires=expires, key=key)
        with refused(reason):
            check(msgspec.structs.replace(bob.bundle(), sealing_key=bad), bob)
