"""Logs on stderr (relay/README.md, Logs): what happened, never to whom.

Our own lines are structured events whose fields are chosen not to name anybody. Of what libraries
log, only the unformatted message and the place of an error are kept: their arguments and the texts
of exceptions may hold addresses and names.
"""

import contextlib
import logging
import os
import sys
import traceback
from typing import Final

import structlog

from relay.config import OperationSection

LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}


def configure(section: OperationSection) -> None:
    """Send all logs to stderr; may be called again."""
    level = LEVELS[section.log_level or "info"]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if section.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_Stderr,
        cache_logger_on_first_use=False,  # a reload may change the level
    )
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[_Foreign()], force=True)


class _Stderr:
    """Writes lines. What cannot be written is lost.

    A full disk, or a reader that is gone, must not end a relay and the calls that run; and nothing
    is held back, which Python would try to write once more at the end.
    """

    def msg(self, line: str) -> None:
        """Write one event, which may be several lines."""
        with contextlib.suppress(OSError):
            os.write(sys.stderr.fileno(), f"{line}\n".encode("utf-8", "backslashreplace"))

    debug = info = warning = error = critical = msg


class _Foreign(logging.Handler):
    """Passes on what libraries log, without what it may name."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        fields = {"logger": record.name}
        if record.exc_info and record.exc_info[1] is not None:
            fields |= place(record.exc_info[1])
        log.log(record.levelno, str(record.msg), **fields)


def place(error: BaseException) -> dict[str, str]:
    """Say which error it was and where, without its text: that may hold a username."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return {"error": type(error).__name__, "where": where}
