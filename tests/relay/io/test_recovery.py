"""An identity key without a device gets its account back (spec/wire.md, WIRE-17)."""

import pytest
from nacl.signing import SigningKey

from relay.wire.messages import (
    Displaced,
    Done,
    Enrol,
    ErrorCode,
    FetchCertificate,
    FetchOwnList,
    OwnList,
)
from relay.wire.records import recovery_bytes, register_bytes

pytestmark = pytest.mark.trio


def fetch(identity, hello, *, username=None):
    name = username or identity.username
    message = recovery_bytes(hello.relay, hello.challenge, name)
    return FetchOwnList(name, identity.key.sign(message).signature)


def enrol(identity, hello, signed, *, username=None):
    message = register_bytes(hello.relay, hello.challenge, signed)
    signature = identity.key.sign(message).signature
    return Enrol(username or identity.username, signed, signature)


def successor(identity, stored, device_id):
    """Return the list in which one new device has taken the place of all."""
    identity.devices = {device_id: SigningKey.generate()}
    identity.records = {device_id: identity.record(device_id)}
    return identity.next_list(stored)


async def test_a_new_device(relay, speak, username):
    """WIRE-17: the identity key fetches the list, enrols a device, and is logged in as it."""
    async with (
        speak.registered(relay.url, username) as (former, identity),
        speak.wire(relay.url) as client,
    ):
        reply = await client.request(fetch(identity, client.hello))
        assert isinstance(reply, OwnList)
        assert reply.newest_device_id == 1
        signed = successor(identity, reply.device_list, 2)
        assert await client.request(enrol(identity, client.hello, signed)) == Done()
        assert await former.push() == Displaced()
        assert (await client.request(FetchCertificate())).certificate
        assert (await client.request(fetch(identity, client.hello))).code is ErrorCode.BAD_REQUEST
        async with speak.wire(relay.url) as again:  # the answer was lost
            assert await again.request(enrol(identity, again.hello, signed)) == Done()
        async with speak.wire(relay.url) as other:
            assert await other.request(identity.login(other.hello, 2)) == Done()
            third = successor(identity, signed, 3)
        async with speak.wire(relay.url) as other:
            assert await other.request(enrol(identity, other.hello, third)) == Done()
        async with speak.wire(relay.url) as other:
            assert (await other.request(fetch(identity, other.hello))).newest_device_id == 3


async def test_ids_are_not_used_again(relay, speak, username):
    """WIRE-17, WIRE-13: an enrolment under a former id, or with an old list, is refused."""
    async with speak.registered(relay.url, username) as (_, identity):
        async with speak.wire(relay.url) as client:
            first = (await client.request(fetch(identity, client.hello))).device_list
            second = successor(identity, first, 2)
            assert await client.request(enrol(identity, client.hello, second)) == Done()
        for device_id in (1, 2):
            async with speak.wire(relay.url) as client:
                before = identity.version, identity.previous
                reused = successor(identity, second, device_id)
                identity.version, identity.previous = before
                reply = await client.request(enrol(identity, client.hello, reused))
                assert reply.code is ErrorCode.BAD_REQUEST
        async with speak.wire(relay.url) as client:
            reply = await client.request(enrol(identity, client.hello, first))
            assert reply.code is ErrorCode.STALE


async def test_strangers_learn_nothing(relay, speak, username):
    """WIRE-17, W3: another key and an unknown user look the same, and change nothing."""
    async with speak.registered(relay.url, username) as (owner, identity):
        thief = speak.Identity(username, relay.name)
        async with speak.wire(relay.url) as client:
            signed = thief.device_list(version=2, previous=bytes(64))
            replies = [
                await client.request(request)
                for name in (username, username + "x")
                for request in (
                    fetch(thief, client.hello, username=name),
                    enrol(thief, client.hello, signed, username=name),
                )
            ]
        assert {(reply.code, reply.text) for reply in replies} == {
            (ErrorCode.LOGIN_FAILED, "this log-in is not valid")
        }
        async with speak.wire(relay.url) as first, speak.wire(relay.url) as second:
            seen = fetch(identity, first.hello)
            assert isinstance(await first.request(seen), OwnList)
            assert (await second.request(seen)).code is ErrorCode.LOGIN_FAILED
        assert (await owner.request(FetchCertificate())).certificate
