"""Kept answers for tests, and the places where they are kept."""

import contextlib
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

from chat_api.caching import CacheStore, Kept
from chat_api.stores import open_cache
from chat_api.types import Secret

NOW = 1_800_000_000.0
TTL = 1000.0
MAX_BYTES = 1024 * 1024
HEADERS = ((b"content-type", b"application/json"), (b"x-request-id", b"\xff\x00"))


class Clock:
    """A clock that a test sets, in seconds since 1970."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        """The time."""
        return self.now


def key_of(number: int) -> bytes:
    """The key of an answer with a number."""
    return number.to_bytes(4, "big") * 8


def answer(number: int, size: int = 200, expires: float = NOW + TTL) -> Kept:
    """An answer with a number."""
    body = (b"%d " % number) * (size // len(b"%d " % number) + 1)
    return Kept(
        body[:size], bool(number % 2), HEADERS, "gpt-4o@\N{LATIN SMALL LETTER U WITH DIAERESIS}st", NOW, expires
    )


async def got(cache: CacheStore, key: bytes) -> Kept | None:
    """What is kept under a key, however the cache says it."""
    there = cache.get(key)
    return await there if isinstance(there, Awaitable) else there


class Place:
    """Where answers are kept: opened as often as a test likes."""

    def __init__(self, backend: str, url: Secret | Path | None) -> None:
        self.backend = backend
        self.url = url
        self.clock = Clock()

    @contextlib.asynccontextmanager
    async def opened(self, max_bytes: int = MAX_BYTES, timeout_seconds: float = 10) -> AsyncIterator[CacheStore]:
        """A cache there, closed at the end."""
        cache = await open_cache(self.backend, self.url, max_bytes, timeout_seconds=timeout_seconds, clock=self.clock)
        try:
            yield cache
        finally:
            await cache.aclose()
