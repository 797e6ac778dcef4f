"""A relayed body: what was held of it, then the rest, from the wire or from any other stream; and who lets go of it."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from chat_api.errors import CutShort, UpstreamError
from chat_api.judging import RelayedBody
from chat_api.types import Headers
from tests.wires import made, turn

Rest = AsyncIterator[bytes]


class Closing:
    """A response of which only the end is of interest."""

    status = 200
    headers: Headers = ()
    queue_seconds = connect_seconds = 0.0

    def __init__(self) -> None:
        self.closed = 0

    def arrived(self) -> bytes | None:
        """It is not there."""
        raise NotImplementedError

    def chunks(self) -> Rest:
        """They come from elsewhere."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Count it."""
        self.closed += 1


class Sink:
    """Takes pieces, and wants to wait after some of them."""

    def __init__(self, *waits: bytes) -> None:
        self.taken: list[bytes] = []
        self.waited = 0
        self._waits = waits

    def __call__(self, piece: bytes) -> Awaitable[object] | None:
        self.taken.append(piece)
        return self._wait() if piece in self._waits else None

    async def _wait(self) -> None:
        await asyncio.sleep(0)
        self.waited += 1


def of_wire(pieces: list[bytes], error: UpstreamError | None) -> Rest:
    """A response of the wire, whose pieces arrive one after the other."""
    response, _ = made()

    loop = asyncio.get_running_loop()

    def arrive(rest: list[bytes]) -> None:
        if rest:
            response.feed(rest[0])
            loop.call_soon(arrive, rest[1:])
        else:
            response.end(error)

    loop.call_soon(arrive, pieces)
    return response.chunks()


async def of_generator(pieces: list[bytes], error: UpstreamError | None) -> Rest:
    """The same pieces from a generator, as what opens a coding is one."""
    for piece in pieces:
        await asyncio.sleep(0)
        yield piece
    if error is not None:
        raise error


RESTS: dict[str, Callable[[list[bytes], UpstreamError | None], Rest]] = {"wire": of_wire, "generator": of_generator}


async def flowed(body: RelayedBody, sink: Sink) -> int:
    """Pass all of it on; gives how often that had to wait."""
    count = 0
    while (waiting := await body.flow(sink)) is not None:
        await waiting
        count += 1
    return count


@pytest.mark.parametrize("kind", RESTS)
@pytest.mark.parametrize(
    "held", [[], [b"a"], [b"a", b"b"], [b"a", b"b", b"c", b"d"]], ids=["none-held", "one", "two", "all"]
)
@pytest.mark.parametrize("waits", [(), (b"a",), (b"b", b"c"), (b"d",), (b"a", b"b", b"c", b"d")])
def test_what_was_held_flows_first_and_all_of_it_flows(kind: str, held: list[bytes], waits: tuple[bytes, ...]) -> None:
    """However much was held, and wherever the sink has to be waited for, each byte comes once and in its place."""

    async def main() -> None:
        rest = [piece for piece in (b"a", b"b", b"c", b"d") if piece not in held]
        body = RelayedBody(Closing(), held, RESTS[kind](rest, None))
        sink = Sink(*waits)
        waited = await flowed(body, sink)
        assert b"".join(sink.taken) == b"abcd"
        assert sink.taken[: len(held)] == held
        assert waited == sink.waited <= len(waits)
        assert await body.flow(sink) is None  # the end is told as often as anybody asks
        assert b"".join(sink.taken) == b"abcd"

    asyncio.run(main())


@pytest.mark.parametrize("kind", RESTS)
@pytest.mark.parametrize("waits", [(), (b"b",)], ids=["at-once", "waiting"])
@pytest.mark.parametrize("pieces", [[], [b"b"]], ids=["nothing-else", "piece"])
def test_error_comes_after_what_had_come(kind: str, waits: tuple[bytes, ...], pieces: list[bytes]) -> None:
    """A body that breaks off has passed on all that came of it, what was held included."""

    async def main() -> None:
        body = RelayedBody(Closing(), [b"a"], RESTS[kind](pieces, CutShort("broke")))
        sink = Sink(*waits)
        with pytest.raises(CutShort):
            await flowed(body, sink)
        assert sink.taken == [b"a", *pieces]

    asyncio.run(main())


@pytest.mark.parametrize("kind", RESTS)
def test_reader_may_go_on_where_a_flow_has_stopped(kind: str) -> None:
    """A flow that returned has taken no more than it passed on: iterating gives the rest."""

    async def main() -> None:
        body = RelayedBody(Closing(), [b"a", b"b"], RESTS[kind]([b"c", b"d"], None))
        sink = Sink(b"a", b"c", b"cd")
        for _ in range(2):
            waiting = await body.flow(sink)
            assert waiting is not None
            await waiting
        assert b"".join([*sink.taken, *[piece async for piece in body]]) == b"abcd"

    asyncio.run(main())


def test_flow_that_is_cancelled_drops_what_it_was_to_await() -> None:
    """What a sink returned as its reader was cancelled is closed: nobody else could await it."""

    async def main() -> None:
        response, _ = made()
        sendings = []

        async def send() -> None:
            raise AssertionError("nobody awaits it")

        def sink(_: bytes) -> Awaitable[object]:
            sendings.append(send())
            return sendings[-1]

        flow = asyncio.ensure_future(RelayedBody(Closing(), [], response).flow(sink))
        await turn()
        response.feed(b"a")
        flow.cancel()
        await asyncio.wait({flow})
        assert flow.cancelled()
        assert [inspect.getcoroutinestate(one) for one in sendings] == [inspect.CORO_CLOSED]

    asyncio.run(main())


async def silent() -> Rest:
    """A rest that does not come."""
    await asyncio.Event().wait()
    yield b""


async def failing() -> Rest:
    """A rest that is a fault of ours."""
    raise LookupError
    yield b""


def test_closing_waits_for_an_end_that_is_next_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only the end is to come it is read out, and given up when it does not come; the response is closed."""
    monkeypatch.setattr("chat_api.judging.LAST_CHUNK_SECONDS", 0.01)

    async def main() -> None:
        for rest in (of_generator([b"", b""], None), of_generator([], CutShort("broke")), silent()):
            response = Closing()
            body = RelayedBody(response, [], rest)
            body.expect_end()
            await body.aclose()
            assert response.closed == 1

    asyncio.run(main())


def test_response_is_closed_whatever_reading_it_out_comes_to() -> None:
    """A fault while the end is read out, or a cancellation, does not keep the connection."""

    async def main() -> None:
        for rest, error in ((failing(), LookupError), (silent(), asyncio.CancelledError)):
            response = Closing()
            body = RelayedBody(response, [], rest)
            body.expect_end()
            closing = asyncio.create_task(body.aclose())
            await turn()
            closing.cancel()
            with pytest.raises(error):
                await closing
            assert response.closed == 1

    asyncio.run(main())
