"""One HTTP/1.1 connection: one exchange at a time, with backpressure in both directions, and its deadline."""

import asyncio
from contextlib import aclosing
from copy import copy
from typing import Protocol

from chat_api.errors import GatewayError
from chat_api.failures import Failures, Limits
from chat_api.types import Body
from chat_api.wire.parser import ResponseParser, Unreadable
from chat_api.wire.request import framed
from chat_api.wire.response import Response

MAX_UNSENT_BYTES = 64 * 1024  # of a request, before whoever sends it waits
NEVER = float("inf")


class Owner(Protocol):
    """Who keeps connections."""

    limits: Limits
    failures: Failures

    def watch(self, deadline: float) -> None:
        """Call `expire` of the connections whose deadline has come, at this time or soon after."""
        ...

    def freed(self, connection: "Connection") -> None:
        """An exchange is over, and the next may begin."""
        ...

    def lost(self, connection: "Connection") -> None:
        """No other exchange can begin; called once."""
        ...


class Connection(asyncio.Protocol):
    """A connection to an upstream, which `owner` keeps."""

    __slots__ = (
        "_drained",
        "_head",
        "_loop",
        "_owner",
        "_parser",
        "_reading_paused",
        "_request_sent",
        "_response",
        "_sender",
        "_transport",
        "_unsent_bytes",
        "_write_paused",
        "connect_seconds",
        "deadline",
        "exchanges",
        "is_open",
    )

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._loop = loop
        self._parser = ResponseParser()
        self._transport: asyncio.Transport
        self._response: Response | None = None  # of the exchange under way
        self._head: asyncio.Future[None] | None = None  # whoever waits for its head
        self._sender: asyncio.Task[None] | None = None  # of a body that is sent as it comes
        self._drained: asyncio.Future[None] | None = None
        self._request_sent = False  # to its end
        self._write_paused = False
        self._reading_paused = False
        self._unsent_bytes = 0
        self.deadline = NEVER  # when `expire` is to be called, in the loop's time
        self.exchanges = 0  # that have begun
        self.connect_seconds = 0.0  # that it took to make
        self.is_open = False

    @property
    def answer_begun(self) -> bool:
        """Whether a byte of the last exchange's response has come."""
        return self._parser.begun

    async def exchange(self, head: bytes, body: bytes | Body, *, without_body: bool) -> Response:
        """Send a request and return once the response's head has arrived.

        Args:
            head, body: the request, as it goes out.
            without_body: whether the response has none, whatever its head says.

        Raises:
            UpstreamClosed: the connection was closed before the first byte of an answer.
            UpstreamError: what else went wrong; the connection is closed then too.
        """
        self.exchanges += 1
        self._response = response = Response(self, self._loop)
        self._parser.begin(response, without_body=without_body)
        if not self.is_open:
            raise self._owner.failures.closed()
        self._head = waiter = self._loop.create_future()
        self._request_sent = isinstance(body, bytes) and len(body) <= MAX_UNSENT_BYTES
        if isinstance(body, bytes) and self._request_sent:
            self._transport.write(head + body)
            self._expect_head()
        else:
            self._transport.write(head)
            self._sender = self._loop.create_task(self._send(body))
            self._sender.add_done_callback(self._sent)
            self._set_deadline(self._owner.limits.idle_seconds)
        try:
            await waiter
        except BaseException:
            if self._response is response:  # else it is complete, and the connection may serve another already
                self.close()
            raise
        finally:
            del waiter  # its error knows this frame
        return response

    def _expect_head(self) -> None:
        limits = self._owner.limits
        self._unsent_bytes = self._transport.get_write_buffer_size() if self._write_paused else 0
        self._set_deadline(limits.idle_seconds if self._write_paused else limits.first_byte_seconds)

    def _set_deadline(self, seconds: float) -> None:
        self.deadline = self._loop.time() + seconds
        self._owner.watch(self.deadline)

    async def _send(self, body: bytes | Body) -> None:
        async with aclosing(framed(body)) as pieces:
            async for piece in pieces:
                self._transport.write(piece)
                if self._write_paused:
                    self._unsent_bytes = self._transport.get_write_buffer_size()
                    self.deadline = self._loop.time() + self._owner.limits.idle_seconds
                    self._drained = self._loop.create_future()
                    await self._drained

    def _sent(self, sender: asyncio.Task[None]) -> None:
        """A body has been sent, or cannot be: then there will be no answer to it."""
        error = None if sender.cancelled() else sender.exception()
        if sender is not self._sender:
            return
        self._sender = None
        if error is not None:
            self._fail(error)
            return
        self._request_sent = not sender.cancelled()
        if self._head is not None:
            self._expect_head()
        else:
            self._set_deadline(self._owner.limits.idle_seconds)

    def expire(self, now: float) -> None:
        """The deadline has come: end what takes too long, or set another one."""
        failures = self._owner.failures
        self.deadline = now + self._owner.limits.idle_seconds
        if self._response is None:
            self.close()
        elif self._sender is not None and not self._write_paused:
            pass  # the client of an upload is slow, which others look after
        elif self._parser.begun:
            if not self._parser.head_complete:
                self._fail(failures.first_byte_timeout())
            elif not self._reading_paused:  # else it is us who do not read
                self._fail(failures.idle_timeout())
        elif self._write_paused:
            unsent = self._transport.get_write_buffer_size()
            if unsent >= self._unsent_bytes:
                self._fail(failures.write_timeout())
            self._unsent_bytes = unsent
        else:
            self._fail(failures.first_byte_timeout())

    def _end(self) -> None:
        """The response has been received to its end."""
        response, self._response = self._response, None
        if response is not None:
            response.end()
        if self._reading_paused:
            self.resume()
        if self._parser.keeps_alive and self._request_sent and not self._write_paused and self.is_open:
            self._set_deadline(self._owner.limits.keepalive_seconds)
            self._owner.freed(self)
        else:
            self.close()

    def _fail(self, error: BaseException) -> None:
        """The exchange cannot end well."""
        response, self._response = self._response, None
        waiter, self._head = self._head, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)
        if response is not None:
            response.end(copy(error) if isinstance(error, GatewayError) else self._owner.failures.cut_short(error))
        self.close()

    def let_go(self) -> None:
        """Nobody reads the rest of the response."""
        self._fail(self._owner.failures.cut_short("it was let go of"))

    def close(self) -> None:
        """Close the connection, at once."""
        if self._sender is not None:
            self._sender.cancel()
            self._sender = None
        if self.is_open:
            self.is_open = False
            self.deadline = NEVER
            self._parser.close()
            self._transport.abort()
            self._owner.lost(self)

    def pause(self) -> None:
        """Read no more: whoever reads the response is slower."""
        self._reading_paused = True
        if self.is_open:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Go on reading."""
        self._reading_paused = False
        if self.is_open:
            self.deadline = self._loop.time() + self._owner.limits.idle_seconds
            self._transport.resume_reading()

    # asyncio calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there, its TLS included."""
        self._transport = transport  # type: ignore[assignment]  # a stream's, which can be written to
        self._transport.set_write_buffer_limits(high=MAX_UNSENT_BYTES, low=0)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """Bytes from the upstream."""
        parser = self._parser
        if self._response is None:
            self.close()  # nothing was asked
            return
        try:
            parser.feed(data)
        except Unreadable as error:
            self._fail(self._unreadable(error))
            return
        limits = self._owner.limits
        seconds = limits.idle_seconds if parser.head_complete else limits.first_byte_seconds
        self.deadline = self._loop.time() + seconds
        if self._head is not None and parser.head_complete:
            waiter, self._head = self._head, None
            self._owner.watch(self.deadline)
            if self._sender is not None and self._response.status >= 400:
                # Refused: the rest of it need not come (RFC 9112 section 9.5). Soon, so that it has begun: what has not
                # begun does not end either, and whoever listens to the client next waits for that.
                self._loop.call_soon(self._sender.cancel)
            if not waiter.done():
                waiter.set_result(None)
        if parser.complete:
            self._end()

    def _unreadable(self, error: Unreadable) -> GatewayError:
        if self._parser.head_complete:
            return self._owner.failures.cut_short(f"it {error}")
        return self._owner.failures.not_http(str(error))

    def eof_received(self) -> None:
        """The upstream sends nothing more; asyncio closes the connection."""
        if self._response is not None and not self._parser.complete:
            self._parser.feed_end()
            if self._parser.complete:
                self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed, by whomever."""
        if self._drained is not None and not self._drained.done():
            self._drained.cancel()
        if self._response is not None:
            failures = self._owner.failures
            if self._parser.head_complete:
                self._fail(failures.cut_short(exc or "the connection was closed before its end"))
            else:
                self._fail(failures.closed(exc))
        self.close()

    def pause_writing(self) -> None:
        """The socket takes no more for now."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """All that was written has gone out."""
        self._write_paused = False
        if self._drained is not None and not self._drained.done():
            self.deadline = self._loop.time() + self._owner.limits.idle_seconds
            self._drained.set_result(None)
        if self._head is not None and self._sender is None:
            self._expect_head()
