"""Operations on keys: notation, identity, prekeys (spec/pqxdh.md, identity.md, prekeys.md)."""

from e2ecall.crypto import kdf, mlkem, x25519
from e2ecall.crypto.ed25519 import Ed25519KeyPair
from e2ecall.crypto.hpke import SealingKeyPair
from e2ecall.crypto.x25519 import X25519KeyPair
from e2ecall.protocol import bundle as bundles
from e2ecall.protocol import devices, handshake, identity, prekeys
from e2ecall.protocol.devices import VerifiedDeviceList
from e2ecall.protocol.encoding import decode_remote
from e2ecall.protocol.identity import DeviceKeys, IdentityKey
from e2ecall.protocol.local import LocalDevice
from e2ecall.secret import Secret
from relay.services import directory
from relay.services.signatures import RelayKey
from relay.wire.codec import decode, encode
from relay.wire.labels import labelled as wire_labelled
from relay.wire.messages import Policy
from relay.wire.names import Address
from relay.wire.records import (
    Device,
    DeviceList,
    PreKeyBundle,
    PreKeyKind,
    SignedDeviceList,
    SignedSenderCertificate,
    device_list_hash,
    login_bytes,
    prekey_bytes,
    recovery_bytes,
    register_bytes,
)
from tests.vectors.harness import Given, operation


@operation
def labelled(given: Given):
    return {"labelled": wire_labelled(given["purpose"], *given.hexes("parts"))}


@operation
def hash_(given: Given):
    return {"hash": kdf.labelled_hash(given["purpose"], *given.hexes("parts"))}


@operation
def mac(given: Given):
    tag = kdf.labelled_mac(given["purpose"], given.secret("key"), *given.hexes("parts"))
    return {"mac": tag}


@operation
def kdf_(given: Given):
    output = kdf.labelled_kdf(
        given["purpose"],
        salt=given.hex("salt"),
        secrets=[Secret(secret) for secret in given.hexes("secrets")],
        context=given.hexes("context"),
        length=given["length"],
    )
    return {"output": output}


@operation
def x25519_(given: Given):
    keys = X25519KeyPair.from_private(given.secret("private"))
    return {"own_public": keys.public, "secret": keys.exchange(given.hex("public"))}


def _decapsulate(kem, given: Given):
    secret, key = kem.open_ciphertext(given.secret("seed"), given.hex("ciphertext"))
    assert kem.decapsulate(given.secret("seed"), given.hex("ciphertext")) == secret
    assert kem.from_seed(given.secret("seed")).public == key
    return {"key": key, "secret": secret}


@operation
def mlkem_768_decapsulate(given: Given):
    return _decapsulate(mlkem.MLKEM768, given)


@operation
def mlkem_1024_decapsulate(given: Given):
    return _decapsulate(mlkem.MLKEM1024, given)


@operation
def mlkem_768_check(given: Given):
    mlkem.MLKEM768.check_public_key(given.hex("key"))
    return {}


@operation
def mlkem_1024_check(given: Given):
    mlkem.MLKEM1024.check_public_key(given.hex("key"))
    return {}


@operation
def sign_device_list(given: Given):
    own = IdentityKey.from_bytes(given.hex("identity_seed"))
    listed = [
        Device(device_id, bytes.fromhex(signing), bytes.fromhex(dh))
        for device_id, signing, dh in given["devices"]
    ]
    signed = devices.sign_device_list(
        own,
        address=Address.parse(given["address"]),
        version=given["version"],
        previous=given.hex("previous"),
        devices=reversed(listed),
        expires=given["expires"],
    )
    return {
        "identity_key": own.public,
        "body": signed.body,
        "signature": signed.signature,
        "encoded": encode(signed),
        "hash": device_list_hash(signed),
    }


def read_signed_list(data: bytes) -> SignedDeviceList:
    return decode_remote(data, SignedDeviceList, limit=4096)


def known_list(data: bytes) -> VerifiedDeviceList:
    """Return a list in the form in which one that was verified before is kept."""
    signed = read_signed_list(data)
    return VerifiedDeviceList(decode(signed.body, DeviceList, limit=4096), device_list_hash(signed))


@operation
def verify_device_list(given: Given):
    verified = devices.verify_device_list(
        read_signed_list(given.hex("signed_list")),
        address=Address.parse(given["address"]),
        now=given["now"],
        known=None if given["known"] is None else known_list(given.hex("known")),
    )
    return {"hash": verified.hash}


@operation
def sign_login(given: Given):
    signing = Ed25519KeyPair.from_seed(given.secret("signing_seed"))
    device = DeviceKeys(given["device_id"], signing, X25519KeyPair.generate())
    relay, challenge, username = given["relay"], given.hex("challenge"), given["username"]
    return {
        "signed": login_bytes(relay, challenge, username, device.device_id),
        "signature": identity.sign_login(
            device, relay=relay, challenge=challenge, username=username
        ),
    }


@operation
def sign_register(given: Given):
    own = IdentityKey.from_bytes(given.hex("identity_seed"))
    signed_list = read_signed_list(given.hex("signed_list"))
    relay, challenge = given["relay"], given.hex("challenge")
    return {
        "signed": register_bytes(relay, challenge, signed_list),
        "signature": identity.sign_register(
            own, relay=relay, challenge=challenge, device_list=signed_list
        ),
    }


@operation
def sign_recovery(given: Given):
    own = IdentityKey.from_bytes(given.hex("identity_seed"))
    relay, challenge, username = given["relay"], given.hex("challenge"), given["username"]
    return {
        "signed": recovery_bytes(relay, challenge, username),
        "signature": identity.sign_recovery(
            own, relay=relay, challenge=challenge, username=username
        ),
    }


@operation
def sign_certificate(given: Given):
    key = RelayKey.from_seed(given.hex("relay_seed"))
    listed = DeviceList(given["address"], given.hex("identity_key"), 1, b"", (), 0)
    account = directory.Account("", SignedDeviceList(b"", b""), listed, 1, Policy.EVERYONE)
    now = given["expires"] - directory.CERTIFICATE_LIFETIME
    signed = directory.certify(key, account, now=now)
    return {
        "body": signed.body,
        "signature": signed.signature,
        "encoded": encode(signed),
        "relay_key": key.public,
    }


def _certificate(data: bytes) -> SignedSenderCertificate:
    return decode_remote(data, SignedSenderCertificate, limit=1024)


@operation
def verify_certificate(given: Given):
    certificate = identity.verify_sender_certificate(
        _certificate(given.hex("certificate")), given.hex("relay_key"), now=given["now"]
    )
    return {"address": certificate.address}


class _Shown:
    """The only field of an initial message that `is_proven` looks at."""

    def __init__(self, certificate: SignedSenderCertificate | None) -> None:
        self.certificate = certificate


@operation
def is_proven(given: Given):
    shown = given["certificate"]
    keys = {relay: bytes.fromhex(key) for relay, key in given["relay_keys"].items()}
    proven = handshake.is_proven(
        _Shown(None if shown is None else _certificate(given.hex("certificate"))),
        Address.parse(given["address"]),
        given.hex("identity_key"),
        keys,
        given["now"],
    )
    return {"proven": proven}


@operation
def identity_fingerprint(given: Given):
    address = Address.parse(given["address"])
    return {"fingerprint": identity.fingerprint(address, given.hex("identity_key"))}


def public_key(kind: PreKeyKind, private: bytes) -> bytes:
    """Return the public key of a prekey of this kind."""
    if kind in (PreKeyKind.SIGNED_X25519, PreKeyKind.ONE_TIME_X25519):
        return x25519.public_key(Secret(private))
    if kind is PreKeyKind.SEALING:
        mlkem_key = mlkem.MLKEM768.from_seed(Secret(private[:64])).public
        return SealingKeyPair(
            Secret(private), mlkem_key + x25519.public_key(Secret(private[64:]))
        ).public
    return mlkem.MLKEM1024.from_seed(Secret(private)).public


def local_device(given: Given) -> LocalDevice:
    """Return a local device of the keys that a vector gives."""
    keys = DeviceKeys(
        given["device_id"],
        Ed25519KeyPair.from_seed(given.secret("signing_seed")),
        X25519KeyPair.from_private(given.secret("dh_private")),
    )
    return LocalDevice(
        Address.parse(given["address"]),
        IdentityKey.from_bytes(given.hex("identity_seed")),
        keys,
        read_signed_list(given.hex("device_list")),
    )


@operation
def sign_prekey(given: Given):
    kind, key_id = PreKeyKind(given["kind"]), given["key_id"]
    keys = DeviceKeys(
        given["device_id"],
        Ed25519KeyPair.from_seed(given.secret("signing_seed")),
        X25519KeyPair.generate(),
    )
    local = LocalDevice(
        Address.parse(given["address"]),
        IdentityKey.generate(),
        keys,
        SignedDeviceList(b"", b""),
    )
    key = public_key(kind, given.hex("private"))
    prekey = prekeys.sign_prekey(local, kind, key_id, expires=given["expires"], key=key)
    return {
        "key": key,
        "signed": prekey_bytes(given["address"], given["device_id"], prekey),
        "signature": prekey.signature,
        "encoded": encode(prekey),
    }


@operation
def verify_bundle(given: Given):
    verified = bundles.verify_bundle(
        decode_remote(given.hex("bundle"), PreKeyBundle, limit=40_000),
        address=Address.parse(given["address"]),
        now=given["now"],
        known=None,
    )
    return {
        "last_resort": verified.kem_prekey.kind is PreKeyKind.LAST_RESORT_MLKEM1024,
        "one_time_x25519": verified.one_time_prekey is not None,
        "device_list_hash": verified.device_list.hash,
    }
