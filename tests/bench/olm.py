"""vodozemac: Olm in Rust, 3DH with a one-time key. Not hybrid, and nothing is signed."""

from vodozemac import Account, AnyOlmMessage

from tests.bench.others import TEXT, Conversation, Library, conversation_of


def first(one, other, one_time):
    sender = one.create_outbound_session(other.curve25519_key, one_time)
    parts = sender.encrypt(TEXT).to_parts()
    message = AnyOlmMessage.from_parts(*parts).to_pre_key()
    receiver, plaintext = other.create_inbound_session(one.curve25519_key, message)
    assert plaintext == TEXT
    return sender, receiver


def pass_on(sender, receiver):
    parts = sender.encrypt(TEXT).to_parts()
    assert receiver.decrypt(AnyOlmMessage.from_parts(*parts)) == TEXT


def handshake():
    one, other = Account(), Account()
    other.generate_one_time_keys(1)
    (one_time,) = other.one_time_keys.values()
    return lambda: first(one, other, one_time)


def conversation() -> Conversation:
    ends = list(handshake()())
    pass_on(*reversed(ends))
    return conversation_of(ends, pass_on)


LIBRARY = Library("vodozemac (Rust)", handshake, conversation)
