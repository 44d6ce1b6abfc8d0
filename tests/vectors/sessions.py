"""Operations of sessions: PQXDH, ratchet, sealing (spec/pqxdh.md, ratchet.md, sealing.md)."""

from functools import lru_cache
from typing import Any

from e2ecall.crypto import hpke
from e2ecall.crypto.mlkem import MLKEM768, MLKEM1024
from e2ecall.crypto.x25519 import X25519KeyPair
from e2ecall.protocol import chains, ratchet, session
from e2ecall.protocol import pqxdh as derivation
from e2ecall.protocol.encoding import decode_remote
from e2ecall.protocol.local import LocalDevice
from e2ecall.protocol.peer import PeerState
from e2ecall.protocol.pqxdh import SessionKeys, Transcript
from e2ecall.protocol.prekeys import PreKeyState, RotatedKey, sign_prekey
from e2ecall.protocol.ratchetstate import RatchetState, Step, initiator_state, responder_state
from e2ecall.protocol.sealing import (
    CALL_CLASSES,
    OTHER_CLASSES,
    Frame,
    InitialMessage,
)
from e2ecall.protocol.sealing import (
    open_envelope as open_sealed_envelope,
)
from e2ecall.secret import Secret
from relay.wire.codec import encode
from relay.wire.labels import labelled
from relay.wire.names import Address
from relay.wire.records import PreKeyKind
from tests.vectors.harness import Given, MismatchError, VectorFile, operation
from tests.vectors.keys import known_list, local_device, public_key


def _party(given: Given) -> tuple[derivation.Party, X25519KeyPair]:
    dh = X25519KeyPair.from_private(given.secret("dh_private"))
    party = derivation.Party(
        Address.parse(given["address"]),
        given["device_id"],
        given.hex("identity_key"),
        given.hex("list_hash"),
        dh.public,
    )
    return party, dh


@operation
def pqxdh(given: Given):
    initiator, initiator_dh = _party(given.part("initiator"))
    responder, responder_dh = _party(given.part("responder"))
    ephemeral = X25519KeyPair.from_private(given.secret("ephemeral_private"))
    spk = given.part("signed_prekey")
    signed = X25519KeyPair.from_private(spk.secret("private"))
    opk, one_time = given["one_time_prekey"], None
    if opk is not None:
        one_time = X25519KeyPair.from_private(given.part("one_time_prekey").secret("private"))
    kem = given.part("kem_prekey")
    kem_secret, kem_key = MLKEM1024.open_ciphertext(kem.secret("seed"), kem.hex("ciphertext"))
    transcript = Transcript(
        initiator=initiator,
        responder=responder,
        signed_prekey_id=spk["key_id"],
        signed_prekey=signed.public,
        one_time_prekey=None if one_time is None else (opk["key_id"], one_time.public),
        ephemeral=ephemeral.public,
        kem_kind=PreKeyKind(kem["kind"]),
        kem_key_id=kem["key_id"],
        kem_key=kem_key,
        kem_ciphertext=kem.hex("ciphertext"),
    )
    keys = derivation.responder_keys(
        transcript,
        identity_dh=responder_dh,
        signed_prekey=signed,
        one_time_prekey=one_time,
        kem_secret=kem_secret,
    )
    theirs = derivation.initiator_keys(
        transcript, identity_dh=initiator_dh, ephemeral=ephemeral, kem_secret=kem_secret
    )
    if keys != theirs:
        raise MismatchError("the two sides derive different keys")
    return {
        "handshake_hash": keys.handshake_hash,
        "kem_secret": kem_secret,
        "root_key": keys.root_key,
        "initiator_header_key": keys.initiator_header_key,
        "responder_header_key": keys.responder_header_key,
        "session_id": keys.session_id,
    }


def _prekeys(given: Given, local: Any, used: frozenset[bytes]) -> PreKeyState:
    rotated, one_time = [], {PreKeyKind.ONE_TIME_X25519: {}, PreKeyKind.ONE_TIME_MLKEM1024: {}}
    sealing = None
    for number, key_id, private in given["prekeys"]:
        kind, secret = PreKeyKind(number), Secret(bytes.fromhex(private))
        if kind in one_time:
            one_time[kind][key_id] = secret
            continue
        remembered = used if kind is PreKeyKind.SIGNED_X25519 else frozenset()
        rotated.append(RotatedKey(kind, key_id, 0, 0, secret, remembered))
        if kind is PreKeyKind.SEALING:
            key = public_key(kind, secret.expose())
            sealing = sign_prekey(local, kind, key_id, expires=2**40, key=key)
    return PreKeyState(1000, tuple(rotated), *one_time.values(), sealing)


@operation
def receive_initial(given: Given):
    local = local_device(given.part("recipient"))
    used = frozenset(given.hexes("used_ephemerals")) if "used_ephemerals" in given else frozenset()
    prekeys = _prekeys(given.part("recipient"), local, used)
    unsealed = session.unseal(local, prekeys, _sealed_again(given, local, prekeys))
    known = None
    if "known_list" in given:
        known = PeerState(
            address=unsealed.claim.address,
            device_id=1,
            device_list=known_list(given.hex("known_list")),
            sealing_key=prekeys.sealing_key,
            proven=True,
            sessions=(),
        )
    received = session.receive(
        local,
        prekeys,
        known,
        unsealed,
        relay_keys={name: bytes.fromhex(key) for name, key in given["relay_keys"].items()},
        now=given["now"],
    )
    _consumed(received.prekeys, unsealed.frame.initial)
    return {
        "sender": str(received.peer.address),
        "device_id": received.peer.device_id,
        "plaintext": received.plaintext,
        "proven": received.proven,
        "last_resort": received.peer.active.last_resort_kem,
        "one_time_x25519": received.peer.active.one_time_prekey,
    }


def _sealed_again(given: Given, local: LocalDevice, prekeys: PreKeyState) -> bytes:
    """Return the envelope that the parts of a frame came from: its frame may be a bad one."""
    head, message = given.hex("initial_message"), given.hex("message")
    body = len(head).to_bytes(2) + head + message
    padded = b"\x01" + given.hex("session_id") + len(body).to_bytes(4) + body
    device_id, key = local.keys.device_id, prekeys.sealing_key
    info = labelled(
        "sealing", str(local.address).encode(), device_id.to_bytes(2), key.key_id.to_bytes(4)
    )
    return b"\x01" + hpke.generate_sealed(key.key, padded.ljust(8192, b"\0"), info)


def _consumed(prekeys: PreKeyState, initial: InitialMessage) -> None:
    """PQXDH-05: with the message, its one-time keys are gone and its EK is remembered."""
    signed = prekeys.find(PreKeyKind.SIGNED_X25519, initial.signed_prekey_id)
    if (
        initial.one_time_prekey_id in prekeys.one_time_x25519
        or initial.kem_prekey_id in prekeys.one_time_mlkem1024
        or initial.ephemeral not in signed.used_ephemerals
    ):
        raise MismatchError("the prekeys were not used up")


@operation
def ratchet_root_step(given: Given):
    kem = None if given["kem"] is None else given.secret("kem")
    keys = chains.step_root(given.secret("root_key"), given.hex("triple"), given.secret("dh"), kem)
    return dict(zip(("root_key", "chain_key", "next_header_key"), keys, strict=True))


@operation
def ratchet_chain_step(given: Given):
    chain_key, message_key = chains.step_chain(given.secret("chain_key"))
    return {"chain_key": chain_key, "message_key": message_key}


def _start(given: Given) -> dict[str, RatchetState]:
    keys = SessionKeys(
        given.hex("handshake_hash"),
        bytes(16),
        given.secret("root_key"),
        given.secret("initiator_header_key"),
        given.secret("responder_header_key"),
    )
    signed = X25519KeyPair.from_private(given.secret("signed_prekey_private"))
    first = given.part("first_step")
    step = Step(
        X25519KeyPair.from_private(first.secret("dh_private")),
        MLKEM768.from_seed(first.secret("kem_seed")),
        None,
        b"",
    )
    return {
        "initiator": initiator_state(keys, signed.public, step),
        "responder": responder_state(keys, signed),
    }


def _step(given: Given | None) -> Step | None:
    if given is None:
        return None
    return Step(
        X25519KeyPair.from_private(given.secret("dh_private")),
        MLKEM768.from_seed(given.secret("kem_seed")),
        given.secret("kem_secret"),
        given.hex("kem_ciphertext"),
    )


def _play(given: Given) -> dict[str, RatchetState]:
    """Run a transcript on both sides; raise where a message or a plaintext differs."""
    states, sent = _start(given), {}
    for raw in given["events"]:
        event = Given(raw, given.file)
        by = event["by"]
        if event["event"] == "send":
            plaintext = event.hex("plaintext")
            step = _step(event.part("step") if "step" in event else None)
            states[by], message = ratchet.encrypt(
                states[by], plaintext, nonce=event.hex("nonce"), step=step
            )
            if message != event.hex("bytes"):
                raise MismatchError(f"message {event['message']} has other bytes")
            sent[event["message"]] = message, plaintext
        elif event["event"] == "lose":
            for _ in range(event["count"]):
                states[by], _lost = ratchet.encrypt(states[by], b"", nonce=bytes(12), step=None)
        else:
            message, expected = sent[event["message"]]
            states[by], plaintext = ratchet.decrypt(states[by], message, now=event["now"])
            if plaintext != expected:
                raise MismatchError(f"message {event['message']} has another plaintext")
    return states


@operation
def transcript(given: Given):
    return {
        by: {
            "root_key": state.root_key,
            "next_header_keys": [state.next_sending_header_key, state.next_receiving_header_key],
        }
        for by, state in _play(given).items()
    }


@lru_cache(maxsize=32)
def _after(file: VectorFile, name: str) -> dict[str, RatchetState]:
    return _play(Given(file.given | file.by_name[name].data["input"], file))


@operation
def ratchet_receive(given: Given):
    states = _start(given) if given["after"] is None else _after(given.file, given["after"])
    _, plaintext = ratchet.decrypt(states[given["by"]], given.hex("message"), now=given["now"])
    return {"plaintext": plaintext}


def _read_initial(data: bytes) -> InitialMessage:
    return decode_remote(data, InitialMessage, limit=8192)


@operation
def frame(given: Given):
    initial = given["initial_message"]
    content = Frame(
        given.hex("session_id"),
        None if initial is None else _read_initial(given.hex("initial_message")),
        given.hex("message"),
    )
    padded = content.to_bytes(CALL_CLASSES if given["call"] else OTHER_CLASSES)
    if Frame.from_bytes(padded) != content:
        raise MismatchError("the frame reads as another one")
    return {"frame": padded}


def _frame_fields(content: Frame) -> dict[str, Any]:
    return {
        "session_id": content.session_id,
        "initial_message": None if content.initial is None else encode(content.initial),
        "message": content.message,
    }


@operation
def read_frame(given: Given):
    return _frame_fields(Frame.from_bytes(given.hex("frame")))


@operation
def hpke_open(given: Given):
    plaintext = hpke.open_sealed(given.secret("private"), given.hex("sealed"), given.hex("info"))
    public = public_key(PreKeyKind.SEALING, given.hex("private"))
    return {"public": public, "plaintext": plaintext}


@operation
def open_envelope(given: Given):
    local = local_device(given.part("recipient"))
    prekeys = _prekeys(given.part("recipient"), local, frozenset())
    return _frame_fields(open_sealed_envelope(local, prekeys, given.hex("envelope")))
