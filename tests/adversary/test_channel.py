"""Somebody between client and relay, with a certificate that the client accepts."""

import contextlib
import ssl
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.streams.tls import TLSListener, TLSStream
from msgspec.structs import replace

from relay.wire.messages import Binding, Done, ErrorCode
from tests.integration.authority import Authority, ip_name
from tests.relay.conftest import Identity, wire

pytestmark = pytest.mark.trio


@asynccontextmanager
async def in_between(folder, target, rewrite):
    """Run a relay's double: TLS with a certificate of its own, everything is passed on.

    ``rewrite`` gets the frame with the relay's Hello and returns what the client gets.
    """
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(folder / "relay.pem", folder / "relay.key")
    careless = ssl.create_default_context()
    careless.check_hostname, careless.verify_mode = False, ssl.CERT_NONE

    async def pass_on(source, sink, tasks):
        with contextlib.suppress(anyio.BrokenResourceError):  # either end goes when it likes
            async for data in source:
                await sink.send(data)
        tasks.cancel_scope.cancel()

    async def handle(client):
        tcp = await anyio.connect_tcp(*target)
        relay = await TLSStream.wrap(
            tcp, ssl_context=careless, server_side=False, standard_compatible=False
        )
        async with client, relay, anyio.create_task_group() as tasks:
            tasks.start_soon(pass_on, client, relay, tasks)
            seen = b""
            while len(seen.partition(b"\r\n\r\n")[2]) < 100:
                seen += await relay.receive()
            head, gap, hello = seen.partition(b"\r\n\r\n")
            await client.send(head + gap + rewrite(hello))
            await pass_on(relay, client, tasks)

    below = await anyio.create_tcp_listener(local_host="127.0.0.1")
    listener = TLSListener(below, own, standard_compatible=False)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        yield f"wss://127.0.0.1:{below.extra(anyio.abc.SocketAttribute.local_port)}/v1"
        tasks.cancel_scope.cancel()


@pytest.fixture
def believed(start_relay, tmp_path):
    """Give a relay, a double's folder, and a context that trusts the certificates of both."""
    authority = Authority("believed by the client")
    folders = [tmp_path / "relay", tmp_path / "double"]
    for folder in folders:
        folder.mkdir()
    arguments, _ = [authority.issue(folder, ip_name("127.0.0.1")) for folder in folders]
    trusted = ssl.create_default_context(cafile=authority.save(tmp_path / "ca.pem"))
    relay = start_relay(*arguments)
    yield relay, folders[1], trusted
    assert relay.terminate()[0] == 0
    assert "Traceback" not in relay.log.read_text()


@pytest.mark.parametrize("binding", [Binding.ENDPOINT, Binding.NONE], ids=["honest", "talked_down"])
async def test_log_in_is_not_passed_on(believed, binding):
    """WIRE-45: a registration or log-in by way of another certificate that the client accepts is
    refused, also if the binding is talked away; straight to the relay it is accepted.
    """
    relay, folder, trusted = believed

    def rewrite(frame):
        assert frame[-1] == Binding.ENDPOINT  # the last field of Hello
        return frame[:-1] + bytes([binding])

    async with in_between(folder, relay.address, rewrite) as url:
        async with wire(url, ssl=trusted) as client:
            assert client.hello.binding is binding
            identity = Identity("alice", relay.name)
            refused = await client.request(identity.register(client.hello))
            assert refused.code is ErrorCode.BAD_REQUEST
        async with wire(relay.url, ssl=trusted) as client:
            assert await client.request(identity.register(client.hello)) == Done()
        async with wire(url, ssl=trusted) as client:
            refused = await client.request(identity.login(client.hello))
            assert refused.code is ErrorCode.LOGIN_FAILED
    async with wire(relay.url, ssl=trusted) as client:
        assert await client.request(identity.login(client.hello)) == Done()


async def test_unbound_on_tls(believed):
    """WIRE-45: on TLS a signature over the bare challenge is worth nothing."""
    relay, _, trusted = believed
    async with wire(relay.url, ssl=trusted) as client:
        identity = Identity("alice", relay.name)
        for challenge in (client.bare_challenge, bytes(32)):
            wrong = identity.register(replace(client.hello, challenge=challenge))
            assert (await client.request(wrong)).code is ErrorCode.BAD_REQUEST
        assert await client.request(identity.register(client.hello)) == Done()


async def test_browser(start_relay, believed, tmp_path, speak):
    """WIRE-45: a page that the operator allowed, which cannot see certificates, is not bound."""
    _, folder, trusted = believed
    config = folder / "relay.toml"
    config.write_text(config.read_text() + '[signalling]\norigins = ["https://calls.example"]\n')
    relay = start_relay("--config", config)
    async with wire(relay.url, ssl=trusted, origin="https://calls.example") as page:
        assert page.hello.binding is Binding.NONE
        identity = Identity("alice", relay.name)
        assert await page.request(identity.register(page.hello)) == Done()
    async with wire(relay.url, ssl=trusted) as client:
        assert client.hello.binding is Binding.ENDPOINT
    assert relay.terminate()[0] == 0
