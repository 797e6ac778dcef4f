"""How every transport fails once it is connected, over real sockets: each way has its class, its code and its words."""

import asyncio
import re
from dataclasses import dataclass, replace

import pytest

from chat_api.errors import (
    CutShort,
    FirstByteTimeout,
    GatewayError,
    IdleTimeout,
    NotHttp,
    PoolTimeout,
    UpstreamClosed,
    UpstreamError,
    WriteTimeout,
)
from chat_api.failures import Limits
from tests.hops import (
    HASTY,
    HTTPX,
    UNCHECKED,
    WIRE,
    WIRE_UVLOOP,
    Hop,
    Peer,
    Pieces,
    Serve,
    answering,
    asking,
    fetch,
    keeping,
    silent,
    then_waiting,
    trusted,
    upstream,
)

HUGE = bytes(50 * 1024 * 1024)  # more than the sockets between take


@pytest.fixture(params=[WIRE, WIRE_UVLOOP, HTTPX], ids=str)
def hop(request: pytest.FixtureRequest) -> Hop:
    """Every transport."""
    found: Hop = request.param
    return found


@dataclass
class Kind:
    """A way to fail."""

    error: type[GatewayError]
    status: int
    code: str
    words: str  # a pattern
    words_of_httpx: str = ""


NOT_HTTP = Kind(
    NotHttp, 502, "upstream_not_http", "HOST (sent|answered) .*; check ENDPOINT", "HOST does not speak .*ENDPOINT"
)
CLOSED = Kind(UpstreamClosed, 502, "upstream_closed", "HOST closed the connection without answering")
CUT = Kind(CutShort, 502, "answer_cut_short", "HOST broke off its answer: .+")
LATE = Kind(FirstByteTimeout, 504, "upstream_timeout", r"no answer from HOST within FIRST_BYTE_TIMEOUT \(0.2 s\)")
STUCK = Kind(IdleTimeout, 504, "upstream_timeout", r"HOST went silent for IDLE_TIMEOUT \(0.2 s\) within its answer")
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
PATIENT_TO_CONNECT = replace(HASTY, connect_seconds=10.0)  # which is not what fails here
LENGTH = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"


@pytest.mark.parametrize(
    ("serve", "kind"),
    [
        pytest.param(silent, LATE, id="no-head"),
        pytest.param(then_waiting(b"HTTP/1.1 200 OK\r\nx"), LATE, id="half-a-head"),
        pytest.param(then_waiting(b"HTTP/1.1 100 Continue\r\n\r\n"), LATE, id="interim-only"),
        pytest.param(then_waiting(LENGTH), STUCK, id="no-body"),
        pytest.param(then_waiting(LENGTH + b"abc"), STUCK, id="half-a-body"),
        pytest.param(then_waiting(CHUNKED + b"3\r\nabc\r\n0\r\n"), STUCK, id="no-end"),
        pytest.param(answering(b"hello\r\n\r\n"), NOT_HTTP, id="garbage"),
        pytest.param(then_waiting(b"SSH-2.0-OpenSSH_9.9\r\n\r\n"), NOT_HTTP, id="ssh"),
        pytest.param(then_waiting(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000), NOT_HTTP, id="endless-head"),
        pytest.param(then_waiting(b"HTTP/1.1 099 X\r\n\r\n" + b"y" * 600_000), NOT_HTTP, id="no-status"),
        pytest.param(answering(b""), CLOSED, id="closed"),
        pytest.param(answering(b"HTTP/1.1 200 OK\r\ncontent-le"), CLOSED, id="head-cut"),
        pytest.param(answering(b"HTTP/1.1 100 Continue\r\n\r\n"), CLOSED, id="interim-cut"),
        pytest.param(answering(LENGTH), CUT, id="no-body-cut"),
        pytest.param(answering(LENGTH + b"abc"), CUT, id="body-short"),
        pytest.param(answering(CHUNKED + b"3\r\nabc\r\n"), CUT, id="chunks-without-an-end"),
        pytest.param(answering(CHUNKED + b"9\r\nabc"), CUT, id="chunk-cut"),
        pytest.param(answering(CHUNKED + b"3\r\nabc\r\n0\r\nx: y\r\n"), CUT, id="trailers-cut"),
        pytest.param(then_waiting(CHUNKED + b"3\r\nabc\r\nzz\r\n"), CUT, id="chunk-garbage"),
    ],
)
def test_fault_is_told_apart(hop: Hop, serve: Serve, kind: Kind) -> None:
    """Each way to fail has its class, code and words, and none has the key; an early end is never an end."""

    async def main() -> tuple[GatewayError, str]:
        async with upstream(serve) as up, hop.transport(PATIENT_TO_CONNECT) as transport:
            with pytest.raises(GatewayError) as caught:
                await fetch(transport, asking(up.url))
            return caught.value, up.host

    error, host = hop.run(main())
    assert type(error) is kind.error
    assert (error.status, error.code) == (kind.status, kind.code)
    words = (hop == HTTPX and kind.words_of_httpx) or kind.words
    assert re.fullmatch(words.replace("HOST", re.escape(host)), error.message)
    assert "canary" not in repr(error) + repr(error.__cause__)


@pytest.mark.parametrize("hop", [WIRE, WIRE_UVLOOP], ids=str)
def test_other_protocol_is_none(hop: Hop) -> None:
    """An upstream that switches to another protocol, unasked, speaks no HTTP; httpx would hand on its 101."""
    raw = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nx"
    with pytest.raises(NotHttp, match="answered 101, which is no answer"):
        hop.fetch(then_waiting(raw))


def test_each_limit_counts_in_its_own_phase(hop: Hop) -> None:
    """Once the head is there the idle limit counts, and no longer the first byte's: be it the longer or the shorter."""
    late = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.answer(LENGTH)
        asyncio.get_running_loop().call_later(0.3, late.set)
        await late.wait()
        await peer.send(b"123456789")

    assert hop.fetch(serve, limits=Limits(5, first_byte_seconds=0.2, idle_seconds=5)).body == b"123456789"
    with pytest.raises(IdleTimeout):
        hop.fetch(then_waiting(LENGTH), limits=Limits(5, first_byte_seconds=600, idle_seconds=0.2))


def test_answer_is_not_cut_by_the_time_that_it_takes(hop: Hop) -> None:
    """The limits are of silence: an answer that goes on may last longer than any of them."""
    late = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.answer(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n")
        for _ in range(6):
            asyncio.get_running_loop().call_later(0.05, late.set)
            await late.wait()
            late.clear()
            await peer.send(b"x")

    assert hop.fetch(serve, limits=HASTY).body == b"x" * 6


async def reading_nothing(peer: Peer) -> None:
    """Reads a head and no more."""
    await peer.head()
    await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("is_streamed", [False, True], ids=["bytes", "streamed"])
def test_request_that_is_not_taken(hop: Hop, is_streamed: bool, is_tls: bool) -> None:
    """An upstream that stops reading a request is given up after IDLE_TIMEOUT."""
    served, trusting = trusted() if is_tls else (None, UNCHECKED)
    limits = Limits(connect_seconds=5, first_byte_seconds=2, idle_seconds=0.2)
    body = Pieces(*[HUGE[: 1024 * 1024]] * 50) if is_streamed else HUGE

    async def main() -> tuple[GatewayError, str]:
        async with upstream(reading_nothing, served) as up, hop.transport(limits, trusting) as transport:
            with pytest.raises(GatewayError) as caught:
                await fetch(transport, asking(up.url, body))
            return caught.value, up.url.split("/")[2]

    error, host = hop.run(main())
    assert type(error) is WriteTimeout
    assert (error.status, error.code) == (504, "upstream_timeout")
    assert error.message == f"{host} took nothing of the request for IDLE_TIMEOUT (0.2 s)"


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("is_streamed", [False, True], ids=["bytes", "streamed"])
def test_request_that_is_taken_slowly(hop: Hop, is_streamed: bool, is_tls: bool) -> None:
    """An upstream that takes a request in bursts, each within IDLE_TIMEOUT, is not given up."""
    served, trusting = trusted() if is_tls else (None, UNCHECKED)
    body = HUGE[: 12 * 1024 * 1024]

    async def serve(peer: Peer) -> None:
        late = asyncio.Event()
        await peer.head()
        left = len(body)
        while left:
            left -= len(await peer.read(min(left, 2**20)))
            if left % 2**21 < 2**16:
                asyncio.get_running_loop().call_later(0.1, late.set)
                await late.wait()
                late.clear()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    limits = Limits(connect_seconds=5, first_byte_seconds=2, idle_seconds=0.2)

    async def main() -> int:
        async with upstream(serve, served) as up, hop.transport(limits, trusting) as transport:
            pieces = Pieces(*[body[: 2**18]] * (len(body) // 2**18), size=len(body))
            return (await fetch(transport, asking(up.url, pieces if is_streamed else body))).status

    assert hop.run(main()) == 200


def test_all_connections_busy(hop: Hop) -> None:
    """When no connection comes free in time the caller is asked to come back; then the next one is served."""
    limits = Limits(connect_seconds=0.2, first_byte_seconds=5, idle_seconds=5, connections=1)
    asked, answering_now = asyncio.Event(), asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await answering_now.wait()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await keeping(peer)

    async def main() -> GatewayError:
        async with upstream(serve) as up, hop.transport(limits) as transport:
            first = asyncio.create_task(fetch(transport, asking(up.url)))
            await asked.wait()
            with pytest.raises(PoolTimeout) as caught:
                await fetch(transport, asking(up.url))
            answering_now.set()
            assert (await first).body == b"ok"
            assert (await fetch(transport, asking(up.url))).body == b"ok"
            assert up.connections == 1
            assert up.host in caught.value.message or hop == HTTPX
            return caught.value

    error = hop.run(main())
    assert (error.status, error.code) == (503, "pool_exhausted")
    assert error.message.startswith("all 1 connections to 127.0.0.1:")
    assert error.message.endswith(" are busy; try again shortly")
    assert error.headers == ((b"retry-after", b"1"),)


class Broken(Pieces):
    """A body whose sender fails within it."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    async def __aiter__(self):  # type: ignore[no-untyped-def]
        yield b"abc"
        raise self._error


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"], ids=["before", "after"])
def test_body_that_cannot_be_sent(hop: Hop, sent: bytes) -> None:
    """What goes wrong in a body ends its request as that error, and the upstream sees no end of it."""
    got: list[bytes] = []

    async def serve(peer: Peer) -> None:
        await peer.head()
        await peer.send(sent)
        while data := await peer.read(1000):
            got.append(data)

    with pytest.raises(UpstreamError, match="told by the test"):
        hop.fetch(serve, Broken(UpstreamError("told by the test")))
    assert b"0\r\n\r\n" not in b"".join(got)
