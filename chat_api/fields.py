"""The fields of the simple endpoint: the table of them, and how the value of each is read.

Pure. What the caller wrote as JSON goes on as the caller wrote it (`1.0` stays `1.0`); only what came
as text (a form, a query string) is converted, by field.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import msgspec
from msgspec import Raw

from chat_api.errors import RequestError

TRUE = ("true", "1", "yes", "on")
FALSE = ("false", "0", "no", "off")


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the endpoint: how its value is read, and what a person is told it takes."""

    name: str
    kind: str  # text, number, integer, flag, object, array, stop or choice
    expects: str
    low: float | None = None
    high: float | None = None


FIELDS = {
    field.name: field
    for field in (
        Field("prompt", "text", "non-empty text"),
        Field("userPrompt", "text", "non-empty text"),
        Field("systemPrompt", "text", "text"),
        Field("assistantPrompt", "text", "text"),
        Field("messages", "array", "an array of messages, each an object with a role"),
        Field("model", "text", "the name of a deployment"),
        Field("temperature", "number", "a number from 0 to 2", 0, 2),
        Field("top_p", "number", "a number from 0 to 1", 0, 1),
        Field("n", "integer", "a whole number from 1 to 128", 1, 128),
        Field("stream", "flag", "true or false"),
        Field("stop", "stop", "text or an array of up to 4 texts"),
        Field("max_tokens", "integer", "a whole number from 1", 1),
        Field("presence_penalty", "number", "a number from -2 to 2", -2, 2),
        Field("frequency_penalty", "number", "a number from -2 to 2", -2, 2),
        Field("user", "text", "text"),
        Field("max_completion_tokens", "integer", "a whole number from 1", 1),
        Field("reasoning_effort", "text", "text such as low, medium or high"),
        Field("logit_bias", "object", "an object of token numbers and biases"),
        Field("seed", "integer", "a whole number"),
        Field("response_format", "object", 'an object such as {"type": "json_object"}'),
        Field("tools", "array", "an array of tools"),
        Field("tool_choice", "choice", "none, auto, required or an object that names a function"),
        Field("logprobs", "flag", "true or false"),
        Field("top_logprobs", "integer", "a whole number from 0 to 20", 0, 20),
        Field("stream_options", "object", 'an object such as {"include_usage": true}'),
        Field("extra", "object", "an object of further parameters for Azure"),
    )
}
Given = Mapping[str, Raw | str | Sequence[str]]


def read_value(name: str, raw: Raw | str | Sequence[str]) -> Any:
    """The value of one field, checked; None where it is null or empty.

    Raises:
        RequestError: the field is unknown, or its value is of the wrong kind or out of range.
    """
    field = FIELDS.get(name)
    if field is None:
        raise RequestError(_unknown(name), param=cut(name), code="unknown_field")
    value = _decoded(field, raw) if isinstance(raw, Raw) else raw
    if value is None or (isinstance(value, str | list | dict) and not value):
        return None
    return _READERS[field.kind](field, value, raw)


def _decoded(field: Field, raw: Raw) -> Any:
    try:
        # The parts of an object or an array are the caller's and Azure's business: they stay as written.
        if field.kind == "array":
            return msgspec.json.decode(raw, type=list[Raw] | str | None)
        if field.kind in ("object", "choice"):
            return msgspec.json.decode(raw, type=dict[str, Raw] | str | None)
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, RecursionError):
        raise _wrong(field, kind_of(raw)) from None


def _text(field: Field, value: Any, raw: Raw | str | Sequence[str]) -> str:
    if not isinstance(value, str):
        raise _wrong(field, kind_of(raw))
    return value


def _number(field: Field, value: Any, raw: Raw | str | Sequence[str]) -> Any:
    """The number as it was written, where it came as a JSON number; the original took text as well."""
    try:
        number = float(_digits(value)) if isinstance(value, str) else value
    except ValueError:
        raise _wrong(field, quoted(value)) from None
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise _wrong(field, kind_of(raw))
    if not _in_range(field, number):
        raise _wrong(field, str(value))
    return raw if isinstance(raw, Raw) and not isinstance(value, str) else number


def _integer(field: Field, value: Any, raw: Raw | str | Sequence[str]) -> int:
    try:
        number = int(_digits(value)) if isinstance(value, str) else value
    except ValueError:
        raise _wrong(field, quoted(value)) from None
    if isinstance(number, float) and number.is_integer() and abs(number) < 2**53:  # above, a float is a rounded guess
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int):
        raise _wrong(field, str(number) if isinstance(number, float) else kind_of(raw))
    if not _in_range(field, number):
        raise _wrong(field, str(number))
    return number


def _flag(field: Field, value: Any, raw: Raw | str | Sequence[str]) -> bool:
    text = str(value).lower()
    if isinstance(value, bool | int | str) and text in (*TRUE, *FALSE):
        return text in TRUE
    raise _wrong(field, quoted(value) if isinstance(value, str) else kind_of(raw))


def _object(field: Field, value: Any, raw: Raw | str | Sequence[str]) -> Any:
    return _structure(field, value, raw, dict)


def _array(field: Field, value: Any, raw: Raw | str | Sequence[str]) -> Any:
    return _structure(field, value, raw, list)


def _structure(field: Field, value: Any, raw: Raw | str | Sequence[str], shape: type) -> Any:
    """An object or array; from a form it comes as JSON text."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value, type=dict[str, Raw] if shape is dict else list[Raw])
        except (msgspec.MsgspecError, RecursionError):
            raise _wrong(field, "text") from None
    return value or None


def _choice(field: Field, value: Any, raw: Raw | str | Sequence[str]) -> Any:
    if isinstance(value, str) and value.lstrip().startswith("{"):
        return _object(field, value, raw)
    return value


def _stop(field: Field, value: Any, raw: Raw | str | Sequence[str]) -> str | list[str] | None:
    if isinstance(value, str) and value.lstrip().startswith("[") and not isinstance(raw, Raw):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.MsgspecError, RecursionError):
            return str(value)  # a stop text may begin with a bracket
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise _wrong(field, kind_of(raw))
    if not all(isinstance(text, str) for text in value):
        raise _wrong(field, "an array of something else")
    if len(value) > 4:
        raise _wrong(field, f"an array of {len(value)} texts")
    return value or None


_READERS = {
    "text": _text,
    "number": _number,
    "integer": _integer,
    "flag": _flag,
    "object": _object,
    "array": _array,
    "choice": _choice,
    "stop": _stop,
}


def _digits(text: str) -> str:
    """The text of a number, if it is plainly spelled: Python's int takes 1_0 and other scripts' digits too."""
    if not text.isascii() or "_" in text:
        raise ValueError(text)
    return text


def quoted(text: str) -> str:
    """The text in quotes, cut."""
    return f'"{cut(text)}"'


def _in_range(field: Field, number: float) -> bool:
    return (field.low is None or number >= field.low) and (field.high is None or number <= field.high)


def _wrong(field: Field, got: str) -> RequestError:
    return RequestError(f"{field.name} is {got}; it takes {field.expects}", param=field.name)


def _unknown(name: str) -> str:
    name = cut(name)  # first of all: it may be megabytes of a prompt that was not encoded
    if any(character.isspace() for character in name):
        return f'unknown field "{name}"; text that holds & or = takes --data-urlencode, or text/plain'
    lower = {known.lower(): known for known in FIELDS}
    asked = name.lower().replace("_", "")
    close = get_close_matches(asked, [known.replace("_", "") for known in lower], n=1)
    if close:
        meant = next(known for low, known in lower.items() if low.replace("_", "") == close[0])
        return f'unknown field "{name}"; did you mean "{meant}"?'
    return f'unknown field "{name}"; the fields are {", ".join(FIELDS)}; anything else for Azure goes into extra'


def cut(text: str) -> str:
    """The text, short enough to be repeated in an answer."""
    return text if len(text) <= 60 else f"{text[:60]}…"


def kind_of(raw: Raw | str | Sequence[str]) -> str:
    """What a value is, in words, for a message."""
    if not isinstance(raw, Raw):
        return "text"
    start = bytes(raw).lstrip()[:1]
    kinds = {b"{": "an object", b"[": "an array", b'"': "text", b"t": "true", b"f": "false", b"n": "null"}
    return kinds.get(start, "a number")
