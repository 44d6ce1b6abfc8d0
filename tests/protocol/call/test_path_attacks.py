"""What a relay, or somebody who has the ratchet, could try with another path (R4, R8)."""

import pytest
from msgspec.structs import replace

from e2ecall.errors import Reason, RemoteProtocolError
from e2ecall.protocol.call_exchange import CalleeSecrets, RekeySecrets
from e2ecall.protocol.messages import Path, PathReady, PathReply
from tests.protocol.call.conftest import TURN, refuse


@pytest.mark.parametrize("kind", [Path, PathReply, PathReady])
def test_r8_nothing_of_a_path_can_be_swapped(talk, kit, kind):
    """R8, CALL-43: another fingerprint, credential, codec or address is refused, ratchet or not."""
    talk.replace()
    if kind is not Path:
        talk.answer_by_path()
    if kind is PathReady:
        talk.get_ready()
    message, call = {
        Path: lambda: (talk.path, talk.callee),
        PathReply: lambda: (talk.made_path_reply, talk.caller),
        PathReady: lambda: (talk.path_ready, talk.callee),
    }[kind]()
    call.events()
    for changes in swaps(message, kit):
        assert refuse(call, replace(message, **changes), kit.now) is Reason.BAD_MAC
    call.receive(message, kit.now)


def swaps(message, kit):
    """Give changes of everything in a message of a path that somebody in between would change."""
    if not isinstance(message, PathReady):
        media = message.media
        (sound, picture) = media.streams
        yield {"media": replace(media, fingerprint=b"m" * 32)}
        yield {"media": replace(media, ice_ufrag="mine")}
        yield {"media": replace(media, ice_pwd="m" * 24)}
        yield {"media": replace(media, streams=(sound, replace(picture, payload_type=99)))}
        yield {"media": replace(media, streams=(replace(sound, ssrc=77), picture))}
        yield {"x25519_share": RekeySecrets.generate().x25519.public}
    if isinstance(message, PathReply):
        yield {"turn": replace(message.turn, username="another")}
    if not isinstance(message, Path):
        yield {"candidates": (replace(kit.relayed, port=9),)}
    yield {"counter": message.counter + 1}


def test_r8_the_transcript_covers_both_descriptions(talk, kit):
    """R8, CALLKEY-10: ends that saw other descriptions have other keys, also with right MACs."""
    path = talk.replace()
    secrets = CalleeSecrets.generate(path)
    reply = secrets.path_reply(path, 1, kit.media("q"), TURN, (kit.relayed,))
    shared = secrets.x25519_secret, secrets.mlkem_secret
    right = talk.keys.following(path, reply, *shared)
    seen = {right.secret.expose()}
    for changes in swaps(path, kit):
        if "counter" not in changes:
            seen.add(talk.keys.following(replace(path, **changes), reply, *shared).secret.expose())
    for changes in swaps(reply, kit):
        if "counter" not in changes:
            seen.add(talk.keys.following(path, replace(reply, **changes), *shared).secret.expose())
    assert len(seen) == 1 + 6 + 8


def test_r8_who_has_the_ratchet_cannot_begin_a_path(talk, kit):
    """R8, CALLKEY-11: a Path or reply that was made without the call's keys is refused."""
    forged = RekeySecrets.generate().path(talk.offer.call_id, 30, 1, kit.media("m"))
    assert refuse(talk.callee, forged, kit.now) is Reason.BAD_MAC
    path = talk.replace()
    secrets = CalleeSecrets.generate(path)
    reply = secrets.path_reply(path, 1, kit.media("m"), TURN, (kit.relayed,))
    assert refuse(talk.caller, reply, kit.now) is Reason.BAD_MAC


def test_r4_offers_of_a_path_cannot_be_replayed(talk, kit):
    """R4, CALL-41: after a move its Path, reply and PathReady are worth nothing, at either end."""
    first = {}
    for number in range(1, 4):
        talk.move(kit.now + 20 * number, "pqrstu"[2 * number - 2 :])
        first = first or {
            talk.callee: (talk.path, talk.path_ready),
            talk.caller: (talk.made_path_reply,),
        }
        for call, messages in first.items():
            call.on_time(kit.now + 20 * number)
            call.events()
            call.messages_to_send()
            for message in messages:
                with pytest.raises(RemoteProtocolError):
                    call.receive(message, kit.now + 20 * number)
            assert call.events() == call.messages_to_send() == []
            assert call.epoch == number


def test_copies_under_new_counters_are_ignored(talk, kit):
    """CALL-41: what had its effect is verified and then without effect, in the time of old keys."""
    talk.replace()
    talk.caller.on_time(kit.now + 3)
    (copy,) = talk.caller.messages_to_send()
    talk.answer_by_path(kit.now + 3)
    talk.get_ready(kit.now + 3)
    talk.callee.receive(talk.path_ready, kit.now + 3)
    talk.callee.events()
    talk.callee.receive(copy, kit.now + 3)
    assert talk.callee.events() == talk.callee.messages_to_send() == []
