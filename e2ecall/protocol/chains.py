"""Chains and headers of the ratchet (spec/ratchet.md): key schedule, header layout, skipped keys.

Values and pure functions; which chain a message belongs to is decided in
`e2ecall.protocol.ratchet`.
"""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from e2ecall.crypto.aead import GCM_NONCE_BYTES, TAG_BYTES
from e2ecall.crypto.kdf import hmac_sha512, labelled_kdf
from e2ecall.crypto.mlkem import MLKEM768
from e2ecall.errors import Reason, RemoteProtocolError
from e2ecall.secret import Secret
from relay.wire.labels import labelled

MAX_SKIP: Final = 1_000
"""Messages that one message may skip: what a peer can make us compute."""

MAX_SKIPPED_KEYS: Final = 2_000
MAX_RECEIVING_CHAINS: Final = 5
SKIPPED_KEY_LIFETIME: Final = 7 * 86_400
MAX_MESSAGE_NUMBER: Final = 0xFFFF_FFFF

_KEY: Final = 32
_DH: Final = 32
_NUMBERS: Final = 8
_FIRST_TRIPLE: Final = _DH + MLKEM768.public_bytes
_FULL_TRIPLE: Final = _FIRST_TRIPLE + MLKEM768.ciphertext_bytes
_PREFIX: Final = GCM_NONCE_BYTES + 2
_CHAIN_LABEL: Final = labelled("ratchet chain")


class SkippedKey(Struct, frozen=True):
    """The key of a message that has not arrived, and when it is forgotten (Unix seconds)."""

    key: Secret
    expires: int


class SendingChain(Struct, frozen=True):
    """The chain we send on. ``triple`` is DH key || KEM key || KEM ciphertext; ``n`` is next."""

    triple: bytes
    header_key: Secret
    chain_key: Secret
    n: int
    previous_n: int


class ReceivingChain(Struct, frozen=True):
    """A chain of the peer; ``chain_key`` is None once the peer's next chain has begun."""

    triple: bytes
    header_key: Secret
    chain_key: Secret | None
    n: int
    skipped: Mapping[int, SkippedKey]

    def without(self, n: int) -> "ReceivingChain":
        """Return the chain with one skipped key used up."""
        rest = {number: key for number, key in self.skipped.items() if number != n}
        return replace(self, skipped=rest)

    def fresh(self, now: float) -> "ReceivingChain":
        """Return the chain without skipped keys whose time is over."""
        first = next(iter(self.skipped.values()), None)
        if first is None or first.expires > now:
            return self
        rest = {number: key for number, key in self.skipped.items() if key.expires > now}
        return replace(self, skipped=rest)


class Header(Struct, frozen=True):
    """``u32 n || u32 pn || triple``: number in the chain, length of the chain before, keys."""

    n: int
    previous_n: int
    triple: bytes

    def to_bytes(self) -> bytes:
        """Return the plaintext of the encrypted header."""
        return self.n.to_bytes(4) + self.previous_n.to_bytes(4) + self.triple

    @classmethod
    def from_bytes(cls, data: bytes) -> "Header":
        """Read a decrypted header.

        Raises:
            RemoteProtocolError: `Reason.MALFORMED`.
        """
        if len(data) not in (_NUMBERS + _FIRST_TRIPLE, _NUMBERS + _FULL_TRIPLE):
            raise RemoteProtocolError(Reason.MALFORMED)
        return cls(int.from_bytes(data[:4]), int.from_bytes(data[4:8]), data[_NUMBERS:])


def dh_key(triple: bytes) -> bytes:
    """Return the 32-byte X25519 key of a triple."""
    return triple[:_DH]


def kem_key(triple: bytes) -> bytes:
    """Return the 1184-byte ML-KEM-768 key of a triple."""
    return triple[_DH:_FIRST_TRIPLE]


def kem_ciphertext(triple: bytes) -> bytes:
    """Return the 1088-byte ciphertext of a triple, empty in the initiator's first chain."""
    return triple[_FIRST_TRIPLE:]


class Packet(Struct, frozen=True):
    """A ratchet message: ``nonce (12) || u16 length || encrypted header || ciphertext``."""

    prefix: bytes
    nonce: bytes
    header: bytes
    ciphertext: bytes

    @classmethod
    def from_bytes(cls, message: bytes) -> "Packet":
        """Split a message; ``prefix`` is all before the ciphertext, which is authenticated with it.

        Raises:
            RemoteProtocolError: `Reason.MALFORMED`.
        """
        end = _PREFIX + int.from_bytes(message[GCM_NONCE_BYTES:_PREFIX])
        if len(message) < end + TAG_BYTES:
            raise RemoteProtocolError(Reason.MALFORMED)
        nonce = message[:GCM_NONCE_BYTES]
        return cls(message[:end], nonce, message[_PREFIX:end], message[end:])


def packet_prefix(nonce: bytes, encrypted_header: bytes) -> bytes:
    """Return what stands before the ciphertext of a message."""
    return nonce + len(encrypted_header).to_bytes(2) + encrypted_header


def step_chain(chain_key: Secret) -> tuple[Secret, Secret]:
    """Return ``(next chain key, message key)``: the halves of one HMAC-SHA-512."""
    output = hmac_sha512(chain_key, _CHAIN_LABEL)
    return Secret(output[:_KEY]), Secret(output[_KEY:])


def step_root(
    root_key: Secret, triple: bytes, dh: Secret, kem: Secret | None
) -> tuple[Secret, Secret, Secret]:
    """Return ``(root key, chain key, next header key)`` of a hybrid DH step.

    RATCHET-03: both secrets and the keys that they come from enter the derivation.
    """
    output = labelled_kdf(
        "ratchet step",
        salt=root_key.expose(),
        secrets=(dh,) if kem is None else (dh, kem),
        context=(triple,),
        length=3 * _KEY,
    )
    return Secret(output[:_KEY]), Secret(output[_KEY : 2 * _KEY]), Secret(output[2 * _KEY :])


def skip_to(chain: ReceivingChain, n: int, *, now: float) -> ReceivingChain:
    """Return the chain advanced to message ``n``, keeping the keys of those before it."""
    if n == chain.n or chain.chain_key is None:
        return chain
    skipped = dict(chain.skipped)
    chain_key = chain.chain_key
    expires = int(now) + SKIPPED_KEY_LIFETIME
    for number in range(chain.n, n):
        chain_key, message_key = step_chain(chain_key)
        skipped[number] = SkippedKey(message_key, expires)
    return replace(chain, chain_key=chain_key, n=n, skipped=skipped)


def bounded(chains: tuple[ReceivingChain, ...], *, now: float) -> tuple[ReceivingChain, ...]:
    """Return newest-first chains within the limits: five, 2 000 skipped keys, none too old.

    RATCHET-09: what is over the limit goes from the oldest end. A past chain without skipped
    keys has nothing left to decrypt and goes too.
    """
    fresh = tuple(chain.fresh(now) for chain in chains[:MAX_RECEIVING_CHAINS])
    return within(fresh, MAX_SKIPPED_KEYS)


def within(chains: tuple[ReceivingChain, ...], room: int) -> tuple[ReceivingChain, ...]:
    """Return newest-first chains with at most ``room`` skipped keys, the newest."""
    kept: list[ReceivingChain] = []
    for index, chain in enumerate(chains):
        left = chain
        if len(chain.skipped) > room:
            newest = list(chain.skipped.items())[len(chain.skipped) - room :]
            left = replace(chain, skipped=dict(newest))
        room -= len(left.skipped)
        if index == 0 or left.skipped:
            kept.append(left)
    return tuple(kept)
