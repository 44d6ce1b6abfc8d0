"""What an account has signed with dates that no relay takes (any more): by a clock that was ahead,
or weeks ago (spec/identity.md, spec/prekeys.md; decision 0057).
"""

from contextlib import asynccontextmanager

import pytest

from e2ecall.errors import ConnectionFailedError, RelayError
from e2ecall.io.store import RecordKind
from relay.wire.messages import Register
from tests.client.devices import DAY, HOUR, RELAY, Connection, Device, Directory, devices

pytestmark = pytest.mark.anyio


class AnswerLost(Connection):
    """A connection that breaks when the relay has carried out a registration."""

    def __init__(self, directory, username):
        super().__init__(directory, username)
        ask = self.request

        async def request(body, kind):
            reply = await ask(body, kind)
            if isinstance(body, Register):
                raise ConnectionFailedError("the connection broke")
            return reply

        self.request = request


@asynccontextmanager
async def unregistered(folder):
    """Open a device that has no account yet; yields the directory and it."""
    place = Directory()
    bob = Device(place, "bob", folder / "bob.db")
    await bob.open()
    try:
        yield place, bob
    finally:
        await bob.store.aclose()


@pytest.mark.parametrize("arrived", [False, True], ids=["request-lost", "answer-lost"])
async def test_a_registration_that_is_taken_up_weeks_later(tmp_path, arrived):
    """IDENTITY-18: a registration that broke off is taken up with the same keys when its device
    list has expired, whether the relay had heard of it or not.
    """
    async with unregistered(tmp_path) as (place, bob):
        place.lost = set() if arrived else {Register}
        await bob.account.begin_registration("bob", RELAY)
        with pytest.raises(ConnectionFailedError):
            await bob.account.prepare(AnswerLost(place, "bob"))
        identity = bob.account.local.identity.public
        assert ("bob" in place.accounts) is arrived
        place.lost = set()
        place.now += 30 * DAY
        await bob.reopen()
        await bob.register()
        device_list = place.accounts["bob"].device_list
        assert device_list.identity_key == bob.account.local.identity.public == identity
        assert (device_list.version, device_list.expires > place.now) == (1 + arrived, True)


async def test_a_registration_by_a_clock_that_was_ahead(tmp_path):
    """IDENTITY-18, IDENTITY-19: a first list that no relay took is signed anew by a right clock."""
    async with unregistered(tmp_path) as (place, bob):
        bob.account._clock = lambda: place.now + 30 * DAY
        with pytest.raises(RelayError, match="expiry"):
            await bob.register()
        identity = bob.account.local.identity.public
        bob.account._clock = place.clock
        await bob.register()
        assert place.accounts["bob"].device_list.identity_key == identity


async def test_an_account_whose_clock_was_ahead(tmp_path):
    """IDENTITY-19, PREKEYS-13: what was signed while the clock was ahead, and the relay refuses, is
    signed anew once the clock is right; the account is not shut out until then.
    """
    async with devices(tmp_path, "alice", "bob") as (place, alice, bob):
        ahead = [400 * DAY]
        bob.account._clock = bob.sessions._clock = lambda: place.now + ahead[0]
        await bob.sessions.forget_expired()
        with pytest.raises(RelayError, match="expiry"):
            await bob.maintain()
        ahead[0] = 0
        place.now += HOUR
        await bob.maintain()
        assert place.accounts["bob"].device_list.version == 3
        assert bob.store.get(RecordKind.PREKEYS, b"unpublished") is None
        place.now += 2 * DAY
        await bob.maintain()
        assert place.bundle("bob").sealing_key == bob.account.prekeys.sealing_key
        await alice.maintain()

        async def fetch(_address, _token):
            # Of one-time keys the private halves went with the clock that was ahead.
            return place.bundle("bob", one_time=False)

        assert (await bob.receive(await alice.send(bob, b"hello", fetch=fetch))).proven


async def test_a_certificate_that_a_clock_was_ahead_for(tmp_path):
    """IDENTITY-09: a clock that is set back does not keep a certificate that expires meanwhile."""
    async with devices(tmp_path, "alice", "bob") as (place, alice, bob):
        ahead = [20 * HOUR]
        bob.account._clock = lambda: place.now + ahead[0]
        await bob.maintain()
        ahead[0] = 0
        for _ in range(3):
            place.now += 10 * HOUR
            await bob.maintain()
        assert (await alice.receive(await bob.send(alice, b"hello"))).proven


@pytest.mark.parametrize("retry_after", [0, 7])
async def test_a_refused_list(tmp_path, retry_after):
    """IDENTITY-19: a list that is refused for another reason is not signed anew."""
    async with devices(tmp_path, "bob") as (_, bob):

        async def refusing(_body, _kind, /):
            raise RelayError("no", retry_after=retry_after)

        with pytest.raises(RelayError, match="no"):
            await bob.account.maintain(refusing)
        assert bob.account.local.verified_list.body.version == 1
