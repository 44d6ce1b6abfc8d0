"""The servers to be measured, each a process of the benchmark's own on loopback.

Our relay and coturn get time-limited credentials from the same kind of secret, and quotas that no
measurement meets; coturn without a log and allowed to relay to loopback, where its own relayed
addresses are. A port is taken by us first, without sharing it, so that nobody else serves there.
"""

import contextlib
import json
import os
import resource
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.media.stun import UDP_TRANSPORT, Attribute, Credential, Method, parse, request
from tests.bench.media.usage import family

Pair = tuple[Credential, Credential]

START_SECONDS = 20
STOP_SECONDS = 15
TICKET_SECONDS = 12 * 3600
FILES = 65_536
"""Open files that coturn may have: a socket for each allocation."""

COTURN = "turnserver"
COTURN_HINT = "sudo apt-get install -y --no-install-recommends coturn"


@dataclass(frozen=True)
class Server:
    """A running server: its UDP address, its processes, and where credentials for it come from.

    ``signalling`` is the URL of our relay's WebSocket.
    """

    name: str
    address: tuple[str, int]
    pids: list[int]
    tickets: Callable[[int], list[Pair]]
    signalling: str = ""


class StartError(Exception):
    """A server did not start; the text says why."""


@contextlib.contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Let processes that start in the block stay on one processor core, if one is named."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core} & before or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def our_relay(
    core: int | None, workers: int = 1, *, listen: str = "127.0.0.1:0", secret: str = ""
) -> Iterator[Server]:
    """Run ``e2ecall-relay serve --dev``; where it listens and its secret are new, if not given.

    Raises:
        StartError: it does not start.
    """
    secret = secret or secrets.token_hex(32)
    command = [sys.executable, "-m", "relay.cli", "serve", "--dev", "--turn", listen]
    command += ["--turn-secret", secret, "--workers", str(workers)]
    with tempfile.TemporaryFile() as log, _process(command, core, log) as process:
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], START_SECONDS)
        line = process.stdout.readline() if readable else b""
        if not line:
            process.wait(STOP_SECONDS)
            log.seek(0)
            raise StartError(f"our relay did not start: {log.read().decode().strip()}")
        ready = json.loads(line)
        host, port = ready["turn"].removeprefix("turn:").partition("?")[0].split(":")
        pids = family(process.pid)
        name = "e2ecall" if workers == 1 else f"e2ecall, {workers} workers"
        yield Server(
            name,
            (host, int(port)),
            pids,
            lambda count: _our_tickets(secret, count),
            ready["signalling"],
        )


@contextlib.contextmanager
def coturn(core: int | None) -> Iterator[Server]:
    """Run coturn with one relay thread.

    Raises:
        StartError: it is not installed, or does not start.
    """
    program = shutil.which(COTURN)
    if program is None:
        raise StartError(f"coturn is not installed; on Debian or Ubuntu: {COTURN_HINT}")
    secret, port = secrets.token_hex(32), _free_port()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
        options = {
            "listening-ip": "127.0.0.1",
            "relay-ip": "127.0.0.1",
            "listening-port": port,
            "static-auth-secret": secret,
            "realm": "bench",
            "relay-threads": 1,
            "user-quota": 0,
            "total-quota": 0,
            "max-allocate-lifetime": TICKET_SECONDS,
            "userdb": Path(folder, "turndb"),
            "pidfile": Path(folder, "pid"),
            "log-file": "/dev/null",
        }
        flags = ["use-auth-secret", "allow-loopback-peers", "no-multicast-peers", "no-cli"]
        flags += ["no-tcp", "no-tls", "no-dtls", "no-tcp-relay", "no-stdout-log", "simple-log"]
        command = [program, "-n", *(f"--{flag}" for flag in flags)]
        command += [f"--{name}={value}" for name, value in options.items()]
        with _process(command, core, log) as process:
            address = ("127.0.0.1", port)
            if not _answers(address, process):
                log.seek(0)
                raise StartError(f"coturn did not start: {log.read().decode().strip()[-500:]}")
            pids = family(process.pid)
            yield Server("coturn", address, pids, lambda count: _plain_pairs(secret, count))


@contextlib.contextmanager
def echo(core: int | None) -> Iterator[Server]:
    """Run a server that sends everything back (`tests.bench.media.echo`)."""
    command = [sys.executable, "-m", "tests.bench.media.echo"]
    with tempfile.TemporaryFile() as log, _process(command, core, log) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield Server("an echo", ("127.0.0.1", port), [process.pid], lambda _: [])


@contextlib.contextmanager
def _process(
    command: list[str], core: int | None, log: "tempfile._TemporaryFileWrapper[bytes]"
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a child for the length of the block, with as many open files as the system grants."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError):  # macOS has a further limit, which nothing tells
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(before[1], FILES), before[1]))
    try:
        with on_core(core):
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    with process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _answers(address: tuple[str, int], process: "subprocess.Popen[bytes]") -> bool:
    """Wait until a server answers STUN; say whether it does."""
    end = time.monotonic() + START_SECONDS
    transport = [(int(Attribute.REQUESTED_TRANSPORT), UDP_TRANSPORT)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        while time.monotonic() < end and process.poll() is None:
            with contextlib.suppress(OSError):  # nobody there yet
                sock.sendto(request(Method.ALLOCATE, transport)[1], address)
            if select.select([sock], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    return parse(sock.recv(2048)) is not None
    return False


def _free_port() -> int:
    """Return a UDP port of loopback at which nobody listens, below those for relayed addresses."""
    for _ in range(100):
        port = 10_000 + secrets.randbelow(20_000)
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
            contextlib.suppress(OSError),
        ):
            sock.bind(("127.0.0.1", port))
            return port
    raise StartError("no UDP port of loopback is free")


def _our_tickets(secret: str, count: int) -> list[Pair]:
    command = [sys.executable, "-m", "relay.cli", "ticket", "--turn-secret", secret]
    output = subprocess.run([*command, "--count", str(count)], check=True, capture_output=True)
    tickets = [json.loads(line) for line in output.stdout.splitlines()]
    return [(Credential(**ticket["a"]), Credential(**ticket["b"])) for ticket in tickets]


def _plain_pairs(secret: str, count: int) -> list[Pair]:
    expires = int(time.time()) + TICKET_SECONDS
    return [
        (
            Credential.time_limited(secret, expires, secrets.token_hex(8)),
            Credential.time_limited(secret, expires, secrets.token_hex(8)),
        )
        for _ in range(count)
    ]
