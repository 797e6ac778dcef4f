"""The wire's parser as a table: bytes whole, split at every index, and one by one; and what is beyond every measure."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

import pytest

from chat_api.types import Headers
from chat_api.wire.parser import MAX_FRUITLESS_BYTES, MAX_HEAD_BYTES, MAX_HEADERS, ResponseParser, Unreadable
from chat_api.wire.response import Response
from tests.hops import OK
from tests.wires import splits


class Nobody:
    """The connection of a response that has none."""

    def pause(self) -> None:
        """Nothing."""

    def resume(self) -> None:
        """Nothing."""

    def let_go(self) -> None:
        """Nothing."""


@dataclass
class Read:
    """What a parser made of some bytes."""

    status: int
    headers: Headers
    body: bytes
    is_complete: bool
    keeps_alive: bool


def read(pieces: Iterable[bytes], *, is_head: bool = False, ends: bool = False) -> Read:
    """Feed a parser, no further than to the end of the response; `ends` if the connection does."""

    async def main() -> Read:
        response = Response(Nobody(), asyncio.get_running_loop())
        parser = ResponseParser()
        parser.begin(response, without_body=is_head)
        for piece in pieces:
            if not parser.complete:
                parser.feed(piece)
        if ends and not parser.complete:
            parser.feed_end()
        is_complete = parser.complete
        response.end()
        body = b"".join([chunk async for chunk in response.chunks()])
        return Read(response.status, tuple(response.headers), body, is_complete, parser.keeps_alive)

    with asyncio.Runner() as runner:
        return runner.run(main())


LENGTH = (b"content-length", b"2")
CODING = (b"transfer-encoding", b"chunked")
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("raw", "status", "headers", "body", "keeps_alive"),
    [
        pytest.param(OK, 200, (LENGTH,), b"ok", True, id="length"),
        pytest.param(OK.replace(b"\r\n", b"\n"), 200, (LENGTH,), b"ok", True, id="bare-lf"),
        pytest.param(OK.replace(b" OK", b""), 200, (LENGTH,), b"ok", True, id="no-reason"),
        pytest.param(OK.replace(b"OK", b"\xe9 !"), 200, (LENGTH,), b"ok", True, id="odd-reason"),
        pytest.param(OK.replace(b"200", b"599"), 599, (LENGTH,), b"ok", True, id="unknown-status"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nA:\r\nB:1\r\nC:\t 2 3\r\nb:4\r\nContent-LENGTH: 0\r\n\r\n",
            200,
            ((b"a", b""), (b"b", b"1"), (b"c", b"2 3"), (b"b", b"4"), (b"content-length", b"0")),
            b"",
            True,
            id="headers",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nA: 1  \t\r\nContent-Length: 2 \r\n\r\nok",
            200,
            ((b"a", b"1"), LENGTH),
            b"ok",
            True,
            id="space-after-values",
        ),
        pytest.param(CHUNKED + b"3\r\nabc\r\n01\r\nd\r\n0\r\n\r\n", 200, (CODING,), b"abcd", True, id="chunks"),
        pytest.param(CHUNKED + b"00a\r\n0123456789\r\n000\r\n\r\n", 200, (CODING,), b"0123456789", True, id="hex"),
        pytest.param(CHUNKED + b'1;a;b=c;d="e;\\"f"\r\nx\r\n0;y=z\r\n\r\n', 200, (CODING,), b"x", True, id="extension"),
        pytest.param(CHUNKED + b"1\r\nx\r\n0\r\nSum: 1\r\nA: b\r\n\r\n", 200, (CODING,), b"x", True, id="trailers"),
        pytest.param(b"HTTP/1.1 204 No\r\n\r\n", 204, (), b"", True, id="204"),
        pytest.param(b"HTTP/1.1 304 Same\r\nContent-Length: 2\r\n\r\n", 304, (LENGTH,), b"", True, id="304"),
        pytest.param(b"HTTP/1.1 100 Go\r\n\r\n" + OK, 200, (LENGTH,), b"ok", True, id="100"),
        pytest.param(b"HTTP/1.1 103 Hint\r\nContent-Length: 5\r\n\r\n" * 2 + OK, 200, (LENGTH,), b"ok", True, id="103"),
        pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, (LENGTH,), b"ok", False, id="1.0"),
        pytest.param(
            b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok",
            200,
            ((b"connection", b"Keep-Alive"), LENGTH),
            b"ok",
            True,
            id="1.0-kept",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\nok",
            200,
            ((b"connection", b"x, Close"), LENGTH),
            b"ok",
            False,
            id="close",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nok",
            200,
            ((b"connection", b"upgrade"), (b"upgrade", b"h2c"), LENGTH),
            b"ok",
            True,
            id="upgrade-offered",
        ),
    ],
)  # fmt: skip
def test_response_is_the_same_however_it_is_split(
    raw: bytes, status: int, headers: Headers, body: bytes, keeps_alive: bool
) -> None:
    """Bytes whole, in two at every index, or one by one: the same response, complete with its last byte, not before."""
    for pieces in splits(raw):
        assert read(pieces) == Read(status, headers, body, True, keeps_alive), pieces
    assert not read([raw[:-1]], ends=True).is_complete


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nConnection: close\r\n", b"HTTP/1.0 200 OK\r\n"]
)
@pytest.mark.parametrize("body", [b"", b"until the end"])
def test_response_until_close_ends_with_its_connection(head: bytes, body: bytes) -> None:
    """Without a length and without chunks a body has no other end."""
    for pieces in splits(head + b"\r\n" + body):
        assert not read(pieces).is_complete
        found = read(pieces, ends=True)
        assert (found.is_complete, found.body, found.keeps_alive) == (True, body, False)


@pytest.mark.parametrize("framing", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b""])
def test_response_to_head_ends_with_its_head(framing: bytes) -> None:
    """HEAD: a length describes what GET would have; a body that comes all the same belongs to nothing."""
    raw = b"HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 200 OK\r\n" + framing + b"\r\n"
    for pieces in splits(raw):
        found = read(pieces, is_head=True)
        assert (found.status, found.body, found.is_complete) == (200, b"", True)
    found = read([raw + b"hello"], is_head=True)
    assert (found.body, found.is_complete, found.keeps_alive) == (b"", True, False)


@pytest.mark.parametrize("excess", [b"x", OK, b"HTTP/1.1 100 Go\r\n\r\n", b"\0"])
@pytest.mark.parametrize("raw", [OK, b"HTTP/1.1 204 No\r\n\r\n", CHUNKED + b"1\r\nx\r\n0\r\n\r\n"])
def test_what_follows_a_response_is_no_part_of_it(raw: bytes, excess: bytes) -> None:
    """Bytes after the end are dropped, and no other response is read from that connection."""
    alone = read([raw])
    assert alone.keeps_alive
    for pieces in [(raw[:at], raw[at:] + excess) for at in range(1, len(raw))]:
        found = read(pieces)
        assert (found.status, found.headers, found.body) == (alone.status, alone.headers, alone.body)
        assert found.is_complete
        assert not found.keeps_alive


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"hello\r\n\r\n", id="garbage"),
        pytest.param(b"\x16\x03\x01\x00\x05", id="tls"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="request"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="http2"),
        pytest.param(b"\r\n" + OK, id="blank-line-before"),
        pytest.param(OK.replace(b"1.1", b"2.0"), id="version-2"),
        pytest.param(OK.replace(b"1.1", b"0.9"), id="version-0.9"),
        pytest.param(OK.replace(b"HTTP", b"RTSP"), id="rtsp"),
        pytest.param(OK.replace(b"HTTP/1.1", b"ICE/1.0"), id="ice"),
        pytest.param(b"HTTP/2.0 100 Go\r\n\r\n" + OK, id="interim-version-2"),
        pytest.param(b"HTTP/1.1 101 Switch\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", id="101"),
        pytest.param(b"HTTP/1.1 104 Go\r\nContent-Length: 5\r\n\r\nhello" + OK, id="interim-with-a-length"),
        pytest.param(CHUNKED.replace(b"200", b"199") + b"1\r\nx\r\n0\r\n\r\n" + OK, id="interim-with-chunks"),
        pytest.param(b"HTTP/1.1 099 Low\r\n\r\n", id="status-below-100"),
        pytest.param(b"HTTP/1.1 000 Nil\r\n\r\n", id="status-0"),
        pytest.param(OK.replace(b"200", b"20"), id="status-short"),
        pytest.param(OK.replace(b"200", b"2000"), id="status-long"),
        pytest.param(OK.replace(b"200", b"-20"), id="status-negative"),
        pytest.param(OK.replace(b"length: 2", b"length: -2"), id="length-negative"),
        pytest.param(OK.replace(b"length: 2", b"length: +2"), id="length-plus"),
        pytest.param(OK.replace(b"length: 2", b"length: 0x2"), id="length-hex"),
        pytest.param(OK.replace(b"length: 2", b"length: 2, 2"), id="length-list"),
        pytest.param(OK.replace(b"length: 2", b"length:"), id="length-empty"),
        pytest.param(OK.replace(b"length: 2", b"length: 99999999999999999999"), id="length-overflow"),
        pytest.param(OK.replace(b"length: 2", b"length: 2\r\ncontent-length: 2"), id="length-twice"),
        pytest.param(OK.replace(b"length: 2", b"length: 2\r\ncontent-length: 3"), id="two-lengths"),
        pytest.param(OK.replace(b"content", b"transfer-encoding: chunked\r\ncontent"), id="length-and-chunks"),
        pytest.param(CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 2\r\n\r\n"), id="chunks-and-length"),
        pytest.param(CHUNKED.replace(b"chunked", b"gzip"), id="gzip"),
        pytest.param(CHUNKED.replace(b"chunked", b"gzip, chunked"), id="gzip-chunked"),
        pytest.param(CHUNKED.replace(b"chunked", b"identity"), id="identity"),
        pytest.param(CHUNKED.replace(b"chunked", b"xchunked"), id="xchunked"),
        pytest.param(CHUNKED.replace(b"chunked", b"chunked\r\nTransfer-Encoding: chunked"), id="chunked-twice"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", id="folded"),
        pytest.param(b"HTTP/1.1 200 OK\r\n A: b\r\n\r\n", id="space-before-name"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", id="space-after-name"),
        pytest.param(b"HTTP/1.1 200 OK\r\n: b\r\n\r\n", id="no-name"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA\r\n\r\n", id="no-colon"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA(b): c\r\n\r\n", id="name-is-no-token"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n", id="nul"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n", id="bare-cr"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: \x01\r\n\r\n", id="control"),
        pytest.param(CHUNKED + b"g\r\n", id="chunk-size"),
        pytest.param(CHUNKED + b"-1\r\n", id="chunk-size-negative"),
        pytest.param(CHUNKED + b"0x1\r\nx\r\n", id="chunk-size-hex"),
        pytest.param(CHUNKED + b"fffffffffffffffff\r\nx\r\n", id="chunk-size-overflow"),
        pytest.param(CHUNKED + b"\r\nx\r\n", id="no-chunk-size"),
        pytest.param(CHUNKED + b"1\nx\r\n0\r\n\r\n", id="bare-lf-after-chunk-size"),
        pytest.param(CHUNKED + b"1\r\nx\n0\r\n\r\n", id="bare-lf-after-chunk"),
        pytest.param(CHUNKED + b"1\r\nxy\r\n0\r\n\r\n", id="chunk-too-long"),
        pytest.param(CHUNKED + b"0\r\nA b\r\n\r\n", id="trailer-without-colon"),
    ],
)  # fmt: skip
def test_what_is_no_response_is_refused_however_it_is_split(raw: bytes) -> None:
    """Nothing that could be read in two ways, or is no HTTP, is read as a response."""
    for pieces in splits(raw):
        with pytest.raises(Unreadable):
            read(pieces)


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(HEAD + b"x: " + b"y" * 2 * MAX_FRUITLESS_BYTES, id="endless-value"),
        pytest.param(HEAD + b"x" * 2 * MAX_FRUITLESS_BYTES, id="endless-name"),
        pytest.param(b"HTTP/1.1 200 " + b"y" * 2 * MAX_FRUITLESS_BYTES, id="endless-reason"),
        pytest.param(HEAD + b"x: y\r\n" * (MAX_HEADERS + 1) + b"\r\n", id="headers"),
        pytest.param(HEAD + (b"x: " + b"y" * 1000 + b"\r\n") * 70 + b"\r\n", id="large-headers"),
        pytest.param(b"HTTP/1.1 100 Go\r\n\r\n" * 5000, id="endless-interim"),
        pytest.param(b"HTTP/1.1 103 Hint\r\nx: y\r\n\r\n" * 5000, id="endless-interim-headers"),
        pytest.param(CHUNKED + b"1;" + b"x" * 2 * MAX_FRUITLESS_BYTES, id="endless-extension"),
        pytest.param(CHUNKED + b"0\r\n" + b"x: y\r\n" * 20_000, id="endless-trailers"),
        pytest.param(CHUNKED + b"0\r\nx: " + b"y" * 2 * MAX_FRUITLESS_BYTES, id="endless-trailer"),
        pytest.param(b"\r\n" * MAX_FRUITLESS_BYTES, id="endless-blank-lines"),
    ],
)
@pytest.mark.parametrize("size", [100, 65_536, 10_000_000], ids=["hundreds", "64k", "whole"])
def test_what_has_no_measure_is_refused(raw: bytes, size: int) -> None:
    """A head, an extension, a trailer section or a row of interim answers without an end is given up."""
    with pytest.raises(Unreadable):
        read(raw[at : at + size] for at in range(0, len(raw), size))


def test_large_heads_and_bodies_within_measure_are_read() -> None:
    """What is allowed is allowed to its last byte, and a body has no bound."""
    lines = [b"x: y\r\n"] * (MAX_HEADERS - 1) + [b"content-length: 1000000\r\n"]
    raw = HEAD + b"".join(lines) + b"\r\n" + bytes(1_000_000)
    found = read([raw])
    assert (len(found.headers), len(found.body)) == (MAX_HEADERS, 1_000_000)
    big = b"y" * (MAX_HEAD_BYTES - 1000)
    assert read([HEAD + b"x: " + big + b"\r\ncontent-length: 0\r\n\r\n"]).headers[0] == (b"x", big)
    chunks = CHUNKED + b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n"
    assert len(read([chunks[at : at + 1000] for at in range(0, len(chunks), 1000)]).body) == 100_000


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(OK, id="length"),
        pytest.param(CHUNKED + b"1\r\nx\r\n0\r\na: b\r\n\r\n", id="trailers"),
        pytest.param(CHUNKED + b"0\r\nConnection: close\r\n\r\n", id="trailer-close"),
        pytest.param(CHUNKED + b"0\r\nTransfer-Encoding: gzip\r\n\r\n", id="trailer-coding"),
        pytest.param(CHUNKED + b"0\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", id="trailer-upgrade"),
        pytest.param(b"HTTP/1.1 103 Hint\r\na: b\r\n\r\nHTTP/1.1 204 No\r\n\r\n", id="interim"),
    ],
)
def test_parser_that_keeps_alive_reads_the_next_response(first: bytes) -> None:
    """Nothing of a response is left in the next one, nor does it get in its way."""

    async def main() -> None:
        parser = ResponseParser()
        for raw in (first, OK, first, OK):
            response = Response(Nobody(), asyncio.get_running_loop())
            parser.begin(response, without_body=False)
            assert (parser.begun, parser.head_complete, parser.complete) == (False, False, False)
            parser.feed(raw)
            assert parser.complete
            if not parser.keeps_alive:
                break
            response.end()
            body = b"".join([chunk async for chunk in response.chunks()])
            assert raw is first or (response.headers, body) == ([LENGTH], b"ok")

    asyncio.run(main())
