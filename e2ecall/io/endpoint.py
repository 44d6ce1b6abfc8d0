"""Where a relay is (spec/wire.md, "Transport"): its URL, its name, and how TLS is checked.

It opens no connection.
"""

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from urllib.parse import SplitResult, urlsplit

from e2ecall.errors import LocalProtocolError
from relay.wire.names import RELAY_NAME

_DEFAULT_PORTS: Final = {"wss": 443, "ws": 80}
_PATH: Final = "/v1"


@dataclass(frozen=True, slots=True)
class RelayEndpoint:
    """A relay as its user named it; ``name`` is what stands behind the ``@`` of its addresses."""

    host: str
    port: int
    tls: bool

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read ``wss://host[:port]``; ``ws://`` is allowed for loopback only.

        Raises:
            LocalProtocolError: it is not such a URL.
        """
        parts = urlsplit(url)
        # What else a URL can carry would be dropped without a word, a password among it.
        more = parts.username or parts.password or parts.query or parts.fragment
        default = _DEFAULT_PORTS.get(parts.scheme)
        if default is None or not parts.hostname or more or parts.path not in {"", "/", _PATH}:
            raise LocalProtocolError(
                f"{url!r} is not the URL of a relay", hint="write wss://relay.example"
            )
        port = _port(parts, url)
        endpoint = cls(parts.hostname, default if port is None else port, parts.scheme == "wss")
        return endpoint._checked(url)

    @classmethod
    def of_name(cls, name: str) -> Self:
        """Return where the relay of an address is: TLS, unless it is on this very machine.

        Raises:
            LocalProtocolError: there is no such port.
        """
        parts = urlsplit(f"//{name}")
        host, port = parts.hostname or "", _port(parts, name)
        tls = not _is_loopback(host)
        return cls(host, _DEFAULT_PORTS["wss" if tls else "ws"] if port is None else port, tls)

    @property
    def name(self) -> str:
        """``host`` or, off the scheme's default port, ``host:port``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = _DEFAULT_PORTS["wss" if self.tls else "ws"]
        return host if self.port == default else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The WebSocket URL of the signalling service."""
        return f"{'wss' if self.tls else 'ws'}://{self.name}{_PATH}"

    def _checked(self, url: str) -> Self:
        if not self.tls and not _is_loopback(self.host):
            raise LocalProtocolError(
                f"{url!r} would not be protected by TLS", hint=f"write wss://{self.name}"
            )
        if not RELAY_NAME.fullmatch(self.name):
            raise LocalProtocolError(f"{self.name!r} is not a relay's name")
        return self


def tls_context(ca: Path | None) -> ssl.SSLContext:
    """Return a context that verifies certificate and host name, TLS 1.3 only.

    With ``ca`` only the authorities in that PEM file count, instead of the system's.

    Raises:
        LocalProtocolError: the file cannot be read as PEM certificates.
    """
    try:
        context = ssl.create_default_context(cafile=str(ca) if ca else None)
    except (OSError, ssl.SSLError) as error:
        raise LocalProtocolError(f"cannot read CA certificates from {ca}: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def _port(parts: SplitResult, text: str) -> int | None:
    try:
        port = parts.port
    except ValueError as error:
        raise LocalProtocolError(f"{text!r} has no valid port") from error
    if port == 0:
        raise LocalProtocolError(f"{text!r} has no valid port")
    return port


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
