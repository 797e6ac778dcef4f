"""Kept answers in the memory of one process. Every call that may be answered so passes here: written for speed."""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from heapq import heapify, heappop, heappush

from chat_api.caching import Kept
from chat_api.stores.cache_record import size_of

LARGEST_SHARE = 8  # an answer that takes more than such a part of the bound would drive too many others out
SPARE_ENDS = 64  # of answers that are gone already, which are remembered besides one for each that is kept


class MemoryCache:
    """A `CacheStore` that lives and dies with the process: what was asked for least recently goes first.

    Args:
        max_bytes: how much the answers may take.
        clock: the time, in seconds since 1970.
    """

    def __init__(self, max_bytes: int, clock: Callable[[], float] = time.time) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._entries: OrderedDict[bytes, tuple[Kept, int]] = OrderedDict()  # each with its size
        self._ends: list[tuple[float, bytes]] = []  # a heap; some are of answers that are gone
        self._bytes = self._expired = self._evicted = self._too_large = 0

    def get(self, key: bytes) -> Kept | None:
        """What is kept under a key; None if nothing is, or it has expired."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[0].expires <= self._clock():
            self._drop(key)
            self._expired += 1
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: bytes, kept: Kept) -> None:
        """Keep an answer, for which others may have to go."""
        size = size_of(kept)
        if size * LARGEST_SHARE > self._max_bytes:
            self._too_large += 1
            return
        if key in self._entries:
            self._drop(key)
        self._entries[key] = kept, size
        self._bytes += size
        heappush(self._ends, (kept.expires, key))
        if self._bytes > self._max_bytes:
            self._make_room()
        if len(self._ends) > 2 * len(self._entries) + SPARE_ENDS:
            self._ends = [(entry[0].expires, key) for key, entry in self._entries.items()]
            heapify(self._ends)

    def _drop(self, key: bytes) -> None:
        self._bytes -= self._entries.pop(key)[1]

    def _make_room(self) -> None:
        """Let go of those that have expired, then of those that nobody has asked for in the longest time."""
        now = self._clock()
        while self._ends and self._ends[0][0] <= now:
            expires, key = heappop(self._ends)
            entry = self._entries.get(key)
            if entry is not None and entry[0].expires == expires:
                self._drop(key)
                self._expired += 1
        while self._bytes > self._max_bytes:
            self._bytes -= self._entries.popitem(last=False)[1][1]
            self._evicted += 1

    def state(self) -> Mapping[str, object]:
        """What operators are told of it."""
        return {
            "kind": "memory",
            "up": True,
            "answers": len(self._entries),
            "bytes": self._bytes,
            "max_bytes": self._max_bytes,
            "expired": self._expired,
            "evicted": self._evicted,
            "too_large": self._too_large,
            "not_kept": 0,
            "failures": 0,
        }

    async def aclose(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._ends.clear()
        self._bytes = 0
