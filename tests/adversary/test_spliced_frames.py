"""Frames that a relay with the SRTP keys, or a peer, puts in the place of others (R9, R10, R11).

SRTP would refuse most of them first, so they are put in below it, by the sending client.
"""

import threading
from collections import Counter, deque

import anyio
import pytest

import e2ecall
from e2ecall.errors import Reason
from e2ecall.media.incoming import IncomingStream
from e2ecall.protocol.messages import Codec, Stream
from e2ecall.protocol.sframe import REPLAY_WINDOW, SFrameReceiver, SFrameSender, clear_prefix_length
from e2ecall.protocol.sframe_header import encode_header, key_id, parse_header
from tests.integration.people import PATIENCE, frames, media, ringing, until
from tests.integration.test_controls import more

pytestmark = pytest.mark.anyio

TRIES = 4
"""Frames of each kind."""

CALLER, CALLEE = 0, 1
"""Who sent a frame, as its key id says."""


def flipped(data, at, bit=0x04):
    changed = bytearray(data)
    changed[at] ^= bit
    return bytes(changed)


class Spliced:
    """One frame that is about to leave, and what the attacker has of others."""

    def __init__(self, attacker, plain, prefix, protected):
        self.attacker, self.plain, self.prefix, self.protected = attacker, plain, prefix, protected
        self.kid, self.counter, self.body = parse_header(protected, prefix)

    def under(self, kid, counter):
        header = encode_header(kid, counter)
        return self.protected[: self.prefix] + header + self.protected[self.body :]

    def of_screen(self, plain):
        """An authentic frame of the same sender's screen, which shows nothing else."""
        sender = self.attacker.senders[key_id(0, Stream.SCREEN, CALLER)]
        return self.attacker.protect(sender, plain, 0)


def former_call(frame):
    return frame.attacker.former[0]


def before_the_window(frame):
    """A frame that was kept back until the receiver had others from far beyond the window."""
    return frame.attacker.kept[0]


ATTACKS = {
    # R9: any bit of header, key id, counter, clear prefix, ciphertext or tag.
    "config byte": lambda f: flipped(f.protected, f.prefix),
    "key id": lambda f: f.under(key_id(1, Stream.MICROPHONE, CALLER), f.counter),
    "epoch": lambda f: f.under(key_id(7, Stream.MICROPHONE, CALLER), f.counter),
    "counter": lambda f: f.under(f.kid, f.counter + 5),
    "far counter": lambda f: f.under(f.kid, (1 << 24) + 1),
    "ciphertext": lambda f: flipped(f.protected, f.body),
    "tag": lambda f: flipped(f.protected, -1),
    "cut": lambda f: f.protected[:-1],
    "longer": lambda f: f.protected + b"\0",
    "clear prefix": lambda f: b"\x01" + f.protected,
    # R9: of another track, sender or call.
    "screen's": lambda f: f.of_screen(f.plain),
    "callee's own": lambda f: f.attacker.sent[Stream.MICROPHONE, CALLEE][-1],
    "former call's": former_call,
    # R10: no encryption, or what is left of it without its header.
    "plain": lambda f: f.plain,
    "plain with a header": lambda f: encode_header(f.kid, f.counter) + f.plain,
    "without header": lambda f: f.protected[f.body :],
    "header alone": lambda f: f.protected[: f.body],
    # R11: a frame once more, at once, and one that was kept back for too long.
    "again": lambda f: f.attacker.honest[-1],
    "long kept back": before_the_window,
}


class Attacker:
    """Puts each kind of frame in the place of every third of the caller's microphone."""

    def __init__(self, monkeypatch):
        self.sent, self.senders = {}, {}
        self.honest, self.former, self.kept = deque(maxlen=8), [], []
        self.accepted, self.replaced, self.refused = [], [], Counter()
        self.plain = set()
        self.waiting = deque()
        self.is_over = threading.Event()
        self._frames = 0
        self.protect, create = SFrameSender.encrypt, SFrameSender.__init__
        decrypt, refuse, attacker = SFrameReceiver.decrypt, IncomingStream._refuse, self

        def watched_decrypt(receiver, data, prefix):
            plain = decrypt(receiver, data, prefix)
            kid, counter, _ = parse_header(data, prefix)
            if kid >> 4 & 0xFF == CALLER:
                attacker.accepted.append((kid, counter, plain))
            return plain

        def watched_refuse(stream, reason, now):
            if stream._stream is Stream.MICROPHONE:
                attacker.refused[reason] += 1
            refuse(stream, reason, now)

        def watched_create(sender, base_key, kid):
            create(sender, base_key, kid)
            attacker.senders[kid] = sender

        def encrypt(sender, plain, prefix):
            return attacker.encrypt(sender, plain, prefix)

        monkeypatch.setattr(SFrameSender, "__init__", watched_create)
        monkeypatch.setattr(SFrameSender, "encrypt", encrypt)
        monkeypatch.setattr(SFrameReceiver, "decrypt", watched_decrypt)
        monkeypatch.setattr(IncomingStream, "_refuse", watched_refuse)

    def call_ended(self):
        """Keep frames of the call that is over; what is counted is the next one's."""
        self.former = list(self.sent[Stream.MICROPHONE, CALLER])
        self.accepted.clear()
        self.plain.clear()

    def begin(self):
        """Attack from now on."""
        self.waiting += [name for name in ATTACKS for _ in range(TRIES)]

    def encrypt(self, sender, plain, prefix):
        protected = self.protect(sender, plain, prefix)
        stream, who = sender.kid & 0x0F, sender.kid >> 4 & 0xFF
        self.sent.setdefault((stream, who), deque(maxlen=8)).append(protected)
        if who == CALLEE:
            return protected
        if stream == Stream.MICROPHONE and self.waiting:
            self._frames += 1
            if self._frames % 3 == 0:
                return self._attack(sender, plain, prefix, protected)
        if stream == Stream.MICROPHONE:
            self.honest.append(protected)
        self.sent_honest(protected, plain, prefix)
        return protected

    def sent_honest(self, protected, plain, prefix):
        self.plain.add((*parse_header(protected, prefix)[:2], plain))

    def _attack(self, sender, plain, prefix, protected):
        if self.waiting[0] == "long kept back" and not self.kept:
            self.kept.append(protected)
            for _ in range(REPLAY_WINDOW + 64):
                next(sender._headers)
            protected = self.protect(sender, plain, prefix)
            self.sent_honest(protected, plain, prefix)
            return protected
        name = self.waiting.popleft()
        try:
            frame = ATTACKS[name](Spliced(self, plain, prefix, protected))
        except Exception:  # it would end the sender's stream, and the test would wait for nothing
            self.waiting.clear()
            self.is_over.set()
            raise
        self.replaced.append(name)
        if not self.waiting:
            self.is_over.set()
        return frame


async def connected(alice, bob):
    at_bob = media()
    call, incoming = await ringing(alice, bob, **media())
    answered = await incoming.accept(**at_bob)
    for end in (call, answered):
        await until(end, e2ecall.Connected)
    await frames(at_bob["output"], Stream.MICROPHONE, 10)
    await frames(at_bob["output"], Stream.CAMERA, 3)
    return call, answered, at_bob["output"]


async def test_spliced_frames(people, monkeypatch):
    """R9, R10, R11: of frames that are changed, of another call, sender, track or epoch, not
    encrypted, or played once more, none is accepted; the others are, once each, in a call that
    goes on.
    """
    attacker = Attacker(monkeypatch)
    async with people() as (alice, bob):
        call, answered, _ = await connected(alice, bob)
        await call.hangup()
        await answered.closed.wait()
        attacker.call_ended()
        call, answered, played = await connected(alice, bob)
        attacker.begin()
        with anyio.fail_after(PATIENCE * 2):
            while not attacker.is_over.is_set():
                await more(played, Stream.MICROPHONE, 5)
        assert attacker.replaced == [name for name in ATTACKS for _ in range(TRIES)]
        await until(answered, e2ecall.FramesRefused)
        # The sender's counter may be far ahead: what comes now is played as before.
        await more(played, Stream.MICROPHONE, 25)
        await more(played, Stream.CAMERA, 5)
        assert answered.ended is None
        await call.hangup()
    accepted = Counter(attacker.accepted)
    assert accepted.keys() <= attacker.plain
    repeated = {plain: count for plain, count in accepted.items() if count > 1}
    assert len(repeated) == 0
    refused = sum(attacker.refused.values())
    assert refused >= 0.9 * len(attacker.replaced)  # loopback loses little, and may lose
    assert attacker.refused.keys() >= {
        Reason.NOT_AUTHENTIC,
        Reason.UNKNOWN_FRAME_KEY,
        Reason.REPLAYED,
    }


def test_the_attacks_are_what_they_say():
    """The control: an untouched frame is accepted by the receiver that refuses all of these."""
    base_key, kid = e2ecall.secret.Secret(bytes(32)), key_id(0, Stream.MICROPHONE, CALLER)
    sender, receiver = SFrameSender(base_key, kid), SFrameReceiver()
    receiver.add_key(kid, base_key)
    plain = b"\x60sound"
    protected = sender.encrypt(plain, clear_prefix_length(Codec.OPUS, plain))
    assert receiver.decrypt(protected, 0) == plain
