"""``e2ecall export``, ``e2ecall import`` and ``e2ecall devices``: an account on another device."""

import os
from pathlib import Path
from typing import Final

from cyclopts.types import ExistingFile

from e2ecall.cli.options import DEFAULT, Options
from e2ecall.cli.passphrase import ask_passphrase, read_passphrase
from e2ecall.cli.running import run
from e2ecall.client import Client
from e2ecall.errors import LocalProtocolError
from e2ecall.protocol.account_export import MAX_EXPORT
from e2ecall.secret import Secret

_WHAT: Final = "the export"


def export(
    file: Path, /, *, export_passphrase: ExistingFile | None = None, options: Options = DEFAULT
) -> None:
    """Write identity, contacts and policy to a file, under a passphrase of its own.

    Whoever has the file and its passphrase can take your account over: keep them apart. Messages
    and sessions are not in it.

    Parameters
    ----------
    file
        Where to write; a file that exists is not replaced.
    export_passphrase
        Read the passphrase of the export from this file instead of asking.
    """
    access, output = options.access(), options.output()
    passphrase = _passphrase(export_passphrase, is_new=True)

    async def write(me: Client) -> None:
        _create(file, await me.export_account(passphrase))
        output.tell(f"{me.address} is in {file}.", "exported", address=me.address, file=str(file))

    run(access.open_offline, write, doing="Sealing the export")


def import_(
    file: ExistingFile,
    /,
    *,
    export_passphrase: ExistingFile | None = None,
    options: Options = DEFAULT,
) -> None:
    """Become a new device of the account in an export. The device before loses its place.

    Parameters
    ----------
    file
        What `e2ecall export` wrote.
    export_passphrase
        Read the passphrase of the export from this file instead of asking.
    """
    data = _read(file)
    access, output = options.access_to_register(), options.output()
    passphrase = _passphrase(export_passphrase, is_new=False)
    is_new, is_begun = not access.store.exists(), False

    async def take(me: Client) -> None:
        nonlocal is_begun
        try:
            await me.import_account(data, passphrase)
        finally:
            is_begun = me.is_importing or me.is_registered
        access.settings.save(access.store)
        output.tell(
            f"You are {me.address} on this device. Your keys are in {access.store}.",
            "imported",
            address=me.address,
            store=str(access.store),
        )

    try:
        run(access.open_offline, take, doing="Becoming a device of the account")
    finally:
        # Nothing is in it, and the next attempt may choose its passphrase freely.
        if is_new and not is_begun:
            access.store.unlink(missing_ok=True)


def devices(*, options: Options = DEFAULT) -> None:
    """List the devices of your account."""
    access, output = options.access(), options.output()

    async def show(me: Client) -> None:
        for device in me.devices():
            mark = "  (this one)" if device.is_this else ""
            output.tell(
                f"device {device.device_id}{mark}",
                "device",
                device_id=device.device_id,
                is_this=device.is_this,
            )

    run(access.open_offline, show)


def _passphrase(file: Path | None, *, is_new: bool) -> Secret:
    if file is not None:
        return read_passphrase(file)
    return ask_passphrase(is_new=is_new, what=_WHAT)


def _create(file: Path, data: bytes) -> None:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as opened:  # noqa: PTH123 - made for its owner alone
            opened.write(data)
            opened.flush()
            os.fsync(descriptor)
    except FileExistsError as error:
        raise LocalProtocolError(
            f"{file} exists already", hint="choose another name: nothing is replaced"
        ) from error
    except OSError as error:
        raise LocalProtocolError(f"cannot write {file}: {error.strerror}") from error


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_EXPORT + 1)
    except OSError as error:
        raise LocalProtocolError(f"cannot read {file}: {error.strerror}") from error
