"""A response between the parser and its reader: read piece by piece, or taken whole."""

import asyncio

import pytest

from chat_api.errors import CutShort
from chat_api.wire.response import MAX_HELD_BYTES
from tests.wires import Sink, made, turn


def test_what_has_arrived_comes_out_in_one_piece() -> None:
    """A reader that comes late gets all of it at once, one that waits each piece as it comes."""

    async def main() -> None:
        response, _ = made()
        response.feed(b"a")
        response.feed(b"b")
        assert await anext(response) == b"ab"
        waiting = asyncio.ensure_future(anext(response))
        await turn()
        response.feed(b"c")
        assert await waiting == b"c"
        response.end()
        assert [piece async for piece in response.chunks()] == []

    asyncio.run(main())


@pytest.mark.parametrize("is_late", [False, True])
def test_error_comes_after_what_had_arrived(is_late: bool) -> None:
    """Nothing that arrived is lost to a break, and the break is told as often as anybody asks."""

    async def main() -> None:
        response, _ = made()
        response.feed(b"a")
        if is_late:
            assert await anext(response) == b"a"
            waiting = asyncio.ensure_future(anext(response))
            await turn()
            response.end(CutShort("broke"))
            with pytest.raises(CutShort):
                await waiting
        else:
            response.end(CutShort("broke"))
            assert await anext(response) == b"a"
        for _ in range(2):
            with pytest.raises(CutShort):
                await anext(response)
            with pytest.raises(CutShort):
                await response.flow(Sink())

    asyncio.run(main())


def test_slow_reader_pauses_the_wire_once() -> None:
    """Past the bound the wire is paused, and read on when the reader has taken all."""

    async def main() -> None:
        response, wire = made()
        for _ in range(6):
            response.feed(bytes(MAX_HELD_BYTES // 4))
        assert wire.said == ["pause"]
        assert len(await anext(response)) == 6 * (MAX_HELD_BYTES // 4)
        assert wire.said == ["pause", "resume"]
        response.feed(bytes(MAX_HELD_BYTES))
        assert wire.said == ["pause", "resume"]

    asyncio.run(main())


def test_closing_lets_the_wire_go_unless_all_has_arrived() -> None:
    """A complete response has nothing more to do with its connection."""

    async def main() -> None:
        response, wire = made()
        await response.aclose()
        assert wire.said == ["let go"]
        response, wire = made()
        response.feed(bytes(MAX_HELD_BYTES + 1))
        response.end()
        await response.aclose()
        assert wire.said == ["pause"]
        assert len(await anext(response)) == MAX_HELD_BYTES + 1
        assert wire.said == ["pause"]

    asyncio.run(main())


def test_reader_that_is_cancelled_can_be_followed_by_another() -> None:
    """Nothing that arrives is lost to a reader that is gone."""

    async def main() -> None:
        response, _ = made()
        for read in (lambda: anext(response), lambda: response.flow(Sink())):
            reading = asyncio.ensure_future(read())
            await turn()
            reading.cancel()
            response.feed(b"a")
            await asyncio.wait({reading})
            assert await anext(response) == b"a"

    asyncio.run(main())


def test_body_that_has_arrived_whole_is_taken_at_once() -> None:
    """A complete body needs no turn of the loop; there is none before its end, nor where it broke off."""

    async def main() -> None:
        response, _ = made()
        assert response.arrived() is None
        response.feed(b"a")
        response.feed(b"b")
        assert response.arrived() is None
        response.end()
        assert response.arrived() == b"ab"
        empty, _ = made()
        empty.end()
        assert empty.arrived() == b""
        broken, _ = made()
        broken.feed(b"a")
        broken.end(CutShort("broke"))
        assert broken.arrived() is None

    asyncio.run(main())


@pytest.mark.parametrize("how", ["chunks", "flow", "arrived"])
def test_body_that_somebody_reads_has_not_arrived_whole(how: str) -> None:
    """What is left of a body that was read from, or taken, is not taken for all of it."""

    async def main() -> None:
        response, _ = made()
        response.feed(b"a")
        if how == "chunks":
            assert await anext(response.chunks()) == b"a"
        elif how == "flow":
            waiting = await response.flow(Sink(b"a"))
            assert waiting is not None
            await waiting
        response.feed(b"b")
        response.end()
        if how == "arrived":
            assert response.arrived() == b"ab"
        assert response.arrived() is None

    asyncio.run(main())
