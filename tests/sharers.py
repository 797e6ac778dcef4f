"""Callers who share calls, and the upstream that is called: it says what a test has it say, when it has it do so."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any

from chat_api.errors import GatewayError
from chat_api.sharing import Sharing
from chat_api.types import ByteStream, Deployment, Headers, Reply, Sink
from tests.scripted import settled
from tests.wires import made, run_skipping

KEY = b"k" * 32
HERE = Deployment("m", "https://a.test", "v1")
HEADERS: Headers = ((b"content-type", b"text/event-stream"),)


class Arriving:
    """A body that arrives when the test says so, over the wire's own response.

    Attributes:
        closed: how often.
        is_end_next: whether somebody has said so.
    """

    def __init__(self) -> None:
        self.response, self.wire = made()
        self.closed = 0
        self.is_end_next = False

    def say(self, *chunks: bytes, end: bool = False, error: GatewayError | None = None) -> None:
        """So much arrives, then the end, if that is to come."""
        for chunk in chunks:
            self.response.feed(chunk)
        if end or error is not None:
            self.response.end(error)

    @property
    def unread(self) -> int:
        """How many bytes have arrived that nobody has taken."""
        return self.response._held_bytes

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.response.chunks()

    async def flow(self, sink: Sink) -> Awaitable[object] | None:
        """As they come."""
        return await self.response.flow(sink)

    def expect_end(self) -> None:
        """Only the end is still to come."""
        self.is_end_next = True

    async def aclose(self) -> None:
        """Count it."""
        await asyncio.sleep(0)
        self.closed += 1


class Upstream:
    """An upstream that is asked, and answers when the test says so.

    Attributes:
        asked: how often.
        cancelled: how many of those calls were.
        answers: those that were given.
    """

    def __init__(self, unwinding: Awaitable[object] | None = None) -> None:
        self.asked = self.cancelled = 0
        self.answers: list[asyncio.Future[Reply]] = []
        self._unwinding = unwinding

    async def ask(self) -> Reply:
        """Wait for the answer."""
        self.asked += 1
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.answers.append(answer)
        try:
            return await answer
        except asyncio.CancelledError:
            if self._unwinding is not None:
                await self._unwinding
            self.cancelled += 1
            raise
        finally:
            del answer

    def answer(self, body: bytes | ByteStream = b"{}", call: int = -1) -> None:
        """The reply is there."""
        self.answers[call].set_result(Reply(200, HEADERS, body, HERE))

    def fail(self, error: BaseException) -> None:
        """The call fails."""
        self.answers[-1].set_exception(error)

    async def stream(self) -> Arriving:
        """The reply is there, and its body begins to arrive."""
        body = Arriving()
        self.answer(body)
        await settled()
        return body


class Caller:
    """A caller, whose task makes a call and reads what he gets.

    Attributes:
        got: in the pieces in which it came.
        is_whole: whether its end has come.
        joined: whether it was a call of somebody else.
        gate: while it is not set, each piece has to be waited for.
    """

    def __init__(self, sharing: Sharing, ask: Callable[[], Coroutine[Any, Any, Reply]], *, flows: bool = True) -> None:
        self.got: list[bytes] = []
        self.is_whole = False
        self.joined: bool | None = None
        self.reply: Reply | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self._flows = flows
        self.task = asyncio.create_task(self._call(sharing, ask))

    @property
    def body(self) -> bytes:
        """All that has come."""
        return b"".join(self.got)

    @property
    def error(self) -> BaseException | None:
        """What his call ended with."""
        return self.task.exception() if self.task.done() and not self.task.cancelled() else None

    async def _call(self, sharing: Sharing, ask: Callable[[], Coroutine[Any, Any, Reply]]) -> None:
        self.reply, joined = await sharing.reply(KEY, ask)
        self.joined = joined is not None
        body = self.reply.body
        if isinstance(body, bytes):
            self.got.append(body)
            self.is_whole = True
            return
        try:
            await (self._flow(body) if self._flows else self._iterate(body))
            self.is_whole = True
        finally:
            await body.aclose()

    async def _flow(self, body: ByteStream) -> None:
        while (waiting := await body.flow(self._take)) is not None:
            await waiting

    async def _iterate(self, body: ByteStream) -> None:
        async for piece in body:
            self.got.append(piece)
            await self.gate.wait()

    def _take(self, piece: bytes) -> Awaitable[object] | None:
        self.got.append(piece)
        return None if self.gate.is_set() else self.gate.wait()

    async def leave(self) -> None:
        """Be cancelled, as by a client who has left."""
        self.task.cancel()
        await asyncio.wait({self.task})


async def callers(sharing: Sharing, upstream: Upstream, count: int, *, flows: bool = True) -> list[Caller]:
    """So many callers of the same, who wait for its reply."""
    found = [Caller(sharing, upstream.ask, flows=flows) for _ in range(count)]
    await settled()
    return found


def assert_over(sharing: Sharing) -> None:
    """Nothing is in flight, and no task runs."""
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert sharing.state()["flights"] == 0
    assert not sharing._open


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in an event loop whose clock skips what would be waited for."""

    @wraps(test)
    def run(**options: Any) -> None:
        run_skipping(test(**options))

    return run
