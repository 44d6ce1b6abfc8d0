"""Fixtures of the tests over bad networks."""

from tests.integration.fixtures import quick_stores  # noqa: F401 - a fixture
