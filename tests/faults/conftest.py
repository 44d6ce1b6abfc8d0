"""Relays as processes, bare clients, media that runs, and cheap passphrases.

The stores are opened for every moment at which they can be left.
"""

from tests.faults.media import media
from tests.integration.fixtures import quick_stores
from tests.relay.conftest import speak, start_relay, username

__all__ = ["media", "quick_stores", "speak", "start_relay", "username"]
