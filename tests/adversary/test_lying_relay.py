"""A relay that delivers what the policy of an account does not let in (P8)."""

import anyio
import pytest

import e2ecall
from e2ecall import EndReason, Policy
from tests.integration.people import PATIENCE, caught_up, media, person, ringing

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    """Only what happens between clients is of interest here."""
    return "trio"


async def lied_to(client, policy, **rest):
    """Have a client believe that its relay enforces this policy, which it was never told of."""
    await client._services.account.remember_policy(policy, **rest)


async def does_not_ring(caller, callee, **arguments):
    call = await caller.call(callee.address, **arguments)
    await caught_up(caller, callee)
    assert callee._calls._call is None
    assert call.sas is None  # no Ringing came
    await call.hangup()


async def test_a_relay_that_lets_everybody_through(people, tmp_path, relay):
    """P8, REACH-16: under `nobody` no call rings and under `contacts` no stranger's, also of whom a
    rule lets in, whatever the relay delivers; a contact's is a missed call.
    """
    async with people() as (alice, bob), person(tmp_path, relay, "eve") as eve:
        await bob.message(alice.address, "hello")
        await bob.allow(eve.address, audio=True, video=True)
        await lied_to(bob, Policy.CONTACTS)
        await does_not_ring(eve, bob)
        await does_not_ring(eve, bob, **media())
        call, incoming = await ringing(alice, bob)
        await incoming.decline()
        await call.closed.wait()
        await bob.clear_history()
        await lied_to(bob, Policy.NOBODY)
        for caller in (eve, alice):
            await does_not_ring(caller, bob)
        with anyio.fail_after(PATIENCE):
            while not bob.history():  # noqa: ASYNC110 - it is noted meanwhile
                await anyio.sleep(0.01)
        (missed,) = bob.history()
        assert (missed.peer, missed.reason) == (alice.address, EndReason.NO_ANSWER)
        await lied_to(bob, Policy.EVERYONE, strangers_ring=False)
        call, incoming = await ringing(eve, bob)  # whom the rule lets in
        assert isinstance(incoming, e2ecall.IncomingCall)
        await incoming.decline()
        await call.closed.wait()
