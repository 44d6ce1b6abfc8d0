"""ICE through one TURN allocation and nothing else (spec/media.md, "Path").

It changes aioice where a call needs it: no other candidate can come about, gathering fails with
its reason and leaks nothing, checks that crossed each other are repeated at once, what is not
answered is sent again at one pace, and what a stranger can make it keep is bounded. It is used by
aiortc's own ICE transport.
"""

import asyncio
import contextlib
import ipaddress
import re
import ssl
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from socket import SO_RCVBUF, SOL_SOCKET
from typing import Any, Final

from aioice import Candidate as ICECandidate
from aioice import Connection, TransportPolicy, stun
from aioice.candidate import candidate_priority
from aioice.ice import CandidatePair, StunProtocol
from aioice.turn import TurnClientTcpProtocol, TurnClientUdpProtocol, TurnTransport
from aiortc import RTCIceGatherer
from aiortc.rtcconfiguration import RTCIceTransportPolicy

from e2ecall.errors import MediaError
from e2ecall.media.repeats import HANDSHAKE_PACE, HANDSHAKE_TIMES, Repeats, repeating
from e2ecall.protocol.messages import Candidate, CandidateType

GATHER_TIMEOUT: Final = 8.0
"""Seconds until the relay must have answered an Allocate request, over whichever transport."""

HEAD_START: Final = 1.0
"""Seconds that each transport has before the next one is tried beside it."""

MAX_UNSENT: Final = 65_536
"""Bytes kept for a TCP connection that does not take them: half a second of video. What is beyond
is lost as on a network, since media that is late is worth nothing."""

RELEASE_TIMEOUT: Final = 1.0
"""Seconds that the relay may take to confirm the end of an allocation."""

MAX_QUEUED: Final = 2_048
"""Datagrams kept while the event loop is behind: 20 s of sound, a second of video."""

ALLOCATION_LIFETIME: Final = 600
"""Seconds asked for; refreshed after five sixths of what the relay grants (RFC 8656)."""

CHANNEL_LIFETIME: Final = 500
"""Seconds until a channel binding is refreshed; it would end after 600."""

CONSENT_WAITS: Final = 2
"""How often aioice's wait of half a second doubles before a question for consent counts as not
answered: 3.5 s in all, for a round trip may take longer than the first of them."""

_RECEIVE_BUFFER: Final = 262_144
_TURN_URI: Final = re.compile(
    r"(turns?):(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9.-]{1,253}):([0-9]{1,5})"
    r"(?:\?transport=(udp|tcp))?",
    re.ASCII,
)
_LABEL: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?", re.ASCII)
_RTP: Final = range(128, 192)
_RTCP: Final = range(192, 209)
"""Second byte of what aiortc takes for RTCP; whatever it takes for RTP is judged as RTP."""
_DTLS: Final = range(20, 64)
_HANDSHAKE: Final = range(20, 23)
"""First byte of DTLS records that are no data: handshake, its end, and alerts."""
_ALERT: Final = 21
_UNAUTHORIZED: Final = 401
_QUOTA_REACHED: Final = 486


class _TURNClient(TurnClientUdpProtocol):
    """aioice's client of the relay's TURN server, which a malformed message cannot make raise."""

    async def request(self, request: stun.Message) -> tuple[stun.Message, tuple[str, int]]:
        with repeating(lambda: self.send_stun(request, self.server)):  # MEDIA-38
            return await super().request(request)

    def datagram_received(self, data: bytes | str, addr: tuple[str, int]) -> None:
        # aioice raises what its parser happens to raise; asyncio would log each with a traceback.
        with contextlib.suppress(Exception):
            super().datagram_received(data, addr)


class _TURNStreamClient(TurnClientTcpProtocol):
    """The same over TCP or TLS; what the connection does not take is dropped, not kept."""

    def __init__(self, *options: Any) -> None:
        super().__init__(*options)
        self._gone = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._gone.set()

    async def abort(self) -> None:
        """End the connection now: TLS would wait for the other end's goodbye."""
        self.transport.abort()
        await self._gone.wait()

    def datagram_received(self, data: bytes | str, addr: tuple[str, int]) -> None:
        with contextlib.suppress(Exception):
            super().datagram_received(data, addr)

    def _send(self, data: bytes) -> None:
        if self.transport.get_write_buffer_size() <= MAX_UNSENT:
            super()._send(data)


@dataclass(frozen=True, slots=True)
class TURNServer:
    """One way to the relay's TURN server."""

    host: str
    port: int
    stream: bool = False
    tls: bool = False

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return self.host, self.port


class _AllocationProtocol(StunProtocol):
    """The STUN layer over an allocation; remembers its checks and ends within a bounded time."""

    def __init__(self, receiver: "RelayConnection") -> None:
        super().__init__(receiver)
        self._path = receiver
        self.stream: _TURNStreamClient | None = None
        self._checks: dict[tuple[str, int], stun.Message] = {}

    def datagram_received(self, data: bytes | str, addr: tuple[Any, ...]) -> None:
        try:
            super().datagram_received(data, addr)
        except Exception:  # noqa: BLE001 - MEDIA-15: what the peer sends must not raise anything
            self._path.datagrams_ignored += 1

    async def request(
        self,
        request: stun.Message,
        addr: tuple[str, int],
        integrity_key: bytes | None = None,
        retransmissions: int | None = None,
    ) -> tuple[stun.Message, tuple[str, int]]:
        # A question for consent is the only one that aioice would not send again. Its patience
        # then is half a second: less than a round trip over a satellite.
        waits = CONSENT_WAITS if retransmissions == 0 else retransmissions
        with repeating(lambda: self.send_stun(request, addr)):  # MEDIA-38
            return await super().request(request, addr, integrity_key, waits)

    def send_stun(self, message: stun.Message, addr: tuple[str, int]) -> None:
        if message.message_class == stun.Class.REQUEST:
            self._checks[addr] = message
        super().send_stun(message, addr)

    def repeat_check(self, addr: tuple[str, int]) -> None:
        """Send the unanswered check to ``addr`` once more."""
        check = self._checks.get(addr)
        if check is not None and check.transaction_id in self.transactions:
            super().send_stun(check, addr)

    async def close(self) -> None:
        allocation: Any = self.transport  # an aioice TurnTransport
        for task in tuple(allocation._TurnTransport__send_tasks):  # noqa: SLF001 - see hooks
            task.cancel()
        # Left to itself aioice asks a dead relay for half a minute whether the allocation ended.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RELEASE_TIMEOUT):
                await allocation._close()  # noqa: SLF001 - see hooks
        if self.stream is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RELEASE_TIMEOUT):
                    await self.stream.abort()


class RelayConnection(Connection):
    """An ICE connection whose only local candidate is a relayed one."""

    def __init__(
        self, servers: Sequence[TURNServer], tls: ssl.SSLContext | None, **parameters: Any
    ) -> None:
        super().__init__(
            transport_policy=TransportPolicy.RELAY, turn_server=servers[0].address, **parameters
        )
        self.servers = tuple(servers)
        self._tls = tls
        self.expected: Mapping[int, Collection[int]] = {}
        """SSRCs of the peer's description with their payload types; all else is ignored."""
        self.speechless = False
        """Whether nothing is sent to the peer any more, not even that this is the end."""
        self.datagrams_sent = 0
        self.datagrams_received = 0
        self.datagrams_ignored = 0
        self._handshake = Repeats(HANDSHAKE_PACE, HANDSHAKE_TIMES)

    async def get_component_candidates(
        self,
        component: int,
        addresses: list[str],  # noqa: ARG002 - of local interfaces, never used
        timeout: int = 5,  # noqa: ARG002, ASYNC109 - aioice's signature; GATHER_TIMEOUT holds
    ) -> list[ICECandidate]:
        """Allocate at the relay; no local interface and no STUN server is ever looked at."""
        async with asyncio.timeout(GATHER_TIMEOUT):
            protocol = await self._allocate()
        host, port = protocol.transport.get_extra_info("sockname")
        protocol.local_candidate = ICECandidate(
            foundation="relay",
            component=component,
            transport="udp",
            priority=candidate_priority(component, "relay"),
            host=host,
            port=port,
            type="relay",
        )
        self._protocols.append(protocol)
        return [protocol.local_candidate]

    async def _allocate(self) -> _AllocationProtocol:
        """Allocate over the first transport that works; each has a head start before the next."""
        waiting, trying = list(self.servers), set[asyncio.Task[_AllocationProtocol]]()
        failures: list[BaseException] = []
        try:
            while waiting or trying:
                if waiting:
                    server = waiting.pop(0)
                    trying.add(asyncio.create_task(self._allocate_at(server)))
                done, _ = await asyncio.wait(
                    trying,
                    timeout=HEAD_START if waiting else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    error = task.exception()
                    if error is None:
                        trying.remove(task)
                        return task.result()
                    trying.remove(task)
                    failures.append(error)
        finally:
            await _release(trying)
        # What the relay itself said tells more than that something did not answer.
        raise next((e for e in failures if isinstance(e, stun.TransactionFailed)), failures[0])

    async def _allocate_at(self, server: TURNServer) -> _AllocationProtocol:
        loop = asyncio.get_running_loop()
        options = (
            server.address,
            self.turn_username,
            self.turn_password,
            ALLOCATION_LIFETIME,
            CHANNEL_LIFETIME,
        )
        transport: asyncio.BaseTransport
        client: _TURNClient | _TURNStreamClient
        if server.stream:
            transport, client = await loop.create_connection(
                lambda: _TURNStreamClient(*options),
                *server.address,
                ssl=self._tls if server.tls else None,
            )
        else:
            transport, client = await loop.create_datagram_endpoint(
                lambda: _TURNClient(*options), remote_addr=server.address
            )
        try:
            if not server.stream:
                raw = transport.get_extra_info("socket")
                raw.setsockopt(SOL_SOCKET, SO_RCVBUF, _RECEIVE_BUFFER)
            protocol = _AllocationProtocol(self)
            protocol.stream = client if isinstance(client, _TURNStreamClient) else None
            await TurnTransport(client)._connect(protocol)  # noqa: SLF001 - see hooks
        except BaseException:
            if isinstance(client, _TURNStreamClient):
                client.transport.abort()
            transport.close()
            raise
        return protocol

    def check_incoming(
        self, message: stun.Message, addr: tuple[str, int], protocol: StunProtocol
    ) -> None:
        """Take an authenticated check of the peer."""
        super().check_incoming(message, addr, protocol)
        # RFC 8445 section 7.3.1.4: a check that arrives for a pair whose own check is under way
        # repeats that one. The relay drops a check that comes before the receiver's permission;
        # this one shows that the permission is there now. aioice would wait for 500 ms.
        if isinstance(protocol, _AllocationProtocol) and any(
            pair.state == CandidatePair.State.IN_PROGRESS and pair.remote_addr == addr
            for pair in self._check_list
        ):
            protocol.repeat_check(addr)

    def data_received(self, data: bytes, component: int) -> None:
        """Keep a datagram that may be DTLS or the peer's RTP, up to `MAX_QUEUED`."""
        self.datagrams_received += 1
        if self._queue.qsize() < MAX_QUEUED and self._expected(data):
            if data[0] in _RTP:
                self._handshake.end()  # the peer has its keys
            super().data_received(data, component)
        else:
            self.datagrams_ignored += 1

    async def sendto(self, data: bytes, component: int) -> None:
        """Send a datagram to the selected address, one of the DTLS handshake often (MEDIA-37)."""
        if self.speechless:
            return
        self.datagrams_sent += 1
        await super().sendto(data, component)
        if data[0] in _HANDSHAKE:
            await super().sendto(data, component)
            if data[0] == _ALERT:
                self._handshake.end()
            else:
                self._handshake.begin(lambda: self._send_again(data, component))

    async def close(self) -> None:
        """Close the connection."""
        self._handshake.end()
        await super().close()

    def _send_again(self, data: bytes, component: int) -> None:
        pair = self._nominated.get(component)
        if pair is not None and not self.speechless:
            pair.protocol.transport.sendto(data, pair.remote_addr)

    def _expected(self, data: bytes) -> bool:
        if len(data) < 12:  # an RTP header; DTLS and RTCP records are longer
            return False
        if data[0] in _DTLS:
            return True
        if data[0] not in _RTP:
            return False
        if data[1] in _RTCP:
            return int.from_bytes(data[4:8]) in self.expected
        return data[1] & 0x7F in self.expected.get(int.from_bytes(data[8:12]), ())


def relay_gatherer(
    turn_uris: Sequence[str],
    username: str,
    password: str,
    *,
    ice_ufrag: str,
    ice_pwd: str,
    tls: ssl.SSLContext | None = None,
) -> tuple[RTCIceGatherer, RelayConnection]:
    """Return a gatherer for aiortc's ICE transport, and its connection. Nothing is sent yet.

    The URIs are those of one TURN server; they are tried in the order UDP, TCP, TLS. One of
    ``turns:`` needs ``tls``, by which the server's certificate is checked.

    Raises:
        MediaError: none of them is one that can be used, or one is not of a form that is known.
    """
    servers = [turn_server(uri) for uri in turn_uris]
    usable = [server for server in servers if tls is not None or not server.tls]
    if not usable:
        raise _not_supported()
    usable.sort(key=lambda server: (server.stream, server.tls))
    # The list is never None: aiortc would then ask a public STUN server.
    gatherer = RTCIceGatherer([], RTCIceTransportPolicy.RELAY, ice_ufrag, ice_pwd)
    connection = RelayConnection(
        usable,
        tls,
        ice_controlling=False,
        turn_username=username,
        turn_password=password,
        local_username=ice_ufrag,
        local_password=ice_pwd,
    )
    gatherer._connection = connection  # noqa: SLF001 - see hooks
    return gatherer, connection


async def allocate(connection: RelayConnection) -> tuple[Candidate, ...]:
    """Make the allocation; return its candidate. Sends to the relay only.

    Raises:
        MediaError: the relay refused, did not answer, or gave no address.
    """
    try:
        await connection.gather_candidates()
    except stun.TransactionFailed as error:
        raise MediaError(_refusal(error), hint="Hang up and call again.") from error
    except Exception as error:
        # The relay says what is parsed here and which host is asked for: aioice and the resolver
        # raise ValueError, KeyError, OverflowError and more.
        raise MediaError(
            "the relay's media server does not answer",
            hint="A firewall may be between this machine and the relay.",
        ) from error
    candidates = connection.local_candidates
    if not candidates or any(candidate.type != "relay" for candidate in candidates):
        raise MediaError("the relay gave no address")
    return tuple(
        Candidate(type=CandidateType.RELAY, address=candidate.host, port=candidate.port)
        for candidate in candidates
    )


def turn_server(uri: str) -> TURNServer:
    """Return what a TURN URI names, with nothing left for a resolver to stumble over (MEDIA-16).

    Raises:
        MediaError: it is not of a form that is known.
    """
    match = _TURN_URI.fullmatch(uri)
    if match is None or not 0 < int(match[3]) < 1 << 16:
        raise _not_supported()
    scheme, host, port, transport = match[1], match[2], int(match[3]), match[4]
    tls = scheme == "turns"
    if tls and transport == "udp":
        raise _not_supported()
    if host.startswith("["):
        try:
            host = str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError as error:
            raise _not_supported() from error
    elif not all(_LABEL.fullmatch(label) for label in host.removesuffix(".").split(".")):
        raise _not_supported()
    return TURNServer(host, port, stream=tls or transport == "tcp", tls=tls)


async def _release(tasks: "set[asyncio.Task[_AllocationProtocol]]") -> None:
    """Give up attempts that another one overtook, and what they may have come to."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled() and task.exception() is None:
            await task.result().close()


def _not_supported() -> MediaError:
    return MediaError("the relay names a TURN server in a form that is not supported")


def _refusal(error: stun.TransactionFailed) -> str:
    code, _ = error.response.attributes.get("ERROR-CODE", (0, ""))
    if code == _UNAUTHORIZED:
        return "the relay refused the media credential"
    if code == _QUOTA_REACHED:
        return "the relay has no room for another media path of this call"
    return f"the relay refused a media path (code {code})"
