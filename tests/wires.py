"""Connections of the wire over lines in memory, on a clock that skips whatever nobody does."""

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from chat_api.failures import Failures, Limits
from chat_api.types import Body
from chat_api.wire.connection import Connection
from chat_api.wire.pool import Pool
from chat_api.wire.request import Origin
from chat_api.wire.response import Response
from tests.hops import UNCHECKED

T = TypeVar("T")


class _Skipping(selectors.DefaultSelector):
    """Does not wait: its clock goes on instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready; else the time is later by what would have been waited."""
        found = super().select(0 if timeout is not None else 10)
        if not found and timeout is not None:
            self.now += max(timeout, 0)
        return found


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes at once where nothing is to be done."""

    def __init__(self) -> None:
        self._clock = _Skipping()
        super().__init__(self._clock)

    def time(self) -> float:
        """The time on its clock."""
        return self._clock.now


def run_skipping(main: Coroutine[Any, Any, T]) -> T:
    """What the coroutine returns, without the time that it waits."""
    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        return runner.run(main)


class Line(asyncio.Transport):
    """What a connection writes to and hears from: the test is the other end."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self.sent = b""
        self.takes = float("inf")  # how many more bytes the other end takes
        self.reads = True
        self.is_closed = False
        self._untaken = 0
        self._is_full = False
        self._limit = 64 * 1024
        protocol.connection_made(self)

    def write(self, data: Any) -> None:
        """Send, as far as the other end takes it."""
        if self.is_closed:
            return
        self.sent += data
        self._untaken += len(data)
        self.take(0)

    def take(self, size: float) -> None:
        """The other end takes so many bytes more."""
        self.takes += size
        taken = int(min(self._untaken, self.takes))
        self._untaken -= taken
        self.takes -= taken
        if self._untaken > self._limit and not self._is_full:
            self._is_full = True
            self._protocol.pause_writing()
        elif self._untaken == 0 and self._is_full:
            self._is_full = False
            self._protocol.resume_writing()

    def get_write_buffer_size(self) -> int:
        """What the other end has not taken yet."""
        return self._untaken

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The wire wants to know when it is empty again."""
        assert (high, low) == (self._limit, 0)

    def pause_reading(self) -> None:
        """Read no more."""
        self.reads = False

    def resume_reading(self) -> None:
        """Go on."""
        self.reads = True

    def abort(self) -> None:
        """Close it, at once."""
        if not self.is_closed:
            self.is_closed = True
            self._loop.call_soon(self._protocol.connection_lost, None)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Whose line it is."""
        return self._protocol

    def is_closing(self) -> bool:
        """Whether it is closed."""
        return self.is_closed

    # What the other end does.

    def receive(self, data: bytes) -> None:
        """Bytes arrive; nobody hears them after it is closed."""
        assert self.reads or self.is_closed
        if not self.is_closed and data:
            self._protocol.data_received(data)

    def receive_all(self, pieces: Iterable[bytes]) -> None:
        """Bytes arrive in pieces, as far as they are read."""
        for piece in pieces:
            if self.reads:
                self.receive(piece)

    def end(self, error: Exception | None = None) -> None:
        """The other end closes the connection, or it breaks."""
        if not self.is_closed:
            if error is None:
                self._protocol.eof_received()
            if not self.is_closed:
                self.is_closed = True
                self._loop.call_soon(self._protocol.connection_lost, error)


class MemoryPool(Pool):
    """A pool whose connections are lines."""

    def __init__(self, limits: Limits) -> None:
        failures = Failures("host", "ENDPOINT", limits)
        super().__init__(Origin(False, "host", 80), limits, failures, UNCHECKED)
        self.lines: list[Line] = []
        self.connecting: Callable[[], Coroutine[Any, Any, None]] | None = None  # what comes before a connection

    async def _made(self) -> Connection:
        if self.connecting is not None:
            await self.connecting()
        connection = Connection(self, asyncio.get_running_loop())
        self.lines.append(Line(connection))
        self._open.add(connection)
        return connection


async def connected(limits: Limits | None = None) -> tuple[Connection, Line, MemoryPool]:
    """A connection, its other end, and the pool that keeps it."""
    pool = MemoryPool(limits or Limits())
    connection = await pool.connect()
    return connection, pool.lines[0], pool


HEAD = b"POST / HTTP/1.1\r\n\r\n"


async def asked(connection: Connection, body: bytes | Body = b"", *, is_head: bool = False) -> asyncio.Task[Response]:
    """A request that is under way."""
    task = asyncio.create_task(connection.exchange(HEAD, body, without_body=is_head))
    for _ in range(3):
        await asyncio.sleep(0)
    return task


async def read(response: Response) -> bytes:
    """A body to its end."""
    return b"".join([chunk async for chunk in response.chunks()])


def splits(raw: bytes) -> list[tuple[bytes, ...]]:
    """The bytes whole, in two at every index, and one by one."""
    halves = [(raw[:at], raw[at:]) for at in range(1, len(raw))]
    return [(raw,), *halves, tuple(raw[at : at + 1] for at in range(len(raw)))]


class Held:
    """The connection that a response comes from."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def pause(self) -> None:
        """Read no more."""
        self.said.append("pause")

    def resume(self) -> None:
        """Go on."""
        self.said.append("resume")

    def let_go(self) -> None:
        """Close."""
        self.said.append("let go")


class Sink:
    """Takes pieces, and wants to wait after some of them."""

    def __init__(self, *waits: bytes) -> None:
        self.taken: list[bytes] = []
        self.waits = waits

    def __call__(self, piece: bytes) -> Awaitable[object] | None:
        self.taken.append(piece)
        return asyncio.sleep(0) if piece in self.waits else None


def made() -> tuple[Response, Held]:
    """A response, and its connection."""
    wire = Held()
    return Response(wire, asyncio.get_running_loop()), wire


async def flowing(response: Response, sink: Sink) -> None:
    """Pass all of it on."""
    while (waiting := await response.flow(sink)) is not None:
        await waiting


async def turn() -> None:
    """Let whoever can run do so."""
    for _ in range(3):
        await asyncio.sleep(0)
