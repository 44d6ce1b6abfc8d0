"""Payloads and call messages on the wire (spec/call.md, "Messages"): M1, M2."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from e2ecall.errors import Reason, RemoteProtocolError
from e2ecall.protocol.messages import (
    Answer,
    Busy,
    Cancel,
    Candidate,
    Candidates,
    CandidateType,
    Codec,
    Decline,
    Hangup,
    LeaveReason,
    MediaDescription,
    MediaState,
    Offer,
    Path,
    PathReady,
    PathReply,
    PathRequest,
    Payload,
    PayloadKind,
    Renegotiate,
    Reveal,
    Ringing,
    Stream,
    StreamDescription,
    Text,
    decode_call_message,
    decode_payload,
    decode_text,
    encode_call_message,
    encode_payload,
    encode_text,
)
from relay.wire.codec import encode
from relay.wire.messages import TurnCredential
from relay.wire.records import PreKey, PreKeyKind

ID, MAC = b"i" * 16, b"m" * 64
RELAYED = Candidate(CandidateType.RELAY, "198.18.0.1", 1024)
MEDIA = MediaDescription(
    b"f" * 32,
    "ufrag",
    "p" * 22,
    (
        StreamDescription(Stream.MICROPHONE, Codec.OPUS, 111, 1, None, None),
        StreamDescription(Stream.CAMERA, Codec.VP8, 96, 2, 97, 3),
    ),
)
MESSAGES = [
    Offer(ID, b"x" * 32, b"k" * 1184, b"s" * 32, b"c" * 64, MEDIA, True, b"b" * 32),
    Ringing(ID, b"x" * 32, b"c" * 1088, MEDIA, b"b" * 32, TurnCredential("1:u", "p")),
    Reveal(ID, 0, b"n" * 32, MAC),
    Answer(ID, 0, True, False, (RELAYED,), MAC),
    Decline(ID, 0, LeaveReason.NORMAL, None),
    Busy(ID, 0, LeaveReason.NORMAL, None),
    Cancel(ID, 3, LeaveReason.NO_ANSWER, MAC),
    Hangup(ID, 9, LeaveReason.FAILED, MAC),
    Candidates(ID, 2, (RELAYED, RELAYED), MAC),
    MediaState(ID, 4, True, False, True, False, True, MAC),
    Text(ID, 5, "hello", MAC),
    Renegotiate(ID, 6, True, MAC),
    Path(ID, 7, 1, b"x" * 32, b"k" * 1184, MEDIA, MAC),
    PathReply(ID, 8, 1, b"x" * 32, b"c" * 1088, MEDIA, TurnCredential("1:u", "p"), (RELAYED,), MAC),
    PathReady(ID, 9, 1, (RELAYED,), MAC),
    PathRequest(ID, 10, 2, MAC),
]
NAMES = [type(message).__name__ for message in MESSAGES]
PAYLOADS = [
    Payload(PayloadKind.TEXT, 1, None, None, b"hello"),
    Payload(
        PayloadKind.CALL,
        2**47,
        PreKey(PreKeyKind.SEALING, 7, 99, b"k" * 1216, b"s" * 64),
        b"t" * 16,
        b"body",
    ),
]


def refuse(data, read=decode_call_message):
    with pytest.raises(RemoteProtocolError) as refused:
        read(data)
    return refused.value.reason


@pytest.mark.parametrize("message", MESSAGES, ids=NAMES)
def test_messages_are_read_back(message):
    """What is encoded is what is decoded."""
    assert decode_call_message(encode_call_message(message)) == message


@pytest.mark.parametrize("payload", PAYLOADS)
def test_payloads_are_read_back(payload):
    """What is encoded is what is decoded."""
    assert decode_payload(encode_payload(payload)) == payload


@given(data=st.binary(max_size=200))
def test_garbage_is_malformed(data):
    """M1: arbitrary bytes raise our error or decode to something that encodes the same."""
    for read, write in (
        (decode_call_message, encode_call_message),
        (decode_payload, encode_payload),
    ):
        with suppress(RemoteProtocolError):
            assert write(read(data)) == data


@pytest.mark.parametrize(
    "message",
    [
        replace(MESSAGES[0], call_id=b"short"),
        replace(MESSAGES[0], mlkem_key=b"k" * 1183),
        replace(MESSAGES[0], seed=b""),
        replace(MESSAGES[0], commitment=b"c" * 32),
        replace(MESSAGES[0], media=replace(MEDIA, streams=())),
        replace(MESSAGES[0], media=replace(MEDIA, streams=MEDIA.streams * 3)),
        replace(MESSAGES[0], media=replace(MEDIA, ice_ufrag="abc")),
        replace(MESSAGES[0], media=replace(MEDIA, ice_ufrag="ufrag\r\na=candidate")),
        replace(MESSAGES[0], media=replace(MEDIA, ice_pwd="p" * 21 + "\n")),
        replace(MESSAGES[0], media=replace(MEDIA, fingerprint=b"f" * 20)),
        replace(MESSAGES[1], mlkem_ciphertext=b"c" * 1089),
        replace(MESSAGES[2], mac=b"m" * 32),
        replace(MESSAGES[2], counter=-1),
        replace(MESSAGES[2], counter=2**32),
        replace(MESSAGES[3], candidates=(RELAYED,) * 9),
        replace(MESSAGES[3], candidates=(replace(RELAYED, port=0),)),
        replace(MESSAGES[3], audio=1),
        replace(MESSAGES[4], reason=9),
        replace(MESSAGES[7], mac=None),
        replace(MESSAGES[8], candidates=()),
    ],
)
def test_values_out_of_bounds_are_malformed(message):
    """Lengths, counts, ranges and alphabets are checked before anything else sees a value."""
    assert refuse(encode(message)) is Reason.MALFORMED


@pytest.mark.parametrize("number", [0, 11, 99, -1, None, "1"])
def test_unknown_types_are_malformed(number):
    """P6: a number that names no call message is refused, also one of the relay's messages."""
    assert refuse(encode([number, ID, 0, 1, None])) is Reason.MALFORMED


def test_added_field_is_malformed():
    """Unknown fields are refused, not skipped."""
    assert refuse(encode([10, ID, 4, True, False, MAC, 0])) is Reason.MALFORMED


def test_text_is_utf_8():
    """A text that is not UTF-8 is malformed."""
    assert decode_text(encode_text("grüße 👋")) == "grüße 👋"
    assert refuse(b"\xff\xfe", decode_text) is Reason.MALFORMED


def test_offer_fits_the_call_class():
    """The largest Offer leaves room for ratchet header and handshake in 8 KiB."""
    rtx = [
        replace(MEDIA.streams[1], stream=stream, ssrc=2**32 - 1, rtx_ssrc=2**32 - 1)
        for stream in Stream
    ]
    media = replace(MEDIA, ice_ufrag="u" * 256, ice_pwd="p" * 256, streams=tuple(rtx))
    assert len(encode_call_message(replace(MESSAGES[0], media=media))) < 2_048
