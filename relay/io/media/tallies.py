"""What a worker counts, in memory that the control process reads (spec/turn.md TURN-60).

``u64`` each, native byte order, in the order below; the worker alone writes, a word at a time, so
that each is old or new whenever it is read. Totals since the block was made: a worker that takes
over from one that ended goes on where that stopped.
"""

import mmap
from typing import Final

PACKETS_IN: Final = 0
BYTES_IN: Final = 1
PACKETS_OUT: Final = 2
BYTES_OUT: Final = 3
MALFORMED: Final = 4
NOT_STUN: Final = 5
BANDWIDTH: Final = 6
BUSY: Final = 7
SEND_FAILED: Final = 8
BATCHES: Final = 9
"""The first of `relay.turn.counters.BATCH_CLASSES` words."""

WORDS: Final = 24
BLOCK: Final = 8 * WORDS


def open_tallies(memory: mmap.mmap, block: int) -> memoryview:
    """Return the words of one block."""
    return memoryview(memory).cast("Q")[block * WORDS : (block + 1) * WORDS]
