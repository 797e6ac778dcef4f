"""What a kept answer is in either form: the original, in JSON terms, through every door and OpenAI's own client."""

import json
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

import httpx2 as httpx
import openai
import pytest

from chat_api.assembly import assembled
from tests.keepers import BACKENDS, SIMPLE_CHAT, Front, cache_at, front, says

TOOL = {
    "type": "function",
    "function": {
        "name": "note",
        "parameters": {"type": "object", "properties": {"what": {"type": "string"}, "again": {"type": "string"}}},
    },
}
CALLS: dict[str, Mapping[str, Any]] = {
    "text": {},
    "two-choices": {"n": 2},
    "tool-calls": {"tools": [TOOL], "tool_choice": "required"},
    "two-tool-calls": {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "note"}}, "n": 2},
    "json": {"response_format": {"type": "json_object"}},
    "gzip": {"model": "fault-gzip"},
    "crlf": {"model": "fault-crlf"},
    "split": {"model": "fault-split"},
    "async-filter": {"model": "fault-async-filter"},
}
WORDS = {
    "unicode": 'Grüße, 世界 👩\u200d👩\u200d👧 \u2028 "quoted" \\ \x7f \ud7ff\uffff \n\n data: [DONE]\n\n',
    "escapes": "\\u0022 \\n \u0000 \t </script>",
    "long": " ".join(f"word{number}" for number in range(700)),
    "no-space": "x" * 3000,
}
ASKED = pytest.mark.parametrize("asked", [False, True], ids=["usage-unasked", "usage-asked"])
SHAPES = pytest.mark.parametrize("fields", CALLS.values(), ids=CALLS)
_numbers = count()


@pytest.fixture(scope="module", params=BACKENDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """A gateway that keeps answers in each of the places where it can."""
    with front(**cache_at(request.param, request, tmp_path_factory.mktemp("kept"))) as running:
        yield running


def new(words: str = "Grüße an alle.") -> str:
    """A prompt that nobody has sent yet."""
    return f"{next(_numbers)} {words}"


def streamed(asks_usage: bool) -> dict[str, Any]:
    """The fields of a call for a stream."""
    return {"stream": True, "stream_options": {"include_usage": True}} if asks_usage else {"stream": True}


def answer_of(got: httpx.Response, *, told: str = "hit") -> dict[str, Any]:
    """The answer in JSON terms, whatever form it has; it is a hit."""
    assert got.status_code == 200
    assert says(got)[0] == told
    is_stream = got.headers["content-type"].startswith("text/event-stream")
    found = assembled(got.content) if is_stream else got.content
    assert found is not None, got.text
    answer: dict[str, Any] = json.loads(found)
    return answer


def without_usage(answer: Mapping[str, Any]) -> dict[str, Any]:
    """All of it but for what it took."""
    return {name: value for name, value in answer.items() if name != "usage"}


@SHAPES
def test_json_as_json(server: Front, fields: Mapping[str, Any]) -> None:
    """A plain answer is given again byte for byte."""
    prompt = new()
    first, hit = server.ask(prompt, **fields), server.ask(prompt, **fields)
    answer_of(first, told="miss")
    answer_of(hit)
    assert hit.content == first.content
    assert hit.headers["content-type"] == first.headers["content-type"]


@ASKED
@SHAPES
def test_json_as_a_stream(server: Front, fields: Mapping[str, Any], asked: bool) -> None:
    """The events of a plain answer are put together to that answer; what it took is told to whoever asks."""
    prompt = new()
    first = answer_of(server.ask(prompt, **fields), told="miss")
    hit = answer_of(server.ask(prompt, **fields, **streamed(asked)))
    assert hit == (first if asked else without_usage(first))


@ASKED
@SHAPES
def test_a_stream_as_json(server: Front, fields: Mapping[str, Any], asked: bool) -> None:
    """The plain answer that a stream makes is what the stream says, and has its usage, told in the stream or not."""
    prompt = new()
    first = answer_of(server.ask(prompt, **fields, **streamed(asked)), told="miss")
    hit = answer_of(server.ask(prompt, **fields))
    assert "usage" in hit
    assert ("usage" in first) is asked
    assert (hit if asked else without_usage(hit)) == first


@SHAPES
def test_a_stream_as_a_stream(server: Front, fields: Mapping[str, Any]) -> None:
    """A stream is given again byte for byte, with what it took to those who ask and without to the others."""
    for asked in (False, True):
        prompt = new()
        first = server.ask(prompt, **fields, **streamed(asked))
        again = server.ask(prompt, **fields, **streamed(asked))
        assert again.content == first.content
        other = answer_of(server.ask(prompt, **fields, **streamed(not asked)))
        assert without_usage(other) == without_usage(answer_of(first, told="miss"))
        assert ("usage" in other) is not asked


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_any_text(server: Front, words: str) -> None:
    """Whatever the text is, each form of it is the same text."""
    for first, then in ((False, True), (True, False)):
        prompt = new(words)
        original = server.ask(prompt, stream=first)
        said = answer_of(server.ask(prompt, stream=then))["choices"][0]["message"]["content"]
        assert said == answer_of(original, told="miss")["choices"][0]["message"]["content"]
        assert said == f'You said: "{prompt}".'


@pytest.mark.parametrize("fields", [{}, {"n": 2}, CALLS["tool-calls"]], ids=["text", "two-choices", "tool-calls"])
@pytest.mark.parametrize("first", ["json", "events", "text", "streamed-text"])
def test_the_simple_endpoint(server: Front, first: str, fields: Mapping[str, Any]) -> None:
    """JSON, events and text of `/v1/gpt/chat` are one answer, whichever of them was asked for first."""
    prompt, plain = new("Grüße"), {"accept": "text/plain"}
    ways: dict[str, tuple[Mapping[str, str], Mapping[str, Any]]] = {
        "json": ({}, {}),
        "events": ({}, {"stream": True}),
        "text": (plain, {}),
        "streamed-text": (plain, {"stream": True}),
    }

    def ask(way: str) -> httpx.Response:
        headers, more = ways[way]
        return server.ask(prompt, path=SIMPLE_CHAT, headers=headers, **fields, **more)

    original = ask(first)
    assert says(original) == ("miss", None)
    got = {way: ask(way) for way in ways}
    assert {says(one)[0] for one in got.values()} == {"hit"}
    assert got[first].content == original.content
    answer, events = got["json"].json(), json.loads(assembled(got["events"].content) or b"{}")
    text = "" if "tools" in fields else f'You said: "{prompt}".'
    assert (answer["text"] or "") == text
    assert [got[way].text for way in ("text", "streamed-text")] == [text] * 2
    assert "usage" in answer
    made = {name: value for name, value in answer.items() if name not in ("success", "text", "usage")}
    assert events == made


@ASKED
def test_openais_client(server: Front, asked: bool) -> None:
    """OpenAI's own client reads kept answers in both forms, and takes them for what they are."""
    options: Any = {"stream_options": {"include_usage": True}} if asked else {}
    with openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="sk-any", max_retries=0) as client:
        for name in ("text", "two-choices", "tool-calls"):
            for is_first in (False, True):
                asking: Any = {"model": "gpt-4o", "messages": [{"role": "user", "content": new()}], **CALLS[name]}
                plain = None if is_first else client.chat.completions.create(**asking)
                with client.chat.completions.stream(**asking, **options) as stream:
                    told = stream.get_final_completion()
                plain = plain or client.chat.completions.create(**asking)
                assert [choice.message.content for choice in told.choices] == [
                    choice.message.content for choice in plain.choices
                ]
                calls = [
                    [
                        [(call.function.name, call.function.arguments) for call in choice.message.tool_calls or []]
                        for choice in one.choices
                    ]
                    for one in (told, plain)
                ]
                assert calls[0] == calls[1]
                assert [choice.finish_reason for choice in told.choices] == [
                    choice.finish_reason for choice in plain.choices
                ]
                assert (told.id, told.usage if asked else None) == (plain.id, plain.usage if asked else None)
