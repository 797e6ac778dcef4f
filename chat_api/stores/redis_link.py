"""The way to Redis: whatever is asked at the same moment goes in one round trip, and nobody waits for a dead server.

Once something fails the link is down: who waits is told at once, and so is who comes. A probe in the background
brings it up again as soon as the server answers, over new connections.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple, Protocol

from chat_api.stores.redis_client import Command, is_outage

log = logging.getLogger(__name__)

Done = Callable[[object], None]  # gets the reply, or the exception that came instead

FIRST_SECONDS = 1.0  # for a server that is connected to before anybody calls
PROBE_SECONDS = 0.25  # between two looks at a server
MAX_BATCH = 256
MAX_QUEUED = 10_000
LEAST_SHARE = 0.5  # of the timeout, which the server has in any case
TURNS = 10  # of the event loop, in which what has arrived is read
CLOSE_SECONDS = 0.25
COMPLAINT_SECONDS = 60.0  # between two lines on commands that the server refuses

NEW, UP, DOWN, CLOSED = "new", "up", "down", "closed"


class Down(Exception):
    """The server cannot be asked, and was not."""


class Client(Protocol):
    """What a link goes over; see `RedisClient`."""

    async def open(self) -> None:
        """Connect, and see whether the server can be written to."""
        ...

    async def run(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to commands; an exception for one that was refused."""
        ...

    async def look(self) -> None:
        """See whether it answers, and still has what it was told."""
        ...

    async def aclose(self) -> None:
        """Let go of every connection."""
        ...


class _Question(NamedTuple):
    command: Command
    done: Done
    asked_at: float


class Link:
    """Asks a server, or tells that it is down.

    Args:
        client: the way to it.
        timeout_seconds: how long anybody waits for a reply.
        name: what it is called in the log.
        words: what an error says, without credentials.
        missed: what became of the calls that went on without it.

    Attributes:
        state: "new" (it connects for the first time), "up", "down" or "closed".
        number: how often it has been up or is about to be; what is asked under one number goes in order.
        failures: how often it went down, or the server refused a command.
        not_counted: calls that went on without it.
        on_up: called whenever it comes up.
    """

    def __init__(
        self,
        client: Client,
        *,
        timeout_seconds: float,
        name: str,
        words: Callable[[BaseException], str] = str,
        missed: str = "were not counted",
    ) -> None:
        self.name = name
        self.timeout_seconds = timeout_seconds
        self.state = NEW
        self.number = 1
        self.failures = self.not_counted = 0
        self.on_up: Callable[[], None] = lambda: None
        self._client = client
        self._words = words
        self._missed = missed
        self._queue: deque[_Question] = deque()
        self._batch: deque[_Question] = deque()  # what is asked right now
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._exchange: asyncio.Task[Any] | None = None
        self._down_at = 0.0
        self._not_counted_before = 0
        self._complained_at = float("-inf")
        self._patience = 0.0  # with a server that is being connected to
        self._first_tried = asyncio.Event()

    async def connect(self) -> None:
        """Connect, and wait until that is done or has failed: for longer than a call would, since none is there yet."""
        self._patience = FIRST_SECONDS
        self.start()
        await self._first_tried.wait()

    def start(self) -> None:
        """Connect, in the event loop that runs."""
        if self._task is None and self.state is NEW:
            self._patience = max(self._patience, self.timeout_seconds)
            self._task = asyncio.get_running_loop().create_task(self._run())

    def ask(self, command: Command, done: Done) -> None:
        """Ask for a reply; `done` is called with it, or with an exception, now or within the timeout."""
        if self.state is DOWN or self.state is CLOSED or len(self._queue) >= MAX_QUEUED:
            done(Down())
            return
        self.start()
        self._queue.append(_Question(command, done, asyncio.get_running_loop().time()))
        self._news.set()

    @property
    def down_seconds(self) -> float:
        """How long it has been down; 0 if it is not."""
        return asyncio.get_running_loop().time() - self._down_at if self.state is DOWN else 0.0

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self.state is not CLOSED:
            tried_at = loop.time()
            try:
                await self._in_time(self._client.open(), tried_at + self._patience)
                self._rise()
                await self._serve()
            except Exception as error:  # whatever it is, nobody may wait for ever
                self._fall(error)
            await self._let_go()
            self._patience = max(self.timeout_seconds, PROBE_SECONDS)
            if self.state is not CLOSED and loop.time() <= tried_at + PROBE_SECONDS + self._patience:
                await asyncio.sleep(PROBE_SECONDS)  # else it had been up: it may only be the connection that is gone

    async def _serve(self) -> None:
        """Ask what there is to ask, until something fails, or it is closed and there is nothing more."""
        loop = asyncio.get_running_loop()
        looks_at = loop.time() + PROBE_SECONDS
        while self._queue or self.state is UP:
            if not self._queue:
                self._news.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(looks_at):
                        await self._news.wait()
            if loop.time() >= looks_at:
                await self._in_time(self._client.look(), loop.time() + self.timeout_seconds)
                looks_at = loop.time() + PROBE_SECONDS
            if self._queue:
                await self._ask_together()

    async def _ask_together(self) -> None:
        self._batch.extend(self._queue.popleft() for _ in range(min(MAX_BATCH, len(self._queue))))
        # What held up this process before it could ask is not the server's fault.
        least = asyncio.get_running_loop().time() + self.timeout_seconds * LEAST_SHARE
        deadline = max(self._batch[0].asked_at + self.timeout_seconds, least)
        replies = await self._in_time(self._client.run([one.command for one in self._batch]), deadline)
        for reply in replies:
            self._batch.popleft().done(reply)
        self._check(replies, asyncio.get_running_loop().time())

    def _check(self, replies: Sequence[object], now: float) -> None:
        """See what the server refused.

        Raises:
            Exception: it cannot be asked anything at all.
        """
        for reply in replies:
            if isinstance(reply, Exception):
                if is_outage(reply):
                    raise reply
                self.failures += 1
                if now - self._complained_at >= COMPLAINT_SECONDS:
                    self._complained_at = now
                    log.warning("Redis at %s refused a command: %s", self.name, self._words(reply))

    async def _in_time(self, exchange: Coroutine[Any, Any, Any], deadline: float) -> Any:
        """What comes of it before the deadline; also what came while this process itself was held up."""
        loop = asyncio.get_running_loop()
        self._exchange = task = loop.create_task(exchange)
        await asyncio.wait({task}, timeout=max(0.0, deadline - loop.time()))
        if not task.done():
            # Whatever held up this process, such as a whole machine that stood still, may have held up the server.
            await asyncio.wait({task}, timeout=min(loop.time() - deadline, self.timeout_seconds))
        for _ in range(TURNS):
            if task.done():
                return task.result()
            await asyncio.sleep(0)
        raise TimeoutError(f"no answer within {self.timeout_seconds:g} s")

    def _rise(self) -> None:
        if self.state is DOWN:
            seconds, count = self.down_seconds, self.not_counted - self._not_counted_before
            words = "Redis at %s answers again after %.1f s; %d calls %s"
            log.warning(words, self.name, seconds, count, self._missed)
        if self.state is not CLOSED:
            self.state = UP
            self._first_tried.set()
            self.on_up()

    def _fall(self, error: Exception) -> None:
        if self.state is UP or self.state is NEW:
            self.state = DOWN
            self.number += 1
            self.failures += 1
            self._first_tried.set()
            self._down_at = asyncio.get_running_loop().time()
            self._not_counted_before = self.not_counted
            log.warning("Redis at %s cannot be asked: %s", self.name, self._words(error))
        asked, not_asked = list(self._batch), list(self._queue)
        self._batch.clear()
        self._queue.clear()
        for question in asked:
            question.done(error)
        for question in not_asked:
            question.done(Down())

    async def _let_go(self) -> None:
        """Close what there is of connections, without waiting for long."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_SECONDS):
                if self._exchange is not None:
                    self._exchange.cancel()
                    await asyncio.gather(self._exchange, return_exceptions=True)
                await self._client.aclose()

    async def aclose(self) -> None:
        """Ask what is still to be asked, as far as it can be, and close."""
        was, self.state = self.state, CLOSED
        self._news.set()
        if self._task is not None:
            if was is not DOWN:
                await asyncio.wait({self._task}, timeout=self.timeout_seconds)
            self._task.cancel()
            await asyncio.wait({self._task})
            await self._let_go()
            self._fall(Down())
