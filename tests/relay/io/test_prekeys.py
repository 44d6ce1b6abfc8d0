"""Prekeys through a running relay (spec/wire.md, Prekeys)."""

import os

import pytest
import trio

from relay.wire.messages import (
    Bundle,
    Done,
    ErrorCode,
    FetchBundle,
    Policy,
    PrekeyCounts,
    PrekeyStatus,
    PublishPrekeys,
    PutTokens,
    SetPolicy,
)
from relay.wire.records import PreKeyKind

pytestmark = pytest.mark.trio

X25519 = PreKeyKind.ONE_TIME_X25519
KEM = PreKeyKind.ONE_TIME_MLKEM1024
LAST_RESORT = PreKeyKind.LAST_RESORT_MLKEM1024


async def bundle(client, username, **options):
    reply = await client.request(
        FetchBundle(username, **{"device_id": None, "token": None} | options)
    )
    return reply.bundle if isinstance(reply, Bundle) else reply.code


async def test_bundle(relay, speak, username):
    """A bundle has the device list and one prekey of each kind, one-time ones first."""
    async with speak.registered(relay.url, username) as (client, identity):
        one_time = identity.one_time(X25519, 10, 2) + identity.one_time(KEM, 20, 1)
        assert await client.request(PublishPrekeys(one_time)) == Done()
        assert await client.request(PrekeyStatus()) == PrekeyCounts(2, 1)
        async with speak.wire(relay.url) as anonymous:
            first = await bundle(anonymous, username)
            second = await bundle(anonymous, username, device_id=1)
            third = await bundle(anonymous, username)
        assert first.device_id == 1
        assert (first.signed_prekey.kind, first.sealing_key.kind) == (1, 2)
        assert (first.one_time_prekey, first.kem_prekey) == (one_time[0], one_time[2])
        # R3: what is not one-time says so by its signed kind.
        assert (second.one_time_prekey, second.kem_prekey.kind) == (one_time[1], LAST_RESORT)
        assert (third.one_time_prekey, third.kem_prekey.kind) == (None, LAST_RESORT)
        assert await client.request(PrekeyStatus()) == PrekeyCounts(0, 0)


async def test_handed_out_once(start_relay, tmp_path, speak, username):
    """W4: a hundred fetchers at once get a hundred different one-time prekeys, also over a kill
    and after the owner published the same prekeys again.
    """
    folder = tmp_path / "data"
    relay = start_relay("--data-dir", folder)
    taken = {X25519: [], KEM: []}

    async def fetch(url):
        async with speak.wire(url) as anonymous:
            found = await bundle(anonymous, username)
        taken[X25519].append(found.one_time_prekey and found.one_time_prekey.key_id)
        kem = found.kem_prekey
        taken[KEM].append(kem.key_id if kem.kind is KEM else None)

    async with speak.registered(relay.url, username) as (client, identity):
        batches = [identity.one_time(X25519, 1, 120)]
        batches += [identity.one_time(KEM, first, 24) for first in range(1, 121, 24)]
        for batch in batches:
            assert await client.request(PublishPrekeys(batch)) == Done()
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(fetch, relay.url)
    relay.kill()
    again = start_relay("--data-dir", folder, "--signalling", relay.name)
    async with speak.wire(again.url) as client:
        assert await client.request(identity.login(client.hello)) == Done()
        assert await client.request(PrekeyStatus()) == PrekeyCounts(20, 20)
        for batch in batches:
            assert await client.request(PublishPrekeys(batch)) == Done()
        assert await client.request(PrekeyStatus()) == PrekeyCounts(20, 20)
    for _ in range(25):
        await fetch(again.url)
    for kind in (X25519, KEM):
        keys = [key for key in taken[kind] if key is not None]
        assert sorted(keys) == list(range(1, 121))
        assert taken[kind].count(None) == 5
    again.terminate()


async def test_signed_prekey_is_replaced(relay, speak, username):
    """The signed prekey, the sealing key and the last-resort key are the latest published."""
    async with speak.registered(relay.url, username) as (client, identity):
        newer = tuple(
            identity.prekey(kind, 50)
            for kind in (PreKeyKind.SIGNED_X25519, PreKeyKind.SEALING, LAST_RESORT)
        )
        assert await client.request(PublishPrekeys(newer)) == Done()
        found = await bundle(client, username)
        assert (found.signed_prekey, found.sealing_key, found.kem_prekey) == newer


async def test_refused_batch_changes_nothing(relay, speak, username):
    """WIRE-14: one bad signature in a batch and none of it is stored."""
    async with speak.registered(relay.url, username) as (client, identity):
        stranger = speak.Identity(username, relay.name)
        batch = (*identity.one_time(X25519, 1, 3), stranger.prekey(X25519, 9))
        assert (await client.request(PublishPrekeys(batch))).code is ErrorCode.BAD_REQUEST
        assert await client.request(PrekeyStatus()) == PrekeyCounts(0, 0)


async def test_too_many(relay, speak, username):
    """WIRE-14: what one device can store is bounded."""
    async with speak.registered(relay.url, username) as (client, identity):
        for first in (1, 101):
            batch = identity.one_time(X25519, first, 100)
            assert await client.request(PublishPrekeys(batch)) == Done()
        batch = identity.one_time(X25519, 201, 100)
        assert (await client.request(PublishPrekeys(batch))).code is ErrorCode.TOO_MANY
        assert await client.request(PrekeyStatus()) == PrekeyCounts(200, 0)


async def test_not_reachable_alike(relay, speak, username):
    """WIRE-22: unknown, unpublished, unknown device, and not accepting are one answer."""
    replies = []
    async with speak.registered(relay.url, username) as (client, _):
        async with speak.registered(relay.url, username + "x", prekeys=False):
            for name, device in ((username + "y", None), (username + "x", None), (username, 2)):
                replies.append(await client.request(FetchBundle(name, device, None)))
        assert await client.request(SetPolicy(Policy.CONTACTS)) == Done()
        replies.append(await client.request(FetchBundle(username, None, None)))
        replies.append(await client.request(FetchBundle(username, None, os.urandom(16))))
    assert {reply.code for reply in replies} == {ErrorCode.NOT_REACHABLE}
    assert len(set(replies)) == 1


async def test_contacts(relay, speak, username):
    """WIRE-21: with CONTACTS a bundle goes to who shows a current delivery token."""
    token, next_token = os.urandom(16), os.urandom(16)
    async with speak.registered(relay.url, username) as (client, _):
        assert await client.request(SetPolicy(Policy.CONTACTS)) == Done()
        assert await client.request(PutTokens((speak.token_hash(token),))) == Done()
        assert (await bundle(client, username, token=token)).device_id == 1
        assert await client.request(PutTokens((speak.token_hash(next_token),))) == Done()
        assert await bundle(client, username, token=token) is ErrorCode.NOT_REACHABLE
        assert (await bundle(client, username, token=next_token)).device_id == 1
