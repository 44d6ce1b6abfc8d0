"""Real sound: speech into one end's microphone comes out of the other end's speaker."""

import subprocess
import wave
from contextlib import ExitStack

import numpy as np
import pytest

from e2ecall.cli.demo.quality import compare_sound
from e2ecall.media.files import FileSounds
from e2ecall.media.voice import Voice
from tests.media.soundcards import PROGRAMS, sound_server

RATE = 48_000
TEXT = (
    "The quick brown fox jumps over the lazy dog. She sells sea shells by the sea shore. "
    "How much wood would a woodchuck chuck, if a woodchuck could chuck wood?"
)


def samples_of(path):
    sounds = FileSounds(path)
    with wave.open(str(path)) as file:
        count = int(file.getnframes() / file.getframerate() * RATE)
    return sounds.samples(0, count)


@pytest.mark.system(*PROGRAMS)
def test_real_sound(start, alice, bob, tmp_path, monkeypatch):
    """What is spoken into the caller's microphone is what the callee's speaker plays."""
    spoken, played = tmp_path / "spoken.wav", tmp_path / "played.wav"
    subprocess.run(["espeak-ng", "-w", spoken, TEXT], check=True)
    with sound_server("at_alice", "at_bob") as server, ExitStack() as stack:
        for name in ("HOME", "PULSE_SERVER", "PULSE_RUNTIME_PATH", "XDG_RUNTIME_DIR"):
            monkeypatch.setenv(name, server.environment[name])
        listening = start(
            *("listen", "--once", "--accept", "alice"), "--speaker", "at_bob", *bob.options
        )
        listening.next("listening")
        calling = start("call", "bobby", "--microphone", "at_alice_heard", *alice.options)
        calling.next("connected")
        listening.next("connected")
        recorder = stack.enter_context(
            subprocess.Popen(
                [
                    *("parecord", "--device=at_bob.monitor", "--rate=48000", "--channels=1"),
                    *("--format=s16le", "--file-format=wav", played),
                ]
            )
        )
        stack.callback(recorder.kill)
        subprocess.run(["paplay", "--device=at_alice", spoken], check=True, timeout=50)
        recorder.terminate()
        recorder.wait(timeout=20)
        calling.interrupt()
        assert calling.finish().code == 130
        assert listening.finish().code == 0
    sent, heard = samples_of(spoken), samples_of(played)
    quality = compare_sound(sent, heard, Voice(1).samples(0, len(sent)))
    print(quality)
    assert quality.similarity > 0.7
    assert quality.control_similarity < 0.4
    assert np.abs(heard.astype(int)).max() > 1_000
