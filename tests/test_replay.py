"""Kept answers in their other form: JSON as events, events as JSON, and streams with or without their usage."""

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chat_api.assembly import assembled
from chat_api.emulator.answers import SAFE, Answer, encode
from chat_api.emulator.completions import Completion
from chat_api.keepable import is_complete_json, is_complete_stream
from chat_api.repair import EventRepair
from chat_api.replay import MOST_PIECES, PIECE_CHARS, as_events, pieces, with_usage
from tests.test_keepable import CHAT, END, WIRE, needs_wire, stream

STREAMS = ["gpt35-2025-08", "gpt41-2026-03", "gpt4o-2024-10", "tools"]
WORDS = "One two three four five six seven eight nine ten eleven twelve. "
USAGE = {"completion_tokens": 2, "prompt_tokens": 1, "total_tokens": 3}
NAMES = {"created": 1, "id": "chatcmpl-1", "model": "gpt-4o-2024-08-06"}
CALL: dict[str, Any] = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'},
}
LOGPROBS: dict[str, Any] = {
    "content": [{"token": one, "logprob": -0.5, "bytes": None, "top_logprobs": []} for one in ("He", "llo", " you")],
    "refusal": None,
}
CHOICE: dict[str, Any] = {
    "content_filter_results": SAFE,
    "finish_reason": "stop",
    "index": 0,
    "logprobs": None,
    "message": {"content": "Hello you", "refusal": None, "role": "assistant"},
}


def answer(*choices: dict[str, Any], **members: Any) -> dict[str, Any]:
    """A whole chat answer of these choices, each of which replaces members of an ordinary one."""
    whole = [{**CHOICE, "index": index, **choice} for index, choice in enumerate(choices or ({},))]
    return {**NAMES, "choices": whole, "object": "chat.completion", "usage": USAGE, **members}


def message(**members: Any) -> dict[str, Any]:
    """A choice with this message."""
    return {"message": {"role": "assistant", **members}}


def completion(*choices: dict[str, Any], **members: Any) -> dict[str, Any]:
    """A whole legacy completion of these choices."""
    ordinary = {"finish_reason": "stop", "logprobs": None, "text": "Hello you"}
    whole = [{"index": index, **ordinary, **choice} for index, choice in enumerate(choices or ({},))]
    return {**NAMES, "choices": whole, "object": "text_completion", "usage": USAGE, **members}


def replayed(whole: Any, *, include_usage: bool = True) -> list[bytes] | None:
    """The events of an answer."""
    return as_events(json.dumps(whole).encode(), include_usage=include_usage)


def chunks_of(whole: Any, *, include_usage: bool = True) -> list[dict[str, Any]]:
    """The chunks of an answer's events, as a client reads them."""
    events = replayed(whole, include_usage=include_usage)
    assert events is not None
    assert events[-1] == END
    assert all(event.startswith(b"data: {") and event.index(b"\n\n") == len(event) - 2 for event in events[:-1])
    return [json.loads(event.removeprefix(b"data: ")) for event in events[:-1]]


def put_together(events: bytes) -> Any:
    """The answer that events stand for; None if there is none."""
    whole = assembled(events)
    return None if whole is None else json.loads(whole)


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON: 1 is neither true nor 1.0."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def delta(index: int = 0, reason: str | None = None, **members: Any) -> list[dict[str, Any]]:
    """The choices of a chunk that adds this to one of them."""
    return [{"index": index, "delta": members, "finish_reason": reason}]


ANSWERS = [
    pytest.param(answer(), id="ordinary"),
    pytest.param(answer(message(content=WORDS * 20)), id="long"),
    pytest.param(answer(message(content="")), id="nothing-said"),
    pytest.param(answer({}, {}, message(content="Other")), id="choices"),
    pytest.param(answer(message(content=None, tool_calls=[CALL])), id="tool-call"),
    pytest.param(answer(message(content="I add", tool_calls=[CALL, {**CALL, "id": "call_2"}])), id="tool-calls"),
    pytest.param(answer(message(content=None, tool_calls=[{**CALL, "function": {"name": "f"}}])), id="no-arguments"),
    pytest.param(
        answer(
            message(content=None, tool_calls=[{"id": "c", "type": "custom", "custom": {"name": "f", "input": "a"}}])
        ),
        id="custom-tool",
    ),
    pytest.param(answer(message(content=None, tool_calls=[], annotations=[])), id="empty-lists"),
    pytest.param(answer(message(content=None, function_call={"name": "f", "arguments": "{}" * 40})), id="function"),
    pytest.param(answer(message(content=None, refusal=WORDS)), id="refusal"),
    pytest.param(answer(message(content="a", refusal="")), id="empty-refusal"),
    pytest.param(answer(message(content="a", context={"citations": [{"index": 0}, {"index": 0}]})), id="context"),
    pytest.param(answer(message(content="a", reasoning_content=WORDS, name=1)), id="unknown"),
    pytest.param(answer(message(content=[{"type": "text", "text": "a"}])), id="parts"),
    pytest.param(answer(message(content=None, audio={"id": "a", "data": "AA==", "expires_at": 1})), id="audio"),
    pytest.param(answer({"logprobs": LOGPROBS}), id="logprobs"),
    pytest.param(answer({"logprobs": LOGPROBS, **message(content="Hello")}), id="logprobs-of-bytes"),
    pytest.param(answer({"logprobs": {"content": LOGPROBS["content"], "a": [1]}}), id="logprobs-and-more"),
    pytest.param(answer({"logprobs": {"content": [], "refusal": None}, **message(content="")}), id="no-logprobs"),
    pytest.param(answer({"logprobs": {"refusal": LOGPROBS["content"]}, **message(refusal="No")}), id="logprobs-other"),
    pytest.param(answer({"stop_reason": None, "token_ids": [1, 2], "mood": "good"}), id="unknown-of-choice"),
    pytest.param(answer({"content_filter_results": {}}), id="filter-that-says-nothing"),
    pytest.param(answer({"content_filter_results": None, "content_filter_result": {"a": 1}}), id="filter-of-2023"),
    pytest.param(answer({"content_filter_results": SAFE, **message(content=None)}), id="filter-of-nothing"),
    pytest.param(answer(prompt_filter_results=[{"prompt_index": 0, "content_filter_results": SAFE}]), id="prompt"),
    pytest.param(answer(prompt_annotations=[{"prompt_index": 0}], prompt_filter_results=[]), id="prompt-of-2023"),
    pytest.param(answer(prompt_filter_results=[{"prompt_index": 0}, {"prompt_index": 0}, 1]), id="prompt-twice"),
    pytest.param(answer(system_fingerprint=None, service_tier="default", citations=["a"], left=0), id="unknown-of-all"),
    pytest.param(answer(id="", created=0, model=None, prompt_filter_results=[{}]), id="empty-names"),
    pytest.param({"choices": [CHOICE], "object": "chat.completion", "usage": USAGE}, id="no-names"),
    pytest.param(completion(), id="completion"),
    pytest.param(completion({"text": WORDS * 9, "content_filter_results": SAFE}, {"text": ""}), id="completions"),
    pytest.param(
        completion(
            {"logprobs": {"tokens": ["a", "b"], "top_logprobs": [{"index": 0}, {"index": 0}], "text_offset": [0, 1]}},
            {"text": "", "logprobs": {"tokens": []}},
            prompt_filter_results=[{"prompt_index": 0}, {"prompt_index": 1}],
        ),
        id="completion-logprobs",
    ),
    pytest.param(answer(message(content="\ud83d half, 👩‍👩‍👧 e\u0301 \u2028 \0 \"'\\ " * 20)), id="unicode"),
    pytest.param(answer(message(content="\ude00\ud83d")), id="halves"),
]


@pytest.mark.parametrize("whole", ANSWERS)
def test_there_and_back(whole: dict[str, Any]) -> None:
    """The events of an answer stand for that very answer, and are a whole stream."""
    events = replayed(whole)
    assert events is not None
    assert same(put_together(b"".join(events)), whole)

    operation = CHAT if whole["object"] == "chat.completion" else "completions"
    assert is_complete_json(json.dumps(whole).encode(), operation)
    assert is_complete_stream(b"".join(events), operation, len(whole["choices"]))


def without_usage(events: bytes) -> bytes:
    """What of a stream goes on to a caller who did not ask for its usage."""
    repair = EventRepair(CHAT, hides_usage=True)
    return repair.feed(events) + repair.finish()


@pytest.mark.parametrize("whole", ANSWERS)
def test_without_the_usage(whole: dict[str, Any]) -> None:
    """Without the usage no chunk mentions it, and all else is the same: as if it were taken out of the stream."""
    events = replayed(whole, include_usage=False)
    asked = replayed(whole)
    assert events is not None
    assert asked is not None

    assert b'"usage"' not in b"".join(events)
    assert b"".join(events) == without_usage(b"".join(asked))
    assert same(put_together(b"".join(events)), {name: value for name, value in whole.items() if name != "usage"})


@pytest.mark.parametrize(
    "whole",
    [
        pytest.param([], id="list"),
        pytest.param({}, id="nothing"),
        pytest.param(answer(choices=[]), id="no-choices"),
        pytest.param(answer(choices=None), id="null-choices"),
        pytest.param(answer(choices=[None]), id="null-choice"),
        pytest.param(answer(object="chat.completion.chunk"), id="chunk"),
        pytest.param(answer(object=None), id="no-object"),
        pytest.param(answer(object=["chat.completion"]), id="strange-object"),
        pytest.param(answer(error={"code": "429"}), id="error"),
        pytest.param(answer(type="error"), id="called-error"),
        pytest.param(answer(obfuscation="abc"), id="padding"),
        pytest.param(answer({"index": 1}, {"index": 0}), id="other-order"),
        pytest.param(answer({"index": 0}, {"index": 0}), id="same-index"),
        pytest.param(answer({"index": None}), id="no-index"),
        pytest.param(answer({"index": True}), id="strange-index"),
        pytest.param(answer({"message": None}), id="no-message"),
        pytest.param(answer({"delta": {}}), id="delta"),
        pytest.param(answer({"text": "a"}), id="text-beside"),
        pytest.param(completion({"text": None}), id="no-text"),
        pytest.param(completion({"message": {}}), id="message-beside"),
        pytest.param(answer(message(tool_calls={"0": CALL})), id="strange-calls"),
        pytest.param(answer(message(tool_calls=[None])), id="null-call"),
        pytest.param(answer(message(tool_calls=[{**CALL, "index": 0}])), id="call-with-index"),
        pytest.param(answer(choices=[{name: CHOICE[name] for name in ("index", "message")}]), id="no-finish-reason"),
    ],
)
def test_no_events(whole: Any) -> None:
    """An answer of a shape that no events are known for has none."""
    assert replayed(whole) is None


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a":NaN,"b":"\\ud800"}'])
def test_no_json(body: bytes) -> None:
    """What is no JSON has no events."""
    assert as_events(body, include_usage=False) is None


@pytest.mark.parametrize("usage", [{}, {"usage": None}], ids=str)
def test_usage_that_is_not_known(usage: dict[str, Any]) -> None:
    """An answer that does not say what it took has events only for a caller who does not ask."""
    whole = {name: value for name, value in answer().items() if name != "usage"} | usage

    assert replayed(whole) is None
    assert replayed(whole, include_usage=False) is not None


def test_shape() -> None:
    """The chunks are what Azure sends: the prompt's filter, role, text with its filter, the end, the usage."""
    filters = [{"prompt_index": 0, "content_filter_results": SAFE}]
    first, role, text, end, usage = chunks_of(answer(prompt_filter_results=filters, system_fingerprint="fp"))

    common = {**NAMES, "object": "chat.completion.chunk", "system_fingerprint": "fp", "usage": None}
    choice: dict[str, Any] = {"content_filter_results": {}, "finish_reason": None, "index": 0, "logprobs": None}
    start = {"content": "", "refusal": None, "role": "assistant"}
    names = {"choices": [], "created": 0, "id": "", "model": "", "object": ""}
    assert first == {**names, "prompt_filter_results": filters}
    assert role == {**common, "choices": [{**choice, "delta": start}]}
    said = {**choice, "content_filter_results": SAFE, "delta": {"content": "Hello you"}}
    assert text == {**common, "choices": [said]}
    assert end == {**common, "choices": [{**choice, "delta": {}, "finish_reason": "stop"}]}
    assert usage == {**common, "choices": [], "usage": USAGE}
    assert chunks_of(answer(prompt_filter_results=[]))[0]["choices"]
    assert all("usage" not in chunk for chunk in chunks_of(answer(), include_usage=False))


def test_shape_of_calls() -> None:
    """A call begins with who is called and no arguments; these come in pieces, each with the call's index."""
    calls = [CALL, {**CALL, "id": "call_2", "function": {"name": "say", "arguments": json.dumps({"a": WORDS})}}]
    deltas = [
        choice["delta"]["tool_calls"][0]
        for chunk in chunks_of(answer(message(content=None, tool_calls=calls)))
        for choice in chunk["choices"]
        if "tool_calls" in choice["delta"]
    ]

    assert deltas[0] == {**CALL, "function": {"name": "add", "arguments": ""}, "index": 0}
    assert deltas[1] == {"function": {"arguments": CALL["function"]["arguments"]}, "index": 0}
    assert [one["index"] for one in deltas] == [0, 0, 1, *[1] * (len(deltas) - 3)]
    assert len(deltas) > 4


def test_shape_of_logprobs() -> None:
    """Each token comes with its log probability where the tokens are the text, else they come all at once."""
    told = [chunk["choices"][0] for chunk in chunks_of(answer({"logprobs": LOGPROBS})) if chunk["choices"]]

    assert [choice["delta"].get("content") for choice in told] == ["", "He", "llo", " you", None]
    assert [choice["logprobs"] for choice in told[1:-1]] == [
        {**LOGPROBS, "content": [one]} for one in LOGPROBS["content"]
    ]
    assert told[0]["logprobs"] == {"content": [], "refusal": None}
    assert told[-1]["logprobs"] is None

    other = chunks_of(answer({"logprobs": LOGPROBS, **message(content="Hello")}))
    assert other[0]["choices"][0]["logprobs"] == LOGPROBS


@given(st.text(st.sampled_from("ab 😀\u0301\n"), max_size=300), st.integers(1, 80))
@example("a" * 100, 1)
@example(" " * 100, 1)
@example("", 1)
@example(WORDS, 300)
@settings(deadline=None)
def test_pieces(text: str, times: int) -> None:
    """The pieces of a text are all of it, none is empty, and there are never too many."""
    found = list(pieces(text * times))

    assert "".join(found) == text * times
    assert all(found)
    assert len(found) <= max(3 * len(text * times) / PIECE_CHARS + 1, 1)


def test_pieces_of_words() -> None:
    """Pieces are some words, each with the space before it; those of a long text are longer."""
    found = list(pieces(WORDS))
    assert all(len(piece) <= PIECE_CHARS for piece in found)
    assert all(piece.startswith(" ") for piece in found[1:])

    assert len(list(pieces(WORDS * 1000))) < 1.5 * MOST_PIECES


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("members", [{}, {"tools": [{"function": {"name": "f"}}], "tool_choice": "required"}], ids=str)
def test_emulated_chat(members: dict[str, Any], n: int) -> None:
    """The emulator's events stand for its answer, and its answer's events are chunks like its own."""
    asked = {"messages": [{"role": "user", "content": "hello 😀"}], "n": n, "stream_options": {"include_usage": True}}
    said = Answer({**asked, **members}, "gpt-4o")
    whole = json.loads(encode(said.whole()))
    for choice in whole["choices"]:
        del choice["message"]["annotations"]  # which its events do not tell
        if members:
            choice["content_filter_results"] = {}

    chunks = list(said.chunks())
    assert same(put_together(stream(*chunks)), whole)
    again = chunks_of(whole)
    assert [sorted(chunk) for chunk in (again[0], again[1], again[-1])] == [
        sorted(chunk) for chunk in (chunks[0], chunks[1], chunks[-1])
    ]
    assert again[1]["choices"][0]["delta"] == chunks[1]["choices"][0]["delta"]


def test_emulated_completion() -> None:
    """The same is true of completions, with a choice for each prompt."""
    said = Completion({"prompt": ["a", "b c"], "stream_options": {"include_usage": True}}, "davinci")
    whole = json.loads(encode(said.whole()))

    assert same(put_together(stream(*said.chunks())), whole)
    assert same(put_together(b"".join(replayed(whole) or ())), whole)
    assert sorted(chunks_of(whole)[0]) == sorted(next(said.chunks()))


@needs_wire
@pytest.mark.parametrize("name", STREAMS)
def test_captured_stream(name: str) -> None:
    """Azure's own streams stand for an answer with all that they say, whose events stand for it again."""
    raw = (WIRE / f"azure-stream-{name}.sse").read_bytes()
    chunks = [json.loads(line[6:]) for line in raw.decode().splitlines() if line.startswith("data: {")]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    whole = put_together(raw)

    said = whole["choices"][0]["message"]
    assert (said["content"] or "") == "".join(one.get("content") or "" for one in deltas)
    if name == "tools":
        assert said["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a":1,"b":2}'}
    assert whole["usage"] == chunks[-1]["usage"]
    assert whole["prompt_filter_results"] == chunks[0]["prompt_filter_results"]
    assert whole["model"] == chunks[-1]["model"]
    assert "obfuscation" not in whole
    assert is_complete_json(json.dumps(whole).encode(), CHAT)
    assert same(put_together(b"".join(replayed(whole) or ())), whole)


@needs_wire
@pytest.mark.parametrize(
    "name", ["chat-success.sap.json", "chat-4o-mini-2025-08.json", "chat-gpt5-nano-2025-10.vcr.yaml"]
)
def test_captured_answer(name: str) -> None:
    """The events of Azure's own answers stand for them."""
    text = (WIRE / f"azure-{name}").read_text()
    if name.endswith(".yaml"):
        text = yaml.safe_load(text)["interactions"][0]["response"]["body"]

    assert same(put_together(b"".join(replayed(json.loads(text)) or ())), json.loads(text))


@needs_wire
@pytest.mark.parametrize("name", STREAMS)
def test_usage_taken_out_of_captures(name: str) -> None:
    """A stream whose usage is hidden is whole and mentions none; one that tells it serves whoever asks for it."""
    raw = (WIRE / f"azure-stream-{name}.sse").read_bytes().rstrip() + b"\n\n"
    taken = without_usage(raw)

    assert b'"usage"' not in taken
    assert is_complete_stream(taken, CHAT)
    assert with_usage(raw) == raw
    assert with_usage(taken) is None


@pytest.mark.parametrize(
    ("events", "tells"),
    [
        pytest.param(stream(delta(content="a"), {"choices": [], "usage": USAGE}), True, id="own-chunk"),
        pytest.param(stream({"choices": delta(0, "stop"), "usage": USAGE}), True, id="with-the-end"),
        pytest.param(stream(delta(content="a")), False, id="none"),
        pytest.param(stream({"choices": delta(content="a"), "usage": None}), False, id="null"),
        pytest.param(stream(delta(content='"usage": {"a":1}')), False, id="in-a-text"),
        pytest.param(stream(delta(content="a", usage={"a": 1})), False, id="of-a-delta"),
        pytest.param(stream({"choices": [], "usage": USAGE}, {"choices": [], "usage": None}), True, id="then-null"),
        pytest.param(stream({"choices": [], "usage": USAGE}).replace(b"\n", b"\r\n"), True, id="crlf"),
        pytest.param(b'"usage"', False, id="cut"),
        pytest.param(b"", False, id="empty"),
    ],
)
def test_with_usage(events: bytes, tells: bool) -> None:
    """A stream serves a caller who asks for the usage if it tells it, and then as it is."""
    assert with_usage(events) == (events if tells else None)


STOP = delta(0, "stop")
SAID = [
    pytest.param([delta(content="a"), delta(content=None), STOP], {"content": "a"}, id="null-adds-nothing"),
    pytest.param([delta(role="assistant", content="a"), delta(role="assistant", content="b"), STOP],
                 {"role": "assistant", "content": "ab"}, id="role-in-each"),
    pytest.param([delta(role="assistant"), delta(role=""), STOP], {"role": "assistant"}, id="role-empty-then"),
    pytest.param([delta(reasoning="a"), delta(reasoning="b", content="c"), STOP],
                 {"reasoning": "ab", "content": "c"}, id="unknown-text"),
    pytest.param([delta(annotations=[1]), delta(annotations=[{"a": 1}]), STOP],
                 {"annotations": [1, {"a": 1}]}, id="lists-go-on"),
    pytest.param([delta(parts=[{"index": 1, "t": "a"}]), delta(parts=[{"index": 0, "t": "b"}]),
                  delta(parts=[{"index": 1, "t": "c"}]), STOP],
                 {"parts": [{"index": 1, "t": "ac"}, {"index": 0, "t": "b"}]}, id="lists-by-index"),
    pytest.param([delta(context={"a": "b", "n": 1}), delta(context={"a": "c", "n": 2, "m": True}), STOP],
                 {"context": {"a": "bc", "n": 2, "m": True}}, id="objects-merge"),
    pytest.param([delta(audio={"id": "x", "data": "AA"}),
                  delta(audio={"id": "x", "data": "BB", "expires_at": 1}), STOP],
                 {"audio": {"id": "x", "data": "AABB", "expires_at": 1}}, id="audio"),
    pytest.param([delta(tool_calls=[{"index": 1, "id": "b", "function": {"name": "g", "arguments": "1"}},
                                    {"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]),
                  delta(tool_calls=[{"index": 0, "id": None, "function": {"name": "", "arguments": "2"}}]),
                  delta(tool_calls=[{"index": 1, "id": "b", "function": {"name": "g", "arguments": "3"}}]), STOP],
                 {"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "2"}},
                                 {"id": "b", "function": {"name": "g", "arguments": "13"}}]}, id="calls"),
    pytest.param([delta(tool_calls=[{"index": 0, "id": "a"}, {"index": 0, "function": {"name": "f"}}]), STOP],
                 {"tool_calls": [{"id": "a", "function": {"name": "f"}}]}, id="call-twice-in-a-delta"),
    pytest.param([delta(function_call={"name": "f", "arguments": ""}), delta(function_call={"arguments": "a"}),
                  delta(function_call={"arguments": "b"}), STOP],
                 {"function_call": {"name": "f", "arguments": "ab"}}, id="function"),
    pytest.param([[{"index": 0, "delta": None}], [{"index": 0, "finish_reason": "stop"}]], {}, id="no-delta"),
    pytest.param([delta(content="\ud83d"), delta(content="\ude00"), STOP], {"content": "😀"}, id="emoji-cut-in-half"),
]  # fmt: skip


@pytest.mark.parametrize(("chunks", "said"), SAID)
def test_deltas(chunks: list[Any], said: dict[str, Any]) -> None:
    """Deltas are put together by what they are: texts and lists go on, objects merge, null adds nothing."""
    whole = put_together(stream(*chunks))

    assert same(
        whole, {"choices": [{"finish_reason": "stop", "index": 0, "message": said}], "object": "chat.completion"}
    )
    assert same(put_together(b"".join(replayed(whole, include_usage=False) or ())), whole)


def test_chunks() -> None:
    """Names that a chunk leaves empty are those of the others, filters tell their last, choices are in order."""
    safe, low = ({"hate": {"severity": severity}} for severity in ("safe", "low"))
    first_chunk = {"id": "", "created": 0, "model": "", "object": "", "prompt_filter_results": [{"prompt_index": 0}]}
    whole = put_together(
        stream(
            {**first_chunk, "choices": []},
            {**NAMES, "object": "chat.completion.chunk", "choices": delta(1, "stop", content="b"), "obfuscation": "x"},
            {**NAMES, "choices": [{"index": 0, "text_offset": 1, "content_filter_results": safe}]},
            {"prompt_filter_results": [{"prompt_index": 0, "content_filter_results": safe}]},
            {"id": "", "prompt_filter_results": [{"prompt_index": 1}], "choices": delta(0, "length", content="a")},
            {"choices": [{"index": 0, "content_filter_results": {**low, "b": 1}}], "usage": {"a": 1}},
            {"service_tier": "default", "choices": None, "usage": USAGE},
        )
    )

    first, second = whole.pop("choices")
    assert whole == {
        **NAMES,
        "object": "chat.completion",
        "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": safe}, {"prompt_index": 1}],
        "service_tier": "default",
        "usage": USAGE,
    }
    results = {"hate": {"severity": "low"}, "b": 1}
    assert first == {
        "content_filter_results": results,
        "finish_reason": "length",
        "index": 0,
        "message": {"content": "a"},
        "text_offset": 1,
    }
    assert second == {"finish_reason": "stop", "index": 1, "message": {"content": "b"}}


def test_logprobs_in_chunks() -> None:
    """Log probabilities go on, of whatever tokens: one that is called "index" is no index."""
    told = [{"index": 0, "text": "a", "logprobs": {"top_logprobs": [{"index": number}]}} for number in (0, 0)]
    whole = put_together(stream(*([choice] for choice in told)))

    assert whole["choices"][0]["logprobs"] == {"top_logprobs": [{"index": 0}, {"index": 0}]}
    assert whole["choices"][0]["text"] == "aa"


@pytest.mark.parametrize(
    "events",
    [
        pytest.param(stream(), id="nothing"),
        pytest.param(stream(delta(content="a"), end=b""), id="no-end"),
        pytest.param(stream([]), id="no-choices"),
        pytest.param(stream({"choices": {"index": 0}}), id="strange-choices"),
        pytest.param(stream([None]), id="null-choice"),
        pytest.param(stream([{"delta": {"content": "a"}}]), id="no-index"),
        pytest.param(stream([{"index": 0, "delta": "a"}]), id="strange-delta"),
        pytest.param(stream([{"index": 0, "message": {"content": "a"}, "delta": {}}]), id="message"),
        pytest.param(stream([{"index": 0, "finish_reason": "stop"}]), id="neither-chat-nor-text"),
        pytest.param(stream([{"index": 0, "delta": {}, "text": "a"}]), id="chat-and-text"),
        pytest.param(stream({"object": "thing", "choices": STOP}), id="object"),
        pytest.param(stream({"object": "text_completion", "choices": STOP}), id="other-object"),
        pytest.param(stream(STOP, {"error": {"code": "429"}}), id="error"),
        pytest.param(stream(delta(role="assistant"), delta(role="user"), STOP), id="two-roles"),
        pytest.param(stream(delta(content="a"), delta(content=["b"]), STOP), id="text-and-list"),
        pytest.param(stream(delta(content=1), delta(content="b"), STOP), id="number-and-text"),
        pytest.param(stream(delta(content={}), delta(content=1), STOP), id="object-and-number"),
        pytest.param(stream(delta(tool_calls=[{"id": "a"}]), STOP), id="call-without-index"),
        pytest.param(stream(delta(tool_calls={"index": 0}), STOP), id="strange-calls"),
        pytest.param(stream(delta(tool_calls=[{"index": 0, "id": "a"}]), delta(tool_calls=[{"index": 0, "id": "b"}])),
                     id="two-ids"),
        pytest.param(stream([{"index": 0, "delta": {}, "mood": "a"}], [{"index": 0, "mood": "b"}]), id="two-moods"),
        pytest.param(b"data: 1\n\n" + END, id="number"),
        pytest.param(b'data: {"choices":' + b"[" * 100_000 + b"\n\n" + END, id="deep"),
    ],
)  # fmt: skip
def test_not_put_together(events: bytes) -> None:
    """A stream without its end, of another kind, with an error, or that can be meant in two ways, is no answer."""
    assert assembled(events) is None


texts = st.text(st.sampled_from('ab  \n\t"\\/é€\u0301\u200d😀👩\ud83d\ude00\0'), max_size=12)
texts_of_words = st.builds(lambda text, times: text * times, texts, st.integers(0, 30))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**70) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["a", "id", "index", "name", "type", "content", "logprobs"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
calls = st.builds(
    lambda name, arguments, extra: (
        {"id": name, "type": "function", "function": {"name": name, "arguments": arguments}} | extra
    ),
    texts,
    texts_of_words,
    st.dictionaries(st.sampled_from(["a", "type"]), values, max_size=1),
)
messages = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.none() | texts_of_words},
    optional={
        "refusal": st.none() | texts_of_words,
        "tool_calls": st.none() | st.lists(calls, max_size=3),
        "function_call": st.none() | st.fixed_dictionaries({"name": texts, "arguments": texts_of_words}),
        "annotations": st.lists(values, max_size=2),
        "context": values,
        "reasoning": texts,
    },
)
tokens = st.lists(st.fixed_dictionaries({"token": texts, "logprob": st.floats(-9, 0)}), max_size=4)


def with_tokens(choice: dict[str, Any], found: list[dict[str, Any]], are_its_text: bool) -> dict[str, Any]:
    """A choice with the log probabilities of tokens, which may be its text."""
    if are_its_text:
        choice["message"]["content"] = "".join(token["token"] for token in found)
    return {**choice, "logprobs": {"content": found, "refusal": None}}


choices = st.fixed_dictionaries(
    {"finish_reason": st.sampled_from(["stop", "tool_calls"]), "message": messages},
    optional={
        "logprobs": st.none(),
        "content_filter_results": st.sampled_from([SAFE, {}, None]),
        "other": values,
    },
)
choices |= st.builds(with_tokens, choices, tokens, st.booleans())
wholes = st.builds(
    lambda of, members: answer(*of, **members),
    st.lists(choices, min_size=1, max_size=3),
    st.fixed_dictionaries({}, optional={"prompt_filter_results": st.lists(values, max_size=2), "tier": values}),
)


@given(wholes)
@settings(max_examples=60, deadline=None)
def test_any_answer(whole: dict[str, Any]) -> None:
    """The events of any answer, whatever its texts and calls, stand for that answer."""
    events = replayed(whole)

    assert events is not None
    again = put_together(b"".join(events))
    assert same(again, json.loads(json.dumps(whole)))
    assert replayed(again) == replayed(json.loads(json.dumps(whole)))
    assert all(event.decode().count("\n") == 2 for event in events)


@given(
    st.dictionaries(st.sampled_from(["id", "object", "error", "prompt_filter_results", "a"]), values, max_size=2),
    st.lists(
        st.dictionaries(
            st.sampled_from(["index", "finish_reason", "logprobs", "content_filter_results", "text", "delta", "a"]),
            values,
            max_size=3,
        ),
        min_size=1,
        max_size=2,
    ),
    st.dictionaries(
        st.sampled_from(["role", "content", "refusal", "tool_calls", "function_call", "name", "index", "a"]),
        values,
        max_size=3,
    ),
    st.sampled_from([answer, completion]),
)
@settings(max_examples=100, deadline=None)
def test_any_shape(members: dict[str, Any], of: Any, said: dict[str, Any], kind: Any) -> None:
    """An answer of any shape has events that stand for it, or none at all."""
    given_message = message(**said) if kind is answer else {}
    whole = json.loads(json.dumps(kind(*({**given_message, **choice} for choice in of), **members)))
    events = replayed(whole)

    if events is not None:
        assert same(put_together(b"".join(events)), whole)


def told(choice: dict[str, Any], cuts: list[int]) -> Iterator[list[dict[str, Any]]]:
    """A choice's deltas, as another upstream might tell them: its texts cut at these places."""
    index, said = choice["index"], choice["message"]
    yield delta(index, **{name: None if name in CUT and value else value for name, value in said.items()})
    for name in ("content", "refusal"):
        text = said.get(name) or ""
        places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
        yield from (delta(index, **{name: text[start:end]}) for start, end in pairwise(places))
    for number, call in enumerate(said.get("tool_calls") or ()):
        arguments = call["function"]["arguments"]
        places = sorted({0, len(arguments), *(cut % (len(arguments) + 1) for cut in cuts)})
        yield delta(index, tool_calls=[{**call, "function": {**call["function"], "arguments": ""}, "index": number}])
        for start, end in pairwise(places):
            yield delta(index, tool_calls=[{"index": number, "function": {"arguments": arguments[start:end]}}])
    yield delta(index, choice["finish_reason"])


CUT = ("content", "refusal", "tool_calls")


@given(st.lists(choices, min_size=1, max_size=3), st.lists(st.integers(0, 99), max_size=5), st.randoms())
@settings(max_examples=60, deadline=None)
def test_any_cuts(of: list[dict[str, Any]], cuts: list[int], random: Any) -> None:
    """However the texts are cut, and the choices' chunks mixed, the stream stands for the same answer."""
    whole = [
        {"index": index, "finish_reason": choice["finish_reason"], "message": choice["message"]}
        for index, choice in enumerate(of)
    ]
    turns = [list(told(choice, cuts)) for choice in whole]
    mixed = []
    while any(turns):
        mixed.append(random.choice([turn for turn in turns if turn]).pop(0))

    expected = {"choices": whole, "object": "chat.completion"}
    assert same(put_together(stream(*mixed)), json.loads(json.dumps(expected)))


@given(
    st.lists(
        st.lists(
            st.fixed_dictionaries(
                {"index": st.integers(0, 1)},
                optional={
                    "delta": st.dictionaries(
                        st.sampled_from(["role", "content", "tool_calls", "function_call", "a"]), values, max_size=2
                    ),
                    "logprobs": values,
                    "content_filter_results": values,
                    "finish_reason": st.sampled_from([None, "stop"]),
                    "b": values,
                },
            ),
            max_size=2,
        ),
        max_size=4,
    ),
    st.dictionaries(st.sampled_from(["id", "created", "prompt_filter_results", "a", "usage"]), values, max_size=2),
)
@settings(max_examples=100, deadline=None)
def test_any_stream(said: list[Any], members: dict[str, Any]) -> None:
    """A stream of any chunks stands for no answer, or for one whose events stand for it again."""
    whole = put_together(stream(*({**members, "choices": one} for one in said)))

    if whole is not None:
        events = replayed(whole, include_usage="usage" in whole)
        assert events is not None
        assert same(put_together(b"".join(events)), whole)


@given(st.binary(max_size=60))
@settings(deadline=None)
def test_any_bytes(raw: bytes) -> None:
    """No bytes at all raise anything."""
    assembled(raw + END)
    as_events(raw, include_usage=True)
    with_usage(raw + b'"usage"' + raw)
