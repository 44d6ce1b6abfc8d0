"""Whose calls ring, and whose pictures are seen (spec/reach.md, "Calls"): the user's rules.

The relay cannot see who calls, nor whether with pictures, so it knows nothing of them. What comes
of an answer is `e2ecall.client.calls`.
"""

from dataclasses import dataclass
from typing import Annotated, Final

from msgspec import Meta, Struct

from e2ecall.client.contacts import ContactRecord
from e2ecall.client.stored import Stored
from e2ecall.io.store import Change, RecordKind, Store
from e2ecall.protocol.encoding import decode_stored, encode_stored
from relay.wire.messages import Policy
from relay.wire.names import Address

_FORMAT: Final = 1
_EVERYBODY: Final = b"calls"

Format = Annotated[int, Meta(ge=_FORMAT, le=_FORMAT)]


@dataclass(frozen=True, slots=True)
class Reachability:
    """Who can do what with an account.

    ``policy`` is what the relay lets through; of that, ``audio`` is whose calls ring, ``video``
    whose pictures are seen, and ``strangers_ring`` whether first calls ring at all.
    """

    policy: Policy
    strangers_ring: bool
    audio: Policy
    video: Policy


class CallRule(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``[1, audio, video]`` for one contact: let in or not; None: as for everybody."""

    format: Format = _FORMAT
    audio: bool | None = None
    video: bool | None = None

    def change(self, address: Address) -> Change:
        """Return the change that stores this rule, or drops one that says nothing."""
        said = None if self == CallRule() else encode_stored(self)
        return Change(RecordKind.CALL_RULE, str(address).encode(), said)


class CommonRules(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``[1, audio, video]`` for everybody who has no rule of their own."""

    format: Format = _FORMAT
    audio: Policy = Policy.EVERYONE
    video: Policy = Policy.EVERYONE

    def change(self) -> Change:
        """Return the change that stores these rules."""
        return Change(RecordKind.ACCOUNT, _EVERYBODY, encode_stored(self))


class CallRules:
    """The rules in a store."""

    def __init__(self, store: Store) -> None:
        self._common = Stored(store, RecordKind.ACCOUNT, _decode_common)
        self._rules = Stored(store, RecordKind.CALL_RULE, _decode)

    @property
    def common(self) -> CommonRules:
        """What holds for everybody who has no rule of their own."""
        return self._common.get(_EVERYBODY) or CommonRules()

    def of(self, address: Address) -> CallRule:
        """Return the rule for one person."""
        return self._rules.get(str(address).encode()) or CallRule()

    def all(self) -> dict[str, CallRule]:
        """Return the rules for single people by their addresses."""
        return {address.decode(): rule for address, rule in self._rules.all().items()}

    def allows(self, contact: ContactRecord, *, video: bool) -> bool:
        """Tell whether calls of this person ring, or with ``video`` whether pictures are seen."""
        own, common = self.of(Address.parse(contact.address)), self.common
        said = own.video if video else own.audio
        if said is not None:
            return said
        policy = common.video if video else common.audio
        return policy is Policy.EVERYONE or (policy is Policy.CONTACTS and not contact.is_stranger)

    def rings(self, contact: ContactRecord, *, wants_video: bool) -> bool:
        """REACH-12: tell whether a call rings; one with pictures can ring as one without."""
        return self.allows(contact, video=False) or (
            wants_video and self.allows(contact, video=True)
        )

    def is_welcome(self, contact: ContactRecord, *, wants_video: bool) -> bool:
        """Tell whether the user let just this person's calls ring, whoever it is."""
        rule = self.of(Address.parse(contact.address))
        return bool(rule.audio) or (wants_video and bool(rule.video))


def _decode(record: bytes) -> CallRule:
    return decode_stored(record, CallRule)


def _decode_common(record: bytes) -> CommonRules:
    return decode_stored(record, CommonRules)
