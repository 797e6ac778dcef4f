"""Uploads over a connection of the wire, in memory: how long they may take, and how they end."""

import asyncio
from typing import Any

import pytest

from chat_api.errors import IdleTimeout, UpstreamClosed, UpstreamError, WriteTimeout
from chat_api.failures import Limits
from chat_api.spool import Upload
from tests.hops import OK, Pieces
from tests.wires import HEAD, asked, connected, read, run_skipping

LIMITS = Limits(first_byte_seconds=120, idle_seconds=60, keepalive_seconds=30)


def test_slow_upload_that_goes_on_is_no_timeout() -> None:
    """What counts is how long nothing was taken: bursts that come within IDLE_TIMEOUT may go on for ever."""
    piece = bytes(100_000)

    async def main() -> None:
        connection, line, _ = await connected(LIMITS)
        line.takes = 0
        task = await asked(connection, Pieces(*[piece] * 40))
        for _ in range(20):  # 50 s apart, at moments that have nothing to do with the limit's
            await asyncio.sleep(50)
            assert not line.is_closed
            line.take(2 * (len(piece) + 9))
            await asyncio.sleep(0)
        line.takes = 10**9
        line.take(0)
        await asyncio.sleep(1)
        line.receive(OK)
        assert (await task).status == 200

    run_skipping(main())


@pytest.mark.parametrize("body", [bytes(1_000_000), Pieces(*[bytes(100_000)] * 10)], ids=["bytes", "streamed"])
def test_upload_that_stops_is_a_timeout(body: bytes | Pieces) -> None:
    """An upstream that has begun to take a body and stops is given up within two times IDLE_TIMEOUT."""

    async def main() -> None:
        connection, line, _ = await connected(LIMITS)
        line.takes = 350_000
        begin = asyncio.get_running_loop().time()
        with pytest.raises(WriteTimeout):
            await connection.exchange(HEAD, body, without_body=False)
        assert 60 <= asyncio.get_running_loop().time() - begin <= 121
        assert line.is_closed

    run_skipping(main())


class Slow(Pieces):
    """A body whose second piece is a long time coming."""

    async def __aiter__(self):  # type: ignore[no-untyped-def]
        yield b"a"
        await asyncio.sleep(1000)
        yield b"b"


@pytest.mark.parametrize(
    ("early", "late"),
    [
        pytest.param(b"", OK, id="nothing"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", OK, id="100"),
        pytest.param(OK[:-2], OK[-2:], id="200"),
    ],
)
def test_client_that_uploads_slowly_is_no_fault_of_the_upstreams(early: bytes, late: bytes) -> None:
    """While a body's own source has nothing, no limit of the upstream's counts, whatever that said early."""

    async def main() -> None:
        connection, line, _ = await connected(LIMITS)
        task = await asked(connection, Slow())
        line.receive(early)
        await asyncio.sleep(1001)
        assert line.sent.endswith(b"\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n")
        line.receive(late)
        assert await read(await task) == b"ok"

    run_skipping(main())


def test_refused_upload_is_not_sent_to_its_end() -> None:
    """An early 4xx stops the body, reaches its caller whole, and the connection serves nobody else."""

    async def main() -> None:
        connection, line, pool = await connected()
        line.takes = 0
        body = Pieces(*[bytes(100_000)] * 10)
        task = await asked(connection, body)
        line.receive(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\n")
        response = await task
        assert response.status == 413
        line.take(10**9)
        await asyncio.sleep(0)
        assert len(line.sent) < 200_000
        line.receive(b"no")
        assert await read(response) == b"no"
        assert line.is_closed
        assert pool.take() is None

    run_skipping(main())


@pytest.mark.parametrize("takes", [0, 10**9], ids=["upload-is-not-taken", "upload-is-taken"])
@pytest.mark.parametrize("is_slow", [True, False], ids=["client-is-slow", "client-is-fast"])
def test_refusal_that_stalls_is_a_timeout(takes: int, is_slow: bool) -> None:
    """A refusal that does not come to its end is given up after IDLE_TIMEOUT, whatever becomes of the upload."""

    async def main() -> None:
        connection, line, pool = await connected(LIMITS)
        line.takes = takes
        body = Slow() if is_slow else Pieces(*[bytes(100_000)] * 10)
        task = await asked(connection, body)
        line.receive(b"HTTP/1.1 413 Too Large\r\ncontent-length: 10\r\n\r\n{")
        begin = asyncio.get_running_loop().time()
        response = await task
        async with asyncio.timeout(1000):
            with pytest.raises(IdleTimeout):
                await read(response)
        assert 60 <= asyncio.get_running_loop().time() - begin <= 61
        assert line.is_closed
        assert pool.take() is None
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_skipping(main())


def test_answer_that_comes_before_the_upload_ends_is_an_answer() -> None:
    """A 200 may come while a body is still sent, which goes on; complete, it leaves nothing to send."""

    async def main() -> None:
        connection, line, _ = await connected()
        line.takes = 0
        task = await asked(connection, Pieces(*[bytes(100_000)] * 3))
        line.receive(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab")
        response = await task
        line.take(10**9)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert line.sent.endswith(b"\r\n0\r\n\r\n")
        line.receive(b"cd")
        assert await read(response) == b"abcd"

    run_skipping(main())


def test_body_of_another_length_than_it_said_is_never_completed() -> None:
    """A body that is shorter or longer than its size breaks the request off; no upstream takes it for whole."""

    async def main(body: Pieces) -> None:
        connection, line, _ = await connected()
        with pytest.raises(UpstreamError, match="the request's body has not the 3 bytes"):
            await connection.exchange(HEAD, body, without_body=False)
        assert line.is_closed
        assert len(line.sent) <= len(HEAD) + 3

    run_skipping(main(Pieces(b"ab", size=3)))
    run_skipping(main(Pieces(b"ab", b"cd", size=3)))


@pytest.mark.parametrize("error", [None, ConnectionResetError(104, "reset")], ids=["end", "reset"])
@pytest.mark.parametrize("is_streamed", [True, False], ids=["streamed", "bytes"])
def test_upload_to_a_connection_that_ends(is_streamed: bool, error: Exception | None) -> None:
    """A connection that closes under a body ends its request at once; nothing goes on sending."""

    async def main() -> None:
        connection, line, _ = await connected()
        line.takes = 0
        body = Pieces(*[bytes(100_000)] * 10)
        task = await asked(connection, body if is_streamed else bytes(1_000_000))
        line.end(error)
        with pytest.raises(UpstreamClosed):
            await task
        await asyncio.sleep(0)
        assert len(line.sent) < 300_000
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_skipping(main())


def test_caller_that_leaves_stops_its_upload() -> None:
    """A request that is cancelled within its body asks for no more of it, and closes the connection."""

    async def main() -> None:
        connection, line, _ = await connected()
        task = await asked(connection, Slow())
        task.cancel()
        await asyncio.wait({task})
        assert line.is_closed
        await asyncio.sleep(2000)
        assert line.sent.endswith(b"\r\n1\r\na\r\n")
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_skipping(main())


def test_upload_that_is_refused_at_once_is_listened_to() -> None:
    """An answer that comes before the first piece was asked for leaves its client to whoever listens next."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def main() -> None:
        connection, line, _ = await connected()
        upload = Upload(receive, 10**6, 10**7)
        task = asyncio.create_task(connection.exchange(b"POST / HTTP/1.1\r\n\r\n", upload, without_body=False))
        await asyncio.sleep(0)
        line.receive(b"HTTP/1.1 413 Too Large\r\ncontent-length: 10\r\n\r\n{")  # uvloop may read before a task begins
        assert (await task).status == 413
        async with asyncio.timeout(5):
            assert (await upload.after())["type"] == "http.disconnect"

    run_skipping(main())
