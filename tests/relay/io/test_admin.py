"""The operator's socket and figures (relay/README.md, Operation)."""

import json
import re
import resource
import socket
import sys
import urllib.error
import urllib.request
from contextlib import AsyncExitStack, suppress
from functools import partial

import pytest
import trio

from relay.io.admin import MAX_EXCHANGES
from relay.wire.messages import Done
from tests.relay.adminsocket import ask_admin, metrics_of

pytestmark = pytest.mark.trio


@pytest.fixture
def asked(start_relay):
    """Start a relay and give a function that sends bytes to its admin socket."""
    relay = start_relay()
    path = next(relay.folder.glob("**/admin.sock"))
    yield relay, path, partial(ask_admin, relay.folder)
    assert relay.terminate()[0] == 0
    assert not path.exists()
    assert "Traceback" not in relay.log.read_text()


async def test_figures(asked, speak, username):
    """What happened shows in the metrics: requests, envelopes, deliveries, connections."""
    relay, _, _ = asked
    async with speak.registered(relay.url, username) as (client, _):
        assert await client.request(speak.letter(username)) == Done()
        await client.deliveries(1)
        text = await metrics_of(relay.folder)
    figures = dict(re.findall(r"^([a-z0-9_]+(?:\{[^}]*\})?) ([0-9.e+]+)$", text, re.MULTILINE))
    expected = {
        "e2ecall_relay_ready": 1,
        "e2ecall_relay_storage_up": 1,
        "e2ecall_relay_connections": 1,
        "e2ecall_relay_devices": 1,
        "e2ecall_relay_mailboxes_read": 1,
        "e2ecall_relay_unacknowledged": 0,
        'e2ecall_relay_requests_total{outcome="done",type="Register"}': 1,
        'e2ecall_relay_requests_total{outcome="done",type="Send"}': 1,
        'e2ecall_relay_envelopes_total{outcome="new"}': 1,
        "e2ecall_relay_delivered_total": 1,
        "e2ecall_relay_acknowledged_total": 1,
        'e2ecall_relay_request_seconds_count{type="Send"}': 1,
        "e2ecall_relay_media_allocations": 0,
        "e2ecall_relay_media_worker_restarts_total": 0,
        'e2ecall_relay_media_drops_total{reason="not_stun"}': 0,
    }
    assert {name: float(figures[name]) for name in expected} == expected
    assert float(figures["e2ecall_relay_tasks"]) > 5
    if sys.platform == "linux":
        assert float(figures["process_open_fds"]) > 5


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there are no figures of the process")
async def test_descriptors(start_relay):
    """A relay may use as many descriptors as it is allowed to, and not the soft limit alone."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        relay = start_relay()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    text = await metrics_of(relay.folder)
    assert float(re.search(r"^process_max_fds (\S+)", text, re.MULTILINE)[1]) == hard
    assert relay.terminate()[0] == 0


async def test_owner_only(asked):
    """Only the relay's user may open the socket."""
    _, path, _ = asked
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /status HTTP/1.1\r\n\r\n", 200),
        (b"GET /metrics HTTP/1.0\r\n\r\n", 200),
        (b"GET /drain HTTP/1.1\r\n\r\n", 404),
        (b"POST /status HTTP/1.1\r\nContent-Length: 2\r\n\r\n[]", 400),
        (b"POST /status HTTP/1.1\r\nContent-Length: 2\r\n\r\n{]", 400),
        (b"POST /status HTTP/1.1\r\nContent-Length: 99999\r\n\r\n", 400),
        (b"POST /status HTTP/1.1\r\nContent-Length: 10\r\n\r\n{}", 400),
        (b"POST /status HTTP/1.1\r\nContent-Length: 60000\r\n\r\n" + b"[" * 60_000, 500),
        (b"hello\r\n\r\n", 400),
        (b"GET /" + b"a" * 9000, 400),
        (b"", 400),
    ],
)
async def test_requests(asked, request_, status):
    """What is no request, too long, or no command is refused, and the relay lives on."""
    _, _, ask = asked
    answer = await ask(request_, eof=True)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    after = await ask(b"GET /status HTTP/1.1\r\n\r\n")
    assert json.loads(after.partition(b"\r\n\r\n")[2])["phase"] == "serving"


async def test_listener_for_figures(start_relay):
    """With operation.metrics_listen the figures, and nothing else, are there over TCP too."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    relay = start_relay(environment={"RELAY__OPERATION__METRICS_LISTEN": f"127.0.0.1:{port}"})

    def get(path, method="GET"):
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, ""

    status, text = await trio.to_thread.run_sync(get, "/metrics")
    assert status == 200
    assert "e2ecall_relay_ready 1.0" in text
    for path, method in (("/status", "GET"), ("/drain", "POST"), ("/metrics", "POST")):
        assert (await trio.to_thread.run_sync(get, path, method))[0] == 404
    assert relay.terminate()[0] == 0


async def test_listener_for_figures_is_bounded(start_relay):
    """W1: connections that ask for no figures are few; more are closed as they come, and the admin
    socket is not concerned.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    relay = start_relay(environment={"RELAY__OPERATION__METRICS_LISTEN": f"127.0.0.1:{port}"})
    async with AsyncExitStack() as stack:
        for _ in range(MAX_EXCHANGES):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stack.enter_async_context(stream)
            await stream.send_all(b"GET /met")
        async with await trio.open_tcp_stream("127.0.0.1", port) as late:
            with suppress(trio.BrokenResourceError):
                await late.send_all(b"GET /metrics HTTP/1.1\r\n\r\n")
            assert await read_all(late) == b""
        assert "e2ecall_relay_ready" in await metrics_of(relay.folder)
    assert relay.terminate()[0] == 0


async def read_all(stream):
    """Return what comes until the other end closes, in whatever way."""
    received = b""
    try:
        async for some in stream:
            received += some
    except trio.BrokenResourceError:
        pass
    return received


async def test_socket_of_a_relay_that_died(start_relay, tmp_path):
    """A socket that kill -9 left behind is replaced at the next start."""
    data = tmp_path / "data"
    relay = start_relay("--data-dir", data)
    relay.kill()
    assert (data / "admin.sock").is_socket()
    again = start_relay("--data-dir", data)
    assert again.terminate()[0] == 0
    assert not (data / "admin.sock").exists()
