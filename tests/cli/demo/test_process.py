"""The demo's processes are watched, understood and ended, however they behave."""

import time

import anyio
import pytest

from e2ecall.cli.demo import process
from e2ecall.cli.demo.process import ChildError, child

pytestmark = pytest.mark.anyio


def _program(body):
    return ["-u", "-c", "import json, sys, time\n" + body]


SAY = 'print(json.dumps({"event": "%s", "n": %d}))\n'


async def test_events_come_in_order_and_live(tmp_path):
    """Each line is one event; others before the awaited one are skipped, and all are shown."""
    shown = []
    body = SAY % ("one", 1) + SAY % ("two", 2) + SAY % ("three", 3)
    async with child(
        "actor", _program(body), log=tmp_path / "log", on_event=lambda *said: shown.append(said)
    ) as actor:
        assert (await actor.wait_for("two", within=10))["n"] == 2
        assert (await actor.wait_for("three", within=10))["n"] == 3
        await actor.finished(within=10)
    assert [(name, event["n"]) for name, event in shown] == [
        ("actor", 1), ("actor", 2), ("actor", 3)]  # fmt: skip


async def test_an_error_event_is_raised_with_its_hint(tmp_path):
    """What a client says went wrong is what the person reads."""
    body = 'print(json.dumps({"event": "error", "text": "no relay", "hint": "start one"}))'
    with pytest.raises(ChildError, match="actor: no relay") as raised:
        async with child("actor", _program(body), log=tmp_path / "log") as actor:
            await actor.wait_for("ready", within=10)
    assert raised.value.hint == "start one"


async def test_an_early_end_names_the_last_words(tmp_path):
    """A traceback's last line becomes the hint."""
    with pytest.raises(ChildError, match="ended before 'ready'") as raised:
        async with child("actor", _program("1/0"), log=tmp_path / "log") as actor:
            await actor.wait_for("ready", within=10)
    assert "division by zero" in raised.value.hint


async def test_a_failure_after_the_last_event_is_noticed(tmp_path):
    """Exit code 3 is no success, whatever was said before."""
    with pytest.raises(ChildError, match="exit code 3"):
        async with child(
            "actor", _program(SAY % ("done", 1) + "sys.exit(3)"), log=tmp_path / "log"
        ) as actor:
            await actor.wait_for("done", within=10)
            await actor.finished(within=10)


async def test_silence_and_nonsense_are_errors(tmp_path):
    """A child that says nothing in time, or no JSON, is not waited for."""
    for body, message in (
        ("time.sleep(60)", "did not come to 'ready'"),
        ("print('hello')", "ended before 'ready'"),
    ):
        with pytest.raises(ChildError, match=message):
            async with child("actor", _program(body), log=tmp_path / "log") as actor:
                await actor.wait_for("ready", within=0.3 if "sleep" in body else 10)


async def test_no_child_outlives_its_block(tmp_path, monkeypatch):
    """Also one that ignores SIGTERM ends, and an error of the block comes out unwrapped."""
    monkeypatch.setattr(process, "_GRACE", 0.3)
    body = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SAY % ("ready", 1)
    with pytest.raises(KeyError, match="mine"):
        async with child("actor", _program(body + "time.sleep(60)"), log=tmp_path / "log") as actor:
            await actor.wait_for("ready", within=10)
            raise KeyError("mine")


async def test_cancellation_ends_the_child(tmp_path):
    """A cancelled demo leaves no process; the test's own watch would find it."""
    start = time.monotonic()
    with anyio.move_on_after(0.5):
        async with child("actor", _program("time.sleep(60)"), log=tmp_path / "log") as actor:
            await actor.wait_for("ready", within=30)
    assert time.monotonic() - start < 10
