"""``e2ecall passphrase``: another passphrase for the store."""

from cyclopts.types import ExistingFile

from e2ecall.cli.options import DEFAULT, Options
from e2ecall.cli.passphrase import ask_passphrase, read_passphrase
from e2ecall.cli.running import run
from e2ecall.client import Client


def passphrase(*, new_file: ExistingFile | None = None, options: Options = DEFAULT) -> None:
    """Change the passphrase of your store. The old one does not open it any more.

    Copies that were made before still open with the old one.

    Parameters
    ----------
    new_file
        Read the new passphrase from this file instead of asking.
    """
    access, output = options.access(), options.output()
    fresh = read_passphrase(new_file) if new_file is not None else ask_passphrase(is_new=True)

    async def change(me: Client) -> None:
        await me.change_passphrase(fresh)
        output.tell("The new passphrase opens your store now.", "passphrase_changed")

    run(access.open_offline, change, doing="Sealing the store")
