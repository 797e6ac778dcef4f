"""Chat chunks in OpenAI's shape and no other: what only Azure sends is left out, what says something is not."""

import json
from typing import Any

import pytest

from chat_api.compat import strict_events
from chat_api.repair import EventRepair
from chat_api.sse import Event

NAMES = '"id":"c1","object":"chat.completion.chunk","created":7,"model":"gpt"'
FILTER = '{"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0}]}'
ROLE = f'{{"choices":[{{"index":0,"delta":{{"role":"assistant"}},"finish_reason":null}}],{NAMES}}}'
STOP = f'{{"choices":[{{"index":0,"delta":{{}},"finish_reason":"stop"}}],{NAMES}}}'
USAGE = f'{{"choices":[],"usage":{{"total_tokens":3}},{NAMES}}}'
BLOCKED = (
    '{"id":"","object":"","created":0,"model":"","choices":[{"index":0,"finish_reason":"content_filter",'
    '"content_filter_results":{"hate":{}},"content_filter_offsets":{"check_offset":1},"content_filter_raw":[]}]}'
)


def strict(*chunks: str, operation: str = "chat/completions") -> list[Any]:
    """What each chunk becomes, one after the other; None where it is dropped."""
    convert = strict_events(operation)
    made = []
    for chunk in chunks:
        out = convert(b"data: " + chunk.encode() + b"\n\n", Event(chunk.encode()))
        assert out == b"" or (out.startswith(b"data: ") and out.endswith(b"\n\n"))
        made.append(json.loads(out[6:]) if out else None)
    return made


@pytest.mark.parametrize(
    "chunk",
    [
        pytest.param(FILTER, id="prompt-filter"),
        pytest.param('{"choices":[],"prompt_annotations":[]}', id="prompt-annotations"),
        pytest.param('{"choices":[],"usage":null}', id="no-usage"),
        pytest.param('{"choices":[{"index":0,"finish_reason":null,"content_filter_offsets":{}}]}', id="annotation"),
        pytest.param('{"choices":[{"index":0}]}', id="choice-that-says-nothing"),
    ],
)
def test_dropped(chunk: str) -> None:
    """A chunk that neither says nor ends anything, nor tells what was used, does not go on."""
    assert strict(chunk) == [None]


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        pytest.param(ROLE, json.loads(ROLE), id="plain"),
        pytest.param(USAGE, json.loads(USAGE), id="usage"),
        pytest.param(STOP[:-1] + ',"obfuscation":"x"}', json.loads(STOP), id="obfuscation"),
        pytest.param(STOP[:-1] + ',"content_filter_results":{}}', json.loads(STOP), id="results-at-the-top"),
        pytest.param(STOP[:-1] + ',"prompt_filter_results":[]}', json.loads(STOP), id="prompt-filter-results"),
        pytest.param(
            STOP.replace('"index":0', '"index":0,"content_filter_results":{"hate":{}}'), json.loads(STOP), id="results"
        ),
        pytest.param(
            STOP.replace('"index":0', '"index":0,"content_filter_result":{"error":{}}'), json.loads(STOP), id="result"
        ),
        pytest.param(
            STOP[:-1] + ',"system_fingerprint":"f"}', {**json.loads(STOP), "system_fingerprint": "f"}, id="own"
        ),
        pytest.param(STOP.replace('"delta":{},', ""), json.loads(STOP), id="finish-without-delta"),
    ],
)
def test_strict(chunk: str, expected: Any) -> None:
    """What only Azure knows is left out of a chunk, at its top and in its choices; all else is kept."""
    assert strict(chunk) == [expected]


def test_text_is_kept_as_written() -> None:
    """What a chunk says goes on byte for byte."""
    chunk = f'{{"choices":[{{"index":0,"delta":{{"content":"\\u00e9\\/ é" , "n":1.0}}}}],{NAMES}}}'.encode()
    out = strict_events("chat/completions")(b"data: " + chunk + b"\n\n", Event(chunk))
    assert b'{"content":"\\u00e9\\/ \xc3\xa9" , "n":1.0}' in out


def test_names_of_the_others() -> None:
    """A chunk of the filter's that has to go on gets the names of the chunks before it."""
    *_, blocked = strict(ROLE, BLOCKED)
    assert blocked == {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 7,
        "model": "gpt",
        "choices": [{"index": 0, "delta": {}, "finish_reason": "content_filter"}],
    }


def test_names_are_of_one_stream() -> None:
    """The names of one stream's chunks do not get into another's."""
    strict(ROLE)
    (blocked,) = strict(BLOCKED)
    assert blocked["id"] == ""


def test_silent_choice_is_dropped_alone() -> None:
    """Of a chunk's choices only those go on that say something."""
    chunk = f'{{"choices":[{{"index":0}},{{"index":1,"delta":{{"content":"b"}}}}],{NAMES}}}'
    (made,) = strict(chunk)
    assert made["choices"] == [{"index": 1, "delta": {"content": "b"}}]


def test_completions() -> None:
    """A legacy completion's choices have text, which a last one without it gets empty."""
    text, last = strict(
        f'{{"choices":[{{"index":0,"text":"a","finish_reason":null}}],{NAMES}}}',
        f'{{"choices":[{{"index":0,"finish_reason":"stop"}}],{NAMES}}}',
        operation="completions",
    )
    assert text["choices"] == [{"index": 0, "text": "a", "finish_reason": None}]
    assert last["choices"] == [{"index": 0, "finish_reason": "stop", "text": ""}]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"[DONE]", id="done"),
        pytest.param(b"[DONE] ", id="done-with-a-space"),
        pytest.param(b"no JSON", id="no-json"),
        pytest.param(b"[1]", id="array"),
        pytest.param(b'{"choices":null}', id="null-choices"),
        pytest.param(b'{"choices":[1]}', id="odd-choices"),
    ],
)
def test_what_is_no_chunk(data: bytes) -> None:
    """What cannot be read as a chunk goes on as it is."""
    raw = b"event: x\r\ndata: " + data + b"\r\n\r\n"
    assert strict_events("chat/completions")(raw, Event(data, "x")) == raw


def test_created_is_a_number() -> None:
    """`created` is a number in every chunk, though the upstream sends none."""
    (made,) = strict('{"choices":[{"index":0,"delta":{"content":"a"}}]}')
    assert isinstance(made.get("created", 0), int)


def data(*chunks: str) -> bytes:
    """A stream of these chunks."""
    return b"".join(b"data: " + chunk.encode() + b"\n\n" for chunk in chunks)


@pytest.mark.parametrize("size", [1, 7, 10_000], ids=["bytes", "sevens", "whole"])
def test_stream(size: int) -> None:
    """A stream goes on without Azure's chunks, with pings, and to its end."""
    raw = data(FILTER, ROLE) + b": ping\n\n" + data(BLOCKED, USAGE) + b"data: [DONE]\n\n"
    repair = EventRepair("chat/completions", compat=True)
    out = b"".join(repair.feed(raw[start : start + size]) for start in range(0, len(raw), size)) + repair.finish()
    events = out.split(b"\n\n")
    assert [json.loads(event[6:]) for event in (events[0], events[2], events[3])] == [
        *[chunk for chunk in strict(ROLE, BLOCKED, USAGE) if chunk]
    ]
    assert (events[1], events[4:]) == (b": ping", [b"data: [DONE]", b""])
    assert (repair.done, repair.error) == (True, None)


def test_end_is_added() -> None:
    """A stream without [DONE] gets it though its last chunk was dropped."""
    repair = EventRepair("chat/completions", compat=True)
    out = repair.feed(data(ROLE, STOP, '{"choices":[{"index":0}]}')) + repair.finish()
    assert out.count(b"data: ") == 3
    assert out.endswith(b"\n\ndata: [DONE]\n\n")


@pytest.mark.parametrize("operation", ["responses", "images/generations"])
def test_other_operations(operation: str) -> None:
    """What is no chat is not changed."""
    raw = b'data: {"type":"response.created","obfuscation":"x","choices":[]}\n\n'
    assert EventRepair(operation, compat=True).feed(raw) == raw


def test_error_goes_no_further() -> None:
    """An error ends a stream in compatibility mode as it does without."""
    repair = EventRepair("chat/completions", compat=True)
    assert strict(ROLE) == [json.loads(repair.feed(data(ROLE, '{"error":{"message":"m"}}', ROLE))[6:])]
    assert repair.error is not None
    assert repair.error.message == "m"
