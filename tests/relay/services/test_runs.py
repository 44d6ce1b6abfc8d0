"""Which requests are carried out as one (spec/wire.md WIRE-61)."""

from relay.services.runs import MAX_RUN, goes_on
from relay.wire.messages import (
    AccountRecipient,
    Ack,
    BoxRecipient,
    ClientFrame,
    PrekeyStatus,
    Send,
)

HERE, THERE = AccountRecipient("somebody", 1), AccountRecipient("somebody", 2)
BOX = BoxRecipient(bytes(32))


def send(recipient=HERE, token=None):
    return Send(recipient, bytes(16), b"sealed", token)


def joins(before, request, count=1):
    run = [ClientFrame(number, before) for number in range(1, count + 1)]
    return goes_on(run, ClientFrame(count + 1, request))


def test_what_belongs_together():
    """WIRE-61: Sends to one mailbox under one token make a run, and Acks do, and nothing else."""
    token = bytes(16)
    assert joins(send(), send())
    assert joins(send(BOX), send(BOX))
    assert joins(send(token=token), send(token=bytes(16)))
    assert joins(Ack((1,)), Ack((2,)))
    for other in (send(THERE), send(BOX), send(token=token), Ack((1,)), PrekeyStatus()):
        assert not joins(send(), other)
    assert not joins(Ack((1,)), send())
    assert not joins(PrekeyStatus(), PrekeyStatus())


def test_runs_end():
    """WIRE-61: a run has 16 requests at most."""
    assert joins(send(), send(), MAX_RUN - 1)
    assert not joins(send(), send(), MAX_RUN)
