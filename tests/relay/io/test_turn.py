"""From the configuration to the TURN listeners (relay/README.md)."""

import dataclasses
from functools import partial

import pytest
import trio

from relay.config import Config, LimitsSection, TurnSection, load
from relay.diagnosis import check
from relay.errors import ConfigurationError, OperatorError
from relay.io.media.plane import IS_AVAILABLE
from relay.io.stream import StreamLimits
from relay.io.tls import Certificates
from relay.io.turn import UNLIMITED, Media, limits_of, open_listeners, workers_of
from relay.turn.counters import Drop
from relay.turn.limits import Limits
from tests.relay.authority import make_authority
from tests.relay.turnclients import SECRET, client, open_channel, ticket, trusting

ANY = {"listen": "127.0.0.1:0", "secret": "long enough a secret"}


def test_urls(tmp_path):
    """Clients are told every listener, UDP first, by the relay's name where it is any address."""
    certificates = Certificates(*map(str, make_authority(tmp_path)))
    turn = TurnSection(
        listen=("0.0.0.0:0", "127.0.0.1:0", "[::1]:0"),
        listen_tcp="0.0.0.0:0",
        listen_tls=("127.0.0.1:0",),
    )
    with open_listeners(Config(turn=turn), certificates) as listeners:
        ports = [port for _, _, port in listeners.bound()]
        for name in ("relay.example", "relay.example:8443"):
            assert listeners.urls(name) == (
                f"turn:relay.example:{ports[0]}?transport=udp",
                f"turn:127.0.0.1:{ports[1]}?transport=udp",
                f"turn:[::1]:{ports[2]}?transport=udp",
                f"turn:relay.example:{ports[3]}?transport=tcp",
                f"turns:127.0.0.1:{ports[4]}?transport=tcp",
            )
    assert all(sock.fileno() == -1 for sock in listeners.datagrams)
    assert all(listener.socket.fileno() == -1 for listener in listeners.streams)


def test_same_port_of_both_families():
    """IPv4 and IPv6 on one port are one URL."""
    with open_listeners(Config(turn=TurnSection(listen="0.0.0.0:0")), None) as first:
        port = first.datagrams[0].getsockname()[1]
        with open_listeners(Config(turn=TurnSection(listen=f"[::]:{port}")), None) as second:
            both = dataclasses.replace(first, groups=first.groups + second.groups)
            assert both.urls("relay.example") == (f"turn:relay.example:{port}?transport=udp",)


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        (TurnSection(listen="localhost:1"), "numeric"),
        (TurnSection(listen="127.0.0.1:0", listen_tls="127.0.0.1:0"), "certificate"),
        (TurnSection(listen="127.0.0.1:0", listen_tcp="192.0.2.1:1"), "cannot use TCP 192.0.2.1"),
    ],
)
def test_refusals(turn, said):
    """An address that cannot be used, or TLS without a certificate, is refused in words."""
    with pytest.raises(OperatorError, match=said), open_listeners(Config(turn=turn), None):
        pass


@pytest.mark.parametrize(
    ("turn", "key"),
    [
        ({"listen": ()}, "turn.listen"),
        ({"listen_tcp": ("127.0.0.1:1", "localhost:1")}, "turn.listen_tcp"),
        ({"listen_tcp": "3478"}, "turn.listen_tcp"),
        ({"listen_tls": "127.0.0.1:1"}, "turn.listen_tls"),
    ],
)
def test_diagnosis(turn, key):
    """`check` names the listener that cannot be served."""
    config = Config(turn=TurnSection(**{**ANY, **turn}))
    with pytest.raises(ConfigurationError) as caught:
        check(config)
    assert key in [problem.key for problem in caught.value.problems]


def test_environment():
    """Addresses in the environment are separated by commas."""
    config = load(None, {"RELAY__TURN__LISTEN_TCP": "0.0.0.0:3478, [::]:3478"})
    assert config.turn.listen_tcp == ("0.0.0.0:3478", "[::]:3478")
    assert load(None, {"RELAY__TURN__LISTEN": "0.0.0.0:1"}).turn.listen == ("0.0.0.0:1",)


def test_limits():
    """What `[limits]` sets is what the server enforces; the defaults are the same (TURN-47)."""
    assert limits_of(LimitsSection(), per_address=True) == Limits()
    limits = LimitsSection(
        allocations=10,
        allocations_per_side=3,
        allocations_per_address=4,
        allocation_seconds=700,
        allocation_bytes_per_second=20_000,
    )
    assert limits_of(limits, per_address=True) == Limits(
        allocations=10,
        allocations_per_side=3,
        allocations_per_address=4,
        max_lifetime=700,
        bandwidth=20_000,
    )
    assert limits_of(limits, per_address=False).allocations_per_address == 10


@pytest.mark.trio
async def test_running_relay(start_relay, speak, tmp_path):
    """A relay's hello names UDP, TCP and TLS, and a pair over the latter two meets (TURN-70)."""
    certificate, key = make_authority(tmp_path)
    config = tmp_path / "relay.toml"
    config.write_text(f'[tls]\ncertificate = "{certificate}"\nkey = "{key}"\n')
    secret = "the secret"
    relay = start_relay("--config", config, "--turn-secret", secret)
    async with speak.wire(relay.url, ssl=trusting(certificate)) as wire:
        udp, tcp, tls = wire.hello.turn
    assert udp == relay.ready["turn"]
    assert tcp.startswith("turn:127.0.0.1:")
    assert tls.startswith("turns:127.0.0.1:")
    a, b = ticket(secret.encode())
    (over_tcp, over_tls) = [
        ("127.0.0.1", int(url.split(":")[2].split("?")[0])) for url in (tcp, tls)
    ]
    async with (
        client("tcp", over_tcp, a) as one,
        client("tls", over_tls, b, trusting(certificate)) as two,
    ):
        await one.bind(two.relayed, 0x4000)
        await two.bind(one.relayed, 0x4000)
        await one.channel_data(0x4000, b"met")
        assert await two.frame() == b"\x40\0\0\x03met"
    async with open_channel("tcp", over_tcp) as channel:
        await channel.stream.send_all(b"nonsense")
        assert await channel.receive() == b""
    assert relay.terminate()[0] == 0
    assert relay.log.read_text() == ""


def test_limits_change_while_it_runs():
    """Other bounds hold at once for what comes, also those of connections (TURN-47)."""
    for per_address, connections_per_address in ((True, 5), (False, 7)):
        media = Media(Config(turn=TurnSection(**ANY)), per_address=per_address)
        limits = LimitsSection(allocations=3, turn_connections=7, turn_connections_per_address=5)
        media.limit(limits)
        assert media.core._table.limits == limits_of(limits, per_address=per_address)
        assert media._stream_limits == StreamLimits(
            connections=7,
            connections_per_address=connections_per_address,
            connections_per_address_and_minute=600 if per_address else UNLIMITED,
        )


@pytest.mark.trio
@pytest.mark.skipif(not IS_AVAILABLE, reason="this machine has the portable loop only")
@pytest.mark.parametrize("workers", [0, 1, 2])
async def test_workers_beside_streams(workers):
    """Clients on UDP and TCP meet, whoever forwards, and a changed bandwidth holds at once for
    workers too (TURN-46, TURN-55, TURN-70).
    """
    turn = TurnSection(
        listen=("127.0.0.1:0", "127.0.0.1:0"),
        listen_tcp="127.0.0.1:0",
        secret=SECRET.decode(),
        workers=workers,
    )
    config = Config(turn=turn)
    media = Media(config, per_address=False)
    counters = media.core.counters
    number = workers_of(config, is_captured=False)
    with open_listeners(config, None, workers=number) as listeners:
        udp, other, tcp = [("127.0.0.1", port) for _, _, port in listeners.bound()]
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(media.serve, listeners, capture=None))
            for places in ((udp, udp), (udp, other), (udp, tcp), (tcp, udp), (tcp, tcp)):
                credentials = ticket()
                transports = ["tcp" if place is tcp else "udp" for place in places]
                async with (
                    client(transports[0], places[0], credentials[0]) as one,
                    client(transports[1], places[1], credentials[1]) as two,
                ):
                    await one.bind(two.relayed, 0x4000)
                    await two.bind(one.relayed, 0x4001)
                    for _ in range(3):
                        await one.channel_data(0x4000, b"forth")
                        assert await two.frame() == b"\x40\1\0\x05forth"
                        await two.channel_data(0x4001, b"back")
                        assert await one.frame() == b"\x40\0\0\x04back"
                    assert counters.current().drops[Drop.BANDWIDTH] == 0
            media.limit(LimitsSection(allocation_bytes_per_second=10_000))
            credentials = ticket()
            async with (
                client("udp", udp, credentials[0]) as one,
                client("udp", udp, credentials[1]) as two,
            ):
                await one.bind(two.relayed, 0x4000)
                await two.bind(one.relayed, 0x4001)
                for _ in range(20):
                    await one.channel_data(0x4000, bytes(1000))
                with trio.fail_after(10):
                    while counters.current().drops[Drop.BANDWIDTH] < 10:  # noqa: ASYNC110
                        await trio.sleep(0.01)
            nursery.cancel_scope.cancel()


def test_a_capture_sees_all():
    """With a capture no worker forwards what it would not see (TURN-53)."""
    config = Config(turn=TurnSection(workers=3))
    assert workers_of(config, is_captured=True) == 0
    assert workers_of(config, is_captured=False) == (3 if IS_AVAILABLE else 0)
