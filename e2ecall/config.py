"""Where a user's files are, and what is remembered beside the store (README, "Embedding").

Paths and the relay's address only: nothing here is secret, and the store itself is not opened.
"""

import os
import sys
from pathlib import Path
from typing import Final, Self

import msgspec

from e2ecall.errors import LocalProtocolError

_STORE: Final = Path("e2ecall", "store.db")
_MAX_BYTES: Final = 16_384


def default_store() -> Path:
    """Return where the store is unless the user says otherwise.

    ``$XDG_DATA_HOME/e2ecall/store.db``, or the platform's usual place for a program's data.
    """
    # XDG Base Directory Specification: a relative path is to be ignored.
    xdg = Path(os.environ.get("XDG_DATA_HOME", ""))
    if xdg.is_absolute():
        return xdg / _STORE
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / _STORE
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / _STORE
    return Path.home() / ".local" / "share" / _STORE


def make_folder_of(store: Path) -> None:
    """Create the folder of a store, for its owner alone, unless it exists.

    Raises:
        LocalProtocolError: it cannot be created.
    """
    try:
        store.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise LocalProtocolError(
            f"cannot create the folder {store.parent}: {error.strerror}",
            hint="choose another place with --store FILE",
        ) from error


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one store's user need not repeat: the relay's URL and the authorities to trust.

    Kept as JSON in ``STORE.json``, because the relay must be known before the store can be opened.
    """

    relay: str | None = None
    ca: str | None = None

    @classmethod
    def load(cls, store: Path) -> Self:
        """Read the settings beside ``store``; without a file nothing is set.

        Raises:
            LocalProtocolError: the file is there and cannot be used.
        """
        path = settings_path(store)
        try:
            with path.open("rb") as file:
                return msgspec.json.decode(file.read(_MAX_BYTES), type=cls)
        except (FileNotFoundError, NotADirectoryError):
            return cls()
        except OSError as error:
            raise LocalProtocolError(f"cannot read {path}: {error.strerror}") from error
        except msgspec.MsgspecError as error:
            raise LocalProtocolError(
                f"{path} is damaged: {error}",
                hint="delete it and give --relay URL; your account is not in it",
            ) from error

    def save(self, store: Path) -> None:
        """Write the settings beside ``store``, whole or not at all.

        Raises:
            LocalProtocolError: the disk refused.
        """
        path = settings_path(store)
        fresh = path.with_name(f"{path.name}.new")
        try:
            fresh.write_bytes(msgspec.json.encode(self) + b"\n")
            fresh.replace(path)
        except OSError as error:
            raise LocalProtocolError(f"cannot write {path}: {error.strerror}") from error


def settings_path(store: Path) -> Path:
    """Return where the settings of a store are."""
    return store.with_name(f"{store.name}.json")
