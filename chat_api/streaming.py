"""The answer side of a streamed call, and the watch over a client that may leave while it waits.

A stream that broke never looks complete: its last event is the error, `[DONE]` does not come, and
`StreamBroken` leaves the response unfinished, so that the server cuts the connection.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from typing import Any

import anyio
import msgspec
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import AppStatus
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope

from chat_api.credentials import without_key
from chat_api.errors import ClientGone, GatewayError, StreamBroken, UpstreamError, simple_body
from chat_api.pace import Pace, is_empty
from chat_api.refusals import accepted, read_refusal_in_200
from chat_api.sse import DONE, NO_USAGE, ChatStream, tells_usage_only
from chat_api.types import Call, Reply

PING = ServerSentEvent(comment="ping", sep="\n")
# In the scope's extensions: takes what is to be called when the client leaves, or None; gives the running task.
ON_DISCONNECT = "chat_api.on_disconnect"
Notify = Callable[[Callable[[], None] | None], asyncio.Task[Any] | None]
_NONE: dict[str, Any] = {}
Step = list[tuple[bytes, str]]  # events that came together: the data of each, and its text


def let_streams_drain() -> None:
    """Keep sse-starlette from cutting live streams, in this process, the moment a server is told to stop."""
    AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]


class Watch:
    """While its context is open, a client that leaves cancels what runs in it, which then ends in `ClientGone`.

    Nobody else listens for the client, and an answer that nobody reads is still paid for. Our own
    server tells it at once (`ON_DISCONNECT`); others note only that it left, and a task has to ask.
    To be left as soon as the answer has been sent: from then on there is nothing to watch.

    Args:
        scope: the request (ASGI 3).
        receive: where the client's messages come from, the body's having been read.
    """

    __slots__ = ("_gone", "_listener", "_notify", "_receive", "_task")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._notify: Notify | None = scope.get("extensions", _NONE).get(ON_DISCONNECT)
        self._receive = receive
        self._gone = False
        self._listener: asyncio.Future[None] | None = None

    def __enter__(self) -> None:
        if self._notify is not None:
            self._task = self._notify(self._left)
        else:
            self._task = asyncio.current_task()
            self._listener = asyncio.ensure_future(_disconnected(self._receive))
            self._listener.add_done_callback(lambda listener: None if listener.cancelled() else self._left())

    def _left(self) -> None:
        if self._task is not None:
            self._gone = True
            self._task.cancel()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        task, self._task = self._task, None
        if self._notify is not None:
            self._notify(None)
        elif self._listener is not None:
            self._listener.cancel()
        if self._gone and task is not None and task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise ClientGone("the client left before its answer was complete") from None


async def until_gone(
    work: Coroutine[Any, Any, Reply], scope: Scope, receive: Receive, patience: float | None = None
) -> asyncio.Task[Reply]:
    """Run `work` until it is done, which the returned task then is, or for `patience` seconds; it goes on after that.

    Whoever gets the task lets go of it.

    Raises:
        ClientGone: the client left first; the work is cancelled.
    """
    task = asyncio.ensure_future(work)
    try:
        with Watch(scope, receive):
            await asyncio.wait({task}, timeout=patience)
        return task
    except BaseException:
        await let_go(task)
        raise


async def let_go(task: asyncio.Task[Reply]) -> None:
    """Close the upstream connection of a reply that has come, is coming, or was read to its end."""
    with anyio.CancelScope(shield=True):
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled() and task.exception() is None:  # what raises has closed its connection
            await close(task.result())


async def close(reply: Reply) -> None:
    """Let go of the upstream connection of a reply, whatever has been read of it."""
    if not isinstance(reply.body, bytes):
        with anyio.CancelScope(shield=True):
            await reply.body.aclose()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def adapted_text(reply: Reply) -> str:
    """What was changed in the call's parameters, in words."""
    return ", ".join(str(adaptation) for adaptation in reply.adaptations)


class ChatEvents(EventSourceResponse):
    """Azure's chunks as data-only events, ended by `[DONE]`, with a ping while nothing comes.

    The task need not be done: until it is, only pings go out, and a refusal can only be an event.

    Args:
        task: the reply that is to come.
        call: what was asked.
        ping: seconds after which a ping goes out; 0 for never.
        pace_seconds: how far one event is to be from the next, at least; 0 for as they come.
    """

    def __init__(self, task: asyncio.Task[Reply], call: Call, ping: float, pace_seconds: float = 0) -> None:
        events = _events(task, call, pace_seconds, early=not task.done())
        super().__init__(events, ping=ping, sep="\n", ping_message_factory=lambda: PING)


class ChatText(StreamingResponse):
    """The first choice's text as it arrives, or event by event. A stream that breaks can only show it by being cut."""

    media_type = "text/plain"

    def __init__(self, reply: Reply, call: Call, pace_seconds: float = 0) -> None:
        super().__init__(
            _texts(reply, call, pace_seconds), headers={"cache-control": "no-store", "x-accel-buffering": "no"}
        )


async def _events(task: asyncio.Task[Reply], call: Call, pace_seconds: float, *, early: bool) -> AsyncIterator[bytes]:
    try:
        if early:
            yield PING.encode()  # the wait for the upstream has been long already
        reply = accepted(await asyncio.shield(task), call)
        if early and reply.adaptations:  # too late for the header that tells of them
            yield ServerSentEvent(comment=adapted_text(reply), sep="\n").encode()
        async with aclosing(_steps_in_turn(reply, call, pace_seconds)) as steps:
            async for step in steps:
                shown = _without_usage(step) if call.hides_usage else step
                if shown:
                    yield b"".join([_event(data) for data, _ in shown])
        yield _event(DONE)
    except GatewayError as error:
        yield _event(msgspec.json.encode(simple_body(error)))
        raise StreamBroken(error.message) from error


def _without_usage(step: list[tuple[bytes, str]]) -> list[tuple[bytes, str]]:
    """What a caller gets who did not ask what the answer took."""
    return [(data.replace(NO_USAGE, b""), text) for data, text in step if not tells_usage_only(data)]


async def _texts(reply: Reply, call: Call, pace_seconds: float) -> AsyncIterator[str]:
    try:
        async with aclosing(_steps_in_turn(reply, call, pace_seconds)) as steps:
            async for step in steps:
                if text := "".join([text for _, text in step]):
                    yield text
    except GatewayError as error:
        raise StreamBroken(error.message) from error


def _steps_in_turn(reply: Reply, call: Call, pace_seconds: float) -> AsyncGenerator[Step]:
    steps = _steps(reply, call)
    return _paced(steps, Pace(pace_seconds)) if pace_seconds else steps


async def _paced(steps: AsyncGenerator[Step], pace: Pace) -> AsyncGenerator[Step]:
    """The same events, one by one, each in its time; while one waits nobody asks for more."""
    loop = asyncio.get_running_loop()
    async with aclosing(steps):
        async for step in steps:
            for event in step:
                takes_turn = not is_empty(event[0])
                if takes_turn and (wait := pace.wait(loop.time())):
                    await asyncio.sleep(wait)
                yield [event]
                if takes_turn:
                    pace.went(loop.time())


async def _steps(reply: Reply, call: Call) -> AsyncGenerator[Step]:
    """The `(data, text)` of the events in each chunk that completes some, up to where the answer is complete.

    Raises:
        UpstreamError: the stream broke, ended early, or told of an error.
    """
    body = reply.body
    assert not isinstance(body, bytes)  # noqa: S101 - `accepted` saw to it
    stream = ChatStream()
    try:
        async for chunk in body:
            if step := stream.feed(chunk):
                yield step
            if stream.ended:
                break
        else:
            if step := stream.flush():
                yield step
    except UpstreamError:
        if not stream.complete:
            raise  # else only `[DONE]` is missing: every choice had said why it ends
    _check_complete(stream, reply, call)
    body.expect_end()


def _check_complete(stream: ChatStream, reply: Reply, call: Call) -> None:
    if stream.error is not None:
        key = reply.deployment.key or call.credential
        told = without_key(stream.error, key.reveal().encode()) if key else stream.error
        refusal = read_refusal_in_200(reply.headers, told)
        raise refusal or UpstreamError(f"{reply.deployment.host} sent an event that is no chat chunk")
    if not stream.complete:
        raise UpstreamError(f"{reply.deployment.host} ended its answer before its end", code="answer_cut_short")


def _event(data: bytes) -> bytes:
    return b"data: " + data.replace(b"\n", b"\ndata: ") + b"\n\n"
