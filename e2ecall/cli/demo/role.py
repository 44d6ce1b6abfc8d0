"""What both clients of the demonstration share: their task, their voice to the parent, their notes.

The parent writes a `Job` to a file and gives its path as the only argument. Imported in the
clients' processes only: it takes notes of keys.
"""

import json
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio

from e2ecall.cli.demo.evidence import Evidence, SRTPKey
from e2ecall.cli.demo.job import Job
from e2ecall.errors import E2ECallError
from e2ecall.media.instrument import Observed, observe


def say(event: str, **fields: Any) -> None:
    """Tell the parent; one line of JSON."""
    print(json.dumps({"event": event, **fields}), flush=True)


def run(client: Callable[[Job, Evidence], Coroutine[Any, Any, None]]) -> None:
    """Be a client: read the job, run ``client``, write the evidence.

    Exits with 1 after an error that a person can understand, having told the parent.
    """
    job = Job.load(Path(sys.argv[1]))
    evidence = Evidence(username=job.username, address="")
    observed = observe()
    try:
        anyio.run(client, job, evidence, backend=job.backend)
    except E2ECallError as error:
        say("error", text=str(error), hint=error.hint)
        sys.exit(1)
    _note(observed, evidence)
    evidence.save(job.evidence_path)
    say("done")


def _note(observed: Observed, evidence: Evidence) -> None:
    evidence.media = observed.media
    evidence.sending_keys = [SRTPKey(profile, key) for profile, key in observed.sending_keys]
    evidence.frames = observed.frames
