"""What ``serve --capture DIR`` keeps (spec/wire.md, Capture): what the sockets saw.

For proofs that the relay learns nothing, on a developer's machine; refused without ``--dev``.
Integers are big-endian. Each record begins with ``u32`` the number of bytes that follow it.

``signalling.bin``, a record for every WebSocket message::

    u32 length | u64 microseconds since 1970 | u32 connection | u8 direction | message

direction is 0 for received and 1 for sent; connections count from 1 in order of arrival.

``turn.bin``, a record for every datagram that the TURN socket received::

    u32 length | u64 microseconds since 1970 | u16 source port | u8 n | n bytes address | datagram

The mailbox and the directory are in ``relay.sqlite`` in the data directory.
"""

import ipaddress
import time
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from relay.errors import OperatorError
from relay.turn.five_tuple import SocketAddress

RECEIVED: Final = 0
SENT: Final = 1
_BUFFER: Final = 1 << 18


class Capture:
    """Two growing files in a folder of its own. Use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        """Create the folder and begin both files anew.

        Raises:
            OperatorError: they cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._signalling: BinaryIO = (folder / "signalling.bin").open("wb", _BUFFER)
            self._turn: BinaryIO = (folder / "turn.bin").open("wb", _BUFFER)
        except OSError as error:
            raise OperatorError(f"cannot write the capture: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._signalling.close()
        self._turn.close()

    def message(self, connection: int, direction: int, message: bytes) -> None:
        """Keep one WebSocket message."""
        body = _now() + connection.to_bytes(4) + direction.to_bytes(1) + message
        self._signalling.write(len(body).to_bytes(4) + body)
        self._signalling.flush()  # few and precious: they survive a kill

    def datagram(self, now: float, source: SocketAddress, datagram: bytes) -> None:
        """Keep one datagram that the TURN socket received at ``now``."""
        host, port = source[:2]
        address = ipaddress.ip_address(host.partition("%")[0]).packed
        head = int(now * 1e6).to_bytes(8) + port.to_bytes(2) + len(address).to_bytes(1)
        body = head + address + datagram
        self._turn.write(len(body).to_bytes(4) + body)


def _now() -> bytes:
    return (time.time_ns() // 1000).to_bytes(8)
