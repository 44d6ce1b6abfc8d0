"""Vectors of spec/store.md: the header and the rows of a store, as they lie in its two tables."""

from typing import Any

from nacl import bindings

from spec.vectors.generator.encoding import enc
from spec.vectors.generator.form import VectorFile
from spec.vectors.generator.primitives import KDF, MAC, draw, flipped, labelled, u8

_PASSPHRASE = b"correct horse battery staple"
_FORMAT = 3
_COST = (64, 2, 1)
"""KiB, passes, lanes: far too little for a real store."""

_SALT, _MASTER = draw("store salt", 16), draw("store master key")
_RECORDS: list[tuple[int, bytes, bytes]] = [
    (1, b"", draw("account", 700)),
    (3, b"bob@relay.example", draw("peer", 3000)),
    (5, b"relay.example", draw("relay key")),
    (7, (1).to_bytes(8), b""),
]

_CONTACT = b"bob@relay.example"
_TOKEN = draw("token", 16)
_FIELDS: list[Any] = [_CONTACT.decode(), None, _TOKEN, None, 7, 1_700_000_000, True]
"""Of a contact, from its address on, as format 1 has them."""
_FURTHER = [None, False, 0, None]
"""Those that format 2 added."""
_OF_PEER: list[Any] = [_CONTACT.decode(), draw("device", 16), [1, 2, [draw("list", 40)]], True]
"""Of a peer, from its address on; what is in the middle is left as it is."""
_SESSION: list[Any] = [draw("session", 32), [draw("ratchet", 900), [], 3], None]
"""Of a session, up to the mark."""
_ENDS = [1_700_000_000, False, True, 1_600_000_000]
"""Behind the mark."""


def _of_format(number: int) -> list[tuple[int, bytes, bytes]]:
    """Return the records of one store as this format has them."""
    marks: list[list[Any]] = [[True], [False]] if number < 3 else [[], []]
    sessions = [[*_SESSION, *mark, *_ENDS] for mark in marks]
    peer = enc([1 if number < 3 else 2, *_OF_PEER, sessions, 1_700_000_001])
    further = [*(_FURTHER if number >= 2 else []), *([0] if number >= 3 else [])]
    return [
        (1, b"", draw("account", 700)),
        (3, _CONTACT, peer),
        (4, _CONTACT, enc([number, *_FIELDS, *further])),
        (8, _CONTACT + b" " + draw("identity"), peer),
    ]


Rows = dict[bytes, bytes]


def _xchacha(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    sealed = bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, aad, nonce, key)
    return bytes(sealed)


def _derived(what: str) -> bytes:
    return KDF(f"store {what} key", b"", [_MASTER], [], 32)


def header(
    *, version: int = _FORMAT, sealed: int | None = None, cost: tuple[int, int, int] = _COST
) -> bytes:
    """Return the header's row; ``version`` and ``cost`` are those that it shows.

    ``sealed`` is the version that is authenticated, where that is another one.
    """
    memory, passes, _ = _COST
    wrapping = bindings.crypto_pwhash_alg(
        32, _PASSPHRASE, _SALT, passes, memory * 1024, bindings.crypto_pwhash_ALG_ARGON2ID13
    )
    aad = labelled("store master key", u8(sealed or version), _SALT, enc(list(_COST)))
    nonce = draw("store wrapping nonce", 24)
    wrapped = _xchacha(wrapping, nonce, _MASTER, aad)
    return enc([version, _SALT, *cost, nonce, wrapped])


def row(kind: int, key: bytes, value: bytes, *, shown: bytes | None = None) -> tuple[bytes, bytes]:
    """Return row id and row value; ``shown`` is another encoding of the record."""
    row_id = MAC("store record name", _derived("naming"), u8(kind), key)[:32]
    nonce = draw(f"row {kind} {key.hex()}", 24)
    plaintext = enc([kind, key, value]) if shown is None else shown
    sealed = _xchacha(_derived("record"), nonce, plaintext, labelled("store record", row_id))
    return row_id, nonce + sealed


def manifest(rows: Rows) -> bytes:
    """Return the manifest of these rows."""
    parts = b"".join(row_id + rows[row_id][-16:] for row_id in sorted(rows))
    return MAC("store manifest", _derived("manifest"), parts)


def store() -> VectorFile:
    """store.json."""
    file = VectorFile("store.md")
    rows = dict(row(*record) for record in _RECORDS)
    for name, some in (("empty", {}), ("of_four_records", rows)):
        records = [list(record) for record in _RECORDS] if some else []
        given = _given(header(), some)
        file.accept("open_store", f"store_{name}", "STORE-06", given, {"records": records})
    newest = [list(record) for record in _of_format(_FORMAT)]
    for number in range(1, _FORMAT):
        older = dict(row(*record) for record in _of_format(number))
        given = _given(header(version=number), older, version=number)
        file.accept(
            "open_store", f"store_of_format_{number}", "STORE-13", given, {"records": newest}
        )
    _refusals(file, rows)
    return file


def _given(
    head: bytes, rows: Rows, vouched: Rows | None = None, version: int = _FORMAT
) -> dict[str, Any]:
    """Return a store's contents; ``vouched`` are the rows that its manifest is about."""
    return {
        "format": version,
        "passphrase": _PASSPHRASE,
        "header": head,
        "manifest": manifest(rows if vouched is None else vouched),
        "rows": [[row_id, value] for row_id, value in sorted(rows.items())],
    }


def _refusals(file: VectorFile, rows: Rows) -> None:
    first, second, *_ = rows
    swapped = rows | {first: rows[second], second: rows[first]}
    altered = rows | {first: flipped(rows[first], 30)}
    fewer = {row_id: value for row_id, value in rows.items() if row_id != first}
    _, other_kind = row(1, b"", b"", shown=enc([2, b"", draw("account", 700)]))
    _, not_canonical = row(1, b"", b"", shown=b"\xdc\x00\x03\x01\xc4\x00\xc4\x00")
    good = _given(header(), rows)
    for name, requirement, given in (
        ("passphrase_wrong", "STORE-03", good | {"passphrase": b"another passphrase"}),
        ("header_of_format_1", "STORE-02", good | {"header": header(version=1)}),
        ("header_sealed_as_format_1", "STORE-02", good | {"header": header(sealed=1)}),
        ("format_1_in_name_only", "STORE-02", good | {"format": 1}),
        ("format_4", "STORE-01", good | {"format": 4, "header": header(version=4)}),
        ("header_of_lower_cost", "STORE-02", good | {"header": header(cost=(64, 1, 1))}),
        ("header_of_highest_cost", "STORE-02", good | {"header": header(cost=(2**31, 2, 1))}),
        ("header_altered", "STORE-02", good | {"header": flipped(header(), -1)}),
        ("header_with_trailing_byte", "STORE-02", good | {"header": header() + b"\0"}),
        ("rows_swapped", "STORE-05", _given(header(), swapped)),
        ("row_altered", "STORE-05", _given(header(), altered)),
        ("row_of_another_kind", "STORE-05", _given(header(), rows | {first: other_kind})),
        ("row_not_canonical", "STORE-05", _given(header(), rows | {first: not_canonical})),
        ("row_missing", "STORE-06", _given(header(), fewer, rows)),
        ("row_additional", "STORE-06", _given(header(), rows, fewer)),
        ("manifest_altered", "STORE-06", good | {"manifest": flipped(manifest(rows), 63)}),
        ("manifest_truncated", "STORE-06", good | {"manifest": manifest(rows)[:32]}),
    ):
        file.refuse("open_store", f"store_{name}", requirement, given, "store", "store_refused")
