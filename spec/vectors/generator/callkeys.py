"""Vectors of spec/callkeys.md: from the two messages to every key of a call."""

from spec.vectors.generator.calls import (
    BODIES,
    CALL,
    FIRST,
    LATER_MOVE,
    MOVE,
    SECOND,
    CallValues,
    Epoch,
    Rekeying,
    state,
)
from spec.vectors.generator.encoding import Value, enc
from spec.vectors.generator.form import VectorFile
from spec.vectors.generator.people import BOB, CAROL
from spec.vectors.generator.primitives import draw, flipped

CALLS = (CALL, CallValues("sound", CAROL, BOB, False), CallValues("back", BOB, CAROL, True))
_STREAMS = range(4)
_ROLES = ("caller", "callee")


def callkeys() -> VectorFile:
    """callkeys.json."""
    file = VectorFile("callkeys.md")
    for values in CALLS:
        _derivation(file, values)
    later = Epoch(CALL.transcript, 2**32 - 1, draw("later epoch", 64))
    for epoch in (CALL.epoch, later):
        _epoch(file, epoch)
    last = Rekeying(Epoch(CALL.transcript, 2**32 - 2, draw("e", 64)))
    for change in (FIRST, SECOND, last, MOVE, LATER_MOVE):
        _rekey(file, change)
    _macs(file)
    _refused_macs(file)
    _commitments(file)
    return file


def _derivation(file: VectorFile, values: CallValues) -> None:
    given = {
        "caller": values.caller.shown,
        "callee": values.callee.shown,
        "offer": enc(values.offer),
        "ringing": enc(values.ringing),
        "nonce": values.drawn("nonce"),
        "caller_secrets": {
            "x25519_private": values.drawn("caller dh"),
            "mlkem_seed": values.drawn("kem", 64),
        },
        "callee_secrets": {
            "x25519_private": values.drawn("callee dh"),
            "mlkem_secret": values.encapsulated[0],
        },
    }
    output = {
        "commitment": values.commitment,
        "transcript": values.transcript,
        "x25519_secret": values.dh_secret,
        "mlkem_secret": values.encapsulated[0],
        "call_key": values.call_key,
        "epoch_secret": values.epoch.secret,
        "sas": f"{values.sas:08d}",
    }
    file.accept("call_keys", f"call_keys_{values.name}", "CALLKEY-03", given, output)


def _epoch(file: VectorFile, epoch: Epoch) -> None:
    given = {
        "transcript": epoch.transcript,
        "epoch": epoch.number,
        "epoch_secret": epoch.secret,
    }
    for sender in _ROLES:
        for stream in _STREAMS:
            output = {"kid": epoch.kid(stream, sender), "base_key": epoch.base_key(stream, sender)}
            file.accept(
                "frame_key",
                f"frame_key_{epoch.number}_{sender}_{stream}",
                "CALLKEY-04",
                given | {"sender": sender, "stream": stream},
                output,
            )


def _rekey(file: VectorFile, change: Rekeying) -> None:
    number, after = change.before.number, change.after
    kind, answer = change.KINDS
    prefix = kind.lower()
    own = {
        "x25519_private": change.drawn("caller dh"),
        "mlkem_seed": change.drawn("kem", 64),
    }
    given: dict[str, object] = {
        "transcript": change.before.transcript,
        "epoch": number,
        "epoch_secret": change.before.secret,
        "rekey": enc(CALL.message(kind, "caller", 9, *change.rekey, epoch=change.before)),
        "reply": enc(CALL.message(answer, "callee", 9, *change.reply, epoch=after)),
        "caller_secrets": own,
        "callee_secrets": {
            "x25519_private": change.drawn("callee dh"),
            "mlkem_secret": change.encapsulated[0],
        },
    }
    output = {
        "transcript": after.transcript,
        "epoch": after.number,
        "x25519_secret": change.dh_secret,
        "mlkem_secret": change.encapsulated[0],
        "epoch_secret": after.secret,
    }
    file.accept("rekey", f"{prefix}_{number}", "CALLKEY-11", given, output)
    # Who knows all but one of the three secrets has another key, which the reply's MAC shows.
    other = draw("other dh")
    changed: dict[str, tuple[str, dict[str, object]]] = {
        "of_another_epoch_secret": ("CALLKEY-11", {"epoch_secret": draw("another", 64)}),
        "of_another_transcript": ("CALLKEY-10", {"transcript": draw("another", 64)}),
        "of_another_mlkem_secret": (
            "CALLKEY-11",
            {"caller_secrets": own | {"mlkem_seed": draw("other kem", 64)}},
        ),
        "of_another_x25519_secret": (
            "CALLKEY-11",
            {"caller_secrets": own | {"x25519_private": other}},
        ),
        "with_mac_of_old_epoch": (
            "CALLKEY-12",
            {"reply": enc(CALL.message(answer, "callee", 9, *change.reply, epoch=change.before))},
        ),
    }
    for name, (requirement, changes) in changed.items():
        altered = {key: given[key] for key in given if key != "callee_secrets"} | changes
        whole = f"{prefix}_{number}_{name}"
        file.refuse("take_rekey_reply", whole, requirement, altered, "call", "bad_mac")


def _given() -> dict[str, Value]:
    return {
        "transcript": CALL.transcript,
        "epoch": 0,
        "epoch_secret": CALL.epoch.secret,
    }


def _macs(file: VectorFile) -> None:
    for sender in _ROLES:
        for kind, body in BODIES.items():
            for counter in (0, 65_534):
                message = CALL.message(kind, sender, counter, *body)
                given = {**_given(), "sender": sender, "message": enc(message)}
                output, steps = {"mac": message[-1]}, {"mac_key": CALL.epoch.mac_key(sender)}
                name = f"mac_{kind.lower()}_{counter}_by_{sender}"
                file.accept("call_mac", name, "CALLKEY-05", given, output, steps)


def _refused_macs(file: VectorFile) -> None:
    good = CALL.message("MediaState", "caller", 7, *state(True, False))
    mac = good[-1]
    if not isinstance(mac, bytes):
        raise TypeError("a MAC is binary")
    other = CallValues("another").call_id
    later = Epoch(CALL.transcript, 1, CALL.epoch.secret)
    elsewhere = Epoch(CallValues("sound").transcript, 0, CALL.epoch.secret)
    body = state(True, False)
    head: list[Value] = [10, CALL.call_id, 7]
    cases: dict[str, list[Value]] = {
        "first_byte_altered": [*good[:-1], flipped(mac, 0)],
        "last_byte_altered": [*good[:-1], flipped(mac, 63, 0x80)],
        "zero": [*good[:-1], bytes(64)],
        "of_another_call": [10, other, 7, *body, mac],
        "of_another_counter": [10, CALL.call_id, 6, *body, mac],
        "of_another_body": [10, CALL.call_id, 7, *state(False, False), mac],
        "of_another_direction": CALL.message("MediaState", "callee", 7, *body),
        "of_another_type": [
            *head,
            *body,
            CALL.epoch.mac(CALL.call_id, "Answer", "caller", 7, *body),
        ],
        "of_another_epoch": [
            *head,
            *body,
            later.mac(CALL.call_id, "MediaState", "caller", 7, *body),
        ],
        "of_another_transcript": [
            *head,
            *body,
            elsewhere.mac(CALL.call_id, "MediaState", "caller", 7, *body),
        ],
        "missing": CALL.bare("Cancel", 7, 1),
    }
    for name, message in cases.items():
        given = {**_given(), "sender": "caller", "message": enc(message)}
        file.refuse("verify_call_mac", f"mac_{name}", "CALLKEY-05", given, "call", "bad_mac")


def _commitments(file: VectorFile) -> None:
    back = CallValues("video", CALL.callee_account, CALL.caller_account)
    nonce = CALL.drawn("nonce")
    given: dict[str, object] = {
        "caller": CALL.caller.shown,
        "callee": CALL.callee.shown,
        "offer": enc(CALL.offer),
        "nonce": nonce,
    }
    file.accept("open_commitment", "commitment", "CALLKEY-01", given, {})
    others = CallValues("another", CALL.caller_account, CALL.callee_account)
    changed: dict[str, dict[str, object]] = {
        "nonce_altered": {"nonce": flipped(nonce, 31)},
        "ends_swapped": {"caller": back.caller.shown, "callee": back.callee.shown},
        "of_another_session": {"caller": others.caller.shown, "callee": others.callee.shown},
        "of_another_caller": {"caller": CallValues("video", CAROL).caller.shown},
        "of_another_call": {"offer": enc([1, others.call_id, *CALL.offer[2:]])},
        "altered": {"offer": enc([*CALL.offer[:5], flipped(CALL.commitment, 9), *CALL.offer[6:]])},
    }
    for name, changes in changed.items():
        file.refuse(
            "open_commitment",
            f"commitment_{name}",
            "CALLKEY-01",
            {**given, **changes},
            "call",
            "bad_commitment",
        )
