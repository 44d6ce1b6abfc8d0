"""People with a client, and how a test follows what happens to them."""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

import e2ecall
from e2ecall.client.call import Call, IncomingCall
from e2ecall.testing import CollectingSink, moving_picture, speech_like_sound

PATIENCE = 30.0
"""Seconds that anything may take here; nothing waits for them to pass."""

_numbers = itertools.count(1)


def fresh(name: str) -> str:
    """Return a username that nobody has yet: one relay serves many tests."""
    return f"{name}_{next(_numbers)}"


@asynccontextmanager
async def person(folder, relay, name="alice", **options) -> AsyncIterator[e2ecall.Client]:
    """Open the client of ``name`` in ``folder``, with a fresh username at first."""
    options.setdefault("passphrase", f"of {name}")
    async with e2ecall.Client.open(folder / f"{name}.db", relay=relay.url, **options) as client:
        if not client.is_registered:
            await client.register(fresh(name))
        yield client


@asynccontextmanager
async def two_people(folder, relay, **options):
    """Open the clients of a caller and a callee at one relay."""
    async with (
        person(folder, relay, "alice", **options) as alice,
        person(folder, relay, "bob", **options) as bob,
    ):
        yield alice, bob


async def next_call(client) -> IncomingCall:
    """Return the next call that rings at ``client``."""
    with anyio.fail_after(PATIENCE):
        return await anext(client.incoming())


async def texts(client, count):
    """Return the next ``count`` texts of ``client``.

    The last of them does not count as taken, as the next one is not asked for.
    """
    taken = []
    with anyio.fail_after(PATIENCE):
        async for message in client.messages():
            taken.append(message)
            if len(taken) == count:
                break
    return taken


async def caught_up(sender, receiver):
    """Send a text and wait for it: what ``sender`` sent before that has been taken then."""
    text = f"text {next(_numbers)}"
    await sender.message(receiver.address, text)
    with anyio.fail_after(PATIENCE):
        async for message in receiver.messages():
            if message.text == text:
                return


async def until(call: Call, kind, within=PATIENCE):
    """Return the next event of this kind; those before it are dropped."""
    seen = []
    with anyio.fail_after(within):
        async for event in call.events():
            seen.append(event)
            if isinstance(event, kind):
                return event
    raise AssertionError(f"the call ended without {kind}: {seen}")


async def ended(call: Call, within=PATIENCE) -> tuple[e2ecall.EndReason, bool]:
    """Wait for the end of a call; return its reason and whether the peer brought it about."""
    event = await until(call, e2ecall.Ended, within)
    return event.reason, event.by_peer


def media(video=True):
    """Return what a person sends, and a sink for what it receives, as arguments of a call."""
    sent = {"audio": speech_like_sound(1), "output": CollectingSink()}
    return sent | ({"video": moving_picture(1)} if video else {})


async def frames(sink, stream, count):
    """Wait until this many frames of a stream came out of the decoder."""
    with anyio.fail_after(PATIENCE):
        while len(sink.of(stream)) < count:  # noqa: ASYNC110 - another thread fills the sink
            await anyio.sleep(0.01)


async def ringing(caller, callee, **arguments):
    """Place a call that rings; return both ends of it."""
    call = await caller.call(callee.address, **arguments)
    return call, await next_call(callee)


async def talking(caller, callee, **arguments):
    """Place a call, have it accepted with sound, and wait until both ends are connected."""
    call, incoming = await ringing(caller, callee, **arguments)
    answered = await incoming.accept(**media(video=False))
    await until(call, e2ecall.Connected)
    await until(answered, e2ecall.Connected)
    return call, answered
