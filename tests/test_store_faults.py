"""Redis that is killed, paused and restarted under the load of real gateways: what callers and operators see of it."""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from benchmarks.callers import Called, Callers, call
from benchmarks.processes import resident_bytes
from tests.fleets import Fleet, client_key, fleet
from tests.processes import Process
from tests.redis_servers import RedisServer, redis_server_of
from tests.servers import eventually
from tests.truth import PATIENCE_SECONDS, one_way, usage_of, ways

pytestmark = pytest.mark.alone  # it looks at what happens when

PASSWORD = "canary-redis-password"
CALLERS = 10  # of each gateway
OPEN, CLOSED = 0, 1  # which gateway
SECONDS = 10.0  # that no call takes: the store's timeout is 1, and the machine may be busy
MORE_BYTES = 20_000_000
FAULTS = ("kill", "pause", "restart")
KEYS = (
    client_key("steady", requests="1000000/hour", tokens="100000000/hour", max_parallel=1000),
    *(client_key(f"{fault}-{which}", requests="1/hour") for fault in FAULTS for which in (OPEN, CLOSED)),
)


@pytest.fixture(scope="module")
def redis_with_password() -> Iterator[RedisServer]:
    """A server that asks for a password."""
    with redis_server_of("--requirepass", PASSWORD, password=PASSWORD) as server:
        yield server


@pytest.fixture(scope="module")
def gateways(redis_with_password: RedisServer) -> Iterator[Fleet]:
    """A gateway that is open while there is no Redis, and one that is closed."""
    each = [{"STORE_FAILURE": "open"}, {"STORE_FAILURE": "closed"}]
    with fleet(KEYS, each=each, STORE_URL=redis_with_password.url, STORE_TIMEOUT="1") as started:
        yield started


@dataclass(frozen=True, slots=True)
class Course:
    """What was seen of a fault.

    Attributes:
        calls: of the callers of each gateway.
        ready: what each answered for `/ready` meanwhile.
        store: what `/status` said of the store meanwhile.
        again: seconds from the return of Redis until each gateway counted.
    """

    calls: list[list[Called]]
    ready: list[int]
    store: list[dict[str, Any]]
    again: list[float]


async def course(gateways: Fleet, fault: str, break_: Callable[[], None], heal: Callable[[], object]) -> Course:
    """Break Redis and heal it under load."""
    async with load(gateways) as loads:
        await more(loads, 2 * CALLERS)
        await asyncio.to_thread(break_)
        await more(loads, 5 * CALLERS)
        ready = [(await asyncio.to_thread(gateways.get, "/ready", port)).status_code for port in gateways.ports]
        store = await asyncio.to_thread(stores, gateways)
        began = time.monotonic()
        await asyncio.to_thread(heal)
        counted = (counts(port, f"{fault}-{which}") for which, port in enumerate(gateways.ports))
        again = [ended - began for ended in await asyncio.gather(*counted)]
        await more(loads, 2 * CALLERS)
    return Course([one.calls for one in loads], ready, store, again)


@contextlib.asynccontextmanager
async def load(gateways: Fleet) -> AsyncIterator[list[Callers]]:
    """Callers of each gateway, until the block ends; then each has been answered."""
    loads = [Callers(port, CALLERS, ways("steady", words=(8, 30))) for port in gateways.ports]
    for one in loads:
        await one.start()
    try:
        yield loads
    finally:
        for one in loads:
            await one.stop()


async def more(loads: list[Callers], count: int) -> None:
    """Wait until so many calls of each have ended that began from now on."""
    now = time.monotonic()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while min(len(one.since(now)) for one in loads) < count:  # noqa: ASYNC110 - they tell nobody
            await asyncio.sleep(0.01)


async def counts(port: int, key: str) -> float:
    """When a gateway refuses the second call of a key that may call once."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await call(port, one_way(key))).status != 429:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
    return time.monotonic()


def stores(gateways: Fleet) -> list[dict[str, Any]]:
    """What each gateway says of its store."""
    return [gateways.get("/status", port).raise_for_status().json()["limits"]["store"] for port in gateways.ports]


def lines(process: Process) -> list[str]:
    """What a gateway has logged of Redis."""
    return [line for line in process.output.splitlines() if "redis_link: Redis at" in line]


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_under_load(gateways: Fleet, redis_with_password: RedisServer, fault: str) -> None:
    """No call fails that is let through, and none is held up; else it is a clean 503; then all are counted again."""
    redis = redis_with_password
    break_, heal = {"kill": (redis.kill, redis.start), "pause": (redis.pause, redis.resume)}.get(
        fault, (redis.restart, redis.answers)
    )
    before, logged = await_store(gateways), [len(lines(one)) for one in gateways.processes]
    resident = list(map(resident_of, gateways.processes))

    seen = asyncio.run(course(gateways, fault, break_, heal))

    for calls in seen.calls:
        assert max(one.ended - one.started for one in calls) < SECONDS
    for called in seen.calls[OPEN]:
        usage_of(called)
    for called in seen.calls[CLOSED]:
        check_closed(called)
    if fault != "restart":
        assert seen.ready == [200, 503]
        assert [one["up"] for one in seen.store] == [False, False]
        assert any(called.status == 503 for called in seen.calls[CLOSED])
    assert max(seen.again) < SECONDS
    after = await_store(gateways)
    for process, count, was, now in zip(gateways.processes, logged, before, after, strict=True):
        told = lines(process)[count:]
        assert (
            len(told) == 2 * (now["failures"] - was["failures"]) > 0
        )  # more than 2 only where the machine is too busy
        assert all("cannot be asked" in line for line in told[::2])
        assert all("answers again" in line for line in told[1::2])
        assert PASSWORD not in process.output
    for process, bytes_ in zip(gateways.processes, resident, strict=True):
        assert resident_of(process) < bytes_ + MORE_BYTES


def await_store(gateways: Fleet) -> list[dict[str, Any]]:
    """What each gateway says of its store, once that is up, whatever happened before."""
    assert eventually(lambda: all(one["up"] for one in stores(gateways)), PATIENCE_SECONDS)
    return stores(gateways)


def resident_of(process: Process) -> int:
    """The memory of a gateway, where the system tells it."""
    return resident_bytes(process.pid) if sys.platform == "linux" else 0


def check_closed(called: Called) -> None:
    """A call was answered, or refused because nobody counts, and in the endpoint's words."""
    if called.status == 200:
        usage_of(called)
        return
    assert called.status == 503
    assert called.headers["retry-after"] == "1"
    answer = json.loads(called.body)
    assert answer["error"]["code"] == "store_unavailable"
    assert ("success" in answer) == (called.kind.path == "/v1/gpt/chat")
