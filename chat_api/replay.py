"""A kept answer in the form in which it is asked for: JSON as the events of a stream, with or without the usage. Pure.

The other way round is `assembly`, and the two agree: what is made into events here is put together to the same again.
"""

from collections.abc import Iterator
from typing import Any

from chat_api.assembly import CHUNK_OF, PADDING, PROMPT_FILTERS
from chat_api.sse import read_outline
from chat_api.terms import read_json, write_json

PIECE_CHARS = 32  # of a text, about: some words
MOST_PIECES = 256  # of a text: those of a longer one are longer
_USAGE = b'"usage"'
_END = b"data: [DONE]\n\n"
_NAMES: dict[str, Any] = {"created": 0, "id": "", "model": ""}  # which Azure leaves empty in its filter's own chunk
_FILTER_RESULTS = ("content_filter_results", "content_filter_result")


class _OtherShapeError(Exception):
    """The answer has a shape that no events are known for."""


def as_events(answer: bytes, *, include_usage: bool) -> list[bytes] | None:
    """A whole JSON answer as the events of a stream, in Azure's shape, `[DONE]` included.

    Args:
        answer: of a chat or a completion.
        include_usage: whether the stream is to tell what the answer took.

    Returns:
        None if they would not be put together to the same answer again, or the usage is asked for and not known.
    """
    try:
        members = read_json(answer)
        if type(members) is not dict:
            return None
        return _Events(members, include_usage).all()
    except (_OtherShapeError, ValueError, RecursionError):
        return None


def with_usage(events: bytes) -> bytes | None:
    """All events of a stream, for a caller who asked to be told what it took; None if it does not tell."""
    end = len(events)
    while (at := events.rfind(_USAGE, 0, end)) >= 0:
        begin = max(events.rfind(b"\n", 0, at), events.rfind(b"\r", 0, at)) + 1
        line, *_ = events[begin : events.find(b"\n", at)].splitlines()  # an event ends with one, or does not count
        outline = read_outline(line.removeprefix(b"data:"))
        if outline is not None and bytes(outline.usage).startswith(b"{"):
            return events
        end = begin
    return None


def pieces(text: str) -> Iterator[str]:
    """A text in pieces of some words, each but the first with its space before it, as a model tells them."""
    size = max(PIECE_CHARS, -(-len(text) // MOST_PIECES))
    start = 0
    while len(text) - start > size:
        end = text.rfind(" ", start + 1, start + size + 1)
        end = end if end > start else start + size
        yield text[start:end]
        start = end
    if text:
        yield text[start:]


class _Events:
    """The events of one answer.

    Raises:
        _OtherShapeError: see there.
    """

    def __init__(self, members: dict[str, Any], include_usage: bool) -> None:
        kind = members.get("object")
        self._choices = members.pop("choices", None)
        self._usage = members.pop("usage", None)
        self._include_usage = include_usage
        is_known = type(kind) is str and kind in CHUNK_OF and type(self._choices) is list and self._choices
        is_other = PADDING in members or members.get("error") or members.get("type") == "error"
        if not is_known or is_other or (include_usage and self._usage is None):
            raise _OtherShapeError
        self._is_chat = kind == "chat.completion"
        self._filters = {name: members.pop(name) for name in PROMPT_FILTERS if members.get(name)}
        self._members = {**members, "object": CHUNK_OF[str(kind)]}
        self._common = self._common_with(None)

    def all(self) -> list[bytes]:
        """The events of all choices, one choice after the other."""
        events = [self._of_filters()] if self._filters else []
        last = -1
        for choice in self._choices:
            if type(choice) is not dict or type(index := choice.get("index")) is not int or index <= last:
                raise _OtherShapeError
            last = index
            events += self._of_choice(choice)
        if self._include_usage:
            events.append(b'data: {"choices":[],' + self._common_with(self._usage))
        events.append(_END)
        return events

    def _common_with(self, usage: Any) -> bytes:
        """What stands in every chunk after its choices, and the end of the event."""
        members = {**self._members, "usage": usage} if self._include_usage else self._members
        return write_json(dict(sorted(members.items())))[1:] + b"\n\n"

    def _of_filters(self) -> bytes:
        if not self._is_chat:
            return b'data: {"choices":[],' + write_json(self._filters)[1:-1] + b"," + self._common
        names = {name: empty for name, empty in _NAMES.items() if name in self._members}
        return b"data: " + write_json({"choices": [], **names, "object": "", **self._filters}) + b"\n\n"

    def _of_choice(self, choice: dict[str, Any]) -> Iterator[bytes]:
        """First what the choice begins with, then what it says bit by bit, with what the filter says, and its end."""
        said = _chat_said(choice) if self._is_chat else _text_said(choice)
        if "finish_reason" not in choice or not choice.keys().isdisjoint(("message", "delta", "text")):
            raise _OtherShapeError
        results = {name: choice.pop(name) for name in _FILTER_RESULTS if name in choice}
        full = b'data: {"choices":[{' + _members(results)
        plain = b'data: {"choices":[{' + _members({n: {} if type(v) is dict else v for n, v in results.items()})
        under_way = {"finish_reason": None, "index": choice["index"]}
        has_logprobs = choice.pop("logprobs", self) is not self
        no_logprobs: dict[str, Any] = {"logprobs": None} if has_logprobs else {}
        end = _end_of({**under_way, **no_logprobs}) + self._common
        opening = plain if self._is_chat else full
        is_filter_told = False
        for says, logprobs in said:
            own_end = end if logprobs is None else _end_of({**under_way, "logprobs": logprobs}) + self._common
            yield opening + says + own_end
            is_filter_told = opening is full
            opening = full
        nothing = b'"delta":{}' if self._is_chat else b'"text":""'
        yield (plain if is_filter_told else full) + nothing + _end_of({**choice, **no_logprobs}) + self._common


def _members(members: dict[str, Any]) -> bytes:
    """The members of an object that has more of them."""
    return write_json(members)[1:-1] + b"," if members else b""


def _end_of(choice: dict[str, Any]) -> bytes:
    """The end of a choice, and of all choices of its chunk."""
    return b"," + write_json(choice)[1:] + b"],"


def _text_said(choice: dict[str, Any]) -> list[tuple[bytes, Any]]:
    """What a completion says, bit by bit, and the log probabilities that go with it: all of them with the first."""
    text, logprobs = choice.pop("text", None), choice.get("logprobs")
    if type(text) is not str:
        raise _OtherShapeError
    parts = list(pieces(text)) or [""]
    return [(b'"text":' + write_json(part), None if number else logprobs) for number, part in enumerate(parts)]


def _chat_said(choice: dict[str, Any]) -> list[tuple[bytes, Any]]:
    """The deltas of a message, and the log probabilities that go with each.

    The first has the role, and whatever is not known to come in pieces.
    """
    message = choice.pop("message", None)
    logprobs: Any = choice.get("logprobs")
    if type(message) is not dict:
        raise _OtherShapeError
    start = dict(message)
    later: list[tuple[bytes, Any]] = []
    for name in ("content", "refusal"):
        if text := message.get(name):
            if type(text) is not str:
                continue
            start[name] = "" if name == "content" else None
            tokens = _tokens(text, logprobs) if name == "content" else []
            if tokens:
                others = {"refusal": None} if "refusal" in logprobs else {}
                logprobs = {**logprobs, "content": []}
                later += (
                    (_delta(b'{"content":', token["token"], b"}"), {"content": [token], **others}) for token in tokens
                )
            else:
                later += ((_delta(b'{"%b":' % name.encode(), piece, b"}"), None) for piece in pieces(text))
    later += ((says, None) for says in _called(start))
    return [(b'"delta":' + write_json(dict(sorted(start.items()))), logprobs), *later]


def _called(start: dict[str, Any]) -> Iterator[bytes]:
    """The deltas of what is called, which is taken out of the first delta: who is called, then the arguments."""
    function: Any = start.get("function_call")
    if function and type(function) is dict and type(function.get("arguments")) is str:
        del start["function_call"]
        yield b'"delta":' + write_json({"function_call": {**function, "arguments": ""}})
        for piece in pieces(function["arguments"]):
            yield _delta(b'{"function_call":{"arguments":', piece, b"}}")
    calls = start.get("tool_calls")
    if not calls:
        return
    if type(calls) is not list:
        raise _OtherShapeError
    del start["tool_calls"]
    for index, call in enumerate(calls):
        if type(call) is not dict or "index" in call:
            raise _OtherShapeError
        function = call.get("function")
        told = function["arguments"] if type(function) is dict and type(function.get("arguments")) is str else ""
        first = {**call, "function": {**function, "arguments": ""}} if told else call
        yield b'"delta":' + write_json({"tool_calls": [{**first, "index": index}]})
        for piece in pieces(told):
            yield _delta(b'{"tool_calls":[{"function":{"arguments":', piece, b'},"index":%d}]}' % index)


def _delta(before: bytes, piece: str, after: bytes) -> bytes:
    return b'"delta":' + before + write_json(piece) + after


def _tokens(content: str, logprobs: Any) -> list[dict[str, Any]]:
    """The tokens of a text, each with its log probability; none if they are not the text, but for example its bytes."""
    tokens = logprobs.get("content") if type(logprobs) is dict else None
    if type(tokens) is not list or not all(type(one) is dict and type(one.get("token")) is str for one in tokens):
        return []
    return tokens if "".join(one["token"] for one in tokens) == content else []
