"""A response on the wire: its head, and its body as it arrives, between the parser and whoever reads it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine
from copy import copy
from typing import Protocol

from chat_api.errors import GatewayError
from chat_api.types import Headers, Sink

MAX_HELD_BYTES = 256 * 1024  # of a body whose reader is slower; then the socket is no longer read


class Source(Protocol):
    """The connection that a response comes from."""

    def pause(self) -> None:
        """Read no more for now."""
        ...

    def resume(self) -> None:
        """Go on reading."""
        ...

    def let_go(self) -> None:
        """Nobody reads the rest: close."""
        ...


class Response:
    """A response whose head has arrived (`UpstreamResponse`).

    What has arrived between two looks of the reader comes out in one piece.
    """

    __slots__ = (
        "_ended",
        "_error",
        "_held",
        "_held_bytes",
        "_is_read",
        "_loop",
        "_sink",
        "_source",
        "_waiter",
        "connect_seconds",
        "headers",
        "queue_seconds",
        "status",
    )

    def __init__(self, source: Source, loop: asyncio.AbstractEventLoop) -> None:
        self.status = 0
        self.headers: Headers = ()
        self.queue_seconds = 0.0
        self.connect_seconds = 0.0
        self._source: Source | None = source  # None once it has nothing more to do with this response
        self._loop = loop
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._waiter: asyncio.Future[Awaitable[object] | None] | None = None
        self._sink: Sink | None = None
        self._is_read = False
        self._ended = False
        self._error: GatewayError | None = None

    def arrived(self) -> bytes | None:
        """The whole body, undecoded, if it is there already and nobody has read of it."""
        if not self._ended or self._error is not None or self._is_read:
            return None
        self._is_read = True
        return self._taken() if self._held else b""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, undecoded; raises `UpstreamError` where it breaks off."""
        self._is_read = True
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._held:
            if self._at_end():
                raise StopAsyncIteration
            await self._woken()
        return self._taken()

    async def flow(self, sink: Sink) -> Awaitable[object] | None:
        """Give `sink` what arrives as it arrives, until it returns something to await; None is the end.

        Raises:
            UpstreamError: it breaks off; and whatever `sink` raises.
        """
        self._is_read = True
        if self._held and (waiting := sink(self._taken())) is not None:
            return waiting
        if self._at_end():
            return None
        self._sink = sink
        try:
            waiting = await self._woken()
        finally:
            self._sink = None
        if waiting is None:
            self._at_end()
        return waiting

    def _at_end(self) -> bool:
        if self._error is not None:
            raise self._next_error(self._error)
        return self._ended

    def _next_error(self, error: GatewayError) -> GatewayError:
        """The error to raise, which keeps its trace alive, and us with it: the next look gets another one."""
        self._error = copy(error)
        return error

    async def _woken(self) -> Awaitable[object] | None:
        self._waiter = waiter = self._loop.create_future()
        try:
            result: Awaitable[object] | None = await waiter
            return result
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                _drop(waiter.result())
            raise
        finally:
            self._waiter = None

    def _taken(self) -> bytes:
        held = self._held
        body = held[0] if len(held) == 1 else b"".join(held)
        held.clear()
        if self._held_bytes > MAX_HELD_BYTES and self._source is not None:
            self._source.resume()
        self._held_bytes = 0
        return body

    async def aclose(self) -> None:
        """Close the connection, unless the response has been received to its end: then it serves again already."""
        if self._source is not None:
            self._source.let_go()

    def feed(self, body: bytes) -> None:
        """The next bytes of the body have arrived."""
        waiter = self._waiter
        if self._sink is not None and waiter is not None and not waiter.done():
            try:
                if (waiting := self._sink(body)) is not None:
                    waiter.set_result(waiting)
            except Exception as error:
                waiter.set_exception(error)
            return
        self._held.append(body)
        if self._held_bytes <= MAX_HELD_BYTES < self._held_bytes + len(body) and self._source is not None:
            self._source.pause()
        self._held_bytes += len(body)
        self._wake()

    def end(self, error: GatewayError | None = None) -> None:
        """Nothing more comes: it is complete, or `error` says why it is not."""
        self._source = None
        self._ended = True
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is None or self._waiter.done():
            return
        self._waiter.set_result(None)


def _drop(waiting: object) -> None:
    """Nobody awaits it any more: a coroutine would complain."""
    if isinstance(waiting, Coroutine):
        waiting.close()
