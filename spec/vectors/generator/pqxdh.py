"""Vectors of spec/pqxdh.md: key schedule of both sides, initial messages, and their refusals."""

from dataclasses import dataclass, replace
from typing import Any

from spec.vectors.generator.encoding import Value, enc
from spec.vectors.generator.form import VectorFile
from spec.vectors.generator.mlkem import encapsulate
from spec.vectors.generator.notation import BAD_POINTS
from spec.vectors.generator.people import (
    ALICE,
    BOB,
    CAROL,
    EXPIRES,
    NOW,
    RELAY,
    RELAY_SEED,
    Account,
    Device,
    Prekey,
    certificate,
)
from spec.vectors.generator.prekeys import KINDS
from spec.vectors.generator.primitives import (
    DH,
    KDF,
    H,
    dh_key,
    draw,
    flipped,
    sign_key,
    u8,
    u16,
    u32,
)
from spec.vectors.generator.ratchet import Side, Start, Step


@dataclass(frozen=True)
class Handshake:
    """One initiation: who, with which prekeys, and what is random about it."""

    name: str
    a: Account
    b: Account
    spk: Prekey
    kem: Prekey
    opk: Prekey | None
    a_device: int = 0
    b_device: int = 0

    @property
    def device_a(self) -> Device:
        """The initiator's device."""
        return self.a.devices[self.a_device]

    @property
    def device_b(self) -> Device:
        """The responder's device."""
        return self.b.devices[self.b_device]

    @property
    def ek_private(self) -> bytes:
        """The ephemeral private key."""
        return draw(f"{self.name} ek")

    @property
    def encapsulated(self) -> tuple[bytes, bytes]:
        """KS and CT."""
        return encapsulate(1024, self.kem.key, draw(f"{self.name} m"))

    def hash(self) -> bytes:
        """The handshake hash."""
        a, b = self.device_a, self.device_b
        return H(
            "pqxdh transcript",
            u16(1),
            *(self.a.address.encode(), u16(a.device_id), self.a.identity_key, self.a.list_hash),
            dh_key(a.dh_private),
            *(self.b.address.encode(), u16(b.device_id), self.b.identity_key, self.b.list_hash),
            dh_key(b.dh_private),
            u32(self.spk.key_id),
            self.spk.key,
            b"" if self.opk is None else u32(self.opk.key_id),
            b"" if self.opk is None else self.opk.key,
            dh_key(self.ek_private),
            u8(self.kem.kind),
            u32(self.kem.key_id),
            self.kem.key,
            self.encapsulated[1],
        )

    def secrets(self) -> list[bytes]:
        """DH1, DH2, DH3, DH4 if there is an OPK, KS; the responder's side of the DHs."""
        b, ek = self.device_b, dh_key(self.ek_private)
        secrets = [
            DH(self.spk.private, dh_key(self.device_a.dh_private)),
            DH(b.dh_private, ek),
            DH(self.spk.private, ek),
        ]
        if self.opk is not None:
            secrets.append(DH(self.opk.private, ek))
        return [*secrets, self.encapsulated[0]]

    def keys(self) -> bytes:
        """Root key, both header keys, session id."""
        return KDF("pqxdh", bytes(64), self.secrets(), [self.hash()], 112)

    def start(self) -> Start:
        """What the ratchet starts from."""
        keys = self.keys()
        return Start(self.hash(), keys[:32], keys[32:64], keys[64:96], self.spk.private)

    def initial(self, **changes: Value) -> list[Value]:
        """Return InitialMessage, but for the changes."""
        sealing = Prekey.named(self.a.username, 2, 9).record(self.a.address, self.device_a)
        fields: dict[str, Value] = {
            "version": 1,
            "sender": self.a.address,
            "device_id": self.device_a.device_id,
            "device_list": self.a.signed_list(),
            "certificate": certificate(RELAY_SEED, self.a.address, self.a.identity_key),
            "recipient_list": self.b.list_hash,
            "spk_id": self.spk.key_id,
            "opk_id": None if self.opk is None else self.opk.key_id,
            "kem_id": self.kem.key_id,
            "ek": dh_key(self.ek_private),
            "ct": self.encapsulated[1],
            "sealing_key": sealing,
        }
        return list((fields | changes).values())

    def first_message(self, plaintext: bytes, nonce: str = "nonce") -> bytes:
        """Return the first ratchet message."""
        side: Side = self.start().initiator(Step.named(f"{self.name} first step"))
        return side.encrypt(draw(f"{self.name} {nonce}", 12), plaintext)


PREKEYS = {kind: Prekey.named("bob", kind, 10 + kind) for kind in KINDS}
OTHER_ONE_TIME = Prekey.named("bob", 3, 99)
OTHER_KEM = Prekey.named("bob", 4, 98)
FULL = Handshake("full", ALICE, BOB, PREKEYS[1], PREKEYS[4], PREKEYS[3])
CASES = [
    FULL,
    replace(FULL, name="without_one_time_x25519", opk=None),
    replace(FULL, name="with_last_resort", kem=PREKEYS[5]),
    replace(FULL, name="without_one_time_keys", kem=PREKEYS[5], opk=None),
    replace(FULL, name="from_another_relay", a=CAROL),
    replace(FULL, name="to_the_second_device", b_device=1),
]


def responder(case: Handshake) -> dict[str, Value]:
    """Return everything private of the responder that its side needs."""
    keys = [*PREKEYS.values(), OTHER_ONE_TIME, OTHER_KEM]
    return {
        "address": case.b.address,
        "identity_seed": case.b.identity_seed,
        "device_id": case.device_b.device_id,
        "signing_seed": case.device_b.signing_seed,
        "dh_private": case.device_b.dh_private,
        "device_list": enc(case.b.signed_list()),
        "prekeys": [[key.kind, key.key_id, key.private] for key in keys],
    }


def pqxdh() -> VectorFile:
    """pqxdh.json."""
    relay_keys = {RELAY: sign_key(RELAY_SEED)}
    given = {"now": NOW, "recipient": responder(FULL), "relay_keys": relay_keys}
    file = VectorFile("pqxdh.md", given)
    for case in CASES:
        _derivation(file, case)
    for case in CASES[:5]:
        _initial(file, case)
    _refusals(file)
    return file


def _derivation(file: VectorFile, case: Handshake) -> None:
    keys, opk = case.keys(), case.opk
    given: dict[str, Any] = {
        "initiator": _party(case.a, case.device_a) | {"dh_private": case.device_a.dh_private},
        "responder": _party(case.b, case.device_b) | {"dh_private": case.device_b.dh_private},
        "ephemeral_private": case.ek_private,
        "signed_prekey": {"key_id": case.spk.key_id, "private": case.spk.private},
        "one_time_prekey": None if opk is None else {"key_id": opk.key_id, "private": opk.private},
        "kem_prekey": {
            "kind": case.kem.kind,
            "key_id": case.kem.key_id,
            "seed": case.kem.private,
            "ciphertext": case.encapsulated[1],
        },
    }
    output = {
        "handshake_hash": case.hash(),
        "kem_secret": case.encapsulated[0],
        "root_key": keys[:32],
        "initiator_header_key": keys[32:64],
        "responder_header_key": keys[64:96],
        "session_id": keys[96:],
    }
    file.accept(
        "pqxdh", f"keys_{case.name}", "PQXDH-03", given, output, {"secrets": case.secrets()}
    )


def _party(account: Account, device: Device) -> dict[str, Any]:
    return {
        "address": account.address,
        "device_id": device.device_id,
        "identity_key": account.identity_key,
        "list_hash": account.list_hash,
    }


def _shown(case: Handshake, initial: list[Value], **changes: Any) -> dict[str, Any]:
    """Return the input of receive_initial: what an opened envelope held."""
    given = {
        "initial_message": enc(initial),
        "session_id": case.keys()[96:],
        "message": case.first_message(b"hello"),
    }
    return given | changes


def _initial(file: VectorFile, case: Handshake) -> None:
    output = {
        "sender": case.a.address,
        "device_id": case.device_a.device_id,
        "plaintext": b"hello",
        "proven": case.a.relay == RELAY,
        "last_resort": case.kem.kind == 5,
        "one_time_x25519": case.opk is not None,
    }
    given = _shown(case, case.initial())
    file.accept("receive_initial", f"initial_{case.name}", "PQXDH-05", given, output)


def _refusals(file: VectorFile) -> None:
    good = _shown(FULL, FULL.initial())

    def refuse(name: str, requirement: str, given: dict[str, Any], layer: str, reason: str) -> None:
        file.refuse("receive_initial", f"initial_{name}", requirement, given, layer, reason)

    def changed(**changes: Value) -> dict[str, Any]:
        return good | {"initial_message": enc(FULL.initial(**changes))}

    _unauthentic(refuse, changed, good)
    for version in (2, 0xFFFF):
        given = changed(version=version)
        refuse(f"of_version_{version}", "PQXDH-07", given, "sealing", "bad_version")
    for name, requirement, given in (
        ("with_unknown_signed_prekey", "PQXDH-06", changed(spk_id=77)),
        ("with_unknown_one_time_prekey", "PQXDH-05", changed(opk_id=77)),
        ("with_unknown_kem_prekey", "PQXDH-05", changed(kem_id=77)),
        ("with_one_time_kem_as_x25519", "PQXDH-05", changed(opk_id=PREKEYS[4].key_id)),
    ):
        refuse(name, requirement, given, "prekeys", "unknown_key")
    # The handshake again, with another first message, after its session was deleted.
    given = good | {"used_ephemerals": [dh_key(FULL.ek_private)]}
    refuse("with_used_ephemeral", "PQXDH-06", given, "prekeys", "replayed")
    given = changed(recipient_list=draw("another list", 64))
    refuse("for_unknown_device_list", "PQXDH-08", given, "handshake", "stale_device_list")
    given = changed(sender=BOB.address, device_list=BOB.signed_list())
    refuse("from_ourselves", "PQXDH-05", given, "handshake", "wrong_address")
    _sender(refuse, changed)
    _encodings(refuse, good)


def _unauthentic(refuse: Any, changed: Any, good: dict[str, Any]) -> None:
    """What both sides see differently: unrelated keys, so nothing decrypts (PQXDH-04)."""
    bob_as_initiator = replace(FULL, name="other", a=BOB, b=ALICE)
    for name, given in {
        "kem_ciphertext_altered": changed(ct=flipped(FULL.encapsulated[1], 100)),
        "kem_ciphertext_encapsulated_again": changed(
            ct=encapsulate(1024, FULL.kem.key, draw("again"))[1]
        ),
        "one_time_prekey_left_out": changed(opk_id=None),
        "one_time_prekey_swapped": changed(opk_id=OTHER_ONE_TIME.key_id),
        "kem_prekey_swapped": changed(kem_id=OTHER_KEM.key_id),
        "kem_prekey_by_last_resort": changed(kem_id=PREKEYS[5].key_id),
        "ephemeral_of_another": changed(ek=dh_key(draw("another ek"))),
        "in_another_session": good | {"session_id": bob_as_initiator.keys()[96:]},
    }.items():
        refuse(name, "PQXDH-04", given, "handshake", "not_authentic")
    forged = good | {"message": flipped(good["message"], -1)}
    refuse("message_forged", "PQXDH-05", forged, "ratchet", "not_authentic")
    for name, point in BAD_POINTS.items():
        refuse(f"ephemeral_{name}", "PQXDH-02", changed(ek=point), "x25519", "bad_point")


def _sender(refuse: Any, changed: Any) -> None:
    mallory = Account("alice", RELAY, draw("mallory"), ALICE.devices)
    sealing, device = Prekey.named("alice", 2, 9), ALICE.devices[0]
    for name, requirement, given, layer, reason in (
        (
            "list_of_another",
            "IDENTITY-04",
            changed(device_list=CAROL.signed_list()),
            "devices",
            "wrong_address",
        ),
        (
            "list_expired",
            "IDENTITY-02",
            changed(device_list=ALICE.signed_list(ALICE.body(expires=NOW))),
            "devices",
            "expired",
        ),
        (
            "list_signature_altered",
            "IDENTITY-02",
            changed(device_list=[ALICE.body(), draw("bad", 64)]),
            "ed25519",
            "bad_signature",
        ),
        ("device_unknown", "IDENTITY-06", changed(device_id=2), "devices", "unknown_key"),
        (
            "identity_changed",
            "IDENTITY-07",
            changed(device_list=mallory.signed_list()) | {"known_list": enc(ALICE.signed_list())},
            "devices",
            "identity_changed",
        ),
        (
            "sealing_key_expired",
            "PREKEYS-02",
            changed(sealing_key=sealing.record(ALICE.address, device, expires=NOW)),
            "prekeys",
            "expired",
        ),
        (
            "sealing_key_of_another_device",
            "PREKEYS-02",
            changed(sealing_key=sealing.record(ALICE.address, CAROL.devices[0])),
            "ed25519",
            "bad_signature",
        ),
        (
            "sealing_key_of_another_kind",
            "PREKEYS-02",
            changed(sealing_key=PREKEYS[1].record(ALICE.address, device)),
            "prekeys",
            "malformed",
        ),
        (
            "sealing_key_low_order",
            "PREKEYS-02",
            changed(
                sealing_key=sealing.record(
                    ALICE.address, device, key=sealing.key[:1184] + bytes(32)
                )
            ),
            "x25519",
            "bad_point",
        ),
    ):
        refuse(f"sender_{name}", requirement, given, layer, reason)


def _encodings(refuse: Any, good: dict[str, Any]) -> None:
    data: bytes = good["initial_message"]
    for name, given in {
        "with_trailing_byte": data + b"\0",
        "cut_off": data[:-1],
        "with_long_integer": b"\x9c\xcc\x01" + data[2:],
        "with_another_field": b"\x9d" + data[1:] + b"\xc0",
        "without_sealing_key": enc(FULL.initial()[:-1]),
        "with_sealing_key_nil": enc(FULL.initial(sealing_key=None)),
        "version_zero": enc(FULL.initial(version=0)),
        "sender_without_relay": enc(FULL.initial(sender="alice")),
        "sender_in_capitals": enc(FULL.initial(sender="Alice@relay.example")),
        "ciphertext_too_short": enc(FULL.initial(ct=bytes(1567))),
        "ephemeral_too_long": enc(FULL.initial(ek=bytes(33))),
        "recipient_list_too_short": enc(FULL.initial(recipient_list=bytes(63))),
        "expiry_as_float": enc(FULL.initial()).replace(
            b"\xce" + u32(EXPIRES), b"\xca" + u32(EXPIRES), 1
        ),
    }.items():
        refuse(name, "WIRE-04", good | {"initial_message": given}, "encoding", "malformed")
