"""Bodies of answers that are kept: one on its way that is to be kept, and one that was."""

from collections.abc import AsyncIterator, Awaitable, Callable

from chat_api.types import ByteStream, Sink

Whole = Callable[[bytes], None]


class KeptBody:
    """A body as it arrives (`ByteStream`), of which `whole` gets all bytes when it has ended, before anybody is told.

    Whoever has read its end and asks again is so given what was kept.

    Args:
        body: the body.
        whole: gets them, unless they are more than may be kept, or the body broke off or was left before its end.
        max_bytes: how many may be.
    """

    __slots__ = ("_body", "_chunks", "_room", "_whole")

    def __init__(self, body: ByteStream, whole: Whole, max_bytes: int) -> None:
        self._body = body
        self._whole: Whole | None = whole
        self._chunks: list[bytes] = []
        self._room = max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._body:
            self._note(chunk)
            yield chunk
        self._end()

    async def flow(self, sink: Sink) -> Awaitable[object] | None:
        """Give `sink` each chunk the moment it is there."""

        def noted(chunk: bytes) -> Awaitable[object] | None:
            self._note(chunk)
            return sink(chunk)

        waiting = await self._body.flow(noted)
        if waiting is None:
            self._end()
        return waiting

    def _note(self, chunk: bytes) -> None:
        self._room -= len(chunk)
        if self._room >= 0:
            self._chunks.append(chunk)
        elif self._chunks:
            self._chunks = []

    def _end(self) -> None:
        whole, self._whole = self._whole, None
        if whole is not None and self._room >= 0:
            whole(b"".join(self._chunks))

    def expect_end(self) -> None:
        """Only the end of the body is still to come."""
        self._end()
        self._body.expect_end()

    async def aclose(self) -> None:
        """Let go of the connection behind it."""
        self._whole = None
        await self._body.aclose()


class ReplayedBody:
    """A body that is there already (`ByteStream`), given piece by piece, as fast as its reader takes it."""

    __slots__ = ("_pieces",)

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = iter(pieces)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece

    async def flow(self, sink: Sink) -> Awaitable[object] | None:
        """Give `sink` each piece, until there is something to await, which is returned; None is the end."""
        for piece in self._pieces:
            if (waiting := sink(piece)) is not None:
                return waiting
        return None

    def expect_end(self) -> None:
        """There is nothing behind it."""

    async def aclose(self) -> None:
        """There is nothing to let go of."""
