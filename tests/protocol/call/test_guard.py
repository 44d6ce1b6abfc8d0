"""Unfinished exchanges (spec/call.md): P5, P11."""

import pytest

from e2ecall.errors import LocalProtocolError, Reason, RemoteProtocolError
from e2ecall.protocol.exchange_guard import MAX_UNFINISHED, REMEMBERED_CALLS, ExchangeGuard

NOW = 1_800_000_000.0


def call_id(number):
    return number.to_bytes(16)


def refuse(guard, name, now=NOW):
    with pytest.raises(RemoteProtocolError) as refused:
        guard.start(name, now)
    return refused.value.reason


def test_fourth_unfinished_exchange_is_refused():
    """P11, CALL-08: three exchanges may stay unfinished in ten minutes, a fourth does not ring."""
    guard = ExchangeGuard()
    for number in range(MAX_UNFINISHED):
        guard = guard.start(call_id(number), NOW + number)
    assert guard.count(NOW + 3) == MAX_UNFINISHED
    assert refuse(guard, call_id(9), NOW + 599) is Reason.LIMIT
    assert guard.start(call_id(9), NOW + 600).count(NOW + 600) == MAX_UNFINISHED


def test_finished_exchanges_do_not_count():
    """An exchange whose Reveal opened is no guess."""
    guard = ExchangeGuard()
    for number in range(20):
        guard = guard.start(call_id(number), NOW).finish(call_id(number))
    assert guard.count(NOW) == 0


def test_call_id_is_used_once():
    """P11: a CallId that rang before does not ring again, finished or not."""
    guard = ExchangeGuard().start(call_id(1), NOW).finish(call_id(1)).start(call_id(2), NOW)
    assert refuse(guard, call_id(1)) is Reason.REPLAYED
    assert refuse(guard, call_id(2)) is Reason.REPLAYED


def test_memory_is_bounded():
    """Any number of calls leaves a bounded guard."""
    guard = ExchangeGuard()
    for number in range(200):
        guard = guard.start(call_id(number), NOW + 700 * number)
    assert len(guard.rung) == REMEMBERED_CALLS
    assert len(guard.unfinished) == 1
    assert len(guard.to_bytes()) < 1_000


def test_finished_calls_cannot_push_out_unfinished_ones():
    """P11: completed calls in between buy no further guess."""
    guard = ExchangeGuard()
    for number in range(MAX_UNFINISHED):
        guard = guard.start(call_id(1000 + number), NOW)
        guard_full = guard
    assert refuse(guard_full, call_id(1)) is Reason.LIMIT
    guard = ExchangeGuard().start(call_id(1), NOW)
    for number in range(100, 200):
        guard = guard.start(call_id(number), NOW).finish(call_id(number))
    assert guard.count(NOW) == 1


def test_guard_survives_the_store():
    """A restart forgets no unfinished exchange."""
    guard = ExchangeGuard().start(call_id(1), NOW)
    assert ExchangeGuard.from_bytes(guard.to_bytes()) == guard


@pytest.mark.parametrize("data", [b"", b"\x92\x90", b"\x92\x90\x90\x00"])
def test_other_bytes_are_no_guard(data):
    """Bytes that are no guard are refused."""
    with pytest.raises(LocalProtocolError):
        ExchangeGuard.from_bytes(data)
