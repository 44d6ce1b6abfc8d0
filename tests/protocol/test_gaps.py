"""What the ratchet knows of messages that never came (spec/ratchet.md, "Gaps")."""

from e2ecall.protocol.gaps import GAP_SECONDS, count_missing
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
    assert count_missing(peer, since=0, now=NOW + GAP_SECONDS - 1) == (0, 0)
    assert count_missing(peer, since=0, now=NOW + GAP_SECONDS) == (2, NOW)
    assert count_missing(peer, since=NOW, now=NOW + 3 * GAP_SECONDS) == (0, NOW)
    one.receive(other.send(one, b"back"))
    one.send(other, b"lost at the head of the next chain")
    other.receive(one.send(other, b"of the next chain"))
    assert count_missing(other.peers[one.address], since=0, now=NOW + GAP_SECONDS) == (3, NOW)
    other.receive(first[1])
    assert count_missing(other.peers[one.address], since=0, now=NOW + GAP_SECONDS) == (2, NOW)


def test_a_clock_that_was_ahead_hides_no_loss():
    """RATCHET-13: what is lost after a clock was set back is counted, whatever was counted while it
    was ahead.
    """
    one, other = Endpoint.generate("alice"), Endpoint.generate("bob")
    one.initiate(other)
    sent = [one.send(other, b"%d" % number) for number in range(8)]
    year = 365 * 86_400
    other.receive(sent[1])
    missing, since = count_missing(other.peers[one.address], since=0, now=NOW + year)
    assert (missing, since) == (1, NOW)
    other.now = NOW + 300
    other.receive(sent[3])
    later = other.now + GAP_SECONDS
    assert count_missing(other.peers[one.address], since=since, now=later) == (1, NOW + 300)
    other.now = NOW + year
    other.receive(sent[5])
    ahead = count_missing(other.peers[one.address], since=NOW + 300, now=other.now + GAP_SECONDS)
    assert ahead == (1, NOW + year)
    other.now = NOW + 300
    other.receive(sent[7])
    assert count_missing(other.peers[one.address], since=NOW + year, now=later) == (1, NOW + 300)
