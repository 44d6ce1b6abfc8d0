"""Accounts through a running relay (spec/wire.md, Accounts)."""

import os
import time

import pytest
from nacl.signing import SigningKey, VerifyKey
from websockets.exceptions import ConnectionClosed

from relay.wire.codec import decode
from relay.wire.messages import (
    AddTokens,
    Bundle,
    Certificate,
    DeleteAccount,
    Displaced,
    Done,
    ErrorCode,
    Failure,
    FetchBundle,
    FetchCertificate,
    Hello,
    Login,
    MediaTicket,
    Policy,
    PrekeyStatus,
    PublishPrekeys,
    PutTokens,
    Register,
    SetPolicy,
    Ticket,
    UpdateDeviceList,
    UseTokens,
)
from relay.wire.records import (
    SenderCertificate,
    deletion_bytes,
    register_bytes,
    sender_certificate_bytes,
)

pytestmark = pytest.mark.trio


async def test_hello(relay, speak):
    """WIRE-05: the first frame says version, name, key, TURN server, time and a challenge."""
    async with speak.wire(relay.url) as first, speak.wire(relay.url) as second:
        for hello in (first.hello, second.hello):
            assert isinstance(hello, Hello)
            assert (hello.version, hello.relay) == (1, relay.name)
            assert hello.turn[0] == relay.ready["turn"]
            assert [url.rpartition("=")[2] for url in hello.turn] == ["udp", "tcp"]
            assert abs(hello.time - time.time()) < 60
        assert first.hello.challenge != second.hello.challenge
        assert first.hello.relay_key == second.hello.relay_key


async def test_register_and_log_in(relay, speak, username):
    """An account registered on one connection is logged in to on another."""
    async with speak.registered(relay.url, username) as (_, identity):
        pass
    async with speak.wire(relay.url) as client:
        assert await client.request(identity.login(client.hello)) == Done()


async def test_register_again(relay, speak, username):
    """WIRE-10: the same registration again, after a lost reply, is no error."""
    async with speak.wire(relay.url) as client:
        identity = speak.Identity(username, relay.name)
        signed = identity.device_list()
        assert await client.request(identity.register(client.hello, signed)) == Done()
    async with speak.wire(relay.url) as client:
        assert await client.request(identity.register(client.hello, signed)) == Done()


async def test_taken_username(relay, speak, username):
    """A taken username is refused, and the owner's account is what it was."""
    async with speak.registered(relay.url, username) as (_, owner):
        async with speak.wire(relay.url) as client:
            thief = speak.Identity(username, relay.name)
            reply = await client.request(thief.register(client.hello))
            assert isinstance(reply, Failure)
            assert reply.code is ErrorCode.USERNAME_TAKEN
            reply = await client.request(thief.login(client.hello))
            assert reply.code is ErrorCode.LOGIN_FAILED
        async with speak.wire(relay.url) as client:
            assert await client.request(owner.login(client.hello)) == Done()


@pytest.mark.parametrize("name", ["Somebody", "1abc", "a-b", "with space", "sömebody"])
async def test_bad_username(relay, speak, name):
    """A bad username is refused with a text that says what one looks like."""
    async with speak.wire(relay.url) as client:
        reply = await client.request(speak.Identity(name, relay.name).register(client.hello))
        assert reply.code is ErrorCode.BAD_USERNAME
        assert "starts with a letter" in reply.text


async def test_replayed_log_in(relay, speak, username):
    """WIRE-12: a log-in that was seen on one connection is refused on another."""
    async with speak.registered(relay.url, username) as (_, identity):
        pass
    async with speak.wire(relay.url) as first, speak.wire(relay.url) as second:
        request = identity.login(first.hello)
        assert await first.request(request) == Done()
        assert (await second.request(request)).code is ErrorCode.LOGIN_FAILED
        registration = identity.register(first.hello)
        assert (await second.request(registration)).code is ErrorCode.BAD_REQUEST


async def test_unknown_log_in_alike(relay, speak, username):
    """W3: a log-in to no account is refused like one with a wrong key."""
    async with speak.registered(relay.url, username), speak.wire(relay.url) as client:
        wrong = speak.Identity(username, relay.name).login(client.hello)
        nobody = speak.Identity(username + "x", relay.name).login(client.hello)
        assert await client.request(wrong) == await client.request(nobody)


@pytest.mark.parametrize(
    "request_",
    [
        FetchCertificate(),
        MediaTicket(),
        PrekeyStatus(),
        PublishPrekeys(()),
        SetPolicy(Policy.CONTACTS),
        PutTokens(()),
        AddTokens(0, (bytes(32),)),
        UseTokens(1),
        DeleteAccount(bytes(64)),
    ],
    ids=lambda request: type(request).__name__,
)
async def test_needs_log_in(relay, speak, request_):
    """WIRE-06: an anonymous connection can manage nothing and gets no ticket."""
    async with speak.wire(relay.url) as client:
        reply = await client.request(request_)
        assert reply.code is ErrorCode.NOT_LOGGED_IN


async def test_tokens_in_parts(relay, speak, username):
    """WIRE-26: a set in parts holds as a whole and not before; parts that do not follow each other,
    or are not all, or too many, are refused, and the set that holds stays as it is.
    """
    tokens = [number.to_bytes(16) for number in range(1025)]
    hashes = tuple(map(speak.token_hash, tokens))
    async with speak.registered(relay.url, username) as (owner, _), speak.wire(relay.url) as other:

        async def reaches(*shown):
            found = []
            for token in shown:
                reply = await other.request(FetchBundle(username, None, token))
                found.append(isinstance(reply, Bundle))
            return found

        async def gives(*parts):
            return [await owner.request(AddTokens(begin, part)) for begin, part in parts]

        ends = tokens[0], tokens[300]
        assert await owner.request(SetPolicy(Policy.CONTACTS)) == Done()
        assert await owner.request(PutTokens(hashes[-1:])) == Done()
        parts = (0, hashes[:128]), (128, hashes[128:256]), (256, hashes[256:301])
        assert await gives(*parts) == [Done()] * 3
        assert await reaches(*ends, tokens[-1]) == [False, False, True]
        assert await owner.request(UseTokens(301)) == Done()
        assert await reaches(*ends, tokens[-1]) == [True, True, False]

        stale = ErrorCode.STALE
        assert (await owner.request(UseTokens(301))).code is stale
        assert [reply.code for reply in await gives((128, hashes[128:256]))] == [stale]
        assert await gives(parts[0]) == [Done()]
        assert (await owner.request(UseTokens(129))).code is stale
        assert [reply.code for reply in await gives(parts[1])] == [stale]  # the first part is gone
        assert await gives(parts[2], parts[0]) != [Done()] * 2
        many = [(begin, hashes[begin : begin + 128]) for begin in range(0, 1024, 128)]
        assert await gives(*many) == [Done()] * 8
        assert [reply.code for reply in await gives((1024, hashes[-1:]))] == [ErrorCode.BAD_REQUEST]
        assert (await owner.request(UseTokens(1024))).code is stale
        assert await reaches(*ends, tokens[-1]) == [True, True, False]


async def test_one_log_in_per_connection(relay, speak, username):
    """WIRE-06: a connection belongs to one device."""
    async with speak.registered(relay.url, username) as (client, identity):
        reply = await client.request(identity.login(client.hello))
        assert reply.code is ErrorCode.BAD_REQUEST


async def test_displaced(relay, speak, username):
    """WIRE-07: a second log-in of a device ends the first connection, which is told."""
    async with (
        speak.registered(relay.url, username) as (first, identity),
        speak.wire(relay.url) as second,
    ):
        assert await second.request(identity.login(second.hello)) == Done()
        assert await first.push() == Displaced()
        with pytest.raises(ConnectionClosed):
            await first.push()
        assert first.socket.close_code == 4001
        # The device is still logged in, on the second connection alone.
        assert await second.request(SetPolicy(Policy.EVERYONE)) == Done()


async def test_certificate(relay, speak, username):
    """Who logged in gets a sender certificate that verifies under the key of Hello."""
    async with speak.registered(relay.url, username) as (client, identity):
        reply = await client.request(FetchCertificate())
        assert isinstance(reply, Certificate)
        signed = reply.certificate
        VerifyKey(client.hello.relay_key).verify(sender_certificate_bytes(signed), signed.signature)
        certificate = decode(signed.body, SenderCertificate, limit=512)
        assert certificate.address == identity.address
        assert certificate.identity_key == bytes(identity.key.verify_key)
        assert 0 < certificate.expires - time.time() <= 86_400


async def test_media_ticket(relay, speak, username):
    """A media ticket has two different credentials and ends within a day."""
    async with speak.registered(relay.url, username) as (client, _):
        reply = await client.request(MediaTicket())
        assert isinstance(reply, Ticket)
        assert reply.a.username != reply.b.username
        assert reply.expires == int(reply.a.username.partition(":")[0])
        assert 0 < reply.expires - time.time() <= 86_460
        assert await client.request(MediaTicket()) != reply


async def test_update_device_list(relay, speak, username):
    """A device is added by the next list and removed by another; then its connection ends."""
    async with speak.registered(relay.url, username) as (client, identity):
        first = identity.device_list()
        async with speak.wire(relay.url) as anonymous:
            first = (await anonymous.request(FetchBundle(username, None, None))).bundle.device_list
        identity.devices[2] = SigningKey.generate()
        identity.records[2] = identity.record(2)
        second = identity.next_list(first)
        assert await client.request(UpdateDeviceList(second)) == Done()
        assert await client.request(UpdateDeviceList(second)) == Done()
        assert (await client.request(UpdateDeviceList(first))).code is ErrorCode.STALE
        async with speak.wire(relay.url) as other:
            assert await other.request(identity.login(other.hello, 2)) == Done()
            del identity.records[2]
            third = identity.next_list(second)
            assert await client.request(UpdateDeviceList(third)) == Done()
            assert await other.push() == Displaced()
        async with speak.wire(relay.url) as other:
            reply = await other.request(identity.login(other.hello, 2))
            assert reply.code is ErrorCode.LOGIN_FAILED


async def test_delete_account(relay, speak, username):
    """WIRE-15: a deleted account is gone, its name is nobody's, and only a deletion does that."""
    async with speak.wire(relay.url) as client:
        identity = speak.Identity(username, relay.name)
        signed = identity.device_list()
        assert await client.request(identity.register(client.hello, signed)) == Done()
        made_by = identity.register(client.hello, signed).signature
        for wrong in (bytes(64), made_by):
            reply = await client.request(DeleteAccount(wrong))
            assert reply.code is ErrorCode.BAD_REQUEST
        message = deletion_bytes(relay.name, client.hello.challenge, signed)
        signature = identity.key.sign(message).signature
        assert await client.request(DeleteAccount(signature)) == Done()
        assert (await client.request(FetchCertificate())).code is ErrorCode.NOT_LOGGED_IN
        reply = await client.request(FetchBundle(username, None, None))
        assert reply.code is ErrorCode.NOT_REACHABLE
    for person in (identity, speak.Identity(username, relay.name)):
        async with speak.wire(relay.url) as client:
            assert (await client.request(person.login(client.hello))).code is ErrorCode.LOGIN_FAILED
            reply = await client.request(person.register(client.hello))
            assert reply.code is ErrorCode.USERNAME_TAKEN


async def test_registration_closed(start_relay, speak, monkeypatch, username):
    """A relay that is closed takes nobody new."""
    relay = start_relay(environment={"RELAY__RELAY__REGISTRATION": "closed"})
    async with speak.wire(relay.url) as client:
        reply = await client.request(speak.Identity(username, relay.name).register(client.hello))
        assert reply.code is ErrorCode.REGISTRATION_CLOSED
    relay.terminate()


async def test_garbage_registration(relay, speak, username):
    """A registration whose device list is no device list changes nothing."""
    async with speak.wire(relay.url) as client:
        identity = speak.Identity(username, relay.name)
        signed = identity.device_list()
        broken = type(signed)(signed.body[:-1], signed.signature)
        message = register_bytes(relay.name, client.hello.challenge, broken)
        request = Register(username, broken, identity.key.sign(message).signature, None)
        assert (await client.request(request)).code is ErrorCode.BAD_REQUEST
        assert (await client.request(Login(username, 1, os.urandom(64)))).code is (
            ErrorCode.LOGIN_FAILED
        )
