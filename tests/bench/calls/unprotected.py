"""The call of `ours` with SFrame taken out, in this process of the benchmark alone.

The product has no switch for this; it is how what encryption costs can be seen. What is measured
is all of SFrame: keys, headers, nonces, replay windows, AES.
"""

from e2ecall.cli.demo.control import take_out_sframe
from tests.bench.calls import ours
from tests.bench.calls.endpoint import Lines, Studio
from tests.bench.calls.witness import Witness


async def call(
    lines: Lines, role: str, turn: tuple[str, str, str], studio: Studio, witness: Witness
) -> None:
    """Do as `ours.call` does, in clear below SRTP."""
    take_out_sframe()
    await ours.call(lines, role, turn, studio, witness)
