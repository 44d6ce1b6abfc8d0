"""Jitter buffers: order, loss, wrap-around and bounds, packet by packet with a given clock."""

import random

import pytest

from e2ecall.media import jitter, video_jitter
from e2ecall.media.jitter import AudioJitterBuffer, Fragment, sequence_delta
from e2ecall.media.video_jitter import VideoJitterBuffer

KEY, DELTA = b"\x00", b"\x01"


def drain(buffer):
    frames = []
    while (frame := buffer.next_frame()) is not None:
        frames.append(frame)
    return frames


def sound(sequence, data=b"opus"):
    return Fragment(sequence & 0xFFFF, sequence * 960 & 0xFFFF_FFFF, True, True, data)


def picture(sequence, parts=3, *, key=False, frame=None):
    """Return the packets of one picture that begins at ``sequence``."""
    frame = sequence if frame is None else frame
    first = KEY if key else DELTA
    return [
        Fragment(
            sequence + part & 0xFFFF,
            frame * 3000 & 0xFFFF_FFFF,
            part == parts - 1,
            part == 0,
            (first if part == 0 else b"") + bytes((frame & 0xFF, part)),
        )
        for part in range(parts)
    ]


def fed(buffer, fragments, now=0.0):
    """Return the frames that come out while packets go in."""
    frames = []
    for fragment in fragments:
        buffer.add(fragment, now)
        frames += drain(buffer)
    return frames


def timestamps(frames):
    return [frame.timestamp for frame in frames]


@pytest.mark.parametrize(("a", "b", "delta"), [(1, 65535, 2), (65535, 1, -2), (7, 7, 0)])
def test_sequence_numbers_wrap(a, b, delta):
    """Distances between sequence numbers are right across 65535."""
    assert sequence_delta(a, b) == delta


# Sound.


def test_sound_in_order_is_released_at_once():
    """Without loss every packet leaves the buffer as it comes, also across 65535 (MEDIA-09)."""
    buffer = AudioJitterBuffer()
    for sequence in range(65530, 65545):
        assert timestamps(fed(buffer, [sound(sequence)])) == [sequence * 960 & 0xFFFF_FFFF]
    assert buffer.lost == 0


def test_sound_out_of_order_is_put_in_order():
    """A packet that is overtaken by two others is still played, in its place."""
    buffer = AudioJitterBuffer()
    frames = fed(buffer, [sound(n) for n in (65534, 65536, 65537, 65535, 65538)])
    assert timestamps(frames) == [n * 960 for n in range(65534, 65539)]
    assert buffer.lost == 0


def test_sound_recovers_from_a_loss_without_delay():
    """After a lost packet the following ones are released at once again."""
    buffer = AudioJitterBuffer()
    assert len(fed(buffer, [sound(n) for n in range(10)])) == 10
    held = fed(buffer, [sound(n) for n in (11, 12)])
    assert held == []
    assert len(fed(buffer, [sound(13)])) == 3
    for sequence in range(14, 40):
        assert len(fed(buffer, [sound(sequence)])) == 1
    assert buffer.lost == 1


def carried(sequence):
    """Return what a frame brings: its own packet behind a copy of the one before."""
    return [sound(sequence - 1)._replace(starts_frame=False), sound(sequence)]


def overtaking(count, depth, every):
    """Return numbers in the order of arrival; each ``every``-th overtakes ``depth`` others."""
    at = {n: n - depth - 0.5 if n % every == 0 and n > depth else n for n in range(count)}
    return sorted(range(count), key=at.__getitem__)


@pytest.mark.parametrize(("depth", "every"), [(6, 4), (10, 7), (12, 5)])
def test_sound_that_is_overtaken_is_not_given_up_again_and_again(depth, every):
    """MEDIA-62: what comes too late once is waited for from then on, and so are its like."""
    buffer = AudioJitterBuffer()
    order = overtaking(400, depth, every)
    assert order != sorted(order)
    frames = fed(buffer, [one for n in order[:100] for one in carried(n)])
    lost = buffer.lost
    assert lost <= 2 * depth
    frames += fed(buffer, [one for n in order[100:] for one in carried(n)])
    assert buffer.lost == lost
    assert timestamps(frames) == sorted(timestamps(frames))
    assert len(frames) == 400 - lost


def wary(numbers=0):
    """Return a buffer that knows of overtaking; ``numbers`` are those before the next packet."""
    buffer = AudioJitterBuffer()
    fed(buffer, [sound(n) for n in (0, 4, 5, 6, 1, 2, 3)])  # 1 to 3 come too late
    fed(buffer, [sound(n) for n in range(7, numbers)])
    return buffer


@pytest.mark.parametrize(
    "after",
    [
        pytest.param((12, 13, 14), id="three_in_a_row"),
        pytest.param((20, 30, 12), id="one_that_was_overtaken"),
    ],
)
def test_a_loss_among_overtaking_packets_is_given_up(after):
    """MEDIA-62, MEDIA-19: what comes in its order shows that the one before it was lost."""
    buffer = wary(11)  # 11 is lost
    assert fed(buffer, [sound(n) for n in after[:-1]]) == []
    assert timestamps(fed(buffer, [sound(after[-1])]))[0] == 12 * 960


def test_a_network_that_reordered_is_trusted_again():
    """MEDIA-62: after 500 packets of which none came too late, the third that waits is enough."""
    buffer = wary(11)
    assert fed(buffer, [sound(n) for n in (20, 30, 40)]) == []
    buffer = wary(11 + jitter.REORDERING)
    late = 11 + jitter.REORDERING
    assert len(fed(buffer, [sound(late + n) for n in (9, 19, 29)])) == 1


def test_late_and_repeated_sound_is_ignored():
    """A packet comes out once, and not after its successors."""
    buffer = AudioJitterBuffer()
    fed(buffer, [sound(n) for n in range(5)])
    assert fed(buffer, [sound(3), sound(4), sound(0)]) == []
    assert len(fed(buffer, [sound(5), sound(5)])) == 1


def test_a_copy_of_what_nothing_came_of_is_ignored():
    """MEDIA-32: sound begins with the first frame's own packet, whatever came along with it."""
    buffer = AudioJitterBuffer()
    assert fed(buffer, [sound(7)._replace(starts_frame=False)]) == []
    assert timestamps(fed(buffer, [sound(8)])) == [8 * 960]


def test_a_copy_takes_the_place_of_what_was_lost():
    """MEDIA-32: with a copy before it a packet is passed on without waiting for others."""
    buffer = AudioJitterBuffer()
    fed(buffer, [sound(0)])
    frames = fed(buffer, [sound(1)._replace(starts_frame=False), sound(2), sound(1)])
    assert timestamps(frames) == [960, 1920]
    assert buffer.lost == 0


def test_sound_after_a_long_gap_goes_on_at_once():
    """A jump of more than two seconds is a new beginning."""
    buffer = AudioJitterBuffer()
    fed(buffer, [sound(0), sound(2)])
    assert len(fed(buffer, [sound(2000)])) == 1
    assert len(fed(buffer, [sound(2001)])) == 1


def test_sound_flood_is_bounded():
    """Packets in any order never leave more than a few in memory (MEDIA-09)."""
    buffer, draw = AudioJitterBuffer(), random.Random(1)
    for _ in range(5_000):
        fed(buffer, [sound(draw.randrange(65536))])
        assert len(buffer._held) <= jitter.MAX_HELD + 1


# Pictures.


def test_a_picture_is_released_at_its_marker():
    """The last packet of a picture releases it; the next picture need not begin (MEDIA-09)."""
    buffer = VideoJitterBuffer()
    packets = picture(65534, key=True)
    assert fed(buffer, packets[:2]) == []
    (frame,) = fed(buffer, packets[2:])
    assert frame.data == KEY + bytes((0xFE, 0, 0xFE, 1, 0xFE, 2))
    assert len(fed(buffer, picture(65537))) == 1


@pytest.mark.parametrize("seed", range(20))
def test_reordered_and_repeated_packets_give_whole_pictures_in_order(seed):
    """Whatever the order within a window, pictures come out whole, once, and in order."""
    draw, packets = random.Random(seed), []
    for number in range(40):
        packets += picture(65500 + number * 3, key=number == 0, frame=number)
    shuffled = sorted(range(len(packets)), key=lambda at: at + draw.uniform(0, 8))
    arriving = [packets[at] for at in shuffled]
    arriving += [packets[draw.randrange(len(packets))] for _ in range(20)]
    buffer = VideoJitterBuffer()
    frames = fed(buffer, arriving)
    assert timestamps(frames) == [number * 3000 for number in range(40)]
    assert buffer.lost == 0


def test_nothing_is_released_before_a_key_frame():
    """A receiver that comes in the middle waits for a key frame, and asks for one."""
    buffer = VideoJitterBuffer()
    assert fed(buffer, picture(0) + picture(3), 1.0) == []
    assert buffer.waiting
    assert not buffer.feedback(1.0).key_frame
    assert buffer.feedback(1.0 + video_jitter.FIRST_KEY_FRAME_WAIT).key_frame
    assert len(fed(buffer, picture(6, key=True), 1.2)) == 1
    assert not buffer.waiting


def test_a_missing_packet_is_asked_for_again_and_again():
    """While a packet is missing it is requested at once and every 20 ms, until it comes."""
    buffer = VideoJitterBuffer()
    fed(buffer, picture(0, key=True))
    lost, *rest = picture(3)
    assert fed(buffer, rest + picture(6), 1.0) == []
    assert buffer.waiting
    assert buffer.feedback(1.01).nack == (3,)
    assert buffer.feedback(1.02).nack == ()
    assert buffer.feedback(1.04).nack == (3,)
    assert buffer.feedback(1.05).nack == ()
    assert buffer.feedback(1.07).nack == (3,)
    assert len(fed(buffer, [lost], 1.08)) == 2
    assert not buffer.waiting
    assert buffer.lost == 0


def test_a_packet_that_never_comes_is_given_up_for_a_key_frame():
    """A lost packet and its lost retransmissions cost a third of a second, then a key frame."""
    buffer = VideoJitterBuffer()
    fed(buffer, picture(0, key=True))
    fed(buffer, picture(3)[1:] + picture(6), 1.0)
    feedback = buffer.feedback(1.0 + video_jitter.GIVE_UP)
    assert feedback.key_frame
    assert not buffer.feedback(1.0 + video_jitter.GIVE_UP + 0.1).key_frame
    assert buffer.feedback(1.0 + video_jitter.GIVE_UP + video_jitter.KEY_FRAME_INTERVAL).key_frame
    assert fed(buffer, picture(9), 1.7) == []
    assert len(fed(buffer, picture(12, key=True), 1.8)) == 1
    assert len(fed(buffer, picture(15), 1.8)) == 1
    assert buffer.lost == 1
    assert not buffer.waiting


def test_the_beginning_of_the_first_key_frame_is_asked_for_again():
    """MEDIA-61: of a stream that begins without its first packet the two before are asked for."""
    buffer = VideoJitterBuffer()
    lost, *rest = picture(65536, parts=4, key=True)
    assert fed(buffer, rest, 1.0) == []
    assert buffer.feedback(1.0).nack == (65535, 0)
    assert buffer.feedback(1.01).nack == ()
    assert buffer.feedback(1.02).nack == (65535, 0)
    assert len(fed(buffer, [lost], 1.03)) == 1
    assert not buffer.waiting


def test_two_packets_before_are_asked_for_as_often_as_it_takes():
    """MEDIA-61: what was asked for shows what else is missing before it."""
    buffer = VideoJitterBuffer()
    packets = picture(100, parts=6, key=True)
    fed(buffer, packets[4:], 1.0)
    assert buffer.feedback(1.0).nack == (102, 103)
    fed(buffer, packets[2:4], 1.05)
    assert buffer.feedback(1.05).nack == (100, 101)
    assert len(fed(buffer, packets[:2], 1.1)) == 1


def test_a_key_frame_of_one_packet_is_asked_for_again():
    """MEDIA-61: a stream that begins with another picture than a key frame lacks that."""
    buffer = VideoJitterBuffer()
    (lost,) = picture(10, parts=1, key=True)
    fed(buffer, picture(11, parts=1), 1.0)
    assert buffer.feedback(1.0).nack == (9, 10)
    assert len(fed(buffer, [lost], 1.05)) == 2


def test_the_beginning_of_a_later_key_frame_is_asked_for_again():
    """MEDIA-61: also of one that came for a request; what lacks no beginning is left alone."""
    buffer = VideoJitterBuffer()
    fed(buffer, picture(0, key=True))
    buffer.refused()
    lost, *rest = picture(8, key=True)
    fed(buffer, picture(3, parts=1) + picture(5, parts=2) + rest, 1.0)  # 4 and 7 are missing
    assert buffer.feedback(1.0).nack == (7, 8)
    assert len(fed(buffer, [lost], 1.05)) == 1


def test_a_beginning_is_asked_for_as_long_as_any_packet():
    """MEDIA-61: after 300 ms the key frame that is asked for meanwhile has to do."""
    buffer = VideoJitterBuffer()
    fed(buffer, picture(0, key=True)[1:], 1.0)
    asked = [buffer.feedback(1.0 + step / 50) for step in range(20)]
    times = [step / 50 for step, feedback in enumerate(asked) if feedback.nack]
    assert times[-1] < video_jitter.GIVE_UP <= times[-1] + 0.03
    assert sum(feedback.key_frame for feedback in asked) == 1


def test_a_key_frame_ends_the_waiting_for_older_packets():
    """A whole key frame behind a gap is shown at once."""
    buffer = VideoJitterBuffer()
    fed(buffer, picture(0, key=True))
    assert len(fed(buffer, picture(3)[1:] + picture(6, key=True), 1.0)) == 1
    assert not buffer.waiting


def test_after_a_refused_picture_the_next_is_a_key_frame():
    """What refers to a picture that was not authentic is not released (MEDIA-06)."""
    buffer = VideoJitterBuffer()
    fed(buffer, picture(0, key=True))
    buffer.refused()
    assert fed(buffer, picture(3), 1.0) == []
    assert buffer.feedback(1.0).key_frame
    assert len(fed(buffer, picture(6, key=True), 1.1)) == 1


def test_an_incomplete_key_frame_does_not_block_a_later_one():
    """The first key frame may be lost too."""
    buffer = VideoJitterBuffer()
    assert fed(buffer, picture(0, key=True)[:2] + picture(3), 1.0) == []
    assert buffer.feedback(1.06).nack == (2,)
    assert buffer.feedback(1.5).key_frame
    assert len(fed(buffer, picture(6, key=True), 1.6)) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param([Fragment(3, 9000, False, False, b"\1"), *picture(4)], id="no_start"),
        pytest.param([*picture(3)[:2], *picture(5, frame=9)], id="no_marker"),
    ],
)
def test_packets_that_are_no_picture_cost_one_key_frame(wrong):
    """Packets that do not form a picture are dropped, and a key frame is asked for."""
    buffer = VideoJitterBuffer()
    fed(buffer, picture(0, key=True))
    assert fed(buffer, wrong, 1.0) == []
    assert buffer.feedback(1.0).key_frame
    assert len(fed(buffer, picture(20, key=True), 1.2)) == 1


def test_padding_between_pictures_is_passed_over():
    """Empty packets, as browsers send to probe bandwidth, occupy a sequence number only."""
    buffer = VideoJitterBuffer()
    fed(buffer, picture(0, key=True))
    assert fed(buffer, [Fragment(3, 3, False, False, b"")]) == []
    assert len(fed(buffer, picture(4))) == 1
    assert not buffer.waiting


@pytest.mark.parametrize("kind", ["random", "endless"])
def test_picture_flood_is_bounded(kind):
    """Neither random packets nor a picture without end grow beyond the capacity (MEDIA-09)."""
    buffer, draw = VideoJitterBuffer(), random.Random(2)
    for number in range(3_000):
        sequence = draw.randrange(65536) if kind == "random" else number & 0xFFFF
        start = draw.random() < 0.1 if kind == "random" else number == 0
        marker = kind == "random" and draw.random() < 0.1
        buffer.add(Fragment(sequence, number, marker, start, KEY), number / 100)
        drain(buffer)
        feedback = buffer.feedback(number / 100)
        assert len(feedback.nack) <= video_jitter.MAX_NACK
        assert len(buffer._fragments) <= video_jitter.VIDEO_CAPACITY
        assert len(buffer._key_starts) <= video_jitter.VIDEO_CAPACITY


def test_after_a_flood_pictures_are_shown_again():
    """A buffer full of nonsense recovers with the next key frame that follows it."""
    buffer = VideoJitterBuffer()
    for number in range(2_000):
        buffer.add(Fragment(number, 1, False, number == 0, KEY), 1.0)
    assert drain(buffer) == []
    assert len(fed(buffer, picture(2_000, key=True), 2.0)) == 1
