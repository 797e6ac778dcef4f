"""Responses of every kind, and what the wire and httpx's own connection make of the same bytes."""

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import httpcore2
from hypothesis import strategies as st

from chat_api.errors import GatewayError
from tests.wires import asked, connected, read


class Made(NamedTuple):
    """What a client made of a response; of one that it refuses, or that breaks off, nothing."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Said(httpcore2.AsyncNetworkStream):
    """A stream on which these bytes come, and then its end."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter([piece for piece in pieces if piece])

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """The next piece."""
        return next(self._pieces, b"")

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Nobody listens."""

    async def aclose(self) -> None:
        """Nothing is open."""


ORIGIN = httpcore2.Origin(b"http", b"h", 80)


async def of_httpx(pieces: Iterable[bytes], method: str = "POST") -> Made | None:
    """What httpx's connection makes of it."""
    connection = httpcore2.AsyncHTTP11Connection(ORIGIN, Said(pieces))
    request = httpcore2.Request(method, "http://h/", headers={"host": "h", "content-length": "0"})
    try:
        response = await connection.handle_async_request(request)
        body = b"".join([chunk async for chunk in response.aiter_stream()])
    except httpcore2.ProtocolError:
        return None
    return Made(response.status, tuple((name.lower(), value) for name, value in response.headers), body)


async def of_wire(pieces: Iterable[bytes], method: str = "POST") -> Made | None:
    """What the wire makes of it."""
    connection, line, pool = await connected()
    task = await asked(connection, is_head=method == "HEAD")
    line.receive_all(pieces)
    line.end()
    try:
        response = await task
        body = await read(response)
    except GatewayError:
        return None
    finally:
        pool.close()
    return Made(response.status, tuple(response.headers), body)


def splits_at(raw: bytes, at: Sequence[int]) -> list[bytes]:
    """The bytes split at these places."""
    places = [0, *sorted({place % (len(raw) + 1) for place in at}), len(raw)]
    return [raw[begin:end] for begin, end in itertools.pairwise(places)]


TOKEN = st.text("abcXYZ019-_!", min_size=1, max_size=12).map(str.encode)
VALUE = st.binary(max_size=20).map(lambda raw: bytes(byte for byte in raw if 0x20 < byte != 0x7F))
SPACED = st.lists(VALUE.filter(bool), max_size=3).map(b" ".join)
OWN = (b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"proxy-connection", b"keep-alive")
HEADER = st.tuples(TOKEN.filter(lambda name: name.lower() not in OWN), SPACED)


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    """A response of any kind, as RFC 9112 has it."""
    end = draw(st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n"]))
    interim = draw(st.lists(st.sampled_from([100, 102, 103, 104, 199]), max_size=2))
    status = draw(st.sampled_from([200, 200, 201, 204, 205, 299, 304, 400, 404, 429, 500, 503, 599, 999]))
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.1", b"1.0"]))
    lines = [b"HTTP/%s %d%s" % (version, status, draw(st.sampled_from([b"", b" ", b" OK", b" Not a word"])))]
    lines += [b":%s".join((name, b"")) % b" " + value for name, value in draw(st.lists(HEADER, max_size=5))]
    body = draw(st.binary(max_size=60))
    framing = draw(st.sampled_from(["length", "chunks", "end"]))
    if draw(st.booleans()):
        lines.append(b"Connection: " + draw(st.sampled_from([b"close", b"keep-alive", b"x, Close"])))
    if framing == "length":
        lines.append(b"%s: %d" % (draw(st.sampled_from([b"Content-Length", b"content-length"])), len(body)))
    elif framing == "chunks":
        lines.append(b"Transfer-Encoding: " + draw(st.sampled_from([b"chunked", b"chunked "])))
        at = draw(st.lists(st.integers(0, 60), max_size=4))
        pieces = [piece for piece in splits_at(body, at) if piece]
        extension = draw(st.sampled_from([b"", b";a", b";a=b", b';a="b c"']))
        body = b"".join(b"%X%s\r\n%s\r\n" % (len(piece), extension, piece) for piece in pieces) + b"0\r\n"
        body += b"".join(b"%s: %s\r\n" % pair for pair in draw(st.lists(HEADER, max_size=2))) + b"\r\n"
    head = b"".join(b"HTTP/1.1 %d Wait\r\nx: y\r\n\r\n" % one for one in interim)
    return head + end.join([*lines, b"", b""]) + (b"" if status in (204, 304) else body)


BITS = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b"\0", b" ", b"\t", b":", b";", b",", b"0", b"1", b"-", b"+", b"\xff", b"a"]
)
EDIT = st.tuples(st.integers(0, 10_000), st.integers(0, 3), BITS | st.just(b""))


def edited(raw: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """The bytes with some of them replaced."""
    for at, length, bits in edits:
        place = at % (len(raw) + 1)
        raw = raw[:place] + bits + raw[place + length :]
    return raw
