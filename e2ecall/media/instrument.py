"""Looks over the media engine's shoulder, for checks that need its keys: SRTP, SFrame's input.

Imported by the demonstration and by tests alone, in processes of their own; nothing of the
product imports it (a test says so). It changes nothing of what is sent: `observe` only takes
notes.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from aiortc.rtcdtlstransport import RTCDtlsTransport

from e2ecall.media.identity import MediaIdentity
from e2ecall.protocol.messages import MediaDescription
from e2ecall.protocol.sframe import SFrameSender

_EXPORTER: Final = b"EXTRACTOR-dtls_srtp"
"""The label of RFC 5764 section 4.2."""


@dataclass(slots=True)
class Observed:
    """What this process's media engine knows and nobody else may."""

    media: list[MediaDescription] = field(default_factory=list)
    """Own descriptions, in the order in which they were made."""
    sending_keys: list[tuple[int, bytes]] = field(default_factory=list)
    """libsrtp's profile number, master key with salt, of every DTLS association."""
    frames: list[bytes] = field(default_factory=list)
    """Encoded frames as they came to SFrame."""


def observe() -> Observed:
    """Take notes from now on, for the life of the process."""
    observed = Observed()
    _watch_descriptions(observed)
    _watch_srtp(observed)
    _watch_frames(observed)
    return observed


def _watch_descriptions(observed: Observed) -> None:
    generate = MediaIdentity.generate

    def watched(*arguments: Any, **keywords: Any) -> MediaIdentity:
        identity = generate(*arguments, **keywords)
        observed.media.append(identity.description)
        return identity

    _replace(MediaIdentity, "generate", watched)


def _watch_srtp(observed: Observed) -> None:
    set_up = RTCDtlsTransport._setup_srtp  # noqa: SLF001 - the only place that knows the keys

    def watched(transport: Any) -> None:
        set_up(transport)
        name = transport._ssl.get_selected_srtp_profile()  # noqa: SLF001 - as above
        profile = next(p for p in transport._srtp_profiles if p.openssl_profile == name)  # noqa: SLF001
        length = 2 * (profile.key_length + profile.salt_length)
        material = transport._ssl.export_keying_material(_EXPORTER, length)  # noqa: SLF001
        mine = 1 if transport._role == "server" else 0  # noqa: SLF001
        key = profile.get_key_and_salt(material, mine)
        observed.sending_keys.append((profile.libsrtp_profile, key))

    _replace(RTCDtlsTransport, "_setup_srtp", watched)


def _watch_frames(observed: Observed) -> None:
    encrypt = SFrameSender.encrypt

    def watched(sender: SFrameSender, frame: bytes, clear_prefix: int) -> bytes:
        observed.frames.append(frame)
        return encrypt(sender, frame, clear_prefix)

    _replace(SFrameSender, "encrypt", watched)


def _replace(owner: type, name: str, function: Any) -> None:
    if name not in vars(owner):
        raise AttributeError(f"{owner.__name__} has no {name} to look over the shoulder of")
    setattr(owner, name, function)
