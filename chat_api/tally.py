"""Rows of usage: their days, how they are added up, and how many there may be. Pure."""

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta

from chat_api.counting import Amounts, Used
from chat_api.types import MAX_LABEL_CHARS

OTHER = "(other)"  # stands for the names beyond the number that is counted
MAX_ROWS = 10_000  # of a day that are counted by all of their names: models are made up by callers
KEPT_DAYS = 400  # a year, and the month before it to compare with
DAY_SECONDS = 86400


def day_of(seconds: float) -> str:
    """The day (UTC) of a time in seconds since 1970: "2026-11-21"."""
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def parse_day(text: str) -> str:
    """A day as it is written in rows.

    Raises:
        ValueError: it is none.
    """
    try:
        parsed = date.fromisoformat(text)
    except ValueError:
        parsed = None
    if parsed is None or parsed.isoformat() != text:  # 20261121 and 2026-W47-6 are dates as well
        raise ValueError("it takes a day such as 2026-11-21")
    return text


def oldest_kept(today: str) -> str:
    """The first of the days that are still kept."""
    return (date.fromisoformat(today) - timedelta(days=KEPT_DAYS - 1)).isoformat()


def month_start(day: str) -> str:
    """The first day of its month."""
    return f"{day[:8]}01"


def printed(name: str) -> str:
    """A name as it is kept: no longer than a label, and of characters that can be written at all."""
    return name[:MAX_LABEL_CHARS].encode("utf-8", "replace").decode()


def place(used: Used, rows: Collection[Used], limit: int) -> Used:
    """The row that counts it, so that there are never more than three times `limit`, and one for each day.

    The key is given up last: budgets are the keys'.
    """
    if used in rows or len(rows) < limit:
        return used
    others = (
        (2, Used(used.day, used.key, OTHER, used.deployment)),
        (3, Used(used.day, used.key, OTHER, OTHER)),
    )
    for times, other in others:
        if other in rows or len(rows) < times * limit:
            return other
    return Used(used.day, OTHER, OTHER, OTHER)


def merge(into: dict[Used, Amounts], rows: Mapping[Used, Amounts], limit: int | None = None) -> None:
    """Count rows on top of others; with a limit there are never more of them than `place` allows."""
    for used, amounts in rows.items():
        row = used if limit is None else place(used, into, limit)
        into.setdefault(row, Amounts()).add(amounts)


def shrunk(rows: Mapping[Used, Amounts], limit: int) -> dict[Used, Amounts]:
    """The rows with the most in them by all of their names, and what the others come to."""
    largest = sorted(rows.items(), key=lambda row: _size(row[1]), reverse=True)
    kept: dict[Used, Amounts] = {}
    merge(kept, dict(largest), limit)
    return kept


def _size(amounts: Amounts) -> tuple[int, int]:
    return amounts.prompt + amounts.completion, amounts.requests


def total(rows: Iterable[Amounts]) -> Amounts:
    """What they come to."""
    sum_ = Amounts()
    for amounts in rows:
        sum_.add(amounts)
    return sum_


def costs_by_key(rows: Mapping[Used, Amounts]) -> dict[str, int]:
    """What each key has cost, in millionths of the currency."""
    costs: dict[str, int] = {}
    for used, amounts in rows.items():
        costs[used.key] = costs.get(used.key, 0) + amounts.cost
    return costs
