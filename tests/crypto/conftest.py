"""Fixtures of the crypto tests."""

import pytest

from e2ecall.errors import RemoteProtocolError


@pytest.fixture
def refused():
    """Return a context that expects a refusal with exactly this reason."""

    def expect(reason):
        return pytest.raises(RemoteProtocolError, check=lambda error: error.reason is reason)

    return expect
