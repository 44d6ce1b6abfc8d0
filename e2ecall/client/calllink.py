"""A call's way to the callee's relay (spec/call.md, "Where messages go"): one box, no name.

Both ends hold an anonymous connection there, so that relay sees neither who calls nor, from this
connection, who is called. Every message goes through the pairwise session.
"""

import logging
import ssl
from collections.abc import Callable
from typing import Final

import anyio
from anyio import TASK_STATUS_IGNORED, CancelScope
from anyio.abc import TaskStatus

from e2ecall.client.sessions import Body, Sealed, Sessions
from e2ecall.crypto.random import generate_secret
from e2ecall.errors import (
    E2ECallError,
    IdentityChangedError,
    MediaError,
    NotReachableError,
    RelayError,
    RemoteProtocolError,
    StoreError,
)
from e2ecall.io.connection import RelayConnection
from e2ecall.io.endpoint import RelayEndpoint
from e2ecall.io.line import Line
from e2ecall.protocol.callkeys import Party
from e2ecall.protocol.messages import (
    Answer,
    CallMessage,
    Offer,
    PayloadKind,
    decode_call_message,
    encode_call_message,
)
from relay.wire.messages import (
    AbuseContact,
    AccountRecipient,
    BoxOpened,
    BoxRecipient,
    Bundle,
    Deliver,
    Done,
    FetchAbuseContact,
    FetchBundle,
    Hello,
    OpenBox,
    Send,
    TurnCredential,
)
from relay.wire.names import Address
from relay.wire.records import PreKeyBundle
from relay.wire.turn_servers import urls_for

STORE_PATIENCE: Final = 40.0
"""Seconds for a relay that refuses a message of a call at the moment; a Rekey may be late by 60."""
RETRY_PAUSE: Final = 2.0

GIVE_UP_AFTER: Final = 30.0
"""Seconds without the relay after which the call's signalling counts as lost: not before its media
does (CALL-46)."""

_log = logging.getLogger(__name__)


class AnonymousLine:
    """A connection to a relay that shows no name, with a reply box of its own."""

    def __init__(
        self,
        sessions: Sessions,
        endpoint: RelayEndpoint,
        tls: ssl.SSLContext | None,
        *,
        on_demand: bool = True,
    ) -> None:
        """``on_demand`` is for what opens no box: see `Line`."""
        self._sessions = sessions
        self._box_key = generate_secret(32)
        self._box: bytes | None = None
        self._scope = CancelScope()
        self._line = Line(
            endpoint,
            tls,
            prepare=self._prepare,
            handle=self._handle,
            give_up_after=GIVE_UP_AFTER,
            on_demand=on_demand,
        )

    async def run(self, *, task_status: TaskStatus[Hello] = TASK_STATUS_IGNORED) -> None:
        """Keep the connection up until `close`; see `Line.run`."""
        with self._scope:
            await self._line.run(task_status=task_status)

    def close(self) -> None:
        """Give the connection up."""
        self._scope.cancel()

    def check(self) -> None:
        """Have the line look whether it still works; see `Line.check`."""
        self._line.check()

    @property
    def lost(self) -> bool:
        """Whether the line is closed for good."""
        return self._line.closed.is_set()

    async def fetch_bundle(self, address: Address, token: bytes | None) -> PreKeyBundle:
        """Ask for the prekeys of somebody's device.

        Raises:
            NotReachableError: no such user, or not for us; or this is not their relay.
        """
        if address.relay != self._line.endpoint.name:
            # IDENTITY-17: as when a call is answered, which goes through the callee's relay.
            raise NotReachableError("prekeys have to come from the relay in the address")
        reply = await self._line.request(FetchBundle(address.username, None, token), Bundle)
        return reply.bundle

    async def abuse_contact(self) -> str | None:
        """Ask which account of the relay takes reports."""
        return (await self._line.request(FetchAbuseContact(), AbuseContact)).username

    async def deliver(self, sealed: Sealed, box: bytes | None) -> None:
        """Have an envelope stored: in a reply box, or for the account it is sealed for."""
        recipient = (
            AccountRecipient(sealed.address.username, sealed.device_id)
            if box is None
            else BoxRecipient(box)
        )
        token = sealed.token if box is None else None
        await self._line.request(Send(recipient, sealed.message_id, sealed.envelope, token), Done)
        await self._sessions.delivered(sealed)

    async def _prepare(self, connection: RelayConnection) -> None:
        await self._sessions.trust_relay(connection.endpoint, connection.hello)

    async def _handle(self, delivery: Deliver) -> None:
        """Nothing is expected where no box was opened."""


class CallLink(AnonymousLine):
    """The anonymous line of one call with ``peer``."""

    def __init__(
        self,
        sessions: Sessions,
        endpoint: RelayEndpoint,
        tls: ssl.SSLContext | None,
        peer: Address,
    ) -> None:
        super().__init__(sessions, endpoint, tls, on_demand=False)
        self._peer = peer
        self._identity: bytes | None = None
        self._on_message: Callable[[CallMessage], None] | None = None

    @property
    def box(self) -> bytes:
        """This end's reply box; known once `run` has started."""
        assert self._box is not None
        return self._box

    def turn_uris(self, credential: TurnCredential) -> tuple[str, ...]:
        """Where the relay says that the media service is that a credential is for (TICKET-07).

        A peer has no say in this: it can only pick one of the relay's own.

        Raises:
            MediaError: this relay carries no media.
        """
        hello = self._line.hello
        if hello is None or not hello.turn:
            raise MediaError("this relay offers no media service")
        return urls_for(hello.turn, credential.username)

    async def wait_turn_uris(self, credential: TurnCredential) -> tuple[str, ...]:
        """Return `turn_uris` once the relay has said hello; raises as that does.

        Raises:
            ConnectionFailedError: the relay is lost.
        """
        await self._line.wait_up()
        return self.turn_uris(credential)

    async def wait_lost(self) -> None:
        """Wait until the relay counts as lost."""
        await self._line.closed.wait()

    def on_message(self, handler: Callable[[CallMessage], None]) -> None:
        """Say who takes the peer's messages; before anybody can know the box."""
        self._on_message = handler

    async def send(self, message: CallMessage, box: bytes | None) -> None:
        """Seal a message in the session with the peer, store the session, and send it.

        Raises:
            ConnectionFailedError: the relay is lost.
            RelayError: refused.
        """
        # Whom we call, and whose call we take, may reach us again.
        give_token = isinstance(message, Answer)
        await self._send(encode_call_message(message), box, give_token=give_token)

    async def offer(self, make: Callable[[Party, Party], Offer]) -> None:
        """Have ``make`` make the Offer, of this end and the peer, in the session that carries it.

        Raises as `send` does, and what ``make`` raises.
        """
        await self._send(lambda *ends: encode_call_message(make(*ends)), None, give_token=True)

    async def _send(self, body: bytes | Body, box: bytes | None, *, give_token: bool) -> None:
        def made(local: Party, remote: Party) -> bytes:
            # CALL-21: checked where nothing comes between this and the encryption.
            if self._identity not in (None, remote.identity_key):
                raise IdentityChangedError(f"{self._peer} is on a call with another identity")
            self._identity = remote.identity_key
            return body if isinstance(body, bytes) else body(local, remote)

        sealed = await self._sessions.seal(
            self._peer,
            PayloadKind.CALL,
            made,
            fetch=self.fetch_bundle,
            give_token=give_token,
            must_renew=box is None,  # SESSION-12: a call goes on in the session that it has
        )
        if box is None:
            await self.deliver(sealed, box)
        else:
            await self._deliver_in_call(sealed, box)

    async def _deliver_in_call(self, sealed: Sealed, box: bytes) -> None:
        """Deliver, trying again where the relay cannot store now: media goes on meanwhile (F2)."""
        give_up = anyio.current_time() + STORE_PATIENCE
        while True:
            try:
                await self.deliver(sealed, box)
            except RelayError as error:
                pause = min(error.retry_after, RETRY_PAUSE)
                if not pause or anyio.current_time() + pause > give_up:
                    raise
                await anyio.sleep(pause)
            else:
                return

    async def _prepare(self, connection: RelayConnection) -> None:
        await super()._prepare(connection)
        reply = await connection.request(OpenBox(self._box_key.expose()), BoxOpened)
        self._box = reply.box

    async def _handle(self, delivery: Deliver) -> None:
        if delivery.box is None or delivery.box != self._box or self._on_message is None:
            return
        try:
            opened = await self._sessions.open(delivery.envelope)
            if opened.peer != self._peer:
                return
            if self._identity not in (None, opened.remote.identity_key):
                return
            if opened.payload.kind is PayloadKind.CALL:
                self._on_message(decode_call_message(opened.payload.body))
        except StoreError:
            raise  # INBOX-05: it must not be acknowledged
        except RemoteProtocolError as error:
            _log.info("a call message was refused: %s", error.reason)
        except E2ECallError as error:
            # Without its text, which may name somebody.
            _log.info("a call message could not be read: %s", type(error).__name__)
