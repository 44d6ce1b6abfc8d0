"""Relays as processes, bare clients, and media that runs."""

from tests.faults.media import media
from tests.relay.conftest import speak, start_relay, username

__all__ = ["media", "speak", "start_relay", "username"]
