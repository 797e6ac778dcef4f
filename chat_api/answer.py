"""One answer on its connection: what the app sends made into bytes, with as few writes as may be.

uvicorn's own way costs a write for each, and a coroutine and two pattern searches a header.
"""

import asyncio
from collections.abc import Awaitable

from starlette.types import Message
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from chat_api.passing import BODY_FOLLOWS, SENT

MAX_COPIED_BYTES = 64 * 1024  # of a body, to be in one piece with its head
_BODILESS = (204, 304)


class Answer:
    """Sends the answer to one request, as `cycle` has it.

    Args:
        cycle: uvicorn's state of the request, which is kept as uvicorn keeps it.
        loop: the event loop.
    """

    __slots__ = ("_cycle", "_head", "_is_chunked", "_loop", "_rest_bytes")

    def __init__(self, cycle: RequestResponseCycle, loop: asyncio.AbstractEventLoop) -> None:
        self._cycle = cycle
        self._loop = loop
        self._head = b""
        self._is_chunked = False
        self._rest_bytes: int | None = None  # of a body with a length; None: the connection's end is its end

    def send(self, message: Message) -> Awaitable[None]:
        """Send a message (ASGI 3); to be awaited, as it may have to wait for a slow client.

        Raises:
            RuntimeError: the app sends what makes no response.
        """
        if self._cycle.flow.write_paused and not self._cycle.disconnected:
            return self._send_later(message)
        self._send(message)
        return SENT

    async def _send_later(self, message: Message) -> None:
        await self._cycle.flow.drain()
        self._send(message)

    def _send(self, message: Message) -> None:
        cycle = self._cycle
        if cycle.disconnected:
            return
        if message["type"] == "http.response.body" and cycle.response_started and not cycle.response_complete:
            self._send_body(message.get("body", b""), more=message.get("more_body", False))
        elif message["type"] == "http.response.start" and not cycle.response_started:
            cycle.response_started = True
            cycle.waiting_for_100_continue = False
            self._head = self._head_of(message["status"], list(message.get("headers", ())))
            if BODY_FOLLOWS not in message:
                self._loop.call_soon(self._send_head)  # unless something of the body comes at once
        else:
            raise RuntimeError(f"{message['type']} cannot be sent now")

    def _head_of(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
        cycle = self._cycle
        lines = [STATUS_LINE[status]]
        has_length = False
        for name, value in [*cycle.default_headers, *headers]:
            if name == b"content-length":
                has_length = True
                self._rest_bytes = int(value)
            elif name == b"connection" and value == b"close":
                cycle.keep_alive = False
                continue  # it is said below
            lines.append(b"%s: %s\r\n" % (name, value))
        if cycle.scope["method"] == "HEAD" or status in _BODILESS:
            self._rest_bytes = 0
        elif not has_length and cycle.scope["http_version"] == "1.0":
            cycle.keep_alive = False  # it knows no chunks (RFC 9112 section 6.1)
        elif not has_length:
            self._is_chunked = True
            lines.append(b"transfer-encoding: chunked\r\n")
        if not cycle.keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        head = b"".join(lines)
        # Each line has one CR and one LF, which are ours: any more came in with a value.
        if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines) or b"\0" in head:
            raise RuntimeError("a header of the answer holds a line end or a NUL")
        return head

    def _send_head(self) -> None:
        if self._head and not self._cycle.disconnected:
            self._cycle.transport.write(self._head)
        self._head = b""

    def _send_body(self, body: bytes, *, more: bool) -> None:
        cycle = self._cycle
        if cycle.scope["method"] == "HEAD":
            body = b""
        if self._is_chunked:
            size = len(body)
            parts = (self._head, b"%x\r\n" % size, body, b"\r\n") if size else (self._head,)
            cycle.transport.write(b"".join(parts if more else (*parts, b"0\r\n\r\n")))
        else:
            self._count(len(body), more=more)
            if not self._head:
                cycle.transport.write(body)
            elif len(body) < MAX_COPIED_BYTES:
                cycle.transport.write(self._head + body)
            else:
                cycle.transport.writelines((self._head, body))
        self._head = b""
        if not more:
            cycle.response_complete = True
            cycle.message_event.set()
            if not cycle.keep_alive:
                cycle.transport.close()
            cycle.on_response()
            vars(cycle).pop("send", None)  # else the two would keep each other alive until the collector comes

    def _count(self, size: int, *, more: bool) -> None:
        if self._rest_bytes is None:
            return
        self._rest_bytes -= size
        if self._rest_bytes < 0 or (self._rest_bytes > 0 and not more):
            raise RuntimeError("the body of the answer has not the length that its head says")
