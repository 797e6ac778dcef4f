"""Bodies that are to be kept, and that were: however they are read, all of one is kept once, or nothing of it."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from chat_api.errors import CutShort
from chat_api.kept_bodies import KeptBody, ReplayedBody
from chat_api.types import ByteStream
from tests.scripted_keeping import Arrived

PIECES = (b"one ", b"two ", b"three")
ALL = b"".join(PIECES)


async def iterated(body: ByteStream, pieces: int = 99) -> bytes:
    """So many pieces of it, one by one."""
    got = b""
    async for chunk in body:
        got += chunk
        pieces -= 1
        if not pieces:
            break
    return got


async def flowed(body: ByteStream, pieces: int = 99, *, halts: bool = False) -> bytes:
    """So many pieces of it, as they come; `halts` has each awaited."""
    got: list[bytes] = []

    def take(chunk: bytes) -> Awaitable[object] | None:
        got.append(chunk)
        return asyncio.sleep(0) if halts or len(got) >= pieces else None

    while (waiting := await body.flow(take)) is not None:
        await waiting
        if len(got) >= pieces:
            break
    return b"".join(got)


async def halting(body: ByteStream, pieces: int = 99) -> bytes:
    """The same, each awaited."""
    return await flowed(body, pieces, halts=True)


READERS = [iterated, flowed, halting]
Reader = Callable[..., Awaitable[bytes]]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("pieces", "max_bytes", "whole"),
    [
        pytest.param(PIECES, 100, ALL, id="whole"),
        pytest.param(PIECES, len(ALL), ALL, id="as-much-as-may-be"),
        pytest.param(PIECES, len(ALL) - 1, None, id="too-much"),
        pytest.param((b"x" * 9, b"", b"y"), 8, None, id="too-much-at-once"),
        pytest.param((), 100, b"", id="empty"),
    ],
)
def test_all_of_it_is_kept(read: Reader, pieces: tuple[bytes, ...], max_bytes: int, whole: bytes | None) -> None:
    """Its reader gets every byte, and whoever keeps it gets them as well, once."""
    kept: list[bytes] = []
    arrived = Arrived(*pieces)
    body = KeptBody(arrived, kept.append, max_bytes)

    async def main() -> None:
        assert await read(body) == b"".join(pieces)
        body.expect_end()
        await body.aclose()
        await body.aclose()

    asyncio.run(main())
    assert kept == ([whole] if whole is not None else [])
    assert arrived.closed == 2


@pytest.mark.parametrize("read", READERS)
def test_body_that_breaks_off_is_not_kept(read: Reader) -> None:
    """Its reader gets the error."""
    kept: list[bytes] = []
    body = KeptBody(arrived := Arrived(*PIECES, CutShort("it broke off")), kept.append, 100)

    async def main() -> None:
        with pytest.raises(CutShort):
            await read(body)
        await body.aclose()

    asyncio.run(main())
    assert (kept, arrived.closed) == ([], 1)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("is_complete", [False, True])
def test_body_that_is_left(read: Reader, is_complete: bool) -> None:
    """What was left before its end is kept only if its reader said that only the end was still to come."""
    kept: list[bytes] = []
    body = KeptBody(arrived := Arrived(*PIECES), kept.append, 100)

    async def main() -> None:
        assert await read(body, 2) == b"one two "
        if is_complete:
            body.expect_end()
        await body.aclose()

    asyncio.run(main())
    assert kept == ([b"one two "] if is_complete else [])
    assert (arrived.closed, arrived.is_end_next) == (1, is_complete)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("pieces", [1, 2, 99])
def test_replayed_body(read: Reader, pieces: int) -> None:
    """It is given piece by piece, and goes on where its reader has left off; there is nothing to be closed."""
    body = ReplayedBody(list(PIECES))

    async def main() -> tuple[bytes, bytes]:
        first = await read(body, pieces)
        body.expect_end()
        rest = await iterated(body)
        await body.aclose()
        return first, rest

    first, rest = asyncio.run(main())
    assert first == b"".join(PIECES[:pieces])
    assert first + rest == ALL
