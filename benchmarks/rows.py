"""The rows of the table: what each measures, of whom, and how much of it."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks.exchanges import Exchange, any_prompt, kept, limited, prompted, streamed, unlike, whole
from benchmarks.figures import Figures
from benchmarks.load import ClosedLoop
from benchmarks.paced import PacedStreams
from benchmarks.processes import READY_SECONDS, NotStarted, cpu_ns, resident_bytes
from benchmarks.subjects import (
    ALONE,
    CACHED,
    COALESCING,
    DIRECT,
    EMULATED,
    LIMITED,
    LOGGED,
    NGINX,
    OURS,
    PLAIN,
    WITHOUT_CACHE,
    Subject,
    Subjects,
)

CONNECTIONS = 32
HANGS_SECONDS = 120  # after which a measurement has failed
SETTLE_SECONDS = 1
WRITTEN_SECONDS = 0.3  # in which what is written down besides has been written, and counts
RELAYS = (*WITHOUT_CACHE, NGINX, PLAIN)
EVERYONE = (OURS, NGINX, PLAIN, DIRECT)

Run = Callable[[Coroutine[Any, Any, Figures]], Figures]


class Row(Protocol):
    """One row of the table."""

    @property
    def name(self) -> str:
        """What the command line calls it."""
        ...

    @property
    def title(self) -> str:
        """What it is, for people."""
        ...

    @property
    def subjects(self) -> tuple[str, ...]:
        """Of whom it can be measured."""
        ...

    def measure(self, name: str, subjects: Subjects, run: Run) -> Figures:
        """Measure a subject once.

        Args:
            name: the subject.
            subjects: starts it.
            run: runs what is asynchronous.

        Raises:
            Fault: an answer was not right.
            NotStarted: the subject does not come to answer.
            TimeoutError: it hangs.
        """
        ...


@dataclass(frozen=True, slots=True)
class RequestRow:
    """A fixed number of requests, each connection sending its next when it has its answer.

    One comes before them: with its answer a gateway that keeps answers has it.

    Args:
        name: what the command line calls it.
        title: what it is, for people.
        requests: how many a round takes; a plain gateway, which is slow, a quarter. A tenth comes before, unmeasured.
        exchanges: for each subject the request, and what its answers have to be.
        chunks: how many chunks an answer has, if it is a stream.
    """

    name: str
    title: str
    requests: int
    exchanges: Mapping[str, Callable[[], Exchange]]
    chunks: int = 0

    @property
    def subjects(self) -> tuple[str, ...]:
        """Of whom it can be measured."""
        return tuple(self.exchanges)

    def measure(self, name: str, subjects: Subjects, run: Run) -> Figures:
        """Measure a subject once; its process serves all rounds."""
        requests = self.requests // 4 if name == PLAIN else self.requests
        return run(self._measure(subjects.shared(name), self.exchanges[name](), requests))

    async def _measure(self, subject: Subject, exchange: Exchange, requests: int) -> Figures:
        first = ClosedLoop(exchange.request, exchange.new_check)
        loop = ClosedLoop(exchange.request, exchange.new_check, exchange.headers, exchange.new_request)
        try:
            async with asyncio.timeout(HANGS_SECONDS):
                await first.open(subject.port, 1)
                await first.run(1)
                await loop.open(subject.port, CONNECTIONS)
                await loop.run(max(requests // 10, CONNECTIONS))
                await _written(subject)
                cpu, started = _cpu_ns(subject), time.perf_counter()
                await loop.run(requests)
                seconds = time.perf_counter() - started
                await _written(subject)
                cpu = _cpu_ns(subject) - cpu
        finally:
            first.close()
            loop.close()
        # How many streams end in a second is the upstream's doing.
        figures = {} if self.chunks else {"requests_per_s": requests / seconds}
        if subject.pid is not None:
            figures["cpu_us_per_request"] = cpu / requests / 1000
            if self.chunks:
                figures["cpu_us_per_chunk"] = figures["cpu_us_per_request"] / self.chunks
        return figures


@dataclass(frozen=True, slots=True)
class PacedRow:
    """Many slow streams at one time; each measurement has a fresh process.

    Args:
        name: what the command line calls it.
        title: what it is, for people.
        streams: how many.
        interval_ms: milliseconds between two chunks.
        chunks: how many chunks a stream has.
        opening_seconds: how long it takes to open them, one by one.
        subjects: of whom it can be measured.
    """

    name: str
    title: str
    streams: int
    interval_ms: int
    chunks: int
    opening_seconds: float
    subjects: tuple[str, ...]

    def measure(self, name: str, subjects: Subjects, run: Run) -> Figures:
        """Measure a subject once."""
        with subjects.fresh(name) as subject:
            return run(self._measure(subject))

    async def _measure(self, subject: Subject) -> Figures:
        async with asyncio.timeout(HANGS_SECONDS):
            await _warm_up(subject)
            resident = resident_bytes(subject.pid) if subject.pid is not None else 0
            exchange, per_second = streamed(self.interval_ms, self.chunks), self.streams / self.opening_seconds
            streams = PacedStreams(exchange, self.streams, per_second, subject.pid)
            try:
                await streams.run(subject.port)
            finally:
                streams.close()
        return streams.figures(resident)


@dataclass(frozen=True, slots=True)
class StartRow:
    """From the start of the process to the first answer, with an upstream and with the built-in emulator."""

    name: str
    title: str
    subjects: tuple[str, ...] = (OURS,)

    def measure(self, name: str, subjects: Subjects, run: Run) -> Figures:
        """Measure this gateway once."""
        seconds = {figure: self._seconds(subject, subjects) for figure, subject in _STARTS.items()}
        return {figure: value * 1000 for figure, value in seconds.items()}

    def _seconds(self, name: str, subjects: Subjects) -> float:
        started = time.perf_counter()
        process = subjects.spawn(name)
        try:
            first_answer(process.port)
            return time.perf_counter() - started
        finally:
            process.stop()


@dataclass(frozen=True, slots=True)
class IdleRow:
    """The resident memory of a process that has answered once and has nothing to do."""

    name: str
    title: str
    subjects: tuple[str, ...] = (OURS,)

    def measure(self, name: str, subjects: Subjects, run: Run) -> Figures:
        """Measure this gateway once."""
        with subjects.fresh(name) as subject:
            first_answer(subject.port)
            time.sleep(SETTLE_SECONDS)
            return {"resident_mb": resident_bytes(subject.pid or 0) / 1e6}


_STARTS = {"start_ms": OURS, "start_emulator_ms": EMULATED}


def first_answer(port: int) -> None:
    """Send a prompt as soon as somebody listens, and wait for its answer.

    Raises:
        NotStarted: there is none, or it is no 200.
    """
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)) as sock:
            sock.settimeout(READY_SECONDS)
            sock.sendall(any_prompt())
            head = sock.recv(65536)
            if not head.startswith(b"HTTP/1.1 200 "):
                raise NotStarted(f"the first answer is {head[:300]!r}")
            return
        time.sleep(0.001)
    raise NotStarted(f"nobody listens on port {port} after {READY_SECONDS} s")


async def _warm_up(subject: Subject) -> None:
    for exchange in (whole(1), streamed(2, 20)):
        loop = ClosedLoop(exchange.request, exchange.new_check)
        try:
            await loop.open(subject.port, CONNECTIONS)
            await loop.run(CONNECTIONS * 8)
        finally:
            loop.close()


async def _written(subject: Subject) -> None:
    if subject.name == LOGGED:
        await asyncio.sleep(WRITTEN_SECONDS)


def _cpu_ns(subject: Subject) -> int:
    return 0 if subject.pid is None else cpu_ns(subject.pid)


def all_rows(*, quick: bool) -> dict[str, Row]:
    """Every row by its name, in the order of the table.

    Args:
        quick: whether they measure little, to see that they work.
    """
    small, large, fast = (lambda: whole(1)), (lambda: whole(300)), (lambda: streamed(2, 100))
    chat = _asked((OURS, LIMITED), lambda: prompted(1)) | _asked((NGINX, PLAIN), small)
    divisor = 20 if quick else 1
    many, some, few = 4000 // divisor, 500 // divisor, 200 // divisor
    rows: list[Row] = [
        RequestRow("json-1k", "relayed JSON of 1 kB", many, _asked((*RELAYS, DIRECT), small)),
        RequestRow("json-300k", "relayed JSON of 300 kB", some, _asked(EVERYONE, large)),
        RequestRow("chat-json", "a prompt to /v1/gpt/chat; the others relay JSON of 1 kB", many, chat),
        RequestRow("cache-hit", "JSON of 1 kB that was kept", many, _asked(ALONE, small)),
        RequestRow("stream-fast", "streams of 100 chunks, one each 2 ms", few, _asked(RELAYS, fast), 100),
    ]
    if quick:
        rows += [_paced(50, 50, 20, 0.2, EVERYONE, "streams-500"), _paced(50, 100, 12, 0.2, EVERYONE, "streams-2000")]
    else:
        # A plain gateway cannot open 2,000 streams in time: the first have ended before.
        rows += [_paced(500, 50, 80, 2, EVERYONE), _paced(2000, 100, 50, 2, (OURS, NGINX, DIRECT))]
    rows.append(StartRow("start", "from the start of the process to its first answer"))
    rows.append(IdleRow("idle", "memory of a process with nothing to do"))
    return {row.name: row for row in rows}


def _asked(subjects: Iterable[str], exchange: Callable[[], Exchange]) -> dict[str, Callable[[], Exchange]]:
    """The same request to each, with a client key to whom that says anything; nobody is to share an answer."""
    return {name: _as_asked(exchange, _CHANGED.get(name)) for name in subjects}


def _as_asked(
    exchange: Callable[[], Exchange], change: Callable[[Exchange], Exchange] | None
) -> Callable[[], Exchange]:
    return exchange if change is None else lambda: change(exchange())


_CHANGED = {LIMITED: limited, COALESCING: unlike, CACHED: kept}


def _paced(
    streams: int, interval_ms: int, chunks: int, opening_seconds: float, subjects: tuple[str, ...], name: str = ""
) -> Row:
    title = f"{streams:,} streams at one time, a chunk each {interval_ms} ms"
    return PacedRow(name or f"streams-{streams}", title, streams, interval_ms, chunks, opening_seconds, subjects)
