"""Which calls ring (spec/reach.md): what the policy, the user's rules and a limit on rings let in.

Holds for calls that come in and for those that ring already. What becomes of a call that is let in
is `e2ecall.client.calls`.
"""

import logging

from e2ecall.client.callrules import CallRules
from e2ecall.client.contacts import ContactRecord
from e2ecall.client.history import History, PastCall
from e2ecall.client.receiving import Opened
from e2ecall.client.rings import Rings
from e2ecall.client.services import Services
from e2ecall.errors import E2ECallError
from e2ecall.protocol.call_events import EndReason
from e2ecall.protocol.messages import Offer
from relay.wire.messages import Policy
from relay.wire.names import Address

_log = logging.getLogger(__name__)


class Admission:
    """Decides about the calls of one client."""

    def __init__(self, services: Services, history: History, rules: CallRules) -> None:
        self._services = services
        self._history = history
        self._rules = rules
        self._rings = Rings()

    def rings(self, opened: Opened, offer: Offer) -> bool:
        """Tell whether this call rings: never one of who only claims a name.

        One that does not, of somebody whose call could have rung, is noted as missed.
        """
        peer, wants_video = opened.peer, offer.wants_video
        contact = self._contact(peer)
        if not opened.proven or not self._may_ring(contact, wants_video=wants_video):
            return False
        let_in = self.lets_in(peer, wants_video=wants_video)
        now = self._services.steady()
        if let_in and self._rings.has_room(peer, stranger=contact.is_stranger, now=now):
            return True
        if let_in or not contact.is_stranger:
            self.note_missed(opened, offer, EndReason.NO_ANSWER)
        return False

    def lets_in(self, peer: Address, *, wants_video: bool) -> bool:
        """Tell whether a call of this person is let in, by what the user says now."""
        contact = self._contact(peer)
        return (
            self._may_ring(contact, wants_video=wants_video)
            and self._services.account.policy is not Policy.NOBODY  # REACH-16 MUST
            and self._rules.rings(contact, wants_video=wants_video)  # REACH-12 MUST
        )

    def shows(self, peer: Address) -> bool:
        """Tell whether this person's pictures are let in, by what the user says now."""
        return self._rules.allows(self._contact(peer), video=True)

    def rang(self, peer: Address) -> None:
        """Count a call that rings now (REACH-17)."""
        stranger = self._contact(peer).is_stranger
        self._rings.rang(peer, stranger=stranger, now=self._services.steady())

    def taken(self, peer: Address) -> None:
        """Forget what was counted: the user took a call of this person."""
        self._rings.taken(peer)

    def note_missed(self, opened: Opened, offer: Offer, reason: EndReason) -> None:
        """Note a call that could not ring (HISTORY-03)."""
        began = min(opened.payload.sent_at_ms / 1000, self._services.clock())
        past = PastCall(str(opened.peer), False, began, 0.0, reason, offer.wants_video)
        self._services.tasks.start_soon(self._note, past)

    def _may_ring(self, contact: ContactRecord, *, wants_video: bool) -> bool:
        """REACH-06: tell whether this is a contact, or a stranger whose first call may ring.

        A rule for a stranger lets the first call ring; it does not come before the policy.
        """
        if not contact.is_stranger:
            return not contact.blocked
        account = self._services.account
        return account.policy is Policy.EVERYONE and (
            account.first_calls_ring or self._rules.is_welcome(contact, wants_video=wants_video)
        )

    def _contact(self, peer: Address) -> ContactRecord:
        return self._services.sessions.contacts.get(peer)

    async def _note(self, past: PastCall) -> None:
        try:
            await self._history.note(past)
        except E2ECallError as error:
            _log.warning("a missed call could not be noted: %s", type(error).__name__)
