"""The data directory (relay/README.md): one relay at a time, its signing key, its database.

Creates what is missing and never replaces anything.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from relay.config import Config
from relay.errors import OperatorError
from relay.services.signatures import RelayKey

KEY_FILE: Final = "relay.key"
DATABASE_FILE: Final = "relay.sqlite"
LOCK_FILE: Final = "relay.lock"
SOCKET_FILE: Final = "admin.sock"


@contextmanager
def data_directory(folder: Path) -> Iterator[Path]:
    """Create ``folder`` if need be and hold it for this process until the end of the block.

    Raises:
        OperatorError: it cannot be used, or another relay uses it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise OperatorError(f"cannot use the data directory {folder}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    except BlockingIOError as error:
        raise OperatorError(
            f"another relay uses the data directory {folder}",
            hint="stop it first, or choose another directory",
        ) from error
    finally:
        os.close(lock)


def relay_key(folder: Path) -> RelayKey:
    """Return the relay's signing key, made at the first start and kept for ever.

    Raises:
        OperatorError: it cannot be read or written, or is damaged.
    """
    path = folder / KEY_FILE
    try:
        if path.exists():
            return RelayKey.from_seed(path.read_bytes())
        key = RelayKey.generate()
        _write_secret(path, key.seed())
    except (OSError, ValueError) as error:
        raise OperatorError(
            f"cannot use the relay's key {path}: {error}",
            hint="restore it from a backup: clients know the relay by it",
        ) from error
    return key


def admin_socket(config: Config) -> Path:
    """Return where a relay with this configuration is asked."""
    chosen = config.operation.admin_socket
    return Path(chosen) if chosen else Path(config.relay.data_dir) / SOCKET_FILE


def _write_secret(path: Path, content: bytes) -> None:
    """Write a file that is whole or not there, readable by its owner alone."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
