"""Long-term credentials and stateless nonces: attack line T3."""

import base64
import hashlib
import hmac
import os

import aioice.stun
import pytest

from relay.turn.attributes import AttributeType as Type
from relay.turn.attributes import PasswordAlgorithm, TransportAddress
from relay.turn.auth import (
    NONCE_COOKIE,
    NONCE_LENGTH,
    NONCE_LIFETIME,
    Nonces,
    long_term_key,
)
from relay.turn.errors import STUNError
from relay.turn.stun import (
    MESSAGE_INTEGRITY_SHA256,
    MessageClass,
    Method,
    STUNMessage,
    encode_message,
    parse_message,
)

HERE = TransportAddress.parse("192.0.2.1", 1234)
NOW = 1_800_000_000.0


def test_nonce_is_valid_for_its_client_until_it_expires():
    """A nonce needs no memory: any holder of the key checks it (TURN-20)."""
    issuer, checker = Nonces(b"k" * 32), Nonces(b"k" * 32)
    nonce = issuer.issue(NOW, HERE)
    assert checker.is_valid(NOW + NONCE_LIFETIME - 1, nonce, HERE)
    assert not checker.is_valid(NOW + NONCE_LIFETIME, nonce, HERE)


@pytest.mark.parametrize("elsewhere", [("192.0.2.2", 1234), ("192.0.2.1", 1235), ("::1", 1234)])
def test_nonce_of_another_address(elsewhere):
    """T3: a nonce is worth nothing from another address or port (TURN-21)."""
    nonce = Nonces(b"k" * 32).issue(NOW, HERE)
    assert not Nonces(b"k" * 32).is_valid(NOW, nonce, TransportAddress.parse(*elsewhere))


def test_nonce_of_another_relay():
    """T3: a nonce under another key is refused (TURN-20)."""
    assert not Nonces(b"k" * 32).is_valid(NOW, Nonces(b"o" * 32).issue(NOW, HERE), HERE)


def test_tampered_nonces():
    """T3: no other spelling, no flipped bit and no prefix of a nonce is valid (TURN-20)."""
    nonces = Nonces(b"k" * 32)
    nonce = nonces.issue(NOW, HERE)
    for bit in range(len(nonce) * 8):
        flipped = bytearray(nonce)
        flipped[bit // 8] ^= 1 << bit % 8
        assert not nonces.is_valid(NOW, bytes(flipped), HERE)
    others = [nonce[:length] for length in range(len(nonce))]
    features = [NONCE_COOKIE[:9] + bits + nonce[13:] for bits in (b"AAAA", b"QAAA", b"wAAA")]
    for other in [*others, *features, nonce + b"=", nonce + nonce, b"\xff" * 33, b"A" * 33]:
        assert not nonces.is_valid(NOW, other, HERE)


def test_short_key():
    """A nonce key that could be guessed is not accepted."""
    with pytest.raises(ValueError, match="at least"):
        Nonces(b"short")


# Through the server.


def test_challenge_then_success(world):
    """Without MESSAGE-INTEGRITY the answer is 401 with realm and nonce, with it success.

    TURN-20.
    """
    client = world.client()
    bare = encode_message(
        Method.ALLOCATE, MessageClass.REQUEST, os.urandom(12), [(Type.LIFETIME, bytes(4))]
    )
    response = client.answer(bare)
    assert response.error_code == 401
    assert response.attributes["REALM"] == "e2ecall"
    assert len(response.attributes["NONCE"]) == NONCE_LENGTH
    assert client.allocate().error_code is None


@pytest.mark.parametrize(
    "username", ["1700000000:ticket-a", "1800003600:ticket", "x", "", "\0", "ü:ticket-a"]
)
def test_unknown_or_expired_username(world, username):
    """T3: an expired or foreign username is a 401 with a fresh nonce (TURN-20)."""
    client = world.client()
    client.username = username
    response = client.allocate()
    assert response.error_code == 401
    assert response.attributes["NONCE"]


def test_username_that_is_no_text(world):
    """T3: a username that is not UTF-8 is a 401 (TURN-20)."""
    client = world.client()
    client.challenge()
    values = [(Type.USERNAME, b"\xff\xfe"), (Type.REALM, client.realm), (Type.NONCE, client.nonce)]
    data = encode_message(Method.ALLOCATE, MessageClass.REQUEST, os.urandom(12), values, key=b"any")
    assert client.answer(data).error_code == 401


def test_wrong_password(world):
    """T3: a credential with another password is a 401 (TURN-20)."""
    client = world.client()
    client.challenge()
    right = long_term_key(client.username, "e2ecall", client.password)
    client.password = "guess"
    data = client.signed(Method.ALLOCATE, [world_udp()])
    response = client.answer(data)
    assert response.error_code == 401
    assert not response.check_message_integrity(right)


def world_udp():
    return (Type.REQUESTED_TRANSPORT, bytes((17, 0, 0, 0)))


def test_expired_between_requests(world):
    """T3: a credential that expires ends what may be asked with it (TURN-20)."""
    client = world.client(expires_in=900)
    assert client.allocate().error_code is None
    world.now += 900
    assert client.refresh(600).error_code == 401


@pytest.mark.parametrize("bit", range(0, 400, 7))
def test_tampered_requests(world, bit):
    """T3: a flipped bit of a signed request never makes an allocation (TURN-20)."""
    client = world.client()
    data = bytearray(client.signed(Method.ALLOCATE, [world_udp()], fingerprint=False))
    data[bit // 8] ^= 1 << bit % 8
    for _, reply in client.send(bytes(data)):
        message = aioice.stun.parse_message(reply)
        assert message.message_class is not aioice.stun.Class.RESPONSE or (
            message.message_method is aioice.stun.Method.BINDING
        )
    assert world.core.counters.allocations == 0


@pytest.mark.parametrize("missing", [Type.USERNAME, Type.REALM, Type.NONCE])
def test_half_a_credential(world, missing):
    """MESSAGE-INTEGRITY without username, realm or nonce is a 400 (RFC 8489 section 9.2.4)."""
    client = world.client()
    client.challenge()
    values = [
        (Type.USERNAME, client.username.encode()),
        (Type.REALM, client.realm),
        (Type.NONCE, client.nonce),
    ]
    kept = [(kind, value) for kind, value in values if kind != missing]
    data = encode_message(Method.ALLOCATE, MessageClass.REQUEST, os.urandom(12), kept, key=b"k")
    ((_, reply),) = client.send(data)
    assert aioice.stun.parse_message(reply).error_code == 400


def test_other_realm(world):
    """T3: a realm that is not this server's is a 401 (TURN-20)."""
    client = world.client()
    client.challenge()
    client.realm = b"elsewhere"
    assert client.allocate().error_code == 401


def test_stale_nonce(world):
    """T3: an expired nonce is a 438 that brings a fresh one, with which it works (TURN-20)."""
    client = world.client()
    client.challenge()
    world.now += NONCE_LIFETIME
    response = client.allocate()
    assert response.error_code == 438
    client.nonce = response.attributes["NONCE"]
    assert client.allocate().error_code is None
    assert world.core.counters.stale_nonces == 1


def test_captured_request_from_elsewhere(world):
    """T3: a recorded request, replayed from another address, is a 438 and changes nothing.

    TURN-21.
    """
    client, thief = world.client(), world.client()
    recorded = client.signed(Method.ALLOCATE, [world_udp()])
    ((_, reply),) = thief.send(recorded)
    assert aioice.stun.parse_message(reply).error_code == 438
    assert world.core.counters.allocations == 0


def test_stale_nonce_is_told_only_to_who_knows_the_password(world):
    """T3: with a bad password and a bad nonce the answer is 401 (TURN-20)."""
    client = world.client()
    client.challenge()
    client.nonce, client.password = b"x" * 33, "guess"
    assert client.allocate().error_code == 401


def test_any_worker_serves(turn):
    """A nonce of one worker is good at another with the same key (TURN-20)."""
    world = turn.World()
    client = world.client()
    client.challenge()
    world.core = turn.make_core()
    assert client.allocate().error_code is None


def test_challenges_are_small(world):
    """T3: whatever is sent, an unauthenticated answer stays within 100 bytes (TURN-22)."""
    client = world.client()
    for method in (Method.ALLOCATE, Method.REFRESH, Method.CREATE_PERMISSION, Method.CHANNEL_BIND):
        for attributes in ([], [(0x8022, b"x" * 700)], [(0x7777, b"")]):
            data = encode_message(
                method, MessageClass.REQUEST, os.urandom(12), attributes, fingerprint=True
            )
            ((_, reply),) = client.send(data)
            assert len(reply) <= 100


# Password algorithms and SHA-256.

SHA256_ALGORITHM = bytes((0, 2, 0, 0))
MD5_ALGORITHM = bytes((0, 1, 0, 0))
OFFERED = SHA256_ALGORITHM + MD5_ALGORITHM
CHOSEN = (Type.PASSWORD_ALGORITHM, SHA256_ALGORITHM)
LIST = (Type.PASSWORD_ALGORITHMS, OFFERED)


def sha256_request(client, method, *attributes, algorithm=PasswordAlgorithm.SHA256, mac=32):
    """Give a request signed with MESSAGE-INTEGRITY-SHA256, its value cut to ``mac`` bytes."""
    client.challenge()
    realm = client.realm.decode()
    key = long_term_key(client.username, realm, client.password, algorithm)
    values = [
        *attributes,
        (Type.USERNAME, client.username.encode()),
        (Type.REALM, client.realm),
        (Type.NONCE, client.nonce),
    ]
    data = encode_message(method, MessageClass.REQUEST, os.urandom(12), values)
    data = data[:2] + (len(data) - 20 + 4 + mac).to_bytes(2) + data[4:]
    tag = hmac.digest(key, data, "sha256")[:mac]
    return data + MESSAGE_INTEGRITY_SHA256.to_bytes(2) + mac.to_bytes(2) + tag


def reply_to(client, data):
    ((_, reply),) = client.send(data)
    return parse_message(reply)


def code(response):
    value = response.first(Type.ERROR_CODE)
    return None if value is None else value[2] * 100 + value[3]


def test_challenge_offers_algorithms(world):
    """401 and 438 list SHA-256 and MD5, and the nonce says that they do (TURN-24)."""
    client = world.client()
    bare = encode_message(Method.ALLOCATE, MessageClass.REQUEST, os.urandom(12), [world_udp()])
    unauthenticated = reply_to(client, bare)
    request = client.signed(Method.ALLOCATE, [world_udp()])
    world.now += NONCE_LIFETIME
    stale = reply_to(client, request)
    assert [code(unauthenticated), code(stale)] == [401, 438]
    for response in (unauthenticated, stale):
        assert response.first(Type.PASSWORD_ALGORITHMS) == OFFERED
        nonce = response.first(Type.NONCE)
        assert nonce.startswith(b"obMatJos2")
        assert base64.b64decode(nonce[9:13]) == bytes((0x80, 0, 0))


@pytest.mark.parametrize("algorithm", list(PasswordAlgorithm))
def test_sha256(world, algorithm):
    """A request that names an algorithm is verified and answered with SHA-256 (TURN-24)."""
    client = world.client()
    chosen = (Type.PASSWORD_ALGORITHM, algorithm.to_bytes(2) + bytes(2))
    data = sha256_request(client, Method.ALLOCATE, world_udp(), chosen, LIST, algorithm=algorithm)
    response = reply_to(client, data)
    assert code(response) is None
    assert response.integrity is None
    key = long_term_key(client.username, "e2ecall", client.password, algorithm)
    response.verify_integrity(key)
    again = sha256_request(client, Method.REFRESH, chosen, algorithm=algorithm)
    assert code(reply_to(client, again)) is None


def test_sha256_key():
    """The key is SHA-256 over username, realm and password (RFC 8489 section 18.5.1.2; TURN-24)."""
    expected = hashlib.sha256(b"user:realm:pass").digest()
    assert long_term_key("user", "realm", "pass", PasswordAlgorithm.SHA256) == expected


APPENDIX_B = bytes.fromhex(
    "0001009c2112a44278ad3433c6ad72c029da412e001e00204a3cf38fef6992bda952c6780417da0f24819415569e60"
    "b205c46e41407f1704001500296f624d61744a6f733241414143662f2f3439396b39353464364f4c33346f4c3946"
    "53547679363473410000000014000b6578616d706c652e6f726700001c0020e4686c8f0edeb59013e07090010a93ef"
    "ccbccc544c0a45d9f830aa6d6f735a01"
)


def test_sha256_as_the_rfc_has_it():
    """The request of RFC 8489 appendix B matches under its key, another key's does not; it cannot
    be read whole, as its length wrongly counts the header (TURN-24, TURN-01).
    """
    username = "\u30de\u30c8\u30ea\u30c3\u30af\u30b9"
    covered, mac = APPENDIX_B[:-36], APPENDIX_B[-32:]
    message = STUNMessage(
        Method.BINDING, MessageClass.REQUEST, b"", (), None, (covered, mac), False
    )
    password = "TheMatrIX"
    key = long_term_key(username, "example.org", password, PasswordAlgorithm.SHA256)
    message.verify_integrity(key)
    other = long_term_key(username, "example.org", password, PasswordAlgorithm.MD5)
    with pytest.raises(STUNError):
        message.verify_integrity(other)
    with pytest.raises(STUNError, match="length"):
        parse_message(APPENDIX_B)


@pytest.mark.parametrize(
    "attributes",
    [
        [CHOSEN],
        [LIST],
        [CHOSEN, (Type.PASSWORD_ALGORITHMS, MD5_ALGORITHM)],
        [(Type.PASSWORD_ALGORITHM, MD5_ALGORITHM), (Type.PASSWORD_ALGORITHMS, MD5_ALGORITHM)],
        [CHOSEN, (Type.PASSWORD_ALGORITHMS, MD5_ALGORITHM + SHA256_ALGORITHM)],
        [(Type.PASSWORD_ALGORITHM, bytes((0, 3, 0, 0))), LIST],
        [(Type.PASSWORD_ALGORITHM, bytes((0, 2, 0, 4)) + bytes(4)), LIST],
    ],
)
def test_bid_down(world, attributes):
    """T3: a list other than the one that was offered, or half a choice, is a 400 (TURN-24)."""
    client = world.client()
    data = sha256_request(client, Method.ALLOCATE, world_udp(), *attributes)
    assert code(reply_to(client, data)) == 400
    assert world.core.counters.allocations == 0


@pytest.mark.parametrize("mac", [16, 20, 28])
def test_truncated_sha256(world, mac):
    """T3: a cut MESSAGE-INTEGRITY-SHA256 does not authenticate (TURN-24)."""
    client = world.client()
    data = sha256_request(client, Method.ALLOCATE, world_udp(), CHOSEN, LIST, mac=mac)
    assert code(reply_to(client, data)) == 401


@pytest.mark.parametrize("mac", [0, 12, 18, 36])
def test_sha256_of_no_length(world, mac):
    """M4: a MESSAGE-INTEGRITY-SHA256 of a length that cannot be is dropped (TURN-02)."""
    client = world.client()
    data = bytearray(sha256_request(client, Method.ALLOCATE, world_udp(), CHOSEN, LIST))
    end = len(data) - 36
    body = data[:end] + b"\0\x1c" + mac.to_bytes(2) + bytes(mac + -mac % 4)
    body[2:4] = (len(body) - 20).to_bytes(2)
    assert client.send(bytes(body)) == []


def test_wrong_sha256_beside_a_right_sha1(world):
    """T3: where both integrity attributes are present SHA-256 counts (TURN-24)."""
    client = world.client()
    data = client.signed(Method.ALLOCATE, [world_udp()], fingerprint=False)
    data += b"\0\x1c\0\x20" + bytes(32)
    data = data[:2] + (len(data) - 20).to_bytes(2) + data[4:]
    assert code(reply_to(client, data)) == 401
    assert world.core.counters.allocations == 0


def test_attributes_after_sha256(world):
    """Attributes behind MESSAGE-INTEGRITY-SHA256 are nobody's (TURN-04)."""
    client = world.client()
    data = sha256_request(client, Method.ALLOCATE, world_udp(), CHOSEN, LIST)
    data += bytes.fromhex("000d000400000e10") + bytes.fromhex("77770000") + b"\0\x08\0\0"
    data = data[:2] + (len(data) - 20).to_bytes(2) + data[4:]
    response = reply_to(client, data)
    assert code(response) is None
    assert int.from_bytes(response.first(Type.LIFETIME)) == 600


@pytest.mark.parametrize("with_username", [True, False])
def test_userhash(world, with_username):
    """USERHASH is known and opens nothing: a 401 alone, ignored beside USERNAME (TURN-24)."""
    client = world.client()
    client.challenge()
    digest = hashlib.sha256(f"{client.username}:e2ecall".encode()).digest()
    values = [world_udp(), (Type.USERHASH, digest), (Type.REALM, client.realm)]
    values += [(Type.NONCE, client.nonce)]
    if with_username:
        values.append((Type.USERNAME, client.username.encode()))
    key = long_term_key(client.username, "e2ecall", client.password)
    data = encode_message(Method.ALLOCATE, MessageClass.REQUEST, os.urandom(12), values, key=key)
    assert code(reply_to(client, data)) == (None if with_username else 401)
