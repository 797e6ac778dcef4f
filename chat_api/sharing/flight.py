"""One upstream call in flight, and all who wait for it.

It has a task of its own, so that no caller carries it for the others: each may leave, and the last one ends it.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from chat_api.sharing.body import another
from chat_api.sharing.stream import SharedStream
from chat_api.types import ByteStream, Reply

# A complete answer's body has only its last chunk mark to come; it comes at once or not at all.
LAST_CHUNK_SECONDS = 1.0

Form = bytes | list[bytes]  # JSON, or the events of a stream
Ask = Callable[[], Coroutine[Any, Any, Reply]]


class Flight:
    """One upstream call, and everybody who waits for its reply or reads its body.

    Args:
        key: what it is known by.
        open_flights: those that may be joined, by their keys; it is among them until its answer is whole.
        max_bytes: how much of its body is held.
        ahead_bytes: how much is read before its only reader wants it.

    Attributes:
        task: makes the call; None when it has ended.
        forms: its answer in the other form, once somebody has asked for that, without the usage and with it; None
            where it cannot be made.
        is_led: whether the caller who began it is still there, or was until its end.
    """

    __slots__ = (
        "_ahead_bytes",
        "_body",
        "_end_is_next",
        "_flights",
        "_is_open",
        "_is_over",
        "_key",
        "_leader",
        "_loop",
        "_max_bytes",
        "_open_flights",
        "_reply",
        "_stream",
        "_waiters",
        "forms",
        "is_led",
        "task",
    )

    def __init__(self, key: bytes, open_flights: "dict[bytes, Flight]", max_bytes: int, ahead_bytes: int) -> None:
        self._key = key
        self._open_flights = open_flights
        self._max_bytes = max_bytes
        self._ahead_bytes = ahead_bytes
        self._loop = asyncio.get_running_loop()
        self._waiters: dict[asyncio.Future[Reply], None] = {}  # for the reply, in the order in which they came
        self._reply: Reply | None = None  # the one whose body is arriving
        self._body: ByteStream | None = None
        self._stream: SharedStream | None = None
        self._end_is_next = False
        self._is_open = True  # it may be joined
        self._is_over = False  # all of the answer is there, or no more is to come
        self._leader: object = None  # his waiter, or his body
        self.forms: dict[bool, Form | None] = {}
        self.is_led = True
        self.task: asyncio.Task[None] | None = None
        open_flights[key] = self

    def begin(self, ask: Ask, flights: "set[Flight]") -> None:
        """Make the call; `flights` has this one for as long as its task runs."""
        self._flights = flights
        flights.add(self)
        self.task = self._loop.create_task(self._run(ask))
        self.task.add_done_callback(self._landed)

    def _landed(self, _: asyncio.Task[None]) -> None:
        self._flights.discard(self)
        if not self._is_over:  # it was cancelled before it began
            self._end(asyncio.CancelledError())
        self.task = self._stream = None  # they know us

    async def reply(self) -> Reply:
        """The reply, for one more caller."""
        if self._reply is not None and self._stream is not None:
            return _for_reader(self._reply, self._stream)
        waiter: asyncio.Future[Reply] = self._loop.create_future()
        self._waiters[waiter] = None
        leads = self._leader is None
        if leads:
            self._leader = waiter
        try:
            return await waiter
        except asyncio.CancelledError:
            self._waiters.pop(waiter, None)
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.is_led = self.is_led and not leads
                body = waiter.result().body  # it came at the same moment
                if not isinstance(body, bytes):
                    await body.aclose()
            else:
                await self.left(waiter)
            raise
        finally:
            del waiter  # an error's trace knows this frame

    async def _run(self, ask: Ask) -> None:
        try:
            reply = await ask()
        except BaseException as error:
            self._end(error)
            if isinstance(error, Exception):
                return
            raise
        body = reply.body
        if isinstance(body, bytes):
            self._tell(reply)
            self._end(None)
            return
        try:
            self._reply, self._body = reply, body
            self._stream = SharedStream(self, self._max_bytes, self._ahead_bytes)
            self._tell(reply)
            await self._carry(body, self._stream)
        finally:
            await body.aclose()

    def _tell(self, reply: Reply) -> None:
        """Give the reply to all who wait for it."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(own := reply if self._stream is None else _for_reader(reply, self._stream))
                if waiter is self._leader:
                    self._leader = own.body
            elif waiter is self._leader:
                self.is_led = False  # he is cancelled, and has not had his turn yet
        self._waiters = {}

    async def _carry(self, body: ByteStream, stream: SharedStream) -> None:
        """Read the body as it comes, for as long as it has readers."""
        try:
            while stream.readers and (waiting := await body.flow(stream.arrived)) is not None:
                await waiting
        except BaseException as error:
            self._end(error)
            if not isinstance(error, Exception):
                raise
        else:
            self._end(None)

    def _end(self, error: BaseException | None) -> None:
        """All of the answer is there, or `error` says why it is not."""
        if error is not None and not isinstance(error, Exception):
            error = asyncio.CancelledError()  # nobody else is to end the loop
        self._is_over = True
        self._reply = self._body = self._leader = None
        self.close()
        if self._stream is not None:
            self._stream.end(error)
        for waiter in self._waiters:
            if isinstance(error, asyncio.CancelledError):
                waiter.cancel()
            elif error is not None and not waiter.done():
                waiter.set_exception(error)
                error = another(error)
        self._waiters = {}

    def close(self) -> None:
        """Nobody may join any more."""
        if self._is_open:
            self._is_open = False
            del self._open_flights[self._key]

    def expect_end(self) -> None:
        """The answer is complete, says a reader: only the end of the body is still to come."""
        if not self._end_is_next:
            self._end_is_next = True
            if self._body is not None:
                self._body.expect_end()

    async def left(self, who: object) -> None:
        """Somebody has left. If he was the last one, the call is cancelled, and has ended when this returns."""
        if who is self._leader and not self._is_over and not self._end_is_next:
            self.is_led = False
        if self._waiters or (self._stream is not None and self._stream.readers):
            return
        self.close()
        task = self.task
        if task is None or task.done():
            return
        try:
            if self._end_is_next and not self._is_over:  # the connection may serve again
                await asyncio.wait({task}, timeout=LAST_CHUNK_SECONDS)
        finally:
            if not self._is_over:
                task.cancel()
        await asyncio.wait({task})


def _for_reader(reply: Reply, stream: SharedStream) -> Reply:
    return Reply(reply.status, reply.headers, stream.join(), reply.deployment, reply.adaptations, (), reply.kept)
