"""The relay's configuration (relay/README.md): a TOML file, the environment, secrets in files.

Unknown keys are errors, wherever they stand. It opens no socket and reads no file but those named.
Whether a relay can be served with what was read is `relay.diagnosis`.
"""

import difflib
import os
import secrets
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

from relay.errors import ConfigurationError, OperatorError, Problem
from relay.services.tickets import DEFAULT_LIFETIME, MAX_LIFETIME

ENVIRONMENT_PREFIX: Final = "RELAY__"
FILE_SUFFIX: Final = "_file"
SECRETS: Final = (("turn", "secret"), ("storage", "dsn"))
"""Keys that may be given as the path of a file."""
MAX_WORKERS: Final = 64

Positive = Annotated[float, Meta(gt=0)]
Bound = Annotated[int, Meta(ge=1, le=1_000_000)]
Addresses = str | Annotated[tuple[str, ...], Meta(max_length=8)]
"""One ``HOST:PORT``, or several: an IPv4 and an IPv6 one, for instance."""


Registration = Literal["open", "invite", "closed"]


class RelaySection(Struct, frozen=True, forbid_unknown_fields=True):
    """``[relay]``: who it is. ``name`` is what clients dial: a host, or host:port.

    ``abuse_contact`` is the username of the account that takes reports; empty: nobody does.
    """

    name: str = ""
    data_dir: str = "data"
    registration: Registration = "open"
    abuse_contact: Annotated[str, Meta(pattern=r"\A([a-z][a-z0-9_]{2,31})?\Z")] = ""


class SignallingSection(Struct, frozen=True, forbid_unknown_fields=True):
    """``[signalling]``: the WebSocket listeners. ``origins`` are web pages that may connect.

    ``trusted_proxies`` are addresses and networks whose ``proxy_header`` says who connects.
    """

    listen: Addresses = "127.0.0.1:8080"
    behind_proxy: bool = False
    trusted_proxies: tuple[str, ...] = ()
    proxy_header: Literal["x-forwarded-for", "forwarded"] = "x-forwarded-for"
    origins: tuple[str, ...] = ()


class TLSSection(Struct, frozen=True, forbid_unknown_fields=True):
    """``[tls]``: PEM files; both empty means that the listener speaks plain WebSocket."""

    certificate: str = ""
    key: str = ""


class TurnSection(Struct, frozen=True, forbid_unknown_fields=True):
    """``[turn]``: the media relay. ``urls`` is what clients are told; empty: derived.

    ``listen`` is UDP; ``listen_tcp`` and ``listen_tls`` are for networks that let no UDP through.
    """

    listen: Addresses = "0.0.0.0:3478"
    listen_tcp: Addresses = ()
    listen_tls: Addresses = ()
    urls: Annotated[tuple[str, ...], Meta(max_length=8)] = ()
    own_host: str = ""
    secret: str = ""
    ticket_seconds: Annotated[int, Meta(ge=60, le=MAX_LIFETIME)] = DEFAULT_LIFETIME
    workers: Annotated[int, Meta(ge=0, le=MAX_WORKERS)] = 1
    """Processes that forward, for each UDP address; with 0 the relay's own does."""


class StorageSection(Struct, frozen=True, forbid_unknown_fields=True):
    """``[storage]``: where accounts and mail are. ``node`` names this process among others."""

    backend: Literal["sqlite", "postgres"] = "sqlite"
    dsn: str = ""
    node: Annotated[str, Meta(max_length=64)] = ""


class LimitsSection(Struct, frozen=True, forbid_unknown_fields=True):
    """``[limits]``: seconds, and numbers; what strangers may ask is not limited with ``--dev``."""

    handshake_seconds: Annotated[float, Meta(gt=0, le=10)] = 10.0
    handshakes_per_address: Bound = 64
    handshakes_per_address_and_minute: Bound = 600
    first_request_seconds: Positive = 10.0
    anonymous_idle_seconds: Positive = 120.0
    write_seconds: Positive = 15.0
    connections: Bound = 20_000
    connections_per_address: Bound = 200
    requests_per_address_and_second: Bound = 200
    registrations_per_address_and_hour: Bound = 20
    fetches_per_address_and_minute: Bound = 60
    fetches_per_account_and_minute: Bound = 120
    boxes_per_address_and_hour: Bound = 1200
    sends_per_address_and_minute: Bound = 1200
    sends_per_mailbox_and_minute: Bound = 600
    sends_per_token_and_minute: Bound = 120
    changes_per_account_and_minute: Bound = 60
    stored_bytes: Annotated[int, Meta(ge=1_000_000, le=1_000_000_000_000_000)] = 20_000_000_000
    tickets_per_account_and_hour: Bound = 240
    allocations: Bound = 20_000
    allocations_per_side: Bound = 2
    allocations_per_address: Bound = 200
    allocation_seconds: Annotated[int, Meta(ge=600, le=MAX_LIFETIME)] = 3600
    allocation_bytes_per_second: Annotated[int, Meta(ge=10_000, le=1_000_000_000)] = 2_500_000
    turn_connections: Bound = 4000
    turn_connections_per_address: Bound = 200


class OperationSection(Struct, frozen=True, forbid_unknown_fields=True):
    """``[operation]``: what the operator sees and says. ``drain_seconds`` are for running calls."""

    admin_socket: str = ""
    metrics_listen: str = ""
    drain_seconds: Annotated[float, Meta(ge=0, le=86_400)] = 60.0
    log_format: Literal["json", "console"] = "json"
    log_level: Literal["", "debug", "info", "warning"] = ""


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that can be set."""

    relay: RelaySection = RelaySection()
    signalling: SignallingSection = SignallingSection()
    tls: TLSSection = TLSSection()
    turn: TurnSection = TurnSection()
    storage: StorageSection = StorageSection()
    limits: LimitsSection = LimitsSection()
    operation: OperationSection = OperationSection()


def load(path: Path | None, environment: Mapping[str, str]) -> Config:
    """Read ``path`` (None: only defaults) and overlay ``RELAY__SECTION__KEY`` variables.

    Relative paths in the file are relative to its folder. It does not say whether a relay can be
    served with the result.

    Raises:
        OperatorError: unreadable, not TOML, or a variable that names no key.
        ConfigurationError: unknown keys, values of the wrong kind.
    """
    plain: dict[str, Any] = {} if path is None else _read_toml(path)
    base = Path.cwd() if path is None else path.resolve().parent
    _overlay(plain, environment)
    problems = [*_resolve_files(plain, base), *_wrong_keys(plain)]
    if problems:
        raise ConfigurationError(problems)
    return _with_absolute_paths(msgspec.convert(plain, Config), base)


def development(config: Config, data_dir: Path) -> Config:
    """Return ``config`` for ``serve --dev``: loopback, free ports, a random secret if none."""
    replace = msgspec.structs.replace
    return replace(
        config,
        relay=replace(config.relay, data_dir=str(data_dir)),
        signalling=replace(config.signalling, listen="127.0.0.1:0", behind_proxy=True),
        operation=replace(config.operation, log_level=config.operation.log_level or "warning"),
        turn=replace(
            config.turn,
            listen="127.0.0.1:0",
            listen_tcp="127.0.0.1:0",
            listen_tls="127.0.0.1:0" if config.tls.certificate else (),
            urls=(),
            own_host="",
            secret=config.turn.secret or secrets.token_urlsafe(32),
        ),
    )


def host_port(text: str, what: str) -> tuple[str, int]:
    """Read ``HOST:PORT`` or ``[IPv6]:PORT``; ``what`` names it in the error.

    Raises:
        OperatorError: it is neither.
    """
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not bare or (":" in bare) != bracketed or not port.isascii():
        raise OperatorError(f"{what} is written HOST:PORT, not {text!r}")
    if not port.isdigit() or int(port) > 65_535:
        raise OperatorError(f"{what} has no valid port: {text!r}")
    return bare, int(port)


def addresses(value: Addresses) -> tuple[str, ...]:
    """Return the one address, or the several, that a key names."""
    if isinstance(value, tuple):
        return value
    return (value,) if value else ()


def join_host_port(host: str, port: int) -> str:
    """Write ``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise OperatorError(
            f"cannot read {path}: {error.strerror}",
            hint="`e2ecall-relay init` writes one"
            if isinstance(error, FileNotFoundError)
            else "the user that gives this command has to be able to read it",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OperatorError(f"{path} is not TOML: {error}") from error


def _overlay(plain: dict[str, Any], environment: Mapping[str, str]) -> None:
    sections = get_type_hints(Config)
    for name, text in sorted(environment.items()):
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        section, _, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
        kinds = (
            get_type_hints(sections[section], include_extras=True) if section in sections else {}
        )
        kind = kinds.get(key, kinds.get(key.removesuffix(FILE_SUFFIX)))
        table = plain.setdefault(section, {})
        if kind is None or not isinstance(table, dict):
            known = [
                f"{ENVIRONMENT_PREFIX}{each}__{field}".upper()
                for each in sections
                for field in get_type_hints(sections[each])
            ]
            raise OperatorError(
                f"{name} in the environment names no key of the configuration",
                hint=_nearest(name, known),
            )
        table[key] = _value(name, text, kind)
        for other in (f"{key}{FILE_SUFFIX}", key.removesuffix(FILE_SUFFIX)):
            if other != key and other in table:
                del table[other]  # the environment wins over the file, in either spelling


def _value(name: str, text: str, kind: Any) -> Any:
    plain = kind.__origin__ if get_origin(kind) is Annotated else kind
    if plain in {tuple[str, ...], Addresses}:
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        raise OperatorError(f"{name} in the environment is not valid: {error}") from error


def _resolve_files(plain: dict[str, Any], base: Path) -> Iterator[Problem]:
    """Replace ``turn.secret_file`` and the like by the content of the file that they name."""
    for section, key in SECRETS:
        table = plain.get(section)
        name = f"{section}.{key}"
        if not isinstance(table, dict) or f"{key}{FILE_SUFFIX}" not in table:
            continue
        path = base / str(table.pop(f"{key}{FILE_SUFFIX}"))
        if key in table:
            yield Problem(name, f"and {name}{FILE_SUFFIX} exclude each other", "keep one of them")
            continue
        try:
            table[key] = path.read_text("utf-8").strip()
        except OSError as error:
            yield Problem(
                f"{name}{FILE_SUFFIX}",
                f"cannot be read: {path}: {error.strerror}",
                "the user that runs the relay has to be able to read it",
            )
        except UnicodeDecodeError:
            yield Problem(f"{name}{FILE_SUFFIX}", f"is no text: {path}")


def _with_absolute_paths(config: Config, base: Path) -> Config:
    replace = msgspec.structs.replace
    tls = {
        field: _absolute(base, value) for field, value in msgspec.structs.asdict(config.tls).items()
    }
    return replace(
        config,
        relay=replace(config.relay, data_dir=os.fspath(base / config.relay.data_dir)),
        tls=TLSSection(**tls),
        operation=replace(
            config.operation, admin_socket=_absolute(base, config.operation.admin_socket)
        ),
    )


def _absolute(base: Path, path: str) -> str:
    return os.fspath(base / path) if path else ""


def _wrong_keys(plain: Mapping[str, Any]) -> Iterator[Problem]:
    sections = get_type_hints(Config)
    for section, table in plain.items():
        if section not in sections:
            yield Problem(
                section, "is no section of the configuration", _nearest(section, sections)
            )
            continue
        if not isinstance(table, dict):
            yield Problem(section, "is a section", f"write [{section}] and its keys below")
            continue
        kinds = get_type_hints(sections[section], include_extras=True)
        for key, value in table.items():
            if key not in kinds:
                yield Problem(f"{section}.{key}", "is no known key", _nearest(key, kinds))
                continue
            try:
                msgspec.convert(value, kinds[key])
            except msgspec.ValidationError as error:
                yield Problem(
                    f"{section}.{key}", f"has no valid value: {error}", _choices(kinds[key])
                )


def _choices(kind: Any) -> str | None:
    """Say which words a key may have, if they are a few."""
    words = get_args(kind) if get_origin(kind) is Literal else ()
    return f"one of {', '.join(word for word in words if word)}" if words else None


def _nearest(name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, known, 1)
    return f"did you mean {nearest[0]}?" if nearest else "relay/README.md has the whole list"
