"""One relay for all tests that do it no harm, and people who call each other through it."""

from tests.integration.fixtures import people, quick_stores, relay

__all__ = ["people", "quick_stores", "relay"]
