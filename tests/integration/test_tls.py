"""A relay behind TLS: whom a client believes that it talks to its relay."""

import ssl

import anyio
import pytest
from anyio.streams.tls import TLSListener
from cryptography import x509

import e2ecall
from e2ecall import Client
from e2ecall.testing import running_relay
from tests.integration.authority import Authority, ip_name
from tests.integration.people import ended, fresh, person, ringing, texts

pytestmark = pytest.mark.anyio

LOOPBACK = ip_name("127.0.0.1")
ELSEWHERE = x509.DNSName("relay.example")


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
