"""The model of a link, packet by packet with a given clock."""

import pytest

from tests.network.link import ECHO, Conditions, Link


def sent(conditions, count=2_000, *, interval=0.01, size=1_000, seed="s"):
    link = Link(seed, conditions)
    return link, [link.send(size, number * interval) for number in range(count)]


def test_a_perfect_link_changes_nothing():
    """Packets come out as they go in."""
    assert sent(Conditions())[1] == [number * 0.01 for number in range(2_000)]


def test_delay_and_jitter_keep_the_order():
    """Every packet is late by the delay and up to the jitter, and none overtakes another."""
    _, out = sent(Conditions(delay=0.05, jitter=0.03))
    late = [at - number * 0.01 for number, at in enumerate(out)]
    assert min(late) >= 0.05
    assert max(late) <= 0.08
    assert sum(late) / len(late) > 0.06
    assert out == sorted(out)


@pytest.mark.parametrize("loss", [0.02, 0.05, 0.1, 0.2])
def test_loss_is_the_share_asked_for(loss):
    """The share of lost packets is within four standard deviations of what was asked for."""
    link, out = sent(Conditions(loss=loss))
    assert link.lost == out.count(None)
    assert out.count(None) / 2_000 == pytest.approx(
        loss, abs=4 * (loss * (1 - loss) / 2_000) ** 0.5
    )


def test_the_fate_of_a_packet_depends_on_the_seed_only():
    """The same packets are lost again, however fast they are sent; with another seed others."""
    lost = [out is None for out in sent(Conditions(loss=0.1))[1]]
    assert [out is None for out in sent(Conditions(loss=0.1), interval=0.5)[1]] == lost
    assert [out is None for out in sent(Conditions(loss=0.1), seed="t")[1]] != lost


def test_reordered_packets_overtake():
    """The share asked for arrives before packets that were sent earlier."""
    _, out = sent(Conditions(delay=0.05, reorder=0.1))
    early = sum(at < number * 0.01 + 0.05 for number, at in enumerate(out))
    assert 150 < early < 250
    assert out != sorted(out)


def test_the_share_asked_for_comes_twice():
    """N4: a packet comes again soon after, and what is lost is the same as without."""
    link = Link("s", Conditions(loss=0.1, duplicate=0.2))
    out = [at for number in range(2_000) if (at := link.send(1_000, number * 0.01)) is not None]
    assert len(out) == sum(at is not None for at in sent(Conditions(loss=0.1))[1])
    late = [again - at for at in out if (again := link.echo(at)) is not None]
    assert len(late) == link.doubled
    assert len(late) / len(out) == pytest.approx(0.2, abs=4 * (0.16 / len(out)) ** 0.5)
    assert 0 <= min(late) < 0.001
    assert 0.049 < max(late) <= ECHO


def test_a_bottleneck_has_its_rate_and_its_queue():
    """At twice the rate half of the packets get through, late by the queue at most."""
    link, out = sent(Conditions(rate=400_000, queue=0.2))
    through = [at for at in out if at is not None]
    assert len(through) * 8_000 / through[-1] == pytest.approx(400_000, rel=0.02)
    assert link.overflowed == 2_000 - len(through)
    late = max(at - number * 0.01 for number, at in enumerate(out) if at is not None)
    assert 0.2 <= late <= 0.2 + 2 * 0.02


def test_an_outage_lets_nothing_through():
    """While it lasts every packet is lost."""
    assert set(sent(Conditions(outage=True), 100)[1]) == {None}


@pytest.mark.parametrize(
    ("protocol", "port", "about", "passes"),
    [
        (17, 3478, Conditions(), True),
        (17, 3478, Conditions(no_udp=True), False),
        (6, 3478, Conditions(no_udp=True), True),
        (6, 3478, Conditions(closed=(3478,)), False),
        (6, 5349, Conditions(closed=(3478,)), True),
    ],
)
def test_a_firewall(protocol, port, about, passes):
    """It looks at protocol and port alone, wherever the header of a packet ends."""
    for words in (5, 7):
        header = bytes([0x40 | words]) + bytes(8) + bytes([protocol]) + bytes(words * 4 - 10)
        packet = header + (40_000).to_bytes(2) + port.to_bytes(2) + bytes(20)
        assert about.passes(packet) is passes
