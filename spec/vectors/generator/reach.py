"""Vectors of spec/reach.md: the links of invitations."""

import base64
import hashlib

from spec.vectors.generator.form import VectorFile
from spec.vectors.generator.people import ALICE, BOB, NOW
from spec.vectors.generator.primitives import draw, labelled


def reach() -> VectorFile:
    """reach.json."""
    file = VectorFile("reach.md", {})
    for i, (who, expires) in enumerate(((ALICE, NOW), (BOB, 0), (BOB, 2**48 - 1))):
        token = draw(f"invitation {i}", 16)
        seen = _fingerprint(who.address, who.identity_key)
        text = _link(who.address, token, expires, seen)
        fields = {
            "address": who.address,
            "token": token,
            "expires": expires,
            "fingerprint": seen,
        }
        file.accept("invitation", f"link_{i}", "REACH-08", fields, {"text": text})
        file.accept("read_invitation", f"read_{i}", "REACH-08", {"text": text}, fields)
    _refused(file)
    return file


def _fingerprint(address: str, identity_key: bytes) -> bytes:
    message = labelled("identity fingerprint", address.encode(), identity_key)
    return hashlib.sha512(message).digest()


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _link(address: str, token: bytes, expires: int, seen: bytes) -> str:
    return f"e2ecall:{address}?v=1&t={_base64(token)}&x={expires}&f={_base64(seen)}"


def _refused(file: VectorFile) -> None:
    token, seen = draw("invitation 0", 16), _fingerprint(ALICE.address, ALICE.identity_key)
    good = _link(ALICE.address, token, NOW, seen)
    head, _, query = good.partition("?")
    version, shown, end, identity = query.split("&")
    for name, text in {
        "empty": "",
        "cut_off": good[:-1],
        "with_more": good + "A",
        "with_another_parameter": good + "&n=alice",
        "in_capitals": good.upper(),
        "of_another_scheme": good.replace("e2ecall:", "https:"),
        "with_slashes": good.replace("e2ecall:", "e2ecall://"),
        "of_version_2": good.replace("v=1", "v=2"),
        "without_version": f"{head}?{shown}&{end}&{identity}",
        "in_another_order": f"{head}?{version}&{end}&{shown}&{identity}",
        "without_token": f"{head}?{version}&{end}&{identity}",
        "token_too_short": _link(ALICE.address, token[:-1], NOW, seen),
        "token_too_long": _link(ALICE.address, token + b"x", NOW, seen),
        "token_with_bits_left_over": f"{head}?{version}&t={'A' * 21}B&{end}&{identity}",
        "token_padded": f"{head}?{version}&{shown}==&{end}&{identity}",
        "fingerprint_too_short": _link(ALICE.address, token, NOW, seen[:-1]),
        "fingerprint_with_bits_left_over": f"{head}?{version}&{shown}&{end}&f={'A' * 85}B",
        "with_leading_zero": f"{head}?{version}&{shown}&x=0{NOW}&{identity}",
        "with_negative_end": f"{head}?{version}&{shown}&x=-1&{identity}",
        "with_end_too_far": _link(ALICE.address, token, 2**48, seen),
        "of_no_username": _link("x@relay.example", token, NOW, seen),
        "of_no_relay": _link("alice", token, NOW, seen),
        "of_no_address": _link("", token, NOW, seen),
        "of_escaped_address": good.replace("@", "%40"),
    }.items():
        given = {"text": text}
        file.refuse("read_invitation", f"link_{name}", "REACH-08", given, "reach", "bad_code")
