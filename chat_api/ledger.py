"""What each caller has used: noted by the call, and written to the store every few seconds."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from chat_api.counting import Amounts, Usage, UsageStore, Used
from chat_api.errors import StoreDown
from chat_api.tally import DAY_SECONDS, MAX_ROWS, costs_by_key, day_of, merge, month_start, oldest_kept, place, printed

REDIS_SECONDS = 2.0  # between two writes
FILE_SECONDS = 5.0  # a file is written as a whole

log = logging.getLogger(__name__)


class Ledger:
    """Adds up what calls use, and gives it to the store now and then. While that fails it keeps it, and tries again.

    Args:
        store: keeps it; None for as long as this process lives, and in it.
        seconds: between two writes.
        max_rows: how many rows of a day are counted by all of their names.
        wall: the time in seconds since 1970.
    """

    def __init__(
        self,
        store: UsageStore | None,
        *,
        seconds: float = FILE_SECONDS,
        max_rows: int = MAX_ROWS,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._seconds = seconds
        self._max_rows = max_rows
        self._wall = wall
        self._day, self._begins, self._ends = "", 0.0, 0.0
        self._rows: dict[tuple[str, str, str], Amounts] = {}  # of this day, since the last write
        self._seen: set[Used] = set()  # all rows of this day
        self._unwritten: dict[Used, Amounts] = {}
        self._writing = asyncio.Lock()
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._fails = False

    def note(
        self, key: str, model: str, deployment: str, usage: Usage | None, *, is_error: bool, cost: int = 0
    ) -> None:
        """Count one call that is over.

        Args:
            key: the name of the client key; the caller's address without one.
            model: what the caller asked for; "" for nothing.
            deployment: the label of who answered; "" for nobody.
            usage: its tokens, where the answer told them.
            is_error: whether it failed.
            cost: in millionths of the currency.
        """
        now = self._wall()
        if not self._begins <= now < self._ends:
            self._turn(now)
        try:
            row = self._rows[key, model, deployment]
        except KeyError:
            row = self._row(key, model, deployment)
        row.requests += 1
        if usage is not None:
            row.prompt += usage.prompt
            row.completion += usage.completion
            row.cached += usage.cached
        if is_error:
            row.errors += 1
        if cost:
            row.cost += cost

    def _turn(self, now: float) -> None:
        """Another day has begun, or the clock was set."""
        self._gather()
        self._day = day_of(now)
        self._begins = now // DAY_SECONDS * DAY_SECONDS
        self._ends = self._begins + DAY_SECONDS
        self._seen = set()

    def _row(self, key: str, model: str, deployment: str) -> Amounts:
        used = Used(self._day, printed(key), printed(model), printed(deployment))
        used = place(used, self._seen, self._max_rows)
        self._seen.add(used)
        return self._rows.setdefault((used.key, used.model, used.deployment), Amounts())

    def _gather(self) -> None:
        """Put what was noted to what is to be written."""
        if self._rows:
            rows = {Used(self._day, *names): amounts for names, amounts in self._rows.items()}
            self._rows = {}
            merge(self._unwritten, rows, 2 * self._max_rows)

    def start(self) -> None:
        """Write every few seconds from now on."""
        if self._store is not None:
            self._task = asyncio.create_task(self._write_on())

    async def _write_on(self) -> None:
        while True:
            try:
                await asyncio.wait_for(self._closing.wait(), self._seconds)
            except TimeoutError:
                await self.write()
            else:
                return

    async def write(self) -> None:
        """Give the store what it has not yet; if it does not take it, that is kept for the next time, and logged."""
        async with self._writing:
            self._gather()
            if self._store is None:
                oldest = oldest_kept(day_of(self._wall()))
                self._unwritten = {used: amounts for used, amounts in self._unwritten.items() if used.day >= oldest}
            elif self._unwritten:
                # What is being written is not touched any more: a day may end meanwhile.
                rows, self._unwritten = self._unwritten, {}
                problem = await _problem_of(self._store, rows)
                if problem is not None:
                    later, self._unwritten = self._unwritten, rows
                    merge(self._unwritten, later, 2 * self._max_rows)
                self._tell(problem)

    def _tell(self, problem: Exception | None) -> None:
        """Log that writing fails, or works again; once."""
        if problem is not None and not self._fails:
            told, fault = (problem.message, None) if isinstance(problem, StoreDown) else ("a fault of ours", problem)
            log.error("usage is not written, but kept and tried again: %s", told, exc_info=fault)
        if self._fails and problem is None:
            log.warning("usage is written again")
        self._fails = problem is not None

    async def rows(self, since: str, until: str) -> dict[Used, Amounts]:
        """What is counted of the days from `since` to `until`, both included: what is kept, and not yet written.

        Other processes that write to the same store may have a few seconds' worth on top.

        Raises:
            StoreDown: the store cannot be read.
        """
        since = max(since, oldest_kept(day_of(self._wall())))
        async with self._writing:
            rows: dict[Used, Amounts] = {}
            if self._store is not None:
                merge(rows, await self._store.read(since, until))
            self._gather()
            merge(rows, {used: row for used, row in self._unwritten.items() if since <= used.day <= until})
        return rows

    async def month_costs(self) -> dict[str, int]:
        """What each key has cost in this calendar month (UTC), in millionths of the currency: for budgets.

        Raises:
            StoreDown: the store cannot be read.
        """
        today = day_of(self._wall())
        return costs_by_key(await self.rows(month_start(today), today))

    def state(self) -> Mapping[str, object]:
        """What operators are told of it: whether writing fails, and how many rows are not written."""
        return {"fails": self._fails, "unwritten_rows": len(self._rows) + len(self._unwritten)}

    async def aclose(self) -> None:
        """Write what is left, and let go of the store."""
        self._closing.set()
        if self._task is not None:
            await self._task
        await self.write()
        if self._store is not None:
            if self._unwritten:
                lost = sum(row.requests for row in self._unwritten.values())
                log.error("the usage of %d calls was never written", lost)
            await self._store.aclose()


async def _problem_of(store: UsageStore, rows: Mapping[Used, Amounts]) -> Exception | None:
    """Why the store did not take them; None if it did."""
    try:
        await store.add(rows)
    except Exception as error:  # whatever it is: nothing is lost, and the next write is tried
        return error
    return None
