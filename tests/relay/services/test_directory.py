"""What the directory accepts (spec/wire.md, Accounts)."""

import os
import time

import pytest
from nacl.signing import SigningKey

from relay.errors import RefusedError, SignatureError
from relay.services import directory
from relay.services.signatures import RelayKey, verify
from relay.wire.codec import decode
from relay.wire.messages import ErrorCode, Hello, Register
from relay.wire.records import (
    PreKey,
    PreKeyKind,
    SenderCertificate,
    SignedDeviceList,
    deletion_bytes,
    sender_certificate_bytes,
)

RELAY = "relay.example"
NOBODY = bytes(SigningKey.generate().verify_key)
DAY = 86_400


def hello():
    return Hello(1, RELAY, bytes(32), os.urandom(32), (), 0, 0)


class Case:
    """An identity at a relay, and its account there."""

    def __init__(self, speak, username="somebody"):
        self.identity = speak.Identity(username, RELAY)
        self.hello = hello()
        self.request = self.identity.register(self.hello)

    def register(self, request=None, *, now=None, challenge=None):
        return directory.register(
            request or self.request,
            relay=RELAY,
            challenge=challenge or self.hello.challenge,
            now=now or time.time(),
        )

    def log_in(self, account, request, *, challenge=None):
        return directory.log_in(
            account,
            request,
            relay=RELAY,
            challenge=challenge or self.hello.challenge,
            nobody=NOBODY,
        )

    def updated(self, account, signed):
        return directory.updated(account, signed, relay=RELAY, now=time.time())


@pytest.fixture
def case(speak):
    return Case(speak)


def code(function, *arguments, **options):
    with pytest.raises(RefusedError) as caught:
        function(*arguments, **options)
    return caught.value.code


def test_register(case):
    """A signed first device list makes an account that everyone may reach."""
    account = case.register()
    assert account.username == "somebody"
    assert account.device(1) == case.identity.records[1]
    assert account.device(2) is None
    assert account.newest_device_id == 1


@pytest.mark.parametrize("name", ["Somebody", "1abc", "a-b", "ábc", "sömebody", "a" * 31 + "\n"])
def test_bad_username(speak, name):
    """W3: a username outside a-z, 0-9 and _ is refused, so homoglyphs cannot exist."""
    case = Case(speak, name)
    assert code(case.register) is ErrorCode.BAD_USERNAME


def test_register_with_anothers_challenge(case):
    """A registration for another connection is refused."""
    assert code(case.register, challenge=os.urandom(32)) is ErrorCode.BAD_REQUEST


@pytest.mark.parametrize(
    "changes",
    [
        {"address": "somebody@elsewhere.example"},
        {"address": "another@relay.example"},
        {"version": 2},
        {"previous": bytes(64)},
        {"expires": 1},
        {"expires": int(time.time()) + 40 * DAY},
        {"identity_key": NOBODY},
    ],
    ids=["address", "name", "version", "previous", "expired", "too-long", "identity_key"],
)
def test_register_with_bad_device_list(case, changes):
    """WIRE-11: a first list is for this address, version 1, in date, signed by its key."""
    signed = case.identity.device_list(**changes)
    assert code(case.register, case.identity.register(case.hello, signed)) is ErrorCode.BAD_REQUEST


def test_register_with_same_device_twice(case):
    """Device ids occur once, in ascending order."""
    record = case.identity.records[1]
    signed = case.identity.device_list(devices=(record, record))
    assert code(case.register, case.identity.register(case.hello, signed)) is ErrorCode.BAD_REQUEST


def test_register_with_garbage_list(case):
    """A device list that does not decode is refused."""
    request = Register("somebody", SignedDeviceList(b"garbage", bytes(64)), bytes(64), None)
    assert code(case.register, request) is ErrorCode.BAD_REQUEST


def test_log_in(case):
    """A device's signature over this connection's challenge proves the device."""
    account = case.register()
    assert case.log_in(account, case.identity.login(case.hello)) == case.identity.records[1]


def test_log_in_replayed(case):
    """WIRE-12: a log-in for another connection's challenge is refused."""
    request = case.identity.login(case.hello)
    refused = code(case.log_in, case.register(), request, challenge=os.urandom(32))
    assert refused is ErrorCode.LOGIN_FAILED


def test_log_in_for_another_relay(case):
    """WIRE-12: a log-in that was signed for another relay is refused."""
    foreign = Hello(1, "evil.example", bytes(32), case.hello.challenge, (), 0, 0)
    refused = code(case.log_in, case.register(), case.identity.login(foreign))
    assert refused is ErrorCode.LOGIN_FAILED


def test_log_in_unknown_alike(case, speak):
    """W3: unknown user, unknown device and wrong key get the same refusal."""
    account = case.register()
    stranger = speak.Identity("somebody", RELAY)
    stranger.devices[2] = SigningKey.generate()
    texts = set()
    for known, request in [
        (None, case.identity.login(case.hello)),
        (account, stranger.login(case.hello)),
        (account, stranger.login(case.hello, 2)),
    ]:
        with pytest.raises(RefusedError) as caught:
            case.log_in(known, request)
        texts.add((caught.value.code, caught.value.text, caught.value.retry_after))
    assert len(texts) == 1


def test_update(case):
    """The next version, chained to the stored list, replaces it; a new device has a new id."""
    account = case.register()
    case.identity.devices[2] = SigningKey.generate()
    case.identity.records[2] = case.identity.record(2)
    new = case.updated(account, case.identity.next_list(account.signed_list))
    assert new.device_list.version == 2
    assert new.newest_device_id == 2


def test_update_again(case):
    """The stored list once more changes nothing."""
    account = case.register()
    assert case.updated(account, account.signed_list) is account


def test_update_stale(case):
    """WIRE-13: an older version, a fork, or another predecessor is STALE."""
    account = case.register()
    second = case.identity.next_list(account.signed_list)
    current = case.updated(account, second)
    assert code(case.updated, current, account.signed_list) is ErrorCode.STALE
    fork = case.identity.device_list(expires=int(time.time()) + DAY)
    assert code(case.updated, current, fork) is ErrorCode.STALE
    case.identity.version, case.identity.previous = 3, bytes(64)
    assert code(case.updated, current, case.identity.device_list()) is ErrorCode.STALE


def test_update_after_a_lost_one(case):
    """WIRE-13: a list whose predecessor was lost on the way is accepted, and nothing before it."""
    account = case.register()
    lost = case.identity.next_list(account.signed_list)
    third = case.identity.next_list(lost)
    current = case.updated(account, third)
    assert current.device_list.version == 3
    assert code(case.updated, current, lost) is ErrorCode.STALE


def test_update_with_another_identity(case, speak):
    """WIRE-13: an account's identity key never changes."""
    account = case.register()
    other = speak.Identity("somebody", RELAY)
    signed = other.next_list(account.signed_list)
    assert code(case.updated, account, signed) is ErrorCode.BAD_REQUEST


def test_device_ids_are_never_reused(case):
    """WIRE-13: the id of a removed device cannot come back, nor can a device change its keys."""
    account = case.register()
    changed = case.identity.record(1)
    case.identity.records = {1: changed}
    signed = case.identity.next_list(account.signed_list)
    assert code(case.updated, account, signed) is ErrorCode.BAD_REQUEST
    case.identity.version = 1
    case.identity.devices[5] = SigningKey.generate()
    case.identity.records = {5: case.identity.record(5)}
    account = case.updated(account, case.identity.next_list(account.signed_list))
    case.identity.devices[3] = SigningKey.generate()
    case.identity.records[3] = case.identity.record(3)
    case.identity.records = dict(sorted(case.identity.records.items()))
    signed = case.identity.next_list(account.signed_list)
    assert code(case.updated, account, signed) is ErrorCode.BAD_REQUEST


def check(case, *prekeys):
    return directory.check_prekeys(
        prekeys,
        address=case.identity.address,
        device=case.identity.records[1],
        now=time.time(),
    )


def test_prekeys(case):
    """Prekeys that the device signed are accepted, of every kind."""
    prekeys = tuple(case.identity.prekey(kind, 7) for kind in PreKeyKind)
    assert check(case, *prekeys) == prekeys


@pytest.mark.parametrize("kind", PreKeyKind)
def test_prekey_of_another_kind(case, kind):
    """R1: the kind of a prekey is signed; the same record under another kind is refused."""
    prekey = case.identity.prekey(kind, 1)
    for other in PreKeyKind:
        if other is not kind:
            forged = PreKey(other, 1, prekey.expires, prekey.key, prekey.signature)
            assert code(check, case, forged) is ErrorCode.BAD_REQUEST


def test_prekey_wrong(case, speak):
    """WIRE-14: wrong length, out of date, another's signature, a key id twice: refused."""
    kind = PreKeyKind.ONE_TIME_X25519
    good = case.identity.prekey(kind, 1)
    bad = [
        case.identity.prekey(kind, 1, key=bytes(33)),
        case.identity.prekey(kind, 1, expires=int(time.time()) - 1),
        case.identity.prekey(kind, 1, expires=int(time.time()) + 500 * DAY),
        speak.Identity("somebody", RELAY).prekey(kind, 1),
        PreKey(kind, 2, good.expires, good.key, good.signature),
    ]
    for prekey in bad:
        assert code(check, case, prekey) is ErrorCode.BAD_REQUEST
    assert code(check, case, good, good) is ErrorCode.BAD_REQUEST


def test_certificate(case):
    """IDENTITY: the relay attests address and identity key for 24 hours."""
    key = RelayKey.generate()
    signed = directory.certify(key, case.register(), now=1000.7)
    verify(key.public, sender_certificate_bytes(signed), signed.signature)
    certificate = decode(signed.body, SenderCertificate, limit=512)
    identity_key = bytes(case.identity.key.verify_key)
    assert certificate == SenderCertificate(case.identity.address, identity_key, 1000 + DAY)


def test_deletion(case):
    """WIRE-15: only the identity key, on this connection and for this, ends an account."""
    account, challenge = case.register(), case.hello.challenge
    message = deletion_bytes(RELAY, challenge, account.signed_list)
    signature = case.identity.key.sign(message).signature
    directory.check_deletion(account, signature, relay=RELAY, challenge=challenge)
    for wrong, where in ((signature, os.urandom(32)), (case.request.signature, challenge)):
        refused = code(directory.check_deletion, account, wrong, relay=RELAY, challenge=where)
        assert refused is ErrorCode.BAD_REQUEST


def test_relay_key_round_trip():
    """A relay's key is read back from its seed, and is in no repr."""
    key = RelayKey.generate()
    again = RelayKey.from_seed(key.seed())
    assert again.public == key.public
    assert key.seed().hex() not in repr(key)
    with pytest.raises(ValueError, match="32"):
        RelayKey.from_seed(bytes(31))


@pytest.mark.parametrize(
    ("key", "signature"),
    [(bytes(32), bytes(64)), (b"\x01" + bytes(31), b"\x01" + bytes(63)), (b"\xff" * 32, bytes(64))],
)
def test_low_order_keys(key, signature):
    """P3: low-order and non-canonical Ed25519 keys verify nothing."""
    with pytest.raises(SignatureError):
        verify(key, b"anything", signature)
