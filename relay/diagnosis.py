"""Whether a relay can be served with a configuration and, if not, why (relay/README.md).

Finds everything that is wrong at once, with file, line and what to do. It reads the files that the
configuration names and changes nothing.
"""

import dataclasses
import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from relay.config import ENVIRONMENT_PREFIX, Config, addresses, host_port
from relay.errors import ConfigurationError, OperatorError, Problem
from relay.services.tickets import MIN_SECRET_BYTES
from relay.wire.names import RELAY_NAME
from relay.wire.turn_servers import hosts_of

TURN_URL: Final = re.compile(
    r"turns?:(\[[0-9a-fA-F:.]+\]|[\w.-]+)(:[0-9]{1,5})?(\?transport=(udp|tcp))?", re.ASCII
)
"""RFC 7065 section 3.1, with the transports that there are."""


@contextmanager
def located(path: Path | None, environment: Mapping[str, str]) -> Iterator[None]:
    """Say of each problem that is found in the block where its key was set."""
    try:
        yield
    except ConfigurationError as error:
        lines = _lines(path)
        raise ConfigurationError(
            dataclasses.replace(problem, where=_place(problem.key, path, lines, environment))
            for problem in error.problems
        ) from error


def check(config: Config) -> None:
    """Find what is missing, contradicts itself, or is not safe.

    Raises:
        ConfigurationError: something is.
    """
    problems = [
        *_of_name(config),
        *_of_data_dir(config),
        *_of_listeners(config),
        *_of_turn_listeners(config),
        *_of_proxies(config),
        *_of_origins(config),
        *_of_tls(config),
        *_of_operation(config),
        *_of_secret(config),
        *_of_storage(config),
        *_of_turn_servers(config),
        *_of_turn_urls(config),
    ]
    if problems:
        raise ConfigurationError(problems)


def _lines(path: Path | None) -> list[str]:
    try:
        return [] if path is None else path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def _place(key: str, path: Path | None, lines: list[str], environment: Mapping[str, str]) -> str:
    for spelling in (key, f"{key}_file"):
        variable = ENVIRONMENT_PREFIX + spelling.replace(".", "__").upper()
        if variable in environment:
            return f"{variable} in the environment"
    number = _line(key, lines)
    if path is None:
        return ""
    return f"{path}, line {number}" if number else str(path)


def _line(key: str, lines: list[str]) -> int | None:
    """Return the number of the line that sets a key or, failing that, of its section."""
    section, _, name = key.partition(".")
    heading, found = "", None
    for number, line in enumerate(lines, 1):
        opened = re.match(r"\s*\[\s*([\w-]+)\s*\]", line)
        if opened:
            heading = opened[1]
            found = number if heading == section else found
        written = re.match(r"\s*([\w.-]+)\s*=", line)
        if written is None:
            continue
        full = f"{heading}.{written[1]}" if heading else written[1]
        if full in {key, f"{key}_file"} or (
            not name and not heading and full.split(".")[0] == section
        ):
            return number
    return found


def _of_name(config: Config) -> Iterator[Problem]:
    name = config.relay.name
    if not name:
        yield Problem("relay.name", "is missing", "set it to the host that clients dial")
    elif not RELAY_NAME.fullmatch(name):
        yield Problem(
            "relay.name",
            f"is not host or host:port in lower case: {name!r}",
            "clients dial wss://NAME/v1, and addresses end in @NAME",
        )


def _of_data_dir(config: Config) -> Iterator[Problem]:
    folder = Path(config.relay.data_dir)
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    if not existing.is_dir():
        yield Problem("relay.data_dir", f"cannot be a folder: {existing} is a file")
    elif not os.access(existing, os.W_OK | os.X_OK):
        yield Problem(
            "relay.data_dir",
            f"cannot be written: {existing}",
            f"make {folder}, for the user that runs the relay"
            if existing != folder
            else "make the folder belong to the user that runs the relay",
        )


def _of_listeners(config: Config) -> Iterator[Problem]:
    plain = not config.tls.certificate and not config.signalling.behind_proxy
    for address in addresses(config.signalling.listen):
        try:
            host, _ = host_port(address, "")
        except OperatorError as error:
            yield Problem("signalling.listen", str(error).strip(), 'as in "127.0.0.1:8080"')
            continue
        if plain and not _is_loopback(host):
            yield Problem(
                "signalling.listen",
                "is reachable from outside without TLS",
                "set [tls], or signalling.behind_proxy = true where a proxy speaks TLS for it",
            )
    if not addresses(config.signalling.listen):
        yield Problem("signalling.listen", "names no address", 'as in "127.0.0.1:8080"')


def _of_turn_listeners(config: Config) -> Iterator[Problem]:
    turn = config.turn
    for key, value in (
        ("turn.listen", turn.listen),
        ("turn.listen_tcp", turn.listen_tcp),
        ("turn.listen_tls", turn.listen_tls),
    ):
        for address in addresses(value):
            try:
                host, _ = host_port(address, "")
                ipaddress.ip_address(host)
            except OperatorError as error:
                yield Problem(key, str(error).strip(), 'as in "0.0.0.0:3478"')
            except ValueError:
                yield Problem(
                    key,
                    f"needs a numeric address, not {host!r}",
                    "0.0.0.0 is every IPv4 address of this machine, [::] every IPv6 address",
                )
    if not addresses(turn.listen):
        yield Problem("turn.listen", "names no address", 'as in "0.0.0.0:3478"')
    if turn.listen_tls and not config.tls.certificate:
        yield Problem("turn.listen_tls", "needs a certificate", "set [tls]")


def _of_proxies(config: Config) -> Iterator[Problem]:
    for proxy in config.signalling.trusted_proxies:
        try:
            ipaddress.ip_network(proxy)
        except ValueError as error:
            yield Problem(
                "signalling.trusted_proxies",
                f"names no address or network: {error}",
                'as in ["127.0.0.1", "10.0.0.0/24"]',
            )


def _of_origins(config: Config) -> Iterator[Problem]:
    for origin in config.signalling.origins:
        parts = urlsplit(origin)
        # RFC 6454 section 6.2: scheme, host and port are all that an origin has.
        if parts.scheme not in {"https", "http"} or f"{parts.scheme}://{parts.netloc}" != origin:
            yield Problem(
                "signalling.origins",
                f"has no origin of a web page: {origin!r}",
                'as in "https://calls.example", without a path',
            )


def _of_tls(config: Config) -> Iterator[Problem]:
    if bool(config.tls.certificate) != bool(config.tls.key):
        given, missing = (
            ("certificate", "key") if config.tls.certificate else ("key", "certificate")
        )
        yield Problem(
            f"tls.{given}", f"is given and tls.{missing} is not: they are needed together"
        )
    for key, path in (("certificate", config.tls.certificate), ("key", config.tls.key)):
        if path and not os.access(path, os.R_OK):
            yield Problem(
                f"tls.{key}",
                f"cannot be read: {path}",
                "the user that runs the relay has to be able to read it",
            )


def _of_operation(config: Config) -> Iterator[Problem]:
    listen, socket = config.operation.metrics_listen, config.operation.admin_socket
    if listen:
        try:
            host_port(listen, "")
        except OperatorError as error:
            yield Problem("operation.metrics_listen", str(error).strip(), 'as in "127.0.0.1:9464"')
    if socket and not Path(socket).parent.is_dir():
        yield Problem(
            "operation.admin_socket",
            f"has no folder: {Path(socket).parent}",
            "make it; who may enter it and is the relay's user may command the relay",
        )


def _of_secret(config: Config) -> Iterator[Problem]:
    if len(config.turn.secret.encode()) < MIN_SECRET_BYTES:
        yield Problem(
            "turn.secret",
            f"has to have at least {MIN_SECRET_BYTES} bytes",
            "`e2ecall-relay init` writes a random one to turn.secret",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _of_storage(config: Config) -> Iterator[Problem]:
    storage = config.storage
    if storage.backend == "postgres" and not storage.dsn:
        yield Problem(
            "storage.dsn",
            "is missing",
            'as in "host=db.example dbname=e2ecall user=relay", or storage.dsn_file',
        )
    if storage.backend == "sqlite":
        for key in ("dsn", "node"):
            if getattr(storage, key):
                yield Problem(
                    f"storage.{key}", "means nothing to SQLite", 'set storage.backend = "postgres"'
                )


def _of_turn_urls(config: Config) -> Iterator[Problem]:
    for url in config.turn.urls:
        if not TURN_URL.fullmatch(url):
            yield Problem(
                "turn.urls",
                f"has no URL of a TURN server: {url!r}",
                'as in "turn:relay.example:3478?transport=udp" or '
                '"turns:relay.example:5349?transport=tcp"',
            )


def _of_turn_servers(config: Config) -> Iterator[Problem]:
    own, hosts = config.turn.own_host, hosts_of(config.turn.urls)
    if own and own not in hosts:
        yield Problem(
            "turn.own_host",
            f"is no host of turn.urls: {own!r}",
            f"one of {', '.join(hosts)}" if hosts else "list the servers of all nodes in turn.urls",
        )
