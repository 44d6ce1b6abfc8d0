"""Time limits of a media transport (spec/media.md, "Events and failures"), and where paths lie."""

import ipaddress
import ssl
from dataclasses import dataclass

from e2ecall.protocol.description import RELAYED_NETWORKS


@dataclass(frozen=True, slots=True)
class Settings:
    """Time limits in seconds, and where relayed addresses may lie."""

    connect_timeout: float = 15.0
    """For ICE and DTLS of the first path; aiortc alone would try for more than a minute."""
    replace_timeout: float = 10.0
    """For those of a path that takes the place of another."""
    lost_after: float = 2.5
    """Without anything authentic from the peer, after which `PathLost` is told; sound comes every
    20 ms and a report at least every 1.5 s."""
    silence_timeout: float = 30.0
    """The same, after which media is over."""
    watch_interval: float = 0.25
    quality_interval: float = 2.0
    undecryptable_frames: int = 150
    """Refused frames with no authentic one of any stream between: about 2 s of a call."""
    networks: tuple[ipaddress.IPv4Network, ...] = RELAYED_NETWORKS
    tls: ssl.SSLContext | None = None
    """By which a TURN server over TLS is checked; without it none is used."""
