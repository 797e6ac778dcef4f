"""One request on its connection, and its answer: what the app sends made into bytes, with as few writes as may be.

uvicorn's own way costs a write for the head and one for the body, and a coroutine for each message.
"""

import asyncio
import socket
import struct
from collections.abc import Awaitable
from typing import Any

from starlette.types import Message
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from chat_api.headers import breaks_out
from chat_api.passing import BODY_FOLLOWS, SENT

MAX_COPIED_BYTES = 64 * 1024  # of a body, to be in one piece with its head
_BODILESS = (204, 304)
_CLOSE = b"connection: close"
_LENGTH = b"\r\ncontent-length: "


class Cycle(RequestResponseCycle):
    """uvicorn's state of a request, with a `send` of our own."""

    _is_received = False  # the body has been handed out
    _head = b""  # that has not gone out yet
    _is_chunked = False
    _rest_bytes: int | None = None  # of a body with a length; None: the connection's end is its end

    async def receive(self) -> Any:
        """The next message from the client (ASGI 3); of a body that is there already, without waiting."""
        if self.more_body or self._is_received or self.disconnected or self.waiting_for_100_continue:
            return await super().receive()
        self._is_received = True
        self.message_event.clear()
        body, self.body = bytes(self.body), bytearray()
        return {"type": "http.request", "body": body, "more_body": False}

    def send(self, message: Message) -> Awaitable[None]:  # type: ignore[override]  # no coroutine, as a rule
        """Send a message (ASGI 3); to be awaited, as it may have to wait for a slow client.

        Raises:
            RuntimeError: the app sends what makes no response.
        """
        if self.disconnected:
            return SENT
        if self.flow.write_paused:
            return self._send_later(message)
        if message["type"] == "http.response.body" and self.response_started and not self.response_complete:
            self._send_body(message.get("body", b""), more=message.get("more_body", False))
        elif message["type"] == "http.response.start" and not self.response_started:
            self.response_started = True
            self.waiting_for_100_continue = False
            self._head = self._head_of(message["status"], message.get("headers", ()))
            if BODY_FOLLOWS not in message:
                asyncio.get_running_loop().call_soon(self._send_head)  # unless something of the body comes at once
        else:
            raise RuntimeError(f"{message['type']} cannot be sent now")
        return SENT

    async def _send_later(self, message: Message) -> None:
        await self.flow.drain()
        await self.send(message)

    def _head_of(self, status: int, headers: Any) -> bytes:
        lines = [b": ".join(pair) for pair in (*self.default_headers, *headers)]
        if _CLOSE in lines:
            self.keep_alive = False  # which is said below
            lines = [line for line in lines if line != _CLOSE]
        if breaks_out(b"".join(lines)):
            raise RuntimeError("a header of the answer holds a line end or a NUL")
        head = STATUS_LINE[status] + b"\r\n".join(lines)
        length = head.find(_LENGTH)
        if length >= 0:
            self._rest_bytes = int(head[length + len(_LENGTH) :].partition(b"\r")[0])
        if self.scope["method"] == "HEAD" or status in _BODILESS:
            self._rest_bytes = 0
        elif length < 0 and self.scope["http_version"] == "1.0":
            self.keep_alive = False  # it knows no chunks (RFC 9112 section 6.1)
            self._end_is(reset=True)
        elif length < 0:
            self._is_chunked = True
            head += b"\r\ntransfer-encoding: chunked"
        if not self.keep_alive:
            head += b"\r\n" + _CLOSE
        return head + b"\r\n\r\n"

    def _send_head(self) -> None:
        if self._head and not self.disconnected:
            self.transport.write(self._head)
        self._head = b""

    def _send_body(self, body: bytes, *, more: bool) -> None:
        if self.scope["method"] == "HEAD":
            body = b""
        head, self._head = self._head, b""
        if self._is_chunked:
            size = len(body)
            parts = (head, b"%x\r\n" % size, body, b"\r\n") if size else (head,)
            self.transport.write(b"".join(parts if more else (*parts, b"0\r\n\r\n")))
        else:
            self._count(len(body), more=more)
            if len(body) < MAX_COPIED_BYTES:
                self.transport.write(head + body if head else body)
            else:
                self.transport.writelines((head, body))
        if not more:
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self._end_is(reset=False)
                self.transport.close()
            self.on_response()

    def _end_is(self, *, reset: bool) -> None:
        """Where the connection's end is the answer's, one that comes too early has to be a reset, not an end."""
        if self._rest_bytes is None and not self._is_chunked:
            sock = self.transport.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", reset, 0))

    def _count(self, size: int, *, more: bool) -> None:
        if self._rest_bytes is None:
            return
        self._rest_bytes -= size
        if self._rest_bytes < 0 or (self._rest_bytes > 0 and not more):
            raise RuntimeError("the body of the answer has not the length that its head says")
