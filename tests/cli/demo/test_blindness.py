"""The blindness check finds what is planted, wherever it stands, and nothing in ciphertext."""

import random

import pytest

from e2ecall.cli.demo.blindness import WINDOW, CheckError, check, count_strings, count_windows
from e2ecall.cli.demo.capture import Capture
from e2ecall.errors import E2ECallError


def test_an_encrypted_call_shows_nothing(call):
    """With SFrame in place all SRTP opens under the given keys and no plaintext is found."""
    report = check(call.capture(call.sframe), call.evidence())
    assert report.plaintext_hits == 0
    assert report.opened == report.packets == 128
    assert report.bytes > 50_000


def test_a_call_without_sframe_is_found_out(call):
    """With SFrame taken out, nearly every byte of the sent frames is found."""
    report = check(call.capture(call.clear), call.evidence())
    sent = sum(len(frame) for side in call.sides for frame in side.frames)
    assert report.hits["frames"] > 0.8 * sent
    assert report.plaintext_hits == report.hits["frames"]


@pytest.mark.parametrize("place", ["envelope", "stored_envelope"])
@pytest.mark.parametrize("what", ["username", "address"])
def test_a_name_in_an_envelope_is_found(call, place, what):
    """A caller's name inside a sent or a stored envelope counts; the accounts table does not."""
    name = getattr(call.evidence()[0], what).encode()
    setattr(call, place, b"sealed" + name + bytes(100))
    assert check(call.capture(call.sframe), call.evidence()).hits["names"] >= 1


@pytest.mark.parametrize("place", ["envelope", "stored_envelope"])
@pytest.mark.parametrize("spell", ["text", "upper", "colons", "raw", "ufrag", "pwd", "srtp", "sdp"])
def test_a_known_string_is_found(call, place, spell):
    """Texts, fingerprints in every spelling, ICE credentials, keys and SDP lines count."""
    side = call.callee
    digest = side.media.fingerprint
    planted = {
        "text": side.evidence().texts[0].encode(),
        "upper": digest.hex().upper().encode(),
        "colons": digest.hex(":").upper().encode(),
        "raw": digest,
        "ufrag": side.media.ice_ufrag.encode(),
        "pwd": side.media.ice_pwd.encode(),
        "srtp": side.key.key,
        "sdp": b"a=candidate:1 1 udp 2130706431 192.0.2.1 9 typ host",
    }
    setattr(call, place, b"\x00\x01" + planted[spell] + b"\x02")
    assert check(call.capture(call.sframe), call.evidence()).plaintext_hits >= 1


def test_the_user_fragment_on_the_path_is_no_finding_but_the_password_is(call):
    """ICE shows its user fragment in connectivity checks by design, never its password."""
    call.extra_datagrams = [b"STUN " + call.caller.media.ice_ufrag.encode()]
    capture = call.capture(call.sframe)
    assert check(capture, call.evidence()).plaintext_hits == 0
    leak = b"STUN " + call.caller.media.ice_pwd.encode()
    leaky = Capture(
        capture.signalling, capture.envelopes, (*capture.datagrams, leak), capture.stored
    )
    assert check(leaky, call.evidence()).plaintext_hits == 1


def test_a_single_frame_in_clear_is_found(call):
    """One unprotected sound frame among protected ones is enough."""

    def leaky(side):
        protect = call.sframe(side)
        leaking = side.sound[17]
        return lambda codec, frame: frame if frame == leaking else protect(codec, frame)

    report = check(call.capture(leaky), call.evidence())
    assert report.plaintext_hits == 2 * (80 - WINDOW + 1)


def test_keys_that_do_not_open_the_media_are_an_error(call):
    """A search that could not look inside SRTP is refused, not counted as 0."""
    evidence = call.evidence()
    evidence[0].sending_keys = []
    with pytest.raises(CheckError, match="could not be opened"):
        check(call.capture(call.sframe), evidence)


def test_a_capture_without_media_is_an_error(call):
    """An empty capture proves nothing."""
    capture = call.capture(call.sframe)
    empty = Capture(capture.signalling, capture.envelopes, (), capture.stored)
    with pytest.raises(CheckError):
        check(empty, call.evidence())


def test_a_cut_off_or_missing_capture_is_an_error(call, tmp_path):
    """Half a record and a missing file are refused and named."""
    call.capture(call.sframe)
    path = tmp_path / "capture" / "turn.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(E2ECallError, match=r"turn\.bin is cut off"):
        Capture.load(tmp_path / "capture", tmp_path / "data")
    path.unlink()
    with pytest.raises(E2ECallError, match="left no capture"):
        Capture.load(tmp_path / "capture", tmp_path / "data")


def test_strings_are_counted_within_each_haystack_alone():
    """Every occurrence counts; two neighbours that spell a needle together do not."""
    assert count_strings([b"abc", b"abc"], [b"abcabc", b"xxabc", b"ab", b"c"]) == 3


def test_windows_are_found_at_any_offset():
    """A run of exactly twelve known bytes is found once, one of eleven is not."""
    known = random.Random(1).randbytes(500)
    noise = random.Random(2).randbytes(3_000)
    for at in (0, 1, 488):
        run = known[at : at + WINDOW]
        assert count_windows([known], [noise + run + noise]) == 1
        assert count_windows([known], [noise + run[:-1] + noise]) == 0
    assert count_windows([known], [known]) == 500 - WINDOW + 1


def test_windows_never_bridge_two_pieces():
    """Neither the end of one frame with the next, nor of one packet with the next, is a run."""
    first, second = random.Random(1).randbytes(40), random.Random(2).randbytes(40)
    bridge = first[-6:] + second[:6]
    assert count_windows([first, second], [bridge]) == 0
    assert count_windows([bridge], [first, second]) == 0


def test_padding_is_no_evidence():
    """Runs of fewer than four different bytes count for nothing, short pieces hurt nobody."""
    assert count_windows([bytes(100), b"\x00\x01\x02" * 30], [bytes(100), b"\x00\x01\x02" * 9]) == 0
    assert count_windows([b"short", b""], [b"short", b""]) == 0
    assert count_windows([], []) == 0
    assert count_windows([random.Random(1).randbytes(50)], []) == 0
