"""The answer side of the relay: the upstream's bytes, as they come, to a client that may leave at any time.

The request's own task carries them, and one timer a stream sees to it that a comment goes out while
nothing else does. A stream that breaks ends with an error event and a cut connection.
"""

import asyncio
from collections.abc import Awaitable, Generator
from functools import partial
from typing import NoReturn

import msgspec
from starlette.types import Message, Send

from chat_api.errors import GatewayError, StreamBroken, UpstreamError, openai_body
from chat_api.headers import media_type, relayed, relayed_verbatim, relayed_whole
from chat_api.pace import Pace, turns
from chat_api.refusals import no_events, read_refusal
from chat_api.repair import EventRepair
from chat_api.types import ByteStream, Call, Headers, Reply, Secret

PING = b": ping\n\n"
BODY_FOLLOWS = "chat_api.body_follows"  # in a message that begins a response: the body comes at once


class _Sent:
    def __await__(self) -> Generator[None, None, None]:
        return iter(())  # type: ignore[return-value]  # an iterator is all that `await` asks for


SENT = _Sent()  # what our server gives to await of a message that it has sent already


EVENT_STREAM: Headers = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would hold it back
)


async def pass_whole(reply: Reply, send: Send, *, head_only: bool = False) -> None:
    """Send a reply whose body is there."""
    assert isinstance(reply.body, bytes)  # noqa: S101 - the caller saw to it
    if head_only:
        return await send_whole(send, reply.status, relayed_verbatim(reply.headers, reply.quota, reply.kept), b"")
    headers = relayed_whole(reply.headers, reply.quota, reply.kept)
    if reply.status != 204:
        headers = (*headers, (b"content-length", b"%d" % len(reply.body)))
    return await send_whole(send, reply.status, headers, reply.body)


async def send_whole(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send an answer whose body is there; our server is told that its head need not go out before it."""
    await send({"type": "http.response.start", "status": status, "headers": headers, BODY_FOLLOWS: True})
    await send({"type": "http.response.body", "body": body})


async def pass_bytes(reply: Reply, send: Send) -> None:
    """Send a reply whose body is still arriving, byte for byte.

    Raises:
        StreamBroken: it broke off; the response is left without its end.
    """
    body = reply.body
    assert not isinstance(body, bytes)  # noqa: S101 - the caller saw to it
    headers = relayed_verbatim(reply.headers, reply.quota, reply.kept)
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    try:
        while (waiting := await body.flow(lambda chunk: _sending(send(_part(chunk))))) is not None:
            await waiting
    except UpstreamError as error:
        raise StreamBroken(error.message) from error
    await send(_part(b"", more=False))


class EventPassage:
    """Sends one event stream to a client. It may begin, with a comment, before there is anything to send.

    Args:
        call: what was asked.
        send: where it goes (ASGI 3).
        ping: seconds of silence after which a comment goes out; 0 for never.
        compat: whether chunks go on without what only Azure puts into them.
        pace_seconds: how far one event is to be from the next, at least; 0 for as they come.
    """

    __slots__ = (
        "_call",
        "_comment",
        "_compat",
        "_is_sending",
        "_loop",
        "_pace_seconds",
        "_ping",
        "_repair",
        "_send",
        "_sent_at",
        "_timer",
        "has_begun",
    )

    def __init__(self, call: Call, send: Send, *, ping: float, compat: bool, pace_seconds: float = 0) -> None:
        self._send = send
        self._ping = ping
        self._call = call
        self._compat = compat
        self._pace_seconds = pace_seconds
        self._timer: asyncio.TimerHandle | None = None
        self._comment: asyncio.Task[None] | None = None  # one that is being sent
        self._sent_at = 0.0
        self._is_sending = False
        self.has_begun = False

    def keep_open(self) -> None:
        """From now on, whenever nothing has gone out for a while, a comment does; before it the head, if need be."""
        if self._ping and self._timer is None:
            self._loop = asyncio.get_running_loop()
            self._sent_at = self._loop.time()
            self._timer = self._loop.call_later(self._ping, self._look)

    def _look(self) -> None:
        rest = self._sent_at + self._ping - self._loop.time()
        if rest <= 0:
            rest = self._ping
            if not self._is_sending and self._comment is None:  # else the client does not read, and gets no more
                self._comment = self._loop.create_task(self._send_comment())
        self._timer = self._loop.call_later(rest, self._look)

    async def _send_comment(self) -> None:
        if not self.has_begun:
            self.has_begun = True
            await self._send(_head(EVENT_STREAM))
        await self._send(_part(PING))
        self._sent_at = self._loop.time()
        self._comment = None

    def close(self) -> None:
        """No comment goes out any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._comment is not None:
            self._comment.cancel()

    async def carry(self, reply: Reply) -> None:
        """Send the events of a reply, to their end.

        Raises:
            StreamBroken: it broke; the error event has gone out, the response is left without its end.
        """
        if isinstance(reply.body, bytes) or not is_event_stream(reply):
            await self.fail(_late(reply))
        if not self.has_begun:
            self.has_begun = True
            self._is_sending = True
            await self._send(_head((*EVENT_STREAM, *relayed(reply.headers, reply.quota, reply.kept))))
            self._is_sending = False
            self.keep_open()
        try:
            await self._pass_on(reply.body, reply.deployment.key or self._call.credential)
        except GatewayError as error:
            await self.fail(error)
        reply.body.expect_end()
        await self._finish(b"", more=False)

    async def fail(self, error: GatewayError) -> NoReturn:
        """End what has begun with the error as its last event.

        Raises:
            StreamBroken: always, so that the connection is cut.
        """
        await self._finish(b"data: " + msgspec.json.encode(openai_body(error)) + b"\n\n", more=True)
        raise StreamBroken(error.message) from error

    async def _finish(self, last: bytes, *, more: bool) -> None:
        if self._comment is not None:
            await self._comment
        self.close()
        await self._send(_part(last, more=more))

    async def _send_after_comment(self, part: bytes) -> None:
        self._is_sending = True
        if self._comment is not None:
            await self._comment
        await self._send(_part(part))
        self._sent_at = self._loop.time()

    async def _pass_on(self, body: ByteStream, key: Secret | None) -> None:
        self._loop = asyncio.get_running_loop()
        call = self._call
        self._repair = repair = EventRepair(
            call.operation, call.choices, compat=self._compat, hides_usage=call.hides_usage, key=key
        )
        pace = Pace(self._pace_seconds) if self._pace_seconds else None
        take = self._take if pace is None else partial(self._take_in_turn, pace)
        try:
            while (waiting := await body.flow(take)) is not None:
                await waiting
                self._is_sending = False
                self._sent_at = self._loop.time()
                if repair.is_over:
                    break
        except UpstreamError:
            if not repair.ended:
                raise  # else the end of the answer has come, and only that of the body is missing
        if part := repair.finish():
            await (self._send_after_comment(part) if pace is None else self._send_in_turn(pace, part))
        if repair.error is not None:
            raise repair.error

    def _take(self, chunk: bytes) -> Awaitable[object] | None:
        """Pass a chunk on, if it completes an event (`Sink`)."""
        repair = self._repair
        if part := repair.feed(chunk):
            if self._comment is not None:
                return self._send_after_comment(part)
            self._sent_at = self._loop.time()
            sending = self._send({"type": "http.response.body", "body": part, "more_body": True})
            if sending is not SENT:
                self._is_sending = True
                return sending
        return SENT if repair.is_over else None

    def _take_in_turn(self, pace: Pace, chunk: bytes) -> Awaitable[object] | None:
        """The same, paced. While events wait nobody takes more, which in the end holds the upstream back (`Sink`)."""
        if part := self._repair.feed(chunk):
            return self._send_in_turn(pace, part)
        return SENT if self._repair.is_over else None

    async def _send_in_turn(self, pace: Pace, part: bytes) -> None:
        for events, takes_turn in turns(part):
            if takes_turn and (wait := pace.wait(self._loop.time())):
                await asyncio.sleep(wait)
            await self._send_after_comment(events)
            self._is_sending = False
            if takes_turn:
                pace.went(self._sent_at)


def _sending(sending: Awaitable[object]) -> Awaitable[object] | None:
    return None if sending is SENT else sending


def is_event_stream(reply: Reply) -> bool:
    """Whether a reply's body is events."""
    return media_type(reply.headers) == "text/event-stream"


def _late(reply: Reply) -> UpstreamError:
    """The error of a reply that is no event stream, now that it can only be an event of one."""
    if reply.status < 300 or not isinstance(reply.body, bytes):
        return no_events(reply)
    return read_refusal(reply.status, reply.headers, reply.body)


def _head(headers: Headers) -> Message:
    return {"type": "http.response.start", "status": 200, "headers": headers}


def _part(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}
