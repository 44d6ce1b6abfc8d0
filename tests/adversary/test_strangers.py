"""Strangers at a running relay: sweeps of names, floods, drained prekeys (spec/wire.md).

Bare connections that say what they like; the limits are small, so that a test needs few requests.
"""

import json
import os
from contextlib import asynccontextmanager

import pytest
from websockets.trio.client import connect

from relay.services.mailbox import DEVICE_CAPACITY, MAX_TRIES
from relay.wire.messages import (
    Ack,
    AddTokens,
    BoxOpened,
    Bundle,
    DeleteAccount,
    Deliver,
    Done,
    ErrorCode,
    FetchBundle,
    Login,
    OpenBox,
    Policy,
    PrekeyCounts,
    PrekeysLow,
    PrekeyStatus,
    PublishPrekeys,
    PutTokens,
    SetAside,
    SetPolicy,
    UseTokens,
)
from relay.wire.records import PreKeyKind, deletion_bytes
from tests.relay.conftest import Wire
from tests.relay.io.test_accounts_admin import ordered

pytestmark = pytest.mark.trio

X25519 = PreKeyKind.ONE_TIME_X25519
LOGIN_FAILED = "this log-in is not valid"
KEM = PreKeyKind.ONE_TIME_MLKEM1024


@pytest.fixture
def bare_relay(start_relay):
    """Start a relay that counts nothing."""
    return start_relay()


@pytest.fixture
def limited(start_relay, tmp_path):
    """Start a relay with limits."""

    def start(limits):
        config = tmp_path / "relay.toml"
        config.write_text(
            '[relay]\nname = "relay.example"\n[signalling]\nlisten = "127.0.0.1:0"\n'
            '[turn]\nlisten = "127.0.0.1:0"\nsecret = "a secret of the tests"\n'
            f"[limits]\n{limits}\n"
        )
        return start_relay("--config", config, dev=False)

    return start


@asynccontextmanager
async def contacts_only(relay, speak, name, token):
    """Give the connection of somebody whom one contact can reach, with prekeys."""
    async with speak.registered(relay.url, name) as (client, identity):
        await client.request(SetPolicy(Policy.CONTACTS))
        await client.request(PutTokens((speak.token_hash(token),)))
        yield client, identity


def fetch(name, token=None):
    return FetchBundle(name, None, token)


async def test_sweep(bare_relay, speak):
    """W3, P8, WIRE-22, WIRE-23, WIRE-51: absent, nobody, strangers refused, blocked, no name:
    the same answers, and nothing for the log.
    """
    relay, token = bare_relay, os.urandom(16)
    async with (
        contacts_only(relay, speak, "closed", token) as (closed, _),
        speak.registered(relay.url, "nobody") as (nobody, _),
        speak.wire(relay.url) as stranger,
    ):
        await nobody.request(SetPolicy(Policy.NOBODY))
        await nobody.request(PutTokens((speak.token_hash(token),)))
        assert isinstance(await stranger.request(fetch("closed", token)), Bundle)
        assert await closed.request(PutTokens(())) == Done()  # blocked, at once
        names = ("absent", "closed", "nobody", "Not A Name", "n\u00e4me", "na\0me")
        for shown in (None, token, os.urandom(16)):
            fetched = [await stranger.request(fetch(name, shown)) for name in names]
            assert fetched == [fetched[0]] * len(names)
            assert (fetched[0].code, fetched[0].retry_after) == (ErrorCode.NOT_REACHABLE, 0)
            for name in names:
                letter = speak.letter(name, b"from a stranger", token=shown)
                assert await stranger.request(letter) == Done()
                reply = await stranger.request(Login(name, 1, bytes(64)))
                assert (reply.code, reply.text) == (ErrorCode.LOGIN_FAILED, LOGIN_FAILED)
        for client in (closed, nobody):  # nothing came
            await client.request(SetPolicy(Policy.EVERYONE))
        for name, client in (("closed", closed), ("nobody", nobody)):
            await stranger.request(speak.letter(name, b"now"))
            assert await client.deliveries(1) == [b"now"]
    assert "failed" not in relay.log.read_text()


async def test_sweep_has_a_budget(limited, speak):
    """W3: names cannot be tried faster than the budget of a source, whatever the answers are."""
    relay = limited("fetches_per_address_and_minute = 3")
    async with speak.wire(relay.url) as stranger:
        codes = [(await stranger.request(fetch(f"name_{n}"))).code for n in range(5)]
    assert codes == [ErrorCode.NOT_REACHABLE] * 3 + [ErrorCode.TOO_MANY] * 2


async def test_many_networks_of_one_host(start_relay, tmp_path):
    """W3, W7, WIRE-52: who asks from one /64 after the other of a /48 has the budget of sixteen."""
    config = tmp_path / "relay.toml"
    config.write_text(
        '[relay]\nname = "relay.example"\n[signalling]\nlisten = "127.0.0.1:0"\n'
        'trusted_proxies = ["127.0.0.1"]\n'
        '[turn]\nlisten = "127.0.0.1:0"\nsecret = "a secret of the tests"\n'
        "[limits]\nfetches_per_address_and_minute = 1\n"
    )
    relay = start_relay("--config", config, dev=False)

    async def asks(address):
        headers = {"X-Forwarded-For": address}
        async with connect(relay.url, compression=None, additional_headers=headers) as socket:
            client = Wire(socket)
            await client.frame()
            return (await client.request(fetch("absent"))).code

    codes = [await asks(f"2001:db8:7:{number:x}::1") for number in range(18)]
    assert codes == [ErrorCode.NOT_REACHABLE] * 16 + [ErrorCode.TOO_MANY] * 2
    assert await asks("2001:db8:8::1") is ErrorCode.NOT_REACHABLE


async def test_squatted_and_taken_names(bare_relay, speak):
    """W3: a name that is taken is refused to another identity, also after its deletion."""
    async with speak.wire(bare_relay.url) as owner, speak.wire(bare_relay.url) as other:
        first = speak.Identity("somebody", owner.hello.relay)
        signed = first.device_list()
        assert await owner.request(first.register(owner.hello, signed)) == Done()
        identity = speak.Identity("somebody", other.hello.relay)
        reply = await other.request(identity.register(other.hello))
        assert reply.code is ErrorCode.USERNAME_TAKEN
        message = deletion_bytes(owner.hello.relay, owner.hello.challenge, signed)
        assert await owner.request(DeleteAccount(first.key.sign(message).signature)) == Done()
        for again in (identity, first):
            reply = await other.request(again.register(other.hello))
            assert reply.code is ErrorCode.USERNAME_TAKEN
        lookalike = speak.Identity("s0mebody\u0430", other.hello.relay)
        reply = await other.request(lookalike.register(other.hello))
        assert reply.code is ErrorCode.BAD_USERNAME


async def test_drained_prekeys(bare_relay, speak):
    """W5, WIRE-18: the owner of prekeys that run out is told, and last-resort keys say so."""
    async with speak.registered(bare_relay.url, "somebody") as (client, identity):
        for kind in (X25519, KEM):
            assert await client.request(PublishPrekeys(identity.one_time(kind, 10, 17))) == Done()
        async with speak.wire(bare_relay.url) as stranger:
            assert (await stranger.request(fetch("somebody"))).bundle.kem_prekey.kind is KEM
            assert await client.push() == PrekeysLow()  # 16 are left
            kinds = [
                (await stranger.request(fetch("somebody"))).bundle.kem_prekey.kind
                for _ in range(17)
            ]
        assert kinds == [KEM] * 16 + [PreKeyKind.LAST_RESORT_MLKEM1024]
        assert [await client.push() for _ in range(2)] == [PrekeysLow()] * 2  # 8, then none
        assert await client.request(PrekeyStatus()) == PrekeyCounts(0, 0)
        refill = identity.one_time(KEM, 100, 17)
        assert await client.request(PublishPrekeys(refill)) == Done()
        assert await client.request(PrekeyStatus()) == PrekeyCounts(0, 17)


async def test_drain_has_a_budget(limited, speak):
    """W5, WIRE-24: the prekeys of one account are rationed over all sources, absent names too."""
    relay = limited("fetches_per_account_and_minute = 2")
    async with speak.registered(relay.url, "somebody"):
        for name in ("somebody", "absent"):
            for asks in range(3):
                async with speak.wire(relay.url) as stranger:
                    reply = await stranger.request(fetch(name))
                    refused = getattr(reply, "code", None)
                    assert (refused is ErrorCode.TOO_MANY) is (asks == 2)
        async with speak.wire(relay.url) as stranger:
            assert (await stranger.request(fetch("another"))).code is ErrorCode.NOT_REACHABLE


async def test_boxes_have_a_budget(limited, speak):
    """W6, WIRE-47: reply boxes are rationed per source, over all of its connections."""
    relay = limited("boxes_per_address_and_hour = 3")
    replies = []
    for _ in range(5):
        async with speak.wire(relay.url) as stranger:
            replies.append(await stranger.request(OpenBox(os.urandom(32))))
    assert [isinstance(reply, BoxOpened) for reply in replies] == [True] * 3 + [False] * 2
    assert {(reply.code, reply.retry_after > 0) for reply in replies[3:]} == {
        (ErrorCode.TOO_MANY, True)
    }


async def test_changes_have_a_budget(limited, speak):
    """WIRE-48: who publishes one batch of prekeys again and again is soon refused, and may go on
    with what is no change.
    """
    relay = limited("changes_per_account_and_minute = 3")
    async with speak.registered(relay.url, "somebody") as (client, identity):  # which is one
        batch = identity.one_time(X25519, 10, 100)
        assert await client.request(PublishPrekeys(batch)) == Done()
        assert await client.request(PutTokens(())) == Done()
        for begin in range(4):
            assert await client.request(AddTokens(begin, (bytes(32),))) == Done()
        for change in (PublishPrekeys(batch), UseTokens(4), SetPolicy(Policy.NOBODY)):
            assert (await client.request(change)).code is ErrorCode.TOO_MANY
        assert await client.request(PrekeyStatus()) == PrekeyCounts(100, 0)
    async with speak.registered(relay.url, "another"):
        pass


async def test_ringing_in_a_loop(limited, speak):
    """P9, W6, WIRE-24: envelopes are rationed per token and per recipient, over all sources."""
    relay = limited("sends_per_token_and_minute = 2\nsends_per_mailbox_and_minute = 3")
    token = os.urandom(16)
    async with contacts_only(relay, speak, "somebody", token) as (client, _):
        replies = []
        for shown in (token, token, token, None, None):
            async with speak.wire(relay.url) as sender:
                letter = speak.letter("somebody", b"ring", token=shown)
                replies.append(getattr(await sender.request(letter), "code", None))
        # The third is beyond its token's budget and used up the recipient's.
        assert replies == [None, None, *[ErrorCode.TOO_MANY] * 3]
        assert await client.deliveries(2) == [b"ring", b"ring"]
        async with speak.wire(relay.url) as sender:
            assert await sender.request(speak.letter("absent", b"ring")) == Done()


async def test_envelopes_have_a_budget(limited, speak):
    """W6: envelopes of one source are rationed, over all of its connections and whoever they are
    for; what the source did before is stored.
    """
    relay = limited("sends_per_address_and_minute = 3")
    async with speak.registered(relay.url, "somebody") as (client, _):
        codes = []
        for number in range(5):
            async with speak.wire(relay.url) as sender:
                letter = speak.letter("absent" if number == 1 else "somebody", b"%d" % number)
                codes.append(getattr(await sender.request(letter), "code", None))
        assert codes == [None] * 3 + [ErrorCode.TOO_MANY] * 2
        assert await client.deliveries(2) == [b"0", b"2"]


async def test_flood_of_strangers_keeps_no_contact_away(limited, speak):
    """W6, P8, WIRE-49: beyond the budget of strangers a token still reaches who accepts contacts; a
    false one, or one for nobody, is answered the same, and goes round no budget of who accepts all.
    """
    relay = limited("sends_per_mailbox_and_minute = 1\nfetches_per_account_and_minute = 1")
    token = os.urandom(16)

    async def asked(name, shown):
        """Return the codes with which a bundle and an envelope are refused."""
        async with speak.wire(relay.url) as sender:
            letter = speak.letter(name, b"call", token=shown)
            replies = [await sender.request(fetch(name, shown)), await sender.request(letter)]
        return [getattr(reply, "code", None) for reply in replies]

    async with (
        contacts_only(relay, speak, "somebody", token) as (client, _),
        contacts_only(relay, speak, "everyone", token) as (other, _),
    ):
        await other.request(SetPolicy(Policy.EVERYONE))
        for name in ("somebody", "absent", "everyone"):
            await asked(name, None)
            assert await asked(name, None) == [ErrorCode.TOO_MANY] * 2
        assert await asked("somebody", token) == [None, None]
        assert await client.deliveries(1) == [b"call"]
        for name, shown in (("somebody", os.urandom(16)), ("absent", token)):
            assert await asked(name, shown) == [ErrorCode.NOT_REACHABLE, None]
        for shown in (token, os.urandom(16)):
            assert await asked("everyone", shown) == [ErrorCode.TOO_MANY] * 2


async def test_flooded_mailbox(bare_relay, speak):
    """W6: a mailbox takes so much of strangers and no more; its owner still reads and acknowledges,
    and then it takes mail again.
    """
    async with (
        speak.registered(bare_relay.url, "somebody") as (client, _),
        speak.wire(bare_relay.url) as sender,
    ):
        for _ in range(DEVICE_CAPACITY.of_strangers.envelopes // 50):
            ids = [await sender.send(speak.letter("somebody", b"flood")) for _ in range(50)]
            for request_id in ids:
                assert await sender.reply(request_id) == Done()
        reply = await sender.request(speak.letter("somebody", b"too much"))
        assert (reply.code, reply.retry_after > 0) == (ErrorCode.TOO_MANY, True)
        assert await client.deliveries(3) == [b"flood"] * 3
        assert await sender.request(speak.letter("somebody", b"more")) == Done()


async def test_poisonous_envelope(bare_relay, speak):
    """W6, WIRE-37, WIRE-38: an envelope over which its reader dies each time is set aside in the
    end, which its owner and the operator are told.
    """
    async with speak.registered(bare_relay.url, "somebody") as (_, identity):
        pass
    async with speak.wire(bare_relay.url) as sender:
        for envelope in (b"poison", b"good"):
            await sender.request(speak.letter("somebody", envelope))
    for _ in range(MAX_TRIES):
        async with speak.wire(bare_relay.url) as client:
            await client.request(identity.login(client.hello))
            assert (await client.push()).envelope == b"poison"
    async with speak.wire(bare_relay.url) as client:
        await client.request(identity.login(client.hello))
        assert await client.push() == SetAside(1)
        assert await client.deliveries(1) == [b"good"]
    code, said = await ordered(bare_relay, "count", "--as-json")
    assert code == 0
    counted = json.loads(said)
    assert (counted["set_aside"], counted["envelopes"], counted["accounts"]) == (1, 1, 1)
    code, said = await ordered(bare_relay, "count")
    assert (code, "set aside            1\n" in said, "somebody" in said) == (0, True, False)


async def test_replayed_and_reordered_acknowledgements(bare_relay, speak):
    """R7: acknowledging twice, in another order, or for others takes nothing away from anybody."""
    async with speak.registered(bare_relay.url, "somebody") as (client, identity):
        async with speak.wire(bare_relay.url) as sender:
            for number in range(3):
                await sender.request(speak.letter("somebody", b"%d" % number))
            assert await sender.request(Ack((1, 2, 3))) == Done()
        pushes = [await client.push() for _ in range(3)]
        assert all(isinstance(push, Deliver) for push in pushes)
        for _ in range(2):
            assert await client.request(Ack((pushes[1].delivery_id,))) == Done()
    async with speak.wire(bare_relay.url) as client:
        await client.request(identity.login(client.hello))
        assert await client.deliveries(2) == [b"0", b"2"]
