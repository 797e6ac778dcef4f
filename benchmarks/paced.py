"""Many streams at one time, each slow: what a chunk costs, how late it comes, what a waiting stream takes of memory."""

import asyncio
import time
from array import array
from dataclasses import dataclass

from benchmarks.answers import FIRST_WITH_TEXT
from benchmarks.checks import Fault
from benchmarks.exchanges import Exchange
from benchmarks.figures import percentile
from benchmarks.load import Connection
from benchmarks.processes import cpu_ns, resident_bytes


@dataclass(frozen=True, slots=True)
class Moment:
    """What the clocks and counters say at one moment."""

    seconds: float
    chunks: int
    cpu_ns: int
    resident_bytes: int


class PacedStreams:
    """So many streams, opened at a steady rate, a connection each.

    What is measured is the window in which all of them run: from the first chunk with text of the stream that was
    last in that to the end of the stream that ends first.

    Args:
        exchange: the request that opens a stream, and what its answer has to be.
        streams: how many.
        per_second: how many are opened in a second.
        pid: the subject's process; None where there is none.
    """

    def __init__(self, exchange: Exchange, streams: int, per_second: float, pid: int | None) -> None:
        self._exchange = exchange
        self._streams = streams
        self._per_second = per_second
        self._pid = pid
        self._connections: list[Connection] = []
        self._chunks = 0
        self._ended = 0
        self._first_seconds = array("d")
        self._gap_seconds = array("d")
        self._opened: Moment | None = None
        self._closed: Moment | None = None
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, port: int) -> None:
        """Open all streams at a port of the loopback address and wait until all have ended.

        Raises:
            Fault: a stream was not right.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        for number in range(self._streams):
            await asyncio.sleep(max(started + number / self._per_second - loop.time(), 0))
            if self._done.done():
                break
            connection = Connection(self, f"stream {number}")
            await connection.open(port)
            self._connections.append(connection)
        await self._done

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            connection.close()

    def figures(self, resident_before: int) -> dict[str, float]:
        """What was measured; without what needs a window, if the first stream ended before the last had begun.

        Args:
            resident_before: the subject's resident memory, in bytes, when it had no streams.
        """
        figures = _percentiles("first_chunk", self._first_seconds)
        if self._opened is None or self._closed is None or not self._gap_seconds:
            return figures
        figures |= _percentiles("gap", self._gap_seconds)
        if self._pid is not None:
            cpu = self._closed.cpu_ns - self._opened.cpu_ns
            figures["cpu_us_per_chunk"] = cpu / 1000 / (self._closed.chunks - self._opened.chunks)
            figures["cpu_percent"] = cpu / 1e7 / (self._closed.seconds - self._opened.seconds)
            resident = self._closed.resident_bytes - resident_before
            figures["resident_kb_per_stream"] = resident / 1000 / self._streams
        return figures

    def ready(self, connection: Connection) -> None:
        """The connection is made: ask for a stream."""
        connection.sent_at = time.perf_counter()
        connection.send(self._exchange.request, self._exchange.new_check())

    def progress(self, connection: Connection, chunks: int) -> None:
        """A read brought so many chunks of a stream."""
        now = time.perf_counter()
        self._chunks += chunks
        before, connection.chunks = connection.chunks, connection.chunks + chunks
        if before <= FIRST_WITH_TEXT < connection.chunks:
            self._first_seconds.append(now - connection.sent_at)
            if len(self._first_seconds) == self._streams and not self._ended:
                self._opened = self._moment(now)
        elif self._opened is not None and self._closed is None:
            self._gap_seconds.append(now - connection.last_at)
            # What comes with it in the same read waited for nothing more.
            self._gap_seconds.extend([0.0] * (chunks - 1))
        connection.last_at = now

    def finished(self, connection: Connection) -> None:
        """A stream has ended."""
        if self._opened is not None and self._closed is None:
            self._closed = self._moment(time.perf_counter())
        self._ended += 1
        if self._ended == self._streams and not self._done.done():
            self._done.set_result(None)

    def failed(self, fault: Fault) -> None:
        """A stream was not right: that is the end of the run."""
        if not self._done.done():
            self._done.set_exception(fault)

    def _moment(self, now: float) -> Moment:
        cpu, resident = (cpu_ns(self._pid), resident_bytes(self._pid)) if self._pid is not None else (0, 0)
        return Moment(now, self._chunks, cpu, resident)


def _percentiles(name: str, seconds: "array[float]") -> dict[str, float]:
    ordered = sorted(seconds)
    return {f"{name}_p{percent}_ms": percentile(ordered, percent) * 1000 for percent in (50, 99)}
