import copy
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat_api.counting import Amounts, Used
from chat_api.tally import (
    OTHER,
    costs_by_key,
    day_of,
    merge,
    month_start,
    oldest_kept,
    parse_day,
    place,
    printed,
    shrunk,
    total,
)

DAY = "2026-11-21"
Rows = Mapping[Used, Amounts]

NAMES = st.sampled_from(["alice", "bob", "gpt-4o", OTHER, ""])
DAYS = st.sampled_from([DAY, "2026-11-22", "2027-01-01"])
COUNTS = st.integers(0, 2**70)
ROWS = st.dictionaries(
    st.builds(Used, DAYS, NAMES, NAMES, NAMES),
    st.builds(Amounts, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS),
    max_size=12,
)


def merged(*parts: Rows, limit: int | None = None) -> dict[Used, Amounts]:
    """All of them, one after the other."""
    into: dict[Used, Amounts] = {}
    for rows in parts:
        merge(into, rows, limit)
    return into


@settings(max_examples=50, deadline=None)
@given(ROWS, ROWS, ROWS)
def test_merging_is_the_same_in_any_order_and_grouping(first: Rows, second: Rows, third: Rows) -> None:
    """Whoever writes when, the sums are the same, and nothing that was merged is changed by it."""
    before = copy.deepcopy((first, second, third))
    whole = merged(first, second, third)

    assert merged(third, first, second) == whole
    assert merged(first, merged(second, third)) == whole
    assert merged(whole, {}) == whole
    assert (first, second, third) == before


@settings(max_examples=50, deadline=None)
@given(st.lists(ROWS, max_size=4), st.integers(1, 4))
def test_with_a_limit_nothing_is_lost_and_rows_stay_few(parts: list[Rows], limit: int) -> None:
    """What has no row of its own is counted with the others; keys and days are told apart for longest."""
    whole = merged(*parts)
    few = merged(*parts, limit=limit)

    assert total(few.values()) == total(whole.values())
    assert len(few) <= 3 * limit + len({used.day for used in whole})


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        pytest.param(9, Used(DAY, "k", "m", "d"), id="room"),
        pytest.param(10, Used(DAY, "k", OTHER, "d"), id="no-more-models"),
        pytest.param(19, Used(DAY, "k", OTHER, "d"), id="room-for-deployments"),
        pytest.param(20, Used(DAY, "k", OTHER, OTHER), id="no-more-deployments"),
        pytest.param(30, Used(DAY, OTHER, OTHER, OTHER), id="no-more-keys"),
        pytest.param(5000, Used(DAY, OTHER, OTHER, OTHER), id="far-beyond"),
    ],
)
def test_place(count: int, expected: Used) -> None:
    """When rows are many the model is given up first, the deployment next, and the key last."""
    rows = {Used(DAY, "someone", str(number), "d") for number in range(count)}

    assert place(Used(DAY, "k", "m", "d"), rows, 10) == expected


@pytest.mark.parametrize(
    "known",
    [
        pytest.param(Used(DAY, "k", "m", "d"), id="itself"),
        pytest.param(Used(DAY, "k", OTHER, "d"), id="its-deployment"),
        pytest.param(Used(DAY, "k", OTHER, OTHER), id="its-key"),
    ],
)
def test_a_row_that_is_there_stays_in_use(known: Used) -> None:
    """However many there are, what is counted already is counted on."""
    rows = {Used(DAY, "someone", str(number), "d") for number in range(500)} | {known}

    assert place(Used(DAY, "k", "m", "d"), rows, 10) == known


def test_shrinking_keeps_the_largest() -> None:
    """The models that were used most keep their names; the made-up ones become one row of each key and deployment."""
    rows = {Used(DAY, "k", f"made-up-{number}", "d"): Amounts(1, 0, 0, 0, 1) for number in range(100)}
    rows[Used(DAY, "k", "gpt-4o", "d")] = Amounts(50, 1000, 100)
    rows[Used(DAY, "k", "gpt-4o-mini", "d")] = Amounts(2, 10, 1)

    few = shrunk(rows, 2)

    assert few == {
        Used(DAY, "k", "gpt-4o", "d"): Amounts(50, 1000, 100),
        Used(DAY, "k", "gpt-4o-mini", "d"): Amounts(2, 10, 1),
        Used(DAY, "k", OTHER, "d"): Amounts(100, 0, 0, 0, 100),
    }


@pytest.mark.parametrize(
    ("seconds", "day"),
    [
        pytest.param(0.0, "1970-01-01", id="the-first"),
        pytest.param(1795219199.9, "2026-11-20", id="the-last-moment"),
        pytest.param(1795219200.0, "2026-11-21", id="midnight"),
    ],
)
def test_day_of(seconds: float, day: str) -> None:
    """Days are UTC's, wherever the machine is."""
    assert day_of(seconds) == day


@pytest.mark.parametrize("text", ["2026-11-21", "2024-02-29", "0001-01-01"])
def test_days(text: str) -> None:
    """A day is taken as it is written in rows."""
    assert parse_day(text) == text


@pytest.mark.parametrize(
    "text", ["", "today", "2026-11", "2026-13-01", "2025-02-29", "20261121", "2026-W47-6", "2026-11-21T00:00", " "]
)
def test_what_is_no_day(text: str) -> None:
    """Anything else is refused, dates in another notation as well: days are compared as text."""
    with pytest.raises(ValueError, match="it takes a day such as 2026-11-21"):
        parse_day(text)


def test_what_is_kept() -> None:
    """400 days, today among them; months begin on their first."""
    assert oldest_kept("2026-11-21") == "2025-10-18"
    assert month_start("2026-11-21") == "2026-11-01"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("gpt-4o", "gpt-4o", id="as-it-is"),
        pytest.param("m" * 200, "m" * 128, id="cut"),
        pytest.param("größer", "größer", id="not-ascii"),
        pytest.param("a\ud800b", "a?b", id="what-cannot-be-written"),
    ],
)
def test_printed(name: str, expected: str) -> None:
    """Names that callers made up are kept short, and can be written to a file."""
    assert printed(name) == expected


def test_costs_by_key() -> None:
    """What budgets need: the sums of each key, over days, models and deployments."""
    rows = {
        Used(DAY, "alice", "gpt-4o", "east"): Amounts(cost=3),
        Used(DAY, "alice", "gpt-4o-mini", "east"): Amounts(cost=4),
        Used("2026-11-22", "alice", "gpt-4o", "east"): Amounts(cost=5),
        Used(DAY, "bob", "gpt-4o", "east"): Amounts(requests=1),
    }

    assert costs_by_key(rows) == {"alice": 12, "bob": 0}
