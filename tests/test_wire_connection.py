"""A connection of the wire, over lines in memory: deadlines, backpressure, and who may end what."""

import asyncio

import pytest

from chat_api.errors import CutShort, FirstByteTimeout, IdleTimeout, UpstreamClosed
from chat_api.failures import Limits
from chat_api.wire.response import MAX_HELD_BYTES
from tests.hops import OK
from tests.wires import HEAD, asked, connected, read, run_skipping

LIMITS = Limits(first_byte_seconds=120, idle_seconds=60, keepalive_seconds=30)


def test_request_goes_out_and_its_answer_comes_back() -> None:
    """One exchange: head and body in one write, and the connection is free at the answer's end."""

    async def main() -> None:
        connection, line, pool = await connected()
        task = await asked(connection, b"{}")
        assert line.sent == HEAD + b"{}"
        line.receive(OK[:-1])
        response = await task
        assert pool.take() is None
        line.receive(OK[-1:])
        assert pool.take() is connection
        assert await read(response) == b"ok"
        assert not line.is_closed

    run_skipping(main())


def test_interim_answer_does_not_shorten_the_wait() -> None:
    """After a 100 the answer has still FIRST_BYTE_TIMEOUT to begin, whatever other connections do meanwhile."""

    async def main() -> None:
        connection, line, pool = await connected(LIMITS)
        other = await pool.connect()
        task = await asked(connection)
        idle = await asked(other)
        line.receive(b"HTTP/1.1 100 Continue\r\n\r\n")
        pool.lines[1].receive(OK)  # its deadline is the sooner one
        await idle
        await asyncio.sleep(100)
        assert not line.is_closed
        line.receive(OK)
        assert (await task).status == 200

    run_skipping(main())


@pytest.mark.parametrize(
    ("received", "seconds", "error"),
    [
        pytest.param(b"", 120, FirstByteTimeout, id="nothing"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", 60, IdleTimeout, id="head"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", 60, IdleTimeout, id="half"),
    ],
)
def test_silence_ends_an_exchange_in_its_time(received: bytes, seconds: float, error: type[Exception]) -> None:
    """Not before the limit, and not long after it."""

    async def main() -> None:
        connection, line, _ = await connected(LIMITS)
        task = await asked(connection)
        begin = asyncio.get_running_loop().time()
        line.receive(received)
        with pytest.raises(error):
            await read(await task)
        assert seconds <= asyncio.get_running_loop().time() - begin < seconds + 0.2
        assert line.is_closed

    run_skipping(main())


def test_reader_that_stops_is_no_fault_of_the_upstreams() -> None:
    """A response that is not read pauses the socket, holds no more than that, and is not given up; then it goes on."""

    async def main() -> None:
        connection, line, _ = await connected(LIMITS)
        task = await asked(connection)
        line.receive(b"HTTP/1.1 200 OK\r\n\r\n")
        response = await task
        received = 0
        while line.reads:
            line.receive(bytes(10_000))
            received += 10_000
        assert MAX_HELD_BYTES < received < MAX_HELD_BYTES + 20_000
        await asyncio.sleep(1000)
        assert not line.is_closed
        assert len(await anext(response.chunks())) == received
        assert line.reads
        line.receive(b"rest")
        line.end()
        assert await read(response) == b"rest"

    run_skipping(main())


def test_silence_counts_again_once_the_reader_goes_on() -> None:
    """After a pause of its reader's, an upstream has IDLE_TIMEOUT anew, and not more."""

    async def main() -> None:
        connection, line, _ = await connected(LIMITS)
        task = await asked(connection)
        line.receive(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(MAX_HELD_BYTES + 1))
        chunks = (await task).chunks()
        await asyncio.sleep(1000)
        await anext(chunks)
        begin = asyncio.get_running_loop().time()
        with pytest.raises(IdleTimeout):
            await anext(chunks)
        assert 60 <= asyncio.get_running_loop().time() - begin <= 61

    run_skipping(main())


def test_caller_that_is_cancelled_late_spares_the_next_exchange() -> None:
    """Whoever is cancelled when its answer is complete already does not close a connection that serves another."""

    async def main() -> None:
        connection, line, pool = await connected()
        first = await asked(connection)
        line.receive(OK)  # complete, but its caller has not run yet
        taken = pool.take()
        assert taken is connection
        first.cancel()
        second = asyncio.create_task(taken.exchange(HEAD, b"", without_body=False))
        await asyncio.wait({first})
        await asyncio.sleep(0)
        assert not line.is_closed
        line.receive(OK)
        assert (await second).status == 200

    run_skipping(main())


@pytest.mark.parametrize("received", [b"", b"HTTP/1.1 200 OK\r\ncontent-le"])
def test_broken_connection_says_why(received: bytes) -> None:
    """A connection that breaks before the answer's head is told with the operating system's words."""

    async def main() -> None:
        connection, line, _ = await connected()
        task = await asked(connection)
        line.receive(received)
        line.end(ConnectionResetError(104, "reset"))
        with pytest.raises(UpstreamClosed, match="broke the connection without answering: Connection reset by peer"):
            await task

    run_skipping(main())


def test_connection_that_breaks_within_the_body_says_why() -> None:
    """What had come is still read, then the break is told."""

    async def main() -> None:
        connection, line, _ = await connected()
        task = await asked(connection)
        line.receive(b"HTTP/1.1 200 OK\r\n\r\nabc")
        line.end(ConnectionResetError(104, "reset"))
        await asyncio.sleep(0)
        chunks = (await task).chunks()
        assert await anext(chunks) == b"abc"
        for _ in range(2):
            with pytest.raises(CutShort, match="broke off its answer: Connection reset by peer"):
                await anext(chunks)

    run_skipping(main())


def test_head_before_the_body_may_come_in_any_step() -> None:
    """A connection that is closed already is one that was closed without an answer."""

    async def main() -> None:
        connection, line, _ = await connected()
        line.end()
        await asyncio.sleep(0)
        with pytest.raises(UpstreamClosed, match="closed the connection without answering"):
            await connection.exchange(HEAD, b"", without_body=False)

    run_skipping(main())
