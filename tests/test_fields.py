"""The fields of the simple endpoint: every kind, from JSON and from text, and what is said of a wrong one."""

from collections.abc import Sequence

import pytest
from msgspec import Raw

from chat_api.errors import RequestError
from chat_api.fields import FIELDS, read_value
from tests.values import plain

PROMPT = "non-empty text"


N = "a whole number from 1 to 128"


TEMPERATURE = "a number from 0 to 2"


STOP = "text or an array of up to 4 texts"


MESSAGES = "an array of messages, each an object with a role"


CHOICE = "none, auto, required or an object that names a function"


DEEP = 100_000


def refusal(name: str, raw: Raw | str | Sequence[str]) -> RequestError:
    """The error that reading this value raises."""
    with pytest.raises(RequestError) as caught:
        read_value(name, raw)
    return caught.value


@pytest.mark.parametrize(
    ("name", "json", "expected"),
    [
        pytest.param("prompt", b'"hi"', "hi", id="text"),
        pytest.param("prompt", b'" "', " ", id="blank-text"),
        pytest.param("prompt", b'"\\u00e9\\n<b>"', "é\n<b>", id="text-escapes"),
        pytest.param("prompt", b'"5"', "5", id="text-of-digits"),
        pytest.param("temperature", b"0", b"0", id="number-low"),
        pytest.param("temperature", b"2", b"2", id="number-high"),
        pytest.param("temperature", b"1.0", b"1.0", id="number-1.0"),
        pytest.param("temperature", b"1e0", b"1e0", id="number-1e0"),
        pytest.param("temperature", b"0.70", b"0.70", id="number-trailing-zero"),
        pytest.param("temperature", b"0.1234567890123456789", b"0.1234567890123456789", id="number-long"),
        pytest.param("presence_penalty", b"-2", b"-2", id="number-negative"),
        pytest.param("temperature", b'"0.5"', 0.5, id="number-as-text"),
        pytest.param("temperature", b'" 1 "', 1.0, id="number-as-text-in-spaces"),
        pytest.param("n", b"1", 1, id="integer-low"),
        pytest.param("n", b"128", 128, id="integer-high"),
        pytest.param("n", b"2.0", 2, id="integer-2.0"),
        pytest.param("n", b"2e0", 2, id="integer-2e0"),
        pytest.param("n", b'"2"', 2, id="integer-as-text"),
        pytest.param("top_logprobs", b"0", 0, id="integer-zero"),
        pytest.param("seed", b"-1", -1, id="integer-negative"),
        pytest.param("seed", b"18446744073709551617", 18446744073709551617, id="integer-big"),
        pytest.param("max_tokens", b"1000000", 1_000_000, id="integer-without-high"),
        pytest.param("stream", b"true", True, id="flag-true"),
        pytest.param("stream", b"false", False, id="flag-false"),
        pytest.param("stream", b"1", True, id="flag-1"),
        pytest.param("stream", b"0", False, id="flag-0"),
        pytest.param("stream", b'"TRUE"', True, id="flag-as-text"),
        pytest.param("stream", b'"off"', False, id="flag-off"),
        pytest.param("stop", b'"END"', "END", id="stop-text"),
        pytest.param("stop", b'"[\\"a\\"]"', '["a"]', id="stop-text-in-brackets"),
        pytest.param("stop", b'["a","b","c","d"]', ["a", "b", "c", "d"], id="stop-four"),
        pytest.param("logit_bias", b'{"50256": -1e2}', {"50256": b"-1e2"}, id="object"),
        pytest.param("response_format", b'"{\\"type\\":\\"text\\"}"', {"type": b'"text"'}, id="object-as-text"),
        pytest.param("messages", b'[{"role": "user"}, 1]', [b'{"role": "user"}', b"1"], id="array"),
        pytest.param("tools", b'"[1.0]"', [b"1.0"], id="array-as-text"),
        pytest.param("tool_choice", b'"auto"', "auto", id="choice-text"),
        pytest.param("tool_choice", b'{"type": "function"}', {"type": b'"function"'}, id="choice-object"),
        pytest.param("tool_choice", b'"{\\"a\\":1}"', {"a": b"1"}, id="choice-object-as-text"),
    ],
)
def test_value_from_json(name: str, json: bytes, expected: object) -> None:
    """A right value is read; a JSON number of a number field, and what objects hold, stay as they were written."""
    value = plain(read_value(name, Raw(json)))
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        pytest.param("prompt", "hi", "hi", id="text"),
        pytest.param("prompt", '{"a":1}', '{"a":1}', id="text-that-looks-like-json"),
        pytest.param("temperature", "0.7", 0.7, id="number"),
        pytest.param("temperature", "1", 1.0, id="number-whole"),
        pytest.param("temperature", "1e0", 1.0, id="number-exponent"),
        pytest.param("frequency_penalty", "-2", -2.0, id="number-negative"),
        pytest.param("n", "3", 3, id="integer"),
        pytest.param("seed", "-7", -7, id="integer-negative"),
        pytest.param("stream", "true", True, id="flag-true"),
        pytest.param("stream", "True", True, id="flag-case"),
        pytest.param("stream", "1", True, id="flag-1"),
        pytest.param("stream", "yes", True, id="flag-yes"),
        pytest.param("stream", "on", True, id="flag-on"),
        pytest.param("stream", "false", False, id="flag-false"),
        pytest.param("stream", "0", False, id="flag-0"),
        pytest.param("stream", "no", False, id="flag-no"),
        pytest.param("stream", "off", False, id="flag-off"),
        pytest.param("stop", "END", "END", id="stop-text"),
        pytest.param("stop", '["a","b"]', ["a", "b"], id="stop-array"),
        pytest.param("stop", "[", "[", id="stop-bracket"),
        pytest.param("stop", "[/INST]", "[/INST]", id="stop-bracketed-word"),
        pytest.param("stop", ["a", "b"], ["a", "b"], id="stop-given-twice"),
        pytest.param("logit_bias", '{"1": -1e2}', {"1": b"-1e2"}, id="object"),
        pytest.param("messages", '[{"role":"user"}]', [b'{"role":"user"}'], id="array"),
        pytest.param("tool_choice", "none", "none", id="choice-text"),
        pytest.param("tool_choice", ' {"a":1}', {"a": b"1"}, id="choice-object"),
        pytest.param(
            "stop",
            "[" * DEEP,
            "[" * DEEP,
            id="stop-deep",
        ),
    ],
)
def test_value_from_text(name: str, text: str | Sequence[str], expected: object) -> None:
    """What comes from a form or a query string is made into its field's kind."""
    value = plain(read_value(name, text))
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("json", [b"null", b'""'])
def test_null_and_empty_text_are_unset(name: str, json: bytes) -> None:
    """Null and empty text mean unset in every field, from JSON and from a form."""
    assert read_value(name, Raw(json)) is None
    assert read_value(name, "") is None


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        pytest.param("messages", Raw(b"[]"), id="array"),
        pytest.param("messages", "[]", id="array-as-text"),
        pytest.param("tools", Raw(b'"[]"'), id="array-as-json-text"),
        pytest.param("logit_bias", Raw(b"{}"), id="object"),
        pytest.param("extra", "{}", id="object-as-text"),
        pytest.param("tool_choice", Raw(b"{ }"), id="choice"),
        pytest.param("tool_choice", "{}", id="choice-as-text"),
        pytest.param("stop", Raw(b"[]"), id="stop"),
        pytest.param(
            "stop",
            "[]",
            id="stop-as-text",
        ),
    ],
)
def test_empty_structure_is_unset(name: str, raw: Raw | str) -> None:
    """An empty array or object means unset."""
    assert read_value(name, raw) is None


@pytest.mark.parametrize(
    ("name", "json", "got", "expects"),
    [
        pytest.param("prompt", b"5", "a number", PROMPT, id="text-number"),
        pytest.param("prompt", b"true", "true", PROMPT, id="text-true"),
        pytest.param("prompt", b'["hi"]', "an array", PROMPT, id="text-array"),
        pytest.param("userPrompt", b'{"a":1}', "an object", PROMPT, id="text-object"),
        pytest.param("systemPrompt", b"5", "a number", "text", id="system-prompt"),
        pytest.param("model", b"5", "a number", "the name of a deployment", id="model"),
        pytest.param("user", b"false", "false", "text", id="user"),
        pytest.param("temperature", b"2.1", "2.1", TEMPERATURE, id="number-high"),
        pytest.param("temperature", b"-0.1", "-0.1", TEMPERATURE, id="number-low"),
        pytest.param("temperature", b'"3"', "3", TEMPERATURE, id="number-text-high"),
        pytest.param("temperature", b'"warm"', '"warm"', TEMPERATURE, id="number-text"),
        pytest.param("temperature", b'"nan"', "nan", TEMPERATURE, id="number-nan"),
        pytest.param("temperature", b'"inf"', "inf", TEMPERATURE, id="number-inf"),
        pytest.param("temperature", b"1e400", "a number", TEMPERATURE, id="number-beyond-float"),
        pytest.param("temperature", b"true", "true", TEMPERATURE, id="number-true"),
        pytest.param("temperature", b"[1]", "an array", TEMPERATURE, id="number-array"),
        pytest.param("temperature", b'{"a":1}', "an object", TEMPERATURE, id="number-object"),
        pytest.param("top_p", b"1.01", "1.01", "a number from 0 to 1", id="top-p"),
        pytest.param("presence_penalty", b"-2.5", "-2.5", "a number from -2 to 2", id="presence-penalty"),
        pytest.param("frequency_penalty", b"3", "3", "a number from -2 to 2", id="frequency-penalty"),
        pytest.param("n", b"0", "0", N, id="integer-low"),
        pytest.param("n", b"129", "129", N, id="integer-high"),
        pytest.param("n", b"1.5", "1.5", N, id="integer-fraction"),
        pytest.param("n", b'"1.5"', '"1.5"', N, id="integer-text-fraction"),
        pytest.param("n", b'"many"', '"many"', N, id="integer-text"),
        pytest.param("n", b"true", "true", N, id="integer-true"),
        pytest.param("n", b"[1]", "an array", N, id="integer-array"),
        pytest.param("n", b"9" * 5000, "a number", N, id="integer-of-5000-digits"),
        pytest.param("max_tokens", b"0", "0", "a whole number from 1", id="max-tokens"),
        pytest.param("max_completion_tokens", b"-1", "-1", "a whole number from 1", id="max-completion-tokens"),
        pytest.param("top_logprobs", b"21", "21", "a whole number from 0 to 20", id="top-logprobs"),
        pytest.param("seed", b'"x"', '"x"', "a whole number", id="seed"),
        pytest.param("stream", b'"maybe"', '"maybe"', "true or false", id="flag-text"),
        pytest.param("stream", b"2", "a number", "true or false", id="flag-number"),
        pytest.param("stream", b"1.0", "a number", "true or false", id="flag-fraction"),
        pytest.param("logprobs", b"[1]", "an array", "true or false", id="flag-array"),
        pytest.param("stop", b"5", "a number", STOP, id="stop-number"),
        pytest.param("stop", b'{"a":1}', "an object", STOP, id="stop-object"),
        pytest.param("stop", b'["a",1]', "an array of something else", STOP, id="stop-of-numbers"),
        pytest.param("logit_bias", b"[1]", "an array", "an object of token numbers and biases", id="object-array"),
        pytest.param("logit_bias", b'"x"', "text", "an object of token numbers and biases", id="object-text"),
        pytest.param("extra", b"5", "a number", "an object of further parameters for Azure", id="extra"),
        pytest.param(
            "stream_options", b"true", "true", 'an object such as {"include_usage": true}', id="stream-options"
        ),
        pytest.param(
            "response_format", b"[1]", "an array", 'an object such as {"type": "json_object"}', id="response-format"
        ),
        pytest.param("messages", b'{"role":"user"}', "an object", MESSAGES, id="array-object"),
        pytest.param("messages", b'"hi"', "text", MESSAGES, id="array-text"),
        pytest.param("tools", b"5", "a number", "an array of tools", id="array-number"),
        pytest.param("tool_choice", b"5", "a number", CHOICE, id="choice-number"),
        pytest.param("tool_choice", b"[1]", "an array", CHOICE, id="choice-array"),
        pytest.param("tool_choice", b'"{"', "text", CHOICE, id="choice-broken-object"),
    ],
)
def test_wrong_value_from_json(name: str, json: bytes, got: str, expects: str) -> None:
    """The message says which field it is, what it is and what it takes; `param` is the field."""
    error = refusal(name, Raw(json))
    assert error.message == f"{name} is {got}; it takes {expects}"
    assert (error.status, error.param, error.code) == (400, name, "invalid_value")


@pytest.mark.parametrize(
    ("name", "text", "got", "expects"),
    [
        pytest.param("temperature", "warm", '"warm"', TEMPERATURE, id="number"),
        pytest.param("temperature", "2.5", "2.5", TEMPERATURE, id="number-high"),
        pytest.param("temperature", "-inf", "-inf", TEMPERATURE, id="number-inf"),
        pytest.param("temperature", "NaN", "NaN", TEMPERATURE, id="number-nan"),
        pytest.param("temperature", " ", '" "', TEMPERATURE, id="number-blank"),
        pytest.param("temperature", "0,7", '"0,7"', TEMPERATURE, id="number-comma"),
        pytest.param("n", "0", "0", N, id="integer-low"),
        pytest.param("n", "1.0", '"1.0"', N, id="integer-fraction"),
        pytest.param("n", "true", '"true"', N, id="integer-true"),
        pytest.param("stream", "maybe", '"maybe"', "true or false", id="flag"),
        pytest.param("stop", "[1]", "an array of something else", STOP, id="stop-of-numbers"),
        pytest.param("logit_bias", "[1]", "text", "an object of token numbers and biases", id="object-array"),
        pytest.param("logit_bias", '{"a":', "text", "an object of token numbers and biases", id="object-broken"),
        pytest.param("messages", "hi", "text", MESSAGES, id="array-text"),
        pytest.param("messages", '{"role":"user"}', "text", MESSAGES, id="array-object"),
        pytest.param("messages", "[" * DEEP, "text", MESSAGES, id="array-deep"),
        pytest.param("tool_choice", '{"a":' * DEEP, "text", CHOICE, id="choice-deep"),
    ],
)
def test_wrong_value_from_text(name: str, text: str, got: str, expects: str) -> None:
    """A wrong value of a form is told in the same words."""
    error = refusal(name, text)
    assert error.message == f"{name} is {got}; it takes {expects}"
    assert (error.status, error.param, error.code) == (400, name, "invalid_value")


@pytest.mark.parametrize("raw", [Raw(b'["a","b","c","d","e"]'), '["a","b","c","d","e"]', ["a", "b", "c", "d", "e"]])
def test_five_stops_are_too_many(raw: Raw | str | Sequence[str]) -> None:
    """Azure takes up to four stop texts, and the message says so, however they came."""
    error = refusal("stop", raw)
    assert error.message.endswith("; it takes text or an array of up to 4 texts")
    assert error.param == "stop"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("promt", "prompt"),
        ("PROMPT", "prompt"),
        ("user_prompt", "userPrompt"),
        ("userprompt", "userPrompt"),
        ("system_prompt", "systemPrompt"),
        ("systemprompt", "systemPrompt"),
        ("system", "systemPrompt"),
        ("assistant", "assistantPrompt"),
        ("message", "messages"),
        ("Model", "model"),
        ("Temperature", "temperature"),
        ("tempreature", "temperature"),
        ("topP", "top_p"),
        ("top-p", "top_p"),
        ("N", "n"),
        ("streaming", "stream"),
        ("maxTokens", "max_tokens"),
        ("max_token", "max_tokens"),
        ("maxCompletionTokens", "max_completion_tokens"),
        ("presencePenalty", "presence_penalty"),
        ("responseFormat", "response_format"),
        ("toolChoice", "tool_choice"),
    ],
)
def test_unknown_field_gets_a_suggestion(name: str, meant: str) -> None:
    """A misspelt field, or one in another case style, is refused with the name that was meant."""
    error = refusal(name, Raw(b'"x"'))
    assert error.message == f'unknown field "{name}"; did you mean "{meant}"?'
    assert (error.status, error.param, error.code) == (400, name, "unknown_field")


@pytest.mark.parametrize("name", ["xyzzy", "question", ""])
def test_unknown_field_unlike_any_other(name: str) -> None:
    """A field that resembles none is refused with the list of them and the way through `extra`."""
    error = refusal(name, "x")
    assert error.message.startswith(f'unknown field "{name}"; the fields are prompt, userPrompt, systemPrompt, ')
    assert error.message.endswith(", extra; anything else for Azure goes into extra")
    assert (error.param, error.code) == (name, "unknown_field")


def test_long_names_and_values_are_cut_in_messages() -> None:
    """An answer repeats no more than the beginning of what was sent."""
    with pytest.raises(RequestError) as unknown:
        read_value("x" * 10_000_000, "")
    with pytest.raises(RequestError) as wrong:
        read_value("n", "9" * 1000 + "x")

    assert len(unknown.value.message) < 700
    assert unknown.value.param == "x" * 60 + "…"
    assert len(wrong.value.message) < 150


def test_unknown_field_with_spaces_is_text_that_was_not_encoded() -> None:
    """An & in a prompt cuts it in two: the rest looks like a field."""
    with pytest.raises(RequestError, match="--data-urlencode"):
        read_value(" more", "")
