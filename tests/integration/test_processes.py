"""Calls between processes, some of which die; each end runs on trio or on asyncio."""

from contextlib import AsyncExitStack

import anyio
import pytest

from e2ecall.testing import running_relay
from tests.integration.people import PATIENCE, fresh
from tests.integration.processes import peer_process

LOOPS = (("trio", "asyncio"), ("asyncio", "trio"))
NOTICE = 15.0
"""Seconds within which an end learns that the other, or the relay, is gone."""
END = 60.0
"""Seconds more until it says that the call is over, on a busy machine."""


async def two_peers(stack, folder, url, loops):
    """Start a caller and a callee, each on its own loop, and register them."""
    peers = []
    for name, loop in zip(("caller", "callee"), loops, strict=True):
        store = folder / f"{name}-{loop}.db"
        peers.append(await stack.enter_async_context(peer_process(loop, store, url)))
    for peer, name in zip(peers, ("alice", "bob"), strict=True):
        await peer.event("open")
        peer.address = (await peer.do("register", name=fresh(name)))["address"]
    return peers


async def connect(caller, callee, *, video):
    """Have the caller call, the callee accept, and wait until both are connected."""
    assert (await caller.do("call", to=callee.address, video=video))["event"] == "done"
    assert (await callee.event("incoming"))["caller"] == caller.address
    assert (await callee.do("accept", video=video))["event"] == "done"
    for peer in (caller, callee):
        await peer.event("Connected")


@pytest.mark.trio
@pytest.mark.parametrize("loops", LOOPS, ids="-".join)
async def test_full_call_between_three_processes(tmp_path, relay, loops):
    """A text and a call with sound and picture both ways, between a client on each loop."""
    async with AsyncExitStack() as stack:
        caller, callee = await two_peers(stack, tmp_path, relay.url, loops)
        await caller.do("message", to=callee.address, text="I will call you")
        assert (await callee.event("text"))["text"] == "I will call you"
        await connect(caller, callee, video=True)
        codes = [(await peer.event("Sas"))["emoji"] for peer in (caller, callee)]
        assert codes[0] == codes[1]
        for peer in (caller, callee):
            await peer.event("FirstVideo")
            with anyio.fail_after(PATIENCE):
                while min((await peer.do("stats"))["frames"]) < 10:  # noqa: ASYNC110 - a process
                    await anyio.sleep(0.05)
        await caller.do("hangup")
        ends = [await peer.event("Ended") for peer in (caller, callee)]
        assert [end["reason"] for end in ends] == ["hangup", "hangup"]
        assert [end["by_peer"] for end in ends] == [False, True]
        assert [await peer.close() for peer in (caller, callee)] == [0, 0]


@pytest.fixture(scope="module")
def deaths(tmp_path_factory, relay):
    """Live through two deaths at once, as each takes its time to be noticed.

    Gives, for each, the Ended events of the survivors, and the exit codes of their processes, which
    close their clients then.
    """
    found = {}

    async def caller_killed(folder):
        async with AsyncExitStack() as stack:
            pairs = [await two_peers(stack, folder, relay.url, loops) for loops in LOOPS]
            for caller, callee in pairs:
                await connect(caller, callee, video=False)
            for caller, _ in pairs:
                await caller.kill()
            survivors = [callee for _, callee in pairs]
            ends = await until_ended(survivors)
            await connect(*survivors, video=False)  # they can call each other
            found["caller"] = ends, [await survivor.close() for survivor in survivors]

    async def relay_killed(folder):
        async with AsyncExitStack() as stack, running_relay() as other:
            peers = await two_peers(stack, folder, other.url, LOOPS[0])
            await connect(*peers, video=False)
            await other.kill()
            ends = await until_ended(peers)
            found["relay"] = ends, [await peer.close() for peer in peers]

    async def both():
        async with anyio.create_task_group() as tasks:
            for death in (caller_killed, relay_killed):
                tasks.start_soon(death, tmp_path_factory.mktemp(death.__name__))

    anyio.run(both, backend="trio")
    return found


async def until_ended(peers):
    """Wait until each has noticed, and then until each has ended; return the Ended events."""
    with anyio.fail_after(NOTICE):
        for peer in peers:
            await peer.event("Reconnecting", within=NOTICE)
    return [await peer.event("Ended", within=END) for peer in peers]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("died", ["caller", "relay"])
def test_sudden_death(deaths, died):
    """MEDIA-40, CALL-46: if the caller's process or the relay is killed in a call, who is left is
    told within 15 s that the path is lost, and 30 s after the last sound that the call is over.

    Survivors can go on: after the caller's death they place a call, and they close cleanly.
    """
    ends, codes = deaths[died]
    for end in ends:
        assert (end["reason"], end["by_peer"]) == ("connection_lost", False)
    assert codes == [0, 0]


@pytest.mark.trio
async def test_killed_while_it_rings(tmp_path, relay):
    """A callee that is killed while it rings is called again on the same store after a restart."""
    async with AsyncExitStack() as stack:
        caller, callee = await two_peers(stack, tmp_path, relay.url, LOOPS[0])
        await caller.do("call", to=callee.address, video=False)
        await callee.event("incoming")
        await callee.kill()
        await caller.do("hangup")
        assert (await caller.event("Ended"))["reason"] == "cancelled"
        again = peer_process("trio", tmp_path / "callee-asyncio.db", relay.url)
        reopened = await stack.enter_async_context(again)
        assert (await reopened.event("open"))["registered"]
        reopened.address = callee.address
        await connect(caller, reopened, video=False)


@pytest.mark.trio
async def test_killed_after_receiving(tmp_path, relay):
    """S2, INBOX-03: a kill loses no text that arrived, and repeats at most the one being taken."""
    async with AsyncExitStack() as stack:
        sender, recipient = await two_peers(stack, tmp_path, relay.url, LOOPS[1])
        for number in range(3):
            await sender.do("message", to=recipient.address, text=str(number))
        await recipient.event("text")
        await recipient.kill()
        before = ["0"] + [event["text"] for event in await recipient.rest("text")]
        await sender.do("message", to=recipient.address, text="3")
        again = peer_process("asyncio", tmp_path / "callee-trio.db", relay.url)
        reopened = await stack.enter_async_context(again)
        after = []
        while "3" not in after:
            after.append((await reopened.event("text"))["text"])
        if after[0] == before[-1]:
            before.pop()
        assert before + after == ["0", "1", "2", "3"]
        await reopened.do("message", to=sender.address, text="and back")
        assert (await sender.event("text"))["text"] == "and back"


@pytest.mark.trio
async def test_store_in_use(tmp_path, relay):
    """S3: a second process on the same store is refused and says why; the first goes on."""
    async with AsyncExitStack() as stack:
        first, friend = await two_peers(stack, tmp_path, relay.url, LOOPS[0])
        store = tmp_path / "caller-trio.db"
        second = await stack.enter_async_context(peer_process("trio", store, relay.url))
        error = await second.event("error", "open")
        assert (error["event"], error["kind"]) == ("error", "StoreError")
        assert "in use by another program" in error["text"]
        assert await second.process.wait() == 1
        await first.do("message", to=friend.address, text="still here")
        assert (await friend.event("text"))["text"] == "still here"
