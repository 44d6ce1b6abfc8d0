"""Cheap passphrases: these tests open a store for every moment at which it can be left."""

from tests.integration.fixtures import quick_stores

__all__ = ["quick_stores"]
