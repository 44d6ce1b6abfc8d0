"""Vectors of spec/sas.md: spoken codes and fingerprints; the emoji are read from the chapter."""

import base64
import re
from pathlib import Path

from spec.vectors.generator.encoding import Value, enc
from spec.vectors.generator.form import VectorFile
from spec.vectors.generator.people import ALICE, BOB, CAROL, Account
from spec.vectors.generator.primitives import H

_CHAPTER = Path(__file__).parents[2] / "sas.md"
_ROW = re.compile(r"\| (\d+) \| (\S+) \| ([A-Z][A-Za-z ]+) \|")


def emoji() -> list[tuple[str, str]]:
    """Return emoji and name by number, from the table of the chapter."""
    rows = [_ROW.fullmatch(line) for line in _CHAPTER.read_text(encoding="utf-8").splitlines()]
    table = {int(row[1]): (row[2], row[3]) for row in rows if row}
    return [table[number] for number in range(64)]


def fingerprint(address: str, identity_key: bytes) -> str:
    """Return the 60 digits of SAS-03."""
    digest = H("identity fingerprint", address.encode(), identity_key)
    groups = [int.from_bytes(digest[5 * i : 5 * i + 5]) % 100_000 for i in range(12)]
    return " ".join(f"{group:05d}" for group in groups)


def sas() -> VectorFile:
    """sas.json."""
    file, table = VectorFile("sas.md"), emoji()
    codes = [0, 1, 63, 64, 2**18, 2**24 - 1, 12_345_678]
    # Sixteen codes that show each of the 64 emoji once, in its place.
    codes += [sum((4 * i + j) << 18 - 6 * j for j in range(4)) for i in range(16)]
    for bits in codes:
        shown = [table[bits >> shift & 63] for shift in (18, 12, 6, 0)]
        output = {
            "emoji": [symbol for symbol, _ in shown],
            "names": [name for _, name in shown],
            "digits": f"{bits:08d}",
        }
        file.accept("sas", f"code_{bits:08d}", "SAS-01", {"bits": bits}, output)
    people = [(who.address, who.identity_key) for who in (ALICE, BOB, CAROL)]
    # The same key under another name.
    people.append(("alice@relay.test", ALICE.identity_key))
    for address, key in people:
        given = {"address": address, "identity_key": key}
        output = {"fingerprint": fingerprint(address, key)}
        file.accept("safety_number", f"fingerprint_{address}", "SAS-03", given, output)
    _codes(file)
    return file


def code(
    shower: Account,
    reader: Account,
    *,
    shower_key: bytes | None = None,
    reader_key: bytes | None = None,
) -> str:
    """Return the text of SAS-05; with other keys those are shown in the place of the right ones."""
    return _text(enc(_payload(shower, reader, shower_key, reader_key)))


def _payload(
    shower: Account,
    reader: Account,
    shower_key: bytes | None = None,
    reader_key: bytes | None = None,
) -> list[Value]:
    shown = shower_key or shower.identity_key
    return [1, shower.address, shown, reader.address, reader_key or reader.identity_key]


def _text(payload: bytes) -> str:
    return "e2ecall-verify:" + base64.urlsafe_b64encode(payload).decode().rstrip("=")


def _codes(file: VectorFile) -> None:
    own = {
        "shower": ALICE.address,
        "shower_key": ALICE.identity_key,
        "reader": BOB.address,
        "reader_key": BOB.identity_key,
    }
    good = code(BOB, ALICE)
    digits = fingerprint(BOB.address, BOB.identity_key)
    output = {"code": code(ALICE, BOB)}
    file.accept("verification_code", "code_of_alice_for_bob", "SAS-05", {"own": own}, output)
    for name, requirement, shown in (
        ("code_of_bob_for_alice", "SAS-06", good),
        ("digits_of_bob", "SAS-07", digits),
        ("digits_of_bob_without_spaces", "SAS-07", digits.replace(" ", "")),
    ):
        given = {"own": own, "shown": shown}
        file.accept("compare", name, requirement, given, {"verified": True})
    payload = _payload(BOB, ALICE)
    last_digit = str((int(digits[-1]) + 1) % 10)
    bad, differs = "bad_code", "identity_differs"
    for name, requirement, shown, reason in (
        ("code_of_another_key", "SAS-06", code(BOB, ALICE, shower_key=CAROL.identity_key), differs),
        (
            "code_for_another_key",
            "SAS-06",
            code(BOB, ALICE, reader_key=CAROL.identity_key),
            differs,
        ),
        ("code_of_somebody_else", "SAS-06", code(CAROL, ALICE), bad),
        ("code_for_somebody_else", "SAS-06", code(BOB, CAROL), bad),
        ("code_of_version_2", "SAS-05", _text(enc([2, *payload[1:]])), bad),
        ("code_with_padding", "SAS-05", good + "=" * (-len(good[15:]) % 4 or 4), bad),
        ("code_with_trailing_byte", "SAS-05", _text(enc(payload) + b"\0"), bad),
        ("code_truncated", "SAS-05", good[:-4], bad),
        ("code_with_a_field_more", "SAS-05", _text(enc([*payload, 0])), bad),
        ("code_of_another_alphabet", "SAS-05", good[:40] + "+/" + good[42:], bad),
        ("code_empty", "SAS-05", "e2ecall-verify:", bad),
        ("digits_of_another_identity", "SAS-07", fingerprint(BOB.address, bytes(32)), differs),
        ("digits_last_altered", "SAS-07", digits[:-1] + last_digit, differs),
        ("digits_truncated", "SAS-07", digits[:-1], bad),
        ("digits_of_another_script", "SAS-07", digits[:-1] + "\u0663", bad),
    ):
        given = {"own": own, "shown": shown}
        file.refuse("compare", name, requirement, given, "sas", reason)
