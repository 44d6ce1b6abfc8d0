"""Which versions are here, and whether the media library is one that this program can work with."""

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Final

from e2ecall.cli.doctor.finding import Finding, Health
from e2ecall.errors import E2ECallError

_SHOWN: Final = ("aiortc", "aioice", "av", "cryptography", "pynacl", "websockets", "anyio")


def software_findings() -> Iterator[Finding]:
    """Yield the versions, whether media can run, and whether there is a screen for calls."""
    own = f"e2ecall {version('e2ecall')}, Python {platform.python_version()}"
    system = f"{platform.system()} {platform.machine()}"
    others = ", ".join(f"{name} {_version(name)}" for name in _SHOWN)
    yield Finding("versions", Health.WORKS, f"{own}, {system}, {others}")
    yield _media()
    if find_spec("textual") is None:
        yield Finding(
            "screen of calls",
            Health.ABSENT,
            "calls at a terminal have lines instead",
            "pip install 'e2ecall[softphone]'",
        )
    else:
        yield Finding("screen of calls", Health.WORKS, f"textual {_version('textual')}")


def _media() -> Finding:
    from e2ecall.media import hooks

    try:
        hooks.check()
    except E2ECallError as error:
        return Finding.failed("media library", error, "pip install --force-reinstall e2ecall")
    return Finding("media library", Health.WORKS, "it has all that calls build on")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "without a version"
