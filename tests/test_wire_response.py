"""A response between the parser and its reader: read piece by piece, or passed on the moment that it arrives."""

import asyncio
from collections.abc import Awaitable

import pytest

from chat_api.errors import CutShort
from chat_api.wire.response import MAX_HELD_BYTES, Response


class Wire:
    """The connection that a response comes from."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def pause(self) -> None:
        """Read no more."""
        self.said.append("pause")

    def resume(self) -> None:
        """Go on."""
        self.said.append("resume")

    def let_go(self) -> None:
        """Close."""
        self.said.append("let go")


class Sink:
    """Takes pieces, and wants to wait after some of them."""

    def __init__(self, *waits: bytes) -> None:
        self.taken: list[bytes] = []
        self.waits = waits

    def __call__(self, piece: bytes) -> Awaitable[object] | None:
        self.taken.append(piece)
        return asyncio.sleep(0) if piece in self.waits else None


def made() -> tuple[Response, Wire]:
    """A response, and its connection."""
    wire = Wire()
    return Response(wire, asyncio.get_running_loop()), wire


async def flowing(response: Response, sink: Sink) -> None:
    """Pass all of it on."""
    while (waiting := await response.flow(sink)) is not None:
        await waiting


async def turn() -> None:
    """Let whoever can run do so."""
    for _ in range(3):
        await asyncio.sleep(0)


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


def test_pieces_are_passed_on_the_moment_they_arrive() -> None:
    """A sink gets what was there in one piece, then each piece within `feed`, without a turn of the loop."""

    async def main() -> None:
        response, _ = made()
        sink = Sink()
        response.feed(b"a")
        response.feed(b"b")
        flow = asyncio.ensure_future(flowing(response, sink))
        await turn()
        assert sink.taken == [b"ab"]
        response.feed(b"c")
        response.feed(b"d")
        assert sink.taken == [b"ab", b"c", b"d"]
        response.end()
        await flow

    asyncio.run(main())


def test_sink_that_waits_is_waited_for() -> None:
    """While what a sink returned is awaited pieces are held, and come in their order; none twice, none lost."""

    async def main() -> None:
        response, wire = made()
        sink = Sink(b"a", b"bc")
        flow = asyncio.ensure_future(flowing(response, sink))
        await turn()
        for piece in (b"a", b"b", b"c"):
            response.feed(piece)
        assert sink.taken == [b"a"]
        await turn()
        assert sink.taken == [b"a", b"bc"]
        response.feed(b"d")
        response.end()
        await flow
        assert sink.taken == [b"a", b"bc", b"d"]
        assert wire.said == []

    asyncio.run(main())


def test_sink_that_waits_long_pauses_the_wire() -> None:
    """What arrives while a sink is waited for is bounded."""

    async def main() -> None:
        response, wire = made()
        go = asyncio.Event()
        flow = asyncio.ensure_future(response.flow(lambda piece: go.wait()))
        await turn()
        response.feed(b"a")
        response.feed(bytes(MAX_HELD_BYTES + 1))
        assert wire.said == ["pause"]
        waiting = await flow
        assert waiting is not None
        go.set()
        await waiting
        sink = Sink()
        rest = asyncio.ensure_future(flowing(response, sink))
        await turn()
        assert (len(sink.taken), wire.said) == (1, ["pause", "resume"])
        response.end()
        await rest

    asyncio.run(main())


@pytest.mark.parametrize("ends", [True, False])
def test_end_while_a_flow_waits_is_told(ends: bool) -> None:
    """A flow that waits for more ends with the response, or breaks with it."""

    async def main() -> None:
        response, _ = made()
        flow = asyncio.ensure_future(response.flow(Sink()))
        await turn()
        response.end(None if ends else CutShort("broke"))
        if ends:
            assert await flow is None
        else:
            with pytest.raises(CutShort):
                await flow

    asyncio.run(main())


@pytest.mark.parametrize("ends", [True, False])
def test_end_while_a_sink_is_waited_for_is_not_missed(ends: bool) -> None:
    """An end, or a break, that comes with the last piece is told after it."""

    async def main() -> None:
        response, _ = made()
        sink = Sink(b"a")
        flow = asyncio.ensure_future(flowing(response, sink))
        await turn()
        response.feed(b"a")
        response.feed(b"b")
        response.end(None if ends else CutShort("broke"))
        if ends:
            await flow
        else:
            with pytest.raises(CutShort):
                await flow
        assert sink.taken == [b"a", b"b"]

    asyncio.run(main())


@pytest.mark.parametrize("is_held", [True, False], ids=["held", "arriving"])
def test_sink_that_fails_fails_its_flow(is_held: bool) -> None:
    """What a sink raises reaches whoever passes on, not the connection that feeds; what comes after is held."""

    def sink(piece: bytes) -> None:
        raise BrokenPipeError(piece)

    async def main() -> None:
        response, _ = made()
        if is_held:
            response.feed(b"a")
        flow = asyncio.ensure_future(response.flow(sink))
        await turn()
        if not is_held:
            response.feed(b"a")
        response.feed(b"b")
        with pytest.raises(BrokenPipeError):
            await flow
        assert await anext(response) == b"b"

    asyncio.run(main())
