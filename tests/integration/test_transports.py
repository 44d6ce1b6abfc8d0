"""Calls where UDP does not get through: TURN over TCP and over TLS, at a real relay."""

import socket

import pytest

import e2ecall
from e2ecall.client.calllink import CallLink
from e2ecall.protocol.messages import Stream
from e2ecall.testing import running_relay
from tests.integration.authority import Authority, ip_name
from tests.integration.people import frames, media, person, ringing, until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


@pytest.fixture
def silent_port():
    """A UDP port at which nobody answers, as behind a firewall."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def inner(call):
    """Return the socket of a call's path to the relay."""
    (protocol,) = call.media._peer._session._path.connection._protocols
    return protocol.transport._TurnTransport__inner_protocol.transport


@pytest.mark.parametrize("over", ["tcp", "tls"])
async def test_media_over_a_stream(tmp_path, monkeypatch, silent_port, over):
    """MEDIA-43: one end behind such a network uses what it offers; the other end stays with UDP."""
    for name in ("LISTEN_TCP", "LISTEN_TLS"):
        monkeypatch.setenv(f"RELAY__TURN__{name}", "127.0.0.1:0")
    authority = Authority("of media")
    ca = authority.save(tmp_path / "ca.pem")
    original = CallLink.turn_uris

    async with (
        running_relay(*authority.issue(tmp_path, ip_name("127.0.0.1"))) as relay,
        person(tmp_path, relay, "alice", ca=ca) as alice,
        person(tmp_path, relay, "bob", ca=ca) as bob,
    ):

        def through_the_firewall(link, credential):
            udp, tcp, tls = original(link, credential)
            assert (tcp[:5], tls[:6]) == ("turn:", "turns:")
            if link._sessions is not bob._services.sessions:
                return udp, tcp, tls
            blocked = f"turn:127.0.0.1:{silent_port}?transport=udp"
            return blocked, tcp if over == "tcp" else tls

        monkeypatch.setattr(CallLink, "turn_uris", through_the_firewall)
        at_alice, at_bob = media(), media()
        call, incoming = await ringing(alice, bob, **at_alice)
        answered = await incoming.accept(**at_bob)
        for end in (call, answered):
            await until(end, e2ecall.Connected)
        for sink in (at_alice["output"], at_bob["output"]):
            await frames(sink, Stream.MICROPHONE, 25)
            await frames(sink, Stream.CAMERA, 10)
        assert inner(call).get_extra_info("socket").type == socket.SOCK_DGRAM
        assert inner(answered).get_extra_info("socket").type == socket.SOCK_STREAM
        assert (inner(answered).get_extra_info("sslcontext") is not None) is (over == "tls")
        await call.hangup()


async def test_a_certificate_of_somebody_else(tmp_path, monkeypatch, silent_port):
    """MEDIA-43: TURN over TLS is not used where the certificate is not the relay's."""
    monkeypatch.setenv("RELAY__TURN__LISTEN_TLS", "127.0.0.1:0")
    right, wrong = Authority("right"), Authority("wrong")
    ca = right.save(tmp_path / "ca.pem")
    (tmp_path / "other").mkdir()
    original = CallLink.turn_uris
    name = ip_name("127.0.0.1")
    async with (
        running_relay(*right.issue(tmp_path, name)) as relay,
        running_relay(*wrong.issue(tmp_path / "other", name)) as other,
        person(tmp_path, relay, "alice", ca=ca) as alice,
        person(tmp_path, relay, "bob", ca=ca) as bob,
    ):
        (*_, theirs) = (await _hello(other, wrong.save(tmp_path / "wrong.pem"), tmp_path)).turn

        def diverted(link, credential):
            assert original(link, credential)
            return f"turn:127.0.0.1:{silent_port}?transport=udp", theirs

        monkeypatch.setattr(CallLink, "turn_uris", diverted)
        monkeypatch.setattr("e2ecall.media.ice.GATHER_TIMEOUT", 3.0)
        call = await alice.call(bob.address, **media(video=False))
        assert (await until(call, e2ecall.Ended)).reason in {
            e2ecall.EndReason.MEDIA_FAILED,
            e2ecall.EndReason.PEER_FAILED,
        }


async def _hello(relay, ca, folder):
    """Return what a relay says of itself."""
    async with person(folder, relay, "carol", ca=ca) as carol:
        return carol._home.line.hello
