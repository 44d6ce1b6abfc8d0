"""What the relay asks of a storage backend (spec/wire.md, Storage): two interfaces.

A call that returned is durable, and each is one transaction. Backends apply the rules of
`relay.services`; they make none. `relay.io.sqlite` is the default backend.

All methods raise `StorageError` where the backend fails, and `RefusedError` where named.
Cancelling a call leaves open whether it took effect.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from relay.services.directory import Account
from relay.services.mailbox import BoxMailbox, Mail, MailboxName, Stored
from relay.wire.messages import Policy, PrekeyCounts
from relay.wire.records import PreKey, PreKeyBundle


class Directory(Protocol):
    """Accounts and their public keys."""

    async def create(self, account: Account) -> None:
        """Store a new account; the very same one again is no error.

        Raises:
            RefusedError: USERNAME_TAKEN, also for the name of a deleted account.
        """

    async def account(self, username: str) -> Account | None:
        """Return an account."""

    async def replace_device_list(self, account: Account) -> None:
        """Store an account's newer device list; devices that it lacks lose prekeys and mail.

        Raises:
            RefusedError: STALE, another version became current in the meantime.
        """

    async def set_policy(self, username: str, policy: Policy) -> None:
        """Choose who can reach an account."""

    async def put_tokens(self, username: str, hashes: Sequence[bytes]) -> None:
        """Replace the delivery-token hashes of an account."""

    async def add_prekeys(self, username: str, device_id: int, prekeys: Sequence[PreKey]) -> None:
        """Add one-time prekeys and replace the others.

        A one-time key id that was stored before, handed out or not, is left as it is.

        Raises:
            RefusedError: TOO_MANY for one device.
        """

    async def count_prekeys(self, username: str, device_id: int, now: float) -> PrekeyCounts:
        """Return how many one-time prekeys could still be handed out."""

    async def take_bundle(
        self, username: str, device_id: int | None, shown: bytes | None, now: float
    ) -> PreKeyBundle | None:
        """Hand out a bundle; its one-time prekeys are never handed out again.

        ``shown`` is the hash of the delivery token. None says that there is no such account or
        device, that it does not accept this, or that it published no keys: it never says which.
        """

    async def delete(self, username: str) -> None:
        """Remove an account with all that belongs to it, and retire its name."""


class Mailbox(Protocol):
    """Envelopes on their way."""

    async def open_box(self, box: BoxMailbox, now: float) -> None:
        """Create a reply box, or keep it alive.

        Raises:
            RefusedError: TOO_MANY boxes exist.
        """

    async def put(
        self,
        mailbox: MailboxName,
        message_id: bytes,
        envelope: bytes,
        shown: bytes | None,
        now: float,
    ) -> Stored:
        """Store an envelope once per message id, if the mailbox exists and admits ``shown``."""

    async def read(self, mailbox: MailboxName, after: int, limit: int, now: float) -> list[Mail]:
        """Return the oldest envelopes after row ``after``."""

    async def remove(self, places: Iterable[tuple[MailboxName, int]], now: float) -> None:
        """Forget acknowledged envelopes, but not yet their message ids."""

    async def sweep(self, now: float, in_use: Iterable[BoxMailbox]) -> None:
        """Forget what is out of date; boxes ``in_use`` are not."""
