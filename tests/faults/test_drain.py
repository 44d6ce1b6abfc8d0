"""A relay that is told to stop (relay/README.md, Operation; spec/wire.md, Staying connected)."""

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
import trio
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.trio.client import connect

from relay.wire.messages import Done, GoingAway

WITHIN = 15


def status_of(relay, path):
    try:
        with urllib.request.urlopen(f"http://{relay.name}{path}", timeout=5) as response:
            return response.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def order(relay, command, *options):
    """Run a command of the operator's; return what it prints."""
    socket = next(relay.folder.parent.glob("**/admin.sock"))
    done = subprocess.run(
        [sys.executable, "-m", "relay.cli", command, "--socket", socket, *options],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return done.stdout


def ends(relay):
    """Wait for the end of a relay that was told to stop; return the exit code."""
    code = relay.process.wait(WITHIN)
    relay.process.stdout.close()
    return code


def eventually(check):
    end = time.monotonic() + WITHIN
    while not check():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.trio
async def test_sigterm_under_load(start_relay, speak, media, username):
    """F3, WIRE-44: SIGTERM under load turns readiness red, tells every client to come back later,
    refuses new ones, lets the call that runs go on to its end, and exits with 0.
    """
    relay = start_relay(*media.arguments)
    told = []

    async def write_letters(number, *, task_status):
        async with speak.registered(relay.url, f"{username}_{number}") as (client, _):
            task_status.started()
            with pytest.raises(ConnectionClosed):
                while True:
                    assert await client.request(speak.letter("somebody")) == Done()
            # What came with the end, and after the last reply, is not read yet.
            with pytest.raises(ConnectionClosed):
                await client.reply(None)
            told.extend(push for push in client.pushes if isinstance(push, GoingAway))
            assert client.socket.close_code == 1001

    with media(relay) as call:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                await nursery.start(write_letters, number)
            relay.process.send_signal(signal.SIGTERM)
        assert [push.delay_ms for push in told] == [5000] * 20
        assert await trio.to_thread.run_sync(status_of, relay, "/readyz") == 503
        assert await trio.to_thread.run_sync(status_of, relay, "/healthz") == 200
        with pytest.raises(InvalidStatus) as refused:
            async with connect(relay.url, compression=None):
                pass
        assert refused.value.response.status_code == 503
        assert int(refused.value.response.headers["Retry-After"]) == 5
        await trio.to_thread.run_sync(call.flows)
        assert relay.is_alive
    assert await trio.to_thread.run_sync(ends, relay) == 0


def test_idle_allocations_do_not_hold_it(start_relay, media):
    """F3: without media that flows the relay stops within 15 s, allocations or not."""
    relay = start_relay(*media.arguments)
    with media(relay) as call:
        call._end.set()
    start = time.monotonic()
    relay.process.send_signal(signal.SIGTERM)
    assert ends(relay) == 0
    assert time.monotonic() - start < WITHIN


def test_bound_of_a_drain(start_relay, media):
    """F3: a call that does not end holds the relay for operation.drain_seconds and no longer."""
    relay = start_relay(*media.arguments, environment={"RELAY__OPERATION__DRAIN_SECONDS": "1"})
    with media(relay):
        relay.process.send_signal(signal.SIGTERM)
        assert ends(relay) == 0
    assert "calls were still running" in relay.log.read_text()


def test_second_signal(start_relay, media):
    """A second SIGTERM does not wait for calls."""
    relay = start_relay(*media.arguments)
    with media(relay) as call:
        relay.process.send_signal(signal.SIGTERM)
        eventually(lambda: status_of(relay, "/readyz") == 503)
        call.flows()
        relay.process.send_signal(signal.SIGTERM)
        assert ends(relay) == 0


def test_commands(start_relay, media):
    """`status` tells of a relay that runs or drains; `drain` begins it, once more hurries it."""
    relay = start_relay(*media.arguments)
    with media(relay) as call:
        before = json.loads(order(relay, "status", "--as-json"))
        assert (before["phase"], before["ready"], before["allocations"]) == ("serving", True, 2)
        assert before["forwarded"] > 10
        assert "draining" in order(relay, "drain")
        eventually(lambda: status_of(relay, "/readyz") == 503)
        assert "draining" in order(relay, "status")
        call.flows()
        order(relay, "drain")
        assert ends(relay) == 0


def test_nobody_there(tmp_path):
    """Without a relay, `status` and `drain` say so and exit with 1."""
    for command in ("status", "drain", "reload"):
        done = subprocess.run(
            [sys.executable, "-m", "relay.cli", command, "--socket", tmp_path / "none.sock"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert "no relay answers" in done.stderr
        assert "hint: " in done.stderr
