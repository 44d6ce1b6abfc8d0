"""Two ends whose paths die while a relay loses, repeats, delays and reorders: any trace.

Each end has what its owner would have: it allocates in time, late or not at all, and its media
hears what the relay lets through. Messages may arrive at any time, any number of times, or never.
"""

import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from e2ecall.errors import LocalProtocolError, RemoteProtocolError
from e2ecall.protocol.call_core import MEDIA_STATES
from e2ecall.protocol.call_events import (
    Ended,
    EndReason,
    EpochConfirmed,
    NewEpoch,
    PathAgreed,
    PathDue,
    PathProposed,
    RekeyDue,
    RekeyProposed,
    ReplacePath,
)
from e2ecall.protocol.call_exchange import CalleeSecrets, RekeySecrets
from e2ecall.protocol.call_path import MAX_PATHS, MAX_PATHS_TAKEN, PATH_INTERVAL, PATH_WINDOW
from e2ecall.protocol.call_table import CallState, Role
from e2ecall.protocol.messages import MediaDescription, Path, Stream, StreamDescription
from tests.protocol.call.conftest import NOW, RELAYED, TURN, Pair, media, snapshot

PICK = st.integers(0, 63)
NEITHER = (EndReason.CONNECTION_LOST, EndReason.KEYS_EXPIRED, EndReason.TIMEOUT)
BOTH = tuple(Role)


def other(role):
    return Role.CALLEE if role is Role.CALLER else Role.CALLER


class Owner:
    """One end: its call, the path that it uses, and what it was asked to do and has not done."""

    def __init__(self, call, numbers):
        self.call, self.numbers = call, numbers
        self.used = {0: None}  # epoch of each path that was used, with both descriptions
        self.current = 0
        self.trying = None
        self.todo = []
        self.begun = []

    def describe(self):
        """Return a description that nobody had before."""
        number = next(self.numbers)
        streams = [
            StreamDescription(s.stream, s.codec, s.payload_type, 100 * number + i, None, None)
            for i, s in enumerate(media("p").streams)
        ]
        return MediaDescription(
            number.to_bytes(32), f"u{number:05}", f"p{number:030}", tuple(streams)
        )

    def act(self, event, now):
        match event:
            case RekeyDue():
                self.call.rekey(RekeySecrets.generate(), now)
            case RekeyProposed(rekey):
                self.call.answer_rekey(CalleeSecrets.generate(rekey), now)
            case PathDue():
                self.call.replace_path(RekeySecrets.generate(), self.describe(), now)
            case PathProposed() | PathAgreed():
                self.todo.append(event)
            case ReplacePath():
                self.trying = event
                epoch = event.keys.keys.epoch
                assert epoch not in self.used  # CALL-43: a path is begun once
                self.used[epoch] = (event.local, event.remote)
            case NewEpoch() | EpochConfirmed() | Ended():
                pass

    def work(self, now):
        """Do what was asked for, whether it is wanted still or not."""
        event = self.todo.pop(0)
        try:
            if isinstance(event, PathAgreed):
                self.call.ready_path(event.epoch, [RELAYED], now)
            else:
                secrets = CalleeSecrets.generate(event.path)
                self.call.answer_path(secrets, self.describe(), TURN, [RELAYED], now)
        except LocalProtocolError:
            # Answered already, or over.
            assert isinstance(event, PathProposed) or self.call.state is CallState.ENDED


class PathMachine(RuleBasedStateMachine):
    """``mail`` is all that was ever sent."""

    @initialize(connected=st.sampled_from([BOTH, BOTH[:1], BOTH[1:], ()]))
    def begin(self, connected=BOTH):
        """Let an answered call begin, in which these ends have seen a frame already."""
        self.now = NOW
        pair = Pair().run(5)
        for role in connected:
            (pair.caller if role is Role.CALLER else pair.callee).media_connected(NOW)
        self.code = pair.caller.sas
        numbers = itertools.count(1)
        self.ends = {
            Role.CALLER: Owner(pair.caller, numbers),
            Role.CALLEE: Owner(pair.callee, numbers),
        }
        self.mail, self.keys = [], {}
        for role in Role:
            self.settle(role)

    # --- what happens to media ----------------------------------------------------------------

    @rule(role=st.sampled_from(Role))
    def lose(self, role):
        self.ends[role].call.path_lost(self.now - 2.5, self.now)
        self.settle(role)

    @rule()
    def lose_both(self):
        for role in Role:
            self.lose(role)

    @rule(role=st.sampled_from(Role))
    def hear_again(self, role):
        self.ends[role].call.path_alive(self.ends[role].current, self.now)
        self.settle(role)

    @rule(role=st.sampled_from(Role), comes_up=st.booleans())
    def connect(self, role, comes_up):
        """A new path is heard, if both ends use it, or it fails."""
        end, peer = self.ends[role], self.ends[other(role)]
        if end.trying is None or not self.running(role):
            return
        epoch = end.trying.keys.keys.epoch
        if comes_up and epoch in peer.used:
            end.current, end.trying = epoch, None
            end.call.path_alive(epoch, self.now)
        elif not comes_up:
            end.trying = None
            end.call.path_failed(epoch, self.now)
        self.settle(role)

    @rule(role=st.sampled_from(Role))
    def see_a_frame(self, role):
        if self.ends[role].call.state is CallState.CONNECTING:
            self.ends[role].call.media_connected(self.now)
            self.settle(role)

    @rule(role=st.sampled_from(Role))
    def work(self, role):
        if self.ends[role].todo:
            self.ends[role].work(self.now)
            self.settle(role)

    @rule(role=st.sampled_from(Role))
    def wear_out(self, role):
        if self.running(role):
            self.ends[role].call.key_worn(self.ends[role].call.epoch, self.now)
            self.settle(role)

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 5.0, 10.0]))
    def wait(self, seconds):
        self.now += seconds
        for role in Role:
            self.ends[role].call.on_time(self.now)
            self.settle(role)

    # --- what the relay does ------------------------------------------------------------------

    @rule()
    def deliver_newest(self):
        for role in Role:
            mine = [message for to, message in self.mail if to is role]
            if mine:
                self.arrive(role, mine[-1])

    @rule(pick=PICK)
    def deliver(self, pick):
        if self.mail:
            self.arrive(*self.mail[-1 - pick % len(self.mail)])

    @rule(pick=PICK)
    def reflect(self, pick):
        """R6: a message comes back to its sender."""
        if self.mail:
            role, message = self.mail[-1 - pick % len(self.mail)]
            self.arrive(other(role), message)

    # --- what must hold -----------------------------------------------------------------------

    def arrive(self, role, message):
        call = self.ends[role].call
        call.on_time(self.now)
        self.settle(role)
        before = snapshot(call)
        try:
            call.receive(message, self.now)
        except RemoteProtocolError:
            assert snapshot(call) == before
        self.settle(role)

    def settle(self, role):
        end = self.ends[role]
        while events := end.call.events():
            for event in events:
                if isinstance(event, Ended):
                    assert event.reason in NEITHER or event.by_peer
                if self.running(role):
                    end.act(event, self.now)
        for message in end.call.messages_to_send():
            if isinstance(message, Path) and message.epoch not in [e for e, _ in end.begun]:
                end.begun.append((message.epoch, self.now))
            self.mail.append((other(role), message))
        if self.running(role):
            for keys in end.call._channel._live:  # one epoch has one secret, at both ends, for ever
                secret = keys.secret.expose()
                assert self.keys.setdefault(keys.epoch, secret) == secret

    def running(self, role):
        return self.ends[role].call.state in MEDIA_STATES

    @invariant()
    def both_use_the_same_paths(self):
        """R8, CALL-43: who uses a path has the description of who uses it at the other end."""
        ends = getattr(self, "ends", None)
        if ends:
            caller, callee = ends[Role.CALLER], ends[Role.CALLEE]
            for epoch in caller.used.keys() & callee.used.keys() - {0}:
                assert caller.used[epoch] == callee.used[epoch][::-1]

    @invariant()
    def paths_are_limited(self):
        """CALL-44: begun at least 5 s apart, and at most ten in ten minutes."""
        if hasattr(self, "ends"):
            times = [at for _, at in self.ends[Role.CALLER].begun]
            for earlier, later in itertools.pairwise(times):
                assert later - earlier >= PATH_INTERVAL
            assert all(
                later - first >= PATH_WINDOW
                for first, later in zip(times, times[MAX_PATHS:], strict=False)
            )
            assert len(self.ends[Role.CALLEE].call._recent(self.now)) <= MAX_PATHS_TAKEN

    @invariant()
    def the_call_is_the_same(self):
        """CALLKEY-08: no path changes the spoken code."""
        for end in getattr(self, "ends", {}).values():
            assert end.call.sas == self.code

    @invariant()
    def epochs_are_close(self):
        """CALLKEY-12: the ends are at most one epoch apart, and have keys of two at most."""
        ends = getattr(self, "ends", {})
        if ends and all(map(self.running, ends)):
            caller, callee = (ends[role].call.epoch for role in Role)
            assert caller - callee in (0, 1)
            assert all(len(end.call._channel._live) <= 2 for end in ends.values())


TestPath = PathMachine.TestCase
TestPath.settings = settings(max_examples=60, stateful_step_count=50)


def settle_all(machine):
    """Let a relay that only delivers carry everything that is asked for."""
    while machine.mail or any(end.todo for end in machine.ends.values()):
        while machine.mail:
            machine.arrive(*machine.mail.pop(0))
        for role in Role:
            machine.work(role)


@pytest.mark.parametrize("who", ["caller", "callee", "both"])
def test_the_machine_replaces_paths(who):
    """CALL-40, CALL-41: over a relay that delivers, every lost path is followed by one new one."""
    machine = PathMachine()
    machine.begin()
    for number in range(1, 9):
        machine.wait(60.0)
        for role in Role:
            if who in (role, "both"):
                machine.lose(role)
        settle_all(machine)
        for role in Role:
            assert machine.ends[role].trying is not None
            machine.connect(role, comes_up=True)
        settle_all(machine)
        assert [end.current for end in machine.ends.values()] == [number, number]
        assert [end.call.epoch for end in machine.ends.values()] == [number, number]
    keys = [
        keys.frame_key(role, stream).base_key.expose()
        for keys in machine.ends[Role.CALLER].call._channel._live
        for role in Role
        for stream in Stream
    ]
    assert len(set(keys)) == len(keys)


def test_a_relay_that_keeps_media_back_ends_the_call():
    """CALL-46: it may carry every message; with no media both ends leave within 30 s."""
    machine = PathMachine()
    machine.begin()
    machine.lose_both()
    for _ in range(28):
        settle_all(machine)
        for role in Role:
            machine.connect(role, comes_up=False)
        machine.wait(1.0)
    assert not any(map(machine.running, Role))
