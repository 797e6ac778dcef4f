from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat_api.budget import BUCKET_SECONDS, COMING, LEAST, OPEN_SHARE, SHARE, WINDOW_SECONDS, RetryBudget

START = 123_456.0
SPAN = WINDOW_SECONDS + BUCKET_SECONDS  # after so long everything is forgotten


def taken(budget: RetryBudget, now: float, times: int) -> int:
    """How many of so many retries are allowed."""
    return sum(budget.take(now) for _ in range(times))


def budget_with(calls: int, now: float = START) -> RetryBudget:
    """A budget after so many calls, all of them answered."""
    budget = RetryBudget()
    for _ in range(calls):
        budget.begin(now)
        budget.end()
    return budget


@pytest.mark.parametrize(
    ("calls", "retries"),
    [
        pytest.param(0, 10, id="none"),
        pytest.param(1, 10, id="one"),
        pytest.param(50, 10, id="fifty"),
        pytest.param(54, 10, id="not-quite-one-more"),
        pytest.param(55, 11, id="one-more"),
        pytest.param(1000, 200, id="thousand"),
        pytest.param(100_000, 20_000, id="many"),
    ],
)
def test_allowed(calls: int, retries: int) -> None:
    """A fifth of the calls may be made again, or ten of them."""
    budget = budget_with(calls)
    assert taken(budget, START, retries + 100) == retries
    assert budget.retries == retries


def test_a_new_call_earns_a_fifth() -> None:
    """With the budget used up every fifth call makes room for one more retry."""
    budget = budget_with(100)
    taken(budget, START, 100)
    granted = []
    for _ in range(20):
        budget.begin(START)
        budget.end()
        granted.append(budget.take(START))
    assert granted == [False, False, False, False, True] * 4


@pytest.mark.parametrize(
    ("calls", "under_way", "retries"),
    [
        pytest.param(0, 20, 10, id="twenty"),
        pytest.param(0, 22, 11, id="twenty-two"),
        pytest.param(0, 60, 30, id="burst"),
        pytest.param(40, 40, 20, id="long-calls"),
        pytest.param(1000, 60, 212, id="few-of-many"),
    ],
)
def test_half_of_what_is_under_way(calls: int, under_way: int, retries: int) -> None:
    """Half of the calls under way may be made again: when one region of two goes none of them is lost."""
    budget = budget_with(calls)
    for _ in range(under_way):
        budget.begin(START)
    assert taken(budget, START, 1000) == retries


@pytest.mark.parametrize(("later", "retries"), [(0.0, 30), (59.9, 30), (65.0, LEAST)])
def test_what_was_under_way_counts_for_a_minute(later: float, retries: int) -> None:
    """It is the most of the last minute that counts: of a region that goes the calls end one by one, and come again."""
    start = 1000 * BUCKET_SECONDS
    budget = RetryBudget()
    for _ in range(60):
        budget.begin(start)
    for _ in range(60):
        budget.end()
    assert taken(budget, start + later, 100) == retries


def test_calls_that_end_one_by_one() -> None:
    """Each of the thirty calls of a region of two that goes may be made again, though ever fewer are under way."""
    budget = RetryBudget()
    for _ in range(60):
        budget.begin(START)
    granted = []
    for place in range(30):
        granted.append(budget.take(START + 70 + place))
        budget.end()
    assert granted == [True] * 30


def test_long_calls_count_though_they_began_long_ago() -> None:
    """Forty streams that began minutes ago are forgotten by the window, but are under way."""
    budget = RetryBudget()
    for _ in range(40):
        budget.begin(START)
    assert taken(budget, START + 600, 1000) == 20


def test_refusals_cost_nothing() -> None:
    """A retry that was refused is not counted."""
    budget = budget_with(0)
    assert taken(budget, START, 1000) == 10
    assert taken(budget, START + SPAN, 1000) == 10


@pytest.mark.parametrize(
    ("filled", "later", "retries"),
    [
        pytest.param(0.0, 60.0, 0, id="a-minute-later"),
        pytest.param(0.0, 64.9, 0, id="first-of-its-bucket"),
        pytest.param(0.0, 65.0, 10, id="five-seconds-more"),
        pytest.param(4.9, 60.0, 0, id="last-of-its-bucket"),
        pytest.param(4.9, 60.2, 10, id="just-over-a-minute"),
        pytest.param(0.0, 1e9, 10, id="years-later"),
    ],
)
def test_window(filled: float, later: float, retries: int) -> None:
    """What was taken comes back when its five seconds are older than a minute: after 60 to 65 seconds."""
    start = 1000 * BUCKET_SECONDS
    budget = RetryBudget()
    taken(budget, start + filled, 100)
    assert taken(budget, start + filled + later, 100) == retries


def test_calls_are_forgotten_too() -> None:
    """Calls of more than a minute ago allow nothing any more."""
    budget = budget_with(1000)
    assert taken(budget, START + SPAN, 1000) == LEAST


@pytest.mark.parametrize(
    ("retries", "strain"),
    [
        pytest.param(0, 0.2, id="none"),
        pytest.param(1, 0.3, id="one"),
        pytest.param(5, 0.7, id="half"),
        pytest.param(8, 1.0, id="all-but-those-to-come"),
        pytest.param(10, 1.0, id="all"),
    ],
)
def test_strain(retries: int, strain: float) -> None:
    """The strain is the part that is used up, with the call's own retry and another's, which come at that moment."""
    assert COMING == 2
    budget = budget_with(0)
    taken(budget, START, retries)
    assert budget.strain(START) == pytest.approx(strain)
    assert budget.strain(START + SPAN) == 0.2


def test_look() -> None:
    """Whoever looks at the counts sees those of the window, though nothing has happened since."""
    budget = budget_with(100)
    taken(budget, START, 15)
    budget.look(START + WINDOW_SECONDS - BUCKET_SECONDS)
    assert (budget.calls, budget.retries, budget.allowed) == (100, 15, 20)
    budget.look(START + SPAN)
    assert (budget.calls, budget.retries, budget.allowed) == (0, 0, LEAST)


def test_strain_is_at_most_1() -> None:
    """Where the calls are forgotten before the retries more is used than is allowed; that is no more than all."""
    budget = budget_with(1000, START)
    taken(budget, START + 50, 200)
    assert budget.strain(START + SPAN) == 1
    assert not budget.take(START + SPAN)


def test_clock_that_goes_back() -> None:
    """A time before the last one counts as the last one."""
    budget = budget_with(0)
    taken(budget, START, 10)
    assert not budget.take(START - 1000)
    assert not budget.take(START)
    assert budget.take(START + SPAN)


# Seconds later, calls that begin, calls that end, retries that are asked for.
Step = tuple[float, int, int, int]
STEPS = st.lists(
    st.tuples(
        st.one_of(st.just(0.0), st.floats(0, 3), st.floats(0, 100)),
        st.integers(0, 60),
        st.integers(0, 60),
        st.integers(0, 40),
    ),
    max_size=60,
)


class Told(NamedTuple):
    """What a budget did at a time."""

    now: float
    calls: int
    peak: int  # of calls under way
    open: int  # those that are left
    retries: int
    was_refused: bool


def history(steps: Sequence[Step]) -> list[Told]:
    """What a budget does over steps."""
    budget, now, is_open, told = RetryBudget(), START, 0, []
    for later, calls, ended, asked in steps:
        now += later
        for _ in range(calls):
            budget.begin(now)
        is_open += calls
        peak = is_open
        for _ in range(min(ended, is_open)):
            budget.end()
            is_open -= 1
        granted = taken(budget, now, asked)
        told.append(Told(now, calls, peak, is_open, granted, granted < asked))
    return told


def counted(told: Sequence[Told], since: float, until: float) -> tuple[int, int]:
    """Calls and retries from `since` to `until`, both included."""
    within = [entry for entry in told if since <= entry.now <= until]
    return sum(entry.calls for entry in within), sum(entry.retries for entry in within)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_any_history(steps: list[Step]) -> None:
    """Retries are granted exactly while those since the twelfth bucket before this one are within their allowance."""
    told = history(steps)
    for place, one in enumerate(told):
        since = (one.now // BUCKET_SECONDS - WINDOW_SECONDS // BUCKET_SECONDS) * BUCKET_SECONDS
        assert WINDOW_SECONDS <= one.now - since < SPAN
        until_now = told[: place + 1]
        calls, retries = counted(until_now, since, one.now)
        peaks = [entry.peak for entry in until_now if entry.now >= since]
        before = [entry.open for entry in until_now if entry.now < since][-1:]
        if one.retries:
            assert retries <= max(LEAST, SHARE * calls, OPEN_SHARE * max(peaks + before))
        if one.was_refused:
            begun = [entry.peak for entry in until_now if entry.now >= since and entry.calls]
            assert retries + 1 > max(LEAST, SHARE * calls, OPEN_SHARE * max(begun, default=0), OPEN_SHARE * one.open)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_any_minute(steps: list[Step]) -> None:
    """A retry is made within ten a minute, a fifth of the calls of 65 s, or half of the most that were under way."""
    told = history(steps)
    for place, one in enumerate(told):
        if one.retries:
            _, retries = counted(told[: place + 1], one.now - WINDOW_SECONDS, one.now)
            calls, _ = counted(told[: place + 1], one.now - SPAN, one.now)
            most = max([entry.peak for entry in told[: place + 1] if entry.now >= one.now - SPAN])
            before = max([entry.open for entry in told[:place] if entry.now < one.now - SPAN][-1:], default=0)
            assert retries <= max(LEAST, SHARE * calls, OPEN_SHARE * most, OPEN_SHARE * before)


@pytest.mark.parametrize("filled", [0.0, 2.5, 4.5, 4.99])
def test_no_minute_has_twice_the_least(filled: float) -> None:
    """The grain of the ring does not make it twenty a minute: what was taken is remembered for all of it."""
    start = 1000 * BUCKET_SECONDS
    budget = RetryBudget()
    taken(budget, start + filled, 100)
    assert taken(budget, start + filled + WINDOW_SECONDS - 0.01, 100) == 0
