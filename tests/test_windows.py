"""What is used up in a window of time: each strategy, by tables and by what has to hold for any of them."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat_api.counting import ELASTIC, FIXED, MOVING, SLIDING, STRATEGIES, Counter
from chat_api.windows import Window, window_of

MINUTE = 60_000
START = 28_333_333 * MINUTE


def window(strategy: str, seconds: int = 60) -> Window:
    """A new window."""
    return window_of(Counter("tokens", 10, seconds, strategy))


def used(one: Window, *offsets: int) -> list[int]:
    """What is used up so many milliseconds after START."""
    return [one.look(START + offset) for offset in offsets]


def take(one: Window, amount: int, offset: int, limit: int = 10) -> tuple[int, float] | None:
    """Charge so many milliseconds after START: what is left, and when it is all there again."""
    reading = one.take(amount, limit, START + offset)
    return None if reading is None else (reading.left, reading.reset_seconds)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("already", "amount", "left"),
    [
        pytest.param(0, 10, 0, id="all-of-it"),
        pytest.param(0, 11, None, id="more-than-there-ever-is"),
        pytest.param(4, 6, 0, id="the-rest"),
        pytest.param(4, 7, None, id="one-more-than-the-rest"),
        pytest.param(4, 0, 6, id="nothing"),
        pytest.param(9, 0, 1, id="nothing-with-one-left"),
        pytest.param(10, 0, None, id="nothing-with-nothing-left"),
    ],
)
def test_what_fits(strategy: str, already: int, amount: int, left: int | None) -> None:
    """A charge of at least 1 fits if it is no more than what is left; what does not fit is not charged."""
    one = window(strategy)
    take(one, already, 0)
    taken = take(one, amount, 0)
    assert (taken and taken[0]) == left
    assert used(one, 0) == [already + amount if left is not None else already]


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        # What is used up after: nothing, a second, just before a minute, a minute, just before a minute and a second,
        # that, just before two minutes, two minutes. Six were charged at the beginning, four a second later.
        pytest.param(FIXED, [6, 10, 10, 0, 0, 0, 0, 0], id="fixed"),
        pytest.param(MOVING, [6, 10, 10, 10, 10, 4, 0, 0], id="moving"),
        pytest.param(SLIDING, [6, 10, 10, 10, 9, 9, 0, 0], id="sliding"),
    ],
)
def test_when_it_leaves(strategy: str, expected: list[int]) -> None:
    """When what was charged has left its window."""
    one = window(strategy)
    seen = []
    for offset in (0, 1000, MINUTE - 1, MINUTE, MINUTE + 1000 - 1, MINUTE + 1000, 2 * MINUTE - 1, 2 * MINUTE):
        if offset in (0, 1000):
            assert take(one, 4 if offset else 6, offset) is not None
        seen += used(one, offset)
    assert seen == expected


def test_fixed_window_begins_with_its_first_charge() -> None:
    """Not with the clock, and not with a call that takes nothing."""
    one = window(FIXED)
    assert take(one, 0, 0) == (10, 0.0)
    assert take(one, 1, 30_500) == (9, 60.0)
    assert take(one, 1, 90_499) == (8, 0.001)
    assert take(one, 1, 90_500) == (9, 60.0)


@pytest.mark.parametrize("amount", [0, 1, 99], ids=["nothing", "something", "too-much"])
def test_elastic_window_begins_anew_at_every_call(amount: int) -> None:
    """Its time, not its count; also where the call is refused, of which whoever counts tells it."""
    one = window(ELASTIC)
    take(one, 1, 0)
    take(one, amount, 59_000)
    one.touch(START + 59_000)
    left = 10 - used(one, 59_000)[0]
    assert take(one, 0, 118_999) == (left, 60.0)
    assert used(one, 119_000, 178_998, 178_999) == [10 - left, 10 - left, 0]


def test_touched_elastic_window_is_empty_without_a_charge() -> None:
    """Calls that take nothing hold nothing up."""
    one = window(ELASTIC)
    one.touch(START)
    assert take(one, 0, 0) == (10, 0.0)


@pytest.mark.parametrize("seconds", [1, 7, 60, 86400])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_reset(strategy: str, seconds: int) -> None:
    """Once the time is over that it told, and not a millisecond sooner, nothing is used up."""
    one = window(strategy, seconds)
    take(one, 10, 12_345)
    reset_ms = one.reset_ms(START + 12_345)
    assert used(one, 12_345 + reset_ms) == [0]
    assert one.reset_ms(START + 12_345 + reset_ms) == 0
    assert seconds * 1000 <= reset_ms <= seconds * (2000 if strategy == SLIDING else 1017 + 1)


Steps = list[tuple[int, int]]  # milliseconds since the one before, and how much is taken
steps = st.lists(st.tuples(st.integers(0, 2500), st.integers(0, 7)), max_size=25)


@settings(max_examples=200, deadline=None)
@given(strategy=st.sampled_from(STRATEGIES), seconds=st.sampled_from([1, 3, 7]), taken=steps, amount=st.integers(0, 12))
def test_wait(strategy: str, seconds: int, taken: Steps, amount: int) -> None:
    """A charge that does not fit does when it was told, and no millisecond sooner, if it ever can."""
    one, now = window(strategy, seconds), START
    for later, some in taken:
        now += later
        one.take(some, 10, now)
    if one.look(now) + max(amount, 1) > 10:
        wait_ms = one.wait_ms(max(amount, 1), 10, now)
        assert wait_ms > 0
        if amount > 10:
            assert wait_ms == seconds * 1000
        else:
            assert one.look(now + wait_ms - 1) + max(amount, 1) > 10
            assert one.look(now + wait_ms) + max(amount, 1) <= 10


@settings(max_examples=200, deadline=None)
@given(seconds=st.sampled_from([1, 3, 7]), taken=steps)
def test_moving_window_holds_in_any_span(seconds: int, taken: Steps) -> None:
    """However a span of its length is laid, no more than the limit was charged within."""
    one, now, charged = window(MOVING, seconds), START, []
    for later, some in taken:
        now += later
        if one.take(some, 10, now) is not None:
            charged.append((now, some))
    for since, _ in charged:
        assert sum(some for at, some in charged if since <= at <= since + seconds * 1000) <= 10


@settings(max_examples=300, deadline=None)
@given(
    seconds=st.sampled_from([1, 7, 60]),
    taken=st.lists(
        st.tuples(
            st.one_of(st.integers(0, 3), st.integers(0, 130)),
            st.integers(0, 3),
            st.sampled_from([0, 1, 2, 60, 61, 62]),
            st.integers(-3, 3),
        )
    ),
)
def test_moving_window_is_its_buckets(seconds: int, taken: list[tuple[int, int, int, int]]) -> None:
    """What is used up is what the buckets hold that are not yet wholly out; corrections go where the stamp says."""
    one, buckets, now = window(MOVING, seconds), dict[int, int](), START
    for later, amount, ago, change in taken:
        now += later * seconds * 1000 // 60
        at = now * 60 // (seconds * 1000)
        for old in [bucket for bucket in buckets if bucket < at - 60 or not buckets[bucket]]:
            del buckets[old]
        assert one.look(now) == sum(buckets.values())
        newest = max(buckets, default=at)
        if buckets:
            assert one.reset_ms(now) == -(-(newest + 61) * seconds * 1000 // 60) - now
        reading = one.take(amount, 10**6, now)
        assert reading is not None
        assert reading.reset_seconds == one.reset_ms(now) / 1000
        buckets[at] = buckets.get(at, 0) + amount
        stamp = at - ago
        one.correct(stamp, change, now)
        if buckets.get(stamp):
            buckets[stamp] = max(0, buckets[stamp] + change)
        else:
            buckets[at] += max(0, change)


# Corrections.


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("change", [-4, 3, -99], ids=["less", "more", "all"])
def test_correction(strategy: str, change: int) -> None:
    """What a call really took is what counts, be it more than the limit; nothing counts less than nothing."""
    one = window(strategy)
    take(one, 5, 0)
    reading = one.take(5, 10, START + 2000)
    assert reading is not None
    one.correct(reading.stamp, change, START + 5000)
    in_its_bucket = 5 if strategy == MOVING else 10
    assert used(one, 5000) == [10 + max(change, -in_its_bucket)]


@pytest.mark.parametrize(
    ("strategy", "change", "expected"),
    [
        pytest.param(FIXED, -3, 2, id="fixed-less"),
        pytest.param(FIXED, +3, 5, id="fixed-more"),
        pytest.param(ELASTIC, -3, 2, id="elastic-less"),
        pytest.param(ELASTIC, +3, 5, id="elastic-more"),
        pytest.param(MOVING, -3, 2, id="moving-less"),
        pytest.param(MOVING, +3, 5, id="moving-more"),
        pytest.param(SLIDING, -3, 2, id="sliding-less"),
        pytest.param(SLIDING, +3, 5, id="sliding-more"),
    ],
)
def test_correction_that_comes_late(strategy: str, change: int, expected: int) -> None:
    """Of a window that is gone nothing is given back; what was taken on top counts in the one that is there."""
    one = window(strategy)
    reading = one.take(5, 10, START)
    assert reading is not None
    take(one, 2, 3 * MINUTE)
    one.correct(reading.stamp, change, START + 3 * MINUTE)
    assert used(one, 3 * MINUTE) == [expected]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_correction_of_nothing(strategy: str) -> None:
    """A call that was charged nothing, of which it shows later how much it took, is counted then."""
    one = window(strategy)
    reading = one.take(0, 10, START)
    assert reading is not None
    one.correct(reading.stamp, -5, START)
    one.correct(reading.stamp, 4, START + 1000)
    assert used(one, 1000) == [4]


def test_correction_of_the_previous_window() -> None:
    """Where the previous window still weighs, it is the one that is corrected."""
    one = window(SLIDING)
    reading = one.take(8, 10, START)
    assert reading is not None
    assert used(one, MINUTE + 30_000) == [4]
    one.correct(reading.stamp, -4, START + MINUTE + 30_000)
    assert used(one, MINUTE + 30_000) == [2]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_given_back_is_as_if_never_taken(strategy: str) -> None:
    """A charge that is taken back whole leaves nothing to wait for."""
    one = window(strategy)
    reading = one.take(7, 10, START)
    assert reading is not None
    one.correct(reading.stamp, -7, START)
    assert (used(one, 0), one.reset_ms(START)) == ([0], 0)


# The clock goes back.


@pytest.mark.parametrize("back_ms", [1, 999, 1000, 59_999, MINUTE, 61_000, 3_600_000, 10**12], ids=str)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_clock_goes_back(strategy: str, back_ms: int) -> None:
    """Nothing is forgotten for it, and nobody is held up for longer than a few windows."""
    one = window(strategy)
    assert take(one, 10, 0) is not None
    assert take(one, 1, -back_ms) is None
    assert 0 < one.wait_ms(1, 10, START - back_ms) <= 3 * MINUTE
    assert used(one, 3 * MINUTE - back_ms) == [0]


@pytest.mark.parametrize("back_ms", [1, 5_000, 59_999], ids=str)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_clock_goes_back_and_forth(strategy: str, back_ms: int) -> None:
    """A clock that is put right again finds what it had left, for as long as it would have been there."""
    one, untouched = window(strategy), window(strategy)
    for each in (one, untouched):
        take(each, 5, 0)
    take(one, 0, -back_ms)
    later = (0, 1, 29_999, MINUTE - 1)
    assert used(one, *later) == used(untouched, *later)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_clock_goes_back_by_hours(strategy: str) -> None:
    """The window goes on where the clock is now."""
    one, back_ms = window(strategy), 3_600_000
    take(one, 10, 0)
    assert used(one, -back_ms, MINUTE - back_ms - 1, 3 * MINUTE - back_ms) == [10, 10, 0]
    assert take(one, 10, 3 * MINUTE - back_ms) is not None


@settings(max_examples=200, deadline=None)
@given(
    strategy=st.sampled_from(STRATEGIES),
    jumps=st.lists(st.tuples(st.integers(-200_000, 200_000), st.integers(0, 12), st.integers(-12, 12)), max_size=20),
)
def test_no_clock_harms(strategy: str, jumps: list[tuple[int, int, int]]) -> None:
    """However it jumps, counts stay sums of what was charged, none is below 0, and what is told is no nonsense."""
    one, now, most = window(strategy), START, 0
    for jump, amount, change in jumps:
        now += jump
        reading = one.take(amount, 10, now)
        if reading is None:
            assert 0 < one.wait_ms(max(amount, 1), 10, now) <= 4 * MINUTE
        else:
            assert 0 <= reading.left <= 10
            most += amount + max(change, 0)
            one.correct(reading.stamp, change, now)
        assert 0 <= one.look(now) <= most
        assert 0 <= one.reset_ms(now) <= 4 * MINUTE


def test_readings_of_what_is_overdrawn() -> None:
    """More may have been taken than there was; nothing is left then, and not less than that."""
    for strategy, more in itertools.product(STRATEGIES, (1, 100)):
        one = window(strategy)
        reading = one.take(10, 10, START)
        assert reading is not None
        one.correct(reading.stamp, more, START)
        assert one.reading(10, START).left == 0
