"""A body that arrives once, and is read by several from its beginning, each at his own pace.

Who has read all that has come gets the next chunk the moment it is there, in the same turn of the loop; whoever is
behind finds it in a list. What is held is bounded: when it comes to that, the slowest are cut off, never the fastest.
"""

import asyncio
from collections.abc import Awaitable
from typing import Protocol

from chat_api.errors import UpstreamError
from chat_api.sharing.body import CHUNK_BYTES, SharedBody, another

MAX_SHARED_BYTES = 8 * 1024 * 1024  # that are held for the slowest reader, or for who joins
AHEAD_BYTES = 64 * 1024  # that are read before anybody wants them, if there is only one reader


class Owner(Protocol):
    """Whose answer the body is."""

    def close(self) -> None:
        """Nobody may join any more."""
        ...

    def expect_end(self) -> None:
        """The answer is complete, says a reader: only the end of the body is still to come."""
        ...

    async def left(self, who: object) -> None:
        """A reader has left."""
        ...


class SharedStream:
    """What has come of the body, and its readers.

    Args:
        owner: told of what concerns more than the body.
        max_bytes: how much of it is held.
        ahead_bytes: how much is read before its only reader wants it.

    Attributes:
        readers: all of them.
        live: those who have read all that has come, and wait for more.
        chunks: that are held.
        dropped: how many were before those.
        size: of all that has come, as it counts in memory.
        is_over: nothing more comes.
    """

    __slots__ = (
        "_ahead_bytes",
        "_dropped_bytes",
        "_error",
        "_max_bytes",
        "_room",
        "chunks",
        "dropped",
        "is_over",
        "live",
        "loop",
        "owner",
        "readers",
        "size",
    )

    def __init__(self, owner: Owner, max_bytes: int, ahead_bytes: int) -> None:
        self.owner = owner
        self.loop = asyncio.get_running_loop()
        self._max_bytes = max_bytes
        self._ahead_bytes = ahead_bytes
        self.readers: dict[SharedBody, None] = {}
        self.live: dict[SharedBody, None] = {}
        self.chunks: list[bytes] = []
        self.dropped = 0
        self.size = 0
        self._dropped_bytes = 0
        self._room: asyncio.Future[None] | None = None  # while nothing is read, for the readers are slower
        self.is_over = False
        self._error: BaseException | None = None  # that it ended with

    def join(self) -> SharedBody:
        """The body for one more reader. Nothing must have been dropped yet."""
        reader = SharedBody(self)
        self.readers[reader] = None
        return reader

    def arrived(self, chunk: bytes) -> Awaitable[object] | None:
        """The next of the body (`Sink`), which is to wait while even the fastest reader has enough."""
        if not chunk:
            return None
        if self.size > self._max_bytes:
            self._make_room()
        self.chunks.append(chunk)
        self.size = size = self.size + len(chunk) + CHUNK_BYTES
        for reader in tuple(self.live):
            reader.take(chunk, size)
        if size <= self._max_bytes and (self.live or len(self.readers) > 1):
            return None
        if size > self._max_bytes:
            self.owner.close()
            self._drop()
        if self._must_wait():
            self._room = self.loop.create_future()
        return self._room

    def _must_wait(self) -> bool:
        """Whether no more is to be read for now. Somebody who wants more is not held back by those who do not."""
        if not self.readers or self.size - max([reader.size for reader in self.readers]) <= self._ahead_bytes:
            return False
        return len(self.readers) == 1 or self._holds_too_much()

    def _make_room(self) -> None:
        """Cut off who has fallen so far behind that more is held for him than may be, though others read faster."""
        if self._holds_too_much():
            self._drop()
            slow = [reader for reader in self.readers if self.size - reader.size > self._max_bytes]
            if len(slow) < len(self.readers):
                for reader in slow:
                    del self.readers[reader]
                    reader.cut_off(_too_slow(self._max_bytes))

    def _holds_too_much(self) -> bool:
        return self.size - self._dropped_bytes > self._max_bytes

    def _drop(self) -> None:
        """Hold no chunk any more that everybody has read."""
        first = min([reader.index for reader in self.readers], default=self.dropped + len(self.chunks))
        if count := first - self.dropped:
            self._dropped_bytes += sum(map(len, self.chunks[:count])) + CHUNK_BYTES * count
            del self.chunks[:count]
            self.dropped = first

    def went_on(self, reader: SharedBody) -> None:
        """A reader has caught up by a piece."""
        if self._room is not None and self.size - reader.size <= self._ahead_bytes:
            self._go_on()

    def _go_on(self) -> None:
        """Read on, if there is no reason to wait any more."""
        if self._room is None:
            return
        if self.size > self._max_bytes:
            self._drop()
        if not self._must_wait():
            room, self._room = self._room, None
            if not room.done():
                room.set_result(None)

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more comes: all of it has, or `error` says why it has not."""
        self.is_over = True
        self._error = error if self.readers else None
        self._drop()
        for reader in tuple(self.live):
            reader.wake()

    def failure(self) -> BaseException | None:
        """The error that it ended with, for one reader: the next gets another one, and neither keeps us alive."""
        error = self._error
        if error is not None:
            self._error = another(error)
        return error

    async def leave(self, reader: SharedBody) -> None:
        """A reader needs no more."""
        del self.readers[reader]
        if not self.readers:
            self._error = None  # its trace knows us
        self._go_on()
        await self.owner.left(reader)


def _too_slow(max_bytes: int) -> UpstreamError:
    message = f"this answer is shared with other calls, and was read so slowly that {max_bytes} bytes of it waited"
    return UpstreamError(message, code="read_too_slowly")
