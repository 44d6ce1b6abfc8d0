"""Carrying out Send and Ack, one or several of a run (spec/wire.md WIRE-61).

What belongs to one run is decided in `relay.services.runs`. All raise `StorageError` where the
store fails: then nothing of the run was kept.
"""

from collections.abc import Sequence
from typing import Final

from relay.errors import RefusedError
from relay.io.budgets import count, count_stranger, make_room
from relay.io.session import Session
from relay.services.mailbox import DeviceMailbox, Letter, MailboxName, Stored, mailbox_of
from relay.services.policy import token_hash
from relay.wire.messages import Ack, Done, ErrorCode, Failure, Reply, Send

_DONE: Final = Done()


async def send(session: Session, sends: Sequence[Send]) -> list[Reply]:
    """Store what one sender has for one mailbox, under one token; return a reply to each."""
    node, first = session.node, sends[0]
    mailbox, shown = mailbox_of(first.recipient), token_hash(first.token)
    # WIRE-20 MUST: the same answer whether somebody is there or not.
    replies: list[Reply] = [_DONE] * len(sends)
    admitted = []
    for place, request in enumerate(sends):
        try:
            await _admit(session, mailbox, shown, len(request.envelope))
        except RefusedError as error:
            replies[place] = failure(error)
        else:
            admitted.append(place)
    if not admitted:
        return replies
    stored = await node.mailbox.put(
        mailbox,
        [Letter(sends[place].message_id, sends[place].envelope) for place in admitted],
        shown,
        node.clock(),
        takes_strangers=node.volume.takes_strangers,
    )
    for place, one in zip(admitted, stored, strict=True):
        node.metrics.envelope(one)
        if one is Stored.FULL:
            full = RefusedError(ErrorCode.TOO_MANY, "the mailbox is full", retry_after=60)
            replies[place] = failure(full)
        if one is not Stored.NEW:
            node.volume.left_out(len(sends[place].envelope))
    # For what is known, too: whoever stored it may have ended before this was said.
    if Stored.NEW in stored or Stored.AGAIN in stored:
        session.came_for(mailbox)
    return replies


async def _admit(session: Session, mailbox: MailboxName, shown: bytes | None, size: int) -> None:
    """Count an envelope, and note that there is to be room for it."""
    node = session.node
    await count(node.quotas.sends, session)
    # Whoever the recipient is, and whether there is one, or a use of the token.
    name = mailbox.username if isinstance(mailbox, DeviceMailbox) else None
    await count_stranger(node.quotas.recipients, session, mailbox.key.hex(), name, shown)
    # STORAGE-15 MUST: a call that goes on, or somebody with a token, is no stranger.
    await make_room(node, size, is_strangers=name is not None and shown is None)


async def acknowledge(session: Session, acks: Sequence[Ack]) -> list[Reply]:
    """Let what these name be forgotten."""
    delivery_ids = [delivery_id for ack in acks for delivery_id in ack.delivery_ids]
    places = session.queue.places(delivery_ids)
    await session.node.mailbox.remove(places, session.node.clock())
    # WIRE-33: not before, as an Ack that failed is repeated and has to mean the same then.
    session.queue.acknowledged(delivery_ids)
    session.node.metrics.acknowledged(len(places))
    if session.queue.is_due:  # as there is room now
        session.wake()
    return [_DONE] * len(acks)


def failure(error: RefusedError) -> Failure:
    """Return what a client is told of a request that was refused."""
    return Failure(error.code, error.text, error.retry_after)
