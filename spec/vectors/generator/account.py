"""Vectors of spec/account.md: exported accounts, sealed and opened."""

from typing import Any

from nacl import bindings

from spec.vectors.generator.encoding import Value, enc
from spec.vectors.generator.form import VectorFile
from spec.vectors.generator.people import ALICE, BOB
from spec.vectors.generator.primitives import draw, flipped, labelled

_PASSPHRASE = b"correct horse battery staple"
_COST = (64, 2, 1)
"""KiB, passes, lanes: far too little for a real export."""

_SALT, _NONCE = draw("export salt", 16), draw("export nonce", 24)
_SEED = draw("exported identity seed")

_BOB: list[Value] = [
    BOB.address, BOB.identity_key, True, False, draw("token", 16), None, 1_700_000_000
]  # fmt: skip
_EVE: list[Value] = ["eve@relay.example", None, False, True, None, None, 0]
_NOTHING: list[Value] = [None, None, None]

_FIRST: list[Value] = [_BOB, _EVE]
"""Contacts as version 1 has them."""

_CONTACTS: list[Value] = [
    [*_BOB, draw("fingerprint", 64), None, False],
    [*_EVE, None, True, None],
]


def _plaintext(
    contacts: list[Value], *, version: int = 2, rules: list[Value] | None = None
) -> bytes:
    relays: list[Value] = [["relay.example", draw("relay key")]]
    said: list[Value] = [False, 1, 3] if rules is None else rules
    body = enc([version, ALICE.address, _SEED, 3, 9, 2, relays, contacts, *said]) + b"\x80"
    return body + bytes(-len(body) % 4096)


def _file(plaintext: bytes, *, version: int = 2) -> bytes:
    memory, passes, _ = _COST
    key = bindings.crypto_pwhash_alg(
        32, _PASSPHRASE, _SALT, passes, memory * 1024, bindings.crypto_pwhash_ALG_ARGON2ID13
    )
    header = enc([version, _SALT, *_COST, _NONCE])
    start = _MAGIC + len(header).to_bytes(2) + header
    aad = labelled("account export", start)
    sealed = bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, aad, _NONCE, key)
    return start + bytes(sealed)


_MAGIC = b"e2ecall account\n"


def account() -> VectorFile:
    """account.json."""
    file = VectorFile("account.md")
    none: list[Value] = []
    for name, contacts in (("without_contacts", none), ("with_two_contacts", _CONTACTS)):
        output = {
            "address": ALICE.address,
            "identity_seed": _SEED,
            "newest_device_id": 3,
            "list_version": 9,
            "policy": 2,
            "relays": [["relay.example", draw("relay key")]],
            "contacts": contacts,
            "rules": [False, 1, 3],
        }
        given = _given(_file(_plaintext(contacts)))
        file.accept("open_export", f"export_{name}", "ACCOUNT-01", given, output)
    old = _given(_file(_plaintext(_FIRST, version=1, rules=[]), version=1))
    known: list[Value] = [[*_BOB, *_NOTHING], [*_EVE, *_NOTHING]]
    read = output | {"contacts": known, "rules": [True, 1, 1]}
    file.accept("open_export", "export_of_version_1", "ACCOUNT-01", old, read)
    _refusals(file)
    return file


def _given(data: bytes) -> dict[str, Any]:
    return {"passphrase": _PASSPHRASE, "file": data}


def _refusals(file: VectorFile) -> None:
    plain = _plaintext(_CONTACTS)
    good = _file(plain)
    for name, given in (
        ("passphrase_wrong", _given(good) | {"passphrase": b"another passphrase"}),
        ("magic_altered", _given(flipped(good, 0))),
        ("salt_altered", _given(flipped(good, 24))),
        ("header_of_lower_cost", _given(_swapped(good, (64, 1, 1)))),
        ("header_of_highest_cost", _given(_swapped(good, (2**31, 2, 1)))),
        ("header_of_version_3", _given(_file(plain, version=3))),
        ("header_of_version_1", _given(_file(plain, version=1))),
        ("ciphertext_altered", _given(flipped(good, 200))),
        ("tag_altered", _given(flipped(good, -1))),
        ("truncated", _given(good[:-1])),
        ("with_trailing_byte", _given(good + b"\0")),
        ("padding_altered", _given(_file(plain[:-1] + b"\1"))),
        ("padding_missing", _given(_file(plain.rstrip(b"\0")[:-1]))),
        ("contents_of_version_3", _given(_file(_plaintext(_CONTACTS, version=3)))),
        ("contents_of_version_1", _given(_file(_plaintext(_FIRST, version=1, rules=[])))),
        ("contacts_of_version_1", _given(_file(_plaintext(_FIRST)))),
        ("rules_missing", _given(_file(_plaintext(_CONTACTS, rules=[])))),
        ("contents_not_canonical", _given(_file(b"\xdc\x00\x01\x01\x80"))),
    ):
        file.refuse(
            "open_export", f"export_{name}", "ACCOUNT-03", given, "export", "export_refused"
        )


def _swapped(data: bytes, cost: tuple[int, int, int]) -> bytes:
    """Return the file with a header that says another cost, its rest as it was."""
    rest = data[18 + int.from_bytes(data[16:18]) :]
    header = enc([2, _SALT, *cost, _NONCE])
    return _MAGIC + len(header).to_bytes(2) + header + rest
