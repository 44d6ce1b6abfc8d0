"""The hybrid Double Ratchet (spec/ratchet.md), between two states and nothing else."""

import pytest
from msgspec.structs import replace

from e2ecall.crypto.aead import AES256GCM
from e2ecall.crypto.mlkem import MLKEM768
from e2ecall.crypto.x25519 import X25519KeyPair
from e2ecall.errors import LocalProtocolError, Reason, RemoteProtocolError
from e2ecall.protocol import ratchet
from e2ecall.protocol.chains import (
    MAX_RECEIVING_CHAINS,
    MAX_SKIPPED_KEYS,
    SKIPPED_KEY_LIFETIME,
    Header,
    Packet,
    dh_key,
    kem_ciphertext,
    packet_prefix,
)
from e2ecall.protocol.pqxdh import SessionKeys
from e2ecall.protocol.ratchet import decrypt, encrypt, generate_nonce, generate_step
from e2ecall.protocol.ratchetstate import initiator_state, responder_state
from e2ecall.secret import Secret

NOW = 1_800_000_000.0


class Side:
    """One side: sends and receives, and keeps what the ratchet returned."""

    def __init__(self, state):
        self.state = state
        self.now = NOW

    def send(self, text=b"x"):
        step = generate_step(self.state)
        self.state, message = encrypt(self.state, text, nonce=generate_nonce(), step=step)
        return message

    def receive(self, message):
        self.state, plaintext = decrypt(self.state, message, now=self.now)
        return plaintext

    def refuses(self, message) -> Reason:
        with pytest.raises(RemoteProtocolError) as refusal:
            decrypt(self.state, message, now=self.now)
        return refusal.value.reason


def start() -> tuple[Side, Side]:
    keys = SessionKeys(
        b"h" * 64, b"s" * 16, Secret(b"r" * 32), Secret(b"a" * 32), Secret(b"b" * 32)
    )
    signed_prekey = X25519KeyPair.generate()
    step = ratchet.generate_first_step()
    return (
        Side(initiator_state(keys, signed_prekey.public, step)),
        Side(responder_state(keys, signed_prekey)),
    )


@pytest.fixture
def sides():
    return start()


@pytest.fixture
def talking(sides):
    one, two = sides
    two.receive(one.send())
    one.receive(two.send())
    return one, two


def forged(side: Side, header_key: Secret, header: Header) -> bytes:
    """Return a message with a header of the peer's choice, as only the real peer can make it."""
    direction = b"\x01" if side.state.initiator else b"\x02"
    nonce = generate_nonce()
    encrypted = AES256GCM(header_key).encrypt(
        nonce, header.to_bytes(), side.state.handshake_hash + direction
    )
    return packet_prefix(nonce, encrypted) + bytes(32)


def test_conversation(sides):
    """RATCHET-01: messages decrypt in both directions over many DH steps."""
    one, two = sides
    for turn in range(5):
        for n in range(3):
            assert two.receive(one.send(b"%d.%d" % (turn, n))) == b"%d.%d" % (turn, n)
        assert one.receive(two.send(b"reply %d" % turn)) == b"reply %d" % turn


def test_every_step_is_hybrid(talking):
    """RATCHET-03: each step has fresh X25519 and KEM keys, and a ciphertext but for the first."""
    one, two = talking
    first = two.state.receiving[0].triple
    assert kem_ciphertext(first) == b""
    two.receive(one.send())
    second = two.state.receiving[0].triple
    assert len(kem_ciphertext(second)) == MLKEM768.ciphertext_bytes
    assert len(kem_ciphertext(one.state.receiving[0].triple)) == MLKEM768.ciphertext_bytes
    assert dh_key(first) != dh_key(second)


def test_kem_secret_enters_the_root_key(talking):
    """RATCHET-03: with the X25519 secrets alone the chain cannot be followed."""
    one, two = talking
    message = one.send()
    blind = replace(two.state, kem_seed=MLKEM768.generate().seed)
    assert Side(blind).refuses(message) is Reason.NOT_AUTHENTIC
    blind = replace(two.state, dh_private=X25519KeyPair.generate().private)
    assert Side(blind).refuses(message) is Reason.NOT_AUTHENTIC
    two.receive(message)


def test_headers_are_encrypted(talking):
    """RATCHET-02: no key and no counter of the header stands in the message."""
    one, _ = talking
    message = one.send()
    triple = one.state.sending.triple
    assert dh_key(triple) not in message
    assert kem_ciphertext(triple)[:16] not in message


def test_decapsulation_key_lifetime(talking):
    """RATCHET-04: private keys of a chain live until the peer's next chain authenticated."""
    one, two = talking
    before = one.send()
    seed = one.state.kem_seed
    assert seed is not None
    two.receive(before)
    reply = two.send()
    damaged = reply[:-1] + bytes([reply[-1] ^ 1])
    assert one.refuses(damaged) is Reason.NOT_AUTHENTIC
    assert one.state.kem_seed == seed
    one.receive(reply)
    assert one.state.kem_seed is None
    assert one.state.dh_private is None


def test_triple_repeats(talking):
    """RATCHET-05: another triple under the same header key or DH key is refused."""
    one, two = talking
    two.receive(one.send())
    chain = one.state.sending
    other = MLKEM768.generate().public
    altered = chain.triple[:32] + other + chain.triple[32 + len(other) :]
    message = forged(one, chain.header_key, Header(1, chain.previous_n, altered))
    assert two.refuses(message) is Reason.CHAIN_MISMATCH
    one.receive(two.send())
    message = forged(one, one.state.next_sending_header_key, Header(0, 1, altered))
    assert two.refuses(message) is Reason.CHAIN_MISMATCH


def test_r12_step_without_kem(talking):
    """R12: a later step without KEM ciphertext is refused; there is no classical fallback."""
    one, two = talking
    two.receive(one.send())
    one.receive(two.send())
    bare = X25519KeyPair.generate().public + MLKEM768.generate().public
    message = forged(one, one.state.next_sending_header_key, Header(0, 1, bare))
    assert two.refuses(message) is Reason.CHAIN_MISMATCH


@pytest.mark.parametrize("n", [1, 7])
def test_r12_first_step_with_kem(sides, n):
    """R12: the first step has no ciphertext, and nothing before it."""
    one, two = sides
    full = one.state.sending.triple + bytes(MLKEM768.ciphertext_bytes)
    assert two.refuses(forged(one, one.state.sending.header_key, Header(0, 0, full))) is (
        Reason.CHAIN_MISMATCH
    )
    header = Header(0, n, one.state.sending.triple)
    assert two.refuses(forged(one, one.state.sending.header_key, header)) is (Reason.CHAIN_MISMATCH)


def test_p3_bad_keys_in_step(talking):
    """P3: a step with a low-order point or a bad KEM key is refused, the state unchanged."""
    one, two = talking
    two.receive(one.send())
    one.receive(two.send())
    key = one.state.next_sending_header_key
    good = one.state.sending.triple
    for triple, reason in (
        (bytes(32) + good[32:], Reason.BAD_POINT),
        (X25519KeyPair.generate().public + b"\xff" * 1184 + good[1216:], Reason.BAD_KEM_KEY),
        (X25519KeyPair.generate().public + good[32:], Reason.NOT_AUTHENTIC),
    ):
        assert two.refuses(forged(one, key, Header(0, 1, triple))) is reason
    two.receive(one.send())


def test_any_flipped_bit(talking):
    """RATCHET-06: a changed byte anywhere, or a shorter tag, is refused (R12)."""
    one, two = talking
    message = one.send(b"text")
    for position in (0, 11, 12, 13, 14, 100, len(message) - 17, len(message) - 1):
        damaged = bytearray(message)
        damaged[position] ^= 1
        assert two.refuses(bytes(damaged)) in (Reason.NOT_AUTHENTIC, Reason.MALFORMED)
    for length in (0, 5, 13, 40, len(message) - 4, len(message) - 1):
        assert two.refuses(message[:length]) in (Reason.NOT_AUTHENTIC, Reason.MALFORMED)
    assert two.receive(message) == b"text"


def test_r6_reflection(talking):
    """R6: a message that comes back to its sender is refused, in every phase."""
    one, two = talking
    for side in (one, two, one):
        assert side.refuses(side.send()) is Reason.NOT_AUTHENTIC


def test_r6_direction_label(sides):
    """RATCHET-07: even under the same header key a header of the other direction fails."""
    one, _ = sides
    mirror = replace(one.state, next_receiving_header_key=one.state.sending.header_key)
    assert Side(mirror).refuses(one.send()) is Reason.NOT_AUTHENTIC


def test_duplicate(talking):
    """RATCHET-08: each message decrypts once, also when it was a skipped one."""
    one, two = talking
    first, second = one.send(), one.send()
    two.receive(second)
    assert two.refuses(second) is Reason.REPLAYED
    two.receive(first)
    assert two.refuses(first) is Reason.REPLAYED


def test_p4_far_number(talking):
    """P4: number 2^32-1 is refused before any work, and honest skipped keys survive."""
    one, two = talking
    held, shown = one.send(b"held"), one.send()
    two.receive(shown)
    chain = one.state.sending
    for n in (0xFFFF_FFFF, 2 + 1001):
        far = forged(one, chain.header_key, Header(n, chain.previous_n, chain.triple))
        assert two.refuses(far) is Reason.TOO_MANY_SKIPPED
    assert two.receive(held) == b"held"


def test_p4_far_previous_number(talking):
    """P4: so is a long former chain; the skips of both chains count together."""
    one, two = talking
    two.receive(one.send())
    one.receive(two.send())
    key, triple = one.state.next_sending_header_key, one.state.sending.triple
    triple = X25519KeyPair.generate().public + triple[32:]
    for n, previous in ((0, 0xFFFF_FFFF), (0, 1002), (501, 502)):
        assert two.refuses(forged(one, key, Header(n, previous, triple))) is (
            Reason.TOO_MANY_SKIPPED
        )
    assert two.refuses(forged(one, key, Header(0, 0, triple))) is Reason.CHAIN_MISMATCH


def test_p4_largest_skip(talking):
    """RATCHET-08: exactly 1 000 skipped messages are accepted, and each still decrypts."""
    one, two = talking
    held = [one.send(b"%d" % n) for n in range(1000)]
    two.receive(one.send())
    assert len(two.state.receiving[0].skipped) == 1000
    assert two.receive(held[0]) == b"0"
    assert two.receive(held[999]) == b"999"


def test_p4_skipped_keys_are_bounded(talking):
    """RATCHET-09: of more than 2 000 skipped keys the oldest go; the newer ones survive."""
    one, two = talking
    held = []
    for _ in range(3):
        held.extend(one.send() for _ in range(900))
        two.receive(one.send())
    total = sum(len(chain.skipped) for chain in two.state.receiving)
    assert total == MAX_SKIPPED_KEYS
    assert two.refuses(held[0]) is Reason.REPLAYED
    two.receive(held[-2000])
    two.receive(held[-1])


def test_p4_receiving_chains_are_bounded(talking):
    """RATCHET-09: five receiving chains are kept; a message of an older one is refused."""
    one, two = talking
    held = []
    for _ in range(7):
        held.append(one.send())
        two.receive(one.send())
        one.receive(two.send())
    assert len(two.state.receiving) == MAX_RECEIVING_CHAINS
    assert two.refuses(held[1]) is Reason.NOT_AUTHENTIC
    two.receive(held[2])
    two.receive(held[6])


def test_skipped_keys_die(talking):
    """RATCHET-10: a skipped key is gone after seven days."""
    one, two = talking
    early, later = one.send(), one.send()
    two.receive(one.send())
    two.now = NOW + SKIPPED_KEY_LIFETIME - 1
    two.receive(early)
    two.now = NOW + SKIPPED_KEY_LIFETIME
    assert two.refuses(later) is Reason.REPLAYED
    assert not ratchet.without_expired(two.state, now=two.now).receiving[0].skipped


def test_misuse(sides):
    """A responder cannot send first, and a step goes exactly with the message that needs it."""
    one, two = sides
    with pytest.raises(LocalProtocolError):
        encrypt(two.state, b"", nonce=bytes(12), step=None)
    with pytest.raises(LocalProtocolError):
        encrypt(one.state, b"", nonce=bytes(12), step=ratchet.generate_first_step())
    two.receive(one.send())
    with pytest.raises(LocalProtocolError):
        encrypt(two.state, b"", nonce=bytes(12), step=None)


def test_deterministic(talking):
    """Given nonce and step, encrypting and decrypting draw no randomness."""
    one, two = talking
    step = generate_step(one.state)
    first = encrypt(one.state, b"x", nonce=bytes(12), step=step)
    assert first == encrypt(one.state, b"x", nonce=bytes(12), step=step)
    assert decrypt(two.state, first[1], now=NOW) == decrypt(two.state, first[1], now=NOW)


def test_packet_layout(talking):
    """RATCHET-02: a message is nonce, length, encrypted header, ciphertext, in this order."""
    one, _ = talking
    message = one.send(b"12345")
    packet = Packet.from_bytes(message)
    assert message == packet.nonce + len(packet.header).to_bytes(2) + packet.header + (
        packet.ciphertext
    )
    assert len(packet.header) == 8 + 32 + 1184 + 1088 + 16
    assert len(packet.ciphertext) == 5 + 16


def test_p4_far_first_message(sides):
    """P4: the first message of all may be the 1 001st, and no later one."""
    one, two = sides
    chain = one.state.sending
    far = forged(one, chain.header_key, Header(1_001, 0, chain.triple))
    assert two.refuses(far) is Reason.TOO_MANY_SKIPPED
    for _ in range(1_000):
        one.send()
    assert two.receive(one.send(b"1 001st")) == b"1 001st"


def test_step_out_of_turn(talking):
    """RATCHET-04: a peer's next chain answers ours; before ours began there is none."""
    one, two = talking
    two.receive(one.send())
    fresh = X25519KeyPair.generate().public + one.state.sending.triple[32:]
    message = forged(one, one.state.next_sending_header_key, Header(0, 1, fresh))
    assert two.refuses(message) is Reason.CHAIN_MISMATCH


@pytest.mark.parametrize("length", [0, 1215, 1217, 2303, 2305])
def test_header_of_another_length(talking, length):
    """RATCHET-02: an authentic header of another length than the two is malformed."""
    one, two = talking
    two.receive(one.send())
    message = forged(one, one.state.sending.header_key, Header(0, 0, bytes(length)))
    assert two.refuses(message) is Reason.MALFORMED
