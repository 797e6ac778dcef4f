"""OpenAI's own Python client and langchain's, unchanged, over sockets: each operation, stream and error class."""

import asyncio
import base64
import io
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from langchain_core.messages import HumanMessage
from langchain_openai import AzureChatOpenAI, ChatOpenAI, OpenAIEmbeddings
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel, SecretStr

from tests.servers import Gateway, eventually, gateway

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Grüße, 世界"}]
SAID = 'You said: "Grüße, 世界".'
WAV = b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(range(256)) * 8
VERSIONS = ("2024-10-21", "v1")


@pytest.fixture(scope="module", params=VERSIONS)
def server(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    """A gateway in front of each of Azure's APIs, with little patience for upstreams that hang."""
    mapper = "gpt-3.5-turbo=gpt-4o-mini,embed=text-embedding-3-small,whisper=whisper-1,image=gpt-image-1"
    limits = {"FIRST_BYTE_TIMEOUT": "0.6", "IDLE_TIMEOUT": "0.5"}
    with gateway(API_VERSION=request.param, MODEL_MAPPER=mapper, **limits) as running:
        yield running


def plain(server: Gateway, **options: Any) -> openai.OpenAI:
    """OpenAI's client, with nothing but another base URL."""
    options = {"max_retries": 0, **options}
    return openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="whatever", **options)


def azure(server: Gateway, **options: Any) -> openai.AzureOpenAI:
    """Azure's flavour of the client, with nothing but another endpoint."""
    endpoint = f"http://127.0.0.1:{server.port}"
    given = {"max_retries": 0, **options}
    return openai.AzureOpenAI(azure_endpoint=endpoint, api_key="x", api_version="2024-06-01", **given)


@pytest.fixture(scope="module", params=["OpenAI", "AzureOpenAI", "OpenAI-at-openai-v1"])
def client(server: Gateway, request: pytest.FixtureRequest) -> Iterator[openai.OpenAI]:
    """Each way in which a Python program reaches Azure or OpenAI."""
    if request.param == "OpenAI-at-openai-v1":
        made = openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/openai/v1", api_key="x", max_retries=0)
    else:
        made = plain(server) if request.param == "OpenAI" else azure(server)
    with made:
        yield made


def test_chat(client: openai.OpenAI) -> None:
    """An answer comes, under a mapped model name as well."""
    for model in ("gpt-4o", "gpt-3.5-turbo"):
        answer = client.chat.completions.create(model=model, messages=HELLO)
        assert answer.choices[0].message.content == SAID
        assert answer.usage is not None
    assert answer.model == "gpt-4o-mini-emulated"


def test_stream(client: openai.OpenAI) -> None:
    """A stream comes chunk by chunk, with its usage, and ends."""
    with client.chat.completions.create(
        model="gpt-4o", messages=HELLO, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)

    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == SAID
    assert chunks[-1].usage is not None
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == "stop"


def test_tools(client: openai.OpenAI) -> None:
    """A tool is called, streamed and not."""
    tool: Any = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
    answer = client.chat.completions.create(model="gpt-4o", messages=HELLO, tools=[tool], tool_choice="required")
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].type == "function"
    assert calls[0].function.name == "look_up"

    with client.chat.completions.stream(model="gpt-4o", messages=HELLO, tools=[tool], tool_choice="required") as stream:
        kinds = {event.type for event in stream}
    assert "tool_calls.function.arguments.delta" in kinds


class Person(BaseModel):
    """What is asked for as structured output."""

    name: str
    age: int


def test_structured_output(client: openai.OpenAI) -> None:
    """The client's own parser makes an object of the answer."""
    answer = client.chat.completions.parse(model="gpt-4o", messages=HELLO, response_format=Person)

    assert isinstance(answer.choices[0].message.parsed, Person)


@pytest.mark.parametrize("encoding", [None, "float", "base64"])
def test_embeddings(client: openai.OpenAI, encoding: Any) -> None:
    """Vectors come as numbers and as base64, which the client asks for by itself."""
    given = {} if encoding is None else {"encoding_format": encoding}
    answer = client.embeddings.create(model="embed", input=["one", "two"], **given)

    assert len(answer.data) == 2
    vector: Any = answer.data[0].embedding
    if encoding == "base64":
        raw = base64.b64decode(vector)
        vector = struct.unpack(f"<{len(raw) // 4}f", raw)
    assert all(isinstance(number, float) for number in vector)


def test_images(client: openai.OpenAI) -> None:
    """A picture comes as base64; an edit sends one as a form."""
    made = client.images.generate(model="image", prompt="a cat")
    edited = client.images.edit(model="image", image=("cat.png", io.BytesIO(b"\x89PNG" + WAV)), prompt="a hat")

    for answer in (made, edited):
        assert answer.data is not None
        assert base64.b64decode(answer.data[0].b64_json or "").startswith(b"\x89PNG")


def test_speech(client: openai.OpenAI) -> None:
    """Speech comes as bytes, as they arrive."""
    with client.audio.speech.with_streaming_response.create(model="tts-1", voice="alloy", input="hi") as answer:
        whole = b"".join(answer.iter_bytes())

    assert len(whole) > 10_000


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_transcription(client: openai.OpenAI) -> None:
    """A recording arrives as it was sent, under its name; the answer is JSON or text."""
    told = client.audio.transcriptions.create(model="whisper", file=("a b.wav", io.BytesIO(WAV)))
    text = client.audio.transcriptions.create(model="whisper", file=("a.wav", WAV), response_format="text")
    translated = client.audio.translations.create(model="whisper", file=("a.wav", WAV))

    assert "a b.wav" in told.text
    assert str(len(WAV)) in told.text
    assert isinstance(text, str)
    assert str(len(WAV)) in translated.text


def test_files(client: openai.OpenAI) -> None:
    """A file goes up, is listed, comes down byte for byte, and is deleted."""
    content = bytes(range(256)) * 5000
    made = client.files.create(file=("data.jsonl", io.BytesIO(content)), purpose="batch")

    assert made.filename == "data.jsonl"
    assert made.id in [one.id for one in client.files.list()]
    assert client.files.content(made.id).read() == content
    assert client.files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(made.id)


def test_responses(client: openai.OpenAI) -> None:
    """The Responses API answers, streams, and finds again what it made."""
    answer = client.responses.create(model="gpt-3.5-turbo", input="hi there")
    assert "hi there" in answer.output_text
    assert client.responses.retrieve(answer.id).id == answer.id
    client.responses.delete(answer.id)

    with client.responses.create(model="gpt-4o", input="hi there", stream=True) as stream:
        events = list(stream)
    assert events[-1].type == "response.completed"
    assert "hi there" in "".join(event.delta for event in events if event.type == "response.output_text.delta")


def test_models(client: openai.OpenAI) -> None:
    """The list is this server's own, and each model in it can be asked for."""
    names = [model.id for model in client.models.list()]

    assert names[:2] == ["gpt-3.5-turbo", "embed"]
    assert client.models.retrieve("embed").owned_by == "chat-api"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such-model")


def test_completions(client: openai.OpenAI) -> None:
    """The legacy API answers and streams, on resources whose v1 API does not have it as well."""
    answer = client.completions.create(model="gpt-4o", prompt="Once upon")
    with client.completions.create(model="gpt-4o", prompt="Once upon", stream=True) as stream:
        streamed = "".join(choice.text for chunk in stream for choice in chunk.choices)

    assert "Once upon" in answer.choices[0].text
    assert streamed == answer.choices[0].text


ERRORS = {
    "fault-400": openai.BadRequestError,
    "fault-401": openai.AuthenticationError,
    "fault-401-token": openai.AuthenticationError,
    "fault-403": openai.PermissionDeniedError,
    "fault-404": openai.NotFoundError,
    "no-such-deployment": openai.NotFoundError,
    "fault-408": openai.APIStatusError,
    "fault-409": openai.ConflictError,
    "fault-413": openai.APIStatusError,
    "fault-422": openai.UnprocessableEntityError,
    "fault-429": openai.RateLimitError,
    "fault-500": openai.InternalServerError,
    "fault-503": openai.InternalServerError,
    "fault-html": openai.InternalServerError,
    "fault-empty": openai.InternalServerError,
    "fault-closed": openai.InternalServerError,
    "fault-hang": openai.InternalServerError,
    "fault-cut": openai.InternalServerError,
    "fault-error-event": openai.RateLimitError,
    "fault-filter": openai.BadRequestError,
}


def test_client_without_patience(server: Gateway) -> None:
    """A client whose own timeout passes says so, and the call upstream is let go of."""
    with plain(server, timeout=0.2) as client, pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model="fault-hang", messages=HELLO)

    assert eventually(lambda: server.emulator.open_calls == 0)


# A stream that is cut has begun: see the streams that break.
FAILURES = [(model, stream) for model in ERRORS for stream in (False, True) if (model, stream) != ("fault-cut", True)]


@pytest.mark.parametrize(("model", "stream"), FAILURES)
def test_error_classes(client: openai.OpenAI, model: str, stream: bool) -> None:
    """Every failure is the client's own class for it, with a message, a code where there is one, and a request id."""
    with pytest.raises(ERRORS[model]) as caught:
        client.chat.completions.create(model=model, messages=HELLO, stream=stream)

    error = caught.value
    assert error.request_id
    assert isinstance(error.body, dict)
    assert len(error.body["message"]) >= 10
    assert error.type or model == "fault-filter"  # Azure's own word for it is null


@pytest.mark.parametrize(
    "model", ["fault-cut", "fault-stall", "fault-no-done", "fault-truncated", "fault-late-error-event"]
)
def test_stream_that_breaks_is_an_error(client: openai.OpenAI, model: str) -> None:
    """A stream that ends early raises within the loop; it never just stops."""
    text = ""
    with client.chat.completions.create(model=model, messages=HELLO, stream=True) as stream:
        chunks = iter(stream)
        with pytest.raises(openai.APIError):  # noqa: PT012 - where in the loop it comes is the upstream's affair
            while True:
                text += "".join(choice.delta.content or "" for choice in next(chunks).choices)

    assert text != SAID


COMPLETE = (
    "fault-slow",
    "fault-no-last-newline",
    "fault-crlf",
    "fault-split",
    "fault-no-marker",
    "fault-gzip",
    "fault-spaced-done",
    "fault-async-filter",
)


@pytest.mark.parametrize("model", COMPLETE)
def test_odd_streams_are_complete(client: openai.OpenAI, model: str) -> None:
    """Whatever the form of its events and its end, a whole answer arrives whole."""
    with client.chat.completions.create(model=model, messages=HELLO, stream=True) as stream:
        chunks = list(stream)

    said = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices if choice.delta is not None]
    assert "".join(said) == SAID


@pytest.mark.parametrize("model", ["fault-cut", "fault-no-done", "fault-error-event", "fault-late-error-event"])
def test_responses_streams_that_break(client: openai.OpenAI, model: str) -> None:
    """A Responses stream that fails says so: as a status, as an error, or as the event that the API has for it."""
    kinds: list[str] = []
    failed = False
    try:
        with client.responses.create(model=model, input="hi there", stream=True) as stream:
            kinds = [event.type for event in stream]
    except openai.APIError:
        failed = True

    assert failed or kinds[-1] in ("error", "response.failed")
    assert "response.completed" not in kinds


def test_retries_are_the_clients_own(server: Gateway) -> None:
    """A call that fails once succeeds with the client's own retry; a day's wait is not waited for."""
    with plain(server, max_retries=2) as client:
        answer = client.chat.completions.create(model="fault-500-once", messages=HELLO)
        assert answer.choices[0].message.content == SAID

        calls = len(server.emulator.ports)
        started = time.monotonic()
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model="fault-429-day", messages=HELLO)

    assert time.monotonic() - started < 5
    assert len(server.emulator.ports) - calls == 1
    assert caught.value.response.headers["retry-after"] == "60"
    assert "86400" in str(caught.value)


def test_async_client(server: Gateway) -> None:
    """The asynchronous clients answer, stream many at a time, and upload."""

    @asynccontextmanager
    async def clients() -> AsyncIterator[list[openai.AsyncOpenAI]]:
        base = f"http://127.0.0.1:{server.port}"
        async with (
            openai.AsyncOpenAI(base_url=f"{base}/v1", api_key="x", max_retries=0) as one,
            openai.AsyncAzureOpenAI(azure_endpoint=base, api_key="x", api_version="2024-06-01") as other,
        ):
            yield [one, other]

    async def streamed(client: openai.AsyncOpenAI, number: int) -> str:
        content = f"number {number}"
        stream = await client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": content}], stream=True
        )
        async with stream:
            return "".join([choice.delta.content or "" async for chunk in stream for choice in chunk.choices])

    async def run() -> None:
        async with clients() as both:
            for client in both:
                texts = await asyncio.gather(*(streamed(client, number) for number in range(20)))
                assert texts == [f'You said: "number {number}".' for number in range(20)]
                told = await client.audio.transcriptions.create(model="whisper", file=("a.wav", WAV))
                assert str(len(WAV)) in told.text
                with pytest.raises(openai.RateLimitError):
                    await client.with_options(max_retries=0).chat.completions.create(
                        model="fault-429-bare", messages=HELLO
                    )

    asyncio.run(run())


def test_langchain(server: Gateway) -> None:
    """langchain's models answer, stream, embed and parse, as OpenAI's and as Azure's."""
    base = f"http://127.0.0.1:{server.port}"
    key = SecretStr("x")
    models: list[ChatOpenAI | AzureChatOpenAI] = [
        ChatOpenAI(model="gpt-4o", base_url=f"{base}/v1", api_key=key, max_retries=0),
        AzureChatOpenAI(azure_deployment="gpt-4o", azure_endpoint=base, api_key=key, api_version="2024-06-01"),
    ]
    for model in models:
        assert model.invoke([HumanMessage("hi there")]).content == 'You said: "hi there".'
        assert "".join(str(chunk.content) for chunk in model.stream("hi there")) == 'You said: "hi there".'
        assert isinstance(model.with_structured_output(Person).invoke("hi there"), Person)
    embeddings = OpenAIEmbeddings(
        model="embed", base_url=f"{base}/v1", api_key=key, check_embedding_ctx_length=False, max_retries=0
    )
    assert len(embeddings.embed_documents(["one", "two"])) == 2


def test_raw_headers(server: Gateway) -> None:
    """What Azure says of quota, region and request reaches the caller; nothing of the connection does."""
    with plain(server) as client:
        raw = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=HELLO)

    assert {"apim-request-id", "x-request-id", "x-ms-region", "x-ratelimit-remaining-tokens"} <= set(raw.headers)
    assert not {"server", "set-cookie", "strict-transport-security", "connection"} & set(raw.headers)
