"""The servers to be measured: our relay with each of its storages, and Prosody.

All are children of the benchmark on loopback, with data in temporary folders and with limits that
no measurement meets. Our relay and PostgreSQL sync data to the disk before it is answered for.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.media.servers import StartError, on_core
from tests.bench.media.usage import family
from tests.bench.signalling.wire import Node
from tests.bench.signalling.xmpp import HOST, PASSWORD
from tests.conftest import program_path
from tests.relay.authority import make_authority
from tests.relay.cluster import Cluster
from tests.relay.conftest import RelayProcess

NAME = "relay.example"
START_SECONDS = 30
PROSODY_HINT = "sudo apt-get install -y prosody lua-dbi-sqlite3"
LIMITS = (
    "handshakes_per_address",
    "handshakes_per_address_and_minute",
    "requests_per_address_and_second",
    "connections_per_address",
    "registrations_per_address_and_hour",
    "fetches_per_address_and_minute",
    "fetches_per_account_and_minute",
    "sends_per_address_and_minute",
    "sends_per_mailbox_and_minute",
    "sends_per_token_and_minute",
    "tickets_per_account_and_hour",
)


@dataclass(frozen=True)
class Target:
    """A running server: its nodes, or its address for XMPP, and all its processes."""

    name: str
    nodes: tuple[Node, ...]
    pids: list[int]
    xmpp: tuple[str, int] | None = None


@contextlib.contextmanager
def relay(
    name: str,
    core: int | None,
    *,
    dsn: str = "",
    nodes: int = 1,
    tls: bool = False,
    folder: Path | None = None,
    ports: Sequence[int] = (),
) -> Iterator[Target]:
    """Run our relay: with SQLite, or as ``nodes`` nodes of a PostgreSQL database.

    A ``folder`` that was used before has the accounts from then, and ``ports`` are those nodes'.
    What counts as the relay's work is that of its own processes, not the database's.
    """
    with contextlib.ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shown = _certificate(place) if tls else None
        pids, found = [], []
        for number in range(nodes):
            home = place / f"node{number}"
            port = ports[number] if ports else 0
            _configure(home, f"node{number}", port, dsn, shown)
            with on_core(core):
                process = RelayProcess(home, "--config", home / "relay.toml", dev=False)
            stack.callback(process.terminate)
            host, port = process.address
            found.append(Node(host, port, str(shown[0]) if shown else ""))
            pids += family(process.process.pid)
        yield Target(name, tuple(found), pids)


@contextlib.contextmanager
def postgres() -> Iterator[Cluster]:
    """Run a PostgreSQL server that syncs.

    Raises:
        StartError: it is not installed.
    """
    if program_path("postgres") is None:
        raise StartError("PostgreSQL is not installed; on Debian: apt-get install postgresql")
    cluster = Cluster(lambda name: program_path(name) or Path(name))
    with contextlib.closing(cluster):
        cluster.stop()
        cluster.start(fsync="on", shared_buffers="128MB")
        yield cluster


@contextlib.contextmanager
def prosody(name: str, core: int | None, *, users: int, archives: bool) -> Iterator[Target]:
    """Run Prosody with users s0, r0, s1, r1 ...; with ``archives`` it keeps each message in SQLite.

    Raises:
        StartError: it is not installed, or does not start.
    """
    program = shutil.which("prosody")
    if program is None:
        raise StartError(f"Prosody is not installed; on Debian or Ubuntu: {PROSODY_HINT}")
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        port = _free_port()
        accounts = folder / "data" / HOST / "accounts"
        accounts.mkdir(parents=True)
        for number in range(users):
            for letter in "sr":
                account = accounts / f"{letter}{number}.dat"
                account.write_text(f'return {{ ["password"] = "{PASSWORD}"; }};\n')
        (folder / "prosody.cfg.lua").write_text(_prosody(folder, port, archives=archives))
        with (folder / "log").open("wb") as log, on_core(core):
            process = subprocess.Popen(
                [program, "-F", "--config", folder / "prosody.cfg.lua"], stdout=log, stderr=log
            )
        with process:
            try:
                if not _listens(port, process):
                    raise StartError(
                        f"Prosody did not start: {(folder / 'log').read_text()[-500:]}"
                    )
                yield Target(name, (), [process.pid], ("127.0.0.1", port))
            finally:
                process.terminate()


def _certificate(place: Path) -> tuple[Path, Path]:
    """Return the certificate and key that are there, or new ones."""
    there = place / "certificate.pem", place / "key.pem"
    return there if there[0].exists() else make_authority(place)


def _configure(home: Path, node: str, port: int, dsn: str, shown: tuple[Path, Path] | None) -> None:
    data = home / "data"
    data.mkdir(parents=True, exist_ok=True)
    key = data / "relay.key"
    key.write_bytes(bytes(range(32)))  # one for all nodes
    key.chmod(0o600)
    sections = [
        f'[relay]\nname = "{NAME}"',
        f'[signalling]\nlisten = "127.0.0.1:{port}"',
        '[turn]\nlisten = "127.0.0.1:0"\nworkers = 0\nsecret = "a secret of all nodes"',
        "[limits]\n" + "\n".join(f"{limit} = 1000000" for limit in LIMITS),
        "[operation]\ndrain_seconds = 0",
    ]
    if shown is not None:
        sections.append(f'[tls]\ncertificate = "{shown[0]}"\nkey = "{shown[1]}"')
    if dsn:
        sections.append(f'[storage]\nbackend = "postgres"\ndsn = "{dsn}"\nnode = "{node}"')
    (home / "relay.toml").write_text("\n".join(sections) + "\n")


def _prosody(folder: Path, port: int, *, archives: bool) -> str:
    modules = ["saslauth", "roster", "disco"] + (["mam"] if archives else [])
    storage = ""
    if archives:
        storage = (
            'storage = { archive = "sql" }\ndefault_archive_policy = true\n'
            f'sql = {{ driver = "SQLite3", database = "{folder}/archive.sqlite" }}\n'
        )
    return (
        f'run_as_root = {str(os.getuid() == 0).lower()}\npidfile = "{folder}/pid"\n'
        f'data_path = "{folder}/data"\ninterfaces = {{ "127.0.0.1" }}\n'
        f"c2s_ports = {{ {port} }}\ns2s_ports = {{}}\nhttp_ports = {{}}\nhttps_ports = {{}}\n"
        "c2s_require_encryption = false\nallow_unencrypted_plain_auth = true\n"
        'authentication = "internal_plain"\nnetwork_backend = "epoll"\n'
        f"modules_enabled = {{ {', '.join(map(_quoted, modules))} }}\n"
        'modules_disabled = { "s2s", "offline" }\n'
        'log = { error = "*console" }\n'
        f'{storage}VirtualHost "{HOST}"\n'
    )


def _quoted(text: str) -> str:
    return f'"{text}"'


def _listens(port: int, process: "subprocess.Popen[bytes]") -> bool:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        time.sleep(0.05)
    return False


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
