"""Records in words: who said what, whatever is in them; nothing that drives a terminal."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat_api.conversation_forms import as_json, as_line, as_markdown, as_row
from chat_api.conversation_text import as_text, searched
from chat_api.conversations import (
    Record,
    Said,
    Unreadable,
    answered,
    asked,
    harmless,
    parse_record,
    seconds_of,
    time_text,
    tokens,
    tool_calls,
)
from tests.conversation_logs import record

TEXT = st.text(st.characters(), max_size=12)  # halves of surrogate pairs among them
JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
NAMES = ("time", "key", "model", "messages", "prompt", "input", "instructions", "answer", "usage", "timings", "error")
WEATHER = {"name": "weather", "arguments": '{"city":"Paris"}'}
CALL = {"id": "call_1", "type": "function", "function": WEATHER}


@pytest.mark.parametrize(
    ("message", "said"),
    [
        pytest.param({"role": "user", "content": "hi"}, Said("user", "hi"), id="text"),
        pytest.param({"role": "user", "name": "Bob", "content": "hi"}, Said("user Bob", "hi"), id="name"),
        pytest.param(
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "input_audio", "input_audio": {}}]},
            Said("user", "a\n[input_audio]"),
            id="parts",
        ),
        pytest.param(
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]},
            Said("user", "[image_url: image/png, 4 characters]"),
            id="image-within",
        ),
        pytest.param(
            {"role": "user", "content": [{"type": "input_image", "image_url": "https://x/y.png"}]},
            Said("user", "[input_image: https://x/y.png]"),
            id="image-elsewhere",
        ),
        pytest.param(
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            Said("assistant", '[calls weather({"city":"Paris"}) as call_1]'),
            id="tool-call",
        ),
        pytest.param(
            {"role": "assistant", "content": "So:", "function_call": WEATHER},
            Said("assistant", 'So:\n[calls weather({"city":"Paris"})]'),
            id="function-call",
        ),
        pytest.param(
            {"role": "tool", "tool_call_id": "call_1", "content": "21"}, Said("tool call_1", "21"), id="tool-result"
        ),
        pytest.param({"role": "assistant", "refusal": "No."}, Said("assistant", "[refused: No.]"), id="refusal"),
        pytest.param(
            {"type": "function_call_output", "call_id": "c", "output": "21"}, Said("tool c", "21"), id="item-result"
        ),
        pytest.param(
            {"type": "function_call", "call_id": "c", **WEATHER},
            Said("assistant", '[calls weather({"city":"Paris"}) as c]'),
            id="item-call",
        ),
        pytest.param({"type": "reasoning"}, Said("reasoning", '{"type": "reasoning"}'), id="another-item"),
        pytest.param("hi", Said("user", "hi"), id="no-object"),
        pytest.param({"role": "user", "content": {"a": 1}}, Said("user", '{"a": 1}'), id="no-content-of-openai"),
    ],
)
def test_messages(message: object, said: Said) -> None:
    """Each kind of message in words: text as it is, calls readably, other parts named."""
    assert list(asked(record(messages=[message]))) == [said]


def test_other_requests() -> None:
    """A prompt, and the instructions and input of `responses`."""
    assert list(asked(record(messages=None, prompt=["a", "b"]))) == [Said("prompt", "a\nb")]
    assert list(asked(record(messages=None, instructions="Be brief.", input="hi"))) == [
        Said("instructions", "Be brief."),
        Said("user", "hi"),
    ]
    assert list(asked(record(messages=None, input=[{"role": "user", "content": "hi"}]))) == [Said("user", "hi")]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        pytest.param(
            {"choices": [{"message": {"content": "a"}, "finish_reason": "length"}]},
            [Said("answer", "a\n[finished: length]")],
            id="cut-off",
        ),
        pytest.param(
            {"choices": [{"index": 0, "text": "a"}, {"index": 1, "text": "b"}]},
            [Said("answer 0", "a"), Said("answer 1", "b")],
            id="several",
        ),
        pytest.param(
            {
                "choices": [
                    {
                        "message": {"content": ""},
                        "finish_reason": "content_filter",
                        "content_filter_results": {"hate": {"filtered": True}, "violence": {"filtered": False}},
                    }
                ]
            },
            [Said("answer", "[finished: content_filter]\n[filtered: hate]")],
            id="filtered",
        ),
        pytest.param({"output_text": "a"}, [Said("answer", "a")], id="output-text"),
        pytest.param(
            {
                "output": [
                    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
                    {"type": "function_call", "call_id": "c", **WEATHER},
                ],
                "output_text": "a",
            },
            [Said("answer", 'a\n[calls weather({"city":"Paris"}) as c]')],
            id="output",
        ),
        pytest.param(None, [], id="none"),
    ],
)
def test_answers(answer: object, said: list[Said]) -> None:
    """Each kind of answer in words, with why it ended where that is worth a word."""
    assert list(answered(record(answer=answer))) == said


def test_what_was_called() -> None:
    """Calls of either kind of answer, as functions."""
    chat = record(answer={"choices": [{"message": {"tool_calls": [CALL]}}]})
    items = record(answer={"output": [{"type": "function_call", "call_id": "c", **WEATHER}]})

    assert tool_calls(chat) == tool_calls(items) == [WEATHER]


def test_tokens_of_either_api() -> None:
    """`responses` has other names for them."""
    assert tokens(record()) == (12, 3, 15)
    assert tokens(record(usage={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3})) == (1, 2, 3)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("\x1b[31m", "\\x1b[31m", id="escape"),
        pytest.param("a\rb", "a\\rb", id="carriage-return"),
        pytest.param("a\r\nb\tc", "a\nb\tc", id="lines-of-windows"),
        pytest.param("\x9b31m\x7f\x00\x07", "\\x9b31m\\x7f\\x00\\x07", id="c1-and-others"),
        pytest.param("a\u202eb\u2066c\u200f", "a\\u202eb\\u2066c\\u200f", id="bidi"),
        pytest.param("\ud800\u2028\U000e0041", "\\ud800\\u2028\\U000e0041", id="surrogate-separator-tag"),
        pytest.param("Grüße 👩\u200d💻 中文 עברית", "Grüße 👩\u200d💻 中文 עברית", id="words-of-people"),
    ],
)
def test_harmless(text: str, shown: str) -> None:
    """What drives a terminal is spelled out; words of any language stay."""
    assert harmless(text) == shown


@pytest.mark.parametrize(
    "line",
    [b"", b"null", b"[1]", b'{"a":', b"\xff", b"[" * 100_000, b'{"a":NaN}', b'{"a":1}x'],
    ids=["empty", "null", "list", "torn", "no-utf-8", "deep", "nan", "more-behind"],
)
def test_lines_that_are_no_record(line: bytes) -> None:
    """Each is told with its reason."""
    with pytest.raises(Unreadable):
        parse_record(line)


def test_numbers_beyond_measure() -> None:
    """What is JSON, but too large for a number of Python's, is read as its text."""
    long = "9" * 5000
    members = parse_record(f'{{"a":-1e999,"b":{long},"c":[1e3,123456789012345678901]}}'.encode())
    assert members == {"a": "-1e999", "b": long, "c": [1000.0, 123456789012345678901]}


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("1970-01-01T00:00:00Z", None),
        ("2026-11-21T10:00:00.5Z", 1795255200.5),
        ("2026-11-21T10:00:00", 1795255200.0),
        ("2026-11-21T11:00:00+01:00", 1795255200.0),
        ("0001-01-01T00:00:00+14:00", None),
        ("9999-12-31T23:59:59-14:00", None),
        ("soon", None),
        (1795255200, None),
    ],
)
def test_times(time: object, seconds: float | None) -> None:
    """A time without a zone is UTC; what is none, or on the edge of the calendar, is None."""
    assert seconds_of(time) == seconds


def test_time_that_is_none_is_shown_as_it_stands() -> None:
    """A damaged record is shown all the same."""
    assert time_text(record(time="so\x1bon")) == "so\\x1bon"


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)  # the first text takes a second to draw
@given(st.dictionaries(st.sampled_from(NAMES), JSON))
def test_nothing_in_a_record_is_too_odd(members: dict[str, Any]) -> None:
    """Whatever JSON a member holds, every form of the record can be written."""
    made = Record(members)

    text = as_text(made)
    assert text == harmless(text)
    searched(made)
    for form in (as_json, as_line, as_markdown, as_row):
        form(made)
