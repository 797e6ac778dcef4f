"""The canned upstream: answers as Azure OpenAI would, as cheaply as Python can. `python -m benchmarks.upstream PORT`.

It reads the scenario from the path (`/openai/deployments/json-1k/...`) or else from the body's `model`. The first two
chunks of a stream go at once, each other one an interval after the one before; the streams are spread evenly over the
interval, by one timer for all. `open` is answered with the number of streams that are open, as JSON.
"""

import asyncio
import re
import sys
from itertools import count

import uvloop

from benchmarks.answers import CUT, RESET, SILENT, Stream, answer
from benchmarks.load import reset

BACKLOG = 4096
TICK_SECONDS = 0.001
OPEN = "open"  # the scenario that asks how many streams are
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_ASKS_USAGE = b'"include_usage":true'
_SCENARIO = re.compile(rb'/deployments/([^/]+)/|"model": ?"([^"]+)"')


class Pacer:
    """Writes the chunks of paced streams: each stream has one millisecond of its interval for its own."""

    def __init__(self) -> None:
        self._slots: dict[int, list[list[Answering]]] = {}
        self._turn = count()
        self._tick = 0
        self._running = False

    def add(self, stream: "Answering", interval_ms: int) -> None:
        """Write the next chunk of a stream each so many milliseconds, until it has no more."""
        slots = self._slots.setdefault(interval_ms, [[] for _ in range(interval_ms)])
        slots[next(self._turn) % interval_ms].append(stream)
        if not self._running:
            self._running = True
            self._tick = self._now()
            self._wait()

    @property
    def open(self) -> int:
        """How many streams have not come to their end."""
        return sum(stream.is_open for slots in self._slots.values() for slot in slots for stream in slot)

    def _now(self) -> int:
        return round(asyncio.get_running_loop().time() / TICK_SECONDS)

    def _wait(self) -> None:
        asyncio.get_running_loop().call_later(TICK_SECONDS, self._catch_up)

    def _catch_up(self) -> None:
        # A timer may come late, but no tick is left out: the pace is kept on the whole.
        for tick in range(self._tick, now := self._now()):
            for interval_ms, slots in self._slots.items():
                if slot := slots[tick % interval_ms]:
                    slots[tick % interval_ms] = [stream for stream in slot if stream.write_next()]
        self._tick = now
        self._running = any(slot for slots in self._slots.values() for slot in slots)
        if self._running:
            self._wait()


class Answering:
    """A stream that is being written."""

    def __init__(self, transport: asyncio.Transport, stream: Stream) -> None:
        self._transport = transport
        self._chunks = iter(stream.chunks)
        self._breaks = stream.breaks
        transport.write(stream.head)

    @property
    def is_open(self) -> bool:
        """Whether whoever asked is still there."""
        return not self._transport.is_closing()

    def write_next(self) -> bool:
        """Write the next chunk; whether there may be another."""
        chunk = next(self._chunks, None)
        if self._transport.is_closing():
            return False
        if chunk is None:
            return self._break_off()
        self._transport.write(chunk)
        return True

    def _break_off(self) -> bool:
        """Do what comes after the last chunk; whether the stream stays as it is."""
        if self._breaks == CUT:
            self._transport.close()
        elif self._breaks == RESET:
            reset(self._transport)
        return self._breaks == SILENT


class Upstream(asyncio.Protocol):
    """A connection from a gateway: one request at a time, with a content-length."""

    def __init__(self, pacer: Pacer) -> None:
        self._pacer = pacer
        self._received = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A gateway has connected."""
        self._transport = transport  # type: ignore[assignment]  # a stream transport is what TCP gives

    def data_received(self, data: bytes) -> None:
        """Answer once a request is there as a whole."""
        data = self._received + data if self._received else data
        head_end = data.find(b"\r\n\r\n")
        length = _LENGTH.search(data, 0, head_end + 2) if head_end >= 0 else None
        if head_end >= 0 and length is None:
            self._transport.write(b"HTTP/1.1 411 Length Required\r\ncontent-length: 0\r\n\r\n")
        elif length is None or len(data) < head_end + 4 + int(length[1]):
            self._received = data
            return
        else:
            self._answer(data)
        self._received = b""

    def _answer(self, request: bytes) -> None:
        name = _SCENARIO.search(request)
        scenario = (name[1] or name[2]).decode() if name else ""
        found = answer(scenario, tells_usage=_ASKS_USAGE in request)
        if scenario == OPEN:
            body = b"%d" % self._pacer.open
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        elif found is None:
            self._transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
        elif isinstance(found, bytes):
            self._transport.write(found)
        else:
            stream = Answering(self._transport, found)
            stream.write_next()
            stream.write_next()
            self._pacer.add(stream, found.interval_ms)


async def serve(port: int) -> None:
    """Answer on a port of the loopback address until cancelled."""
    pacer = Pacer()
    server = await asyncio.get_running_loop().create_server(lambda: Upstream(pacer), "127.0.0.1", port, backlog=BACKLOG)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
