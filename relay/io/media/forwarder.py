"""The forwarding loop of one worker: receive a batch, send what has a route, hand over the rest.

It knows ChannelData of bound channels and nothing else of TURN (spec/turn.md TURN-35, TURN-55). A
batch is what had arrived already, and leaves before the next is read.
"""

import ctypes
import errno
import os
import time
from collections.abc import Sequence
from typing import Final, NoReturn

from relay.io.media import tallies
from relay.io.media.batch import BATCH, MAX_DATAGRAM, Outgoing, Received
from relay.io.media.libc import (
    CONTROL,
    IOVEC,
    MAX_SEGMENTED,
    MSG_DONTWAIT,
    MSG_WAITFORONE,
    CLibrary,
)
from relay.io.media.pace import Pace
from relay.io.media.routetable import NUMBER, RouteReader, Target, route_key
from relay.turn.bandwidth import Bandwidth

_FATAL: Final = frozenset({errno.EBADF, errno.ENOTSOCK, errno.EFAULT, errno.EINVAL})
_UNSEGMENTED: Final = frozenset({errno.EINVAL, errno.EIO, errno.EMSGSIZE, errno.EOPNOTSUPP})
"""What a kernel, route or network card that cannot cut this run answers."""

_COOKIE: Final = b"\x21\x12\xa4\x42"
"""RFC 8489 section 5: in bytes 4 to 7 of each STUN header, which has 20."""
_STUN_HEADER: Final = 20

_ONE = ctypes.c_uint(1)
_COUNTS = [ctypes.c_uint(n) for n in range(BATCH + 1)]
_DO_NOT_WAIT = ctypes.c_int(MSG_DONTWAIT)
_CLASSES = [tallies.BATCHES + (n - 1).bit_length() for n in range(BATCH + 1)]


class _Entry:
    """A route as the loop needs it; valid while the table has ``generation`` at ``word``."""

    __slots__ = (
        "address",
        "bandwidth",
        "generation",
        "name",
        "name_length",
        "number",
        "out",
        "until",
        "word",
    )

    def __init__(self, target: Target, out: Outgoing, bandwidth: Bandwidth) -> None:
        self.word = target.word
        self.generation = target.generation
        self.until = target.until
        self.name = ctypes.create_string_buffer(target.name, len(target.name))
        self.address = ctypes.addressof(self.name)
        self.name_length = len(target.name)
        self.number = int.from_bytes(target.number, "little")
        self.out = out
        self.bandwidth = bandwidth


class Forwarder:
    """Serves one socket for good."""

    def __init__(
        self,
        sockets: Sequence[int],
        listener: int,
        name_length: int,
        handovers: tuple[int, int],
        reader: RouteReader,
        counts: memoryview,
    ) -> None:
        """Take a worker's resources.

        ``sockets`` are descriptors, one for each listener; the one of ``listener``, whose clients'
        socket addresses have ``name_length`` bytes, is received from. ``handovers`` take what is
        not forwarded: of senders with routes, and of others. ``counts`` are the worker's `tallies`.
        """
        self._listener = listener
        self._known, self._unknown = handovers
        self._reader = reader
        self._counts = counts
        self._library = CLibrary()
        self._received = Received(name_length)
        self._outgoing = [Outgoing(number) for number in sockets]
        self._entries: dict[bytes, _Entry] = {}
        self._bandwidths: dict[bytes, Bandwidth] = {}

    def run(self) -> NoReturn:  # noqa: C901, PLR0912, PLR0915 - a call for each packet costs 10%
        """Forward until the process ends.

        Raises:
            OSError: the socket is unusable.
        """
        received, entries, counts = self._received, self._entries, self._counts
        buffer, begin, places = received.buffer, received.keys[0], received.places
        words, sizes, iovecs = received.words, received.sizes, received.iovecs
        heads_of, lengths_of = received.heads, received.lengths
        generations = self._reader.words
        receive, argument = self._library.recvmmsg, received.argument
        outgoing, send = self._outgoing, self._library.sendmmsg
        socket, room = self._outgoing[self._listener].socket, ctypes.c_uint(BATCH)
        flags, forever, monotonic = ctypes.c_int(MSG_WAITFORONE), ctypes.c_void_p(), time.monotonic
        packets_in, bytes_in, packets_out, bytes_out = counts[:4]
        rest_after, sleep = Pace().rest_after, time.sleep
        while True:
            count = receive(socket, argument, room, flags, forever)
            if count <= 0:
                self._receive_failed()
                continue
            now = monotonic()
            lengths = lengths_of[count]()
            heads = heads_of[count](buffer, begin)
            slot = 0
            key, size = heads[0], heads[1]
            while slot < count:
                entry = entries.get(key)
                if (
                    entry is None
                    or generations[entry.word] != entry.generation
                    or now >= entry.until
                ):
                    entry = self._find(key, now)
                # What is shorter than it says leaves an older datagram's bytes after it.
                if entry is None or size + 4 > lengths[slot] or lengths[slot] > MAX_DATAGRAM:
                    self._hand_over(slot, lengths[slot])
                    slot += 1
                    if slot < count:
                        key, size = heads[slot + slot], heads[slot + slot + 1]
                    continue
                # A run: one sender, one receiver, and one size but for the last, which may be less.
                sender, first = key, slot
                whole = last = size
                total, number = 0, entry.number
                while True:
                    words[places[slot]] = number
                    sizes[slot] = size + 4
                    total += size
                    last = size
                    slot += 1
                    if slot == count:
                        break
                    key, size = heads[slot + slot], heads[slot + slot + 1]
                    if (
                        key != sender
                        or last != whole
                        or size > whole
                        or size + 4 > lengths[slot]
                        or lengths[slot] > MAX_DATAGRAM
                        or total + size > MAX_SEGMENTED
                    ):
                        break
                run = slot - first
                if not entry.bandwidth.take(now, total, generations[0]):
                    counts[tallies.BANDWIDTH] += run
                    continue
                out = entry.out
                message = out.pending
                out.pending = message + 1
                out.kept[message] = entry
                headers, word = out.headers, message << 3
                headers[word] = entry.address
                headers[word + 1] = entry.name_length
                headers[word + 2] = iovecs[first]
                headers[word + 3] = run
                if run == 1:
                    headers[word + 5] = 0
                else:
                    headers[word + 5] = CONTROL
                    out.segments[message] = whole + 4
                packets_out += run
                bytes_out += total + 4 * run
            for out in outgoing:
                message = out.pending
                if message:
                    out.pending = 0
                    sent = send(out.socket, out.arguments[0], _COUNTS[message], _DO_NOT_WAIT)
                    if sent != message:
                        lost, lost_bytes = self._send_rest(out, max(sent, 0), message)
                        packets_out -= lost
                        bytes_out -= lost_bytes
            packets_in += count
            bytes_in += sum(lengths)
            # A word each: packing would clear them first, and who looks then sees zeros.
            counts[0], counts[1] = packets_in, bytes_in
            counts[2], counts[3] = packets_out, bytes_out
            counts[_CLASSES[count]] += 1
            if rest := rest_after(count, now):
                sleep(rest)

    def _send_rest(self, out: Outgoing, done: int, count: int) -> tuple[int, int]:
        """Send what is pending but for the first that the kernel refused, and so on.

        Returns how many datagrams, and bytes, did not leave.
        """
        lost = lost_bytes = 0
        while done < count:
            argument, rest = out.arguments[done], _COUNTS[count - done]
            sent = self._library.sendmmsg(out.socket, argument, rest, _DO_NOT_WAIT)
            if sent > 0:
                done += sent
            else:
                datagrams, size = self._send_failed(out, done)
                lost += datagrams
                lost_bytes += size
                done += 1
        self._counts[tallies.SEND_FAILED] += lost
        return lost, lost_bytes

    def _send_failed(self, out: Outgoing, message: int) -> tuple[int, int]:
        """Send a run one by one if it was the cutting that failed; return what did not leave."""
        word = message << 3
        first = (out.headers[word + 2] - self._received.iovecs[0]) // IOVEC
        run, cut = out.headers[word + 3], out.headers[word + 5]
        one_by_one = cut and self._library.errno() in _UNSEGMENTED
        lost = lost_bytes = 0
        out.headers[word + 3] = 1
        out.headers[word + 5] = 0
        for slot in range(first, first + run):
            out.headers[word + 2] = self._received.iovecs[slot]
            argument = out.arguments[message]
            if (
                not one_by_one
                or self._library.sendmmsg(out.socket, argument, _ONE, _DO_NOT_WAIT) < 1
            ):
                lost += 1
                lost_bytes += self._received.sizes[slot]
        return lost, lost_bytes

    def _receive_failed(self) -> None:
        number = self._library.errno()
        if number in _FATAL:
            raise OSError(number, os.strerror(number))

    def _find(self, key: bytes, now: float) -> _Entry | None:
        """Look a route up in the table and remember it."""
        name, number = key[:-NUMBER], key[-NUMBER:]
        # RFC 8656 section 12: ChannelData begins with 0x40 to 0x4F.
        target = None
        if 0x40 <= number[0] <= 0x4F:
            target = self._reader.find(route_key(self._listener, name, number))
        if target is None or target.until <= now:
            self._entries.pop(key, None)
            return None
        if max(len(self._entries), len(self._bandwidths)) >= self._reader.records:
            self._entries.clear()
            self._bandwidths.clear()
        bandwidth = self._bandwidths.get(name)
        if bandwidth is None:
            bandwidth = self._bandwidths[name] = Bandwidth(now, self._reader.words[0])
        entry = _Entry(target, self._outgoing[target.listener], bandwidth)
        self._entries[key] = entry
        return entry

    def _hand_over(self, slot: int, length: int) -> None:
        """Give a datagram and its sender to the process that decides, or drop it."""
        start, buffer = self._received.starts[slot], self._received.buffer
        if length > MAX_DATAGRAM:
            self._counts[tallies.MALFORMED] += 1
        elif not length or buffer[start] > 0x4F:
            self._counts[tallies.NOT_STUN] += 1
        elif buffer[start] < 0x40 and (
            length < _STUN_HEADER or buffer[start + 4 : start + 8] != _COOKIE
        ):
            # What hits by chance, answers of others to forged questions above all, goes no further.
            self._counts[tallies.MALFORMED] += 1
        else:
            key = self._received.keys[slot]
            # TURN-62: whoever has a route does not stand in line with everybody who has none.
            is_known = bytes(buffer[key:start]) in self._bandwidths
            handover = self._known if is_known else self._unknown
            try:
                os.write(handover, self._received.view[key : start + length])
            except BlockingIOError:
                self._counts[tallies.BUSY] += 1
