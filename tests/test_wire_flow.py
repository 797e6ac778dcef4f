"""A response whose pieces are passed on the moment that they arrive, as far as the one who takes them keeps up."""

import asyncio

import pytest

from chat_api.errors import CutShort
from chat_api.wire.response import MAX_HELD_BYTES
from tests.wires import Sink, flowing, made, turn

pytestmark = pytest.mark.alone  # it looks at what happens when


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
