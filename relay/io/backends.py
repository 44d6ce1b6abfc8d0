"""Opening the storage backend that the configuration names (relay/README.md).

PostgreSQL's driver is loaded only where it is asked for. It knows no query.
"""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

from relay.config import Config
from relay.errors import OperatorError
from relay.io import sqlite
from relay.io.state import DATABASE_FILE
from relay.io.storage import Storage
from relay.services.delivery import Readers
from relay.services.signatures import RelayKey


@asynccontextmanager
async def open_backend(
    config: Config, folder: Path, readers: Readers, key: RelayKey
) -> AsyncIterator[Storage]:
    """Open the storage of this node; it is closed at the end of the block.

    Raises:
        OperatorError: it cannot be used.
    """
    if config.storage.backend == "sqlite":
        async with sqlite.open_storage(folder / DATABASE_FILE, readers) as opened:
            yield opened
        return
    async with postgres().open_storage(
        config.storage.dsn,
        readers,
        node=config.storage.node or socket.gethostname(),
        key=key,
        relay=config.relay.name,
    ) as shared:
        yield shared


def postgres() -> ModuleType:
    """Return `relay.io.postgres`.

    Raises:
        OperatorError: its driver is not installed.
    """
    try:
        from relay.io import postgres as module
    except ImportError as error:
        raise OperatorError(
            f'storage.backend = "postgres" needs psycopg 3: {error}',
            hint="pip install 'e2ecall[postgres]'",
        ) from error
    return module
