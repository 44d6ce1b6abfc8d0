"""What a client does about people (README, "Embedding"): know, invite, verify and refuse them."""

from collections.abc import Sequence
from typing import Final

import anyio

from e2ecall.client.clientaccount import AccountClient
from e2ecall.client.contacts import Contact
from e2ecall.client.invited import take_up
from e2ecall.client.report import report_text
from e2ecall.errors import LocalProtocolError
from e2ecall.protocol.invitation import InvitationLink
from e2ecall.protocol.messages import PayloadKind, encode_text
from relay.wire.names import Address

MAX_INVITATION_DAYS: Final = 30


class PeopleClient(AccountClient):
    """A client with its contacts, and its texts to them."""

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

        A call with them ends: it was with the one before (CALL-21).

        ``fingerprint`` is what `changed_fingerprint` returned when the user decided.

        Raises:
            LocalProtocolError: no other identity was seen, or it has another fingerprint.
        """
        address = self._parse(peer)
        try:
            await self._people.accept_identity(address, fingerprint)
        finally:
            # CALL-21: also where nobody waits any more for what was begun.
            self._calls.end_with_former(address)

    async def invite(self, *, days: int = 7) -> str:
        """Return a link that lets one person reach this account, whatever its policy but nobody.

        Whoever uses it first becomes a contact; it is worth nothing then, or after so many days.

        Raises:
            LocalProtocolError: not 1 to 30 days, or too many invitations are open.
            ConnectionFailedError: the relay cannot be told; ask again.
        """
        if not 1 <= days <= MAX_INVITATION_DAYS:
            raise LocalProtocolError(f"an invitation lasts 1 to {MAX_INVITATION_DAYS} days")
        sessions = self._services.sessions
        link = await sessions.invite(days * 86_400)
        try:
            await self._home.publish_tokens()
        except BaseException:
            with anyio.CancelScope(shield=True):  # REACH-07: nobody gets this link
                await sessions.withdraw(link)
            raise
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
        address = self._parse(str(invitation.address))
        await take_up(self._services, invitation)
        return str(address)

    async def block(self, peer: str) -> None:
        """Refuse messages and calls of this person, who does not learn of it.

        A call with them ends, as if it was hung up.

        Raises:
            ConnectionFailedError: it is stored, and the relay learns of it later.
        """
        address = self._parse(peer)
        try:
            await self._people.block(address, blocked=True)
        finally:
            # REACH-05: also where nobody waits any more for what was begun.
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

        None: as for everybody (`set_call_policy`). A block and the policy come first. It holds at
        once (REACH-15): a call of theirs that rings and is not let in any more is declined. In one
        that was taken or placed, where their pictures are not let in any more, they are hidden and
        the own camera and screen are turned off, until they are turned on or asked for after that.
        """
        address = self._parse(peer)
        try:
            await self._people.allow(address, audio=audio, video=video)
        finally:
            # REACH-15: also where nobody waits any more for what was begun.
            await self._calls.hold_to_rules(address, pictures=video is not None)

    async def message(self, to: str, text: str) -> None:
        """Send a text; returns when the recipient's relay has stored it.

        Raises:
            NotReachableError: no such user, or one who does not accept this.
            IdentityChangedError: the person's identity is not the known one; nothing was sent, and
                nothing will be until the user decides (`verify`, `accept_identity`).
            ConnectionFailedError: their relay cannot be reached.
        """
        await self._send_text(self._parse(to), text, give_token=True)

    async def report(self, peer: str, *, messages: Sequence[str] = (), note: str = "") -> str:
        """Report somebody to the abuse contact of their relay; return whose address that is.

        It learns this account's address, the person's address and identity, and of what was said
        exactly ``messages`` and ``note``. It is no contact by that: it can answer if strangers can
        write to this account, or once it was written to.

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
        to = self._parse(f"{contact}@{address.relay}")
        # REACH-11 MUST: who reports somebody has not asked to be written to, or called.
        await self._send_text(to, text, give_token=False)
        return str(to)

    async def forget(self, peer: str) -> None:
        """Drop a contact with everything known of it, as if never met. A call with them ends first.

        Cancelled, it is done or not; a call has ended either way.

        Raises:
            LocalProtocolError: this is no contact.
        """
        address = self._parse(peer)
        self._people.check_known(address)
        try:
            # First: its last words need the session that goes, and it is a past call then.
            await self._calls.leave_no_call_with(address)
            await self._people.forget(address)
        finally:
            self._calls.end_with(address)  # one that came meanwhile

    async def _send_text(self, address: Address, text: str, *, give_token: bool) -> None:
        self._services.sessions.check_identity(address)
        async with self._services.anonymous_line(address) as line:
            sealed = await self._services.sessions.seal(
                address,
                PayloadKind.TEXT,
                encode_text(text),
                fetch=line.fetch_bundle,
                give_token=give_token,
            )
            await line.deliver(sealed, None)
