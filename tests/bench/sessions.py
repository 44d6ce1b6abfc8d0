"""Sessions on both sides: handshake with first message, chain, ratchet step, envelope."""

import importlib
from collections.abc import Callable

from e2ecall.crypto import hpke, mlkem, x25519
from e2ecall.protocol import ratchet, session
from e2ecall.protocol.prekeystore import prekeys_from_bytes, prekeys_to_bytes
from e2ecall.protocol.ratchetstate import RatchetState
from e2ecall.protocol.sealing import OTHER_CLASSES, Frame, InitialMessage
from tests.bench import floor, others
from tests.bench.harness import Budget, Case, Contestant, Report, Thunk
from tests.bench.others import TEXT, Conversation, Library
from tests.protocol.conftest import NOW, Endpoint

NAME = "e2ecall (hybrid)"
HANDSHAKES, CHAIN_BATCH, STEP_BATCH = 8, 100, 10
"""Of one timing, so that what is measured is not the emptiness of the processor's caches."""

BARE = "HPKE alone, keys loaded"
PADDED = OTHER_CLASSES[0]

YARDSTICK = "vodozemac (Rust)"
"""What the budgets are ratios to (spec/decisions/0013). Without it they cannot be checked."""
HANDSHAKE = Budget.ratio(6.4)
CHAIN = Budget.ratio(2.76)


def run(report: Report) -> None:
    """Measure everything against the libraries that are there."""
    libraries = [Library(NAME, _handshake, _conversation), *_libraries(report)]
    first = [_several(one.name, one.handshake) for one in libraries]
    reference = YARDSTICK if YARDSTICK in [one.name for one in libraries] else NAME
    first.insert(1, _several("e2ecall, with its envelope", _sealed_handshake))
    first.insert(2, _several("e2ecall, responder just started", _handshake_after_start))
    first.insert(3, _several("e2ecall's library calls alone", floor.handshake))
    report.measure(
        Case(
            "handshake and first message, both sides",
            first,
            reference,
            report.rounds(40),
            HANDSHAKE if reference == YARDSTICK else None,
        )
    )
    talks = [(one.name, one.conversation()) for one in libraries]
    report.measure(
        Case(
            "message in the same chain, both sides",
            [_batch(name, talk.same_chain, CHAIN_BATCH) for name, talk in talks],
            reference,
            report.rounds(100),
            CHAIN if reference == YARDSTICK else None,
        )
    )
    report.measure(
        Case(
            "message with ratchet step, both sides",
            [_batch(name, talk.step, STEP_BATCH) for name, talk in talks],
            reference,
            report.rounds(100),
        )
    )
    _run_sealing(report)


def _libraries(report: Report) -> list[Library]:
    found = []
    for name in ("python_ratchet", "olm"):
        try:
            found.append(importlib.import_module(f"tests.bench.{name}").LIBRARY)
        except ModuleNotFoundError as error:
            report.skipped.append(f"{name}: {error}; make bench installs it")
    return found


def _several(name: str, handshake: Callable[[], Thunk]) -> Contestant:
    """Handshakes in a row, each between two ends that never met."""

    def prepare() -> Thunk:
        x25519.forget_checked_keys()
        mlkem._load_public_key.cache_clear()
        handshakes = [handshake() for _ in range(HANDSHAKES)]

        def one_after_another() -> None:
            for one in handshakes:
                one()

        return one_after_another

    return Contestant(name, prepare, HANDSHAKES)


def _batch(name: str, call: Callable[[], object], size: int) -> Contestant:
    def several() -> None:
        for _ in range(size):
            call()

    return Contestant(name, lambda: several, size)


def _handshake() -> Thunk:
    """Bundle to plaintext, all but the HPKE envelope, as the others have none."""
    return _handshake_between(Endpoint.generate("alice"), Endpoint.generate("bob"))


def _handshake_after_start() -> Thunk:
    """The same, with prekeys that come from the store and were not used since."""
    other = Endpoint.generate("bob")
    other.prekeys = prekeys_from_bytes(prekeys_to_bytes(other.prekeys))
    return _handshake_between(Endpoint.generate("alice"), other)


def _handshake_between(one: Endpoint, other: Endpoint) -> Thunk:
    bundle = other.bundle()

    def both_sides() -> None:
        peer = session.initiate(one.local, bundle, address=other.address, known=None, now=NOW)
        active = peer.active
        _, message = ratchet.encrypt(
            active.ratchet, TEXT, nonce=ratchet.generate_nonce(), step=None
        )
        initial = session._initial(one.local, one.prekeys, active)
        padded = Frame(active.session_id, initial, message).to_bytes(OTHER_CLASSES)
        frame = Frame.from_bytes(padded)
        assert isinstance(frame.initial, InitialMessage)
        claim = session.Claim(one.address, frame.initial.device_id)
        unsealed = session.Unsealed(frame, claim)
        received = session.receive(
            other.local, other.prekeys, None, unsealed, relay_keys={}, now=NOW
        )
        assert received.plaintext == TEXT

    return both_sides


def _sealed_handshake() -> Thunk:
    """The same through envelopes, as a client does it."""
    one, other = Endpoint.generate("alice"), Endpoint.generate("bob")
    bundle = other.bundle()

    def both_sides() -> None:
        peer = session.initiate(one.local, bundle, address=other.address, known=None, now=NOW)
        _, envelope = session.seal(one.local, one.prekeys, peer, TEXT, call=False, now=NOW)
        unsealed = session.unseal(other.local, other.prekeys, envelope)
        received = session.receive(
            other.local, other.prekeys, None, unsealed, relay_keys={}, now=NOW
        )
        assert received.plaintext == TEXT

    return both_sides


def _conversation() -> Conversation:
    one, other = Endpoint.generate("alice"), Endpoint.generate("bob")
    one.initiate(other)
    other.receive(one.send(other, TEXT))
    one.receive(other.send(one, TEXT))
    ends = [_Ratchet(one.peers[other.address].active.ratchet)]
    ends.append(_Ratchet(other.peers[one.address].active.ratchet))

    def pass_on(sender: _Ratchet, receiver: _Ratchet) -> None:
        assert receiver.decrypt(sender.encrypt(TEXT)) == TEXT

    return others.conversation_of(ends, pass_on)


class _Ratchet:
    """One end that keeps its state, as the other libraries' objects do."""

    def __init__(self, state: RatchetState) -> None:
        self._state = state

    def encrypt(self, text: bytes) -> bytes:
        nonce, step = ratchet.generate_nonce(), ratchet.generate_step(self._state)
        self._state, message = ratchet.encrypt(self._state, text, nonce=nonce, step=step)
        return message

    def decrypt(self, message: bytes) -> bytes:
        self._state, text = ratchet.decrypt(self._state, message, now=NOW)
        return text


def _run_sealing(report: Report) -> None:
    """Measure HPKE at the smallest padding class."""
    keys, padded = hpke.SealingKeyPair.generate(), bytes(PADDED)
    sealed = hpke.generate_sealed(keys.public, padded, b"")

    def seal() -> object:
        return hpke.generate_sealed(keys.public, padded, b"")

    def unseal() -> object:
        return hpke.open_sealed(keys.private, sealed, b"")

    rounds = report.rounds(100)
    bare_seal, bare_open = floor.sealing(padded)
    for task, call, bare in (("seal", seal, bare_seal), ("open", unseal, bare_open)):
        contestants = [_batch("e2ecall", call, STEP_BATCH), _batch(BARE, bare, STEP_BATCH)]
        report.measure(Case(f"{task} an envelope, {PADDED} B", contestants, BARE, rounds))
