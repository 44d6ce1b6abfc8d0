"""A forwarding worker: a process of its own, started by `relay.io.media.plane`, never by hand.

It imports as little as it can, holds no secret and no state that is missed when it dies, and ends
when the control process does. Its arguments are numbers, see `arguments`.
"""

import _thread
import gc
import mmap
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

from relay.io.media.forwarder import Forwarder
from relay.io.media.routetable import RouteReader, table_size
from relay.io.media.tallies import open_tallies

READY: Final = b"\0"
"""The first message on the first handover socket: shorter than any address."""

_STACK: Final = 64 * 1024


def arguments(
    *,
    listener: int,
    name_length: int,
    handovers: tuple[int, int],
    lifeline: int,
    table: int,
    records: int,
    counts: int,
    block: int,
    sockets: Sequence[int],
) -> list[str]:
    """Return the command line of a worker.

    Descriptors: ``handovers``, SOCK_SEQPACKET sockets for senders with routes and for others;
    ``lifeline``, whose end of file ends the worker; ``table`` and ``counts``, shared memory;
    ``sockets``, the UDP socket of each listener.
    """
    values = (listener, name_length, *handovers, lifeline, table, records, counts, block, *sockets)
    return [str(value) for value in values]


def main() -> NoReturn:
    """Run a worker; its arguments are those of the process."""
    numbers = [int(text) for text in sys.argv[1:]]
    listener, name_length, known, unknown, lifeline, table, records, counts, block = numbers[:9]
    sockets = numbers[9:]
    # Whoever stops the relay does so through the control process: a terminal or a supervisor
    # signals the whole group, and media goes on while the relay drains.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _thread.stack_size(_STACK)
    _thread.start_new_thread(_die_with, (lifeline,))
    reader = RouteReader(mmap.mmap(table, table_size(records), prot=mmap.PROT_READ), records)
    tallied = open_tallies(mmap.mmap(counts, 0), block)
    forwarder = Forwarder(sockets, listener, name_length, (known, unknown), reader, tallied)
    os.write(known, READY)
    os.set_blocking(known, False)
    os.set_blocking(unknown, False)
    gc.disable()  # nothing here refers to itself, and a collection is a pause
    try:
        forwarder.run()
    except ConnectionError:
        os._exit(0)  # the control process has ended, and the pipe is about to say so


def _die_with(lifeline: int) -> NoReturn:
    while os.read(lifeline, 1):
        pass
    os._exit(0)
