"""The chunks of a stream: all of them in one go where their shape is known, else what can be made out of each."""

import json
from typing import Any

import msgspec
from msgspec import Raw, Struct

from chat_api.errors import UpstreamError
from chat_api.sse import DONE, EventDecoder

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
NOTHING = Raw()  # what is not there
_EMPTY = (b"", b"null", b"{}", b"[]", b'""', b"false")
_START, _BETWEEN, _END = b"data: ", b"\n\ndata: ", b"\n\ndata: [DONE]\n\n"


class Function(Struct):
    """What is called, or a piece of it."""

    name: str | None = None
    arguments: str | None = None


class Call(Struct, forbid_unknown_fields=True):
    """What a chunk adds to a tool call."""

    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: Function | None = None


class Delta(Struct, forbid_unknown_fields=True):
    """What a chunk adds to a choice. What only some servers say is in `more`."""

    role: str | None = None
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[Call] | None = None
    more: dict[str, Any] | None = msgspec.field(default=None, name="(more)")


class Choice(Struct):
    """What a chunk says of a choice."""

    index: int | None = None
    delta: Delta | None = None
    text: str | None = None  # of the legacy completions
    finish_reason: str | None = None
    content_filter_results: Raw = NOTHING


class Chunk(Struct):
    """What a chunk says that is written down; empty where it says nothing."""

    choices: list[Choice] | None = None
    usage: Raw = NOTHING
    prompt_filter_results: Raw = NOTHING
    error: Raw = NOTHING


_decode_chunks = msgspec.json.Decoder(list[Chunk]).decode
_decode_chunk = msgspec.json.Decoder(Chunk).decode
_encode = msgspec.json.encode


def chunks_of(stream: bytes) -> list[Chunk]:
    """The chunks of a stream, and what is left of those that are none. It never raises."""
    try:
        if stream.startswith(_START) and stream.endswith(_END):
            # Within a string no line ends: what is JSON without the events' marks is what they had.
            return _decode_chunks(b"[%s]" % stream[len(_START) : -len(_END)].replace(_BETWEEN, b","))
    except UNREADABLE:
        pass
    return [read_chunk(data) for data in events_of(stream)]


def events_of(stream: bytes) -> list[bytes]:
    """The data of each event, a last one without its end among them; of a stream that has none, of no events."""
    decoder = EventDecoder()
    try:
        return [event.data for event in (*decoder.feed(stream), *decoder.flush()) if event.data.strip() != DONE]
    except UpstreamError:  # an event beyond all measure
        return []


def read_object(data: bytes) -> dict[str, Any]:
    """A JSON object; {} for anything else.

    What msgspec refuses is read as well: half of a surrogate pair, whose other half may be in the next chunk.
    """
    try:
        value = msgspec.json.decode(data)
    except UNREADABLE:
        try:
            value = json.loads(data.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return {}
    return value if isinstance(value, dict) else {}


def read_chunk(data: bytes) -> Chunk:
    """The chunk in an event's data, as far as it is one."""
    try:
        return _decode_chunk(data)
    except UNREADABLE:
        chunk = read_object(data)
        choices = [_choice(one) for one in _list(chunk.get("choices")) if isinstance(one, dict)]
        raws = (to_raw(chunk.get(name)) for name in ("usage", "prompt_filter_results", "error"))
        return Chunk(choices, *raws)


def _choice(choice: dict[str, Any]) -> Choice:
    delta = choice.get("delta")
    return Choice(
        _kind(choice.get("index"), int),
        _delta(delta) if isinstance(delta, dict) else None,
        _kind(choice.get("text"), str),
        _kind(choice.get("finish_reason"), str),
        to_raw(choice.get("content_filter_results")),
    )


def _delta(delta: dict[str, Any]) -> Delta:
    known = ("role", "content", "refusal", "tool_calls")
    return Delta(
        role=_kind(delta.get("role"), str),
        content=_kind(delta.get("content"), str),
        refusal=_kind(delta.get("refusal"), str),
        tool_calls=[_call(call) for call in _list(delta.get("tool_calls")) if isinstance(call, dict)],
        more={name: value for name, value in delta.items() if name not in known},
    )


def _call(call: dict[str, Any]) -> Call:
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    said = Function(_kind(function.get("name"), str), _kind(function.get("arguments"), str))
    return Call(_kind(call.get("index"), int), _kind(call.get("id"), str), _kind(call.get("type"), str), said)


def _kind(value: Any, kind: type) -> Any:
    """The value if it is of this type; None if it is not."""
    return value if type(value) is kind else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def said(raw: Raw) -> bytes:
    """The JSON of a member; b"" for one that is not there, or says nothing."""
    if raw is NOTHING:
        return b""
    text = bytes(raw)
    return b"" if text in _EMPTY else text


def to_raw(value: Any) -> Raw:
    """A value as it is written; nothing for none, and for one that cannot be written."""
    try:
        return Raw(_encode(value)) if value else NOTHING
    except (UnicodeEncodeError, RecursionError):
        return NOTHING
