"""Write the test vectors (spec/vectors/README.md): ``python -m spec.vectors.generate [DIR]``.

Run it in the root of the repository. It always makes the same files, into this folder unless
another is named; with ``--print`` it prints one JSON object of file names and contents instead.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from spec.vectors.generator.account import account
from spec.vectors.generator.callkeys import callkeys
from spec.vectors.generator.form import VectorFile
from spec.vectors.generator.identity import identity
from spec.vectors.generator.media import media
from spec.vectors.generator.messages import call
from spec.vectors.generator.notation import notation
from spec.vectors.generator.pqxdh import pqxdh
from spec.vectors.generator.prekeys import prekeys
from spec.vectors.generator.reach import reach
from spec.vectors.generator.sas import sas
from spec.vectors.generator.sealing import sealing
from spec.vectors.generator.sframe import sframe
from spec.vectors.generator.store import store
from spec.vectors.generator.transcripts import ratchet
from spec.vectors.generator.wire import wire

CHAPTERS: tuple[Callable[[], VectorFile], ...] = (
    notation,
    identity,
    prekeys,
    pqxdh,
    ratchet,
    sealing,
    call,
    callkeys,
    sas,
    sframe,
    media,
    wire,
    reach,
    store,
    account,
)


def generate() -> dict[str, bytes]:
    """Return the contents of all vector files by name."""
    return {f"{chapter.__name__}.json": chapter().to_json() for chapter in CHAPTERS}


def main(arguments: list[str]) -> None:
    """Write the files, or print them."""
    files = generate()
    if arguments == ["--print"]:
        print(json.dumps({name: data.decode() for name, data in files.items()}))
        return
    folder = Path(arguments[0]) if arguments else Path(__file__).parent
    for name, data in files.items():
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    main(sys.argv[1:])
