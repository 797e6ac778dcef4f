"""What callers are admitted to, counted by themselves: no more than a limit, and nearly all of it.

Limits are of a day, so that no window ends meanwhile: what was admitted in all is what was admitted in one.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, cycle, islice
from typing import Any

import pytest

from benchmarks.callers import Called
from chat_api.emulator.latency import Latency
from tests.fleets import WATCHED, Fleet, client_key, fleet
from tests.redis_servers import RedisServer
from tests.truth import (
    CALLERS,
    REFUSALS,
    USABLE,
    Asked,
    Tally,
    burst,
    call_until_answered,
    check_refusals,
    check_told,
    fail,
    leave,
    one_way,
    places,
    use_up,
    ways,
)

pytestmark = pytest.mark.alone  # it looks at what happens when

REQUESTS = 200
TOKENS = 12_000
LENGTHS = (5, 30, 60)  # of prompts, in words
SPAN_REQUESTS = 60  # in a second
PLACES = 10
SHARED_MODEL = "gpt-4.1"
UNKNOWN_MODEL = "gpt-35-turbo-instruct"  # which only one test calls
KEYS = (
    client_key("requests", requests=f"{REQUESTS}/day"),
    client_key("span", requests=f"{SPAN_REQUESTS}/second"),
    client_key("stated", tokens=f"{TOKENS}/day"),
    client_key("learned", tokens=f"{TOKENS}/day"),
    client_key("dense", tokens=f"{TOKENS}/day"),
    client_key("shared-1"),
    client_key("shared-2"),
    client_key("parallel", max_parallel=PLACES),
    *(client_key(name, tokens=f"{TOKENS}/day", max_parallel=PLACES) for name in ("hasty", "leaving", "unlucky")),
)
FLEETS: Mapping[str, dict[str, Any]] = {
    "four processes": {"processes": 4, "RATE_LIMIT_STRATEGY": "fixed-window"},
    "four workers": {"workers": 4, "RATE_LIMIT_STRATEGY": "moving-window"},
    "one process without Redis": {"RATE_LIMIT_STRATEGY": "moving-window"},
}
# Workers differ from processes in who gets which call, and their windows move; what calls leave behind is the same.
NOT_WORKERS = pytest.mark.parametrize(
    "gateways", ["four processes", "one process without Redis"], indirect=True, scope="module"
)
FAULTS = (
    *("400", "401", "429", "500", "503", "html", "empty", "not-json", "redirect", "not-http", "closed", "reset"),
    *("error-event", "filter", "cut", "truncated", "no-done", "late-error-event"),  # some streams of these begin
)


@pytest.fixture(scope="module", params=FLEETS)
def gateways(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """Gateways that share one truth."""
    settings: dict[str, Any] = {"MODEL_TOKEN_LIMIT": json.dumps({SHARED_MODEL: f"{TOKENS}/day"})}
    if "Redis" not in request.param:
        redis: RedisServer = request.getfixturevalue("shared_redis")
        redis.client.flushall()
        settings["STORE_URL"] = redis.url
    with fleet(KEYS, **(settings | FLEETS[request.param])) as started:
        yield started


def test_requests(gateways: Fleet) -> None:
    """As many calls are answered as a key may make: not one more, and not one less."""
    tally = asyncio.run(burst(gateways.ports, ways("requests")))

    assert tally.requests == REQUESTS
    check_refusals(tally, "rate_limit_exceeded", of=("requests",))
    for called in tally.admitted:
        check_told(called, "requests")


@NOT_WORKERS
def test_requests_in_spans(gateways: Fleet) -> None:
    """Refused callers who come again when they are told to are answered: so many in each span of time."""
    kind = one_way("span")
    wanted = 2 * SPAN_REQUESTS + 1  # a third span's first one, too

    async def all_of_them() -> list[list[Called]]:
        ports = islice(cycle(gateways.ports), wanted)
        return await asyncio.gather(*(call_until_answered(port, kind) for port in ports))

    calls = asyncio.run(all_of_them())
    began, ended = min(one[0].started for one in calls), max(one[-1].ended for one in calls)

    assert ended - began >= 2
    check_refusals(Tally(list(chain(*calls))), "rate_limit_exceeded", of=("requests",))


@pytest.mark.parametrize("key", ["stated", "learned"])
def test_tokens(gateways: Fleet, key: str) -> None:
    """A key gets the tokens that it may, whether its calls say how many they may take, or that is learned."""
    stated: dict[str, Any] = {"max_tokens": 40} if key == "stated" else {}

    tally = asyncio.run(used_up(gateways, ways(key, words=LENGTHS, **stated)))

    assert USABLE * TOKENS <= tally.usage.total <= TOKENS
    check_refusals(tally, "rate_limit_exceeded", of=("tokens",))


@NOT_WORKERS
def test_dense_prompts(gateways: Fleet) -> None:
    """Also where a prompt has twice as many tokens as its size lets expect, no more are taken than there are."""
    sparse = ways("dense", model=UNKNOWN_MODEL, words=(400,), max_tokens=40)
    kinds = [replace(kind, word="a") for kind in sparse]

    tally = asyncio.run(burst(gateways.ports, kinds))

    assert 0 < tally.usage.total <= TOKENS
    check_refusals(tally, "rate_limit_exceeded", of=("tokens",))


@NOT_WORKERS
def test_tokens_of_model(gateways: Fleet) -> None:
    """Two keys together get the tokens of a model that there are."""
    kinds = [
        *ways("shared-1", model=SHARED_MODEL, words=LENGTHS, max_tokens=40),
        *ways("shared-2", model=SHARED_MODEL, words=LENGTHS, max_tokens=40),
    ]

    tally = asyncio.run(used_up(gateways, kinds))

    assert USABLE * TOKENS <= tally.usage.total <= TOKENS
    assert all(tally.of(key).requests for key in ("shared-1", "shared-2"))
    check_refusals(tally, "rate_limit_exceeded", of=("tokens",))


def test_calls_in_flight(gateways: Fleet) -> None:
    """A key never has more calls in flight than it may."""
    emulator = gateways.watched
    emulator.latency, emulator.most_in_flight = Latency(0.02, 0.002), 0

    tally = asyncio.run(burst(gateways.ports, ways("parallel", model=WATCHED), calls=REFUSALS))

    assert 0 < emulator.most_in_flight <= PLACES
    check_refusals(tally, "too_many_parallel_calls")
    check_places(gateways, "parallel")


@NOT_WORKERS
def test_callers_who_leave_before_an_answer(gateways: Fleet) -> None:
    """Who leaves before an answer takes nothing, and leaves no place taken: all of the limit is usable."""
    kind = one_way("hasty", model="fault-hang", max_tokens=400)

    async def all_of_them() -> None:
        ports = islice(cycle(gateways.ports), CALLERS * len(gateways.ports))
        await asyncio.gather(*(leave(port, kind, nth % 20 / 100) for nth, port in enumerate(ports)))

    asyncio.run(all_of_them())
    lost = check_places(gateways, "hasty")
    tally = asyncio.run(used_up(gateways, ways("hasty", words=LENGTHS, max_tokens=40), lost))

    assert USABLE * TOKENS - lost <= tally.usage.total <= TOKENS


@NOT_WORKERS
def test_callers_who_leave_in_the_middle(gateways: Fleet) -> None:
    """Who leaves in the middle of a stream takes what was relayed, and leaves no place taken."""
    gateways.watched.latency = Latency(0.0, 0.01)
    kind = one_way("leaving", model=WATCHED, words=60, stream=True)

    async def all_of_them() -> int:
        ports = islice(cycle(gateways.ports), CALLERS * len(gateways.ports))
        leaving = [leave(port, kind, nth % 20 / 100, at_first_event=True) for nth, port in enumerate(ports)]
        return sum(map(is_begun, await asyncio.gather(*leaving)))

    begun = asyncio.run(all_of_them())
    lost = begun * kind.most_if_cut + check_places(gateways, "leaving")
    tally = asyncio.run(used_up(gateways, ways("leaving", words=LENGTHS, max_tokens=40), lost))

    assert begun
    assert USABLE * TOKENS - lost <= tally.usage.total <= TOKENS - begun


@NOT_WORKERS
def test_calls_that_fail(gateways: Fleet) -> None:
    """A call that fails takes nothing, but for what its stream relayed, and leaves no place taken."""
    kinds = [kind for fault in FAULTS for kind in ways("unlucky", model=f"fault-{fault}", max_tokens=400)]

    async def all_of_them() -> int:
        failing = (fail(port, kind) for port, kind in zip(cycle(gateways.ports), kinds, strict=False))
        return sum(map(is_begun, await asyncio.gather(*failing)))

    begun = asyncio.run(all_of_them())
    lost = begun * max(kind.most_if_cut for kind in kinds) + check_places(gateways, "unlucky")
    tally = asyncio.run(used_up(gateways, ways("unlucky", words=LENGTHS, max_tokens=40), lost))

    assert USABLE * TOKENS - lost <= tally.usage.total <= TOKENS - begun


def is_begun(received: bytes) -> bool:
    """Whether an answer has begun."""
    return received.startswith(b"HTTP/1.1 200 ")


def check_places(gateways: Fleet, key: str) -> int:
    """All places of a key are free, and there are no more than it may have; how many tokens that took, at the most."""
    stalled = one_way(key, model="fault-stall", stream=True, max_tokens=4)

    held, begun = asyncio.run(places(gateways.ports, stalled, PLACES))

    assert held == PLACES
    return begun * stalled.most_if_cut


async def used_up(gateways: Fleet, kinds: Sequence[Asked], lost: int = 0) -> Tally:
    """The calls that were made until all tokens were used up, but for those that were lost before."""
    tally = await burst(gateways.ports, kinds)
    await use_up(gateways.ports, kinds, tally, lambda: tally.usage.total >= USABLE * TOKENS - lost)
    return tally
