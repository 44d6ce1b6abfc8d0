"""Whether the relay can be reached, who vouches for it, and what time it has."""

import ssl
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import anyio
from anyio.streams.tls import TLSAttribute

from e2ecall.cli.doctor.finding import Finding, Health
from e2ecall.config import Settings
from e2ecall.errors import E2ECallError
from e2ecall.io.connection import RelayConnection
from e2ecall.io.endpoint import RelayEndpoint, tls_context
from e2ecall.protocol.call import CLOCK_SKEW

_DAY: Final = 86_400
_FEW_DAYS: Final = 7
"""A certificate that is renewed by itself is renewed before this."""

_TIMEOUT: Final = 10.0


class RelayCheck:
    """Looks at one relay without an account. ``turn`` is known when it said hello."""

    def __init__(self, settings: Settings) -> None:
        """Take where the relay is.

        Raises:
            LocalProtocolError: its URL, or the file of authorities, is none.
        """
        assert settings.relay is not None
        self.endpoint = RelayEndpoint.parse(settings.relay)
        self.tls = tls_context(Path(settings.ca) if settings.ca else None)
        self.turn: tuple[str, ...] = ()

    async def findings(self) -> AsyncIterator[Finding]:
        """Yield what is found; after a failed connection there is no more."""
        began = time.monotonic()
        try:
            connection = await RelayConnection.connect(
                self.endpoint, self.tls if self.endpoint.tls else None
            )
        except E2ECallError as error:
            yield Finding.failed(
                f"relay {self.endpoint.name}", error, "ask its operator whether it is there"
            )
            return
        taken, now = time.monotonic() - began, time.time()
        hello = connection.hello
        await connection.aclose()
        self.turn = hello.turn
        yield Finding(
            f"relay {self.endpoint.name}", Health.WORKS, f"answers after {taken * 1_000:.0f} ms"
        )
        yield _clock(hello.time - now)
        yield await self._certificate()

    async def _certificate(self) -> Finding:
        what = "certificate of the relay"
        if not self.endpoint.tls:
            return Finding(what, Health.ABSENT, "none is needed on this machine")
        shown = await self._shown_certificate()
        if shown is None:
            return Finding(what, Health.FAILS, "the relay did not show it again", "try again later")
        end = ssl.cert_time_to_seconds(str(shown["notAfter"]))
        days = int((end - time.time()) // _DAY)
        until = f"{datetime.fromtimestamp(end, UTC):%Y-%m-%d}"
        if days < _FEW_DAYS:
            return Finding(
                what,
                Health.WORKS,
                f"valid, but only until {until}",
                "tell the operator that it should be renewed by now",
            )
        return Finding(what, Health.WORKS, f"valid until {until}")

    async def _shown_certificate(self) -> Mapping[str, Any] | None:
        """Return what the relay's certificate says, which is verified; None: it did not answer."""
        try:
            with anyio.fail_after(_TIMEOUT):
                stream = await anyio.connect_tcp(
                    self.endpoint.host,
                    self.endpoint.port,
                    ssl_context=self.tls,
                    tls_standard_compatible=False,  # nothing follows that could be cut off
                )
                async with stream:
                    return stream.extra(TLSAttribute.peer_certificate)  # noqa: S610 - AnyIO's, not Django's
        except (OSError, TimeoutError, anyio.BrokenResourceError):
            return None


def _clock(ahead: float) -> Finding:
    """Judge how far the relay's clock is ahead of ours; its hello tells whole seconds."""
    # Whole seconds: up to one is lost, and half the way there and back.
    if abs(ahead) <= CLOCK_SKEW:
        return Finding("clock", Health.WORKS, f"agrees with the relay's ({ahead:+.0f} s)")
    direction = "behind" if ahead > 0 else "ahead of"
    return Finding(
        "clock",
        Health.FAILS,
        f"{abs(ahead):.0f} s {direction} the relay's",
        f"let the system set its clock (more than {CLOCK_SKEW:.0f} s refuses calls)",
    )
