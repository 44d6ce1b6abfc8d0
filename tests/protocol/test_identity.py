"""Identity (spec/identity.md): device lists, certificates, signatures."""

from dataclasses import replace

import pytest

from e2ecall.crypto.ed25519 import Ed25519KeyPair, verify
from e2ecall.errors import IdentityChangedError, LocalProtocolError, Reason, StoreError
from e2ecall.protocol.devices import (
    VerifiedDeviceList,
    sign_device_list,
    verify_device_list,
    verify_own_list,
)
from e2ecall.protocol.identity import (
    DeviceKeys,
    IdentityKey,
    fingerprint,
    sign_login,
    sign_register,
    verify_sender_certificate,
)
from e2ecall.protocol.local import LocalDevice
from relay.wire.codec import encode
from relay.wire.labels import labelled
from relay.wire.names import Address
from relay.wire.records import (
    Device,
    DeviceList,
    SenderCertificate,
    SignedDeviceList,
    SignedSenderCertificate,
    login_bytes,
    register_bytes,
    sender_certificate_bytes,
)

NOW = 1_800_000_000.0
ADDRESS = Address("alice", "relay.example")
EXPIRES = int(NOW) + 1000


@pytest.fixture
def identity():
    return IdentityKey.generate()


@pytest.fixture
def make(identity):
    device = DeviceKeys.generate(1).public

    def sign(version=1, previous=b"", devices=(device,), address=ADDRESS, expires=EXPIRES, by=None):
        return sign_device_list(
            by or identity,
            address=address,
            version=version,
            previous=previous,
            devices=devices,
            expires=expires,
        )

    return sign


def check(signed, known=None, now=NOW, address=ADDRESS) -> VerifiedDeviceList:
    return verify_device_list(signed, address=address, now=now, known=known)


def test_round_trip(make):
    """IDENTITY-02: a list verifies for its address, and its successor names it by hash."""
    first = check(make())
    second = check(make(2, first.hash), known=first)
    assert second.body.version == 2
    assert check(make(5, bytes(64)), known=second).body.version == 5


def test_wrong_address(make, refused):
    """IDENTITY-04: the list of one address is refused for another."""
    with refused(Reason.WRONG_ADDRESS):
        check(make(), address=Address("mallory", "relay.example"))


def test_signature(make, refused):
    """IDENTITY-02: a list that was altered, or that another key signed, is refused."""
    signed = make()
    with refused(Reason.BAD_SIGNATURE):
        check(SignedDeviceList(signed.body, bytes(64)))
    with refused(Reason.BAD_SIGNATURE):
        check(SignedDeviceList(make(expires=EXPIRES + 1).body, signed.signature))


def test_expired(make, refused):
    """IDENTITY-02: a list is refused from the second of its expiry on."""
    check(make(), now=EXPIRES - 1)
    with refused(Reason.EXPIRED):
        check(make(), now=EXPIRES)


def test_older_or_forked(make, refused):
    """IDENTITY-05: an older version, other content, or another predecessor is refused."""
    first = check(make())
    second = check(make(2, first.hash), known=first)
    with refused(Reason.STALE_DEVICE_LIST):
        check(make(), known=second)
    with refused(Reason.STALE_DEVICE_LIST):
        check(make(2, first.hash, expires=EXPIRES + 1), known=second)
    with refused(Reason.STALE_DEVICE_LIST):
        check(make(3, first.hash), known=second)


def test_device_keys_never_change(make, refused):
    """IDENTITY-06: the same device id with other keys is refused."""
    first = check(make())
    with refused(Reason.STALE_DEVICE_LIST):
        check(make(2, first.hash, devices=(DeviceKeys.generate(1).public,)), known=first)


def test_another_identity(make):
    """IDENTITY-07: a known address with another identity key is IdentityChanged (R5)."""
    first = check(make())
    with pytest.raises(IdentityChangedError):
        check(make(2, first.hash, by=IdentityKey.generate()), known=first)


def test_form(identity, refused):
    """IDENTITY-03: descending or double ids and a wrong ``previous`` are refused."""
    one, two = DeviceKeys.generate(1).public, DeviceKeys.generate(2).public
    cases = [(1, b"", (two, one)), (1, b"", (one, one)), (1, bytes(64), (one,)), (2, b"", (one,))]
    for version, previous, devices in cases:
        body = encode(
            DeviceList(str(ADDRESS), identity.public, version, previous, devices, EXPIRES)
        )
        signed = SignedDeviceList(body, identity.sign(labelled("device list", body)))
        with refused(Reason.MALFORMED):
            check(signed)


def test_bad_device_key(make, refused):
    """P3: a list with a low-order DH key is refused."""
    bad = Device(1, DeviceKeys.generate(1).signing.public, bytes(32))
    with refused(Reason.BAD_POINT):
        check(make(devices=(bad,)))


def test_own_lists():
    """IDENTITY-01: a list needs one to eight devices with different ids."""
    with pytest.raises(LocalProtocolError):
        sign_device_list(
            IdentityKey.generate(),
            address=ADDRESS,
            version=1,
            previous=b"",
            devices=(),
            expires=EXPIRES,
        )


def certificate(relay, address, identity_key, expires=EXPIRES) -> SignedSenderCertificate:
    body = encode(SenderCertificate(str(address), identity_key, expires))
    unsigned = SignedSenderCertificate(body, bytes(64))
    return SignedSenderCertificate(body, relay.sign(sender_certificate_bytes(unsigned)))


def test_sender_certificate(refused):
    """IDENTITY-09: a certificate needs the relay's signature and a time before its expiry."""
    relay, other = Ed25519KeyPair.generate(), Ed25519KeyPair.generate()
    signed = certificate(relay, ADDRESS, bytes(32))
    assert verify_sender_certificate(signed, relay.public, now=NOW).address == str(ADDRESS)
    with refused(Reason.BAD_SIGNATURE):
        verify_sender_certificate(signed, other.public, now=NOW)
    with refused(Reason.EXPIRED):
        verify_sender_certificate(signed, relay.public, now=EXPIRES)


def test_login_and_registration_signatures(identity, make):
    """IDENTITY-08: log-in and registration are signed over relay and challenge."""
    device, challenge = DeviceKeys.generate(1), bytes(32)
    signature = sign_login(device, relay="r.example", challenge=challenge, username="alice")
    verify(device.signing.public, login_bytes("r.example", challenge, "alice", 1), signature)
    signature = sign_register(identity, relay="r.example", challenge=challenge, device_list=make())
    verify(identity.public, register_bytes("r.example", challenge, make()), signature)


def test_fingerprint():
    """IDENTITY-10: a fingerprint depends on address and key."""
    other = Address("bob", "relay.example")
    prints = {fingerprint(ADDRESS, bytes(32)), fingerprint(other, bytes(32))}
    assert len(prints | {fingerprint(ADDRESS, b"\x01" * 32)}) == 3


def test_local_device_is_stored():
    """A local device is restored from its record exactly; other records are refused."""
    local = LocalDevice.generate(ADDRESS, now=NOW).renewed(NOW + 1)
    relay = Ed25519KeyPair.generate()
    local = local.with_certificate(certificate(relay, ADDRESS, local.identity.public))
    assert LocalDevice.from_bytes(local.to_bytes()) == local
    with pytest.raises(StoreError):
        LocalDevice.from_bytes(local.to_bytes()[:-1])


def test_renewal():
    """IDENTITY-01: a renewed list is the verified successor; recent own lists stay known."""
    local = LocalDevice.generate(ADDRESS, now=NOW)
    assert not local.needs_renewal(NOW)
    assert local.needs_renewal(NOW + 10 * 86_400)
    first = check(local.device_list)
    renewed = local.renewed(NOW + 10 * 86_400)
    second = check(renewed.device_list, known=first)
    assert second.body.expires > first.body.expires
    assert renewed.owns_list(first.hash)
    assert renewed.owns_list(second.hash)
    assert not replace(renewed, previous_lists=()).owns_list(first.hash)


def test_dates_that_no_relay_takes():
    """IDENTITY-19, IDENTITY-18: a list can be told to be ahead, within a day's error, or over; a
    first one that nobody took is signed anew by the same keys.
    """
    day = 86_400
    local = LocalDevice.generate(ADDRESS, now=NOW)
    assert local.is_ahead(NOW - day - 1)
    assert not local.is_ahead(NOW - day)
    assert not local.is_expired(NOW + 18 * day - 1)
    assert local.is_expired(NOW + 18 * day)
    anew = local.begun_anew(NOW + 30 * day)
    second = check(anew.device_list, now=NOW + 30 * day)
    assert (second.body.version, second.body.previous) == (1, b"")
    assert second.body.devices == local.verified_list.body.devices
    assert second.body.identity_key == local.identity.public
    assert not anew.is_expired(NOW + 47 * day)


def test_devices_are_found_by_id(make, refused):
    """IDENTITY-01: a device is the one with its id, and there is no other for it."""
    devices = [DeviceKeys.generate(device_id).public for device_id in (1, 2, 7)]
    verified = check(make(devices=devices))
    assert [verified.device(device.device_id) for device in devices] == devices
    with refused(Reason.UNKNOWN_KEY):
        verified.device(3)


def test_own_list(make, identity, refused):
    """ACCOUNT-06: one's own list is taken also when it expired, and no other account's is."""
    mallory = IdentityKey.generate()
    shown = make(expires=1)
    assert verify_own_list(shown, identity.public, address=ADDRESS).body.expires == 1
    with refused(Reason.WRONG_ADDRESS):
        verify_own_list(make(address=Address("bob", "relay.example")), identity.public,
                        address=ADDRESS)  # fmt: skip
    with refused(Reason.BAD_SIGNATURE):
        verify_own_list(make(by=mallory), identity.public, address=ADDRESS)
