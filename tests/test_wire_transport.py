"""The wire over real sockets, on both event loops: dead connections, early answers, backpressure, and its end."""

import asyncio
import gc

import pytest

from chat_api.errors import CutShort, PoolTimeout, UpstreamClosed
from chat_api.failures import Limits
from chat_api.types import Body
from chat_api.wire import WireTransport
from chat_api.wire.connection import Connection
from chat_api.wire.pool import Pool
from chat_api.wire.response import Response
from tests.hops import (
    OK,
    PATIENT,
    UNCHECKED,
    WIRE,
    WIRE_UVLOOP,
    Hop,
    Peer,
    Pieces,
    asking,
    fetch,
    keeping,
    then_waiting,
    trusted,
    upstream,
)

ONE = Limits(connect_seconds=5, first_byte_seconds=5, idle_seconds=5, connections=1)


@pytest.fixture(params=[WIRE, WIRE_UVLOOP], ids=str)
def hop(request: pytest.FixtureRequest) -> Hop:
    """The wire, on each event loop."""
    found: Hop = request.param
    return found


class Scripted:
    """An upstream whose connections follow their scripts: what each request on them is answered with; b"" is nothing.

    At the end of its script a connection is closed, once its last request has come.
    """

    def __init__(self, *scripts: list[bytes]) -> None:
        self._scripts = list(scripts)
        self.heads: list[int] = []  # of the requests that came, the number of their connection

    async def __call__(self, peer: Peer) -> None:
        number = len(self._scripts)
        for raw in self._scripts.pop(0):
            await (peer.request() if raw else peer.head())
            self.heads.append(number)
            await peer.send(raw)


@pytest.mark.parametrize(
    "body", [b"", bytes(10**6), Pieces(b"ab", is_repeatable=True)], ids=["none", "large", "spooled"]
)
def test_connection_that_died_unnoticed_costs_nothing(hop: Hop, body: Body) -> None:
    """A kept connection that closes as the next request arrives is a second try over a new one, and a 200."""
    serve = Scripted([OK, b""], [OK])

    async def main() -> None:
        async with upstream(serve) as up, hop.transport() as transport:
            assert (await fetch(transport, asking(up.url, b""))).status == 200
            assert (await fetch(transport, asking(up.url, body))).body == b"ok"
            assert up.connections == 2

    hop.run(main())
    assert serve.heads == [2, 2, 1]


@pytest.mark.parametrize(
    ("scripts", "connections", "heads"),
    [
        pytest.param([[OK, b"H"], [OK]], 1, 2, id="byte-of-an-answer"),
        pytest.param([[OK, b"HTTP/1.1 100 Continue\r\n\r\n"], [OK]], 1, 2, id="interim-answer"),
        pytest.param([[OK, b""], [b""], [OK]], 2, 3, id="twice"),
    ],
)
def test_request_is_not_tried_again(hop: Hop, scripts: list[list[bytes]], connections: int, heads: int) -> None:
    """Not once an answer has begun, and not more than once."""
    serve = Scripted(*scripts)

    async def main() -> int:
        async with upstream(serve) as up, hop.transport() as transport:
            assert (await fetch(transport, asking(up.url, b""))).status == 200
            with pytest.raises(UpstreamClosed):
                await fetch(transport, asking(up.url, b""))
            return up.connections

    assert (hop.run(main()), len(serve.heads)) == (connections, heads)


def test_request_is_not_tried_again_over_a_first_use(hop: Hop) -> None:
    """A new connection that closes without an answer tells something of the request, not of the connection."""
    serve = Scripted([b""], [OK])
    with pytest.raises(UpstreamClosed):
        hop.fetch(serve)
    assert len(serve.heads) == 1


def test_answer_that_broke_is_not_tried_again(hop: Hop) -> None:
    """Half of an answer over a kept connection is half of an answer."""
    serve = Scripted([OK, OK[:-1]], [OK])

    async def main() -> None:
        async with upstream(serve) as up, hop.transport() as transport:
            assert (await fetch(transport, asking(up.url, b""))).status == 200
            with pytest.raises(CutShort):
                await fetch(transport, asking(up.url, b""))

    hop.run(main())
    assert len(serve.heads) == 2


@pytest.mark.parametrize("is_repeatable", [False, True])
def test_body_that_can_be_sent_once_goes_over_a_new_connection(hop: Hop, is_repeatable: bool) -> None:
    """A kept connection might be dead, and then the body would be spent; one that can be read again takes the risk."""

    async def main() -> int:
        async with upstream(keeping) as up, hop.transport() as transport:
            await fetch(transport, asking(up.url))
            await fetch(transport, asking(up.url, Pieces(b"ab", is_repeatable=is_repeatable)))
            return up.connections

    assert hop.run(main()) == (1 if is_repeatable else 2)


def test_body_that_can_be_sent_once_is_never_sent_twice(hop: Hop) -> None:
    """Nor where all connections are busy and one that was kept comes free, and dies: a spent body is not a body."""
    bodies: list[bytes] = []
    asked, go = asyncio.Event(), asyncio.Event()

    async def serve(peer: Peer) -> None:
        bodies.append((await peer.request()).body)
        asked.set()
        await go.wait()
        await peer.send(OK)
        if len(bodies) > 1:
            await keeping(peer)
        await peer.head()  # and closes as the next request comes

    async def main() -> None:
        body = Pieces(b"ab", b"cd")
        async with upstream(serve) as up, hop.transport(ONE) as transport:
            first = asyncio.create_task(fetch(transport, asking(up.url)))
            await asked.wait()
            second = asyncio.create_task(fetch(transport, asking(up.url, body)))
            await asyncio.sleep(0)
            go.set()
            assert (await first).status == 200
            (result,) = await asyncio.gather(second, return_exceptions=True)
            assert body.begun == 1
            assert isinstance(result, UpstreamClosed) or bodies == [b"{}", b"abcd"]

    hop.run(main())


def test_unasked_bytes_close_a_kept_connection(hop: Hop) -> None:
    """What an upstream says unasked is not taken for the answer to the next request (RFC 9112 section 9.2)."""
    closed = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.answer()
        if not closed.is_set():
            await peer.send(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")
            await peer.ended()
            closed.set()

    async def main() -> int:
        async with upstream(serve) as up, hop.transport() as transport:
            await fetch(transport, asking(up.url))
            await asyncio.wait_for(closed.wait(), 5)
            assert (await fetch(transport, asking(up.url))).body == b"ok"
            return up.connections

    assert hop.run(main()) == 2


REFUSAL = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 7\r\n\r\nrefused"


@pytest.mark.parametrize("is_streamed", [True, False], ids=["streamed", "bytes"])
def test_early_refusal_of_an_upload_reaches_the_caller(hop: Hop, is_streamed: bool) -> None:
    """An upstream that refuses an upload and reads no more of it is heard; its connection serves nobody else."""
    large = bytes(20 * 1024 * 1024)
    done = asyncio.Event()

    async def serve(peer: Peer) -> None:
        if done.is_set():
            return await keeping(peer)
        await peer.head()
        await peer.send(REFUSAL)
        await done.wait()
        return None

    async def main() -> int:
        async with upstream(serve) as up, hop.transport() as transport:
            body = Pieces(*[large[:65536]] * 320, is_repeatable=True) if is_streamed else large
            answer = await fetch(transport, asking(up.url, body))
            assert (answer.status, answer.body) == (413, b"refused")
            done.set()
            assert (await fetch(transport, asking(up.url))).body == b"ok"
            return up.connections

    assert hop.run(main()) == 2


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
def test_reader_that_stops_stops_the_upstream(hop: Hop, is_tls: bool) -> None:
    """Of an endless answer that nobody reads only so much is taken as sockets hold; read on, it comes whole."""
    served, trusting = trusted() if is_tls else (None, UNCHECKED)
    total, sent = 48 * 1024 * 1024, 0

    async def serve(peer: Peer) -> None:
        nonlocal sent
        await peer.answer(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
        while sent < total:
            await peer.send(bytes(65536))
            sent += 65536

    async def stalled() -> int:
        last, rounds = -1, 0
        while rounds < 100:  # of the loop, in which the upstream could have sent more
            rounds = rounds + 1 if sent == last else 0
            last = sent
            await asyncio.sleep(0)
        return sent

    async def main() -> None:
        async with upstream(serve, served) as up, hop.transport(verify=trusting) as transport:
            response = await transport.send(asking(up.url))
            assert await stalled() < 24 * 1024 * 1024
            chunks = response.chunks()
            size = len(await anext(chunks))
            assert size < 2 * 1024 * 1024
            assert await stalled() < 24 * 1024 * 1024
            async for chunk in chunks:
                size += len(chunk)
            assert size == total
            await response.aclose()

    hop.run(main())


def test_closed_transport_connects_to_nobody(hop: Hop) -> None:
    """A request that aclose ends, or one that waits for a connection then, is not tried over a new one."""
    asked = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.answer()
        await peer.request()
        asked.set()
        await peer.ended()

    async def main() -> int:
        async with upstream(serve) as up, hop.transport(ONE) as transport:
            await fetch(transport, asking(up.url))
            requests = [asyncio.create_task(fetch(transport, asking(up.url))) for _ in range(2)]
            await asked.wait()
            await transport.aclose()
            for result in await asyncio.gather(*requests, return_exceptions=True):
                assert isinstance(result, UpstreamClosed | PoolTimeout)
            return up.connections

    assert hop.run(main()) == 1


def existing() -> list[object]:
    """What there is of the wire, wherever it is kept."""
    gc.collect()
    return [one for one in gc.get_objects() if type(one) in (WireTransport, Pool, Connection, Response)]


def test_nothing_outlives_the_transport(hop: Hop) -> None:
    """After aclose no task and no timer keeps anything of it: a request under way ends, and all of it is freed."""

    async def use() -> None:
        async with upstream(keeping) as up, upstream(then_waiting(OK[:-1])) as stuck:
            transport = WireTransport(PATIENT, verify=UNCHECKED)
            await asyncio.gather(*[fetch(transport, asking(up.url)) for _ in range(5)])
            chunks = (await transport.send(asking(stuck.url))).chunks()
            assert await anext(chunks) == OK[-2:-1]
            await transport.aclose()
            with pytest.raises(CutShort):
                await anext(chunks)

    async def main() -> None:
        before = len(existing())
        await use()
        await asyncio.sleep(0)
        assert len(existing()) == before
        assert asyncio.all_tasks() == {asyncio.current_task()}

    hop.run(main())
