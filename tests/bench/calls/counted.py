"""The call of `ours` that counts, in this process of the benchmark, what SFrame takes of the CPU.

It is what encryption costs without taking one whole call from another, which leaves a small
number between two large ones. The looks at the clock are counted as well.
"""

import time
from collections.abc import Callable
from typing import Any

from e2ecall.media.incoming import IncomingStream
from e2ecall.protocol.sframe import SFrameSender
from tests.bench.calls import ours
from tests.bench.calls.endpoint import Lines, Studio
from tests.bench.calls.witness import Sent, Witness


async def call(
    lines: Lines, role: str, turn: tuple[str, str, str], studio: Studio, witness: Witness
) -> None:
    """Do as `ours.call` does, and note the time in `Sent.sframe`."""
    for owner, name in ((SFrameSender, "encrypt"), (IncomingStream, "_decrypt")):
        setattr(owner, name, _counted(vars(owner)[name], studio.sent))
    await ours.call(lines, role, turn, studio, witness)


def _counted(method: Callable[..., bytes], sent: Sent) -> Callable[..., bytes]:
    def counted(*arguments: Any) -> bytes:
        start = time.thread_time_ns()
        try:
            return method(*arguments)
        finally:
            sent.sframe.append(time.thread_time_ns() - start)

    return counted
