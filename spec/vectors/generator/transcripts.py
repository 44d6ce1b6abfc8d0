"""Vectors of spec/ratchet.md: key schedule, transcripts with losses and reordering, refusals."""

from dataclasses import dataclass, field
from typing import Any

from spec.vectors.generator.form import VectorFile
from spec.vectors.generator.mlkem import encapsulate
from spec.vectors.generator.notation import BAD_POINTS, unreduced
from spec.vectors.generator.people import DAY, NOW
from spec.vectors.generator.primitives import DH, dh_key, draw, flipped, kem_key, u16, u32
from spec.vectors.generator.ratchet import Receiving, Side, Start, Step, chain_step, root_step

START = Start(
    draw("ratchet hh", 64),
    draw("ratchet root"),
    draw("ratchet initiator header key"),
    draw("ratchet responder header key"),
    draw("ratchet signed prekey"),
)


@dataclass
class Transcript:
    """A conversation between two sides, event by event."""

    name: str
    sides: dict[str, Side] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    messages: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)
    """By name: message and plaintext."""

    def __post_init__(self) -> None:
        first = Step.named("first step")
        self.sides = {"initiator": START.initiator(first), "responder": START.responder()}

    def send(self, by: str, *names: str) -> None:
        """Encrypt a message of each name, taking a DH step where one is due."""
        side = self.sides[by]
        for name in names:
            event: dict[str, Any] = {"event": "send", "by": by, "message": name}
            if side.dh_private is None:
                drawn = Step.named(f"{self.name} {name}")
                newest = side.receiving[0].triple
                event["step"] = {
                    "dh_private": drawn.dh_private,
                    "kem_seed": drawn.kem_seed,
                    "kem_secret": encapsulate(768, newest[32:1216], drawn.m)[0],
                    "kem_ciphertext": side.step(drawn),
                }
            nonce = draw(f"{self.name} {name} nonce", 12)
            plaintext = f"{self.name}: {name}".encode()
            self.messages[name] = side.encrypt(nonce, plaintext), plaintext
            event |= {"nonce": nonce, "plaintext": plaintext, "bytes": self.messages[name][0]}
            self.events.append(event)

    def lose(self, by: str, count: int) -> None:
        """Encrypt messages that never arrive."""
        self.sides[by].lose(count)
        self.events.append({"event": "lose", "by": by, "count": count})

    def deliver(self, to: str, *names: str, now: int = NOW) -> None:
        """Decrypt messages of these names."""
        for name in names:
            message, plaintext = self.messages[name]
            if self.sides[to].decrypt(message) != plaintext:
                raise ValueError("another plaintext")
            self.events.append({"event": "receive", "by": to, "message": name, "now": now})


def in_order() -> Transcript:
    """Two turns of each side."""
    talk = Transcript("in_order")
    talk.send("initiator", "i0", "i1")
    talk.deliver("responder", "i0", "i1")
    talk.send("responder", "r0", "r1")
    talk.deliver("initiator", "r0", "r1")
    talk.send("initiator", "i2")
    talk.deliver("responder", "i2")
    talk.send("responder", "r2")
    talk.deliver("initiator", "r2")
    return talk


def reordered() -> Transcript:
    """Messages overtake each other within chains and across DH steps, and some are lost."""
    talk = Transcript("reordered")
    talk.send("initiator", "i0", "i1", "i2", "i3")
    talk.deliver("responder", "i2", "i0")
    talk.send("responder", "r0", "r1", "r2")
    talk.deliver("initiator", "r1")
    talk.send("initiator", "i4", "i5", "i6")
    talk.deliver("responder", "i6", "i3", "i1", "i4")
    talk.send("responder", "r3")
    talk.deliver("initiator", "r3", "r2", "r0")
    return talk


def crossing() -> Transcript:
    """Both sides write at once: each answers a chain that the other has already left."""
    talk = Transcript("crossing")
    talk.send("initiator", "i0")
    talk.deliver("responder", "i0")
    talk.send("responder", "r0")
    talk.send("initiator", "i1")
    talk.deliver("initiator", "r0")
    talk.deliver("responder", "i1")
    talk.send("initiator", "i2")
    talk.send("responder", "r1")
    talk.deliver("responder", "i2")
    talk.deliver("initiator", "r1")
    return talk


def whole_chain_lost() -> Transcript:
    """Nothing of the responder's first chain arrives but its last message."""
    talk = Transcript("whole_chain_lost")
    talk.send("initiator", "i0")
    talk.deliver("responder", "i0")
    talk.send("responder", "r0")
    talk.lose("responder", 3)
    talk.send("responder", "r4")
    talk.deliver("initiator", "r4")
    talk.send("initiator", "i1")
    talk.deliver("responder", "i1")
    talk.deliver("initiator", "r0")
    return talk


def thousand_skipped() -> Transcript:
    """One message skips 1 000, in sum over the end of one chain and the beginning of the next."""
    talk = Transcript("thousand_skipped")
    talk.send("initiator", "i0")
    talk.deliver("responder", "i0")
    talk.send("responder", "r0")
    talk.deliver("initiator", "r0")
    talk.lose("initiator", 0)
    talk.send("initiator", "i1")
    talk.lose("initiator", 400)
    talk.deliver("responder", "i1")
    talk.send("responder", "r1")
    talk.deliver("initiator", "r1")
    talk.send("initiator", "i2")
    talk.lose("initiator", 599)
    talk.send("initiator", "i3")
    talk.deliver("responder", "i3", "i2")
    return talk


def late() -> Transcript:
    """A skipped message arrives in the last second of its seven days."""
    talk = Transcript("late")
    talk.send("initiator", "i0", "i1", "i2")
    talk.deliver("responder", "i2")
    talk.deliver("responder", "i0", now=NOW + 7 * DAY - 1)
    return talk


def older_chain() -> Transcript:
    """A message of a former chain is still out when the next chain is there."""
    talk = Transcript("older_chain")
    talk.send("initiator", "i0", "i1", "i2")
    talk.deliver("responder", "i2", "i0")
    talk.send("responder", "r0")
    talk.deliver("initiator", "r0")
    talk.send("initiator", "i3")
    talk.deliver("responder", "i3")
    return talk


def ratchet() -> VectorFile:
    """ratchet.json."""
    given = {
        "now": NOW,
        "handshake_hash": START.hh,
        "root_key": START.root,
        "initiator_header_key": START.initiator_header_key,
        "responder_header_key": START.responder_header_key,
        "signed_prekey_private": START.signed_prekey_private,
        "first_step": {
            "dh_private": Step.named("first step").dh_private,
            "kem_seed": Step.named("first step").kem_seed,
        },
    }
    file = VectorFile("ratchet.md", given)
    _steps(file)
    for talk in (
        in_order(),
        reordered(),
        crossing(),
        whole_chain_lost(),
        thousand_skipped(),
        late(),
        older_chain(),
    ):
        _accept(file, talk)
    _refusals(file)
    return file


def _steps(file: VectorFile) -> None:
    for name, kem in (("first", None), ("hybrid", draw("kem secret"))):
        triple = draw(f"triple {name}", 1216 if kem is None else 2304)
        given = {"root_key": START.root, "dh": draw("dh"), "kem": kem, "triple": triple}
        step = root_step(START.root, draw("dh"), kem, triple)
        names = ("root_key", "chain_key", "next_header_key")
        file.accept(
            "ratchet_root_step",
            f"root_step_{name}",
            "RATCHET-03",
            given,
            dict(zip(names, step, strict=True)),
        )
    for i in range(3):
        chain = draw(f"chain {i}")
        next_key, message_key = chain_step(chain)
        given = {"chain_key": chain}
        output = {"chain_key": next_key, "message_key": message_key}
        file.accept("ratchet_chain_step", f"chain_step_{i}", "RATCHET-06", given, output)


@dataclass
class _Refusals:
    """Refusals after a transcript: whoever receives is in the state in which that one ended."""

    file: VectorFile
    talk: Transcript
    to: str

    @property
    def peer(self) -> Side:
        """Who sends."""
        return self.talk.sides["initiator" if self.to == "responder" else "responder"]

    def add(
        self, name: str, requirement: str, message: bytes, reason: str, *, layer: str = "ratchet"
    ) -> None:
        """Refuse a message."""
        self.add_at(NOW, name, requirement, message, reason, layer)

    def add_at(
        self, now: int, name: str, requirement: str, message: bytes, reason: str, layer: str
    ) -> None:
        """Refuse a message that comes at another time."""
        given = {
            "after": f"transcript_{self.talk.name}" if self.talk.events else None,
            "by": self.to,
            "message": message,
            "now": now,
        }
        self.file.refuse("ratchet_receive", f"message_{name}", requirement, given, layer, reason)

    def forged(self, n: int, pn: int, triple: bytes, *, header_key: bytes | None = None) -> bytes:
        """Return a message with a header of the peer's own making."""
        sending = self.peer.sending
        if sending is None:
            raise ValueError("the peer has no chain")
        header = u32(n) + u32(pn) + triple
        key = header_key or sending.header_key
        return self.peer.seal(key, draw("some key"), draw("forged nonce", 12), header, b"forged")


def _refusals(file: VectorFile) -> None:
    _in_same_chain(_Refusals(file, _one_turn(), "responder"))
    _in_next_chain(_Refusals(file, _answered(), "initiator"))
    _in_first_chain(_Refusals(file, Transcript("none"), "responder"))
    lost = _Refusals(file, late(), "responder")
    message = lost.talk.messages["i1"][0]
    lost.add_at(NOW + 7 * DAY, "skipped_too_long_ago", "RATCHET-10", message, "replayed", "ratchet")
    lost.add("replayed_skipped", "RATCHET-08", lost.talk.messages["i0"][0], "replayed")
    mixed = _Refusals(file, reordered(), "responder")
    mixed.add("replayed_last_of_chain", "RATCHET-08", mixed.talk.messages["i6"][0], "replayed")
    # The chain of i3 went with its last skipped key, and its header key with it.
    gone = mixed.talk.messages["i3"][0]
    mixed.add("replayed_of_forgotten_chain", "RATCHET-09", gone, "not_authentic")
    older = _Refusals(file, older_chain(), "responder")
    older.add("replayed_in_older_chain", "RATCHET-08", older.talk.messages["i0"][0], "replayed")
    chain = older.talk.sides["responder"].receiving[1]
    message = older.forged(3, 0, chain.triple, header_key=chain.header_key)
    older.add("beyond_end_of_older_chain", "RATCHET-08", message, "replayed")
    triple = chain.triple[:32] + kem_key(768, draw("other", 64))
    message = older.forged(1, 0, triple, header_key=chain.header_key)
    older.add("kem_key_of_older_chain_changed", "RATCHET-05", message, "chain_mismatch")


def _one_turn() -> Transcript:
    """Return the transcript in_order as far as the responder is concerned: it has an open chain."""
    talk = Transcript("open_chain")
    talk.send("initiator", "i0", "i1")
    talk.deliver("responder", "i0", "i1")
    return talk


def _answered() -> Transcript:
    """Return a transcript at whose end the responder's second chain is due."""
    talk = Transcript("second_chain_due")
    talk.send("initiator", "i0")
    talk.deliver("responder", "i0")
    talk.send("responder", "r0", "r1")
    talk.deliver("initiator", "r0", "r1")
    talk.send("initiator", "i1")
    talk.deliver("responder", "i1")
    return talk


def _accept(file: VectorFile, talk: Transcript) -> None:
    output = {
        by: {"root_key": side.root, "next_header_keys": [side.next_sending, side.next_receiving]}
        for by, side in talk.sides.items()
    }
    given = {"events": talk.events}
    file.accept("transcript", f"transcript_{talk.name}", "RATCHET-01", given, output)


def _in_same_chain(refusals: _Refusals) -> None:
    _accept(refusals.file, refusals.talk)
    seen, sending = refusals.talk.messages["i1"][0], refusals.peer.sending
    if sending is None:
        raise ValueError("the initiator sends from the start")
    triple = sending.triple
    refusals.add("replayed", "RATCHET-08", seen, "replayed")
    good = refusals.peer.encrypt(draw("next nonce", 12), b"the next message")
    for name, altered in {
        "nonce_altered": flipped(good, 0),
        "header_altered": flipped(good, 14),
        "header_tag_altered": flipped(good, 14 + 1224 + 15),
        "ciphertext_altered": flipped(good, 14 + 1240),
        "tag_altered": flipped(good, -1),
        "tag_cut_off": good[:-1],
        "extended": good + b"\0",
    }.items():
        refusals.add(name, "RATCHET-06", altered, "not_authentic")
    # The last sixteen bytes stand for the tag: one byte less is no message.
    for name, cut in {
        "empty": b"",
        "shorter_than_nonce": good[:11],
        "without_ciphertext": good[: 14 + 1240],
        "shorter_than_tag": good[: 14 + 1240 + 15],
        "header_length_too_large": good[:12] + u16(len(good)) + good[14:],
    }.items():
        refusals.add(name, "RATCHET-02", cut, "malformed")
    header = u32(2) + u32(0) + triple
    for name, length in {"one_byte_more": 1225, "one_byte_less": 1223}.items():
        data = (header + b"\0")[:length]
        message = refusals.peer.seal(sending.header_key, draw("k"), draw("n", 12), data, b"")
        refusals.add(f"header_{name}", "RATCHET-02", message, "malformed")
    other_kem = triple[:32] + kem_key(768, draw("other", 64))
    message = refusals.forged(2, 0, other_kem)
    refusals.add("kem_key_of_chain_changed", "RATCHET-05", message, "chain_mismatch")
    other_dh = dh_key(draw("other")) + triple[32:]
    message = refusals.forged(2, 0, other_dh)
    refusals.add("dh_key_of_chain_changed", "RATCHET-05", message, "chain_mismatch")
    message = refusals.forged(2 + 1001, 0, triple)
    refusals.add("skips_1001", "RATCHET-08", message, "too_many_skipped")
    message = refusals.forged(2**32 - 1, 0, triple)
    refusals.add("number_largest", "RATCHET-08", message, "too_many_skipped")
    message = refusals.forged(2, 0, triple)
    refusals.add("message_key_wrong", "RATCHET-06", message, "not_authentic")
    reflected = refusals.talk.sides["responder"]
    data = reflected.seal(sending.header_key, draw("k"), draw("n", 12), header, b"")
    refusals.add("direction_reversed", "RATCHET-07", data, "not_authentic")
    other = Side(draw("other hh", 64), True, START.root, None, None, b"", b"")
    data = other.seal(sending.header_key, draw("k"), draw("n", 12), header, b"")
    refusals.add("of_another_handshake", "PQXDH-04", data, "not_authentic")
    # A next chain would answer the responder's, which has not begun.
    ahead = refusals.forged(0, 2, draw("ahead", 2304), header_key=refusals.peer.next_sending)
    refusals.add("chain_without_our_step", "RATCHET-04", ahead, "chain_mismatch")


def _in_next_chain(refusals: _Refusals) -> None:
    _accept(refusals.file, refusals.talk)
    peer, own = refusals.peer, refusals.talk.sides["initiator"]
    key = peer.next_sending
    before = own.receiving[0].triple
    dh, kem = dh_key(draw("new dh")), kem_key(768, draw("new kem", 64))
    ciphertext = encapsulate(768, peer.receiving[0].triple[32:1216], draw("new m"))[1]
    good = dh + kem + ciphertext

    def add(
        name: str, requirement: str, triple: bytes, reason: str, layer: str = "ratchet", pn: int = 2
    ) -> None:
        message = refusals.forged(0, pn, triple, header_key=key)
        refusals.add(f"next_chain_{name}", requirement, message, reason, layer=layer)

    add("dh_key_used_before", "RATCHET-05", before[:32] + good[32:], "chain_mismatch")
    add("without_ciphertext", "RATCHET-04", dh + kem, "chain_mismatch")
    for name, point in BAD_POINTS.items():
        add(f"dh_key_{name}", "RATCHET-05", point + good[32:], "bad_point", "x25519")
    add(
        "kem_key_not_reduced",
        "RATCHET-05",
        dh + unreduced(kem) + ciphertext,
        "bad_kem_key",
        "ml-kem",
    )
    add("pn_below_received", "RATCHET-08", good, "chain_mismatch", pn=1)
    add("pn_skips_1001", "RATCHET-08", good, "too_many_skipped", pn=2 + 1001)
    add("pn_largest", "RATCHET-08", good, "too_many_skipped", pn=2**32 - 1)
    message = refusals.forged(1, 2 + 1000, good, header_key=key)
    refusals.add(
        "next_chain_sum_skips_1001", "RATCHET-08", message, "too_many_skipped", layer="ratchet"
    )
    # A right step but for the KEM secret: another ciphertext is shown, or none was used.
    drawn = Step(draw("new dh"), draw("new kem", 64), draw("new m"))
    talk = _answered()
    sender = talk.sides["responder"]
    newest = sender.receiving[0].triple
    secret, right = encapsulate(768, newest[32:1216], drawn.m)
    triple = dh_key(drawn.dh_private) + kem_key(768, drawn.kem_seed)
    for name, used, shown in (
        ("kem_ciphertext_altered", secret, flipped(right, 7)),
        ("kem_secret_left_out", None, right),
    ):
        sender = _answered().sides["responder"]
        sender.begin(drawn, triple + shown, DH(drawn.dh_private, newest[:32]), used)
        message = sender.encrypt(draw("altered nonce", 12), b"altered")
        refusals.add(f"next_chain_{name}", "RATCHET-03", message, "not_authentic")


def _in_first_chain(refusals: _Refusals) -> None:
    peer = refusals.peer
    if peer.sending is None:
        raise ValueError("the initiator sends from the start")
    triple = peer.sending.triple
    message = refusals.forged(0, 1, triple)
    refusals.add("first_chain_with_pn", "RATCHET-01", message, "chain_mismatch")
    message = refusals.forged(0, 0, triple + draw("ciphertext", 1088))
    refusals.add("first_chain_with_ciphertext", "RATCHET-04", message, "chain_mismatch")
    message = refusals.forged(1001, 0, triple)
    refusals.add("first_chain_skips_1001", "RATCHET-08", message, "too_many_skipped")
    message = refusals.forged(0, 0, BAD_POINTS["low_order_0"] + triple[32:])
    refusals.add("first_chain_low_order", "RATCHET-05", message, "bad_point", layer="x25519")
    chain = Receiving(triple, peer.sending.header_key, peer.sending.chain_key)
    wrong = peer.seal(
        START.responder_header_key,
        chain_step(chain.chain_key)[1],
        draw("n", 12),
        u32(0) + u32(0) + triple,
        b"",
    )
    refusals.add("under_the_other_header_key", "PQXDH-03", wrong, "not_authentic")
