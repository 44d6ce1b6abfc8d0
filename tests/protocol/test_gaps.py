"""What the ratchet knows of messages that never came (spec/ratchet.md, "Gaps")."""

from e2ecall.protocol.gaps import GAP_SECONDS, count_missing, overdue
from tests.protocol.conftest import NOW, Endpoint


def test_skipped_numbers_are_missing():
    """RATCHET-12: numbers that were skipped count once they are overdue, in old chains too, until
    their messages come, and not again after they were counted.
    """
    one, other = Endpoint.generate("alice"), Endpoint.generate("bob")
    one.initiate(other)
    first = [one.send(other, b"%d" % number) for number in range(4)]
    other.receive(first[0])
    other.receive(first[3])
    peer = other.peers[one.address]
    assert count_missing(peer, since=0, now=NOW + GAP_SECONDS - 1) == 0
    assert count_missing(peer, since=0, now=NOW + GAP_SECONDS) == 2
    assert count_missing(peer, since=overdue(NOW + GAP_SECONDS), now=NOW + 3 * GAP_SECONDS) == 0
    one.receive(other.send(one, b"back"))
    one.send(other, b"lost at the head of the next chain")
    other.receive(one.send(other, b"of the next chain"))
    assert count_missing(other.peers[one.address], since=0, now=NOW + GAP_SECONDS) == 3
    other.receive(first[1])
    assert count_missing(other.peers[one.address], since=0, now=NOW + GAP_SECONDS) == 2
