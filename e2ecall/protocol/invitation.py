"""Invitations (spec/reach.md, "Invitations"): a link that lets one person reach an account.

The text of a link and what is in it. Who took an invitation up is `e2ecall.client.reach`.
"""

import base64
import re
from dataclasses import dataclass, field
from typing import Final, Self

from e2ecall.errors import LocalProtocolError
from relay.wire.errors import WireError
from relay.wire.names import Address

MAX_TIME: Final = 0xFFFF_FFFF_FFFF

_LINK: Final = re.compile(
    r"e2ecall:(?P<address>[^?]{5,288})\?v=1&t=(?P<token>[A-Za-z0-9_-]{22})"
    r"&x=(?P<expires>0|[1-9][0-9]{0,14})&f=(?P<fingerprint>[A-Za-z0-9_-]{86})",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class InvitationLink:
    """What whoever has the link knows: address, delivery token, end in Unix seconds, identity.

    ``fingerprint`` are the 64 bytes of IDENTITY-10, for the identity key of the address.
    """

    address: Address
    token: bytes = field(repr=False)
    expires: int
    fingerprint: bytes

    def encode(self) -> str:
        """Return the link (REACH-08)."""
        token, fingerprint = _base64(self.token), _base64(self.fingerprint)
        return f"e2ecall:{self.address}?v=1&t={token}&x={self.expires}&f={fingerprint}"

    @classmethod
    def decode(cls, text: str) -> Self:
        """Read a link; nothing is asked or compared yet.

        Raises:
            LocalProtocolError: it is none, not all of one, or of another version.
        """
        text = text.strip()
        found = _LINK.fullmatch(text)
        if found is None:
            raise _no_link()
        try:
            address = Address.parse(found["address"])
        except WireError as error:
            raise _no_link() from error
        token = base64.urlsafe_b64decode(found["token"] + "==")
        fingerprint = base64.urlsafe_b64decode(found["fingerprint"] + "==")
        link = cls(address, token, int(found["expires"]), fingerprint)
        if link.encode() != text or link.expires > MAX_TIME:  # another spelling of the same
            raise _no_link()
        return link


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


def _no_link() -> LocalProtocolError:
    return LocalProtocolError(
        "this is no invitation", hint="copy all of the link, from e2ecall: to its last letter"
    )
