"""Streams whose events go out in turn: when, what of them, and what happens while they wait. No time passes here."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat_api.errors import ClientGone, CutShort, GatewayError, StreamBroken
from chat_api.failures import Limits
from chat_api.judging import RelayedBody
from chat_api.passing import PING, EventPassage
from chat_api.streaming import ON_DISCONNECT, ChatEvents, ChatText, Watch
from chat_api.types import Call, Deployment, Reply
from chat_api.wire.response import MAX_HELD_BYTES
from tests.test_passing import CALL, DONE, HEAD, INTERVAL, KINDS, STOP, Client, carried, nothing_left
from tests.wires import asked, connected, made, run_skipping, turn

FILTER = b'data: {"choices":[],"prompt_filter_results":[]}\n\n'
ERROR = b'data: {"error":{"code":"429","message":"exceeded"}}\n\n'
TOLD = b'data: {"error"'


def word(text: str = "Hé€😀") -> bytes:
    """An event that says so."""
    return b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % text.encode()


WORDS = [word(text) for text in "abcdefgh"]


def sent(client: Client) -> list[tuple[float, bytes]]:
    """What a client got after the head, and when."""
    return [(round(at, 6), body) for at, body in zip(client.times, client.taken, strict=True)][1:]


async def to_its_end(task: asyncio.Task[None]) -> BaseException | None:
    """How a stream ended: None if it did well."""
    await asyncio.wait({task})
    return task.exception()


def paced(kind: str, *chunks: tuple[float, bytes], pace: float = 1, ping: float = 0) -> list[tuple[float, bytes]]:
    """What a client gets, and when, of chunks that come at these times; b"" is the end of the body."""

    async def main() -> list[tuple[float, bytes]]:
        client = Client(kind)
        response, passage, reply = carried(client, ping=ping, pace=pace)
        task = asyncio.create_task(passage.carry(reply))
        await turn()
        for at, chunk in chunks:
            await asyncio.sleep(at - client.seconds())
            response.feed(chunk) if chunk else response.end()
        await task
        assert nothing_left()
        return sent(client)

    return run_skipping(main())


A, B, C, D = WORDS[:4]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        pytest.param([(0, A + B + C + DONE)], [(0, A), (1, B), (2, C + DONE), (2, b"")], id="burst"),
        pytest.param([(0, A), (0, B), (0, C), (0, DONE)], [(0, A), (1, B), (2, C + DONE), (2, b"")], id="chunks"),
        pytest.param(
            [(0, A), (5, B), (9, C), (9.2, DONE)], [(0, A), (5, B), (9, C), (9.2, DONE), (9.2, b"")], id="slow"
        ),
        pytest.param([(0, A + B), (1.5, C + DONE)], [(0, A), (1, B), (2, C + DONE), (2, b"")], id="a-little-fast"),
        pytest.param(
            [(0, A + B), (7, C + D + DONE)], [(0, A), (1, B), (7, C), (8, D + DONE), (8, b"")], id="two-bursts"
        ),
        pytest.param(
            [(0, FILTER + A), (0.5, PING), (0.6, FILTER), (0.7, B + PING), (0.8, DONE)],
            [(0, FILTER), (0, A), (0.5, PING), (0.6, FILTER), (1, B + PING), (1, DONE), (1, b"")],
            id="what-takes-no-turn",
        ),
        pytest.param(
            [(0, A + B[:20]), (0.1, B[20:] + C + STOP[:40]), (0.2, STOP[40:]), (0.3, DONE[:9]), (0.4, DONE[9:])],
            [(0, A), (1, B), (2, C), (3, STOP + DONE), (3, b"")],
            id="split-events",
        ),
        pytest.param([(0, A + STOP), (0, b"")], [(0, A), (1, STOP), (1, DONE), (1, b"")], id="repaired"),
        pytest.param([(0, A + STOP[:-1]), (0, b"")], [(0, A), (1, STOP + DONE), (1, b"")], id="repaired-event"),
        pytest.param(
            [(0, (A + B + DONE).replace(b"\n", b"\r\n"))],
            [(0, A.replace(b"\n", b"\r\n")), (1, (B + DONE).replace(b"\n", b"\r\n")), (1, b"")],
            id="crlf",
        ),
    ],
)
def test_events_go_out_in_turn(
    chunks: list[tuple[float, bytes]], expected: list[tuple[float, bytes]], kind: str
) -> None:
    """An event goes out an interval after the one before it, or when it comes; the end waits for nothing else."""
    assert paced(kind, *chunks) == expected


def test_slow_upstream_gets_no_slower() -> None:
    """Where nothing comes in a burst, every event goes out the moment it comes."""
    chunks = [(round(number * 1.01, 2), WORDS[number % 8]) for number in range(50)]
    assert paced("sent", *chunks, (50, DONE)) == [*chunks, (50, DONE), (50, b"")]


ENDS: dict[str, tuple[bytes, GatewayError | None]] = {
    "error-event": (ERROR, None),
    "broken": (b"", CutShort("broke")),
    "cut-short": (b"", None),
    "within-an-event": (D[:30], CutShort("broke")),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", ENDS)
def test_error_goes_out_after_what_was_waiting(ending: str, kind: str) -> None:
    """However a stream breaks, what had come goes out in turn, then the error, and nothing that looks like an end."""

    async def main() -> None:
        client = Client(kind)
        response, passage, reply = carried(client, pace=1)
        task = asyncio.create_task(passage.carry(reply))
        await turn()
        response.feed(A + B + C)
        await asyncio.sleep(0.5)
        rest, error = ENDS[ending]
        response.feed(rest)
        response.end(error)
        assert isinstance(await to_its_end(task), StreamBroken)
        *before, (at, last) = sent(client)
        assert before == [(0, A), (1, B), (2, C)]
        assert at == 2
        assert last.startswith(TOLD)
        assert nothing_left()

    run_skipping(main())


def test_what_waits_is_bounded() -> None:
    """While events wait nothing more is taken: the wire holds what it may, and then reads no more."""

    async def main() -> None:
        client = Client("sent")
        response, wire = made()
        response.status, response.headers = 200, ((b"content-type", b"text/event-stream"),)
        reply = Reply(200, response.headers, RelayedBody(response, [], response), Deployment("d", "http://h", "v1"))
        task = asyncio.create_task(EventPassage(CALL, client.send, ping=0, compat=False, pace_seconds=1).carry(reply))
        await turn()
        chunk = b"".join(WORDS) * 20
        response.feed(chunk)
        fed = 1
        while not wire.said:
            response.feed(chunk)
            fed += 1
            await turn()
        assert MAX_HELD_BYTES < (fed - 1) * len(chunk) <= MAX_HELD_BYTES + len(chunk)
        await asyncio.sleep(160.5)
        assert wire.said == ["pause", "resume"]
        response.feed(DONE)
        assert await to_its_end(task) is None
        assert b"".join(client.taken[1:]) == chunk * fed + DONE
        assert client.seconds() == pytest.approx(fed * 160 - 1)

    run_skipping(main())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("paused", [False, True])
def test_client_that_leaves_while_an_event_waits(paused: bool, kind: str) -> None:
    """The upstream's connection is closed at once, and no timer and no task is left."""

    async def main() -> None:
        client = Client(kind)
        response, wire = made()
        response.status, response.headers = 200, ((b"content-type", b"text/event-stream"),)
        body = RelayedBody(response, [], response)
        reply = Reply(200, response.headers, body, Deployment("d", "http://h", "v1"))
        passage = EventPassage(CALL, client.send, ping=INTERVAL, compat=False, pace_seconds=100)
        told: list[Any] = []

        def notify(callback: Callable[[], None] | None) -> asyncio.Task[Any] | None:
            told.append(callback)
            return asyncio.current_task()

        async def watched() -> None:
            try:
                with Watch({"extensions": {ON_DISCONNECT: notify}}, asyncio.Future):
                    await passage.carry(reply)
            finally:
                passage.close()
                await body.aclose()

        task = asyncio.create_task(watched())
        await turn()
        response.feed(A + B + C)
        await asyncio.sleep(50)
        if paused:
            response.feed(A * 10_000)
        told[0]()
        assert isinstance(await to_its_end(task), ClientGone)
        assert [part for part in client.taken if part != PING] == [HEAD, A]
        assert wire.said == [*(["pause"] if paused else []), "let go"]
        assert nothing_left()

    run_skipping(main())


def test_upstream_that_waits_for_us_is_not_silent() -> None:
    """IDLE_TIMEOUT does not run while it is us who do not read, nor is it forgotten when we read again."""

    async def main() -> None:
        limits = Limits(idle_seconds=5)
        connection, line, pool = await connected(limits)
        asking = await asked(connection)
        line.receive(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        response = await asking
        client = Client("sent")
        reply = Reply(200, response.headers, RelayedBody(response, [], response), Deployment("d", "http://h", "v1"))
        passage = EventPassage(CALL, client.send, ping=0, compat=False, pace_seconds=0.1)
        task = asyncio.create_task(passage.carry(reply))
        await turn()
        chunk = b"".join(WORDS) * 20  # 16 seconds of them
        raw = b"%x\r\n%s\r\n" % (len(chunk), chunk)
        fed = 0
        for _ in range(3):
            while line.reads:
                line.receive(raw)
                fed += 1
                await turn()
            while not line.reads:  # noqa: ASYNC110 - on a clock that skips
                await asyncio.sleep(4)
            assert not line.is_closed
        waited = client.seconds()
        error = await to_its_end(task)
        assert waited > 100 * limits.idle_seconds
        assert isinstance(error, StreamBroken)
        assert "IDLE_TIMEOUT" in str(error)
        assert b"".join(client.taken[1:-1]) == chunk * fed
        assert client.seconds() == pytest.approx(fed * 16 - 0.1)
        pool.close()

    run_skipping(main())


@pytest.mark.parametrize("kind", KINDS)
def test_comments_while_an_event_waits(kind: str) -> None:
    """A pace slower than PING_INTERVAL leaves silence, which comments break as any other."""
    out = paced(kind, (0, A + B), (30, DONE), pace=25, ping=INTERVAL)
    assert out == [(0, A), (10, PING), (20, PING), (25, B), (30, DONE), (30, b"")]


@pytest.mark.parametrize("kind", KINDS)
def test_no_comment_between_events_that_go_out_in_time(kind: str) -> None:
    """Each event puts the next comment off, whether it waited or not."""
    out = paced(kind, (0, b"".join(WORDS) + DONE), pace=8, ping=INTERVAL)
    assert [at for at, _ in out] == [0, 8, 16, 24, 32, 40, 48, 56, 56]
    assert PING not in [part for _, part in out]


@pytest.mark.parametrize("kind", KINDS)
def test_event_waits_for_a_comment_under_way(kind: str) -> None:
    """A comment that the client has not taken yet goes out before the event whose time has come."""

    async def main() -> None:
        client = Client(kind, PING)
        response, passage, reply = carried(client, pace=12)
        task = asyncio.create_task(passage.carry(reply))
        await turn()
        response.feed(A + B + DONE)
        await asyncio.sleep(13)
        assert client.begun == [HEAD, A, PING]
        client.hold()
        assert await to_its_end(task) is None
        assert sent(client) == [(0, A), (13, PING), (13, B + DONE), (13, b"")]
        assert nothing_left()

    run_skipping(main())


def test_client_that_does_not_read_gets_no_comments_and_no_burst() -> None:
    """What a client took nothing of for a minute goes on at its pace, and nothing is sent on top of it."""

    async def main() -> None:
        client = Client("coroutine", B)
        response, passage, reply = carried(client, pace=1)
        task = asyncio.create_task(passage.carry(reply))
        await turn()
        response.feed(b"".join(WORDS) + DONE)
        await asyncio.sleep(60.5)
        assert client.begun == [HEAD, A, B]
        client.hold()
        assert await to_its_end(task) is None
        assert [at for at, _ in sent(client)] == [0, 60.5, 60.5, 60.5, 61.5, 62.5, 63.5, 64.5, 64.5]
        assert nothing_left()

    run_skipping(main())


PIECES = st.sampled_from(
    [*WORDS[:3], word(), FILTER, STOP, PING, b"\n", word().replace(b"\n", b"\r\n"), ERROR, b"event: x\ndata: y\n\n"]
)


def relayed(chunks: list[bytes], pace: float) -> tuple[bytes, list[bytes], str]:
    """What a client gets of these chunks, piece by piece, and how it ends."""

    async def main() -> tuple[bytes, list[bytes], str]:
        client = Client("sent")
        response, passage, reply = carried(client, ping=0, pace=pace)
        task = asyncio.create_task(passage.carry(reply))
        await turn()
        for chunk in chunks:
            response.feed(chunk)
            await turn()
        response.end()
        error = await to_its_end(task)
        return b"".join(client.taken[1:]), client.taken[1:], repr(error)

    return run_skipping(main())


NOTHING = re.compile(rb"(?:\r?\n){3,}")


@settings(max_examples=100, deadline=None)
@given(st.lists(PIECES, max_size=8).map(b"".join), st.sampled_from([b"", DONE]), st.data())
def test_bytes_are_those_of_the_unpaced_stream(events: bytes, end: bytes, data: st.DataObject) -> None:
    """However a stream is split or cut, paced or not, the same goes on, in pieces that are whole events and text."""
    raw = events + end
    raw = raw[: data.draw(st.integers(0, len(raw)) | st.just(len(raw)))]
    edges = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    chunks = [raw[start:stop] for start, stop in zip([0, *edges], [*edges, len(raw)], strict=True)]
    plain = relayed([chunk for chunk in chunks if chunk], 0)
    paced = relayed([chunk for chunk in chunks if chunk], 0.7)

    # One more empty line between two events is nothing, and depends on what came together.
    assert (NOTHING.sub(b"\n\n", paced[0]), paced[2]) == (NOTHING.sub(b"\n\n", plain[0]), plain[2])
    for piece in paced[1]:
        piece.decode()
        assert piece.strip() == b"" or piece.endswith((b"\n\n", b"\r\n\r\n"))


# The simple endpoint.


async def simple(
    stream: Callable[[asyncio.Task[Reply]], Any], chunks: list[tuple[float, bytes]], error: GatewayError | None = None
) -> tuple[list[tuple[float, bytes]], list[str], BaseException | None]:
    """What comes of a reply whose chunks come at these times, when, what its connection was told, and how it ends."""
    loop = asyncio.get_running_loop()
    response, wire = made()
    reply = Reply(200, (), RelayedBody(response, [], response.chunks()), Deployment("d", "http://h", "v1"))
    start = loop.time()
    for at, chunk in chunks:
        loop.call_at(start + at, response.feed, chunk)
    loop.call_at(start + chunks[-1][0], response.end, error)
    task = asyncio.ensure_future(asyncio.sleep(0, reply))
    await task
    out: list[tuple[float, bytes]] = []
    try:
        async for piece in stream(task).body_iterator:
            out.append((round(loop.time() - start, 6), piece if isinstance(piece, bytes) else piece.encode()))
    except StreamBroken as broken:
        return out, wire.said, broken
    assert nothing_left()
    return out, wire.said, None


EVENTS = Call("chat/completions", None, b"{}", True)


def as_events(pace: float) -> Callable[[asyncio.Task[Reply]], Any]:
    """A simple stream of events."""
    return lambda task: ChatEvents(task, EVENTS, 0, pace)


def as_text(pace: float) -> Callable[[asyncio.Task[Reply]], Any]:
    """A simple stream of text."""
    return lambda task: ChatText(task.result(), EVENTS, pace)


def test_simple_events_go_out_in_turn() -> None:
    """The simple endpoint's events keep to the pace as the relay's do, and `[DONE]` comes with the last."""
    out, _, error = run_skipping(
        simple(as_events(1), [(0, FILTER + A + B[:30]), (0.2, B[30:] + C), (9, D + STOP + DONE)])
    )
    assert error is None
    assert out == [(0, FILTER), (0, A), (1, B), (2, C), (9, D), (10, STOP), (10, DONE)]


def test_simple_text_goes_out_in_turn() -> None:
    """Of a burst, each event's text goes out in its turn, in whole characters."""
    chunks = [(0.0, FILTER + word("日") + word("本")[:50]), (0.1, word("本")[50:] + word("😀")), (0.2, STOP + DONE)]
    out, _, error = run_skipping(simple(as_text(1), chunks))
    assert error is None
    assert out == [(0, "日".encode()), (1, "本".encode()), (2, "😀".encode())]


@pytest.mark.parametrize("error", [CutShort("broke"), None], ids=["broken", "cut-short"])
def test_simple_stream_that_breaks_says_so_after_what_was_waiting(error: GatewayError | None) -> None:
    """The error is the last event, in no turn of its own; a text just breaks off."""
    events, _, broken = run_skipping(simple(as_events(1), [(0, A + B), (0.1, C + D[:30])], error))
    assert isinstance(broken, StreamBroken)
    assert events[:-1] == [(0, A), (1, B), (2, C)]
    assert events[-1][0] == 2
    assert b'"error"' in events[-1][1]
    text, _, broken = run_skipping(simple(as_text(1), [(0, A + B), (0.1, C + D[:30])], error))
    assert isinstance(broken, StreamBroken)
    assert text == [(0, b"a"), (1, b"b"), (2, b"c")]


@pytest.mark.parametrize("stream", [as_events, as_text])
def test_simple_stream_that_waits_reads_no_more(stream: Callable[[float], Any]) -> None:
    """What waits is bounded: the upstream is held back, and read again later, with nothing lost."""
    chunk = b"".join(WORDS) * 600
    out, said, error = run_skipping(
        simple(stream(1), [(0, chunk), *[(0.1 + number / 100, chunk) for number in range(2)], (9000, DONE)])
    )
    assert error is None
    assert said == ["pause", "resume"] * 2
    assert len(out) == 3 * 4800 + (stream is as_events)


@pytest.mark.parametrize("stream", [as_events, as_text])
def test_simple_stream_that_is_left_while_it_waits(stream: Callable[[float], Any]) -> None:
    """A client that leaves ends the wait, and nothing is left of it."""

    async def main() -> None:
        response, wire = made()
        body = RelayedBody(response, [], response.chunks())
        reply = Reply(200, (), body, Deployment("d", "http://h", "v1"))
        response.feed(A + B + C)
        task = asyncio.ensure_future(asyncio.sleep(0, reply))
        await task
        got: list[Any] = []

        async def send(message: Any) -> None:
            got.append(message.get("body", HEAD))

        async def receive() -> Any:
            await asyncio.sleep(150)
            return {"type": "http.disconnect"}

        answer: Awaitable[None] = stream(100)(task)({"type": "http", "method": "POST"}, receive, send)
        await answer
        await body.aclose()
        assert len(got) == 3
        assert wire.said == ["let go"]

    run_skipping(main())
