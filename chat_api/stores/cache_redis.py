"""Kept answers in Redis, for all processes that use it: a key for each, `chat-api:cache:` and 64 hexadecimal digits.

All of them expire. How much they take together is the server's to bound: `maxmemory` with a policy such as
`allkeys-lru`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from chat_api.caching import Kept
from chat_api.stores.cache_record import read, written
from chat_api.stores.redis_link import CLOSED, DOWN, UP, Link

PREFIX = "chat-api:cache:"
MAX_SENT_BYTES = 16 * 1024 * 1024  # of answers that are on their way to it


class RedisCache:
    """A `CacheStore` for many processes. While Redis cannot be asked nobody waits: everything is a miss.

    Args:
        link: the way to it, which nobody else uses: answers are large, and who counts is in a hurry.
        max_answer_bytes: an answer that is longer is not kept.
        clock: the time, in seconds since 1970.
    """

    def __init__(self, link: Link, max_answer_bytes: int, clock: Callable[[], float] = time.time) -> None:
        self._link = link
        self._max_answer_bytes = max_answer_bytes
        self._clock = clock
        self._sent_bytes = 0
        self._unreadable = self._too_large = self._not_kept = 0

    def get(self, key: bytes) -> Kept | Awaitable[Kept | None] | None:
        """What is kept under a key; at once while Redis is down, and in one round trip with all that is asked now."""
        link = self._link
        if link.state is DOWN or link.state is CLOSED:
            link.not_counted += 1
            return None
        answer: asyncio.Future[Kept | None] = asyncio.get_running_loop().create_future()

        def done(reply: object) -> None:
            if not answer.done():  # whoever asked may have left
                answer.set_result(self._read(reply))

        link.ask(("GET", PREFIX + key.hex()), done)
        return answer

    def _read(self, reply: object) -> Kept | None:
        if reply is None:
            return None
        if isinstance(reply, Exception):
            self._link.not_counted += 1
            return None
        kept = read(reply)
        if kept is None:
            self._unreadable += 1
            return None
        return kept if kept.expires > self._clock() else None

    def put(self, key: bytes, kept: Kept) -> None:
        """Have Redis keep an answer until it expires."""
        left_ms = int((kept.expires - self._clock()) * 1000)
        if left_ms <= 0:
            return
        if len(kept.body) > self._max_answer_bytes:
            self._too_large += 1
            return
        record = written(kept)
        size = len(record)
        if self._sent_bytes + size > MAX_SENT_BYTES:
            self._not_kept += 1
            return
        self._sent_bytes += size

        def done(reply: object) -> None:
            self._sent_bytes -= size
            if isinstance(reply, Exception):
                self._not_kept += 1

        self._link.ask(("SET", PREFIX + key.hex(), record, "PX", left_ms), done)

    def state(self) -> Mapping[str, object]:
        """What operators are told of it; how much is kept only Redis knows."""
        link = self._link
        return {
            "kind": "redis",
            "server": link.name,
            "up": link.state is UP,
            "max_answer_bytes": self._max_answer_bytes,
            "unreadable": self._unreadable,
            "too_large": self._too_large,
            "not_kept": self._not_kept,
            "not_asked": link.not_counted,
            "failures": link.failures,
            "down_seconds": round(link.down_seconds, 3),
        }

    async def aclose(self) -> None:
        """Send what is still to be kept, and let go of the connection."""
        await self._link.aclose()
