"""The conversation log: what callers asked and were answered, in files that their owner reads.

The call only puts its exchange into a queue. A thread makes records of what is in it, and writes them, many at a time.
Where the disk is full, or slow, records wait, as many as fit into the queue; what comes beyond is dropped, and counted.
"""

import asyncio
import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from chat_api.conversation import bare_record, line_of
from chat_api.exchanges import Exchange
from chat_api.log_files import LogFiles, Write, who_else_may
from chat_api.redaction import Rule
from chat_api.redactor import MAX_SECONDS, Redactor

MAX_QUEUE_BYTES = 64 * 1024 * 1024
MAX_QUEUE_RECORDS = 100_000
MAX_FILE_BYTES = 256 * 1024 * 1024
CLOSE_SECONDS = 5.0
_RECORD_BYTES, _PIECE_BYTES = 1024, 64  # what a record, and a piece of an answer, take besides their bytes
_BATCH_BYTES = 256 * 1024
_TURN_BYTES = 32 * 1024  # that are read before other threads get a turn: it is them who answer calls
_PAUSE_SECONDS = 0.02  # in which records gather
_FEW = 64  # records, for which it is worth to wait for more
_RETRY_SECONDS = 1.0
_IDLE_SECONDS = 600.0  # after which it looks whether a day has ended

log = logging.getLogger(__name__)


class ConversationLog:
    """Writes exchanges down. `note` is for the event loop; everything else that happens does so in a thread.

    Args:
        folder: where the files are; it is made if it is missing.
        max_queue_bytes: how much may wait to be written, about.
        max_queue_records: how many may.
        max_file_bytes: how large a file gets.
        keep_days: how many days a file is kept; 0 for ever.
        redact: what is not to be written.
        redact_seconds: of a processor's time that this may take for one record.
        clock: the time in seconds since 1970.
        write: as `os.write`.
        retry_seconds: between two tries of what could not be written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_queue_bytes: int = MAX_QUEUE_BYTES,
        max_queue_records: int = MAX_QUEUE_RECORDS,
        max_file_bytes: int = MAX_FILE_BYTES,
        keep_days: int = 0,
        redact: Sequence[Rule] = (),
        redact_seconds: float = MAX_SECONDS,
        clock: Callable[[], float] = time.time,
        write: Write = os.write,
        retry_seconds: float = _RETRY_SECONDS,
    ) -> None:
        self._folder = folder
        self._max_bytes = max_queue_bytes
        self._max_records = max_queue_records
        self._files = LogFiles(folder, max_file_bytes=max_file_bytes, keep_days=keep_days, clock=clock, write=write)
        self._redactor = Redactor(redact, redact_seconds) if redact else None
        self._retry_seconds = retry_seconds
        self._queue: deque[tuple[int, Exchange]] = deque()
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="conversation log", daemon=True)
        self._sleeps = False
        # Each of these is written by one thread only: the first three by the loop's, the others by ours.
        self._taken_bytes, self._taken, self._dropped = 0, 0, 0
        self._done_bytes, self._written, self._failed = 0, 0, 0
        self._lines: list[bytes] = []  # that could not be written yet
        self._line_bytes = 0  # what they took in the queue
        self._drops = False
        self._fails = False

    def start(self) -> None:
        """Write from now on."""
        self._thread.start()

    def note(self, exchange: Exchange) -> None:
        """Have an exchange written down; nothing may change in it any more. It neither waits nor raises."""
        pieces = exchange.answer
        size = _RECORD_BYTES + len(exchange.request)
        size += len(pieces[0]) if len(pieces) == 1 else sum(map(len, pieces)) + _PIECE_BYTES * len(pieces)
        if self._taken_bytes - self._done_bytes + size > self._max_bytes or len(self._queue) >= self._max_records:
            return self._drop()
        self._taken_bytes += size
        self._taken += 1
        self._queue.append((size, exchange))
        if self._sleeps:
            self._sleeps = False
            self._wakes.put(None)
        return None

    def _drop(self) -> None:
        self._dropped += 1
        if not self._drops and not self._fails:  # which has been told
            self._drops = True
            log.error("the conversation log in %s does not keep up: conversations are not logged", self._folder)

    def state(self) -> Mapping[str, object]:
        """What operators are told of it.

        How many records wait and are written; how many were dropped because too many waited, and how many failed: they
        could not be made, or were not written when it was closed; and whether writing fails now.
        """
        written, failed = self._written, self._failed
        return {
            "queued": self._taken - written - failed,
            "queued_bytes": self._taken_bytes - self._done_bytes,
            "written": written,
            "dropped": self._dropped,
            "failed": failed,
            "failing": self._fails,
        }

    async def aclose(self, seconds: float = CLOSE_SECONDS) -> None:
        """Write what waits, for so many seconds at the most, and let go of the file."""
        self._closing.set()
        self._wakes.put(None)
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join, seconds)
        if lost := self._taken - self._written + self._dropped:
            log.error("%d conversations were not logged", lost)

    def _run(self) -> None:
        """The thread: until it is closed, and everything is written, or cannot be."""
        if other := who_else_may(self._folder):
            log.warning(
                "others than its owner may %s %s (LOG_DIR), where conversations are logged", other, self._folder
            )
        try:
            while not self._closing.is_set():
                self._await_work()
                while self._queue or self._lines:
                    if not self._write_some() and self._closing.wait(self._retry_seconds):
                        break
                    if 0 < len(self._queue) < _FEW:  # each turn of ours costs the loop one
                        self._closing.wait(_PAUSE_SECONDS)
                self._tell_of_drops()
            while (self._queue or self._lines) and self._write_some():
                pass
            self._failed += len(self._lines) + len(self._queue)
        finally:
            self._files.close()
            if self._redactor is not None:
                self._redactor.close()

    def _await_work(self) -> None:
        self._sleeps = True
        while not self._queue and not self._closing.is_set():
            try:
                self._wakes.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                self._files.sweep()
        self._sleeps = False
        self._closing.wait(_PAUSE_SECONDS)

    def _write_some(self) -> bool:
        """Write what could not be written before, or a batch; False if that fails."""
        if not self._lines:
            self._make_lines()
        try:
            count = self._files.append(self._lines)
        except Exception as error:  # whatever it is, the thread goes on, and tries again
            self._tell(error)
            return False
        self._written += count
        del self._lines[:count]
        if self._lines:
            return True  # why not all of them were written, the next try says
        self._done_bytes += self._line_bytes
        self._line_bytes = 0
        self._tell(None)
        return True

    def _make_lines(self) -> None:
        size, turn = 0, 0
        while self._queue and size < _BATCH_BYTES:
            taken, exchange = self._queue.popleft()
            self._line_bytes += taken
            try:
                line = self._line_of(exchange)
            except Exception:  # a fault of ours; the exchange is lost, and no other
                log.exception("a conversation could not be made a record")
                self._failed += 1
                continue
            self._lines.append(line + b"\n")
            size += len(line)
            turn += taken
            if turn > _TURN_BYTES:
                turn = 0
                time.sleep(0)

    def _line_of(self, exchange: Exchange) -> bytes:
        line = line_of(exchange)
        if self._redactor is None:
            return line
        if redacted := self._redactor.redacted(line):
            return redacted
        bare = msgspec.json.encode(bare_record(exchange))
        return self._redactor.redacted(bare) or bare

    def _tell(self, problem: Exception | None) -> None:
        """Log that writing fails, or works again; once."""
        if problem is not None and not self._fails:
            fault = None if isinstance(problem, OSError) else problem
            reason = getattr(problem, "strerror", None) or str(problem)
            text = "conversations cannot be logged in %s (LOG_DIR): %s; they wait"
            log.error(text, self._folder, reason, exc_info=fault)
        if self._fails and problem is None:
            log.warning("conversations are logged again; %d were dropped so far", self._dropped)
        self._fails = problem is not None

    def _tell_of_drops(self) -> None:
        if self._drops and not self._queue:
            self._drops = False
            log.warning("the conversation log keeps up again; %d conversations were dropped so far", self._dropped)
