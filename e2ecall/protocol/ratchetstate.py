"""State of one session's ratchet and how it begins (spec/ratchet.md, "State").

Immutable values, their start from PQXDH keys. Messages are `e2ecall.protocol.ratchet`, the
stored form is `e2ecall.protocol.ratchetstore`.
"""

from msgspec import Struct

from e2ecall.crypto.mlkem import KEMKeyPair
from e2ecall.crypto.x25519 import X25519KeyPair
from e2ecall.protocol.chains import ReceivingChain, SendingChain, step_root
from e2ecall.protocol.pqxdh import SessionKeys
from e2ecall.secret import Secret


class RatchetState(Struct, frozen=True):
    """One session's ratchet.

    ``dh_private`` and ``kem_seed`` belong to our last triple and live until the peer's next chain
    has authenticated; then ``dh_private`` is None and a DH step of ours is due. ``receiving``
    holds the peer's chains, newest first.
    """

    handshake_hash: bytes
    initiator: bool
    root_key: Secret
    dh_private: Secret | None
    kem_seed: Secret | None
    sending: SendingChain | None
    next_sending_header_key: Secret
    receiving: tuple[ReceivingChain, ...]
    next_receiving_header_key: Secret


class Step(Struct, frozen=True):
    """Fresh keys of one DH step of ours; no ``kem_secret`` in the initiator's first."""

    dh: X25519KeyPair
    kem: KEMKeyPair
    kem_secret: Secret | None
    kem_ciphertext: bytes

    @property
    def triple(self) -> bytes:
        """The keys as they stand in every header of the chain."""
        return self.dh.public + self.kem.public + self.kem_ciphertext


def initiator_state(keys: SessionKeys, signed_prekey: bytes, step: Step) -> RatchetState:
    """Begin as initiator, with the first DH step towards the responder's signed prekey."""
    dh = step.dh.exchange(signed_prekey)
    root_key, chain_key, next_header_key = step_root(keys.root_key, step.triple, dh, None)
    return RatchetState(
        handshake_hash=keys.handshake_hash,
        initiator=True,
        root_key=root_key,
        dh_private=step.dh.private,
        kem_seed=step.kem.seed,
        sending=SendingChain(step.triple, keys.initiator_header_key, chain_key, 0, 0),
        next_sending_header_key=next_header_key,
        receiving=(),
        next_receiving_header_key=keys.responder_header_key,
    )


def responder_state(keys: SessionKeys, signed_prekey: X25519KeyPair) -> RatchetState:
    """Begin as responder; the first message received takes the first step."""
    return RatchetState(
        handshake_hash=keys.handshake_hash,
        initiator=False,
        root_key=keys.root_key,
        dh_private=signed_prekey.private,
        kem_seed=None,
        sending=None,
        next_sending_header_key=keys.responder_header_key,
        receiving=(),
        next_receiving_header_key=keys.initiator_header_key,
    )
