"""A device's prekeys over months: rotation, refills, handshakes, replays, restarts."""

import contextlib
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from e2ecall.errors import Reason, RemoteProtocolError
from e2ecall.protocol import prekeys
from e2ecall.protocol.bundle import verify_prekey
from e2ecall.protocol.local import LocalDevice
from e2ecall.protocol.prekeystore import prekeys_from_bytes, prekeys_to_bytes
from relay.wire.messages import PrekeyCounts
from relay.wire.names import Address
from relay.wire.records import PreKeyKind
from tests.protocol.conftest import NOW

DAY = 86_400
LOCAL = LocalDevice.generate(Address("bob", "relay.example"), now=NOW)
ONE_TIME = (PreKeyKind.ONE_TIME_X25519, PreKeyKind.ONE_TIME_MLKEM1024)
ROTATED = (PreKeyKind.SIGNED_X25519, PreKeyKind.SEALING, PreKeyKind.LAST_RESORT_MLKEM1024)
SMALL = {"ONE_TIME_TARGET": 4, "REFILL_BELOW": 2, "MAX_ONE_TIME": 8}
"""Drawing keys costs time, and the rules do not depend on how many there are."""


def refused(call, *arguments, **options) -> Reason:
    """Expect a refusal and return its reason."""
    with pytest.raises(RemoteProtocolError) as caught:
        call(*arguments, **options)
    return caught.value.reason


class PreKeys(RuleBasedStateMachine):
    """The owner maintains, the relay serves and lies about its counts, initiators come and go."""

    @initialize()
    def begin(self):
        self.patches = pytest.MonkeyPatch()
        for name, value in SMALL.items():
            self.patches.setattr(prekeys, name, value)
        self.now = NOW
        self.published = {}
        self.served = {kind: [] for kind in ONE_TIME}
        self.used = {}  # EK -> the id of its signed prekey
        self.gone = set()
        self.ephemerals = 0
        self.state, new = prekeys.generate(LOCAL, now=self.now)
        self.publish(new)

    def publish(self, new):
        """PREKEYS-01, PREKEYS-02: ids ascend and never return; what is published verifies."""
        for prekey in new:
            assert prekey.key_id > max(self.published, default=0)
            verify_prekey(
                prekey,
                kinds={prekey.kind},
                address=LOCAL.address,
                device=LOCAL.keys.public,
                now=self.now,
            )
            self.published[prekey.key_id] = prekey
            if prekey.kind in ONE_TIME:
                self.served[prekey.kind].append(prekey.key_id)

    @rule(
        hours=st.sampled_from([0, 1, 24, 48, 24 * 17, 24 * 200]),
        counts=st.none() | st.builds(PrekeyCounts, st.integers(0, 9), st.integers(0, 9)),
    )
    def maintain(self, hours, counts):
        """PREKEYS-04, PREKEYS-06: after it the current keys are young and the relay has enough."""
        self.now += hours * 3_600
        self.state, new = prekeys.maintain(self.state, LOCAL, counts, now=self.now)
        self.publish(new)
        made = {kind: sum(key.kind == kind for key in new) for kind in PreKeyKind}
        at_relay = counts or PrekeyCounts(4, 4)
        for kind, count in zip(ONE_TIME, (at_relay.x25519, at_relay.mlkem1024), strict=True):
            assert made[kind] == (4 - count if count < 2 else 0)
        assert len({made[kind] for kind in ROTATED}) == 1
        assert len(self.state.refills) <= 1 + sum(map(len, self.one_time_keys()))
        again, more = prekeys.maintain(self.state, LOCAL, None, now=self.now)
        assert not more
        assert replace(again, refills=()) == replace(self.state, refills=())

    @precondition(lambda self: self.state.one_time_x25519)
    @rule(data=st.data(), proven=st.booleans(), one_time=st.booleans(), last_resort=st.booleans())
    def accept(self, data, proven, one_time, last_resort):
        """PQXDH-05, PQXDH-06: a handshake uses up its one-time keys and its EK, and no others."""
        self.ephemerals += 1
        ephemeral = self.ephemerals.to_bytes(32)
        signed = data.draw(st.sampled_from(self.of_kind(PreKeyKind.SIGNED_X25519)))
        dh = data.draw(st.sampled_from(sorted(self.state.one_time_x25519))) if one_time else None
        kems = sorted(self.state.one_time_mlkem1024)
        if last_resort or not kems:
            kems = self.of_kind(PreKeyKind.LAST_RESORT_MLKEM1024)
        kem = data.draw(st.sampled_from(kems))
        self.state.check_ephemeral(signed, ephemeral, proven=proven)
        kind, _ = self.state.kem_key(kem)
        held = set().union(*self.one_time_keys())
        self.state = self.state.consumed(
            signed, ephemeral, one_time_id=dh, kem_id=kem, proven=proven
        )
        assert refused(self.state.check_ephemeral, signed, ephemeral) is Reason.REPLAYED
        self.used[ephemeral] = signed
        spent = {dh} if one_time else set()
        if kind is PreKeyKind.ONE_TIME_MLKEM1024:
            spent.add(kem)
        self.gone |= spent
        assert set().union(*self.one_time_keys()) == held - spent

    @rule()
    def restart(self):
        """The state is stored as bytes and read again."""
        stored = prekeys_from_bytes(prekeys_to_bytes(self.state))
        assert stored == self.state
        self.state = stored

    @invariant()
    def replays_are_refused(self):
        """PQXDH-06: as long as a signed prekey lives no EK makes a second session under it."""
        for ephemeral, signed in getattr(self, "used", {}).items():
            reason = refused(self.state.check_ephemeral, signed, ephemeral)
            alive = signed in self.of_kind(PreKeyKind.SIGNED_X25519)
            assert reason is (Reason.REPLAYED if alive else Reason.UNKNOWN_KEY)

    @invariant()
    def one_time_keys_are_used_once(self):
        """PREKEYS-10: a one-time key that was used never comes back."""
        for key_id in getattr(self, "gone", ()):
            assert refused(self.state.one_time_key, key_id) is Reason.UNKNOWN_KEY
            assert refused(self.state.kem_key, key_id) is Reason.UNKNOWN_KEY

    @invariant()
    def bounded(self):
        """PREKEYS-04, PREKEYS-07: of each kind one key is current, and few are kept."""
        if not hasattr(self, "state"):
            return
        for kind in ROTATED:
            keys = [key for key in self.state.rotated if key.kind is kind]
            assert len(keys) <= prekeys.MAX_KEPT
            assert [key for key in keys if not key.retired] == keys[-1:]
        assert all(len(keys) <= SMALL["MAX_ONE_TIME"] for keys in self.one_time_keys())
        current = self.of_kind(PreKeyKind.SEALING)[-1]
        assert self.state.sealing_key.key_id == current == self.state.sealing_keys()[0].key_id

    def one_time_keys(self):
        """Return the private one-time keys of both kinds."""
        return self.state.one_time_x25519, self.state.one_time_mlkem1024

    def of_kind(self, kind):
        """Return the ids of the rotated keys of a kind that are kept, oldest first."""
        return [key.key_id for key in self.state.rotated if key.kind is kind]

    def teardown(self):
        with contextlib.suppress(AttributeError):
            self.patches.undo()


TestPreKeys = PreKeys.TestCase
TestPreKeys.settings = settings(max_examples=50, stateful_step_count=25)
