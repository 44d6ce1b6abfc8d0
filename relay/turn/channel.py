"""Channels: a number of 16 bits in place of a peer's address (RFC 8656 section 12).

Bindings and the ChannelData format only; whether the peer may be reached is decided elsewhere.

ChannelData layout, big-endian: ``channel_number:16 length:16 data``; over UDP the bytes after
``length`` are padding.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from relay.turn.attributes import TransportAddress
from relay.turn.errors import ErrorCode, RefusedError, STUNError

CHANNEL_NUMBERS: Final = range(0x4000, 0x5000)
CHANNEL_DATA_HEADER: Final = 4


@dataclass(slots=True)
class Channel:
    """One binding."""

    number: int
    peer: TransportAddress
    expires: float


class Channels:
    """The channels of one allocation: at most one for each number and each peer."""

    __slots__ = ("_by_number", "_by_peer", "_limit")

    def __init__(self, limit: int) -> None:
        self._by_number: dict[int, Channel] = {}
        self._by_peer: dict[TransportAddress, Channel] = {}
        self._limit = limit

    def check(self, number: int, peer: TransportAddress) -> None:
        """Say whether `bind` would be allowed; `purge` was called at the same time.

        Raises:
            RefusedError: 400 for a number outside 0x4000-0x4FFF, a number bound to another peer or
                a peer bound to another number; 508 for too many channels.
        """
        bound, of_peer = self._by_number.get(number), self._by_peer.get(peer)
        # RFC 8656 section 12.2: a number bound to another peer, or a peer bound to another
        # number, MUST be answered with 400.
        if number not in CHANNEL_NUMBERS or bound is not of_peer:
            raise RefusedError(ErrorCode.BAD_REQUEST)
        if bound is None and len(self._by_number) >= self._limit:
            raise RefusedError(ErrorCode.INSUFFICIENT_CAPACITY)

    def bind(self, now: float, number: int, peer: TransportAddress, lifetime: float) -> None:
        """Bind or refresh; `check` has passed."""
        channel = Channel(number, peer, now + lifetime)
        self._by_number[number] = self._by_peer[peer] = channel

    def bound_to(self, now: float, number: int) -> Channel | None:
        """Return the live channel of this number."""
        return _live(now, self._by_number.get(number))

    def towards(self, now: float, peer: TransportAddress) -> Channel | None:
        """Return the live channel of this peer."""
        return _live(now, self._by_peer.get(peer))

    def purge(self, now: float) -> list[Channel]:
        """Forget and return what has expired."""
        expired = [channel for channel in self if channel.expires <= now]
        for channel in expired:
            del self._by_number[channel.number], self._by_peer[channel.peer]
        return expired

    def deadlines(self) -> Iterator[float]:
        """Yield when each one expires."""
        return (channel.expires for channel in self._by_number.values())

    def __iter__(self) -> Iterator[Channel]:
        return iter(self._by_number.values())

    def __len__(self) -> int:
        return len(self._by_number)


def encode_channel_data(number: int, data: bytes) -> bytes:
    """Return ChannelData as it goes over UDP, without padding."""
    return number.to_bytes(2) + len(data).to_bytes(2) + data


def decode_channel_data(datagram: bytes) -> tuple[int, bytes]:
    """Return channel number and data of a ChannelData datagram.

    Raises:
        STUNError: shorter than it says.
    """
    end = CHANNEL_DATA_HEADER + int.from_bytes(datagram[2:4])
    if len(datagram) < CHANNEL_DATA_HEADER or len(datagram) < end:
        raise STUNError("ChannelData shorter than its length field")
    return int.from_bytes(datagram[:2]), datagram[CHANNEL_DATA_HEADER:end]


def _live(now: float, channel: Channel | None) -> Channel | None:
    return channel if channel is not None and now < channel.expires else None
