"""The control of the blindness check: runs one of the demo's clients with SFrame taken out.

    python -m e2ecall.cli.demo.control {caller,callee} JOB

The product has no switch for this. This program, which only the demo starts, replaces two methods
in its own process before it becomes the client: what encrypts a frame and what opens one. A
search that then finds nothing is no search. (A client that was not changed refuses such frames.)
"""

import sys
from typing import Any

from e2ecall.media.incoming import IncomingStream
from e2ecall.protocol.sframe import SFrameSender


def take_out_sframe() -> None:
    """Make encoded frames go and come as they are, in this process."""

    def as_it_is(_owner: object, frame: bytes, *_arguments: object) -> bytes:
        return frame

    replaced: tuple[tuple[Any, str], ...] = (
        (SFrameSender, "encrypt"),
        (IncomingStream, "_decrypt"),
    )
    for owner, name in replaced:
        if name not in vars(owner):
            raise AttributeError(f"{owner.__name__} has no {name} to take out")
        setattr(owner, name, as_it_is)


def main() -> None:
    """Take SFrame out, then be the client that the first argument names."""
    from e2ecall.cli.demo import callee, caller

    take_out_sframe()
    role = {"caller": caller.main, "callee": callee.main}[sys.argv.pop(1)]
    role()


if __name__ == "__main__":
    main()
