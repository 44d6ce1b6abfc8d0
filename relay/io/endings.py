"""How the relay ends a connection (spec/wire.md, Connections; RFC 6455 section 7.4)."""

from dataclasses import dataclass
from enum import IntEnum, unique

from relay.wire.messages import Push


@unique
class Code(IntEnum):
    """What WebSocket's close frame says of the reason."""

    NORMAL = 1000
    LEAVING = 1001
    UNSUPPORTED = 1003
    VIOLATION = 1008
    INTERNAL = 1011
    TRY_LATER = 1013
    DISPLACED = 4001


@dataclass(frozen=True, slots=True)
class Ending:
    """How one connection is ended: WebSocket close code, short reason, last push."""

    code: Code
    reason: str
    push: Push | None = None
