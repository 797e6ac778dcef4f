"""The ledger and the command `usage` over a real Redis."""

import asyncio
import contextlib
import json
import logging

import pytest
from click.testing import CliRunner

from chat_api.cli import main
from chat_api.counting import Amounts, Usage, UsageStore, Used
from chat_api.errors import StoreDown
from chat_api.ledger import Ledger
from chat_api.stores import open_store
from chat_api.tally import day_of, total
from chat_api.types import Secret
from tests.redis_servers import RedisServer, redis_server_of

PASSWORD = "canary-redis-password"
NOON = 1795262400.0  # of 2026-11-21
TODAY = day_of(NOON)


def usage_of(server: RedisServer, timeout_seconds: float = 5) -> UsageStore:
    """The store that keeps usage there."""
    store = open_store(Secret(server.url), timeout_seconds=timeout_seconds).usage
    assert store is not None
    return store


def test_two_processes_and_one_report(caplog: pytest.LogCaptureFixture) -> None:
    """Ledgers that know nothing of each other add up; a budget finds the month's cost; no password is told."""

    async def scenario() -> tuple[dict[Used, Amounts], dict[str, int]]:
        ledgers = [Ledger(store, wall=lambda: NOON) for store in stores]
        for ledger in ledgers:
            for name in ("alice", "{bob}%", "größer"):
                ledger.note(name, "gpt-4o", "gpt-4o@east", Usage(10, 5, 2), is_error=True, cost=7)
            await ledger.write()
        ledgers[0].note("alice", "", "", None, is_error=False)
        seen = await ledgers[0].rows(TODAY, TODAY), await ledgers[1].month_costs()
        for ledger in ledgers:
            await ledger.aclose()
        return seen

    with redis_server_of("--requirepass", PASSWORD, password=PASSWORD) as server:
        stores = [usage_of(server), usage_of(server)]
        rows, costs = asyncio.run(scenario())
        arguments = ["usage", "--since", TODAY, "--until", TODAY, "--json"]
        result = CliRunner().invoke(main, arguments, env={"STORE_URL": server.url})

    twice = Amounts(2, 20, 10, 4, 2, 14)
    assert rows == {
        Used(TODAY, "alice", "gpt-4o", "gpt-4o@east"): twice,
        Used(TODAY, "{bob}%", "gpt-4o", "gpt-4o@east"): twice,
        Used(TODAY, "größer", "gpt-4o", "gpt-4o@east"): twice,
        Used(TODAY, "alice", "", ""): Amounts(1),
    }
    assert costs == {"alice": 14, "{bob}%": 14, "größer": 14}
    assert json.loads(result.stdout)["total"]["requests"] == 7
    assert "canary" not in result.output + caplog.text


def test_redis_that_pauses_loses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """While it does not answer usage is kept, and cannot be read; when it goes on each call is counted once."""

    async def scenario() -> Amounts:
        ledger.note("alice", "m", "d", Usage(10), is_error=False)
        await ledger.write()
        server.pause()
        for _ in range(3):
            ledger.note("alice", "m", "d", Usage(10), is_error=False)
            await ledger.write()
        with pytest.raises(StoreDown):
            await ledger.rows(TODAY, TODAY)
        server.resume()
        async with asyncio.timeout(20):
            while True:  # until the link has seen that it is back
                await asyncio.sleep(0.01)
                await ledger.write()
                with contextlib.suppress(StoreDown):
                    counted = total((await ledger.rows(TODAY, TODAY)).values())
                    if counted.requests == 4:
                        await ledger.aclose()
                        return counted

    with redis_server_of() as server:
        ledger = Ledger(usage_of(server, 0.05), wall=lambda: NOON)
        with caplog.at_level(logging.INFO, "chat_api.ledger"):
            counted = asyncio.run(scenario())

    assert counted == Amounts(4, 40)
    told = [record.getMessage().partition(":")[0] for record in caplog.records if record.name == "chat_api.ledger"]
    assert told == ["usage is not written, but kept and tried again", "usage is written again"]
