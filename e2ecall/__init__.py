"""End-to-end encrypted calls between usernames, through a relay that can read nothing.

Re-exports only; see README.md, "Embedding". Sources and sinks of media are in `e2ecall.media`,
which loads aiortc and is therefore imported separately.
"""

from e2ecall.client import (
    Call,
    CallEvent,
    Client,
    Connected,
    Contact,
    DeviceInfo,
    Ended,
    FirstVideo,
    FramesRefused,
    IncomingCall,
    MediaState,
    PastCall,
    Quality,
    Ringing,
    Sas,
    Text,
    TextMessage,
    VideoAsked,
)
from e2ecall.errors import (
    ConnectionFailedError,
    E2ECallError,
    ExportError,
    IdentityChangedError,
    LocalProtocolError,
    MediaError,
    NotReachableError,
    RelayError,
    RemoteProtocolError,
    StoreError,
    UsernameTakenError,
    VerificationFailedError,
)
from e2ecall.protocol.call_events import EndReason
from e2ecall.protocol.messages import LeaveReason
from relay.wire.messages import Policy

__all__ = [
    "Call",
    "CallEvent",
    "Client",
    "Connected",
    "ConnectionFailedError",
    "Contact",
    "DeviceInfo",
    "E2ECallError",
    "EndReason",
    "Ended",
    "ExportError",
    "FirstVideo",
    "FramesRefused",
    "IdentityChangedError",
    "IncomingCall",
    "LeaveReason",
    "LocalProtocolError",
    "MediaError",
    "MediaState",
    "NotReachableError",
    "PastCall",
    "Policy",
    "Quality",
    "RelayError",
    "RemoteProtocolError",
    "Ringing",
    "Sas",
    "StoreError",
    "Text",
    "TextMessage",
    "UsernameTakenError",
    "VerificationFailedError",
    "VideoAsked",
]
