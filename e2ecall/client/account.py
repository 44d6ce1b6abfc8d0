"""The account at its own relay (spec/identity.md, spec/prekeys.md): register, log in, keep fresh.

Keeps the device list, the sender certificate, the prekeys and the delivery tokens at the relay as
they have to be. Sessions with peers are `e2ecall.client.sessions`.
"""

import time
from collections.abc import Callable
from typing import Final

import anyio

from e2ecall.client.callrules import CommonRules
from e2ecall.client.enrolment import Ask, Enrolment, enrol
from e2ecall.client.stored import Stored
from e2ecall.errors import LocalProtocolError, RelayError, UsernameTakenError
from e2ecall.io.connection import RelayConnection
from e2ecall.io.store import Change, RecordKind, Store
from e2ecall.protocol import prekeys
from e2ecall.protocol.account_export import ExportedAccount
from e2ecall.protocol.encoding import decode_stored, encode_stored
from e2ecall.protocol.identity import sign_login, sign_register
from e2ecall.protocol.local import LocalDevice
from e2ecall.protocol.prekeys import PreKeyState
from e2ecall.protocol.prekeystore import prekeys_from_bytes, prekeys_to_bytes
from relay.wire.errors import WireError
from relay.wire.messages import (
    Certificate,
    Done,
    FetchCertificate,
    Hello,
    Login,
    Policy,
    PrekeyCounts,
    PrekeyStatus,
    PublishPrekeys,
    Register,
    UpdateDeviceList,
)
from relay.wire.names import Address
from relay.wire.records import PreKey

CERTIFICATE_RENEWAL: Final = 12 * 3600
"""Seconds of life left below which a sender certificate is replaced; it has 24 hours."""

_PENDING: Final = b"pending"
_UNPUBLISHED: Final = b"unpublished"
_ENROLLING: Final = b"enrolling"
_POLICY: Final = b"policy"
_STRANGERS_WAIT: Final = b"strangers wait"


class Account:
    """The local device and its prekeys, as stored, and what its relay has to know of them."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self.lock = anyio.Lock()
        """Held by whoever changes what depends on the record before: the device, the prekeys,
        sessions and contacts. Nobody waits for a relay while holding it."""
        self._devices = Stored(store, RecordKind.ACCOUNT, LocalDevice.from_bytes)
        self._prekeys = Stored(store, RecordKind.PREKEYS, prekeys_from_bytes)
        self._enrolments = Stored(store, RecordKind.ACCOUNT, Enrolment.from_bytes)
        self._pending = False
        self._code: bytes | None = None
        self._enrolling = False
        self._certificate_expires = 0.0
        # Read once, so that a store of another format is refused when it is opened.
        self._devices.get()
        self._prekeys.get()

    @property
    def is_registered(self) -> bool:
        """Whether the relay has confirmed the account."""
        return self._devices.get() is not None

    @property
    def is_enrolling(self) -> bool:
        """Whether an import was begun and not confirmed."""
        return self._enrolments.get(_ENROLLING) is not None

    @property
    def local(self) -> LocalDevice:
        """The device.

        Raises:
            LocalProtocolError: there is no account yet.
        """
        local = self._devices.get()
        if local is None and self._pending:
            local = self._devices.get(_PENDING)
        if local is None:
            raise LocalProtocolError(
                "this store has no account yet", hint="register a username first"
            )
        return local

    @property
    def address(self) -> Address:
        """The address, also of an account that is being imported; raises as `local`."""
        enrolment = self._enrolments.get(_ENROLLING)
        return enrolment.at if self._enrolling and enrolment is not None else self.local.address

    @property
    def policy(self) -> Policy:
        """Who can reach this account, as it was last chosen here."""
        stored = self._store.get(RecordKind.ACCOUNT, _POLICY)
        return Policy.EVERYONE if stored is None else decode_stored(stored, Policy)

    @property
    def prekeys(self) -> PreKeyState:
        """The private prekeys; raises as `local` does."""
        state = self._prekeys.get()
        if state is None:
            raise LocalProtocolError("this store has no account yet")
        return state

    async def begin_registration(
        self, username: str, relay: str, *, code: bytes | None = None
    ) -> None:
        """Make the keys of a new account and store them, before any relay hears of them.

        An attempt whose answer was lost is taken up again with the same keys. ``code`` is for a
        relay that registers by invitation.

        Raises:
            LocalProtocolError: there is an account already, or it is not a username.
        """
        if self.is_registered:
            raise LocalProtocolError(f"this store belongs to {self.local.address} already")
        try:
            address = Address.parse(f"{username}@{relay}")
        except WireError as error:
            raise LocalProtocolError(f"{username!r} is not a username: {error}") from error
        local = self._devices.get(_PENDING)
        if local is None or local.address != address:
            local = LocalDevice.generate(address, now=self._clock())
            await self._store.write([Change(RecordKind.ACCOUNT, _PENDING, local.to_bytes())])
        self._pending, self._enrolling, self._code = True, False, code

    @property
    def first_calls_ring(self) -> bool:
        """Whether first calls are to ring under a policy that lets them through."""
        return self._store.get(RecordKind.ACCOUNT, _STRANGERS_WAIT) is None

    @property
    def strangers_ring(self) -> bool:
        """REACH-06: whether a first call rings; else it waits as a request."""
        return self.policy is Policy.EVERYONE and self.first_calls_ring

    async def remember_policy(self, policy: Policy, *, strangers_ring: bool = True) -> None:
        """Store what the relay was told, and whether strangers ring."""
        await self._store.write(_policy(policy, strangers_ring=strangers_ring))

    async def begin_import(self, moved: ExportedAccount, with_it: list[Change]) -> None:
        """Store an imported identity and the keys of a new device, before the relay hears of it.

        An attempt whose answer was lost is taken up again with the same keys, also with a later
        export of this identity; contacts are those of the export that was given last.

        Raises:
            LocalProtocolError: there is an account already.
        """
        if self.is_registered:
            raise LocalProtocolError(
                f"this store belongs to {self.local.address} already",
                hint="import into a new store, with --store FILE",
            )
        known = self._enrolments.get(_ENROLLING)
        if known is None or known.identity_seed != moved.identity_seed:
            enrolment = Enrolment.generate(moved)
        else:
            enrolment = known.updated(moved)
        await self._store.write(
            [
                # What another export brought is nobody's here, or stands in this one as well.
                *self._imported(),
                *with_it,
                Change(RecordKind.ACCOUNT, _ENROLLING, enrolment.to_bytes()),
                *_policy(moved.policy, strangers_ring=moved.strangers_ring),
            ]
        )
        self._pending, self._enrolling = False, True

    def _imported(self) -> list[Change]:
        """Return what drops everything of people that an export brought: there is nobody else."""
        kinds = (RecordKind.CONTACT, RecordKind.REACH, RecordKind.CALL_RULE)
        return [Change(kind, key, None) for kind in kinds for key in self._store.all(kind)]

    async def abandon_registration(self) -> None:
        """Forget the keys for a name that is somebody else's."""
        if self._pending:
            await self._store.write([Change(RecordKind.ACCOUNT, _PENDING, None)])
            self._pending = False

    async def prepare(self, connection: RelayConnection) -> None:
        """Register or log in on a fresh connection and bring the relay up to date.

        Raises:
            RelayError: refused; UsernameTakenError when the name is somebody else's.
            ConnectionFailedError: the connection broke.
        """
        if self._pending:
            await self._register(connection)
        elif self._enrolling:
            await self._enrol(connection)
        else:
            await self._log_in(connection)
        await self.maintain(connection.request)

    async def maintain(self, ask: Ask) -> None:
        """Renew device list, certificate and prekeys where due; raises as `prepare`.

        It may run twice at a time: each step reads, changes and stores under the lock.
        """
        async with self.lock:
            if self.local.needs_renewal(self._clock()):
                await self._save(self.local.renewed(self._clock()))
        await self._tell_list(ask)
        # A clock that was set back must not keep one that has expired by then.
        left = self._certificate_expires - self._clock()
        if not CERTIFICATE_RENEWAL <= left <= 2 * CERTIFICATE_RENEWAL:
            reply = await ask(FetchCertificate(), Certificate)
            async with self.lock:
                await self._save(self.local.with_certificate(reply.certificate))
            self._certificate_expires = self._clock() + 2 * CERTIFICATE_RENEWAL
        await self._publish(ask)
        before = self.prekeys.next_key_id
        counts = await ask(PrekeyStatus(), PrekeyCounts)
        async with self.lock:
            # PREKEYS-11: nothing is drawn on top of what the relay did not take yet, or does not
            # count yet because it was drawn meanwhile.
            if not self._unpublished() and self.prekeys.next_key_id == before:
                await self._refresh_prekeys(counts)
        await self._publish(ask)

    async def _tell_list(self, ask: Ask) -> None:
        """Publish the device list, each time: a renewal may be stored here and be lost on its way.

        IDENTITY-19: what was signed while the clock was ahead is refused, and signed anew.
        """
        try:
            await ask(UpdateDeviceList(self.local.device_list), Done)
        except RelayError as error:
            if error.retry_after or not self.local.is_ahead(self._clock()):
                raise
            async with self.lock:
                await self._save(self.local.renewed(self._clock()))
            await ask(UpdateDeviceList(self.local.device_list), Done)

    async def forget_expired(self) -> None:
        """PREKEYS-12: rotate and forget prekeys, whatever the relay answers or does not.

        What is drawn is published by the next `maintain`.
        """
        async with self.lock:
            if self._unpublished():  # PREKEYS-11: nothing is drawn on top of it
                await self.save_prekeys(prekeys.without_expired(self.prekeys, now=self._clock()))
            else:
                await self._refresh_prekeys(None)

    async def save_prekeys(self, state: PreKeyState, *with_it: Change) -> None:
        """Store the private prekeys, together with other changes or not at all.

        The lock is held by the caller, since it read the state.
        """
        changes = list(with_it)
        if state != self._prekeys.get():
            changes.append(Change(RecordKind.PREKEYS, b"", prekeys_to_bytes(state)))
        if changes:
            await self._store.write(changes)

    async def _refresh_prekeys(self, counts: PrekeyCounts | None) -> None:
        before = self.prekeys
        state, fresh = prekeys.maintain(before, self.local, counts, now=self._clock())
        if fresh:
            await self.save_prekeys(state, self._to_publish(fresh))
        elif state != before:
            await self.save_prekeys(state)

    async def _register(self, connection: RelayConnection) -> None:
        now, is_ours = self._clock(), False
        if self.local.is_expired(now) or self.local.is_ahead(now):
            # IDENTITY-18: of an attempt long ago; the relay refuses the list, whosever the name is.
            is_ours = await self._is_ours(connection)
            if not is_ours:
                anew = self.local.begun_anew(now)
                await self._store.write([Change(RecordKind.ACCOUNT, _PENDING, anew.to_bytes())])
        if not is_ours:
            await self._ask_for_name(connection)
        await self._begin(self.local, *self._given_up())
        self._pending = False
        await self._publish(connection.request)

    async def _ask_for_name(self, connection: RelayConnection) -> None:
        local = self.local
        signature = sign_register(
            local.identity,
            relay=local.address.relay,
            challenge=connection.challenge,
            device_list=local.device_list,
        )
        request = Register(local.address.username, local.device_list, signature, self._code)
        try:
            await connection.request(request, Done)
        except UsernameTakenError as taken:
            # It may be ours: an earlier attempt whose answer never arrived.
            if not await self._is_ours(connection):
                raise taken from None

    async def _is_ours(self, connection: RelayConnection) -> bool:
        """Log in, and return whether the name is this device's; raises while nobody has said."""
        try:
            await self._log_in(connection)
        except RelayError as error:
            if error.retry_after:
                raise  # IDENTITY-18: it has not said yet whose it is
            return False
        return True

    async def _enrol(self, connection: RelayConnection) -> None:
        enrolment = self._enrolments.get(_ENROLLING)
        assert enrolment is not None
        local = await enrol(
            enrolment,
            connection.request,
            challenge=connection.challenge,
            now=self._clock(),
        )
        await self._begin(local)
        self._enrolling = False
        await self._publish(connection.request)

    def _given_up(self) -> list[Change]:
        """ACCOUNT-05: return what drops the people and policy of an import that was given up."""
        if not self.is_enrolling:
            return []
        policy = [Change(RecordKind.ACCOUNT, key, None) for key in (_POLICY, _STRANGERS_WAIT)]
        return [*self._imported(), *policy, CommonRules().change()]

    async def _begin(self, local: LocalDevice, *with_it: Change) -> None:
        """Store the device that the relay has confirmed, with its first prekeys.

        Keys of another attempt, at another name or by an import, go: they have no account.
        """
        async with self.lock:
            state, fresh = prekeys.generate(local, now=self._clock())
            await self.save_prekeys(
                state,
                self._to_publish(fresh),
                *with_it,
                Change(RecordKind.ACCOUNT, b"", local.to_bytes()),
                Change(RecordKind.ACCOUNT, _PENDING, None),
                Change(RecordKind.ACCOUNT, _ENROLLING, None),
            )

    def _to_publish(self, fresh: tuple[PreKey, ...]) -> Change:
        """Keep what is to be published until the relay has confirmed it."""
        batches = [encode_stored(batch) for batch in prekeys.batches(fresh)]
        return Change(RecordKind.PREKEYS, _UNPUBLISHED, encode_stored(batches))

    def _unpublished(self) -> tuple[bytes, ...]:
        waiting = self._store.get(RecordKind.PREKEYS, _UNPUBLISHED)
        return decode_stored(waiting, tuple[bytes, ...]) if waiting else ()

    async def _publish(self, ask: Ask) -> None:
        """Publish what waits; what expired while it waited would be refused with all the rest.

        PREKEYS-13: what is refused because it was made while the clock was ahead is given up.
        """
        for stored in self._unpublished():
            batch = decode_stored(stored, tuple[PreKey, ...])
            fresh = tuple(prekey for prekey in batch if prekey.expires > self._clock())
            try:
                if fresh:
                    await ask(PublishPrekeys(fresh), Done)
            except RelayError as error:
                if error.retry_after or not prekeys.are_ahead(fresh, now=self._clock()):
                    raise
            async with self.lock:
                left = [other for other in self._unpublished() if other != stored]
                record = encode_stored(left) if left else None
                await self._store.write([Change(RecordKind.PREKEYS, _UNPUBLISHED, record)])

    async def _log_in(self, connection: RelayConnection) -> None:
        local = self.local
        signature = sign_login(
            local.keys,
            relay=local.address.relay,
            challenge=connection.challenge,
            username=local.address.username,
        )
        request = Login(local.address.username, local.keys.device_id, signature)
        await connection.request(request, Done)

    async def _save(self, local: LocalDevice) -> None:
        await self._store.write([Change(RecordKind.ACCOUNT, b"", local.to_bytes())])


def _policy(policy: Policy, *, strangers_ring: bool) -> list[Change]:
    waits = None if strangers_ring else encode_stored(True)
    return [
        Change(RecordKind.ACCOUNT, _POLICY, encode_stored(policy)),
        Change(RecordKind.ACCOUNT, _STRANGERS_WAIT, waits),
    ]


def check_relay_name(hello: Hello, name: str) -> None:
    """Refuse a relay that goes by another name than the one that was dialled.

    Raises:
        RelayError: addresses made there would lead elsewhere.
    """
    if hello.relay != name:
        raise RelayError(
            f"the relay calls itself {hello.relay!r}, but was dialled as {name!r}",
            hint="use its own name, or ask its operator",
        )
