"""Streams that break: the upstream cuts or resets them, or the client leaves. None of them may look complete."""

import asyncio
import random
from collections import Counter

import msgspec

from benchmarks.answers import CUT, RESET, SILENT, events
from benchmarks.checks import Check, Fault, StreamCheck
from benchmarks.exchanges import prompted_stream_request, relayed_stream_request
from benchmarks.load import Connection, Cut

LEFT = "left"  # the client does not wait for the end
WAYS = (CUT, RESET, LEFT)
CONNECTIONS = 16
HANGS_SECONDS = 30
MAX_TOLD = 10  # faults; the others are only counted
DECISIVE = 2  # chunks: before the first with text the gateway has not begun to answer
FINISH = 2  # the last chunks, the first of which completes an answer
_CHUNKS, _INTERVAL_MS = 20, 2
_LONG_CHUNKS, _LONG_INTERVAL_MS = 40, 10  # so that whoever leaves does so before the end
_MAX_STAY_SECONDS = 0.1


class BrokenCheck(StreamCheck):
    """A stream that the upstream breaks off: whole events up to there, the error as the last one, no `[DONE]`.

    Args:
        due: the events that the upstream sends whole.
        all_due: whether each of them has to come. Where a connection is reset, some may be lost.
    """

    def __init__(self, due: tuple[bytes, ...], *, all_due: bool) -> None:
        super().__init__(due)
        self._all_due = all_due
        self._told = False

    def end(self) -> None:
        """The body has ended properly, as only a complete answer's may."""
        raise Fault("a stream that broke looks complete: its body has an end")

    def cut(self) -> None:
        """The connection was closed, as it should be.

        Raises:
            Fault: not all that was due had come, or the client was not told why it is cut.
        """
        if not self._told:
            raise Fault(f"the connection was cut after {self.seen} events without an error event")
        if self._pending:
            raise Fault("the connection was cut within an event")

    def _judge(self, event: bytes) -> None:
        if self._told or not _is_error(event):
            super()._judge(event)
            return
        if self._all_due and self.seen < len(self._events):
            raise Fault(f"the error came after {self.seen} of {len(self._events)} events")
        self._told = True
        self._events = self._events[: self.seen]  # nothing may follow


class BrokenStreams:
    """Runs streams that break, some at one time, each over a connection of its own.

    Args:
        port: the gateway's, on the loopback address.
        rng: decides where each breaks, and when a client leaves.
    """

    def __init__(self, port: int, rng: random.Random) -> None:
        self._port = port
        self._rng = rng
        self._number = 0
        self.broken: Counter[str] = Counter()  # by the way in which they broke
        self.faults: list[str] = []

    async def run(self, streams: int) -> None:
        """Run so many; what is not right is in `faults`."""
        last = self._number + streams
        await asyncio.gather(*(self._run_until(last) for _ in range(CONNECTIONS)))

    async def _run_until(self, last: int) -> None:
        while self._number < last:
            way, name = WAYS[self._number % len(WAYS)], f"broken stream {self._number}"
            self._number += 1
            try:
                await (self._leave(name) if way == LEFT else self._break(name, way))
            except (Fault, OSError, TimeoutError) as error:
                self._note(f"{name} ({way}): {error or 'it hangs'}")
            self.broken[way] += 1

    def _note(self, fault: str) -> None:
        self.faults.append(fault if len(self.faults) < MAX_TOLD else "")

    async def _break(self, name: str, way: str) -> None:
        sent = self._rng.randint(DECISIVE, _CHUNKS - FINISH)
        check = BrokenCheck(events(_CHUNKS)[:sent], all_due=way == CUT)
        stream = _Stream(self._request(f"{way}-{_INTERVAL_MS}ms-{_CHUNKS}-{sent}"), check)
        connection = Connection(stream, name)
        await connection.open(self._port)
        try:
            async with asyncio.timeout(HANGS_SECONDS):
                await stream.done
        finally:
            connection.close()

    async def _leave(self, name: str) -> None:
        """Ask for a stream and leave: at once, soon, or within it; half of them before its first byte."""
        rng = self._rng
        scenario = f"{_LONG_INTERVAL_MS}ms-{_LONG_CHUNKS}"
        scenario = rng.choice((f"stream-{scenario}", f"{SILENT}-{scenario}-0"))
        stream = _Stream(self._request(scenario), StreamCheck(events(_LONG_CHUNKS)))
        connection = Connection(stream, name)
        stay = rng.choice((0.0, rng.uniform(0, _MAX_STAY_SECONDS / 10), rng.uniform(0, _MAX_STAY_SECONDS)))
        resets = rng.random() < 0.5
        await connection.open(self._port)
        try:
            await asyncio.wait({stream.done}, timeout=stay)
            if stream.done.done():
                stream.done.result()
                raise Fault("it had ended before the client left")
        finally:
            if resets:
                connection.reset()
            else:
                connection.close()

    def _request(self, scenario: str) -> bytes:
        return self._rng.choice((relayed_stream_request, prompted_stream_request))(scenario)


class _Stream:
    """Owns the connection of one stream.

    Args:
        request: asks for it.
        check: looks at it.
    """

    def __init__(self, request: bytes, check: Check) -> None:
        self._request = request
        self._check = check
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def ready(self, connection: Connection) -> None:
        """The connection is made: ask."""
        connection.send(self._request, self._check)

    def progress(self, connection: Connection, chunks: int) -> None:
        """Chunks came."""

    def finished(self, connection: Connection) -> None:
        """The stream has ended properly."""
        self.done.set_result(None)

    def failed(self, fault: Fault) -> None:
        """It has ended otherwise, as a broken one should."""
        if self.done.done():
            return
        try:
            if not (isinstance(fault, Cut) and isinstance(self._check, BrokenCheck)):
                raise fault
            self._check.cut()
        except Fault as error:
            self.done.set_exception(error)
        else:
            self.done.set_result(None)


def _is_error(event: bytes) -> bool:
    try:
        return "error" in msgspec.json.decode(event.removeprefix(b"data:"), type=dict[str, object])
    except msgspec.MsgspecError:
        return False
