"""Calls from the command line: two processes, a relay between them, files as media."""

import signal

import av
import numpy as np
import pytest

from e2ecall.cli.happenings import ENDS
from e2ecall.protocol.call_events import EndReason

from .conftest import GRAY


def loudness(path):
    """Return the largest sample of a recording's sound."""
    with av.open(str(path)) as container:
        return max(np.abs(frame.to_ndarray()).max() for frame in container.decode(audio=0))


def brightness(path):
    """Return the mean luma of each picture of a recording."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray()[:360].mean() for frame in container.decode(video=0)]


def test_call_with_files(start, e2ecall, alice, bob, film, tmp_path):
    """Files are heard and seen at the other end, both show one code, and confirming it verifies.

    The callee takes the call by --accept alone, replaces no recording, and ends after one call.
    """
    own, theirs = tmp_path / "own.mp4", tmp_path / "theirs.mp4"
    theirs.write_text("an earlier recording")
    listening = start("listen", "--once", "--accept", "alice", "--record", theirs, *bob.options)
    listening.next("listening")
    media = ["--audio", film, "--video", film, "--record", own, "--seconds", 2]
    calling = start("call", "bobby", *media, *alice.options)
    calling.type("what?\nyes\n")

    caller = calling.finish()
    assert (caller.code, caller.stderr) == (0, "")
    callee = listening.finish()
    assert (callee.code, callee.stderr) == (0, "")
    for end in (calling, listening):  # both record, and both know
        assert {event["recording"] for event in end.named("media_state")} == {True}
    often = {"media_state", "quality"}
    names = [event["event"] for event in calling.events if event["event"] not in often]
    assert names[:4] == ["calling", "ringing", "code", "connected"]
    assert names[-1] == "ended"
    assert calling.named("code") == listening.named("code")
    assert calling.named("ended") == [{"event": "ended", "reason": "hangup", "by_peer": False}]
    assert listening.named("ended") == [{"event": "ended", "reason": "hangup", "by_peer": True}]
    assert listening.named("rings") == [
        {"event": "rings", "caller": alice.address, "verified": False, "wants_video": True}
        | {"broken_off": 0}
    ]
    assert listening.named("video")
    assert not calling.named("video")

    assert theirs.read_text() == "an earlier recording"
    recording = theirs.with_name("theirs-2.mp4")
    bright = brightness(recording)
    assert len(bright) >= 20
    assert np.median(bright) == pytest.approx(GRAY, abs=5)
    assert loudness(recording) > 0.05
    assert loudness(own) < 0.01  # the callee sent silence

    assert calling.named("verified") == [{"event": "verified", "peer": bob.address}]
    contacts = e2ecall("contacts", *alice.options, "--json").events
    assert [(each["address"], each["verified"]) for each in contacts] == [(bob.address, True)]

    (past,) = e2ecall("history", *alice.options, "--json").events
    assert (past["event"], past["peer"], past["outgoing"]) == ("past_call", bob.address, True)
    assert past["seconds"] > 1
    assert bob.address not in e2ecall("history", "--keep", "off", *alice.options).stdout
    assert e2ecall("history", *alice.options, "--json").events == []
    done = e2ecall("call", *alice.options)
    assert (done.code, done.stderr.splitlines()[0]) == (
        1,
        "e2ecall: error: you called nobody yet",
    )
    assert e2ecall("history", "--clear", "--keep", "on", *alice.options).code == 1
    e2ecall("history", "--keep", "on", *alice.options)


def test_refusing(start, e2ecall, bob, carol):
    """A call is declined by n, or where nobody can answer; the caller is told and exits with 1."""
    listening = start("listen", "--accept", "somebody", *bob.options)
    listening.next("listening")
    calling = start("call", "bobby", *carol.options)
    listening.next("rings")
    listening.type("what?\nn\n")
    done = calling.finish()
    assert done.code == 1
    assert done.stderr == f"e2ecall: error: {bob.address}: the call was declined\n"
    assert calling.events[-1] == {"event": "ended", "reason": "declined", "by_peer": True}
    listening.next("ended")

    listening.process.stdin.close()
    done = e2ecall("call", "bobby", *carol.options)
    assert done.code == 1
    assert "The call was declined." in done.stdout
    listening.next("ended")
    listening.process.stdin = None
    listening.interrupt()
    assert listening.finish().code == 130


def test_interrupting(start, bob, carol, tmp_path):
    """Ctrl-C gives up a call that rings and hangs up one that runs; the recording is complete."""
    listening = start("listen", *bob.options)
    listening.next("listening")
    first = start("call", "bobby", *carol.options)
    listening.next("rings")
    first.interrupt()
    done = first.finish()
    assert (done.code, done.stderr) == (130, "")
    assert first.events[-1] == {"event": "ended", "reason": "cancelled", "by_peer": False}
    assert listening.next("ended") == {"event": "ended", "reason": "cancelled", "by_peer": True}

    recording = tmp_path / "recording.mp4"
    second = start("call", "bobby", "--record", recording, *carol.options)
    listening.next("rings")
    listening.type("y\n")
    second.next("connected")
    listening.next("connected")
    second.interrupt(signal.SIGTERM)
    done = second.finish()
    assert (done.code, done.stderr) == (143, "")
    assert second.events[-1] == {"event": "ended", "reason": "hangup", "by_peer": False}
    assert listening.next("ended") == {"event": "ended", "reason": "hangup", "by_peer": True}
    assert loudness(recording) < 0.01

    listening.interrupt()
    assert listening.finish().code == 130


def test_another_code(start, bob, carol):
    """Who says that the other end shows another code ends the call, and nobody is verified."""
    listening = start("listen", "--accept", "carol", "--once", *bob.options)
    listening.next("listening")
    calling = start("call", "bobby", *carol.options)
    calling.type("no\n")
    done = calling.finish()
    assert done.code == 1
    assert "sees another code" in done.stderr
    assert not calling.named("verified")
    assert listening.finish().code == 0


def test_ends():
    """Every end of a call has words for people."""
    assert set(ENDS) == set(EndReason)
