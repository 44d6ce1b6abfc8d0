"""DoubleRatchet with X3DH and one-time prekeys, set up as their documentation recommends.

Not hybrid, headers in clear, and of all keys only the signed prekey is verified.
"""

import doubleratchet
import x3dh
from doubleratchet.recommended import (
    HashFunction,
    aead_aes_hmac,
    diffie_hellman_ratchet_curve25519,
    kdf_hkdf,
    kdf_separate_hmacs,
)

from tests.bench.others import TEXT, Conversation, Library, conversation_of, finish

MAX_SKIP = 1_000


class State(x3dh.BaseState):
    @staticmethod
    def _encode_public_key(key_format, pub):
        return bytes([key_format is x3dh.IdentityKeyFormat.ED_25519]) + pub


class Ratchet(doubleratchet.DoubleRatchet):
    @staticmethod
    def _build_associated_data(associated_data, header):
        numbers = header.sending_chain_length, header.previous_sending_chain_length
        return associated_data + header.ratchet_pub + b"".join(n.to_bytes(4) for n in numbers)


class RootKDF(kdf_hkdf.KDF):
    @staticmethod
    def _get_hash_function():
        return HashFunction.SHA_512

    @staticmethod
    def _get_info():
        return b"bench root"


class ChainKDF(kdf_separate_hmacs.KDF):
    @staticmethod
    def _get_hash_function():
        return HashFunction.SHA_256


class AEAD(aead_aes_hmac.AEAD):
    @staticmethod
    def _get_hash_function():
        return HashFunction.SHA_512

    @staticmethod
    def _get_info():
        return b"bench message"


chosen = {
    "diffie_hellman_ratchet_class": diffie_hellman_ratchet_curve25519.DiffieHellmanRatchet,
    "root_chain_kdf": RootKDF,
    "message_chain_kdf": ChainKDF,
    "message_chain_constant": b"\x01\x02",
    "dos_protection_threshold": MAX_SKIP,
    "max_num_skipped_message_keys": MAX_SKIP,
    "aead": AEAD,
}


def state():
    ed25519, sha512 = x3dh.IdentityKeyFormat.ED_25519, x3dh.HashFunction.SHA_512
    made = State.create(ed25519, sha512, b"bench")
    made.generate_pre_keys(1)
    return made


async def begin(one, other, bundle):
    secret, data, header = await one.get_shared_secret_active(bundle)
    sender, message = await Ratchet.encrypt_initial_message(
        **chosen,
        shared_secret=secret,
        recipient_ratchet_pub=bundle.signed_pre_key,
        message=TEXT,
        associated_data=data,
    )
    secret, data, signed = await other.get_shared_secret_passive(header)
    receiver, plaintext = await Ratchet.decrypt_initial_message(
        **chosen,
        shared_secret=secret,
        own_ratchet_priv=signed.priv,
        message=message,
        associated_data=data,
    )
    assert plaintext == TEXT
    return sender, receiver


async def pass_on(sender, receiver):
    message = await sender.encrypt_message(TEXT, b"data")
    assert await receiver.decrypt_message(message, b"data") == TEXT


def handshake():
    one, other = state(), state()
    bundle = other.bundle
    return lambda: finish(begin(one, other, bundle))


def conversation() -> Conversation:
    ends = list(handshake()())
    finish(pass_on(*reversed(ends)))
    return conversation_of(ends, lambda *turn: finish(pass_on(*turn)))


LIBRARY = Library("DoubleRatchet, X3DH", handshake, conversation)
