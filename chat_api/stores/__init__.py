"""Those who count, and keep what was used: the memory of one process, a file, or Redis (`Store`, `UsageStore`)."""

import asyncio
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from chat_api.counting import Store, UsageStore
from chat_api.stores.memory import MemoryStore
from chat_api.types import Secret

if TYPE_CHECKING:
    from chat_api.stores.redis_link import Link


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
