"""The ratchet between two sides under everything that a relay and a restart can do (R7)."""

from contextlib import suppress

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from e2ecall.errors import Reason, RemoteProtocolError
from e2ecall.protocol import ratchet
from e2ecall.protocol.chains import (
    MAX_RECEIVING_CHAINS,
    MAX_SKIPPED_KEYS,
    SKIPPED_KEY_LIFETIME,
)
from e2ecall.protocol.encoding import decode_stored, encode_stored
from e2ecall.protocol.ratchetstore import StoredRatchet, from_stored, to_stored
from tests.protocol.flips import flipped
from tests.protocol.test_ratchet import NOW, start

SIDES = st.integers(0, 1)


class Ratchet(RuleBasedStateMachine):
    """Messages are lost, overtaken, repeated, changed and reflected; sides stop and start again."""

    flying = Bundle("flying")
    arrived = Bundle("arrived")

    @initialize()
    def begin(self):
        self.sides = start()
        self.now = NOW
        self.sent = 0
        self.forgot = [False, False]  # whether a side may have dropped keys of older chains
        self.sides[1].receive(self.sides[0].send())

    @rule(target=flying, side=SIDES, count=st.integers(1, 4))
    def send(self, side, count):
        """One side sends; each message says who it is for and what is in it."""
        messages = []
        for _ in range(count):
            self.sent += 1
            text = b"%d" % self.sent
            messages.append((1 - side, text, self.sides[side].send(text), self.now))
        return multiple(*messages)

    @rule(target=arrived, message=consumes(flying))
    def deliver(self, message):
        """R7: a message that arrives, in whatever order, decrypts to itself."""
        to, text, data, sent_at = message
        if self.now >= sent_at + SKIPPED_KEY_LIFETIME or self.forgot[to]:
            with suppress(RemoteProtocolError):  # its key may be gone
                assert self.sides[to].receive(data) == text
        else:
            assert self.sides[to].receive(data) == text
        self._note_overflow(to)
        return message

    @rule(message=consumes(flying))
    def lose(self, message):
        """A message never arrives."""

    @rule(message=arrived)
    def repeat(self, message):
        """RATCHET-08: what was decrypted once is refused, and the state stays."""
        to, _, data, _ = message
        before = to_stored(self.sides[to].state)
        assert self.sides[to].refuses(data) in (Reason.REPLAYED, Reason.NOT_AUTHENTIC)
        assert to_stored(self.sides[to].state) == before

    @rule(message=flying, bit=st.integers(0, 1 << 20))
    def change(self, message, bit):
        """RATCHET-06: what was changed on the way is refused, and the state stays."""
        to, _, data, _ = message
        before = to_stored(self.sides[to].state)
        self.sides[to].refuses(flipped(data, bit % (8 * len(data))))
        assert to_stored(self.sides[to].state) == before

    @rule(message=flying)
    def reflect(self, message):
        """R6: what comes back to its sender is refused."""
        to, _, data, _ = message
        assert self.sides[1 - to].refuses(data) is Reason.NOT_AUTHENTIC

    @rule(side=SIDES)
    def restart(self, side):
        """A side is stored as bytes and read again."""
        record = encode_stored(to_stored(self.sides[side].state))
        self.sides[side].state = from_stored(decode_stored(record, StoredRatchet))

    @rule(days=st.sampled_from([1, 3, 7]))
    def wait(self, days):
        """RATCHET-10: time passes, and the sides forget what is too old."""
        self.now += days * 86_400
        for side in self.sides:
            side.now = self.now
            side.state = ratchet.without_expired(side.state, now=self.now)

    @invariant()
    def bounded(self):
        """RATCHET-09: neither chains nor skipped keys grow beyond their bounds."""
        for side in getattr(self, "sides", ()):
            chains = side.state.receiving
            assert len(chains) <= MAX_RECEIVING_CHAINS
            skipped = [key for chain in chains for key in chain.skipped.values()]
            assert len(skipped) <= MAX_SKIPPED_KEYS
            assert all(key.expires <= self.now + SKIPPED_KEY_LIFETIME for key in skipped)

    def _note_overflow(self, side):
        self.forgot[side] |= len(self.sides[side].state.receiving) == MAX_RECEIVING_CHAINS

    def teardown(self):
        """R7: whatever happened, both sides still understand each other."""
        for one, two in (self.sides, self.sides[::-1]) if hasattr(self, "sides") else ():
            assert two.receive(one.send(b"end")) == b"end"


TestRatchet = Ratchet.TestCase
TestRatchet.settings = settings(max_examples=60, stateful_step_count=40)
