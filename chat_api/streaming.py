"""The answer side of a streamed call, and the watch over a client that may leave while it waits.

A stream that broke never looks complete: its last event is the error, `[DONE]` does not come, and
`StreamBroken` leaves the response unfinished, so that the server cuts the connection.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing
from typing import Any

import anyio
import msgspec
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import AppStatus
from starlette.responses import StreamingResponse
from starlette.types import Receive

from chat_api import refusals
from chat_api.errors import ClientGone, GatewayError, StreamBroken, UpstreamError, simple_body
from chat_api.headers import media_type
from chat_api.sse import DONE, ChatStream
from chat_api.types import Call, Reply

PING = ServerSentEvent(comment="ping", sep="\n")


def let_streams_drain() -> None:
    """Keep sse-starlette from cutting live streams, in this process, the moment a server is told to stop."""
    AppStatus.enable_automatic_graceful_drain = False


async def until_gone(
    work: Coroutine[Any, Any, Reply], receive: Receive, patience: float | None = None
) -> "Reply | asyncio.Task[Reply]":
    """The result of `work`, which is cancelled when the client leaves.

    Nobody else listens for the client while an upstream call runs (uvicorn only notes that it left),
    and an answer that nobody reads is still paid for. After `patience` seconds the task itself is
    returned, still running: whoever gets it awaits or cancels it.

    Raises:
        ClientGone: the client left first.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({task, gone}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise ClientGone("the client left before it was answered")
        return task
    except BaseException:
        await let_go(task)
        raise
    finally:
        gone.cancel()


async def let_go(answer: "Reply | asyncio.Task[Reply]") -> None:
    """Close the upstream connection of an answer, whether it has come, is coming or was read to its end."""
    with anyio.CancelScope(shield=True):
        if isinstance(answer, asyncio.Task):
            answer.cancel()
            await asyncio.wait({answer})
            if answer.cancelled() or answer.exception() is not None:
                return  # what raises has closed its connection
            answer = answer.result()
        if not isinstance(answer.body, bytes):
            await answer.body.aclose()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def accepted(reply: Reply, call: Call) -> Reply:
    """The reply, if it is an answer of the kind that was asked for.

    Raises:
        UpstreamError: it is the upstream's error, with a hint where there is one, or no stream.
    """
    if not isinstance(reply.body, bytes):
        return reply
    refusal = None
    if reply.status >= 300:
        refusal = refusals.read_refusal(reply.status, reply.headers, reply.body)
    elif call.stream:
        refusal = refusals.read_refusal_in_200(reply.headers, reply.body)
    if refusal is not None:
        raise refusals.explained(refusal, reply.deployment, call)
    if call.stream:
        message = (
            f'{reply.deployment.host} answered a streamed call with "{media_type(reply.headers)}", not with events'
        )
        raise UpstreamError(message, code="not_an_answer")
    return reply


def adapted_text(reply: Reply) -> str:
    """What was changed in the call's parameters, in words."""
    return ", ".join(str(adaptation) for adaptation in reply.adaptations)


class ChatEvents(EventSourceResponse):
    """Azure's chunks as data-only events, ended by `[DONE]`, with a ping while nothing comes."""

    def __init__(self, answer: "Reply | asyncio.Task[Reply]", call: Call, ping: float, headers: dict[str, str]) -> None:
        super().__init__(_events(answer, call), headers=headers, ping=ping, sep="\n", ping_message_factory=lambda: PING)


class ChatText(StreamingResponse):
    """The first choice's text as it arrives. A stream that breaks can only show it by being cut."""

    media_type = "text/plain"

    def __init__(self, reply: Reply, headers: dict[str, str]) -> None:
        super().__init__(_texts(reply), headers={"cache-control": "no-store", "x-accel-buffering": "no", **headers})


async def _events(answer: "Reply | asyncio.Task[Reply]", call: Call) -> AsyncIterator[bytes]:
    try:
        if isinstance(answer, Reply):
            reply = answer
        else:
            yield PING.encode()  # the wait for the upstream has been long already
            reply = accepted(await asyncio.shield(answer), call)
            if reply.adaptations:  # too late for the header that tells of them
                yield ServerSentEvent(comment=adapted_text(reply), sep="\n").encode()
        async with aclosing(_steps(reply)) as steps:
            async for step in steps:
                yield b"".join([_event(data) for data, _ in step])
        yield _event(DONE)
    except GatewayError as error:
        yield _event(msgspec.json.encode(simple_body(error)))
        raise StreamBroken(error.message) from error


async def _texts(reply: Reply) -> AsyncIterator[str]:
    try:
        async with aclosing(_steps(reply)) as steps:
            async for step in steps:
                if text := "".join([text for _, text in step]):
                    yield text
    except GatewayError as error:
        raise StreamBroken(error.message) from error


async def _steps(reply: Reply) -> AsyncGenerator[list[tuple[bytes, str]]]:
    """The `(data, text)` of the events in each chunk that completes some, up to where the answer is complete.

    Raises:
        UpstreamError: the stream broke, ended early, or told of an error.
    """
    body = reply.body
    assert not isinstance(body, bytes)  # noqa: S101 - `accepted` saw to it
    stream = ChatStream()
    async for chunk in body:
        if step := stream.feed(chunk):
            yield step
        if stream.done or stream.error is not None:
            break
    else:
        if step := stream.flush():
            yield step
    _check_complete(stream, reply)
    body.expect_end()


def _check_complete(stream: ChatStream, reply: Reply) -> None:
    if stream.error is not None:
        refusal = refusals.read_refusal_in_200(reply.headers, stream.error)
        raise refusal or UpstreamError("the upstream broke off with an error that it does not describe")
    if not stream.complete:
        raise UpstreamError(f"{reply.deployment.host} ended its answer before its end", code="answer_cut_short")


def _event(data: bytes) -> bytes:
    if b"\n" in data:
        data = data.replace(b"\n", b"\ndata: ")
    return b"data: " + data + b"\n\n"
