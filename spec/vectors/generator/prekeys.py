"""Vectors of spec/prekeys.md: prekeys of all kinds, and bundles."""

from spec.vectors.generator.encoding import Value, enc
from spec.vectors.generator.form import VectorFile
from spec.vectors.generator.notation import BAD_POINTS, unreduced
from spec.vectors.generator.people import ALICE, BOB, NOW, Prekey
from spec.vectors.generator.primitives import flipped, labelled

KINDS = {
    1: "signed_x25519",
    2: "sealing",
    3: "one_time_x25519",
    4: "one_time_mlkem1024",
    5: "last_resort_mlkem1024",
}
DEVICE = BOB.devices[1]
OWN = {kind: Prekey.named("bob", kind, 300 + kind) for kind in KINDS}
"""One prekey of each kind of bob's second device."""


def prekeys() -> VectorFile:
    """prekeys.json."""
    file = VectorFile("prekeys.md", {"now": NOW})
    for kind, name in KINDS.items():
        for key_id in (1, 300, 2**32 - 1):
            _signing(file, f"prekey_{name}_{key_id}", Prekey.named("bob", kind, key_id))
    _bundles(file)
    _refused_prekeys(file)
    _refused_bundles(file)
    return file


def _signing(file: VectorFile, name: str, prekey: Prekey) -> None:
    given = {
        "private": prekey.private,
        "signing_seed": DEVICE.signing_seed,
        "address": BOB.address,
        "device_id": DEVICE.device_id,
        "kind": prekey.kind,
        "key_id": prekey.key_id,
        "expires": prekey.expires,
    }
    fields: list[Value] = [
        BOB.address,
        DEVICE.device_id,
        prekey.kind,
        prekey.key_id,
        prekey.expires,
        prekey.key,
    ]
    record = prekey.record(BOB.address, DEVICE)
    output = {
        "key": prekey.key,
        "signed": labelled("prekey", enc(fields)),
        "signature": record[4],
        "encoded": enc(record),
    }
    file.accept("sign_prekey", name, "PREKEYS-02", given, output)


def record(kind: int, **changes: Value) -> list[Value]:
    """Return bob's prekey of a kind, well signed but for the changes."""
    return OWN[kind].record(BOB.address, DEVICE, **changes)


def bundle(**changes: Value) -> list[Value]:
    """Return the bundle of bob's second device, but for the changes."""
    fields: dict[str, Value] = {
        "device_list": BOB.signed_list(),
        "device_id": DEVICE.device_id,
        "signed": record(1),
        "sealing": record(2),
        "kem": record(4),
        "one_time": record(3),
    }
    return list((fields | changes).values())


def _bundles(file: VectorFile) -> None:
    cases: dict[str, dict[str, Value]] = {
        "with_one_time_keys": {},
        "without_one_time_x25519": {"one_time": None},
        "with_last_resort": {"kem": record(5)},
        "without_one_time_keys": {"kem": record(5), "one_time": None},
    }
    for name, changes in cases.items():
        given = {"bundle": enc(bundle(**changes)), "address": BOB.address}
        output = {
            "last_resort": "kem" in changes,
            "one_time_x25519": "one_time" not in changes,
            "device_list_hash": BOB.list_hash,
        }
        file.accept("verify_bundle", f"bundle_{name}", "PREKEYS-03", given, output)


def _bad_keys() -> dict[str, tuple[int, bytes, str, str]]:
    cases = {
        f"x25519_{name}": (3, point, "x25519", "bad_point") for name, point in BAD_POINTS.items()
    }
    sealing = OWN[2].key
    for name in ("low_order_0", "on_twist", "not_canonical"):
        point = BAD_POINTS[name]
        cases[f"sealing_x25519_{name}"] = (2, sealing[:1184] + point, "x25519", "bad_point")
    cases["signed_x25519_on_twist"] = (1, BAD_POINTS["on_twist"], "x25519", "bad_point")
    cases["sealing_mlkem_not_reduced"] = (2, unreduced(sealing), "ml-kem", "bad_kem_key")
    cases["one_time_mlkem_not_reduced"] = (4, unreduced(OWN[4].key), "ml-kem", "bad_kem_key")
    cases["last_resort_not_reduced"] = (5, unreduced(OWN[5].key), "ml-kem", "bad_kem_key")
    cases["x25519_too_long"] = (1, OWN[1].key + b"\0", "prekeys", "malformed")
    cases["sealing_too_short"] = (2, sealing[:-1], "prekeys", "malformed")
    cases["mlkem_of_768"] = (4, sealing[:1184], "prekeys", "malformed")
    return cases


_PLACE = {1: "signed", 2: "sealing", 3: "one_time", 4: "kem", 5: "kem"}


def _refuse(file: VectorFile, name: str, changes: dict[str, Value], layer: str, why: str) -> None:
    given = {"bundle": enc(bundle(**changes)), "address": BOB.address}
    file.refuse("verify_bundle", f"bundle_{name}", "PREKEYS-02", given, layer, why)


def _refused_prekeys(file: VectorFile) -> None:
    for name, (kind, key, layer, reason) in _bad_keys().items():
        _refuse(file, f"{name}", {_PLACE[kind]: record(kind, key=key)}, layer, reason)
    for kind, place in _PLACE.items():
        good = record(kind)
        signature = good[4]
        if not isinstance(signature, bytes):
            raise TypeError("a signature is binary")
        forged = [*good[:4], flipped(signature, 3)]
        _refuse(file, f"{KINDS[kind]}_forged", {place: forged}, "ed25519", "bad_signature")
        late = record(kind, expires=NOW)
        _refuse(file, f"{KINDS[kind]}_expired", {place: late}, "prekeys", "expired")
    altered_records: dict[str, list[Value]] = {
        "key_id": [1, 302, *record(1)[2:]],
        "expiry": [1, 301, OWN[1].expires + 1, *record(1)[3:]],
        "key": [1, 301, OWN[1].expires, OWN[3].key, record(1)[4]],
    }
    for name, altered in altered_records.items():
        _refuse(
            file, f"signed_x25519_{name}_altered", {"signed": altered}, "ed25519", "bad_signature"
        )


def _refused_bundles(file: VectorFile) -> None:
    other_device = OWN[1].record(BOB.address, BOB.devices[0])
    other_address = OWN[1].record(ALICE.address, DEVICE)
    number_changed = [1, *record(3)[1:]]
    as_last_resort = [5, *record(4)[1:]]
    for name, signed in {
        "of_another_device": other_device,
        "of_another_address": other_address,
        "made_of_a_one_time_key": number_changed,
    }.items():
        _refuse(file, f"signed_x25519_{name}", {"signed": signed}, "ed25519", "bad_signature")
    _refuse(
        file, "one_time_mlkem_as_last_resort", {"kem": as_last_resort}, "ed25519", "bad_signature"
    )
    misplaced: dict[str, dict[str, Value]] = {
        "one_time_key_as_signed": {"signed": record(3)},
        "signed_key_as_one_time": {"one_time": record(1)},
        "x25519_key_as_kem": {"kem": record(3)},
        "kem_key_as_sealing": {"sealing": record(4)},
        "last_resort_key_as_one_time_x25519": {"one_time": record(5)},
    }
    for name, changes in misplaced.items():
        _refuse(file, name, changes, "prekeys", "malformed")
    _refuse(file, "of_unknown_device", {"device_id": 2}, "devices", "unknown_key")
    _refuse(
        file, "of_another_account", {"device_list": ALICE.signed_list()}, "devices", "wrong_address"
    )
    _refuse(file, "without_signed_key", {"signed": None}, "encoding", "malformed")
    _refuse(file, "without_kem_key", {"kem": None}, "encoding", "malformed")
    _refuse(file, "with_unknown_kind", {"one_time": [6, *record(3)[1:]]}, "encoding", "malformed")
    _refuse(file, "with_key_id_zero", {"one_time": record(3, key_id=0)}, "encoding", "malformed")
