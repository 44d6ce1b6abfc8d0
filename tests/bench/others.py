"""What the session benchmarks need of a library that makes sessions."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

TEXT = b"m" * 100


@dataclass
class Conversation:
    """Two ends of a session; each call is one message through both."""

    same_chain: Callable[[], object]
    step: Callable[[], object]


@dataclass
class Library:
    """``handshake`` prepares two fresh ends; its result makes the session and the first message."""

    name: str
    handshake: Callable[[], Callable[[], object]]
    conversation: Callable[[], Conversation]


def finish(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never waits, without the cost of an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise RuntimeError("it waited")


def conversation_of(ends: list[Any], pass_on: Callable[[Any, Any], object]) -> Conversation:
    """Return a conversation in which the first end sends, or where both take turns."""

    def step():
        pass_on(*ends)
        ends.reverse()

    return Conversation(lambda: pass_on(*ends), step)
