"""The strategies are those of the `limits` library, where both mean the same; a moving window is a bucket stricter."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat_api.counting import FIXED, MOVING, SLIDING, Counter
from chat_api.windows import window_of

limits = pytest.importorskip("limits")
storage = pytest.importorskip("limits.storage")
strategies = pytest.importorskip("limits.strategies")

LIMIT, SECONDS = 10, 8  # a power of two: the library's floating-point numbers are exact then
TICK_MS = 125  # so are its times
START_MS = 1_700_000_000_000
Hit = Callable[[int, int], bool]  # a time in ms and an amount: whether it is admitted

steps = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 4)), max_size=40)
thrifty = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Hit]:
    """Makes a limiter of the library's, over a clock that is told the time."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("limits.storage.memory.time", SimpleNamespace(time=lambda: clock.now))
    monkeypatch.setattr(storage.MemoryStorage, "_MemoryStorage__schedule_expiry", lambda _: None)  # in a thread, later

    def limiter(strategy: str) -> Hit:
        item, memory = limits.RateLimitItemPerSecond(LIMIT, SECONDS), storage.MemoryStorage()
        memory.timer.cancel()
        made = strategies.STRATEGIES[strategy](memory)

        def hit(now_ms: int, amount: int) -> bool:
            clock.now = now_ms / 1000
            return bool(made.hit(item, cost=amount))

        return hit

    return limiter


def ours(strategy: str) -> Hit:
    """A window of ours."""
    window = window_of(Counter("requests", LIMIT, SECONDS, strategy))
    return lambda now_ms, amount: window.take(amount, LIMIT, now_ms) is not None


@thrifty
@given(taken=steps)
def test_fixed_window(theirs: Callable[[str], Hit], taken: list[tuple[int, int]]) -> None:
    """Of requests that come one by one the same are admitted."""
    our_hit, their_hit, now_ms = ours(FIXED), theirs(FIXED), START_MS
    for ticks, _ in taken:
        now_ms += ticks * TICK_MS
        assert our_hit(now_ms, 1) == their_hit(now_ms, 1)


@thrifty
@given(taken=steps)
def test_sliding_window(theirs: Callable[[str], Hit], taken: list[tuple[int, int]]) -> None:
    """The same charges are admitted, whatever they are."""
    our_hit, their_hit, now_ms = ours(SLIDING), theirs(SLIDING), START_MS
    for ticks, amount in taken:
        now_ms += ticks * TICK_MS
        assert our_hit(now_ms, amount) == their_hit(now_ms, amount)


@thrifty
@given(taken=steps)
def test_moving_window(theirs: Callable[[str], Hit], taken: list[tuple[int, int]]) -> None:
    """What ours admits theirs does too."""
    our_hit, their_hit, now_ms = ours(MOVING), theirs(MOVING), START_MS
    for ticks, amount in taken:
        now_ms += ticks * TICK_MS
        if our_hit(now_ms, amount):
            assert their_hit(now_ms, amount)
