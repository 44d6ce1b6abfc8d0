"""Microphone, speaker, camera and screen: real devices where this machine has some in memory."""

import subprocess
import sys
import textwrap
import time

import pytest

from e2ecall import MediaError
from e2ecall.media.capture import Camera, Capture, Input, Screen, camera_input, screen_input

from .soundcards import PROGRAMS, sound_server

PATIENCE = 30.0
ENOUGH = 30  # pictures, or frames of sound
NAMELESS = [
    ("darwin", "avfoundation", "0:none", "Capture screen 0:none"),
    ("win32", "dshow", "video=0", "desktop"),
    ("linux", "v4l2", "/dev/video0", ":7"),
]


def in_a_process(code, server=None):
    """Run code in a process of its own, so that PortAudio sees the devices of this test."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        env=None if server is None else server.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


def test_the_pictures_of_a_device():
    """A capture gives the latest picture of its device, and stops when it is closed."""
    device = Capture(
        "camera", Input("lavfi", "testsrc=size=640x480:rate=30", {}), frame_rate=30, hint=""
    )
    try:
        frames = [device.read() for _ in range(ENOUGH)]
    finally:
        device.close()
    assert {(frame.width, frame.height, frame.format.name) for frame in frames} == {
        (640, 480, "yuv420p")
    }
    assert device.frame_rate == 30
    assert not device.is_lost
    assert device.read() is None
    device.close()


def test_a_device_that_goes_away():
    """A capture whose device ends is over, and says so once, by name."""
    told = []
    source = Input("lavfi", "testsrc=size=320x240:rate=30:duration=0.2", {})
    device = Capture("camera", source, frame_rate=30, hint="", on_lost=told.append)
    try:
        end = time.monotonic() + PATIENCE
        while device.read() is not None:
            assert time.monotonic() < end
        assert device.read() is None
    finally:
        device.close()
    assert device.is_lost
    assert told == [f"the camera {source.file} went away"]


def test_no_camera():
    """A camera that is not there is refused with its name and what to do."""
    with pytest.raises(MediaError, match="/dev/video99") as caught:
        Camera("/dev/video99")
    assert "--camera" in caught.value.hint


@pytest.mark.parametrize(("platform", "name", "camera", "screen"), NAMELESS)
def test_platforms(platform, name, camera, screen):
    """Each platform has its own names for a camera and for the screen."""
    assert camera_input(platform, None)[:2] == (name, camera)
    assert "mine" in camera_input(platform, "mine").file
    assert screen_input(platform, ":7").file == screen


def test_no_screen(monkeypatch):
    """Where there is no screen, that is said, with what to do."""
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(MediaError, match="no screen") as caught:
        screen_input("linux", None)
    assert caught.value.hint


@pytest.mark.system("Xvfb")
def test_the_screen(tmp_path, monkeypatch):
    """What is on the screen is what is sent: here all of it is white."""
    command = ["Xvfb", "-displayfd", "1", "-wr", "-screen", "0", "640x480x24", "-nolisten", "tcp"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            monkeypatch.setenv("DISPLAY", f":{server.stdout.readline().strip()}")
            screen = Screen()
            try:
                frame = screen.read()
            finally:
                screen.close()
        finally:
            server.terminate()
    assert (frame.width, frame.height) == (640, 480)
    assert frame.to_ndarray()[:480].mean() > 230
    again = screen.again
    with pytest.raises(MediaError):
        again()


def test_without_the_library():
    """Without sounddevice, and without PortAudio, a microphone says what to install."""
    lines = in_a_process(
        """
        import sys
        from e2ecall import MediaError
        from e2ecall.media import Microphone
        sys.modules["sounddevice"] = None
        try:
            Microphone()
        except MediaError as error:
            print(error, "|", error.hint)
        """
    )
    assert lines == [
        "a microphone needs a library that is not installed | pip install 'e2ecall[audio]'"
    ]


@pytest.mark.system(*PROGRAMS)
def test_no_such_device():
    """A device that is not there is refused with what to do, whether by name or by number."""
    with sound_server("here") as server:
        lines = in_a_process(
            """
            from e2ecall import MediaError
            from e2ecall.media import Microphone, Speaker
            for kind, name in ((Microphone, "elsewhere"), (Speaker, "77")):
                try:
                    kind(name)
                except MediaError as error:
                    print(error, "|", error.hint)
            """,
            server,
        )
    assert len(lines) == 2
    assert "no microphone can be opened" in lines[0]
    assert "--microphone NAME" in lines[0]
    assert "no speaker can be opened" in lines[1]


@pytest.mark.system(*PROGRAMS)
def test_what_is_played_is_heard():
    """A tone that the speaker plays comes out of the microphone in front of it, at its rate."""
    with sound_server("room") as server:
        (line,) = in_a_process(
            """
            import asyncio, numpy as np
            from e2ecall.media import Microphone, Speaker
            from e2ecall.media.sources import SAMPLE_RATE, AudioFrame
            from e2ecall.protocol.messages import Stream
            speaker, microphone = Speaker("room"), Microphone("room_heard")
            heard, tone = [], np.sin(2 * np.pi * 1_000 * np.arange(SAMPLE_RATE * 6) / SAMPLE_RATE)
            both = np.repeat((tone * 8_000).astype(np.int16), 2).reshape(1, -1)
            for start in range(0, both.shape[1], 1_920):
                frame = AudioFrame.from_ndarray(both[:, start : start + 1_920], "s16", "stereo")
                asyncio.run(speaker.write(Stream.MICROPHONE, frame, start))
                heard.append(microphone.read().to_ndarray().reshape(-1))
            microphone.close()
            asyncio.run(speaker.close())
            sound = np.concatenate(heard)[-SAMPLE_RATE:].astype(float)
            spectrum = np.abs(np.fft.rfft(sound))
            print(np.argmax(spectrum) * SAMPLE_RATE / len(sound), len(heard), speaker.is_lost)
            """,
            server,
        )
    frequency, frames, lost = line.split()
    assert float(frequency) == pytest.approx(1_000, abs=5)
    assert (frames, lost) == ("300", "False")


@pytest.mark.system(*PROGRAMS)
def test_a_sound_server_that_dies():
    """Devices that go away are told once each; the microphone goes on with silence of one size."""
    with sound_server("room") as server:
        lines = in_a_process(
            f"""
            import asyncio, os, signal, time
            from e2ecall.media import Microphone, Speaker
            from e2ecall.media.sources import silence
            from e2ecall.protocol.messages import Stream
            speaker = Speaker("room", on_lost=print)
            microphone = Microphone("room_heard", on_lost=print)
            for _ in range(20):
                microphone.read()
            os.kill({server.server.pid}, signal.SIGKILL)
            sizes, end = set(), time.monotonic() + 20
            while not (speaker.is_lost and microphone.is_lost) and time.monotonic() < end:
                sizes.add(microphone.read().samples)
                asyncio.run(speaker.write(Stream.MICROPHONE, silence(), 0))
            for _ in range(20):
                sizes.add(microphone.read().samples)
            print(sizes)
            microphone.close()
            speaker.stop()
            """,
            server,
        )
    assert sorted(lines) == [
        "the microphone room_heard went away",
        "the speaker room went away",
        "{960}",
    ]
