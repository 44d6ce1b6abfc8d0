"""Runs the third-party data that spec/vectors/third-party.md lists.

Each check is a name and a function that raises where something differs. The data are not part of
this repository. What the implementation does not have (other SFrame suites, SHA-256, chosen
randomness of ML-KEM) is what the generator of the vectors computes: its own primitives are
checked by the same data.
"""

import gzip
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from e2ecall.crypto import aead, ed25519, hpke, kdf, mlkem, x25519
from e2ecall.errors import E2ECallError, Reason
from e2ecall.protocol import sframe
from e2ecall.protocol.sas import EMOJI
from e2ecall.protocol.sframe_header import encode_header, parse_header
from e2ecall.secret import Secret
from relay.turn.auth import long_term_key
from relay.turn.errors import STUNError
from relay.turn.stun import parse_message
from spec.vectors.generator import hpke as written_again
from spec.vectors.generator import mlkem as seeded
from spec.vectors.generator import sframe as second
from spec.vectors.generator.notation import LOW_ORDER, is_on_curve
from spec.vectors.generator.primitives import P, gcm, hkdf
from tests.vectors.harness import REPOSITORY, VECTORS, MismatchError

Check = tuple[str, Callable[[], None]]

LIST = VECTORS / "third-party.md"
_ROW = re.compile(r"\| `([\w./-]+)` \|.*\| `([0-9a-f]{64})` \|")
_KEMS = {768: mlkem.MLKEM768, 1024: mlkem.MLKEM1024}


def folder() -> Path:
    """Return where the data are: ``E2ECALL_VECTORS_DIR``, else beside the repository."""
    return Path(os.environ.get("E2ECALL_VECTORS_DIR") or REPOSITORY.parent / "shared" / "vectors")


def hashes() -> dict[str, str]:
    """Return the SHA-256 of each file that is used, from third-party.md."""
    rows = map(_ROW.match, LIST.read_text(encoding="utf-8").splitlines())
    return {row[1]: row[2] for row in rows if row}


def checks(data: Path) -> Iterator[Check]:
    """Yield all checks on the data in a folder."""
    for name, expected in hashes().items():
        yield (
            f"sha256 {name}",
            lambda name=name, expected=expected: _same(
                hashlib.sha256((data / name).read_bytes()).hexdigest(), expected
            ),
        )
    for suite in (
        _sframe, _x25519, _ed25519, _cctv_ed25519, _hkdf, _hmac, _aead, _mlkem, _cctv_mlkem, _xwing,
        _rfc5769, _emoji,
    ):  # fmt: skip
        try:
            yield from suite(data)
        except (OSError, ValueError, LookupError) as error:
            yield f"third-party {suite.__name__[1:]}", lambda error=error: _raise(error)


def _raise(error: Exception) -> None:
    raise error


def _same(found: object, expected: object) -> None:
    if found != expected:
        raise MismatchError(f"expected {expected!r:.200}, found {found!r:.200}")


def _refused(reason: Reason | None, function: Callable[..., object], *arguments: Any) -> None:
    try:
        function(*arguments)
    except E2ECallError as error:
        if reason is None or getattr(error, "reason", None) is reason:
            return
        raise
    raise MismatchError("it was accepted")


def _bytes(case: dict[str, Any]) -> dict[str, bytes]:
    """Return the hexadecimal fields of a case as binary."""
    found = {}
    for name, value in case.items():
        if isinstance(value, str) and not len(value) % 2 and re.fullmatch("[0-9a-fA-F]*", value):
            found[name] = bytes.fromhex(value)
    return found


def _wycheproof(data: Path, name: str) -> Iterator[tuple[str, dict[str, Any], dict[str, bytes]]]:
    """Yield each test with its group's fields, and its binary fields."""
    content = json.loads((data / "wycheproof" / f"{name}_test.json").read_text())
    for group in content["testGroups"]:
        shared = {key: value for key, value in group.items() if key != "tests"}
        for test in group["tests"]:
            case = shared | test
            yield f"wycheproof {name} {test['tcId']}", case, _bytes(case)


# --- SFrame -----------------------------------------------------------------------------------


def _sframe(data: Path) -> Iterator[Check]:
    content = json.loads((data / "sframe" / "rfc9605-test-vectors.json").read_text())
    for case in content["header"]:
        name = f"rfc9605 header {case['kid']:x} {case['ctr']:x}"
        yield name, lambda case=case: _sframe_header(case)
    for case in content["sframe"]:
        if case["cipher_suite"] in second.SUITES:
            name = f"rfc9605 suite {case['cipher_suite']}"
            yield name, lambda case=case: _sframe_suite(case)


def _sframe_header(case: dict[str, Any]) -> None:
    encoded = bytes.fromhex(case["encoded"])
    _same(encode_header(case["kid"], case["ctr"]), encoded)
    _same(parse_header(encoded, 0), (case["kid"], case["ctr"], len(encoded)))
    _same(second.header(case["kid"], case["ctr"]), encoded)


def _sframe_suite(case: dict[str, Any]) -> None:
    """Suite 5 is the implementation's; the generator knows suite 4 as well."""
    field, kid, ctr = _bytes(case), case["kid"], case["ctr"]
    suite = second.SUITES[case["cipher_suite"]]
    key, salt = second.key_and_salt(field["base_key"], kid, suite)
    _same((key, salt), (field["sframe_key"], field["sframe_salt"]))
    made = second.ciphertext(field["base_key"], kid, ctr, field["pt"], field["metadata"], suite)
    _same(made, field["ct"])
    header = encode_header(kid, ctr)
    _same(header + field["metadata"], field["aad"])
    if suite is not second.OURS:
        return
    base_key, metadata = Secret(field["base_key"]), field["metadata"]
    ours = tuple(part.expose() for part in sframe.derive_key_and_salt(base_key, kid))
    _same(ours, (key, salt))
    sender = sframe.SFrameSender(base_key, kid)
    for _ in range(ctr):
        sender.encrypt(b"", 0)
    frame = metadata + field["pt"]
    _same(sender.encrypt(frame, len(metadata)), metadata + field["ct"])
    receiver = sframe.SFrameReceiver()
    receiver.add_key(kid, base_key)
    _same(receiver.decrypt(metadata + field["ct"], len(metadata)), frame)


# --- X25519 and Ed25519 -----------------------------------------------------------------------


def _x25519(data: Path) -> Iterator[Check]:
    for name, _, field in _wycheproof(data, "x25519"):
        yield name, lambda field=field: _x25519_case(field)


def _x25519_case(field: dict[str, bytes]) -> None:
    """Equal where PQXDH-02 lets a key pass, by Euler's criterion; refused everywhere else."""
    u = int.from_bytes(field["public"], "little")
    private = Secret(field["private"])
    if u < P and u not in LOW_ORDER and is_on_curve(u):
        _same(x25519.exchange(private, field["public"]).expose(), field["shared"])
    else:
        _refused(Reason.BAD_POINT, x25519.exchange, private, field["public"])


def _ed25519(data: Path) -> Iterator[Check]:
    for name, case, field in _wycheproof(data, "ed25519"):
        key = bytes.fromhex(case["publicKey"]["pk"])
        valid = case["result"] == "valid"
        yield name, lambda k=key, f=field, v=valid: _ed25519_case(k, f["msg"], f["sig"], v)


def _ed25519_case(key: bytes, message: bytes, signature: bytes, valid: bool) -> None:
    if valid:
        ed25519.verify(key, message, signature)
    else:
        _refused(Reason.BAD_SIGNATURE, ed25519.verify, key, message, signature)


_REFUSED_FLAGS = {
    "low_order_A",
    "low_order_R",
    "low_order_residue",
    "non_canonical_A",
    "non_canonical_R",
}
"""What makes a signature bad by IDENTITY-02's rules, in the words of the data."""


def _cctv_ed25519(data: Path) -> Iterator[Check]:
    for case in json.loads((data / "cctv" / "ed25519vectors.json").read_text()):
        valid = not _REFUSED_FLAGS & set(case["flags"] or ())
        key, signature = bytes.fromhex(case["key"]), bytes.fromhex(case["sig"])
        message = case["msg"].encode()
        yield (
            f"cctv ed25519 {case['number']}",
            lambda k=key, m=message, s=signature, v=valid: _ed25519_case(k, m, s, v),
        )


# --- HKDF, HMAC, AEADs ------------------------------------------------------------------------


def _hkdf(data: Path) -> Iterator[Check]:
    for digest in ("sha256", "sha512"):
        for name, case, field in _wycheproof(data, f"hkdf_{digest}"):
            if case["result"] == "valid":
                yield name, lambda d=digest, c=case, f=field: _hkdf_case(d, c["size"], f)


def _hkdf_case(digest: str, size: int, field: dict[str, bytes]) -> None:
    salt, ikm, info = field["salt"], field["ikm"], field["info"]
    _same(hkdf(digest, salt, ikm, info, size), field["okm"])
    if digest == "sha512":
        _same(kdf.hkdf(salt=salt, ikm=Secret(ikm), info=info, length=size), field["okm"])


def _hmac(data: Path) -> Iterator[Check]:
    for name, case, field in _wycheproof(data, "hmac_sha512"):
        yield name, lambda c=case, f=field: _hmac_case(c["result"] == "valid", f)


def _hmac_case(valid: bool, field: dict[str, bytes]) -> None:
    """A MAC is the whole one or none: right ones that were cut are refused too (PQXDH-01)."""
    made, tag = kdf.hmac_sha512(Secret(field["key"]), field["msg"]), field["tag"]
    _same(made[: len(tag)] == tag, valid)
    if made == tag:
        kdf.verify_mac(made, tag)
    else:
        _refused(Reason.BAD_MAC, kdf.verify_mac, made, tag)


def _aead(data: Path) -> Iterator[Check]:
    ciphers = {
        "aes_gcm": (aead.AES256GCM, 96),
        "xchacha20_poly1305": (aead.XChaCha20Poly1305, 192),
    }
    for name, (cipher, nonce_bits) in ciphers.items():
        for test, case, field in _wycheproof(data, name):
            if case["keySize"] == 256 and case["ivSize"] == nonce_bits:
                valid = case["result"] == "valid"
                yield test, lambda c=cipher, f=field, v=valid: _aead_case(c, f, v)
            elif case["keySize"] != 256:
                yield test, lambda c=cipher, f=field: _refused(None, c, Secret(f["key"]))
            elif cipher is aead.XChaCha20Poly1305:
                yield test, lambda c=cipher, f=field: _aead_case(c, f, valid=False)


def _aead_case(cipher: Any, field: dict[str, bytes], valid: bool) -> None:
    box, sealed = cipher(Secret(field["key"])), field["ct"] + field["tag"]
    if not valid:
        _refused(Reason.NOT_AUTHENTIC, box.decrypt, field["iv"], sealed, field["aad"])
        return
    _same(box.decrypt(field["iv"], sealed, field["aad"]), field["msg"])
    _same(box.encrypt(field["iv"], field["msg"], field["aad"]), sealed)


# --- ML-KEM and X-Wing ------------------------------------------------------------------------


def _mlkem(data: Path) -> Iterator[Check]:
    for bits, kem in _KEMS.items():
        for name, case, field in _wycheproof(data, f"mlkem_{bits}"):
            valid = case["result"] == "valid"
            yield name, lambda k=kem, f=field, v=valid: _mlkem_case(k, f, v)
        for name, _, field in _wycheproof(data, f"mlkem_{bits}_keygen_seed"):
            yield name, lambda k=kem, f=field: _same(k.from_seed(Secret(f["seed"])).public, f["ek"])
        for name, case, field in _wycheproof(data, f"mlkem_{bits}_encaps"):
            valid = case["result"] == "valid"
            yield name, lambda b=bits, f=field, v=valid: _encapsulation(b, f, v)


def _mlkem_case(kem: mlkem.KEM, field: dict[str, bytes], valid: bool) -> None:
    if len(field["seed"]) != mlkem.SEED_BYTES:
        _same(valid, False)  # our own key: nobody else can make it have another length
        return
    if len(field["c"]) != kem.ciphertext_bytes:
        _same(valid, False)
        _refused(Reason.MALFORMED, kem.decapsulate, Secret(field["seed"]), field["c"])
        return
    secret, key = kem.open_ciphertext(Secret(field["seed"]), field["c"])
    _same(key, field["ek"])
    _same(secret.expose(), field["K"])


def _encapsulation(bits: int, field: dict[str, bytes], valid: bool) -> None:
    kem = _KEMS[bits]
    if not valid:
        _refused(Reason.BAD_KEM_KEY, kem.encapsulate, field["ek"])
        return
    kem.check_public_key(field["ek"])
    _same(seeded.encapsulate(bits, field["ek"], field["m"]), (field["K"], field["c"]))


def _cctv_mlkem(data: Path) -> Iterator[Check]:
    for bits, kem in _KEMS.items():
        lines = (data / "cctv" / f"unluckysample-ML-KEM-{bits}.txt").read_text().splitlines()
        case = {
            name: bytes.fromhex(value)
            for name, _, value in (line.partition(" = ") for line in lines)
        }
        yield f"cctv unluckysample {bits}", lambda b=bits, c=case: _unlucky(b, c)
        packed = (data / "cctv" / f"modulus-ML-KEM-{bits}.txt.gz").read_bytes()
        for number, line in enumerate(gzip.decompress(packed).decode().splitlines()):
            yield (
                f"cctv modulus {bits} {number}",
                lambda k=kem, e=line: _refused(
                    Reason.BAD_KEM_KEY, k.check_public_key, bytes.fromhex(e)
                ),
            )


def _unlucky(bits: int, case: dict[str, bytes]) -> None:
    """The key was made of its seed by a draft of FIPS 203, so only encapsulation can be run."""
    _KEMS[bits].check_public_key(case["ek"])
    _same(seeded.encapsulate(bits, case["ek"], case["m"]), (case["K"], case["c"]))


def _xwing(data: Path) -> Iterator[Check]:
    path = data / "xwing" / "draft-connolly-cfrg-xwing-kem-test-vectors.json"
    for number, case in enumerate(json.loads(path.read_text())):
        yield f"xwing {number}", lambda case=case: _xwing_case(_bytes(case))


def _xwing_case(field: dict[str, bytes]) -> None:
    """Decapsulate by opening a message that is sealed under the published secret."""
    expanded = hashlib.shake_256(field["seed"]).digest(96)
    m, ephemeral = field["eseed"][:32], field["eseed"][32:]
    made = written_again.xwing_encapsulate(field["pk"], m, ephemeral)
    _same(made, (field["ss"], field["ct"]))
    key, nonce = written_again.key_schedule(field["ss"], b"info")
    sealed = field["ct"] + gcm(key, nonce, b"message", b"")
    _same(hpke.open_sealed(Secret(expanded), sealed, b"info"), b"message")


# --- STUN and names ---------------------------------------------------------------------------


def _rfc5769(data: Path) -> Iterator[Check]:
    content = json.loads((data / "stun-turn" / "rfc5769.json").read_text())
    for case in content["vectors"]:
        yield f"rfc5769 section {case['section']}", lambda case=case: _stun(case)


def _stun(case: dict[str, Any]) -> None:
    message = parse_message(bytes.fromhex(case["hex"]))
    if case["credential"] == "long-term":
        password = case["password_after_saslprep"]
        key = long_term_key(case["username_after_saslprep"], case["realm"], password)
    else:
        key = case["password"].encode()
    message.verify_integrity(key)
    _same(message.has_fingerprint, case["has_fingerprint"])
    try:
        message.verify_integrity(key + b"x")
    except STUNError:
        return
    raise MismatchError("another key was accepted")


def _emoji(data: Path) -> Iterator[Check]:
    content = json.loads((data / "wordlists" / "matrix-sas-emoji.json").read_text())
    for case in content:
        yield (
            f"matrix emoji {case['number']}",
            lambda case=case: _same(EMOJI[case["number"]], (case["emoji"], case["description"])),
        )
