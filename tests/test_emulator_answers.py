import asyncio
import json
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.types import Message

from chat_api.emulator import Emulator
from chat_api.emulator.answers import Answer, encode, refused
from chat_api.emulator.schemas import filled

WIRE = Path(__file__).parents[2] / "shared" / "azure" / "wire"
needs_wire = pytest.mark.skipif(not WIRE.is_dir(), reason="the shared wire captures are not here")
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]
SAID_HELLO = 'You said: "hello".'
TOOL = {"type": "function", "function": {"name": "f"}}
OTHER_TOOL = {"type": "function", "function": {"name": "g"}}
CHAT = "/openai/deployments/gpt-4o/chat/completions"
V1 = "/openai/v1/chat/completions"


def whole(**members: Any) -> dict[str, Any]:
    """The whole answer to a request, as a client reads it."""
    answer: dict[str, Any] = json.loads(encode(Answer({"messages": HELLO, **members}, "gpt-4o").whole()))
    return answer


def chunks(**members: Any) -> list[dict[str, Any]]:
    """The chunks of the answer to a streamed request, as a client reads them."""
    answer = Answer({"messages": HELLO, "stream": True, **members}, "gpt-4o")
    return [json.loads(encode(chunk)) for chunk in answer.chunks()]


def captured_chunks(name: str) -> list[dict[str, Any]]:
    """The chunks of a captured stream."""
    lines = (WIRE / name).read_text().splitlines()
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


def captured_answer(name: str) -> dict[str, Any]:
    """The body of a captured whole answer."""
    text = (WIRE / name).read_text()
    if name.endswith(".yaml"):
        text = yaml.safe_load(text)["interactions"][0]["response"]["body"]
    answer: dict[str, Any] = json.loads(text)
    return answer


def kind(chunk: dict[str, Any]) -> str:
    """What a chunk is in the course of a stream."""
    if not chunk["choices"]:
        return "prompt filter" if "prompt_filter_results" in chunk else "usage"
    (choice,) = chunk["choices"]
    if choice["finish_reason"]:
        return "finish"
    return "role" if "role" in choice["delta"] else "text"


def course(stream: list[dict[str, Any]]) -> list[str]:
    """The kinds of a stream's chunks, each run of them once."""
    return [name for name, _ in groupby(map(kind, stream))]


def first(stream: list[dict[str, Any]], wanted: str) -> dict[str, Any]:
    """The stream's first chunk of that kind."""
    return next(chunk for chunk in stream if kind(chunk) == wanted)


def asked(
    body: Any,
    path: str = CHAT,
    *,
    query: str = "api-version=2024-10-21",
    method: str = "POST",
    headers: tuple[tuple[bytes, bytes], ...] = ((b"api-key", b"k"),),
) -> tuple[int, dict[str, Any]]:
    """The status and the body that the emulator's application answers, without a server."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body if isinstance(body, bytes) else encode(body), "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "client": ("127.0.0.1", 50000),
        "method": method,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": list(headers),
    }
    asyncio.run(Emulator()(scope, receive, send))
    answer: dict[str, Any] = json.loads(b"".join(message.get("body", b"") for message in sent))
    return sent[0]["status"], answer


@needs_wire
@pytest.mark.parametrize("capture", ["azure-chat-gpt5-nano-2025-10.vcr.yaml", "azure-chat-4o-mini-2025-08.json"])
def test_whole_answer_is_azures(capture: str) -> None:
    """A whole answer has Azure's members, in completion, choice, prompt filter and usage."""
    real, ours = captured_answer(capture), whole()
    assert set(ours) == set(real)
    assert set(ours["choices"][0]) == set(real["choices"][0])
    assert set(ours["choices"][0]["message"]) >= set(real["choices"][0]["message"]) - {"annotations"}
    assert set(ours["prompt_filter_results"][0]) == set(real["prompt_filter_results"][0])
    assert set(ours["usage"]) == set(real["usage"])
    for details in ("completion_tokens_details", "prompt_tokens_details"):
        assert set(ours["usage"][details]) == set(real["usage"][details])


@needs_wire
@pytest.mark.parametrize("capture", ["azure-chat-gpt5-nano-2025-10.vcr.yaml", "azure-chat-4o-mini-2025-08.json"])
def test_message_is_azures(capture: str) -> None:
    """A whole answer's message has Azure's members."""
    assert set(whole()["choices"][0]["message"]) == set(captured_answer(capture)["choices"][0]["message"])


@needs_wire
def test_safe_categories_are_azures() -> None:
    """The filter's four categories are among those that Azure reports, in the same words."""
    real = captured_answer("azure-chat-4o-mini-2025-08.json")
    for ours, theirs in (
        (whole()["choices"][0], real["choices"][0]),
        (whole()["prompt_filter_results"][0], real["prompt_filter_results"][0]),
    ):
        assert set(ours["content_filter_results"]) == {"hate", "self_harm", "sexual", "violence"}
        assert ours["content_filter_results"].items() <= theirs["content_filter_results"].items()


@needs_wire
@pytest.mark.parametrize("capture", ["azure-stream-gpt4o-2024-10.sse", "azure-stream-gpt41-2026-03.sse"])
def test_stream_takes_azures_course(capture: str) -> None:
    """A stream is prompt filter, role, texts, finish and usage, as Azure's."""
    assert course(captured_chunks(capture)) == ["prompt filter", "role", "text", "finish", "usage"]
    assert course(chunks(stream_options={"include_usage": True})) == [
        "prompt filter",
        "role",
        "text",
        "finish",
        "usage",
    ]


@needs_wire
@pytest.mark.parametrize("name", ["prompt filter", "role", "text", "finish", "usage"])
def test_chunk_is_azures(name: str) -> None:
    """A chunk of each kind has Azure's members, and so have its choice and its delta."""
    real = first(captured_chunks("azure-stream-gpt41-2026-03.sse"), name)
    ours = first(chunks(stream_options={"include_usage": True}), name)
    assert set(ours) == set(real) - {"obfuscation"}
    for our_choice, real_choice in zip(ours["choices"], real["choices"], strict=True):
        assert set(our_choice) == set(real_choice)
        assert set(our_choice["delta"]) == set(real_choice["delta"])
    if name == "usage":
        assert set(ours["usage"]) == set(real["usage"])


@needs_wire
def test_prompt_filter_chunk_is_azures() -> None:
    """The first chunk is Azure's, value for value: empty id, object and model, created 0, no choices."""
    assert chunks()[0] == captured_chunks("azure-stream-gpt4o-2024-10.sse")[0]


def test_whole_answer() -> None:
    """The emulated model repeats what it was told; a word is a token."""
    answer = whole()
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "gpt-4o-emulated"
    assert answer["id"].startswith("chatcmpl-")
    assert answer["created"] == 1767225600
    assert [choice["index"] for choice in answer["choices"]] == [0]
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["choices"][0]["message"]["content"] == SAID_HELLO
    assert answer["choices"][0]["message"]["role"] == "assistant"
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (1, 3, 4)


@pytest.mark.parametrize(
    ("messages", "content"),
    [
        pytest.param(HELLO, SAID_HELLO, id="user"),
        pytest.param(
            [{"role": "system", "content": "Be brief."}, *HELLO],
            'You said: "hello". I was told: "Be brief.".',
            id="system",
        ),
        pytest.param(
            [{"role": "developer", "content": "Be brief."}, *HELLO],
            'You said: "hello". I was told: "Be brief.".',
            id="developer",
        ),
        pytest.param(
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}],
            'You said: "c".',
            id="last-user",
        ),
        pytest.param(
            [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
            'You said: "a b".',
            id="parts",
        ),
        pytest.param([{"role": "user", "content": "ü\n  😀"}], 'You said: "ü\n  😀".', id="not-ascii"),
        pytest.param([{"role": "user", "content": None}], 'You said: "".', id="null"),
        pytest.param(["junk"], 'You said: "".', id="junk"),
    ],
)
def test_content(messages: list[Any], content: str) -> None:
    """The answer shows the latest user message and instruction, streamed or whole."""
    assert whole(messages=messages)["choices"][0]["message"]["content"] == content
    deltas = [choice["delta"] for chunk in chunks(messages=messages) for choice in chunk["choices"]]
    assert "".join(delta.get("content", "") for delta in deltas) == content


def in_order(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's members, which have to be in alphabetical order."""
    assert [name for name, _ in pairs] == sorted(name for name, _ in pairs)
    return dict(pairs)


def test_members_are_in_alphabetical_order() -> None:
    """Every object's members are in alphabetical order, as Azure sends them: `choices` is first, not `id`."""
    answer = Answer({"messages": HELLO, "stream_options": {"include_usage": True}}, "gpt-4o")
    for content in (answer.whole(), *answer.chunks()):
        assert next(iter(json.loads(encode(content), object_pairs_hook=in_order))) == "choices"


def test_same_request_same_bytes() -> None:
    """The same request is answered with the same bytes, whatever the order of its members."""
    request = {"messages": HELLO, "n": 2, "user": "u"}
    turned = dict(reversed(request.items()))
    first_answer, second = Answer(request, "gpt-4o"), Answer(turned, "gpt-4o")
    assert encode(first_answer.whole()) == encode(second.whole())
    assert [encode(chunk) for chunk in first_answer.chunks()] == [encode(chunk) for chunk in second.chunks()]


@pytest.mark.parametrize(
    ("body", "deployment"),
    [
        pytest.param({"messages": HELLO, "seed": 1}, "gpt-4o", id="body"),
        pytest.param({"messages": HELLO}, "gpt-4o-mini", id="deployment"),
    ],
)
def test_other_request_other_id(body: dict[str, Any], deployment: str) -> None:
    """Another request gets another id."""
    assert Answer(body, deployment).whole()["id"] != Answer({"messages": HELLO}, "gpt-4o").whole()["id"]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="none"),
        pytest.param({"stream_options": None}, id="null"),
        pytest.param({"stream_options": {}}, id="empty"),
        pytest.param({"stream_options": {"include_usage": False}}, id="false"),
    ],
)
def test_usage_only_if_asked_for(options: dict[str, Any]) -> None:
    """Without `include_usage` there is no usage chunk, and no chunk has the member."""
    stream = chunks(**options)
    assert course(stream) == ["prompt filter", "role", "text", "finish"]
    assert not any("usage" in chunk for chunk in stream)


def test_usage_chunk() -> None:
    """With `include_usage` the last chunk has the usage of the whole answer, and those before it null."""
    stream = chunks(stream_options={"include_usage": True})
    assert stream[-1]["choices"] == []
    assert stream[-1]["usage"] == whole()["usage"]
    assert [chunk["usage"] for chunk in stream[1:-1]] == [None] * 5


def test_stream_chunks() -> None:
    """A stream's text comes in pieces, one for each token, between the role and the reason for its end."""
    stream = chunks()
    assert {(chunk["object"], chunk["model"], chunk["created"]) for chunk in stream[1:]} == {
        ("chat.completion.chunk", "gpt-4o-emulated", 1767225600)
    }
    assert len({chunk["id"] for chunk in stream[1:]}) == 1
    choices = [chunk["choices"][0] for chunk in stream[1:]]
    assert [choice["delta"] for choice in choices] == [
        {"content": "", "refusal": None, "role": "assistant"},
        {"content": "You"},
        {"content": " said:"},
        {"content": ' "hello".'},
        {},
    ]
    assert [choice["finish_reason"] for choice in choices] == [None, None, None, None, "stop"]


def test_n() -> None:
    """`n` asks for so many choices, each of which counts, whole or streamed."""
    answer = whole(n=3)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert {choice["message"]["content"] for choice in answer["choices"]} == {SAID_HELLO}
    assert (answer["usage"]["completion_tokens"], answer["usage"]["total_tokens"]) == (9, 10)
    finished = [c["index"] for chunk in chunks(n=3) for c in chunk["choices"] if c["finish_reason"] == "stop"]
    assert finished == [0, 1, 2]


@pytest.mark.parametrize(
    ("stop", "content"),
    [
        pytest.param("hello", 'You said: "', id="text"),
        pytest.param(["hello"], 'You said: "', id="array"),
        pytest.param(["hello", "said"], "You ", id="first-in-the-answer"),
        pytest.param("You", "", id="at-the-start"),
        pytest.param("absent", SAID_HELLO, id="absent"),
        pytest.param([], SAID_HELLO, id="empty-array"),
        pytest.param(None, SAID_HELLO, id="null"),
    ],
)
def test_stop(stop: Any, content: str) -> None:
    """The answer ends before the first stop text in it, and says that it stopped."""
    choice = whole(stop=stop)["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (content, "stop")


@pytest.mark.parametrize(
    ("limits", "content", "reason", "tokens"),
    [
        pytest.param({"max_tokens": 1}, "You", "length", 1, id="max-tokens"),
        pytest.param({"max_completion_tokens": 2}, "You said:", "length", 2, id="max-completion-tokens"),
        pytest.param({"max_tokens": 3}, SAID_HELLO, "stop", 3, id="just-enough"),
        pytest.param({"max_tokens": 100}, SAID_HELLO, "stop", 3, id="more-than-enough"),
        pytest.param({"max_tokens": None}, SAID_HELLO, "stop", 3, id="null"),
        pytest.param({"max_tokens": 2, "stop": "said"}, "You ", "stop", 2, id="stop-before-limit"),
    ],
)
def test_token_limit(limits: dict[str, Any], content: str, reason: str, tokens: int) -> None:
    """An answer longer than the limit is cut, and says so."""
    answer = whole(**limits)
    choice = answer["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (content, reason)
    assert answer["usage"]["completion_tokens"] == tokens
    assert chunks(**limits)[-1]["choices"][0]["finish_reason"] == reason


@pytest.mark.parametrize("kind_of_format", ["json_object", "json_schema"])
def test_json_answer(kind_of_format: str) -> None:
    """An answer that is to be JSON is, and repeats the message, quotes and all."""
    answer = whole(messages=[{"role": "user", "content": 'a "b" \\'}], response_format={"type": kind_of_format})
    assert json.loads(answer["choices"][0]["message"]["content"]) == {"said": 'a "b" \\'}


NODE = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
    },
}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        pytest.param({"type": "string"}, "hi", id="text"),
        pytest.param({"type": "integer"}, 0, id="integer"),
        pytest.param({"type": "number", "minimum": 2.5}, 2.5, id="minimum"),
        pytest.param({"type": "boolean"}, False, id="boolean"),
        pytest.param({"type": "array", "items": {"type": "string"}}, [], id="array"),
        pytest.param({"type": "null"}, None, id="null"),
        pytest.param({"type": ["string", "null"]}, "hi", id="types"),
        pytest.param({"enum": ["a", "b"]}, "a", id="enum"),
        pytest.param({"const": 5}, 5, id="const"),
        pytest.param({"type": "string", "format": "date"}, "2026-01-01", id="format"),
        pytest.param({"anyOf": [{"type": "null"}, {"type": "integer"}]}, 0, id="any-of"),
        pytest.param({"type": "object", "properties": NODE["properties"], "$defs": {"Node": NODE}}, None, id="itself"),
        pytest.param({"$ref": "#/$defs/none"}, None, id="reference-to-nothing"),
        pytest.param({"type": {}, "anyOf": 1, "enum": 2, "properties": 3}, "hi", id="no-schema"),
    ],
)
def test_schema_is_filled(schema: dict[str, Any], value: Any) -> None:
    """A schema's value is what the user said, or nothing much; what refers to itself ends at null."""
    if "$defs" in schema:
        value = {"name": "hi", "next": {"name": "hi", "next": None}}
    assert filled(schema, "hi") == value


def test_schema_that_stands_for_very_much_is_filled_in_part() -> None:
    """A short schema whose value would be endless is cut."""
    doubled = {
        f"d{level}": {"properties": {name: {"$ref": f"#/$defs/d{level + 1}"} for name in "ab"}} for level in range(40)
    }
    assert len(encode(filled({"$ref": "#/$defs/d0", "$defs": doubled}, "x"))) < 200_000


def test_answer_fits_its_schema() -> None:
    """A JSON schema with properties is filled, in an answer and in a demanded tool's arguments."""
    properties = {"title": {"type": "string"}, "count": {"type": "integer"}}
    schema = {"type": "object", "properties": properties}
    wanted = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    message = whole(response_format=wanted)["choices"][0]["message"]
    called = whole(tools=[tool], tool_choice="required")["choices"][0]["message"]
    assert json.loads(message["content"]) == {"title": "hello", "count": 0}
    assert json.loads(called["tool_calls"][0]["function"]["arguments"]) == {"title": "hello", "count": 0}


def test_text_format() -> None:
    """The format `text` changes nothing."""
    assert whole(response_format={"type": "text"})["choices"][0]["message"]["content"] == SAID_HELLO


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        pytest.param("required", "f", id="required"),
        pytest.param({"type": "function", "function": {"name": "g"}}, "g", id="named"),
    ],
)
def test_tool_call(choice: Any, name: str) -> None:
    """A demanded tool is called, whole or streamed, instead of an answer in words."""
    (answered,) = whole(tools=[TOOL, OTHER_TOOL], tool_choice=choice)["choices"]
    call = {"function": {"arguments": "{}", "name": name}, "id": "call_emulated", "type": "function"}
    assert answered["finish_reason"] == "tool_calls"
    said: dict[str, Any] = {"annotations": [], "content": None, "refusal": None, "role": "assistant"}
    assert answered["message"] == {**said, "tool_calls": [call]}
    stream = [chunk["choices"][0] for chunk in chunks(tools=[TOOL, OTHER_TOOL], tool_choice=choice)[1:]]
    assert [streamed["delta"].get("tool_calls") for streamed in stream] == [None, [{**call, "index": 0}], None]
    assert [streamed["finish_reason"] for streamed in stream] == [None, None, "tool_calls"]


@pytest.mark.parametrize(
    "members",
    [
        pytest.param({"tools": [TOOL]}, id="no-choice"),
        pytest.param({"tools": [TOOL], "tool_choice": "auto"}, id="auto"),
        pytest.param({"tools": [TOOL], "tool_choice": "none"}, id="none"),
        pytest.param({"tools": [], "tool_choice": "required"}, id="no-tools"),
    ],
)
def test_no_tool_call(members: dict[str, Any]) -> None:
    """A tool that is not demanded is not called."""
    (choice,) = whole(**members)["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (SAID_HELLO, "stop")
    assert "tool_calls" not in choice["message"]


NOT_WITH_THIS_MODEL = "Unsupported parameter: '{}' is not supported with this model."
REASONING_REFUSALS = [
    pytest.param(
        {"max_tokens": 5},
        NOT_WITH_THIS_MODEL.format("max_tokens") + " Use 'max_completion_tokens' instead.",
        *("max_tokens", "unsupported_parameter"),
        id="max_tokens",
    ),
    pytest.param(
        {"temperature": 0.5},
        "Unsupported value: 'temperature' does not support 0.5 with this model. Only the default (1) is supported.",
        *("temperature", "unsupported_value"),
        id="temperature",
    ),
    *(
        pytest.param({name: 1}, NOT_WITH_THIS_MODEL.format(name), name, "unsupported_parameter", id=name)
        for name in ("top_p", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "logit_bias")
    ),
]


@pytest.mark.parametrize("deployment", ["gpt-5-mini", "o4-mini"])
@pytest.mark.parametrize(("members", "message", "param", "code"), REASONING_REFUSALS)
def test_reasoning_model_refuses(members: dict[str, Any], message: str, param: str, code: str, deployment: str) -> None:
    """A reasoning model refuses the parameters that Azure lists, in Azure's words; another model takes them."""
    body = {"messages": HELLO, **members}
    assert refused(body, deployment) == {
        "error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    }
    assert refused(body, "gpt-4o") is None


@pytest.mark.parametrize(
    "members",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"temperature": 1}, id="default-temperature"),
        pytest.param({"temperature": 1.0}, id="default-temperature-as-float"),
        pytest.param({"max_completion_tokens": 5, "reasoning_effort": "low"}, id="its-own-parameters"),
        pytest.param({"n": 2, "stop": "x", "seed": 1, "user": "u"}, id="others"),
    ],
)
@pytest.mark.parametrize("deployment", ["gpt-5-mini", "o4-mini", "gpt-4o"])
def test_model_takes(members: dict[str, Any], deployment: str) -> None:
    """What a reasoning model knows is not refused, by it or by another."""
    assert refused({"messages": HELLO, **members}, deployment) is None


@needs_wire
@pytest.mark.parametrize(
    ("name", "members"),
    [
        pytest.param("unsupported_parameter", {"max_tokens": 5}, id="max-tokens"),
        pytest.param("unrecognized_argument", {"unheard_of": 5}, id="unknown-argument"),
    ],
)
def test_refusal_is_azures(name: str, members: dict[str, Any]) -> None:
    """The refusals are Azure's, but for the name of the argument."""
    errors = json.loads((WIRE / "azure-errors.json").read_text())["errors"]
    (real,) = [entry["body"] for entry in errors if entry["name"] == name]
    ours = refused({"messages": HELLO, **members}, "o4-mini")
    real["error"]["message"] = real["error"]["message"].replace(
        "supplied: max_completion_tokens", "supplied: unheard_of"
    )
    assert ours == real


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({}, id="none"),
        pytest.param({"messages": None}, id="null"),
        pytest.param({"messages": []}, id="empty"),
        pytest.param({"messages": "hello"}, id="text"),
    ],
)
def test_messages_are_required(body: dict[str, Any]) -> None:
    """A request without messages is refused."""
    error = refused(body, "gpt-4o")
    assert error is not None
    assert "'messages'" in error["error"]["message"]


@pytest.mark.parametrize(("path", "query"), [(CHAT, "api-version=2024-10-21"), (V1, ""), (V1, "api-version=preview")])
def test_application_answers(path: str, query: str) -> None:
    """The application answers on the classic path and on v1, where the body names the deployment."""
    status, answer = asked({"messages": HELLO, "model": "gpt-4o"}, path, query=query)
    assert status == 200
    assert answer["choices"][0]["message"]["content"] == SAID_HELLO


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        pytest.param({"path": "/nowhere"}, 404, "404", id="path"),
        pytest.param({"method": "GET"}, 404, "404", id="method"),
        pytest.param({"query": ""}, 404, "404", id="no-version"),
        pytest.param({"query": "api-version=latest"}, 404, "404", id="bad-version"),
        pytest.param({"headers": ()}, 401, "401", id="no-credential"),
        pytest.param({"path": V1}, 400, "BadRequest", id="date-on-v1"),
        pytest.param({"body": b"{"}, 400, None, id="not-json"),
        pytest.param({"body": []}, 400, None, id="array"),
        pytest.param({"body": {}}, 400, None, id="no-messages"),
        pytest.param({"body": {"messages": None}}, 400, None, id="null-messages"),
        pytest.param({"body": {"messages": []}}, 400, None, id="empty-messages"),
        pytest.param({"path": CHAT.replace("gpt-4o", "nope")}, 404, "DeploymentNotFound", id="no-deployment"),
        pytest.param(
            {"path": CHAT.replace("gpt-4o", "%E6%97%A5")},
            404,
            "DeploymentNotFound",
            id="no-deployment-beyond-latin-1",
        ),
    ],
)
def test_application_refuses(request_: dict[str, Any], status: int, code: str | None) -> None:
    """What Azure refuses is refused, under its status and code."""
    answered, body = asked(**{"body": {"messages": HELLO}, **request_})
    assert (answered, body["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    "members",
    [
        pytest.param({"stop": [""]}, id="empty-stop"),
        pytest.param({"stop": 1}, id="stop-number"),
        pytest.param({"n": "x"}, id="n-word"),
        pytest.param({"max_tokens": "x"}, id="max-tokens-word"),
        pytest.param({"max_tokens": 2.5}, id="max-tokens-fraction"),
        pytest.param({"response_format": "json"}, id="response-format-word"),
        pytest.param({"tools": [{}], "tool_choice": "required"}, id="tool-without-function"),
        pytest.param({"tools": [TOOL], "tool_choice": {}}, id="tool-choice-without-function"),
        pytest.param({"stream": True, "stream_options": True}, id="stream-options-flag"),
    ],
)
def test_application_survives(members: dict[str, Any]) -> None:
    """A value of a wrong type is answered 400, as Azure does."""
    assert asked({"messages": HELLO, **members})[0] == 400
