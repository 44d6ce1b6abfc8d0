"""Usernames and addresses (spec/wire.md): the only names that exist in the system."""

import re
from dataclasses import dataclass
from typing import Final, Self

from relay.wire.errors import WireError

USERNAME: Final = re.compile(r"[a-z][a-z0-9_]{2,31}", re.ASCII)
RELAY_NAME: Final = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?){0,9}"
    r"|\[[0-9a-f:]{2,39}\])(?::[1-9][0-9]{0,4})?",
    re.ASCII,
)


def check_username(name: str) -> str:
    """Return ``name`` if it is a username, else raise `WireError` saying what one looks like."""
    if not USERNAME.fullmatch(name):
        raise WireError(
            "a username has 3 to 32 characters of a-z, 0-9 and _, and starts with a letter"
        )
    return name


def or_nobody(text: str) -> str:
    """Return ``text`` if it is a username, else the empty name, which nobody has (WIRE-51)."""
    return text if USERNAME.fullmatch(text) else ""


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Who somebody is: a username at a relay, written ``name@relay-host[:port]``."""

    username: str
    relay: str

    def __str__(self) -> str:
        return f"{self.username}@{self.relay}"

    @classmethod
    def parse(cls, text: str, own_relay: str | None = None) -> Self:
        """Read ``name@relay`` or, where ``own_relay`` is given, just ``name``.

        Raises:
            WireError: it is not an address; the message says what is wrong.
        """
        username, at, relay = text.partition("@")
        check_username(username)
        if not at:
            if own_relay is None:
                raise WireError(f"{username!r} names no relay: write name@relay-host")
            relay = own_relay
        if len(relay) > 255 or not RELAY_NAME.fullmatch(relay):  # RFC 1035
            raise WireError("a relay is written as host or host:port, in lower case")
        return cls(username, relay)
