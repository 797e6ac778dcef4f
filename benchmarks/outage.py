"""Outages of regions: `python -m benchmarks.outage`. What callers see of them, and what the regions have to bear."""

import asyncio
import contextlib
import http.client
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import uvloop

from benchmarks.callers import MODEL, Called, Callers
from benchmarks.figures import percentile
from benchmarks.processes import Running, free_port, raise_file_limit, stop_on_signals
from benchmarks.report import aligned
from benchmarks.subjects import take_snapshot
from chat_api.emulator import Emulator, Latency, Limit, Outage, open_emulator

REGIONS = 3
CALLERS, PAUSE_SECONDS = 30, 0.1
LATENCY = Latency(0.05, 0.002, jitter=0.5)
LEAST_MORE, MOST_MORE = 10, 0.2  # attempts beyond the calls, in the outage of all; a part of those before it as well
BACK_SECONDS = 90  # that the regions have to be asked again, at most
LOOK_SECONDS = 0.1
PERIODS = ("before", "during", "after")


@dataclass(frozen=True, slots=True)
class Phase:
    """One way to be out of order.

    Args:
        of_all: whether all regions are; else it is the first.
        outage: how; None: it takes one call a second.
        environ: settings of the gateway.
    """

    of_all: bool
    outage: Outage | None
    environ: dict[str, str] = field(default_factory=dict)


PHASES = {
    "killed": Phase(False, Outage("refused")),
    "hanging": Phase(False, Outage("hang"), {"FIRST_BYTE_TIMEOUT": "2"}),
    "hanging-hedged": Phase(False, Outage("hang"), {"FIRST_BYTE_TIMEOUT": "10", "HEDGE_AFTER": "0.5"}),
    "throttling": Phase(False, None),
    "flapping": Phase(False, Outage("reset", period=0.5)),
    "503": Phase(False, Outage("503")),
    "all-refused": Phase(True, Outage("refused")),
    "all-503": Phase(True, Outage("503")),
    "all-429": Phase(True, Outage("429")),
}


@dataclass(frozen=True, slots=True)
class Period:
    """What there was before, during or after an outage.

    Args:
        name: which of them.
        calls: those that began in it.
        attempts: how often a region was asked in it.
    """

    name: str
    calls: Sequence[Called]
    attempts: int

    @property
    def failed(self) -> list[Called]:
        """The calls that were not answered although they could have been: a stream that had begun could not."""
        return [one for one in self.calls if not one.is_good and not one.has_begun]

    def row(self) -> list[str]:
        """The period's line of the table."""
        seconds = sorted(one.ended - one.started for one in self.calls) or [0.0]
        statuses = Counter("cut" if one.has_begun and not one.is_good else str(one.status) for one in self.calls)
        told = ", ".join(f"{status}: {count:,}" for status, count in sorted(statuses.items()))
        again = sum(one.attempts > 1 for one in self.calls)
        times = [f"{percentile(seconds, percent) * 1000:,.0f}" for percent in (50, 99, 100)]
        return [self.name, f"{len(self.calls):,}", f"{self.attempts:,}", f"{again:,}", *times, told]


HEAD = ["", "calls", "attempts", "repeated", "p50 ms", "p99 ms", "most ms", "statuses"]


@click.command()
@click.option("--phases", default=",".join(PHASES), help="Which ones, separated by commas.", show_default=True)
@click.option("--seconds", type=click.FloatRange(0.1), default=60, show_default=True, help="How long an outage lasts.")
@click.option("--around", type=click.FloatRange(0.1), default=10, show_default=True, help="How long before and after.")
def main(phases: str, seconds: float, around: float) -> None:
    """Ask a gateway over three emulated regions without a pause while one of them, or all, are out of order.

    The exit code is 1 if a call failed that another region could have answered, if an outage of all was multiplied, or
    if a region was not asked again after it.
    """
    stop_on_signals()
    raise_file_limit()
    names = [name.strip() for name in phases.split(",")]
    if unknown := [name for name in names if name not in PHASES]:
        raise click.BadParameter(f"no phase is called {unknown[0]!r}: {', '.join(PHASES)}")
    faults = []
    with tempfile.TemporaryDirectory(prefix="outage-") as folder:
        take_snapshot(Path(folder))
        for name in names:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                faults += runner.run(_phase(name, PHASES[name], Path(folder), seconds, around))
    for fault in faults:
        click.echo(f"FAULT: {fault}")
    sys.exit(bool(faults))


async def _phase(name: str, phase: Phase, folder: Path, seconds: float, around: float) -> list[str]:
    """Run one, print its table, and say what was wrong with it."""
    async with contextlib.AsyncExitStack() as stack:
        emulators = [Emulator(keys=frozenset({f"key-{number}"}), latency=LATENCY) for number in range(REGIONS)]
        urls = [await stack.enter_async_context(open_emulator(one)) for one in emulators]
        gateway = await asyncio.to_thread(_gateway, folder, urls, phase.environ)
        stack.callback(gateway.stop)
        callers = Callers(gateway.port, CALLERS, pause=PAUSE_SECONDS)
        await callers.start()
        marks = [await _mark(gateway.port)]
        await asyncio.sleep(around)
        marks.append(await _mark(gateway.port))
        sick = emulators if phase.of_all else emulators[:1]
        for one in sick:
            _set(one, phase.outage)
        click.echo(f"{name}: it begins", err=True)
        await asyncio.sleep(seconds)
        marks.append(await _mark(gateway.port))
        for one in sick:
            _set(one, phase.outage, over=True)
        click.echo(f"{name}: it has ended", err=True)
        back = asyncio.create_task(_back(callers, urls))
        await asyncio.sleep(around)
        marks.append(await _mark(gateway.port))
        lag = await back
        await callers.stop()
    periods = [
        Period(period, [one for one in callers.calls if began < one.started < ended], after - before)
        for period, (began, before), (ended, after) in zip(PERIODS, marks, marks[1:], strict=False)
    ]
    lines = aligned([HEAD, *(period.row() for period in periods)])
    click.echo("\n".join([f"{name}, {seconds:g} s; all regions are asked again after {lag:.1f} s", *lines, ""]))
    return [f"{name}: {fault}" for fault in faults_of(phase, periods, lag)]


def faults_of(phase: Phase, periods: Sequence[Period], lag: float) -> list[str]:
    """What was wrong with a phase whose regions were all asked again after so many seconds."""
    before, during = periods[:2]
    count = len(during.calls)
    # Of an outage of all: what began just before meets it, and what is asked just after a 429 is told to wait.
    healthy = [] if phase.of_all else periods
    found = [f"{len(one.failed)} calls failed {one.name} it" for one in healthy if one.failed]
    if phase.of_all and during.attempts > count + max(LEAST_MORE, MOST_MORE * (count + len(before.calls))):
        found.append(f"{during.attempts} attempts for {count} calls")
    if lag >= BACK_SECONDS:
        found.append("a region was not asked again")
    return found


def _set(emulator: Emulator, outage: Outage | None, *, over: bool = False) -> None:
    if outage is not None:
        emulator.outage = None if over else outage
    elif over:
        emulator.limits.clear()
    else:
        emulator.limits[MODEL] = Limit(rpm=60)


def _gateway(folder: Path, urls: Sequence[str], environ: dict[str, str]) -> Running:
    config, port = folder / "regions.yaml", free_port()
    rows = [{"name": MODEL, "endpoint": url, "key": f"key-{number}"} for number, url in enumerate(urls)]
    config.write_text(json.dumps({"deployments": rows}))  # JSON is YAML
    settings = {"HTTP_PORT": str(port), "CONFIG_FILE": str(config), "LOG_LEVEL": "error", **environ}
    running = Running([sys.executable, "app.py"], port, folder / "ours", folder / "ours.log", settings)
    running.wait_until_listening()
    return running


async def _back(callers: Callers, urls: Sequence[str]) -> float:
    """After how many seconds all regions have answered again."""
    began = time.monotonic()
    labels = {f"{MODEL}@{url.removeprefix('http://')}" for url in urls}
    for _ in range(round(BACK_SECONDS / LOOK_SECONDS)):
        if labels <= {one.deployment for one in callers.since(began) if one.is_good}:
            break
        await asyncio.sleep(LOOK_SECONDS)
    return time.monotonic() - began


async def _mark(port: int) -> tuple[float, int]:
    """The time, and how often regions have been asked until then."""
    rows = await asyncio.to_thread(_status, port)
    return time.monotonic(), sum(row["calls"] for row in rows)


def _status(port: int) -> list[dict[str, Any]]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", "/status")
        rows: list[dict[str, Any]] = json.loads(connection.getresponse().read())["deployments"]
        return rows


if __name__ == "__main__":
    main()
