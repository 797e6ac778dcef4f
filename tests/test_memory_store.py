"""The store of one process: claims of several counters and subjects, calls in flight, and what it remembers."""

import random

import pytest

from chat_api.counting import ELASTIC, FIXED, MOVING, PARALLEL, STRATEGIES, Claim, Counter, Grant, Reading
from chat_api.stores.memory import LOOKED_AT, PARALLEL_WAIT_SECONDS, MemoryStore

REQUESTS = Counter("requests/60", 3, 60)
TOKENS = Counter("tokens/60", 100, 60)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def alice(requests: int = 1, tokens: int = 0, *, max_parallel: int = 0) -> Claim:
    """What a call of hers takes."""
    return Claim("alice", ((REQUESTS, requests), (TOKENS, tokens)), max_parallel)


def left(grant: Grant) -> list[int]:
    """What each reading says is left."""
    return [reading.left for reading in grant.readings]


def test_grant() -> None:
    """A call that is admitted is told how each counter of each claim stands, in their order."""
    clock = Clock()
    store = MemoryStore(clock)
    bob = Claim("bob", ((Counter("tokens/day", 1000, 86400, MOVING), 10),))
    grant = store.admit([alice(1, 40), bob])
    assert (grant.refused, left(grant)) == (None, [2, 60, 990])
    assert [reading.reset_seconds for reading in grant.readings[:2]] == [60.0, 60.0]
    clock.now += 10
    assert [reading.reset_seconds for reading in store.admit([alice()]).readings] == [50.0, 50.0]


def test_refusal_charges_nothing() -> None:
    """Where one charge of one claim is too much, none of any claim is charged, and no place is taken."""
    store = MemoryStore(Clock())
    model = Claim("gpt-4o", ((Counter("tokens/60", 50, 60), 51),))
    grant = store.admit([alice(1, 40, max_parallel=1), model])
    assert (grant.refused, grant.refused_claim, grant.wait_seconds) == (2, 1, 60.0)
    assert left(grant) == [3, 100, 50]
    assert [reading.reset_seconds for reading in grant.readings] == [0.0, 0.0, 0.0]
    assert store.admit([alice(3, 100, max_parallel=1)]).refused is None


def test_longest_wait_is_told() -> None:
    """Of several charges that are too much the one counts that takes longest to fit: nobody comes again in vain."""
    clock = Clock()
    store = MemoryStore(clock)
    store.admit([Claim("alice", ((REQUESTS, 3),))])
    clock.now += 20
    store.admit([Claim("alice", ((TOKENS, 100),))])
    clock.now += 10
    grant = store.admit([alice(1, 1)])
    assert (grant.refused, grant.wait_seconds) == (1, 50.0)
    assert left(grant) == [0, 0]


def test_refused_calls_touch_elastic_windows() -> None:
    """A call that is refused lets every elastic window of its claims begin anew."""
    clock = Clock()
    store = MemoryStore(clock)
    elastic, tokens = Counter("requests/60", 2, 60, ELASTIC), Counter("tokens/3600", 100, 3600)
    one = Claim("alice", ((elastic, 1), (tokens, 100)))
    assert store.admit([one]).refused is None
    for claim, refused in ((one, 1), (Claim("alice", one.charges[::-1]), 0), (Claim("alice", ((elastic, 2),)), 0)):
        clock.now += 59
        assert store.admit([claim]).refused == refused
    clock.now += 59
    assert left(store.admit([Claim("alice", ((elastic, 0),))])) == [1]


def test_refused_calls_wake_no_elastic_window() -> None:
    """A window that was over before the call that is refused stays over."""
    clock = Clock()
    store = MemoryStore(clock)
    elastic = Counter("requests/60", 2, 60, ELASTIC)
    store.admit([Claim("alice", ((elastic, 2),))])
    clock.now += 60
    assert left(store.admit([Claim("alice", ((TOKENS, 101), (elastic, 1)))])) == [100, 2]


def test_settle() -> None:
    """What a call really took is what counts."""
    store = MemoryStore(Clock())
    claims = [alice(1, 80)]
    grant = store.admit(claims)
    store.settle(claims, grant, (0, -50))
    assert left(store.admit([alice(1, 0)])) == [1, 70]
    store.settle(claims, grant, (-1, 80))
    assert store.admit([alice(1, 0)]).refused == 1


def test_settle_after_the_window() -> None:
    """What has left its window is not given back; more than was charged counts now."""
    clock = Clock()
    store = MemoryStore(clock)
    claims = [Claim("alice", ((REQUESTS, 1), (TOKENS, 80)))]
    grant = store.admit(claims)
    clock.now += 60
    store.settle(claims, grant, (-1, 30))
    assert left(store.admit([alice(1, 0)])) == [2, 70]


def test_parallel() -> None:
    """So many calls at a time; a place is free again when a call is settled."""
    store = MemoryStore(Clock())
    claims = [Claim("alice", (), 2)]
    grants = [store.admit(claims) for _ in range(3)]
    assert [grant.refused for grant in grants] == [None, None, PARALLEL]
    assert (grants[2].refused_claim, grants[2].wait_seconds) == (0, PARALLEL_WAIT_SECONDS)
    store.settle(claims, grants[0], ())
    assert [store.admit(claims).refused for _ in range(2)] == [None, PARALLEL]


def test_parallel_of_the_second_claim() -> None:
    """Whose calls are too many is told, and the other one's place is not taken."""
    store = MemoryStore(Clock())
    model = Claim("gpt-4o", (), 1)
    store.admit([model])
    for _ in range(3):
        grant = store.admit([alice(max_parallel=1), model])
        assert (grant.refused, grant.refused_claim, left(grant)) == (PARALLEL, 1, [3, 100])


def test_parallel_of_both_claims() -> None:
    """Where both have too many the first is named."""
    store = MemoryStore(Clock())
    claims = [Claim("alice", (), 1), Claim("gpt-4o", (), 1)]
    store.admit(claims)
    grant = store.admit(claims)
    assert (grant.refused, grant.refused_claim) == (PARALLEL, 0)


def test_refused_call_has_nothing_to_settle() -> None:
    """Settling it changes nothing."""
    store = MemoryStore(Clock())
    claims = [alice(1, 101)]
    store.settle(claims, store.admit(claims), (-1, 50))
    assert left(store.admit([alice(0, 0)])) == [3, 100]


def test_counter_before_parallel() -> None:
    """Where a counter is used up and the places are too, the counter is named: its wait is known."""
    store = MemoryStore(Clock())
    claims = [alice(3, 0, max_parallel=1)]
    store.admit(claims)
    grant = store.admit(claims)
    assert (grant.refused, grant.wait_seconds) == (0, 60.0)


def test_no_claims() -> None:
    """A call that claims nothing is admitted, and settled."""
    store = MemoryStore()
    grant = store.admit([])
    store.settle([], grant, ())
    assert grant == Grant()
    assert store.state() == {"kind": "memory"}


def names(store: MemoryStore) -> list[str]:
    """Whom it remembers."""
    return list(store._subjects)


def test_idle_subjects_are_forgotten() -> None:
    """Who has nothing left in any window makes room for those who come."""
    clock = Clock()
    store = MemoryStore(clock)
    for number in range(100):
        clock.now += 61
        store.admit([Claim(f"10.0.0.{number}", ((REQUESTS, 1),))])
        store._subjects[f"10.0.0.{number}"].in_flight = 0
    assert len(names(store)) <= LOOKED_AT


def test_subjects_are_bounded() -> None:
    """Of more subjects than it remembers old ones are forgotten, whatever they have used."""
    store = MemoryStore(Clock(), max_subjects=10)
    for number in range(100):
        claims = [Claim(f"10.0.0.{number}", ((REQUESTS, 1),))]
        store.settle(claims, store.admit(claims), (0,))
    assert len(names(store)) == 10
    assert "10.0.0.99" in names(store)


def test_calls_in_flight_are_remembered() -> None:
    """Nobody with a call in flight is forgotten: it is settled as it was admitted."""
    store = MemoryStore(Clock(), max_subjects=10)
    claims = [alice(1, 40, max_parallel=1)]
    grant = store.admit(claims)
    for number in range(100):
        others = [Claim(f"10.0.0.{number}", ((REQUESTS, 1),))]
        store.settle(others, store.admit(others), (0,))
    assert len(names(store)) <= 10
    assert store.admit(claims).refused == PARALLEL
    store.settle(claims, grant, (0, -10))
    assert left(store.admit([alice()])) == [1, 70]


def test_claims_of_two_new_subjects() -> None:
    """The second subject of a call does not push the first out, however few are remembered."""
    store = MemoryStore(Clock(), max_subjects=1)
    claims = [Claim("alice", ((REQUESTS, 1),)), Claim("bob", ((REQUESTS, 1),))]
    grant = store.admit(claims)
    store.settle(claims, grant, (-1, -1))
    assert sorted(names(store)) == ["alice", "bob"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_any_order(strategy: str) -> None:
    """Calls that come, end and are refused in any order leave nothing behind once they are given back."""
    clock, rng = Clock(), random.Random(7)
    store = MemoryStore(clock)
    requests, tokens = Counter("requests", 20, 60, strategy), Counter("tokens", 1000, 60, strategy)
    flying: list[tuple[list[Claim], Grant]] = []
    for _ in range(1000):
        clock.now += rng.choice((0, 0.001, 0.5))
        if flying and rng.random() < 0.5:
            claims, grant = flying.pop(rng.randrange(len(flying)))
            store.settle(claims, grant, [-amount for claim in claims for _, amount in claim.charges])
        amounts = rng.randrange(3), rng.randrange(200)
        claims = [Claim(subject, ((requests, amounts[0]), (tokens, amounts[1])), 10) for subject in rng.sample("ab", 2)]
        grant = store.admit(claims)
        if grant.refused is None:
            flying.append((claims, grant))
        assert len(grant.readings) == 4
    for claims, grant in flying:
        store.settle(claims, grant, [-amount for claim in claims for _, amount in claim.charges])
    grant = store.admit([Claim("a", ((requests, 0), (tokens, 0)), 1)])
    assert (grant.refused, left(grant)) == (None, [20, 1000])


def test_reading_is_what_was_charged() -> None:
    """The stamp of a reading tells `settle` which window a charge is in; nothing charged has none."""
    store = MemoryStore(Clock())
    assert store.admit([Claim("alice", ((Counter("requests", 3, 60, FIXED), 0),))]).readings == (Reading(3, 0.0),)
    assert store.admit([alice()]).readings[0] == Reading(2, 60.0, 1_000_000)
