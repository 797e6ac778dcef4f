"""The attempt loop: prepare, send, judge, and answer.

Invariant: every attempt is identical to the first except for what the deployment itself taught us
about its parameters. Nothing is repeated once a byte has gone downstream.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable
from typing import Protocol, runtime_checkable

from msgspec import structs

from chat_api import refusals, translate
from chat_api.coding import decoded, is_readable, without_coding
from chat_api.credentials import credential
from chat_api.errors import UpstreamError
from chat_api.headers import accepts_gzip, first, media_type, relayed
from chat_api.sse import MAX_EVENT_BYTES, Event, EventDecoder, read_chunk
from chat_api.types import Adaptation, Call, Deployment, Headers, Reply, Sink, Transport, UpstreamResponse

MAX_REMEMBERED_DEPLOYMENTS = 1000
MAX_ANSWER_BYTES = 64 * 1024 * 1024  # of an answer that is read whole
MIN_KEY_BYTES = 12  # anything shorter is no key, and may be a word of any message
MAX_HELD_BYTES = 1024 * 1024  # of JSON that is read before it goes on
# After [DONE] an upstream's body has only its last chunk mark to come; it comes at once or not at all.
LAST_CHUNK_SECONDS = 1.0

log = logging.getLogger(__name__)


class Relay:
    """Carries calls to deployments, and remembers which parameters each of them wants otherwise."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._learned: dict[Deployment, tuple[Adaptation, ...]] = {}

    async def exchange(self, call: Call, deployment: Deployment) -> Reply:
        """The deployment's reply: its answer, or its refusal under a true status.

        A parameter that the deployment refuses and that may be sent otherwise is, once; what was
        changed is in the reply's `adaptations`.

        Raises:
            GatewayError: there is no credential, or the upstream could not be reached or understood.
        """
        presented = credential(call, deployment)
        while True:
            learned = self._learned.get(deployment, ()) if self._learned else ()
            request, applied = translate.upstream_request(call, deployment, presented, learned)
            response = await self._transport.send(request)
            reply = _without_key(await _judged(response, call, deployment, applied), presented[1])
            if reply.status != 400 or call.verbatim or not isinstance(reply.body, bytes):
                return reply
            refusal = refusals.read_refusal(reply.status, reply.headers, reply.body)
            adaptation = refusals.adaptation_for(refusal, call)
            if adaptation is None or adaptation in learned:
                return reply
            self._remember(deployment, adaptation)
            log.info('deployment "%s" refused %s: %s', deployment.name, adaptation.parameter, adaptation)

    def _remember(self, deployment: Deployment, adaptation: Adaptation) -> None:
        """Learn it for the next attempt; the memory is bounded, and forgets the deployment it learned of first."""
        learned = self._learned.get(deployment, ())
        if adaptation in learned:
            return  # another call has learned it in the meantime
        if not learned and len(self._learned) >= MAX_REMEMBERED_DEPLOYMENTS:
            del self._learned[next(iter(self._learned))]
        self._learned[deployment] = (*learned, adaptation)


@runtime_checkable
class Flowing(Protocol):
    """Chunks that need not be asked for one by one."""

    async def flow(self, sink: Sink) -> Awaitable[object] | None:
        """As `ByteStream` has it."""
        ...


class RelayedBody:
    """A response's body as it arrives, read once: the chunks that were held to judge it, then the rest."""

    def __init__(self, response: UpstreamResponse, held: list[bytes], rest: AsyncIterator[bytes]) -> None:
        self._response = response
        self._held = deque(held)
        self._rest = rest
        self._end_is_next = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        return self._held.popleft() if self._held else await anext(self._rest)

    async def flow(self, sink: Sink) -> Awaitable[object] | None:
        """Give `sink` each chunk as it comes, until it returns something to await; None is the end."""
        while self._held:
            if (waiting := sink(self._held.popleft())) is not None:
                return waiting
        if isinstance(self._rest, Flowing):
            return await self._rest.flow(sink)
        async for chunk in self._rest:
            if (waiting := sink(chunk)) is not None:
                return waiting
        return None

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
            await self._response.aclose()


async def _judged(
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
        if response.status >= 400 and not is_readable(response.headers):
            await response.aclose()  # its status and headers tell the most of it
            return Reply(response.status, without_coding(response.headers), b"", deployment, applied)
        body = await _whole(response, decoded(response), deployment)
        return Reply(response.status, without_coding(response.headers), body, deployment, applied)
    except BaseException:
        await response.aclose()
        raise


def _without_key(reply: Reply, credential: bytes) -> Reply:
    """The reply without the key it was asked with: some servers repeat the one that they refuse."""
    key = credential.removeprefix(b"Bearer ")
    if len(key) < MIN_KEY_BYTES or not isinstance(reply.body, bytes) or key not in reply.body:
        return reply
    return structs.replace(reply, body=reply.body.replace(key, b"***"))


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
    readable = first(response.headers, b"content-encoding") is None or accepts_gzip(call.headers)
    if readable and kind == "application/json":
        body = response.arrived()
        if body is not None:
            return Reply(response.status, response.headers, body, deployment)
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
        return Reply(response.status, headers, held[0] if len(held) == 1 else b"".join(held), deployment)
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
