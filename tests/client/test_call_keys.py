"""Keys of a call are never stored (spec/callkeys.md): what the stores hold after a real one."""

import gc

import pytest

import e2ecall
from e2ecall.io.store import RecordKind, Store
from e2ecall.protocol.call_exchange import CallerSecrets, RekeySecrets
from e2ecall.protocol.callkeys import CallKeys, EpochKeys
from e2ecall.protocol.messages import Stream
from e2ecall.secret import Secret
from tests.integration.people import ended, person, talking
from tests.integration.test_rekeying import Clock, in_epoch

pytestmark = pytest.mark.anyio


def watched(patch) -> list[bytes]:
    """Return a list that is filled with the secrets of every call of this process."""
    drawn = []
    generate, derive = CallerSecrets.generate, CallKeys.derive
    first_epoch, frame_key = CallKeys.first_epoch, EpochKeys.frame_key
    generate_shares, following = RekeySecrets.generate, EpochKeys.following

    def note(*secrets):
        drawn.extend(secret.expose() for secret in secrets)

    def noted_generate():
        secrets = generate()
        note(secrets.x25519.private, secrets.mlkem.seed, secrets.seed, secrets.nonce)
        return secrets

    def noted_derive(transcript, x25519, mlkem, seed):
        keys = derive(transcript, x25519, mlkem, seed)
        note(x25519, mlkem, keys.call_key)
        return keys

    def noted_epoch(keys):
        epoch = first_epoch(keys)
        note(epoch.secret)
        return epoch

    def noted_shares():
        secrets = generate_shares()
        note(secrets.x25519.private, secrets.mlkem.seed)
        return secrets

    def noted_following(before, rekey, reply, x25519, mlkem):
        epoch = following(before, rekey, reply, x25519, mlkem)
        note(x25519, mlkem, epoch.secret)
        return epoch

    def noted_frame_key(keys, sender, stream):
        key = frame_key(keys, sender, stream)
        note(key.base_key)
        return key

    patch.setattr(CallerSecrets, "generate", noted_generate)
    patch.setattr(CallKeys, "derive", noted_derive)
    patch.setattr(CallKeys, "first_epoch", noted_epoch)
    patch.setattr(EpochKeys, "frame_key", noted_frame_key)
    patch.setattr(RekeySecrets, "generate", noted_shares)
    patch.setattr(EpochKeys, "following", noted_following)
    return drawn


@pytest.mark.parametrize("moment", ["in_the_call", "after_it"])
async def test_no_store_holds_a_key_of_a_call(tmp_path, relay, monkeypatch, moment):
    """CALLKEY-09, CALL-16, N2: in a call and after it no record has any of its secrets."""
    drawn = watched(monkeypatch)
    records = []
    clock = Clock()
    async with (
        person(tmp_path, relay, "alice", clock=clock) as alice,
        person(tmp_path, relay, "bob", clock=clock) as bob,
    ):
        call, answered = await talking(alice, bob)
        clock.ahead += 300
        await in_epoch(1, call, answered)
        if moment == "after_it":
            await call.hangup()
            assert await ended(answered) == (e2ecall.EndReason.HANGUP, True)
        else:
            records += [
                record
                for client in (alice, bob)
                for kind in RecordKind
                for record in client._services.store.all(kind).values()
            ]
            await call.hangup()
    for name in ("alice", "bob"):
        store = await Store.open(tmp_path / f"{name}.db", Secret(f"of {name}".encode()))
        records += [record for kind in RecordKind for record in store.all(kind).values()]
        await store.aclose()
    assert len(drawn) >= 4 + 2 * (3 + 1) + 2 + 2 * 3 + 4 * len((Stream.MICROPHONE,))
    assert len(records) >= 8
    held = b"".join(records)
    assert not any(secret in held for secret in drawn)


def epochs_in_memory():
    """Return the epochs whose secrets this process has."""
    gc.collect()
    return [keys for keys in gc.get_objects() if isinstance(keys, EpochKeys)]


async def test_no_end_has_the_secret_of_a_former_epoch(people):
    """CALLKEY-16, CALL-16: when old keys are dropped, and after the call, nothing has them."""
    clock, others = Clock(), epochs_in_memory()

    def held():
        return {k.epoch for k in epochs_in_memory() if not any(k is other for other in others)}

    async with people(clock=clock) as (alice, bob):
        call, answered = await talking(alice, bob)
        assert held() == {0}
        for number in (1, 2):
            clock.ahead += 300
            await in_epoch(number, call, answered)
            clock.ahead += 10
            for end in (call, answered):
                end.on_time()
            assert held() == {number}
        await call.hangup()
        await ended(answered)
        await answered.closed.wait()
        assert held() == set()
