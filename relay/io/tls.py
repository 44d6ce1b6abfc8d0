"""Certificates that can be replaced while the relay runs (relay/README.md, spec/wire.md).

Each set of files that was loaded has a context of its own, so a connection keeps the certificate
with which it began. It looks at no file by itself: `Certificates.reload` is asked for.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path

from relay.errors import OperatorError
from relay.wire.records import endpoint_hash


@dataclass(frozen=True, slots=True)
class Served:
    """One certificate in use: for new connections, until the next one is loaded."""

    context: ssl.SSLContext
    endpoint: bytes
    """`endpoint_hash` of the certificate: what a client sees as the end of its TLS channel."""


class Certificates:
    """A certificate and its key, from PEM files; `current` is what new connections use."""

    def __init__(self, certificate: str, key: str) -> None:
        """Load the files.

        Raises:
            OperatorError: they cannot be read or do not belong together.
        """
        self.current = _load(certificate, key)

    def reload(self, certificate: str, key: str) -> None:
        """Load these files; connections that exist keep the certificate that they have.

        Raises:
            OperatorError: as at first; what was loaded before stays in use.
        """
        self.current = _load(certificate, key)


def _load(certificate: str, key: str) -> Served:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # Resuming saves little, and a ticket would let an observer join a client's connections.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    try:
        context.load_cert_chain(certificate, key)
        endpoint = _endpoint(Path(certificate).read_text("ascii", errors="replace"))
    except (OSError, ssl.SSLError, ValueError) as error:
        raise OperatorError(
            f"cannot use tls.certificate {certificate} with tls.key {key}: {error}",
            hint="two PEM files: the certificate with its chain, and its private key",
        ) from error
    return Served(context, endpoint)


def _endpoint(pem: str) -> bytes:
    """Return the hash of the first certificate of a PEM file, which is the relay's own."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    start = pem.index(begin)
    first = pem[start : pem.index(end, start) + len(end)]
    return endpoint_hash(ssl.PEM_cert_to_DER_cert(first))
