"""``e2ecall-relay ticket``: TURN credentials for calls of one's own making (spec/ticket-ids.md)."""

import json
import os
import sys
import time
from typing import Annotated

import cyclopts

from relay.errors import OperatorError
from relay.services.tickets import DEFAULT_LIFETIME, TICKET_ID_BYTES, issue
from relay.wire.messages import TurnCredential

MAX_COUNT = 100_000


def ticket(
    *,
    turn_secret: str,
    count: Annotated[int, cyclopts.Parameter(validator=cyclopts.validators.Number(gte=1))] = 1,
) -> None:
    """Print media tickets, one JSON object a line: {"a": {"username", "password"}, "b": {...}}.

    Parameters
    ----------
    turn_secret:
        The secret that the relay was started with.
    count:
        How many tickets.
    """
    if not turn_secret:
        raise OperatorError("the TURN secret is empty")
    if count > MAX_COUNT:
        raise OperatorError(f"at most {MAX_COUNT} tickets at once")
    for _ in range(count):
        ticket_id = os.urandom(TICKET_ID_BYTES)
        a, b = issue(turn_secret.encode(), time.time(), DEFAULT_LIFETIME, ticket_id)
        sys.stdout.write(json.dumps({"a": _plain(a), "b": _plain(b)}) + "\n")


def _plain(credential: TurnCredential) -> dict[str, str]:
    return {"username": credential.username, "password": credential.password}
