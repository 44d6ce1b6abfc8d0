"""One signalling connection to a relay (spec/wire.md): requests, replies, pushes.

Matches replies to requests and hands pushes on; what they mean is `e2ecall.client`. The task that
calls `RelayConnection.run` owns the connection: when it ends, every request in flight fails.
"""

import ssl
from collections.abc import Awaitable, Callable
from typing import Final, Self, TypeVar

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from e2ecall.errors import (
    ConnectionFailedError,
    E2ECallError,
    NotReachableError,
    Reason,
    RelayError,
    RemoteProtocolError,
    UsernameTakenError,
)
from e2ecall.io.endpoint import RelayEndpoint
from e2ecall.io.websocket import WebSocket
from relay.wire.codec import decode, encode
from relay.wire.errors import WireError
from relay.wire.limits import MAX_FRAME
from relay.wire.messages import (
    PROTOCOL_VERSION,
    Binding,
    ClientFrame,
    Deliver,
    Displaced,
    ErrorCode,
    Failure,
    GoingAway,
    Hello,
    PrekeysLow,
    Push,
    Reply,
    Request,
    ServerFrame,
    SetAside,
)
from relay.wire.records import bound_challenge

REQUEST_TIMEOUT: Final = 15.0
"""Seconds until a request without an answer fails."""

LAST_WORDS_TIMEOUT: Final = 1.0
"""Seconds to read what came before the end, once nothing can be sent any more."""

R = TypeVar("R", bound=Reply)
PushHandler = Callable[[Deliver], Awaitable[None]]
LowHandler = Callable[[], None]
AsideHandler = Callable[[int], None]


class DisplacedError(RelayError):
    """The same device logged in elsewhere, and this connection was ended for it."""


class GoingAwayError(ConnectionFailedError):
    """The relay stops; ``delay`` is the longest time in seconds to wait before coming back."""

    def __init__(self, delay: float) -> None:
        super().__init__("the relay is going away for a moment")
        self.delay = delay


class _Pending:
    """A request that waits for its reply."""

    __slots__ = ("done", "reply")

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.reply: Reply | None = None


class RelayConnection:
    """An open connection whose relay said hello; made by `connect`."""

    def __init__(self, socket: WebSocket, endpoint: RelayEndpoint, hello: Hello) -> None:
        self.endpoint = endpoint
        self.hello = hello
        self.challenge: Final = bound_challenge(
            hello.challenge, socket.endpoint if hello.binding is Binding.ENDPOINT else None
        )
        """What log-ins and registrations on this connection sign (WIRE-45)."""
        self._socket = socket
        self._pending: dict[int, _Pending] = {}
        self._next_id = 1
        self.failure: E2ECallError | None = None
        """Why the connection ended, once it did and unless we closed it."""
        self.closed = anyio.Event()

    @classmethod
    async def connect(cls, endpoint: RelayEndpoint, tls: ssl.SSLContext | None) -> Self:
        """Connect and read the relay's hello.

        Raises:
            ConnectionFailedError: unreachable, or what answers is not a relay of this version.
        """
        socket = await WebSocket.connect(endpoint, tls)
        try:
            with anyio.fail_after(REQUEST_TIMEOUT):
                frame = _decode(await socket.receive())
            if frame.id or not isinstance(frame.body, Hello):
                raise ConnectionFailedError(f"{endpoint.name} did not say hello")
            if frame.body.version != PROTOCOL_VERSION:
                raise ConnectionFailedError(
                    f"{endpoint.name} speaks version {frame.body.version} of the protocol, "
                    f"this program version {PROTOCOL_VERSION}",
                    hint="update the older of the two",
                )
            if frame.body.binding is Binding.ENDPOINT and socket.endpoint is None:
                raise ConnectionFailedError(f"{endpoint.name} speaks of TLS where there is none")
        except BaseException as error:
            await socket.aclose()
            if isinstance(error, TimeoutError | RemoteProtocolError):
                raise ConnectionFailedError(f"{endpoint.name} is not a relay") from error
            raise
        return cls(socket, endpoint, frame.body)

    async def run(
        self,
        on_deliver: PushHandler,
        on_low: LowHandler = lambda: None,
        on_set_aside: AsideHandler = lambda _count: None,
    ) -> None:
        """Serve the connection until it breaks or the task is cancelled; always raises.

        ``on_deliver`` is awaited for each envelope in turn: a slow one slows the relay down.
        ``on_low`` is called when the relay says that one-time prekeys run out, ``on_set_aside``
        when it says how many envelopes it does not deliver any more.

        Raises:
            ConnectionFailedError: the connection ended.
            DisplacedError: the same device logged in elsewhere.
        """
        try:
            while True:
                frame = _decode(await self._socket.receive())
                if frame.id:
                    self._resolve(frame.id, frame.body)
                else:
                    await _push(frame.body, on_deliver, on_low, on_set_aside)
        except RemoteProtocolError as error:
            self.failure = ConnectionFailedError("the relay sent what is not of this protocol")
            raise self.failure from error
        except E2ECallError as error:
            self.failure = error
            raise
        finally:
            await self.aclose()

    async def request(self, body: Request, kind: type[R]) -> R:
        """Send a request and return its reply, which must be of type ``kind``.

        Cancelled, the request may have been carried out or not.

        Raises:
            RelayError: refused; the subclass says how.
            ConnectionFailedError: broken or no answer in time.
        """
        if self.closed.is_set():
            raise await self._gone()
        number, pending = self._next_id, _Pending()
        self._next_id += 1
        self._pending[number] = pending
        try:
            with anyio.fail_after(REQUEST_TIMEOUT):
                await self._socket.send(encode(ClientFrame(number, body)))
                await pending.done.wait()
        except TimeoutError as error:
            raise ConnectionFailedError("the relay did not answer in time") from error
        except ConnectionFailedError:
            # The relay may have said why before it closed: `run` has still to read that.
            with anyio.move_on_after(LAST_WORDS_TIMEOUT):
                await self.closed.wait()
            raise
        finally:
            del self._pending[number]
        if pending.reply is None:
            raise await self._gone()
        if isinstance(pending.reply, Failure):
            raise _refusal(pending.reply)
        if not isinstance(pending.reply, kind):
            raise ConnectionFailedError("the relay's reply does not fit the request")
        return pending.reply

    async def prove(self, within: float) -> None:
        """Return when the relay was heard after this was asked; something else is using `run`.

        Raises:
            ConnectionFailedError: not within so many seconds, or the connection is gone.
        """
        try:
            with anyio.fail_after(within):
                await self._socket.ping()
        except TimeoutError as error:
            raise ConnectionFailedError("the relay does not answer any more") from error

    async def aclose(self) -> None:
        """Close the connection and fail what waits."""
        if self.closed.is_set():
            return
        self.closed.set()
        for pending in self._pending.values():
            pending.done.set()
        await self._socket.aclose()

    def _resolve(self, number: int, body: Reply | Push) -> None:
        pending = self._pending.get(number)
        # A reply to a request that timed out meanwhile is no error.
        if pending is not None and not isinstance(body, Push):
            pending.reply = body
            pending.done.set()

    async def _gone(self) -> E2ECallError:
        # A program that is left by cancellation closes connections on the way: what is cancelled
        # itself ends as cancelled, not as failed.
        await checkpoint_if_cancelled()
        return ConnectionFailedError(
            str(self.failure) if self.failure else "the connection to the relay is closed"
        )


async def _push(
    body: Reply | Push,
    on_deliver: PushHandler,
    on_low: LowHandler,
    on_set_aside: AsideHandler,
) -> None:
    match body:
        case SetAside():
            on_set_aside(body.count)
        case PrekeysLow():
            on_low()
        case Deliver():
            await on_deliver(body)
        case Displaced():
            raise DisplacedError(
                "this device logged in somewhere else",
                hint="a store belongs to one running program at a time",
            )
        case GoingAway():
            raise GoingAwayError(body.delay_ms / 1000)
        case _:
            raise RemoteProtocolError(Reason.UNEXPECTED_MESSAGE)


def _refusal(failure: Failure) -> RelayError:
    # The text comes from the relay: nothing in it may control a terminal.
    text = "".join(c for c in failure.text if c.isprintable()) or failure.code.name.lower()
    match failure.code:
        case ErrorCode.NOT_REACHABLE:
            return NotReachableError(
                "there is no such user, or they do not accept this from you",
                hint="check the spelling, or ask them for an invitation",
            )
        case ErrorCode.USERNAME_TAKEN:
            return UsernameTakenError("this username is taken", hint="choose another one")
        case _:
            return RelayError(text, retry_after=failure.retry_after)


def _decode(data: bytes) -> ServerFrame:
    try:
        return decode(data, ServerFrame, limit=MAX_FRAME)
    except WireError as error:
        raise RemoteProtocolError(Reason.MALFORMED) from error
