"""An exchange into the record of it that is written down: one JSON object, whatever the bytes are.

Nothing is decoded that can stay as it came: messages and parameters go from the request into the record as they are.
"""

import functools
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import Raw, Struct

from chat_api.assembling import Assembled, assembled
from chat_api.chunks import NOTHING, UNREADABLE, read_object, said
from chat_api.conversation_facts import facts_of_answer, facts_of_parameters, facts_of_usage
from chat_api.exchanges import Exchange
from chat_api.response_events import Told, answer_of, assembled_response
from chat_api.shortening import shortened

# Members whose values are never a person's; a deployment's `name@host` would pass for a mail address.
OWN_WORDS = frozenset({"time", "operation", "deployment", "ended", "cache"})
_WORDS = ("messages", "prompt", "input", "instructions")
_FACTS = ("key", "address", "path", "operation", "model", "deployment", "status")
_facts_of = attrgetter(*_FACTS)
_APART = ("model", "stream")  # which the record has in other members


class _Answer(Struct):
    choices: Raw = NOTHING
    prompt_filter_results: Raw = NOTHING
    usage: Raw = NOTHING
    error: Raw = NOTHING


_decode_request = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_response = msgspec.json.Decoder(Told).decode
_encode = msgspec.json.encode


def line_of(exchange: Exchange) -> bytes:
    """The record of an exchange as a line of JSON, without its end. It never raises, whatever the bytes are."""
    try:
        line = _encode(record_of(exchange))
    except (UnicodeEncodeError, *UNREADABLE):  # it can be read, but not be written
        line = _encode(bare_record(exchange))
    if line.find(b"\n") >= 0 or line.find(b"\r") >= 0:  # between the members of what came in lines
        try:
            line = msgspec.json.format(line, indent=-1)
        except UNREADABLE:
            line = _encode(bare_record(exchange))
    if not line.isascii():
        try:
            line.decode()
        except UnicodeDecodeError:
            line = line.decode("utf-8", "replace").encode()
    return line


def record_of(exchange: Exchange) -> dict[str, Any]:
    """The record of an exchange, absent members left out; values that stay as they came are `msgspec.Raw`."""
    record: dict[str, Any] = {"time": time_of(exchange.at), "request_id": exchange.request_id}
    for name, value in zip(_FACTS, _facts_of(exchange), strict=True):
        if value:
            record[name] = value
    record["stream"] = exchange.is_stream
    if exchange.request:
        _put_request(record, exchange)
    told = _answer(exchange)
    if answer := told.answer if exchange.has_words else facts_of_answer(told.answer):
        record["answer"] = answer
    if usage := said(told.usage):
        record["usage"] = told.usage if exchange.has_words else facts_of_usage(usage)
    _put_end(record, exchange, said(told.error))
    return record


def bare_record(exchange: Exchange) -> dict[str, Any]:
    """What is written of an exchange where the rest cannot be: nothing in it is what a caller wrote."""
    record: dict[str, Any] = {"time": time_of(exchange.at)}
    for name in ("key", "operation", "deployment", "status"):
        if value := getattr(exchange, name):
            record[name] = value
    record |= {"stream": exchange.is_stream, "parameters": _unreadable(exchange.request)}
    if size := sum(map(len, exchange.answer)):
        record["answer"] = {"unreadable_bytes": size}
    _put_end(record, exchange, b"")
    record.pop("error", None)
    return record


def time_of(seconds: float) -> str:
    """A time in seconds since 1970 as it stands in a record: "2026-11-21T10:00:00.123Z"."""
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    return f"{_second(whole)}.{thousandths:03d}Z"


@functools.lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


def _to_microseconds(seconds: float) -> float:
    return int(seconds * 1e6 + 0.5) / 1e6  # a third of what `round` takes


def _unreadable(body: bytes) -> dict[str, int]:
    return {"unreadable_bytes": len(body)}


def _put_request(record: dict[str, Any], exchange: Exchange) -> None:
    try:
        request = _decode_request(shortened(exchange.request))
    except UNREADABLE:
        record["parameters"] = _unreadable(exchange.request)
        return
    words = {name: request.pop(name) for name in _WORDS if name in request}
    for name in _APART:
        request.pop(name, None)
    if not exchange.has_words:
        request, words = facts_of_parameters(request), {}
    if request:
        record["parameters"] = request
    record |= words


def _answer(exchange: Exchange) -> Assembled:
    """What was answered: to a plain call, or by all events that came."""
    pieces = exchange.answer
    body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    if not body:
        return Assembled({})
    is_response = exchange.operation == "responses"
    if exchange.is_stream:
        told = assembled_response(body) if is_response else assembled(body)
    else:
        told = _plain(body, is_response=is_response)
    if said(told.error):
        told.answer["error"] = told.error  # which says what the filters found
    elif not told.answer:
        told.answer = _unreadable(body)
    return told


def _plain(body: bytes, *, is_response: bool) -> Assembled:
    body = shortened(body)
    try:
        if is_response:
            return answer_of(_decode_response(body))
        answer = _decode_answer(body)
    except UNREADABLE:
        return Assembled({})
    told: dict[str, Any] = {}
    if said(answer.choices):
        told["choices"] = answer.choices
    if said(answer.prompt_filter_results):
        told["prompt_filter_results"] = answer.prompt_filter_results
    return Assembled(told, answer.usage, answer.error)


def _put_end(record: dict[str, Any], exchange: Exchange, error: bytes) -> None:
    timings = {"seconds": _to_microseconds(exchange.seconds)}
    if exchange.first_byte_seconds is not None:
        timings["first_byte_seconds"] = _to_microseconds(exchange.first_byte_seconds)
    record["timings"] = timings
    record["attempts"] = exchange.attempts
    if exchange.cache:
        record["cache"] = exchange.cache
    record["ended"] = exchange.ended
    code, message = exchange.error_code, exchange.error
    if error and not code:
        told = read_object(error)
        code, message = str(told.get("code") or told.get("type") or ""), message or str(told.get("message") or "")
    if code or message:
        record["error"] = {"code": code, "message": message} if exchange.has_words else {"code": code}
