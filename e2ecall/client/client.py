"""A client: one account, its calls and its messages (README, "Embedding").

`Client` is what a program uses; it joins the account, its line, its calls and its texts. On AnyIO,
so on trio or asyncio; media runs in a thread of its own and is not loaded before the first call.
"""

import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup, TaskStatus

from e2ecall.client.account import Account
from e2ecall.client.call import Call, IncomingCall
from e2ecall.client.callrules import Reachability
from e2ecall.client.calls import Calls
from e2ecall.client.contacts import Contact
from e2ecall.client.gaps import Loss
from e2ecall.client.history import History, PastCall
from e2ecall.client.home import Home
from e2ecall.client.inbox import Inbox, TextMessage
from e2ecall.client.iteration import Following
from e2ecall.client.moving import DeviceInfo, address_of, changes, exported
from e2ecall.client.people import People
from e2ecall.client.report import report_text
from e2ecall.client.services import Services, steady_seconds
from e2ecall.client.sessions import Sessions
from e2ecall.errors import E2ECallError, LocalProtocolError, RelayError
from e2ecall.io.endpoint import RelayEndpoint, tls_context
from e2ecall.io.store import Store
from e2ecall.protocol.account_export import generate_export, open_export
from e2ecall.protocol.invitation import InvitationLink
from e2ecall.protocol.messages import PayloadKind, encode_text
from e2ecall.secret import Secret
from relay.wire.codes import read_code
from relay.wire.errors import WireError
from relay.wire.messages import Done, MediaTicket, Policy, SetPolicy, Ticket, TurnCredential
from relay.wire.names import Address

if TYPE_CHECKING:
    from e2ecall.media.sinks import Sink
    from e2ecall.media.sources import AudioSource, VideoSource

MAX_INVITATION_DAYS: Final = 30


class Client:
    """An open client; made by `Client.open`. Its methods may be called from any task."""

    def __init__(
        self,
        store: Store,
        endpoint: RelayEndpoint,
        tls: ssl.SSLContext,
        clock: Callable[[], float] | None,
        tasks: TaskGroup,
    ) -> None:
        """Use `open`."""
        steady = clock or steady_seconds
        clock = clock or time.time
        account = Account(store, clock)
        sessions = Sessions(store, account, clock)
        self._services = Services(store, endpoint, tls, clock, steady, tasks, account, sessions)
        self._people = People(store, account, sessions)
        self._inbox = Inbox(store)
        self._history = History(store, sessions.contacts)
        self._calls = Calls(self._services, self._history, self._people.rules)
        self._home = Home(
            self._services,
            self._inbox,
            on_call=lambda opened, message: self._calls.take(opened, message, self._home),
            on_end=self._end_incoming,
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
        connect: bool = True,
        clock: Callable[[], float] | None = None,
    ) -> AsyncIterator[Self]:
        """Open the store at ``path``, creating it if there is none, and log in if registered.

        ``relay`` is the URL of the own relay, ``ca`` a PEM file of authorities to trust instead of
        the system's. Without ``connect`` the relay is left alone: what is stored can be read and
        managed, and nobody can be reached. ``clock`` is for tests: Unix seconds in the place of the
        system's clocks, also of the one that cannot be set, by which calls end. Leaving the block,
        also by cancellation, hangs up and releases everything.

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
                    if connect and client.is_registered:
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

    async def register(self, username: str, *, invite: str | None = None) -> None:
        """Create the account ``username`` at the own relay, or go on where an attempt broke off.

        ``invite`` is the code that a relay's operator gives to whom they invite.

        Raises:
            UsernameTakenError: somebody else has it.
            LocalProtocolError: not a username or a code, or this store has an account already.
            RelayError: the relay takes no registrations, or not with this code.
        """
        account, relay = self._services.account, self._services.endpoint.name
        confirmed = account.is_registered and str(account.local.address) == f"{username}@{relay}"
        if self._home.is_started or not confirmed:
            await account.begin_registration(username, relay, code=_read_code(invite))
        try:
            await self._home.start()
        except E2ECallError as error:
            # After a broken connection nobody knows: the next attempt uses the same keys.
            if isinstance(error, RelayError):
                await account.abandon_registration()
            raise

    async def set_policy(self, policy: Policy, *, strangers_ring: bool = True) -> None:
        """Choose who can reach this account: everyone, contacts only, or nobody.

        Without ``strangers_ring`` a first call does not ring; the caller is seen in `contacts`.
        """
        await self._home.publish_tokens()
        await self._home.line.request(SetPolicy(policy), Done)
        await self._services.account.remember_policy(policy, strangers_ring=strangers_ring)

    async def set_call_policy(
        self, *, audio: Policy | None = None, video: Policy | None = None
    ) -> None:
        """Choose whose calls ring and whose pictures are seen, of those whom the policy lets in.

        None leaves it as it is. `allow` decides about single people. The relay learns nothing
        of it, nor do callers: nobody answers them, or they are heard and not seen.
        """
        await self._people.allow_everybody(audio=audio, video=video)

    @property
    def reachability(self) -> Reachability:
        """Who can do what with this account, as it was last chosen here."""
        account, common = self._services.account, self._people.rules.common
        return Reachability(account.policy, account.first_calls_ring, common.audio, common.video)

    @property
    def is_importing(self) -> bool:
        """Whether an import was begun and the relay has not confirmed it yet."""
        return self._services.account.is_enrolling

    def devices(self) -> tuple[DeviceInfo, ...]:
        """Return the devices of this account, as its device list says.

        Raises:
            LocalProtocolError: not registered.
        """
        local = self._services.account.local
        return tuple(
            DeviceInfo(device.device_id, device.device_id == local.keys.device_id)
            for device in local.verified_list.body.devices
        )

    async def export_account(self, passphrase: str | bytes | Secret) -> bytes:
        """Return identity, contacts and policy for another device, sealed under ``passphrase``.

        Neither sessions nor texts are in it.

        Raises:
            LocalProtocolError: not registered, or the passphrase is empty.
        """
        services = self._services
        moved = exported(services.store, services.account, services.sessions)
        return await anyio.to_thread.run_sync(generate_export, moved, _as_secret(passphrase))

    async def import_account(self, data: bytes, passphrase: str | bytes | Secret) -> None:
        """Become a new device of the account in an export; the devices before lose their place.

        An attempt that broke off is taken up by another call.

        Raises:
            ExportError: no export, damaged, or another passphrase; nothing has changed.
            LocalProtocolError: this store has an account, or it belongs to another relay.
            RelayError: the relay does not know the account, or shows an old list of devices.
            ConnectionFailedError: nobody knows whether it worked: call it again.
        """
        moved = await anyio.to_thread.run_sync(open_export, data, _as_secret(passphrase))
        address, own = address_of(moved), self._services.endpoint.name
        if address.relay != own:
            raise LocalProtocolError(
                f"{address} is not an account of {own}", hint="give --relay URL of its own relay"
            )
        account = self._services.account
        await account.begin_import(moved, changes(moved))
        if not self._home.is_started:
            await self._home.start()
        await self.set_policy(account.policy, strangers_ring=account.first_calls_ring)

    async def change_passphrase(self, passphrase: str | bytes | Secret) -> None:
        """Have a new passphrase open the store; the former one does not any more.

        Raises:
            LocalProtocolError: it is empty.
            StoreError: the disk refused; nothing has changed.
        """
        await self._services.store.change_passphrase(_as_secret(passphrase))

    async def media_credential(self) -> TurnCredential:
        """Return a fresh credential for the relay's media servers, as a call gets; for diagnosis.

        Raises:
            LocalProtocolError: there is no account.
            RelayError: refused.
            ConnectionFailedError: the relay cannot be reached.
        """
        ticket = await self._home.line.request(MediaTicket(), Ticket)
        return ticket.a

    async def wait_closed(self) -> None:
        """Wait until the account's connection has ended for good, and raise why."""
        line = self._home.line
        await line.closed.wait()
        if line.failure is not None:
            raise line.failure

    # --- people -------------------------------------------------------------------------------

    def contacts(self) -> tuple[Contact, ...]:
        """Return everybody this account talked to, in the order of addresses."""
        return self._people.all()

    def fingerprint(self, peer: str | None = None) -> str:
        """Return the 60 digits of a contact's known identity, or of the own one, to compare.

        Raises:
            LocalProtocolError: this person's identity is not known yet.
        """
        return self._people.fingerprint(None if peer is None else self._parse(peer))

    def changed_fingerprint(self, peer: str) -> str | None:
        """Return the 60 digits of the other identity, where a contact's identity changed."""
        return self._people.changed_fingerprint(self._parse(peer))

    def verification_code(self, peer: str) -> str:
        """Return the text of a QR code for this contact to scan; raises as `fingerprint`."""
        return self._people.verification_code(self._parse(peer))

    async def verify(self, peer: str, shown: str) -> None:
        """Mark a contact as verified, if what they showed agrees with what is known of them.

        ``shown`` is their fingerprint as they told it, or the text of the QR code that they show.

        Raises:
            LocalProtocolError: it is neither, their code for somebody else, or they are unknown.
            VerificationFailedError: it belongs to another identity; nothing has changed.
        """
        await self._people.verify(self._parse(peer), shown)

    async def accept_identity(self, peer: str, fingerprint: str) -> None:
        """Take the other identity that was seen for this person's; it is not verified by that.

        ``fingerprint`` is what `changed_fingerprint` returned when the user decided.

        Raises:
            LocalProtocolError: no other identity was seen, or it has another fingerprint.
        """
        await self._people.accept_identity(self._parse(peer), fingerprint)

    async def invite(self, *, days: int = 7) -> str:
        """Return a link that lets one person reach this account, whatever its policy but nobody.

        Whoever uses it first becomes a contact; it is worth nothing then, or after so many days.

        Raises:
            LocalProtocolError: not 1 to 30 days, or too many invitations are open.
            ConnectionFailedError: the relay cannot be told; ask again.
        """
        if not 1 <= days <= MAX_INVITATION_DAYS:
            raise LocalProtocolError(f"an invitation lasts 1 to {MAX_INVITATION_DAYS} days")
        link = await self._services.sessions.invite(days * 86_400)
        await self._home.publish_tokens()
        return link.encode()

    async def accept_invitation(self, link: str) -> str:
        """Take an invitation up and return the address; it makes both sides each other's contacts.

        The identity in the link is pinned: another one is never talked to.

        Raises:
            LocalProtocolError: no invitation, an expired one, or one's own.
            NotReachableError: somebody else has used it, or it was withdrawn.
            IdentityChangedError: the person is known, or shown by their relay, as somebody else.
            ConnectionFailedError: their relay cannot be reached.
        """
        invitation = InvitationLink.decode(link)
        address, sessions = self._parse(str(invitation.address)), self._services.sessions
        await sessions.begin_invited(invitation)
        async with self._services.anonymous_line(address) as line:
            sealed = await sessions.seal(
                address,
                PayloadKind.INTRODUCTION,
                invitation.token,
                fetch=line.fetch_bundle,
                give_token=True,
            )
            await line.deliver(sealed, None)
        return str(address)

    async def block(self, peer: str) -> None:
        """Refuse messages and calls of this person, who does not learn of it.

        A call with them ends, as if it was hung up.

        Raises:
            ConnectionFailedError: it is stored, and the relay learns of it later.
        """
        address = self._parse(peer)
        await self._people.block(address, blocked=True)
        self._calls.end_with(address)
        if self._home.is_started:
            await self._home.publish_tokens()

    async def unblock(self, peer: str) -> None:
        """Take messages and calls of this person again."""
        await self._people.block(self._parse(peer), blocked=False)

    async def allow(
        self, peer: str, *, audio: bool | None = None, video: bool | None = None
    ) -> None:
        """Decide about one person: whether their calls ring, and whether they are seen in them.

        None: as for everybody (`set_call_policy`). A block and the policy come first.
        """
        await self._people.allow(self._parse(peer), audio=audio, video=video)

    async def report(self, peer: str, *, messages: Sequence[str] = (), note: str = "") -> str:
        """Report somebody to the abuse contact of their relay; return whose address that is.

        It learns this account's address, the person's address and identity, and of what was said
        exactly ``messages`` and ``note``.

        Raises:
            LocalProtocolError: their relay has no abuse contact, or it is one of the two.
            ConnectionFailedError: their relay cannot be reached.
        """
        address, people = self._parse(peer), self._people
        known = self._services.sessions.identity_key(address) is not None
        text = report_text(
            str(address), people.fingerprint(address) if known else None, messages, note
        )
        async with self._services.anonymous_line(address) as line:
            contact = await line.abuse_contact()
        if contact is None or contact == address.username:
            raise LocalProtocolError(
                f"nobody at {address.relay} takes reports about {address}",
                hint="block them, or ask the operator",
            )
        to = str(self._parse(f"{contact}@{address.relay}"))
        await self.message(to, text)
        return to

    async def forget(self, peer: str) -> None:
        """Drop a contact with everything known of it, as if never met.

        Raises:
            LocalProtocolError: this is no contact.
        """
        await self._people.forget(self._parse(peer))

    # --- messages -----------------------------------------------------------------------------

    async def message(self, to: str, text: str) -> None:
        """Send a text; returns when the recipient's relay has stored it.

        Raises:
            NotReachableError: no such user, or one who does not accept this.
            IdentityChangedError: the person's identity is not the known one; nothing was sent, and
                nothing will be until the user decides (`verify`, `accept_identity`).
            ConnectionFailedError: their relay cannot be reached.
        """
        address = self._parse(to)
        self._services.sessions.check_identity(address)
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

    def missing(self) -> Following[Loss]:
        """Iterate over losses.

        Messages that somebody sent and that did not come in two minutes; and how many the relay
        does not deliver any more, because this device took them in none of five tries.
        One counts as told when the next is asked for. The loop may be left at any time. It raises
        an E2ECallError when the account's connection has ended for good.
        """
        line, events = self._home.line, self._services.sessions.gaps.events()

        async def following() -> Loss:
            event = await events(line.closed)
            if event is None:
                raise line.failure or StopAsyncIteration
            return event

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
            LocalProtocolError: there is a call that is not on hold, or there are two.
            NotReachableError: no such user, or one who does not accept this.
            IdentityChangedError: the person's identity is not the known one; nothing was sent, and
                nothing will be until the user decides (`verify`, `accept_identity`).
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

    def missed(self) -> Following[PastCall]:
        """Iterate over calls that are missed from now on, also those that came while off line.

        The loop may be left at any time. It raises an E2ECallError when the account's connection
        has ended for good.
        """
        line = self._home.line

        async def following() -> PastCall:
            call = await self._history.next_missed(line.closed)
            if call is None:
                raise line.failure or StopAsyncIteration
            return call

        return Following(following)

    def let_calls_wait(self, waiting: bool = True) -> None:
        """Let a second call ring while one is connected; without this it is answered Busy.

        It comes from `incoming` like any other, with `IncomingCall.other` set: decline it, or
        accept it, which puts the other one on hold, or ends it.
        """
        self._calls.waiting_allowed = waiting

    def history(self) -> tuple[PastCall, ...]:
        """Return the past calls, the latest to end first, also those missed while off line."""
        return self._history.all()

    def last_called(self) -> str | None:
        """Return the address that was called last from here, to call it again; None: nobody's."""
        return next((past.peer for past in self.history() if past.outgoing), None)

    @property
    def keeps_history(self) -> bool:
        """Whether calls are noted."""
        return self._history.is_kept

    async def keep_history(self, kept: bool) -> None:
        """Note calls from now on; or no longer, and forget those that were.

        Raises:
            StoreError: the disk refused; nothing has changed.
        """
        await self._history.keep(kept)

    async def clear_history(self) -> None:
        """Forget all past calls; raises as `keep_history`."""
        await self._history.clear()

    def _end_incoming(self) -> None:
        self._calls.end_incoming()
        self._history.wake()

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


def _read_code(text: str | None) -> bytes | None:
    try:
        return None if text is None else read_code(text)
    except WireError as error:
        raise LocalProtocolError(str(error), hint="copy all of it") from error


def _as_secret(passphrase: str | bytes | Secret) -> Secret:
    if isinstance(passphrase, Secret):
        return passphrase
    return Secret(passphrase.encode() if isinstance(passphrase, str) else passphrase)
