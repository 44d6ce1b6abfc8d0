"""Settings and certificates that change while a relay runs (relay/README.md, Operation)."""

import signal
import ssl
import time

import pytest
import trio

from relay.wire.messages import Done, FetchBundle
from tests.relay.io.test_tls import make_authority

pytestmark = pytest.mark.trio

TEXT = """
[relay]
name = "relay.example"
registration = "{registration}"
[signalling]
listen = "127.0.0.1:0"
[tls]
certificate = "{folder}/certificate.pem"
key = "{folder}/key.pem"
[turn]
listen = "127.0.0.1:0"
secret = "a secret of the tests"
[limits]
fetches_per_address_and_minute = {fetches}
{more}
"""


@pytest.fixture
def operated(start_relay, tmp_path):
    """Start a relay behind a certificate, and give a function that changes its settings."""
    config = tmp_path / "relay.toml"

    def write(folder="first", registration="open", fetches=1, more=""):
        where = tmp_path / folder
        if not where.exists():
            where.mkdir()
            make_authority(where)
        config.write_text(
            TEXT.format(folder=where, registration=registration, fetches=fetches, more=more)
        )
        return ssl.create_default_context(cafile=where / "certificate.pem")

    first = write()
    return start_relay("--config", config, dev=False), first, write


async def reloaded(relay, said="configuration reloaded"):
    """Send SIGHUP and wait until the log has what came of it."""
    before = relay.log.read_text().count(said)
    relay.process.send_signal(signal.SIGHUP)
    end = time.monotonic() + 10
    while relay.log.read_text().count(said) == before:
        assert time.monotonic() < end
        await trio.sleep(0.02)


async def test_sighup(operated, speak, username):
    """SIGHUP: new connections get the new certificate, limits and registration rule; a connection
    that is there goes on.
    """
    relay, first, write = operated
    async with speak.wire(relay.url, ssl=first) as before:
        identity = speak.Identity(username, "relay.example")
        assert await before.request(identity.register(before.hello)) == Done()
        assert (await before.request(FetchBundle("nobody", None, None))).text == "not reachable"
        again = await before.request(FetchBundle("nobody", None, None))
        assert again.text == "too many requests"
        second = write("second", registration="closed", fetches=1000)
        await reloaded(relay)
        assert (await before.request(FetchBundle("nobody", None, None))).text == "not reachable"
        with pytest.raises(trio.BrokenResourceError):
            async with speak.wire(relay.url, ssl=first):
                pass
        async with speak.wire(relay.url, ssl=second) as after:
            other = speak.Identity(f"{username}_2", "relay.example")
            refused = await after.request(other.register(after.hello))
            assert refused.text == "this relay takes no new accounts"
        assert await before.request(speak.letter(username)) == Done()
    assert relay.terminate()[0] == 0


async def test_bad_settings(operated, speak, tmp_path):
    """SIGHUP with settings that cannot be used changes nothing, and the log says what is wrong."""
    relay, first, write = operated
    write("second", more="connections = 'many'")
    await reloaded(relay, "nothing was changed")
    assert "limits.connections has no valid value" in relay.log.read_text()
    write("second")
    (tmp_path / "second" / "certificate.pem").write_text("no certificate")
    await reloaded(relay, "nothing was changed")
    async with speak.wire(relay.url, ssl=first) as client:
        assert client.hello.relay == "relay.example"
    assert relay.terminate()[0] == 0


async def test_a_reload_that_breaks_down(operated, speak):
    """SIGHUP with a file at which reading itself breaks down ends neither relay nor connections."""
    relay, first, write = operated
    async with speak.wire(relay.url, ssl=first) as client:
        write(more="x = " + "[" * 100_000)
        await reloaded(relay, "reload failed")
        assert (await client.request(FetchBundle("nobody", None, None))).text == "not reachable"
    write()
    await reloaded(relay)
    assert relay.terminate()[0] == 0


async def test_expired_certificate(operated, tmp_path):
    """A certificate that clients refuse by its dates is served, and the log says so."""
    relay, _, write = operated
    write("second")
    make_authority(tmp_path / "second", begins=-2, ends=-1)
    await reloaded(relay)
    assert "second/certificate.pem has expired" in relay.log.read_text()
    assert relay.terminate()[0] == 0


async def test_what_waits_for_a_restart(operated):
    """What a reload cannot change is named, until it is again what the relay started with."""
    relay, _, write = operated
    write(more="[operation]\ndrain_seconds = 5")
    await reloaded(relay)
    assert '"needs_restart": ["operation.drain_seconds"]' in relay.log.read_text()
    write(registration="invite", more="[operation]\ndrain_seconds = 5")
    await reloaded(relay)
    assert relay.log.read_text().count("operation.drain_seconds") == 2
    write()
    await reloaded(relay)
    assert relay.log.read_text().count("operation.drain_seconds") == 2
    assert relay.terminate()[0] == 0
