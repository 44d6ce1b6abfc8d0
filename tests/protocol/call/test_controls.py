"""What people do within a call: what they let out, what they write, what they ask for."""

import pytest

from e2ecall.errors import LocalProtocolError
from e2ecall.protocol.call_events import Ended, EndReason, PeerMediaState, PeerText, VideoAsked
from e2ecall.protocol.call_table import TABLE, Action, CallState, Received, Role
from e2ecall.protocol.controls import Controls
from e2ecall.protocol.messages import (
    MAX_CALL_MESSAGE,
    LeaveReason,
    MediaDescription,
    Stream,
    encode_call_message,
)

SAID = [
    (LeaveReason.NORMAL, EndReason.HANGUP),
    (LeaveReason.OTHER_CALL, EndReason.BUSY),
    (LeaveReason.CALL_BACK, EndReason.CALL_BACK),
]


def with_screen(kit, letter):
    """Describe microphone, camera and screen."""
    media = kit.media(letter)
    screen = type(media.streams[1])(Stream.SCREEN, media.streams[1].codec, 99, 7, None, None)
    return MediaDescription(
        media.fingerprint, media.ice_ufrag, media.ice_pwd, (*media.streams, screen)
    )


@pytest.mark.parametrize("held", [True, False])
def test_a_held_call_lets_nothing_out(held):
    """CALL-31: what is held sends nothing that was captured, whatever else is set."""
    every = Controls(camera=True, screen=True, held=held)
    assert {stream for stream in Stream if every.lets_out(stream)} == (
        set() if held else set(Stream)
    )
    assert not any(Controls(muted=True, held=held).lets_out(stream) for stream in Stream)


def test_all_controls_reach_the_peer(kit):
    """CALL-30: a MediaState says everything that its sender lets out and does."""
    pair = kit.Pair(caller=kit.place(media=with_screen(kit, "c"))).run(6)
    pair.callee.events()
    pair.caller.set_media_state(
        muted=False, camera=True, screen=True, held=True, recording=True, now=kit.now
    )
    (message,) = pair.caller.messages_to_send()
    pair.callee.receive(message, kit.now)
    said = Controls(muted=False, camera=True, screen=True, held=True, recording=True)
    assert pair.callee.events() == [PeerMediaState(said)]
    assert pair.caller.controls == said
    assert pair.callee.controls == Controls(camera=True)  # as it answered


@pytest.mark.parametrize("role", list(Role))
def test_controls_begin_as_the_user_chose(kit, role):
    """CALL-30: before a MediaState the camera is on or off as the Offer or the Answer says."""
    pair = kit.Pair(caller=kit.place(wants_video=role is Role.CALLER)).run(3)
    pair.callee.accept(audio=True, video=role is Role.CALLEE, now=kit.now)
    assert pair.caller.controls.camera == (role is Role.CALLER)
    assert pair.callee.controls.camera == (role is Role.CALLEE)


@pytest.mark.parametrize(("role", "state"), [(r, s) for r in Role for s in TABLE[r]][1:])
def test_no_message_changes_what_an_end_lets_out(kit, role, state):
    """P2, CALL-30: none of the peer's messages, in any state, changes the controls."""
    if (role, state) not in kit.reach:
        return
    for kind in Received:
        pair, call = kit.at(role, state)
        before = call.controls
        if kind in TABLE[role][state]:
            peer = Role.CALLEE if role is Role.CALLER else Role.CALLER
            call.receive(pair.message(kind, peer, signed=pair.keys is not None), kit.now)
        assert call.controls == before


@pytest.mark.parametrize("role", list(Role))
def test_a_stream_that_is_not_described_is_not_turned_on(kit, role):
    """CALL-31: without a screen in the own description there is no screen to share."""
    pair, call = kit.at(role, CallState.CONNECTED)
    before = kit.snapshot(call)
    with pytest.raises(LocalProtocolError, match="described"):
        call.set_media_state(muted=False, camera=True, screen=True, now=kit.now)
    assert kit.snapshot(call) == before
    assert pair.caller.messages_to_send() == pair.callee.messages_to_send() == []


@pytest.mark.parametrize("text", ["hello", "x" * 1_000, "😀" * 1_000, "\x1b[2J"])
def test_texts_reach_the_peer(kit, pair, text):
    """CALL-33: a text of 1 to 1 000 characters, whatever they are, fits and arrives as it is."""
    pair.run(6)
    pair.callee.events()
    pair.caller.send_text(text, kit.now)
    (message,) = pair.caller.messages_to_send()
    assert len(encode_call_message(message)) <= MAX_CALL_MESSAGE
    pair.callee.receive(message, kit.now)
    assert pair.callee.events() == [PeerText(text)]
    assert repr(message) == "Text(...)"


@pytest.mark.parametrize("text", ["", "x" * 1_001, "\ud800"])
def test_what_no_text_may_be(kit, pair, text):
    """A text that cannot be sent is refused, and costs no message."""
    pair.run(6)
    before = kit.snapshot(pair.caller)
    with pytest.raises(LocalProtocolError):
        pair.caller.send_text(text, kit.now)
    assert kit.snapshot(pair.caller) == before


def test_asking_for_video_turns_nothing_on(kit, pair):
    """P2, CALL-34: a Renegotiate is shown to the user; an older one that comes late is not."""
    pair.run(6)
    pair.callee.events()
    pair.callee.set_media_state(muted=False, camera=False, now=kit.now)
    pair.callee.messages_to_send()
    pair.caller.renegotiate(video=True, now=kit.now)
    pair.caller.renegotiate(video=False, now=kit.now)
    older, newer = pair.caller.messages_to_send()
    pair.callee.receive(newer, kit.now)
    pair.callee.receive(older, kit.now)
    assert pair.callee.events() == [VideoAsked(False)]
    assert pair.callee.messages_to_send() == []
    assert not pair.callee.controls.camera


@pytest.mark.parametrize("role", list(Role))
def test_words_are_behind_the_answer(role):
    """CALL-12: texts and questions belong to a call that was accepted."""
    words = {Received.TEXT, Received.RENEGOTIATE, Action.SEND_TEXT, Action.RENEGOTIATE}
    for state, steps in TABLE[role].items():
        talking = state in (CallState.CONNECTING, CallState.CONNECTED)
        assert words & steps.keys() == (words if talking else set())


@pytest.mark.parametrize(("told", "reason"), SAID)
@pytest.mark.parametrize("how", ["hangup", "leave"])
def test_hanging_up_with_a_reason(kit, pair, told, reason, how):
    """CALL-14: the peer learns the reason that the user chose, and no other."""
    pair.run(6)
    pair.callee.events()
    getattr(pair.caller, how)(kit.now, told)
    (message,) = pair.caller.messages_to_send()
    pair.callee.receive(message, kit.now)
    assert pair.callee.events() == [Ended(reason, by_peer=True)]


@pytest.mark.parametrize(("told", "reason"), SAID[1:])
def test_declining_with_a_reason(kit, told, reason):
    """CALL-14: also who declines, or gives up, may say why."""
    pair = kit.Pair().run(3)
    pair.callee.leave(kit.now, told)
    (message,) = pair.callee.messages_to_send()
    pair.caller.receive(message, kit.now)
    assert pair.caller.events()[-1] == Ended(reason, by_peer=True)
    pair = kit.Pair().run(3)
    pair.caller.leave(kit.now, told)
    (message,) = pair.caller.messages_to_send()
    pair.callee.receive(message, kit.now)
    assert pair.callee.events()[-1] == Ended(reason, by_peer=True)


@pytest.mark.parametrize("told", [LeaveReason.FAILED, LeaveReason.NO_ANSWER])
def test_a_user_cannot_say_that_something_failed(kit, pair, told):
    """CALL-14: what the program says of failures is not for the user to say."""
    pair.run(6)
    before = kit.snapshot(pair.caller)
    with pytest.raises(LocalProtocolError):
        pair.caller.hangup(kit.now, told)
    assert kit.snapshot(pair.caller) == before
