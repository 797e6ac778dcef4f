"""Requests into bytes, without I/O: where a URL leads, the head that is sent there, and the body's framing."""

import re
from collections.abc import AsyncGenerator
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

from chat_api.errors import UpstreamError
from chat_api.headers import breaks_out
from chat_api.types import Body, Headers

_TARGET = re.compile(r"[!-~]*")  # RFC 9112 section 3.2: printable ASCII, no space
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_BODILESS = ("GET", "HEAD", "DELETE", "OPTIONS")  # without a body they say nothing of its length
_OURS = (b"content-length", b"transfer-encoding", b"host")
_PORTS = {"http": 80, "https": 443}
PIECE_BYTES = 256 * 1024  # of a large body
MAX_TARGET_CHARS = 65_536
MAX_REMEMBERED_CHARS = 512


class Unsendable(ValueError):
    """There can be no such request; the message says why."""


class Origin(NamedTuple):
    """Where a connection goes."""

    is_tls: bool
    host: str  # a name or an address, without brackets
    port: int


class Address(NamedTuple):
    """What a URL says: the origin, and how a request to it begins and names its host."""

    origin: Origin
    authority: str  # host and port, as the URL has them
    target: bytes
    host: bytes  # the header line


def address(url: str) -> Address:
    """Take a URL apart; those of a deployment's few operations come again and again.

    Raises:
        Unsendable: it is no URL that a request can be sent to.
    """
    return _address_again(url) if len(url) <= MAX_REMEMBERED_CHARS else _address(url)


def _address(url: str) -> Address:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Unsendable(f"the URL cannot be read: {error}") from None
    host = parts.hostname
    if parts.scheme not in _PORTS or not host or parts.username is not None:
        raise Unsendable("the URL is not http:// or https:// with a host")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if len(target) > MAX_TARGET_CHARS:
        raise Unsendable(f"the URL is longer than {MAX_TARGET_CHARS} characters")
    # urlsplit drops tabs and line ends; what it was given counts.
    if _TARGET.fullmatch(url) is None:
        raise Unsendable("the URL holds a character that none has")
    authority = parts.netloc
    origin = Origin(parts.scheme == "https", host, _PORTS[parts.scheme] if port is None else port)
    return Address(origin, authority, target.encode("ascii"), b"host: %s\r\n" % authority.encode("ascii"))


_address_again = lru_cache(maxsize=1024)(_address)


def head(method: str, to: Address, headers: Headers, body: bytes | Body) -> bytes:
    """The bytes of a request's head, its body's framing included (RFC 9112 section 6).

    Raises:
        Unsendable: the method, or a header, is none; nothing with CR, LF or NUL in it is ever sent.
    """
    lines = _lines(method, to, tuple(headers))
    if isinstance(body, bytes):
        if body or method not in _BODILESS:
            return b"%scontent-length: %d\r\n\r\n" % (lines, len(body))
        return lines + b"\r\n"
    if body.size is None:
        return lines + b"transfer-encoding: chunked\r\n\r\n"
    return b"%scontent-length: %d\r\n\r\n" % (lines, body.size)


@lru_cache(maxsize=128)
def _lines(method: str, to: Address, headers: Headers) -> bytes:
    """The lines that do not tell of the body's length; the same again and again, so the last few are kept."""
    if not method.isalpha() or not method.isascii():
        raise Unsendable("the method is none")
    fields = [b"%s: %s" % pair for pair in headers if _goes_out(pair[0])]
    if breaks_out(b"".join(fields)):
        raise Unsendable("a header holds a line end or a NUL")
    start = b"%s %s HTTP/1.1\r\n%s" % (method.encode("ascii", "replace"), to.target, to.host)
    return start + b"".join([field + b"\r\n" for field in fields])


async def framed(body: bytes | Body) -> AsyncGenerator[bytes | memoryview]:
    """What goes out of a body, piece by piece, as its head has announced it (RFC 9112 section 6).

    Raises:
        UpstreamError: it is shorter or longer than it was said to be; and whatever the body raises.
    """
    if isinstance(body, bytes):
        # Over TLS only what is written piece by piece is seen to be taken, or not.
        for at in range(0, len(body), PIECE_BYTES):
            yield memoryview(body)[at : at + PIECE_BYTES]
        return
    sent = 0
    pieces = aiter(body)
    try:
        async for piece in pieces:
            sent += len(piece)
            if body.size is not None and sent > body.size:
                break  # what is too much would be taken for another request
            if piece:  # a chunk of nothing would be the last one
                yield piece if body.size is not None else b"%x\r\n%s\r\n" % (len(piece), piece)
    finally:
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()  # whoever listens to the client goes on from here
    if body.size is None:
        yield b"0\r\n\r\n"
    elif sent != body.size:
        raise UpstreamError(f"the request's body has not the {body.size} bytes that it was said to have")


def _goes_out(name: bytes) -> bool:
    """Whether a header is the caller's to send: how a message is framed, and where it goes, the wire says itself."""
    if _TOKEN.fullmatch(name) is None:
        raise Unsendable("a header's name is none")
    return name.lower() not in _OURS
