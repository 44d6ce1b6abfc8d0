"""Valid bytes in a context that is not theirs, and ciphers half broken (P6, R12, N3)."""

from dataclasses import replace
from itertools import combinations

import msgspec
import pytest

from e2ecall.crypto.mlkem import MLKEM768, MLKEM1024
from e2ecall.crypto.x25519 import X25519KeyPair
from e2ecall.errors import Reason, RemoteProtocolError
from e2ecall.protocol.call_table import Received, Role
from e2ecall.protocol.messages import (
    PayloadKind,
    decode_call_message,
    decode_payload,
    encode_call_message,
)
from relay.wire.codec import encode
from tests.client.devices import devices
from tests.protocol.call.conftest import NOW, Pair
from tests.protocol.test_pqxdh import Exchange
from tests.protocol.test_ratchet import Side, start

MESSAGES = [kind for kind in Received if kind not in (Received.OFFER, Received.RINGING)]


@pytest.mark.anyio
async def test_chat_is_never_a_call(tmp_path):
    """P6: neither an Offer sent as a text nor a text sent as a call message is taken for it."""
    offer = encode_call_message(Pair().offer)
    async with devices(tmp_path, "alice", "bob") as (_, alice, bob):
        await bob.receive(await alice.send(bob, b"hello"))
        with pytest.raises(RemoteProtocolError) as refused:
            await bob.receive(await alice.send(bob, offer))  # a text is UTF-8, an Offer is not
        assert refused.value.reason is Reason.MALFORMED
        opened = await bob.receive(await alice.send(bob, b"hello", kind=PayloadKind.CALL))
        with pytest.raises(RemoteProtocolError) as refused:
            decode_call_message(opened.payload.body)
        assert refused.value.reason is Reason.MALFORMED
        opened = await bob.receive(await alice.send(bob, b"and on"))
        assert (opened.payload.kind, opened.payload.body) == (PayloadKind.TEXT, b"and on")


def test_no_message_has_the_mac_of_another():
    """P6, CALLKEY-05: equal fields under another type, direction or counter have another MAC."""
    pair = Pair().run(1)
    macs = [
        pair.message(kind, sender, counter=counter).mac
        for kind in MESSAGES
        for sender in Role
        for counter in (50, 51)
    ]
    assert len(set(macs)) == len(macs) == 4 * len(MESSAGES)


def test_mac_of_one_type_under_another():
    """P6: a Cancel that was signed is no Hangup, though both say the same."""
    pair = Pair().run(5)
    cancel = pair.message(Received.CANCEL, Role.CALLER)
    forged = msgspec.structs.replace(pair.message(Received.HANGUP, Role.CALLER), mac=cancel.mac)
    with pytest.raises(RemoteProtocolError) as refused:
        pair.callee.receive(forged, NOW)
    assert refused.value.reason is Reason.BAD_MAC


@pytest.mark.parametrize("field", [2, 3, 4, 5], ids=["x25519", "mlkem", "seed", "commitment"])
def test_offer_without_a_part(field):
    """R12: an Offer that leaves out a share, the KEM key or the commitment is malformed."""
    fields = msgspec.to_builtins(Pair().offer, builtin_types=(bytes,))
    for value in (None, b"", fields[field][:-1], fields[field] + b"\0"):
        with pytest.raises(RemoteProtocolError) as refused:
            decode_call_message(encode([*fields[:field], value, *fields[field + 1 :]]))
        assert refused.value.reason is Reason.MALFORMED


def test_unknown_kinds_of_payload():
    """R12, P6: a payload of a kind that does not exist is refused, not read as another."""
    fields = [1, 1, None, None, b"body"]
    assert decode_payload(encode(fields)).kind is PayloadKind.CALL
    for kind in (0, 4, 255, None, "1", True):
        with pytest.raises(RemoteProtocolError) as refused:
            decode_payload(encode([kind, *fields[1:]]))
        assert refused.value.reason is Reason.MALFORMED


# One primitive is broken: what its secrets give alone.


def test_handshake_without_the_kem_secret():
    """N3: who has every X25519 secret of a handshake, but not ML-KEM's, has another root key."""
    exchange = Exchange()
    mine = MLKEM1024.generate()
    guess, _ = MLKEM1024.encapsulate(mine.public)
    keys = exchange.initiate()
    exchange.kem_secret = guess
    assert exchange.initiate().root_key != keys.root_key


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_handshake_without_x25519_secrets(count):
    """N3: nor does ML-KEM's secret with all but one of the X25519 private keys give it."""
    private = ("responder_dh", "signed_prekey", "one_time", "responder_dh")
    keys = Exchange()
    expected = keys.initiate()
    for names in combinations(dict.fromkeys(private), min(count, 3)):
        attacker = Exchange.__new__(Exchange)
        attacker.__dict__ |= keys.__dict__
        for name in names:
            # Another private key under the same public one: what a guess amounts to.
            known = getattr(keys, name)
            setattr(attacker, name, replace(X25519KeyPair.generate(), public=known.public))
        assert attacker.respond().root_key != expected.root_key


def test_step_without_one_of_both():
    """N3, RATCHET-03: neither the X25519 nor the ML-KEM secret of a step alone follows it."""
    one, two = start()
    two.receive(one.send())
    one.receive(two.send())
    message = one.send(b"text")
    for lost in (
        {"kem_seed": MLKEM768.generate().seed},
        {"dh_private": X25519KeyPair.generate().private},
    ):
        attacker = Side(msgspec.structs.replace(two.state, **lost))
        assert attacker.refuses(message) is Reason.NOT_AUTHENTIC
    assert two.receive(message) == b"text"
