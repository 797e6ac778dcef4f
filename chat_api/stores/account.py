"""The windows of one plan, at hand: an ordinary call is counted in them without anything being looked up.

What is not ordinary (a window that begins or ends, a limit that is reached, another strategy) is
left to `MemoryStore`, which does the same for any call, and finds the windows by their names.
"""

from collections.abc import Callable, Iterable, Sequence

from chat_api.counting import Counter, Counters, Nearest, Taken
from chat_api.windows import FixedWindow, Window, window_of

ENDLESS = 1 << 62
REQUESTS, TOKENS, COST = range(3)  # that are counted
Row = tuple[FixedWindow, int, int]  # a window, its limit, and what is counted in it


class Subject:
    """What is counted for a subject."""

    __slots__ = ("in_flight", "windows")

    def __init__(self) -> None:
        self.in_flight = 0
        self.windows: dict[str, Window] = {}  # by the counter's name

    def window(self, counter: Counter) -> Window:
        """The counter's; a new one, if it has none."""
        window = self.windows.get(counter.name)
        if window is None:
            window = self.windows[counter.name] = window_of(counter)
        return window

    def rows(self, counters: Sequence[Counter], unit: int) -> tuple[Row, ...]:
        """The counters' fixed windows, to have at hand; those of another strategy are none."""
        windows = [(self.window(counter), counter.limit) for counter in counters]
        return tuple((window, limit, unit) for window, limit in windows if type(window) is FixedWindow)

    def is_used(self, now: int) -> bool:
        """Whether it has calls in flight, or has used up anything."""
        return self.in_flight > 0 or any(window.look(now) for window in self.windows.values())

    def forget(self) -> None:
        """Whoever still has it at hand finds that it is full, and its windows over."""
        self.in_flight = ENDLESS
        for window in self.windows.values():
            if isinstance(window, FixedWindow):
                window.count = window.ends = 0


class Account:
    """Counts calls in fixed windows.

    Args:
        clock: the time, in seconds.
        counters: what is counted.
        own: the caller.
        model: the model, if it has counters.
    """

    __slots__ = ("_budget", "_clock", "_max_parallel", "_model", "_own", "_requests", "_rows", "_tokens", "_untold")

    def __init__(self, clock: Callable[[], float], counters: Counters, own: Subject, model: Subject | None) -> None:
        self._clock = clock
        self._own = own
        self._model = model
        self._max_parallel = counters.max_parallel or ENDLESS
        requests, tokens = own.rows(counters.requests, REQUESTS), own.rows(counters.tokens, TOKENS)
        of_model = model.rows(counters.of_model, TOKENS) if model is not None else ()
        self._budget = own.rows(counters.budget, COST)
        # What callers are told of; of the model's limits those who have none of their own.
        self._requests, self._tokens = requests, tokens or of_model
        self._untold = of_model if tokens else ()
        self._rows = (*requests, *self._tokens, *self._untold, *self._budget)

    def admit(self, tokens: int, cost: int) -> Taken | None:
        """Charge an ordinary call that takes so much, and take its place; None if it is none."""
        own = self._own
        if own.in_flight >= self._max_parallel:
            return None
        now = int(self._clock() * 1000)
        amounts = (1, tokens or 1, cost or 1)  # what takes nothing needs room as well
        for window, limit, unit in self._rows:
            if window.count + amounts[unit] > limit or now >= window.ends:
                return None
        own.in_flight += 1
        if self._model is not None:
            self._model.in_flight += 1
        for window, _, _ in self._untold:
            window.count += tokens
        for window, _, _ in self._budget:
            window.count += cost
        return Taken(now, _charge(self._requests, 1, now), _charge(self._tokens, tokens, now))

    def settle(self, taken: Taken, tokens: int, cost: int) -> None:
        """A call is over: correct what it was charged by so much more, and give its place back."""
        self._own.in_flight -= 1
        if self._model is not None:
            self._model.in_flight -= 1
        if tokens:
            self._correct(self._tokens, taken.at, tokens)
            self._correct(self._untold, taken.at, tokens)
        if cost:
            self._correct(self._budget, taken.at, cost)

    def _correct(self, rows: Iterable[Row], at: int, change: int) -> None:
        for window, _, _ in rows:
            count = window.count + change
            if change < 0 < count and window.stamp <= at:
                window.count = count
            else:  # what is taken on top of the charge belongs to the window that is under way now
                stamp = window.stamp if window.stamp <= at else -1
                window.correct(stamp, change, int(self._clock() * 1000))


def _charge(rows: tuple[Row, ...], amount: int, now: int) -> Nearest | None:
    """Count so much more in windows that are under way; that of which least is left."""
    least, nearest = ENDLESS, None
    for row in rows:
        window, limit, _ = row
        window.count = count = window.count + amount
        if limit - count < least:
            least, nearest = limit - count, row
    return None if nearest is None else Nearest(nearest[1], least, (nearest[0].ends - now) / 1000)
