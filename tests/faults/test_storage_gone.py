"""A relay whose database is gone (spec/wire.md, Storage)."""

import resource
import sqlite3

import pytest
import trio

from relay.wire.messages import Ack, Done, ErrorCode
from tests.relay.readiness import becomes

pytestmark = pytest.mark.trio


async def test_media_goes_on(start_relay, speak, media, username, tmp_path):
    """F2: while the database cannot be written, requests are told to come again and media of a call
    that runs goes on; afterwards everything works as before.
    """
    data = tmp_path / "data"
    relay = start_relay(*media.arguments, "--data-dir", data)
    async with speak.registered(relay.url, username) as (client, _):
        with media(relay) as call:
            thief = sqlite3.connect(data / "relay.sqlite", isolation_level=None)
            try:
                thief.execute("BEGIN EXCLUSIVE")
                with trio.fail_after(30):
                    refused = await client.request(speak.letter(username))
                assert refused.code is ErrorCode.RETRY
                await trio.to_thread.run_sync(call.flows)
            finally:
                thief.close()
            assert await client.request(speak.letter(username, b"kept")) == Done()
            await trio.to_thread.run_sync(call.flows)
        assert await client.deliveries(1) == [b"kept"]
    assert relay.terminate()[0] == 0


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux")
async def test_full_disk(start_relay, speak, media, username, tmp_path):
    """F2, STORAGE-08, STORAGE-09: when the disk takes no more, mail is refused as retryable,
    `/readyz` says so and media of a call that runs goes on; what was acknowledged comes, and what
    was refused may be sent again.
    """
    data = tmp_path / "data"
    relay = start_relay(*media.arguments, "--data-dir", data)
    async with speak.registered(relay.url, username) as (_, identity):
        pass
    with media(relay) as call:
        full = max(path.stat().st_size for path in data.glob("relay.sqlite*")) + 400_000
        limits = resource.prlimit(relay.process.pid, resource.RLIMIT_FSIZE)
        async with speak.wire(relay.url) as sender:
            resource.prlimit(relay.process.pid, resource.RLIMIT_FSIZE, (full, limits[1]))
            stored, refused = 0, None
            while refused is None:
                letter = speak.letter(username, b"%03d" % stored + bytes(30_000))
                with trio.fail_after(30):
                    reply = await sender.request(letter)
                if reply == Done():
                    stored += 1
                else:
                    refused = reply
            assert refused.code is ErrorCode.RETRY
            assert 0 < stored < 100
            await trio.to_thread.run_sync(call.flows)
            # Not even into what SQLite has in its files already, nor into the log.
            resource.prlimit(relay.process.pid, resource.RLIMIT_FSIZE, (0, limits[1]))
            await becomes(relay, 503)
            await trio.to_thread.run_sync(call.flows)
            resource.prlimit(relay.process.pid, resource.RLIMIT_FSIZE, limits)
            await becomes(relay, 200)
            assert await sender.request(letter) == Done()
    async with speak.wire(relay.url) as client:
        assert await client.request(identity.login(client.hello)) == Done()
        came = await client.deliveries(stored + 1)
        assert [envelope[:3] for envelope in came] == [b"%03d" % n for n in range(stored + 1)]
    assert relay.terminate()[0] == 0


async def test_a_database_that_was_removed(start_relay, speak, media, username, tmp_path):
    """F2, STORAGE-16: where somebody removed the database under the relay, mail is refused as
    retryable, media of a call that runs goes on, and when the file is back nothing is missing.
    """
    data = tmp_path / "data"
    relay = start_relay(*media.arguments, "--data-dir", data)
    async with speak.registered(relay.url, username) as (client, _):
        assert await client.request(speak.letter(username, b"before")) == Done()
        with media(relay) as call:
            (data / "relay.sqlite").rename(data / "elsewhere")
            with trio.fail_after(30):
                refused = await client.request(speak.letter(username, b"never"))
            assert refused.code is ErrorCode.RETRY
            await trio.to_thread.run_sync(call.flows)
            (data / "elsewhere").rename(data / "relay.sqlite")
            assert await client.request(speak.letter(username, b"after")) == Done()
            await trio.to_thread.run_sync(call.flows)
        assert await client.deliveries(2) == [b"before", b"after"]
    assert relay.terminate()[0] == 0


async def test_repeated_acknowledgement(start_relay, speak, username, tmp_path):
    """F2, WIRE-33: what was acknowledged in vain is gone when the acknowledgement is repeated."""
    data = tmp_path / "data"
    relay = start_relay("--data-dir", data)
    async with speak.registered(relay.url, username) as (client, identity):
        for envelope in (b"first", b"second"):
            assert await client.request(speak.letter(username, envelope)) == Done()
        ack = Ack(((await client.push()).delivery_id,))
        thief = sqlite3.connect(data / "relay.sqlite", isolation_level=None)
        try:
            thief.execute("BEGIN EXCLUSIVE")
            with trio.fail_after(30):
                assert (await client.request(ack)).code is ErrorCode.RETRY
        finally:
            thief.close()
        assert await client.request(ack) == Done()
    async with speak.wire(relay.url) as client:
        assert await client.request(identity.login(client.hello)) == Done()
        assert await client.deliveries(1) == [b"second"]
