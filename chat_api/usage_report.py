"""Rows of usage into what people and programs read: grouped and summed, as JSON terms, a table or CSV. Pure."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from operator import itemgetter
from typing import Any

from chat_api.counting import Amounts, Used
from chat_api.tally import month_start, total

COLUMNS = ("key", "model", "deployment", "day")
BY_FORM = "one or more of key, model, deployment and day, separated by commas"
NOTHING_COUNTED = (
    "usage is not counted: client keys (CLIENT_KEYS, or client_keys in CONFIG_FILE), a token limit, prices "
    "in CONFIG_FILE or STORE_URL switch that on"
)
_FORMULA = ("=", "+", "-", "@")  # what a cell begins with that a spreadsheet takes for a formula


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked for: the days, both included, and what is summed up together."""

    since: str
    until: str
    by: tuple[str, ...] = ("key",)


@dataclass(frozen=True, slots=True)
class Report:
    """The sums, the largest first; where they are by day among others, in the order of names and days."""

    question: Question
    currency: str | None  # None where nothing has a price
    rows: Sequence[tuple[tuple[str, ...], Amounts]]
    total: Amounts


def parse_by(text: str) -> tuple[str, ...]:
    """What to group by.

    Raises:
        ValueError: it is something else; the message says what is taken.
    """
    names = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",")))
    if not set(names) <= set(COLUMNS):
        raise ValueError(f"it takes {BY_FORM}")
    return names


def question(since: str | None, until: str | None, by: tuple[str, ...], today: str) -> Question:
    """What is asked for; without days this month, up to today.

    Raises:
        ValueError: it ends before it begins.
    """
    last = until or max(today, since or "")
    first = since or month_start(last)
    if first > last:
        raise ValueError(f"{first} is after {last}, the last day")
    return Question(first, last, by)


def report(asked: Question, rows: Mapping[Used, Amounts], currency: str | None) -> Report:
    """Sum them up.

    Args:
        asked: which days, and what by.
        rows: what was used; other days may be among them.
        currency: what prices are in; None if there are none, and nothing has cost anything.
    """
    groups: dict[tuple[str, ...], Amounts] = {}
    for used, amounts in rows.items():
        if asked.since <= used.day <= asked.until:
            group = tuple(getattr(used, name) for name in asked.by)
            groups.setdefault(group, Amounts()).add(amounts)
    ordered = (
        sorted(groups.items(), key=itemgetter(0)) if "day" in asked.by else sorted(groups.items(), key=_largest_first)
    )
    return Report(asked, currency, ordered, total(groups.values()))


def _largest_first(row: tuple[tuple[str, ...], Amounts]) -> tuple[int, int, tuple[str, ...]]:
    group, amounts = row
    return -amounts.prompt - amounts.completion, -amounts.requests, group


def as_json(made: Report) -> dict[str, Any]:
    """The report in JSON's terms; money in whole units of the currency, null where nothing has a price."""
    by = made.question.by
    return {
        "since": made.question.since,
        "until": made.question.until,
        "currency": made.currency,
        "by": list(by),
        "rows": [dict(zip(by, group, strict=True)) | _amounts(amounts, made.currency) for group, amounts in made.rows],
        "total": _amounts(made.total, made.currency),
    }


def _amounts(amounts: Amounts, currency: str | None) -> dict[str, Any]:
    return {
        "requests": amounts.requests,
        "errors": amounts.errors,
        "prompt_tokens": amounts.prompt,
        "cached_tokens": amounts.cached,
        "completion_tokens": amounts.completion,
        "total_tokens": amounts.prompt + amounts.completion,
        "cost": None if currency is None else amounts.cost / 1_000_000,
    }


def as_csv(made: Report) -> str:
    """The report as CSV, a header first and no total; safe to open in a spreadsheet."""
    made_of = as_json(made)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*made.question.by, *made_of["total"], "currency"])
    for group, amounts in made.rows:
        cells = _amounts(amounts, made.currency)
        if made.currency is not None:
            cells["cost"] = f"{Decimal(amounts.cost).scaleb(-6):f}"
        writer.writerow([*map(_harmless, group), *cells.values(), made.currency])
    return out.getvalue()


def _harmless(name: str) -> str:
    name = _printable(name)
    return f"'{name}" if name.lstrip().startswith(_FORMULA) else name


def _printable(name: str) -> str:
    """A name without what would move a terminal's cursor, or end a line: callers make names up."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in name)


def as_text(made: Report) -> str:
    """The report as a table for people, with a total below."""
    by = made.question.by
    titles = [*by, "requests", "errors", "prompt", "cached", "completion", "tokens"]
    if made.currency is not None:
        titles.append(made.currency)
    lines = [titles, *([*(_printable(name) or "-" for name in group), *_cells(sums)] for group, sums in made.rows)]
    lines.append(["total", *("" for _ in by[1:]), *_cells(made.total)])
    lines = [line[: len(titles)] for line in lines]  # what it costs comes last
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    head, *rows, last = ("  ".join(_aligned(line, widths, len(by))).rstrip() for line in lines)
    rule = "  ".join("-" * width for width in widths)
    title = f"Usage from {made.question.since} to {made.question.until} (UTC)"
    return "\n".join((title, "", head, rule, *rows, rule, last)) + "\n"


def _aligned(line: Sequence[str], widths: Sequence[int], names: int) -> Iterator[str]:
    """The cells of a line: names to the left, numbers to the right."""
    for position, (cell, width) in enumerate(zip(line, widths, strict=True)):
        yield cell.ljust(width) if position < names else cell.rjust(width)


def _cells(amounts: Amounts) -> list[str]:
    tokens = (amounts.prompt, amounts.cached, amounts.completion, amounts.prompt + amounts.completion)
    counts = (amounts.requests, amounts.errors, *tokens)
    return [*(f"{count:,}" for count in counts), f"{Decimal(amounts.cost).scaleb(-6):,.4f}"]
