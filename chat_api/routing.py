"""What a relayed body says of its routing, read without taking the body apart: `model`, `stream` and `n`. Pure."""

import re
from typing import NamedTuple

import msgspec
from msgspec import Raw

from chat_api.errors import RequestError

MAX_MODEL_BYTES = 1024
COUNTLESS = 1_000_000_000  # a legacy completion answers each of its prompts: only `[DONE]` tells that it is complete
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_WORD = {b"": "nothing", b"{": "an object", b"[": "an array", b'"': "text", b"t": "true", b"f": "false"}


class Routing(NamedTuple):
    """The parts of a body that decide where it goes and what comes back."""

    model: str | None = None
    stream: bool = False
    choices: int = 1
    asks_usage: bool = False  # whether a stream is to tell what it took
    most_tokens: int | None = None  # that the answer may have, over all its choices; None if it is not said


_UNSAID = Raw()


class _Body(msgspec.Struct):
    """Everything else in the body is skipped, not decoded."""

    model: Raw = Raw()
    stream: Raw = Raw()
    n: Raw = Raw()
    prompt: Raw = Raw()
    stream_options: Raw = Raw()
    best_of: Raw = Raw()
    max_tokens: Raw = _UNSAID
    max_completion_tokens: Raw = _UNSAID
    max_output_tokens: Raw = _UNSAID


_decode_body = msgspec.json.Decoder(_Body).decode
_decode_name = msgspec.json.Decoder(str).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode


def read_routing(body: bytes) -> Routing:
    """The routing in a JSON body.

    Raises:
        RequestError: the body is not a JSON object, or its model is not a name.
    """
    try:
        parsed = _read(body)
    except msgspec.ValidationError:
        raise RequestError(f"the body is {_kind(body)}; it takes a JSON object", code="invalid_json") from None
    except RecursionError:
        raise RequestError("the body is nested too deeply", code="invalid_json") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if not body.strip():
            raise RequestError("the body is empty; it takes a JSON object", code="empty_body") from None
        reason = str(error).removeprefix("JSON is malformed: ")
        raise RequestError(f"the body is not JSON: {reason}", code="invalid_json") from None
    is_stream = bytes(parsed.stream) == b"true"
    options = bytes(parsed.stream_options) if is_stream else b""
    is_limited = not parsed.max_tokens is parsed.max_completion_tokens is parsed.max_output_tokens is _UNSAID
    return Routing(
        _model(bytes(parsed.model)),
        is_stream,
        _choices(parsed),
        bool(options) and asks_usage(options),
        _most_tokens(parsed) if is_limited else None,
    )


def asks_usage(stream_options: bytes) -> bool:
    """Whether a call's `stream_options` ask to be told what the answer took."""
    try:
        return bytes(_decode_members(stream_options).get("include_usage", b"")) == b"true"
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False


def with_model(body: bytes, name: str) -> bytes:
    """The JSON object with another `model`; every other member stays as it was written, in its place.

    Raises:
        RequestError: it holds text that is no Unicode.
    """
    try:
        members = _decode_members(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        message = (
            "the body holds a member name or text that is no Unicode, and cannot be sent under another model's name"
        )
        raise RequestError(message, code="invalid_json") from None
    value = Raw(msgspec.json.encode(name))
    if "model" in members:
        members["model"] = value
        return msgspec.json.encode(members)
    return msgspec.json.encode({"model": value, **members})


def with_usage(body: bytes) -> bytes:
    """The JSON object of a streamed call, which then asks the stream to tell what it took; nothing else changes."""
    if b'"stream_options"' not in body and b"\\u" not in body:  # in which any letter may be written
        return body.replace(b"{", b'{"stream_options":{"include_usage":true},', 1)
    try:
        members = _decode_members(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        # Half a surrogate pair, with which most upstreams can live; of two members of one name they take the last.
        end = body.rindex(b"}")
        return b'%b,"stream_options":{"include_usage":true}%b' % (body[:end], body[end:])
    given = bytes(members.get("stream_options", b"null"))
    try:
        options = {} if given == b"null" else _decode_members(given)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return body  # the upstream has a word for what is wrong with it
    options["include_usage"] = Raw(b"true")
    members["stream_options"] = Raw(msgspec.json.encode(options))
    return msgspec.json.encode(members)


def _read(body: bytes) -> _Body:
    try:
        return _decode_body(body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        if _SURROGATE.search(body) is None:
            raise
        # JavaScript cuts emoji in half, which is JSON all the same (RFC 8259 section 8.2).
        return _decode_body(_SURROGATE.sub(b"\\\\u0020", body))


def _choices(parsed: _Body) -> int:
    if bytes(parsed.prompt).startswith(b"["):
        return COUNTLESS
    n = bytes(parsed.n)
    if n in (b"", b"null"):
        return 1
    return int(n) if re.fullmatch(rb"[1-9][0-9]{0,7}", n) else COUNTLESS  # however else it is spelled (2.0, 2e0)


def _most_tokens(parsed: _Body) -> int | None:
    limits = (parsed.max_tokens, parsed.max_completion_tokens, parsed.max_output_tokens)
    stated = [number for raw in limits if (number := _number(raw)) is not None]
    each = max(_number(parsed.n) or 1, _number(parsed.best_of) or 1)
    return max(stated) * each * _prompts(bytes(parsed.prompt)) if stated else None


def _number(raw: Raw) -> int | None:
    text = bytes(raw)
    return int(text[:18]) if text.isdigit() else None


def _prompts(prompt: bytes) -> int:
    """How many prompts a legacy completion has; one may be a list of tokens."""
    if not prompt.startswith(b"["):
        return 1
    try:
        prompts = _decode_list(prompt)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return 1
    return sum(bytes(one)[:1] in (b'"', b"[") for one in prompts) or 1


def _model(raw: bytes) -> str | None:
    if raw in (b"", b"null", b'""'):
        return None
    try:
        name = _decode_name(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise _no_model(f"model is {_kind(raw)}; it takes the name of a model") from None
    return checked_model(name)


def form_model(value: bytes | None) -> str | None:
    """The model in a form's field, as text; None where it is missing or empty.

    Raises:
        RequestError: no model is called so.
    """
    return checked_model(value.decode("utf-8", "replace")) if value else None


def checked_model(name: str) -> str:
    """The name of a model, as a caller gives it.

    Raises:
        RequestError: no model is called so.
    """
    if not name.isprintable() or len(name.encode("utf-8", "replace")) > MAX_MODEL_BYTES:
        raise _no_model("model holds a character that no name has, or is too long; it takes the name of a model")
    return name


def _no_model(message: str) -> RequestError:
    return RequestError(message, param="model", code="invalid_model")


def _kind(value: bytes) -> str:
    start = value.lstrip()[:1]
    return "a number" if re.fullmatch(rb"[-0-9]", start) else _WORD.get(start, "null")
