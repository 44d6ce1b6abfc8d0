"""The spoken code and fingerprints as people see them (spec/sas.md)."""

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2ecall.errors import LocalProtocolError
from e2ecall.protocol.sas import EMOJI, SAS, identity_fingerprint

ROOT = Path(__file__).parents[2]
VECTORS = Path(os.environ.get("E2ECALL_VECTORS_DIR", ROOT.parent / "shared" / "vectors"))
LIST = VECTORS / "wordlists" / "matrix-sas-emoji.json"


def test_table_has_64_different_symbols():
    """SAS-01: six bits each, and no two that look or read alike."""
    assert len(EMOJI) == len({emoji for emoji, _ in EMOJI}) == len({n for _, n in EMOJI}) == 64


def test_table_is_the_published_one():
    """SAS-01: number, emoji and name are those of the list that is named as the source."""
    if not LIST.exists():
        pytest.skip(f"no third-party vectors at {VECTORS}: set E2ECALL_VECTORS_DIR")
    published = json.loads(LIST.read_text(encoding="utf-8"))
    assert [(e["emoji"], e["description"]) for e in published] == list(EMOJI)
    assert [e["number"] for e in published] == list(range(64))


def test_spec_shows_the_table():
    """The table in spec/sas.md is the one in use."""
    text = (ROOT / "spec" / "sas.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (\S+) \| ([A-Z][A-Za-z ]+) \|$", text, re.MULTILINE)
    assert [(int(n), emoji, name) for n, emoji, name in rows] == [
        (n, emoji, name) for n, (emoji, name) in enumerate(EMOJI)
    ]


@given(bits=st.integers(0, 2**24 - 1))
def test_both_ways_show_all_bits(bits):
    """SAS-01, SAS-02, SAS-04: four emoji and eight digits each say all 24 bits."""
    code = SAS(bits)
    numbers = [EMOJI.index(symbol) for symbol in code.emoji]
    assert len(numbers) == 4
    assert sum(n << shift for n, shift in zip(numbers, (18, 12, 6, 0), strict=True)) == bits
    assert len(code.digits) == 8
    assert int(code.digits) == bits


def test_known_codes():
    """SAS-02: digits are zero-padded; the first emoji are the highest bits."""
    assert SAS(0).digits == "00000000"
    assert SAS(2**24 - 1).digits == "16777215"
    assert [name for _, name in SAS(0b000001_000010_000011_111111).emoji] == [
        "Cat",
        "Lion",
        "Horse",
        "Pin",
    ]
    assert str(SAS(0)) == "🐶 🐶 🐶 🐶"


@pytest.mark.parametrize("bits", [-1, 2**24])
def test_other_numbers_are_no_code(bits):
    """A value beyond 24 bits is refused."""
    with pytest.raises(LocalProtocolError):
        SAS(bits)


def test_fingerprint_is_sixty_digits():
    """SAS-03: twelve groups of five digits."""
    text = identity_fingerprint("alice@relay.example", bytes(32))
    assert re.fullmatch(r"\d{5}( \d{5}){11}", text)


def test_fingerprint_names_address_and_key():
    """SAS-03: another key or another address has another fingerprint."""
    texts = {
        identity_fingerprint("alice@relay.example", bytes(32)),
        identity_fingerprint("alice@relay.example", b"\x01" + bytes(31)),
        identity_fingerprint("bob@relay.example", bytes(32)),
    }
    assert len(texts) == 3
