"""openai-forward's chat log: its lines into halves, the halves into records. Pure; nothing is ever evaluated.

It wrote two lines for an exchange: what was asked, and, when that had been answered, the answer, both with the same
`uid`. Each is a Python literal: the text of a dict. Lines that begin with loguru's time and level are taken as well.
"""

import ast
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any, Final

from chat_api.conversations import Record, Unreadable

HELD_LINES: Final = 10_000  # how many requests wait for their answers, and how long their lines are together
HELD_BYTES: Final = 8 << 20
MAX_LITERAL: Final = 16 << 20
MAX_MEMBERS: Final = 200_000  # of one literal: a tree of them takes some hundred bytes each
TIME_FORM: Final = "%Y-%m-%d %H:%M:%S"

_HEAD = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \| [A-Z]+ *\| [^{]{1,300}? - (?=\{')")
# A string that does not end goes to the end: the search never begins again within it.
_STRINGS = re.compile(rb"""'[^'\\]*(?:\\.[^'\\]*)*(?:'|\\?\Z)|"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)""", re.DOTALL)
_MEMBER = re.compile(rb"[\[{(,:]")
_NOT_PARAMETERS = frozenset(
    {"messages", "prompt", "model", "stream", "ip", "forwarded-for", "uid", "caching", "datetime"}
)


@dataclass(frozen=True, slots=True)
class Half:
    """One of the two lines of an exchange."""

    uid: str
    members: Mapping[str, Any]
    is_answer: bool
    size: int = 0  # of its line, in bytes

    def at(self, zone: tzinfo | None) -> float | None:
        """When it was asked, in seconds since 1970; None for an answer, which does not say."""
        return _seconds(self.members.get("datetime"), zone)


def parse_literal(line: bytes) -> Mapping[str, Any] | None:
    """The dict that a line spells as Python does; None for a line that does not begin as one.

    Raises:
        Unreadable: it begins as one, and is none, or more than is taken.
    """
    head = _HEAD.match(line)
    text = line[head.end() :] if head else line
    if not text.startswith(b"{'"):
        return None
    if len(text) > MAX_LITERAL or sum(1 for _ in _MEMBER.finditer(_STRINGS.sub(b"", text))) > MAX_MEMBERS:
        raise Unreadable("it is a Python literal of more than is read")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python does not know, in what is no literal of its own
            value = ast.literal_eval(text.decode())
        made = json.loads(json.dumps(value, allow_nan=False))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise Unreadable("it is no Python literal; it may be torn") from None
    if not isinstance(made, dict):
        raise Unreadable("it is no dict")
    return made


def half_of(members: Mapping[str, Any], size: int = 0) -> Half | None:
    """The half that a dict is; None if it is none."""
    uid = members.get("uid")
    if not isinstance(uid, str):
        return None
    if "messages" in members or "prompt" in members:
        return Half(uid, members, is_answer=False, size=size)
    if "assistant" in members or "text" in members:
        return Half(uid, members, is_answer=True, size=size)
    return None


class Joiner:
    """Joins halves by their uid; records come in the order in which they were asked, as openai-forward has them."""

    def __init__(self, zone: tzinfo | None = None, held_lines: int = HELD_LINES, held_bytes: int = HELD_BYTES) -> None:
        self._zone = zone
        self._lines, self._bytes = held_lines, held_bytes
        self._waiting: dict[str, tuple[Half, Half | None]] = {}
        self._size = 0
        self.lonely = 0  # answers whose request is nowhere

    def add(self, half: Half) -> Iterator[Record]:
        """Take a half; gives the records that are then whole, and those that cannot be waited for any longer."""
        asked, answer = self._waiting.get(half.uid, (None, None))
        if half.is_answer and asked is None:
            self.lonely += 1
            return
        self._size += half.size
        if half.is_answer and asked is not None:
            self._size -= answer.size if answer else 0
            self._waiting[half.uid] = (asked, half)
        else:
            self._size -= asked.size if asked else 0
            self._waiting[half.uid] = (half, answer)
        while self._waiting and self._is_due():
            yield self._first()

    def rest(self) -> Iterator[Record]:
        """Those that are left at the end, answered or not."""
        while self._waiting:
            yield self._first()

    def _is_due(self) -> bool:
        _, answer = next(iter(self._waiting.values()))
        return answer is not None or len(self._waiting) > self._lines or self._size > self._bytes

    def _first(self) -> Record:
        asked, answer = self._waiting.pop(next(iter(self._waiting)))
        self._size -= asked.size + (answer.size if answer else 0)
        return joined(asked, answer, self._zone)


def joined(asked: Half, answer: Half | None, zone: tzinfo | None) -> Record:
    """The record of an exchange; its times were written in a zone, None for this machine's."""
    of = asked.members
    is_chat = "messages" in of
    at = asked.at(zone)
    members: dict[str, Any] = {
        "time": None if at is None else datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z"),
        "request_id": asked.uid,
        "address": of.get("ip") or of.get("forwarded-for"),
        "operation": "chat/completions" if is_chat else "completions",
        "model": of.get("model"),
        "status": None if answer is None else 200,  # it logged no answer of another status
        "stream": of.get("stream"),
    }
    members = {name: value for name, value in members.items() if value is not None}
    # It gives None to what was not asked for; only a temperature of None tells something: it was asked for as null.
    kept = {name: value for name, value in of.items() if name not in _NOT_PARAMETERS}
    members["parameters"] = {name: value for name, value in kept.items() if value is not None or name == "temperature"}
    if is_chat:
        messages = of["messages"]
        members["messages"] = [_message(message) for message in messages] if isinstance(messages, list) else messages
    else:
        members["prompt"] = of["prompt"]
    if answer is not None:
        members["answer"] = {"choices": [_choice(answer.members)]}
        members["ended"] = "complete"
    return Record(members)


def _message(message: object) -> object:
    """A message as OpenAI has it: early versions logged `{role: content}`."""
    if isinstance(message, dict) and len(message) == 1 and not message.keys() & {"role", "content"}:
        ((role, content),) = message.items()
        return {"role": role, "content": content}
    return message


def _choice(members: Mapping[str, Any]) -> Mapping[str, Any]:
    if "assistant" not in members:
        return {"index": 0, "text": members["text"]}
    message: dict[str, Any] = {"role": "assistant", "content": members["assistant"]}
    for flag, name in (("is_function_call", "function_call"), ("is_tool_calls", "tool_calls")):
        if members.get(flag):
            message = {"role": "assistant", "content": None, name: members["assistant"]}
    return {"index": 0, "message": message}


def _seconds(time: object, zone: tzinfo | None) -> float | None:
    try:
        when = datetime.strptime(str(time), TIME_FORM)
        return (when.replace(tzinfo=zone) if zone else when.astimezone()).timestamp()
    except (ValueError, OverflowError):
        return None
