"""One worker's loop in the test's own process, where what happens within a batch can be chosen."""

import mmap
import socket
import time
from contextlib import ExitStack
from functools import partial

import pytest

from relay.io.media.forwarder import Forwarder
from relay.io.media.libc import IS_SUPPORTED
from relay.io.media.names import IPV4_NAME, IPV6_NAME, encode_name
from relay.io.media.routetable import RouteReader, RouteWriter, route_key, table_size
from relay.io.media.tallies import BLOCK, open_tallies

pytestmark = pytest.mark.skipif(not IS_SUPPORTED, reason="this machine has the portable loop only")

RECORDS = 64
OUT, INTO = b"\x40\x00", b"\x40\x07"
HOSTS = {IPV4_NAME: "127.0.0.1", IPV6_NAME: "::1"}


class _StoppedError(Exception):
    pass


class Reader(RouteReader):
    """A reader that acts when the loop looks for the route of ``at``, and stops it at ``last``."""

    def __init__(self, memory, at, action, last):
        super().__init__(memory, RECORDS)
        self.at, self.action, self.last = at, action, last

    def find(self, key):
        if key == self.last:
            raise _StoppedError
        if key == self.at:
            self.action()
        return super().find(key)


def open_udp(stack, length):
    family = socket.AF_INET if length == IPV4_NAME else socket.AF_INET6
    sock = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
    try:
        sock.bind((HOSTS[length], 0))
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    sock.settimeout(2)
    return sock


@pytest.mark.parametrize("length", [IPV4_NAME, IPV6_NAME])
@pytest.mark.parametrize("change", ["refreshed", "withdrawn"])
def test_a_route_that_changes_within_a_batch(length, change):
    """T1: what is about to leave for the receiver of a route reaches that one and nobody else,
    though the route is changed and others are looked up before it is sent (TURN-32, TURN-56).
    """
    with ExitStack() as stack:
        opened = partial(open_udp, stack, length)

        def key(sender):
            return route_key(0, encode_name(sender.getsockname()), OUT)

        def publish(sender, receiver):
            name = encode_name(receiver.getsockname())
            assert writer.publish(key(sender), time.monotonic() + 60, 0, name, INTO)

        memory = mmap.mmap(-1, table_size(RECORDS))
        writer = RouteWriter(memory, RECORDS, bytes(range(32)))
        writer.set_rate(10**9)
        server, first, last = opened(), opened(), opened()
        mine, others = opened(), [(opened(), opened()) for _ in range(20)]
        publish(first, mine)
        for sender, receiver in others:
            publish(sender, receiver)

        def act():
            if change == "refreshed":
                publish(first, mine)
            else:
                writer.withdraw(key(first))
            last.sendto(OUT + b"\0\0", server.getsockname())

        reader = Reader(memory, key(others[0][0]), act, key(last))
        ours, theirs = map(stack.enter_context, socket.socketpair(type=socket.SOCK_SEQPACKET))
        ours.settimeout(2)
        counts = open_tallies(mmap.mmap(-1, BLOCK), 0)
        number = server.fileno()
        forwarder = Forwarder([number], 0, length, (theirs.fileno(),) * 2, reader, counts)
        # One batch: the route is remembered, changed, found changed; others come after it.
        senders = [first, others[0][0], first, *(sender for sender, _ in others[1:])]
        for serial, sender in enumerate(senders):
            sender.sendto(OUT + b"\0\1" + bytes([serial]), server.getsockname())
        with pytest.raises(_StoppedError):
            forwarder.run()
        for serial, (_, receiver) in enumerate(others, 2):
            assert receiver.recv(100) == INTO + b"\0\1" + bytes([1 if serial == 2 else serial])
            receiver.setblocking(False)
            with pytest.raises(BlockingIOError):
                receiver.recv(100)
        assert mine.recv(100) == INTO + b"\0\1\0"
        if change == "refreshed":
            assert mine.recv(100) == INTO + b"\0\1\2"
        else:
            assert ours.recv(100)[length:] == OUT + b"\0\1\2"


def test_what_a_worker_remembers_is_bounded():
    """Senders who came and went leave nothing behind that grows (TURN-45)."""
    writer = RouteWriter(mmap.mmap(-1, table_size(RECORDS)), RECORDS, bytes(range(32)))
    reader = RouteReader(writer._memory, RECORDS)
    counts = open_tallies(mmap.mmap(-1, BLOCK), 0)
    forwarder = Forwarder([-1], 0, IPV4_NAME, (-1, -1), reader, counts)
    for port in range(1, 5 * RECORDS):
        name = encode_name(("127.0.0.1", port))
        writer.publish(route_key(0, name, OUT), 2.0, 0, name, INTO)
        assert forwarder._find(name + OUT, 1.0) is not None
        writer.withdraw(route_key(0, name, OUT))
        assert forwarder._find(name + OUT, 1.0) is None
        assert len(forwarder._entries) <= RECORDS
        assert len(forwarder._bandwidths) <= RECORDS
