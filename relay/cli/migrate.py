"""``e2ecall-relay migrate``: bring the database to this release's format (relay/README.md)."""

import os
import sys
from pathlib import Path

from relay.config import load
from relay.io import sqlite
from relay.io.backends import postgres
from relay.io.state import DATABASE_FILE, data_directory


def migrate(*, config: Path = Path("relay.toml")) -> None:
    """Bring the database to the format of this release, while no relay uses it.

    Parameters
    ----------
    config:
        The configuration file.
    """
    settings = load(config, os.environ)
    if settings.storage.backend == "sqlite":
        with data_directory(Path(settings.relay.data_dir)) as folder:
            before, after = sqlite.migrate(folder / DATABASE_FILE)
    else:
        before, after = postgres().migrate(settings.storage.dsn)
    changed = f"from format {before} to {after}" if before != after else f"has format {after}"
    sys.stdout.write(f"the database {changed}\n")
