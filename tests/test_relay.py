import asyncio
import gzip
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace

import pytest
from msgspec import structs

from chat_api.errors import AuthError, RequestError, StreamBroken, UpstreamError, UpstreamTimeout
from chat_api.models import Models
from chat_api.relay import Relay
from chat_api.types import Adaptation, Call, Deployment, Headers, Reply, Secret, UpstreamRequest
from tests.relays import gateway_of, group_of, relay_of

JSON: Headers = ((b"content-type", b"application/json"), (b"x-ms-region", b"East US 2"))
SSE: Headers = ((b"content-type", b"text/event-stream; charset=utf-8"), (b"x-request-id", b"i"), (b"server", b"s"))
D = Deployment("d", "https://r.openai.azure.com", "2024-10-21", Secret("k"))
RENAMED = Adaptation("max_tokens", "max_completion_tokens")
NO_TEMPERATURE = Adaptation("temperature", None)

NO_MAX_TOKENS = (
    b'{"error":{"message":"Unsupported parameter: \'max_tokens\' is not supported with this model. '
    b'Use \'max_completion_tokens\' instead.","type":"invalid_request_error","param":"max_tokens",'
    b'"code":"unsupported_parameter"}}'
)
BAD_TEMPERATURE = (
    b'{"error":{"message":"Unsupported value: \'temperature\' does not support 0.5 with this model.",'
    b'"type":"invalid_request_error","param":"temperature","code":"unsupported_value"}}'
)
NO_NEW_NAME = (
    b'{"error":{"message":"Unsupported parameter","type":"invalid_request_error",'
    b'"param":"max_completion_tokens","code":"unsupported_parameter"}}'
)
BUSY = b'{"error":{"message":"no_kv_space","type":"server_error","code":"rate_limit_exceeded"}}'

PROMPT_FILTER = b'data: {"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[]}\n\n'
ROLE = b'data: {"choices":[{"delta":{"content":"","role":"assistant"},"finish_reason":null,"index":0}]}\n\n'
TEXT = b'data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":null,"index":0}]}\n\n'
DONE = b"data: [DONE]\n\n"


class Response:
    """A scripted answer: its body's chunks, where an exception breaks it off. Counts what was taken and closed."""

    def __init__(self, status: int, headers: Headers, *body: bytes | BaseException) -> None:
        self.status = status
        self.headers = headers
        self.queue_seconds = self.connect_seconds = 0.0
        self.taken = 0
        self.closed = 0
        self._body = body

    def arrived(self) -> bytes | None:
        """It is read as it comes."""
        return None

    async def chunks(self) -> AsyncIterator[bytes]:
        """What is left of the body."""
        while self.taken < len(self._body):
            chunk = self._body[self.taken]
            self.taken += 1
            await asyncio.sleep(0)
            if isinstance(chunk, BaseException):
                raise chunk
            yield chunk

    async def aclose(self) -> None:
        """Count that it was closed."""
        self.closed += 1


class Script:
    """A transport that answers from a script, one entry for each request, and keeps the requests."""

    def __init__(self, *answers: Response | Exception) -> None:
        self.requests: list[UpstreamRequest] = []
        self._answers = answers

    @property
    def bodies(self) -> list[bytes]:
        """The bodies of the requests."""
        return [request.body for request in self.requests if isinstance(request.body, bytes)]

    async def send(self, request: UpstreamRequest) -> Response:
        """Answer with the script's next entry."""
        self.requests.append(request)
        answer = self._answers[len(self.requests) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def aclose(self) -> None:
        """There is nothing to close."""


def call(body: bytes = b"{}", *, stream: bool = False, defaulted: Iterable[str] = ()) -> Call:
    """A chat call with that body."""
    return Call("chat/completions", None, body, stream, defaulted=frozenset(defaulted))


def refused(body: bytes) -> Response:
    """A 400 with that body."""
    return Response(400, JSON, body)


def answered() -> Response:
    """An ordinary whole answer."""
    return Response(200, JSON, b'{"choices":[]}')


def exchanged(script: Script, *calls: Call, deployment: Deployment = D) -> list[Reply]:
    """The replies to calls that one relay carries out, one after the other."""

    async def exchange_all() -> list[Reply]:
        relay = relay_of(script)
        return [await relay.exchange(each, group_of(deployment)) for each in calls]

    return asyncio.run(exchange_all())


def streamed(response: Response) -> tuple[Reply, bytes]:
    """The reply to a streamed call, and its body to the end; the body is closed then, once, and not before."""

    async def exchange_and_read() -> tuple[Reply, bytes]:
        reply = await relay_of(Script(response)).exchange(call(stream=True), group_of(D))
        assert not isinstance(reply.body, bytes)
        assert response.closed == 0
        body = b"".join([chunk async for chunk in reply.body])
        await reply.body.aclose()
        assert response.closed == 1
        return reply, body

    return asyncio.run(exchange_and_read())


def test_whole_answer() -> None:
    """A whole answer is the reply, unchanged, with the deployment that gave it; its response is closed."""
    response = Response(200, JSON, b'{"choi', b'ces": [] }')
    script = Script(response)
    assert exchanged(script, call(b'{"a": 1}')) == [Reply(200, JSON, b'{"choices": [] }', D, ())]
    assert response.closed == 1
    assert script.bodies == [b'{"a": 1}']
    assert dict(script.requests[0].headers)[b"api-key"] == b"k"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 413, 429, 500, 502, 503, 599])
def test_refusal(status: int) -> None:
    """A refusal is the reply under its own status: it is not sent again, and its body is left to the endpoint."""
    response = Response(status, JSON, b'{"error":{"message":"m"}}')
    script = Script(response)
    assert exchanged(script, call()) == [Reply(status, JSON, b'{"error":{"message":"m"}}', D, ())]
    assert len(script.requests) == 1
    assert response.closed == 1


def test_refusal_is_read_whole() -> None:
    """A refusal is no stream, though it may come as one."""
    response = Response(429, SSE, ROLE, DONE)
    (reply,) = exchanged(Script(response), call(stream=True))
    assert (reply.status, reply.headers, reply.body) == (429, SSE, ROLE + DONE)
    assert response.closed == 1


@pytest.mark.parametrize(
    ("headers", "body", "stream"),
    [
        pytest.param(SSE, ROLE + DONE, False, id="stream-for-a-whole-call"),
        pytest.param(JSON, b'{"choices":[]}', True, id="whole-for-a-streamed-call"),
        pytest.param((), ROLE + DONE, True, id="no-content-type"),
        pytest.param(JSON, b"", False, id="empty"),
        pytest.param(((b"content-type", b"text/html"),), b"<html>Sign in</html>", False, id="page"),
    ],
)
def test_what_was_not_asked_for_is_no_answer(headers: Headers, body: bytes, stream: bool) -> None:
    """A 200 that is not of the kind that was asked for is an error of the upstream's, so that another may be asked."""
    response = Response(200, headers, body)
    with pytest.raises(UpstreamError) as caught:
        exchanged(Script(response), call(stream=stream))
    assert caught.value.code == "not_an_answer"
    assert response.closed >= 1


@pytest.mark.parametrize(
    ("chunks", "held"),
    [
        pytest.param((ROLE, TEXT, DONE), 1, id="first-chunk-decides"),
        pytest.param((PROMPT_FILTER, ROLE, TEXT, DONE), 2, id="prompt-filter-decides-nothing"),
        pytest.param((b": ping\n\n", PROMPT_FILTER, b"\n", ROLE, DONE), 4, id="comments-decide-nothing"),
        pytest.param((PROMPT_FILTER + ROLE + TEXT, DONE), 1, id="all-in-one"),
        pytest.param((PROMPT_FILTER[:30], PROMPT_FILTER[30:] + ROLE[:-1], ROLE[-1:], DONE), 3, id="split-events"),
        pytest.param((PROMPT_FILTER, DONE), 2, id="done-decides"),
        pytest.param((b"data: something else\n\n", DONE), 1, id="no-json-decides"),
    ],
)
def test_stream_is_held(chunks: tuple[bytes, ...], held: int) -> None:
    """A stream is held until its first decisive event, and no longer."""
    response = Response(200, SSE, *chunks)
    (reply,) = exchanged(Script(response), call(stream=True))
    assert (reply.status, reply.headers, reply.deployment) == (200, SSE, D)
    assert not isinstance(reply.body, bytes)
    assert response.taken == held
    assert response.closed == 0


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(PROMPT_FILTER + ROLE + TEXT + DONE, id="ordinary"),
        pytest.param((PROMPT_FILTER + ROLE + TEXT + DONE).replace(b"\n", b"\r\n"), id="crlf"),
        pytest.param(PROMPT_FILTER + b": ping\n\n" + ROLE + TEXT + b"data: [DONE]", id="no-last-newline"),
        pytest.param(b"\xef\xbb\xbf" + ROLE + b"\xff\n\n" + DONE, id="odd-bytes"),
        pytest.param(PROMPT_FILTER + ROLE.rstrip(), id="only-event-without-newline"),
        pytest.param(b"data: [DONE]", id="only-done-without-newline"),
        pytest.param(ROLE + b"data: " + BUSY + b"\n\n", id="late-error"),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 100_000], ids=["bytes", "sevens", "whole"])
def test_stream_is_unchanged(body: bytes, size: int) -> None:
    """Every byte of a stream comes out, in order, however it came in; then its response is closed."""
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    reply, relayed = streamed(Response(200, SSE, *chunks))
    assert reply.status == 200
    assert relayed == body


@pytest.mark.parametrize(
    ("error", "status"),
    [
        pytest.param(BUSY, 429, id="code-word"),
        pytest.param(b'{"error":{"code":"429","message":"exceeded token rate limit"}}', 429, id="code-number"),
        pytest.param(b'{"error":{"message":"m","type":"server_error"}}', 500, id="type"),
        pytest.param(b'{"error":{"message":"m","status":400,"code":"content_filter"}}', 400, id="status"),
        pytest.param(b'{"error":"m"}', 502, id="text"),
        pytest.param(b'{"error":true}', 502, id="no-description"),
    ],
)
@pytest.mark.parametrize("before", [b"", PROMPT_FILTER], ids=["first", "after-prompt-filter"])
def test_first_event_is_an_error(before: bytes, error: bytes, status: int) -> None:
    """A stream that begins with an error is a refusal under its true status, and its response is closed."""
    response = Response(200, SSE, before, b"data: " + error + b"\n\n", DONE)
    script = Script(response)
    assert exchanged(script, call(stream=True)) == [
        Reply(status, ((b"content-type", b"application/json"), (b"x-request-id", b"i")), error, D, ())
    ]
    assert len(script.requests) == 1
    assert response.closed >= 1


def test_last_event_is_an_error() -> None:
    """An error that ends the stream without a line end gets its true status all the same."""
    (reply,) = exchanged(Script(Response(200, SSE, PROMPT_FILTER, b"data: " + BUSY)), call(stream=True))
    assert (reply.status, reply.body) == (429, BUSY)


def test_last_event_is_an_error_and_closed() -> None:
    """The response of a stream that ended with an error without a line end is closed."""
    response = Response(200, SSE, PROMPT_FILTER, b"data: " + BUSY)
    exchanged(Script(response), call(stream=True))
    assert response.closed >= 1


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param((), id="nothing"),
        pytest.param((b"",), id="empty-chunk"),
        pytest.param((b"\n\n", b": ping\n\n"), id="comments"),
        pytest.param((PROMPT_FILTER,), id="prompt-filter"),
        pytest.param((PROMPT_FILTER.rstrip(),), id="prompt-filter-without-newline"),
        pytest.param((b"event: x\n\n",), id="event-without-data"),
    ],
)
def test_empty_stream(chunks: tuple[bytes, ...]) -> None:
    """A stream that ends before it decided anything is no answer."""
    response = Response(200, SSE, *chunks)
    with pytest.raises(UpstreamError, match=r"^r\.openai\.azure\.com ended its stream without an answer$") as caught:
        exchanged(Script(response), call(stream=True))
    assert (caught.value.status, caught.value.code) == (502, "empty_stream")
    assert response.closed == 1


@pytest.mark.parametrize("status", [101, 300, 301, 302, 304, 307, 308])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_redirect(status: int, stream: bool) -> None:
    """A redirect is no answer: it is not followed, for it would take the key along."""
    response = Response(status, (*SSE, (b"location", b"https://elsewhere.example.com/")), DONE)
    script = Script(response)
    with pytest.raises(UpstreamError, match=rf"answered {status}, .*check ENDPOINT") as caught:
        exchanged(script, call(stream=stream))
    assert (caught.value.status, caught.value.code) == (502, "not_an_answer")
    assert len(script.requests) == 1
    assert response.closed == 1


@pytest.mark.parametrize("error", [UpstreamTimeout("late"), UpstreamError("down", code="upstream_unreachable")])
def test_transport_error(error: UpstreamError) -> None:
    """What the transport raises passes through as it is, and the call is not sent again."""
    script = Script(error)
    with pytest.raises(UpstreamError) as caught:
        exchanged(script, call())
    assert caught.value is error
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(StreamBroken("cut"), id="upstream-error"),
        pytest.param(RuntimeError("a fault of ours"), id="stray"),
        pytest.param(asyncio.CancelledError(), id="cancelled"),
    ],
)
@pytest.mark.parametrize(
    ("headers", "first"),
    [
        pytest.param(JSON, b'{"cho', id="whole"),
        pytest.param(SSE, PROMPT_FILTER, id="held-stream"),
    ],
)
def test_error_in_body(headers: Headers, first: bytes, error: BaseException) -> None:
    """An answer that breaks off before the reply is there raises what broke it, and its response is closed."""
    response = Response(200, headers, first, error)

    async def exchange() -> BaseException | None:
        try:
            await relay_of(Script(response)).exchange(call(stream=True), group_of(D))
        except BaseException as raised:
            return raised
        return None

    assert asyncio.run(exchange()) is error
    assert response.closed == 1


def test_error_in_relayed_body() -> None:
    """A stream that breaks off later raises to whoever reads it, after what came before."""
    error = StreamBroken("cut")
    response = Response(200, SSE, PROMPT_FILTER, ROLE, TEXT, error)

    async def read() -> tuple[list[bytes], BaseException | None]:
        reply = await relay_of(Script(response)).exchange(call(stream=True), group_of(D))
        assert not isinstance(reply.body, bytes)
        came, raised = [], None
        try:
            async for chunk in reply.body:
                came.append(chunk)
        except UpstreamError as broken:
            raised = broken
        await reply.body.aclose()
        return came, raised

    assert asyncio.run(read()) == ([PROMPT_FILTER, ROLE, TEXT], error)
    assert response.closed == 1


def test_giant_event() -> None:
    """A first event without end is cut off, and its response is closed."""
    response = Response(200, SSE, b"data: ", *[b"x" * 1024 * 1024] * 40)
    with pytest.raises(UpstreamError, match="sent more than 16777216 bytes"):
        exchanged(Script(response), call(stream=True))
    assert response.taken < 20
    assert response.closed == 1


def test_rename_is_learnt_once() -> None:
    """A refused `max_tokens` is renamed and sent again; the next call is right the first time."""
    responses = refused(NO_MAX_TOKENS), answered(), answered()
    script = Script(*responses)
    first, second = exchanged(script, call(b'{"max_tokens": 5}'), call(b'{"max_tokens": 6.0}'))
    assert script.bodies == [b'{"max_tokens": 5}', b'{"max_completion_tokens":5}', b'{"max_completion_tokens":6.0}']
    assert (first.status, first.adaptations) == (200, (RENAMED,))
    assert (second.status, second.adaptations) == (200, (RENAMED,))
    assert [response.closed for response in responses] == [1, 1, 1]


def test_attempts_differ_in_the_parameter_only() -> None:
    """The second attempt is the first but for its body."""
    script = Script(refused(NO_MAX_TOKENS), answered())
    exchanged(script, call(b'{"max_tokens": 5}'))
    first, second = script.requests
    assert structs.replace(second, body=first.body) == first


def test_default_is_dropped() -> None:
    """A default that the deployment refuses is left out, and left out from then on."""
    script = Script(refused(BAD_TEMPERATURE), answered(), answered())
    body = b'{"messages":[],"temperature":0.5}'
    replies = exchanged(script, *[call(body, defaulted=["temperature"])] * 2)
    assert script.bodies == [body, b'{"messages":[]}', b'{"messages":[]}']
    assert [reply.adaptations for reply in replies] == [(NO_TEMPERATURE,), (NO_TEMPERATURE,)]


def test_two_adaptations_in_a_row() -> None:
    """A deployment may refuse one parameter after the other: both are sent otherwise within one call."""
    script = Script(refused(NO_MAX_TOKENS), refused(BAD_TEMPERATURE), answered())
    (reply,) = exchanged(script, call(b'{"max_tokens":5,"temperature":0.5}', defaulted=["temperature"]))
    assert script.bodies == [
        b'{"max_tokens":5,"temperature":0.5}',
        b'{"temperature":0.5,"max_completion_tokens":5}',
        b'{"max_completion_tokens":5}',
    ]
    assert (reply.status, reply.adaptations) == (200, (RENAMED, NO_TEMPERATURE))


def test_callers_temperature_is_never_dropped() -> None:
    """What the caller sent is not left out: the refusal is the reply, after one attempt."""
    script = Script(refused(BAD_TEMPERATURE))
    (reply,) = exchanged(script, call(b'{"temperature":0.5}'))
    assert (reply.status, reply.body, reply.adaptations) == (400, BAD_TEMPERATURE, ())
    assert len(script.requests) == 1


def test_callers_temperature_after_a_dropped_default() -> None:
    """A deployment that refused the default still gets the temperature that a caller sends, to refuse it itself."""
    script = Script(refused(BAD_TEMPERATURE), answered(), refused(BAD_TEMPERATURE))
    body = b'{"temperature":0.5}'
    _, reply = exchanged(script, call(body, defaulted=["temperature"]), call(body))
    assert script.bodies == [body, b"{}", body]
    assert (reply.status, reply.body, reply.adaptations) == (400, BAD_TEMPERATURE, ())


@pytest.mark.parametrize(
    "again",
    [
        pytest.param(NO_MAX_TOKENS, id="same-name"),
        pytest.param(NO_NEW_NAME, id="new-name"),
        pytest.param(BAD_TEMPERATURE, id="callers-own"),
    ],
)
def test_refused_again(again: bytes) -> None:
    """A deployment that refuses the second attempt too is not asked a third time: its refusal is the reply."""
    script = Script(refused(NO_MAX_TOKENS), refused(again))
    (reply,) = exchanged(script, call(b'{"max_tokens":5,"temperature":0.5}'))
    assert len(script.requests) == 2
    assert (reply.status, reply.body, reply.adaptations) == (400, again, (RENAMED,))


def test_not_sent_again_unchanged() -> None:
    """A call that has both names is not sent a second time, for it would be the same."""
    script = Script(refused(NO_MAX_TOKENS), refused(NO_MAX_TOKENS))
    exchanged(script, call(b'{"max_tokens":5,"max_completion_tokens":5}'))
    assert len(script.requests) == 1


def test_refusal_within_a_stream_is_learnt_from() -> None:
    """A parameter refused by a stream's first event is sent otherwise, too."""
    stream = Response(200, SSE, PROMPT_FILTER, b"data: " + NO_MAX_TOKENS + b"\n\n")
    script = Script(stream, Response(200, SSE, PROMPT_FILTER, ROLE, DONE))
    (reply,) = exchanged(script, call(b'{"max_tokens":5}', stream=True))
    assert script.bodies == [b'{"max_tokens":5}', b'{"max_completion_tokens":5}']
    assert (reply.status, reply.adaptations) == (200, (RENAMED,))
    assert stream.closed >= 1


def test_each_deployment_is_its_own() -> None:
    """What one deployment taught is not held against another, nor against the same one at another version."""
    others = (replace(D, name="e"), replace(D, api_version="2025-04-01-preview"))
    script = Script(refused(NO_MAX_TOKENS), answered(), answered(), answered())

    async def exchange() -> list[Reply]:
        relay = relay_of(script)
        return [await relay.exchange(call(b'{"max_tokens":5}'), group_of(each)) for each in (D, *others)]

    assert [reply.adaptations for reply in asyncio.run(exchange())] == [(RENAMED,), (), ()]
    assert script.bodies[2:] == [b'{"max_tokens":5}', b'{"max_tokens":5}']


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the memory is full the deployment it learned of first is forgotten, and learned again when asked again."""
    monkeypatch.setattr("chat_api.sending.MAX_REMEMBERED_DEPLOYMENTS", 1)
    script = Script(
        *(refused(NO_MAX_TOKENS), answered()),
        *(refused(NO_MAX_TOKENS), answered()),
        *(refused(NO_MAX_TOKENS), answered()),
        answered(),
    )
    body = b'{"max_tokens":5,"temperature":0.5}'

    async def exchange() -> list[Reply]:
        relay = relay_of(script)
        return [
            await relay.exchange(call(body, defaulted=["temperature"]), group_of(each))
            for each in (D, replace(D, name="e"), D, D)
        ]

    assert [(reply.status, reply.adaptations) for reply in asyncio.run(exchange())] == [
        (200, (RENAMED,)),
        (200, (RENAMED,)),
        (200, (RENAMED,)),
        (200, (RENAMED,)),
    ]
    assert len(script.requests) == 7


class Together(Script):
    """A script whose first two requests are answered only when both are there."""

    def __init__(self, *answers: Response | Exception) -> None:
        super().__init__(*answers)
        self._both = asyncio.Event()

    async def send(self, request: UpstreamRequest) -> Response:
        """Answer, the first two together."""
        answer = await super().send(request)
        if len(self.requests) == 2:
            self._both.set()
        await self._both.wait()
        return answer


async def refused_together() -> tuple[Relay, list[Reply]]:
    """Two calls at once, whose `max_tokens` is refused at the same time."""
    relay = relay_of(Together(refused(NO_MAX_TOKENS), refused(NO_MAX_TOKENS), answered(), answered()))
    return relay, await asyncio.gather(*[relay.exchange(call(b'{"max_tokens":5}'), group_of(D)) for _ in range(2)])


def test_calls_at_once() -> None:
    """Two calls that learn the same at the same time are both answered."""
    _, replies = asyncio.run(refused_together())
    assert [(reply.status, reply.adaptations) for reply in replies] == [(200, (RENAMED,))] * 2


def test_calls_at_once_learn_once() -> None:
    """What several calls learn at the same time is remembered once."""
    relay, _ = asyncio.run(refused_together())
    assert relay._asking._sending._learned[D] == (RENAMED,)


NO_OPTIONS = b'{"error":{"message":"Unrecognized request argument supplied: stream_options","type":"x"}}'
NO_EXTRAS = b'{"detail":[{"type":"extra_forbidden","loc":["body","stream_options"]}]}'
ASKING = b'{"stream_options":{"include_usage":true},"stream":true}'
PLAIN = b'{"stream":true}'


def counted(body: bytes = PLAIN, **fields: object) -> Call:
    """A streamed chat whose usage is counted, though its caller does not ask for it."""
    return structs.replace(call(body, stream=True), **{"is_read": True, **fields})


def flowing() -> Response:
    """A stream."""
    return Response(200, SSE, ROLE, TEXT, DONE)


@pytest.mark.parametrize("verbatim", [False, True], ids=["simple", "relayed"])
@pytest.mark.parametrize(("status", "body"), [(400, NO_OPTIONS), (422, NO_EXTRAS)])
def test_server_that_does_not_know_usage(status: int, body: bytes, verbatim: bool) -> None:
    """A server that refuses to be asked for usage is asked without, then and from then on; no caller sees it."""
    script = Script(Response(status, JSON, body), flowing(), flowing())
    replies = exchanged(script, *[counted(verbatim=verbatim)] * 2)
    assert script.bodies == [ASKING, PLAIN, PLAIN]
    assert [(reply.status, reply.adaptations) for reply in replies] == [(200, ())] * 2


@pytest.mark.parametrize(
    ("call_", "status", "body"),
    [
        pytest.param(counted(is_read=False), 400, NO_OPTIONS, id="not-counted"),
        pytest.param(counted(asks_usage=True), 400, NO_OPTIONS, id="asked-for-by-the-caller"),
        pytest.param(structs.replace(counted(), stream=False), 400, NO_OPTIONS, id="no-stream"),
        pytest.param(counted(), 400, BUSY, id="refused-for-another-reason"),
        pytest.param(counted(), 429, NO_OPTIONS, id="throttled"),
        pytest.param(counted(), 500, NO_OPTIONS, id="failed"),
    ],
)
def test_refusal_that_is_not_of_ours(call_: Call, status: int, body: bytes) -> None:
    """What was not refused because of us is the reply, after one attempt."""
    script = Script(Response(status, JSON, body))
    (reply,) = exchanged(script, structs.replace(call_, verbatim=True))
    assert (reply.status, reply.body, len(script.requests)) == (status, body, 1)


def test_refused_with_usage_and_without() -> None:
    """Who provokes a refusal that names our parameter does not have usage turned off for everybody else."""
    said = NO_OPTIONS.replace(b"stream_options", b"stream_options_x")
    script = Script(refused(said), refused(said), flowing())
    first, second = exchanged(script, counted(verbatim=True), counted(verbatim=True))
    assert script.bodies == [ASKING, PLAIN, ASKING]
    assert (first.status, first.body, second.status) == (400, said, 200)


def test_usage_and_a_parameter_are_refused() -> None:
    """A server may refuse both: each is put right once, and both are remembered."""
    script = Script(refused(NO_OPTIONS), refused(NO_MAX_TOKENS), flowing(), flowing())
    body = b'{"max_tokens":5,"stream":true}'
    replies = exchanged(script, counted(body), counted(body))
    assert script.bodies[2:] == [b'{"stream":true,"max_completion_tokens":5}'] * 2
    assert [(reply.status, reply.adaptations) for reply in replies] == [(200, (RENAMED,))] * 2


@pytest.mark.parametrize(
    ("own", "callers", "sent"),
    [
        pytest.param("server", None, b"server", id="servers"),
        pytest.param(None, "caller", b"caller", id="callers"),
        pytest.param("server", "caller", b"server", id="servers-first"),
    ],
)
def test_credential(own: str | None, callers: str | None, sent: bytes) -> None:
    """A call goes out with the server's key, else with the caller's own, as `api-key`."""
    script = Script(answered())
    target = replace(D, key=Secret(own) if own else None)
    exchanged(script, structs.replace(call(), credential=Secret(callers) if callers else None), deployment=target)
    assert [value for name, value in script.requests[0].headers if name in (b"api-key", b"authorization")] == [sent]


def test_no_credential() -> None:
    """Without any key nothing is sent."""
    script = Script()
    with pytest.raises(AuthError, match="set KEY on the server") as caught:
        exchanged(script, call(), deployment=replace(D, key=None))
    assert (caught.value.status, caught.value.code) == (401, "missing_credential")
    assert script.requests == []


def test_refused_name() -> None:
    """A deployment's name that cannot stand in a path is the caller's error, and nothing is sent."""
    script = Script()
    with pytest.raises(RequestError) as caught:
        exchanged(script, call(), deployment=replace(D, name=".."))
    assert caught.value.param == "model"
    assert script.requests == []


def handled(script: Script, default: str, model: str | None) -> Reply:
    """A gateway's reply to a call for `model`, where the deployment `default` answers calls without one."""
    gateway = gateway_of({"": Models({}, [replace(D, name=default)])}, script)
    return asyncio.run(gateway.handle(structs.replace(call(), model=model)))


@pytest.mark.parametrize(
    ("default", "model", "name"),
    [
        pytest.param("d", None, "d", id="default"),
        pytest.param("d", "", "d", id="empty"),
        pytest.param("d", "e", "e", id="own"),
        pytest.param("", "e", "e", id="own-without-default"),
    ],
)
def test_model(default: str, model: str | None, name: str) -> None:
    """A call's model names the deployment, at the same resource and with the same key; without one the default does."""
    script = Script(answered())
    reply = handled(script, default, model)
    assert reply.deployment == Deployment(name, "https://r.openai.azure.com", "2024-10-21", Secret("k"))
    assert [request.url for request in script.requests] == [
        f"https://r.openai.azure.com/openai/deployments/{name}/chat/completions?api-version=2024-10-21"
    ]


def test_no_model() -> None:
    """A call without a model needs a default deployment: it is told so, and nothing is sent."""
    script = Script()
    with pytest.raises(RequestError, match="set DEPLOYMENT_NAME on the server") as caught:
        handled(script, "", None)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, "model", "missing_model")
    assert script.requests == []


def test_answer_without_bounds_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is read whole may not fill the memory; its response is closed."""
    monkeypatch.setattr("chat_api.judging.MAX_ANSWER_BYTES", 100)
    response = Response(200, ((b"content-type", b"application/json"),), *[b"x" * 60] * 5)
    with pytest.raises(UpstreamError, match="sent more than 100 bytes") as caught:
        exchanged(Script(response), call())
    assert caught.value.code == "answer_too_large"
    assert response.taken == 2
    assert response.closed >= 1


@pytest.mark.parametrize("status", [100, 199, 300, 399, 600, 999])
def test_status_that_is_no_answer(status: int) -> None:
    """Only 2xx, 4xx and 5xx are answers to a call."""
    with pytest.raises(UpstreamError, match=f"answered {status}, which is no answer"):
        exchanged(Script(Response(status, (), b"")), call())


def relayed(
    response: Response, *, stream: bool = False, operation: str = "chat/completions", accepts: bytes = b"gzip"
) -> tuple[Reply, bytes]:
    """The reply to a relayed call whose caller accepts that coding, and its body to the end."""

    async def exchange_and_read() -> tuple[Reply, bytes]:
        asked = structs.replace(call(b'{"max_tokens":5}', stream=stream), operation=operation, verbatim=True)
        asked = structs.replace(asked, headers=((b"accept-encoding", accepts),))
        reply = await relay_of(Script(response)).exchange(asked, group_of(D))
        if isinstance(reply.body, bytes):
            return reply, reply.body
        assert response.closed == 0
        body = b"".join([chunk async for chunk in reply.body])
        await reply.body.aclose()
        return reply, body

    got = asyncio.run(exchange_and_read())
    assert response.closed >= 1
    return got


def test_relayed_call_is_not_changed() -> None:
    """A relayed call whose parameter is refused is not sent again otherwise: the refusal is the caller's."""
    reply, body = relayed(refused(NO_MAX_TOKENS))
    assert (reply.status, body, reply.adaptations) == (400, NO_MAX_TOKENS, ())


@pytest.mark.parametrize(
    ("status", "kind", "operation"),
    [
        pytest.param(200, b"audio/mpeg", "audio/speech", id="binary"),
        pytest.param(200, b"text/plain", "audio/transcriptions", id="text"),
        pytest.param(200, b"application/octet-stream", "files/f/content", id="file"),
    ],
)
def test_relayed_as_it_comes(status: int, kind: bytes, operation: str) -> None:
    """What is no JSON is not read before it goes on; its bytes and headers are its own."""
    headers: Headers = ((b"content-type", kind), (b"content-encoding", b"gzip"))
    response = Response(status, headers, b"\x1f\x8b", b"\x00\xff")
    reply, body = relayed(response, operation=operation)
    assert (reply.status, reply.headers, body) == (status, headers, b"\x1f\x8b\x00\xff")


@pytest.mark.parametrize("kind", [b"application/json", b"audio/mpeg"])
def test_relayed_to_who_cannot_open_it(kind: bytes) -> None:
    """What came compressed though its caller cannot read that is opened; its headers say nothing of it any more."""
    packed = gzip.compress(b'{"choices":[]}')
    headers = ((b"content-type", kind), (b"content-encoding", b"gzip"), (b"content-length", b"%d" % len(packed)))
    reply, body = relayed(Response(200, headers, packed[:9], packed[9:]), accepts=b"identity")
    assert (reply.headers, body) == (((b"content-type", kind),), b'{"choices":[]}')


def test_relayed_json_is_read_first() -> None:
    """Small JSON is there as a whole before its reply is, compressed or not: it can still be judged."""
    reply, _ = relayed(Response(200, JSON, b'{"choi', b'ces":[]}'))
    assert reply.body == b'{"choices":[]}'


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        pytest.param(((b"content-type", b"text/plain"),), b"", id="empty-text"),
        pytest.param(((b"content-type", b"audio/mpeg"),), b'{"error":{"message":"m"}}', id="binary"),
        pytest.param((*JSON, (b"content-encoding", b"gzip")), b'{"error":{"message":"m"}}', id="compressed"),
    ],
)
def test_relayed_without_a_look(headers: Headers, body: bytes) -> None:
    """What is no JSON, or is compressed, is not looked into: nothing in it makes an error of a 200."""
    reply, got = relayed(Response(200, headers, body), operation="audio/transcriptions")
    assert (reply.status, reply.headers, got) == (200, headers, body)


def test_relayed_json_that_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large JSON goes on as it comes, with what was read of it."""
    monkeypatch.setattr("chat_api.judging.MAX_HELD_BYTES", 10)
    response = Response(200, JSON, *[b"0123456"] * 5)
    reply, body = relayed(response)
    assert not isinstance(reply.body, bytes)
    assert body == b"0123456" * 5


def test_relayed_json_that_breaks_off() -> None:
    """Small JSON that breaks off is an error, not half an answer."""
    error = UpstreamError("cut")
    response = Response(200, JSON, b'{"cho', error)
    with pytest.raises(UpstreamError) as caught:
        relayed(response)
    assert caught.value is error
    assert response.closed == 1


def test_relayed_page() -> None:
    """A page is no answer to what was posted: the endpoint leads to a web site."""
    response = Response(200, ((b"content-type", b"text/html"),), b"<html>")
    with pytest.raises(UpstreamError, match="answered with a page"):
        relayed(response)
    assert response.closed == 1


@pytest.mark.parametrize("stream", [True, False], ids=["asked-for", "not-told"])
def test_relayed_events(stream: bool) -> None:
    """Events are judged by the first that decides, though the body did not say that they were asked for."""
    reply, body = relayed(Response(200, SSE, PROMPT_FILTER, ROLE, DONE), stream=stream)
    assert (reply.status, body) == (200, PROMPT_FILTER + ROLE + DONE)
    refusal, _ = relayed(Response(200, SSE, PROMPT_FILTER, b"data: " + BUSY + b"\n\n"), stream=stream)
    assert (refusal.status, refusal.body) == (429, BUSY)


def test_compressed_events_are_opened() -> None:
    """Events that came compressed all the same go on as events, and their headers say nothing of gzip."""
    packed = gzip.compress(PROMPT_FILTER + ROLE + DONE)
    response = Response(200, (*SSE, (b"content-encoding", b"gzip")), packed[:20], packed[20:])
    reply, body = relayed(response, stream=True)
    assert (reply.headers, body) == (SSE, PROMPT_FILTER + ROLE + DONE)


def test_compressed_error_is_opened() -> None:
    """An error that came compressed is read, and goes on as what it was."""
    headers = (*JSON, (b"content-encoding", b"gzip"), (b"content-length", b"99"))
    reply, body = relayed(Response(429, headers, gzip.compress(BUSY)))
    assert (reply.status, reply.headers, body) == (429, JSON, BUSY)


FAILED = b'event: response.failed\ndata: {"type":"response.failed","response":{"error":null}}\n\n'
TOLD = b'{"type":"error","error":{"type":"too_many_requests","code":"rate_limit_exceeded","message":"m"}}'


def test_response_that_fails_at_once() -> None:
    """A response that fails at once has the status of the error event that follows."""
    reply, body = relayed(Response(200, SSE, FAILED, b"event: error\ndata: " + TOLD + b"\n\n"), operation="responses")
    assert (reply.status, body) == (429, TOLD)


def test_response_that_fails_without_a_reason() -> None:
    """A response that fails at once and says no more goes on as the stream it is."""
    reply, body = relayed(Response(200, SSE, FAILED), operation="responses")
    assert (reply.status, body) == (200, FAILED)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b'{"type":"response.created","response":{}}', id="responses"),
        pytest.param(b'{"id":"run_1","object":"thread.run"}', id="run"),
        pytest.param(b'{"type":"image_generation.partial_image"}', id="image"),
        pytest.param(b"{}", id="anything"),
    ],
)
def test_events_of_other_operations_decide(data: bytes) -> None:
    """An event of an API that has no choices decides at once."""
    response = Response(200, SSE, b"data: " + data + b"\n\n", b"data: more\n\n")
    (reply,) = exchanged(Script(response), structs.replace(call(stream=True), operation="responses", verbatim=True))
    assert reply.status == 200
    assert response.taken == 1


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("HEAD", 404), ("DELETE", 204)])
def test_coding_of_no_body(method: str, status: int) -> None:
    """An answer that has no body by right keeps its status, though its head names a coding (RFC 9110 section 9.3.2)."""
    response = Response(status, (*JSON, (b"content-encoding", b"gzip")))
    asked = structs.replace(call(b""), operation="files/f", method=method, verbatim=True)
    (reply,) = exchanged(Script(response), asked)
    assert (reply.status, reply.body) == (status, b"")
