"""The client: what a program embeds. Re-exports only."""

from e2ecall.client.call import Call, IncomingCall
from e2ecall.client.callrules import Reachability
from e2ecall.client.client import Client
from e2ecall.client.contacts import Contact
from e2ecall.client.events import (
    CallEvent,
    Connected,
    Ended,
    FirstVideo,
    FramesRefused,
    MediaState,
    Quality,
    Reconnected,
    Reconnecting,
    Ringing,
    Sas,
    Text,
    VideoAsked,
)
from e2ecall.client.gaps import MessagesMissing, MessagesSetAside
from e2ecall.client.history import PastCall
from e2ecall.client.inbox import TextMessage
from e2ecall.client.moving import DeviceInfo

__all__ = [
    "Call",
    "CallEvent",
    "Client",
    "Connected",
    "Contact",
    "DeviceInfo",
    "Ended",
    "FirstVideo",
    "FramesRefused",
    "IncomingCall",
    "MediaState",
    "MessagesMissing",
    "MessagesSetAside",
    "PastCall",
    "Quality",
    "Reachability",
    "Reconnected",
    "Reconnecting",
    "Ringing",
    "Sas",
    "Text",
    "TextMessage",
    "VideoAsked",
]
