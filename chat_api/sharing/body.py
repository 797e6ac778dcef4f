"""A shared body as one of its readers has it: from its beginning, at his own pace."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine
from typing import TYPE_CHECKING

from chat_api.errors import CutShort, GatewayError, UpstreamError
from chat_api.types import Sink

if TYPE_CHECKING:
    from chat_api.sharing.stream import SharedStream

CHUNK_BYTES = 48  # that a chunk takes in memory beside its own
PIECE_BYTES = 64 * 1024  # that who catches up gets at once, before others have their turn


class SharedBody:
    """The body for one of its readers (`ByteStream`), from its beginning.

    Attributes:
        index: of the chunk that he gets next.
        size: of those before it, as they count in memory.
    """

    __slots__ = ("_error", "_sink", "_stream", "_waiter", "index", "size")

    def __init__(self, stream: "SharedStream") -> None:
        self._stream: SharedStream | None = stream
        self._error: UpstreamError | None = None  # why he gets no more
        self._sink: Sink | None = None
        self._waiter: asyncio.Future[Awaitable[object] | None] | None = None
        self.index = 0
        self.size = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._is_far_behind():
            await asyncio.sleep(0)
        while not (piece := self._next()):
            if self._at_end():
                raise StopAsyncIteration
            await self._woken(None)
        return piece

    async def flow(self, sink: Sink) -> Awaitable[object] | None:
        """Give `sink` what has come, then each chunk as it comes, until it returns something to await; None is the end.

        Raises:
            UpstreamError: the body broke off, or was read too slowly; and whatever `sink` raises.
        """
        while True:
            if piece := self._next():
                if (waiting := sink(piece)) is not None:
                    return waiting
                if self._is_far_behind():
                    await asyncio.sleep(0)
            elif self._at_end():
                return None
            elif (waiting := await self._woken(sink)) is not None:
                return waiting

    def _source(self) -> "SharedStream":
        if self._stream is None:
            raise another(self._error) if self._error is not None else CutShort("this body has been closed")
        return self._stream

    def _is_far_behind(self) -> bool:
        return self._source().size - self.size > PIECE_BYTES

    def _next(self) -> bytes:
        """What has come since the last look, up to a piece; nothing if that is nothing."""
        stream = self._source()
        chunks = stream.chunks
        first = end = self.index - stream.dropped
        size = 0
        while end < len(chunks) and size < PIECE_BYTES:
            size += len(chunks[end])
            end += 1
        if end == first:
            return b""
        piece = chunks[first] if end == first + 1 else b"".join(chunks[first:end])
        self.index += end - first
        self.size += size + CHUNK_BYTES * (end - first)
        stream.went_on(self)
        return piece

    def _at_end(self) -> bool:
        stream = self._source()
        if stream.is_over and (error := stream.failure()) is not None:
            try:
                raise error
            finally:
                del error  # its trace knows this frame
        return stream.is_over

    async def _woken(self, sink: Sink | None) -> Awaitable[object] | None:
        """Wait for more; `sink`, if there is one, gets it until it has to be awaited."""
        stream = self._source()
        self._waiter = waiter = stream.loop.create_future()
        self._sink = sink
        stream.live[self] = None
        try:
            result: Awaitable[object] | None = await waiter
            return result
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                _forget(waiter.result())
            raise
        finally:
            stream.live.pop(self, None)
            self._waiter = self._sink = None
            del waiter  # an error's trace knows this frame

    def take(self, chunk: bytes, size: int) -> None:
        """The next chunk has come, `size` being that of all; all before it was read."""
        waiter, sink = self._waiter, self._sink
        if waiter is None or waiter.done():
            return
        if sink is None:
            self.wake()
            return
        self.index += 1
        self.size = size
        try:
            if (waiting := sink(chunk)) is not None:
                self.wake(waiting)
        except Exception as error:
            waiter.set_exception(error)
            del waiter  # its trace knows this frame

    def wake(self, waiting: Awaitable[object] | None = None) -> None:
        """Have him look himself, or await what his sink has returned."""
        self._not_live()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(waiting)

    def _not_live(self) -> None:
        if self._stream is not None:
            self._stream.live.pop(self, None)

    def expect_end(self) -> None:
        """The answer is complete: only the end of the body is still to come."""
        if self._stream is not None:
            self._stream.owner.expect_end()

    def cut_off(self, error: UpstreamError) -> None:
        """He gets no more."""
        self.wake()
        self._error = error
        self._stream = None

    async def aclose(self) -> None:
        """Need no more of it. The last one has the connection let go of."""
        self.wake()
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.leave(self)


def another(error: BaseException) -> BaseException:
    """An error that says the same, to be raised, added to and changed by somebody else."""
    if not isinstance(error, Exception):
        return asyncio.CancelledError()
    if not isinstance(error, GatewayError):  # a fault of ours: the first one has its trace
        return GatewayError(f"the call that this one shared failed: {type(error).__name__}")
    other = type(error).__new__(type(error), *error.args)
    other.__dict__.update(error.__dict__)
    other.__cause__ = error.__cause__
    return other


def _forget(waiting: object) -> None:
    """Nobody awaits it any more: a coroutine would complain."""
    if isinstance(waiting, Coroutine):
        waiting.close()
