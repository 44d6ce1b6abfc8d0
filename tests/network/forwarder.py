"""Hosts in network namespaces of their own, and what carries the packets between them.

    python -m tests.network.forwarder SEED HOST ADDRESS [HOST ADDRESS ...]

Linux and root only. Each host is an unnamed namespace with one TUN device; this process holds the
devices, so nothing of the machine's own network is touched and nothing has to be taken away: the
namespaces are gone when this process and those inside have ended, however they end. It ends with
its stdin.

Commands, lines of JSON: ``{"shape": HOST, "up": {...}, "down": {...}}`` with the fields of
`link.Conditions`, ``{"move": HOST, "address": ADDRESS}`` after a host took that address, and
``{"counts": true}``. Each is answered by a line.
"""

import ctypes
import fcntl
import heapq
import ipaddress
import itertools
import json
import os
import selectors
import struct
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.network.link import Conditions, Link

CLONE_NEWNET = 0x4000_0000
TUNSETIFF = 0x4004_54CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
MTU = 1500
BURST = 64
"""Packets read from one host before the others get their turn."""
MAX_UNDER_WAY = 20_000
"""Packets kept: a flood must not take the machine's memory."""


@dataclass
class Host:
    namespace: int
    device: int
    up: Link
    down: Link


def make_host(name, address, seed):
    """Move this process into a new namespace with one device; return the host."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "no network namespace can be made")
    # IPv6 would send solicitations by itself, and each of them would take a draw of the link.
    with suppress(FileNotFoundError):  # a kernel without IPv6
        Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"wan", IFF_TUN | IFF_NO_PI))
    for command in (
        "link set lo up",
        f"address add {address}/32 dev wan",
        f"link set wan up mtu {MTU} txqueuelen 5000",
        f"route add default dev wan src {address}",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    namespace = os.open("/proc/self/ns/net", os.O_RDONLY)
    return Host(namespace, device, Link(f"{seed} {name} up"), Link(f"{seed} {name} down"))


class Forwarder:
    """Reads from every device, and writes to the one of the destination when it is time."""

    def __init__(self, hosts):
        self.hosts = {name: host for name, (_, host) in hosts.items()}
        self._by_address = {
            ipaddress.ip_address(address).packed: host for address, host in hosts.values()
        }
        self._under_way = []
        self._order = itertools.count()
        self._commands = b""

    def run(self):
        with selectors.DefaultSelector() as selector:
            for host in self.hosts.values():
                selector.register(host.device, selectors.EVENT_READ, host)
            selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
            while True:
                for key, _ in selector.select(self._deliver()):
                    if key.data is not None:
                        self._take(key.data)
                    elif not self._obey():
                        return

    def _deliver(self):
        """Write what is due; return the seconds until the next one is."""
        while self._under_way:
            wait = self._under_way[0][0] - time.monotonic()
            if wait > 0:
                return wait
            at, _, host, packet, arrives = heapq.heappop(self._under_way)
            if arrives:
                with suppress(BlockingIOError):
                    os.write(host.device, packet)
            else:
                self._enter(host.down, at, host, packet, arrives=True)
        return None

    def _enter(self, link, now, receiver, packet, *, arrives):
        """Put a packet on a link, behind which it arrives or goes on to the receiver's own."""
        at = link.send(len(packet), now)
        if at is None:
            return
        for one in (at, link.echo(at)):
            if one is not None:
                entry = (one, next(self._order), receiver, packet, arrives)
                heapq.heappush(self._under_way, entry)

    def _take(self, sender):
        for _ in range(BURST):
            try:
                packet = os.read(sender.device, MTU)
            except BlockingIOError:
                return
            receiver = self._by_address.get(packet[16:20]) if packet[0] >> 4 == 4 else None
            wanted = receiver is not None and sender.up.conditions.passes(packet)
            if wanted and len(self._under_way) < MAX_UNDER_WAY:
                self._enter(sender.up, time.monotonic(), receiver, packet, arrives=False)

    def _obey(self):
        data = os.read(sys.stdin.fileno(), 65_536)
        *lines, self._commands = (self._commands + data).split(b"\n")
        for line in lines:
            command = json.loads(line)
            if "shape" in command:
                host = self.hosts[command["shape"]]
                for side in command.keys() & {"up", "down"}:
                    getattr(host, side).conditions = Conditions(**command[side])
            if "move" in command:
                self._move(self.hosts[command["move"]], command["address"])
            say({name: self._counts(host) for name, host in self.hosts.items()})
        return bool(data)

    def _move(self, host, address):
        kept = {known: other for known, other in self._by_address.items() if other is not host}
        self._by_address = kept | {ipaddress.ip_address(address).packed: host}

    def _counts(self, host):
        fields = ("taken", "lost", "overflowed", "doubled", "bytes")
        return {
            side: {field: getattr(getattr(host, side), field) for field in fields}
            for side in ("up", "down")
        }


def say(values):
    print(json.dumps(values), flush=True)


def main(seed, *arguments):
    wanted = zip(arguments[::2], arguments[1::2], strict=True)
    hosts = {name: (address, make_host(name, address, seed)) for name, address in wanted}
    own = f"/proc/{os.getpid()}/fd"
    say({name: f"{own}/{host.namespace}" for name, (_, host) in hosts.items()})
    Forwarder(hosts).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
