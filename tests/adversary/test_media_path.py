"""Whoever tries to get media early, past the relay, or under another key (attacks P1, R8, R10)."""

import time

import anyio
import msgspec
import pytest

import e2ecall
from e2ecall import EndReason
from e2ecall.protocol.call import Call
from e2ecall.protocol.call_table import Role
from e2ecall.protocol.callkeys import FrameKey, MediaKeys
from e2ecall.protocol.messages import Candidate, CandidateType, Stream
from e2ecall.secret import Secret
from e2ecall.testing import running_relay
from tests.adversary.captured import datagrams
from tests.integration.people import ended, media, ringing, two_people, until

pytestmark = pytest.mark.anyio

STRAY = {
    "host": Candidate(CandidateType.HOST, "198.18.0.1", 50_000),
    "outside": Candidate(CandidateType.RELAY, "127.0.0.1", 50_000),
}


async def test_no_media_before_accept(tmp_path):
    """P1, CALL-07: while it rings both ends only allocate; data flows after the accept alone."""
    capture = tmp_path / "capture"
    async with (
        running_relay("--capture", str(capture)) as relay,
        two_people(tmp_path, relay) as (alice, bob),
    ):
        call, incoming = await ringing(alice, bob, **media())
        # Nothing tells when something does not happen: give both time to do it.
        await anyio.sleep(1)
        accepted_at = time.time()
        answered = await incoming.accept(**media())
        await until(call, e2ecall.FirstVideo)
        await until(answered, e2ecall.FirstVideo)
        await call.hangup()
    seen = list(datagrams(capture))
    early = [(source, kind) for at, source, kind in seen if at < accepted_at]
    assert {kind for _, kind in early} == {"Allocate"}
    assert len({source for source, _ in early}) == 2
    assert "ChannelData" in {kind for at, _, kind in seen if at > accepted_at}


async def test_declined_call_sends_no_media(tmp_path):
    """P1: a call that rang and was declined never sent a media packet, from either end."""
    capture = tmp_path / "capture"
    async with (
        running_relay("--capture", str(capture)) as relay,
        two_people(tmp_path, relay) as (alice, bob),
    ):
        call, incoming = await ringing(alice, bob, **media())
        await incoming.decline()
        await ended(call)
    assert {kind for _, _, kind in datagrams(capture)} <= {"Allocate", "Refresh"}


@pytest.mark.parametrize("stray", STRAY)
@pytest.mark.parametrize("side", ["caller", "callee"])
async def test_stray_candidate(people, monkeypatch, side, stray):
    """CALL-11: an address that is not the relay's ends the call before any media, at both ends."""
    own_check = "_check_own_candidates"
    monkeypatch.setattr(Call, own_check, lambda *_: None)
    method = {"caller": "add_candidates", "callee": "accept"}[side]
    original = getattr(Call, method)
    stray = (STRAY[stray],)

    def patched(self, *arguments, **named):
        if method == "accept":
            return original(self, **named | {"candidates": stray})
        return original(self, stray, *arguments[1:])

    monkeypatch.setattr(Call, method, patched)
    async with people() as (alice, bob):
        at_alice, at_bob = media(), media()
        call, incoming = await ringing(alice, bob, **at_alice)
        victim, attacker = (incoming.call, call) if side == "caller" else (call, incoming.call)
        if side == "callee":
            await incoming.accept(**at_bob)
        assert await ended(victim) == (EndReason.PROTOCOL_ERROR, False)
        assert await ended(attacker) == (EndReason.PEER_FAILED, True)
        assert victim.media.stats().datagrams_sent == 0
        assert not at_alice["output"].frames
        assert not at_bob["output"].frames


@pytest.mark.parametrize(
    ("anyio_backend", "attacker"), [("trio", Role.CALLER), ("asyncio", Role.CALLEE)]
)
async def test_wrong_frame_key(people, monkeypatch, attacker):
    """R10: what one end encrypts under another key is never rendered, and the call has failed."""
    sending = MediaKeys.sending

    def patched(self, stream):
        key = sending(self, stream)
        return FrameKey(key.kid, Secret(bytes(32))) if self.role is attacker else key

    monkeypatch.setattr(MediaKeys, "sending", patched)
    async with people() as (alice, bob):
        at_alice, at_bob = media(), media()
        call, incoming = await ringing(alice, bob, **at_alice)
        answered = await incoming.accept(**at_bob)
        ends = {Role.CALLER: (call, at_alice), Role.CALLEE: (answered, at_bob)}
        hostile, _ = ends.pop(attacker)
        ((victim, played),) = ends.values()
        assert (await until(victim, e2ecall.FramesRefused)).count > 0
        assert await ended(victim) == (EndReason.NOT_AUTHENTIC, False)
        assert await ended(hostile) == (EndReason.PEER_FAILED, True)
        assert not played["output"].frames
        stats = victim.media.stats()
        assert stats.refused >= 150
        assert all(stats.received[s].decoded == 0 for s in (Stream.MICROPHONE, Stream.CAMERA))


async def test_other_certificate(people, monkeypatch):
    """R8: a DTLS certificate that is not the agreed one ends the call before media."""
    original = Call.ring

    def patched(self, *, media, **named):
        original(self, media=msgspec.structs.replace(media, fingerprint=bytes(32)), **named)

    monkeypatch.setattr(Call, "ring", patched)
    async with people() as (alice, bob):
        at_alice, at_bob = media(), media()
        call, incoming = await ringing(alice, bob, **at_alice)
        await incoming.accept(**at_bob)
        assert await ended(call) == (EndReason.NOT_AUTHENTIC, False)
        assert (await ended(incoming.call))[0] in {EndReason.PEER_FAILED, EndReason.CONNECTION_LOST}
        assert not at_alice["output"].frames
        assert not at_bob["output"].frames
