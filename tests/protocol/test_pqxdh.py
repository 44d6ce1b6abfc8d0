"""PQXDH (spec/pqxdh.md): both sides agree exactly when they saw the same."""

from dataclasses import fields, replace

import pytest

from e2ecall.crypto.mlkem import MLKEM1024
from e2ecall.crypto.x25519 import X25519KeyPair
from e2ecall.errors import Reason
from e2ecall.protocol.pqxdh import Party, Transcript, initiator_keys, responder_keys
from relay.wire.names import Address
from relay.wire.records import PreKeyKind


class Exchange:
    """One handshake with all its keys."""

    def __init__(self, *, one_time=True):
        self.initiator_dh, self.responder_dh, self.ephemeral, self.signed_prekey = (
            X25519KeyPair.generate() for _ in range(4)
        )
        self.one_time = X25519KeyPair.generate() if one_time else None
        self.kem = MLKEM1024.generate()
        self.kem_secret, ciphertext = MLKEM1024.encapsulate(self.kem.public)
        self.transcript = Transcript(
            Party(Address("alice", "r"), 1, b"I" * 32, b"L" * 64, self.initiator_dh.public),
            Party(Address("bob", "r"), 2, b"J" * 32, b"M" * 64, self.responder_dh.public),
            3,
            self.signed_prekey.public,
            (4, self.one_time.public) if self.one_time else None,
            self.ephemeral.public,
            PreKeyKind.ONE_TIME_MLKEM1024,
            5,
            self.kem.public,
            ciphertext,
        )

    def initiate(self):
        return initiator_keys(
            self.transcript,
            identity_dh=self.initiator_dh,
            ephemeral=self.ephemeral,
            kem_secret=self.kem_secret,
        )

    def respond(self, transcript=None):
        transcript = transcript or self.transcript
        return responder_keys(
            transcript,
            identity_dh=self.responder_dh,
            signed_prekey=self.signed_prekey,
            one_time_prekey=self.one_time,
            kem_secret=MLKEM1024.decapsulate(self.kem.seed, transcript.kem_ciphertext),
        )


@pytest.mark.parametrize("one_time", [True, False])
def test_agreement(one_time):
    """PQXDH-03: both sides derive the same keys, with and without a one-time prekey."""
    exchange = Exchange(one_time=one_time)
    keys = exchange.initiate()
    assert keys == exchange.respond()
    named = (keys.root_key, keys.initiator_header_key, keys.responder_header_key)
    assert len({key.expose() for key in named}) == 3


OTHER = {
    "initiator": replace(Exchange().transcript.initiator, device_id=9),
    "responder": replace(Exchange().transcript.responder, device_list_hash=b"x" * 64),
    "signed_prekey_id": 9,
    "signed_prekey": Exchange().transcript.signed_prekey,
    "one_time_prekey": None,
    "ephemeral": Exchange().transcript.ephemeral,
    "kem_kind": PreKeyKind.LAST_RESORT_MLKEM1024,
    "kem_key_id": 9,
    "kem_key": Exchange().kem.public,
    "kem_ciphertext": Exchange().transcript.kem_ciphertext,
}


@pytest.mark.parametrize("name", [field.name for field in fields(Transcript)])
def test_everything_is_bound(name):
    """PQXDH-04: a difference in any exchanged value gives other keys and another session id."""
    exchange = Exchange()
    altered = replace(exchange.transcript, **{name: OTHER[name]})
    keys, others = exchange.initiate(), exchange.respond(altered)
    assert keys.root_key != others.root_key
    assert keys.session_id != others.session_id
    assert keys.handshake_hash != others.handshake_hash


@pytest.mark.parametrize("name", [field.name for field in fields(Party)])
def test_every_field_of_a_party_is_bound(name):
    """PQXDH-04: so does a difference in one field of a party."""
    transcript = Exchange().transcript
    other = {"address": Address("eve", "r"), "device_id": 9}.get(name, b"y" * 32)
    party = replace(transcript.initiator, **{name: other})
    assert replace(transcript, initiator=party).hash() != transcript.hash()


def test_swapped_roles():
    """PQXDH-04: the two parties have places in the transcript that cannot be swapped."""
    one = Exchange().transcript
    assert replace(one, initiator=one.responder, responder=one.initiator).hash() != one.hash()


def test_r2_reencapsulated():
    """R2: another ciphertext to the same KEM key gives other keys."""
    exchange = Exchange()
    _, ciphertext = MLKEM1024.encapsulate(exchange.kem.public)
    altered = replace(exchange.transcript, kem_ciphertext=ciphertext)
    assert exchange.respond(altered).root_key != exchange.initiate().root_key


@pytest.mark.parametrize("name", ["signed_prekey", "ephemeral"])
def test_p3_bad_points(refused, name):
    """P3: low-order points are refused on both sides."""
    exchange = Exchange()
    exchange.transcript = replace(exchange.transcript, **{name: bytes(32)})
    with refused(Reason.BAD_POINT):
        if name == "ephemeral":
            exchange.respond()
        else:
            exchange.initiate()
