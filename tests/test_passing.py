"""Comments in a relayed stream: their place among the events, and what is left of them; a client that leaves."""

import asyncio
import gc
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.types import Message

from chat_api.errors import ClientGone, CutShort, StreamBroken, UpstreamError
from chat_api.judging import RelayedBody
from chat_api.passing import PING, SENT, EventPassage
from chat_api.streaming import ON_DISCONNECT, Watch
from chat_api.types import Call, Deployment, Reply
from chat_api.wire.response import Response
from tests.wires import made, run_skipping, turn

INTERVAL = 10.0  # seconds, on a clock that skips them
CALL = Call("chat/completions", "gpt-4o", b"{}", True, verbatim=True)
HEAD = b"(head)"
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
KINDS = ["coroutine", "sent"]


class Client:
    """Takes what is sent, but for what is held: whoever sends that waits.

    Args:
        kind: whether every message is a coroutine to await, or only one that is held.
        held: bodies that are not taken yet.
    """

    def __init__(self, kind: str, *held: bytes) -> None:
        self._kind = kind
        self._held = held
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()
        self.begun: list[bytes] = []
        self.taken: list[bytes] = []
        self.times: list[float] = []

    def send(self, message: Message) -> Awaitable[None]:
        """Send a message (ASGI 3)."""
        body: bytes = HEAD if message["type"] == "http.response.start" else message["body"]
        if self._kind == "sent" and not self._holds(body):
            self.begun.append(body)
            self._take(body)
            return SENT
        return self._later(body)

    def _holds(self, body: bytes) -> bool:
        return any(body.startswith(held) for held in self._held)

    async def _later(self, body: bytes) -> None:
        self.begun.append(body)
        while self._holds(body):
            await self._changed.wait()
        self._take(body)

    def _take(self, body: bytes) -> None:
        self.taken.append(body)
        self.times.append(self.seconds())

    def seconds(self) -> float:
        """How long it has been there."""
        return self._loop.time() - self._start

    def hold(self, *held: bytes) -> None:
        """From now on these are held, and no others."""
        self._held = held
        self._changed.set()
        self._changed = asyncio.Event()


def carried(client: Client, *, ping: float = INTERVAL, pace: float = 0) -> tuple[Response, EventPassage, Reply]:
    """A response to come, the passage that carries it to the client, and the reply that it is."""
    response, _ = made()
    response.status, response.headers = 200, ((b"content-type", b"text/event-stream"),)
    reply = Reply(200, response.headers, RelayedBody(response, [], response), Deployment("d", "http://host", "v1"))
    return response, EventPassage(CALL, client.send, ping=ping, compat=False, pace_seconds=pace), reply


def nothing_left() -> bool:
    """Whether the loop has no task but this one, and no timer."""
    loop: Any = asyncio.get_running_loop()
    timers = [timer for timer in loop._scheduled if not timer.cancelled()]
    return not timers and asyncio.all_tasks() == {asyncio.current_task()}


ENDS: dict[str, tuple[Callable[[Response], None], bytes]] = {
    "said": (lambda response: response.feed(DONE), DONE),
    "repaired": (lambda response: response.end(), DONE),
    "broken": (lambda response: response.end(CutShort("broke")), b'data: {"error"'),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", ENDS)
def test_comment_under_way_goes_out_before_the_last_event(ending: str, kind: str) -> None:
    """However a stream ends, a comment that the client has not taken yet precedes its last event."""
    end, last = ENDS[ending]

    async def main() -> None:
        client = Client(kind, PING)
        response, passage, reply = carried(client)
        task = asyncio.create_task(passage.carry(reply))
        await turn()
        response.feed(STOP if ending == "repaired" else EVENT)
        await asyncio.sleep(INTERVAL + 1)
        end(response)
        await turn()
        begun = list(client.begun)
        client.hold()
        await asyncio.wait({task})
        error = task.exception()
        assert begun[2:] == [PING]
        assert isinstance(error, StreamBroken if ending == "broken" else type(None))
        assert client.taken[2] == PING
        assert client.taken[3].startswith(last)
        assert client.taken[4:] == ([] if ending == "broken" else [b""])
        assert nothing_left()

    run_skipping(main())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("raw", [EVENT, STOP.rstrip(), b""], ids=["event", "last-event-without-its-line", "error"])
def test_nothing_goes_out_before_the_head(raw: bytes, kind: str) -> None:
    """While the head of an early comment is on its way, no event overtakes it, and no error."""

    async def main() -> None:
        client = Client(kind, HEAD)
        response, passage, reply = carried(client)
        passage.keep_open()
        await asyncio.sleep(INTERVAL + 1)
        response.feed(raw)
        response.end()
        carrying = passage.carry(reply) if raw else passage.fail(UpstreamError("broke"))
        task = asyncio.create_task(carrying)
        await asyncio.sleep(3 * INTERVAL)
        assert client.begun == [HEAD]
        client.hold()
        await asyncio.wait({task})
        assert isinstance(task.exception(), type(None) if raw == STOP.rstrip() else StreamBroken)
        assert client.taken[:2] == [HEAD, PING]
        assert client.taken[2].startswith(raw or b'data: {"error"')
        assert nothing_left()

    run_skipping(main())


@pytest.mark.parametrize("kind", KINDS)
def test_comment_comes_an_interval_after_what_went_out_last(kind: str) -> None:
    """An event, before a comment or after one, puts the next comment off: none comes sooner than it has to."""

    async def main() -> None:
        client = Client(kind)
        response, passage, reply = carried(client)
        task = asyncio.create_task(passage.carry(reply))
        for at in (4, 9, 25, 36):  # the comments come at 19, 35 and 46
            await asyncio.sleep(at - client.seconds())
            response.feed(EVENT)
        await asyncio.sleep(11)
        response.feed(DONE)
        await task
        assert client.taken == [HEAD, EVENT, EVENT, PING, EVENT, PING, EVENT, PING, DONE, b""]
        assert client.times == pytest.approx([0, 4, 9, 19, 25, 35, 36, 46, 47, 47])

    run_skipping(main())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_behind_comment", [True, False])
def test_no_comment_waits_behind_an_event_that_was_not_taken(is_behind_comment: bool, kind: str) -> None:
    """A client that does not read gets nothing more to read, whether its event had to wait for a comment or not."""

    async def main() -> None:
        client = Client(kind, EVENT, *([PING] if is_behind_comment else []))
        response, passage, reply = carried(client)
        task = asyncio.create_task(passage.carry(reply))
        await asyncio.sleep(INTERVAL + 1)
        response.feed(EVENT)
        client.hold(EVENT)
        await asyncio.sleep(5 * INTERVAL)
        assert client.begun == [HEAD, PING, EVENT]
        client.hold()
        await asyncio.sleep(INTERVAL + 1)
        assert client.taken[:4] == [HEAD, PING, EVENT, PING]
        response.feed(DONE)
        await task
        assert client.taken[-2:] == [DONE, b""]
        assert nothing_left()

    run_skipping(main())


@pytest.mark.parametrize("kind", KINDS)
def test_comment_that_was_not_taken_is_the_only_one(kind: str) -> None:
    """However long a client does not read, one comment waits for it."""

    async def main() -> None:
        client = Client(kind, PING)
        _, passage, _ = carried(client)
        passage.keep_open()
        await asyncio.sleep(10 * INTERVAL)
        assert client.begun == [HEAD, PING]
        passage.close()
        await turn()
        assert nothing_left()

    run_skipping(main())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("held", [HEAD, PING, None], ids=["head", "comment", "nothing"])
@pytest.mark.parametrize("seconds", [0, INTERVAL + 1])
def test_closing_leaves_nothing(seconds: float, held: bytes | None, kind: str) -> None:
    """After `close` no timer runs, no task waits for the client, and nothing more goes out."""

    async def main() -> None:
        client = Client(kind, *([held] if held else ()))
        _, passage, _ = carried(client)
        passage.keep_open()
        await asyncio.sleep(seconds)
        passage.close()
        await turn()
        assert nothing_left()
        before = list(client.begun)
        client.hold()
        await asyncio.sleep(3 * INTERVAL)
        assert client.begun == before
        passage.close()

    run_skipping(main())


@pytest.mark.parametrize("kind", KINDS)
def test_no_interval_means_no_comments(kind: str) -> None:
    """With an interval of 0 a stream may be silent for ever, and costs no timer."""

    async def main() -> None:
        client = Client(kind)
        response, passage, reply = carried(client, ping=0)
        passage.keep_open()
        task = asyncio.create_task(passage.carry(reply))
        await asyncio.sleep(1000)
        assert client.taken == [HEAD]
        response.feed(DONE)
        await task
        assert nothing_left()

    run_skipping(main())


@pytest.mark.parametrize("kind", KINDS)
def test_client_that_leaves_as_an_event_arrives(kind: str) -> None:
    """An event that was about to be sent is dropped in silence: no coroutine is left that nobody awaited."""

    async def main() -> None:
        client = Client(kind, EVENT)
        response, passage, reply = carried(client, ping=0)
        told: list[Any] = []

        def notify(callback: Callable[[], None] | None) -> asyncio.Task[Any] | None:
            told.append(callback)
            return asyncio.current_task()

        async def watched() -> None:
            with Watch({"extensions": {ON_DISCONNECT: notify}}, asyncio.Future):
                await passage.carry(reply)

        task = asyncio.create_task(watched())
        await turn()
        response.feed(EVENT)
        told[0]()
        with pytest.raises(ClientGone):
            await task
        assert client.taken == [HEAD]

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run_skipping(main())
        gc.collect()
    assert [str(one.message) for one in caught] == []
