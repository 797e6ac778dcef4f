"""Several emulated regions, each on a socket of its own, a gateway over them, and callers who never stop asking."""

import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx

from benchmarks.callers import KINDS, MODEL, PATIENCE_SECONDS, Called, Callers, Kind, call
from chat_api import settings
from chat_api.app import create_app
from chat_api.emulator import Emulator, open_emulator
from tests.servers import eventually, in_thread, serving

KEY = "canary-key-of-region-"  # and its number
NAMES = ("East US", "Sweden Central", "Japan East")
CALLERS = 30


class Load(Callers):
    """Callers in the gateway's thread, and the test that waits for them in its own."""

    def wait_for(self, count: int) -> None:
        """Wait until so many calls have ended that began from now on."""
        now = time.monotonic()
        assert eventually(lambda: len(self.since(now)) >= count, PATIENCE_SECONDS), len(self.since(now))

    def wait_until(self, seen: Callable[[Called], bool]) -> Called:
        """Wait for a call that began from now on and of which this is true."""
        now = time.monotonic()
        assert eventually(lambda: any(map(seen, self.since(now))), PATIENCE_SECONDS), self.since(now)[-3:]
        return next(filter(seen, self.since(now)))


@dataclass(frozen=True, slots=True)
class Region:
    """One region: its emulator, and what the gateway calls its deployment."""

    emulator: Emulator
    base_url: str
    label: str


@dataclass(frozen=True, slots=True)
class Regions:
    """Regions, and a gateway over them that runs in a thread, with all that is in its event loop."""

    all: Sequence[Region]
    client: httpx.Client
    port: int
    run: Callable[..., Any] = field(repr=False)  # runs a coroutine in that event loop

    @contextlib.contextmanager
    def load(self, callers: int = CALLERS, kinds: Sequence[Kind] = KINDS) -> Iterator[Load]:
        """Callers, until the block ends; then each has been answered."""
        load = Load(self.port, callers, kinds)
        self.run(load.start())
        try:
            yield load
        finally:
            self.run(load.stop())

    def call(self, kind: Kind) -> Called:
        """One call."""
        called: Called = self.run(call(self.port, kind))
        return called

    def calls(self, *kinds: Kind) -> list[Called]:
        """Calls at the same time."""

        async def together() -> list[Called]:
            return await asyncio.gather(*(call(self.port, kind) for kind in kinds))

        called: list[Called] = self.run(together())
        return called

    def status(self) -> dict[str, dict[str, Any]]:
        """What `/status` says of the deployments, by their labels."""
        rows = self.client.get("/status").raise_for_status().json()["deployments"]
        return {row["deployment"]: row for row in rows}

    def wait_for_state(self, region: Region, *states: str) -> tuple[float, float]:
        """Wait until a region's deployment is in one of these states; when that was seen, and when it ends at least."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            before = time.monotonic()
            row = self.status()[region.label]
            if row["state"] in states:
                return time.monotonic(), before + max(row["ejected_seconds"], row["cool_down_seconds"])
            assert before < deadline, row


@contextlib.contextmanager
def regions(
    count: int = 3,
    *,
    entries: Sequence[Mapping[str, object]] = (),
    make: Callable[..., Emulator] = Emulator,
    **environ: str,
) -> Iterator[Regions]:
    """A gateway over so many regions.

    Args:
        count: how many.
        entries: what the config file's entry of each says besides.
        make: makes an emulator; gets its `keys` and `region`.
        environ: the gateway's settings.
    """
    with in_thread() as run, tempfile.TemporaryDirectory() as folder:
        front, *behind = stacks = [contextlib.AsyncExitStack() for _ in range(count + 1)]
        try:
            rows, found = [], []
            for number in range(count):
                key = f"{KEY}{number}"
                emulator = make(keys=frozenset({key}), region=NAMES[number % len(NAMES)])
                base_url = run(behind[number].enter_async_context(open_emulator(emulator)))
                row = {"name": MODEL, "models": [MODEL], "endpoint": base_url, "key": key}
                row |= entries[number] if number < len(entries) else {}
                rows.append(row)
                found.append(Region(emulator, base_url, f"{row['name']}@{base_url.removeprefix('http://')}"))
            config = Path(folder, "config.yaml")
            config.write_text(json.dumps({"deployments": rows}))  # JSON is YAML
            values = settings.load({"CONFIG_FILE": str(config), **environ}, Path(folder, ".env"))
            port = run(front.enter_async_context(serving(create_app(values), values)))
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS) as client:
                yield Regions(found, client, port, run)
        finally:
            run(_closed(stacks))


async def _closed(stacks: Sequence[contextlib.AsyncExitStack]) -> None:
    """Close them at the same time: each takes the moment that it needs to notice."""
    await asyncio.gather(*(stack.aclose() for stack in stacks))
