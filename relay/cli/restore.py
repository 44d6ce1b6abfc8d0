"""``e2ecall-relay restore``: go on from a backup, less its one-time prekeys (relay/README.md)."""

import os
import sys
from pathlib import Path

from relay.config import load
from relay.errors import OperatorError
from relay.io import sqlite_backup
from relay.io.backends import postgres


def restore(
    folder: Path | None = None,
    /,
    *,
    config: Path = Path("relay.toml"),
    replace: bool = False,
) -> None:
    """Restore a backup, and discard all one-time prekeys: owners publish new ones.

    Parameters
    ----------
    folder:
        What `backup` made. With PostgreSQL there is none: restore the database with its own means
        first.
    config:
        The configuration file.
    replace:
        Set a database that is there aside.
    """
    settings = load(config, os.environ)
    if settings.storage.backend == "sqlite":
        if folder is None:
            raise OperatorError("which backup?", hint="e2ecall-relay restore FOLDER")
        data = Path(settings.relay.data_dir)
        discarded = sqlite_backup.restore(folder, data, replace=replace)
    else:
        if folder is not None or replace:
            raise OperatorError(
                "PostgreSQL has its own backups",
                hint="restore the database with its own means, then run this without a folder",
            )
        discarded = postgres().discard_one_time_prekeys(settings.storage.dsn)
    sys.stdout.write(f"restored; {discarded} one-time prekeys were discarded\n")
