"""Records of the conversation log in the forms that other programs and people read. Pure."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any, Final

import msgspec

from chat_api.conversation_failures import failure
from chat_api.conversations import (
    Record,
    answered,
    asked,
    compact,
    finish_reasons,
    functions_called,
    harmless,
    one_line,
    time_text,
    tokens,
    tool_calls,
)
from chat_api.forward_log import TIME_FORM

FORMS: Final = ("json", "openai-forward", "jsonl", "markdown", "csv")
COLUMNS: Final = (
    *("time", "request_id", "key", "address", "path", "operation", "model", "deployment", "status", "stream"),
    *("ended", "error_code", "error", "attempts", "cache", "seconds", "first_byte_seconds"),
    *("prompt_tokens", "completion_tokens", "total_tokens", "finish_reason", "messages", "answer", "tool_calls"),
    "parameters",
)
# What a cell begins with that a spreadsheet takes for a formula, in full width as well.
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")


@dataclass(frozen=True, slots=True)
class Form:
    """How records are written one after the other."""

    one: Callable[[Record], bytes | None]  # None for a record that the form has no place for
    head: bytes = b""
    first: bytes = b""  # before the first
    between: bytes = b""
    last: bytes = b""  # after the last, where there is one
    end: bytes = b""


def form_of(name: str, zone: tzinfo | None = None) -> Form:
    """A form by its name.

    Args:
        name: one of FORMS.
        zone: whose times openai-forward's form has, which names none; None for this machine's.
    """
    if name == "json":
        return Form(as_json, head=b"[", first=b"\n  ", between=b",\n  ", last=b"\n", end=b"]\n")
    if name == "openai-forward":
        return Form(lambda record: as_forward(record, zone), b"[", b"\n  ", b",\n  ", b"\n", b"]")
    if name == "jsonl":
        return Form(as_line)
    if name == "markdown":
        return Form(as_markdown, between=b"\n")
    return Form(as_row, head=_row(COLUMNS))


class Writing:
    """Records in a form, one after the other."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self.left_out = 0  # records that the form has no place for

    def pieces(self, records: Iterable[Record]) -> Iterator[bytes]:
        """What is to be written, piece by piece, as the records come."""
        form, is_first = self._form, True
        yield form.head
        for record in records:
            made = form.one(record)
            if made is None:
                self.left_out += 1
                continue
            yield (form.first if is_first else form.between) + made
            is_first = False
        yield (b"" if is_first else form.last) + form.end


def as_line(record: Record) -> bytes:
    """A line of JSON: that of the log, as it stands, if it was read from one."""
    return record.line.strip() + b"\n" if record.line else _dumped(record.members) + b"\n"


def as_json(record: Record) -> bytes:
    """An item of a JSON list, indented."""
    return _dumped(record.members, indent=2).replace(b"\n", b"\n  ")


def _dumped(members: Mapping[str, Any], indent: int | None = None) -> bytes:
    separators = (",", ": ") if indent else (",", ":")
    text = json.dumps(members, ensure_ascii=False, indent=indent, separators=separators)
    try:
        return text.encode()
    except UnicodeEncodeError:  # half of a pair of surrogates, which JSON can only spell
        return json.dumps(members, indent=indent, separators=separators).encode()


def as_forward(record: Record, zone: tzinfo | None = None) -> bytes | None:
    """An item of openai-forward's `chat_openai.json`, as its version 0.6.3 writes it; None for what is no whole chat.

    What is odd in it is its own: content that is no string is the text of Python's object, `None` included, and where
    one message has no content at all there are no messages.
    """
    messages, message = record.members.get("messages"), _first_message(record)
    if not messages or message is None:
        return None
    parameters, at = record.within("parameters"), record.at
    single = message.get("function_call")
    called: Any = functions_called(message)
    if called:
        called = single or (called[0] if len(called) == 1 else called)
    item = {
        "datetime": None if at is None else datetime.fromtimestamp(at, zone).strftime(TIME_FORM),
        "ip": record.members.get("address") or None,
        "model": record.members.get("model"),
        "temperature": parameters.get("temperature", 1),
        "messages": _forward_messages(messages),
        "functions": parameters.get("functions") or _functions_of(parameters.get("tools")),
        "is_function_call": bool(called),
        "assistant": _clean(called or message.get("content")),
    }
    # Half of a pair of surrogates anywhere else would have ended its conversion.
    item = json.loads(json.dumps(item, ensure_ascii=False).encode("utf-8", "ignore"))
    return msgspec.json.format(msgspec.json.encode(item), indent=2).replace(b"\n", b"\n  ")


def _first_message(record: Record) -> Mapping[str, Any] | None:
    """The answer that openai-forward logs: that of the first choice."""
    choices = record.within("answer").get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    return message if isinstance(message, dict) else None


def _forward_messages(messages: Any) -> list[dict[str, str]] | None:
    try:
        return [{str(message["role"]): _clean(message["content"])} for message in messages]
    except (KeyError, TypeError):
        return None


def _clean(value: object) -> str:
    return str(value).encode("utf-8", "ignore").decode()


def _functions_of(tools: object) -> list[Any] | None:
    """The functions among tools, which it did not know yet."""
    items = tools if isinstance(tools, list) else []
    return [tool["function"] for tool in items if isinstance(tool, dict) and "function" in tool] or None


def as_row(record: Record) -> bytes:
    """A row of CSV as RFC 4180 has it; safe to open in a spreadsheet."""
    timings, told, said = (
        record.within("timings"),
        failure(record.members.get("error")),
        failure(record.within("answer").get("error")),
    )
    prompt, completion, total = tokens(record)
    derived: dict[str, object] = {
        "error_code": told[0] or said[0] or None,
        "error": told[1] or said[1] or None,
        "seconds": timings.get("seconds"),
        "first_byte_seconds": timings.get("first_byte_seconds"),
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": total,
        "finish_reason": ", ".join(finish_reasons(record)),
        "messages": "\n\n".join(f"{said.role}: {said.text}" for said in asked(record)),
        "answer": "\n\n".join(said.text for said in answered(record)),
        "tool_calls": tool_calls(record) or None,
        "parameters": record.within("parameters") or None,
    }
    return _row(_cell(derived[name] if name in derived else record.members.get(name)) for name in COLUMNS)


def _row(cells: Iterable[str]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow(cells)
    return out.getvalue().encode()


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = harmless(value if isinstance(value, str) else compact(value))
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def as_markdown(record: Record) -> bytes:
    """A section of a Markdown page. What was said stands in fences that it cannot break out of."""
    model = record.text("model")
    lines = [f"## {time_text(record)}{f' {_span(model)}' if model else ''}", ""]
    lines += [f"- {name}: {_span(text)}" for name, text in _facts(record) if text]
    for said in (*asked(record), *answered(record)):
        lines += ["", f"### {_span(said.role)}", "", _fenced(harmless(said.text))]
    return ("\n".join(lines) + "\n").encode()


def _facts(record: Record) -> Iterator[tuple[str, str]]:
    names = ("request_id", "key", "address", "path", "operation", "deployment", "status", "attempts", "cache", "ended")
    for name in names:
        yield name, record.text(name)
    for name in ("error", "usage", "timings", "parameters"):
        value = record.members.get(name)
        yield name, compact(value) if value else ""
    said = record.within("answer").get("error")
    yield "answer error", compact(said) if said else ""


def _span(text: str) -> str:
    """Text as code within a line, whatever is in it."""
    text = one_line(text)
    ticks = "`" * (_longest_run(text) + 1)
    pad = " " if not text.strip() or text[0] in "` " or text[-1] in "` " else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def _fenced(text: str) -> str:
    """Text in a fence of more ticks than any in it."""
    ticks = "`" * max(3, _longest_run(text) + 1)
    return f"{ticks}text\n{text}\n{ticks}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
