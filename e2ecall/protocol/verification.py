"""Identities compared by machines and by people (spec/sas.md, "Fingerprints"): codes and digits.

The text of a QR code and what a reader of it has to find. It draws no picture, and remembers
nothing of what was found.
"""

import base64
import binascii
import hmac
from typing import Annotated, Final, Self

from msgspec import Meta, Struct

from e2ecall.errors import LocalProtocolError, VerificationFailedError
from e2ecall.protocol.sas import identity_fingerprint
from relay.wire.codec import decode, encode
from relay.wire.errors import WireError
from relay.wire.records import AddressText, Key32

PREFIX: Final = "e2ecall-verify:"

_DIGITS: Final = 60
_MAX_TEXT: Final = 1024
_DIFFER: Final = (
    "nothing was verified, and somebody may be between you: tell nothing secret, and compare once "
    "more over another way"
)


class _Payload(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    version: Annotated[int, Meta(ge=1, le=1)]
    shower: AddressText
    shower_key: Key32
    reader: AddressText
    reader_key: Key32


class VerificationCode(Struct, frozen=True):
    """What one person shows another: their own identity, and what they know of the reader's."""

    shower: str
    shower_key: bytes
    reader: str
    reader_key: bytes

    def encode(self) -> str:
        """Return the text of the QR code (SAS-05)."""
        payload = _Payload(1, self.shower, self.shower_key, self.reader, self.reader_key)
        return PREFIX + base64.urlsafe_b64encode(encode(payload)).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Self:
        """Read the text of a QR code; nothing is compared yet.

        Raises:
            LocalProtocolError: it is none, or of another version.
        """
        encoded = text.strip().removeprefix(PREFIX)
        try:
            data = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_",
                                    validate=True)  # fmt: skip
            payload = decode(data, _Payload, limit=_MAX_TEXT)
        except (binascii.Error, ValueError, WireError) as error:
            raise _not_a_code() from error
        code = cls(payload.shower, payload.shower_key, payload.reader, payload.reader_key)
        if code.encode() != text.strip():  # another spelling of the same bytes
            raise _not_a_code()
        return code

    def check(self, scanned: Self) -> None:
        """Compare with the code that the other person shows (SAS-06); ``self`` is one's own.

        Raises:
            LocalProtocolError: it is somebody else's code, or one for somebody else.
            VerificationFailedError: one of the two identities differs.
        """
        if scanned.shower != self.reader:
            raise LocalProtocolError(f"this is the code of {scanned.shower}, not of {self.reader}")
        if scanned.reader != self.shower:
            raise LocalProtocolError(
                f"this code is for {scanned.reader}",
                hint=f"ask them to show the one for {self.shower}",
            )
        if not hmac.compare_digest(scanned.shower_key, self.reader_key):
            raise VerificationFailedError(
                f"{self.reader} has another identity than the known one", hint=_DIFFER
            )
        if not hmac.compare_digest(scanned.reader_key, self.shower_key):
            raise VerificationFailedError(
                f"{self.reader} knows another identity of you than yours", hint=_DIFFER
            )


def compare(shown: str, own: VerificationCode) -> None:
    """Compare what somebody shows, digits or the text of a QR code, with one's ``own`` code.

    Raises:
        LocalProtocolError: it is neither, or it is a code of or for somebody else.
        VerificationFailedError: an identity differs.
    """
    if shown.strip().startswith(PREFIX):
        own.check(VerificationCode.decode(shown))
    elif not same_digits(shown, identity_fingerprint(own.reader, own.reader_key)):
        raise VerificationFailedError(
            f"this is not the fingerprint that is known of {own.reader}", hint=_DIFFER
        )


def same_digits(typed: str, fingerprint: str) -> bool:
    """Tell whether a fingerprint, spaced as one likes, is this one (SAS-07).

    Raises:
        LocalProtocolError: it has not 60 digits.
    """
    digits = "".join(typed.split())
    if len(digits) != _DIGITS or not (digits.isascii() and digits.isdigit()):
        raise LocalProtocolError(
            "this is neither a fingerprint nor the text of a QR code",
            hint=f"a fingerprint has {_DIGITS} digits, a code begins with {PREFIX}",
        )
    return hmac.compare_digest(digits, "".join(fingerprint.split()))


def _not_a_code() -> LocalProtocolError:
    return LocalProtocolError(
        "this is not a code of this version of e2ecall", hint="scan it again, as a whole"
    )
