"""The answer side of the relay: the upstream's bytes, as they come, to a client that may leave at any time.

One task carries the bytes, one listens for the client, and on an event stream one sends comments
while nothing else comes. A stream that breaks ends with an error event and a cut connection.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any

import msgspec
from starlette.types import Message, Receive, Scope, Send

from chat_api.errors import GatewayError, StreamBroken, UpstreamError, openai_body
from chat_api.headers import media_type, relayed, relayed_verbatim
from chat_api.refusals import no_events, read_refusal, relayable
from chat_api.repair import EventRepair
from chat_api.streaming import watched
from chat_api.types import ByteStream, Call, Headers, Reply

PING = b": ping\n\n"
EVENT_STREAM: Headers = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would hold it back
)


async def pass_whole(reply: Reply, send: Send, *, head_only: bool = False) -> None:
    """Send a reply whose body is there."""
    assert isinstance(reply.body, bytes)  # noqa: S101 - the caller saw to it
    headers = [pair for pair in relayed_verbatim(reply.headers) if head_only or pair[0] != b"content-length"]
    if not head_only and reply.status != 204:
        headers.append((b"content-length", b"%d" % len(reply.body)))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head_only else reply.body})


async def pass_bytes(reply: Reply, receive: Receive, send: Send) -> None:
    """Send a reply whose body is still arriving, byte for byte.

    Raises:
        StreamBroken: it broke off; the response is left without its end.
        ClientGone: the client left.
    """

    body = reply.body
    assert not isinstance(body, bytes)  # noqa: S101 - the caller saw to it

    async def carry() -> None:
        await send({"type": "http.response.start", "status": reply.status, "headers": relayed_verbatim(reply.headers)})
        try:
            async for chunk in body:
                await send(_part(chunk))
        except UpstreamError as error:
            raise StreamBroken(error.message) from error
        await send(_part(b"", more=False))

    await _while_there(carry(), receive)


class EventPassage:
    """Sends one event stream, whose call need not have been answered yet: until it is, only comments go out.

    Args:
        task: the exchange that is under way.
        call: what was asked.
        ping: seconds of silence after which a comment goes out; 0 for never.
        compat: whether chunks go on without what only Azure puts into them.
    """

    def __init__(self, task: asyncio.Task[Reply], call: Call, *, ping: float, compat: bool) -> None:
        self._task = task
        self._call = call
        self._ping = ping
        self._repair = EventRepair(call.operation, call.choices, compat=compat)
        self._sent_at = 0.0
        self._sending = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it (ASGI 3).

        Raises:
            StreamBroken: it broke; the error event has gone out, the response is left without its end.
            ClientGone: the client left.
        """
        early = not self._task.done()
        head = EVENT_STREAM if early else (*EVENT_STREAM, *relayed(self._task.result().headers))
        await send({"type": "http.response.start", "status": 200, "headers": head})
        if early:
            await self._send(send, PING)  # the wait for the upstream has been long already
        pings = asyncio.ensure_future(self._keep_open(send)) if self._ping else None
        try:
            await _while_there(self._carry(send), receive)
        finally:
            if pings is not None:
                pings.cancel()

    async def _carry(self, send: Send) -> None:
        try:
            reply = relayable(await asyncio.shield(self._task), self._call, time.time())
            if isinstance(reply.body, bytes) or not is_event_stream(reply):
                raise _late(reply)
            async with aclosing(self._parts(reply.body)) as parts:
                async for part in parts:
                    await self._send(send, part)
            reply.body.expect_end()
        except GatewayError as error:
            self._sending = True  # no comment any more
            await send(_part(b"data: " + msgspec.json.encode(openai_body(error)) + b"\n\n"))
            raise StreamBroken(error.message) from error
        self._sending = True  # no comment after the end
        await send(_part(b"", more=False))

    async def _parts(self, body: ByteStream) -> AsyncGenerator[bytes]:
        repair = self._repair
        try:
            async for chunk in body:
                if part := repair.feed(chunk):
                    yield part
                if repair.done or repair.error is not None:
                    break
        except UpstreamError:
            if not repair.ended:
                raise  # else the end of the answer has come, and only that of the body is missing
        if part := repair.finish():
            yield part
        if repair.error is not None:
            raise repair.error

    async def _send(self, send: Send, part: bytes) -> None:
        self._sending = True
        await send(_part(part))
        self._sending = False
        self._sent_at = asyncio.get_running_loop().time()

    async def _keep_open(self, send: Send) -> None:
        """Send a comment whenever nothing has gone out for a while; a client that does not read gets none."""
        loop = asyncio.get_running_loop()
        self._sent_at = loop.time()
        while True:
            await asyncio.sleep(max(0.0, self._sent_at + self._ping - loop.time()))
            if self._sending:
                self._sent_at = loop.time()
            elif loop.time() - self._sent_at >= self._ping:
                await self._send(send, PING)


def is_event_stream(reply: Reply) -> bool:
    """Whether a reply's body is events."""
    return media_type(reply.headers) == "text/event-stream"


def _late(reply: Reply) -> UpstreamError:
    """The error of a reply that is no event stream, now that it can only be an event of one."""
    if reply.status < 300 or not isinstance(reply.body, bytes):
        return no_events(reply)
    return read_refusal(reply.status, reply.headers, reply.body)


async def _while_there(work: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Run `work` to its end.

    Raises:
        ClientGone: the client left first; the work is cancelled.
    """
    task = asyncio.ensure_future(work)
    try:
        await watched(task, receive)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
    task.result()


def _part(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}
