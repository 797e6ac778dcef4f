"""A Redis Cluster of three nodes behind real gateways: what is limited may be counted on any of them."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator

import pytest
from redis.crc import key_slot

from benchmarks.callers import Called, call
from chat_api.stores.keys import tagged
from tests.fleets import Fleet, client_key, fleet
from tests.redis_servers import NODES, SLOTS, RedisCluster
from tests.truth import PATIENCE_SECONDS, USABLE, burst, check_refusals, one_way, use_up, ways

pytestmark = pytest.mark.alone  # it looks at what happens when

MODEL = "gpt-4.1"
REQUESTS, TOKENS, MANY = 10, 6_000, 1_000_000


def node_of(subject: str) -> int:
    """Which node counts it."""
    return key_slot(tagged(subject, "limits")) * NODES // SLOTS


NAMES = tuple(f"caller-{number}" for number in range(9))
# Those that are not counted where the model is.
ELSEWHERE = [name for name in map("busy-{}".format, range(9)) if node_of(f"key {name}") != node_of(f"model {MODEL}")]


@pytest.fixture(scope="module")
def gateways(redis_cluster: RedisCluster) -> Iterator[Fleet]:
    """Two gateways."""
    keys = [client_key(name, requests=f"{REQUESTS}/day") for name in NAMES]
    keys += [client_key(name, requests=f"{MANY}/day") for name in ELSEWHERE]
    limit = json.dumps({MODEL: f"{TOKENS}/day"})
    with fleet(keys, processes=2, STORE_URL=redis_cluster.url, MODEL_TOKEN_LIMIT=limit) as started:
        yield started


def test_tokens_of_a_model_on_another_node(gateways: Fleet) -> None:
    """Callers get the tokens of a model that there are, and each is charged for the calls that were answered only."""
    kinds = [kind for name in ELSEWHERE for kind in ways(name, model=MODEL, words=(30,), max_tokens=40)]

    async def calls() -> list[Called]:
        tally = await burst(gateways.ports, kinds, callers=30)
        await use_up(gateways.ports, kinds, tally, lambda: tally.usage.total >= USABLE * TOKENS)
        check_refusals(tally, "rate_limit_exceeded", of=("requests", "tokens"))
        assert USABLE * TOKENS <= tally.usage.total <= TOKENS
        return tally.admitted

    made = Counter(called.kind.key for called in asyncio.run(calls()))  # type: ignore[attr-defined]
    for name in ELSEWHERE:
        told = asyncio.run(call(gateways.ports[0], one_way(name)))
        assert told.headers["x-ratelimit-remaining-requests"] == str(MANY - made[name] - 1)


def test_node_that_dies(gateways: Fleet, redis_cluster: RedisCluster) -> None:
    """Each caller may call as often as it may, on whatever node; where one dies, what the others know is not lost."""
    assert {node_of(f"key {name}") for name in NAMES} == set(range(NODES))
    kinds = [one_way(name) for name in NAMES]
    dying = node_of("key caller-0")
    survivors = [name for name in NAMES if node_of(f"key {name}") != dying]

    tally = asyncio.run(burst(gateways.ports, kinds, callers=NODES * len(NAMES), calls=4 * len(NAMES)))
    assert {name: tally.of(name).requests for name in NAMES} == dict.fromkeys(NAMES, REQUESTS)

    redis_cluster.nodes[dying].kill()
    try:
        meanwhile = asyncio.run(burst(gateways.ports, kinds, callers=len(NAMES), calls=1))
    finally:
        redis_cluster.nodes[dying].start()
    asyncio.run(refused_again(gateways, survivors))

    assert {called.status for called in meanwhile.calls} <= {200, 429}


async def refused_again(gateways: Fleet, names: list[str]) -> None:
    """Wait until every gateway refuses callers who have used up what they may."""
    kinds = [one_way(name) for name in names]
    async with asyncio.timeout(PATIENCE_SECONDS):
        for port in gateways.ports:
            while {(await call(port, kind)).status for kind in kinds} != {429}:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.05)
