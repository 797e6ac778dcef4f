"""The load: connections that send requests and have every answer checked. Nothing is measured that is not right."""

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Protocol

import httptools

from benchmarks.checks import Check, Fault

_SHOWN_BYTES = 300


def reset(transport: asyncio.Transport) -> None:
    """Close a connection with a reset, which whoever is at its other end cannot take for an end."""
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class Cut(Fault):
    """The connection was closed before the answer had ended."""


class Owner(Protocol):
    """Who a connection belongs to: it is told what happens there."""

    def ready(self, connection: "Connection") -> None:
        """The connection is made."""
        ...

    def progress(self, connection: "Connection", chunks: int) -> None:
        """A read brought so many chunks of a stream; 0 if it completed none."""
        ...

    def finished(self, connection: "Connection") -> None:
        """The answer has ended, and was right; the connection may send its next request."""
        ...

    def failed(self, fault: Fault) -> None:
        """The answer was not right."""
        ...


class Connection(asyncio.Protocol):
    """A keep-alive connection with one request at a time.

    Args:
        owner: who is told.
        name: what a fault says of where it was.
    """

    def __init__(self, owner: Owner, name: str) -> None:
        self._owner = owner
        self._name = name
        self._check: Check | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._status = 200
        self._refusal: bytes | None = None  # the body of an answer that is none
        self._body_bytes = 0
        self._complete = False
        self._transport: asyncio.Transport
        # For the owner's use.
        self.chunks = 0
        self.sent_at = self.last_at = 0.0

    async def open(self, port: int) -> None:
        """Connect to a port of the loopback address."""
        await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", port)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The server has accepted."""
        self._transport = transport  # type: ignore[assignment]  # a stream transport is what TCP gives
        self._owner.ready(self)

    def send(self, request: bytes, check: Check, status: int = 200) -> None:
        """Send a request whose answer is to have this status, and whose body `check` looks at."""
        self._check = check
        self._status = status
        self._body_bytes = 0
        self._transport.write(request)

    def close(self) -> None:
        """Close it; what comes from now on is nobody's."""
        self._check = None
        self._transport.abort()

    def reset(self) -> None:
        """Close it with a reset, which no server can take for an end."""
        self._check = None
        reset(self._transport)

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer."""
        if self._check is None:
            self._fail(Fault("bytes came that nobody had asked for"))
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._fail(cause if isinstance(cause, Fault) else Fault(f"the answer is no HTTP: {error}"))
            return
        if self._complete:
            # Not before all that came is parsed: what follows an answer must not pass for the next one's.
            self._complete = False
            self._check = None
            self._owner.finished(self)

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        if self._check is not None:
            self._fail(Cut(f"the connection was cut after {self._body_bytes} bytes of the body"))

    def on_headers_complete(self) -> None:
        """The head of an answer is there."""
        if self._complete:
            raise Fault("a second answer came to one request")
        self._refusal = None if self._parser.get_status_code() == self._status else b""

    def on_body(self, data: bytes) -> None:
        """A part of an answer's body."""
        if self._check is None:
            return
        if self._refusal is not None:
            self._refusal += data
            return
        self._body_bytes += len(data)
        if chunks := self._check.feed(data):
            self._owner.progress(self, chunks)

    def on_message_complete(self) -> None:
        """An answer has ended."""
        if self._refusal is not None:
            raise Fault(f"the status is {self._parser.get_status_code()}: {self._refusal[:_SHOWN_BYTES]!r}")
        if self._check is not None:
            self._check.end()
        self._complete = True

    def _fail(self, fault: Fault) -> None:
        self._check = None
        self._owner.failed(type(fault)(f"{self._name}: {fault}"))
        self._transport.abort()


class HeadConnection(Connection):
    """A connection whose answers have to have certain headers as well.

    Args:
        owner: who is told.
        name: what a fault says of where it was.
        due: the headers: names in lower case, or `name: value`.
    """

    def __init__(self, owner: Owner, name: str, due: frozenset[bytes]) -> None:
        super().__init__(owner, name)
        self._due = due
        self._missing = set(due)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of an answer."""
        name = name.lower()
        self._missing -= {name, b"%b: %b" % (name, value)}

    def on_headers_complete(self) -> None:
        """The head of an answer is there."""
        super().on_headers_complete()
        missing, self._missing = self._missing, set(self._due)
        if missing and self._refusal is None:
            raise Fault(f"the answer has no {min(missing).decode()}")


class ClosedLoop:
    """A fixed number of connections, each sending its next request when it has its answer.

    Args:
        request: the request that is sent, again and again.
        new_check: makes what checks the next answer.
        headers: that its answers have to have: names in lower case, or `name: value`.
        new_request: makes the next request, if it is not the same again and again.
    """

    def __init__(
        self,
        request: bytes,
        new_check: Callable[[], Check],
        headers: frozenset[bytes] = frozenset(),
        new_request: Callable[[], bytes] | None = None,
    ) -> None:
        self._request = request
        self._new_request = new_request
        self._new_check = new_check
        self._headers = headers
        self._connections: list[Connection] = []
        self._unsent = 0
        self._unanswered = 0
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def open(self, port: int, connections: int) -> None:
        """Connect to a port of the loopback address."""
        for number in range(connections):
            name = f"connection {number}"
            connection = HeadConnection(self, name, self._headers) if self._headers else Connection(self, name)
            await connection.open(port)
            self._connections.append(connection)

    async def run(self, requests: int) -> None:
        """Send so many requests and wait for their answers.

        Raises:
            Fault: an answer was not right.
        """
        self._done = asyncio.get_running_loop().create_future()
        self._unsent = self._unanswered = requests
        for connection in self._connections:
            self._send_next(connection)
        await self._done

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            connection.close()

    def ready(self, connection: Connection) -> None:
        """The connection is made; it waits for `run`."""

    def progress(self, connection: Connection, chunks: int) -> None:
        """Chunks came; how many is known before."""

    def finished(self, connection: Connection) -> None:
        """An answer has ended."""
        self._unanswered -= 1
        if self._unanswered == 0:
            self._done.set_result(None)
        else:
            self._send_next(connection)

    def failed(self, fault: Fault) -> None:
        """An answer was not right: that is the end of the run."""
        if not self._done.done():
            self._done.set_exception(fault)

    def _send_next(self, connection: Connection) -> None:
        if self._unsent > 0:
            self._unsent -= 1
            connection.send(self._new_request() if self._new_request else self._request, self._new_check())
