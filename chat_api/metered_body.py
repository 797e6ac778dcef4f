"""A body on its way to the caller, of which its end is kept: there it says how many tokens it took."""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from chat_api.counting import Usage
from chat_api.errors import UpstreamError
from chat_api.tokens import usage_at_end
from chat_api.types import ByteStream, Sink

TAIL_BYTES = 16 * 1024  # of an answer that is not held, in which it says what it took
HELD_CHUNKS = 16  # that are looked at together
# Takes what the body said that it took, if it did; how many events have gone on; whether it failed; and whether
# it came to its end, and said so.
Ended = Callable[[Usage | None, int, bool, bool], None]


class MeteredBody:
    """A body as it arrives (`ByteStream`), of which is told what it took, once it has ended or nobody reads on.

    Args:
        body: the body.
        ended: is told, once.
        lines: of which an event consists, with the empty one; 0 for JSON that is too large to hold, or a file.
    """

    __slots__ = ("_body", "_ended", "_ends", "_held", "_is_whole", "_lines", "_size", "_tail")

    def __init__(self, body: ByteStream, ended: Ended, *, lines: int) -> None:
        self._body = body
        self._ended: Ended | None = ended
        self._lines = lines
        self._is_whole = False
        self._held: list[bytes] = []  # chunks that nobody has looked at yet
        self._tail: deque[bytes] = deque()
        self._size = 0  # of the tail
        self._ends = 0  # of lines

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._body:
                self._held.append(chunk)
                if len(self._held) >= HELD_CHUNKS:
                    self._look()
                yield chunk
        except UpstreamError:
            self._end(is_error=True)
            raise
        self._is_whole = True

    async def flow(self, sink: Sink) -> Awaitable[object] | None:
        """Give `sink` each chunk the moment it is there."""
        held = self._held

        def looked_at(chunk: bytes) -> Awaitable[object] | None:
            held.append(chunk)
            if len(held) >= HELD_CHUNKS:
                self._look()
            return sink(chunk)

        try:
            waiting = await self._body.flow(looked_at)
        except UpstreamError:
            self._end(is_error=True)
            raise
        self._is_whole = waiting is None
        return waiting

    def _look(self) -> None:
        """Keep no more of what has come than its end."""
        come = b"".join(self._held)
        self._held.clear()
        self._tail.append(come)
        self._size += len(come)
        while self._size - len(self._tail[0]) >= TAIL_BYTES:
            self._size -= len(self._tail.popleft())
        if self._lines:  # else its tokens cannot be told from its bytes
            self._ends += len(come) - len(come.replace(b"\n", b""))  # what `count` takes ten times as long for

    def expect_end(self) -> None:
        """Only the end of the body is still to come."""
        self._is_whole = True
        self._body.expect_end()

    def _end(self, *, is_error: bool = False) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            self._look()
            told = usage_at_end(b"".join(self._tail), is_stream=self._lines > 0)
            events = self._ends // self._lines if self._lines else 0
            ended(told, events, is_error, told is not None and self._is_whole)

    async def aclose(self) -> None:
        """Let go of the connection behind it."""
        try:
            self._end()
        finally:
            await self._body.aclose()
