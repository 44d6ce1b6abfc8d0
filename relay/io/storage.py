"""What the relay asks of a storage backend (spec/wire.md, Storage): five interfaces.

A call that returned is durable, and each is one transaction. Backends apply the rules of
`relay.services`; they make none. `relay.io.sqlite` is the default backend and serves one node,
`relay.io.postgres` serves many.

All methods raise `StorageError` where the backend fails, and `RefusedError` where named.
Cancelling a call leaves open whether it took effect.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from relay.services.delivery import Claim
from relay.services.directory import Account, CodeUse, HandedOut
from relay.services.mailbox import (
    BoxMailbox,
    DeviceMailbox,
    Letter,
    Mail,
    MailboxName,
    Stored,
)
from relay.services.quota import Rate
from relay.services.volume import Usage
from relay.wire.messages import Invitation, Policy, PrekeyCounts
from relay.wire.records import PreKey


@dataclass(frozen=True, slots=True)
class Totals:
    """What a relay holds, in numbers; ``retired`` are names of deleted accounts."""

    accounts: int
    devices: int
    retired: int
    one_time_prekeys: int
    mailboxes: int
    boxes: int
    envelopes: int
    envelope_bytes: int
    set_aside: int


class Directory(Protocol):
    """Accounts and their public keys."""

    async def create(self, account: Account, code: CodeUse | None = None) -> None:
        """Store a new account, using up a registration code if one is asked for.

        The very same account again is no error, and needs no code.

        Raises:
            RefusedError: USERNAME_TAKEN, also for the name of a deleted account;
                REGISTRATION_CLOSED, the code is not good (any more).
        """

    async def add_codes(self, hashes: Sequence[bytes], expires: int) -> None:
        """Store the hashes of new registration codes, good for one account each."""

    async def account(self, username: str) -> Account | None:
        """Return an account."""

    async def policy(self, username: str) -> Policy | None:
        """Return whom an account accepts; None where there is no such account."""

    async def replace_device_list(self, account: Account) -> None:
        """Store an account's newer device list; devices that it lacks lose prekeys and mail.

        Raises:
            RefusedError: STALE, another version became current in the meantime.
        """

    async def set_policy(self, username: str, policy: Policy) -> None:
        """Choose who can reach an account."""

    async def put_tokens(self, username: str, hashes: Sequence[bytes]) -> None:
        """Replace the delivery-token hashes of an account."""

    async def put_invitations(self, username: str, invitations: Sequence[Invitation]) -> None:
        """Replace the open invitations of an account."""

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
    ) -> HandedOut | None:
        """Hand out a bundle; its one-time prekeys are never handed out again.

        ``shown`` is the hash of the delivery token. None says that there is no such account or
        device, that it does not accept this, or that it published no keys: it never says which.
        """

    async def delete(self, username: str) -> None:
        """Remove an account with all that belongs to it, and retire its name."""

    async def totals(self) -> Totals:
        """Return how much there is of everything."""

    async def usage(self) -> Usage:
        """Return how many bytes the store holds, more or less: expired or deleted ones not."""


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
        letters: Sequence[Letter],
        shown: bytes | None,
        now: float,
        *,
        takes_strangers: bool = True,
    ) -> list[Stored]:
        """Store envelopes in their order, if the mailbox exists and admits ``shown``.

        Each is stored once per message id; what became of each is returned.

        Without ``takes_strangers`` what shows no good token is refused as if the mailbox had no
        room for it (WIRE-57); reply boxes need none.
        """

    async def read(self, claim: Claim, after: int, limit: int, now: float) -> list[Mail]:
        """Return the oldest envelopes after row ``after``.

        Reading from the very beginning counts as a try of the first of them; after `MAX_TRIES` it
        is set aside (WIRE-37).

        Raises:
            FencedError: the claim no longer holds (STORAGE-05).
        """

    def take_only(self, claim: Claim, after: int) -> Mail | None:
        """Return the only envelope after row ``after``, if it is in memory and the claim holds.

        It is in memory no more then. None says nothing: whoever wants to know reads. Never waits.
        """

    async def count_set_aside(self, mailbox: MailboxName | None = None) -> int:
        """Return how many envelopes are set aside, of one mailbox or in all (WIRE-38)."""

    async def untry(self, places: Iterable[tuple[MailboxName, int]]) -> None:
        """Take a try back: these envelopes did not arrive where they were sent (WIRE-37)."""

    async def remove(self, places: Iterable[tuple[MailboxName, int]], now: float) -> None:
        """Forget acknowledged envelopes, but not yet their message ids."""

    async def keep(self, now: float, in_use: Iterable[BoxMailbox]) -> None:
        """Note that these boxes are ``in_use``."""

    async def sweep(self, now: float) -> None:
        """Forget what is out of date."""


class Presence(Protocol):
    """Who reads which mailbox, over all nodes."""

    async def claim(self, mailbox: MailboxName) -> Claim:
        """Become the one reader of a mailbox; whoever was, on any node, is told that it lost it."""

    async def release(self, claims: Iterable[Claim]) -> None:
        """Give claims back. Those that no longer hold are left alone."""

    async def evict(self, mailbox: MailboxName) -> None:
        """End every claim on a mailbox that is gone; its reader is told that it lost it."""


class Bus(Protocol):
    """What nodes tell one another. A message may be lost: it saves time and decides nothing."""

    def hint(self, mailbox: MailboxName) -> None:
        """Tell the reader of a mailbox, on whatever node, that mail came. Never waits."""

    def low(self, mailbox: DeviceMailbox) -> None:
        """Tell a device, on whatever node, that its one-time prekeys run out. Never waits."""


class Limiter(Protocol):
    """One rate, counted over all nodes."""

    async def take(self, key: str, now: float) -> None:
        """Count one use.

        Raises:
            RefusedError: TOO_MANY, with the seconds after which one more is free.
        """

    def forget(self, now: float) -> None:
        """Drop whatever this process remembers and does not need any more (WIRE-62)."""


class Storage(Protocol):
    """A backend that is open."""

    @property
    def directory(self) -> Directory:
        """Return the accounts."""

    @property
    def mailbox(self) -> Mailbox:
        """Return the envelopes."""

    @property
    def presence(self) -> Presence:
        """Return who reads what."""

    @property
    def bus(self) -> Bus:
        """Return the way to other nodes."""

    def limiter(self, name: str, rate: Rate) -> Limiter:
        """Return the limiter of this name; nodes that use the same name share it."""

    async def probe(self) -> None:
        """Return if the backend can store something now."""
