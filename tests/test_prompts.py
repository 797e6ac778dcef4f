"""The simple endpoint's language: fields into Azure's chat body, Azure's answer into the endpoint's."""

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from chat_api.bodies import read_form, read_json
from chat_api.errors import RequestError, UpstreamError
from chat_api.prompts import answer_json, answer_text, build

ASK = b'"messages":[{"role":"user","content":"hi"}]'


def refusal(body: bytes) -> RequestError:
    """The error that building this JSON body's prompt raises."""
    with pytest.raises(RequestError) as caught:
        build(read_json(body), {})
    return caught.value


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b'{"prompt":"hi"}', b'[{"role":"user","content":"hi"}]', id="prompt"),
        pytest.param(b'{"userPrompt":"hi"}', b'[{"role":"user","content":"hi"}]', id="user-prompt"),
        pytest.param(b'{"prompt":"hi","userPrompt":"hi"}', b'[{"role":"user","content":"hi"}]', id="both-the-same"),
        pytest.param(b'{"prompt":"","userPrompt":"hi"}', b'[{"role":"user","content":"hi"}]', id="one-empty"),
        pytest.param(b'{"prompt":"hi","userPrompt":null}', b'[{"role":"user","content":"hi"}]', id="one-null"),
        pytest.param(b'{"prompt":" hi\\n"}', b'[{"role":"user","content":" hi\\n"}]', id="spaces-are-kept"),
        pytest.param(
            b'{"prompt":"<b>\\"x\\" & \\u00e9\\ud83d\\ude00</b>"}',
            '[{"role":"user","content":"<b>\\"x\\" & é😀</b>"}]'.encode(),
            id="nothing-is-escaped-for-html",
        ),
        pytest.param(
            b'{"assistantPrompt":"a","prompt":"hi","messages":[{"role":"x"}],"systemPrompt":"s"}',
            b'[{"role":"system","content":"s"},{"role":"x"},{"role":"user","content":"hi"},'
            b'{"role":"assistant","content":"a"}]',
            id="order",
        ),
        pytest.param(
            b'{"prompt":"hi","systemPrompt":"","assistantPrompt":null,"messages":[]}',
            b'[{"role":"user","content":"hi"}]',
            id="empty-ones-are-left-out",
        ),
        pytest.param(
            b'{"prompt":"hi","messages":[{"role":"user","content":"1"},{"role":"assistant","content":"2"}]}',
            b'[{"role":"user","content":"1"},{"role":"assistant","content":"2"},{"role":"user","content":"hi"}]',
            id="earlier-turns",
        ),
    ],
)
def test_messages(body: bytes, expected: bytes) -> None:
    """Messages come in the order system, earlier turns, user, assistant."""
    prompt = build(read_json(body), {})
    assert prompt.body == b'{"messages":' + expected + b"}"
    assert (prompt.model, prompt.stream, prompt.defaulted) == (None, False, frozenset())


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b'{"role":"user","content":"\\u00e9 \\/ caf\xc3\xa9"}', id="escapes"),
        pytest.param(b'{ "content" : [ 1 ,2 ] , "role" : "user" }', id="white-space-and-order"),
        pytest.param(b'{"role":"user","weird":{"a":[null,true]},"x":""}', id="unknown-members"),
        pytest.param(b'{"role":"user","id":123456789012345678901234567890}', id="big-integer"),
        pytest.param(b'{"role":"user","x":1.0,"y":1e0,"z":-0.00,"w":1E400}', id="float-spelling"),
        pytest.param(b'{"role":"user","content":"1","content":"2"}', id="member-given-twice"),
        pytest.param(b'{"role":"tool","content":null,"tool_call_id":"1"}', id="null-content"),
    ],
)
def test_earlier_messages_are_untouched(message: bytes) -> None:
    """An earlier message goes to Azure byte for byte, from JSON and from a form."""
    expected = b'{"messages":[' + message + b',{"role":"user","content":"hi"}]}'
    assert build(read_json(b'{"prompt":"hi","messages":[ ' + message + b" ]}"), {}).body == expected
    assert build({"prompt": "hi", "messages": f"[{message.decode()}]"}, {}).body == expected


@pytest.mark.parametrize(
    ("message", "number", "kind"),
    [
        pytest.param(b'"hi"', 0, "text", id="text"),
        pytest.param(b'{"role":"user"},5', 1, "a number", id="second-is-a-number"),
        pytest.param(b"null", 0, "null", id="null"),
        pytest.param(b"[]", 0, "an array", id="array"),
        pytest.param(b'{"content":"hi"}', 0, "an object", id="no-role"),
        pytest.param(b'{"role":""}', 0, "an object", id="empty-role"),
        pytest.param(b'{"role":1}', 0, "an object", id="role-is-a-number"),
    ],
)
def test_earlier_message_needs_a_role(message: bytes, number: int, kind: str) -> None:
    """A message that is no object with a role is refused by its number."""
    error = refusal(b'{"prompt":"hi","messages":[' + message + b"]}")
    assert error.message == f"messages[{number}] is {kind}; it takes an object with a role"
    assert (error.param, error.code) == ("messages", "invalid_value")


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        pytest.param(b"{}", "prompt is missing", "prompt", id="nothing"),
        pytest.param(b'{"systemPrompt":"s"}', "prompt is missing", "prompt", id="only-others"),
        pytest.param(b'{"messages":[{"role":"user"}]}', "prompt is missing", "prompt", id="only-messages"),
        pytest.param(b'{"prompt":""}', "prompt is empty", "prompt", id="empty"),
        pytest.param(b'{"prompt":null}', "prompt is empty", "prompt", id="null"),
        pytest.param(b'{"prompt":" \\n\\u00a0"}', "prompt is empty", "prompt", id="blank"),
        pytest.param(b'{"userPrompt":""}', "userPrompt is empty", "userPrompt", id="user-prompt-empty"),
        pytest.param(b'{"userPrompt":" "}', "userPrompt is empty", "userPrompt", id="user-prompt-blank"),
        pytest.param(b'{"prompt":"","userPrompt":""}', "prompt is empty", "prompt", id="both-empty"),
    ],
)
def test_prompt_is_required(body: bytes, message: str, param: str) -> None:
    """Without a prompt that says something there is no call, and the error names the field that was sent."""
    error = refusal(body)
    assert error.message == f"{message}; it takes non-empty text"
    assert (error.status, error.param, error.code) == (400, param, "missing_prompt")


def test_two_prompts() -> None:
    """prompt and userPrompt are one field: two different texts are refused."""
    error = refusal(b'{"prompt":"a","userPrompt":"b"}')
    assert error.message == "prompt and userPrompt are two names for one field; send one of them"
    assert (error.param, error.code) == ("prompt", "invalid_value")


@pytest.mark.parametrize(
    ("body", "message", "param", "code"),
    [
        pytest.param(
            b'{"promt":"hi"}', 'unknown field "promt"; did you mean "prompt"?', "promt", "unknown_field", id="unknown"
        ),
        pytest.param(
            b'{"prompt":"hi","x_y_z_w":null}',
            'unknown field "x_y_z_w"; the fields are ',
            "x_y_z_w",
            "unknown_field",
            id="unknown-null",
        ),
        pytest.param(
            b'{"prompt":5}', "prompt is a number; it takes non-empty text", "prompt", "invalid_value", id="wrong-kind"
        ),
    ],
)
def test_field_errors_come_through(body: bytes, message: str, param: str, code: str) -> None:
    """An unknown field and a wrong value are refused by their own name."""
    error = refusal(body)
    assert error.message.startswith(message)
    assert (error.param, error.code) == (param, code)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b'{"prompt":"hi","temperature":1.0,"top_p":1e0}', b'"temperature":1.0,"top_p":1e0', id="numbers"),
        pytest.param(b'{"prompt":"hi","temperature":"0.5"}', b'"temperature":0.5', id="number-as-text"),
        pytest.param(b'{"prompt":"hi","temperature":0}', b'"temperature":0', id="zero"),
        pytest.param(b'{"prompt":"hi","n":2,"max_tokens":"7"}', b'"n":2,"max_tokens":7', id="integers"),
        pytest.param(b'{"prompt":"hi","stop":["a"],"user":"u"}', b'"stop":["a"],"user":"u"', id="stop-and-user"),
        pytest.param(b'{"prompt":"hi","logprobs":false}', b'"logprobs":false', id="false"),
        pytest.param(b'{"prompt":"hi","logit_bias":{"1": -1e2}}', b'"logit_bias":{"1":-1e2}', id="object"),
        pytest.param(
            b'{"prompt":"hi","tools":[{"type": "function"}],"tool_choice":"auto"}',
            b'"tools":[{"type": "function"}],"tool_choice":"auto"',
            id="tools",
        ),
        pytest.param(b'{"prompt":"hi","seed":12345678901234567890123}', b'"seed":12345678901234567890123', id="seed"),
    ],
)
def test_parameters(body: bytes, expected: bytes) -> None:
    """Parameters go on after the messages, as they were written."""
    assert build(read_json(body), {}).body == b"{" + ASK + b"," + expected + b"}"


def test_parameters_of_a_form() -> None:
    """A form's text becomes JSON of the right kinds."""
    given = read_form("prompt=hi&temperature=0.5&n=2&stream=on&stop=a&stop=b&tool_choice=none")
    prompt = build(given, {})
    assert prompt.body == (
        b"{" + ASK + b',"temperature":0.5,"n":2,"stream":true,"stop":["a","b"],"tool_choice":"none"}'
    )
    assert prompt.stream is True


@pytest.mark.parametrize(
    ("body", "model"),
    [
        pytest.param(b'{"prompt":"hi"}', None, id="none"),
        pytest.param(b'{"prompt":"hi","model":""}', None, id="empty"),
        pytest.param(b'{"prompt":"hi","model":null}', None, id="null"),
        pytest.param(b'{"prompt":"hi","model":"gpt-4o"}', "gpt-4o", id="given"),
    ],
)
def test_model(body: bytes, model: str | None) -> None:
    """The model names the deployment and is no part of Azure's body."""
    prompt = build(read_json(body), {})
    assert (prompt.model, prompt.body) == (model, b"{" + ASK + b"}")


@pytest.mark.parametrize(
    ("body", "defaults", "parameters", "defaulted"),
    [
        pytest.param(b"", {"temperature": 0.5}, {"temperature": 0.5}, {"temperature"}, id="filled-in"),
        pytest.param(b',"temperature":1', {"temperature": 0.5}, {"temperature": 1}, set(), id="caller-beats-default"),
        pytest.param(b',"temperature":0', {"temperature": 0.5}, {"temperature": 0}, set(), id="zero-beats-default"),
        pytest.param(b',"logprobs":false', {"logprobs": True}, {"logprobs": False}, set(), id="false-beats-default"),
        pytest.param(
            b',"temperature":null', {"temperature": 0.5}, {"temperature": 0.5}, {"temperature"}, id="null-is-unset"
        ),
        pytest.param(b',"user":""', {"user": "env"}, {"user": "env"}, {"user"}, id="empty-text-is-unset"),
        pytest.param(b',"stop":[]', {"stop": ["x"]}, {"stop": ["x"]}, {"stop"}, id="empty-array-is-unset"),
        pytest.param(
            b',"n":2',
            {"temperature": 0.5, "n": 1, "max_tokens": 9},
            {"temperature": 0.5, "max_tokens": 9, "n": 2},
            {"temperature", "max_tokens"},
            id="only-those-used",
        ),
        pytest.param(
            b',"extra":{"temperature":1}', {"temperature": 0.5}, {"temperature": 1}, set(), id="extra-beats-default"
        ),
        pytest.param(
            b',"max_completion_tokens":5',
            {"max_tokens": 9, "n": 1},
            {"n": 1, "max_completion_tokens": 5},
            {"n"},
            id="newer-limit-suppresses-the-older",
        ),
        pytest.param(
            b',"extra":{"max_completion_tokens":5}',
            {"max_tokens": 9},
            {"max_completion_tokens": 5},
            set(),
            id="newer-limit-in-extra",
        ),
        pytest.param(
            b',"max_completion_tokens":null',
            {"max_tokens": 9},
            {"max_tokens": 9},
            {"max_tokens"},
            id="null-newer-limit-suppresses-nothing",
        ),
        pytest.param(
            b',"max_completion_tokens":5,"max_tokens":7',
            {"max_tokens": 9},
            {"max_tokens": 7, "max_completion_tokens": 5},
            set(),
            id="caller-may-send-both",
        ),
    ],
)
def test_defaults(body: bytes, defaults: dict[str, Any], parameters: dict[str, Any], defaulted: set[str]) -> None:
    """The caller beats a default, null and empty do not, and `defaulted` names exactly the defaults used."""
    before = dict(defaults)
    prompt = build(read_json(b'{"prompt":"hi"' + body + b"}"), defaults)
    expected = {"messages": [{"role": "user", "content": "hi"}], **parameters}
    assert msgspec.json.decode(prompt.body) == expected
    assert prompt.defaulted == defaulted
    assert defaults == before


@pytest.mark.parametrize(
    ("body", "defaults", "stream", "member"),
    [
        pytest.param(b"", {}, False, None, id="neither"),
        pytest.param(b',"stream":true', {}, True, True, id="caller"),
        pytest.param(b',"stream":"1"', {}, True, True, id="caller-text"),
        pytest.param(b"", {"stream": True}, True, True, id="default"),
        pytest.param(b',"stream":null', {"stream": True}, True, True, id="null-is-the-default"),
        pytest.param(b',"stream":false', {"stream": True}, False, False, id="caller-beats-default"),
        pytest.param(b',"stream":true', {"stream": False}, True, True, id="caller-beats-default-false"),
    ],
)
def test_stream(body: bytes, defaults: dict[str, Any], stream: bool, member: bool | None) -> None:
    """Whether to stream is the caller's word, or else the default's, which is never among `defaulted`."""
    prompt = build(read_json(b'{"prompt":"hi"' + body + b"}"), defaults)
    assert prompt.stream is stream
    assert msgspec.json.decode(prompt.body).get("stream") is member
    assert prompt.defaulted == frozenset()


def test_extra_is_merged_as_it_is() -> None:
    """What is in `extra` goes to Azure as it was written, after the other parameters."""
    extra = b'{"data_sources": [ {"a" : 1.0} ],"b":123456789012345678901234567890,"c":null,"d":"\\u00e9"}'
    prompt = build(read_json(b'{"prompt":"hi","n":1,"extra":' + extra + b"}"), {})
    assert prompt.body == (
        b"{" + ASK + b',"n":1,"data_sources":[ {"a" : 1.0} ],"b":123456789012345678901234567890,"c":null,"d":"\\u00e9"}'
    )


@pytest.mark.parametrize("name", ["messages", "model", "stream"])
def test_extra_may_not_hold(name: str) -> None:
    """What the gateway itself has to know cannot be smuggled in through `extra`."""
    error = refusal(b'{"prompt":"hi","extra":{"a":1,"' + name.encode() + b'":null}}')
    assert error.message == f'extra may not hold "{name}"; send {name} as a field of its own'
    assert (error.param, error.code) == ("extra", "invalid_value")


def test_extra_may_not_repeat_a_field() -> None:
    """A parameter given as a field and in `extra` is refused; an unset field is not given."""
    error = refusal(b'{"prompt":"hi","temperature":1,"extra":{"temperature":1}}')
    assert error.message == '"temperature" is given twice: as a field and in extra'
    assert (error.param, error.code) == ("temperature", "invalid_value")
    unset = build(read_json(b'{"prompt":"hi","temperature":null,"extra":{"temperature":1}}'), {})
    assert unset.body == b"{" + ASK + b',"temperature":1}'


@pytest.mark.parametrize(
    ("body", "head", "tail"),
    [
        pytest.param(
            b'{"id":"1","choices":[{"index":0,"message":{"content":"Hi"},"finish_reason":"stop"}],"x":1.0}',
            b'{"success":1,"text":"Hi"',
            b',"id":"1","choices":[{"index":0,"message":{"content":"Hi"},"finish_reason":"stop"}],"x":1.0}',
            id="completion",
        ),
        pytest.param(
            b'\n \t{ "choices" : [ {"message":{"content":"Hi"}} ],\n "n": 1e0 }\r\n',
            b'{"success":1,"text":"Hi"',
            b', "choices" : [ {"message":{"content":"Hi"}} ],\n "n": 1e0 }\r\n',
            id="white-space",
        ),
        pytest.param(
            b'{"choices":[{"message":{"content":"\\u00e9 \\"x\\"\\n"}}],"big":123456789012345678901234567890}',
            '{"success":1,"text":"é \\"x\\"\\n"'.encode(),
            b',"choices":[{"message":{"content":"\\u00e9 \\"x\\"\\n"}}],"big":123456789012345678901234567890}',
            id="escapes-and-big-integers",
        ),
        pytest.param(
            b'{"choices":[{"message":{"content":null,"tool_calls":[{"id":"c"}]},"finish_reason":"tool_calls"}]}',
            b'{"success":1,"text":null',
            b',"choices":[{"message":{"content":null,"tool_calls":[{"id":"c"}]},"finish_reason":"tool_calls"}]}',
            id="tool-call",
        ),
        pytest.param(b'{"choices":[]}', b'{"success":1,"text":null', b',"choices":[]}', id="no-choices"),
    ],
)
def test_answer_json(body: bytes, head: bytes, tail: bytes) -> None:
    """`success` and `text` come first, and Azure's own bytes follow untouched."""
    answer = answer_json(body)
    assert answer == head + tail
    assert body.endswith(answer[len(head) + 1 :])  # after the comma: nothing but Azure's bytes
    assert list(msgspec.json.decode(answer))[:2] == ["success", "text"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b'{"choices":[{"message":{"content":"a"}}]}', ("a", None), id="no-finish-reason"),
        pytest.param(
            b'{"choices":[{"index":0,"message":{"role":"assistant","content":"a"},"finish_reason":"stop"}]}',
            ("a", "stop"),
            id="one",
        ),
        pytest.param(
            b'{"choices":[{"index":2,"message":{"content":"c"},"finish_reason":"stop"},'
            b'{"index":0,"message":{"content":"a"},"finish_reason":"length"},{"index":1,"message":{"content":"b"}}]}',
            ("a", "length"),
            id="out-of-order",
        ),
        pytest.param(
            b'{"choices":[{"message":{"content":null,"tool_calls":[]},"finish_reason":"tool_calls"}]}',
            (None, "tool_calls"),
            id="tool-call",
        ),
        pytest.param(
            b'{"choices":[{"message":{"role":"assistant"},"finish_reason":"content_filter"}]}',
            (None, "content_filter"),
            id="filtered-without-content",
        ),
        pytest.param(b'{"choices":[{"message":{"content":""}}]}', ("", None), id="empty-text"),
        pytest.param(b'{"choices":[]}', (None, None), id="no-choices"),
    ],
)
def test_answer_text(body: bytes, expected: tuple[str | None, str | None]) -> None:
    """The text is that of the choice with the lowest index; a tool call has none."""
    assert answer_text(body) == expected


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>502 Bad Gateway</html>", id="html"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="array"),
        pytest.param(b'"hi"', id="text"),
        pytest.param(b"{}", id="no-choices"),
        pytest.param(b'{"error":{"message":"x"}}', id="error"),
        pytest.param(b'{"choices":null}', id="null-choices"),
        pytest.param(b'{"choices":[{"index":0}]}', id="no-message"),
        pytest.param(b'{"choices":[{"text":"hi"}]}', id="completion-of-another-kind"),
        pytest.param(b'{"choices":[{"message":{"content":"\xff"}}]}', id="not-utf-8"),
        pytest.param(b'{"choices":[{"message":{"content":"hi"}}]', id="cut"),
        pytest.param(b'{"choices":[{"message":{"content":"hi"}}]} x', id="trailing-characters"),
        pytest.param(b'{"x":' + b"[" * 100_000, id="deep"),
    ],
)
def test_not_an_answer(body: bytes) -> None:
    """What is not a chat completion is the upstream's fault, in both forms of the answer."""
    with pytest.raises(UpstreamError) as from_text:
        answer_text(body)
    with pytest.raises(UpstreamError) as from_json:
        answer_json(body)
    for error in (from_text.value, from_json.value):
        assert error.message == "the upstream's answer is not a chat completion"
        assert (error.status, error.code) == (502, "not_an_answer")


def test_raw_values_may_come_from_anywhere() -> None:
    """Fields of a body and of a query string build one prompt."""
    prompt = build({"prompt": Raw(b'"hi"'), "temperature": "0.5", "top_p": Raw(b"0.50")}, {})
    assert prompt.body == b"{" + ASK + b',"temperature":0.5,"top_p":0.50}'
