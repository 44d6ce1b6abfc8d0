"""A process that takes orders: one JSON object a line, an operation and its arguments.

It answers with one line each, ``{"result": ...}`` or ``{"error": ...}``, and ends when its standard
input does. What the operations are, both ends agree upon.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from tests.bench.media.servers import on_core

PATIENCE = 120


class GeneratorError(Exception):
    """It could not do what it was asked for; the text is its own."""


class Commanded:
    """A running process that takes orders."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def do(self, operation: str, **arguments: Any) -> Any:
        """Give an order and return its result.

        Raises:
            GeneratorError: it was not carried out.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": operation, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise GeneratorError("the generator ended")
        answer = json.loads(line)
        if "error" in answer:
            raise GeneratorError(answer["error"])
        return answer["result"]


@contextlib.contextmanager
def commanded(module: str, *arguments: str, core: int) -> Iterator[Commanded]:
    """Run a module as a process of its own, pinned to a core, for the length of the block."""
    with on_core(core):  # no longer: what is started in the block has a core of its own
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    with process:
        try:
            yield Commanded(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
