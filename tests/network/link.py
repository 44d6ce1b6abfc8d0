"""One direction of a bad link: when each packet comes out, or that it does not. Sans-I/O.

A link has a bottleneck with a queue, then a way that takes time and loses packets, or gives one
twice. The chances are drawn from seeded generators, three for each packet whatever happens to it
and two for each that comes out, so that the fate of packet number n depends on the seed and the
conditions alone, not on when it was sent.
"""

import random
from dataclasses import dataclass

UDP = 17
ECHO = 0.05
"""Seconds by which the second of two copies is later, at most: others come between them."""


@dataclass(frozen=True)
class Conditions:
    """Times in seconds, chances from 0 to 1; the defaults are a perfect link.

    ``jitter`` is added to ``delay``, uniformly from 0 up, and keeps the order; a share ``reorder``
    of the packets takes neither ``delay`` nor ``jitter`` and overtakes the others, and a share
    ``duplicate`` comes out twice. ``rate`` is in bits a second, 0 for no limit; a packet that would
    wait longer than ``queue`` is dropped.
    """

    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    reorder: float = 0.0
    duplicate: float = 0.0
    rate: int = 0
    queue: float = 0.2
    outage: bool = False
    no_udp: bool = False
    closed: tuple[int, ...] = ()
    """As behind a firewall: no UDP, or nothing to these ports. See `passes`."""

    def passes(self, packet: bytes) -> bool:
        """Tell whether a firewall would let this IPv4 packet through; a link does not ask."""
        ports = packet[(packet[0] & 0x0F) * 4 :][:4]
        blocked = self.no_udp and packet[9] == UDP
        return not blocked and int.from_bytes(ports[2:]) not in self.closed


class Link:
    """Takes the packets of one direction in the order in which they are sent."""

    def __init__(self, seed: str, conditions: Conditions | None = None) -> None:
        self.conditions = conditions or Conditions()
        self.taken = self.lost = self.overflowed = self.doubled = self.bytes = 0
        self._chances = random.Random(seed)
        self._echoes = random.Random(f"{seed} twice")
        self._free = self._latest = 0.0

    def send(self, size: int, now: float) -> float | None:
        """Return the time at which a packet of ``size`` bytes comes out, or None if it is lost."""
        about = self.conditions
        lost, overtakes, late = (self._chances.random() for _ in range(3))
        self.taken += 1
        leaves = now
        if about.rate:
            # What is lost on the way behind the bottleneck has taken its time in it.
            if self._free - now > about.queue:
                self.overflowed += 1
                return None
            leaves = self._free = max(now, self._free) + size * 8 / about.rate
        if about.outage or lost < about.loss:
            self.lost += 1
            return None
        self.bytes += size
        if overtakes < about.reorder:
            return leaves
        self._latest = max(self._latest, leaves + about.delay + late * about.jitter)
        return self._latest

    def echo(self, at: float) -> float | None:
        """Return when a packet that comes out at ``at`` does so again, or None if it does not."""
        twice, late = self._echoes.random(), self._echoes.random()
        if twice >= self.conditions.duplicate:
            return None
        self.doubled += 1
        return at + late * ECHO
