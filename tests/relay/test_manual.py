"""The operator's manual works as it is written, and what it deploys holds (relay/README.md)."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest

from relay.cli.ask import _Connection
from relay.config import Config
from relay.io.metrics import PREFIX
from tests.relay.authority import make_authority
from tests.relay.test_cli import run

REPOSITORY = Path(__file__).resolve().parents[2]
MANUAL = (REPOSITORY / "relay" / "README.md").read_text("utf-8")
DEPLOY = REPOSITORY / "relay" / "deploy"
UNIT = DEPLOY / "e2ecall-relay.service"
INSTRUCTIONS = {
    *("FROM", "WORKDIR", "RUN", "COPY", "USER", "VOLUME", "ENV", "EXPOSE"),
    *("STOPSIGNAL", "ENTRYPOINT", "CMD"),
}
BIN = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


def commands():
    """Return the two shell sessions of the manual, with ports that are free now."""
    with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        udp.bind(("127.0.0.1", 0))
        signalling, turn = tcp.getsockname()[1], udp.getsockname()[1]
    relay, people = re.findall(r"```console\n(.*?)```", MANUAL, flags=re.DOTALL)
    relay = relay.replace("8443", str(signalling))
    relay = relay.replace('"127.0.0.1:3478"', f'"127.0.0.1:{turn}"')
    return relay, people.replace("8443", str(signalling))


@pytest.mark.skipif(sys.platform != "linux", reason="the manual's sed is that of Linux")
@pytest.mark.timeout(180)
@pytest.mark.system("openssl", "bash")
def test_from_an_empty_folder_to_a_call(tmp_path):
    """Every command of the manual works as it stands there: init, check, serve over TLS with an
    authority of one's own, two accounts, a call, status and drain.
    """
    relay_commands, people_commands = commands()
    relay = subprocess.Popen(
        ["bash", "-euc", relay_commands],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        for line in relay.stdout:
            if '"ready"' in line:
                break
        else:
            pytest.fail(relay.stderr.read())
        people = subprocess.run(
            ["bash", "-euc", people_commands],
            cwd=tmp_path / "relay",
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert people.returncode == 0, people.stderr
        assert "alice@127.0.0.1" in people.stdout
        assert re.search(r"phase +serving", people.stdout)
        assert "draining" in people.stdout
        assert relay.wait(30) == 0
        log = relay.stderr.read()
        assert '"event": "stopped"' in log
        assert "alice" not in log
        assert "127.0.0.1" not in log
    finally:
        if relay.poll() is None:
            os.killpg(relay.pid, signal.SIGKILL)
            relay.wait()
        relay.stdout.close()
        relay.stderr.close()


def test_a_configuration_for_the_internet(tmp_path):
    """The manual's `relay.toml` for a host of one's own is one that `check` accepts."""
    text = re.search(r"```toml\n(\[relay\].*?)```", MANUAL, re.DOTALL)[1]
    assert run("init", cwd=tmp_path).returncode == 0
    make_authority(tmp_path)
    config = tmp_path / "relay.toml"
    config.write_text(text.replace("/var/lib/e2ecall-relay", "data"))
    checked = run("check", "--config", config)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.system("systemd-analyze")
def test_unit(tmp_path):
    """The systemd unit is valid, and its sandbox is one that systemd calls OK."""
    program = tmp_path / "e2ecall-relay"
    shutil.copy("/bin/true", program)
    text = UNIT.read_text()
    assert text.count("/usr/local/bin/e2ecall-relay") == 1
    unit = tmp_path / UNIT.name
    unit.write_text(text.replace("/usr/local/bin/e2ecall-relay", str(program)))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (verified.returncode, verified.stderr) == (0, "")
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", unit],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert judged.returncode == 0, judged.stdout[-300:]


def test_unit_waits_for_a_drain():
    """The unit lets the relay drain with the defaults, reloads it by SIGHUP and keeps no core."""
    text = UNIT.read_text()
    seconds = int(re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)[1])
    assert seconds >= 60 + 15
    for line in ("KillSignal=SIGTERM", "ExecReload=/bin/kill -HUP $MAINPID", "LimitCORE=0"):
        assert f"\n{line}\n" in text


def test_containerfile():
    """The Containerfile installs only what is locked, runs as nobody special, and copies what is
    there. (No container engine is at hand to build it.)
    """
    text = (DEPLOY / "Containerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    known = [
        "FROM",
        "WORKDIR",
        "RUN",
        "COPY",
        "USER",
        "VOLUME",
        "ENV",
        "EXPOSE",
        "STOPSIGNAL",
        "ENTRYPOINT",
        "CMD",
    ]
    assert {line.split()[0] for line in lines} <= set(known)
    copies = [line for line in lines if line.startswith("COPY") and "--from" not in line]
    copied = [line.split()[1:-1] for line in copies]
    assert all((REPOSITORY / name).exists() for names in copied for name in names)
    installs = [line for line in lines if "pip install" in line]
    assert all("--require-hashes" in line or "--no-deps" in line for line in installs)
    users = [line.split()[1] for line in lines if line.startswith("USER")]
    assert users
    assert "root" not in users
    assert lines[-2:] == [
        'ENTRYPOINT ["/venv/bin/e2ecall-relay"]',
        'CMD ["serve", "--config", "/config/relay.toml"]',
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there are no figures of the process")
def test_metrics_that_there_are(start_relay):
    """The manual names every metric that a relay shows, and the example rules use no other."""
    relay = start_relay()
    connection = _Connection(next(relay.folder.glob("**/admin.sock")))
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    shown = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
    connection.close()
    table = MANUAL.partition("begins with `e2ecall_relay_`:\n")[2].partition("\n\nMemory")[0]
    named = re.findall(r"`(\w+)`", re.sub(r"\{[^}]*\}", "", table))
    assert {f"{PREFIX}_{name}" for name in named} == {n for n in shown if n.startswith(PREFIX)}
    used = set()
    for path in DEPLOY.glob("*.yml"):
        used |= set(re.findall(rf"\b(?:{PREFIX}|process)_\w+", path.read_text()))
    assert len(used) >= 4
    assert {re.sub(r"_bucket$", "", name) for name in used} <= shown | {"process_max_fds"}
    assert relay.terminate()[0] == 0


def test_every_key_is_in_the_manual(tmp_path):
    """The manual lists every key of the configuration, and `init` writes none that is unknown."""
    for section, table in msgspec.to_builtins(Config()).items():
        for key in table:
            assert f"`{section}.{key}`" in MANUAL, f"{section}.{key}"
    assert run("init", cwd=tmp_path).returncode == 0
    written = tomllib.loads((tmp_path / "relay.toml").read_text())
    assert {"relay", "signalling", "tls", "turn", "limits", "operation"} <= set(written)
