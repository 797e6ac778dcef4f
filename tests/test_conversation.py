"""Exchanges into records: what stands in them, what `meta` leaves out, and that no bytes raise."""

import json
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chat_api.conversation import bare_record, line_of, record_of
from chat_api.emulator.answers import SAFE, Answer
from chat_api.emulator.responses import Response
from chat_api.exchanges import Exchange
from tests.conversations import CHAT, an_exchange, encoded, stream_of, written

WHOLE = Answer(CHAT, "d").whole()
STREAM = stream_of(Answer({**CHAT, "stream_options": {"include_usage": True}}, "d").chunks())
SECRET = "Sesame"


def test_record_of_a_chat() -> None:
    """Every member is there, in its order, and what came is as it came."""
    record = written(an_exchange(WHOLE, first_byte_seconds=0.4, cache="miss"))

    assert record == {
        "time": "2026-11-21T10:00:00.123Z",
        "request_id": "r-1",
        "key": "alice",
        "address": "127.0.0.1",
        "path": "/v1/chat/completions",
        "operation": "chat/completions",
        "model": "gpt-4o",
        "deployment": "gpt-4o@host",
        "status": 200,
        "stream": False,
        "parameters": {"temperature": 0.2, "user": "u-1"},
        "messages": CHAT["messages"],
        "answer": {"choices": WHOLE["choices"], "prompt_filter_results": WHOLE["prompt_filter_results"]},
        "usage": WHOLE["usage"],
        "timings": {"seconds": 1.25, "first_byte_seconds": 0.4},
        "attempts": 1,
        "cache": "miss",
        "ended": "complete",
    }
    assert list(record)[-6:] == ["answer", "usage", "timings", "attempts", "cache", "ended"]


def test_absent_members_are_left_out() -> None:
    """Nobody's key, no deployment, no answer: the record says nothing of them."""
    more = {"key": "", "address": "", "model": "", "deployment": "", "status": 0, "attempts": 0, "ended": "refused"}
    record = written(an_exchange(request=b"", error_code="no_room", error="Full.", **more))

    assert list(record) == [
        "time",
        "request_id",
        "path",
        "operation",
        "stream",
        "timings",
        "attempts",
        "ended",
        "error",
    ]
    assert record["error"] == {"code": "no_room", "message": "Full."}


def test_record_of_a_stream() -> None:
    """A stream's record has the texts put together, the reason, the filters and the usage."""
    record = written(an_exchange(STREAM, is_stream=True))
    message = WHOLE["choices"][0]["message"]

    assert record["stream"] is True
    assert record["answer"]["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": message["content"]},
            "finish_reason": "stop",
            "content_filter_results": SAFE,
        }
    ]
    assert record["usage"] == WHOLE["usage"]


def test_stream_that_broke_tells_why() -> None:
    """What was said so far, and the reason of the upstream, or ours where there is one."""
    broken = STREAM[:-400] + b'\n\ndata: {"error":{"code":"429","message":"exceeded"}}\n\n'
    record = written(an_exchange(broken, is_stream=True, ended="broken"))
    ours = written(an_exchange(broken, is_stream=True, ended="broken", error_code="stream_broken", error="It broke."))

    assert record["answer"]["choices"][0]["message"]["content"].startswith("You said")
    assert record["error"] == record["answer"]["error"] == {"code": "429", "message": "exceeded"}
    assert ours["error"] == {"code": "stream_broken", "message": "It broke."}


def test_record_of_a_legacy_completion() -> None:
    """It has the prompt, and choices with texts."""
    request = {"model": "m", "prompt": ["a", "b"], "suffix": "c"}
    record = written(an_exchange({"choices": [{"text": "x"}]}, request, operation="completions"))

    assert (record["prompt"], record["parameters"]) == (["a", "b"], {"suffix": "c"})
    assert record["answer"] == {"choices": [{"text": "x"}]}


@pytest.mark.parametrize("is_stream", [False, True])
def test_record_of_a_response(is_stream: bool) -> None:
    """It has the input, the instructions, the output and its text, in a stream and otherwise."""
    request = {"model": "m", "input": "hello", "instructions": "be kind", "stream": is_stream, "store": False}
    response = Response(request, "d")
    answer = stream_of(response.events(), is_named=True) if is_stream else response.whole()
    record = written(an_exchange(answer, request, operation="responses", is_stream=is_stream))

    assert (record["input"], record["instructions"], record["parameters"]) == ("hello", "be kind", {"store": False})
    assert record["answer"]["output"] == response.whole()["output"]
    assert record["answer"]["output_text"].startswith("You said")
    assert (record["answer"]["status"], record["usage"]) == ("completed", response.whole()["usage"])


def test_error_that_says_what_the_filter_found_keeps_it() -> None:
    """What was refused has the upstream's error in its answer; of `meta` only what the filter found."""
    found = {"violence": {"filtered": True, "severity": "medium"}}
    error = {"code": "content_filter", "message": SECRET, "innererror": {"content_filter_result": found, "x": SECRET}}
    exchange = an_exchange({"error": error}, status=400, error_code="content_filter", error="Refused.")

    assert written(exchange)["answer"] == {"error": error}
    exchange.has_words = False
    assert written(exchange)["answer"] == {"error": {"innererror": {"content_filter_result": found}}}
    assert written(exchange)["error"] == {"code": "content_filter"}


PARAMETERS = {
    "temperature": 0.5,
    "n": 2,
    "seed": 7,
    "logprobs": True,
    "top_p": None,
    "max_completion_tokens": 5,
    "reasoning_effort": "low",
    "tool_choice": "auto",
    "service_tier": "default",
}
WORDS = {
    "messages": [{"role": "user", "content": SECRET}],
    "prompt": SECRET,
    "input": SECRET,
    "instructions": SECRET,
    "tools": [{"type": "function", "function": {"name": SECRET, "description": SECRET}}],
    "response_format": {"type": "json_schema", "json_schema": {"name": SECRET}},
    "stop": [SECRET],
    "user": SECRET,
    "metadata": {SECRET: "1"},
    "verbosity": SECRET,
    "max_tokens": {SECRET: 1},
    SECRET: 1,
}
FOUND = {
    "hate": {"filtered": False, "severity": "safe", "id": SECRET},
    "jailbreak": {"detected": True, "severity": SECRET},
}
TOLD = {
    "choices": [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "message": {"content": SECRET, "refusal": SECRET, "tool_calls": [{"function": {"arguments": SECRET}}]},
            "text": SECRET,
            "logprobs": {"content": [{"token": SECRET}]},
            "content_filter_results": FOUND,
        },
        {"index": 1, "finish_reason": SECRET, "content_filter_results": SECRET},
        SECRET,
    ],
    "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": FOUND}, SECRET],
    "usage": {"total_tokens": 3, "completion_tokens_details": {"reasoning_tokens": 1, "x": SECRET}, "y": SECRET},
    "output": [{"type": "message", "content": [{"type": "output_text", "text": SECRET}]}],
    "output_text": SECRET,
    "status": "incomplete",
    "incomplete_details": {"reason": "max_output_tokens", "x": SECRET},
    "content_filters": [{"blocked": SECRET}],
}


@pytest.mark.parametrize("operation", ["chat/completions", "completions", "responses"])
@pytest.mark.parametrize("is_stream", [False, True])
def test_meta_has_no_word(operation: str, is_stream: bool) -> None:
    """Whatever was asked and answered in whichever member, none of it is in the record of facts."""
    told = {"type": "response.completed", "response": TOLD} if operation == "responses" else TOLD
    answer = stream_of([told], is_named=operation == "responses") if is_stream else TOLD
    more = {"operation": operation, "is_stream": is_stream, "error_code": "a", "error": SECRET}
    exchange = an_exchange(answer, {**PARAMETERS, **WORDS}, has_words=False, **more)
    record = written(exchange)

    assert SECRET not in json.dumps(record)
    assert record["parameters"] == PARAMETERS
    assert record["usage"] == {"total_tokens": 3, "completion_tokens_details": {"reasoning_tokens": 1}}
    if operation == "responses":
        assert record["answer"] == {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    else:
        filters = {"hate": {"filtered": False, "severity": "safe"}, "jailbreak": {"detected": True}}
        assert record["answer"]["prompt_filter_results"][0] == {"prompt_index": 0, "content_filter_results": filters}
        first = {"index": 0, "finish_reason": "tool_calls", "content_filter_results": filters}
        assert record["answer"]["choices"][0] == first


def test_what_cannot_be_read_is_told_by_its_size() -> None:
    """A request that is no object, and an answer that was cut, are so many bytes; in `meta` as well."""
    for has_words in (True, False):
        record = written(an_exchange(b'{"choices":[', b"[1]", has_words=has_words))
        assert (record["parameters"], record["answer"]) == ({"unreadable_bytes": 3}, {"unreadable_bytes": 12})


def test_lines_between_members_are_taken_out() -> None:
    """JSON that came in lines is one line in the log, and says the same."""
    pretty = json.dumps(CHAT, indent=2).replace("\n", "\r\n").encode()
    record = written(an_exchange(json.dumps(WHOLE, indent=1).encode(), pretty))

    assert (record["messages"], record["answer"]["choices"]) == (CHAT["messages"], WHOLE["choices"])


def test_letters_that_are_none_are_replaced() -> None:
    """Bytes that are no UTF-8 do not make the line unreadable."""
    assert written(an_exchange(request=b'{"messages":"\xff"}'))["messages"] == "\ufffd"


def test_record_that_cannot_be_written_is_bare() -> None:
    """A text that is no Unicode, or what nests too deeply for a line, leaves who called and how it ended."""
    exchange = an_exchange(WHOLE, error_code="a", error="\ud800")

    assert written(exchange) == json.loads(msgspec.json.encode(bare_record(exchange)))
    assert written(exchange)["parameters"] == {"unreadable_bytes": len(exchange.request)}
    assert written(exchange)["answer"] == {"unreadable_bytes": len(exchange.answer[0])}
    assert SECRET not in str(bare_record(an_exchange(b"", {"messages": SECRET})))


def test_images_are_told_by_their_size() -> None:
    """What a record has of an image in a message is its type and how long it was."""
    url = "data:image/png;base64," + "iVBORw0KGgo=" * 300
    request = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}
    (message,) = written(an_exchange(WHOLE, request))["messages"]

    assert message["content"][0]["image_url"] == {"url": "data:image/png;base64,… (3600 characters)"}


def test_nothing_is_decoded_that_can_stay_as_it_came() -> None:
    """Messages and choices are the bytes that came."""
    record = record_of(an_exchange(WHOLE))

    assert bytes(record["messages"]) == encoded(CHAT["messages"])
    assert bytes(record["answer"]["choices"]) == encoded(WHOLE["choices"])


@given(st.data())
def test_pieces_of_an_answer_may_be_any(data: st.DataObject) -> None:
    """However an answer came in pieces, its record is the same."""
    for answer, is_stream in ((STREAM, True), (encoded(WHOLE), False)):
        cuts = sorted(data.draw(st.lists(st.integers(0, len(answer)), max_size=8)))
        pieces = [answer[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
        assert written(an_exchange(pieces, is_stream=is_stream)) == written(an_exchange(answer, is_stream=is_stream))


MEMBERS = st.sampled_from(["choices", "delta", "messages", "usage", "error", "output"])
BYTES = (
    st.binary(max_size=60)
    | st.sampled_from(
        [
            *(b"", b"{}", b"[]", b"null", b"\xff", b'{"a":' * 900 + b"1" + b"}" * 900, b"[" * 5000, b'{"\xff":1}'),
            *(b'{"choices":' + b"[" * 700 + b"]" * 700 + b"}", b'{"messages":\r' + b"[" * 990 + b"]" * 990 + b"}"),
            *(b'{"messages":"\\ud800"}', b'{"choices":"a","usage":[],"error":"x"}', b'{"output":[1],"status":[]}'),
            *(b'{"temperature":1e999,"n":"\xff"}', b'{"prompt_filter_results":{},"choices":{"a":null}}'),
            *(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n', STREAM, STREAM[:700], struct.pack("d", 1.5)),
        ]
    )
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["choices", "delta", "messages", "usage", "error", "output"]), inner, max_size=3
            )
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode())
)


@given(BYTES, st.lists(BYTES, max_size=3), st.booleans(), st.booleans(), st.sampled_from(["responses", "completions"]))
@example(b'{"temperature":1e999}', [b'{"choices":1}'], False, False, "completions")
def test_no_bytes_raise(request: bytes, answer: list[bytes], has_words: bool, is_stream: bool, operation: str) -> None:
    """Whatever was asked and answered, there is a record, in one line of JSON."""
    exchange = Exchange(
        at=0.0,
        request_id="r",
        key="k",
        address="",
        path="/",
        model="m",
        request=request,
        answer=answer,
        has_words=has_words,
        is_stream=is_stream,
        operation=operation,
    )
    line = line_of(exchange)
    assert b"\n" not in line
    record: Any = json.loads(line.decode())
    assert (record["time"], record["key"]) == ("1970-01-01T00:00:00.000Z", "k")
