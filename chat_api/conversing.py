"""What is said between a caller and a model, handed to the conversation log when it has ended, however it does."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from msgspec import structs

from chat_api.conversation_log import ConversationLog
from chat_api.credentials import without_key
from chat_api.errors import GatewayError, StreamBroken, UpstreamError
from chat_api.exchanges import Exchange
from chat_api.headers import first, media_type
from chat_api.keeping import CACHE
from chat_api.operations import route_of
from chat_api.trail import DEPLOYMENT, label_of
from chat_api.types import ByteStream, Call, Reply, Sink

LOGGED = frozenset({"chat/completions", "completions", "responses"})  # the operations in which somebody says something
MAX_LOGGED_BYTES = 8 * 1024 * 1024  # of one answer
_OFF, _WORDS = "false", "true"
Ask = Callable[..., Awaitable[Reply]]


class Conversations:
    """Has the log write down what is said.

    Args:
        log: writes it.
        kind: what of it, for callers whose key says nothing: "true", "meta" or "false".
        wall: the time, in seconds since 1970.
    """

    def __init__(self, log: ConversationLog, kind: str, *, wall: Callable[[], float] = time.time) -> None:
        self.log = log
        self._kind = kind
        self._wall = wall

    def kind(self, call: Call) -> str | None:
        """What of a call is written down; None if nothing is."""
        if call.operation not in LOGGED or not isinstance(call.body, bytes) or call.method != "POST":
            return None
        key = call.caller.key if call.caller is not None else None
        kind = (key.log_chat if key is not None else None) or self._kind
        return None if kind == _OFF else kind

    async def follow(self, call: Call, kind: str, ask: Ask, *more: Any) -> Reply:
        """The reply to a call, which is written down when it has ended.

        Args:
            call: what is asked.
            kind: what of it is written down.
            ask: asks the upstream; it gets the call, and what is known of it besides.
            more: that.
        """
        key = call.caller.key if call.caller is not None else None
        exchange = Exchange(
            at=self._wall(),
            request_id=call.request_id,
            key=key.name if key is not None else "",
            address=call.address,
            path=route_of(call),
            operation=call.operation,
            model=call.model or "",
            request=call.body if isinstance(call.body, bytes) else b"",
            has_words=kind == _WORDS,
        )
        ended = Ended(self.log, exchange, call, time.perf_counter())
        try:
            reply = await ask(call, *more)
        except BaseException as error:
            ended.failed(error)
            raise
        return ended.replied(reply)


class Ended:
    """Completes an exchange, and gives it to the log, once."""

    __slots__ = ("_began", "_call", "_exchange", "_log")

    def __init__(self, log: ConversationLog, exchange: Exchange, call: Call, began: float) -> None:
        self._log: ConversationLog | None = log
        self._exchange = exchange
        self._call = call
        self._began = began

    def failed(self, error: BaseException) -> None:
        """There was no reply."""
        exchange = self._exchange
        if isinstance(error, GatewayError):
            exchange.status, exchange.error_code, exchange.error = error.status, error.code or "", error.message
            self.end("refused")
        elif isinstance(error, asyncio.CancelledError):
            self.end("client left")
        else:  # a fault of ours: the server's log has what it is
            exchange.status, exchange.error_code = GatewayError.status, GatewayError.code or ""
            exchange.error = "internal error"
            self.end("refused")

    def replied(self, reply: Reply) -> Reply:
        """There is; its body may still be to come."""
        exchange = self._exchange
        exchange.status = reply.status
        exchange.first_byte_seconds = time.perf_counter() - self._began
        told = (first(reply.kept, DEPLOYMENT) or b"").decode("unicode_escape")
        exchange.deployment = told or label_of(reply.deployment)
        exchange.cache = (first(reply.kept, CACHE) or b"").decode()
        exchange.is_stream = media_type(reply.headers) == "text/event-stream"
        if isinstance(reply.body, bytes):
            exchange.answer = [reply.body]
            self.end("complete")
            return reply
        key = reply.deployment.key or self._call.credential
        body = HeardBody(reply.body, self, exchange, key.reveal().encode() if key else b"")
        return structs.replace(reply, body=body)

    def end(self, how: str) -> None:
        """It is over."""
        log, self._log = self._log, None
        if log is None:
            return
        exchange, trail = self._exchange, self._call.trail
        exchange.ended = "refused" if how == "complete" and exchange.status >= 400 else how
        exchange.attempts = len(trail)
        if trail and not exchange.deployment:
            exchange.deployment = label_of(trail[-1].deployment)
        exchange.seconds = time.perf_counter() - self._began
        log.note(exchange)


class HeardBody:
    """A body as it arrives (`ByteStream`), of which the log gets the chunks.

    That all of a stream has come does not make it an answer: whoever reads its events says so (`expect_end`).

    Args:
        body: the body.
        ended: is told how it has ended.
        exchange: gets the chunks.
        key: that the upstream was asked with; an error that it tells in a stream may repeat it.
    """

    __slots__ = ("_body", "_ended", "_exchange", "_failure", "_is_read_out", "_is_whole", "_key", "_room")

    def __init__(self, body: ByteStream, ended: Ended, exchange: Exchange, key: bytes) -> None:
        self._body = body
        self._ended: Ended | None = ended
        self._exchange = exchange
        self._key = key
        self._room = MAX_LOGGED_BYTES
        self._is_read_out = False
        self._is_whole = False
        self._failure: tuple[str, str] | None = None  # not the error: its trace knows us

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._body:
                self._hear(chunk)
                yield chunk
        except UpstreamError as error:
            self._failure = _told(error)
            raise
        self._is_read_out = True

    async def flow(self, sink: Sink) -> Awaitable[object] | None:
        """Give `sink` each chunk the moment it is there."""

        def heard(chunk: bytes) -> Awaitable[object] | None:
            self._hear(chunk)
            return sink(chunk)

        try:
            waiting = await self._body.flow(heard)
        except UpstreamError as error:
            self._failure = _told(error)
            raise
        self._is_read_out = waiting is None
        return waiting

    def _hear(self, chunk: bytes) -> None:
        self._room -= len(chunk)
        if self._room >= 0:
            self._exchange.answer.append(chunk)

    def expect_end(self) -> None:
        """Only the end of the body is still to come."""
        self._is_whole = True
        self._body.expect_end()

    async def aclose(self) -> None:
        """Let go of the connection behind it. Why it is closed is told by the exception that has it closed."""
        ended, self._ended = self._ended, None
        if ended is not None:
            self._tell(ended, self._failure or _why(sys.exception()))
        await self._body.aclose()

    def _tell(self, ended: Ended, failure: tuple[str, str] | None) -> None:
        exchange = self._exchange
        if self._is_whole or (self._is_read_out and not exchange.is_stream):
            return ended.end("complete")
        exchange.answer = [without_key(b"".join(exchange.answer), self._key)]
        if failure is None:
            return ended.end("client left")
        exchange.error_code, exchange.error = failure
        return ended.end("broken")


def _why(error: BaseException | None) -> tuple[str, str] | None:
    """What was wrong with an answer that was cut short; None if it is not that."""
    if not isinstance(error, StreamBroken):
        return None
    cause = error.__cause__
    return _told(cause if isinstance(cause, GatewayError) else error)


def _told(error: GatewayError) -> tuple[str, str]:
    return error.code or "", error.message
