"""What a client does with its account (README, "Embedding"): create, move and open it to others."""

import anyio.to_thread

from e2ecall.client.callrules import Reachability
from e2ecall.client.clientopening import OpenClient, as_secret
from e2ecall.client.moving import DeviceInfo, address_of, changes, exported
from e2ecall.errors import LocalProtocolError, UsernameTakenError
from e2ecall.protocol.account_export import generate_export, open_export
from e2ecall.secret import Secret
from relay.wire.codes import read_code
from relay.wire.errors import WireError
from relay.wire.messages import Done, MediaTicket, Policy, SetPolicy, Ticket, TurnCredential


class AccountClient(OpenClient):
    """A client with what concerns its account."""

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
        except UsernameTakenError:
            # IDENTITY-18: after any other failure the next attempt uses the same keys.
            await account.abandon_registration()
            raise

    async def set_policy(self, policy: Policy, *, strangers_ring: bool = True) -> None:
        """Choose who can reach this account: everyone, contacts only, or nobody.

        Without ``strangers_ring`` a first call does not ring; the caller is seen in `contacts`. A
        call that rings and is not let in any more is declined.
        """
        if policy is not Policy.NOBODY:  # which no token is good for, and nothing is to delay
            await self._home.publish_tokens()
        await self._home.line.request(SetPolicy(policy), Done)
        try:
            await self._services.account.remember_policy(policy, strangers_ring=strangers_ring)
        finally:
            await self._calls.hold_to_rules()  # REACH-15: also where nobody waits any more

    async def set_call_policy(
        self, *, audio: Policy | None = None, video: Policy | None = None
    ) -> None:
        """Choose whose calls ring and whose pictures are seen, of those whom the policy lets in.

        None leaves it as it is. `allow` decides about single people. The relay learns nothing
        of it, nor do callers: nobody answers them, or they are heard and not seen. A call with
        pictures rings where sound or pictures are let in. It holds in a call that goes on as
        `allow` does.
        """
        try:
            await self._people.allow_everybody(audio=audio, video=video)
        finally:
            await self._calls.hold_to_rules(pictures=video is not None)  # REACH-15, as above

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
        return await anyio.to_thread.run_sync(generate_export, moved, as_secret(passphrase))

    async def import_account(self, data: bytes, passphrase: str | bytes | Secret) -> None:
        """Become a new device of the account in an export; the devices before lose their place.

        An attempt that broke off is taken up by another call.

        Raises:
            ExportError: no export, damaged, or another passphrase; nothing has changed.
            LocalProtocolError: this store has an account, or it belongs to another relay.
            RelayError: the relay does not know the account, or shows an old list of devices.
            ConnectionFailedError: nobody knows whether it worked: call it again.
        """
        moved = await anyio.to_thread.run_sync(open_export, data, as_secret(passphrase))
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
        await self._services.store.change_passphrase(as_secret(passphrase))

    async def media_credential(self) -> TurnCredential:
        """Return a fresh credential for the relay's media servers, as a call gets; for diagnosis.

        Raises:
            LocalProtocolError: there is no account.
            RelayError: refused.
            ConnectionFailedError: the relay cannot be reached.
        """
        ticket = await self._home.line.request(MediaTicket(), Ticket)
        return ticket.a


def _read_code(text: str | None) -> bytes | None:
    try:
        return None if text is None else read_code(text)
    except WireError as error:
        raise LocalProtocolError(str(error), hint="copy all of it") from error
