"""The relay and the people of the integration tests."""

from tests.integration.fixtures import people, quick_stores, relay

__all__ = ["people", "quick_stores", "relay"]
