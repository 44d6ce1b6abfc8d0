"""What another path may be described by, and where it may lie (CALL-11, CALL-42)."""

import pytest
from msgspec.structs import replace

from e2ecall.errors import LocalProtocolError, Reason
from e2ecall.protocol.call_events import Ended, EndReason
from e2ecall.protocol.call_exchange import CalleeSecrets, RekeySecrets
from e2ecall.protocol.call_table import Role
from e2ecall.protocol.messages import Candidate, CandidateType, PathReady
from tests.protocol.call.conftest import TURN, refuse

OUTSIDE = Candidate(CandidateType.HOST, "192.0.2.1", 9)


def used_again(kit):
    """Give descriptions in which something of the former one is used again, or is missing."""
    fresh, former = kit.media("p"), kit.media("c")
    yield replace(fresh, fingerprint=former.fingerprint)
    yield replace(fresh, ice_ufrag=former.ice_ufrag)
    yield replace(fresh, ice_pwd=former.ice_pwd)
    yield replace(fresh, streams=former.streams)
    yield replace(fresh, streams=fresh.streams[:1])
    yield replace(fresh, streams=(replace(fresh.streams[0], ssrc=former.streams[1].ssrc),) * 1)
    yield replace(fresh, streams=fresh.streams[::-1])


@pytest.mark.parametrize("number", range(7))
def test_a_path_needs_a_fresh_description(talk, kit, number):
    """CALL-42: the same streams, and nothing that was used before; from the peer and by itself."""
    media = list(used_again(kit))[number]
    path = RekeySecrets.generate().path(talk.offer.call_id, 30, 1, media)
    reason = refuse(talk.callee, talk.sign(Role.CALLER, path), kit.now)
    assert reason is Reason.BAD_MEDIA_DESCRIPTION
    talk.lose()
    talk.caller.on_time(kit.now)
    talk.caller.events()
    before = kit.snapshot(talk.caller)
    with pytest.raises(LocalProtocolError):
        talk.caller.replace_path(RekeySecrets.generate(), media, kit.now)
    assert kit.snapshot(talk.caller) == before


def test_a_reply_needs_a_fresh_description(talk, kit):
    """CALL-42: the callee's is held to the same; its own answer too."""
    path = talk.replace()
    talk.callee.receive(path, kit.now)
    secrets = CalleeSecrets.generate(path)
    with pytest.raises(LocalProtocolError):
        talk.callee.answer_path(secrets, kit.media("d"), TURN, [kit.relayed], kit.now)
    reply = secrets.path_reply(path, 20, kit.media("d"), TURN, (kit.relayed,))
    keys = talk.keys.following(path, reply, secrets.x25519_secret, secrets.mlkem_secret)
    signed = replace(reply, mac=keys.mac(Role.CALLEE, reply))
    assert refuse(talk.caller, signed, kit.now) is Reason.BAD_MEDIA_DESCRIPTION


@pytest.mark.parametrize("role", list(Role))
def test_candidates_outside_the_relay_end_the_call(talk, kit, role):
    """CALL-11, CALL-42: also on a later path; no check is sent there."""
    path = talk.replace()
    if role is Role.CALLER:
        secrets = CalleeSecrets.generate(path)
        reply = secrets.path_reply(path, 20, kit.media("q"), TURN, (OUTSIDE,))
        keys = talk.keys.following(path, reply, secrets.x25519_secret, secrets.mlkem_secret)
        message, call = replace(reply, mac=keys.mac(Role.CALLEE, reply)), talk.caller
    else:
        talk.answer_by_path()
        ready = PathReady(talk.offer.call_id, 20, 1, (OUTSIDE,), bytes(64))
        keys, call = talk.callee._channel.newest, talk.callee
        message = replace(ready, mac=keys.mac(Role.CALLER, ready))
    call.events()
    call.receive(message, kit.now)
    ended = Ended(EndReason.PROTOCOL_ERROR, False, Reason.BAD_CANDIDATE)
    assert call.events() == [ended]


@pytest.mark.parametrize("candidates", [[], [OUTSIDE], "nine"])
def test_an_end_sends_no_address_but_relayed_ones(talk, kit, candidates):
    """CALL-11: neither in a PathReply nor in a PathReady, and at most eight."""
    candidates = [kit.relayed] * 9 if candidates == "nine" else candidates
    path = talk.replace()
    talk.callee.receive(path, kit.now)
    secrets = CalleeSecrets.generate(path)
    with pytest.raises(LocalProtocolError):
        talk.callee.answer_path(secrets, kit.media("q"), TURN, candidates, kit.now)
    talk.callee.answer_path(secrets, kit.media("q"), TURN, [kit.relayed], kit.now)
    *_, reply = talk.callee.messages_to_send()
    talk.caller.receive(reply, kit.now)
    with pytest.raises(LocalProtocolError):
        talk.caller.ready_path(1, candidates, kit.now)
    talk.caller.ready_path(1, [kit.relayed], kit.now)
    talk.caller.ready_path(1, [kit.relayed], kit.now)  # once is enough
    assert len([m for m in talk.caller.messages_to_send() if isinstance(m, PathReady)]) == 1
