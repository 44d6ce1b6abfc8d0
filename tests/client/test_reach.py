"""Tokens that rotate and invitations (spec/reach.md), between devices with real stores."""

from hashlib import sha256

import anyio
import pytest

from e2ecall.client.people import People
from e2ecall.client.reach import GRACE, ROTATION, Told
from e2ecall.errors import (
    IdentityChangedError,
    LocalProtocolError,
    Reason,
    RemoteProtocolError,
)
from e2ecall.io.store import RecordKind
from e2ecall.protocol.invitation import InvitationLink
from e2ecall.protocol.messages import PayloadKind
from relay.wire.limits import MAX_INVITATIONS
from tests.client.devices import DAY, HOUR, Impostor, devices

pytestmark = pytest.mark.anyio


def token_of(bob, carol):
    """Return the token with which bob reaches carol."""
    return bob.sessions.contacts.get(carol.address).token


def good(device):
    return device.sessions.reach.token_hashes()


async def take_up(device, inviter, link):
    """Send what takes an invitation up."""
    await device.sessions.begin_invited(link)
    return await device.send(inviter, link.token, kind=PayloadKind.INTRODUCTION)


async def test_rotation(tmp_path):
    """REACH-01, REACH-03, REACH-04: after a week the contact gets another token, once the relay
    knows it, and the one before stays good until the next.
    """
    async with devices(tmp_path, "bob", "carol") as (place, bob, carol):
        await bob.receive(await carol.send(bob, b"hello"))
        first = token_of(bob, carol)
        seen = [first]
        for _ in range(3):
            place.now += ROTATION
            for device in (bob, carol):
                await device.maintain()
            await carol.receive(await bob.send(carol, b"I am here"))
            await carol.sessions.rotate_tokens()
            assert len(good(carol)) == 2
            # The relay has not confirmed it: nobody is told.
            await bob.receive(await carol.send(bob, b"early"))
            assert token_of(bob, carol) == seen[-1]
            await carol.sessions.tokens_published()
            await bob.receive(await carol.send(bob, b"now"))
            seen.append(token_of(bob, carol))
            assert [sha256(token).digest() for token in (seen[-1], seen[-2])] == list(good(carol))
            await bob.receive(await carol.send(bob, b"once"))
        assert len(set(seen)) == 4
        assert carol.sessions.reach.get(str(bob.address)).told is Told.TOLD


async def test_a_token_that_never_left(tmp_path):
    """REACH-04: an envelope that did not leave told nobody: the next one carries the token too,
    and when one was stored no more do.
    """
    async with devices(tmp_path, "bob", "carol") as (place, bob, carol):
        for _ in range(2):
            lost = await carol.seal(bob, b"lost")
            assert sha256(lost.tells).digest() in good(carol)
        await carol.reopen()
        envelope = await carol.send(bob, b"and this one was stored")
        await bob.receive(envelope)
        assert token_of(bob, carol) == lost.tells
        assert (await carol.seal(bob, b"more")).tells is None
        await carol.receive(await bob.send(carol, b"hello"))
        place.now += ROTATION
        for device in (bob, carol):
            await device.maintain()
        await carol.receive(await bob.send(carol, b"I am here"))
        await carol.sessions.rotate_tokens()
        await carol.sessions.tokens_published()
        lost = await carol.seal(bob, b"lost again")
        assert lost.tells not in {None, token_of(bob, carol)}
        assert (await carol.seal(bob, b"again")).tells == lost.tells


async def test_no_rotation_for_the_absent(tmp_path):
    """REACH-03: a contact that is not heard keeps both tokens, however long that is."""
    async with devices(tmp_path, "bob", "carol") as (place, bob, carol):
        await bob.receive(await carol.send(bob, b"hello"))
        for _ in range(3):
            place.now += ROTATION
            await carol.sessions.rotate_tokens()
            await carol.sessions.tokens_published()
        assert good(carol) == (sha256(token_of(bob, carol)).digest(),)


async def test_invitation(tmp_path):
    """REACH-07, REACH-09, REACH-10: who takes an invitation up is a contact, its token theirs and
    soon replaced; both can reach each other.
    """
    async with devices(tmp_path, "bob", "carol") as (place, bob, carol):
        link = InvitationLink.decode((await carol.sessions.invite(DAY)).encode())
        (told,) = carol.sessions.reach.invitations()
        assert (told.hash, told.expires) == (sha256(link.token).digest(), int(place.now) + DAY)
        assert link.token not in b"".join(carol.store.all(RecordKind.INVITATION).values())
        await carol.receive(await take_up(bob, carol, link))
        assert carol.sessions.reach.invitations() == ()
        assert good(carol) == (told.hash,)
        assert not carol.sessions.contacts.get(bob.address).is_stranger
        await carol.sessions.rotate_tokens()
        await carol.sessions.tokens_published()
        await bob.receive(await carol.send(bob, b"welcome"))
        assert token_of(bob, carol) != link.token
        assert sha256(token_of(carol, bob)).digest() in good(bob)


async def test_second_use(tmp_path):
    """REACH-10: the link says nothing to the second who shows it, nor when it is sent again."""
    async with devices(tmp_path, "bob", "carol", "dave") as (_, bob, carol, dave):
        link = await carol.sessions.invite(DAY)
        late = await take_up(dave, carol, link)
        await carol.receive(await take_up(bob, carol, link))
        before = carol.store.all(RecordKind.CONTACT)
        for envelope in (late, await bob.send(carol, link.token, kind=PayloadKind.INTRODUCTION)):
            with pytest.raises(RemoteProtocolError) as caught:
                await carol.receive(envelope)
            assert caught.value.reason is Reason.EXPIRED
        assert carol.store.all(RecordKind.CONTACT) == before


async def test_bad_introductions(tmp_path):
    """REACH-10: an unproven sender takes nothing up, nor does what is no token."""
    async with devices(tmp_path, "bob", "carol") as (place, bob, carol):
        link = await carol.sessions.invite(DAY)
        impostor = Impostor(place, "bob").send(carol, link.token, kind=PayloadKind.INTRODUCTION)
        short = await bob.send(carol, b"short", kind=PayloadKind.INTRODUCTION)
        for envelope in (impostor, short):
            with pytest.raises(RemoteProtocolError):
                await carol.receive(envelope)
        assert len(carol.sessions.reach.invitations()) == 1
        assert good(carol) == ()


async def test_what_waited(tmp_path):
    """REACH-09, REACH-10: an expired link is not taken up; what came in time counts for a day."""
    async with devices(tmp_path, "bob", "carol", "dave") as (place, bob, carol, dave):
        links = [await carol.sessions.invite(60) for _ in range(2)]
        waiting = await take_up(bob, carol, links[0])
        place.now += 60
        with pytest.raises(LocalProtocolError, match="expired"):
            await dave.sessions.begin_invited(links[1])
        place.now += 3600
        await carol.receive(waiting)
        place.now += GRACE - 3600
        for device in (dave, carol):
            await device.maintain()
        late = await dave.send(carol, links[1].token, kind=PayloadKind.INTRODUCTION)
        with pytest.raises(RemoteProtocolError) as caught:
            await carol.receive(late)
        assert caught.value.reason is Reason.EXPIRED


async def test_another_identity(tmp_path):
    """REACH-09, R5: a relay that serves another identity than the invitation's is found out."""
    async with devices(tmp_path, "bob", "carol") as (place, bob, carol):
        link = await carol.sessions.invite(DAY)
        forged = InvitationLink(link.address, link.token, link.expires, bytes(64))
        with pytest.raises(IdentityChangedError):
            await take_up(bob, carol, forged)
        assert bob.sessions.identity_key(carol.address) is None
        assert place.fetches == 1


async def test_invitation_of_somebody_known(tmp_path):
    """REACH-09: an invitation with another identity than the known one is refused at once."""
    async with devices(tmp_path, "bob", "carol") as (place, bob, carol):
        await carol.receive(await bob.send(carol, b"hello"))
        link = await carol.sessions.invite(DAY)
        fetches = place.fetches
        with pytest.raises(IdentityChangedError):
            await bob.sessions.begin_invited(
                InvitationLink(link.address, link.token, link.expires, bytes(64))
            )
        await bob.sessions.begin_invited(link)
        assert place.fetches == fetches


async def test_a_second_invitation_takes_no_pin_away(tmp_path):
    """REACH-09, R5: nor does a second link with another identity than the first one's."""
    async with devices(tmp_path, "bob", "carol") as (_, bob, carol):
        link = await carol.sessions.invite(DAY)
        await bob.sessions.begin_invited(link)
        before = bob.store.all(RecordKind.REACH)
        with pytest.raises(IdentityChangedError):
            await bob.sessions.begin_invited(
                InvitationLink(link.address, link.token, link.expires, bytes(64))
            )
        assert bob.store.all(RecordKind.REACH) == before
        await bob.sessions.begin_invited(await carol.sessions.invite(DAY))


async def test_a_token_told_meanwhile(tmp_path):
    """REACH-18: a link's token takes the place of the one that was known before, and of none that
    its owner told while the link was taken up.
    """
    async with devices(tmp_path, "bob", "carol") as (_, bob, carol):
        await bob.receive(await carol.send(bob, b"hello"))
        before, links = token_of(bob, carol), [await carol.sessions.invite(DAY) for _ in range(2)]
        assert await bob.sessions.begin_invited(links[0]) == before == token_of(bob, carol)
        await bob.sessions.use_invited(links[0], before)
        assert token_of(bob, carol) == links[0].token
        await bob.sessions.use_invited(links[1], before)
        assert token_of(bob, carol) == links[0].token


async def test_a_token_that_was_held_back(tmp_path):
    """REACH-19: a message that is held back brings no token back that was revoked since."""
    async with devices(tmp_path, "bob", "carol") as (place, bob, carol):
        people = People(carol.store, carol.account, carol.sessions)
        held = await carol.send(bob, b"with a first token")
        for blocked in (True, False):
            await people.block(bob.address, blocked=blocked)
        place.now += HOUR
        await bob.receive(await carol.send(bob, b"with another one"))
        token = carol.sessions.contacts.get(bob.address).given_token
        assert bob.sessions.contacts.get(carol.address).token == token
        await bob.receive(held)
        assert bob.sessions.contacts.get(carol.address).token == token


async def test_a_token_of_a_clock_that_was_ahead(tmp_path):
    """REACH-19: a token whose sender's clock was ahead is replaced by the next one all the same."""
    async with devices(tmp_path, "bob", "carol") as (place, bob, carol):
        people, ahead = People(carol.store, carol.account, carol.sessions), [5 * DAY]
        carol.sessions._clock = lambda: place.now + ahead[0]
        await bob.receive(await carol.send(bob, b"from the future"))
        ahead[0] = 0
        for blocked in (True, False):
            await people.block(bob.address, blocked=blocked)
        place.now += 1
        await bob.receive(await carol.send(bob, b"from now"))
        token = carol.sessions.contacts.get(bob.address).given_token
        assert bob.sessions.contacts.get(carol.address).token == token


async def test_open_invitations_are_bounded(tmp_path):
    """REACH-07: 32 invitations are open at most; those that are over make room."""
    async with devices(tmp_path, "carol") as (place, carol):
        for _ in range(MAX_INVITATIONS):
            await carol.sessions.invite(DAY)
        with pytest.raises(LocalProtocolError, match="open"):
            await carol.sessions.invite(DAY)
        place.now += DAY + GRACE
        await carol.sessions.invite(DAY)
        assert len(carol.sessions.reach.invitations()) == 1


async def test_an_invitation_and_another_identity_at_once(tmp_path):
    """REACH-09: an identity that is met while the invitation is taken up is compared as well."""
    async with devices(tmp_path, "bob", "carol") as (place, bob, carol):
        link = await carol.sessions.invite(DAY)
        mallory = Impostor(place, "carol")
        mallory.certified_by(place.key)
        first = mallory.send(bob, b"it is me, carol")
        refused = []

        async def accept():
            try:
                await bob.sessions.begin_invited(link)
            except IdentityChangedError as error:
                refused.append(error)

        async with anyio.create_task_group() as tasks, bob.account.lock:
            tasks.start_soon(bob.receive, first)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(accept)
            await anyio.wait_all_tasks_blocked()
        assert bob.sessions.identity_key(carol.address) is not None
        assert len(refused) == 1
        assert bob.sessions.contacts.get(carol.address).token != link.token
