"""The ratchet of spec/ratchet.md, written a second time: what the transcripts are made with."""

import hmac
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESGCMSIV

from spec.vectors.generator.mlkem import encapsulate
from spec.vectors.generator.primitives import (
    DH,
    KDF,
    decapsulate,
    dh_key,
    draw,
    gcm,
    gcm_siv,
    kem_key,
    labelled,
    u16,
    u32,
)

ZERO_NONCE = bytes(12)


def root_step(
    root: bytes, dh: bytes, kem: bytes | None, triple: bytes
) -> tuple[bytes, bytes, bytes]:
    """Return RK, chain key and next header key."""
    secrets = [dh] if kem is None else [dh, kem]
    out = KDF("ratchet step", root, secrets, [triple], 96)
    return out[:32], out[32:64], out[64:]


def chain_step(chain: bytes) -> tuple[bytes, bytes]:
    """Return chain key and message key."""
    out = hmac.digest(chain, labelled("ratchet chain"), "sha512")
    return out[:32], out[32:]


@dataclass(frozen=True)
class Step:
    """What is random about one DH step; ``m`` is the randomness of the encapsulation."""

    dh_private: bytes
    kem_seed: bytes
    m: bytes

    @classmethod
    def named(cls, name: str) -> "Step":
        """Draw a step."""
        return cls(draw(f"{name} dh"), draw(f"{name} kem", 64), draw(f"{name} m"))


@dataclass
class Sending:
    """A sending chain."""

    triple: bytes
    header_key: bytes
    chain_key: bytes
    n: int
    pn: int


@dataclass
class Receiving:
    """A receiving chain."""

    triple: bytes
    header_key: bytes
    chain_key: bytes
    n: int = 0
    skipped: dict[int, bytes] = field(default_factory=dict)


@dataclass
class Side:
    """One side of a session; its methods change it."""

    hh: bytes
    initiator: bool
    root: bytes
    dh_private: bytes | None
    kem_seed: bytes | None
    next_sending: bytes
    next_receiving: bytes
    sending: Sending | None = None
    receiving: list[Receiving] = field(default_factory=list)

    def direction(self, *, sending: bool) -> bytes:
        """0x01 from the initiator, 0x02 from the responder."""
        return b"\x01" if sending == self.initiator else b"\x02"

    def step(self, drawn: Step) -> bytes:
        """Begin a sending chain in answer to the newest receiving one; return its ciphertext."""
        newest = self.receiving[0].triple
        secret, ciphertext = encapsulate(768, newest[32:1216], drawn.m)
        triple = dh_key(drawn.dh_private) + kem_key(768, drawn.kem_seed) + ciphertext
        self.begin(drawn, triple, DH(drawn.dh_private, newest[:32]), secret)
        return ciphertext

    def begin(self, drawn: Step, triple: bytes, dh: bytes, kem: bytes | None) -> None:
        """Begin a sending chain with this triple."""
        pn = self.sending.n if self.sending else 0
        self.root, chain, next_key = root_step(self.root, dh, kem, triple)
        self.sending = Sending(triple, self.next_sending, chain, 0, pn)
        self.next_sending = next_key
        self.dh_private, self.kem_seed = drawn.dh_private, drawn.kem_seed

    def encrypt(self, nonce: bytes, plaintext: bytes) -> bytes:
        """Return the next message of the sending chain."""
        chain = self._sending()
        header = u32(chain.n) + u32(chain.pn) + chain.triple
        chain.chain_key, message_key = chain_step(chain.chain_key)
        chain.n += 1
        return self.seal(chain.header_key, message_key, nonce, header, plaintext)

    def lose(self, count: int) -> None:
        """Send messages that never arrive."""
        chain = self._sending()
        for _ in range(count):
            chain.chain_key, _ = chain_step(chain.chain_key)
        chain.n += count

    def seal(
        self, header_key: bytes, message_key: bytes, nonce: bytes, header: bytes, plaintext: bytes
    ) -> bytes:
        """Return a message with any header: a tester's, or a misbehaving peer's."""
        eh = gcm(header_key, nonce, header, self.hh + self.direction(sending=True))
        prefix = nonce + u16(len(eh)) + eh
        return prefix + gcm_siv(message_key, ZERO_NONCE, plaintext, self.hh + prefix)

    def decrypt(self, message: bytes) -> bytes:
        """Return the plaintext of a message that is in order by every requirement."""
        size = int.from_bytes(message[12:14])
        prefix, ciphertext = message[: 14 + size], message[14 + size :]
        header, chain = self._open_header(prefix)
        n, pn, triple = int.from_bytes(header[:4]), int.from_bytes(header[4:8]), header[8:]
        if chain is None:
            chain = self._next_chain(pn, triple)
        if n in chain.skipped:
            message_key = chain.skipped.pop(n)
        else:
            self._skip(chain, n)
            chain.chain_key, message_key = chain_step(chain.chain_key)
            chain.n += 1
        return AESGCMSIV(message_key).decrypt(ZERO_NONCE, ciphertext, self.hh + prefix)

    def _sending(self) -> Sending:
        if self.sending is None:
            raise ValueError("this side has no sending chain yet")
        return self.sending

    def _open_header(self, prefix: bytes) -> tuple[bytes, Receiving | None]:
        tries = [(chain.header_key, chain) for chain in self.receiving]
        candidates = [*tries[:1], (self.next_receiving, None), *tries[1:]]
        aad = self.hh + self.direction(sending=False)
        for key, chain in candidates:
            try:
                return AESGCM(key).decrypt(prefix[:12], prefix[14:], aad), chain
            except InvalidTag:
                continue
        raise ValueError("no header key opens the message")

    def _next_chain(self, pn: int, triple: bytes) -> Receiving:
        if self.receiving:
            self._skip(self.receiving[0], pn)
        if self.dh_private is None:
            raise ValueError("a next chain answers ours")
        dh = DH(self.dh_private, triple[:32])
        kem = None if self.kem_seed is None else decapsulate(768, self.kem_seed, triple[1216:])
        self.root, chain_key, next_key = root_step(self.root, dh, kem, triple)
        chain = Receiving(triple, self.next_receiving, chain_key)
        self.next_receiving = next_key
        self.dh_private = self.kem_seed = None
        self.receiving = [chain, *self.receiving][:5]
        return chain

    def _skip(self, chain: Receiving, n: int) -> None:
        while chain.n < n:
            chain.chain_key, chain.skipped[chain.n] = chain_step(chain.chain_key)
            chain.n += 1


@dataclass(frozen=True)
class Start:
    """What a session starts from: PQXDH's keys and the signed prekey."""

    hh: bytes
    root: bytes
    initiator_header_key: bytes
    responder_header_key: bytes
    signed_prekey_private: bytes

    def initiator(self, drawn: Step) -> Side:
        """Return the initiator, who took the first step: without a ciphertext."""
        keys = self.initiator_header_key, self.responder_header_key
        side = Side(self.hh, True, self.root, None, None, *keys)
        triple = dh_key(drawn.dh_private) + kem_key(768, drawn.kem_seed)
        dh = DH(drawn.dh_private, dh_key(self.signed_prekey_private))
        side.begin(drawn, triple, dh, None)
        return side

    def responder(self) -> Side:
        """Return the responder, who has received nothing."""
        keys = self.responder_header_key, self.initiator_header_key
        return Side(self.hh, False, self.root, self.signed_prekey_private, None, *keys)
