"""The wire's pool over lines in memory: which connection serves, how many there are, who waits, who is let go of."""

import asyncio

import pytest

from chat_api.errors import ConnectError, PoolTimeout
from chat_api.failures import Limits
from chat_api.wire.connection import Connection
from tests.hops import OK
from tests.wires import MemoryPool, asked, run_skipping

LIMITS = Limits(connect_seconds=10, keepalive_seconds=30, connections=2)


async def open_ones(pool: MemoryPool, count: int) -> list[Connection]:
    """So many connections, all of them busy with an exchange."""
    found = [await pool.connect() for _ in range(count)]
    for connection in found:
        await asked(connection)
    return found


def finish(pool: MemoryPool, connection: Connection) -> None:
    """The exchange on this connection ends."""
    line = next(line for line in pool.lines if line.get_protocol() is connection)
    line.receive(OK)


async def settled() -> None:
    """Let every task run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_last_used_serves_first() -> None:
    """Of several idle connections the one that came free last is taken, then the one before."""

    async def main() -> None:
        pool = MemoryPool(Limits(connections=3))
        one, two, three = await open_ones(pool, 3)
        for connection in (two, three, one):
            finish(pool, connection)
        assert [pool.take() for _ in range(4)] == [one, three, two, None]

    run_skipping(main())


def test_idle_connections_expire() -> None:
    """What was idle for keepalive_seconds is closed; what was used meanwhile is not."""

    async def main() -> None:
        pool = MemoryPool(LIMITS)
        one, two = await open_ones(pool, 2)
        finish(pool, one)
        finish(pool, two)
        await asyncio.sleep(20)
        taken = pool.take()
        assert taken is two
        await asked(two)
        finish(pool, two)
        await asyncio.sleep(15)
        assert (one.is_open, two.is_open) == (False, True)
        assert pool.take() is two
        assert pool.take() is None

    run_skipping(main())


def test_idle_connection_that_ends_is_forgotten() -> None:
    """One that its upstream closed, or on which it said something unasked, serves nobody and counts for nothing."""

    async def main() -> None:
        pool = MemoryPool(LIMITS)
        one, two = await open_ones(pool, 2)
        finish(pool, one)
        finish(pool, two)
        pool.lines[0].end()
        pool.lines[1].receive(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        await settled()
        assert pool.take() is None
        assert all(line.is_closed for line in pool.lines)
        await open_ones(pool, 2)

    run_skipping(main())


def test_bound_holds_and_waiters_are_served_in_order() -> None:
    """There are never more connections than allowed; who came first gets the first that comes free."""

    async def main() -> None:
        pool = MemoryPool(LIMITS)
        one, two = await open_ones(pool, 2)
        waiters = [asyncio.create_task(pool.connect()) for _ in range(4)]
        await settled()
        for freed, waiter in ((two, waiters[0]), (one, waiters[1])):
            finish(pool, freed)
            assert await waiter is freed
            await asked(freed)
        assert not waiters[2].done()
        one.close()
        third = await waiters[2]
        assert third not in (one, two)
        await asked(third)
        finish(pool, two)
        assert await waiters[3] is two
        assert len(pool.lines) == 3

    run_skipping(main())


def test_waiting_ends_in_a_pool_timeout() -> None:
    """Nobody waits longer than connect_seconds, and who gave up loses nothing for the others."""

    async def main() -> None:
        pool = MemoryPool(LIMITS)
        loop = asyncio.get_running_loop()
        one, _ = await open_ones(pool, 2)
        begin = loop.time()
        early = asyncio.create_task(pool.connect())
        await asyncio.sleep(5)
        late = asyncio.create_task(pool.connect())
        with pytest.raises(PoolTimeout, match="all 2 connections to host are busy"):
            await early
        assert 10 <= loop.time() - begin < 10.1
        finish(pool, one)
        assert await late is one

    run_skipping(main())


@pytest.mark.parametrize("is_kept", [True, False], ids=["connection", "place"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_waiter_that_is_cancelled_loses_nothing(is_kept: bool, when: str) -> None:
    """A connection, or a place, that comes to somebody who is gone goes to the next one."""

    async def main() -> None:
        pool = MemoryPool(LIMITS)
        one, _ = await open_ones(pool, 2)
        gone, other = asyncio.create_task(pool.connect()), asyncio.create_task(pool.connect())
        await settled()
        if when == "before":
            gone.cancel()
        if is_kept:
            finish(pool, one)
        else:
            one.close()
        gone.cancel()  # after it has been given what it waited for, but before it knows
        await asyncio.wait({gone})
        assert gone.cancelled()
        assert (await other is one) == is_kept
        third = asyncio.create_task(pool.connect())
        await settled()
        assert not third.done()  # the bound still holds
        (await other).close()
        await third
        assert sum(not line.is_closed for line in pool.lines) == 2

    run_skipping(main())


def test_connection_that_closes_on_its_way_to_a_waiter_leaves_its_place() -> None:
    """A connection that ends between two hands, the first of which is gone, is not counted as open for ever."""

    async def main() -> None:
        pool = MemoryPool(Limits(connect_seconds=10, connections=1))
        (one,) = await open_ones(pool, 1)
        gone = asyncio.create_task(pool.connect())
        await settled()
        finish(pool, one)
        gone.cancel()
        one.close()
        await asyncio.wait({gone})
        await asyncio.wait_for(open_ones(pool, 1), 1)
        with pytest.raises(PoolTimeout):
            await pool.connect()
        assert sum(not line.is_closed for line in pool.lines) == 1

    run_skipping(main())


def test_place_is_given_back_when_connecting_fails() -> None:
    """A failure to connect costs no place: the next in line tries, and so may as many after it."""
    results = [ConnectError("no")] * 5

    async def main() -> None:
        async def connecting() -> None:
            await asyncio.sleep(1)
            if results:
                raise results.pop()

        pool = MemoryPool(LIMITS)
        pool.connecting = connecting
        found = await asyncio.gather(*[pool.connect() for _ in range(7)], return_exceptions=True)
        assert [type(one) for one in found] == [ConnectError] * 5 + [Connection] * 2

    run_skipping(main())


def test_place_is_given_back_when_connecting_is_cancelled() -> None:
    """Whoever is cancelled while a connection is made leaves its place to the next."""

    async def main() -> None:
        async def connecting() -> None:
            await asyncio.sleep(5)

        pool = MemoryPool(Limits(connect_seconds=60, connections=1))
        pool.connecting = connecting
        gone, other = asyncio.create_task(pool.connect()), asyncio.create_task(pool.connect())
        await asyncio.sleep(1)
        gone.cancel()
        assert (await other).is_open

    run_skipping(main())


def test_new_connection_is_made_at_the_bound_for_an_idle_one() -> None:
    """Where a new connection is wanted and no more are allowed, the one that was idle longest is closed for it."""

    async def main() -> None:
        pool = MemoryPool(LIMITS)
        one, two = await open_ones(pool, 2)
        finish(pool, two)
        finish(pool, one)
        new = await pool.connect()
        assert new not in (one, two)
        assert (one.is_open, two.is_open) == (True, False)
        assert pool.take() is one

    run_skipping(main())


def test_closing_closes_every_connection_and_leaves_no_timer() -> None:
    """After close nothing is open, and nothing will happen."""

    async def main() -> None:
        pool = MemoryPool(LIMITS)
        one, two = await open_ones(pool, 2)
        finish(pool, one)
        pool.close()
        assert not one.is_open
        assert not two.is_open
        await settled()
        timers = [timer for timer in getattr(asyncio.get_running_loop(), "_scheduled") if not timer.cancelled()]  # noqa: B009
        assert timers == []

    run_skipping(main())
