"""The calls that live (spec/call.md): one, and one beside it; what ends them and holds in them.

How they come about is `e2ecall.client.calls`; how one lives, `e2ecall.client.calllife`.
"""

import logging

import anyio

from e2ecall.client.admission import Admission
from e2ecall.client.call import Call
from e2ecall.client.callmedia import MediaChoice
from e2ecall.client.callrules import CallRules
from e2ecall.client.history import History
from e2ecall.client.services import Services
from e2ecall.protocol import call as protocol
from e2ecall.protocol.call_events import EndReason
from e2ecall.protocol.call_table import CallState
from e2ecall.protocol.callkeys import Party
from relay.wire.names import Address

_log = logging.getLogger(__name__)


class LiveCalls:
    """Holds the calls of an account: the one that lives, and the second beside it."""

    def __init__(self, services: Services, history: History, rules: CallRules) -> None:
        self._services = services
        self._history = history
        self._admission = Admission(services, history, rules)
        self._call: Call | None = None
        self._second: Call | None = None
        self.waiting_allowed = False
        """Whether a second call rings while one is connected (CALL-36); else it is Busy."""
        self._running: set[Call] = set()

    def end_with(self, address: Address) -> None:
        """Hang up where a call with this person lives, or rings."""
        for call in self._alive():
            if call.peer == str(address):
                call.leave()

    def end_with_former(self, address: Address) -> None:
        """CALL-21: hang up where a call with this person is with another identity than is known."""
        known = self._services.sessions.identity_key(address)
        for call in self._alive():
            if call.peer == str(address) and call.peer_identity != known:
                call.leave()

    async def leave_no_call_with(self, address: Address) -> None:
        """Hang up with this person, and wait until that is said, and noted among past calls."""
        calls = {*self._running, self._call, self._second}
        with_them = [call for call in calls if call is not None and call.peer == str(address)]
        for call in with_them:
            call.leave()
        for call in with_them:
            await call.closed.wait()

    async def hold_to_rules(self, who: Address | None = None, *, pictures: bool = False) -> None:
        """REACH-15: let what the user says of people hold in the calls that go on.

        ``pictures``: just now it was said whose are seen, of ``who`` or, if None, of everybody.
        Whoever is cancelled here waits no longer; the rules hold all the same.
        """
        held = anyio.Event()
        self._services.tasks.start_soon(self._hold_all_to_rules, who, pictures, held)
        await held.wait()

    async def _hold_all_to_rules(
        self, who: Address | None, pictures: bool, held: anyio.Event
    ) -> None:
        try:
            async with anyio.create_task_group() as tasks:  # none of two calls waits for the other
                for call in self._alive():
                    peer = Address.parse(call.peer)
                    video = call.wants_video
                    if call.rings_here and not self._admission.lets_in(peer, wants_video=video):
                        call.leave()
                    else:
                        said = pictures and who in (None, peer)
                        tasks.start_soon(self._hold_to_rules, call, said)
        finally:
            held.set()

    async def _hold_to_rules(self, call: Call, said: bool) -> None:
        try:
            await call.hold_to_rules(self._admission.shows(Address.parse(call.peer)), said=said)
        except Exception as error:  # noqa: BLE001 - whatever it is, such a call does not go on
            _log.warning("a call ends, as a rule does not hold: %s", type(error).__name__)
            call.fail(EndReason.MEDIA_FAILED)

    @property
    def _live(self) -> Call | None:
        if self._call is not None and self._call.ended is None:
            self._call.on_time()
        return None if self._call is None or self._call.ended is not None else self._call

    def _alive(self) -> tuple[Call, ...]:
        """Return the calls that are not over."""
        calls = [call for call in (self._call, self._second) if call is not None]
        for call in calls:
            if call.ended is None:
                call.on_time()
        return tuple(call for call in calls if call.ended is None)

    def _adopt(
        self, machine: protocol.Call, choice: MediaChoice, *, by_itself: bool = False
    ) -> Call:
        """Make a call: the one, or the second beside the one that lives."""
        call = Call(
            machine,
            choice,
            by_itself=by_itself,
            shows_pictures=self._admission.shows(Address.parse(machine.remote.address)),
            confirm=self._confirm,
            clock=self._services.steady,
            began=self._services.clock(),
            note=self._history.note,
        )
        if self._live is None:
            self._call = call
        else:
            self._second = call
        return call

    def _may_place(self) -> bool:
        """Return whether a call can be placed: the first, or one beside a held one (CALL-36)."""
        alive = self._alive()
        held = [call for call in alive if call.state is CallState.CONNECTED and call.controls.held]
        return not alive or (len(alive) == 1 and bool(held))

    def _may_wait(self) -> bool:
        """Return whether one more call may ring beside the one that lives (CALL-36)."""
        alive = self._alive()
        return self.waiting_allowed and [call.state for call in alive] == [CallState.CONNECTED]

    def _start(self, call: Call) -> None:
        """Let the call live; once, where glare would do so twice."""
        if call not in self._running:
            self._running.add(call)
            self._services.tasks.start_soon(self._run, call)

    async def _run(self, call: Call) -> None:
        try:
            await call.run()
        finally:
            if call.was_taken:
                self._admission.taken(Address.parse(call.peer))
            self._forget(call)

    async def _drop(self, call: Call) -> None:
        """Release a call that never lived."""
        with anyio.CancelScope(shield=True):
            await call.discard()
        self._forget(call)

    def _forget(self, call: Call) -> None:
        self._running.discard(call)
        if self._call is call:
            self._call, self._second = self._second, None
        elif self._second is call:
            self._second = None

    async def _confirm(self, remote: Party) -> None:
        peer = Address.parse(remote.address)
        await self._services.sessions.confirm(peer, remote.identity_key)
