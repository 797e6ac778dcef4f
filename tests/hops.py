"""Upstreams of any behaviour on real sockets, and what a test asks them with."""

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import trustme
import uvloop

from chat_api.failures import Limits
from chat_api.proxied import ProxiedTransport
from chat_api.types import Body, Headers, Secret, Transport, UpstreamRequest
from chat_api.wire import WireTransport

T = TypeVar("T")
KEY = (b"api-key", b"canary")
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
HASTY = Limits(connect_seconds=0.2, first_byte_seconds=0.2, idle_seconds=0.2)
PATIENT = Limits(connect_seconds=5, first_byte_seconds=5, idle_seconds=5)
UNCHECKED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def run_on(loop: str, main: Coroutine[Any, Any, T]) -> T:
    """What the coroutine returns, on a loop of that name."""
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(main)


class Asked(NamedTuple):
    """A request as an upstream received it."""

    head: bytes
    body: bytes


class Answer(NamedTuple):
    """A response as a caller received it."""

    status: int
    headers: Headers
    body: bytes


class Peer:
    """One connection, as the upstream sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def head(self) -> bytes:
        """The head of the next request."""
        return await self._reader.readuntil(b"\r\n\r\n")

    async def request(self) -> Asked:
        """The next request, read to its end."""
        head = await self.head()
        if b"\r\ntransfer-encoding: chunked\r\n" in head.lower():
            return Asked(head, await self._chunks())
        length = re.search(rb"\r\ncontent-length: (\d+)\r\n", head, re.IGNORECASE)
        return Asked(head, await self._reader.readexactly(int(length[1]) if length else 0))

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(await self._reader.readline(), 16):
            body += await self._reader.readexactly(size)
            assert await self._reader.readexactly(2) == b"\r\n"
        assert await self._reader.readline() == b"\r\n"
        return body

    async def read(self, size: int) -> bytes:
        """Some of what comes, b"" at the end."""
        return await self._reader.read(size)

    async def send(self, raw: bytes) -> None:
        """Send these bytes."""
        self._writer.write(raw)
        await self._writer.drain()

    async def answer(self, raw: bytes = OK) -> Asked:
        """Read a request and send these bytes; gives the request."""
        asked = await self.request()
        await self.send(raw)
        return asked

    async def ended(self) -> None:
        """Return once the other side has closed the connection, however it does that."""
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(65536):
                pass


Serve = Callable[[Peer], Awaitable[None]]


@dataclass
class Upstream:
    """A listening upstream, and how many connections it was asked for."""

    port: int = 0
    scheme: str = "http"
    connections: int = 0
    failures: list[BaseException] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where it is asked."""
        return f"{self.scheme}://localhost:{self.port}/x" if self.scheme == "https" else f"http://{self.host}/x"

    @property
    def host(self) -> str:
        """As messages name it."""
        return f"127.0.0.1:{self.port}"


@contextlib.asynccontextmanager
async def upstream(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[Upstream]:
    """An upstream that treats every connection so, and closes it then; what fails in that fails the test."""
    found = Upstream(scheme="https" if tls else "http")
    tasks = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.connections += 1
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(Peer(reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the other side has left, or the test has ended
        except BaseException as error:
            found.failures.append(error)
        finally:
            tasks.discard(task)
            writer.close()

    listening = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls, limit=2**20)
    found.port = listening.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        listening.close()
        rest = list(tasks)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
    for error in found.failures:
        raise error


def answering(raw: bytes) -> Serve:
    """Reads one request, sends these bytes, and closes the connection."""

    async def serve(peer: Peer) -> None:
        await peer.answer(raw)

    return serve


def then_waiting(raw: bytes) -> Serve:
    """Reads one request, sends these bytes, and leaves the connection open."""

    async def serve(peer: Peer) -> None:
        await peer.answer(raw)
        await peer.ended()

    return serve


async def keeping(peer: Peer) -> None:
    """Answers every request, one after the other."""
    while True:
        await peer.answer()


async def silent(peer: Peer) -> None:
    """Takes everything and says nothing."""
    await peer.ended()


class Pieces:
    """A request body that comes in pieces."""

    def __init__(self, *pieces: bytes, size: int | None = None, is_repeatable: bool = False) -> None:
        self.size = size
        self.is_repeatable = is_repeatable
        self.begun = 0  # how often it was iterated over
        self._pieces = iter(pieces) if not is_repeatable else pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.begun += 1
        for piece in self._pieces:
            yield piece

    def with_model(self, name: str) -> "Pieces":
        """Itself: it is no form."""
        return self


def asking(
    url: str, body: bytes | Body = b"{}", method: str = "POST", *headers: tuple[bytes, bytes]
) -> UpstreamRequest:
    """A request with a key in it."""
    return UpstreamRequest(method, url, (KEY, *headers), body)


async def fetch(transport: Transport, request: UpstreamRequest) -> Answer:
    """The whole response to a request."""
    response = await transport.send(request)
    try:
        body = b"".join([chunk async for chunk in response.chunks()])
        return Answer(response.status, tuple(response.headers), body)
    finally:
        await response.aclose()


def trusted() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Two sides of TLS that trust each other: the server's as localhost, the client's."""
    authority = trustme.CA()
    served, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(served)
    authority.configure_trust(trusting)
    return served, trusting


class Hop(NamedTuple):
    """A transport on an event loop."""

    kind: str  # "wire", or "httpx" without a proxy
    loop: str = "asyncio"
    proxy: str | None = None

    def __str__(self) -> str:
        return f"{self.kind}-{self.loop}"

    @contextlib.asynccontextmanager
    async def transport(self, limits: Limits = PATIENT, verify: ssl.SSLContext = UNCHECKED) -> AsyncIterator[Transport]:
        """The transport, closed at the end."""
        made: Transport
        if self.kind == "wire":
            made = WireTransport(limits, verify=verify)
        else:
            made = ProxiedTransport(limits, verify=verify, proxy=Secret(self.proxy) if self.proxy else None)
        try:
            yield made
        finally:
            await made.aclose()

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """What the coroutine returns, on this loop."""
        return run_on(self.loop, main)

    def fetch(self, serve: Serve, body: bytes | Body = b"{}", method: str = "POST", limits: Limits = PATIENT) -> Answer:
        """The response of such an upstream."""

        async def main() -> Answer:
            async with upstream(serve) as up, self.transport(limits) as transport:
                return await fetch(transport, asking(up.url, body, method))

        return self.run(main())


WIRE, WIRE_UVLOOP, HTTPX = Hop("wire"), Hop("wire", "uvloop"), Hop("httpx")
