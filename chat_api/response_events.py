"""The events of a Responses stream into the response that they tell, however much of it came."""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from chat_api.assembling import Assembled, joined
from chat_api.chunks import NOTHING, UNREADABLE, events_of, read_object, said, to_raw
from chat_api.shortening import shortened

_FINAL = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")
# Where the pieces of an event go: a member of the item, and of which parts it is a list, or "" where it is a text.
_PIECES = {
    "response.output_text.delta": ("content", "output_text", "text", "content_index"),
    "response.refusal.delta": ("content", "refusal", "refusal", "content_index"),
    "response.reasoning_text.delta": ("content", "reasoning_text", "text", "content_index"),
    "response.reasoning_summary_text.delta": ("summary", "summary_text", "text", "summary_index"),
    "response.function_call_arguments.delta": ("arguments", "", "", ""),
    "response.mcp_call_arguments.delta": ("arguments", "", "", ""),
    "response.custom_tool_call_input.delta": ("input", "", "", ""),
    "response.code_interpreter_call_code.delta": ("code", "", "", ""),
}
_TYPE_OF = {"arguments": "function_call", "input": "custom_tool_call", "code": "code_interpreter_call"}


class Told(Struct):
    """What a response says that is written down."""

    output: Raw = NOTHING
    status: Raw = NOTHING
    incomplete_details: Raw = NOTHING
    content_filters: Raw = NOTHING
    usage: Raw = NOTHING
    error: Raw = NOTHING


class _Event(Struct):
    type: str | None = None
    response: Told | None = None


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_output = msgspec.json.Decoder(list[Any]).decode


def assembled_response(events: bytes) -> Assembled:
    """What the events of a Responses stream told. It never raises."""
    begin = events.rfind(b"\ndata:")
    try:
        last = _decode_event(shortened(events[begin + 6 :].strip()))
        if last.type in _FINAL and last.response is not None:
            return answer_of(last.response)
    except UNREADABLE:
        pass
    building = _Building()
    for data in events_of(events):
        building.take(read_object(shortened(data)))
    return building.told()


def answer_of(response: Told) -> Assembled:
    """What is written down of a response that is whole."""
    answer: dict[str, Any] = {}
    if output := bytes(response.output):
        answer = {"output": response.output, "output_text": _output_text(output)}
    for name in ("status", "incomplete_details", "content_filters"):
        if said(value := getattr(response, name)):
            answer[name] = value
    return Assembled(answer, response.usage, response.error)


def _output_text(output: bytes) -> str:
    try:
        items = _decode_output(output)
    except UNREADABLE:
        return ""
    return _text_of(items)


def _text_of(items: list[Any]) -> str:
    contents = (item.get("content") for item in items if isinstance(item, dict) and item.get("type") == "message")
    parts = (part for content in contents if isinstance(content, list) for part in content)
    texts = (part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "output_text")
    return joined([text for text in texts if isinstance(text, str)])


class _Building:
    """A response, as far as its events came."""

    def __init__(self) -> None:
        self._items: dict[int, dict[str, Any]] = {}
        self._whole: set[int] = set()
        self._pieces: dict[int, dict[tuple[str, str, str, int], list[str]]] = {}
        self._response: dict[str, Any] = {}
        self._error: Any = None

    def take(self, event: dict[str, Any]) -> None:
        kind, item, response = event.get("type"), event.get("item"), event.get("response")
        index = _index(event.get("output_index"))
        if isinstance(item, dict):
            self._items[index] = item
            if kind == "response.output_item.done":
                self._whole.add(index)
        elif isinstance(kind, str) and kind in _PIECES and isinstance(event.get("delta"), str):
            member, part, name, counted = _PIECES[kind]
            pieces = self._pieces.setdefault(index, {})
            pieces.setdefault((member, part, name, _index(event.get(counted))), []).append(event["delta"])
        elif isinstance(response, dict):
            self._response = response
        elif kind == "error" or isinstance(event.get("error"), dict):
            self._error = event.get("error") or event

    def told(self) -> Assembled:
        """The response as it would be in a plain answer."""
        answer: dict[str, Any] = {}
        if indexes := sorted({*self._items, *self._pieces}):
            output = [self._item(index) for index in indexes]
            answer = {"output": output, "output_text": _text_of(output)}
        response = self._response
        for name in ("status", "incomplete_details", "content_filters"):
            if response.get(name):
                answer[name] = response[name]
        return Assembled(answer, to_raw(response.get("usage")), to_raw(self._error or response.get("error")))

    def _item(self, index: int) -> dict[str, Any]:
        item = self._items.get(index, {})
        if index in self._whole:
            return item
        pieces = self._pieces.get(index, {})
        if not item:
            member = next(iter(pieces))[0]
            kind = "reasoning" if member == "summary" else _TYPE_OF.get(member, "message")
            item = {"type": kind, "role": "assistant"} if kind == "message" else {"type": kind}
        lists: dict[str, list[Any]] = {}
        for (member, part, name, _), told in sorted(pieces.items(), key=lambda pair: pair[0][3]):
            if part:
                lists.setdefault(member, []).append({"type": part, name: joined(told)})
            else:
                item = {**item, member: joined(told)}
        return {**item, **lists}


def _index(value: Any) -> int:
    return value if type(value) is int else 0
