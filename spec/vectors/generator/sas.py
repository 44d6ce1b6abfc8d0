"""Vectors of spec/sas.md: spoken codes and fingerprints; the emoji are read from the chapter."""

import re
from pathlib import Path

from spec.vectors.generator.form import VectorFile
from spec.vectors.generator.people import ALICE, BOB, CAROL
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
    return file
