"""What is counted with its windows at hand: the same as the store counts by names, wherever it counts at all."""

import random

import pytest

from chat_api.counting import ELASTIC, FIXED, MOVING, SLIDING, Claim, Counter, Counters, Grant, Nearest, Reading, Taken
from chat_api.stores.memory import MemoryStore

LIMIT = 100


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def counter(name: str, limit: int = LIMIT, seconds: int = 60, strategy: str = FIXED) -> Counter:
    """A counter."""
    return Counter(f"{name}/{seconds}", limit, seconds, strategy)


def counters(**given: object) -> Counters:
    """What is counted for alice with the model m, which has nothing of its own if nothing is said."""
    plain = {"requests": (), "tokens": (), "budget": (), "of_model": ()}
    return Counters(**{"subject": "alice", "max_parallel": 0, "model_subject": "model m", **plain, **given})  # type: ignore[arg-type]


ALL = counters(
    max_parallel=5,
    requests=(counter("requests", 8), counter("requests", 20, 300)),
    tokens=(counter("tokens"), counter("tokens", 300, 600)),
    budget=(counter("cost", 150, 900),),
    of_model=(counter("tokens", 90),),
)
NONE_OF_HIS_OWN = counters(requests=(counter("requests", 8),), of_model=(counter("tokens", 90),))
PLAIN = counters(requests=(counter("requests", 8),), tokens=(counter("tokens"),))
ONLY_PLACES = counters(max_parallel=2)


def claims(counted: Counters, tokens: int, cost: int) -> tuple[Claim, ...]:
    """The same as claims."""
    charges = [(one, 1) for one in counted.requests]
    charges += [(one, tokens) for one in counted.tokens]
    charges += [(one, cost) for one in counted.budget]
    own = Claim(counted.subject, tuple(charges), counted.max_parallel)
    if not counted.of_model:
        return (own,)
    return own, Claim(counted.model_subject, tuple((one, tokens) for one in counted.of_model))


def changes(counted: Counters, tokens: int, cost: int) -> list[int]:
    """The same as changes of claims."""
    changed = [0] * len(counted.requests) + [tokens] * len(counted.tokens) + [cost] * len(counted.budget)
    return changed + [tokens] * len(counted.of_model)


class Pair:
    """Two stores that are asked for the same: one by accounts, wherever it has one, and one by names."""

    def __init__(self, counted: Counters) -> None:
        self.clock = Clock()
        self.counted = counted
        self.quick, self.slow = MemoryStore(self.clock), MemoryStore(self.clock)
        self.account = self.quick.account(counted)
        self.at_hand = 0  # calls that the account counted

    def admit(self, tokens: int, cost: int) -> tuple[Taken | Grant, Grant] | None:
        """A call; None if it is refused, which both have to agree upon."""
        asked = claims(self.counted, tokens, cost)
        slow = self.slow.admit(asked)
        taken = self.account.admit(tokens, cost) if self.account is not None else None
        if taken is not None:
            self.at_hand += 1
            assert slow.refused is None
            self.check(taken, slow)
            return taken, slow
        grant = self.quick.admit(asked)
        assert grant == slow
        if grant.refused is not None:
            return None
        self.account = self.quick.account(self.counted)
        return grant, slow

    def check(self, taken: Taken, slow: Grant) -> None:
        """What the caller is told is what the readings say."""
        first, of_model = len(self.counted.requests), len(slow.readings) - len(self.counted.of_model)
        assert taken.requests == nearest(self.counted.requests, slow.readings)
        own = nearest(self.counted.tokens, slow.readings[first:])
        assert taken.tokens == (own or nearest(self.counted.of_model, slow.readings[of_model:]))

    def settle(self, admitted: tuple[Taken | Grant, Grant], tokens: int, cost: int, claimed: tuple[int, int]) -> None:
        """The call is over, and has taken so much more."""
        quick, slow = admitted
        asked, changed = claims(self.counted, *claimed), changes(self.counted, tokens, cost)
        self.slow.settle(asked, slow, changed)
        if isinstance(quick, Taken):
            assert self.account is not None
            self.account.settle(quick, tokens, cost)
        else:
            self.quick.settle(asked, quick, changed)


def nearest(counted: tuple[Counter, ...], readings: tuple[Reading, ...]) -> Nearest | None:
    """That of which least is left."""
    if not counted:
        return None
    one, reading = min(zip(counted, readings, strict=False), key=lambda pair: pair[1].left)
    return Nearest(one.limit, reading.left, reading.reset_seconds)


@pytest.mark.parametrize(
    "counted",
    [
        pytest.param(ALL, id="all"),
        pytest.param(PLAIN, id="plain"),
        pytest.param(NONE_OF_HIS_OWN, id="the-models"),
        pytest.param(ONLY_PLACES, id="places"),
    ],
)
@pytest.mark.parametrize("seed", range(10))
def test_same_as_by_names(counted: Counters, seed: int) -> None:
    """Whatever calls come, end, take more or less and are refused, both stores say the same, to the last unit."""
    rng = random.Random(seed)
    pair = Pair(counted)
    under_way: list[tuple[tuple[Taken | Grant, Grant], tuple[int, int]]] = []
    for _ in range(400):
        pair.clock.now += rng.choice([0, 0.001, 0.5, 7, 90])
        if under_way and rng.random() < 0.5:
            admitted, claimed = under_way.pop(rng.randrange(len(under_way)))
            took = rng.choice([0, claimed[0], rng.randint(0, 30), 60]), rng.choice([0, claimed[1], rng.randint(0, 20)])
            pair.settle(admitted, took[0] - claimed[0], took[1] - claimed[1], claimed)
        else:
            claimed = rng.choice([0, 1, 5, 30]), rng.choice([0, 3, 10])
            if (admitted_ := pair.admit(*claimed)) is not None:
                under_way.append((admitted_, claimed))
    assert pair.at_hand > 10


@pytest.mark.parametrize("strategy", [ELASTIC, MOVING, SLIDING])
def test_other_strategies_have_no_account(strategy: str) -> None:
    """Only fixed windows can be counted so."""
    pair = Pair(counters(requests=(counter("requests", strategy=strategy),)))
    assert pair.admit(1, 0) is not None
    assert pair.account is None


def test_nothing_is_at_hand_before_the_first_call() -> None:
    """Of whom nothing is known the store has no account; with the first call it has."""
    pair = Pair(PLAIN)
    assert pair.account is None
    assert pair.admit(1, 0) is not None
    assert pair.account is not None


@pytest.mark.parametrize("counted", [PLAIN, ONLY_PLACES], ids=["windows", "places"])
def test_what_was_forgotten_is_no_account(counted: Counters) -> None:
    """Where the store has forgotten a caller, what others still have at hand of him counts nothing any more."""
    store = MemoryStore(Clock(), max_subjects=1)
    grant = store.admit(claims(counted, 1, 0))
    account = store.account(counted)
    assert account is not None
    store.settle(claims(counted, 1, 0), grant, changes(counted, 0, 0))
    store.admit([Claim("bob", ((counter("requests"), 1),))])
    assert account.admit(1, 0) is None


def test_call_that_ends_in_the_next_window() -> None:
    """What a call gives back after its window is gone; what it took on top counts in the one that is under way."""
    pair = Pair(PLAIN)
    assert pair.admit(1, 0) is not None
    first, second = pair.admit(10, 0), pair.admit(10, 0)
    assert first is not None
    assert second is not None
    pair.clock.now += 61
    assert pair.admit(5, 0) is not None
    pair.settle(first, -10, 0, (10, 0))
    pair.settle(second, 20, 0, (10, 0))
    third = pair.admit(1, 0)
    assert third is not None
    assert isinstance(third[0], Taken)
    assert third[0].tokens == Nearest(LIMIT, LIMIT - 5 - 20 - 1, 60.0)
