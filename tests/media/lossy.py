"""A path that loses packets, between one peer and the TURN server: real sockets on loopback."""

import selectors
import socket
import threading
import time
from collections import Counter

CHANNEL_HEADER = 4
SOUND, PICTURE, RETRANSMISSION = 96, 97, 98
"""RTP payload types of a description, as they stand in clear (spec/media.md)."""
_COOKIE = bytes.fromhex("2112a442")


class LossyPath:
    """Passes datagrams on in both directions; those that `lose` names are lost on the way down.

    One peer may use it, at ``uri`` in place of the server's own. `lose_first` is for both ways.
    """

    def __init__(self, uri):
        host, _, port = uri.removeprefix("turn:").partition("?")[0].rpartition(":")
        self._client = None
        self._inner = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._inner.bind(("127.0.0.1", 0))
        self._outer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._outer.connect((host, int(port)))
        self._woken, self._wake = socket.socketpair()
        self.uri = f"turn:127.0.0.1:{self._inner.getsockname()[1]}"
        self.lost = []
        self.lost_frames = []
        """The RTP timestamps of lost packets of sound."""
        self.passed = {SOUND: {}, PICTURE: {}}
        """When the last packet of each frame was passed on, by type and RTP timestamp."""
        self._doomed = []
        self._chance = None
        self._numbers = {}
        self._first = {}
        self._copies = Counter()
        self._times = 1
        self._late = {}
        self._held = []
        self._thread = threading.Thread(target=self._main, name="lossy path")
        self._thread.start()

    def lose(self, *payload_types):
        """Lose the next packet of each of these types, in this order."""
        self._doomed = list(payload_types)

    def lose_by_chance(self, chance):
        """From now on lose what ``chance(payload_type)`` says."""
        self._chance = chance

    def lose_numbers(self, payload_type, numbers):
        """Lose the next packet of this type with each of these sequence numbers, but no other."""
        self._numbers[payload_type] = set(numbers)

    def lose_first(self, what, copies):
        """From now on lose so many copies of each STUN request or datagram of the DTLS handshake.

        ``what`` is ``request`` or ``handshake``.
        """
        self._first[what] = copies

    def repeat(self):
        """From now on pass every datagram on twice."""
        self._times = 2

    def hold_up(self, payload_type, seconds):
        """From now on pass packets of this type on so much later."""
        self._late[payload_type] = seconds

    def close(self):
        self._wake.send(b"x")
        self._thread.join()
        for sock in (self._inner, self._outer, self._woken, self._wake):
            sock.close()

    def _main(self):
        with selectors.DefaultSelector() as selector:
            for sock in (self._inner, self._outer, self._woken):
                selector.register(sock, selectors.EVENT_READ)
            while True:
                due = self._held[0][0] - time.monotonic() if self._held else None
                for key, _ in selector.select(due if due is None else max(due, 0.0)):
                    if key.fileobj is self._woken:
                        return
                    self._pass_on(key.fileobj)
                while self._held and self._held[0][0] <= time.monotonic():
                    self._inner.sendto(self._held.pop(0)[1], self._client)

    def _pass_on(self, sock):
        data, sender = sock.recvfrom(2_048)
        if sock is self._inner:
            self._client = sender
        what, content = _content(data)
        self._copies[content] += 1
        if what in self._first and self._copies[content] <= self._first[what]:
            return
        if sock is self._inner:
            for _ in range(self._times):
                self._outer.send(data)
        elif not self._is_lost(data):
            late = self._late.get(_payload_type(data))
            if late is None:
                for _ in range(self._times):
                    self._inner.sendto(data, self._client)
            else:
                self._held.append((time.monotonic() + late, data))

    def _is_lost(self, data):
        payload_type, rtp = _payload_type(data), data[CHANNEL_HEADER:]
        if payload_type is None:
            return False
        if self._doomed and payload_type == self._doomed[0]:
            self._doomed = self._doomed[1:]
        elif (number := int.from_bytes(rtp[2:4])) in self._numbers.get(payload_type, ()):
            self._numbers[payload_type].remove(number)
        elif self._chance is None or not self._chance(payload_type):
            if payload_type in self.passed:
                self.passed[payload_type][int.from_bytes(rtp[4:8])] = time.monotonic()
            return False
        self.lost.append(payload_type)
        if payload_type == SOUND:
            self.lost_frames.append(int.from_bytes(rtp[4:8]))
        return True


def _content(data):
    """Return what a datagram has in it, and what is the same in all of its copies."""
    inner = data[CHANNEL_HEADER:] if data[0] & 0xC0 == 0x40 else data
    if inner[4:8] == _COOKIE and not inner[0] & 0x01 and not inner[1] & 0x10:
        return "request", inner[8:20]
    return ("handshake", inner) if inner[:1] in (b"\x14", b"\x16") else (None, None)


def _payload_type(data):
    """Return the payload type of an RTP packet in a channel, None for anything else."""
    rtp = data[CHANNEL_HEADER:]
    if data[0] & 0xC0 != 0x40 or len(rtp) < 12 or rtp[0] >> 6 != 2 or 192 <= rtp[1] <= 208:
        return None
    return rtp[1] & 0x7F
