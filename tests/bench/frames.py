"""SFrame against the bare AES-GCM call, and what it adds to a call."""

import os

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from e2ecall.protocol.messages import Stream
from e2ecall.protocol.sframe import SFrameReceiver, SFrameSender
from e2ecall.protocol.sframe_header import encode_header, key_id
from e2ecall.secret import Secret
from tests.bench.harness import Budget, Case, Contestant, Report, Thunk

BATCH = 300
SIZES = (120, 1_200, 12_000)
BUDGETED = 1_200
KID = key_id(3, Stream.CAMERA, 1)
DELTA_FRAME = b"\x01"
"""First byte of a VP8 frame that is no key frame: one byte stays clear."""

SOUND_FRAMES, PICTURE_FRAMES = 50, 30
"""Of each second."""


class Pair:
    """A sender whose counter needs three bytes, as after nine minutes of a call, and a receiver."""

    START = 1 << 16

    def __init__(self) -> None:
        secret = Secret(os.urandom(32))
        self.sender = SFrameSender(secret, KID)
        for _ in range(self.START):
            self.sender.encrypt(b"", 0)
        self.receiver = SFrameReceiver()
        self.receiver.add_key(KID, secret)


def run(report: Report) -> None:
    """Measure encryption and decryption of each size, and a second of a call."""
    pair = Pair()
    for size in SIZES:
        report.measure(_encryption(pair, size, report.rounds(100)))
        report.measure(_decryption(pair, size, report.rounds(100)))
    report.measure(_way(pair, report.rounds(100)))
    report.measure(_second(report.rounds(100)))


def _bare(size: int) -> tuple[AESGCM, bytes, bytes, bytes]:
    aad = encode_header(KID, Pair.START) + DELTA_FRAME
    return AESGCM(os.urandom(32)), os.urandom(12), os.urandom(size - 1), aad


def _encryption(pair: Pair, size: int, rounds: int) -> Case:
    cipher, nonce, plain, aad = _bare(size)
    frame = DELTA_FRAME + plain

    def ours() -> None:
        encrypt = pair.sender.encrypt
        for _ in range(BATCH):
            encrypt(frame, 1)

    def bare() -> None:
        encrypt = cipher.encrypt
        for _ in range(BATCH):
            encrypt(nonce, plain, aad)

    return _against_bare(f"SFrame encrypt, {size} B", ours, bare, size, 2, rounds)


def _decryption(pair: Pair, size: int, rounds: int) -> Case:
    cipher, nonce, plain, aad = _bare(size)
    frame, ciphertext = DELTA_FRAME + plain, cipher.encrypt(nonce, plain, aad)

    def prepare() -> Thunk:
        frames = [pair.sender.encrypt(frame, 1) for _ in range(BATCH)]

        def ours() -> None:
            decrypt = pair.receiver.decrypt
            for one in frames:
                decrypt(one, 1)

        return ours

    def bare() -> None:
        decrypt = cipher.decrypt
        for _ in range(BATCH):
            decrypt(nonce, ciphertext, aad)

    task = f"SFrame decrypt and replay check, {size} B"
    case = _against_bare(task, bare, bare, size, 2.6, rounds)
    ours = Contestant("e2ecall", prepare, BATCH)
    return Case(task, (ours, case.contestants[1]), case.reference, rounds, case.budget)


def _against_bare(
    task: str, ours: Thunk, bare: Thunk, size: int, limit: float, rounds: int
) -> Case:
    contestants = (
        Contestant("e2ecall", lambda: ours, BATCH),
        Contestant("bare AESGCM", lambda: bare, BATCH),
    )
    budget = Budget.ratio(limit) if size == BUDGETED else None
    return Case(task, contestants, "bare AESGCM", rounds, budget)


def _way(pair: Pair, rounds: int) -> Case:
    """What the cipher adds to the way of one large picture."""
    frame = DELTA_FRAME + os.urandom(SIZES[-1] - 1)

    def both_ends() -> None:
        for _ in range(BATCH):
            pair.receiver.decrypt(pair.sender.encrypt(frame, 1), 1)

    ours = Contestant("e2ecall", lambda: both_ends, BATCH)
    return Case(
        "cipher on a picture's way, 12 kB", (ours,), ours.name, rounds, Budget.microseconds(1e3)
    )


def _second(rounds: int) -> Case:
    """What the cipher adds to one end's CPU: 10 000 µs a second are one percentage point."""
    sound, picture = Pair(), Pair()
    voice, image = os.urandom(SIZES[0]), DELTA_FRAME + os.urandom(SIZES[-1] - 1)

    def prepare() -> Thunk:
        heard = [sound.sender.encrypt(voice, 0) for _ in range(SOUND_FRAMES)]
        seen = [picture.sender.encrypt(image, 1) for _ in range(PICTURE_FRAMES)]

        def one_end() -> None:
            for one in heard:
                sound.receiver.decrypt(one, 0)
            for one in seen:
                picture.receiver.decrypt(one, 1)
            for _ in range(SOUND_FRAMES):
                sound.sender.encrypt(voice, 0)
            for _ in range(PICTURE_FRAMES):
                picture.sender.encrypt(image, 1)

        return one_end

    ours = Contestant("e2ecall", prepare)
    task = "cipher in a second of a call, 50 × 120 B and 30 × 12 kB each way"
    return Case(task, (ours,), ours.name, rounds, Budget.microseconds(15e3))
