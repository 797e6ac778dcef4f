"""The store of many processes, over a real Redis: the same to the last unit as the one in memory, and one truth."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from fractions import Fraction
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.crc import key_slot

from chat_api.counting import FIXED, PARALLEL, STRATEGIES, Claim, Counter, Grant
from chat_api.errors import StoreDown
from chat_api.stores import open_store
from chat_api.stores.keys import tagged, untagged
from chat_api.stores.memory import PARALLEL_WAIT_SECONDS, MemoryStore
from chat_api.stores.redis_store import UNCOUNTED, RedisStore, _Admission
from chat_api.types import Secret
from tests.redis_servers import RedisServer, redis_store

START = 1_700_000_000_000
REQUESTS = Counter("requests/60", 100, 60)
TOKENS = Counter("tokens/60", 1000, 60)
SUBJECTS = itertools.count()


class Clock:
    """A clock that a test sets, in milliseconds."""

    def __init__(self) -> None:
        self.ms = START

    def __call__(self) -> int:
        """The time."""
        return self.ms

    def seconds(self) -> float:
        """The same, as the store in memory has it, but exact."""
        return cast("float", Fraction(self.ms, 1000))


@contextlib.asynccontextmanager
async def stores(url: str, count: int, **options: Any) -> AsyncIterator[list[RedisStore]]:
    """So many processes' worth of stores at a URL, closed at the end."""
    made = [redis_store(url, **options) for _ in range(count)]
    try:
        yield made
    finally:
        for store in made:
            await store.aclose()


def subject() -> str:
    """Somebody who has not called yet."""
    return f"subject {next(SUBJECTS)}"


def left(grant: Grant) -> list[int]:
    """What each reading says is left."""
    return [reading.left for reading in grant.readings]


# The same as in memory.


amounts = st.integers(0, 6)
edges = [0, 0, 1, 116, 117, 1000, 6999, 7000, 7001, 7117, 13_999, 14_000, 14_234, 59_999, 60_000, 61_000, 120_000]
jumps = st.one_of(st.integers(0, 3000), st.sampled_from(edges), st.sampled_from([-1, -117, -7000, -14_001, -(10**6)]))
admissions = st.tuples(jumps, st.lists(st.tuples(amounts, amounts), min_size=1, max_size=2), st.integers(0, 3))
settlements = st.tuples(jumps, st.integers(0, 100), st.integers(-8, 8))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    strategy=st.sampled_from(STRATEGIES),
    seconds=st.sampled_from([7, 60]),
    steps=st.lists(st.one_of(admissions, admissions, settlements), max_size=40),
)
def test_same_as_in_memory(
    shared_redis: RedisServer, strategy: str, seconds: int, steps: list[tuple[int, Any, int]]
) -> None:
    """Whatever is asked at whatever time, also where the clock goes back, both stores say the same."""
    clock, names = Clock(), [subject(), subject()]
    counters = [Counter("requests", 10, seconds, strategy), Counter("tokens", 12, 2 * seconds, strategy)]

    async def main() -> None:
        memory = MemoryStore(clock.seconds)
        async with stores(shared_redis.url, 1, now=clock) as [redis]:
            flying: list[tuple[list[Claim], Grant, Grant]] = []
            for later, what, number in steps:
                clock.ms += later
                if isinstance(what, int):
                    if flying:
                        claims, expected, got = flying.pop(what % len(flying))
                        changes = [number] * len(expected.readings)
                        memory.settle(claims, expected, changes)
                        redis.settle(claims, got, changes)
                    continue
                claims = [
                    Claim(name, tuple(zip(counters, charges, strict=True)), 3)
                    for name, charges in zip(names, what, strict=False)
                ]
                expected, got = memory.admit(claims), await redis.admit(claims)
                assert (got.refused, got.refused_claim) == (expected.refused, expected.refused_claim)
                assert got.wait_seconds == expected.wait_seconds
                assert left(got) == left(expected)
                if len(claims) == 1:  # of two, Redis has charged what it gives back
                    assert got.readings == expected.readings
                if got.refused is None:
                    flying.append((claims, expected, got))

    asyncio.run(main())


def test_longest_wait_of_two_subjects(redis: RedisServer) -> None:
    """Of two subjects who both refuse, the one counts who refuses for longer; no place and no token is taken."""

    async def main() -> None:
        async with stores(redis.url, 1, now=Clock()) as [store]:
            short, long = Counter("requests/7", 1, 7), Counter("requests/60", 1, 60)
            alice, model = Claim("alice", ((TOKENS, 5), (short, 2)), 1), Claim("gpt-4o", ((long, 2),), 1)
            grant = await store.admit([alice, model])
            assert (grant.refused, grant.refused_claim, grant.wait_seconds) == (2, 1, 60.0)
            grant = await store.admit([model, alice])
            assert (grant.refused, grant.refused_claim, left(grant)) == (0, 0, [1, 1000, 1])
            assert redis.client.keys("*limits") == []

    asyncio.run(main())


@pytest.mark.parametrize("refuser", [0, 1])
def test_refused_by_one_of_two(redis: RedisServer, refuser: int) -> None:
    """What one subject granted is given back when the other refuses, and was never there in what is told."""

    async def main() -> None:
        async with stores(redis.url, 1) as [store]:
            claims = [Claim("alice", ((TOKENS, 600),), 1), Claim("gpt-4o", ((Counter("tokens/60", 10, 60), 11),), 1)]
            claims = claims if refuser else claims[::-1]
            for _ in range(3):
                grant = await store.admit(claims)
                assert (grant.refused, grant.refused_claim) == (refuser, refuser)
                assert sorted(left(grant)) == [10, 1000]
            assert (await store.admit([Claim("alice", ((TOKENS, 1000),), 1)])).refused is None

    asyncio.run(main())


def test_parallel(redis: RedisServer) -> None:
    """So many calls at a time, over all processes; a place that one gives back another may take."""

    async def main() -> None:
        async with stores(redis.url, 2) as [one, two]:
            claims = [Claim("alice", (), 3)]
            grants = [await store.admit(claims) for store in (one, two, one, two)]
            assert [grant.refused for grant in grants] == [None, None, None, PARALLEL]
            assert (grants[3].refused_claim, grants[3].wait_seconds) == (0, PARALLEL_WAIT_SECONDS)
            one.settle(claims, grants[0], ())
            await one.admit([Claim("bob", ((REQUESTS, 0),))])  # what was asked before has been done
            assert (await two.admit(claims)).refused is None
            assert (await one.admit(claims)).refused == PARALLEL

    asyncio.run(main())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_truth(redis: RedisServer, strategy: str) -> None:
    """Of a burst on two processes at once exactly what the limit allows is admitted, of requests and of tokens."""

    async def main() -> None:
        async with stores(redis.url, 2) as both:
            requests, tokens = Counter("requests", 60, 3600, strategy), Counter("tokens", 5000, 3600, strategy)
            claims = [Claim("alice", ((requests, 1), (tokens, 100)), 1000)]
            grants = await asyncio.gather(*(store.admit(claims) for _ in range(100) for store in both))
            admitted = [grant for grant in grants if grant.refused is None]
            assert len(admitted) == 50
            assert sorted(grant.readings[1].left for grant in admitted) == list(range(0, 5000, 100))
            assert all(grant.refused == 1 for grant in grants if grant.refused is not None)

    asyncio.run(main())


def test_parallel_holds_under_concurrency(redis: RedisServer) -> None:
    """However many come and go at once on three processes, there are never more at a time, and all of it is used."""
    most, flying, seen = 5, 0, 0

    async def caller(store: RedisStore) -> None:
        nonlocal flying, seen
        claims = [Claim("alice", (), most)]
        for _ in range(20):
            grant = await store.admit(claims)
            if grant.refused is None:
                flying += 1
                seen = max(seen, flying)
                await asyncio.sleep(0)
                flying -= 1
                store.settle(claims, grant, ())

    async def main() -> None:
        async with stores(redis.url, 3) as all_three:
            await asyncio.gather(*(caller(store) for store in all_three for _ in range(10)))
        assert seen == most

    asyncio.run(main())
    assert redis.client.hgetall("chat-api:{alice}:limits") == {}


# Processes that die.


def test_places_of_a_dead_process(redis: RedisServer) -> None:
    """Its places are free when its lease has ended, and not before; its charges stay."""
    clock = Clock()

    async def main() -> None:
        async with stores(redis.url, 2, now=clock, lease_seconds=30) as [dead, alive]:
            claims = [Claim("alice", ((REQUESTS, 1),), 2)]
            for _ in range(2):
                assert (await dead.admit(claims)).refused is None
            clock.ms += 29_999
            assert (await alive.admit(claims)).refused == PARALLEL
            clock.ms += 1
            grant = await alive.admit(claims)
            assert (grant.refused, left(grant)) == (None, [97])

    asyncio.run(main())


def test_lease_is_renewed(redis: RedisServer) -> None:
    """A process that lives keeps its places, though no call of its comes or goes."""
    clock = Clock()

    async def main() -> None:
        async with stores(redis.url, 2, now=clock, lease_seconds=30) as [one, other]:
            claims = [Claim("alice", (), 1)]
            await one.admit(claims)
            for _ in range(10):
                clock.ms += 20_000
                one._renew()
                await one.admit([Claim("bob", ((REQUESTS, 0),))])
                assert (await other.admit(claims)).refused == PARALLEL

    asyncio.run(main())


def test_lease_is_renewed_in_the_background(redis: RedisServer) -> None:
    """The store does so by itself, three times a lease."""

    async def main() -> None:
        async with stores(redis.url, 1, lease_seconds=0.2) as [store]:
            await store.admit([Claim("alice", (), 1)])
            for _ in range(3):
                redis.client.delete("chat-api:{alice}:limits")
                async with asyncio.timeout(10):
                    while not redis.client.exists("chat-api:{alice}:limits"):  # noqa: ASYNC110 - another process's
                        await asyncio.sleep(0.005)

    asyncio.run(main())


def test_process_that_outlived_its_lease(redis: RedisServer) -> None:
    """One that was held up for longer than its lease counts what it really has in flight when it is back."""
    clock = Clock()

    async def main() -> None:
        async with stores(redis.url, 2, now=clock, lease_seconds=30) as [one, other]:
            claims = [Claim("alice", (), 3)]
            grants = [await one.admit(claims) for _ in range(2)]
            clock.ms += 60_000
            assert (await other.admit([Claim("alice", (), 3)])).refused is None
            assert (await one.admit(claims)).refused == PARALLEL
            one.settle(claims, grants[0], ())
            assert (await one.admit(claims)).refused is None

    asyncio.run(main())


def test_lease_and_a_clock_that_goes_back(redis: RedisServer) -> None:
    """The places of a dead process are not held for longer because the clock went back."""
    clock = Clock()

    async def main() -> None:
        async with stores(redis.url, 2, now=clock, lease_seconds=30) as [dead, alive]:
            claims = [Claim("alice", (), 1)]
            await dead.admit(claims)
            clock.ms -= 3_600_000
            assert (await alive.admit(claims)).refused == PARALLEL
            clock.ms += 30_000
            assert (await alive.admit(claims)).refused is None

    asyncio.run(main())


@pytest.mark.parametrize("late", ["admission", "settlement", "renewal"])
def test_what_comes_late_over_an_old_link(redis: RedisServer, late: str) -> None:
    """A server that goes on after a pause may run what was given up long ago: that moves no place."""

    async def main() -> None:
        async with stores(redis.url, 2) as [one, other]:
            claims = [Claim("alice", (), 3)]
            grants = [await one.admit(claims) for _ in range(2)]
            one._link.number += 1
            await one.admit(claims)
            one._link.number -= 1
            if late == "admission":
                assert (await one.admit([Claim("alice", (), 9)])).refused is None
            elif late == "settlement":
                one.settle(claims, grants[0], ())
            else:
                one._renew()
            await one.admit([Claim("bob", ((REQUESTS, 0),))])
            assert (await other.admit(claims)).refused == PARALLEL
            assert (await other.admit([Claim("alice", (), 4)])).refused is None

    asyncio.run(main())


def test_parallel_of_both_claims(redis: RedisServer) -> None:
    """Where both have too many calls in flight the first is named."""

    async def main() -> None:
        async with stores(redis.url, 1) as [store]:
            claims = [Claim("alice", (), 1), Claim("gpt-4o", (), 1)]
            await store.admit(claims)
            grant = await store.admit(claims)
            assert (grant.refused, grant.refused_claim) == (PARALLEL, 0)

    asyncio.run(main())


def test_wrong_number_of_places_is_put_right(redis: RedisServer) -> None:
    """What a settlement that got lost has left behind is gone with the next renewal."""

    async def main() -> None:
        async with stores(redis.url, 2) as [one, other]:
            claims = [Claim("alice", (), 2)]
            for _ in range(2):
                await one.admit(claims)
            one._flights["alice"].count = 1
            one._renew()
            await one.admit([Claim("bob", ((REQUESTS, 0),))])
            assert (await other.admit(claims)).refused is None

    asyncio.run(main())


# Callers that leave.


def test_caller_that_leaves_while_it_waits(redis: RedisServer) -> None:
    """What it is granted afterwards is given back, and those who wait with it get theirs."""

    async def main() -> None:
        async with stores(redis.url, 1) as [store]:
            claims = [Claim("alice", ((TOKENS, 100),), 5), Claim("gpt-4o", ((TOKENS, 100),), 5)]
            tasks = [asyncio.create_task(store.admit(claims)) for _ in range(5)]
            await asyncio.sleep(0)
            tasks[1].cancel()
            grants = await asyncio.gather(*tasks, return_exceptions=True)
            assert [isinstance(grant, Grant) for grant in grants] == [True, False, True, True, True]
            grant = await store.admit(claims)
            assert (grant.refused, left(grant)) == (None, [500, 500])
            assert (await store.admit(claims)).refused == PARALLEL

    asyncio.run(main())


def test_caller_that_leaves_at_the_last_moment(redis: RedisServer) -> None:
    """What was granted before its caller could take it is given back as well."""

    async def main() -> None:
        async with stores(redis.url, 1) as [store]:
            claims = [Claim("alice", ((TOKENS, 100),), 1)]
            task = asyncio.create_task(store.admit(claims))
            await asyncio.sleep(0)
            admission = _Admission(store, [Claim("bob", ((TOKENS, 100),), 1)])
            await admission.grant
            admission.leave()
            assert (await task).refused is None
            assert left(await store.admit([Claim("bob", ((TOKENS, 0),), 1)])) == [1000]

    asyncio.run(main())


def test_caller_that_is_refused_and_leaves(redis: RedisServer) -> None:
    """There is nothing to give back then."""

    async def main() -> None:
        async with stores(redis.url, 1) as [store]:
            admission = _Admission(store, [Claim("bob", ((TOKENS, 1001),), 1)])
            await admission.grant
            admission.leave()
            assert (await store.admit([Claim("bob", ((TOKENS, 1000),), 1)])).refused is None

    asyncio.run(main())


# What is in Redis.


def test_nothing_stays(redis: RedisServer) -> None:
    """All that is stored expires, and goes at once where nothing is left to remember."""

    async def main() -> None:
        async with stores(redis.url, 1) as [store]:
            for strategy, parallel in itertools.product(STRATEGIES, (0, 1)):
                claims = [Claim(f"{strategy} {parallel}", ((Counter("tokens", 10, 60, strategy), 4),), parallel)]
                grant = await store.admit(claims)
                [key] = redis.client.keys("chat-api:*limits")
                assert 0 < redis.client.pttl(key) <= 120_000
                store.settle(claims, grant, (-4,))
                await store.admit([Claim("nobody", ((REQUESTS, 0),))])
                assert redis.client.keys("chat-api:*limits") == []

    asyncio.run(main())


def test_expires_with_its_last_counter(redis: RedisServer) -> None:
    """What is stored of a subject stays as long as the longest of it."""

    async def main() -> None:
        async with stores(redis.url, 1) as [store]:
            day = Counter("tokens/86400", 1000, 86400)
            for counter, least_ms in ((REQUESTS, 0), (day, 86_000_000), (REQUESTS, 86_000_000)):
                await store.admit([Claim("alice", ((counter, 1),))])
                assert least_ms < redis.client.pttl("chat-api:{alice}:limits") <= 86_400_000

    asyncio.run(main())


NAMES = [
    "alice",
    "",
    "%",
    "a}b",
    "}",
    "{x}",
    "{}",
    "%7D",
    "käthe",
    "10.0.0.1",
    "fe80::1",
    "a b",
    "\x00",
    "\udcff",
    "}:limits",
]


def test_keys() -> None:
    """A key has one hash tag with all of the name in it, whatever is in the name; no two names share a key."""
    keys = [tagged(name, "limits") for name in NAMES]
    assert len(set(keys)) == len(NAMES)
    for name, key in zip(NAMES, keys, strict=True):
        tag = key.removeprefix(b"chat-api:{").removesuffix(b"}:limits")
        assert tag
        assert not set(b"{}") & set(tag)
        assert key_slot(key) == key_slot(tagged(name, "usage:2026-11-21"))
        if name != "\udcff":
            assert untagged(key) == (name, "limits")


def test_awkward_subjects(redis: RedisServer) -> None:
    """Each is counted for itself."""

    async def main() -> None:
        async with stores(redis.url, 1) as [store]:
            for _ in range(2):
                for name in NAMES:
                    await store.admit([Claim(name, ((REQUESTS, 1),))])
            assert {left(await store.admit([Claim(name, ((REQUESTS, 0),))]))[0] for name in NAMES} == {98}

    asyncio.run(main())


def test_large_numbers_and_long_names(redis: RedisServer) -> None:
    """The highest limit there is counts to the last unit; names may be as long as they like."""

    async def main() -> None:
        async with stores(redis.url, 1) as [store]:
            most = 10**15 - 1
            for strategy in STRATEGIES:
                claims = [
                    Claim("a" * 300, ((Counter(f"{strategy} {'n' * 300}", most, 12 * 30 * 86400, strategy), most),))
                ]
                grant = await store.admit(claims)
                assert left(grant) == [0]
                assert (await store.admit(claims)).refused == 0
                store.settle(claims, grant, (-1,))
                assert left(await store.admit([Claim("a" * 300, ((claims[0].charges[0][0], 1),))])) == [0]

    asyncio.run(main())


def test_many_counters(redis: RedisServer) -> None:
    """A claim may have many."""

    async def main() -> None:
        async with stores(redis.url, 1) as [store]:
            charges = tuple((Counter(f"tokens of model {number}", 10, 60), 1) for number in range(200))
            assert left(await store.admit([Claim("alice", charges)])) == [9] * 200

    asyncio.run(main())


def test_strategy_may_change(redis: RedisServer) -> None:
    """A process with other settings than the one before counts for itself, and does not stumble over the other's."""

    async def main() -> None:
        async with stores(redis.url, 1) as [store]:
            for strategy, seconds in itertools.product(STRATEGIES, (60, 120)):
                grant = await store.admit([Claim("alice", ((Counter("requests", 10, seconds, strategy), 1),))])
                assert left(grant) == [9]

    asyncio.run(main())


def test_server_forgets_the_scripts(redis: RedisServer) -> None:
    """A server that does not know a script any more is sent it again; nobody notices."""

    async def main() -> None:
        async with stores(redis.url, 1) as [store]:
            claims = [Claim("alice", ((REQUESTS, 1),), 1)]
            for number in range(3):
                redis.client.script_flush()
                grant = await store.admit(claims)
                assert left(grant) == [99 - number]
                redis.client.script_flush()
                store.settle(claims, grant, (0,))
            assert store.state()["failures"] == 0

    asyncio.run(main())


def test_what_is_stored_otherwise_harms_its_subject_only(redis: RedisServer) -> None:
    """Where something else is stored under a subject's key its calls pass uncounted, all others are counted."""

    async def main() -> None:
        async with stores(redis.url, 1) as [store]:
            redis.client.set("chat-api:{mallory}:limits", "x")
            claims = [Claim("alice", ((REQUESTS, 1),), 1), Claim("mallory", ((REQUESTS, 1),), 1)]
            assert await store.admit(claims) is UNCOUNTED
            assert left(await store.admit(claims[:1])) == [99]
            state = store.state()
            assert (state["up"], state["failures"], state["not_counted"]) == (True, 1, 1)

    asyncio.run(main())


# What the store is told, and tells.


def test_nothing_claimed(redis: RedisServer) -> None:
    """A call that claims nothing is admitted, and settled."""

    async def main() -> None:
        async with stores(redis.url, 1) as [store]:
            store.settle([], await store.admit([]), ())

    asyncio.run(main())


def test_settlement_of_what_was_not_granted(redis: RedisServer) -> None:
    """A refused call has nothing to settle, and one that was not counted neither."""

    async def main() -> None:
        async with stores(redis.url, 1) as [store]:
            claims = [Claim("alice", ((REQUESTS, 101),), 1)]
            store.settle(claims, await store.admit(claims), (5,))
            store.settle(claims, UNCOUNTED, (5,))
            assert left(await store.admit([Claim("alice", ((REQUESTS, 0),), 1)])) == [100]

    asyncio.run(main())


def test_state(redis: RedisServer) -> None:
    """Operators are told where it is, and how it does."""

    async def main() -> None:
        async with stores(redis.url, 1) as [store]:
            assert store.state()["up"] is False
            await store.admit([Claim("alice", ((REQUESTS, 1),))])
            assert store.state() == {
                "kind": "redis",
                "server": f"127.0.0.1:{redis.port}",
                "up": True,
                "failures": 0,
                "not_counted": 0,
                "not_settled": 0,
                "down_seconds": 0.0,
            }

    asyncio.run(main())


def test_open_store(redis: RedisServer) -> None:
    """A URL opens the store there, which connects at once; no URL is this process's own memory."""

    async def main() -> None:
        claims, usage = open_store(Secret(redis.url), timeout_seconds=10)
        assert usage is not None
        await claims.aclose()
        with pytest.raises(StoreDown):
            await usage.read("2026-11-21", "2026-11-21")

    asyncio.run(main())
    claims, usage = open_store(Secret(redis.url))
    assert claims.state()["kind"] == "redis"
    claims, usage = open_store(None)
    assert (claims.state(), usage) == ({"kind": "memory"}, None)


def sums(grants: Sequence[Grant]) -> int:
    """How many were admitted."""
    return sum(grant.refused is None for grant in grants)


def test_one_round_trip(redis: RedisServer) -> None:
    """A hundred admissions at the same moment, of two claims each, are a handful of round trips, as are settlements."""

    async def main() -> None:
        async with stores(redis.url, 1) as [store]:
            claims = [Claim("alice", ((REQUESTS, 1),), 1000), Claim("gpt-4o", ((REQUESTS, 1),), 1000)]
            await store.admit(claims)
            run, trips = store._link._client.run, []

            async def counted(commands: Sequence[Any]) -> list[Any]:
                trips.append(len(commands))
                return await run(commands)

            store._link._client.run = counted  # type: ignore[method-assign]
            grants = await asyncio.gather(*(store.admit(claims) for _ in range(99)))
            assert sums(grants) == 99
            assert (sum(trips), len(trips) <= 3) == (198, True)
            for grant in grants:
                store.settle(claims, grant, (-1, -1))
            assert left(await store.admit(claims)) == [98, 98]
            assert (sum(trips), len(trips) <= 5) == (398, True)

    asyncio.run(main())


def test_fixed_is_the_strategy_without_one() -> None:
    """A counter that names no strategy is a fixed window."""
    assert Counter("requests", 1, 1).strategy == FIXED
