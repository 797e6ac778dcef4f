"""The soak run: small, and its judgement; and the same question asked of a gateway in this process."""

import asyncio
import contextlib
import json
import os
import random
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.answers import CUT, DONE, RESET, SILENT, Stream, answer, events
from benchmarks.breaking import BrokenCheck, BrokenStreams
from benchmarks.checks import Check, Fault, RefusalCheck
from benchmarks.exchanges import refused
from benchmarks.leaks import Course, Holding, findings, findings_table, moments_table
from benchmarks.load import ClosedLoop, Cut
from benchmarks.mixed import MixedLoop, Part
from benchmarks.processes import Ended, open_files, tcp_connections
from chat_api import app
from chat_api.settings import Settings
from chat_api.upstream import UpstreamTransport
from tests.processes import ROOT
from tests.servers import Gateway, eventually, gateway

pytestmark = pytest.mark.alone  # it looks at what happens when

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="what a process holds is read as Linux tells it")

MB = 1_000_000
STARTED = Holding("started", 40 * MB, 15, 0, 1)
WARM = Holding("after the warm-up", 50 * MB, 110, 48, 48)
POINTS = (Holding("after 100", 52 * MB, 110, 48, 48), Holding("after 200", 51 * MB, 105, 48, 43))
END = Holding("at the end", 50 * MB, 14, 0, 0)
ENDED = Ended(0, 0.2, "Stopped.\n")
GOOD = Course(STARTED, WARM, POINTS, END, 0, True, ENDED, "2026-11-21 14:42:01,123 127.0.0.1 GET / 200\nStopped.\n")


def not_met(course: Course) -> list[str]:
    """The texts of what is not as it should be."""
    return [one.text for one in findings(course) if not one.is_met]


def test_run_that_leaves_nothing_passes() -> None:
    """Right figures meet everything, with the wait and without; the tables show all of them."""
    idle = replace(END, files=20, upstreams=6)

    assert not_met(GOOD) == []
    assert not_met(replace(GOOD, waited=False, end=idle)) == []
    assert "after 200" in moments_table(GOOD)
    assert "+4.0 %" in findings_table(findings(GOOD))
    assert "NO" not in findings_table(findings(GOOD))


BAD = [
    pytest.param({"faults": ["connection 3: cut"]}, "answers that were not right", id="a wrong answer"),
    pytest.param({"printed": "Traceback (most recent call last):\n"}, "errors in its log", id="a traceback"),
    pytest.param({"printed": "Task exception was never retrieved\n"}, "errors in its log", id="a forgotten task"),
    pytest.param({"printed": "12:00 ERROR chat_api: no\n"}, "errors in its log", id="an error"),
    pytest.param(
        {"points": (replace(POINTS[0], resident_bytes=53 * MB), POINTS[1])},
        "memory, most on the way",
        id="memory that grew meanwhile",
    ),
    pytest.param({"end": replace(END, resident_bytes=53 * MB)}, "memory at the end", id="memory that grew"),
    pytest.param({"end": replace(END, files=15, clients=1)}, "connections of clients at the end", id="a client"),
    pytest.param({"open_streams": 1}, "calls open at the upstream at the end", id="a call that goes on"),
    pytest.param({"end": replace(END, files=15)}, "other file descriptors at the end", id="a file"),
    pytest.param({"end": replace(END, files=13)}, "other file descriptors at the end", id="a file too few"),
    pytest.param(
        {"end": replace(END, files=15, upstreams=1)}, "connections to the upstream at the end", id="an upstream"
    ),
    pytest.param({"ended": Ended(1, 0.2, "")}, "exit code after SIGTERM", id="another exit code"),
    pytest.param({"ended": Ended(None, 45, "")}, "exit code after SIGTERM", id="it had to be killed"),
    pytest.param({"ended": Ended(0, 30, "")}, "time from SIGTERM to its end", id="a slow end"),
    pytest.param(
        {"ended": Ended(0, 0.5, "Stopping: One answer in flight may take")},
        'waits for what is "in flight"',
        id="a task",
    ),
]


@pytest.mark.parametrize(("change", "text"), BAD)
def test_whatever_is_left_is_found(change: dict[str, Any], text: str) -> None:
    """Each bad figure fails the run, under its name."""
    course = replace(GOOD, **change)

    assert text in not_met(course)
    assert "NO" in findings_table(findings(course))


EVENTS = events(8)
RELAYED_ERROR = b'data: {"error":{"message":"it broke","code":"answer_cut_short"}}\n\n'
SIMPLE_ERROR = b'data: {"success":0,"message":"it broke","error":{"message":"it broke"}}\n\n'


@pytest.mark.parametrize("error", [RELAYED_ERROR, SIMPLE_ERROR], ids=["relayed", "simple"])
def test_stream_that_broke_as_it_should_passes(error: bytes) -> None:
    """Whole events, the error, a cut; where the connection was reset, some may be lost, but in order."""
    for sent, all_due in ((EVENTS[:4], True), (EVENTS[:2], False), ((), False)):
        check = BrokenCheck(EVENTS[:4], all_due=all_due)
        for event in (*sent, b": ping\n\n", error):
            check.feed(event)
        check.cut()


COMPLETE_LOOKING = [
    pytest.param((*EVENTS[:4], RELAYED_ERROR, DONE), r"after the end came \[DONE\]", id="[DONE] after the error"),
    pytest.param((*EVENTS[:4], DONE), r"after the end came \[DONE\]", id="[DONE] without the error"),
    pytest.param((*EVENTS[:3], RELAYED_ERROR), "the error came after 3 of 4 events", id="an event was lost"),
    pytest.param((*EVENTS[:4], RELAYED_ERROR, EVENTS[4]), "after the end came chunk 4", id="an event after the error"),
    pytest.param((*EVENTS[:4], RELAYED_ERROR, RELAYED_ERROR), "after the end came", id="two errors"),
    pytest.param(EVENTS[:5], "after the end came chunk 4", id="more than was sent"),
    pytest.param(EVENTS[:4], "cut after 4 events without an error event", id="no error"),
    pytest.param((*EVENTS[:4], RELAYED_ERROR, b"data: {"), "cut within an event", id="half an event"),
]


@pytest.mark.parametrize(("sent", "told"), COMPLETE_LOOKING)
def test_broken_stream_that_looks_otherwise_is_told(sent: tuple[bytes, ...], told: str) -> None:
    """What is missing, too much, or makes a broken stream look complete is a fault."""
    check = BrokenCheck(EVENTS[:4], all_due=True)

    def run() -> None:
        for event in sent:
            check.feed(event)
        check.cut()

    with pytest.raises(Fault, match=told):
        run()


def test_broken_stream_with_an_end_is_told() -> None:
    """The end of the body is what only complete answers have."""
    with pytest.raises(Fault, match="looks complete: its body has an end"):
        BrokenCheck(EVENTS[:4], all_due=True).end()


def test_scenarios_that_break() -> None:
    """A stream is cut within a chunk, reset or silent after one; silent from the start it has no head."""
    whole = answer("stream-2ms-8")
    assert isinstance(whole, Stream)
    half = whole.chunks[3][: len(whole.chunks[3]) // 2]

    assert answer("cut-2ms-8-3") == Stream(whole.head, (*whole.chunks[:3], half), 2, CUT)
    assert answer("reset-2ms-8-3") == Stream(whole.head, whole.chunks[:3], 2, RESET)
    assert answer("silent-2ms-8-1") == Stream(whole.head, whole.chunks[:1], 2, SILENT)
    assert answer("silent-2ms-8-0") == Stream(b"", (), 2, SILENT)
    assert answer("cut-2ms-8") is None
    assert answer("stream-2ms-8-3") is None


async def to(serve: Callable[[asyncio.Transport], None], run: Callable[[int], Any]) -> None:
    """Run something against a server that does this whenever something comes."""

    class Canned(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            serve(self.transport)

    server = await asyncio.get_running_loop().create_server(Canned, "127.0.0.1", 0)
    async with server, asyncio.timeout(10):
        await run(server.sockets[0].getsockname()[1])
        await asyncio.sleep(0)


def test_gateway_that_completes_broken_streams_is_told() -> None:
    """Each such stream is a fault with its number; a client that finds it complete before it left, too."""
    body = b"".join(events(20))
    whole = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)

    async def run(port: int) -> None:
        streams = BrokenStreams(port, random.Random(3))
        await streams.run(9)
        assert streams.broken == {"cut": 3, "reset": 3, "left": 3}
        assert len([fault for fault in streams.faults if "broken stream" in fault]) >= 6
        assert any(r"(cut)" in fault and "after the end came" in fault for fault in streams.faults)

    asyncio.run(to(lambda transport: transport.write(whole), run))


def test_cut_connection_is_told_apart() -> None:
    """A connection that is closed within an answer is a fault of its own kind."""

    async def run(port: int) -> None:
        load = ClosedLoop(b"GET / HTTP/1.1\r\n\r\n", lambda: BrokenCheck(EVENTS[:4], all_due=True))
        await load.open(port, 1)
        with pytest.raises(Cut, match="connection 0: the connection was cut after 0 bytes"):
            await load.run(1)

    asyncio.run(to(lambda transport: transport.close(), run))


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        pytest.param(b"404 No", "unknown_path", None, id="as it should be"),
        pytest.param(b"200 OK", "unknown_path", "the status is 200", id="it was answered"),
        pytest.param(b"404 No", "invalid_json", "no error with the code unknown_path", id="another code"),
        pytest.param(b"404 No", None, "no error with the code unknown_path", id="no error"),
    ],
)
def test_refusals_are_checked(status: bytes, code: str | None, told: str | None) -> None:
    """A request that has to be refused has a status and a code; anything else is a fault."""
    body = json.dumps({"error": {"code": code}} if code else ["no"]).encode()
    sent = b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)

    async def run(port: int) -> None:
        part = Part(1, refused("/nowhere", b"{}", 404, "unknown_path"))
        load = MixedLoop({"refused": part}, random.Random(1))
        await load.open(port, 2)
        try:
            await load.run(6)
        finally:
            load.close()
        assert load.sent == {"refused": 6}

    running = to(lambda transport: transport.write(sent), run)
    if told is None:
        asyncio.run(running)
    else:
        with pytest.raises(Fault, match=told):
            asyncio.run(running)


def test_refusal_that_is_no_json_is_told() -> None:
    """A page in place of an error is a fault."""
    check: Check = RefusalCheck("unknown_path")
    check.feed(b"<html>")
    with pytest.raises(Fault, match="no error with the code"):
        check.end()


@LINUX
def test_what_a_process_holds_is_counted() -> None:
    """Connections count by their ports, at both ends, until they are closed; what listens is no connection."""
    before = open_files(os.getpid())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client, listener.accept()[0]:
            own = client.getsockname()[1]
            found = [pair for pair in tcp_connections(os.getpid()) if port in pair]
            during = open_files(os.getpid())
        left = [pair for pair in tcp_connections(os.getpid()) if port in pair]

    assert sorted(found) == sorted([(own, port), (port, own)])
    assert during == before + 3
    assert left == []


@LINUX
def test_small_run_passes(tmp_path: Path) -> None:
    """A few hundred requests and 30 broken streams leave nothing, and the figures are written."""
    file, folder = tmp_path / "figures.json", tmp_path / "tmp"
    folder.mkdir()
    options = ("--warm-up", "3000", "--requests", "400", "--broken", "30", "--no-wait", "--json", str(file))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.soak", *options],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder), "ENDPOINT": "http://127.0.0.1:1"},
        text=True,
        capture_output=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads(file.read_text())

    assert "after 400" in done.stdout
    assert "400 requests and 30 broken streams" in done.stderr
    assert written["counts"]["broken stream, left by the client"] >= 10
    assert all(one["is_met"] for one in written["findings"])
    assert written["faults"] == []
    assert list(folder.iterdir()) == []


# What a call of the in-process run asks for: of these clients some wait for the end, of those they leave before it.
BREAKS = ("fault-cut", "fault-truncated", "fault-reset", "fault-closed", "fault-no-done", "fault-late-error-event")
REFUSED = ("fault-error-event", "fault-400", "fault-503", "fault-not-json", "no-such-model")
STAYS = ("gpt-4o", "gpt-4o", "gpt-4o", *BREAKS, *REFUSED)
LEAVES = ("gpt-4o", "fault-hang", "fault-silent", "fault-stall", "fault-endless", "fault-cut", "fault-slow")
CALLS = 200


class WatchedTransport(UpstreamTransport):
    """The gateway's transport, which the test can look into."""

    made: "list[WatchedTransport]" = []  # noqa: RUF012 - the test empties it

    def __init__(self, settings: Settings, **options: Any) -> None:
        super().__init__(settings, **options)
        self.loop = asyncio.get_running_loop()
        self.made.append(self)

    @property
    def in_use(self) -> int:
        """How many connections are not idle, and how many are waited for."""
        pools = self._direct._pools.values()
        return sum(pool._count - len(pool._idle) + len(pool._waiters) for pool in pools)

    def tasks(self) -> Counter[str]:
        """The tasks of the server's loop, by what they run; connections that clients keep have none."""

        async def named() -> Counter[str]:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            return Counter(getattr(task.get_coro(), "__qualname__", "") for task in tasks)

        return asyncio.run_coroutine_threadsafe(named(), self.loop).result(5)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    """A gateway whose transport can be looked into."""
    WatchedTransport.made.clear()
    monkeypatch.setattr(app, "UpstreamTransport", WatchedTransport)
    with gateway() as running:
        yield running


@dataclass(frozen=True, slots=True)
class Called:
    """One call, and what came of it until its end, or until its client left."""

    model: str
    stream: bool
    leaves: bool
    text: bool
    received: bytes

    @property
    def is_complete(self) -> bool:
        """Whether the body has its end, and a stream of events its `[DONE]`."""
        head, _, body = self.received.partition(b"\r\n\r\n")
        ended = body.endswith(b"0\r\n\r\n") if b"transfer-encoding: chunked" in head else bool(body)
        return ended and (not self.stream or self.text or b"data: [DONE]\n\n" in body)


def call(port: int, seed: int) -> Called:
    """One call, of a random kind, whose client may leave: at once, soon, or when some of the answer has come."""
    rng = random.Random(seed)
    leaves, stream, is_simple = rng.random() < 0.4, rng.random() < 0.7, rng.random() < 0.5
    model, text = rng.choice(LEAVES if leaves else STAYS), is_simple and rng.random() < 0.3
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}], "model": model, "stream": stream}
    if is_simple:
        body |= {"prompt": body.pop("messages")[0]["content"]}
    content = json.dumps(body).encode()
    head = f"POST /v1/{'gpt/chat' if is_simple else 'chat/completions'} HTTP/1.1\r\nhost: 127.0.0.1\r\n"
    head += f"accept: {'text/plain' if text else '*/*'}\r\nconnection: close\r\ncontent-length: {len(content)}\r\n\r\n"
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(head.encode() + content)
        if leaves:
            sock.settimeout(rng.choice((0.001, rng.uniform(0.001, 0.1))))
        with contextlib.suppress(TimeoutError) if leaves else contextlib.nullcontext():
            while (not leaves or rng.random() < 0.7) and (piece := sock.recv(65536)):
                received += piece
    return Called(model, stream, leaves, text, received)


def test_mixed_calls_leave_nothing_in_the_process(server: Gateway) -> None:
    """After 200 calls that end well, badly, or without their client: no call, no connection in use, no task more."""
    (transport,) = WatchedTransport.made
    for stream in (True, False):
        assert server.chat(prompt="Hello", stream=stream).status_code == 200
    assert eventually(lambda: server.emulator.open_calls == 0 and transport.in_use == 0)
    before = transport.tasks()

    with ThreadPoolExecutor(16) as pool:
        called = list(pool.map(lambda seed: call(server.port, seed), range(CALLS)))

    assert eventually(lambda: server.emulator.open_calls == 0, seconds=5)
    assert eventually(lambda: transport.in_use == 0, seconds=5)
    assert eventually(lambda: transport.tasks() == before, seconds=5), (transport.tasks(), before)
    stayed = [one for one in called if not one.leaves]
    assert {one.model for one in stayed} == set(STAYS)
    assert len(called) - len(stayed) > CALLS // 4
    for one in stayed:
        good = one.model == "gpt-4o"
        assert one.received.startswith(b"HTTP/1.1 200 " if good else b"HTTP/1.1 ")
        assert one.is_complete or not good
        assert b"[DONE]" not in one.received or good
        assert not (
            one.model in BREAKS and one.stream and one.received.startswith(b"HTTP/1.1 200 ") and one.is_complete
        )
