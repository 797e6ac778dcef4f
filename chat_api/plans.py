"""What is counted for a call: the limits of its caller, of its route and of its model. Pure."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from chat_api.callers import ANY_MODEL, Caller, ClientKey, by_key
from chat_api.counting import FIXED, Claim, Counter, Counters, Rate

MONTH_SECONDS = 32 * 86400  # a budget's counter is called after its month: it need only outlast it


@dataclass(frozen=True, slots=True)
class Limits:
    """What the settings say for every caller; a key's own limits win."""

    requests: tuple[Rate, ...] = ()  # over the routes that have none of their own
    of_route: Mapping[str, tuple[Rate, ...]] = field(default_factory=dict)
    tokens: tuple[Rate, ...] = ()  # of a caller, over all models
    of_model: Mapping[str, tuple[Rate, ...]] = field(default_factory=dict)  # tokens, over all callers
    max_parallel: int = 0
    strategy: str = FIXED


class Plan(Counters, frozen=True):
    """What is counted for one caller who calls one route with one model. Its claims lack only the numbers."""

    caller: Caller
    model: str
    ends: float  # when it is not right any more: the month is over
    counts_tokens: bool  # whether anybody asks how many a call takes
    most_tokens: int | None  # the smallest of its limits in tokens

    def claims(self, tokens: int, cost: int) -> tuple[Claim, ...]:
        """What a call claims that may take so many tokens, and cost so much."""
        charges = [(counter, 1) for counter in self.requests]
        for counter in self.tokens:
            charges.append((counter, tokens))
        for counter in self.budget:
            charges.append((counter, cost))
        own = Claim(self.subject, tuple(charges), self.max_parallel)
        if not self.of_model:
            return (own,)
        return own, Claim(self.model_subject, tuple([(counter, tokens) for counter in self.of_model]))

    def changes(self, tokens: int, cost: int) -> list[int]:
        """What `Store.settle` gets for a call that took so much more than it claimed."""
        changes = [0] * len(self.requests) + [tokens] * len(self.tokens)
        if self.budget or self.of_model:
            changes += [cost] * len(self.budget) + [tokens] * len(self.of_model)
        return changes


class Planner:
    """Finds what is counted for a call.

    Args:
        limits: what the settings say.
        wall: the time, in seconds since 1970.
    """

    def __init__(self, limits: Limits, *, wall: Callable[[], float] = time.time) -> None:
        self.tells_routes = bool(limits.of_route)  # whether it matters which route is called
        self._limits = limits
        self._wall = wall
        self._of_model = {model.lower(): rates for model, rates in limits.of_model.items()}  # Azure knows no case

    def place(self, route: str) -> str:
        """The route, if it has limits of its own; else "", as all others are counted together."""
        return route if route in self._limits.of_route else ""

    def plan(self, caller: Caller, route: str, model: str) -> Plan | None:
        """What is counted for a caller's call; None if nothing is.

        Args:
            caller: who calls.
            route: the path that is called, in OpenAI's words: "/v1/chat/completions"; "" where none has limits.
            model: what it calls for; "" if it calls for none.
        """
        limits, key, name = self._limits, caller.key, model.lower()
        requests = self._requests(key, route)
        tokens: list[Counter] = []
        if model:
            of_key = {asked.lower(): rates for asked, rates in key.tokens.items()} if key else {}
            tokens += self._counters("tokens", of_key.get(ANY_MODEL, limits.tokens))
            tokens += self._counters(f"tokens {name}", of_key.get(name, ()))
        budget: tuple[Counter, ...] = ()
        month, ends = month_of(self._wall())
        if key and key.budget is not None and model:
            budget = (budget_counter(month, key.budget),)
        of_model = self._counters("tokens", self._of_model.get(name, ())) if model else ()
        parallel = key.max_parallel if key and key.max_parallel else limits.max_parallel
        if not (requests or tokens or budget or parallel or of_model):
            return None
        counts_tokens = bool(tokens or budget or of_model)
        most = min((counter.limit for counter in (*tokens, *of_model)), default=None)
        return Plan(
            subject=caller.subject,
            max_parallel=parallel,
            requests=tuple(requests),
            tokens=tuple(tokens),
            budget=budget,
            model_subject=f"model {name}",
            of_model=tuple(of_model),
            caller=caller,
            model=name,
            ends=ends,
            counts_tokens=counts_tokens,
            most_tokens=most,
        )

    def _requests(self, key: ClientKey | None, route: str) -> list[Counter]:
        own = key.requests if key and key.requests is not None else None
        of_route = self._limits.of_route.get(route)
        general = () if own is None and of_route is not None else self._limits.requests if own is None else own
        return [*self._counters(f"requests {route}", of_route or ()), *self._counters("requests", general)]

    def _counters(self, name: str, rates: tuple[Rate, ...]) -> list[Counter]:
        least: dict[int, int] = {}
        for rate in rates:  # of two for the same time the smaller holds: they would share a counter
            least[rate.seconds] = min(rate.limit, least.get(rate.seconds, rate.limit))
        strategy = self._limits.strategy
        return [Counter(f"{name}/{seconds}", limit, seconds, strategy) for seconds, limit in least.items()]


def budget_counter(month: str, budget: int) -> Counter:
    """What counts the cost of a key's calls in a month ("2026-11"), up to its budget."""
    return Counter(f"cost {month}", budget, MONTH_SECONDS, FIXED)


def spent(key: ClientKey, cost: int, now: float) -> Claim:
    """What a key with a budget has cost this month already, as a claim."""
    month, _ = month_of(now)
    budget = key.budget or 0
    return Claim(by_key(key).subject, ((budget_counter(month, budget), min(cost, budget)),))


def month_of(now: float) -> tuple[str, float]:
    """The calendar month (UTC) of a time, and when it ends, in seconds since 1970."""
    date = datetime.fromtimestamp(now, UTC)
    year, month = (date.year + 1, 1) if date.month == 12 else (date.year, date.month + 1)
    return f"{date.year}-{date.month:02}", datetime(year, month, 1, tzinfo=UTC).timestamp()
