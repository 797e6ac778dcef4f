"""The event decoder and the chat stream: the same events however the bytes are split, and when a stream is complete."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat_api import sse
from chat_api.errors import UpstreamError
from chat_api.sse import ChatStream, Event, EventDecoder, read_chunk, tells_usage_only

WIRE = Path(__file__).parents[2] / "shared" / "azure" / "wire"
CAPTURES = [
    # name, events before [DONE], characters of text, finish reason
    pytest.param("azure-stream-gpt41-2026-03.sse", 27, 104, "stop", id="gpt41"),
    pytest.param("azure-stream-gpt35-2025-08.sse", 516, 2158, "stop", id="gpt35"),
    pytest.param("azure-stream-gpt4o-2024-10.sse", 11, 31, "stop", id="gpt4o"),
    pytest.param("azure-stream-tools.sse", 13, 0, "tool_calls", id="tools"),
]
needs_captures = pytest.mark.skipif(not WIRE.is_dir(), reason=f"the captures are not there: {WIRE}")

AB = [Event(b"a"), Event(b"b")]
STREAMS = [
    pytest.param(b"", [], id="nothing"),
    pytest.param(b"\n\n\n", [], id="only-blank-lines"),
    pytest.param(b"data: a\n\ndata: b\n\n", AB, id="lf"),
    pytest.param(b"data: a\r\n\r\ndata: b\r\n\r\n", AB, id="crlf"),
    pytest.param(b"data: a\r\rdata: b\r\r", AB, id="cr"),
    pytest.param(b"data: a\n\r\ndata: b\r\n\n", AB, id="mixed-lf-and-crlf"),
    pytest.param(b"data: a\r\n\rdata: b\n\r", AB, id="mixed-with-cr"),
    pytest.param(b"data: a\n\n\n\ndata: b\n\n\n", AB, id="more-blank-lines"),
    pytest.param(b"data:a\n\ndata:b\n\n", AB, id="no-space"),
    pytest.param(b"data:  a\n\ndata:\ta \n\n", [Event(b" a"), Event(b"\ta ")], id="only-one-space-is-taken"),
    pytest.param(b"data: a: b\n\n", [Event(b"a: b")], id="colon-in-data"),
    pytest.param(b"data: a\ndata: b\n\n", [Event(b"a\nb")], id="two-lines"),
    pytest.param(b"data: a\r\ndata:\r\ndata: b\r\n\r\n", [Event(b"a\n\nb")], id="empty-line-in-the-middle"),
    pytest.param(b"data\n\ndata\ndata\n\ndata:", [Event(b""), Event(b"\n"), Event(b"")], id="whatwg-empty-data"),
    pytest.param(b": ping\n\ndata: a\n: pong\n\n:\n\ndata: b\n\n", AB, id="comments"),
    pytest.param(b"\xef\xbb\xbfdata: a\n\ndata: b\n\n", AB, id="bom"),
    pytest.param(b"\xef\xbb\xbf\n\ndata: a\n\n", [Event(b"a")], id="bom-then-blank"),
    pytest.param(b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n", [Event(b"b")], id="only-one-bom-is-taken"),
    pytest.param(b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [Event(b"a")], id="bom-only-at-the-start"),
    pytest.param(b"\xef\xbb", [], id="half-a-bom"),
    pytest.param(b"event: error\ndata: a\n\ndata: b\n\n", [Event(b"a", "error"), Event(b"b")], id="name"),
    pytest.param(b"data: a\nevent:x\nevent: y\n\n", [Event(b"a", "y")], id="last-name-after-data"),
    pytest.param(b"event: x\n\ndata: a\n\n", [Event(b"a")], id="name-without-data"),
    pytest.param(b"event: \xc3\xa9\xff\ndata: a\n\n", [Event(b"a", "\xe9\ufffd")], id="name-of-any-bytes"),
    pytest.param(b"id: 1\nretry: 10\nfoo: x\ndata: a\ndatax: y\n\n", [Event(b"a")], id="other-fields"),
    pytest.param(b" data: a\n\nData: b\n\n", [], id="field-names-are-exact"),
    pytest.param(b"data: a\n\ndata: b\n", AB, id="last-blank-line-missing"),
    pytest.param(b"data: a\n\ndata: b", AB, id="last-line-end-missing"),
    pytest.param(b"data: a\r\n\r\ndata: b\r", AB, id="last-line-end-half-there"),
    pytest.param(b"data: a\r\n\r\ndata: b\r\n\r", AB, id="last-blank-line-half-there"),
    pytest.param("data: \u00e9\u20ac\U0001f600\u2028\n\n".encode(), [Event("é€😀\u2028".encode())], id="utf-8"),
    pytest.param(b"data: \xff\x00\x0b\x0c\x85\n\n", [Event(b"\xff\x00\x0b\x0c\x85")], id="any-bytes"),
]


def decode(*chunks: bytes) -> list[Event]:
    """Every event of a stream that came in these chunks."""
    decoder = EventDecoder()
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return events + decoder.flush()


def single_bytes(raw: bytes) -> list[bytes]:
    """The bytes, one by one."""
    return [raw[index : index + 1] for index in range(len(raw))]


@pytest.mark.parametrize(("raw", "expected"), STREAMS)
def test_decoder_whole(raw: bytes, expected: list[Event]) -> None:
    """A stream that comes in one piece gives its events."""
    assert decode(raw) == expected


@pytest.mark.parametrize(("raw", "expected"), STREAMS)
def test_decoder_byte_by_byte(raw: bytes, expected: list[Event]) -> None:
    """A stream that comes one byte at a time gives the same events."""
    assert decode(*single_bytes(raw)) == expected


@pytest.mark.parametrize(("raw", "expected"), STREAMS)
def test_decoder_split_everywhere(raw: bytes, expected: list[Event]) -> None:
    """A stream split in two, at any index and with nothing in between, gives the same events."""
    for index in range(len(raw) + 1):
        assert decode(raw[:index], b"", raw[index:]) == expected, index


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        pytest.param([b"data: a\n\n"], [[Event(b"a")]], id="lf"),
        pytest.param([b"data: a\n", b"\n"], [[], [Event(b"a")]], id="blank-line-later"),
        pytest.param([b"data: a\r\n\r\n"], [[Event(b"a")]], id="crlf"),
        pytest.param([b"data: a\n\nda", b"ta: b\n\nd"], [[Event(b"a")], [Event(b"b")]], id="across-chunks"),
        pytest.param([b"data: a\r\rd"], [[Event(b"a")]], id="cr-followed-by-more"),
        pytest.param([b"data: a\r\r", b"d"], [[], [Event(b"a")]], id="cr-that-may-have-been-half-a-crlf"),
    ],
)
def test_decoder_hands_out_at_once(chunks: list[bytes], expected: list[list[Event]]) -> None:
    """An event comes out of the very chunk that completes it."""
    decoder = EventDecoder()
    assert [decoder.feed(chunk) for chunk in chunks] == expected


def test_decoder_flush_gives_an_event_once() -> None:
    """A second flush finds nothing."""
    decoder = EventDecoder()
    assert decoder.feed(b"data: a") == []
    assert decoder.flush() == [Event(b"a")]
    assert decoder.flush() == []


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param(single_bytes(b"data: 0123456789abcdef"), id="one-long-line"),
        pytest.param([b"data: 0\n"] * 3, id="many-lines"),
        pytest.param([b"data: 0\n\n", b"data: 0123", b"456789abc"], id="after-another-event"),
        pytest.param([b"data: 0123456789abcdef"], id="at-once"),
        pytest.param(
            [b"data: 0123456789abcdef\n\n"],
            id="at-once-and-complete",
        ),
        pytest.param(
            [b"data: 0\n\ndata: 0123456789abcdef", b"gh\n\n"],
            id="begun-in-the-chunk-of-another",
        ),
    ],
)
def test_decoder_refuses_a_large_event(monkeypatch: pytest.MonkeyPatch, chunks: list[bytes]) -> None:
    """An event that grows beyond the limit is the upstream's fault, however it comes."""
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 16)
    with pytest.raises(UpstreamError, match="larger than 16 bytes"):
        decode(*chunks)


def test_decoder_limit_is_of_one_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long stream of events and pings within the limit is never refused."""
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 16)
    assert decode(*single_bytes(b"data: 0123\n\n: ping\n\n" * 20)) == [Event(b"0123")] * 20


LINES = st.binary(max_size=12).map(lambda raw: raw.replace(b"\r", b"").replace(b"\n", b""))
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=6)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[Event], list[int]]:
    """A stream, the events it was made of, and where to split it."""
    raw = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    events = []
    for name, lines in draw(st.lists(st.tuples(NAMES, st.lists(LINES, min_size=1, max_size=3)), max_size=5)):
        events.append(Event(b"\n".join(lines), name))
        written = [b"data: " + line for line in lines]
        if name:
            written.insert(draw(st.integers(0, len(written))), b"event: " + name.encode())
        written.insert(draw(st.integers(0, len(written))), draw(st.sampled_from([b": ping", b"id: 7", b"retry: 1"])))
        for line in [*written, b""]:
            end = draw(ENDS)
            if not line and end == b"\n" and raw.endswith(b"\r"):
                end = b"\r\n"  # CR and LF next to each other would be one line end
            raw += line + end
    cuts = draw(st.lists(st.integers(0, len(raw)), max_size=8))
    return raw, events, sorted(cuts)


@settings(deadline=None)
@given(streams())
def test_decoder_property(stream: tuple[bytes, list[Event], list[int]]) -> None:
    """Whatever the events, the line ends and the splits, the events that went in come out."""
    raw, events, cuts = stream
    edges = [0, *cuts, len(raw)]
    assert decode(*[raw[start:end] for start, end in pairwise(edges)]) == events


# Chat chunks, as the wire spells them.
PROMPT_FILTER = b'{"choices":[],"prompt_filter_results":[{"prompt_index":0,"content_filter_results":{}}]}'
ROLE = b'{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}'
HELLO = b'{"choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}]}'
WORLD = b'{"choices":[{"index":0,"delta":{"content":" world"},"finish_reason":null}]}'
SECOND = b'{"choices":[{"index":1,"delta":{"content":"other"},"finish_reason":null}]}'
STOP = b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
SECOND_STOP = b'{"choices":[{"index":1,"delta":{},"finish_reason":"length"}]}'
LAST_WORD = b'{"choices":[{"index":0,"delta":{"content":"!"},"finish_reason":"length"}]}'
ANNOTATION = b'{"choices":[{"index":0,"finish_reason":null,"content_filter_offsets":{"check_offset":44}}]}'
FILTERED = b'{"choices":[{"index":0,"finish_reason":"content_filter","content_filter_results":{"hate":{}}}]}'
USAGE = b'{"choices":[],"usage":{"total_tokens":3}}'
TOOL = b'{"choices":[{"index":0,"delta":{"content":null,"tool_calls":[{"index":0}]},"finish_reason":null}]}'
TOOL_STOP = b'{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}'
BOTH = b'{"choices":[{"index":1,"delta":{"content":"x"}},{"index":0,"delta":{"content":"a"}}]}'
ERROR = b'{"error":{"code":"429","message":"exceeded token rate limit"}}'
NULL_ERROR = b'{"error":null,"choices":[{"index":0,"delta":{"content":"a"}}]}'


def events(*data: bytes) -> bytes:
    """A stream of these events."""
    return b"".join(b"data: " + one + b"\n\n" for one in data)


def follow(stream: ChatStream, *chunks: bytes) -> list[tuple[bytes, str]]:
    """What a chat stream hands out of these chunks, up to its end."""
    followed = [pair for chunk in chunks for pair in stream.feed(chunk)]
    return followed + stream.flush()


@pytest.mark.parametrize(
    ("data", "complete"),
    [
        pytest.param([ROLE, HELLO, STOP, b"[DONE]"], True, id="done"),
        pytest.param([b" [DONE] "], True, id="done-alone-in-spaces"),
        pytest.param([HELLO, b"[DONE]"], True, id="done-without-finish-reason"),
        pytest.param([ROLE, HELLO, STOP], True, id="finished-without-done"),
        pytest.param([HELLO, STOP, USAGE], True, id="usage-after-finish"),
        pytest.param([HELLO, LAST_WORD], True, id="finished-with-its-last-word"),
        pytest.param([TOOL, TOOL_STOP], True, id="tool-call"),
        pytest.param([HELLO, STOP, ANNOTATION], True, id="annotation-after-finish"),
        pytest.param([HELLO, FILTERED], True, id="filtered-without-delta"),
        pytest.param([HELLO, SECOND, STOP, SECOND_STOP], True, id="both-choices-finished"),
        pytest.param([HELLO, SECOND, SECOND_STOP, STOP], True, id="second-choice-finished-first"),
        pytest.param([HELLO, SECOND, STOP], False, id="only-the-first-choice-finished"),
        pytest.param([HELLO, SECOND, SECOND_STOP], False, id="only-the-second-choice-finished"),
        pytest.param([HELLO, STOP, SECOND], False, id="second-choice-begun-late"),
        pytest.param([], False, id="nothing"),
        pytest.param([PROMPT_FILTER], False, id="only-the-prompt-filter"),
        pytest.param([PROMPT_FILTER, USAGE], False, id="only-empty-choices"),
        pytest.param([ANNOTATION], False, id="only-an-annotation"),
        pytest.param([ROLE], False, id="cut-after-the-role"),
        pytest.param([ROLE, HELLO, WORLD], False, id="cut"),
        pytest.param([HELLO, ANNOTATION], False, id="cut-after-an-annotation"),
        pytest.param([b"not JSON"], False, id="not-json"),
        pytest.param([HELLO, STOP, ERROR], False, id="error-after-finish"),
        pytest.param([ERROR, b"[DONE]"], False, id="error-then-done"),
    ],
)
def test_chat_stream_complete(data: list[bytes], complete: bool) -> None:
    """A stream is complete by [DONE], or when every choice that began has finished; an error never is."""
    stream = ChatStream()
    follow(stream, events(*data))
    assert stream.complete is complete


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param([ROLE, HELLO, WORLD, LAST_WORD], ["", "Hello", " world", "!"], id="content"),
        pytest.param([HELLO, SECOND, WORLD], ["Hello", "", " world"], id="other-choices-add-nothing"),
        pytest.param([BOTH], ["a"], id="two-choices-in-one-chunk"),
        pytest.param([TOOL, TOOL_STOP], ["", ""], id="null-content"),
        pytest.param([PROMPT_FILTER, ANNOTATION, USAGE], ["", "", ""], id="no-delta"),
        pytest.param([b'{"choices":[{"index":null,"delta":{"content":"a"}}]}'], ["a"], id="null-index-is-the-first"),
        pytest.param([NULL_ERROR], ["a"], id="null-error-is-none"),
    ],
)
def test_chat_stream_text(data: list[bytes], expected: list[str]) -> None:
    """Every event goes on as it came, with the text it adds to choice 0."""
    assert follow(ChatStream(), events(*data)) == list(zip(data, expected, strict=True))


@pytest.mark.parametrize(
    ("data", "handed_out"),
    [
        pytest.param([HELLO, b"[DONE]", WORLD, b"[DONE]"], [HELLO], id="content"),
        pytest.param([HELLO, b"[DONE]", ERROR], [HELLO], id="error"),
    ],
)
def test_chat_stream_ends_at_done(data: list[bytes], handed_out: list[bytes]) -> None:
    """Nothing comes out after [DONE], in the same chunk or a later one, and [DONE] itself does not."""
    at_once, one_by_one = ChatStream(), ChatStream()
    assert [data for data, _ in follow(at_once, events(*data))] == handed_out
    assert [data for data, _ in follow(one_by_one, *[events(one) for one in data])] == handed_out
    assert (at_once.done, at_once.error, at_once.complete) == (True, None, True)
    assert (one_by_one.done, one_by_one.error, one_by_one.complete) == (True, None, True)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ERROR, id="azure"),
        pytest.param(b'{"error":"overloaded"}', id="text"),
        pytest.param(b'{"choices":null,"error":{"message":"x"}}', id="beside-null-choices"),
        pytest.param(b'{"choices":[],"error":{"message":"x"},"usage":{}}', id="beside-other-members"),
    ],
)
def test_chat_stream_ends_at_an_error(error: bytes) -> None:
    """An error event is kept and not handed out, and nothing comes after it."""
    stream = ChatStream()
    assert follow(stream, events(HELLO, error, WORLD), events(b"[DONE]")) == [(HELLO, "Hello")]
    assert (stream.error, stream.done, stream.complete) == (error, False, False)


@pytest.mark.parametrize(
    ("end", "complete"),
    [
        pytest.param(b"data: [DONE]", True, id="done-without-line-end"),
        pytest.param(b"data: [DONE]\n", True, id="done-without-blank-line"),
        pytest.param(b"data: [DON", False, id="done-cut-short"),
    ],
)
def test_chat_stream_flush(end: bytes, complete: bool) -> None:
    """A last [DONE] counts without its line ends, but not without its letters."""
    stream = ChatStream()
    follow(stream, events(HELLO) + end)
    assert (stream.done, stream.complete) == (complete, complete)


def test_chat_stream_flush_gives_the_last_chunk() -> None:
    """A last chunk that lacks only its line ends is handed out."""
    stream = ChatStream()
    assert follow(stream, events(HELLO) + b"data: " + STOP) == [(HELLO, "Hello"), (STOP, "")]
    assert stream.complete is True


@pytest.mark.parametrize("cut", [1, 20, len(WORLD) - 1])
def test_chat_stream_flush_keeps_a_piece_back(cut: int) -> None:
    """Half a chunk lacks more than its line ends: it is not handed out."""
    assert follow(ChatStream(), events(HELLO) + b"data: " + WORLD[:cut]) == [(HELLO, "Hello")]


def test_chat_stream_split_utf8() -> None:
    """Text survives a split inside a character's bytes, at every index."""
    data = '{"choices":[{"index":0,"delta":{"content":"é€😀"}}]}'.encode()
    raw = events(data, STOP, b"[DONE]")
    for index in range(len(raw) + 1):
        stream = ChatStream()
        assert follow(stream, raw[:index], raw[index:]) == [(data, "é€😀"), (STOP, "")], index
        assert stream.complete is True


@pytest.mark.parametrize(
    ("data", "is_error", "is_decisive"),
    [
        pytest.param(PROMPT_FILTER, False, False, id="prompt-filter"),
        pytest.param(USAGE, False, False, id="usage"),
        pytest.param(b"{}", False, True, id="empty"),
        pytest.param(ROLE, False, True, id="role"),
        pytest.param(ANNOTATION, False, True, id="annotation"),
        pytest.param(ERROR, True, True, id="error"),
        pytest.param(b'{"error":null}', False, True, id="null-error"),
        pytest.param(b'{"error":{}}', False, True, id="empty-error"),
        pytest.param(b'{"error":""}', False, True, id="empty-text-error"),
        pytest.param(b'{"error":false}', False, True, id="false-error"),
        pytest.param(b'{"choices":[],"error":null}', False, False, id="no-choices-and-null-error"),
        pytest.param(b'{"choices":null}', False, True, id="null-choices"),
        pytest.param(b'{"type":"response.created","response":{}}', False, True, id="responses-event"),
        pytest.param(b'{"type":"response.failed","response":{"error":null}}', False, False, id="responses-failed"),
        pytest.param(b'{"type":"error","code":"x","message":"m"}', True, True, id="flat-error-event"),
        pytest.param(b'{"type":"error","error":{"code":"x"}}', True, True, id="nested-error-event"),
        pytest.param(b'{"type":"response.failed","error":{"code":"x"}}', True, True, id="failed-with-error"),
        pytest.param(b'{"object":"thread.run","last_error":null}', False, True, id="run"),
    ],
)
def test_read_chunk(data: bytes, is_error: bool, is_decisive: bool) -> None:
    """A chunk is an error if it says so; all but a chat chunk without choices and `response.failed` decides."""
    chunk = read_chunk(data)
    assert chunk is not None
    assert (chunk.is_error, chunk.is_decisive) == (is_error, is_decisive)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"[DONE]", id="done"),
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="array"),
        pytest.param(b'{"choices":', id="cut"),
        pytest.param(b'{"choices":[{"delta":{"content":"\xff"}}]}', id="not-utf-8"),
        pytest.param(b'{"choices":' + b"[" * 100_000, id="deep"),
    ],
)
def test_read_chunk_of_something_else(data: bytes) -> None:
    """What is no chunk is None, and never an exception."""
    assert read_chunk(data) is None


@needs_captures
@pytest.mark.parametrize(("name", "count", "length", "finish_reason"), CAPTURES)
def test_capture_is_complete(name: str, count: int, length: int, finish_reason: str) -> None:
    """A stream captured from Azure is complete, with all its events and all its text."""
    stream = ChatStream()
    followed = follow(stream, (WIRE / name).read_bytes())
    assert (stream.done, stream.complete, stream.error) == (True, True, None)
    assert (len(followed), sum(len(text) for _, text in followed)) == (count, length)


@needs_captures
@pytest.mark.parametrize(("name", "count", "length", "finish_reason"), CAPTURES)
def test_capture_byte_by_byte(name: str, count: int, length: int, finish_reason: str) -> None:
    """A captured stream gives the same, event for event, when it comes one byte at a time."""
    raw = (WIRE / name).read_bytes()
    stream = ChatStream()
    followed = follow(stream, *single_bytes(raw))
    assert followed == follow(ChatStream(), raw)
    assert (len(followed), sum(len(text) for _, text in followed)) == (count, length)
    assert stream.complete


@needs_captures
@pytest.mark.parametrize(("name", "count", "length", "finish_reason"), CAPTURES)
def test_capture_cut_before_its_end(name: str, count: int, length: int, finish_reason: str) -> None:
    """A captured stream that stops before its finish reason is not complete."""
    raw = (WIRE / name).read_bytes()
    stream = ChatStream()
    follow(stream, raw[: raw.index(b'"finish_reason":"' + finish_reason.encode())])
    assert (stream.done, stream.complete) == (False, False)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"data: not JSON\n\n", id="no-json"),
        pytest.param(b"data: [1]\n\n", id="no-object"),
        pytest.param(b'data: {"choices":5}\n\n', id="no-choices"),
        pytest.param(b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n', id="no-utf8"),
        pytest.param(b'event: error\ndata: {"message":"boom"}\n\n', id="named-error"),
    ],
)
def test_event_that_is_no_chunk_breaks_the_stream(data: bytes) -> None:
    """What cannot be read cannot be dropped in silence: the stream is not complete, whatever follows."""
    stream = ChatStream()
    followed = follow(stream, events(HELLO) + data + events(STOP, b"[DONE]"))

    assert followed == [(HELLO, "Hello")]
    assert (stream.ended, stream.complete) == (True, False)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b'{"choices":[],"usage":{"total_tokens":3}}', True, id="usage"),
        pytest.param(b'{"usage":{"total_tokens":3},"choices":[],"id":"x"}', True, id="usage-first"),
        pytest.param(b'{ "choices" : [ ] , "usage" : { } }', True, id="spaces"),
        pytest.param(b'{"choices":[],"usage":null,"prompt_filter_results":[]}', False, id="azures-prompt-filter"),
        pytest.param(b'{"choices":[],"usage" : null}', False, id="null-with-spaces"),
        pytest.param(b'{"choices":[],"prompt_filter_results":[]}', False, id="no-usage"),
        pytest.param(
            b'{"choices":[{"index":0,"delta":{}}],"usage":{"total_tokens":3}}', False, id="usage-and-an-answer"
        ),
        pytest.param(b'{"usage":{"total_tokens":3}}', False, id="no-choices"),
        pytest.param(b'{"choices":null,"usage":{"total_tokens":3}}', False, id="null-choices"),
        pytest.param(b'{"choices":[],"x":{"usage":{"total_tokens":3}}}', False, id="within"),
        pytest.param(b'{"choices":[],"x":"\\"usage\\":{}"}', False, id="in-a-text"),
        pytest.param(b'"usage"', False, id="text"),
        pytest.param(b'{"choices":[],"usage":{', False, id="cut"),
        pytest.param(b"[DONE]", False, id="done"),
    ],
)
def test_tells_usage_only(data: bytes, expected: bool) -> None:
    """Only a chunk without choices whose usage is an object was sent for nothing but that."""
    assert tells_usage_only(data) is expected
