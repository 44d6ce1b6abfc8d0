"""``e2ecall-relay backup``: a copy that `restore` takes (relay/README.md)."""

import os
import sys
from pathlib import Path

from relay.config import load
from relay.errors import OperatorError
from relay.io import sqlite_backup


def backup(folder: Path, /, *, config: Path = Path("relay.toml")) -> None:
    """Copy database and key of a relay to a new folder. The relay may be running.

    Parameters
    ----------
    folder:
        A folder that does not exist yet.
    config:
        The configuration file.
    """
    settings = load(config, os.environ)
    if settings.storage.backend != "sqlite":
        raise OperatorError(
            "PostgreSQL has its own backups",
            hint="pg_dump or continuous archiving, and a copy of relay.key; see relay/README.md",
        )
    sqlite_backup.backup(Path(settings.relay.data_dir), folder)
    sys.stdout.write(f"{folder}: database and relay.key\n")
