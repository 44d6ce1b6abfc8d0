"""SFrame (RFC 9605; spec/sframe.md): whole encoded frames, encrypted before packetisation.

Cipher suite AES_256_GCM_SHA512_128 alone. A protected frame is ``clear prefix || SFrame header
|| ciphertext || 16-byte tag``; header and clear prefix are authenticated. It packs no RTP,
schedules no rekey and never falls back to a clear frame.
"""

from collections.abc import Callable, Iterator
from typing import Final, NoReturn

from e2ecall.crypto.aead import AES256GCM, TAG_BYTES
from e2ecall.crypto.kdf import hkdf
from e2ecall.errors import LocalProtocolError, Reason, RemoteProtocolError
from e2ecall.protocol.messages import Codec
from e2ecall.protocol.replay import ReplayWindow
from e2ecall.protocol.sframe_header import (
    HEADER_LAYOUTS,
    encode_header,
    epoch_of,
    header_heads,
    parse_header,
)
from e2ecall.secret import Secret

CIPHER_SUITE: Final = 0x0005
"""AES_256_GCM_SHA512_128, RFC 9605 section 8.1."""

MAX_FRAMES: Final = 1 << 24
"""Frames under one key: a sender stops there, a receiver believes no counter beyond."""

REPLAY_WINDOW: Final = 1_024
"""Frames: 20 s of sound or 34 s of video at 30 frames a second."""

WORN_FRAMES: Final = MAX_FRAMES - (1 << 16)
"""Frames after which a new epoch is due: what is left lasts ten minutes, a Rekey one at most."""

MAX_OVERHEAD: Final = 17 + TAG_BYTES
"""Bytes a frame can grow by."""

_COUNTER_BYTES: Final = 3
"""What a counter below `MAX_FRAMES` can take; a longer one is refused."""

_USED_UP: Final = (b"", b"")
_BLOCK: Final = 256
_BYTES: Final = tuple(bytes((value,)) for value in range(_BLOCK))
_from_bytes: Final = int.from_bytes  # looked up once, not per frame

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_VP8_KEY_FRAME_PREFIX: Final = 10
_VP8_DELTA_FRAME_PREFIX: Final = 1


def derive_key_and_salt(base_key: Secret, kid: int) -> tuple[Secret, Secret]:
    """Return the 32-byte key and 12-byte salt of a base key (RFC 9605 section 4.4.2)."""
    suffix = kid.to_bytes(8) + CIPHER_SUITE.to_bytes(2)
    key = hkdf(salt=b"", ikm=base_key, info=b"SFrame 1.0 Secret key " + suffix, length=_KEY_BYTES)
    salt = hkdf(
        salt=b"", ikm=base_key, info=b"SFrame 1.0 Secret salt " + suffix, length=_NONCE_BYTES
    )
    return Secret(key), Secret(salt)


def clear_prefix_length(codec: Codec, frame: bytes) -> int:
    """Return how many bytes at the start of an encoded (or protected) frame stay in clear.

    Opus 0. VP8 10 on key frames and 1 on delta frames: what packetisers and browsers read. The
    key-frame bit is in the first byte, which is clear itself, so both ends agree. For a frame
    without a byte it is that of a delta frame, which `SFrameSender` and `SFrameReceiver` refuse.
    """
    if codec is Codec.OPUS:
        return 0
    is_key_frame = bool(frame) and not frame[0] & 1  # RFC 6386 section 9.1: 0 is a key frame
    return _VP8_KEY_FRAME_PREFIX if is_key_frame else _VP8_DELTA_FRAME_PREFIX


class _NotCopied:
    """Two copies of a sender would use each nonce twice; two of a receiver see replays as new."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("SFrame contexts cannot be pickled or copied")


class SFrameSender(_NotCopied):
    """Encrypts the frames of one stream. Exactly one may exist per base key, for its whole life.

    Use it from one thread.
    """

    __slots__ = ("_encrypt", "_headers", "kid")

    def __init__(self, base_key: Secret, kid: int) -> None:
        key, salt = derive_key_and_salt(base_key, kid)
        self.kid = kid
        self._encrypt = AES256GCM(key).encrypt
        self._headers = _headers_and_nonces(kid, salt)

    def encrypt(self, frame: bytes, clear_prefix: int) -> bytes:
        """Return the protected frame, at most `MAX_OVERHEAD` bytes longer.

        Raises:
            LocalProtocolError: the frame is shorter than its clear prefix, or `MAX_FRAMES` were
                sent and a new epoch is due. Nothing may be sent in the frame's place.
        """
        if not 0 <= clear_prefix <= len(frame):
            raise LocalProtocolError("the frame is shorter than its clear prefix")
        # SFRAME-04: taken before use, so that a failure cannot repeat it.
        header, nonce = next(self._headers, _USED_UP)
        if not header:
            raise LocalProtocolError("the frame key is used up: a new epoch is due")
        prefix = frame[:clear_prefix]
        return prefix + header + self._encrypt(nonce, frame[clear_prefix:], header + prefix)


_ReceivingKey = tuple[
    int, Callable[[bytes, bytes, bytes], bytes], Callable[[int], None], Callable[[int], None]
]
"""Salt, decryption, and the replay window's check and advance: unpacked once per frame."""


class SFrameReceiver(_NotCopied):
    """Decrypts the frames of the streams whose keys were added, and nothing else.

    Use it from one thread.
    """

    __slots__ = ("_added", "_first_epoch", "_heads")

    def __init__(self) -> None:
        self._heads: dict[int, _ReceivingKey] = {}
        self._added: set[int] = set()
        self._first_epoch = 0

    def add_key(self, kid: int, base_key: Secret) -> None:
        """Accept frames with this key id from now on.

        Raises:
            LocalProtocolError: it is or was there; adding it again would forget what was seen.
        """
        if kid in self._added or epoch_of(kid) < self._first_epoch:
            raise LocalProtocolError("this key id was added before")
        key = _receiving_key(base_key, kid)
        self._heads.update(dict.fromkeys(header_heads(kid, _COUNTER_BYTES), key))
        self._added.add(kid)

    def remove_key(self, kid: int) -> None:
        """Refuse frames with this key id from now on, for good; unknown ones are no error."""
        for head in header_heads(kid, _COUNTER_BYTES):
            self._heads.pop(head, None)

    def retire_before(self, epoch: int) -> None:
        """Refuse frames of every earlier epoch from now on, for good (SFRAME-11)."""
        for kid in [kid for kid in self._added if epoch_of(kid) < epoch]:
            self.remove_key(kid)
            self._added.remove(kid)
        self._first_epoch = max(self._first_epoch, epoch)

    def decrypt(self, data: bytes, clear_prefix: int) -> bytes:
        """Return the frame, clear prefix included, exactly as the peer encrypted it.

        Raises:
            RemoteProtocolError: BAD_FRAME_HEADER, UNKNOWN_FRAME_KEY, REPLAYED or NOT_AUTHENTIC.
                The frame must not be used in any way; the state is as it was.
        """
        try:
            size, counter_bits, mask, smallest, inline = HEADER_LAYOUTS[data[clear_prefix]]
            body = clear_prefix + size
            header = _from_bytes(data[clear_prefix:body])
            salt, decrypt, check, advance = self._heads[header >> counter_bits]
        except LookupError:
            raise _refusal(data, clear_prefix) from None
        ctr = header & mask | inline
        if ctr < smallest:  # SFRAME-03: a counter written longer than it needs
            raise RemoteProtocolError(Reason.BAD_FRAME_HEADER)
        check(ctr)
        prefix = data[:clear_prefix]
        nonce = (salt ^ ctr).to_bytes(_NONCE_BYTES)
        plain = decrypt(nonce, data[body:], data[clear_prefix:body] + prefix)
        advance(ctr)  # SFRAME-06: only what verified moves the window
        return prefix + plain


def _receiving_key(base_key: Secret, kid: int) -> _ReceivingKey:
    key, salt = derive_key_and_salt(base_key, kid)
    window = ReplayWindow(REPLAY_WINDOW)
    return _from_bytes(salt.expose()), AES256GCM(key).decrypt, window.check, window.advance


def _headers_and_nonces(kid: int, salt: Secret) -> Iterator[tuple[bytes, bytes]]:
    """Yield SFrame header and nonce of each counter once: 0, 1, ... `MAX_FRAMES` - 1.

    After the first block of 256 counters only the last byte of either changes within a block.
    """
    mixed = _from_bytes(salt.expose())
    for ctr in range(_BLOCK):
        yield encode_header(kid, ctr), (mixed ^ ctr).to_bytes(_NONCE_BYTES)
    ends = [(_BYTES[low], _BYTES[low ^ mixed & 0xFF]) for low in range(_BLOCK)]
    for block in range(_BLOCK, MAX_FRAMES, _BLOCK):
        head = encode_header(kid, block)[:-1]
        nonce_head = (mixed ^ block).to_bytes(_NONCE_BYTES)[:-1]
        for header_end, nonce_end in ends:
            yield head + header_end, nonce_head + nonce_end


def _refusal(data: bytes, clear_prefix: int) -> RemoteProtocolError:
    """Return why no key was found for a frame: its header is bad, or not one of a peer's keys."""
    try:
        _, ctr, _ = parse_header(data, clear_prefix)
    except RemoteProtocolError as error:
        return error
    bad = ctr >= MAX_FRAMES
    return RemoteProtocolError(Reason.BAD_FRAME_HEADER if bad else Reason.UNKNOWN_FRAME_KEY)
