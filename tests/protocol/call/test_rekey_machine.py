"""Two ends that rekey over a relay which loses, repeats, delays and reorders: any trace.

Messages and media frames travel apart. The frames are real ones, of one stream in each direction,
and each end has what its media thread has: senders, a receiver, and the rule when to change.
"""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from e2ecall.errors import LocalProtocolError, RemoteProtocolError
from e2ecall.protocol.call_events import Ended, EndReason, NewEpoch, RekeyDue, RekeyProposed
from e2ecall.protocol.call_exchange import CalleeSecrets, RekeySecrets
from e2ecall.protocol.call_table import CallState, Role
from e2ecall.protocol.messages import Stream
from e2ecall.protocol.sframe import SFrameReceiver, SFrameSender
from e2ecall.protocol.sframe_header import epoch_of, parse_header
from tests.protocol.call.conftest import NOW, Pair, snapshot

PICK = st.integers(0, 31)
STREAM = Stream.MICROPHONE


class End:
    """One end: its call, and in place of the media thread what that does with an epoch."""

    def __init__(self, call):
        self.call = call
        self.receiver = SFrameReceiver()
        self.staged = None
        self.retire = None
        self.frames = 0
        self.begin(call._channel.media_keys)
        self.sender = self.staged

    def begin(self, keys):
        own, peers = keys.sending(STREAM), keys.receiving(STREAM)
        self.receiver.add_key(peers.kid, peers.base_key)
        self.staged = SFrameSender(own.base_key, own.kid)

    @property
    def epoch(self):
        return epoch_of(self.sender.kid)

    def act(self, event, now):
        match event:
            case RekeyDue():
                self.call.rekey(RekeySecrets.generate(), now)
            case RekeyProposed(rekey):
                self.call.answer_rekey(CalleeSecrets.generate(rekey), now)
            case NewEpoch(keys, send):
                self.receiver.retire_before(keys.keys.epoch - 1)
                self.begin(keys)
                if send:
                    self.enter(now)

    def enter(self, now):
        self.sender = self.staged
        self.retire = now + 10, epoch_of(self.sender.kid)

    def tick(self, now):
        if self.retire is not None and now >= self.retire[0]:
            self.receiver.retire_before(self.retire[1])
            self.retire = None

    def send(self):
        self.frames += 1
        return self.sender.encrypt(b"%s %d" % (self.call.role.encode(), self.frames), 0)

    def receive(self, frame, now):
        plain = self.receiver.decrypt(frame, 0)
        epoch = epoch_of(parse_header(frame, 0)[0])
        if self.call.role is Role.CALLEE and epoch > self.epoch:
            self.enter(now)
            self.call.enter_epoch(epoch, now)
        return plain


class RekeyMachine(RuleBasedStateMachine):
    """``mail`` and ``media`` may arrive at any time, any number of times, or never."""

    @initialize()
    def begin(self):
        self.now = NOW
        pair = Pair().run(6)
        self.ends = {Role.CALLER: End(pair.caller), Role.CALLEE: End(pair.callee)}
        self.mail, self.media, self.keys = [], [], {}
        self.rendered = []
        for role in Role:
            self.settle(role)

    # --- what the ends do ---------------------------------------------------------------------

    @rule(role=st.sampled_from(Role), count=st.integers(1, 3))
    def send_frames(self, role, count):
        for _ in range(count):
            self.media.append((other(role), self.ends[role].send()))

    @rule(role=st.sampled_from(Role))
    def mute(self, role):
        if self.running(role):
            self.ends[role].call.set_media_state(muted=True, camera=False, now=self.now)
            self.settle(role)

    @rule(role=st.sampled_from(Role))
    def wear_out(self, role):
        """A frame key of this end is nearly used up."""
        self.ends[role].call.key_worn(self.ends[role].epoch, self.now)
        self.settle(role)

    @rule(seconds=st.sampled_from([1.0, 9.0, 10.0, 15.0, 100.0]))
    def wait(self, seconds):
        self.now += seconds
        for role in Role:
            self.tick(role)

    # --- what the relay does ------------------------------------------------------------------

    @rule()
    def deliver_newest(self):
        """The usual case: what was sent last arrives, a message and a frame of each direction."""
        if self.mail:
            self.arrive(*self.mail[-1])
        for role in Role:
            frames = [frame for to, frame in self.media if to is role]
            if frames:
                self.show(role, frames[-1])

    @rule(pick=PICK)
    def deliver(self, pick):
        if self.mail:
            self.arrive(*self.mail[pick % len(self.mail)])

    @rule(pick=PICK)
    def show_frame(self, pick):
        if self.media:
            self.show(*self.media[pick % len(self.media)])

    @rule(pick=PICK)
    def reflect(self, pick):
        """R6: a message or a frame comes back to its sender."""
        if self.mail:
            role, message = self.mail[pick % len(self.mail)]
            self.arrive(other(role), message)
        if self.media:
            role, frame = self.media[pick % len(self.media)]
            with pytest.raises(RemoteProtocolError):
                self.ends[other(role)].receive(frame, self.now)

    # --- what must hold -----------------------------------------------------------------------

    def arrive(self, role, message):
        self.tick(role)
        call = self.ends[role].call
        before = snapshot(call)
        try:
            call.receive(message, self.now)
        except RemoteProtocolError:
            assert snapshot(call) == before
        self.settle(role)

    def show(self, role, frame):
        """SFRAME-06, SFRAME-10, SFRAME-11: accepted once, if its epoch lives, and never else."""
        self.tick(role)
        end = self.ends[role]
        lives = epoch_of(parse_header(frame, 0)[0]) in {k.epoch for k in end.call._channel._live}
        fresh = (role, frame) not in self.rendered
        if not self.running(role):
            return
        try:
            end.receive(frame, self.now)
        except RemoteProtocolError:
            assert not (lives and fresh)
        else:
            assert lives
            assert fresh
            self.rendered.append((role, frame))
        self.settle(role)

    def tick(self, role):
        self.ends[role].tick(self.now)
        self.ends[role].call.on_time(self.now)
        self.settle(role)

    def settle(self, role):
        """Act on what the call asks for, until it asks for nothing more."""
        end = self.ends[role]
        while events := end.call.events():
            for event in events:
                if isinstance(event, Ended):
                    assert event.reason is EndReason.KEYS_EXPIRED or event.by_peer
                if self.running(role):
                    end.act(event, self.now)
        self.mail += [(other(role), message) for message in end.call.messages_to_send()]
        if self.running(role):
            for keys in end.call._channel._live:  # one epoch has one secret, at both ends, for ever
                assert (
                    self.keys.setdefault(keys.epoch, keys.secret.expose()) == keys.secret.expose()
                )

    def running(self, role):
        return self.ends[role].call.state is CallState.CONNECTED

    @invariant()
    def media_and_messages_are_in_one_epoch(self):
        """CALLKEY-12, CALLKEY-15: frames and MACs of an end are of one epoch, at most one apart."""
        ends = getattr(self, "ends", {})
        for role, end in ends.items():
            if self.running(role):
                assert end.epoch == end.call.epoch
                assert len(end.call._channel._live) <= 2
        if ends and all(map(self.running, ends)):
            ahead = ends[Role.CALLER].epoch - ends[Role.CALLEE].epoch
            assert ahead in (0, 1)  # the callee is never the first

    @invariant()
    def no_counter_twice(self):
        """N2, SFRAME-04: no key id and counter come twice, whatever epochs came and went."""
        for role in Role:
            heads = [
                parse_header(frame, 0)[:2] for to, frame in getattr(self, "media", ()) if to is role
            ]
            assert len(set(heads)) == len(heads)

    @invariant()
    def no_old_call(self):
        """CALLKEY-17: no call that runs has keys that are older than six minutes."""
        for role, end in getattr(self, "ends", {}).items():
            if self.running(role):
                assert end.call._deadline - 360 <= self.now < end.call._deadline


def other(role):
    return Role.CALLEE if role is Role.CALLER else Role.CALLER


TestRekey = RekeyMachine.TestCase
TestRekey.settings = settings(max_examples=120, stateful_step_count=40)


def test_the_machine_changes_epochs():
    """Over a relay that only delivers, frames go on through twenty epochs and none is refused."""
    machine = RekeyMachine()
    machine.begin()
    for _ in range(20):
        machine.wait(300.0)
        for _ in range(4):
            while machine.mail:
                machine.arrive(*machine.mail.pop(0))
            for role in Role:
                machine.send_frames(role, 2)
            for role, frame in machine.media[-4:]:
                machine.show(role, frame)
    assert all(end.epoch == 20 for end in machine.ends.values())
    assert len(machine.rendered) == len(machine.media) == 20 * 4 * 4


def test_a_relay_that_drops_every_rekey_ends_the_call():
    """CALLKEY-17: then the call is over at both ends, though frames flow all the time."""
    machine = RekeyMachine()
    machine.begin()
    for _ in range(37):
        machine.wait(10.0)
        for role in Role:
            machine.send_frames(role, 1)
        for role, frame in machine.media[-2:]:
            machine.show(role, frame)
    assert not any(map(machine.running, Role))


def test_a_call_that_is_over_says_so():
    """What the machine stands on: an end whose call is over can do nothing more."""
    machine = RekeyMachine()
    machine.begin()
    machine.wait(400.0)
    with pytest.raises(LocalProtocolError):
        _ = machine.ends[Role.CALLER].call.epoch
