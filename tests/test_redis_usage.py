"""Usage in Redis: what is added is read again, by all processes, and is counted once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from chat_api.counting import Amounts, Claim, Counter, Used
from chat_api.errors import StoreDown
from chat_api.stores import open_store
from chat_api.stores.redis_link import Link
from chat_api.stores.redis_usage import KEEP_SECONDS, RedisUsage
from chat_api.types import Secret
from tests.proxies import free_port
from tests.redis_servers import RedisCluster, RedisServer, redis_server_of

DAY = "2026-11-21"
ALICE = Used(DAY, "alice", "gpt-4o", "gpt-4o@eu.openai.azure.com")
SOME = Amounts(1, 20, 300, 4, 5, 6)


def using(url: str, main: Callable[[RedisUsage], Awaitable[None]]) -> None:
    """Run a test over the usage of a store at a URL."""

    async def run() -> None:
        _, usage = open_store(Secret(url), timeout_seconds=10)
        assert isinstance(usage, RedisUsage)
        try:
            await main(usage)
        finally:
            await usage.aclose()

    asyncio.run(run())


def test_add_and_read(redis: RedisServer) -> None:
    """What is added counts on top of what is there, each row by itself."""
    other = Used(DAY, "alice", "gpt-4o", "gpt-4o@us.openai.azure.com")

    async def main(usage: RedisUsage) -> None:
        await usage.add({ALICE: SOME})
        await usage.add({ALICE: SOME, other: Amounts(requests=1)})
        await usage.add({})
        assert await usage.read(DAY, DAY) == {ALICE: Amounts(2, 40, 600, 8, 10, 12), other: Amounts(requests=1)}

    using(redis.url, main)


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        pytest.param("2026-11-01", "2026-11-30", 3, id="all"),
        pytest.param("2026-11-20", "2026-11-21", 2, id="both-included"),
        pytest.param("2026-11-21", "2026-11-21", 1, id="one"),
        pytest.param("2026-12-01", "2026-12-31", 0, id="none"),
    ],
)
def test_days(redis: RedisServer, since: str, until: str, expected: int) -> None:
    """Those days are read that were asked for."""

    async def main(usage: RedisUsage) -> None:
        await usage.add({Used(f"2026-11-{day}", "alice", "gpt-4o", "d"): SOME for day in (19, 20, 21)})
        assert len(await usage.read(since, until)) == expected

    using(redis.url, main)


def test_awkward_names(redis: RedisServer) -> None:
    """Whatever a key or a model is called, it is called so again."""
    names = ["", "%", "}a{", 'a"b', "a:usage:b", "käthe", "#", "a\x00b"]
    rows = {Used(DAY, name, name, name): Amounts(requests=number + 1) for number, name in enumerate(names)}

    async def main(usage: RedisUsage) -> None:
        await usage.add(rows)
        assert await usage.read(DAY, DAY) == rows

    using(redis.url, main)


def test_many_rows_among_many_keys(redis: RedisServer) -> None:
    """It is found among thousands of other keys, and is none of them."""
    rows = {Used(DAY, f"key {number}", "gpt-4o", "d"): SOME for number in range(300)}

    async def main(usage: RedisUsage) -> None:
        pipeline = redis.client.pipeline(transaction=False)
        for number in range(3000):
            pipeline.set(f"chat-api:{{10.0.0.{number}}}:limits", "x")
        pipeline.execute()
        await usage.add(rows)
        assert await usage.read(DAY, DAY) == rows

    using(redis.url, main)


def test_large_amounts(redis: RedisServer) -> None:
    """Amounts are integers, however much there was."""

    async def main(usage: RedisUsage) -> None:
        for _ in range(2):
            await usage.add({ALICE: Amounts(cost=2**52)})
        assert (await usage.read(DAY, DAY))[ALICE].cost == 2**53

    using(redis.url, main)


def test_expiry(redis: RedisServer) -> None:
    """A day is kept for longer than a year, and not for ever."""

    async def main(usage: RedisUsage) -> None:
        await usage.add({ALICE: SOME})
        assert KEEP_SECONDS - 100 <= redis.client.ttl(f"chat-api:{{alice}}:usage:{DAY}") <= KEEP_SECONDS

    using(redis.url, main)
    assert KEEP_SECONDS == 400 * 86400


def test_lost_answer_counts_once(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of which nobody knows whether they were counted are sent again, and counted once."""

    async def main(usage: RedisUsage) -> None:
        run = usage._client.run

        async def answer_gets_lost(commands: Sequence[Any]) -> list[Any]:
            await run(commands)
            return [ConnectionError("lost") for _ in commands]

        await usage.add({ALICE: SOME})
        monkeypatch.setattr(usage._client, "run", answer_gets_lost)
        await usage.add({ALICE: SOME})
        assert len(usage._unsure) == 1
        with pytest.raises(StoreDown):
            await usage.add({ALICE: SOME})
        monkeypatch.undo()
        await back(usage._link)
        await usage.add({ALICE: SOME})
        assert (await usage.read(DAY, DAY))[ALICE].requests == 3

    using(redis.url, main)


async def back(link: Link) -> None:
    """Wait until it is up."""
    async with asyncio.timeout(10):
        while link.state != "up":  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)


def test_down(caplog: pytest.LogCaptureFixture) -> None:
    """While Redis is down nothing is added or read; what could not be added can be added later."""

    async def main(usage: RedisUsage) -> None:
        await usage.add({ALICE: SOME})
        server.kill()
        for _ in range(100):
            with pytest.raises(StoreDown) as raised:
                await usage.read(DAY, DAY)
            assert (raised.value.status, raised.value.headers) == (503, ((b"retry-after", b"1"),))
        with pytest.raises(StoreDown):
            await usage.add({ALICE: SOME})
        server.start()
        await back(usage._link)
        await usage.add({ALICE: SOME})
        assert await usage.read(DAY, DAY) == {ALICE: SOME}

    with redis_server_of() as server:
        using(server.url, main)


def test_no_server() -> None:
    """Where there never was a server nothing is added, and the rows are their owner's still."""

    async def main(usage: RedisUsage) -> None:
        for _ in range(3):
            with pytest.raises(StoreDown):
                await usage.add({ALICE: SOME})
        assert usage._unsure == []

    using(f"redis://127.0.0.1:{free_port()}/0", main)


def test_beside_the_counters(redis: RedisServer) -> None:
    """Both use the same connection, and closing one closes both."""

    async def main() -> None:
        store, usage = open_store(Secret(redis.url), timeout_seconds=10)
        assert usage is not None
        grant = store.admit([Claim("alice", ((Counter("requests", 10, 60), 1),))])
        await asyncio.gather(asyncio.ensure_future(grant), usage.add({ALICE: SOME}))  # type: ignore[arg-type]
        assert len(redis.client.client_list(_type="normal")) == 2  # and the test's own
        await store.aclose()
        with pytest.raises(StoreDown):
            await usage.add({ALICE: SOME})

    asyncio.run(main())


def test_cluster(redis_cluster: RedisCluster) -> None:
    """In a cluster each key's days are on one node, and all of them are found."""
    rows = {Used(DAY, f"key {number}", "gpt-4o", "d"): SOME for number in range(60)}

    async def main(usage: RedisUsage) -> None:
        await usage.add(rows)
        assert await usage.read(DAY, DAY) == rows

    using(redis_cluster.url, main)
    assert min(len(node.client.keys("*usage*")) for node in redis_cluster.nodes) > 5
