"""uvicorn's HTTP/1.1 protocol where ours differs: what it refuses, what it ignores, and whom it no longer waits for."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

import httptools
import msgspec
import uvicorn
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from chat_api.answer import Cycle
from chat_api.errors import GatewayError, RequestError, simple_body
from chat_api.guards import AUTHORITY
from chat_api.middleware import REFUSED
from chat_api.settings import Settings
from chat_api.streaming import ON_DISCONNECT

# Load balancers keep their connections for about a minute; the side that closes first must be theirs,
# or a request that crosses our close is answered 502.
KEEPALIVE_SECONDS = 75
# Of a body that was refused by its size: a client that reads only when it has sent all gets its answer.
MAX_DISCARDED_BYTES = 64 * 1024 * 1024

MAX_HEAD_BYTES = 64 * 1024  # and what comes with the piece that passes it

# What a connection waits for: its first request, the next one, the rest of a head or of a body, our answer.
NEW, IDLE, HEAD, BODY, ANSWER = "new", "idle", "head", "body", "answer"
_SETTINGS = {NEW: "headers_timeout", IDLE: "", HEAD: "headers_timeout", BODY: "body_timeout"}
_TOO_SLOW = {
    HEAD: RequestError("the head of the request did not come within HEADERS_TIMEOUT", code="request_timeout"),
    BODY: RequestError("the body of the request fell silent for BODY_TIMEOUT", code="request_timeout"),
}

log = logging.getLogger(__name__)

_UPGRADE_HEADERS = (b"connection", b"upgrade", b"http2-settings")


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol, but for seven things.

    1. A request that comes before the last one is answered (pipelining, RFC 9112 section 9.3.2) is not
       taken: uvicorn would queue it, and then no longer notice that the client of the first one left.
       The connection is closed after the first answer, and the client sends the second one again.
    2. An offer to upgrade (`Upgrade: h2c`, as Java's client and `curl --http2` send it) is ignored, as
       RFC 9110 section 7.8 allows. uvicorn would lose the request's body.
    3. A body that goes on after its answer is thrown away up to a limit, not for ever.
    4. A client is shed that does not finish its request's head, whose body falls silent, or that takes
       nothing of its answer. `SheddingServer` looks once a second; a request costs no timer.
    5. An answer goes out as `Cycle` has it.
    6. Whoever waits for an upstream (`ON_DISCONNECT`) is told at once when the client leaves.
    7. What is no HTTP is answered in JSON, like everything else; and the app is told the host that an
       absolute-form request target names.
    """

    def __init__(self, *args: Any, settings: Settings, **options: Any) -> None:
        super().__init__(*args, **options)
        self._settings = settings
        self._pipelined = False
        self._discarded = 0
        self._head_bytes = 0
        self._phase = NEW
        self._since = self.loop.time()
        self._unsent = 0
        self._taken_at = self._since
        self._on_disconnect: Callable[[], None] | None = None

    def _enter(self, phase: str) -> None:
        self._phase = phase
        self._since = self.loop.time()

    def shed(self, now: float) -> None:
        """Let go of the connection if its client has been too slow for too long."""
        if self._reader_stalls(now):
            log.info("a client took nothing of its answer for READER_TIMEOUT; it was cut")
            self.transport.abort()
        elif self._phase == BODY and self.flow.read_paused:
            self._since = now  # it is us who do not read
        elif self._phase in _SETTINGS and now - self._since > self._limit():
            answered = self._phase == BODY and self.cycle.response_complete
            if self._phase in (NEW, IDLE) or answered:
                self.transport.close()
            else:
                self._refuse(408, _TOO_SLOW[self._phase])

    def _limit(self) -> float:
        limit: float = getattr(self._settings, _SETTINGS[self._phase], KEEPALIVE_SECONDS)
        return limit

    def _reader_stalls(self, now: float) -> bool:
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0 or unsent < self._unsent:
            self._taken_at = now
        self._unsent = unsent
        return now - self._taken_at > self._settings.reader_timeout

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, and close."""
        self._refuse(400, RequestError(msg, code="invalid_http"))

    def _refuse(self, status: int, error: GatewayError) -> None:
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.close()  # within an answer there is no place for another
            return
        body = msgspec.json.encode(simple_body(error))
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        if self.cycle is None or self.cycle.response_complete:
            log.info("%s: %d %s", self.client[0] if self.client else "-", status, error.code)
        else:
            self.cycle.scope[REFUSED] = status  # type: ignore[literal-required]  # for the access log
            self.cycle.disconnected = True  # whatever the app says from now on is not sent
            self.cycle.message_event.set()
            if self._on_disconnect is not None:
                self._on_disconnect()
        self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()

    def on_message_begin(self) -> None:
        """A request begins."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._pipelined = True
            self.cycle.keep_alive = False
            raise RuntimeError("pipelined")  # stops the parser
        self._enter(HEAD)
        self._discarded = 0
        super().on_message_begin()
        self.scope["extensions"] = {ON_DISCONNECT: self._notify}  # type: ignore[dict-item]  # a function

    def _notify(self, callback: Callable[[], None] | None) -> asyncio.Task[Any] | None:
        """Have `callback` called when the client leaves; gives the task that runs."""
        self._on_disconnect = callback
        if callback is None:
            return None
        if not self.cycle.more_body:
            self.flow.resume_reading()  # after a large body it may be paused, and then nobody sees the client leave
        if self.cycle.disconnected:
            self.loop.call_soon(callback)
        return asyncio.current_task(self.loop)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left, or was let go of."""
        super().connection_lost(exc)
        if self._on_disconnect is not None:
            self._on_disconnect()
        if self.scope is not None:
            self.scope.pop("extensions", None)  # else it keeps us alive until the collector comes

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; one that follows a body (a trailer, RFC 9110 section 6.5.1) is no header of the request."""
        if self._phase == HEAD:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))
            return
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD_BYTES:
            raise ValueError("the trailers have no end")  # stops the parser

    def on_headers_complete(self) -> None:
        """The head of a request is complete; one that offers an upgrade begins again without the offer."""
        parser = self.parser
        if parser.should_upgrade():
            return
        self._enter(BODY)
        self._head_bytes = 0
        self._complete_scope()
        self.cycle = Cycle(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=self.scope["http_version"] != "1.0" and parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        self._start_asgi_task(self.cycle, self.app)

    def _complete_scope(self) -> None:
        scope = self.scope
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = self.parser.get_http_version()
        url = httptools.parse_url(self.url)  # of an absolute form too
        path = url.path.decode("ascii")
        scope["path"] = self.root_path + (unquote(path) if "%" in path else path)
        scope["raw_path"] = self.root_path.encode("ascii") + url.path
        scope["query_string"] = url.query or b""
        if not self.url.startswith((b"/", b"*")):
            scope[AUTHORITY] = urlsplit(self.url.decode("latin-1")).netloc  # type: ignore[literal-required]  # our own

    def on_message_complete(self) -> None:
        """The parser has read all it will of a request, which is not all where an upgrade was offered."""
        if not self.parser.should_upgrade():
            self._enter(IDLE if self.cycle.response_complete else ANSWER)
            self._head_bytes = 0
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer has been sent. Whoever keeps an idle connection too long is shed: that takes no timer."""
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.flow.resume_reading()
            if self._phase == ANSWER:
                self._enter(IDLE)

    def on_body(self, body: bytes) -> None:
        """A part of a request's body; one that was answered already is thrown away, but not for ever."""
        self._since = self.loop.time()
        if self.cycle.response_complete:
            self._discarded += len(body)
            if self._discarded > MAX_DISCARDED_BYTES:
                self.transport.close()
            return
        self.cycle.body += body
        if len(self.cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        self.cycle.message_event.set()

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        if self._pipelined:
            return
        if self._phase != BODY:
            self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._begin_again(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            if not self._pipelined:
                is_tls = self.cycle is None and data.startswith(b"\x16\x03")
                self.send_400_response("This port speaks HTTP, not HTTPS." if is_tls else "This is no HTTP request.")
        if self._phase == HEAD and self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(431, RequestError(f"the head is larger than {MAX_HEAD_BYTES} bytes", code="head_too_large"))

    def _begin_again(self, rest: bytes) -> None:
        method = self.parser.get_method()
        if method == b"CONNECT":
            self.send_400_response("CONNECT is not served here.")
            return
        version = self.parser.get_http_version().encode()
        head = [b"%s %s HTTP/%s\r\n" % (method, self.url, version)]
        head += [b"%s: %s\r\n" % pair for pair in self.headers if pair[0] not in _UPGRADE_HEADERS]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"".join(head) + b"\r\n" + rest)


class SheddingServer(uvicorn.Server):
    """uvicorn's server, which once a second looks for clients that are too slow."""

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if counter % 10 == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, Protocol):
                    connection.shed(now)
        return await super().on_tick(counter)
