"""The wire under bytes of any kind, in memory: it fails as it may, never hangs, holds little, and is never fooled."""

import asyncio
from collections.abc import Sequence

from hypothesis import example, given, settings
from hypothesis import strategies as st

from chat_api.errors import GatewayError
from chat_api.failures import Limits
from chat_api.wire.response import MAX_HELD_BYTES
from tests.differences import EDIT, Made, edited, of_httpx, responses, splits_at
from tests.hops import OK
from tests.wires import asked, connected, read, run_skipping

FUZZ = settings(max_examples=200, deadline=None)
ANY = st.binary(max_size=200) | st.builds(edited, responses(), st.lists(EDIT, max_size=4))
PLACES = st.lists(st.integers(0, 10_000), max_size=6)


async def taken(pieces: Sequence[bytes], *, ends: bool, is_head: bool) -> Made | None:
    """What the wire makes of it, which has to be something within the limits' time."""
    connection, line, pool = await connected(Limits(keepalive_seconds=1))
    async with asyncio.timeout(1000):  # which pass at once
        task = await asked(connection, is_head=is_head)
        line.receive_all(pieces)
        if ends:
            line.end()
        try:
            response = await task
            made = Made(response.status, tuple(response.headers), await read(response))
        except GatewayError:
            assert line.is_closed
            return None
        finally:
            await asyncio.sleep(2)  # until a connection that was kept has expired, and its timer
    assert line.is_closed
    assert pool.take() is None
    assert asyncio.all_tasks() == {asyncio.current_task()}
    return made


@FUZZ
@given(ANY, PLACES, st.booleans(), st.booleans())
@example(b"HTTP/1.1 099 X\r\n\r\n" + bytes(1000), [], False, False)
@example(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", [], False, False)
def test_any_bytes_end_in_a_response_or_in_an_error_of_ours(
    raw: bytes, at: list[int], ends: bool, is_head: bool
) -> None:
    """Whatever comes, however split: the caller gets a response or a GatewayError, and nothing is left behind."""
    made = run_skipping(taken(splits_at(raw, at), ends=ends, is_head=is_head))

    assert made is None or 200 <= made.status <= 999
    assert made is None or not (is_head and made.body)


@FUZZ
@given(ANY, st.binary(min_size=1, max_size=30), st.integers(100, 70_000))
@example(b"HTTP/1.1 099 X\r\n\r\n", b"x", 65_536)
@example(b"HTTP/1.1 200 OK\r\n\r\n", b"x", 65_536)
@example(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n", 1000)
@example(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", 1000)
@example(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x", 1000)
@example(b"", b"HTTP/1.1 100 Go\r\n\r\n", 1000)
def test_endless_bytes_are_not_held(start: bytes, unit: bytes, size: int) -> None:
    """Of what does not end only so much is taken: then the socket is not read, or the connection is closed."""

    async def main() -> None:
        connection, line, pool = await connected()
        task = await asked(connection)
        line.receive(start)
        piece = (unit * (size // len(unit) + 1))[:size]
        received = 0
        while line.reads and not line.is_closed and pool.take() is None:
            line.receive(piece)
            received += size
            assert received <= 40 * MAX_HELD_BYTES  # chunks of one byte are mostly not body
        pool.close()
        await asyncio.wait({task})
        if task.exception() is None:
            with_held = sum(len(chunk) for chunk in task.result()._held)
            assert with_held <= MAX_HELD_BYTES + size

    run_skipping(main())


@FUZZ
@given(responses(), st.integers(0, 10_000), PLACES)
def test_broken_response_never_looks_complete(raw: bytes, cut: int, at: list[int]) -> None:
    """A response that is cut anywhere, by an end or by a break, is an error unless the end is what ends it."""

    async def main() -> None:
        whole = await of_httpx([raw])
        part = raw[: cut % len(raw)]
        for error in (None, ConnectionResetError(104, "reset")):
            connection, line, _ = await connected()
            task = await asked(connection)
            line.receive_all(splits_at(part, at))
            is_complete = connection._response is None
            line.end(error)
            try:
                response = await task
                made = Made(response.status, tuple(response.headers), await read(response))
            except GatewayError:
                continue
            assert is_complete or error is None
            assert made == (whole if is_complete else await of_httpx([part]))

    asyncio.run(main())


@FUZZ
@given(st.lists(responses(), min_size=2, max_size=3), st.data())
def test_one_response_leaves_nothing_in_the_next(raws: list[bytes], data: st.DataObject) -> None:
    """Over one connection each response is what it is alone; where it cannot be kept it is closed."""

    async def main() -> None:
        connection, line, pool = await connected()
        for raw in raws:
            task = await asked(connection)
            line.receive_all(splits_at(raw, data.draw(PLACES)))
            if pool.take() is not connection:
                line.end()
            response = await task
            made = Made(response.status, tuple(response.headers), await read(response))
            assert made == await of_httpx([raw])
            if line.is_closed:
                break

    asyncio.run(main())


@FUZZ
@given(responses(), st.binary(min_size=1, max_size=20) | st.just(OK), st.booleans())
def test_excess_is_never_an_answer(raw: bytes, excess: bytes, is_one_piece: bool) -> None:
    """What comes after a response never becomes the beginning of the next one: that connection serves nobody."""

    async def main() -> None:
        connection, line, pool = await connected()
        task = await asked(connection)
        line.receive_all([raw + excess] if is_one_piece else [raw, excess])
        if pool.take() is not None:
            assert is_one_piece
            assert not excess.strip(b"\r\n")
        elif not line.is_closed:
            line.end()  # a response until close: there is no excess
        try:
            await read(await task)
        except GatewayError:
            assert is_one_piece
        pool.close()

    asyncio.run(main())
