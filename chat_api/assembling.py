"""The chunks of a stream into the answer that they tell, however much of it came, and however broken it is.

What is put together is what a plain answer would have had, as far as it was said.
"""

from typing import Any

from msgspec import Raw, Struct

from chat_api.chunks import NOTHING, Call, Chunk, Delta, chunks_of, read_object, said
from chat_api.shortening import short_text

_SEVERITIES = ("safe", "low", "medium", "high")


class Assembled(Struct):
    """What a stream told: its answer, what it took, and its error; {}, and no bytes, for what it did not tell."""

    answer: dict[str, Any]
    usage: Raw = NOTHING
    error: Raw = NOTHING


class _Saying:
    """One choice, as far as it was said."""

    __slots__ = ("calls", "content", "filters", "finish_reason", "more", "refusal", "role", "text")

    def __init__(self) -> None:
        self.role: str | None = None
        self.content: list[str] | None = None  # pieces; None where there is none at all
        self.refusal: list[str] = []
        self.text: list[str] | None = None
        self.calls: dict[int, dict[str, Any]] = {}
        self.more: dict[str, Any] = {}
        self.finish_reason: str | None = None
        self.filters: dict[bytes, None] = {}  # each once, in their order

    def take(self, delta: Delta) -> None:
        if delta.content is not None:
            self.content = self.content or []
            self.content.append(delta.content)
        if delta.role:
            self.role = delta.role
        if delta.refusal:
            self.refusal.append(delta.refusal)
        if delta.tool_calls:
            for number, call in enumerate(delta.tool_calls):
                self._take_call(call, number)
        if delta.more:
            _add(self.more, delta.more)

    def _take_call(self, call: Call, number: int) -> None:
        so_far = self.calls.setdefault(call.index if call.index is not None else number, {"arguments": []})
        for name in ("id", "type"):
            so_far[name] = so_far.get(name) or getattr(call, name)
        if call.function is not None:
            so_far["name"] = so_far.get("name") or call.function.name
            if call.function.arguments:
                so_far["arguments"].append(call.function.arguments)

    def told(self, index: int) -> dict[str, Any]:
        """The choice as it would be in a plain answer."""
        choice: dict[str, Any] = {"index": index}
        if self.text is not None:
            choice["text"] = joined(self.text)
        else:
            choice["message"] = self._message()
        choice["finish_reason"] = self.finish_reason
        if self.filters:
            choice["content_filter_results"] = worst_of(list(self.filters))
        return choice

    def _message(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": self.role or "assistant"}
        message["content"] = None if self.content is None else joined(self.content)
        if self.calls:
            calls = [self.calls[index] for index in sorted(self.calls)]
            if message["content"] == "":
                message["content"] = None  # as in a plain answer
            message["tool_calls"] = [
                {
                    "id": call.get("id"),
                    "type": call.get("type") or "function",
                    "function": {"name": call.get("name"), "arguments": joined(call["arguments"])},
                }
                for call in calls
            ]
        if self.refusal:
            message["refusal"] = joined(self.refusal)
        return message | _joined(self.more)


class _Telling:
    """A stream of chunks, as far as it came."""

    def __init__(self) -> None:
        self._sayings: dict[int, _Saying] = {}
        self._prompt_filters = self._usage = self._error = NOTHING

    def take(self, chunk: Chunk) -> None:
        for choice in chunk.choices or ():
            index = choice.index or 0
            saying = self._sayings.get(index)
            if saying is None:
                saying = self._sayings[index] = _Saying()
            if choice.delta is not None:
                saying.take(choice.delta)
            elif choice.text is not None:
                saying.text = saying.text or []
                saying.text.append(choice.text)
            if choice.finish_reason:
                saying.finish_reason = choice.finish_reason
            if choice.content_filter_results is not NOTHING and (filters := said(choice.content_filter_results)):
                saying.filters[filters] = None
        # Most chunks say nothing of these: to ask for that first takes a third less time.
        if chunk.usage is not NOTHING and said(chunk.usage):
            self._usage = chunk.usage
        if chunk.prompt_filter_results is not NOTHING and said(chunk.prompt_filter_results):
            self._prompt_filters = chunk.prompt_filter_results
        if chunk.error is not NOTHING and said(chunk.error):
            self._error = chunk.error

    def told(self) -> Assembled:
        answer: dict[str, Any] = {}
        if self._sayings:
            answer["choices"] = [self._sayings[index].told(index) for index in sorted(self._sayings)]
        if said(self._prompt_filters):
            answer["prompt_filter_results"] = self._prompt_filters
        return Assembled(answer, self._usage, self._error)


def assembled(events: bytes) -> Assembled:
    """What the events of a chat, or of a legacy completion, told. It never raises."""
    telling = _Telling()
    for chunk in chunks_of(events):
        telling.take(chunk)
    return telling.told()


def _add(so_far: dict[str, Any], more: dict[str, Any], *, within: bool = True) -> None:
    """Add what only some servers say (`reasoning_content`, `audio`): texts in pieces, of anything else the last."""
    for name, value in more.items():
        if isinstance(value, str) and isinstance(so_far.get(name, []), list):
            so_far.setdefault(name, []).append(value)
        elif within and isinstance(value, dict) and isinstance(so_far.get(name, {}), dict):
            _add(so_far.setdefault(name, {}), value, within=False)
        elif value is not None:
            so_far[name] = (value,)


def _joined(more: dict[str, Any]) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for name, value in more.items():
        if isinstance(value, dict):
            whole[name] = _joined(value)
        else:
            whole[name] = short_text(joined(value)) if isinstance(value, list) else value[0]
    return whole


def joined(pieces: list[str]) -> str:
    """Pieces of a text, as one that can be written."""
    text = "".join(pieces)
    try:
        text.encode()
    except UnicodeEncodeError:  # halves of surrogate pairs: two make a letter, one is told as what it is
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def worst_of(filters: list[bytes]) -> dict[str, Any]:
    """What Azure's filter found in all parts of an answer: of each category the worst."""
    worst: dict[str, Any] = {}
    for one in filters:
        for category, found in read_object(one).items():
            if category not in worst or _badness(found) > _badness(worst[category]):
                worst[category] = found
    return worst


def _badness(found: Any) -> tuple[bool, int]:
    if not isinstance(found, dict):
        return False, -1
    severity = found.get("severity")
    stops = found.get("filtered") is True or found.get("detected") is True
    return stops, _SEVERITIES.index(severity) if severity in _SEVERITIES else 0
