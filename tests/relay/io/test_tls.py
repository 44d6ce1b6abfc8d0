"""TLS on the signalling listener (relay/README.md), with an authority of the test."""

import ssl

import pytest
import trio
from cryptography.hazmat.primitives import serialization

from relay.errors import OperatorError
from relay.io.tls import Certificates
from relay.wire.messages import Done
from tests.relay.authority import make_authority


@pytest.fixture
def secure(start_relay, tmp_path):
    certificate, key = make_authority(tmp_path)
    config = tmp_path / "relay.toml"
    config.write_text(f'[tls]\ncertificate = "{certificate}"\nkey = "{key}"\n')
    relay = start_relay("--config", config)
    yield relay, certificate
    assert relay.terminate()[0] == 0
    assert "Traceback" not in relay.log.read_text()


@pytest.mark.trio
async def test_wss(secure, speak, username):
    """With a certificate the relay speaks TLS, and everything works over it."""
    relay, certificate = secure
    assert relay.url.startswith("wss://127.0.0.1:")
    trusted = ssl.create_default_context(cafile=certificate)
    async with speak.wire(relay.url, ssl=trusted) as client:
        identity = speak.Identity(username, relay.name)
        assert await client.request(identity.register(client.hello)) == Done()
        assert await client.request(speak.letter(username, b"sealed")) == Done()
        assert await client.deliveries(1) == [b"sealed"]


def test_encrypted_key(tmp_path):
    """A key with a passphrase is refused in words: a relay that serves asks nobody for one."""
    certificate, key = make_authority(tmp_path)
    loaded = Certificates(str(certificate), str(key))
    before = loaded.current
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(OperatorError, match="passphrase"):
        loaded.reload(str(certificate), str(key))
    assert loaded.current is before


@pytest.mark.trio
async def test_unknown_authority(secure, speak):
    """A client that does not trust the authority does not connect."""
    relay, _ = secure
    with pytest.raises(trio.BrokenResourceError) as caught:
        async with speak.wire(relay.url, ssl=ssl.create_default_context()):
            pass
    assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)


@pytest.mark.trio
async def test_bound_to_what_is_shown(start_relay, speak, tmp_path, username):
    """WIRE-45: log-ins are bound to the certificate that connections see, however its file is
    written, and not to another one in there.
    """
    certificate, key = make_authority(tmp_path)
    (tmp_path / "other").mkdir()
    other, _ = make_authority(tmp_path / "other")
    own = certificate.read_text()
    certificate.write_text(own.replace(" CERTIFICATE", " X509 CERTIFICATE") + other.read_text())
    config = tmp_path / "relay.toml"
    config.write_text(f'[tls]\ncertificate = "{certificate}"\nkey = "{key}"\n')
    relay = start_relay("--config", config)
    async with speak.wire(relay.url, ssl=ssl.create_default_context(cadata=own)) as client:
        identity = speak.Identity(username, relay.name)
        assert await client.request(identity.register(client.hello)) == Done()


@pytest.mark.trio
async def test_old_tls(secure, speak):
    """TLS before 1.3 is refused."""
    relay, certificate = secure
    old = ssl.create_default_context(cafile=certificate)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, trio.BrokenResourceError)):
        async with speak.wire(relay.url, ssl=old):
            pass


@pytest.mark.trio
async def test_plaintext_on_tls(secure, speak):
    """What is no TLS handshake is closed, and the relay lives on."""
    relay, certificate = secure
    stream = await trio.open_tcp_stream(*relay.address)
    async with stream:
        await stream.send_all(b"GET /v1 HTTP/1.1\r\n\r\n")
        with trio.fail_after(15):
            try:
                while await stream.receive_some():
                    pass
            except trio.BrokenResourceError:
                pass
    async with speak.wire(relay.url, ssl=ssl.create_default_context(cafile=certificate)):
        pass


def test_bad_files(tmp_path):
    """A missing file, or a key of another certificate, is refused in words."""
    certificate, key = make_authority(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    _, foreign = make_authority(other)
    for pair in ((certificate, tmp_path / "missing"), (certificate, foreign), (key, key)):
        with pytest.raises(OperatorError):
            Certificates(*map(str, pair))
