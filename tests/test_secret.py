"""Secrets do not leak by accident (spec/threat-model.md): S4."""

import copy
import gc
import json
import pickle
import traceback

import msgspec
import pytest

from e2ecall.crypto.hpke import SealingKeyPair
from e2ecall.crypto.mlkem import MLKEM768
from e2ecall.crypto.x25519 import X25519KeyPair
from e2ecall.errors import E2ECallError
from e2ecall.io.records import Change, Record, RecordKind
from e2ecall.protocol.call_exchange import CallerSecrets
from e2ecall.protocol.callkeys import CallKeys
from e2ecall.secret import Beside, Secret
from relay.wire.messages import TurnCredential
from tests.protocol.conftest import Endpoint

VALUE = b"correct horse battery staple 32b"
SECRET = Secret(VALUE)


def shows(text: str, value: bytes = VALUE) -> bool:
    """Tell whether a text has the value in a spelling that a log would have."""
    return any(spelling in text for spelling in (repr(value)[2:-1], value.hex(), str(list(value))))


def test_the_search_finds_what_it_looks_for():
    """S4: a value that is shown is found, in each spelling."""
    for text in (f"{VALUE!r}", VALUE.hex(), str(list(VALUE)), VALUE.decode()):
        assert shows(text)


def test_text():
    """S4: neither repr, str, formatting nor a container shows the value."""
    for text in (repr(SECRET), str(SECRET), f"{SECRET}", f"{SECRET!r:>40}", "%s" % [SECRET]):
        assert "<secret>" in text
        assert not shows(text)


@pytest.mark.parametrize(
    "serialise",
    [pickle.dumps, copy.copy, copy.deepcopy, json.dumps, msgspec.json.encode, vars, hash, bytes],
)
def test_no_other_form(serialise):
    """S4: a secret cannot be pickled, copied, encoded, hashed or turned into bytes unasked."""
    with pytest.raises(TypeError) as refused:
        serialise(SECRET)
    assert not shows(str(refused.value))


def test_traceback():
    """S4: a traceback with the values of all locals shows no secret."""

    def fails(secret: Secret, state: X25519KeyPair) -> None:
        raise E2ECallError("it failed")

    with pytest.raises(E2ECallError) as caught:
        fails(SECRET, X25519KeyPair.from_private(SECRET))
    report = "".join(
        traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()
    )
    assert "<secret>" in report
    assert not shows(report.split("in fails", 1)[1])


def test_equality():
    """S4: secrets compare with secrets, and with nothing else."""
    assert Secret(VALUE) == SECRET
    assert Secret(VALUE[:-1]) != SECRET
    assert SECRET != VALUE
    assert len(SECRET) == 32


def test_states_show_no_secret():
    """S4: nothing that holds keys shows one in its repr, however deep."""
    alice, bob = Endpoint.generate("alice"), Endpoint.generate("bob")
    alice.initiate(bob)
    bob.receive(alice.send(bob, b"1"))
    alice.receive(bob.send(alice, b"2"))
    secrets = CallerSecrets.generate()
    things = [
        alice.local,
        alice.prekeys,
        alice.peers[bob.address],
        secrets,
        SealingKeyPair.generate(),
        MLKEM768.generate(),
        CallKeys.derive(bytes(64), SECRET, SECRET, SECRET).first_epoch(),
    ]
    session = alice.peers[bob.address].active.ratchet
    values = [
        alice.local.identity.to_bytes(),
        alice.local.keys.signing.seed.expose(),
        alice.local.keys.dh.private.expose(),
        session.root_key.expose(),
        session.receiving[0].chain_key.expose(),
        secrets.nonce.expose(),
        secrets.seed.expose(),
        *(key.private.expose() for key in alice.prekeys.rotated),
        *(key.expose() for key in alice.prekeys.one_time_x25519.values()),
    ]
    text = "\n".join(map(repr, things))
    assert text.count("<secret>") > 200
    assert not any(shows(text, value) for value in values)


def test_records_and_passwords_are_not_shown():
    """S4: nor do records of the store, and passwords of a relay's media service."""
    for thing in (
        Change(RecordKind.PEER, VALUE, VALUE),
        Record(RecordKind.PEER, VALUE, VALUE),
        TurnCredential("name", VALUE.decode()),
    ):
        assert not shows(repr(thing))


def test_beside_belongs_to_one_object():
    """S4: what is kept beside a secret is not found by an equal one, and goes with it."""
    kept = Beside[str]()
    one, equal = Secret(VALUE), Secret(VALUE)
    kept.put(one, "first")
    kept.put(one, "second")
    assert (kept.get(one), kept.get(equal), len(kept)) == ("second", None, 1)
    del one
    gc.collect()
    assert len(kept) == 0


def test_beside_survives_a_reused_place():
    """S4: a later secret at the same place in memory does not get what was the former's."""
    kept = Beside[int]()
    for number in range(1_000):
        secret = Secret(VALUE)
        assert kept.get(secret) is None
        kept.put(secret, number)
    assert len(kept) == 1
