"""Those who count, and keep what was used: the memory of one process, a file, or Redis (`Store`, `UsageStore`).

And those who keep answers: memory, LMDB on disk, or Redis (`CacheStore`).
"""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from chat_api.caching import CacheStore
from chat_api.counting import Store, UsageStore
from chat_api.stores.cache_memory import MemoryCache
from chat_api.stores.memory import MemoryStore
from chat_api.types import Secret

if TYPE_CHECKING:
    from chat_api.stores.redis_link import Link

MAX_SENT_BYTES = 1024 * 1024  # of one answer to Redis: others wait behind it
SENT_SHARE = 8  # of what all answers may take


class Stores(NamedTuple):
    """What counts claims, and what keeps usage for longer than the process lives, if anything does."""

    claims: Store
    usage: UsageStore | None


def open_store(url: Secret | None, *, timeout_seconds: float = 0.25, failure: str = "open") -> Stores:
    """The store at a URL, or this process's own memory without one; each process opens its own.

    It connects in the background, in the event loop that runs, or when it is first asked. Closing the store that
    counts claims closes both.

    Args:
        url: of a Redis server or cluster.
        timeout_seconds: how long a call waits for it.
        failure: "open" or "closed": what becomes of calls while it does not answer.
    """
    if url is None:
        return Stores(MemoryStore(), None)
    stores, link = _linked(url, timeout_seconds, failure)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        link.start()
    return stores


async def connected_store(url: Secret | None, *, timeout_seconds: float, failure: str) -> Stores:
    """The same, once it is connected or known to be down: so that the calls of a start's burst are counted."""
    if url is None:
        return Stores(MemoryStore(), None)
    stores, link = _linked(url, timeout_seconds, failure)
    await link.connect()
    return stores


def _linked(url: Secret, timeout_seconds: float, failure: str) -> tuple[Stores, "Link"]:
    """The stores in a Redis, and the way to it."""
    # Only who has a Redis pays for its client.
    from chat_api.stores.redis_client import RedisClient, server_of, words_of
    from chat_api.stores.redis_link import Link
    from chat_api.stores.redis_store import ADMIT, SETTLE, RedisStore
    from chat_api.stores.redis_usage import COUNT, RedisUsage

    client = RedisClient(url, (ADMIT, SETTLE, COUNT))
    words = partial(words_of, url=url)
    link = Link(client, timeout_seconds=timeout_seconds, name=server_of(url), words=words)
    return Stores(RedisStore(link, failure=failure), RedisUsage(link, client)), link


async def open_cache(
    backend: str,
    url: Secret | Path | None,
    max_bytes: int,
    *,
    timeout_seconds: float = 0.25,
    clock: Callable[[], float] = time.time,
) -> CacheStore:
    """Who keeps answers; each process opens its own, in the event loop that is to use it.

    It raises nothing: answers come without it as well. A folder that cannot be used is logged, and keeps nothing.

    Args:
        backend: "memory", "lmdb" or "redis".
        url: a folder for LMDB, a server or cluster for Redis.
        max_bytes: how much is kept; Redis has that from its own settings.
        timeout_seconds: how long a call waits for Redis.
        clock: the time, in seconds since 1970.
    """
    if backend == "redis" and isinstance(url, Secret):
        return await _redis_cache(url, min(max_bytes // SENT_SHARE, MAX_SENT_BYTES), timeout_seconds, clock)
    if backend == "lmdb" and isinstance(url, Path):
        return await asyncio.to_thread(_lmdb_cache, url, max_bytes, clock)
    return MemoryCache(max_bytes, clock)


def _lmdb_cache(folder: Path, max_bytes: int, clock: Callable[[], float]) -> CacheStore:
    # Only who has such a cache pays for LMDB.
    from chat_api.stores.cache_lmdb import LmdbCache

    cache = LmdbCache(folder, max_bytes, clock)
    cache.wait()
    return cache


async def _redis_cache(
    url: Secret, max_answer_bytes: int, timeout_seconds: float, clock: Callable[[], float]
) -> CacheStore:
    from chat_api.stores.cache_redis import RedisCache
    from chat_api.stores.redis_client import RedisClient, server_of, words_of
    from chat_api.stores.redis_link import Link

    link = Link(
        RedisClient(url, (), is_forgetful=True),
        timeout_seconds=timeout_seconds,
        name=f"{server_of(url)} (the cache)",
        words=partial(words_of, url=url),
        missed="found nothing kept",
    )
    await link.connect()
    return RedisCache(link, max_answer_bytes, clock)
