"""What the README shows runs as it stands there."""

import re
import subprocess
import sys
import wave
from pathlib import Path

import anyio
import pytest

import e2ecall
from e2ecall.testing import running_relay, speech_like_sound

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
PASSPHRASE = "probe"


def _block(language):
    (block,) = re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
    return block


def _write_sound(path):
    with wave.open(str(path), "wb") as sound:
        sound.setparams((1, 2, 48_000, 0, "NONE", ""))
        sound.writeframes(bytes(2 * 48_000))


async def _wait_for(name, relay):
    """Return when ``name`` has registered and published its prekeys."""
    async with e2ecall.Client.open("probe.db", passphrase=PASSPHRASE, relay=relay) as probe:
        await probe.register("probe")
        while True:
            try:
                await probe.message(name, "are you there?")
            except e2ecall.NotReachableError:
                await anyio.sleep(0.05)
            else:
                return


@pytest.mark.anyio
async def test_embedding(tmp_path, monkeypatch):
    """The snippet under "Embedding" places a call, answers one, and both end with a hang-up."""
    monkeypatch.chdir(tmp_path)
    _write_sound(tmp_path / "hello.wav")
    snippet = {}
    exec(compile(_block("python"), "README.md", "exec"), snippet)
    ends = []

    async def answer(relay):
        ends.append(await snippet["answer_one_call"](relay))

    async with running_relay() as relay:
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(answer, relay.url)
                await _wait_for("bob", relay.url)
                ends.append(await snippet["call_somebody"](relay.url))
    reasons = {(end.reason, end.by_peer) for end in ends}
    assert reasons == {(e2ecall.EndReason.HANGUP, False), (e2ecall.EndReason.HANGUP, True)}
    assert (tmp_path / "bob.mp4").stat().st_size > 0


@pytest.mark.anyio
async def test_recording(tmp_path, monkeypatch):
    """CALL-32: whom the bridge under "Embedding" records is told so, and the file is there."""
    monkeypatch.chdir(tmp_path)
    snippet, ends, told = {}, [], []
    exec(compile(_block("python"), "README.md", "exec"), snippet)

    async def record(relay):
        ends.append(await snippet["record_one_call"](relay))

    async with running_relay() as relay:
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(record, relay.url)
                await _wait_for("bridge", relay.url)
                async with e2ecall.Client.open(
                    "probe.db", passphrase=PASSPHRASE, relay=relay.url
                ) as probe:
                    call = await probe.call("bridge", audio=speech_like_sound(1))
                    connected = False
                    async for event in call.events():
                        connected |= isinstance(event, e2ecall.Connected)
                        if isinstance(event, e2ecall.MediaState | e2ecall.Text):
                            told.append(event)
                        if connected and len(told) == 2:
                            await call.hangup()
    (state,) = (event for event in told if isinstance(event, e2ecall.MediaState))
    assert state.recording
    assert e2ecall.Text("This call is recorded.") in told
    assert [(end.reason, end.by_peer) for end in ends] == [(e2ecall.EndReason.HANGUP, True)]
    assert (tmp_path / "bridge.mp4").stat().st_size > 0


@pytest.mark.parametrize("module", ["e2ecall.cli", "relay.cli"])
def test_commands(module):
    """Every command line command that the README names exists."""
    program = {"e2ecall.cli": "e2ecall", "relay.cli": "e2ecall-relay"}[module]
    named = set(re.findall(rf"^{program} ([a-z]+)", README, flags=re.MULTILINE))
    named |= set(re.findall(rf"`{program} ([a-z]+)", README))
    output = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert named
    assert all(re.search(rf"\b{name}\b", output) for name in named)
