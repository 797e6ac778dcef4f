"""The JSON answer that the events of a chat or completion stream stand for. Pure.

What is known of a chunk is put together as OpenAI means it; what is not known by what it is: texts and lists go on,
the items of a list that have an `index` each for itself, objects member by member, and anything else is the last that
was said. Null adds nothing. What can be meant in two ways is not put together at all.
"""

from typing import Any

from chat_api.terms import Text, read_chunks, write_json

CHUNK_OF = {"chat.completion": "chat.completion.chunk", "text_completion": "text_completion"}
PROMPT_FILTERS = ("prompt_filter_results", "prompt_annotations")  # the latter in 2023
PADDING = "obfuscation"
_ONCE = frozenset({"id", "name", "role", "type"})  # said once, or the same each time; never in pieces
_FILTER_RESULTS = frozenset({"content_filter_results", "content_filter_result"})
_EMPTY = ("", None)


class _TwoMeaningsError(Exception):
    """The stream says something that can be put together in more than one way."""


def assembled(events: bytes) -> bytes | None:
    """The JSON answer that all events of a stream stand for, `[DONE]` included.

    What it took is in it if the stream has told. Whether the answer is complete is not asked here, see `keepable`.

    Returns:
        None where the stream has no end, is none of chunks with choices, tells of an error, or is ambiguous.
    """
    chunks = read_chunks(events)
    if not chunks:
        return None
    try:
        answer = _Answer()
        for chunk in chunks:
            answer.take(chunk)
        return write_json(answer.whole())
    except (_TwoMeaningsError, ValueError, RecursionError):
        return None


class _Answer:
    """An answer that grows by its chunks."""

    def __init__(self) -> None:
        self._members: dict[str, Any] = {}
        self._filters: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self._usage: dict[str, Any] | None = None
        self._last: dict[str, Any] = {}
        self._is_chat = self._is_text = False

    def take(self, chunk: dict[str, Any]) -> None:
        """Add what a chunk says."""
        choices = chunk.pop("choices", None)
        usage = chunk.pop("usage", None)
        chunk.pop(PADDING, None)
        if usage is not None:
            self._usage = usage
        if chunk != self._last:  # else it repeats what all say
            self._last = chunk
            self._take_members(chunk)
        if choices:
            if type(choices) is not list:
                raise _TwoMeaningsError
            for choice in choices:
                self._take_choice(choice)

    def whole(self) -> dict[str, Any]:
        """The answer: its members in alphabetical order, as Azure has them."""
        if not self._choices or self._is_chat == self._is_text:
            raise _TwoMeaningsError
        kind = "chat.completion" if self._is_chat else "text_completion"
        if self._members.get("object") not in (*_EMPTY, CHUNK_OF[kind]):
            raise _TwoMeaningsError
        choices = [self._whole_choice(index) for index in sorted(self._choices)]
        members = {**self._members, **self._filters, "choices": choices, "object": kind}
        if self._usage is not None:
            members["usage"] = self._usage
        return dict(sorted(members.items()))

    def _take_members(self, chunk: dict[str, Any]) -> None:
        for name, value in chunk.items():
            if name in PROMPT_FILTERS:
                self._filters[name] = _of_prompts(self._filters.get(name), value)
            elif not _is_empty(value) or _is_empty(self._members.get(name)):  # the filter's own chunks have them empty
                self._members[name] = value

    def _take_choice(self, choice: Any) -> None:
        if type(choice) is not dict or type(index := choice.pop("index", None)) is not int or "message" in choice:
            raise _TwoMeaningsError
        known = self._choices.get(index)
        if known is None:
            known = self._choices[index] = {"finish_reason": None}
        for name, value in choice.items():
            if name == "delta":
                self._is_chat = True
                _take_delta(known.setdefault("message", {}), value)
            elif name == "text":
                self._is_text = True
                known["text"] = _merged(known.get("text"), value)
            elif name == "finish_reason" or name in _FILTER_RESULTS:
                known[name] = _last_of(known.get(name), value)
            elif name == "logprobs":
                known[name] = _merged(known.get(name), value, by_index=False)
            else:
                known[name] = _once(known.get(name), value) if type(value) is str else _merged(known.get(name), value)

    def _whole_choice(self, index: int) -> dict[str, Any]:
        choice = self._choices[index]
        choice["index"] = index
        if self._is_chat:
            calls = choice.setdefault("message", {}).get("tool_calls")
            if calls:
                calls.sort(key=lambda call: call["index"])
                for call in calls:
                    del call["index"]
        else:
            choice.setdefault("text", "")
        return dict(sorted(choice.items()))


def _take_delta(message: dict[str, Any], delta: Any) -> None:
    if delta is None:
        return
    if type(delta) is not dict:
        raise _TwoMeaningsError
    for name, value in delta.items():
        old = message.get(name)
        if name == "tool_calls" and value:
            if type(value) is not list or any(type(call) is not dict or not _is_indexed(call) for call in value):
                raise _TwoMeaningsError
            message[name] = _merged(old or [], value)
        elif name in _ONCE:
            message[name] = _once(old, value)
        else:
            message[name] = _merged(old, value)


def _merged(old: Any, new: Any, *, by_index: bool = True) -> Any:
    """What two values are together, the former of which may be changed by it."""
    if new is None or old is None:
        return old if new is None else new
    if type(new) is str:
        if type(old) is Text:
            old.pieces.append(new)
            return old
        if type(old) is str:
            return Text(old, new)
    elif type(new) is dict and type(old) is dict:
        for name, value in new.items():
            known = old.get(name)
            old[name] = _once(known, value) if name in _ONCE and by_index else _merged(known, value, by_index=by_index)
        return old
    elif type(new) is list and type(old) is list:
        if by_index and new and all(map(_is_indexed, new)) and all(map(_is_indexed, old)):
            return _extended(old, new)
        old.extend(new)
        return old
    elif not isinstance(old, str | Text | dict | list) and not isinstance(new, dict | list):
        return new  # numbers and booleans
    raise _TwoMeaningsError


def _extended(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A list with the items of another: each with the one of the same index, or at the end."""
    for item in new:
        same = next((one for one in old if one["index"] == item["index"]), None)
        if same is None:
            old.append(item)
        else:
            _merged(same, item)
    return old


def _of_prompts(old: Any, new: Any) -> Any:
    """What the filter says of each prompt: the last that it said, whether it says it of all at once or one by one."""
    if type(old) is not list or type(new) is not list:
        return old if new is None else new
    said = {item.get("prompt_index") for item in new if type(item) is dict}
    return [one for one in old if type(one) is not dict or one.get("prompt_index") not in said] + new


def _last_of(old: Any, new: Any) -> Any:
    """The last that was said; of an object, of each of its members."""
    if type(old) is dict and type(new) is dict:
        return {**old, **new}
    return old if new is None else new


def _once(old: Any, new: Any) -> Any:
    if _is_empty(new):
        return new if old is None else old
    if _is_empty(old) or old == new:
        return new
    raise _TwoMeaningsError


def _is_empty(value: Any) -> bool:
    return value is None or value == "" or (type(value) is int and value == 0)


def _is_indexed(item: Any) -> bool:
    return type(item) is dict and type(item.get("index")) is int
