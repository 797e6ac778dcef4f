"""What a response is: the reply that its head, and for a stream its first decisive event, stand for.

An upstream answers 200 before it knows, or with an error inside, or with nothing at all; the reply has
the status that it should have had, so that whoever decides whether to ask elsewhere need not look again.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from chat_api import refusals
from chat_api.coding import decoded, is_readable, without_coding
from chat_api.errors import UpstreamError
from chat_api.headers import accepts_gzip, first, media_type, relayed
from chat_api.sse import MAX_EVENT_BYTES, Event, EventDecoder, read_chunk
from chat_api.types import Adaptation, Call, Deployment, Headers, Reply, Sink, UpstreamResponse

MAX_ANSWER_BYTES = 64 * 1024 * 1024  # of an answer that is read whole
MAX_HELD_BYTES = 1024 * 1024  # of JSON that is read before it goes on
# After [DONE] an upstream's body has only its last chunk mark to come; it comes at once or not at all.
LAST_CHUNK_SECONDS = 1.0


class Place(Protocol):
    """What a body that is still arriving takes up at its deployment."""

    def broke(self, error: UpstreamError) -> None:
        """It has broken off."""
        ...

    def leave(self) -> None:
        """It is over, or nobody reads on; may be called again."""
        ...


class RelayedBody:
    """A response's body as it arrives, read once: the chunks that were held to judge it, then the rest.

    Attributes:
        place: told how the body ends, once there is somebody to tell.
    """

    def __init__(self, response: UpstreamResponse, held: list[bytes], rest: AsyncIterator[bytes]) -> None:
        self._response = response
        self._held = deque(held)
        self._rest = rest
        self._end_is_next = False
        self.place: Place | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._held:
            return self._held.popleft()
        try:
            return await anext(self._rest)
        except UpstreamError as error:
            self._broke(error)
            raise

    async def flow(self, sink: Sink) -> Awaitable[object] | None:
        """Give `sink` each chunk as it comes, until it returns something to await; None is the end."""
        while self._held:
            if (waiting := sink(self._held.popleft())) is not None:
                return waiting
        try:
            # Those of `wire` need not be asked for one by one.
            flow: Callable[[Sink], Awaitable[Awaitable[object] | None]] | None = getattr(self._rest, "flow", None)
            if flow is not None:
                return await flow(sink)
            async for chunk in self._rest:
                if (waiting := sink(chunk)) is not None:
                    return waiting
        except UpstreamError as error:
            self._broke(error)
            raise
        return None

    def _broke(self, error: UpstreamError) -> None:
        if self.place is not None and not self._end_is_next:
            self.place.broke(error)

    def expect_end(self) -> None:
        """The answer is complete: only the end of the body is still to come."""
        self._end_is_next = True

    async def aclose(self) -> None:
        """Let go of the connection; one whose body has only its end to come is read out, to serve again."""
        try:
            if self._end_is_next:
                with contextlib.suppress(UpstreamError, TimeoutError):
                    async with asyncio.timeout(LAST_CHUNK_SECONDS):
                        async for _ in self._rest:
                            pass
        finally:
            if self.place is not None:
                self.place.leave()
            await self._response.aclose()


async def judged(
    response: UpstreamResponse, call: Call, deployment: Deployment, applied: tuple[Adaptation, ...]
) -> Reply:
    """The reply that a response's head, and for a stream its first decisive event, stand for."""
    try:
        if not (200 <= response.status < 300 or 400 <= response.status < 600):
            what = f"{deployment.host} answered {response.status}, which is no answer to a call"
            message = f"{what}; check {deployment.url_setting}"
            raise UpstreamError(message, code="not_an_answer")
        if response.status == 407:  # a proxy's own; nobody else may say it (RFC 9110 section 15.5.8)
            message = f"the proxy to {deployment.host} wants other credentials; check UPSTREAM_PROXY"
            raise UpstreamError(message, code="proxy_failed")
        if call.method == "HEAD" or response.status == 204:  # its headers may speak of a body that does not come
            await response.aclose()
            return Reply(response.status, response.headers, b"", deployment)
        kind = media_type(response.headers)
        if response.status == 200 and kind == "text/event-stream" and (call.stream or call.is_followed):
            return await _judged_stream(response, deployment, applied)
        if call.verbatim and response.status < 300:
            return await _judged_answer(response, kind, call, deployment)
        whole = response.arrived() if first(response.headers, b"content-encoding") is None else None
        if whole is not None:
            return refusals.truly(Reply(response.status, response.headers, whole, deployment, applied), call)
        if response.status >= 400 and not is_readable(response.headers):
            await response.aclose()  # its status and headers tell the most of it
            return Reply(response.status, without_coding(response.headers), b"", deployment, applied)
        body = await _whole(response, decoded(response), deployment)
        return refusals.truly(Reply(response.status, without_coding(response.headers), body, deployment, applied), call)
    except BaseException:
        await response.aclose()
        raise


async def _whole(response: UpstreamResponse, chunks: AsyncIterator[bytes], deployment: Deployment) -> bytes:
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise _too_large(deployment, MAX_ANSWER_BYTES)
    await response.aclose()
    return bytes(body)


async def _judged_answer(response: UpstreamResponse, kind: str, call: Call, deployment: Deployment) -> Reply:
    """The reply to a relayed call that was answered, but with no event stream.

    JSON that is small is read first, so that an answer that breaks off, or is none, gets a true
    status. What is large or binary goes on as it comes.
    """
    # A coding that the caller cannot read is opened, though it was not asked for.
    is_plain = first(response.headers, b"content-encoding") is None
    readable = is_plain or (accepts_gzip(call.headers) and not call.is_read)
    if readable and kind == "application/json":
        body = response.arrived()
        if body is not None:
            reply = Reply(response.status, response.headers, body, deployment)
            return refusals.truly(reply, call) if is_plain else reply
    chunks = response.chunks() if readable else decoded(response)
    headers = response.headers if readable else without_coding(response.headers)
    held: list[bytes] = []
    size = 0
    if kind == "application/json":
        async for chunk in chunks:
            held.append(chunk)
            size += len(chunk)
            if size > MAX_HELD_BYTES:
                return Reply(response.status, headers, RelayedBody(response, held, chunks), deployment)
        await response.aclose()
        body = held[0] if len(held) == 1 else b"".join(held)
        reply = Reply(response.status, headers, body, deployment)
        return refusals.truly(reply, call) if is_plain or not readable else reply
    if kind == "text/html" and call.method == "POST":
        message = f"{deployment.host} answered with a page, not with an answer; check {deployment.url_setting}"
        raise UpstreamError(message, code="not_an_answer")
    return Reply(response.status, headers, RelayedBody(response, held, chunks), deployment)


def _too_large(deployment: Deployment, limit: int) -> UpstreamError:
    return UpstreamError(f"{deployment.host} sent more than {limit} bytes of an answer", code="answer_too_large")


async def _judged_stream(response: UpstreamResponse, deployment: Deployment, applied: tuple[Adaptation, ...]) -> Reply:
    """The reply to a streamed call, once its first decisive event is there.

    Azure answers 200 before it knows: the first event may be an error (a rate limit, say), which
    then gets its true status. Its prompt filter event comes before either and decides nothing.
    """
    chunks = decoded(response)
    headers = without_coding(response.headers)
    held: list[bytes] = []
    event = await _first_decisive(chunks, held, deployment)
    if event is None:
        raise UpstreamError(f"{deployment.host} ended its stream without an answer", code="empty_stream")
    chunk = read_chunk(event.data)
    if event.name != "error" and (chunk is None or not chunk.is_error):
        return Reply(200, headers, RelayedBody(response, held, chunks), deployment, applied)
    await response.aclose()
    refusal = refusals.read_refusal_in_200(headers, event.data)
    return Reply(refusal.status if refusal else 502, _as_json(headers), event.data, deployment, applied)


async def _first_decisive(chunks: AsyncIterator[bytes], held: list[bytes], deployment: Deployment) -> Event | None:
    """The first event that decides what a stream is, `held` getting what was read; None if it ended before."""
    decoder = EventDecoder()
    size = 0
    failed: Event | None = None
    async for chunk in chunks:
        held.append(chunk)
        size += len(chunk)
        if size > MAX_EVENT_BYTES:
            raise _too_large(deployment, MAX_EVENT_BYTES)
        events = decoder.feed(chunk)
        if event := _decisive(events):
            return event
        failed = failed or next((event for event in events if event.name == "response.failed"), None)
    return _decisive(decoder.flush()) or failed  # the last event may lack its line end


def _decisive(events: list[Event]) -> Event | None:
    for event in events:
        chunk = read_chunk(event.data)
        if chunk is None or chunk.is_decisive:
            return event
    return None


def _as_json(headers: Headers) -> Headers:
    return ((b"content-type", b"application/json"), *relayed(headers))
