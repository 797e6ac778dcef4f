import asyncio
import logging
from collections.abc import Callable, Mapping

import pytest

from chat_api.counting import Amounts, Usage, Used
from chat_api.errors import StoreDown
from chat_api.ledger import Ledger
from chat_api.tally import OTHER, merge, total

NOON = 1795262400.0  # of 2026-11-21
DAY_SECONDS = 86400
TODAY, YESTERDAY = "2026-11-21", "2026-11-20"
ALICE = Used(TODAY, "alice", "gpt-4o", "gpt-4o@east")


class Kept:
    """A store in memory, which fails while it has a `problem`."""

    def __init__(self) -> None:
        self.kept: dict[Used, Amounts] = {}
        self.problem: Exception | None = None
        self.writes: list[Mapping[Used, Amounts]] = []
        self.tries: asyncio.Queue[bool] = asyncio.Queue()
        self.is_open = True

    async def add(self, rows: Mapping[Used, Amounts]) -> None:
        self.writes.append(rows)
        await asyncio.sleep(0)
        self.tries.put_nowait(not self.problem)
        if self.problem:
            raise self.problem
        merge(self.kept, rows)

    async def read(self, since: str, until: str) -> dict[Used, Amounts]:
        if self.problem:
            raise self.problem
        return {used: amounts for used, amounts in self.kept.items() if since <= used.day <= until}

    async def aclose(self) -> None:
        self.is_open = False


class Clock:
    """The time, which a test sets."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def noted(ledger: Ledger, times: int = 1, key: str = "alice", model: str = "gpt-4o") -> None:
    """Note so many calls."""
    for _ in range(times):
        ledger.note(key, model, "gpt-4o@east", Usage(10, 5, 2), is_error=False, cost=7)


def test_a_call_is_counted_with_all_that_is_known_of_it() -> None:
    """Requests, three kinds of tokens, errors and cost; an answer without usage counts as a request."""
    ledger = Ledger(None, wall=Clock())
    ledger.note("alice", "gpt-4o", "gpt-4o@east", Usage(10, 5, 2), is_error=False, cost=7)
    ledger.note("alice", "gpt-4o", "gpt-4o@east", Usage(1, 0), is_error=True)
    ledger.note("alice", "gpt-4o", "gpt-4o@east", None, is_error=True)
    ledger.note("bob", "", "", None, is_error=False)

    assert asyncio.run(ledger.rows(TODAY, TODAY)) == {
        ALICE: Amounts(3, 11, 5, 2, 2, 7),
        Used(TODAY, "bob", "", ""): Amounts(1),
    }


def test_what_is_kept_and_what_is_not_written_yet_are_one() -> None:
    """A report is complete at every moment, and reading it changes nothing."""

    async def scenario() -> list[dict[Used, Amounts]]:
        store = Kept()
        ledger = Ledger(store, wall=Clock())
        noted(ledger, 2)
        await ledger.write()
        noted(ledger, 3)
        first = await ledger.rows(TODAY, TODAY)
        again = await ledger.rows(TODAY, TODAY)
        await ledger.write()
        await ledger.write()  # there is nothing more to write
        assert [total(rows.values()).requests for rows in store.writes] == [2, 3]
        return [first, again, store.kept]

    for rows in asyncio.run(scenario()):
        assert rows == {ALICE: Amounts(5, 50, 25, 10, 0, 35)}


def test_days_are_told_apart() -> None:
    """At midnight (UTC) another row begins; what was not written yet stays the day's before, and reads say which."""
    clock = Clock()

    async def scenario() -> None:
        ledger = Ledger(None, wall=clock)
        clock.now = NOON - DAY_SECONDS / 2 - 0.001
        noted(ledger)
        clock.now = NOON - DAY_SECONDS / 2
        noted(ledger, 2)
        clock.now -= 1  # the clock was set back
        noted(ledger)
        clock.now = NOON
        assert {used.day: row.requests for used, row in (await ledger.rows(YESTERDAY, TODAY)).items()} == {
            YESTERDAY: 2,
            TODAY: 2,
        }
        assert {used.day for used in await ledger.rows(TODAY, TODAY)} == {TODAY}
        assert {used.day for used in await ledger.rows(YESTERDAY, YESTERDAY)} == {YESTERDAY}

    asyncio.run(scenario())


def test_a_store_that_fails_loses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What it does not take is kept and given again; the log says so once, and once that it works again."""

    async def scenario() -> Kept:
        store = Kept()
        ledger = Ledger(store, wall=Clock())
        for problem in (StoreDown("the disk is full"), StoreDown("the disk is full"), OSError("anything"), None, None):
            store.problem = problem
            noted(ledger)
            await ledger.write()
            assert ledger.state() == {"fails": problem is not None, "unwritten_rows": 1 if problem else 0}
        return store

    with caplog.at_level(logging.INFO):
        store = asyncio.run(scenario())

    assert store.kept == {ALICE: Amounts(5, 50, 25, 10, 0, 35)}
    assert [record.getMessage() for record in caplog.records] == [
        "usage is not written, but kept and tried again: the disk is full",
        "usage is written again",
    ]


def test_a_fault_of_the_store_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """What no store should raise ends nothing."""
    store = Kept()
    store.problem = ZeroDivisionError()
    ledger = Ledger(store, wall=Clock())
    noted(ledger)
    asyncio.run(ledger.write())

    assert [(record.getMessage(), record.exc_info is not None) for record in caplog.records] == [
        ("usage is not written, but kept and tried again: a fault of ours", True)
    ]


def test_a_store_that_cannot_be_read_is_told() -> None:
    """Half of the truth is no report."""
    store = Kept()
    store.problem = StoreDown("no")
    ledger = Ledger(store, wall=Clock())

    for question in (ledger.rows(TODAY, TODAY), ledger.month_costs()):
        with pytest.raises(StoreDown):
            asyncio.run(question)


def test_calls_that_end_while_it_is_written_are_counted_once() -> None:
    """While a write is under way calls are noted, midnight passes, and a report waits for its end."""

    class Slow(Kept):
        async def add(self, rows: Mapping[Used, Amounts]) -> None:
            before = dict(rows)
            clock.now += DAY_SECONDS
            noted(ledger)
            report = asyncio.create_task(ledger.rows(TODAY, "2026-11-30"))
            await super().add(rows)
            noted(ledger)
            assert not report.done()
            assert rows == before
            reports.append(report)

    async def scenario() -> dict[Used, Amounts]:
        noted(ledger)
        await ledger.write()
        return await reports[0]

    clock = Clock()
    reports: list[asyncio.Task[dict[Used, Amounts]]] = []
    ledger = Ledger(Slow(), wall=clock)

    assert {used.day: row.requests for used, row in asyncio.run(scenario()).items()} == {TODAY: 1, "2026-11-22": 2}


@pytest.mark.parametrize("make", [Kept, lambda: None], ids=["store-that-fails", "no-store"])
def test_memory_is_bounded_whatever_callers_make_up(make: Callable[[], Kept | None]) -> None:
    """Each call has another model, deployment and address, for days: rows stay few, and every call is counted."""

    async def scenario() -> None:
        clock, store = Clock(), make()
        if store:
            store.problem = StoreDown("no")
        ledger = Ledger(store, max_rows=20, wall=clock)
        for day in range(10):
            clock.now = NOON + day * DAY_SECONDS
            for number in range(500):
                ledger.note(f"10.{day}.0.{number}", f"model-{number}", f"d-{number}", Usage(1), is_error=True)
                if number % 100 == 0:
                    await ledger.write()
        if store:
            store.problem = None
        rows = await ledger.rows(TODAY, "2026-12-31")
        assert total(rows.values()) == Amounts(5000, 5000, 0, 0, 5000)
        assert len(rows) <= 3 * 2 * 20 + 10
        assert Used("2026-11-30", OTHER, OTHER, OTHER) in rows

    asyncio.run(scenario())


def test_names_are_cut_and_can_be_written() -> None:
    """A caller's name for a model may be anything; it is counted under what can be kept of it."""
    ledger = Ledger(None, wall=Clock())
    noted(ledger, 2, model="m" * 5000)
    noted(ledger, 1, model="m" * 128)
    noted(ledger, 2, model="\ud800")

    models = {used.model: row.requests for used, row in asyncio.run(ledger.rows(TODAY, TODAY)).items()}
    assert models == {"m" * 128: 3, "?": 2}


def test_known_keys_keep_their_rows() -> None:
    """Made-up models never crowd out what another key uses, or which key it was."""
    ledger = Ledger(None, max_rows=10, wall=Clock())
    noted(ledger)
    for number in range(1000):
        noted(ledger, key="mallory", model=f"made-up-{number}")
    noted(ledger)
    noted(ledger, key="bob", model="gpt-4o-mini")

    rows = asyncio.run(ledger.rows(TODAY, TODAY))
    assert rows[ALICE].requests == 2
    assert sum(row.requests for used, row in rows.items() if used.key == "mallory") == 1000
    assert rows[Used(TODAY, "bob", OTHER, "gpt-4o@east")].requests == 1


def test_budgets_know_what_the_month_has_cost() -> None:
    """Of each key, since the first of the month (UTC), what other processes and lives have written included."""

    async def scenario() -> dict[str, int]:
        store = Kept()
        store.kept = {
            Used("2026-10-31", "alice", "gpt-4o", "e"): Amounts(cost=1000),
            Used("2026-11-01", "alice", "gpt-4o", "e"): Amounts(cost=100),
            Used("2026-11-20", "bob", "gpt-4o", "e"): Amounts(cost=10),
        }
        ledger = Ledger(store, wall=Clock())
        noted(ledger)
        return await ledger.month_costs()

    assert asyncio.run(scenario()) == {"alice": 107, "bob": 10}


def test_days_that_are_kept_no_longer_are_not_asked_for() -> None:
    """However early a report begins, the store is asked for 400 days at most; memory lets go of what is older."""

    async def scenario() -> None:
        clock, store = Clock(), Kept()
        store.kept = {Used(day, "alice", "m", "d"): Amounts(1) for day in ("2025-10-17", "2025-10-18")}
        rows = await Ledger(store, wall=clock).rows("0001-01-01", "9999-12-31")
        assert [used.day for used in rows] == ["2025-10-18"]
        memory = Ledger(None, wall=clock)
        noted(memory)
        clock.now += 400 * DAY_SECONDS
        await memory.write()
        assert memory.state()["unwritten_rows"] == 0

    asyncio.run(scenario())


def test_it_writes_every_few_seconds_and_at_the_end() -> None:
    """Once started it writes by itself, whatever fails in between; closing writes the rest and closes the store."""

    async def scenario() -> Kept:
        store = Kept()
        store.problem = StoreDown("not yet")
        ledger = Ledger(store, seconds=0.001, wall=Clock())
        ledger.start()
        noted(ledger)
        for _ in range(3):
            assert not await store.tries.get()
        store.problem = None
        while not await store.tries.get():
            pass
        noted(ledger)
        await ledger.aclose()
        return store

    store = asyncio.run(scenario())
    assert store.kept[ALICE].requests == 2
    assert not store.is_open


@pytest.mark.parametrize("is_started", [True, False])
def test_closing_does_not_wait_for_the_next_write(is_started: bool, caplog: pytest.LogCaptureFixture) -> None:
    """It writes at once, and once; what the store does not take then is told to be lost."""

    async def scenario() -> Kept:
        store = Kept()
        store.problem = StoreDown("no")
        ledger = Ledger(store, seconds=3600, wall=Clock())
        if is_started:
            ledger.start()
        noted(ledger, 3)
        await ledger.aclose()
        return store

    store = asyncio.run(scenario())
    assert len(store.writes) == 1
    assert not store.is_open
    assert caplog.records[-1].getMessage() == "the usage of 3 calls was never written"


def test_without_a_store_it_lives_in_memory() -> None:
    """It can be started and closed all the same."""

    async def scenario() -> dict[Used, Amounts]:
        ledger = Ledger(None, wall=Clock())
        ledger.start()
        noted(ledger)
        await ledger.aclose()
        return await ledger.rows(TODAY, TODAY)

    assert asyncio.run(scenario())[ALICE].requests == 1
