"""A soak run: `python -m benchmarks.soak`. Many requests and broken streams, and then nothing of them may be left."""

import asyncio
import contextlib
import json
import os
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import click
import uvloop

from benchmarks.answers import CUT, RESET
from benchmarks.breaking import LEFT, BrokenStreams
from benchmarks.checks import Fault
from benchmarks.leaks import Course, Holding, counts_table, document, findings, findings_table, moments_table
from benchmarks.machine import described
from benchmarks.mixed import CONNECTIONS, MixedLoop, Visitors, mix
from benchmarks.processes import (
    NotStarted,
    Running,
    choose_cores,
    open_files,
    raise_file_limit,
    resident_bytes,
    stop_on_signals,
    tcp_connections,
)
from benchmarks.rows import first_answer
from benchmarks.subjects import OURS, Place, Subjects, take_snapshot, upstream_process
from benchmarks.upstream import OPEN

REQUESTS, BROKEN = 100_000, 2_000
# Reference cycles that errors, streams and closed connections leave wait for the garbage collector, which looks at
# what it has not found at once a second time after about 20,000 requests of this mix: only then is the heap as large
# as it will be.
WARM_UP_REQUESTS, WARM_UP_BROKEN = 30_000, 600
VISITORS_PER_REQUEST = 0.1  # besides the requests: clients that come anew
STAYING = 500  # of them, at a time
POINT_REQUESTS = 10_000  # after so many, what is held is looked at
HANGS_SECONDS = 300
REST_SECONDS = 0.3  # before what is held is looked at: connections that were cut are gone then
SETTLE_SECONDS = 5  # for connections to be seen as closed
KEEPALIVE_SECONDS = 60  # after which an idle connection to the upstream is closed
GRACE_SECONDS = 15
PROGRESS_SECONDS = 10
END_SECONDS = 45  # more than the gateway waits for anything
_WORDS = {
    CUT: "broken stream, cut by the upstream",
    RESET: "broken stream, reset by the upstream",
    LEFT: "broken stream, left by the client",
}


@click.command()
@click.option(
    "--requests", type=click.IntRange(1), default=REQUESTS, show_default=True, help="How many, after warm-up."
)
@click.option("--broken", type=click.IntRange(0), default=BROKEN, show_default=True, help="How many broken streams.")
@click.option("--warm-up", type=click.IntRange(1), default=WARM_UP_REQUESTS, show_default=True, help="How many before.")
@click.option("--seed", type=int, default=1, show_default=True, help="Decides what comes when, and breaks where.")
@click.option("--wait/--no-wait", default=True, help="Wait until idle connections to the upstream have expired.")
@click.option("--json", "file", type=click.File("w", lazy=False), help="Write every figure there.")
def main(requests: int, broken: int, warm_up: int, seed: int, wait: bool, file: IO[str] | None) -> None:
    """Send one gateway process many requests, break many streams, and look at what it still holds afterwards.

    The exit code is 1 if it holds more than before, or an answer was not right.
    """
    if sys.platform != "linux":
        raise click.ClickException("what another process holds is read as Linux tells it; this is no Linux")
    stop_on_signals()
    rng = random.Random(seed)  # noqa: S311 - no secret
    with _place() as place:
        soak = Soak(place, rng)
        try:
            course = soak.run(warm_up, requests, broken, wait=wait)
        except NotStarted as error:
            raise click.ClickException(str(error)) from None
    about = described() | {"seed": str(seed)}
    found = findings(course)
    click.echo(counts_table(soak.counts) + "\n")
    click.echo(moments_table(course) + "\n\n" + findings_table(found))
    for fault in filter(None, course.faults):
        click.echo(f"FAULT: {fault}")
    if file is not None:
        file.write(json.dumps(document(about, soak.counts, course), indent=1) + "\n")
    sys.exit(not all(one.is_met for one in found))


@contextlib.contextmanager
def _place() -> Iterator[Place]:
    """A folder with this gateway's code, and the canned upstream; both gone in the end."""
    files, cores = raise_file_limit(), choose_cores()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        take_snapshot(folder)
        os.sched_setaffinity(0, {cores.load})
        yield Place(folder, stack.enter_context(upstream_process(folder, cores)), cores, files)


class Soak:
    """One run against one process.

    Args:
        place: where it lives.
        rng: decides what comes when, and breaks where.
    """

    def __init__(self, place: Place, rng: random.Random) -> None:
        self._place = place
        self._rng = rng
        self._gateway: Running
        self._counts: Counter[str] = Counter()
        self._faults: list[str] = []

    @property
    def counts(self) -> Mapping[str, int]:
        """How many of each kind it took, the warm-up's included."""
        return self._counts

    def run(self, warm_up: int, requests: int, broken: int, *, wait: bool) -> Course:
        """Start a gateway, load it, let go of it, end it.

        Args:
            warm_up: how many requests come before what it holds is looked at.
            requests: how many come then.
            broken: how many streams break meanwhile.
            wait: whether to wait until idle connections to the upstream have expired.

        Raises:
            NotStarted: it does not come to answer.
        """
        with Subjects(self._place) as subjects, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            self._gateway = subjects.spawn(OURS)
            try:
                self._gateway.wait_until_listening()
                first_answer(self._gateway.port)
                self._settle()
                started = self._holding("started")
                warm, *points = runner.run(self._loaded(warm_up, requests, broken))
                self._settle()
                if wait:
                    self._wait_until_expired()
                end = self._holding("at the end")
                open_streams = self._open_streams()
                ended = self._gateway.end(END_SECONDS)
            finally:
                self._gateway.stop()
        return Course(started, warm, points, end, open_streams, wait, ended, self._gateway.printed(), self._faults)

    async def _loaded(self, warm_up: int, requests: int, broken: int) -> list[Holding]:
        """What it holds after the warm-up, and then on the way."""
        port = self._gateway.port
        load, streams = MixedLoop(mix(), self._rng), BrokenStreams(port, self._rng)
        visitors = Visitors(port, STAYING)
        holdings = []
        try:
            await load.open(port, CONNECTIONS)
            await visitors.run(STAYING)
            await _loaded(warm_up, max(warm_up * WARM_UP_BROKEN // WARM_UP_REQUESTS, 1), load, streams, visitors)
            holdings.append(self._holding("after the warm-up"))
            points, done = max(requests // POINT_REQUESTS, 1), 0
            for number in range(1, points + 1):
                before, done = done, requests * number // points
                more = broken * number // points - broken * (number - 1) // points
                await _loaded(done - before, more, load, streams, visitors)
                holdings.append(self._holding(f"after {done:,}"))
        except (Fault, OSError, TimeoutError) as error:
            self._faults.append(str(error) or "it hangs")
            holdings.append(self._holding("when it failed"))
        finally:
            load.close()
            visitors.close()
            self._counts = load.sent + Counter({_WORDS[way]: count for way, count in streams.broken.items()})
            self._counts["client that comes anew"] = visitors.came
            self._faults += streams.faults
        return holdings

    def _holding(self, name: str) -> Holding:
        pid = self._gateway.pid
        resident, files, connections = resident_bytes(pid), open_files(pid), tcp_connections(pid)
        clients = sum(local == self._gateway.port for local, _ in connections)
        upstreams = sum(remote == self._place.upstream for _, remote in connections)
        _say(f"{name}: {resident / 1e6:.2f} MB, {files} files, {clients} clients, {upstreams} to the upstream")
        return Holding(name, resident, files, clients, upstreams)

    def _settle(self) -> None:
        """Give it the time to notice that all clients have left."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            locals_ = {local for local, _ in tcp_connections(self._gateway.pid)}
            if self._gateway.port not in locals_ and self._open_streams() == 0:
                return
            time.sleep(0.1)

    def _wait_until_expired(self) -> None:
        """Wait until its idle connections to the upstream have expired."""
        started = time.monotonic()
        told = started
        while (now := time.monotonic()) < started + KEEPALIVE_SECONDS + GRACE_SECONDS:
            left = sum(remote == self._place.upstream for _, remote in tcp_connections(self._gateway.pid))
            if left == 0:
                return
            if now >= told:
                _say(f"{left} connections to the upstream, {now - started:.0f} s after the last call")
                told = now + PROGRESS_SECONDS
            time.sleep(0.5)

    def _open_streams(self) -> int:
        """How many calls the upstream is still answering."""
        request = b"POST /openai/deployments/%b/ HTTP/1.1\r\ncontent-length: 0\r\n\r\n" % OPEN.encode()
        with socket.create_connection(("127.0.0.1", self._place.upstream), timeout=SETTLE_SECONDS) as sock:
            sock.sendall(request)
            return int(sock.recv(4096).rpartition(b"\r\n")[2])


async def _loaded(requests: int, broken: int, load: MixedLoop, streams: BrokenStreams, visitors: Visitors) -> None:
    """Send requests, streams breaking and clients coming meanwhile, and let all come to their end."""
    started = time.monotonic()
    meanwhile = asyncio.gather(streams.run(broken), visitors.run(round(requests * VISITORS_PER_REQUEST)))
    try:
        async with asyncio.timeout(HANGS_SECONDS):
            await load.run(requests)
            await meanwhile
    finally:
        meanwhile.cancel()
    _say(f"{requests:,} requests and {broken:,} broken streams in {time.monotonic() - started:.1f} s")
    await asyncio.sleep(REST_SECONDS)


def _say(progress: str) -> None:
    click.echo(progress, err=True)


if __name__ == "__main__":
    main()
