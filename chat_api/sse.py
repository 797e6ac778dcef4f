"""Server-sent events without I/O: a decoder that takes bytes as they come, and what chat chunks say.

The decoder follows the WHATWG standard (html.spec.whatwg.org, "Interpreting an event stream") with
one deliberate difference: `flush` hands out a last event that lacks its blank line, because Azure's
streams once ended so (`data: [DONE]` and nothing after it). It never re-splits an event's data.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from chat_api.errors import UpstreamError

DONE = b"[DONE]"
MAX_EVENT_BYTES = 16 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\n|\r")
_EVENT = re.compile(rb"(?s).*?(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))|.+")


class Event(NamedTuple):
    """One event: its data (lines joined by LF) and its `event:` name, "" for the default."""

    data: bytes
    name: str = ""


class EventDecoder:
    """Turns a byte stream into events, however the bytes are split.

    Raises:
        UpstreamError: an event grows beyond `MAX_EVENT_BYTES`.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []  # of the line that is not complete yet
        self._data: list[bytes] = []
        self._name = ""
        self._data_size = 0
        self._rest_size = 0
        self._at_start = True

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that `chunk` completes, in order."""
        held_cr = bool(self._parts) and self._parts[-1].endswith(b"\r")
        if not held_cr and not self._at_start and chunk.find(b"\n") < 0 and chunk.find(b"\r") < 0:
            self._parts.append(chunk)  # joined once, when the line ends: a long event costs no copies
            self._rest_size += len(chunk)
            events: list[Event] = []
        else:
            events = self._take(b"".join((*self._parts, chunk)))
        _check_size(self._data_size + self._rest_size)
        return events

    def _take(self, buffer: bytes) -> list[Event]:
        if self._at_start:
            if _BOM.startswith(buffer):
                self._parts = [buffer]
                return []
            self._at_start = False
            buffer = buffer.removeprefix(_BOM)
        events: list[Event] = []
        position = 0
        for match in _LINE_END.finditer(buffer):
            if match.group() == b"\r" and match.end() == len(buffer):
                break  # its LF may be in the next chunk
            self._take_line(buffer[position : match.start()], events)
            position = match.end()
        rest = buffer[position:]
        self._parts, self._rest_size = ([rest] if rest else []), len(rest)
        return events

    def flush(self) -> list[Event]:
        """The event that was complete but for its line ends, once the stream has ended."""
        events: list[Event] = []
        if self._parts:
            line = b"".join(self._parts).removesuffix(b"\r")
            self._parts = []
            self._take_line(line, events)
        self._take_line(b"", events)
        return events

    def _take_line(self, line: bytes, events: list[Event]) -> None:
        if not line:
            if self._data:
                _check_size(self._data_size)
                events.append(Event(b"\n".join(self._data), self._name))
            self._data, self._name, self._data_size = [], "", 0
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._data_size += len(line) + 1
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")


def split_events(whole: bytes) -> Iterator[bytes]:
    """Whole events one by one, each in its bytes with the blank line that ends it, and last whatever comes after them.

    Together they are all the bytes. What has no data is among them: a comment, or more empty lines than one.
    """
    if whole.find(b"\r") >= 0:
        yield from (match.group() for match in _EVENT.finditer(whole))
        return
    start = 0
    while (end := whole.find(b"\n\n", start)) >= 0:
        yield whole[start : end + 2]
        start = end + 2
    if start < len(whole):
        yield whole[start:]


def _check_size(size: int) -> None:
    if size > MAX_EVENT_BYTES:
        raise UpstreamError(f"an event of the upstream's stream is larger than {MAX_EVENT_BYTES} bytes")


class Delta(msgspec.Struct):
    """What a chunk adds to a choice."""

    content: str | None = None


class ChoiceOutline(msgspec.Struct):
    """Of a choice only whether it has ended: what it says may have any shape."""

    index: int | None = None
    finish_reason: str | None = None


class Choice(ChoiceOutline):
    """One choice of a chunk; Azure's asynchronous filter sends choices without a delta."""

    delta: Delta | None = None


class _Verdict(msgspec.Struct):
    """What the events of every API have in common: how they are called, and how they tell of an error."""

    error: msgspec.Raw = msgspec.Raw()
    type: str | None = None  # what the events of every API but chat are called

    @property
    def is_error(self) -> bool:
        """Whether it is an error event: `error` is there and says something, or it is called so."""
        return self.type == "error" or bytes(self.error) not in (b"", b"null", b"false", b"{}", b'""')


class Outline(_Verdict):
    """Of a chunk, only what tells how a stream ends."""

    choices: list[ChoiceOutline] | None = None
    usage: msgspec.Raw = msgspec.Raw()


class Chunk(_Verdict):
    """The parts of a chat chunk that decide something; everything else is left alone."""

    choices: list[Choice] | None = None

    @property
    def is_decisive(self) -> bool:
        """Whether the upstream has begun to answer.

        Azure's prompt filter chunk, whose `choices` are empty, comes before that; and a Responses
        stream that fails at once says only that it failed before the event that says why.
        """
        if self.is_error:
            return True
        return self.type != "response.failed" if self.choices is None else bool(self.choices)


_decode_outline = msgspec.json.Decoder(Outline).decode
_decode_chunk = msgspec.json.Decoder(Chunk).decode


def read_chunk(data: bytes) -> Chunk | None:
    """The chunk in an event's data; None where it is not one (`[DONE]`, another kind of JSON, no JSON)."""
    try:
        return _decode_chunk(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None


def read_outline(data: bytes) -> Outline | None:
    """The outline of a chunk in an event's data; None where there is none."""
    try:
        return _decode_outline(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None


NO_USAGE = b',"usage":null'  # what a chunk has once a stream was asked for it; within a text quotes are escaped


def tells_usage_only(data: bytes) -> bool:
    """Whether an event's data is the chunk that says what a chat took, and nothing else."""
    if data.find(b'"usage"') < 0:
        return False
    outline = read_outline(data)
    return outline is not None and outline.choices == [] and bytes(outline.usage).startswith(b"{")


class ChatStream:
    """Follows one chat stream: which events go on, the first choice's text, and whether it was complete.

    A stream is complete when `[DONE]` came, or when every choice that began has finished: a few
    OpenAI-compatible servers end there. Anything less is a stream that broke.
    """

    def __init__(self) -> None:
        self._decoder = EventDecoder()
        self._begun: set[int] = set()
        self._finished: set[int] = set()
        self.done = False
        self.error: bytes | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing that still comes belongs to the answer."""
        return self.done or self.error is not None

    @property
    def complete(self) -> bool:
        """Whether the upstream sent its answer to the end."""
        return self.error is None and (self.done or (bool(self._begun) and self._begun == self._finished))

    def feed(self, chunk: bytes) -> list[tuple[bytes, str]]:
        """The `(data, text)` of each event that `chunk` completes; text is what it adds to choice 0.

        Nothing comes out after `[DONE]`, which is not itself handed out, nor after an error event or
        one that is no chunk, whose data is then in `error`.
        """
        return self._follow(self._decoder.feed(chunk))

    def flush(self) -> list[tuple[bytes, str]]:
        """The last event, if only its line ends were missing; the upstream has ended the body.

        A piece of an event, cut in the middle, is not handed out: it is no chunk.
        """
        events = self._decoder.flush()
        return self._follow([event for event in events if event.data.strip() == DONE or read_chunk(event.data)])

    def _follow(self, events: list[Event]) -> list[tuple[bytes, str]]:
        followed = []
        for event in events:
            if self.ended:
                break
            if event.data.strip() == DONE:
                self.done = True
                break
            chunk = read_chunk(event.data)
            if chunk is None or chunk.is_error or event.name == "error":
                self.error = event.data
                break
            followed.append((event.data, self._text(chunk)))
        return followed

    def _text(self, chunk: Chunk) -> str:
        text = ""
        for choice in chunk.choices or ():
            index = choice.index or 0
            self._begun.add(index)
            if choice.finish_reason:
                self._finished.add(index)
            if index == 0 and choice.delta is not None and choice.delta.content:
                text += choice.delta.content
        return text
