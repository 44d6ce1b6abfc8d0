"""Both ends of a call over a relay that loses, repeats, reorders, changes and reflects: any trace.

Whatever happens, no media before the accept, one spoken code, and nothing but refusals.
"""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from e2ecall.errors import LocalProtocolError, RemoteProtocolError
from e2ecall.protocol.call import Call
from e2ecall.protocol.call_events import Alert, Ended, EndReason, SasReady, StartMedia
from e2ecall.protocol.call_table import CallState, Role
from e2ecall.protocol.messages import Ringing, decode_call_message, encode_call_message
from tests.protocol.call.conftest import CALLEE, CALLER, NOW, RELAYED, media, place, ring, snapshot
from tests.protocol.flips import flipped

MEDIA = (CallState.CONNECTING, CallState.CONNECTED)
ACTIONS = {
    "accept": lambda call, now: call.accept(audio=True, video=False, now=now),
    "decline": lambda call, now: call.decline(now),
    "busy": lambda call, now: call.busy(now),
    "cancel": lambda call, now: call.cancel(now),
    "hangup": lambda call, now: call.hangup(now),
    "leave": lambda call, now: call.leave(now),
    "superseded": lambda call, now: call.superseded(now),
    "failed": lambda call, now: call.failed(EndReason.CONNECTION_LOST, now),
    "connected": lambda call, now: call.media_connected(now),
    "candidates": lambda call, now: call.add_candidates([RELAYED], now),
    "media state": lambda call, now: call.set_media_state(muted=True, camera=False, now=now),
    "camera on": lambda call, now: call.set_media_state(muted=False, camera=True, now=now),
    "text": lambda call, now: call.send_text("hello", now),
    "ask": lambda call, now: call.renegotiate(video=True, now=now),
}
CAMERA = {ACTIONS["camera on"]: True, ACTIONS["media state"]: False}
PICK = st.integers(0, 31)
QUIET = ("accept", "connected", "candidates", "media state", "camera on", "text", "ask")
"""Actions that end nothing: they are drawn more often, so that traces get far."""


class CallMachine(RuleBasedStateMachine):
    """What lies in ``mail`` may arrive at any time, at either end, any number of times."""

    @initialize(
        altered=st.sampled_from([None, None, None, "media", "seed", "reply_box"]),
        steps=st.integers(0, 7),
    )
    def begin(self, altered, steps):
        """Let a relay that alters the Offer, or nothing, carry the first steps of a call."""
        self.now = NOW
        caller = place(NOW, wants_video=False)
        (offer,) = caller.messages_to_send()
        if altered is not None:
            changes = {"media": media("e"), "seed": bytes(32), "reply_box": b"e" * 32}
            offer = replace(offer, **{altered: changes[altered]})
        callee = Call.incoming(CALLEE, CALLER, offer, sent_at=NOW, now=NOW)
        self.ends = {Role.CALLER: caller, Role.CALLEE: callee}
        self.accepted = False
        self.mail = [(Role.CALLEE, offer)]
        self.seen = {role: [] for role in Role}
        self.consented = dict.fromkeys(Role, False)
        for step in self.STEPS[:steps]:
            step(self)

    # --- what the ends do ---------------------------------------------------------------------

    @rule()
    def ring(self):
        self.act(Role.CALLEE, ring)

    @rule(role=st.sampled_from(Role), what=st.sampled_from(QUIET))
    def go_on(self, role, what):
        started = self.act(role, ACTIONS[what])
        if role is Role.CALLEE and what == "accept":
            self.accepted |= started

    @rule(role=st.sampled_from(Role), what=st.sampled_from(sorted(ACTIONS)))
    def do_anything(self, role, what):
        started = self.act(role, ACTIONS[what])
        if role is Role.CALLEE and what == "accept":
            self.accepted |= started

    @rule(seconds=st.sampled_from([0.5, 5, 31]))
    def wait(self, seconds):
        self.now += seconds
        for role, call in self.ends.items():
            call.on_time(self.now)
            self.collect(role)

    def act(self, role, action) -> bool:
        """CALL-12: an action is carried out, or refused as a local error and without effect."""
        call = self.ends[role]
        call.on_time(self.now)
        self.collect(role)
        before = snapshot(call)
        try:
            action(call, self.now)
        except LocalProtocolError:
            assert snapshot(call) == before
            return False
        if action in CAMERA and call.state is not CallState.ENDED:
            self.consented[role] = CAMERA[action]
        self.collect(role)
        return True

    # --- what the relay does ------------------------------------------------------------------

    @rule()
    def deliver_newest(self):
        """The usual case: what was sent last arrives."""
        self.receive(*self.mail[-1])

    @rule(pick=PICK)
    def deliver(self, pick):
        """Anything that was ever sent arrives, perhaps again."""
        self.receive(*self.mail[pick % len(self.mail)])

    @rule(pick=PICK, bit=st.integers(0, 1 << 16))
    def change(self, pick, bit):
        """CALLKEY-05: after Ringing a changed message is refused, or proves another key."""
        role, message = self.mail[pick % len(self.mail)]
        encoded = encode_call_message(message)
        try:
            message = decode_call_message(flipped(encoded, bit % (8 * len(encoded))))
        except RemoteProtocolError:
            return
        before = self.ends[role].state
        self.receive(role, message)
        after = self.ends[role].state
        assert after in (before, CallState.ENDED) or isinstance(message, Ringing)

    @rule(pick=PICK)
    def reflect(self, pick):
        """R6: a message comes back to its sender."""
        role, message = self.mail[pick % len(self.mail)]
        before = self.ends[other(role)].state
        self.receive(other(role), message)
        after = self.ends[other(role)].state
        assert after in (before, CallState.ENDED)

    def receive(self, role, message):
        """CALL-12: what is refused is refused by the module's own error and changes nothing."""
        call = self.ends[role]
        call.on_time(self.now)
        self.collect(role)
        before, controls = snapshot(call), call.controls
        try:
            call.receive(message, self.now)
        except RemoteProtocolError:
            assert snapshot(call) == before
        assert call.controls == controls
        self.collect(role)

    STEPS = (
        ring,
        deliver_newest,
        deliver_newest,
        lambda self: self.go_on(Role.CALLEE, "accept"),
        deliver_newest,
        lambda self: self.go_on(Role.CALLER, "connected"),
        lambda self: self.go_on(Role.CALLEE, "connected"),
    )

    # --- what must hold -----------------------------------------------------------------------

    def collect(self, role):
        call = self.ends[role]
        self.mail += [(other(role), message) for message in call.messages_to_send()]
        self.seen[role] += call.events()

    @invariant()
    def no_media_before_the_accept(self):
        """P1, CALL-07: the callee's media begins with its accept, the caller's after that."""
        for role, call in getattr(self, "ends", {}).items():
            started = self.count(role, StartMedia)
            assert started <= self.accepted
            assert call.state not in MEDIA or started == 1

    @invariant()
    def a_camera_is_on_by_the_will_of_its_owner(self):
        """P2, CALL-30: a camera is on where its own user turned it on last, and nowhere else."""
        for role, call in getattr(self, "ends", {}).items():
            assert call.controls.camera == self.consented[role]

    @invariant()
    def one_code(self):
        """CALL-04, CALLKEY-02: it rings only where both see one code, about one Offer and Ringing.

        A caller's code may differ before that: whoever altered the exchange never gets an Alert.
        """
        if not hasattr(self, "ends"):
            return
        caller, callee = self.ends[Role.CALLER], self.ends[Role.CALLEE]
        assert self.count(Role.CALLEE, Alert) <= 1
        assert (callee.sas is not None) == (self.count(Role.CALLEE, Alert) == 1)
        if callee.sas is not None:
            assert callee.sas == caller.sas
            assert callee.offer == caller.offer
        for role in Role:
            assert self.count(role, SasReady) <= 1

    @invariant()
    def one_set_of_keys(self):
        """CALLKEY-02: where media starts at both ends it starts under the same keys."""
        starts = [
            event
            for role in Role
            for event in getattr(self, "seen", {}).get(role, ())
            if isinstance(event, StartMedia)
        ]
        if len(starts) == 2:
            assert starts[0].keys.keys == starts[1].keys.keys
            assert (starts[0].local, starts[0].remote) == (starts[1].remote, starts[1].local)

    @invariant()
    def one_end(self):
        """CALL-16: a call ends once, as the last thing that happens, and keeps no keys."""
        for role, call in getattr(self, "ends", {}).items():
            ended = call.state is CallState.ENDED
            assert self.count(role, Ended) == ended
            if ended:
                assert isinstance(self.seen[role][-1], Ended)
                assert not call._channel.has_keys
                assert call._secrets is call._call_keys is call.deadline() is None

    def count(self, role, kind) -> int:
        """Return how many events of a kind an end has reported."""
        return sum(isinstance(event, kind) for event in self.seen[role])


def other(role):
    return Role.CALLEE if role is Role.CALLER else Role.CALLER


TestCall = CallMachine.TestCase
TestCall.settings = settings(max_examples=150, stateful_step_count=30)


def test_the_machine_gets_to_media():
    """Without an attack the steps that traces begin with lead to a call that runs, at both ends."""
    machine = CallMachine()
    machine.begin(None, len(CallMachine.STEPS))
    assert all(call.state is CallState.CONNECTED for call in machine.ends.values())


@pytest.mark.parametrize("field", ["media", "seed", "reply_box"])
def test_the_machine_finds_an_altered_offer(field):
    """R8: with an Offer that was altered on the way the same steps never lead to an alert."""
    machine = CallMachine()
    machine.begin(field, 3)
    assert machine.count(Role.CALLEE, Alert) == 0
    assert machine.ends[Role.CALLEE].state is CallState.ENDED
