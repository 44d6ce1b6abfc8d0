"""The account's own line (spec/wire.md): logged in at its relay, kept up, its mail taken.

Opens envelopes and sorts them into texts and calls. What a call message does is
`e2ecall.client.calls`.
"""

import logging
import random
from collections.abc import Callable
from typing import Final

import anyio

from e2ecall.client.inbox import Inbox
from e2ecall.client.receiving import Opened
from e2ecall.client.services import Services
from e2ecall.errors import (
    ConnectionFailedError,
    E2ECallError,
    LocalProtocolError,
    RelayError,
    RemoteProtocolError,
    StoreError,
)
from e2ecall.io.connection import RelayConnection
from e2ecall.io.line import Line
from e2ecall.protocol.messages import CallMessage, PayloadKind, decode_call_message
from relay.wire.limits import MAX_BUNDLE_FIELDS
from relay.wire.messages import AddTokens, Deliver, Done, PutInvitations, PutTokens, UseTokens

MAINTENANCE_INTERVAL: Final = 3600.0
"""Seconds between looks at prekeys, certificate and device list."""

FIRST_RETRY, LAST_RETRY = 5.0, 600.0
"""Seconds until what the relay refused is tried again, doubled each time, where the relay does not
say when: until then somebody who was let in may be refused, and somebody blocked get through."""
RETRY_SPREAD: Final = 0.25
"""The part of a wait by which clients that were refused at one moment come back apart."""

TOKEN_ATTEMPTS: Final = 3
"""For a set of tokens in parts, which a connection that breaks interrupts."""

GAP_INTERVAL: Final = 30.0
"""Seconds between two looks for messages that are overdue; each is a count in memory."""

FIRST_TOKEN_PATIENCE: Final = 2.0
"""Seconds for which a message waits that gives somebody a first token: one own relay that is out of
reach must not keep a user from people elsewhere."""

_log = logging.getLogger(__name__)


class Home:
    """The line to the own relay. `on_call` and `on_end` are called in its task."""

    def __init__(
        self,
        services: Services,
        inbox: Inbox,
        *,
        on_call: Callable[[Opened, CallMessage], None],
        on_end: Callable[[], None],
    ) -> None:
        self._services = services
        self._inbox = inbox
        self._on_call = on_call
        self._on_end = on_end
        self._line: Line | None = None
        self._is_low = False
        self._publishing = anyio.Lock()

    @property
    def line(self) -> Line:
        """The line of the account.

        Raises:
            LocalProtocolError: there is no account yet.
        """
        if self._line is None:
            raise LocalProtocolError(
                "this store has no account yet", hint="register a username first"
            )
        return self._line

    @property
    def is_started(self) -> bool:
        """Whether the line was up once."""
        return self._line is not None

    async def start(self) -> None:
        """Register or log in, and keep the line up from then on.

        Raises:
            RelayError: refused.
            ConnectionFailedError: the relay cannot be reached.
        """
        own, endpoint = self._services.account.address, self._services.endpoint
        if own.relay != endpoint.name:
            raise LocalProtocolError(
                f"{own} is not an account of {endpoint.name}",
                hint="open this store with the relay that it was registered at",
            )
        line = Line(
            endpoint,
            self._services.tls,
            prepare=self._prepare,
            handle=self._handle,
            on_low=self._refill,
            on_set_aside=self._services.sessions.gaps.set_aside,
        )
        await self._services.tasks.start(line.run)
        self._line = line
        self._services.sessions.publish_token = self._publish_first
        self._services.tasks.start_soon(self._maintain, line)
        self._services.tasks.start_soon(self._watch, line)
        self._services.tasks.start_soon(self._look_for_gaps, line)

    async def publish_tokens(self) -> None:
        """Tell the relay which delivery tokens are good: of contacts, and of invitations."""
        sessions = self._services.sessions
        # One after the other: an older set must not come after a newer one, and what is drawn
        # while the relay answers does not count as published (REACH-04).
        async with self._publishing:
            await sessions.rotate_tokens()
            # In this order: who took an invitation up is never without a token.
            await self._put_tokens()
            await self.line.request(PutInvitations(sessions.reach.invitations()), Done)
            await sessions.tokens_published()

    async def _put_tokens(self) -> None:
        """Tell the tokens alone; `_publishing` is held by the caller."""
        hashes = self._services.sessions.reach.token_hashes()
        if len(hashes) <= MAX_BUNDLE_FIELDS:
            await self.line.request(PutTokens(hashes), Done)
            return
        for attempt in range(TOKEN_ATTEMPTS):
            try:
                await self._put_in_parts(hashes)
            except RelayError:
                # The parts before went with the connection that had them (WIRE-26).
                if attempt == TOKEN_ATTEMPTS - 1:
                    raise
            else:
                return

    async def _put_in_parts(self, hashes: tuple[bytes, ...]) -> None:
        for begin in range(0, len(hashes), MAX_BUNDLE_FIELDS):
            part = hashes[begin : begin + MAX_BUNDLE_FIELDS]
            await self.line.request(AddTokens(begin, part), Done)
        await self.line.request(UseTokens(len(hashes)), Done)

    async def _publish_first(self) -> None:
        """Have the relay learn a first token before the contact does, if it answers at all."""
        with anyio.move_on_after(FIRST_TOKEN_PATIENCE):
            try:
                async with self._publishing:
                    await self._put_tokens()
            except E2ECallError as error:
                # Without its text, which may name somebody; `_maintain` publishes it later.
                _log.warning("a token could not be published: %s", type(error).__name__)

    async def _prepare(self, connection: RelayConnection) -> None:
        await self._services.sessions.trust_relay(connection.endpoint, connection.hello)
        await self._services.account.prepare(connection)

    async def _handle(self, delivery: Deliver) -> None:
        """Take an envelope of the account's mailbox; nothing undecryptable is ever answered."""
        try:
            opened = await self._services.sessions.open(delivery.envelope)
            if opened.payload.kind is PayloadKind.TEXT:
                self._inbox.notify()
            if opened.payload.kind is not PayloadKind.CALL:
                return
            message = decode_call_message(opened.payload.body)
        except StoreError:
            raise  # it must not be acknowledged: the relay still has it
        except RemoteProtocolError as error:
            _log.info("an envelope was refused: %s", error.reason)
        except E2ECallError as error:
            # Without its text, which may name somebody.
            _log.warning("an envelope was refused: %s", type(error).__name__)
        else:
            self._on_call(opened, message)

    def _refill(self) -> None:
        """Have more one-time prekeys published (WIRE-18)."""
        self._is_low = True
        self._services.sessions.tell_tokens_changed()  # which wakes `_maintain`

    async def _watch(self, line: Line) -> None:
        """Tell who waits for calls and texts when the line is closed for good."""
        await line.closed.wait()
        self._inbox.notify()
        self._services.sessions.gaps.notify()
        self._on_end()

    async def _look_for_gaps(self, line: Line) -> None:
        """Note what never came (RATCHET-12), for as long as the line is kept up."""
        while not line.closed.is_set():
            try:
                await self._services.sessions.gaps.look(self._services.clock())
            except E2ECallError as error:
                # Without its text, which may name somebody.
                _log.warning("gaps could not be noted: %s", type(error).__name__)
            with anyio.move_on_after(GAP_INTERVAL):
                await line.closed.wait()

    async def _maintain(self, line: Line) -> None:
        sessions, account = self._services.sessions, self._services.account
        failures, is_due, due_at = 0, False, anyio.current_time() + MAINTENANCE_INTERVAL
        while not line.closed.is_set():
            changed = sessions.tokens_changed
            try:
                # First, and each time: many a client is never on line for as long as an hour.
                await sessions.forget_expired()
                await self.publish_tokens()
                # An hour after the last look, however often tokens change meanwhile (PREKEYS-12).
                is_due = is_due or self._is_low or anyio.current_time() >= due_at
                if is_due:
                    self._is_low = False
                    await account.maintain(line.request)
                    is_due, due_at = False, anyio.current_time() + MAINTENANCE_INTERVAL
            except E2ECallError as error:
                # Without its text, which may name somebody.
                _log.warning(
                    "the account could not be brought up to date: %s", type(error).__name__
                )
                with anyio.move_on_after(retry_delay(error, failures)):
                    await self._wait_retry(line, error)
                failures += 1
            else:
                failures = 0
                with anyio.CancelScope(deadline=due_at):
                    await changed.wait()

    async def _wait_retry(self, line: Line, error: E2ECallError) -> None:
        """Wait until trying again can help, because another connection is up, or never can."""
        if isinstance(error, ConnectionFailedError):
            await line.wait_renewed()
        else:
            await line.closed.wait()


def retry_delay(error: E2ECallError, failures: int) -> float:
    """Return the seconds to wait after ``error``, which ``failures`` others came before (WIRE-56).

    As many as the relay says (TOO_MANY, RETRY), or longer each time; and some more, at random, so
    that those who were refused together do not come back together.
    """
    delay = min(FIRST_RETRY * 2.0 ** min(failures, 10), LAST_RETRY)
    if isinstance(error, RelayError) and error.retry_after:
        said = min(float(error.retry_after), MAINTENANCE_INTERVAL)
        delay = max(said, delay) if failures else said
    return delay * random.uniform(1, 1 + RETRY_SPREAD)  # noqa: S311 - spreads load
