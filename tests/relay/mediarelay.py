"""A running relay whose TURN server has UDP, TCP and TLS, and where each of them is."""

import contextlib
from types import SimpleNamespace

from websockets.sync.client import connect

from relay.wire.codec import decode
from relay.wire.limits import MAX_FRAME
from relay.wire.messages import ServerFrame
from tests.relay.authority import make_authority
from tests.relay.conftest import RelayProcess
from tests.relay.turnclients import trusting

SECRET = "the secret of this relay"
TRANSPORTS = ("udp", "tcp", "tls")


@contextlib.contextmanager
def media_relay(folder):
    """Run one; in the end it must have been well and have had nothing to complain about."""
    certificate, key = make_authority(folder)
    config = folder / "relay.toml"
    config.write_text(f'[tls]\ncertificate = "{certificate}"\nkey = "{key}"\n')
    relay = RelayProcess(folder, "--config", config, "--turn-secret", SECRET)
    try:
        tls = trusting(certificate)
        with connect(relay.url, ssl=tls, compression=None) as line:
            urls = decode(line.recv(), ServerFrame, limit=MAX_FRAME).body.turn
        ports = [int(url.split(":")[2].split("?")[0]) for url in urls]
        yield SimpleNamespace(
            urls=dict(zip(TRANSPORTS, urls, strict=True)),
            addresses={
                name: ("127.0.0.1", port) for name, port in zip(TRANSPORTS, ports, strict=True)
            },
            certificate=certificate,
            tls=tls,
            pid=relay.process.pid,
        )
        assert relay.is_alive
        assert relay.terminate()[0] == 0
        assert "Traceback" not in relay.log.read_text()
    finally:
        if relay.is_alive:
            relay.kill()
