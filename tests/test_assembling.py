"""Streams into the answers that they tell: whole ones, broken ones, and what only some servers say."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_api.assembling import Assembled, assembled
from chat_api.chunks import events_of
from chat_api.emulator.answers import Answer
from chat_api.emulator.completions import Completion
from chat_api.emulator.responses import Response
from chat_api.response_events import assembled_response
from tests.conversations import encoded, stream_of

WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"place": {"type": "string"}}}},
}
USER = [{"role": "user", "content": "Größe 😀 of the sea?"}]
BODIES = [
    pytest.param({"messages": USER}, id="plain"),
    pytest.param({"messages": USER, "n": 3}, id="several-choices"),
    pytest.param({"messages": USER, "max_tokens": 2}, id="cut-by-length"),
    pytest.param({"messages": USER, "tools": [WEATHER], "tool_choice": "required"}, id="tool-call"),
]


def terms(told: Assembled) -> Any:
    """What was told as JSON terms."""
    return json.loads(msgspec.json.encode(told.answer))


def chunk(delta: dict[str, Any] | None = None, **choice: Any) -> bytes:
    """An event with a chunk of one choice."""
    said = {} if delta is None else {"delta": delta}
    return b"data: %s\n\n" % encoded({"choices": [{"index": 0, **said, **choice}]})


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("before", [b"", b": ping\n\n"], ids=["in-one-go", "event-by-event"])
def test_stream_tells_what_the_plain_answer_does(body: dict[str, Any], before: bytes) -> None:
    """Texts, calls, reasons, filters and usage of all choices are those of the answer that is no stream."""
    answer = Answer({**body, "stream_options": {"include_usage": True}}, "d")
    told = assembled(before + stream_of(answer.chunks()))
    whole = answer.whole()

    for choice, expected in zip(terms(told)["choices"], whole["choices"], strict=True):
        message = {name: expected["message"].get(name) for name in ("role", "content", "tool_calls")}
        assert choice["message"] == {name: value for name, value in message.items() if name != "tool_calls" or value}
        assert (choice["index"], choice["finish_reason"]) == (expected["index"], expected["finish_reason"])
        if message["content"]:
            assert choice["content_filter_results"] == expected["content_filter_results"]
    assert terms(told)["prompt_filter_results"] == whole["prompt_filter_results"]
    assert json.loads(bytes(told.usage)) == whole["usage"]


def test_legacy_completion_has_texts() -> None:
    """A stream of the legacy completions becomes choices with texts."""
    completion = Completion({"prompt": ["a", "b"]}, "d")
    told = terms(assembled(stream_of(completion.chunks())))

    assert [one["text"] for one in told["choices"]] == [one["text"] for one in completion.whole()["choices"]]
    assert [one["finish_reason"] for one in told["choices"]] == ["stop", "stop"]


@pytest.mark.parametrize(
    "body", [{"input": "hello there"}, {"input": "hello there", "max_output_tokens": 2}], ids=["whole", "incomplete"]
)
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
def test_response_is_that_of_its_last_event(body: dict[str, Any], line_end: bytes) -> None:
    """A whole Responses stream tells the output, its text, how it ended and what it took."""
    response = Response({**body}, "d")
    whole = response.whole()
    told = assembled_response(stream_of(response.events(), is_named=True).replace(b"\n", line_end))

    assert terms(told)["output"] == whole["output"]
    assert terms(told)["output_text"] == whole["output"][0]["content"][0]["text"]
    assert (terms(told)["status"], json.loads(bytes(told.usage))) == (whole["status"], whole["usage"])
    assert terms(told).get("incomplete_details") == whole.get("incomplete_details")


def test_broken_response_tells_what_was_said_so_far() -> None:
    """Without its last event a Responses stream is put together of its pieces."""
    events = list(Response({"input": "hello there, you"}, "d").events())
    pieces = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    begun = [event for event in events if event["type"] != "response.output_text.done"][: 4 + 2]
    told = terms(assembled_response(stream_of(begun, is_named=True)))

    assert told["output_text"] == "".join(pieces[:2])
    assert told["output"][0]["content"] == [{"type": "output_text", "text": "".join(pieces[:2])}]
    assert told["status"] == "in_progress"


@pytest.mark.parametrize(
    ("kind", "member", "value"),
    [
        pytest.param("function_call_arguments", "arguments", '{"a":1}', id="arguments"),
        pytest.param("custom_tool_call_input", "input", '{"a":1}', id="custom-tool"),
        pytest.param("refusal", "content", [{"type": "refusal", "refusal": '{"a":1}'}], id="refusal"),
        pytest.param("reasoning_summary_text", "summary", [{"type": "summary_text", "text": '{"a":1}'}], id="summary"),
    ],
)
def test_pieces_of_a_response_without_their_item(kind: str, member: str, value: Any) -> None:
    """Pieces of which nothing else came make an item of their kind."""
    events = [{"type": f"response.{kind}.delta", "output_index": 1, "delta": piece} for piece in ('{"a"', ":1}")]
    told = terms(assembled_response(stream_of(events, is_named=True)))

    assert told["output"][0][member] == value


def test_error_of_a_response_is_told() -> None:
    """An error event after a response that failed is what it failed of."""
    events = Response({"input": "a"}, "d").failed(0, {"code": "rate_limit_exceeded", "message": "later"})
    told = assembled_response(stream_of(events, is_named=True))

    assert json.loads(bytes(told.error)) == {"code": "rate_limit_exceeded", "message": "later"}
    assert terms(told) == {"status": "failed"}


def test_broken_stream_tells_what_was_said_so_far() -> None:
    """The text of the events that came, without the one that was cut; and the error that broke it."""
    stream = chunk({"role": "assistant", "content": "The "}) + chunk({"content": "sea"})
    error = b'data: {"error":{"code":"429","message":"exceeded"}}\n\n'

    assert terms(assembled(stream + chunk({"content": " is"})[:-9]))["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": "The sea"}, "finish_reason": None}
    ]
    assert json.loads(bytes(assembled(stream + error).error)) == {"code": "429", "message": "exceeded"}


@pytest.mark.parametrize("chunk_end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_other_line_ends_tell_the_same(chunk_end: bytes) -> None:
    """CR and CRLF end lines as well."""
    stream = (chunk({"content": "a"}) + chunk({"content": "b"}) + b"data: [DONE]\n\n").replace(b"\n\n", chunk_end)

    assert terms(assembled(stream))["choices"][0]["message"]["content"] == "ab"


def test_what_only_some_servers_say_is_kept() -> None:
    """Reasoning, sounds and old function calls are put together as texts; of anything else the last is kept."""
    deltas: list[dict[str, Any]] = [
        {"reasoning_content": "Hm", "audio": {"id": 7, "transcript": "a", "data": "A" * 3000}, "function_call": None},
        {"reasoning_content": "m.", "audio": {"transcript": "b"}, "annotations": [1]},
        {"annotations": [2], "audio": 5, "deep": {"a": {"b": {"c": "d"}}}, "refusal": "no", "content": "x"},
    ]
    (choice,) = terms(assembled(b"".join(chunk(delta) for delta in deltas[:2])))["choices"]
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "reasoning_content": "Hmm.",
        "audio": {"id": 7, "transcript": "ab", "data": "… (3000 characters)"},
        "annotations": [1],
    }
    (choice,) = terms(assembled(b"".join(map(chunk, deltas))))["choices"]
    assert (choice["message"]["audio"], choice["message"]["annotations"]) == (5, [2])
    assert (choice["message"]["deep"], choice["message"]["refusal"]) == ({"a": {"b": {"c": "d"}}}, "no")


def test_halves_of_a_letter_in_two_chunks_are_one() -> None:
    """A surrogate pair that was split between chunks is its letter; a half alone is a replacement."""
    stream = b"".join(
        b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % half for half in (rb"\ud83d", rb"\ude00")
    )

    assert terms(assembled(stream))["choices"][0]["message"]["content"] == "😀"
    assert terms(assembled(stream[: len(stream) // 2]))["choices"][0]["message"]["content"] == "\ufffd"


def test_filters_tell_the_worst_of_all_parts() -> None:
    """Of each category the worst that was found in any chunk is told."""
    safe = {"hate": {"filtered": False, "severity": "safe"}, "jailbreak": {"detected": False, "filtered": False}}
    worse = {"hate": {"filtered": False, "severity": "medium"}, "odd": 1}
    worst = {"hate": {"filtered": True, "severity": "low"}, "jailbreak": {"detected": True, "filtered": False}}
    stream = b"".join(chunk({"content": "a"}, content_filter_results=one) for one in (safe, worse, worst, safe))

    assert terms(assembled(stream))["choices"][0]["content_filter_results"] == worst | {"odd": 1}


def test_call_that_says_its_name_again_has_it_once() -> None:
    """Servers that repeat id, type and name in every chunk of a call do not have them run together."""
    call = {"index": 1, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{"}}
    more = {**call, "function": {"name": "f", "arguments": "}"}}
    stream = chunk({"content": "", "tool_calls": [call]}) + chunk({"tool_calls": [more]})
    message = terms(assembled(stream))["choices"][0]["message"]

    assert message["content"] is None
    assert message["tool_calls"] == [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


WRONG = [
    b'data: {"choices":[{"index":"0","delta":{"content":5,"tool_calls":[1,{"function":3}],"role":{}}},7,null]}\n\n',
    b'data: {"choices":{"a":1},"usage":7,"error":[]}\n\ndata: [1]\n\ndata: "x"\n\ndata: \xff\xfe\n\n',
    b'data: {"choices":[{"delta":[],"text":4,"finish_reason":1,"content_filter_results":"no"}]}\n\n',
    b'data: {"choices":[{"delta":{"(more)":{"a":1},"x":{"y":' + b'{"z":' * 300 + b"1" + b"}" * 303 + b"}]}\n\n",
    b"data: " + b"[" * 100_000 + b"\n\n",
    b'data: {"usage":{"total_tokens":\n',
    b"\xef\xbb\xbf",
    b"\0\r\r\n\n",
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_chunks_of_any_shape_are_read_as_far_as_they_are_any(number: int) -> None:
    """Members of wrong types are passed over, and the chunks beside them are read."""
    told = terms(assembled(chunk({"content": "a"}) + WRONG[number].rstrip(b"\n") + b"\n\n" + chunk({"content": "b"})))

    assert told["choices"][0]["message"]["content"] == "ab"
    assert isinstance(assembled_response(WRONG[number]), Assembled)


def test_event_beyond_all_measure_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream with an event that is too large to be one tells nothing, and raises nothing."""
    monkeypatch.setattr("chat_api.sse.MAX_EVENT_BYTES", 10)

    assert events_of(b"data: 0123456789\n\n") == []


@given(st.data())
def test_prefix_of_a_stream_tells_a_prefix_of_the_text(data: st.DataObject) -> None:
    """Wherever a stream breaks, what is told is what its whole events said."""
    whole = stream_of(Answer({"messages": USER}, "d").chunks())
    text = terms(assembled(whole))["choices"][0]["message"]["content"]
    told = terms(assembled(whole[: data.draw(st.integers(0, len(whole)))]))

    said = "".join(one["message"]["content"] or "" for one in told.get("choices", []))
    assert text.startswith(said)


PIECE = st.sampled_from(
    [
        *(chunk({"content": "a"}), chunk({"tool_calls": [{"index": 0}]}), chunk(text="b"), b"data: [DONE]\n\n"),
        *(*WRONG, b"data: ", b"\n\n", b"{", b"}", b'"choices":', b"event: error\n", b'"type":"response.completed"'),
        b'data: {"type":"response.output_text.delta","delta":"x","output_index":{}}\n\n',
        b'data: {"type":"response.output_item.added","item":{"type":[],"content":[null,{"type":"output_text"}]}}\n\n',
        b'data: {"type":"response.completed","response":{"output":{"a":[1]},"usage":[],"error":5}}\n\n',
        b'data: {"type":"response.completed","response":{"output":[1,{"type":"message","content":[2]}]}}\n\n',
    ]
) | st.binary(max_size=20)


@given(st.lists(PIECE, max_size=12))
def test_no_bytes_raise(pieces: list[bytes]) -> None:
    """Whatever comes, something is told."""
    for told in (assembled(b"".join(pieces)), assembled_response(b"".join(pieces))):
        assert isinstance(told, Assembled)
