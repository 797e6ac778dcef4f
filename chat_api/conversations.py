"""Records of the conversation log: a line into a record, and what it says in words. Pure.

A record is read as it stands: whatever a member holds, nothing here fails over it, and nothing of it is dropped.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

# What drives a terminal, or turns the order of what is seen: C0 but tab and newline, DEL, C1, bidi controls, line and
# paragraph separators, invisible tags, lone surrogates (which no file can hold).
_HARMFUL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_FIRST_YEAR, _LAST_YEAR = 1971, 9000  # beyond them a time has no place in some zone's calendar
_MARKS = frozenset({"request_id", "operation", "ended"})  # one of which each record has
_MAX_DIGITS = 4000  # of a whole number; Python reads no more than 4300
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?[^,]{0,100},")


class Unreadable(ValueError):
    """A line that is no record; the message says why, without any of its words."""


@dataclass(frozen=True, slots=True)
class Record:
    """One exchange, as the log has it."""

    members: Mapping[str, Any]
    line: bytes = b""  # that it was read from; b"" for one that was made of other lines

    @property
    def at(self) -> float | None:
        """When it began, in seconds since 1970; None where it does not say."""
        return seconds_of(self.members.get("time"))

    def text(self, name: str) -> str:
        """A member in words; "" for none."""
        value = self.members.get(name)
        return "" if value is None else value if isinstance(value, str) else compact(value)

    def within(self, name: str) -> Mapping[str, Any]:
        """A member that is an object; an empty one where it is none."""
        return _object(self.members.get(name))


class Said(NamedTuple):
    """What somebody said: a message of the request, or an answer."""

    role: str
    text: str


def parse_record(line: bytes) -> Mapping[str, Any]:
    """The JSON object that a line is.

    Raises:
        Unreadable: it is none.
    """
    try:
        members = _DECODER.decode(line.decode())
    except RecursionError:
        raise Unreadable("it is nested too deeply") from None
    except ValueError:
        raise Unreadable("it is no JSON; it may be torn") from None
    if not isinstance(members, dict):
        raise Unreadable("it is no JSON object")
    return members


def is_record(members: Mapping[str, Any]) -> bool:
    """Whether an object is a record of this server's log."""
    return isinstance(members.get("time"), str) and not _MARKS.isdisjoint(members)


def _number(text: str) -> float | str:
    """A number; its text where it is JSON, but too large for a number of Python's."""
    number = float(text)
    return text if math.isinf(number) else number


def _whole_number(text: str) -> int | str:
    return int(text) if len(text) <= _MAX_DIGITS else text


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


_DECODER = json.JSONDecoder(parse_float=_number, parse_int=_whole_number, parse_constant=_no_number)


def seconds_of(time: object) -> float | None:
    """An ISO 8601 time in seconds since 1970, in UTC where it names no zone; None for anything else."""
    try:
        when = datetime.fromisoformat(time) if isinstance(time, str) else None
    except ValueError:
        return None
    if when is None or not _FIRST_YEAR <= when.year <= _LAST_YEAR:
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def time_text(record: Record) -> str:
    """When it began, for people, in UTC; as it stands where it is no time."""
    at = record.at
    if at is None:
        return one_line(record.text("time")) or "-"
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def harmless(text: str) -> str:
    """A text that drives no terminal: control characters and bidi overrides are spelled out; lines stay lines."""
    return _HARMFUL.sub(lambda match: match[0].encode("unicode_escape").decode(), text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """The same in one line."""
    return harmless(text).replace("\n", "\\n").replace("\t", " ")


def compact(value: object) -> str:
    """A value as JSON in one line."""
    return json.dumps(value, ensure_ascii=False, default=str)


def asked(record: Record) -> Iterator[Said]:
    """What was asked: messages, a prompt, or the input of `responses`."""
    members = record.members
    if (instructions := members.get("instructions")) is not None:
        yield Said("instructions", words(instructions))
    for message in _list(members.get("messages")):
        yield _said(message)
    if (prompt := members.get("prompt")) is not None:
        yield Said("prompt", words(prompt))
    given = members.get("input")
    if isinstance(given, list):
        for item in given:
            yield _said(item)
    elif given is not None:
        yield Said("user", words(given))
    yield from _unread("request", record.within("parameters"))


def answered(record: Record) -> Iterator[Said]:
    """What was answered, by choice, with what was called and refused; nothing where there was no answer."""
    answer = record.within("answer")
    choices = _list(answer.get("choices"))
    for choice in map(_object, choices):
        message, endings = choice.get("message"), list(_endings(choice))
        if message is None and choice.get("text") is None and not endings:
            continue  # its words are not logged
        text = words(choice.get("text")) if message is None else _said(message).text
        role = f"answer {choice.get('index')}" if len(choices) > 1 else "answer"
        yield Said(role, "\n".join(filter(None, (text, *endings))))
    output = answer.get("output")
    if isinstance(output, list) and output:
        yield Said("answer", "\n".join(filter(None, (_said(item).text for item in output))))
    elif answer.get("output_text") is not None:
        yield Said("answer", words(answer["output_text"]))
    yield from _unread("answer", answer)


def _unread(role: str, members: Mapping[str, Any]) -> Iterator[Said]:
    """What the record only tells the size of."""
    if type(size := members.get("unreadable_bytes")) is int:
        yield Said(role, f"[unreadable: {size} bytes]")


def _endings(choice: Mapping[str, Any]) -> Iterator[str]:
    """Why a choice ended, where that is worth a line, and what was filtered."""
    reason = choice.get("finish_reason")
    if reason not in (None, "stop", "tool_calls", "function_call"):
        yield f"[finished: {reason}]"
    filtered = filtered_names(choice.get("content_filter_results"))
    if filtered:
        yield f"[filtered: {', '.join(filtered)}]"


def filtered_names(results: object) -> list[str]:
    """The categories of a content filter's results in which something was filtered."""
    return [str(name) for name, result in _object(results).items() if _object(result).get("filtered") is True]


def finish_reasons(record: Record) -> list[str]:
    """Why each choice ended."""
    choices = map(_object, _list(record.within("answer").get("choices")))
    return [str(choice["finish_reason"]) for choice in choices if choice.get("finish_reason") is not None]


def tool_calls(record: Record) -> list[Mapping[str, Any]]:
    """What the answer called: the functions, each with `name` and `arguments`."""
    answer = record.within("answer")
    called: list[Mapping[str, Any]] = []
    for choice in map(_object, _list(answer.get("choices"))):
        called += functions_called(choice.get("message"))
    called += [
        {"name": item.get("name"), "arguments": item.get("arguments")}
        for item in map(_object, _list(answer.get("output")))
        if item.get("type") == "function_call"
    ]
    return called


def functions_called(message: object) -> list[Mapping[str, Any]]:
    """The functions that a message calls, in either of OpenAI's ways."""
    members = _object(message)
    single = members.get("function_call")
    calls = [_object(call) for call in _list(members.get("tool_calls"))]
    return ([single] if isinstance(single, dict) else []) + [
        _object(call.get("function") or call.get("custom") or call) for call in calls
    ]


def tokens(record: Record) -> tuple[object, object, object]:
    """How many tokens the prompt, the answer and both had; None where it does not say."""
    usage = record.within("usage")
    prompt = usage.get("prompt_tokens", usage.get("input_tokens"))
    completion = usage.get("completion_tokens", usage.get("output_tokens"))
    return prompt, completion, usage.get("total_tokens")


def _said(message: object) -> Said:
    """A message, or an item of `responses`, in words."""
    members = _object(message)
    kind = members.get("type")
    if isinstance(message, str):
        return Said("user", message)
    if kind == "function_call":
        return Said("assistant", _call(members, members.get("call_id")))
    if kind == "function_call_output":
        return Said(f"tool {members.get('call_id') or ''}".rstrip(), words(members.get("output")))
    if "role" not in members and not {"content", "text", "refusal"} & members.keys():
        return Said(str(kind or "message"), compact(message))
    calls = [_call(_object(members.get("function_call")), None)] if members.get("function_call") else []
    for call in map(_object, _list(members.get("tool_calls"))):
        calls.append(_call(_object(call.get("function") or call.get("custom") or call), call.get("id")))
    refusal = members.get("refusal")
    texts = (words(members.get("content")), f"[refused: {words(refusal)}]" if refusal else "", *calls)
    name = members.get("name") or members.get("tool_call_id")
    role = f"{members.get('role', 'assistant')}{f' {name}' if name else ''}"
    return Said(role, "\n".join(filter(None, texts)))


def _call(function: Mapping[str, Any], call_id: object) -> str:
    arguments = function.get("arguments", function.get("input", ""))
    return f"[calls {words(function.get('name'))}({words(arguments)}){f' as {call_id}' if call_id else ''}]"


def words(content: object) -> str:
    """Content in words: text as it is, other parts named."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, str | dict) for part in content):
        return "\n".join(part if isinstance(part, str) else _part(part) for part in content)
    return compact(content)


def _part(part: Mapping[str, Any]) -> str:
    text = part.get("text")
    if isinstance(text, str):
        return text
    if isinstance(part.get("refusal"), str):
        return f"[refused: {part['refusal']}]"
    kind = str(part.get("type") or "part")
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, dict) else image
    if not isinstance(url, str):
        return f"[{kind}]"
    found = _DATA_URL.match(url)
    return f"[{kind}: {found[1] or 'data'}, {len(url) - found.end()} characters]" if found else f"[{kind}: {url}]"


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
