"""Where the TURN core's answers leave the process: by listener (spec/turn.md TURN-50).

Each shell that owns listeners registers how it sends; a packet that came in at one shell may leave
from another. It owns no socket and queues nothing.
"""

from collections.abc import Callable, Iterable

from relay.turn.five_tuple import SocketAddress
from relay.turn.forwarding import Datagram

SendTo = Callable[[SocketAddress, bytes], None]
"""``send(client, data)`` sends at once or drops and counts; it neither waits nor raises."""


class Outlets:
    """The senders of all listeners."""

    __slots__ = ("_senders",)

    def __init__(self) -> None:
        self._senders: dict[int, SendTo] = {}

    def add(self, listener: int, send: SendTo) -> None:
        """Register the sender of a listener."""
        self._senders[listener] = send

    def send(self, outgoing: Iterable[Datagram]) -> None:
        """Send each datagram from the listener that its five-tuple names."""
        for (listener, client), data in outgoing:
            self._senders[listener](client, data)
