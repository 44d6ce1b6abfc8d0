"""From older formats of the store to the newest (spec/store.md, "Formats").

Each step turns all records of one format into those of the next. It names layouts by their places
and uses no types of the program: those are of today, and a step has to stay what it was.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from e2ecall.io.records import RecordKind, Records
from relay.wire.codec import decode, encode

OLDEST: Final = 1
FORMAT: Final = 3
"""Version of the file; a newer one is refused, never guessed at."""

_MAX_CONTACT: Final = 4_096
_MAX_PEER: Final = 1 << 20
_MAX_ENTRIES: Final = 4_096


def migrated(records: Records, version: int) -> Records:
    """Return the records of a store of format ``version`` as format `FORMAT` has them.

    Raises:
        WireError: a record is not of the format that the file says.
    """
    for step in range(version, FORMAT):
        records = _STEPS[step](records)
    return records


def _contacts_know_more(records: Records) -> Records:
    """1 to 2: contacts have the other identity seen, a block, a last look, and a pin."""
    changed = dict(records)
    for (kind, key), value in records.items():
        if kind is RecordKind.CONTACT:
            _, *fields = decode(value, list[Any], limit=_MAX_CONTACT)
            # Which other identity a relay vouched for was not kept; nobody was blocked.
            changed[kind, key] = encode([2, *fields, None, False, 0, None])
    return changed


def _sessions_are_alike(records: Records) -> Records:
    """2 to 3: sessions have no marks; contacts have the time of the message with their token."""
    changed = dict(records)
    for (kind, key), value in records.items():
        if kind is RecordKind.CONTACT:
            _, *fields = decode(value, list[Any], limit=_MAX_CONTACT)
            changed[kind, key] = encode([3, *fields, 0])
        elif kind in {RecordKind.PEER, RecordKind.REQUEST}:
            peer = decode(value, list[Any], limit=_MAX_PEER, max_array=_MAX_ENTRIES)
            _, *fields, sessions, heard = peer
            sessions = [[*session[:3], *session[4:]] for session in sessions]
            changed[kind, key] = encode([2, *fields, sessions, heard], max_array=_MAX_ENTRIES)
    return changed


_STEPS: Final[Mapping[int, Callable[[Records], Records]]] = {
    1: _contacts_know_more,
    2: _sessions_are_alike,
}
