"""What is counted of the calls, up to which limits, and the protocols of those who count.

A `Counter` counts one thing for one subject (a caller, a model) in windows of time. A call claims so
much of each before it goes upstream, all or nothing, and is settled with what it really took.
"""

import re
from collections.abc import Awaitable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

FIXED, ELASTIC, MOVING, SLIDING = STRATEGIES = (
    "fixed-window",
    "fixed-window-elastic-expiry",
    "moving-window",
    "sliding-window-counter",
)
PARALLEL = -1  # in `Grant.refused`: it is no counter, but the place among the calls in flight

_SECONDS = {
    "second": 1,
    "minute": 60,
    "hour": 3600,
    "day": 86400,
    "month": 30 * 86400,
    "year": 12 * 30 * 86400,
}
_RATE = re.compile(r"(\d{1,15})\s*(?:/|per)\s*(\d{1,6})?\s*(second|minute|hour|day|month|year)s?", re.IGNORECASE)


class Rate(Struct, frozen=True):
    """So much in so many seconds."""

    limit: int
    seconds: int


def parse_rates(text: str) -> tuple[Rate, ...]:
    """Limits in the notation of the `limits` library: `100/2minutes`, `10 per second; 600/hour`; none for `inf`.

    Raises:
        ValueError: it is something else.
    """
    if text.strip().lower() in ("", "inf"):
        return ()
    rates = []
    for part in re.split(r"[,;|]", text):
        read = _RATE.fullmatch(part.strip())
        if read is None or int(read[1]) == 0 or (read[2] and int(read[2]) == 0):
            raise ValueError(f'"{part.strip()}" is no limit such as 100/minute')
        rates.append(Rate(int(read[1]), int(read[2] or 1) * _SECONDS[read[3].lower()]))
    return tuple(rates)


class Counter(Struct, frozen=True):
    """One thing that is counted for a subject in windows of `seconds`, up to `limit`."""

    name: str  # "requests/60": no other of its subject is called so
    limit: int
    seconds: int
    strategy: str = FIXED


class Claim(Struct, frozen=True):
    """What a call takes of one subject."""

    subject: str  # "alice"
    charges: tuple[tuple[Counter, int], ...]  # how much of each counter; 0 where that shows only later
    max_parallel: int = 0  # calls in flight; 0 for any number


class Counters(Struct, frozen=True):
    """All that is counted for calls of one kind."""

    subject: str  # the caller
    max_parallel: int  # calls of the caller in flight; 0 for any number
    requests: tuple[Counter, ...]
    tokens: tuple[Counter, ...]
    budget: tuple[Counter, ...]  # what they cost
    model_subject: str
    of_model: tuple[Counter, ...]  # tokens too, over all callers


class Reading(Struct, frozen=True):
    """How a counter stands after a call was admitted, or refused."""

    left: int
    reset_seconds: float  # until all of it is there again, if nothing more is taken
    stamp: int = 0  # of the window that was charged, for `settle`


class Grant(Struct, frozen=True):
    """What the store says to the claims of a call: all of them are granted, or nothing was charged."""

    readings: tuple[Reading, ...] = ()  # of every charge of every claim, in their order; empty if nobody counted
    refused: int | None = None  # which charge was too much, counted over all claims; PARALLEL for none of them
    refused_claim: int = 0  # whose that was
    wait_seconds: float = 0.0  # until it may be granted


class Nearest(Struct, frozen=True):
    """Of several counters the one of which least is left."""

    limit: int
    left: int
    reset_seconds: float  # until all of it is there again


class Taken(Struct, frozen=True):
    """A call that an `Account` has charged."""

    at: int  # when, by the store's clock, in milliseconds
    requests: Nearest | None  # what its caller is told of; None where nothing is counted
    tokens: Nearest | None


class Account(Protocol):
    """The counters of one plan, at hand."""

    def admit(self, tokens: int, cost: int) -> Taken | None:
        """Charge a call that takes so much, and take its place; None if the store has to be asked."""
        ...

    def settle(self, taken: Taken, tokens: int, cost: int) -> None:
        """A call that was charged is over: correct that by so much more, and give its place back."""
        ...


class Store(Protocol):
    """Counts for one process, or for all of them."""

    def admit(self, claims: Sequence[Claim]) -> Grant | Awaitable[Grant]:
        """Charge the claims of a call and take its places, if every one of them is within its limits.

        A charge fits if what is counted and the charge (at least 1) are at most the limit.

        Raises:
            StoreDown: nobody counts, and it is not to go on so (the awaitable raises it as well).
        """
        ...

    def settle(self, claims: Sequence[Claim], grant: Grant, changes: Sequence[int]) -> None:
        """A call that was granted is over: correct each of its charges by so much, and give its places back.

        What has left its window already is not given back, and what was taken on top of the charge counts now.
        Neither waits nor raises.
        """
        ...

    def account(self, counters: Counters) -> Account | None:
        """Who counts the ordinary calls that are counted so, sooner than `admit` does; None if nobody can."""
        ...

    def state(self) -> Mapping[str, object]:
        """What operators are told of it: `{"kind": "memory"}`, or the Redis server, whether it is up, failures."""
        ...

    async def aclose(self) -> None:
        """Settle what is still to be settled, and let go of every connection."""
        ...


class Usage(Struct, frozen=True):
    """The tokens that an answer took, as the upstream counted them."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0  # of the prompt

    @property
    def total(self) -> int:
        """All of them."""
        return self.prompt + self.completion


class Price(Struct, frozen=True):
    """What a model's tokens cost, in money per million of them."""

    prompt: float
    completion: float
    cached: float  # of the prompt

    def cost(self, usage: Usage) -> int:
        """What an answer cost, in millionths of the currency, half of one rounded up."""
        fresh = usage.prompt - usage.cached
        money = fresh * self.prompt + usage.cached * self.cached + usage.completion * self.completion
        return int(money + 0.500001)  # 0.29 * 50 is a hair less than 14.5


class Used(Struct, frozen=True):
    """What it is that usage is counted for."""

    day: str  # "2026-11-21", UTC
    key: str  # the name of the client key; the caller's address without one
    model: str
    deployment: str  # its label


class Amounts(Struct):
    """How much of it there was."""

    requests: int = 0
    prompt: int = 0
    completion: int = 0
    cached: int = 0
    errors: int = 0
    cost: int = 0  # in millionths of the currency

    def add(self, other: "Amounts") -> None:
        """Count another one's on top."""
        self.requests += other.requests
        self.prompt += other.prompt
        self.completion += other.completion
        self.cached += other.cached
        self.errors += other.errors
        self.cost += other.cost


class UsageStore(Protocol):
    """Keeps usage for longer than a process lives, for all processes."""

    async def add(self, rows: Mapping[Used, Amounts]) -> None:
        """Count these on top of what is kept.

        Raises:
            StoreDown: they could not be; none of them was counted.
        """
        ...

    async def read(self, since: str, until: str) -> dict[Used, Amounts]:
        """What is kept of the days from `since` to `until`, both included ("2026-11-01").

        Raises:
            StoreDown: it cannot be read.
        """
        ...

    async def aclose(self) -> None:
        """Let go of every connection."""
        ...
