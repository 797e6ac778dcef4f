"""Records of the conversation log for people at a terminal. Pure; whoever prints chooses the colours.

Every line of what was said is indented, so that no text can pass for another record's head.
"""

from collections.abc import Callable, Iterator

from chat_api.conversation_failures import failures
from chat_api.conversations import Record, answered, asked, harmless, one_line, time_text, tokens

Paint = Callable[[str, str], str]
"""Gives a text the colours of a kind: "head", "ended", or the role of who speaks."""

INDENT = "  "
_MANY = 1_000_000_000  # seconds


def plain(kind: str, text: str) -> str:
    """No colours."""
    return text


def as_text(record: Record, paint: Paint = plain) -> str:
    """A record over several lines: its facts, who said what, and why it ended if it is not complete."""
    time, *facts = _facts(record)
    lines = ["  ".join(filter(None, (paint("head", time), *facts)))]
    for said in (*asked(record), *answered(record)):
        role = one_line(said.role)
        first, *rest = harmless(said.text).split("\n")
        lines.append(f"{INDENT}{paint(role.partition(' ')[0], f'{role}:')} {first}".rstrip())
        lines += [f"{INDENT * 2}{line}" for line in rest]
    lines += [INDENT + paint("ended", text) for text in _endings(record)]
    return "\n".join(lines) + "\n"


def _facts(record: Record) -> Iterator[str]:
    """What the head line says, its time first."""
    yield time_text(record)
    members = record.members
    yield one_line(record.text("key")) or "no key"
    model, deployment = one_line(record.text("model")), one_line(record.text("deployment"))
    yield " at ".join(filter(None, (model or one_line(record.text("operation")), deployment)))
    yield one_line(record.text("status")) or "no answer"
    seconds = record.within("timings").get("seconds")
    if isinstance(seconds, float) or (isinstance(seconds, int) and abs(seconds) < _MANY):
        yield f"{seconds:.2f} s"
    prompt, completion, total = tokens(record)
    if prompt is not None and completion is not None:
        yield f"{one_line(str(prompt))} + {one_line(str(completion))} tokens"
    elif total is not None:
        yield f"{one_line(str(total))} tokens"
    if members.get("cache"):
        yield f"cache {one_line(record.text('cache'))}"
    if members.get("attempts") not in (None, 1):
        yield f"{one_line(record.text('attempts'))} attempts"
    yield one_line(record.text("request_id"))


def _endings(record: Record) -> Iterator[str]:
    ended = one_line(record.text("ended"))
    if ended not in ("", "complete"):
        yield f"ended: {ended}"
    yield from map(one_line, failures(record))


def searched(record: Record) -> str:
    """The text that is searched in: all that is printed of what was said, and of its ending."""
    said = [f"{said.role}: {said.text}" for said in (*asked(record), *answered(record))]
    return "\n".join((*said, *_endings(record)))
