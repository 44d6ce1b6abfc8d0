"""What the screen of a call shows, from events alone."""

import pytest

from e2ecall.cli.softphone import widgets
from e2ecall.cli.softphone.model import MAX_LINES, CallModel, Verdict, quality_line
from e2ecall.client import (
    Connected,
    Ended,
    FirstVideo,
    FramesRefused,
    MediaState,
    Quality,
    Ringing,
    Sas,
    Text,
    VideoAsked,
)
from e2ecall.protocol.call_events import EndReason
from e2ecall.protocol.controls import Controls

CODE = Sas((("☁️", "Cloud"), ("🐶", "Dog"), ("🔥", "Fire"), ("🌙", "Moon")), "01234567")
GOOD = Quality(0.05, 0.0, 0.0, 0.001, 48_000, 48_000, 0, 0.0)


def model(*events, verified=False):
    made = CallModel("bob@relay", verified, "Calling")
    for event in events:
        made.take(event, 0.0)
    return made


def test_what_a_peer_writes_is_only_text():
    """Nothing that a peer writes controls the terminal, is markup, or takes all memory."""
    made = model(*[Text("\x1b[2J[bold]hi[/bold]\nyou: yes\u202e")] * (MAX_LINES + 5))
    assert len(made.lines) == MAX_LINES
    shown = widgets.lines(made.lines).plain
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "[bold]hi[/bold]" in shown
    assert all(line.startswith(("bob@relay: ", "    ")) for line in shown.splitlines())


def test_comparing():
    """The code is asked about while both ends can talk and nobody has said what it is."""
    assert not model(Ringing(), CODE).asks_to_compare
    made = model(Ringing(), CODE, Connected())
    assert made.asks_to_compare
    assert "Is it the same" in widgets.code_text(made).plain
    made.verdict = Verdict.SAME
    assert not made.asks_to_compare
    assert "nobody is in between" in widgets.code_text(made).plain
    known = model(Ringing(), CODE, Connected(), verified=True)
    assert not known.asks_to_compare
    assert "verified before" in widgets.code_text(known).plain
    ended = model(Ringing(), CODE, Connected(), Ended(EndReason.HANGUP, by_peer=True))
    assert not ended.asks_to_compare


def test_symbols_of_one_width():
    """No symbol asks for a form whose width terminals do not agree on, and names stay."""
    shown = widgets.code_text(model(CODE)).plain
    assert "\ufe0f" not in shown
    assert "☁ Cloud" in shown


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (FirstVideo(), "Their picture is here."),
        (VideoAsked(video=True), "to see you"),
        (VideoAsked(video=False), "without your picture"),
        (FramesRefused(7), "7 frames were not authentic"),
        (MediaState(muted=True, camera=False, recording=True), "They record this call."),
        (Ended(EndReason.CONNECTION_LOST, by_peer=False), "The connection was lost."),
    ],
)
def test_what_happens_is_said(event, words):
    """What happens in a call is one of its lines."""
    assert words in widgets.lines(model(event).lines).plain


def test_their_first_state_says_nothing_new():
    """That a microphone is on and a camera off is what calls begin with; it needs no line."""
    assert not model(MediaState(muted=False, camera=False)).lines


@pytest.mark.parametrize(
    ("changed", "grade"),
    [
        ({}, "good"),
        ({"round_trip": 0.4}, "fair"),
        ({"loss_received": 0.02}, "fair"),
        ({"loss_sent": 0.1}, "poor"),
        ({"round_trip": 0.9}, "poor"),
        ({"round_trip": None, "freezes": 3}, "good"),
    ],
)
def test_quality(changed, grade):
    """The quality of a call is one word, with the figures behind it."""
    fields = {name: getattr(GOOD, name) for name in GOOD.__slots__} | changed
    line = quality_line(Quality(**fields))
    assert line.startswith(f"Quality: {grade} (")
    assert ("3 freezes" in line) == ("freezes" in changed)


def test_meters():
    """The louder an end, the longer its bar, and what it lets out stands beside it."""
    made = model(Connected(), MediaState(muted=False, camera=True))
    made.own = Controls(muted=True)
    quiet, loud = (widgets.meters(made, level, -60.0).plain for level in (-50.0, -3.0))
    assert quiet.count("█") < loud.count("█") <= 24
    assert "microphone off, camera off" in loud
    assert "microphone on, camera on" in loud
    made.own, made.theirs = Controls(held=True), MediaState(False, False, held=True, recording=True)
    assert "nothing is sent or played" in widgets.meters(made, -60.0, -60.0).plain
    assert "on hold" in widgets.status_line(made).plain
