"""``e2ecall doctor``: what works here, and what to do about the rest."""

import sys
from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import Final

from e2ecall.cli.doctor.devices import device_findings
from e2ecall.cli.doctor.finding import Finding, Health, tell
from e2ecall.cli.doctor.relay import RelayCheck
from e2ecall.cli.doctor.software import software_findings
from e2ecall.cli.doctor.turn import media_findings
from e2ecall.cli.options import DEFAULT, Access, Options
from e2ecall.cli.output import Output
from e2ecall.cli.progress import PROGRESS
from e2ecall.cli.running import run
from e2ecall.config import Settings
from e2ecall.errors import E2ECallError

EXIT_UNWELL: Final = 1


def doctor(*, options: Options = DEFAULT) -> None:
    """Tell what works: versions, devices, the relay, its certificate and clock, ways for media.

    With an account media is tried over UDP, TCP and TLS, by allocations that are given back. Exits
    with 1 if something does not work; what is absent without need is only told.
    """
    access = options.access() if options.has_store() else None
    settings, output = options.relay_settings(), options.output()
    is_well = True

    async def look(_: None) -> None:
        nonlocal is_well
        async for finding in _findings(settings, access):
            tell(finding, output)
            is_well = is_well and finding.health is not Health.FAILS

    run(nullcontext, look, doing="Looking", backend="asyncio")  # aioice needs asyncio
    _sum_up(output, is_well=is_well)
    if not is_well:
        sys.exit(EXIT_UNWELL)


async def _findings(settings: Settings, access: Access | None) -> AsyncIterator[Finding]:
    for finding in software_findings():
        yield finding
    for finding in device_findings():
        yield finding
    check = RelayCheck(settings)
    PROGRESS.say("Connecting to the relay")
    async for finding in check.findings():
        yield finding
    if not check.turn:
        return
    if access is None:
        yield Finding(
            "account",
            Health.ABSENT,
            "none is here, so media was not tried",
            "begin with: e2ecall register NAME --relay URL",
        )
        return
    PROGRESS.say("Logging in, and trying the ways for media")
    try:
        async with access.open() as me:
            yield Finding("account", Health.WORKS, f"{me.address} is known to the relay")
            async for finding in media_findings(me, check.turn, check.tls):
                yield finding
    except E2ECallError as error:
        yield Finding.failed("account", error, "try again later")


def _sum_up(output: Output, *, is_well: bool) -> None:
    text = "All that calls need works." if is_well else "Something does not work: see above."
    output.tell(text, "doctor", ok=is_well)
