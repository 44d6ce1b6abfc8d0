"""The hybrid Double Ratchet with header encryption (spec/ratchet.md).

Signal's Double Ratchet, revision 4, section 4, where every DH step also carries an ML-KEM-768
exchange. States are immutable: `encrypt` and `decrypt` return the next one, so a refusal changes
nothing. Storing the state before a message leaves is the caller's duty.
"""

from typing import Final

from msgspec.structs import replace

from e2ecall.crypto.aead import AES256GCM, AES256GCMSIV, GCM_NONCE_BYTES
from e2ecall.crypto.mlkem import MLKEM768
from e2ecall.crypto.random import generate_bytes
from e2ecall.crypto.x25519 import X25519KeyPair, exchange
from e2ecall.errors import LocalProtocolError, Reason, RemoteProtocolError
from e2ecall.protocol.chains import (
    MAX_MESSAGE_NUMBER,
    MAX_SKIP,
    Header,
    Packet,
    ReceivingChain,
    SendingChain,
    bounded,
    dh_key,
    kem_ciphertext,
    kem_key,
    packet_prefix,
    skip_to,
    step_chain,
    step_root,
    within,
)
from e2ecall.protocol.ratchetstate import RatchetState, Step
from e2ecall.secret import Secret

_PAYLOAD_NONCE: Final = bytes(GCM_NONCE_BYTES)
"""Each message key encrypts one message, so its nonce can be constant (RATCHET-06)."""

_FROM_INITIATOR: Final = b"\x01"
_FROM_RESPONDER: Final = b"\x02"


def generate_first_step() -> Step:
    """Draw the initiator's first step, which goes to the signed prekey alone."""
    return Step(X25519KeyPair.generate(), MLKEM768.generate(), None, b"")


def generate_step(state: RatchetState) -> Step | None:
    """Draw a step where one is due before the next message, else return None."""
    if state.dh_private is not None:
        return None
    kem_secret, ciphertext = MLKEM768.encapsulate(kem_key(state.receiving[0].triple))
    return Step(X25519KeyPair.generate(), MLKEM768.generate(), kem_secret, ciphertext)


def generate_nonce() -> bytes:
    """Draw the header nonce of one message."""
    return generate_bytes(GCM_NONCE_BYTES)


def encrypt(
    state: RatchetState, plaintext: bytes, *, nonce: bytes, step: Step | None
) -> tuple[RatchetState, bytes]:
    """Return the next state and a message; ``step`` is what `generate_step` gave.

    Store the state before the message leaves.

    Raises:
        LocalProtocolError: nothing was received yet, or the chain is exhausted.
    """
    if (step is None) is (state.dh_private is None):
        raise LocalProtocolError("a DH step belongs to the first message after a received chain")
    if step is not None:
        state = _take_step(state, step)
    chain = state.sending
    if chain is None or chain.n > MAX_MESSAGE_NUMBER:
        raise LocalProtocolError("this session cannot send: start a new one")
    header = Header(chain.n, chain.previous_n, chain.triple).to_bytes()
    aad = state.handshake_hash + _direction(state, sending=True)
    prefix = packet_prefix(nonce, AES256GCM(chain.header_key).encrypt(nonce, header, aad))
    chain_key, message_key = step_chain(chain.chain_key)
    ciphertext = AES256GCMSIV(message_key).encrypt(
        _PAYLOAD_NONCE, plaintext, state.handshake_hash + prefix
    )
    chain = SendingChain(chain.triple, chain.header_key, chain_key, chain.n + 1, chain.previous_n)
    return replace(state, sending=chain), prefix + ciphertext


def decrypt(state: RatchetState, message: bytes, *, now: float) -> tuple[RatchetState, bytes]:
    """Return the next state and the plaintext.

    Raises:
        RemoteProtocolError: `MALFORMED`, `NOT_AUTHENTIC`, `REPLAYED`, `TOO_MANY_SKIPPED`,
            `CHAIN_MISMATCH`, `BAD_POINT` or `BAD_KEM_KEY`.
    """
    packet = Packet.from_bytes(message)
    aad = state.handshake_hash + _direction(state, sending=False)
    current, *past = state.receiving or (None,)
    if current is not None:
        header = _open_header(current.header_key, packet, aad)
        if header is not None:
            return _decrypt_in_current(state, current, header, packet, now)
    header = _open_header(state.next_receiving_header_key, packet, aad)
    if header is not None:
        return _decrypt_in_next(state, header, packet, now)
    for chain in past:
        header = _open_header(chain.header_key, packet, aad)
        if header is not None:
            _check_triple(chain, header)
            return _decrypt_skipped(state, chain, header.n, packet, now)
    raise RemoteProtocolError(Reason.NOT_AUTHENTIC)


def without_expired(state: RatchetState, *, now: float) -> RatchetState:
    """Return the state without skipped keys that are older than seven days."""
    return replace(state, receiving=bounded(state.receiving, now=now))


def skipped_count(state: RatchetState) -> int:
    """Return how many skipped keys are kept."""
    return sum(len(chain.skipped) for chain in state.receiving)


def within_room(state: RatchetState, room: int) -> RatchetState:
    """Return the state with at most ``room`` skipped keys, the newest."""
    return replace(state, receiving=within(state.receiving, room))


def _take_step(state: RatchetState, step: Step) -> RatchetState:
    """Begin our next sending chain in answer to the peer's newest."""
    previous_n = 0 if state.sending is None else state.sending.n
    dh = step.dh.exchange(dh_key(state.receiving[0].triple))
    root_key, chain_key, next_header_key = step_root(
        state.root_key, step.triple, dh, step.kem_secret
    )
    return replace(
        state,
        root_key=root_key,
        dh_private=step.dh.private,
        kem_seed=step.kem.seed,
        sending=SendingChain(step.triple, state.next_sending_header_key, chain_key, 0, previous_n),
        next_sending_header_key=next_header_key,
    )


def _decrypt_in_current(
    state: RatchetState, chain: ReceivingChain, header: Header, packet: Packet, now: float
) -> tuple[RatchetState, bytes]:
    _check_triple(chain, header)
    if header.n < chain.n:
        return _decrypt_skipped(state, chain, header.n, packet, now)
    # RATCHET-08: the bound comes before the work.
    if header.n - chain.n > MAX_SKIP:
        raise RemoteProtocolError(Reason.TOO_MANY_SKIPPED)
    skipping = header.n != chain.n
    chain, plaintext = _open_next(skip_to(chain, header.n, now=now), state, packet)
    receiving = (chain, *state.receiving[1:])
    if skipping or len(receiving) > 1 or chain.skipped:
        receiving = bounded(receiving, now=now)
    return replace(state, receiving=receiving), plaintext


def _decrypt_in_next(
    state: RatchetState, header: Header, packet: Packet, now: float
) -> tuple[RatchetState, bytes]:
    """The peer's DH step: close its current chain at ``pn``, derive and use the next one."""
    # RATCHET-05: another triple under an X25519 key that was seen is refused.
    if any(dh_key(chain.triple) == dh_key(header.triple) for chain in state.receiving):
        raise RemoteProtocolError(Reason.CHAIN_MISMATCH)
    closed = _close_current(state, header, now)
    dh, kem = _peer_secrets(state, header.triple)
    root_key, chain_key, next_header_key = step_root(state.root_key, header.triple, dh, kem)
    chain = ReceivingChain(header.triple, state.next_receiving_header_key, chain_key, 0, skipped={})
    chain, plaintext = _open_next(skip_to(chain, header.n, now=now), state, packet)
    advanced = replace(
        state,
        root_key=root_key,
        dh_private=None,
        kem_seed=None,
        receiving=bounded((chain, *closed), now=now),
        next_receiving_header_key=next_header_key,
    )
    return advanced, plaintext


def _close_current(state: RatchetState, header: Header, now: float) -> tuple[ReceivingChain, ...]:
    """Return the peer's former chains, the last of them completed up to ``pn``."""
    if not state.receiving:
        if header.previous_n != 0:
            raise RemoteProtocolError(Reason.CHAIN_MISMATCH)
        if header.n > MAX_SKIP:
            raise RemoteProtocolError(Reason.TOO_MANY_SKIPPED)
        return ()
    current = state.receiving[0]
    if header.previous_n < current.n:
        raise RemoteProtocolError(Reason.CHAIN_MISMATCH)
    if header.previous_n - current.n + header.n > MAX_SKIP:
        raise RemoteProtocolError(Reason.TOO_MANY_SKIPPED)
    completed = skip_to(current, header.previous_n, now=now)
    return (replace(completed, chain_key=None), *state.receiving[1:])


def _peer_secrets(state: RatchetState, triple: bytes) -> tuple[Secret, Secret | None]:
    if state.dh_private is None:
        # A next chain answers ours, and ours has not begun.
        raise RemoteProtocolError(Reason.CHAIN_MISMATCH)
    ciphertext = kem_ciphertext(triple)
    # RATCHET-04: a step without ciphertext exists once, towards the signed prekey.
    if bool(ciphertext) != (state.kem_seed is not None):
        raise RemoteProtocolError(Reason.CHAIN_MISMATCH)
    MLKEM768.check_public_key(kem_key(triple))
    dh = exchange(state.dh_private, dh_key(triple))
    if state.kem_seed is None:
        return dh, None
    return dh, MLKEM768.decapsulate(state.kem_seed, ciphertext)


def _decrypt_skipped(
    state: RatchetState, chain: ReceivingChain, n: int, packet: Packet, now: float
) -> tuple[RatchetState, bytes]:
    skipped = chain.skipped.get(n)
    if skipped is None or skipped.expires <= now:
        raise RemoteProtocolError(Reason.REPLAYED)
    plaintext = _open_payload(skipped.key, state, packet)
    receiving = tuple(other.without(n) if other is chain else other for other in state.receiving)
    return replace(state, receiving=bounded(receiving, now=now)), plaintext


def _open_next(
    chain: ReceivingChain, state: RatchetState, packet: Packet
) -> tuple[ReceivingChain, bytes]:
    """Decrypt with the chain's next message key."""
    assert chain.chain_key is not None  # only past chains have none
    chain_key, message_key = step_chain(chain.chain_key)
    plaintext = _open_payload(message_key, state, packet)
    advanced = ReceivingChain(chain.triple, chain.header_key, chain_key, chain.n + 1, chain.skipped)
    return advanced, plaintext


def _open_payload(message_key: Secret, state: RatchetState, packet: Packet) -> bytes:
    aad = state.handshake_hash + packet.prefix
    return AES256GCMSIV(message_key).decrypt(_PAYLOAD_NONCE, packet.ciphertext, aad)


def _open_header(header_key: Secret, packet: Packet, aad: bytes) -> Header | None:
    """Return the header if this key encrypted it."""
    try:
        data = AES256GCM(header_key).decrypt(packet.nonce, packet.header, aad)
    except RemoteProtocolError:
        return None
    return Header.from_bytes(data)


def _check_triple(chain: ReceivingChain, header: Header) -> None:
    """RATCHET-05: the triple repeats unchanged in every header of its chain."""
    if header.triple != chain.triple:
        raise RemoteProtocolError(Reason.CHAIN_MISMATCH)


def _direction(state: RatchetState, *, sending: bool) -> bytes:
    """RATCHET-07: a direction is part of what each header authenticates."""
    return _FROM_INITIATOR if sending == state.initiator else _FROM_RESPONDER
