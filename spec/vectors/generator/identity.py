"""Vectors of spec/identity.md: device lists, log-in, certificates, fingerprints."""

from spec.vectors.generator.encoding import Value, enc
from spec.vectors.generator.form import VectorFile
from spec.vectors.generator.notation import BAD_POINTS
from spec.vectors.generator.people import (
    ALICE,
    BOB,
    CAROL,
    DAY,
    EXPIRES,
    NOW,
    RELAY,
    RELAY_SEED,
    Account,
    Device,
    certificate,
    list_hash,
)
from spec.vectors.generator.primitives import (
    H,
    L,
    P,
    draw,
    flipped,
    labelled,
    sign,
    sign_key,
)

_DEVICES = tuple(Device.named("erin", i) for i in (1, 2, 127, 128, 255, 256, 65_534, 65_535))
_ERIN = Account("erin", RELAY, draw("erin identity"), _DEVICES)


def identity() -> VectorFile:
    """identity.json."""
    file = VectorFile("identity.md", {"now": NOW})
    _signing(file)
    _verifying(file)
    _refused_lists(file)
    _refused_successors(file)
    _relay_signatures(file)
    _certificates(file)
    for who in (ALICE, BOB, CAROL):
        output = {"fingerprint": H("identity fingerprint", who.address.encode(), who.identity_key)}
        given = {"address": who.address, "identity_key": who.identity_key}
        name = f"fingerprint_{who.username}"
        file.accept("identity_fingerprint", name, "IDENTITY-10", given, output)
    return file


def _signing(file: VectorFile) -> None:
    cases: list[tuple[str, Account, dict[str, Value]]] = [
        ("one_device", ALICE, {}),
        ("two_devices", BOB, {}),
        ("address_with_port", CAROL, {}),
        ("eight_devices", _ERIN, {"expires": EXPIRES}),
        ("second_version", ALICE, {"version": 2, "previous": ALICE.list_hash}),
        ("last_version", BOB, {"version": 2**32 - 1, "previous": BOB.list_hash}),
        ("latest_expiry", ALICE, {"expires": 2**48 - 1}),
    ]
    for name, who, changes in cases:
        body = who.body(**changes)
        given = {
            "identity_seed": who.identity_seed,
            "address": who.address,
            "version": changes.get("version", 1),
            "previous": changes.get("previous", b""),
            "devices": [device.entry for device in who.devices],
            "expires": changes.get("expires", EXPIRES),
        }
        signed = who.signed_list(body)
        output = {
            "identity_key": who.identity_key,
            "body": body,
            "signature": signed[1],
            "encoded": enc(signed),
            "hash": list_hash(body),
        }
        file.accept("sign_device_list", f"device_list_{name}", "IDENTITY-01", given, output)


def _shown(signed: Value, address: str = ALICE.address, known: Value = None) -> dict[str, Value]:
    """Return the input of verify_device_list; ``known`` is the newest list verified before."""
    return {
        "signed_list": enc(signed),
        "address": address,
        "known": None if known is None else enc(known),
    }


def _successor(version: int, previous: bytes, **changes: Value) -> list[Value]:
    return ALICE.signed_list(ALICE.body(version=version, previous=previous, **changes))


def _verifying(file: VectorFile) -> None:
    second = _successor(2, ALICE.list_hash)
    more = [*(device.entry for device in ALICE.devices), Device.named("alice", 2).entry]
    cases = {
        "first_seen": _shown(ALICE.signed_list()),
        "the_same_again": _shown(second, known=second),
        "next_version": _shown(second, known=ALICE.signed_list()),
        "gap_of_versions": _shown(_successor(9, draw("gap", 64)), known=ALICE.signed_list()),
        "device_added": _shown(
            _successor(2, ALICE.list_hash, devices=more), known=ALICE.signed_list()
        ),
        "device_removed": _shown(
            _successor(4, draw("gap", 64)), known=_successor(2, ALICE.list_hash, devices=more)
        ),
        "last_second": _shown(ALICE.signed_list(ALICE.body(expires=NOW + 1))),
    }
    for name, given in cases.items():
        body = _body_of(given["signed_list"])
        file.accept(
            "verify_device_list",
            f"verified_{name}",
            "IDENTITY-05",
            given,
            {"hash": list_hash(body)},
        )


def _body_of(encoded: Value) -> bytes:
    """Return the body inside an encoded SignedDeviceList: 0x92, bin 8 or 16, body, signature."""
    if not isinstance(encoded, bytes):
        raise TypeError("not encoded")
    return encoded[3:-66] if encoded[1] == 0xC4 else encoded[4:-66]


def _unreduced(signature: bytes) -> bytes:
    s = int.from_bytes(signature[32:], "little") + L
    return signature[:32] + s.to_bytes(32, "little")


def _refused_lists(file: VectorFile) -> None:
    requirement = {"devices": "IDENTITY-03", "ed25519": "IDENTITY-02", "encoding": "WIRE-04"}

    def refuse(name: str, signed: Value, layer: str, reason: str, address: str = "") -> None:
        given = _shown(signed, address or ALICE.address)
        wanted = requirement.get(layer, "IDENTITY-03")
        file.refuse("verify_device_list", f"device_list_{name}", wanted, given, layer, reason)

    def body(**changes: Value) -> list[Value]:
        return ALICE.signed_list(ALICE.body(**changes))

    good, signature = ALICE.body(), sign(ALICE.identity_seed, labelled("device list", ALICE.body()))
    for name, bad in {
        "signature_altered": flipped(signature, 0),
        "signature_of_another_label": sign(ALICE.identity_seed, labelled("prekey", good)),
        "signature_of_another_key": sign(BOB.identity_seed, labelled("device list", good)),
        "signature_of_body_alone": sign(ALICE.identity_seed, good),
        "signature_scalar_not_reduced": _unreduced(signature),
        "signature_zero": bytes(64),
    }.items():
        refuse(name, [good, bad], "ed25519", "bad_signature")
    for name, key in {
        "identity_key_of_order_1": (1).to_bytes(32, "little"),
        "identity_key_of_order_2": (P - 1).to_bytes(32, "little"),
        "identity_key_of_order_4": bytes(32),
        "identity_key_not_canonical": (P + 1).to_bytes(32, "little"),
    }.items():
        # R = A and s = 0 satisfy the equation under a key of low order.
        refuse(name, [ALICE.body(identity_key=key), key + bytes(32)], "ed25519", "bad_signature")
    refuse("body_altered", [flipped(good, -1), signature], "ed25519", "bad_signature")
    refuse("expired", body(expires=NOW), "devices", "expired")
    refuse("of_another_address", BOB.signed_list(), "devices", "wrong_address")
    refuse("of_another_relay", body(address="alice@relay.test"), "devices", "wrong_address")
    one, two = Device.named("alice", 1).entry, Device.named("alice", 2).entry
    refuse("devices_descending", body(devices=[two, one]), "devices", "malformed")
    refuse("device_id_twice", body(devices=[one, one]), "devices", "malformed")
    refuse("previous_in_first_version", body(previous=bytes(64)), "devices", "malformed")
    refuse("previous_missing", body(version=2), "devices", "malformed")
    refuse("previous_too_short", body(version=2, previous=bytes(63)), "devices", "malformed")
    for name, point in BAD_POINTS.items():
        bad_device = body(devices=[[1, one[1], point]])
        refuse(f"dh_key_{name}", bad_device, "x25519", "bad_point")
    nine = [Device.named("alice", i).entry for i in range(1, 10)]
    for name, changes in _MALFORMED.items():
        refuse(name, body(**changes), "encoding", "malformed")
    refuse("nine_devices", body(devices=nine), "encoding", "malformed")
    refuse("with_trailing_byte", ALICE.signed_list(good + b"\0"), "encoding", "malformed")
    refuse("cut_off", ALICE.signed_list(good[:-1]), "encoding", "malformed")
    refuse(
        "with_seventh_field",
        ALICE.signed_list(b"\x97" + good[1:] + b"\xc0"),
        "encoding",
        "malformed",
    )
    refuse("without_expiry", ALICE.signed_list(b"\x95" + good[1:-5]), "encoding", "malformed")
    long = b"\x96\xd9\x13" + good[2:]  # the address, 19 characters, with a length of two bytes
    refuse("address_not_shortest", ALICE.signed_list(long), "encoding", "malformed")
    refuse("empty", ALICE.signed_list(b""), "encoding", "malformed")


_MALFORMED: dict[str, dict[str, Value]] = {
    "no_devices": {"devices": []},
    "version_zero": {"version": 0},
    "version_too_large": {"version": 2**32},
    "device_id_zero": {"devices": [[0, bytes(32), bytes(32)]]},
    "device_id_too_large": {"devices": [[65_536, bytes(32), bytes(32)]]},
    "identity_key_too_short": {"identity_key": ALICE.identity_key[:31]},
    "previous_too_long": {"version": 2, "previous": bytes(65)},
    "expiry_too_large": {"expires": 2**48},
    "address_as_bytes": {"address": ALICE.address.encode()},
    "device_as_number": {"devices": [1]},
}


def _refused_successors(file: VectorFile) -> None:
    other = Device(1, draw("other signing"), ALICE.devices[0].dh_private).entry
    moved = Device(1, ALICE.devices[0].signing_seed, draw("other dh")).entry
    stranger = Account("alice", RELAY, draw("another identity"), ALICE.devices)
    second, first = _successor(2, ALICE.list_hash), ALICE.signed_list()
    cases = {
        "older": ("IDENTITY-05", first, second, "stale_device_list"),
        "forked": (
            "IDENTITY-05",
            _successor(2, ALICE.list_hash, expires=EXPIRES + 1),
            second,
            "stale_device_list",
        ),
        "not_linked": ("IDENTITY-05", _successor(2, draw("x", 64)), first, "stale_device_list"),
        "signing_key_changed": (
            "IDENTITY-06",
            _successor(2, ALICE.list_hash, devices=[other]),
            first,
            "stale_device_list",
        ),
        "dh_key_changed": (
            "IDENTITY-06",
            _successor(3, draw("x", 64), devices=[moved]),
            first,
            "stale_device_list",
        ),
        "identity_changed": ("IDENTITY-07", stranger.signed_list(), first, "identity_changed"),
    }
    for name, (requirement, shown, known, reason) in cases.items():
        given = _shown(shown, known=known)
        file.refuse(
            "verify_device_list", f"device_list_{name}", requirement, given, "devices", reason
        )


def _relay_signatures(file: VectorFile) -> None:
    challenge = draw("challenge")
    for who in (ALICE, CAROL):
        device = who.devices[0]
        message = labelled("login", enc([who.relay, challenge, who.username, device.device_id]))
        given = {
            "signing_seed": device.signing_seed,
            "relay": who.relay,
            "challenge": challenge,
            "username": who.username,
            "device_id": device.device_id,
        }
        output = {"signed": message, "signature": sign(device.signing_seed, message)}
        file.accept("sign_login", f"login_{who.username}", "IDENTITY-08", given, output)
        signed_list = who.signed_list()
        message = labelled("register", enc([who.relay, challenge, signed_list[0]]))
        given = {
            "identity_seed": who.identity_seed,
            "relay": who.relay,
            "challenge": challenge,
            "signed_list": enc(signed_list),
        }
        output = {"signed": message, "signature": sign(who.identity_seed, message)}
        file.accept("sign_register", f"register_{who.username}", "IDENTITY-08", given, output)
        message = labelled("own device list", enc([who.relay, challenge, who.username]))
        given = {
            "identity_seed": who.identity_seed,
            "relay": who.relay,
            "challenge": challenge,
            "username": who.username,
        }
        output = {"signed": message, "signature": sign(who.identity_seed, message)}
        file.accept("sign_recovery", f"recovery_{who.username}", "WIRE-17", given, output)


def _certificates(file: VectorFile) -> None:
    relay_key = sign_key(RELAY_SEED)
    good = certificate(RELAY_SEED, ALICE.address, ALICE.identity_key)
    other = certificate(draw("another relay"), ALICE.address, ALICE.identity_key)
    expired = certificate(RELAY_SEED, ALICE.address, ALICE.identity_key, NOW)
    body = enc([ALICE.address, ALICE.identity_key, NOW + DAY])
    output = {"body": body, "signature": good[1], "encoded": enc(good), "relay_key": relay_key}
    given: dict[str, Value] = {
        "relay_seed": RELAY_SEED,
        "address": ALICE.address,
        "identity_key": ALICE.identity_key,
        "expires": NOW + DAY,
    }
    file.accept("sign_certificate", "certificate", "IDENTITY-09", given, output)
    trailing = body + b"\0"
    long = [trailing, sign(RELAY_SEED, labelled("sender certificate", trailing))]
    for name, signed, layer, reason in (
        ("of_another_relay", other, "ed25519", "bad_signature"),
        (
            "signature_altered",
            [body, flipped(sign(RELAY_SEED, b""), 5)],
            "ed25519",
            "bad_signature",
        ),
        ("expired", expired, "identity", "expired"),
        ("with_trailing_byte", long, "encoding", "malformed"),
    ):
        given = {"certificate": enc(signed), "relay_key": relay_key}
        file.refuse(
            "verify_certificate", f"certificate_{name}", "IDENTITY-09", given, layer, reason
        )
    wrong_name = certificate(RELAY_SEED, BOB.address, ALICE.identity_key)
    wrong_key = certificate(RELAY_SEED, ALICE.address, BOB.identity_key)
    for name, signed_or_none, relays, proven in (
        ("proven", good, {RELAY: relay_key}, True),
        ("not_proven_without_certificate", None, {RELAY: relay_key}, False),
        ("not_proven_by_unknown_relay", good, {"relay.test": relay_key}, False),
        ("not_proven_by_another_key", other, {RELAY: relay_key}, False),
        ("not_proven_for_another_address", wrong_name, {RELAY: relay_key}, False),
        ("not_proven_for_another_identity", wrong_key, {RELAY: relay_key}, False),
        ("not_proven_by_expired_certificate", expired, {RELAY: relay_key}, False),
    ):
        proof = {
            "certificate": None if signed_or_none is None else enc(signed_or_none),
            "address": ALICE.address,
            "identity_key": ALICE.identity_key,
            "relay_keys": relays,
        }
        file.accept("is_proven", name, "IDENTITY-09", proof, {"proven": proven})
