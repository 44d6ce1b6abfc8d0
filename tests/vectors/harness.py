"""Runs vectors of the form of spec/vectors/README.md against the implementation.

An operation is a function of the vector's input, registered under the name that vectors give it.
What it returns is compared with the vector's output, what it raises with the vector's refusal.
"""

import json
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from e2ecall.errors import (
    E2ECallError,
    ExportError,
    IdentityChangedError,
    LocalProtocolError,
    RemoteProtocolError,
    StoreError,
    VerificationFailedError,
)
from e2ecall.protocol.sealing import MessageTooLongError
from e2ecall.secret import Secret
from relay.errors import RefusedError, TicketError
from relay.wire.errors import WireError

REPOSITORY = Path(__file__).resolve().parents[2]
VECTORS = REPOSITORY / "spec" / "vectors"

LAYERS = {
    "encoding": ("e2ecall.protocol.encoding", "e2ecall.protocol.messages", "relay.wire"),
    "x25519": ("e2ecall.crypto.x25519",),
    "ml-kem": ("e2ecall.crypto.mlkem",),
    "ed25519": ("e2ecall.crypto.ed25519",),
    "devices": ("e2ecall.protocol.devices",),
    "identity": ("e2ecall.protocol.identity",),
    "prekeys": ("e2ecall.protocol.bundle", "e2ecall.protocol.prekeys"),
    "handshake": (
        "e2ecall.protocol.handshake",
        "e2ecall.protocol.pqxdh",
        "e2ecall.protocol.session",
    ),
    "ratchet": ("e2ecall.protocol.ratchet", "e2ecall.protocol.chains"),
    "sealing": ("e2ecall.protocol.sealing",),
    "call": ("e2ecall.protocol.call", "e2ecall.protocol.description"),
    "reach": ("e2ecall.protocol.invitation",),
    "sas": ("e2ecall.protocol.sas", "e2ecall.protocol.verification"),
    "sframe": ("e2ecall.protocol.sframe",),
    "sound": ("e2ecall.protocol.sound",),
    "export": ("e2ecall.protocol.account_export",),
    "store": ("e2ecall.io",),
    "relay": ("relay.services",),
}
"""Beginnings of the names of the modules that make up a layer. AEADs, MACs, HPKE and replay
windows are none of their own: a wrong tag is refused by the layer that uses them.
"""


class MismatchError(Exception):
    """The implementation did something else than the vector says."""


@dataclass(frozen=True)
class Refusal:
    """Who refused, and why: the names of spec/vectors/README.md."""

    layer: str
    reason: str


@dataclass(frozen=True)
class Vector:
    """One vector in its file."""

    file: "VectorFile"
    data: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.data["name"]

    @property
    def id(self) -> str:
        return f"{self.file.name}:{self.name}"

    def run(self) -> None:
        """Run it. Raises `MismatchError`, or whatever a broken vector provokes."""
        operation = OPERATIONS[self.data["operation"]]
        given = Given(self.file.given | self.data["input"], self.file)
        try:
            result = operation(given)
        except (E2ECallError, RefusedError, TicketError, WireError) as error:
            result = Refusal(_layer(error), _reason(error))
        if isinstance(result, Refusal):
            shown = {"refusal": {"layer": result.layer, "reason": result.reason}}
        else:
            shown = {"output": plain(result)}
        expected = {name: self.data[name] for name in ("output", "refusal") if name in self.data}
        if shown != expected:
            raise MismatchError(f"expected {shorten(expected)}, found {shorten(shown)}")


@dataclass(frozen=True)
class VectorFile:
    """A file of vectors."""

    name: str
    given: dict[str, Any]
    data: list[dict[str, Any]]

    @classmethod
    def read(cls, path: Path) -> "VectorFile":
        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(path.stem, content["given"], content["vectors"])

    @property
    def vectors(self) -> list[Vector]:
        return [Vector(self, data) for data in self.data]

    @cached_property
    def by_name(self) -> dict[str, Vector]:
        return {vector.name: vector for vector in self.vectors}

    def __hash__(self) -> int:
        return id(self)


class Given(dict):
    """A vector's input, with what its file gives to all."""

    def __init__(self, values: Mapping[str, Any], file: VectorFile) -> None:
        super().__init__(values)
        self.file = file

    def hex(self, name: str) -> bytes:
        return bytes.fromhex(self[name])

    def secret(self, name: str) -> Secret:
        return Secret(self.hex(name))

    def part(self, name: str) -> "Given":
        return Given(self[name], self.file)

    def hexes(self, name: str) -> list[bytes]:
        return [bytes.fromhex(value) for value in self[name]]


Result = Mapping[str, Any] | Refusal
OPERATIONS: dict[str, Callable[[Given], Result]] = {}


def operation(function: Callable[[Given], Result]) -> Callable[[Given], Result]:
    """Register an operation under the name of its function."""
    OPERATIONS[function.__name__.rstrip("_")] = function
    return function


def plain(value: Any) -> Any:
    """Return a value as vectors have it: binary as lower-case hex."""
    if isinstance(value, Secret):
        value = value.expose()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def shorten(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else text[:300] + " ..."


_REASONS: Mapping[type[Exception], str] = {
    IdentityChangedError: "identity_changed",
    MessageTooLongError: "message_too_long",
    VerificationFailedError: "identity_differs",
    ExportError: "export_refused",
    StoreError: "store_refused",
    TicketError: "bad_ticket",
    WireError: "malformed",
}


def _reason(error: Exception) -> str:
    match error:
        case RemoteProtocolError():
            return error.reason.value
        case RefusedError():
            return error.code.name.lower()
    for kind, reason in _REASONS.items():
        if isinstance(error, kind):
            return reason
    if type(error) is LocalProtocolError:
        return "bad_code"
    raise error


def _layer(error: Exception) -> str:
    """Return the layer of the innermost function that belongs to one."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        module = frame.f_globals["__name__"]
        for layer, beginnings in LAYERS.items():
            if module.startswith(beginnings):
                return layer
    raise error
