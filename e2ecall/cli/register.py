"""``e2ecall register``: a new account and the store that holds its keys."""

from e2ecall.cli.options import DEFAULT, Options
from e2ecall.cli.running import run
from e2ecall.client import Client
from e2ecall.errors import LocalProtocolError, RelayError
from relay.wire.errors import WireError
from relay.wire.names import check_username


def register(name: str, /, *, invite: str | None = None, options: Options = DEFAULT) -> None:
    """Create your account at a relay, and the encrypted store that holds its keys.

    Nobody can reset a forgotten passphrase, and the account exists only in this store.

    Parameters
    ----------
    name
        Your username: 3 to 32 characters of a-z, 0-9 and _, beginning with a letter.
    invite
        The code that the relay's operator gave you, where a relay registers by invitation.
    """
    try:
        check_username(name)
    except WireError as error:
        raise LocalProtocolError(f"{name!r} is not a username: {error}") from error
    access, output = options.access_to_register(), options.output()
    is_new = not access.store.exists()
    is_refused = False

    async def create(me: Client) -> None:
        nonlocal is_refused
        try:
            await me.register(name, invite=invite)
        except RelayError:
            is_refused = not me.is_registered
            raise
        access.settings.save(access.store)
        output.tell(
            f"You are {me.address}. Your keys are in {access.store}.",
            "registered",
            address=me.address,
            store=str(access.store),
        )

    try:
        run(access.open, create, doing="Registering")
    finally:
        # Nothing is in it, and the next attempt may choose its passphrase freely.
        if is_new and is_refused:
            access.store.unlink(missing_ok=True)
