"""A client: one account, its calls and its messages (README, "Embedding").

`Client` is what a program uses; it joins the account, its line, its calls and its texts. On AnyIO,
so on trio or asyncio; media runs in a thread of its own and is not loaded before the first call.
"""

import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

import anyio
from anyio.abc import TaskGroup, TaskStatus

from e2ecall.client.account import Account
from e2ecall.client.call import Call, IncomingCall
from e2ecall.client.calls import Calls
from e2ecall.client.contacts import Contact
from e2ecall.client.home import Home
from e2ecall.client.inbox import Inbox, TextMessage
from e2ecall.client.iteration import Following
from e2ecall.client.services import Services
from e2ecall.client.sessions import Sessions
from e2ecall.errors import E2ECallError, LocalProtocolError, RelayError
from e2ecall.io.endpoint import RelayEndpoint, tls_context
from e2ecall.io.store import Store
from e2ecall.protocol.messages import PayloadKind, encode_text
from e2ecall.secret import Secret
from relay.wire.errors import WireError
from relay.wire.messages import Done, Policy, SetPolicy
from relay.wire.names import Address

if TYPE_CHECKING:
    from e2ecall.media.sinks import Sink
    from e2ecall.media.sources import AudioSource, VideoSource


class Client:
    """An open client; made by `Client.open`. Its methods may be called from any task."""

    def __init__(
        self,
        store: Store,
        endpoint: RelayEndpoint,
        tls: ssl.SSLContext,
        clock: Callable[[], float],
        tasks: TaskGroup,
    ) -> None:
        """Use `open`."""
        account = Account(store, clock)
        sessions = Sessions(store, account, clock)
        self._services = Services(store, endpoint, tls, clock, tasks, account, sessions)
        self._inbox = Inbox(store)
        self._calls = Calls(self._services)
        self._home = Home(
            self._services,
            self._inbox,
            on_call=lambda opened, message: self._calls.take(opened, message, self._home),
            on_end=self._calls.end_incoming,
        )

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: str | Path,
        *,
        passphrase: str | bytes | Secret,
        relay: str,
        ca: str | Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> AsyncIterator[Self]:
        """Open the store at ``path``, creating it if there is none, and log in if registered.

        ``relay`` is the URL of the own relay, ``ca`` a PEM file of authorities to trust instead of
        the system's. Leaving the block, also by cancellation, hangs up and releases everything.

        Raises:
            StoreError: wrong passphrase, damaged store, or in use.
            ConnectionFailedError: the relay cannot be reached, or its certificate is not valid.
            LocalProtocolError: ``relay`` is not a URL of a relay.
        """
        endpoint = RelayEndpoint.parse(relay)
        tls = tls_context(Path(ca) if ca else None)
        store = await Store.open(Path(path), _as_secret(passphrase))
        try:
            failure: BaseException | None = None
            async with anyio.create_task_group() as outer:
                tasks: TaskGroup = await outer.start(_host)
                client = None
                try:
                    client = cls(store, endpoint, tls, clock, tasks)
                    if client.is_registered:
                        await client._home.start()
                    yield client
                except Exception as error:  # noqa: BLE001 - raised below, outside of the group
                    failure = error
                finally:
                    if client is not None:
                        await client._calls.close()
                    tasks.cancel_scope.cancel()
            if failure is not None:
                # As the program raised it: a task group would wrap it in an exception group.
                raise failure
        finally:
            await store.aclose()

    # --- the account --------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """The own address.

        Raises:
            LocalProtocolError: not registered.
        """
        return str(self._services.account.local.address)

    @property
    def is_registered(self) -> bool:
        """Whether this store has an account."""
        return self._services.account.is_registered

    async def register(self, username: str) -> None:
        """Create the account ``username`` at the own relay, or go on where an attempt broke off.

        Raises:
            UsernameTakenError: somebody else has it.
            LocalProtocolError: not a username, or this store has an account already.
            RelayError: the relay takes no registrations.
        """
        account, relay = self._services.account, self._services.endpoint.name
        confirmed = account.is_registered and str(account.local.address) == f"{username}@{relay}"
        if self._home.is_started or not confirmed:
            await account.begin_registration(username, relay)
        try:
            await self._home.start()
        except E2ECallError as error:
            # After a broken connection nobody knows: the next attempt uses the same keys.
            if isinstance(error, RelayError):
                await account.abandon_registration()
            raise

    async def set_policy(self, policy: Policy) -> None:
        """Choose who can reach this account: everyone, or contacts only."""
        await self._home.publish_tokens()
        await self._home.line.request(SetPolicy(policy), Done)

    def contacts(self) -> tuple[Contact, ...]:
        """Return everybody this account talked to, in the order of addresses."""
        return tuple(
            Contact(
                record.address,
                record.verified_identity is not None
                and record.verified_identity
                == self._services.sessions.identity_key(Address.parse(record.address)),
                record.identity_changed,
            )
            for record in self._services.sessions.contacts.all()
        )

    async def wait_closed(self) -> None:
        """Wait until the account's connection has ended for good, and raise why."""
        line = self._home.line
        await line.closed.wait()
        if line.failure is not None:
            raise line.failure

    # --- messages -----------------------------------------------------------------------------

    async def message(self, to: str, text: str) -> None:
        """Send a text; returns when the recipient's relay has stored it.

        Raises:
            NotReachableError: no such user, or one who does not accept this.
            IdentityChangedError: the person's identity is not the known one; nothing was sent.
            ConnectionFailedError: their relay cannot be reached.
        """
        address = self._parse(to)
        async with self._services.anonymous_line(address) as line:
            sealed = await self._services.sessions.seal(
                address,
                PayloadKind.TEXT,
                encode_text(text),
                fetch=line.fetch_bundle,
                give_token=True,
            )
            await line.deliver(sealed, None)

    def messages(self) -> Following[TextMessage]:
        """Iterate over texts as they come in; one counts as taken when the next is asked for.

        The loop may be left at any time. It raises an E2ECallError when the account's connection
        has ended for good.
        """
        line, texts = self._home.line, self._inbox.messages()

        async def following() -> TextMessage:
            text = await texts(line.closed)
            if text is None:
                raise line.failure or StopAsyncIteration
            return text

        return Following(following)

    # --- calls --------------------------------------------------------------------------------

    async def call(
        self,
        to: str,
        *,
        audio: "AudioSource | None" = None,
        video: "VideoSource | None" = None,
        output: "Sink | None" = None,
    ) -> Call:
        """Call somebody; returns once the Offer is stored at their relay.

        Without ``audio`` silence is sent; ``output`` takes what is received. The call runs until
        it ends, whether or not its events are read.

        Raises:
            LocalProtocolError: there is a call already.
            NotReachableError: no such user, or one who does not accept this.
            IdentityChangedError: the person's identity is not the known one; nothing was sent.
            ConnectionFailedError: their relay cannot be reached.
        """
        return await self._calls.place(self._parse(to), audio, video, output)

    def incoming(self) -> Following[IncomingCall]:
        """Iterate over calls that ring, from people whose name a relay of the user's vouches for.

        The loop may be left at any time. It raises an E2ECallError when the account's connection
        has ended for good.
        """
        line, ringing = self._home.line, self._calls.incoming

        async def following() -> IncomingCall:
            while True:
                try:
                    call = await ringing.receive()
                except anyio.EndOfStream:
                    raise line.failure or StopAsyncIteration from None
                if call.call.ended is None:
                    return call

        return Following(following)

    def _parse(self, text: str) -> Address:
        """Read an address, where a bare name is one at the own relay; needs an account."""
        own = self._services.account.local.address
        try:
            address = Address.parse(text, own.relay)
        except WireError as error:
            raise LocalProtocolError(f"{text!r} is not an address: {error}") from error
        if address == own:
            raise LocalProtocolError("this is your own address")
        return address


async def _host(*, task_status: TaskStatus[TaskGroup]) -> None:
    """Run the client's own tasks out of reach of the program's cancellation.

    A cancelled program still hangs up: the client ends these tasks itself, after the goodbye.
    """
    with anyio.CancelScope(shield=True):
        async with anyio.create_task_group() as tasks:
            task_status.started(tasks)
            await anyio.sleep_forever()


def _as_secret(passphrase: str | bytes | Secret) -> Secret:
    if isinstance(passphrase, Secret):
        return passphrase
    return Secret(passphrase.encode() if isinstance(passphrase, str) else passphrase)
