"""JSON as Python has it, half a surrogate pair included, and a whole event stream as its chunks. Pure.

JavaScript cuts emoji in half, and RFC 8259 section 8.2 lets it: msgspec knows no such text, the standard library does.
"""

import json
import re
from typing import Any

import msgspec

from chat_api.errors import UpstreamError
from chat_api.sse import DONE, EventDecoder

_HALF = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_START = b"data: "

_decode = msgspec.json.Decoder().decode
_decode_lines = msgspec.json.Decoder().decode_lines
_encode = msgspec.json.Encoder().encode


class Text:
    """A text that comes in pieces, each of which costs the same however long it has become."""

    __slots__ = ("pieces",)

    def __init__(self, *pieces: str) -> None:
        self.pieces = list(pieces)

    def __str__(self) -> str:
        return "".join(self.pieces)


_encode_texts = msgspec.json.Encoder(enc_hook=str).encode  # nothing but a Text is unknown to it


def read_json(raw: bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none.
        RecursionError: it is nested too deeply.
    """
    try:
        return _decode(raw)
    except UnicodeDecodeError:
        raise
    except msgspec.DecodeError:
        if _HALF.search(raw) is None:
            raise
        return json.loads(raw.decode(), parse_constant=_no_number)


def write_json(value: Any) -> bytes:
    """A value as JSON; a `Text` is a string.

    Raises:
        ValueError: it is no value of JSON.
    """
    try:
        return _encode_texts(value)
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"), default=str).encode()


def read_chunks(events: bytes) -> list[dict[str, Any]] | None:
    """The chunks of a stream that has come to its end, `[DONE]`.

    None where it has not, where something comes after it, or where an event is no chunk but an error, or nothing
    that can be read.
    """
    try:
        data = _data_of(events)
        if data is None:
            return None
        try:
            chunks = _decode_lines(b"\n".join(data))
        except msgspec.DecodeError:
            chunks = [read_json(one) for one in data]
    except (ValueError, RecursionError, UpstreamError):
        return None
    return chunks if len(chunks) == len(data) and all(map(_is_chunk, chunks)) else None


def _data_of(events: bytes) -> list[bytes] | None:
    """The data of all events before `[DONE]`, which is the last; None if it is not."""
    *whole, rest = events.split(b"\n\n")
    if not rest and events.find(b"\r") < 0 and events.count(b"\n") == 2 * len(whole):
        data = [one[len(_START) :] for one in whole if one.startswith(_START)]
        if len(data) == len(whole):  # one line for each event, as Azure sends it
            return data[:-1] if data and data[-1] == DONE else None
    decoder = EventDecoder()
    found = [*decoder.feed(events), *decoder.flush()]
    if not found or found[-1].data.strip() != DONE or any(event.name == "error" for event in found):
        return None
    return [event.data for event in found[:-1]]


def _is_chunk(value: Any) -> bool:
    return type(value) is dict and not value.get("error") and value.get("type") != "error"


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
