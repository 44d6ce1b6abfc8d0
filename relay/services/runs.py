"""Which requests of a connection are carried out as one (spec/wire.md WIRE-61).

Whoever has several envelopes for somebody, or several to acknowledge, sends them without waiting.
They share a look-up, a transaction and a write. It carries nothing out.
"""

from collections.abc import Sequence
from typing import Final

from relay.wire.messages import Ack, ClientFrame, Send

MAX_RUN: Final = 16
"""Requests in one run, which bounds how long the first of them waits for the last."""


def goes_on(run: Sequence[ClientFrame], frame: ClientFrame) -> bool:
    """Tell whether ``frame`` is carried out as one with those before it."""
    before, request = run[-1].body, frame.body
    if len(run) >= MAX_RUN:
        return False
    if isinstance(before, Send) and isinstance(request, Send):
        # WIRE-61 MUST: as a transaction locks one mailbox, and looks at one token.
        return before.recipient == request.recipient and before.token == request.token
    return isinstance(before, Ack) and isinstance(request, Ack)
