"""The relay and the people of the integration tests."""

from tests.integration.fixtures import people, quick_stores, relay
from tests.relay.conftest import speak, start_relay

__all__ = ["people", "quick_stores", "relay", "speak", "start_relay"]
