"""Certificates that can be replaced while the relay runs (relay/README.md, spec/wire.md).

Each set of files that was loaded has a context of its own, so a connection keeps the certificate
with which it began. It looks at no file by itself: `Certificates.reload` is asked for.
"""

import contextlib
import ssl
from dataclasses import dataclass
from typing import Final

from relay.errors import OperatorError
from relay.wire.records import endpoint_hash

DATES: Final = {9: "is not valid yet", 10: "has expired"}
"""OpenSSL's codes of what is wrong with a certificate's dates (X509_V_ERR_...)."""


@dataclass(frozen=True, slots=True)
class Served:
    """One certificate in use: for new connections, until the next one is loaded."""

    context: ssl.SSLContext
    endpoint: bytes
    """`endpoint_hash` of the certificate: what a client sees as the end of its TLS channel."""
    trouble: str
    """Why clients refuse it by its dates, as of when it was loaded; empty if they do not."""


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
        context.load_cert_chain(certificate, key, _no_passphrase)
        shown = _shown(context)
        trouble = _trouble(context, shown)
    except (OSError, ssl.SSLError) as error:
        raise OperatorError(
            f"cannot use tls.certificate {certificate} with tls.key {key}: {error}",
            hint="two PEM files: the certificate with its chain, and its private key",
        ) from error
    return Served(context, endpoint_hash(shown), trouble and f"{certificate} {trouble}")


def _no_passphrase() -> str:
    # OpenSSL would ask the terminal, and a relay that serves would wait for it, with all calls.
    raise OperatorError(
        "the key of tls.key is encrypted, and nobody is there to give its passphrase",
        hint="`openssl pkey` writes it without one; let its owner alone read it",
    )


def _shown(context: ssl.SSLContext) -> bytes:
    """Return the certificate that a handshake with this context shows.

    Asked of the context itself: a file that is read a second time may be another one by then, and
    all log-ins would be refused.
    """
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    asking.check_hostname, asking.verify_mode = False, ssl.CERT_NONE
    certificate = _met(context, asking).getpeercert(binary_form=True)
    assert certificate is not None
    return certificate


def _trouble(context: ssl.SSLContext, shown: bytes) -> str:
    """Return what a client says of the certificate's dates that trusts it in all else."""
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    asking.check_hostname = False
    asking.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    asking.load_verify_locations(cadata=shown)
    try:
        _met(context, asking)
    except ssl.SSLCertVerificationError as error:
        # That it is for another purpose, say, is for those who made it to know.
        return DATES.get(error.verify_code, "")
    return ""


def _met(context: ssl.SSLContext, asking: ssl.SSLContext) -> ssl.SSLObject:
    """Return the client's end of a handshake in memory."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client, server = asking.wrap_bio(back, there), context.wrap_bio(there, back, server_side=True)
    for end in (client, server, client):
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    return client
