"""Responses out of bytes, without I/O: httptools, and what it leaves to its user."""

from typing import Any

import httptools

from chat_api.wire.response import Response

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 256
MAX_FRUITLESS_BYTES = 64 * 1024  # in a row that bring nothing of a body: heads, chunk extensions, trailers

_BLANK = (b" ", b"\t")


class Unreadable(ValueError):
    """What came is no HTTP response, or one beyond every measure; the message says why."""


class ResponseParser:
    """Reads the responses of one connection, one after the other (RFC 9112).

    Interim ones (1xx) are skipped, trailers too. A response may end with its head (204, 304, and
    whatever answers HEAD), with its length, with its last chunk, or with the connection.
    """

    __slots__ = (
        "_ends_with_connection",
        "_ends_with_head",
        "_fruitless_bytes",
        "_headers",
        "_parser",
        "_response",
        "begun",
        "complete",
        "head_complete",
        "keeps_alive",
    )

    def __init__(self) -> None:
        self._parser: Any = httptools.HttpResponseParser(self)
        self._response: Response | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._fruitless_bytes = 0
        self._ends_with_head = False
        self._ends_with_connection = False
        self.begun = False  # a byte of it has come
        self.head_complete = False
        self.complete = False
        self.keeps_alive = False  # another response may follow this one on its connection

    def begin(self, response: Response, *, without_body: bool) -> None:
        """What comes next is this response; `without_body` if it ends with its head whatever that says (HEAD)."""
        self._response = response
        self._headers = []
        self._fruitless_bytes = 0
        self._ends_with_head = without_body
        self._ends_with_connection = self.begun = self.head_complete = self.complete = False
        if self._parser is not None:  # of a head (RFC 9112 section 2.2)
            self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True)

    def feed(self, data: bytes) -> None:
        """The next bytes: `response` gets its head and its body out of them.

        Raises:
            Unreadable: they are no HTTP response, or its head or its trailers have no end.
        """
        if not self.begun and data[:1] != b"H":  # httptools would take RTSP, and blank lines before
            raise Unreadable("sent no HTTP")
        self.begun = True
        self._fruitless_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.keeps_alive = False
            if not self.complete:  # what follows a whole response is only no second one
                reason = error.__context__ if isinstance(error.__context__, Unreadable) else f"sent no HTTP: {error}"
                raise Unreadable(str(reason)) from None
        if self._fruitless_bytes > MAX_FRUITLESS_BYTES and not self.complete:
            raise Unreadable(f"sent more than {MAX_FRUITLESS_BYTES} bytes of a head, or of trailers")

    def feed_end(self) -> None:
        """The connection has ended: so has a response that nothing else tells the end of."""
        if self.head_complete and self._ends_with_connection:
            self.complete = True

    def close(self) -> None:
        """Nothing more is fed; httptools' parser, which knows us as we know it, is let go of."""
        self._parser = self._response = None

    # httptools calls these; what they raise stops it.

    def on_message_begin(self) -> None:
        """A response begins; a second one is none that was asked for."""
        if self.complete:
            self.keeps_alive = False
            raise Unreadable("sent more than one response")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer."""
        if not self.head_complete:
            if value[-1:] in _BLANK:
                value = value.rstrip(b" \t")
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is there; unless it is an interim one, so is the response."""
        parser, response = self._parser, self._response
        status = parser.get_status_code()
        if status < 200:
            if status < 100 or status == 101:  # 101 switches protocols, which was not asked for
                raise Unreadable(f"answered {status}, which is no answer")
            if status > 103 and self._check_headers():  # httptools reads a body there, of which there is none
                raise Unreadable(f"sent a body with an interim answer, {status}")
            self._headers = []
            return
        if parser.get_http_version() not in ("1.1", "1.0"):
            raise Unreadable("sent another version of HTTP")
        has_length = self._check_headers()
        parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=False)
        assert response is not None  # noqa: S101 - `begin` set it
        self.head_complete = True
        response.status = status
        response.headers = self._headers
        self.keeps_alive = parser.should_keep_alive()
        self._ends_with_connection = not has_length
        if self._ends_with_head:  # which httptools cannot be told: what follows is not to be read
            self.complete = True
            self.keeps_alive = False
            raise Unreadable("sent a body where there is none")

    def _check_headers(self) -> bool:
        """Whether they tell the length of a body."""
        headers = self._headers
        is_large = self._fruitless_bytes > MAX_HEAD_BYTES  # what has come so far is, body included
        if len(headers) > MAX_HEADERS or (
            is_large and sum(len(name) + len(value) for name, value in headers) > MAX_HEAD_BYTES
        ):
            raise Unreadable(f"sent a head of more than {MAX_HEAD_BYTES} bytes or {MAX_HEADERS} headers")
        has_length = False
        for name, value in headers:
            if name == b"transfer-encoding":
                if value.lower() != b"chunked" or has_length:
                    raise Unreadable("sent a transfer coding that was not asked for, or two")
                has_length = True
            elif name == b"content-length":
                has_length = True
        return has_length

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._fruitless_bytes = 0
        assert self._response is not None  # noqa: S101 - `begin` set it
        self._response.feed(body)

    def on_message_complete(self) -> None:
        """A response is complete, or only an interim one."""
        self.complete = self.head_complete
        self.keeps_alive = self.keeps_alive and self._parser.should_keep_alive()  # trailers have a say in it
