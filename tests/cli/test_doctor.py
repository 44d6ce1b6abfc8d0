"""`e2ecall doctor` beside real relays, well and broken."""

import json
import socket
import subprocess
import sys

import anyio
import pytest
from anyio.from_thread import start_blocking_portal

from e2ecall import Client, MediaError
from e2ecall.cli.doctor.finding import Health
from e2ecall.cli.doctor.relay import RelayCheck
from e2ecall.cli.doctor.turn import media_findings
from e2ecall.config import Settings
from e2ecall.io.endpoint import tls_context
from e2ecall.media.probe import try_allocation
from e2ecall.testing import running_relay
from tests.integration.authority import Authority, ip_name

from .conftest import run_command

LOOPBACK = ip_name("127.0.0.1")
WAYS = ("media over UDP", "media over TCP", "media over TLS")


@pytest.fixture(scope="module")
def portal():
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture(scope="module")
def hospital(portal, tmp_path_factory):
    """Give the options of an account at a relay behind TLS, which serves all ways for media."""
    folder = tmp_path_factory.mktemp("hospital")
    authority = Authority("right")
    passphrase = folder / "passphrase"
    passphrase.write_text("correct horse\n")
    passphrase.chmod(0o600)
    arguments = authority.issue(folder, LOOPBACK, days=30)
    with portal.wrap_async_context_manager(running_relay(*arguments)) as relay:
        options = ["--store", folder / "s.db", "--passphrase-file", passphrase]
        options += ["--ca", authority.save(folder / "ca.pem")]
        done = run_command("register", "patient", "--relay", relay.url, *options)
        assert done.code == 0, done.stderr
        yield [*options, "--relay", relay.url]


def examine(*options):
    """Return the exit code of the doctor, and each finding by what it is about."""
    done = run_command("doctor", *options, "--json")
    *findings, verdict = done.events
    assert done.stderr == ""
    assert verdict == {"event": "doctor", "ok": done.code == 0}
    for finding in findings:
        assert finding["health"] != "fails" or finding["hint"], finding
    return done.code, {finding["what"]: finding for finding in findings}


def test_all_is_well(hospital):
    """A relay that works, with all its ways for media, lets the doctor end with 0."""
    code, found = examine(*hospital)
    assert code == 0, found
    for what in ("versions", "media library", "clock", "account", *WAYS):
        assert found[what]["health"] == "works", found[what]
    assert "valid until 20" in found["certificate of the relay"]["detail"]
    assert "allocated after" in found["media over TLS"]["detail"]
    assert "aiortc 1.16" in found["versions"]["detail"]


def test_in_words(hospital):
    """People get the same in lines, with what to do beside what is absent."""
    done = run_command("doctor", *hospital)
    assert done.code == 0
    assert "works   media over TCP: 127.0.0.1:" in done.stdout
    assert done.stdout.endswith("All that calls need works.\n")


def test_without_an_account(relay, tmp_path):
    """Without an account the relay is looked at, and what could not be tried is said."""
    code, found = examine("--store", tmp_path / "none", "--relay", relay)
    assert code == 0
    assert found["account"]["health"] == "absent"
    assert "register" in found["account"]["hint"]
    assert found["certificate of the relay"]["health"] == "absent"
    assert not set(found) & set(WAYS)


def test_a_relay_without_tls(relay, alice):
    """What a relay does not offer is absent, and no failure."""
    code, found = examine(*alice.options)
    assert code == 0
    assert [found[way]["health"] for way in WAYS] == ["works", "works", "absent"]


def test_nobody_there(tmp_path):
    """A relay that cannot be reached is a failure that says what to do."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    code, found = examine("--store", tmp_path / "none", "--relay", f"ws://127.0.0.1:{port}")
    assert code == 1
    assert found[f"relay 127.0.0.1:{port}"]["health"] == "fails"


def test_another_authority(hospital, tmp_path):
    """A certificate that the user's authorities did not sign is a failure, told as what it is."""
    other = Authority("other").save(tmp_path / "other.pem")
    relay = hospital[-1]
    code, found = examine("--store", tmp_path / "none", "--relay", relay, "--ca", other)
    assert code == 1
    (relay,) = [finding for what, finding in found.items() if what.startswith("relay ")]
    assert "certificate" in relay["detail"]


def test_no_media_server(hospital):
    """Each way for media that leads nowhere, or to who refuses, fails and says what to do."""
    store, passphrase, ca, relay = hospital[1::2]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    nowhere = (
        f"turn:127.0.0.1:{port}?transport=udp",
        f"turn:127.0.0.1:{port}?transport=tcp",
        f"turns:127.0.0.1:{port}?transport=tcp",
    )

    async def look():
        secret = passphrase.read_text().strip()
        async with Client.open(store, passphrase=secret, relay=relay, ca=ca) as me:
            return [finding async for finding in media_findings(me, nowhere, tls_context(ca))]

    found = anyio.run(look, backend="asyncio")
    assert [finding.what for finding in found] == list(WAYS)
    for finding in found:
        assert finding.health is Health.FAILS
        assert str(port) in finding.detail
        assert finding.hint


def test_a_media_server_that_refuses(hospital):
    """A credential that the relay did not issue is refused over every way, and that is told."""

    async def look():
        check = RelayCheck(Settings(relay=hospital[-1], ca=str(hospital[5])))
        assert [finding async for finding in check.findings()]
        for uri in check.turn:
            with pytest.raises(MediaError, match="code 401"):
                await try_allocation(uri, "9999999999:somebody", "guess", check.tls)
        with pytest.raises(MediaError, match="form"):
            await try_allocation("turns:127.0.0.1:1?transport=udp", "a", "b", check.tls)
        return len(check.turn)

    assert anyio.run(look, backend="asyncio") == 3


LATE = """
import sys, time
now = time.time
shift = float(sys.argv.pop(1))
time.time = lambda: now() + shift
from e2ecall.cli.main import main
main()
"""


@pytest.mark.parametrize(("seconds", "health"), [(-3600, "fails"), (100, "fails"), (5, "works")])
def test_clock(relay, tmp_path, seconds, health):
    """A clock that is off by more than calls allow is a failure, in either direction."""
    options = ["--store", str(tmp_path / "none"), "--relay", relay, "--json"]
    done = subprocess.run(
        [sys.executable, "-c", LATE, str(seconds), "doctor", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    (clock,) = [event for event in events if event.get("what") == "clock"]
    assert clock["health"] == health
    assert done.returncode == (1 if health == "fails" else 0)
    assert ("behind" in clock["detail"]) == (seconds == -3600)
