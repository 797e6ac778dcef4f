"""The emulator as OpenAI's own client sees it: every answer fits the client's types, on the classic path and on v1."""

import warnings
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Literal, TypeVar

import openai
import pytest
from openai import AzureOpenAI, OpenAI
from pydantic import BaseModel

from chat_api.emulator import Emulator, open_emulator
from tests.servers import in_thread

FILE = ("a.bin", b"12345")

T = TypeVar("T", bound=BaseModel)


class Inner(BaseModel):
    name: str
    ok: bool


class Shape(BaseModel):
    title: str
    count: int
    tags: list[str]
    inner: Inner
    maybe: Inner | None
    when: datetime
    kind: Literal["a", "b"]


@pytest.fixture(scope="module")
def clients() -> Iterator[tuple[AzureOpenAI, OpenAI]]:
    """The client's two classes, in front of one emulator."""
    with in_thread() as run:
        stack = AsyncExitStack()
        url = run(stack.enter_async_context(open_emulator(Emulator(keys=frozenset({"k"})))))
        version = "2025-04-01-preview"
        with (
            AzureOpenAI(azure_endpoint=url, api_key="k", api_version=version, max_retries=0) as azure,
            OpenAI(base_url=f"{url}/openai/v1", api_key="k", max_retries=0) as v1,
        ):
            yield azure, v1
        run(stack.aclose())


@pytest.fixture(params=["classic", "v1"])
def client(request: pytest.FixtureRequest, clients: tuple[AzureOpenAI, OpenAI]) -> OpenAI:
    """Either of them."""
    return clients[request.param == "v1"]


def valid(answer: T) -> T:
    """The answer, if it fits its own type: the client itself does not check."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        type(answer).model_validate(answer.model_dump(mode="json", by_alias=True))
    return answer


def test_parse_helpers_accept_the_answers(client: OpenAI) -> None:
    """`.parse()` gets a filled model from chat, from a tool's arguments and from responses."""
    chat = client.chat.completions.parse(
        model="gpt-4o", messages=[{"role": "user", "content": "hi"}], response_format=Shape
    )
    tool = client.chat.completions.parse(
        model="gpt-4o",
        messages=[{"role": "user", "content": "hi"}],
        tools=[openai.pydantic_function_tool(Shape)],
        tool_choice="required",
    )
    response = client.responses.parse(model="gpt-4o", input="hi", text_format=Shape)

    calls = tool.choices[0].message.tool_calls
    assert calls
    for parsed in (chat.choices[0].message.parsed, calls[0].function.parsed_arguments, response.output_parsed):
        assert isinstance(parsed, Shape)
        assert (parsed.title, parsed.count, parsed.inner.name) == ("hi", 0, "hi")


def test_responses_fit(client: OpenAI) -> None:
    """A response, its retrieval and every event of its stream are the client's own types."""
    made = valid(client.responses.create(model="gpt-4o", input="hi"))
    assert made.output_text == 'You said: "hi".'
    assert valid(client.responses.retrieve(made.id)).output_text == made.output_text
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    with client.responses.stream(model="gpt-4o", input="hi") as stream:
        for event in stream:
            valid(event)
        assert stream.get_final_response().output_text == made.output_text


def test_responses_call_a_tool(client: OpenAI) -> None:
    """A demanded function is called, whole and as events."""
    with client.responses.stream(
        model="gpt-4o",
        input="hi",
        tools=[{"type": "function", "name": "f", "parameters": Inner.model_json_schema(), "strict": False}],
        tool_choice="required",
    ) as stream:
        for event in stream:
            valid(event)
        (item,) = stream.get_final_response().output
    assert item.type == "function_call"
    assert Inner.model_validate_json(item.arguments) == Inner(name="hi", ok=False)


def test_embeddings_and_images_fit(client: OpenAI) -> None:
    """The client decodes its default base64; images come as base64 as well."""
    coded = valid(client.embeddings.create(model="text-embedding-3-small", input=["a", "b"]))
    plain = client.embeddings.create(model="text-embedding-3-small", input=["a", "b"], encoding_format="float")
    made = valid(client.images.generate(model="gpt-image-1", prompt="hi"))
    edited = valid(client.images.edit(model="gpt-image-1", prompt="hi", image=[FILE, FILE]))

    assert [one.embedding for one in coded.data] == [one.embedding for one in plain.data]
    assert made.data
    assert edited.data
    assert str(edited.data[0].revised_prompt).count("a.bin: 5 bytes") == 2


def test_files_batches_and_models_fit(client: OpenAI) -> None:
    """What the resource holds is there as the client knows it."""
    file = valid(client.files.create(file=FILE, purpose="batch"))
    batch = valid(
        client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    )

    assert client.files.content(file.id).read() == FILE[1]
    assert file.id in [one.id for one in client.files.list()]
    assert valid(client.batches.retrieve(batch.id)).status == "validating"
    assert batch.id in [one.id for one in client.batches.list()]
    assert client.files.delete(file.id).deleted
    assert "gpt-4o" in [one.id for one in client.models.list()]


def test_audio_and_completions_fit(clients: tuple[AzureOpenAI, OpenAI]) -> None:
    """What only the classic API serves."""
    azure, v1 = clients

    assert len(azure.audio.speech.create(model="tts-1", input="hi", voice="alloy").read()) == 100_000
    assert valid(azure.audio.transcriptions.create(model="whisper-1", file=FILE)).text.startswith("a.bin: 5 bytes")
    valid(azure.completions.create(model="gpt-35-turbo-instruct", prompt=["a", "b"], n=2))
    chunks = azure.completions.create(model="gpt-35-turbo-instruct", prompt="hi", stream=True)
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == 'You said: "hi".'
    with pytest.raises(openai.NotFoundError):
        v1.completions.create(model="gpt-35-turbo-instruct", prompt="hi")


@pytest.mark.parametrize(
    "name", ["fault-crlf", "fault-split", "fault-gzip", "fault-no-marker", "fault-spaced-done", "fault-async-filter"]
)
def test_unusual_streams_are_whole(client: OpenAI, name: str) -> None:
    """The faults that break nothing are complete answers, in chats and in responses."""
    chat = client.chat.completions.create(model=name, messages=[{"role": "user", "content": "hé→😀"}], stream=True)
    deltas = [choice.delta for chunk in chat for choice in chunk.choices]
    last = list(client.responses.create(model=name, input="hé→😀", stream=True))[-1]

    assert "".join(delta.content or "" for delta in deltas if delta) == 'You said: "hé→😀".'
    assert last.type == "response.completed"
    assert last.response.output_text == 'You said: "hé→😀".'
