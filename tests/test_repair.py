"""Event streams on their way to the client: which bytes go on, how the end is repaired, and what is no end."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chat_api.errors import UpstreamError, UpstreamRefusal
from chat_api.repair import EventRepair
from chat_api.sse import EventDecoder

CHAT = "chat/completions"
END = b"data: [DONE]\n\n"
FILTER = b'data: {"choices":[],"prompt_filter_results":[{"prompt_index":0}]}\n\n'
TEXT = 'data: {"choices":[{"index":0,"delta":{"content":"Hé€😀"},"finish_reason":null}]}\n\n'.encode()
QUOTED = b'data: {"choices":[{"index":0,"delta":{"content":"an \\"error\\", no [DONE]"},"finish_reason":null}]}\n\n'
SECOND = b'data: {"choices":[{"index":1,"delta":{"content":"b"},"finish_reason":null}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
SECOND_STOP = b'data: {"choices":[{"index":1,"delta":{},"finish_reason":"length"}]}\n\n'
BOTH_STOP = b'data: {"choices":[{"index":0,"finish_reason":"stop"},{"index":1,"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"total_tokens":3}}\n\n'
ANNOTATION = (
    b'data: {"id":"","choices":[{"index":0,"finish_reason":null,"content_filter_offsets":{}}],"usage":null}\n\n'
)
NULL_ERROR = b'data: {"error":null,"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
ERROR = b'data: {"error":{"code":"429","message":"exceeded"}}\n\n'
PING = b": ping\n\n"

CREATED = b'event: response.created\ndata: {"type":"response.created","response":{"error":null}}\n\n'
DELTA = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"H"}\n\n'
COMPLETED = b'event: response.completed\ndata: {"type":"response.completed","response":{"error":null}}\n\n'


def crlf(raw: bytes) -> bytes:
    """The stream with CRLF for its line ends."""
    return raw.replace(b"\n", b"\r\n")


def passed(repair: EventRepair, *chunks: bytes) -> bytes:
    """What goes on of a stream that came in these chunks and ended then."""
    out = []
    for chunk in chunks:
        out.append(repair.feed(chunk))
        if repair.done or repair.error is not None:
            break
    return b"".join([*out, repair.finish()])


def repaired(raw: bytes, operation: str = CHAT, choices: int = 1) -> tuple[bytes, str | None]:
    """What goes on of a stream, and the code of its error; "" is an error without one."""
    repair = EventRepair(operation, choices)
    out = passed(repair, raw)
    return out, (repair.error.code or "") if repair.error else None


WHOLE = [
    pytest.param(TEXT + STOP + END, id="ordinary"),
    pytest.param(FILTER + TEXT + ANNOTATION + STOP + USAGE + END, id="azure"),
    pytest.param(TEXT + STOP + ANNOTATION + END, id="annotation-after-the-finish"),
    pytest.param(TEXT + END, id="done-without-a-finish-reason"),
    pytest.param(END, id="only-done"),
    pytest.param(PING + TEXT + PING + STOP + PING + END, id="comments"),
    pytest.param(b": a\n: b\nid: 7\nretry: 10\n" + TEXT + STOP + END, id="other-fields"),
    pytest.param(QUOTED + STOP + END, id="words-in-a-text"),
    pytest.param(NULL_ERROR + STOP + END, id="null-error"),
    pytest.param(crlf(TEXT + STOP + END), id="crlf"),
    pytest.param(crlf(TEXT) + STOP + crlf(END), id="mixed"),
    pytest.param(
        TEXT.replace(b"data: ", b"data:") + STOP.replace(b"data: ", b"data:") + b"data:[DONE]\n\n", id="tight"
    ),
    pytest.param(b'data: {"choices":\ndata: []}\n\n' + STOP + END, id="data-in-two-lines"),
]


@pytest.mark.parametrize("raw", WHOLE)
def test_whole_stream(raw: bytes) -> None:
    """A stream that is well-formed and complete goes on with every byte it has."""
    assert repaired(raw) == (raw, None)


@pytest.mark.parametrize("raw", WHOLE)
def test_event_is_not_kept(raw: bytes) -> None:
    """Every event of LF or CRLF goes on out of the chunk that completes it, the very bytes that came."""
    repair = EventRepair(CHAT)
    for event in [part + b"\n\n" for part in raw.split(b"\n\n")[:-1]]:
        assert repair.feed(event) == event


REPAIRED = [
    pytest.param(TEXT + STOP + b"data: [DONE]", TEXT + STOP + END, id="done-without-line-ends"),
    pytest.param(TEXT + STOP + b"data: [DONE]\n", TEXT + STOP + END, id="done-without-a-blank-line"),
    pytest.param(TEXT + STOP + b"data: [DONE]\r\n", TEXT + STOP + END, id="done-with-one-crlf"),
    pytest.param(TEXT + STOP + b"data: [DONE]\r\n\r", TEXT + STOP + END, id="done-with-half-a-crlf"),
    pytest.param(TEXT + STOP + b"data: [DONE]\r", TEXT + STOP + END, id="done-with-one-cr"),
    pytest.param(TEXT + STOP + b"data: [DONE] \n\n", TEXT + STOP + END, id="done-with-a-space"),
    pytest.param(TEXT + STOP + b"data:  [DONE]\t\r\n\r\n", TEXT + STOP + END, id="done-among-spaces-crlf"),
    pytest.param(TEXT + STOP + b"data: [DONE] ", TEXT + STOP + END, id="done-with-a-space-and-no-line-end"),
    pytest.param(TEXT + STOP + END + b" ", TEXT + STOP + END, id="space-after-the-end"),
    pytest.param(TEXT + STOP + END + b"\n\n\n", TEXT + STOP + END, id="blank-lines-after-the-end"),
    pytest.param(TEXT + STOP + END + TEXT + ERROR + END, TEXT + STOP + END, id="more-after-the-end"),
    pytest.param(TEXT + STOP, TEXT + STOP + END, id="no-done"),
    pytest.param(TEXT + STOP + USAGE, TEXT + STOP + USAGE + END, id="no-done-after-usage"),
    pytest.param(TEXT + STOP.rstrip(), TEXT + STOP + END, id="no-line-end-and-no-done"),
    pytest.param(crlf(TEXT) + crlf(STOP).rstrip(), crlf(TEXT) + STOP + END, id="no-line-end-and-no-done-crlf"),
    pytest.param(TEXT + STOP + USAGE[:-2], TEXT + STOP + USAGE + END, id="usage-without-line-end"),
    pytest.param(TEXT + STOP + PING, TEXT + STOP + PING + END, id="ping-last"),
    pytest.param(TEXT + STOP + b": pi", TEXT + STOP + END, id="half-a-ping-last"),
    pytest.param(b"\xef\xbb\xbf" + TEXT + STOP + END, TEXT + STOP + END, id="bom"),
    pytest.param(b"\xef\xbb\xbf" + STOP[:-2], STOP + END, id="bom-and-no-end"),
]


@pytest.mark.parametrize(("raw", "expected"), REPAIRED)
def test_repaired_end(raw: bytes, expected: bytes) -> None:
    """What is wrong with a stream's form only is put right: every client finds its end, and nothing after it."""
    assert repaired(raw) == (expected, None)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param(b"", b"", id="nothing"),
        pytest.param(PING, PING, id="only-a-ping"),
        pytest.param(FILTER, FILTER, id="only-the-prompt-filter"),
        pytest.param(FILTER + TEXT, FILTER + TEXT, id="no-finish"),
        pytest.param(TEXT + TEXT[:-2], TEXT + TEXT, id="no-finish-and-no-line-end"),
        pytest.param(TEXT + TEXT[:30], TEXT, id="half-an-event"),
        pytest.param(TEXT + STOP[:-5], TEXT, id="half-the-finish"),
        pytest.param(TEXT + b"data: [DON", TEXT, id="half-of-done"),
        pytest.param(TEXT + STOP + b"data: [DO", TEXT + STOP, id="half-of-done-after-the-finish"),
        pytest.param(TEXT + STOP + USAGE[:20], TEXT + STOP, id="half-of-usage-after-the-finish"),
        pytest.param(TEXT + b"data", TEXT, id="half-a-field"),
        pytest.param(TEXT + b"da", TEXT, id="half-a-name"),
        pytest.param(crlf(TEXT + TEXT[:40]), crlf(TEXT), id="half-an-event-crlf"),
    ],
)
def test_cut_short(raw: bytes, expected: bytes) -> None:
    """A stream that ends before its answer does is an error, and no piece of an event goes on."""
    assert repaired(raw) == (expected, "answer_cut_short")


@pytest.mark.parametrize(
    ("raw", "choices", "complete"),
    [
        pytest.param(TEXT + STOP, 1, True, id="one"),
        pytest.param(TEXT + SECOND + STOP, 2, False, id="one-of-two"),
        pytest.param(TEXT + SECOND + SECOND_STOP, 2, False, id="the-other-of-two"),
        pytest.param(TEXT + SECOND + SECOND_STOP + STOP, 2, True, id="two"),
        pytest.param(TEXT + BOTH_STOP, 2, True, id="two-at-once"),
        pytest.param(TEXT + STOP + STOP, 2, False, id="one-twice"),
        pytest.param(TEXT + STOP + SECOND_STOP, 3, False, id="two-of-three"),
        pytest.param(TEXT + STOP + SECOND_STOP, 1_000_000_000, False, id="countless"),
    ],
)
def test_every_choice_ends(raw: bytes, choices: int, complete: bool) -> None:
    """Without [DONE] a stream is complete once each of the answers that were asked for has said why it ends."""
    out, error = repaired(raw, choices=choices)
    assert (out, error) == ((raw + END, None) if complete else (raw, "answer_cut_short"))


@pytest.mark.parametrize(
    ("operation", "raw", "expected", "error"),
    [
        pytest.param("completions", STOP, STOP + END, None, id="completions"),
        pytest.param("extensions/chat/completions", STOP, STOP + END, None, id="extensions"),
        pytest.param("responses", CREATED + DELTA + COMPLETED, CREATED + DELTA + COMPLETED, None, id="completed"),
        pytest.param("responses", CREATED + COMPLETED[:-2], CREATED + COMPLETED, None, id="completed-no-line-end"),
        pytest.param("responses", crlf(CREATED + COMPLETED), crlf(CREATED + COMPLETED), None, id="completed-crlf"),
        pytest.param(
            "responses", CREATED + COMPLETED + PING, CREATED + COMPLETED + PING, None, id="ping-after-completed"
        ),
        pytest.param(
            "responses", CREATED + COMPLETED + DELTA[:40], CREATED + COMPLETED, None, id="piece-after-completed"
        ),
        pytest.param(
            "responses", CREATED + COMPLETED[26:], CREATED + COMPLETED[26:], None, id="completed-without-a-name"
        ),
        pytest.param("responses/resp_1", CREATED + COMPLETED, CREATED + COMPLETED, None, id="stored"),
        pytest.param("responses", CREATED + DELTA, CREATED + DELTA, "answer_cut_short", id="no-terminal-event"),
        pytest.param("responses", CREATED + DELTA[:40], CREATED, "answer_cut_short", id="half-an-event"),
        pytest.param("responses", CREATED + END, CREATED + END, None, id="done"),
        pytest.param("responses", STOP, STOP, "answer_cut_short", id="finish-reasons-end-no-response"),
        pytest.param("images/generations", DELTA, DELTA, None, id="images"),
        pytest.param("images/generations", DELTA + DELTA[:-2], DELTA + DELTA, None, id="images-no-line-end"),
        pytest.param("images/generations", DELTA + DELTA[:40], DELTA, "answer_cut_short", id="images-half-an-event"),
        pytest.param("audio/transcriptions", DELTA + END, DELTA + END, None, id="audio-done"),
        pytest.param("threads/t/runs", b"event: done\n" + END, b"event: done\n" + END, None, id="run-done"),
        pytest.param("threads/t/runs", b"", b"", None, id="run-nothing"),
    ],
)
def test_end_of_each_operation(operation: str, raw: bytes, expected: bytes, error: str | None) -> None:
    """A chat ends with [DONE], a response with an event that says so; of any other stream the end is its end."""
    assert repaired(raw, operation) == (expected, error)


@pytest.mark.parametrize(
    "terminal", ["response.completed", "response.failed", "response.incomplete", "response.cancelled", "error"]
)
def test_terminal_events(terminal: str) -> None:
    """Each of the events that end a response goes on as it is, and is an end, by its name or by its type."""
    named = f'event: {terminal}\ndata: {{"message":"m"}}\n\n'.encode()
    typed = f'data: {{"type":"{terminal}","message":"m"}}\n\n'.encode()
    assert repaired(CREATED + named, "responses") == (CREATED + named, None)
    assert repaired(CREATED + typed, "responses") == (CREATED + typed, None)
    repair = EventRepair("responses")
    assert repair.feed(CREATED) == CREATED
    assert not repair.complete
    assert repair.feed(typed) == typed
    assert repair.complete


FAILED = b'event: response.failed\ndata: {"type":"response.failed","response":{"error":null}}\n\n'
WHY = b'event: error\ndata: {"type":"error","error":{"code":"rate_limit_exceeded","message":"m"}}\n\n'


@pytest.mark.parametrize("size", [1, 7, 1000], ids=["bytes", "sevens", "whole"])
def test_failed_response_says_why(size: int) -> None:
    """The event that says why a response failed goes on after the one that says that it did."""
    raw = CREATED + FAILED + WHY
    repair = EventRepair("responses")
    assert passed(repair, *[raw[start : start + size] for start in range(0, len(raw), size)]) == raw
    assert repair.error is None


def test_error_that_is_no_event_of_a_response() -> None:
    """An error without a type is none of the events that a response has: it breaks the stream."""
    repair = EventRepair("responses")
    assert passed(repair, CREATED + ERROR + DELTA) == CREATED
    assert repair.error is not None
    assert (repair.error.status, repair.error.message) == (429, "exceeded")


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        pytest.param(ERROR, 429, "exceeded", id="azure"),
        pytest.param(b'data: {"error":"busy"}\n\n', 502, "busy", id="text"),
        pytest.param(b'event: error\ndata: {"message":"m","code":"server_error"}\n\n', 500, "m", id="named"),
        pytest.param(b'event:error\ndata: {"message":"m"}\n\n', 502, "m", id="named-tight"),
        pytest.param(b'data: {"choices":[],"error":{"message":"m"}}\n\n', 502, "m", id="beside-choices"),
        pytest.param(crlf(ERROR), 429, "exceeded", id="crlf"),
        pytest.param(ERROR[:-2], 429, "exceeded", id="no-line-end"),
        pytest.param(b'data: {"error":true}\n\n', 502, "no chunk of an answer", id="no-description"),
    ],
)
@pytest.mark.parametrize("rest", [b"", TEXT + END], ids=["last", "more-after-it"])
@pytest.mark.parametrize("operation", [CHAT, "completions", "images/generations", "threads/t/runs"])
def test_error_event(operation: str, rest: bytes, error: bytes, status: int, message: str) -> None:
    """An error in the middle is kept with what it says, under its status; what came before it goes on."""
    if rest and not error.endswith(b"\n"):
        error += b"\n\n"
    repair = EventRepair(operation)
    assert passed(repair, TEXT + PING + error + rest) == TEXT + PING
    assert isinstance(repair.error, UpstreamError)
    assert repair.error.status == status
    assert message in repair.error.message
    assert (repair.done, repair.complete) == (False, False)


def test_error_after_the_finish() -> None:
    """An error makes a stream incomplete though every choice had ended."""
    repair = EventRepair(CHAT)
    assert passed(repair, STOP + ERROR) == STOP
    assert isinstance(repair.error, UpstreamRefusal)
    assert not repair.complete


def test_nothing_after_an_error() -> None:
    """Nothing goes on any more once an error came, in later chunks either."""
    repair = EventRepair(CHAT)
    assert repair.feed(TEXT + ERROR) == TEXT
    assert repair.feed(TEXT) == b""
    assert repair.finish() == b""


def test_nothing_after_the_end() -> None:
    """Nothing goes on any more after [DONE], in later chunks either."""
    repair = EventRepair(CHAT)
    assert repair.feed(TEXT + END) == TEXT + END
    assert repair.feed(TEXT + ERROR) == b""
    assert repair.finish() == b""
    assert (repair.done, repair.complete, repair.error) == (True, True, None)


@pytest.mark.parametrize(("raw", "complete"), [(TEXT, False), (TEXT + STOP, True), (TEXT + STOP + TEXT[:9], True)])
def test_complete(raw: bytes, complete: bool) -> None:
    """Whether the answer is there can be asked before the stream has ended: its connection may break then."""
    repair = EventRepair(CHAT)
    repair.feed(raw)
    assert repair.complete is complete


STREAMS = [*WHOLE, *[pytest.param(param.values[0], id=f"repaired-{param.id}") for param in REPAIRED]]


@pytest.mark.parametrize("raw", STREAMS)
def test_split_everywhere(raw: bytes) -> None:
    """A stream split in two, at any byte, gives the same bytes and the same verdict as unsplit."""
    expected = repaired(raw)
    for index in range(len(raw) + 1):
        repair = EventRepair(CHAT)
        assert (passed(repair, raw[:index], b"", raw[index:]), repair.error) == expected, index


@pytest.mark.parametrize("raw", STREAMS)
def test_byte_by_byte(raw: bytes) -> None:
    """A stream that comes one byte at a time gives the same bytes as at once."""
    repair = EventRepair(CHAT)
    assert passed(repair, *[raw[index : index + 1] for index in range(len(raw))]) == repaired(raw)[0]


def test_lone_cr_split_everywhere() -> None:
    """No byte of a stream whose line ends are CR alone is lost or changed, wherever it is split."""
    raw = (TEXT + PING + TEXT).replace(b"\n", b"\r")
    for index in range(len(raw) + 1):
        assert passed(EventRepair("images/generations"), raw[:index], raw[index:]) in (raw, raw[:-2] + b"\n\n"), index


def test_split_between_blank_lines() -> None:
    """More than one blank line between events goes on as it came, wherever it is split."""
    raw = STOP + b"\n" + USAGE + END
    outs = {passed(EventRepair(CHAT), raw[:index], raw[index:]) for index in range(len(raw) + 1)}
    assert outs == {raw}


def test_finish_reason_however_written() -> None:
    """A finish reason is one, however the JSON around it is spaced."""
    raw = b'data: { "choices" : [ { "index" : 0, "delta" : {}, "finish_reason" : "stop" } ] }\n\n'
    assert repaired(raw) == (raw + END, None)


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        pytest.param(TEXT + STOP + END, None, id="done"),
        pytest.param(TEXT + STOP, None, id="finished"),
        pytest.param(TEXT + ERROR + TEXT, "429", id="error"),
    ],
)
def test_lone_cr(raw: bytes, error: str | None) -> None:
    """A stream whose line ends are CR alone has the same end, and the same error, as with LF."""
    out, found = repaired(raw.replace(b"\n", b"\r"))
    assert found == error
    assert decoded(out) == decoded(repaired(raw)[0])


def test_no_json() -> None:
    """An event that is no JSON has the same effect however the stream is split."""
    raw = TEXT + b'data: {"content":"\\ud83d"}\n\n' + STOP + END
    outs = {passed(EventRepair(CHAT), raw[:index], raw[index:]) for index in range(len(raw) + 1)}
    assert len(outs) == 1


EVENTS = st.sampled_from([FILTER, TEXT, QUOTED, SECOND, ANNOTATION, USAGE, PING, NULL_ERROR, STOP, SECOND_STOP]) | (
    st.text(max_size=20).map(lambda text: b"data: " + msgspec.json.encode({"x": text}) + b"\n\n")
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """A stream, whole or cut, and its chunks."""
    events = draw(st.lists(EVENTS, max_size=8))
    raw = b"".join(draw(st.sampled_from([lambda event: event, crlf]))(event) for event in events)
    raw = draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + raw + draw(st.sampled_from([b"", END, crlf(END), ERROR]))
    raw = raw[: draw(st.integers(0, len(raw)) | st.just(len(raw)))]
    edges = [0, *sorted(draw(st.lists(st.integers(0, len(raw)), max_size=8))), len(raw)]
    return raw, [raw[start:end] for start, end in pairwise(edges)]


def decoded(raw: bytes) -> list[tuple[bytes, str]]:
    """The events of a stream, a last one without its blank line included."""
    decoder = EventDecoder()
    return [*decoder.feed(raw), *decoder.flush()]


@settings(max_examples=150, deadline=None)
@given(streams(), st.sampled_from([CHAT, "responses", "images/generations"]))
@example((TEXT + crlf(TEXT), [TEXT + crlf(TEXT)[:-1], b"\n"]), CHAT)
def test_split_property(stream: tuple[bytes, list[bytes]], operation: str) -> None:
    """However a stream is cut and split, the same goes on: whole events, those that came, in their order."""
    raw, chunks = stream
    whole, split = EventRepair(operation), EventRepair(operation)
    out = passed(whole, raw)
    assert passed(split, *chunks) == out
    assert (split.done, str(split.error)) == (whole.done, str(whole.error))
    assert out == b"" or out.endswith((b"\n\n", b"\r\n\r\n"))
    came, went = decoded(raw), decoded(out)
    if went and went[-1][0] == b"[DONE]" and went != came[: len(went)]:
        went.pop()
    assert went == came[: len(went)]


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40) | st.lists(st.sampled_from([b"data:", b"\r", b"\n", b"[DONE]", b"x"])).map(b"".join))
def test_any_bytes(raw: bytes) -> None:
    """Whatever comes, what goes on is no more than came but for line ends and [DONE], and nothing is raised."""
    repair = EventRepair(CHAT)
    out = passed(repair, raw)
    assert len(out) <= len(raw) + 2
    assert repair.done or repair.error is not None


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param([b"data: " + b"x" * 60], id="at-once"),
        pytest.param([b"data: "] + [b"x"] * 60, id="byte-by-byte"),
        pytest.param([TEXT[:20] + b"y" * 20, b"x" * 20], id="in-two"),
        pytest.param([b"data: x\n"] * 10, id="many-lines"),
        pytest.param([b"data: a\n\ndata: " + b"x" * 60], id="after-another"),
    ],
)
def test_large_event(monkeypatch: pytest.MonkeyPatch, chunks: list[bytes]) -> None:
    """An event that never ends does not fill the memory."""
    monkeypatch.setattr("chat_api.repair.MAX_EVENT_BYTES", 50)
    repair = EventRepair(CHAT)
    with pytest.raises(UpstreamError, match="larger than 50 bytes"):
        passed(repair, *chunks)


def test_limit_is_of_one_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long stream of small events is never refused, however it is split."""
    monkeypatch.setattr("chat_api.repair.MAX_EVENT_BYTES", 50)
    raw = b"data: 0123456789\n\n" * 50
    repair = EventRepair("images/generations")
    assert passed(repair, *[raw[start : start + 7] for start in range(0, len(raw), 7)]) == raw


def asked_for_usage(raw: bytes) -> bytes:
    """A chat's stream as it comes where it was asked for usage: in every chunk that is null."""
    return b"".join(
        part[:-1] + b',"usage":null}\n\n' if part.endswith(b"}") and b'"usage"' not in part else part + b"\n\n"
        for part in raw.split(b"\n\n")[:-1]
    )


NOT_ASKED = FILTER + TEXT + QUOTED + STOP
HIDDEN = [
    pytest.param(NOT_ASKED + USAGE + END, NOT_ASKED + END, id="ordinary"),
    pytest.param(NOT_ASKED + END, NOT_ASKED + END, id="server-that-does-not-tell"),
    pytest.param(NOT_ASKED + USAGE + USAGE + END, NOT_ASKED + END, id="twice"),
    pytest.param(USAGE + NOT_ASKED + END, NOT_ASKED + END, id="first"),
    pytest.param(NOT_ASKED + USAGE, NOT_ASKED + END, id="no-done"),
    pytest.param(NOT_ASKED + USAGE[:-2], NOT_ASKED + END, id="no-line-end"),
    pytest.param(PING + NOT_ASKED + PING + USAGE + PING + END, PING + NOT_ASKED + PING + PING + END, id="comments"),
    pytest.param(TEXT + STOP.replace(b"}]}", b'}],"usage":{"a":1}}') + END, None, id="with-the-finish"),
]


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
@pytest.mark.parametrize(("raw", "expected"), HIDDEN)
@pytest.mark.parametrize("crlf_ends", [False, True], ids=["lf", "crlf"])
def test_usage_is_hidden(raw: bytes, expected: bytes | None, size: int, crlf_ends: bool) -> None:
    """Who did not ask what a chat took gets the events that he would have got, whatever pieces they come in."""
    expected = raw if expected is None else expected
    came = asked_for_usage(raw) if raw.endswith(b"\n\n") else raw
    if crlf_ends:
        came, expected = crlf(came), crlf(expected)
        if not raw.endswith(END):
            expected = expected.removesuffix(crlf(END)) + END  # which is ours
    repair = EventRepair(CHAT, hides_usage=True)
    assert passed(repair, *[came[at : at + size] for at in range(0, len(came), size)]) == expected
    assert repair.error is None


@pytest.mark.parametrize("raw", WHOLE)
def test_nothing_else_is_hidden(raw: bytes) -> None:
    """A stream that tells no usage goes on with every byte it has, though there might have been some."""
    if b'"usage"' not in raw:
        assert passed(EventRepair(CHAT, hides_usage=True), raw) == raw


def test_usage_is_hidden_at_once() -> None:
    """Every event goes on out of the chunk that completes it, and of the usage nothing does."""
    repair = EventRepair(CHAT, hides_usage=True)
    came = [asked_for_usage(event) for event in (FILTER, TEXT, QUOTED, STOP)] + [USAGE, END]
    assert [repair.feed(event) for event in came] == [FILTER, TEXT, QUOTED, STOP, b"", END]


@pytest.mark.parametrize(
    ("operation", "hides", "raw"),
    [
        pytest.param(CHAT, False, TEXT + STOP + USAGE + END, id="asked"),
        pytest.param(CHAT, False, asked_for_usage(TEXT + STOP) + USAGE + END, id="asked-with-nulls"),
        pytest.param(
            "responses", True, CREATED + b'data: {"usage":{"a":1},"choices":[]}\n\n' + COMPLETED, id="response"
        ),
        pytest.param("images/generations", True, USAGE, id="picture"),
    ],
)
def test_usage_that_stays(operation: str, hides: bool, raw: bytes) -> None:
    """Who asked is told; and what other APIs tell in their streams belongs there."""
    assert passed(EventRepair(operation, hides_usage=hides), raw) == raw


def test_words_about_usage_stay() -> None:
    """What a model says of usage is a text, in which quotes are escaped, and goes on."""
    said = rb'data: {"choices":[{"index":0,"delta":{"content":",\"usage\":null and \"usage\":{}"}}]}' + b"\n\n"
    assert passed(EventRepair(CHAT, hides_usage=True), said + STOP + END) == said + STOP + END


def test_usage_is_hidden_from_strict_clients() -> None:
    """In compatibility mode as well."""
    repair = EventRepair(CHAT, compat=True, hides_usage=True)
    out = passed(repair, asked_for_usage(FILTER + TEXT + STOP) + USAGE + END)
    assert b"usage" not in out
    assert out.endswith(END)
    assert out.count(b"data:") == 3


def test_error_is_none_where_usage_is_hidden() -> None:
    """A stream that breaks is told to be broken, hidden or not."""
    repair = EventRepair(CHAT, hides_usage=True)
    assert passed(repair, asked_for_usage(TEXT), USAGE) == TEXT
    assert repair.error is not None
    assert repair.error.code == "answer_cut_short"
