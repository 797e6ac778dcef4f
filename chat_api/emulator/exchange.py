"""One emulated exchange: what the faults and the ordinary answer are played on."""

import asyncio
import math
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from starlette.types import Message, Receive, Scope, Send

from chat_api.emulator import replies
from chat_api.emulator.answers import digest_of, encode
from chat_api.emulator.error_bodies import rate_limit, rate_limit_of
from chat_api.emulator.latency import Pace
from chat_api.emulator.quotas import Admission, retry_headers

TRANSPORT = "chat_api.emulator.transport"  # the ASGI extension through which a fault reaches the socket
RETRY = {"retry-after": "1", "retry-after-ms": "1000"}
REGION = "Emulated"
UNLIMITED = {
    "x-ratelimit-limit-requests": "100",
    "x-ratelimit-limit-tokens": "100000",
    "x-ratelimit-remaining-requests": "99",
    "x-ratelimit-remaining-tokens": "99998",
}  # what a deployment says that refuses nobody
PIECE_BYTES = 16 * 1024  # of a body that is no JSON


def checked_region(name: str) -> str:
    """The name of a region, if a header can carry it.

    Raises:
        ValueError: none can.
    """
    if not (name and name.isascii() and name.isprintable() and name == name.strip()):
        raise ValueError(f"{name!r} is no region's name: it takes printable ASCII such as East US")
    return name


@dataclass
class Exchange:
    """A request on its way to being answered, or not."""

    scope: Scope
    receive: Receive
    send: Send
    body: dict[str, Any]
    deployment: str
    api_version: str
    repeats: int  # how often this very deployment was asked before
    operation: str = replies.CHAT
    is_form: bool = False
    region: str = REGION
    resource: str = ""  # which one it is, if there are several
    pace: Pace | None = None
    limits: dict[str, str] = field(default_factory=lambda: UNLIMITED)  # what the answer says of them

    @property
    def streams(self) -> bool:
        """Whether the caller wants a stream, of an operation that can be one."""
        return self.body.get("stream") is True and self.operation in replies.STREAMED

    @property
    def end_mark(self) -> bytes:
        """What follows the last event."""
        return replies.end_mark(self.operation)

    async def ordinary(self) -> None:
        """Answer as a healthy deployment does."""
        if self.streams:
            await self.play([*self.events(), self.end_mark])
            return
        body, content_type = self.whole()
        if not content_type.endswith("octet-stream"):
            await self.respond(200, body, content_type=content_type)
            return
        fields = self._headers({"content-type": content_type})
        await self.send({"type": "http.response.start", "status": 200, "headers": fields})
        for start in range(0, len(body), PIECE_BYTES):
            await self.write(body[start : start + PIECE_BYTES])
        await self.finish()

    def refusal(self) -> dict[str, Any] | None:
        """The 400 that a healthy deployment answers, if it does."""
        return replies.refusal(self.operation, self.body, self.deployment, is_form=self.is_form)

    def whole(self) -> tuple[bytes, str]:
        """What a healthy deployment answers, and its content type."""
        return replies.whole(self.operation, self.body, self.deployment, self.resource)

    def events(self) -> list[bytes]:
        """The stream's events but for the mark of its end."""
        return replies.events(self.operation, self.body, self.deployment, self.resource)

    def error_events(self, error: dict[str, Any], after: int = 0) -> list[bytes]:
        """How the stream tells of an error after so many events."""
        return replies.error_events(self.operation, self.body, self.deployment, error, after, self.resource)

    async def play(self, parts: Iterable[bytes], headers: dict[str, str] | None = None) -> None:
        """Send a whole event stream."""
        await self.start(headers)
        for place, part in enumerate(parts):
            if place and self.pace and await self._paused(self.pace.between()):
                return
            await self.write(part)
        await self.finish()

    async def respond(
        self,
        status: int,
        body: bytes,
        *,
        content_type: str = "application/json",
        headers: dict[str, str] | None = None,
        length: int | None = None,
    ) -> None:
        """Send a whole response; `length` announces more than is sent, and then only the body is sent."""
        fields = {"content-type": content_type, "content-length": str(length or len(body)), **(headers or {})}
        await self.send({"type": "http.response.start", "status": status, "headers": self._headers(fields)})
        await self.send({"type": "http.response.body", "body": body, "more_body": length is not None})

    async def late(self) -> bool:
        """Take the time that the resource takes before it answers; whether the caller has left meanwhile."""
        return self.pace is not None and await self._paused(self.pace.first())

    async def _paused(self, seconds: float) -> bool:
        return seconds > 0 and await self.gone(seconds)

    async def throttled(self, admission: Admission) -> bool:
        """Tell of the limits whatever the answer is; 429 if there was no room for the call, and whether it was that.

        The older words are those of the classic API here, the newer ones those of v1.
        """
        self.limits = admission.headers
        if not admission.exceeded:
            return False
        seconds = math.ceil(admission.wait)
        name, called, version = self.deployment, self.operation, self.api_version
        if version in ("v1", "preview"):
            body = rate_limit_of(name, self.region, called, version, seconds, f"the {admission.exceeded} rate limit")
        else:
            exceeded = {"call": "the call rate limit"}.get(admission.exceeded, "token rate limit")
            body = rate_limit(called, version, seconds, exceeded)
        await self.respond(429, encode(body), headers=retry_headers(admission.wait))
        return True

    async def start(self, headers: dict[str, str] | None = None) -> None:
        """Send the head of an event stream."""
        fields = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache, must-revalidate"}
        fields |= headers or {}
        await self.send({"type": "http.response.start", "status": 200, "headers": self._headers(fields)})

    async def write(self, data: bytes) -> None:
        """Send a part of the body."""
        message: Message = {"type": "http.response.body", "body": data, "more_body": True}
        await self.send(message)

    async def finish(self) -> None:
        """End the body."""
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def gone(self, seconds: float | None = None) -> bool:
        """Wait until the caller has left, or for so many seconds; whether it has left."""
        try:
            async with asyncio.timeout(seconds):
                while (await self.receive())["type"] != "http.disconnect":
                    pass
        except TimeoutError:
            return False
        return True

    async def cut(self) -> None:
        """Close the connection after what was sent, in order but too early."""
        self._transport.close()
        await self.gone()

    async def reset(self) -> None:
        """Reset the connection: what was sent may be lost (TCP RST)."""
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()
        await self.gone()

    async def raw(self, data: bytes) -> None:
        """Send bytes that are no HTTP, then close."""
        self._transport.write(data)
        await self.cut()

    @property
    def _transport(self) -> asyncio.Transport:
        transport: asyncio.Transport = self.scope["extensions"][TRANSPORT]["transport"]
        return transport

    def _headers(self, fields: dict[str, str]) -> list[tuple[bytes, bytes]]:
        """The fields among those that Azure adds to every answer of a deployment."""
        digest = digest_of(self.body, self.deployment)
        azure = {
            "apim-request-id": f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-8{digest[17:20]}-{digest[20:32]}",
            "x-request-id": f"{digest[32:40]}-{digest[40:44]}-4{digest[45:48]}-8{digest[49:52]}-{digest[52:64]}",
            "x-ms-region": self.region,
            "x-ms-deployment-name": quote(self.deployment),
            "x-ms-rai-invoked": "true",
            **self.limits,
            "x-accel-buffering": "no",
        }
        return [(name.encode(), value.encode("latin-1")) for name, value in {**azure, **fields}.items()]
