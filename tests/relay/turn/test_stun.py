"""The message codec against published vectors, captured messages and another implementation."""

import hashlib
import ipaddress

import aioice.stun
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.turn.attributes import AttributeType as Type
from relay.turn.attributes import (
    TransportAddress,
    decode_xor_address,
    encode_xor_address,
    unknown_attributes,
)
from relay.turn.auth import long_term_key
from relay.turn.errors import STUNError
from relay.turn.stun import (
    MAX_ATTRIBUTES,
    MessageClass,
    Method,
    encode_message,
    parse_message,
)

TRANSACTION_ID = bytes(range(12))
USERNAME = (Type.USERNAME, b"1800003600:abc")


def example(**options):
    attributes = [USERNAME, (Type.REALM, b"e2ecall"), (Type.NONCE, b"n" * 20)]
    return encode_message(
        Method.REFRESH, MessageClass.REQUEST, TRANSACTION_ID, attributes, **options
    )


def with_attributes(data, *attributes):
    """Append raw attributes to a message and put its length right."""
    body = data[20:] + b"".join(
        kind.to_bytes(2) + len(value).to_bytes(2) + value + bytes(-len(value) % 4)
        for kind, value in attributes
    )
    return data[:2] + len(body).to_bytes(2) + data[4:20] + body


# Published vectors.


@pytest.mark.parametrize("section", ["2.1", "2.2", "2.3"])
def test_rfc5769_short_term(rfc5769, section):
    """The RFC 5769 samples parse, and their MESSAGE-INTEGRITY verifies (TURN-01, TURN-03)."""
    vector = rfc5769[section]
    message = parse_message(bytes.fromhex(vector["hex"]))
    message.verify_integrity(vector["password"].encode())
    assert message.has_fingerprint
    if "mapped_address" in vector:
        mapped = decode_xor_address(message.first(Type.XOR_MAPPED_ADDRESS), message.transaction_id)
        expected = ipaddress.ip_address(vector["mapped_address"]).packed
        assert mapped == TransportAddress(expected, vector["mapped_port"])
    with pytest.raises(STUNError):
        message.verify_integrity(b"another key")


def test_rfc5769_long_term(rfc5769):
    """The long-term sample of RFC 5769 section 2.4 verifies under our key derivation (TURN-03)."""
    vector = rfc5769["2.4"]
    message = parse_message(bytes.fromhex(vector["hex"]))
    key = long_term_key(
        vector["username_after_saslprep"], vector["realm"], vector["password_after_saslprep"]
    )
    message.verify_integrity(key)
    assert message.first(Type.NONCE) == vector["nonce"].encode()


def test_captured_messages_parse(captured):
    """What browsers and other implementations really sent is understood (TURN-01)."""
    stun = [data for data in captured.values() if data[0] < 0x40]
    assert len(stun) > 20
    for data in stun:
        assert parse_message(data).transaction_id == data[8:20]


# Malformed input: attack line M4.


def parses_or_refuses(data):
    try:
        return parse_message(data)
    except STUNError:
        return None


def test_truncations_are_refused(captured):
    """M4: every proper prefix of every captured message is our own error (TURN-02)."""
    for data in captured.values():
        for length in range(len(data)):
            with pytest.raises(STUNError):
                parse_message(data[:length])


def test_bit_flips_are_refused_or_read(captured):
    """M4: a flipped bit gives a message or our own error, and with FINGERPRINT an error.

    TURN-02.
    """
    for data in captured.values():
        for bit in range(min(len(data), 200) * 8):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            message = parses_or_refuses(bytes(flipped))
            if message is not None:
                assert not message.has_fingerprint


def test_fuzz_corpus(fuzz_corpus):
    """M4: inputs that upset other parsers give a message or our own error (TURN-02)."""
    assert fuzz_corpus
    for data in fuzz_corpus:
        parses_or_refuses(data)
        parses_or_refuses(data[:2] + (len(data) - 20).to_bytes(2, signed=True) + data[4:])


@given(st.binary(max_size=120))
def test_any_attribute_bytes(body):
    """M4: any bytes behind a sound header give a message or our own error (TURN-02)."""
    header = example()[:2] + len(body).to_bytes(2) + example()[4:20]
    parses_or_refuses(header + body)


def test_attribute_bomb():
    """M4: more than MAX_ATTRIBUTES attributes are refused (TURN-02)."""
    fits = [(0x8055, b"")] * MAX_ATTRIBUTES
    bare = encode_message(Method.BINDING, MessageClass.REQUEST, TRANSACTION_ID, fits)
    assert len(parse_message(bare).attributes) == MAX_ATTRIBUTES
    with pytest.raises(STUNError):
        parse_message(with_attributes(bare, (0x8055, b"")))


@pytest.mark.parametrize(
    "attribute", [(0x0008, bytes(19)), (0x0008, bytes(21)), (0x8028, bytes(8))]
)
def test_wrong_lengths(attribute):
    """M4: a MESSAGE-INTEGRITY or FINGERPRINT of another length is refused (TURN-02)."""
    with pytest.raises(STUNError):
        parse_message(with_attributes(example(), attribute))


def test_fingerprint_must_be_last():
    """An attribute after FINGERPRINT is refused (TURN-02)."""
    with pytest.raises(STUNError):
        parse_message(with_attributes(example(fingerprint=True), USERNAME))


def test_padding_content_is_ignored():
    """Padding may hold anything, as RFC 8489 section 14 wants (TURN-01)."""
    data = bytearray(
        encode_message(Method.BINDING, MessageClass.REQUEST, TRANSACTION_ID, [(0x8022, b"abc")])
    )
    data[-1] = 0xFF
    assert parse_message(bytes(data)).first(0x8022) == b"abc"


# What counts and what does not.


def test_attributes_after_integrity_are_ignored():
    """Attributes behind MESSAGE-INTEGRITY change nothing (TURN-04)."""
    data = with_attributes(example(key=b"key"), (Type.LIFETIME, bytes(4)), (0x0001, b"????"))
    message = parse_message(data)
    message.verify_integrity(b"key")
    assert message.first(Type.LIFETIME) is None
    assert unknown_attributes(message) == ()


def test_first_of_several_counts():
    """Of a repeated attribute the first counts (TURN-01)."""
    attributes = [(Type.LIFETIME, b"\0\0\0\1"), (Type.LIFETIME, b"\0\0\0\2")]
    data = encode_message(Method.REFRESH, MessageClass.REQUEST, TRANSACTION_ID, attributes)
    message = parse_message(data)
    assert message.first(Type.LIFETIME) == b"\0\0\0\1"
    assert len(message.every(Type.LIFETIME)) == 2


def test_no_integrity_never_verifies():
    """A message without MESSAGE-INTEGRITY verifies under no key (TURN-03)."""
    with pytest.raises(STUNError):
        parse_message(example()).verify_integrity(b"")


# aioice as the other implementation.

addresses = st.tuples(
    st.ip_addresses().map(str),
    st.integers(0, 0xFFFF),
)
keys = st.one_of(st.none(), st.binary(min_size=1, max_size=80))


@given(
    method=st.sampled_from(list(Method)),
    message_class=st.sampled_from(list(MessageClass)),
    transaction_id=st.binary(min_size=12, max_size=12),
    username=st.text(max_size=40),
    data=st.binary(max_size=60),
    peer=addresses,
    lifetime=st.integers(0, 0xFFFF_FFFF),
    key=keys,
)
def test_ours_is_read_by_aioice(
    method, message_class, transaction_id, username, data, peer, lifetime, key
):
    """aioice reads every message we write, with the same content (TURN-01, TURN-03)."""
    value = encode_xor_address(TransportAddress.parse(*peer), transaction_id)
    attributes = [
        (Type.USERNAME, username.encode()),
        (Type.DATA, data),
        (Type.XOR_PEER_ADDRESS, value),
        (Type.LIFETIME, lifetime.to_bytes(4)),
    ]
    ours = encode_message(
        method, message_class, transaction_id, attributes, key=key, fingerprint=True
    )
    theirs = aioice.stun.parse_message(ours)
    assert (theirs.message_method, theirs.message_class) == (method, message_class)
    assert theirs.transaction_id == transaction_id
    assert theirs.attributes["USERNAME"] == username
    assert theirs.attributes["DATA"] == data
    assert theirs.attributes["XOR-PEER-ADDRESS"] == peer
    assert theirs.attributes["LIFETIME"] == lifetime
    assert theirs.check_message_integrity(key or b"") is (key is not None)


@given(
    transaction_id=st.binary(min_size=12, max_size=12),
    username=st.text(max_size=40),
    peer=addresses,
    channel=st.integers(0, 0xFFFF),
    key=keys,
)
def test_aioices_is_read_by_us(transaction_id, username, peer, channel, key):
    """We read every message aioice writes, and writing it again gives the same bytes (TURN-01)."""
    theirs = aioice.stun.Message(
        aioice.stun.Method.CHANNEL_BIND, aioice.stun.Class.REQUEST, transaction_id
    )
    theirs.attributes.update(
        {"USERNAME": username, "XOR-PEER-ADDRESS": peer, "CHANNEL-NUMBER": channel}
    )
    if key is None:
        theirs.add_fingerprint()
    else:
        theirs.add_message_integrity(key)
    ours = parse_message(bytes(theirs))
    assert ours.has_fingerprint
    assert ours.first(Type.USERNAME) == username.encode()
    raw_peer = ours.first(Type.XOR_PEER_ADDRESS)
    assert decode_xor_address(raw_peer, transaction_id) == TransportAddress.parse(*peer)
    if key is not None:
        ours.verify_integrity(key)
    again = encode_message(
        ours.method,
        ours.message_class,
        ours.transaction_id,
        ours.attributes,
        key=key,
        fingerprint=True,
    )
    assert again == bytes(theirs)


@pytest.mark.parametrize(
    "value", [b"", b"\0\1\0", bytes(8), b"\0\3" + bytes(6), b"\0\1" + bytes(18)]
)
def test_malformed_addresses(value):
    """An address of an unknown family or another length is refused (TURN-02)."""
    with pytest.raises(STUNError):
        decode_xor_address(value, TRANSACTION_ID)


def test_long_term_key_is_md5():
    """The key is MD5 over username, realm and password (RFC 8489 section 9.2.2; TURN-03)."""
    expected = hashlib.md5(b"user:realm:pass", usedforsecurity=False).digest()
    assert long_term_key("user", "realm", "pass") == expected
