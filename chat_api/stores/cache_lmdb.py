"""Kept answers on disk, in LMDB: for all processes of one machine, and for longer than any of them lives.

Reading is a look into mapped memory, so that a call does it itself. One thread opens the folder and writes: it takes
what has come together, and LMDB's own lock has it take turns with other processes. A process that is killed leaves
what it had committed, and nothing else.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import Empty, SimpleQueue

import lmdb

from chat_api.caching import Kept
from chat_api.stores.cache_folder import SETTING, CacheFailed, open_tables
from chat_api.stores.cache_record import read, size_of, written
from chat_api.stores.cache_tables import LARGEST_SHARE, Tables

log = logging.getLogger(__name__)

OPEN_SECONDS = 5.0  # another process may be writing
GATHER_SECONDS = 0.005  # a transaction costs as much as a hundred answers in it
MAX_WAITING_BYTES = 16 * 1024 * 1024
CLOSE_SECONDS = 5.0
COMPLAINT_SECONDS = 60.0  # between two lines on failures

_Item = tuple[bytes, Kept, int]  # a key, an answer and its size


class LmdbCache:
    """A `CacheStore` in a folder. Until that is open, and if it cannot be, everything is a miss.

    What is stored can be read at once by this process, and within milliseconds by the others.

    Args:
        folder: where it is; each process opens it once.
        max_bytes: how long its file may get; about three quarters of it are answers.
        clock: the time, in seconds since 1970.
    """

    def __init__(self, folder: Path, max_bytes: int, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._clock = clock
        self._tables: Tables | None = None
        self._reason = "it waits for another process that writes"  # why it is not up; "" if it is
        self._is_closed = self._is_unusable = False
        self._fresh: dict[bytes, Kept] = {}  # not committed yet
        self._queue: SimpleQueue[_Item | None] = SimpleQueue()
        self._put_bytes = self._done_bytes = 0  # the one is the event loop's to count, the other the thread's
        self._unreadable = self._too_large = self._not_kept = self._read_failures = 0
        self._lost = self._write_failures = 0  # these are the thread's
        self._complained_at = float("-inf")
        self._settled = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chat-api-cache", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until it is open or cannot be, but not for long: it may be open later."""
        self._settled.wait(OPEN_SECONDS)

    def get(self, key: bytes) -> Kept | None:
        """What is kept under a key; None if nothing is, or it has expired, or cannot be read."""
        now = self._clock()
        fresh = self._fresh.get(key)
        if fresh is not None:
            return fresh if fresh.expires > now else None
        tables = self._tables
        if tables is None or self._is_closed:
            return None
        try:
            with tables.reading() as transaction:
                record = tables.record(transaction, key)
                if record is None:
                    return None
                kept = read(record)
        except lmdb.Error as error:
            self._read_failures += 1
            self._complain("read", error)
            return None
        if kept is None:
            self._unreadable += 1
            return None
        return kept if kept.expires > now else None

    def put(self, key: bytes, kept: Kept) -> None:
        """Have an answer written; if too many wait to be already, it is not kept."""
        size = size_of(kept)
        if size * LARGEST_SHARE > self._max_bytes:
            self._too_large += 1
        elif self._is_closed or self._is_unusable or self._put_bytes - self._done_bytes + size > MAX_WAITING_BYTES:
            self._not_kept += 1
        else:
            self._put_bytes += size
            self._fresh[key] = kept
            self._queue.put((key, kept, size))

    def _run(self) -> None:
        """The thread: opens the folder, and writes what comes until it is told that nothing more will."""
        try:
            self._tables = tables = open_tables(self._folder, self._max_bytes)
            self._reason = ""
        except CacheFailed as error:
            self._is_unusable, self._reason = True, str(error)
            log.error("no answer is kept: %s", error)
            return
        finally:
            self._settled.set()
        is_over = False
        while not is_over and (first := self._queue.get()) is not None:
            batch = [first]
            if not self._is_closed:
                time.sleep(GATHER_SECONDS)
            is_over = self._gather(batch)
            self._write(tables, batch)
        tables.close()

    def _gather(self, batch: list[_Item]) -> bool:
        """What else there is, as far as one transaction should have it; whether nothing more will come."""
        size = batch[0][2]
        with contextlib.suppress(Empty):
            while 2 * size * LARGEST_SHARE < self._max_bytes:
                item = self._queue.get_nowait()
                if item is None:
                    return True
                batch.append(item)
                size += item[2]
        return False

    def _write(self, tables: Tables, batch: list[_Item]) -> None:
        try:
            records = {key: (written(kept), kept.expires) for key, kept, _ in batch}
            tables.write(records, self._clock())
            self._reason = ""
        except Exception as error:  # whatever it is, the next ones are to be written
            self._reason = str(error)
            self._write_failures += 1
            self._lost += len(batch)
            self._complain("written", error)
        for key, kept, size in batch:
            self._done_bytes += size
            if self._fresh.get(key) is kept:
                self._fresh.pop(key, None)

    def _complain(self, what: str, error: Exception) -> None:
        now = time.monotonic()
        if now - self._complained_at >= COMPLAINT_SECONDS:
            self._complained_at = now
            log.error("the cache in %s (%s) cannot be %s: %s", self._folder, SETTING, what, error)

    def state(self) -> Mapping[str, object]:
        """What operators are told of it."""
        answers = size = expired = evicted = 0
        tables = self._tables
        if tables is not None and not self._is_closed:
            expired, evicted = tables.expired, tables.evicted
            with contextlib.suppress(lmdb.Error):
                answers, size = tables.amounts()
        reason = "it is closed" if self._is_closed else self._reason
        return {
            "kind": "lmdb",
            "folder": str(self._folder),
            "up": not reason,
            "reason": reason,
            "answers": answers,
            "bytes": size,
            "max_bytes": self._max_bytes,
            "waiting": len(self._fresh),
            "expired": expired,
            "evicted": evicted,
            "unreadable": self._unreadable,
            "too_large": self._too_large,
            "not_kept": self._not_kept + self._lost,
            "failures": self._write_failures + self._read_failures + self._is_unusable,
        }

    async def aclose(self) -> None:
        """Write what is still to be written, as far as that takes no long time, and close the folder."""
        if self._is_closed:
            return
        self._is_closed = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join, CLOSE_SECONDS)
