"""The options that every command has, and the way from them to an open client.

The passphrase is asked for here, before an event loop runs; the client checks it.
"""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, TypeAlias

from cyclopts import Group, Parameter
from cyclopts.types import ExistingFile

from e2ecall.cli.output import Output
from e2ecall.cli.passphrase import ask_passphrase, read_passphrase
from e2ecall.client import Client
from e2ecall.config import Settings, default_store, make_folder_of
from e2ecall.errors import LocalProtocolError
from e2ecall.secret import Secret

_COMMON: Final = Group("Common options", sort_key=100)

Plain: TypeAlias = Annotated[
    bool, Parameter(env_var="E2ECALL_PLAIN", negative="", show_default=False)
]
"""Whether a call at a terminal has lines instead of a screen; screen readers want that."""


@dataclass(frozen=True, slots=True)
class Access:
    """All that it takes to open a client."""

    store: Path
    passphrase: Secret
    settings: Settings

    def open(self, *, connect: bool = True) -> AbstractAsyncContextManager[Client]:
        """Open the client; see `Client.open`."""
        assert self.settings.relay is not None
        return Client.open(
            self.store,
            passphrase=self.passphrase,
            relay=self.settings.relay,
            ca=self.settings.ca,
            connect=connect,
        )

    def open_offline(self) -> AbstractAsyncContextManager[Client]:
        """Open the client for what needs no relay."""
        return self.open(connect=False)


@Parameter(name="*", group=_COMMON)
@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The common options."""

    store: Annotated[
        Path | None,
        Parameter(
            env_var="E2ECALL_STORE",
            help="The encrypted file of your account; by default in the folder for user data.",
        ),
    ] = None
    passphrase_file: Annotated[
        ExistingFile | None,
        Parameter(
            env_var="E2ECALL_PASSPHRASE_FILE",
            help="Read the passphrase of the store from this file instead of asking.",
        ),
    ] = None
    relay: Annotated[
        str | None,
        Parameter(
            env_var="E2ECALL_RELAY",
            help="Your relay, as wss://relay.example; remembered when you register.",
        ),
    ] = None
    ca: Annotated[
        ExistingFile | None,
        Parameter(
            env_var="E2ECALL_CA",
            help="Trust the certificate authorities in this PEM file instead of the system's; "
            "remembered when you register.",
        ),
    ] = None
    as_json: Annotated[
        bool,
        Parameter(
            name="--json",
            env_var="E2ECALL_JSON",
            negative="",
            show_default=False,
            help="Say everything as JSON objects, one a line.",
        ),
    ] = False

    def output(self) -> Output:
        """Return where the command tells what happens."""
        return Output(as_json=self.as_json)

    def relay_settings(self) -> Settings:
        """Return which relay is meant, for what needs no account.

        Raises:
            LocalProtocolError: none is.
        """
        return self._settings(self.store or default_store())

    def has_store(self) -> bool:
        """Return whether there is an account's store to open."""
        return (self.store or default_store()).exists()

    def access(self) -> Access:
        """Return the way into a store that exists already.

        Raises:
            LocalProtocolError: no store, no relay, or no passphrase.
        """
        store = self.store or default_store()
        if not store.exists():
            raise LocalProtocolError(
                f"there is no store at {store}",
                hint="begin with: e2ecall register NAME --relay URL",
            )
        settings = self._settings(store)
        return Access(store, self._passphrase(is_new=False), settings)

    def access_to_register(self) -> Access:
        """Return the way into a store that is to be created, unless it exists.

        Raises:
            LocalProtocolError: no relay, no passphrase, or no place for the store.
        """
        store = self.store or default_store()
        settings = self._settings(store)
        passphrase = self._passphrase(is_new=not store.exists())
        make_folder_of(store)
        return Access(store, passphrase, settings)

    def _settings(self, store: Path) -> Settings:
        remembered = Settings.load(store)
        settings = Settings(
            relay=self.relay or remembered.relay,
            ca=str(self.ca.absolute()) if self.ca else remembered.ca,
        )
        if settings.relay is None:
            raise LocalProtocolError("which relay?", hint="give --relay URL or set E2ECALL_RELAY")
        return settings

    def _passphrase(self, *, is_new: bool) -> Secret:
        if self.passphrase_file is not None:
            return read_passphrase(self.passphrase_file)
        return ask_passphrase(is_new=is_new)


DEFAULT: Final = Options()
