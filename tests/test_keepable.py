"""Which answers may be given again: whole ones, neither cut nor filtered."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat_api.emulator.answers import SAFE, Answer, encode
from chat_api.emulator.completions import Completion
from chat_api.emulator.embeddings import embeddings
from chat_api.keepable import is_complete_json, is_complete_stream
from chat_api.terms import read_chunks, read_json, write_json

WIRE = Path(__file__).parents[2] / "shared" / "azure" / "wire"
needs_wire = pytest.mark.skipif(not WIRE.is_dir(), reason="the shared wire captures are not here")
CHAT = "chat/completions"
TEXT = "completions"
VECTORS = "embeddings"
END = b"data: [DONE]\n\n"
CHOICE: dict[str, Any] = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi."}}
FILTERED = {**SAFE, "violence": {"filtered": True, "severity": "high"}}
FAILED = {"error": {"code": "content_filter_error", "message": "The contents are not filtered"}}


def answer(*choices: Any, **members: Any) -> bytes:
    """A whole answer of these choices, each of which replaces members of an ordinary one."""
    whole = [{**CHOICE, **choice} if isinstance(choice, dict) else choice for choice in choices]
    return json.dumps({"choices": whole, **members}).encode()


def stream(*chunks: Any, end: bytes = END) -> bytes:
    """The events of chunks, each of which is given as its choices or as the whole of it, and the end."""
    whole = [{"choices": chunk} if isinstance(chunk, list) else chunk for chunk in chunks]
    return b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in whole) + end


def bit(index: Any = 0, reason: Any = None, **members: Any) -> dict[str, Any]:
    """A choice of a chunk."""
    return {"index": index, "finish_reason": reason, "delta": {"content": "a"}, **members}


@pytest.mark.parametrize("reason", ["stop", "tool_calls", "function_call"])
def test_whole_answer(reason: str) -> None:
    """An answer whose choices all came to their own end is kept, in either form."""
    assert is_complete_json(answer({"finish_reason": reason}), CHAT)
    assert is_complete_stream(stream([bit()], [bit(0, reason)]), CHAT)


@pytest.mark.parametrize("reason", ["length", "content_filter", None, "", "insufficient_resources", 1, ["stop"], True])
def test_answer_that_was_cut(reason: Any) -> None:
    """An answer that ended for any other reason, or for none, is not kept, whichever choice it was."""
    assert not is_complete_json(answer({"finish_reason": reason}), CHAT)
    assert not is_complete_json(answer({}, {"index": 1, "finish_reason": reason}), CHAT)
    assert not is_complete_stream(stream([bit(0, reason)]), CHAT)
    assert not is_complete_stream(stream([bit(0, "stop")], [bit(1, reason)]), CHAT)


def test_choices_cut_short() -> None:
    """Fewer choices than were asked for, or such as nobody can count, are not kept."""
    two = answer({}, {"index": 1})
    streamed = stream([bit(1, "stop")], [bit(0, "stop")])

    assert is_complete_json(two, CHAT, 2)
    assert is_complete_stream(streamed, CHAT, 2)
    assert not is_complete_json(two, CHAT, 3)
    assert not is_complete_stream(streamed, CHAT, 3)


@pytest.mark.parametrize("indexes", [(0, 2), (0, 0), (1,), (0, None), (0, "1"), (False, 1), (-1, 0)], ids=str)
def test_indexes(indexes: tuple[Any, ...]) -> None:
    """Choices that are not numbered from 0 on, each with its own, are not kept."""
    assert not is_complete_json(answer(*({"index": index} for index in indexes)), CHAT)
    assert not is_complete_stream(stream(*([bit(index, "stop")] for index in indexes)), CHAT, len(indexes))


def test_choice_twice() -> None:
    """A choice that is there twice counts once, and the second of them is nobody's: it is not kept as JSON."""
    assert not is_complete_json(answer({}, {"index": 0}), CHAT)


@pytest.mark.parametrize("results", [FILTERED, FAILED, {"custom_blocklists": {"filtered": True}}], ids=str)
@pytest.mark.parametrize("name", ["content_filter_results", "content_filter_result"])
def test_filtered_answer(name: str, results: dict[str, Any]) -> None:
    """What the filter took something out of, or could not look at, is not kept, whatever it says of its end."""
    assert not is_complete_json(answer({name: results}), CHAT)
    assert not is_complete_stream(stream([bit(0, "stop")], [{"index": 0, name: results}]), CHAT)


@pytest.mark.parametrize("results", [SAFE, {}, None, {"error": None}, {"profanity": {"detected": True}}], ids=str)
def test_what_the_filter_says_otherwise(results: Any) -> None:
    """What the filter saw and let go on is kept."""
    assert is_complete_json(answer({"content_filter_results": results}), CHAT)
    assert is_complete_stream(stream([bit(0, "stop", content_filter_results=results)]), CHAT)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b'{"choices":[', id="cut"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"{}", id="nothing"),
        pytest.param(answer(), id="no-choices"),
        pytest.param(b'{"choices":{"0":{}}}', id="choices-of-another-kind"),
        pytest.param(answer(None), id="null-choice"),
        pytest.param(answer({"message": None}), id="no-message"),
        pytest.param(answer({}, error={"message": "no"}), id="error"),
        pytest.param(answer({})[:-1] + b',"a":"\xff"}', id="no-utf-8"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b'{"a":"\\ud800","b":NaN}', id="not-a-number"),
    ],
)
@pytest.mark.parametrize("operation", [CHAT, TEXT, VECTORS])
def test_no_answer(body: bytes, operation: str) -> None:
    """What is no answer, or one of another kind, is not kept, and never raises."""
    assert not is_complete_json(body, operation)
    assert not is_complete_stream(body, operation)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(stream([bit(0, "stop")], end=b""), id="without-its-end"),
        pytest.param(stream([bit(0, "stop")], [], end=b""), id="without-its-end-after-the-usage"),
        pytest.param(stream([bit(0, "stop")]) + stream([bit()], end=b""), id="something-after-the-end"),
        pytest.param(END + stream([bit(0, "stop")]), id="two-ends"),
        pytest.param(stream([bit(0, "stop")], {"error": {"code": "429"}}), id="error"),
        pytest.param(stream([bit(0, "stop")], {"type": "error", "message": "no"}), id="called-error"),
        pytest.param(b"event: error\n" + stream([bit(0, "stop")]), id="event-called-error"),
        pytest.param(stream([bit()]), id="unfinished"),
        pytest.param(stream([bit(0, "stop")], [bit(1)]), id="one-unfinished"),
        pytest.param(stream([]), id="no-choice"),
        pytest.param(END, id="only-the-end"),
        pytest.param(stream([bit(0, "stop")], 1), id="a-number"),
        pytest.param(stream([bit(0, "stop")], {"choices": 1}), id="choices-of-another-kind"),
        pytest.param(stream([bit(0, "stop"), None]), id="null-choice"),
        pytest.param(b'data: {"choices":[],\n\ndata: "a":1}\n\n' + stream([bit(0, "stop")]), id="one-chunk-in-two"),
        pytest.param(b"data: {} {}\n\n" + stream([bit(0, "stop")]), id="two-chunks-in-one"),
        pytest.param(b"data:\n\n" + stream([bit(0, "stop")]), id="empty-data"),
        pytest.param(b"data: \xff\n\n" + stream([bit(0, "stop")]), id="no-utf-8"),
    ],
)
def test_no_stream(body: bytes) -> None:
    """A stream without its end, with an error, or with anything that cannot be read, is not kept."""
    assert not is_complete_stream(body, CHAT)


FORMS = [
    pytest.param(lambda raw: raw, id="azure"),
    pytest.param(lambda raw: raw.replace(b"\n", b"\r\n"), id="crlf"),
    pytest.param(lambda raw: raw.replace(b"data: ", b"data:"), id="tight"),
    pytest.param(lambda raw: b": ping\n\n" + raw, id="comment"),
    pytest.param(lambda raw: raw.replace(b"\n\n", b"\n\n\n"), id="three-line-ends"),
    pytest.param(lambda raw: raw[:-1], id="one-line-end-at-last"),
    pytest.param(lambda raw: raw[:-2] + b" \n\n \n", id="spaces"),
    pytest.param(lambda raw: raw.replace(b'"a"', b'"\\ud83d"'), id="half-a-pair"),
    pytest.param(lambda raw: raw.replace(b'{"choices"', b'\ndata: {\ndata: "choices"'), id="lines"),
]


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_streams(form: Any) -> None:
    """A whole stream is kept however its events are spelled."""
    assert is_complete_stream(form(stream([], [bit()], [bit(0, "stop")], [])), CHAT)


def test_half_a_pair() -> None:
    """Half a surrogate pair is JSON: such an answer is kept, and written as it was read."""
    body = answer({"message": {"content": "\ud83d and 😀"}})

    assert is_complete_json(body, CHAT)
    assert json.loads(write_json(read_json(body))) == json.loads(body)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("members", [{}, {"tools": [{"function": {"name": "f"}}], "tool_choice": "required"}], ids=str)
def test_emulated_chat(members: dict[str, Any], n: int) -> None:
    """What the emulator says is kept, unless a limit has cut it."""
    for limit, is_kept in (({}, True), ({} if members else {"max_tokens": 1}, bool(members))):
        body = {"messages": [{"role": "user", "content": "hello"}], "n": n, **members, **limit}
        said = Answer(body, "gpt-4o")

        assert is_complete_json(encode(said.whole()), CHAT, n) == is_kept
        assert is_complete_stream(stream(*said.chunks()), CHAT, n) == is_kept
        assert not is_complete_json(encode(said.whole()), CHAT, n + 1)
        assert not is_complete_json(encode(said.whole()), TEXT, n)
        assert not is_complete_json(encode(said.whole()), "responses", n)
        assert not is_complete_stream(stream(*said.chunks()), VECTORS, n)


def test_emulated_completion() -> None:
    """A completion answers each of its prompts, or is not kept."""
    said = Completion({"prompt": ["a", "b"], "n": 2}, "davinci")

    assert is_complete_json(encode(said.whole()), TEXT, 4)
    assert is_complete_stream(stream(*said.chunks()), TEXT, 4)
    assert not is_complete_json(encode(said.whole()), TEXT, 5)
    assert not is_complete_json(encode(said.whole()), CHAT, 4)


def test_emulated_embeddings() -> None:
    """Embeddings are kept when there is one for each text."""
    body = encode(embeddings({"input": ["a", "b"]}, "ada"))

    assert is_complete_json(body, VECTORS, 2)
    assert not is_complete_json(body, VECTORS, 3)
    assert not is_complete_json(b'{"data":[]}', VECTORS)
    assert not is_complete_json(b'{"data":[1]}', VECTORS)
    assert not is_complete_json(b'{"data":[{}],"error":{"code":"429"}}', VECTORS)


@needs_wire
@pytest.mark.parametrize("name", ["gpt35-2025-08", "gpt41-2026-03", "gpt4o-2024-10", "tools"])
def test_captured_stream(name: str) -> None:
    """Azure's own streams are kept, and none of them that has lost its end."""
    raw = (WIRE / f"azure-stream-{name}.sse").read_bytes()

    assert is_complete_stream(raw, CHAT)
    assert not is_complete_stream(raw, CHAT, 2)
    assert not is_complete_stream(raw[: raw.rindex(b"data:")], CHAT)


@needs_wire
def test_captured_answer() -> None:
    """Azure's own answer is kept if it ended by itself, and is not if it was cut or is an error."""
    assert is_complete_json((WIRE / "azure-chat-success.sap.json").read_bytes(), CHAT)
    assert not is_complete_json((WIRE / "azure-chat-4o-mini-2025-08.json").read_bytes(), CHAT)
    assert not is_complete_stream((WIRE / "azure-stream-error-chunk.sap.sse").read_bytes() + END, CHAT)


@given(st.integers(0, 400))
@settings(deadline=None)
def test_stream_cut_anywhere(at: int) -> None:
    """A stream that broke off anywhere before its end is not kept."""
    raw = stream([], [bit()], [bit(0, "stop")], [])
    cut = raw[: min(at, len(raw) - len(b"]\n\n"))]

    assert not is_complete_stream(cut, CHAT)


@given(st.lists(st.sampled_from([b"data: ", b"\n", b"\n\n", b"[DONE]", b"{}", b'{"choices":[', b"]}", b"\r", b"1"])))
@settings(deadline=None)
def test_any_events(parts: list[bytes]) -> None:
    """No bytes at all raise anything; what is read of them is one chunk for each event."""
    raw = b"".join(parts)
    chunks = read_chunks(raw)

    assert chunks is None or raw.count(b"data:") > len(chunks)
    assert not is_complete_stream(raw, CHAT)
