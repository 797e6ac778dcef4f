"""Kept answers in a real Redis: what stands there, a server that is away or full, and one that refuses us."""

import asyncio
import logging
from collections.abc import Callable

import pytest

from chat_api.caching import CacheStore
from chat_api.stores import cache_redis
from chat_api.stores.cache_record import FORM, written
from chat_api.types import Secret
from tests.caches import MAX_BYTES, NOW, TTL, Place, answer, got, key_of
from tests.proxies import free_port
from tests.redis_servers import RedisCluster, RedisServer, redis_server_of

PATIENCE_SECONDS = 20
PASSWORD = "canary-redis-p4ss/word@"
QUOTED = "canary-redis-p4ss%2Fword%40"


async def until(true: Callable[[], bool]) -> None:
    """Wait for something to be so."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not true():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


def name_of(number: int) -> str:
    """What an answer with a number is called in Redis."""
    return f"chat-api:cache:{key_of(number).hex()}"


def test_what_stands_in_redis(redis: RedisServer) -> None:
    """An answer is one key, which expires when the answer does."""

    async def main() -> None:
        async with Place("redis", Secret(redis.url)).opened() as cache:
            cache.put(key_of(1), answer(1))
            assert await got(cache, key_of(1)) == answer(1)

    asyncio.run(main())
    assert redis.client.keys() == [name_of(1).encode()]
    assert redis.client.get(name_of(1)) == written(answer(1))
    assert TTL * 1000 - 60_000 < redis.client.pttl(name_of(1)) <= TTL * 1000


@pytest.mark.parametrize(
    ("value", "count"),
    [
        pytest.param(b"hello", "unreadable", id="foreign"),
        pytest.param(b"ca2\n" + written(answer(1))[len(FORM) :], "unreadable", id="another-form"),
        pytest.param(written(answer(1))[:-1], "unreadable", id="cut"),
        pytest.param(["a list"], "failures", id="another-type"),
    ],
)
def test_foreign_values(redis: RedisServer, value: bytes | list[str], count: str) -> None:
    """What cannot be read is a miss that is counted, and can be replaced."""
    if isinstance(value, bytes):
        redis.client.set(name_of(1), value)
    else:
        redis.client.rpush(name_of(1), *value)

    async def main() -> None:
        async with Place("redis", Secret(redis.url)).opened() as cache:
            assert await got(cache, key_of(1)) is None
            assert cache.state()[count] == 1
            cache.put(key_of(1), answer(1))
            assert await got(cache, key_of(1)) == answer(1)

    asyncio.run(main())


def test_killed_and_started_again(caplog: pytest.LogCaptureFixture) -> None:
    """While it is away everything is a miss, at once; when it is back answers are kept again; both are said once."""

    async def main(server: RedisServer) -> None:
        async with Place("redis", Secret(server.url)).opened() as cache:
            cache.put(key_of(1), answer(1))
            assert await got(cache, key_of(1)) is not None
            await asyncio.to_thread(server.kill)
            await until(lambda: cache.state()["up"] is False)
            for _ in range(3):
                assert cache.get(key_of(1)) is None  # without waiting
            cache.put(key_of(2), answer(2))
            assert cache.state()["not_kept"] == 1
            await asyncio.to_thread(server.start)
            await until(lambda: cache.state()["up"] is True)
            assert await got(cache, key_of(1)) is None
            cache.put(key_of(3), answer(3))
            assert await got(cache, key_of(3)) == answer(3)

    with redis_server_of() as server:
        asyncio.run(main(server))
        name = f"127.0.0.1:{server.port} (the cache)"
    down, up = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert down.startswith(f"Redis at {name} cannot be asked: ")
    assert up.startswith(f"Redis at {name} answers again after ")
    assert up.endswith("; 3 calls found nothing kept")


def test_one_that_does_not_answer() -> None:
    """Who asks a server that has stopped waits for no longer than the timeout, and whoever comes next not at all."""

    async def main(server: RedisServer) -> None:
        async with Place("redis", Secret(server.url)).opened(timeout_seconds=0.2) as cache:
            cache.put(key_of(1), answer(1))
            assert await got(cache, key_of(1)) is not None
            server.pause()
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    assert await asyncio.gather(*(got(cache, key_of(1)) for _ in range(10))) == [None] * 10
                assert cache.get(key_of(1)) is None
            finally:
                server.resume()
            await until(lambda: cache.state()["up"] is True)
            assert await got(cache, key_of(1)) == answer(1)

    with redis_server_of() as server:
        asyncio.run(main(server))


def test_nobody_there(caplog: pytest.LogCaptureFixture) -> None:
    """A server that cannot be reached at the start stops nothing; it is said once."""

    async def main() -> None:
        async with Place("redis", Secret(f"redis://127.0.0.1:{free_port()}/0")).opened() as cache:
            assert cache.get(key_of(1)) is None
            cache.put(key_of(1), answer(1))
            assert (cache.state()["up"], cache.state()["not_kept"]) == (False, 1)

    asyncio.run(main())
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


def test_a_full_server(caplog: pytest.LogCaptureFixture) -> None:
    """Where there is no more room what is kept is still given; what is not is counted, and it is said once."""

    async def main(server: RedisServer) -> None:
        async with Place("redis", Secret(server.url)).opened() as cache:
            cache.put(key_of(1), answer(1))
            assert await got(cache, key_of(1)) is not None
            await asyncio.to_thread(server.client.config_set, "maxmemory", 1)
            for number in range(2, 12):
                cache.put(key_of(number), answer(number))
                assert await got(cache, key_of(number)) is None
            assert await got(cache, key_of(1)) == answer(1)
            state = cache.state()
            assert (state["up"], state["not_kept"], state["failures"]) == (True, 10, 10)

    with redis_server_of("--maxmemory-policy", "noeviction") as server:
        asyncio.run(main(server))
    (said,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "(the cache) refused a command: it cannot be written to: " in said


def test_a_server_that_forgets(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """That Redis lets go of keys to make room, or forgets all of them, is no failure."""

    async def main() -> None:
        async with Place("redis", Secret(redis.url)).opened() as cache:
            cache.put(key_of(1), answer(1))
            assert await got(cache, key_of(1)) is not None
            await asyncio.to_thread(redis.client.flushall)
            await asyncio.sleep(0.3)  # until the server has been looked at
            assert await got(cache, key_of(1)) is None
            assert (cache.state()["up"], cache.state()["failures"]) == (True, 0)

    asyncio.run(main())
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_what_waits_is_bounded(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are sent as far as there is room for those that are on their way; the others are counted."""
    monkeypatch.setattr(cache_redis, "MAX_SENT_BYTES", 5000)

    async def main() -> None:
        async with Place("redis", Secret(redis.url)).opened() as cache:
            for number in range(10):
                cache.put(key_of(number), answer(number, 1000))
            assert cache.state()["not_kept"] == 6
            assert await got(cache, key_of(3)) == answer(3, 1000)
            cache.put(key_of(11), answer(11, 1000))
            assert await got(cache, key_of(11)) == answer(11, 1000)

    asyncio.run(main())


def test_who_leaves_disturbs_nobody(redis: RedisServer) -> None:
    """A caller that leaves while Redis is asked takes nothing from those who ask with it."""

    async def main() -> None:
        async with Place("redis", Secret(redis.url)).opened() as cache:
            cache.put(key_of(1), answer(1))
            asking = [asyncio.ensure_future(got(cache, key_of(1))) for _ in range(10)]
            await asyncio.sleep(0)
            for one in asking[::2]:
                one.cancel()
            assert await asyncio.gather(*asking[1::2]) == [answer(1)] * 5

    asyncio.run(main())


async def kept_and_given(cache: CacheStore, count: int) -> None:
    """Keep so many answers, and see that they are there."""
    for number in range(count):
        cache.put(key_of(number), answer(number))
    assert [await got(cache, key_of(number)) for number in range(count)] == [answer(number) for number in range(count)]


def test_cluster(redis_cluster: RedisCluster) -> None:
    """In a cluster answers are wherever their keys belong, and no number in a key matters."""

    async def main() -> None:
        async with Place("redis", Secret(redis_cluster.url)).opened() as cache:
            await kept_and_given(cache, 30)

    asyncio.run(main())
    assert all(node.client.dbsize() for node in redis_cluster.nodes)


def test_password(caplog: pytest.LogCaptureFixture) -> None:
    """A password is used, and is said nowhere: not in the log, nor to operators; nor is a wrong one."""

    async def main(url: str) -> None:
        place = Place("redis", Secret(url))
        async with place.opened() as cache:
            await kept_and_given(cache, 3)
            assert PASSWORD not in str(cache.state())
        wrong = Place("redis", Secret(url.replace("word", "w0rd")))
        async with wrong.opened() as cache:
            assert cache.get(key_of(1)) is None
            assert "canary" not in str(cache.state())

    with redis_server_of("--requirepass", PASSWORD, password=PASSWORD) as server:
        asyncio.run(main(f"redis://:{QUOTED}@127.0.0.1:{server.port}/0"))
    assert "(the cache) cannot be asked: " in caplog.text
    assert "p4ss" not in caplog.text


def test_an_answer_that_is_too_long(redis: RedisServer) -> None:
    """One answer may take an eighth of what all may take, and never more than a mebibyte: others wait behind it."""

    async def main() -> None:
        for max_bytes, limit in ((MAX_BYTES, MAX_BYTES // 8), (64 * MAX_BYTES, MAX_BYTES)):
            async with Place("redis", Secret(redis.url)).opened(max_bytes) as cache:
                cache.put(key_of(1), answer(1, limit, NOW + TTL))
                cache.put(key_of(2), answer(2, limit + 1, NOW + TTL))
                assert await got(cache, key_of(1)) == answer(1, limit)
                assert await got(cache, key_of(2)) is None
                assert cache.state()["too_large"] == 1

    asyncio.run(main())
