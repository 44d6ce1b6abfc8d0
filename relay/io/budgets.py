"""What requests use up: rates, and room in the store (spec/wire.md, Limits)."""

import trio

from relay.errors import RefusedError
from relay.io.node import Node
from relay.io.session import Session
from relay.io.storage import Limiter
from relay.wire.messages import Policy


async def make_room(node: Node, size: int, *, is_strangers: bool) -> None:
    """Note that ``size`` bytes are about to be stored, if there is room for them."""
    if node.volume.is_due(trio.current_time()):
        node.volume.counted(await node.directory.usage())
    node.volume.add(size, is_strangers=is_strangers)


async def count_stranger(
    limiter: Limiter | None, session: Session, key: str, username: str | None, shown: bytes | None
) -> None:
    """Count what strangers ask of one recipient, and each use of a token, good or not."""
    try:
        await count(limiter, session, key)
    except RefusedError:
        # WIRE-49 MUST: what shows a token goes on, but to whoever takes everything from everybody.
        if shown is None or username is None:
            raise
        if await session.node.directory.policy(username) is Policy.EVERYONE:
            raise
    if shown is not None:
        await count(session.node.quotas.tokens, session, shown.hex())


async def count(limiter: Limiter | None, session: Session, key: str | None = None) -> None:
    """Count a request of this connection's source, or under another key."""
    if limiter is not None:
        await limiter.take(session.source if key is None else key, session.node.clock())
