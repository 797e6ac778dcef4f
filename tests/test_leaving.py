"""Two hundred clients who leave whenever they like: what is left of their calls, in the gateway and upstream."""

import asyncio
import contextlib
import os
import random
import sys
from functools import partial

import pytest

from benchmarks.callers import KINDS, PATIENCE_SECONDS, Kind
from benchmarks.processes import tcp_connections
from chat_api import app
from chat_api.emulator import Emulator, Latency
from tests.regions import Regions, regions
from tests.servers import eventually
from tests.test_soak import WatchedTransport

pytestmark = pytest.mark.alone  # it looks at what happens when

CLIENTS = 200
SLOW = Latency(0.06, 0.01)


async def visit(port: int, kind: Kind, rng: random.Random) -> int:
    """Ask, and leave: at once, after a while, with some of the answer read, or when it has ended; the bytes read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    pieces = rng.choice((0, 1, 1, 2, 3, 5, 1000))
    patience = rng.choice((0, 0.01, 0.03, 0.06, 0.1, 0.2, PATIENCE_SECONDS))
    read = 0
    try:
        writer.write(kind.request)
        await writer.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while pieces and (piece := await reader.read(rng.choice((10, 500, 65536)))):
                    pieces, read = pieces - 1, read + len(piece)
    finally:
        if rng.random() < 0.5:
            writer.close()
        else:
            writer.transport.abort()
    return read


async def visits(port: int, rng: random.Random) -> list[int]:
    """All of them at the same time."""
    return await asyncio.gather(*(visit(port, KINDS[number % len(KINDS)], rng) for number in range(CLIENTS)))


def connections(running: Regions) -> int:
    """How many connections clients have with the gateway; -1 where nobody can tell."""
    if sys.platform != "linux":
        return -1
    return sum(local == running.port for local, _ in tcp_connections(os.getpid()))


@pytest.mark.parametrize("hedge_after", ["0", "0.03"], ids=["plain", "hedged"])
def test_clients_who_leave_take_everything_with_them(hedge_after: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No call in flight, here or upstream, no task, no connection more than before; and nobody is blamed for it."""
    WatchedTransport.made.clear()
    monkeypatch.setattr(app, "UpstreamTransport", WatchedTransport)
    with regions(make=partial(Emulator, latency=SLOW), HEDGE_AFTER=hedge_after) as running:
        (transport,) = WatchedTransport.made
        assert all(running.call(kind).is_good for kind in KINDS)
        assert eventually(lambda: transport.in_use == 0, PATIENCE_SECONDS)
        running.status()
        assert eventually(lambda: connections(running) in (1, -1), PATIENCE_SECONDS)
        before = transport.tasks()

        read = running.run(visits(running.port, random.Random(1)))

        assert eventually(lambda: all(region.emulator.open_calls == 0 for region in running.all), PATIENCE_SECONDS)
        assert eventually(lambda: transport.in_use == 0, PATIENCE_SECONDS)
        rows = running.status().values()
        assert [row["in_flight"] for row in rows] == [0, 0, 0]
        assert [row["state"] for row in rows] == ["available"] * 3
        assert [(row["failures"], row["last_error"]) for row in rows] == [(0, None)] * 3
        assert eventually(lambda: transport.tasks() == before, PATIENCE_SECONDS), (transport.tasks(), before)
        assert eventually(lambda: connections(running) in (1, -1), PATIENCE_SECONDS), connections(running)
        assert all(running.call(kind).is_good for kind in KINDS)
        retries = running.client.get("/status").json()["retry_budget"]["retries"]

    assert 0 in read
    assert max(read) > 1000
    assert (retries > 0) == (hedge_after != "0")
