"""SFrame (spec/sframe.md): RFC 9605 vectors, and R9-R11, N2, M3 at the frame layer."""

import copy
import json
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2ecall.crypto.aead import AES256GCM
from e2ecall.errors import LocalProtocolError, Reason, RemoteProtocolError
from e2ecall.protocol import sframe
from e2ecall.protocol.messages import Codec, Stream
from e2ecall.protocol.sframe import (
    MAX_FRAMES,
    MAX_OVERHEAD,
    SFrameReceiver,
    SFrameSender,
    clear_prefix_length,
    derive_key_and_salt,
)
from e2ecall.protocol.sframe_header import encode_header, header_heads, key_id, parse_header
from e2ecall.secret import Secret

ROOT = Path(__file__).parents[2]
VECTORS = Path(os.environ.get("E2ECALL_VECTORS_DIR", ROOT.parent / "shared" / "vectors"))
RFC = VECTORS / "sframe" / "rfc9605-test-vectors.json"
KEY = Secret(bytes(range(32)))


@pytest.fixture(scope="module")
def rfc():
    if not RFC.exists():
        pytest.skip(f"no third-party vectors at {VECTORS}: set E2ECALL_VECTORS_DIR")
    return json.loads(RFC.read_text())


def pair(kid=0x101):
    receiver = SFrameReceiver()
    receiver.add_key(kid, KEY)
    return SFrameSender(KEY, kid), receiver


def protect(ctr, frame, clear_prefix=0, *, kid=0x101, header=None):
    """Protect a frame under any counter and header, as only a tester may."""
    key, salt = derive_key_and_salt(KEY, kid)
    header = encode_header(kid, ctr) if header is None else header
    nonce = (int.from_bytes(salt.expose()) ^ ctr).to_bytes(12)
    prefix, body = frame[:clear_prefix], frame[clear_prefix:]
    return prefix + header + AES256GCM(key).encrypt(nonce, body, header + prefix)


def refuse(receiver, data, clear_prefix=0):
    with pytest.raises(RemoteProtocolError) as refused:
        receiver.decrypt(data, clear_prefix)
    return refused.value.reason


def test_headers_of_the_rfc(rfc):
    """SFRAME-02: all 289 header encodings of RFC 9605 appendix C, both ways."""
    assert len(rfc["header"]) == 289
    for case in rfc["header"]:
        encoded = bytes.fromhex(case["encoded"])
        assert encode_header(case["kid"], case["ctr"]) == encoded
        assert parse_header(encoded, 0) == (case["kid"], case["ctr"], len(encoded))


def test_cipher_suite_of_the_rfc(rfc):
    """SFRAME-01: the AES_256_GCM_SHA512_128 vector of RFC 9605, derivation and frame."""
    (case,) = (c for c in rfc["sframe"] if c["cipher_suite"] == sframe.CIPHER_SUITE)
    data = {name: bytes.fromhex(value) for name, value in case.items() if isinstance(value, str)}
    base_key, kid, ctr = Secret(data["base_key"]), case["kid"], case["ctr"]
    key, salt = derive_key_and_salt(base_key, kid)
    assert (key.expose(), salt.expose()) == (data["sframe_key"], data["sframe_salt"])
    sender = SFrameSender(base_key, kid)
    for _ in range(ctr):
        next(sender._headers)
    metadata, plain = data["metadata"], data["pt"]
    protected = sender.encrypt(metadata + plain, len(metadata))
    assert protected == metadata + data["ct"]
    receiver = SFrameReceiver()
    receiver.add_key(kid, base_key)
    assert receiver.decrypt(protected, len(metadata)) == metadata + plain


@given(kid=st.integers(0, 2**64 - 1), ctr=st.integers(0, 2**64 - 1), before=st.binary(max_size=5))
def test_headers_are_read_back(kid, ctr, before):
    """SFRAME-02: what is encoded is what is parsed, wherever it stands."""
    header = encode_header(kid, ctr)
    assert parse_header(before + header + b"rest", len(before)) == (
        kid,
        ctr,
        len(before) + len(header),
    )


@given(data=st.binary(max_size=24))
def test_parsed_headers_are_minimal(data):
    """SFRAME-03: no two encodings of one header are accepted."""
    try:
        kid, ctr, end = parse_header(data, 0)
    except RemoteProtocolError:
        return
    assert encode_header(kid, ctr) == data[:end]


@given(kid=st.integers(0, 2**44 - 1), ctr=st.integers(0, MAX_FRAMES - 1))
def test_every_header_has_its_head(kid, ctr):
    """The heads a receiver looks up are those that headers of the key id begin with."""
    header = encode_header(kid, ctr)
    counter_bytes = 0 if ctr < 8 else (ctr.bit_length() + 7) // 8
    head = header[: len(header) - counter_bytes]
    assert int.from_bytes(head) in header_heads(kid, 3)


@pytest.mark.parametrize("kid", [0, 7, 8, 0x112, key_id(0xFFFFFFFF, Stream.SCREEN, 255)])
@pytest.mark.parametrize(("size", "clear_prefix"), [(0, 0), (10, 10), (80, 0), (1200, 1)])
def test_frames_come_back(kid, size, clear_prefix):
    """A frame of any size is the same after the way, over several counter lengths."""
    sender, receiver = pair(kid)
    frame = os.urandom(size)
    for _ in range(600):
        protected = sender.encrypt(frame, clear_prefix)
        assert protected[:clear_prefix] == frame[:clear_prefix]
        assert len(protected) <= size + MAX_OVERHEAD
        assert receiver.decrypt(protected, clear_prefix) == frame


def test_sender_writes_minimal_headers():
    """SFRAME-03: the headers a sender makes are the minimal ones of counters 0, 1, 2 ..."""
    sender, _ = pair()
    for ctr in range(70_000):
        header, _ = next(sender._headers)
        assert header == encode_header(0x101, ctr)


def test_nonces_never_repeat():
    """N2, SFRAME-04: over block boundaries every nonce is salt XOR counter, once."""
    sender, _ = pair()
    salt = int.from_bytes(derive_key_and_salt(KEY, 0x101)[1].expose())
    nonces = [next(sender._headers)[1] for _ in range(1_500)]
    assert nonces == [(salt ^ ctr).to_bytes(12) for ctr in range(1_500)]
    assert len(set(nonces)) == len(nonces)


def test_used_up_key(monkeypatch):
    """SFRAME-05: after the last frame of a key nothing is sent, again and again."""
    monkeypatch.setattr(sframe, "MAX_FRAMES", 512)
    sender, _ = pair()
    for _ in range(512):
        sender.encrypt(b"frame", 0)
    for _ in range(2):
        with pytest.raises(LocalProtocolError):
            sender.encrypt(b"frame", 0)


def test_contexts_cannot_be_doubled():
    """N2: a copied sender would use nonces twice, so there are no copies."""
    for context in pair():
        for double in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError):
                double(context)


@pytest.mark.parametrize(("frame", "clear_prefix"), [(b"", 1), (b"short", 10), (b"x", -1)])
def test_frame_shorter_than_its_prefix(frame, clear_prefix):
    """A frame without room for its clear prefix is not sent, and no counter is lost."""
    sender, _ = pair()
    with pytest.raises(LocalProtocolError):
        sender.encrypt(frame, clear_prefix)
    assert parse_header(sender.encrypt(b"y", 0), 0)[1] == 0


def test_every_flipped_bit_is_refused():
    """R9, M1: no bit of prefix, header, ciphertext or tag can change unseen."""
    sender, receiver = pair()
    for _ in range(300):
        sender.encrypt(b"", 0)
    frame = bytes(range(40))
    protected = sender.encrypt(frame, 10)
    for bit in range(8 * len(protected)):
        changed = bytearray(protected)
        changed[bit // 8] ^= 1 << bit % 8
        assert refuse(receiver, bytes(changed), 10) in (
            Reason.NOT_AUTHENTIC,
            Reason.UNKNOWN_FRAME_KEY,
            Reason.BAD_FRAME_HEADER,
        )
    assert receiver.decrypt(protected, 10) == frame


def test_every_prefix_is_refused():
    """M1, M3: a frame cut off anywhere is refused, whatever clear prefix is assumed."""
    sender, receiver = pair()
    for _ in range(300):
        sender.encrypt(b"", 0)
    protected = sender.encrypt(bytes(range(30)), 1)
    for end in range(len(protected)):
        for clear_prefix in (0, 1, 10):
            refuse(receiver, protected[:end], clear_prefix)
    receiver.decrypt(protected, 1)


@pytest.mark.parametrize(("made", "assumed"), [(1, 0), (0, 1), (10, 1), (1, 10)])
def test_prefix_length_must_agree(made, assumed):
    """R9: a frame read with another clear prefix than it was made with is refused."""
    sender, receiver = pair()
    refuse(receiver, sender.encrypt(bytes(50), made), assumed)


@pytest.mark.parametrize("data", [b"", b"\x00", b"plain Opus, never encrypted", bytes(100)])
def test_plaintext_is_refused(data):
    """R10: what was not encrypted is never returned."""
    _, receiver = pair()
    for clear_prefix in (0, 1, 10):
        refuse(receiver, data, clear_prefix)


def test_frame_of_another_key_id():
    """R9: a frame of another sender, stream or epoch is refused, also renamed to a known one."""
    _, receiver = pair(key_id(0, Stream.CAMERA, 1))
    for other in (key_id(0, Stream.CAMERA, 0), key_id(0, Stream.SCREEN, 1), 0x1012):
        frame = SFrameSender(KEY, other).encrypt(b"frame", 0)
        assert refuse(receiver, frame) is Reason.UNKNOWN_FRAME_KEY
        renamed = encode_header(key_id(0, Stream.CAMERA, 1), 0) + frame[-21:]
        assert refuse(receiver, renamed) is Reason.NOT_AUTHENTIC


def test_frame_of_another_call():
    """R9: the same key id under another call's base key is refused."""
    _, receiver = pair()
    frame = SFrameSender(Secret(bytes(32)), 0x101).encrypt(b"frame", 0)
    assert refuse(receiver, frame) is Reason.NOT_AUTHENTIC


def test_repeated_frame():
    """R11, SFRAME-06: a frame plays once."""
    sender, receiver = pair()
    frames = [sender.encrypt(b"frame", 0) for _ in range(20)]
    for frame in reversed(frames):
        receiver.decrypt(frame, 0)
    assert {refuse(receiver, frame) for frame in frames} == {Reason.REPLAYED}


def test_frame_behind_the_window():
    """R11, SFRAME-06: 1 023 frames late plays, 1 024 does not, seen or not."""
    _, receiver = pair()
    receiver.decrypt(protect(5_000, b"frame"), 0)
    receiver.decrypt(protect(5_000 - 1_023, b"frame"), 0)
    assert refuse(receiver, protect(5_000 - 1_024, b"frame")) is Reason.REPLAYED


def test_forged_counter_does_not_move_the_window():
    """SFRAME-06: a frame that does not verify cannot make later ones look old."""
    sender, receiver = pair()
    frame = sender.encrypt(b"frame", 0)
    forged = encode_header(0x101, MAX_FRAMES - 1) + bytes(30)
    assert refuse(receiver, forged) is Reason.NOT_AUTHENTIC
    assert receiver.decrypt(frame, 0) == b"frame"


@pytest.mark.parametrize("ctr", [MAX_FRAMES, 2**32, 2**64 - 1])
def test_counter_beyond_a_keys_life(ctr):
    """M3, SFRAME-05: a counter no sender reaches is refused before anything is decrypted."""
    _, receiver = pair()
    assert refuse(receiver, protect(ctr, b"frame")) is Reason.BAD_FRAME_HEADER
    receiver.decrypt(protect(MAX_FRAMES - 1, b"frame"), 0)


@pytest.mark.parametrize(
    ("header", "ctr"),
    [
        pytest.param("8305", 3, id="kid_extended"),
        pytest.param("8000", 0, id="kid_zero_extended"),
        pytest.param("a7000101", 7, id="kid_zero_led"),
        pytest.param("5807", 7, id="ctr_extended"),
        pytest.param("99010100ff", 255, id="ctr_zero_led"),
        pytest.param("9a0101000100", 256, id="ctr_zero_led_3_bytes"),
    ],
)
def test_non_minimal_header_is_refused(header, ctr):
    """M3, SFRAME-03: longer spellings of a header are refused, though they would verify."""
    receiver = SFrameReceiver()
    for kid in (0x101, 5, 0):
        receiver.add_key(kid, KEY)
        data = protect(ctr, b"frame", kid=kid, header=bytes.fromhex(header))
        assert refuse(receiver, data) is Reason.BAD_FRAME_HEADER


def test_removed_key():
    """R11: frames under a key that was removed are refused, and the key cannot come back."""
    sender, receiver = pair()
    receiver.decrypt(sender.encrypt(b"frame", 0), 0)
    receiver.remove_key(0x101)
    receiver.remove_key(0x101)
    assert refuse(receiver, sender.encrypt(b"frame", 0)) is Reason.UNKNOWN_FRAME_KEY
    with pytest.raises(LocalProtocolError):
        receiver.add_key(0x101, KEY)


EPOCHS = range(5)
KIDS = {epoch: key_id(epoch, Stream.CAMERA, 1) for epoch in EPOCHS}


def epoch_key(epoch):
    return Secret(bytes((epoch,)) * 32)


def epochs(*numbers):
    """Return a sender for each of these epochs, and one receiver of them all."""
    receiver = SFrameReceiver()
    for epoch in numbers:
        receiver.add_key(KIDS[epoch], epoch_key(epoch))
    return {e: SFrameSender(epoch_key(e), KIDS[e]) for e in numbers}, receiver


def test_each_epoch_counts_anew():
    """SFRAME-10: frames of two epochs are accepted side by side, each with its own counters."""
    senders, receiver = epochs(0, 1)
    frames = [(e, n, senders[e].encrypt(b"%d %d" % (e, n), 0)) for n in range(300) for e in (0, 1)]
    for epoch, number, data in reversed(frames):
        assert parse_header(data, 0)[:2] == (KIDS[epoch], number)
        assert receiver.decrypt(data, 0) == b"%d %d" % (epoch, number)
    for _, _, data in frames:
        assert refuse(receiver, data) is Reason.REPLAYED


@pytest.mark.parametrize(("made", "shown"), [(0, 1), (1, 0), (1, 2), (2, 1)])
def test_r9_a_frame_of_one_epoch_shown_as_of_another(made, shown):
    """R9, SFRAME-10: an altered epoch, also of a later key that is there, never verifies."""
    senders, receiver = epochs(0, 1, 2)
    for number in (0, 7, 8, 300):
        while parse_header(data := senders[made].encrypt(b"frame", 0), 0)[1] < number:
            pass
        _, ctr, end = parse_header(data, 0)
        spliced = encode_header(KIDS[shown], ctr) + data[end:]
        assert refuse(receiver, spliced) is Reason.NOT_AUTHENTIC
        assert receiver.decrypt(data, 0) == b"frame"  # and what failed moved no window
        assert receiver.decrypt(senders[shown].encrypt(b"other", 0), 0) == b"other"


def test_r11_frames_of_a_retired_epoch():
    """R11, SFRAME-11: what was kept back until its epoch was over is refused, and for good."""
    senders, receiver = epochs(0, 1, 2)
    kept = {e: [senders[e].encrypt(b"frame", 0) for _ in range(600)] for e in (0, 1, 2)}
    receiver.retire_before(2)
    for epoch in (0, 1):
        for data in kept[epoch][::50]:
            assert refuse(receiver, data) is Reason.UNKNOWN_FRAME_KEY
        with pytest.raises(LocalProtocolError):
            receiver.add_key(KIDS[epoch], epoch_key(epoch))
    for data in kept[2]:
        assert receiver.decrypt(data, 0) == b"frame"


def test_retiring_goes_forward_only():
    """SFRAME-11: retiring an earlier epoch again opens nothing, and keys take no lasting memory."""
    _, receiver = epochs(0, 1)
    for epoch in (1, 0):
        receiver.retire_before(epoch)
        with pytest.raises(LocalProtocolError):
            receiver.add_key(KIDS[0], epoch_key(0))
    held = len(receiver._heads)
    for epoch in range(2, 200):
        receiver.add_key(key_id(epoch, Stream.CAMERA, 1), epoch_key(1))
        receiver.retire_before(epoch)
    assert len(receiver._heads) == held
    assert len(receiver._added) == 1


def test_a_worn_key_lasts_for_the_change():
    """SFRAME-05: what is left of a worn key is more than a late Rekey takes at 100 frames/s."""
    assert sframe.MAX_FRAMES - sframe.WORN_FRAMES > 100 * (300 + 60)


def test_key_is_added_once():
    """Adding a key again would forget which frames were seen."""
    _, receiver = pair()
    with pytest.raises(LocalProtocolError):
        receiver.add_key(0x101, KEY)


@pytest.mark.parametrize(
    ("codec", "frame", "expected"),
    [
        (Codec.OPUS, b"", 0),
        (Codec.OPUS, b"\xf8", 0),
        (Codec.VP8, b"", 1),
        (Codec.VP8, b"\x10", 10),
        (Codec.VP8, b"\x11\x02", 1),
    ],
)
def test_clear_prefix(codec, frame, expected):
    """SFRAME-07: Opus keeps nothing in clear, VP8 10 bytes on key frames and 1 on others."""
    assert clear_prefix_length(codec, frame) == expected


def test_key_id_layout():
    """SFRAME-08: epoch, sender and stream stand in a key id without overlap."""
    assert key_id(0, Stream.MICROPHONE, 0) == 0
    assert key_id(1, Stream.SCREEN, 1) == 0x1012
    assert key_id(0xFFFFFFFF, Stream.SCREEN_SOUND, 255) == 0xFFFFFFFFFF3
    for epoch, sender in ((-1, 0), (2**32, 0), (0, 256), (0, -1)):
        with pytest.raises(LocalProtocolError):
            key_id(epoch, Stream.CAMERA, sender)
