"""What every transport does alike over real sockets: requests go out as they are, answers come in as they are."""

import asyncio
import shutil
from collections.abc import Iterator

import pytest

from chat_api.types import Body
from tests.hops import (
    HTTPX,
    OK,
    WIRE,
    WIRE_UVLOOP,
    Asked,
    Hop,
    Peer,
    Pieces,
    answering,
    asking,
    fetch,
    then_waiting,
    upstream,
)
from tests.proxies import free_port, running

LARGE = bytes(range(256)) * 20 * 1024  # 5 MiB, in which no byte stands where its neighbour does


@pytest.fixture(scope="module")
def socks() -> Iterator[str]:
    """The URL of a SOCKS5 proxy."""
    if shutil.which("microsocks") is None:
        pytest.skip("not installed: microsocks")
    port = free_port()
    with running(port, "microsocks", "-i", "127.0.0.1", "-p", str(port)):
        yield f"socks5://127.0.0.1:{port}"


@pytest.fixture(params=[WIRE, WIRE_UVLOOP, HTTPX, "socks"], ids=str)
def hop(request: pytest.FixtureRequest) -> Hop:
    """Every transport, and httpx through a proxy."""
    if request.param == "socks":
        return HTTPX._replace(proxy=request.getfixturevalue("socks"))
    found: Hop = request.param
    return found


def test_answer_comes_with_its_headers_in_lower_case_and_its_bytes_undecoded(hop: Hop) -> None:
    """Status, raw header pairs in their order, repeated ones too, and the body are handed on as they came."""
    raw = b"HTTP/1.1 418 Teapot\r\nX-Ms-Region: A b\r\nSet-Cookie: a=1\r\nX-Empty:\r\nSet-Cookie: b=2\r\n"
    raw += b"X-Latin: \xe9\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x00\xffc"
    answer = hop.fetch(answering(raw))

    assert answer.status == 418
    assert answer.headers == (
        (b"x-ms-region", b"A b"),
        (b"set-cookie", b"a=1"),
        (b"x-empty", b""),
        (b"set-cookie", b"b=2"),
        (b"x-latin", b"\xe9"),
        (b"content-encoding", b"gzip"),
        (b"content-length", b"3"),
    )
    assert answer.body == b"\x00\xffc"


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        pytest.param(OK, b"ok", id="length"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b"", id="nothing"),
        pytest.param(CHUNKED + b"3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n", b"abc0123456789", id="chunked"),
        pytest.param(CHUNKED + b"0\r\n\r\n", b"", id="chunked-nothing"),
        pytest.param(CHUNKED + b'3;a=b;c="d;e";f\r\nabc\r\n0;g\r\n\r\n', b"abc", id="extensions"),
        pytest.param(CHUNKED + b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nServer-Timing: a\r\n\r\n", b"abc", id="trailers"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end", id="until-close"),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end", id="until-close-1.0"),
        pytest.param(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"", id="until-close-nothing"),
        pytest.param(b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok", b"ok", id="no-reason"),
    ],
)
def test_body_ends_where_its_framing_says(hop: Hop, raw: bytes, body: bytes) -> None:
    """A length, a last chunk and the end of the connection end a body (RFC 9112 section 6)."""
    answer = hop.fetch(answering(raw))

    assert (answer.status, answer.body) == (200, body)
    assert b"x-sum" not in dict(answer.headers)


@pytest.mark.parametrize(
    "interim",
    [
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", id="100"),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 3, id="several-103"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nX: y\r\n\r\n", id="100-102"),
        pytest.param(b"HTTP/1.1 104 Upload Resumption Supported\r\n\r\nHTTP/1.1 199 X\r\n\r\n", id="others"),
    ],
)
def test_interim_answers_are_skipped(hop: Hop, interim: bytes) -> None:
    """What comes before the answer is none, and leaves nothing in it (RFC 9110 section 15.2)."""
    answer = hop.fetch(answering(interim + OK))

    assert answer == (200, ((b"content-length", b"2"),), b"ok")


@pytest.mark.parametrize(
    ("method", "head", "status"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", 200),
        ("HEAD", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", 200),
        ("HEAD", b"HTTP/1.1 404 No\r\n\r\n", 404),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        ("GET", b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", 204),
        ("GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\netag: x\r\n\r\n", 304),
    ],
)
def test_answer_without_a_body_ends_with_its_head(hop: Hop, method: str, head: bytes, status: int) -> None:
    """HEAD, 204 and 304 have no body whatever their heads say, and nobody waits for one."""
    answer = hop.fetch(then_waiting(head), b"", method)

    assert (answer.status, answer.body) == (status, b"")


PIECES = (b"a", b"", b"bc", LARGE, b"d")
WHOLE = b"".join(PIECES)


@pytest.mark.parametrize(
    ("body", "framing", "sent"),
    [
        pytest.param(lambda: b"", b"content-length: 0", b"", id="empty"),
        pytest.param(lambda: b"{}", b"content-length: 2", b"{}", id="small"),
        pytest.param(lambda: LARGE, b"content-length: %d" % len(LARGE), LARGE, id="large"),
        pytest.param(lambda: Pieces(*PIECES), b"transfer-encoding: chunked", WHOLE, id="streamed"),
        pytest.param(
            lambda: Pieces(*PIECES, size=len(WHOLE)), b"content-length: %d" % len(WHOLE), WHOLE, id="streamed-with-size"
        ),
        pytest.param(lambda: Pieces(*PIECES, is_repeatable=True), b"transfer-encoding: chunked", WHOLE, id="spooled"),
        pytest.param(lambda: Pieces(), b"transfer-encoding: chunked", b"", id="streamed-nothing"),
        pytest.param(lambda: Pieces(size=0), b"content-length: 0", b"", id="streamed-nothing-with-size"),
    ],
)
def test_body_goes_out_as_it_is(hop: Hop, body: type[bytes | Body], framing: bytes, sent: bytes) -> None:
    """A body arrives as it was given, framed once: by its length where that is known, else in chunks."""
    asked: list[Asked] = []

    async def serve(peer: Peer) -> None:
        asked.append(await peer.answer())

    assert hop.fetch(serve, body()).status == 200
    head = asked[0].head.lower()
    assert asked[0].body == sent
    assert b"\r\n" + framing + b"\r\n" in head
    assert head.count(b"content-length:") + head.count(b"transfer-encoding:") == 1


def test_head_goes_out_as_it_is(hop: Hop) -> None:
    """Method, target and headers arrive as they were given, beside the host and the framing."""
    asked: list[Asked] = []

    async def serve(peer: Peer) -> None:
        asked.append(await peer.answer())

    async def main() -> None:
        async with upstream(serve) as up, hop.transport() as transport:
            url = f"http://127.0.0.1:{up.port}/a%2Fb/c;d?api-version=2024-10-21&x=%20"
            await fetch(transport, asking(url, b"{}", "PATCH", (b"x-ms-a", b"1"), (b"x-ms-a", b"2, 3")))
            lines = asked[0].head.split(b"\r\n")
            assert lines[0] == b"PATCH /a%2Fb/c;d?api-version=2024-10-21&x=%20 HTTP/1.1"
            assert sorted(line.lower() for line in lines[1:] if line) == [
                b"api-key: canary",
                b"content-length: 2",
                b"host: 127.0.0.1:%d" % up.port,
                b"x-ms-a: 1",
                b"x-ms-a: 2, 3",
            ]

    hop.run(main())


def test_body_comes_while_it_arrives(hop: Hop) -> None:
    """Each piece of an answer is handed on before the next one is sent."""
    taken = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.answer(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n")
        for piece in (b"ab", b"cd", b"ef"):
            await peer.send(piece)
            await taken.wait()
            taken.clear()

    async def main() -> list[bytes]:
        pieces = []
        async with upstream(serve) as up, hop.transport() as transport:
            response = await transport.send(asking(up.url))
            async for piece in response.chunks():
                pieces.append(piece)
                taken.set()
            await response.aclose()
        return pieces

    assert hop.run(main()) == [b"ab", b"cd", b"ef"]
