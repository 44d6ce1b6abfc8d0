"""A relay behind TLS: whom a client believes that it talks to its relay."""

import datetime as dt
import ipaddress
import ssl

import anyio
import pytest
from anyio.streams.tls import TLSListener
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import e2ecall
from e2ecall import Client
from e2ecall.testing import running_relay
from tests.integration.people import ended, fresh, person, ringing, texts

pytestmark = pytest.mark.anyio

LOOPBACK = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
ELSEWHERE = x509.DNSName("relay.example")


class Authority:
    """A certificate authority of its own."""

    def __init__(self, name):
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        basic = x509.BasicConstraints(ca=True, path_length=0)
        self._certificate = self._sign(self._name, self._key.public_key(), [(basic, True)])

    def save(self, path):
        path.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))
        return path

    def issue(self, folder, name, *, days=1):
        """Write certificate and key for ``name``; return the arguments of a relay with them."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a relay")])
        names = x509.SubjectAlternativeName([name])
        certificate = self._sign(subject, key.public_key(), [(names, False)], days=days)
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        (folder / "relay.pem").write_bytes(pem)
        (folder / "relay.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        config = folder / "relay.toml"
        config.write_text('[tls]\ncertificate = "relay.pem"\nkey = "relay.key"\n')
        return "--config", str(config)

    def _sign(self, subject, public_key, extensions, *, days=1):
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=2))
            .not_valid_after(now + dt.timedelta(days=days))
        )
        issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        for extension, critical in [*extensions, (issuer_id, False)]:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(self._key, hashes.SHA256())


async def test_right_authority(tmp_path):
    """Over wss, with the authority that signed its certificate, a relay carries texts and calls."""
    authority = Authority("right")
    ca = authority.save(tmp_path / "ca.pem")
    async with running_relay(*authority.issue(tmp_path, LOOPBACK)) as relay:
        assert relay.url.startswith("wss://")
        async with (
            person(tmp_path, relay, "alice", ca=ca) as alice,
            person(tmp_path, relay, "bob", ca=ca) as bob,
        ):
            await alice.message(bob.address, "hello")
            assert [text.text for text in await texts(bob, 1)] == ["hello"]
            call, incoming = await ringing(alice, bob)
            await incoming.decline()
            await ended(call)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ("authority", "certificate"),
        ("system", "certificate"),
        ("name", "mismatch"),
        ("expired", "expired"),
    ],
)
async def test_wrong_certificate(tmp_path, wrong, text):
    """A certificate of another authority, for another name or out of date is refused."""
    authority, other = Authority("right"), Authority("other")
    ca = (other if wrong == "authority" else authority).save(tmp_path / "ca.pem")
    name = ELSEWHERE if wrong == "name" else LOOPBACK
    arguments = authority.issue(tmp_path, name, days=-1 if wrong == "expired" else 1)
    async with (
        running_relay(*arguments) as relay,
        Client.open(
            tmp_path / "a.db",
            passphrase="x",
            relay=relay.url,
            ca=None if wrong == "system" else ca,
        ) as client,
    ):
        with pytest.raises(e2ecall.ConnectionFailedError, match="is not valid") as caught:
            await client.register(fresh("alice"))
        assert text in str(caught.value)
        assert caught.value.hint
        assert not client.is_registered


async def test_bad_authority_file(tmp_path):
    """A file that holds no certificates, or is not there, is named; no store is made."""
    (tmp_path / "ca.pem").write_text("this is no certificate")
    for ca in (tmp_path / "ca.pem", tmp_path / "none.pem"):
        with pytest.raises(e2ecall.LocalProtocolError, match=ca.name):
            async with Client.open(
                tmp_path / "a.db", passphrase="x", relay="wss://127.0.0.1:1", ca=ca
            ):
                pass
        assert not (tmp_path / "a.db").exists()


async def test_no_older_tls(tmp_path):
    """A server that offers TLS 1.2 at most is refused."""
    authority = Authority("right")
    ca = authority.save(tmp_path / "ca.pem")
    authority.issue(tmp_path, LOOPBACK)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "relay.pem", tmp_path / "relay.key")
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    async def never(_stream):
        raise AssertionError("the handshake must not succeed")

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    serving = TLSListener(listener, context)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serving.serve, never)
        async with Client.open(
            tmp_path / "a.db", passphrase="x", relay=f"wss://127.0.0.1:{port}", ca=ca
        ) as client:
            with pytest.raises(e2ecall.ConnectionFailedError):
                await client.register(fresh("alice"))
        tasks.cancel_scope.cancel()
    await serving.aclose()
