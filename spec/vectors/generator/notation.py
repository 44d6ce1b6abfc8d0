"""Vectors of the notation: labelled, H, KDF, MAC, and the primitives' own checks."""

from spec.vectors.generator.form import VectorFile
from spec.vectors.generator.primitives import (
    DH,
    KDF,
    MAC,
    H,
    P,
    decapsulate,
    dh_key,
    draw,
    flipped,
    kem_key,
    labelled,
)

_PARTS: dict[str, list[bytes]] = {
    "no_parts": [],
    "empty_part": [b""],
    "two_empty_parts": [b"", b""],
    "three_parts": [b"abc", b"", draw("part", 300)],
}

LOW_ORDER = (
    0,
    1,
    P - 1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)
"""u-coordinates of the points of order 1, 2, 4 and 8."""


def is_on_curve(u: int) -> bool:
    """Euler's criterion for v^2 = u^3 + 486662 u^2 + u."""
    return pow((u**3 + 486662 * u**2 + u) % P, (P - 1) // 2, P) == 1


TWIST = next(u for u in range(2, 100) if not is_on_curve(u)).to_bytes(32, "little")
"""The smallest u of a point of the twist that is not of low order."""

BAD_POINTS = {
    **{f"low_order_{i}": u.to_bytes(32, "little") for i, u in enumerate(LOW_ORDER)},
    "low_order_not_canonical": P.to_bytes(32, "little"),
    "on_twist": TWIST,
    "not_canonical": (P + 9).to_bytes(32, "little"),
    "top_bit_set": flipped(dh_key(draw("honest")), 31, 0x80),
    "all_ones": b"\xff" * 32,
}
"""X25519 public keys that no honest peer has, by what is wrong with them."""


def unreduced(key: bytes) -> bytes:
    """Return an ML-KEM key with its first coefficient equal to q."""
    return bytes([3329 & 0xFF, (key[1] & 0xF0) | 3329 >> 8]) + key[2:]


def notation() -> VectorFile:
    """notation.json."""
    file = VectorFile("pqxdh.md, Notation")
    for name, parts in _PARTS.items():
        given: dict[str, object] = {"purpose": "some purpose", "parts": parts}
        data = labelled("some purpose", *parts)
        file.accept("labelled", f"labelled_{name}", "PQXDH-01", given, {"labelled": data})
        file.accept("hash", f"hash_{name}", "PQXDH-01", given, {"hash": H("some purpose", *parts)})
        mac = MAC("some purpose", draw("mac key", 64), *parts)
        keyed = {"key": draw("mac key", 64), **given}
        file.accept("mac", f"mac_{name}", "CALLKEY-05", keyed, {"mac": mac})
    _kdf(file)
    _x25519(file)
    _mlkem(file)
    return file


def _kdf(file: VectorFile) -> None:
    secrets = [draw("secret 1"), draw("secret 2", 64), b""]
    cases: dict[str, tuple[bytes, list[bytes], list[bytes], int]] = {
        "one_secret": (draw("salt", 64), secrets[:1], [], 32),
        "several_secrets": (draw("salt", 64), secrets, [b"context"], 64),
        "no_salt": (b"", secrets[:2], [b"a", b"", b"b"], 12),
        "zero_salt": (bytes(64), secrets[:1], [b"context"], 112),
        "longest": (draw("salt"), secrets[:1], [draw("context", 200)], 255 * 64),
    }
    for name, (salt, ikm, context, length) in cases.items():
        given = {
            "purpose": "some purpose",
            "salt": salt,
            "secrets": ikm,
            "context": context,
            "length": length,
        }
        output = KDF("some purpose", salt, ikm, context, length)
        file.accept("kdf", f"kdf_{name}", "PQXDH-01", given, {"output": output})


def _x25519(file: VectorFile) -> None:
    for i in range(4):
        private, public = draw(f"dh private {i}"), dh_key(draw(f"dh peer {i}"))
        given = {"private": private, "public": public}
        output = {"own_public": dh_key(private), "secret": DH(private, public)}
        file.accept("x25519", f"x25519_{i}", "PQXDH-02", given, output)
    for name, point in BAD_POINTS.items():
        given = {"private": draw("dh private 0"), "public": point}
        file.refuse("x25519", f"x25519_key_{name}", "PQXDH-02", given, "x25519", "bad_point")
    for length in (0, 31, 33):
        given = {"private": draw("dh private 0"), "public": draw("long", 40)[:length]}
        name = f"x25519_key_of_{length}_bytes"
        file.refuse("x25519", name, "PQXDH-02", given, "x25519", "bad_point")


def _mlkem(file: VectorFile) -> None:
    for bits, size in ((768, 1088), (1024, 1568)):
        seed, operation = draw(f"kem seed {bits}", 64), f"mlkem_{bits}"
        # Any ciphertext of the right length decapsulates: these are refused implicitly.
        ciphertext = draw(f"kem ciphertext {bits}", size)
        key = kem_key(bits, seed)
        output = {"key": key, "secret": decapsulate(bits, seed, ciphertext)}
        given = {"seed": seed, "ciphertext": ciphertext}
        name = f"{operation}_implicit_rejection"
        file.accept(f"{operation}_decapsulate", name, "PQXDH-03", given, output)
        for how, altered in (
            ("not_reduced", unreduced(key)),
            ("too_short", key[:-1]),
            ("too_long", key + b"\0"),
        ):
            name = f"{operation}_key_{how}"
            given = {"key": altered}
            file.refuse(f"{operation}_check", name, "PREKEYS-02", given, "ml-kem", "bad_kem_key")
        given = {"seed": seed, "ciphertext": ciphertext[:-1]}
        name = f"{operation}_ciphertext_too_short"
        file.refuse(f"{operation}_decapsulate", name, "PQXDH-03", given, "ml-kem", "malformed")
