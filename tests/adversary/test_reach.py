"""Strangers, blocked people and invitations between real clients at a real relay."""

import anyio
import pytest

import e2ecall
from e2ecall.protocol.invitation import InvitationLink
from relay.wire.messages import Policy
from tests.integration.people import media, next_call, person, ringing, texts, two_people

pytestmark = pytest.mark.anyio

QUIET = 1.0
"""Seconds for which nothing may ring: far longer than a ring takes to come."""


@pytest.fixture
def anyio_backend():
    """Only what happens between clients is of interest here."""
    return "trio"


async def rings(client):
    """Tell whether a call rings."""
    with anyio.move_on_after(QUIET):
        await anext(client.incoming())
        return True
    return False


@pytest.mark.parametrize("policy", [Policy.CONTACTS, Policy.NOBODY])
async def test_stranger(tmp_path, relay, policy):
    """P8: a stranger cannot call who lets only contacts, or nobody; nothing rings, and the answer
    is the one for a name that does not exist.
    """
    async with two_people(tmp_path, relay) as (alice, bob):
        await bob.set_policy(policy)
        said = []
        for name in (bob.address, "nobody_of_this_name"):
            with pytest.raises(e2ecall.NotReachableError) as caught:
                await alice.call(name)
            said.append((str(caught.value), caught.value.hint))
        assert said[0] == said[1]
        assert not await rings(bob)


async def test_blocked(tmp_path, relay):
    """P8, REACH-05: who is blocked rings no more from the next moment on, with a session and a
    token that were good before, and is told nothing.
    """
    async with two_people(tmp_path, relay) as (alice, bob):
        await bob.set_policy(Policy.CONTACTS)
        await bob.message(alice.address, "hello")
        await texts(alice, 1)
        call, incoming = await ringing(alice, bob)
        await incoming.decline()
        await call.hangup()
        await bob.block(alice.address)
        await alice.message(bob.address, "can you see this?")
        late = await alice.call(bob.address)
        assert not await rings(bob)
        await late.hangup()
        await bob.unblock(alice.address)
        await bob.message(alice.address, "again")
        assert (await texts(alice, 2))[1].text == "again"
        await alice.message(bob.address, "and now?")
        (text,) = await texts(bob, 1)
        assert text.text == "and now?"


async def test_first_call_waits(tmp_path, relay):
    """REACH-06, P8: where first calls wait, a stranger's does not ring and is seen as a request;
    who was answered once rings.
    """
    async with two_people(tmp_path, relay) as (alice, bob):
        await bob.set_policy(Policy.EVERYONE, strangers_ring=False)
        call = await alice.call(bob.address)
        assert not await rings(bob)
        await call.hangup()
        (contact,) = bob.contacts()
        assert (contact.address, contact.is_request) == (alice.address, True)
        await bob.message(alice.address, "who are you?")
        assert not bob.contacts()[0].is_request
        call, incoming = await ringing(alice, bob)
        await incoming.decline()
        await call.hangup()


async def test_invitation(tmp_path, relay):
    """REACH-07, REACH-09, REACH-10: an invitation opens the way to who lets only contacts in, for
    one person; both can call then, and the second who has the link stays outside.
    """
    async with (
        two_people(tmp_path, relay) as (alice, bob),
        person(tmp_path, relay, "carol") as carol,
    ):
        await bob.set_policy(Policy.CONTACTS)
        link = await bob.invite(days=1)
        with pytest.raises(e2ecall.LocalProtocolError, match="your own"):
            await bob.accept_invitation(link)
        assert await alice.accept_invitation(link) == bob.address
        await alice.message(bob.address, "thank you")
        assert (await texts(bob, 1))[0].text == "thank you"
        call, incoming = await ringing(alice, bob)
        await incoming.decline()
        await call.hangup()
        call = await bob.call(alice.address, **media(video=False))
        await (await next_call(alice)).decline()
        await call.hangup()
        # The relay may still know the token: it is alice's, and shown by carol it opens nothing.
        try:
            await carol.accept_invitation(link)
            call = await carol.call(bob.address)
        except e2ecall.NotReachableError:
            call = None
        assert not await rings(bob)
        if call is not None:
            await call.hangup()
        (known,) = [other for other in bob.contacts() if not other.is_request]
        assert known.address == alice.address


async def test_a_link_that_is_no_good(tmp_path, relay):
    """REACH-18: who opens a used link once more keeps the token that works; where that was taken
    back, a new link lets them in.
    """
    async with two_people(tmp_path, relay) as (alice, bob):
        await bob.set_policy(Policy.CONTACTS)
        good = InvitationLink.decode(await bob.invite(days=1))
        await alice.accept_invitation(good.encode())
        used = InvitationLink(good.address, bytes(16), good.expires, good.fingerprint)
        with pytest.raises(e2ecall.NotReachableError):
            await alice.accept_invitation(used.encode())
        await alice.message(bob.address, "still here")
        assert (await texts(bob, 1))[0].text == "still here"
        await bob.block(alice.address)
        await bob.unblock(alice.address)
        await alice.accept_invitation(await bob.invite(days=1))
        await alice.message(bob.address, "here again")
        assert (await texts(bob, 2))[1].text == "here again"


async def test_report(tmp_path, start_relay):
    """REACH-11: a report tells the abuse contact what the user chose of a conversation, nobody
    else, and nothing more.
    """
    relay = start_relay(environment={"RELAY__RELAY__ABUSE_CONTACT": "abuse"})
    async with (
        two_people(tmp_path, relay) as (alice, bob),
        e2ecall.Client.open(tmp_path / "abuse.db", passphrase="x", relay=relay.url) as abuse,
    ):
        await abuse.register("abuse")
        for text in ("harmless", "a threat"):
            await bob.message(alice.address, text)
        received = [message.text for message in await texts(alice, 2)]
        to = await alice.report(bob.address, messages=received[1:], note="please look")
        assert to == abuse.address
        (told,) = await texts(abuse, 1)
        assert told.sender == alice.address
        for part in (bob.address, alice.fingerprint(bob.address), "a threat", "please look"):
            assert part in told.text
        assert "harmless" not in told.text
        with pytest.raises(e2ecall.LocalProtocolError, match="takes reports"):
            await alice.report(abuse.address)
        with pytest.raises(e2ecall.LocalProtocolError, match="own"):
            await abuse.report(bob.address)


async def test_report_lets_nobody_in(tmp_path, start_relay):
    """REACH-01, REACH-11, P8: who takes a report can write to the user no more than any stranger,
    until the user writes to them.
    """
    relay = start_relay(environment={"RELAY__RELAY__ABUSE_CONTACT": "abuse"})
    async with (
        two_people(tmp_path, relay) as (alice, bob),
        e2ecall.Client.open(tmp_path / "abuse.db", passphrase="x", relay=relay.url) as abuse,
    ):
        await abuse.register("abuse")
        await alice.set_policy(Policy.CONTACTS)
        await alice.report(bob.address)
        await texts(abuse, 1)
        await abuse.message(alice.address, "call us")
        await alice.message(abuse.address, "what is it?")
        await texts(abuse, 2)
        await abuse.message(alice.address, "thank you")
        assert [message.text for message in await texts(alice, 1)] == ["thank you"]


async def test_nobody_takes_reports(tmp_path, relay):
    """REACH-11: where no abuse contact is named the user is told so, and nothing is sent."""
    async with two_people(tmp_path, relay) as (alice, bob):
        with pytest.raises(e2ecall.LocalProtocolError, match="takes reports"):
            await alice.report(bob.address, note="please look")
        assert bob.contacts() == ()


async def test_invitation_for_somebody_else(tmp_path, relay):
    """REACH-09, R5: an invitation whose identity is not the one that the relay serves is refused
    before anything is sent.
    """
    async with two_people(tmp_path, relay) as (alice, bob):
        link = InvitationLink.decode(await bob.invite())
        forged = InvitationLink(link.address, link.token, link.expires, bytes(64))
        with pytest.raises(e2ecall.IdentityChangedError):
            await alice.accept_invitation(forged.encode())
        for days in (0, 31):
            with pytest.raises(e2ecall.LocalProtocolError, match="days"):
                await bob.invite(days=days)
