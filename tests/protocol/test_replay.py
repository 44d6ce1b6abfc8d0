"""The replay window (spec/sframe.md, "Replay"), against a model that remembers everything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2ecall.errors import LocalProtocolError, Reason, RemoteProtocolError
from e2ecall.protocol.replay import ReplayWindow


@given(
    moves=st.lists(st.tuples(st.integers(-20, 40), st.booleans()), max_size=80),
)
def test_window_agrees_with_the_model(moves):
    """A counter passes exactly if it is new and less than the size behind the highest."""
    window, seen, at = ReplayWindow(16), set(), 0
    for step, authentic in moves:
        at = max(0, at + step)
        fresh = at not in seen and (not seen or at > max(seen) - 16)
        if not fresh:
            with pytest.raises(RemoteProtocolError) as refused:
                window.check(at)
            assert refused.value.reason is Reason.REPLAYED
            continue
        window.check(at)
        if authentic:
            window.advance(at)
            seen.add(at)


@pytest.mark.parametrize("size", [0, -1, 3, 1000])
def test_size_is_a_power_of_two(size):
    """Other sizes have no slot arithmetic and are refused."""
    with pytest.raises(LocalProtocolError):
        ReplayWindow(size)
