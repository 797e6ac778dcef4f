import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.answers import DONE, Stream, answer, completion, events, number_of
from benchmarks.checks import BodyCheck, Check, Fault, LearnedBody, StreamCheck
from benchmarks.exchanges import kept, limited, streamed, unlike, whole
from benchmarks.figures import Failure, Figures, Results, Spread, percentile, spread
from benchmarks.load import ClosedLoop
from benchmarks.measuring import measure_row
from benchmarks.paced import PacedStreams
from benchmarks.processes import Cores, NotStarted, cpu_ns, resident_bytes
from benchmarks.report import row_table, target_table
from benchmarks.rows import RequestRow, first_answer
from benchmarks.subjects import Place, Subjects
from benchmarks.targets import TARGETS, Verdict, judged
from benchmarks.upstream import Pacer, Upstream
from tests.processes import ROOT

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="CPU time is read as Linux tells it"),
    pytest.mark.alone,
]

EVENTS = events(8)  # the filter's word, chunks 1 to 5, the finish, [DONE]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
COMPLETION = completion(1)


def chunked(*parts: bytes) -> bytes:
    """Each part as an HTTP chunk."""
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)


def whole_answer(body: bytes, status: bytes = b"200 OK") -> bytes:
    """An answer with a content-length."""
    return b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


def without(place: int) -> tuple[bytes, ...]:
    """The events but for one."""
    return EVENTS[:place] + EVENTS[place + 1 :]


async def ask(
    sent: bytes,
    new_check: Callable[[], Check],
    *,
    close: bool = False,
    requests: int = 1,
    headers: frozenset[bytes] = frozenset(),
) -> None:
    """Ask a server that answers every request with the same bytes, over one connection."""

    class Canned(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(sent)
            if close:
                self.transport.close()

    server = await asyncio.get_running_loop().create_server(Canned, "127.0.0.1", 0)
    load = ClosedLoop(b"GET / HTTP/1.1\r\n\r\n", new_check, headers)
    async with server:
        try:
            await load.open(server.sockets[0].getsockname()[1], 1)
            async with asyncio.timeout(10):
                await load.run(requests)
        finally:
            load.close()
            await asyncio.sleep(0)


STREAM_FAULTS = [
    pytest.param(without(3), "chunk 4 came where chunk 3 was due", id="a chunk is missing"),
    pytest.param(
        (*EVENTS[:2], EVENTS[3], EVENTS[2], *EVENTS[4:]), "chunk 3 came where chunk 2 was due", id="chunks are swapped"
    ),
    pytest.param((*EVENTS[:3], *EVENTS[2:]), "chunk 2 came where chunk 3 was due", id="a chunk comes twice"),
    pytest.param(without(0), "chunk 1 came where chunk 0 was due", id="the filter's word is missing"),
    pytest.param(without(5), "the chunk with the finish reason came where chunk 5 was due", id="the last is missing"),
    pytest.param(without(6), r"\[DONE\] came where the chunk with the finish reason was due", id="no finish reason"),
    pytest.param(EVENTS[:-1], r"the stream ended where \[DONE\] was due", id="no [DONE]"),
    pytest.param(EVENTS[:4], "the stream ended where chunk 4 was due", id="it ends early"),
    pytest.param((*EVENTS, DONE), r"after the end came \[DONE\]", id="two [DONE]"),
    pytest.param((*EVENTS, EVENTS[2]), "after the end came chunk 2", id="a chunk after [DONE]"),
    pytest.param((*EVENTS[:3], b'data: {"error":{}}\n\n'), "error.* came where chunk 3 was due", id="an error event"),
    pytest.param((*EVENTS[:-1], DONE[:-1]), "ended within an event", id="the last event is open"),
]


@pytest.mark.parametrize(("sent", "told"), STREAM_FAULTS)
def test_fault_in_a_stream_is_told(sent: Sequence[bytes], told: str) -> None:
    """The load side says what came in place of what, and on which connection."""
    with pytest.raises(Fault, match=f"connection 0: .*{told}"):
        asyncio.run(ask(HEAD + chunked(*sent) + END, lambda: StreamCheck(EVENTS)))


def test_right_stream_passes_however_it_is_cut() -> None:
    """A stream is right in pieces of any size, with comments between its events, its JSON spaced otherwise."""
    spaced = b"data: " + json.dumps(json.loads(EVENTS[2][5:])).encode() + b"\n\n"
    body = b"".join([b": ping\n\n", *EVENTS[:2], spaced, *EVENTS[3:]])
    for size in (1, 7, 480, len(body)):
        check = StreamCheck(EVENTS)
        pieces = [body[start : start + size] for start in range(0, len(body), size)]
        assert sum(check.feed(piece) for piece in pieces) == len(EVENTS)
        check.end()


BROKEN_ANSWERS = [
    pytest.param(HEAD + chunked(*EVENTS), True, "cut after .* bytes of the body", id="no end of the body"),
    pytest.param(HEAD + chunked(*EVENTS[:3]), True, "cut after 1278 bytes of the body", id="cut within"),
    pytest.param(b"", True, "cut after 0 bytes of the body", id="closed without an answer"),
    pytest.param(b"What?\r\n\r\n", False, "the answer is no HTTP", id="no HTTP"),
    pytest.param(whole_answer(b"busy", b"503 Busy"), False, "the status is 503: b'busy'", id="an error"),
    pytest.param(
        (HEAD + chunked(*EVENTS) + END) * 2,
        False,
        "a second answer came to one request",
        id="two answers to one request",
    ),
]


@pytest.mark.parametrize(("sent", "close", "told"), BROKEN_ANSWERS)
def test_broken_answer_is_told(sent: bytes, close: bool, told: str) -> None:
    """An answer without its end, with another status, one too many, or none: each is a fault with its reason."""
    with pytest.raises(Fault, match=told):
        asyncio.run(ask(sent, lambda: StreamCheck(EVENTS), close=close))


def test_answers_after_the_first_are_checked_too() -> None:
    """Every request on a connection has its answer checked, and right ones pass."""
    asyncio.run(ask(HEAD + chunked(*EVENTS) + END, lambda: StreamCheck(EVENTS), requests=5))
    checks = iter([BodyCheck(b"one"), BodyCheck(b"two")])
    with pytest.raises(Fault, match="the body differs from byte 0 on"):
        asyncio.run(ask(whole_answer(b"one"), lambda: next(checks), requests=2))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        pytest.param(COMPLETION.replace(b'"total_tokens":18', b'"total_tokens":19'), "differs from byte", id="a digit"),
        pytest.param(COMPLETION[:-1], "ended after 1087 of 1088 bytes", id="too short"),
        pytest.param(COMPLETION + b" ", "differs from byte 1088 on: b' '", id="too long"),
        pytest.param(b"", "ended after 0 of 1088 bytes", id="nothing"),
    ],
)
def test_json_that_differs_is_told(body: bytes, told: str) -> None:
    """A relayed body has to be the upstream's, byte for byte."""
    with pytest.raises(Fault, match=told):
        asyncio.run(ask(whole_answer(body), lambda: BodyCheck(COMPLETION)))


def test_answer_that_tells_nothing_of_limits_is_told() -> None:
    """Where a caller has a key, every answer has to have all six headers, in whatever letters; a refusal is one."""
    due = limited(whole(1)).headers
    lines = [b"%b: 1\r\n" % name.title() for name in sorted(due)]
    right = whole_answer(b"one").replace(b"content-length", b"".join(lines) + b"content-length")

    asyncio.run(ask(right, lambda: BodyCheck(b"one"), requests=3, headers=due))
    assert len(due) == 6
    for line in lines:
        with pytest.raises(Fault, match=f"connection 0: the answer has no {line.lower()[:-5].decode()}"):
            asyncio.run(ask(right.replace(line, b""), lambda: BodyCheck(b"one"), headers=due))
    with pytest.raises(Fault, match="the status is 429: b'busy'"):
        asyncio.run(ask(whole_answer(b"busy", b"429 Busy"), lambda: BodyCheck(b"one"), headers=due))


def test_limited_exchange_presents_the_key() -> None:
    """The request of a caller with a key is the same, but for one header more."""
    plain, keyed = whole(1).request, limited(whole(1)).request

    assert keyed.replace(b"api-key: sk-chat-benchmark\r\n", b"") == plain != keyed


def test_answer_that_was_not_kept_is_told() -> None:
    """Where every answer is to be one that was kept, one that was not, or that says nothing of it, is a fault."""
    due = kept(whole(1)).headers
    hit = whole_answer(b"one").replace(b"content-length", b"X-Chat-API-Cache: hit\r\ncontent-length")

    asyncio.run(ask(hit, lambda: BodyCheck(b"one"), requests=3, headers=due))
    for other in (hit.replace(b": hit", b": miss"), whole_answer(b"one")):
        with pytest.raises(Fault, match="connection 0: the answer has no x-chat-api-cache: hit"):
            asyncio.run(ask(other, lambda: BodyCheck(b"one"), headers=due))


def test_no_request_is_like_another_where_none_may_share_an_answer() -> None:
    """Each request asks something else, in as many bytes, and the answer has to say that it was nobody else's."""
    exchange = unlike(whole(1))
    seen: list[bytes] = []

    class Noted(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            seen.append(data)
            self.transport.write(b"HTTP/1.1 200 OK\r\nx-chat-api-cache: bypass\r\ncontent-length: 0\r\n\r\n")

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Noted, "127.0.0.1", 0)
        load = ClosedLoop(exchange.request, lambda: BodyCheck(b""), exchange.headers, exchange.new_request)
        async with server, asyncio.timeout(10):
            await load.open(server.sockets[0].getsockname()[1], 2)
            await load.run(20)
            load.close()
            await asyncio.sleep(0)

    asyncio.run(run())
    assert len({*seen}) == len(seen) == 20
    assert {len(request) for request in seen} == {len(whole(1).request)}
    assert all(json.loads(request.partition(b"\r\n\r\n")[2])["model"] == "json-1k" for request in seen)


def test_first_answer_of_the_simple_endpoint_is_read_and_the_others_equal_it() -> None:
    """The first answer to a prompt holds `success`, the text and the completion; later ones are the same bytes."""
    content = json.loads(COMPLETION)
    text = content["choices"][0]["message"]["content"]
    right = json.dumps({"success": 1, "text": text, **content}).encode()
    asyncio.run(ask(whole_answer(right), LearnedBody(COMPLETION), requests=3))
    for wrong in (COMPLETION, right.replace(b'"success": 1', b'"success": 0'), b"Hello"):
        with pytest.raises(Fault, match=r"the answer does not hold|is no JSON"):
            asyncio.run(ask(whole_answer(wrong), LearnedBody(COMPLETION)))
    learned = LearnedBody(COMPLETION)
    learned.learn(right)
    with pytest.raises(Fault, match="differs"):
        asyncio.run(ask(whole_answer(right.replace(b": 1,", b":1,")), learned))
    with pytest.raises(Fault, match="two answers to the same prompt differ"):
        learned.learn(right + b" ")


async def from_upstream(run: Callable[[int], Any]) -> None:
    """Run something against the canned upstream, which listens on the port that it is given."""
    pacer = Pacer()
    server = await asyncio.get_running_loop().create_server(lambda: Upstream(pacer), "127.0.0.1", 0)
    async with server, asyncio.timeout(10):
        await run(server.sockets[0].getsockname()[1])


@pytest.mark.parametrize("exchange", [whole(1), whole(300), streamed(2, 12)], ids=["1k", "300k", "stream"])
def test_canned_upstream_answers_what_the_load_expects(exchange: Any) -> None:
    """The upstream's answers pass the load's checks, over several connections and requests."""

    async def run(port: int) -> None:
        load = ClosedLoop(exchange.request, exchange.new_check)
        await load.open(port, 4)
        await load.run(12)
        load.close()
        await asyncio.sleep(0)

    asyncio.run(from_upstream(run))


def test_upstream_tells_what_a_stream_took_if_it_is_asked() -> None:
    """Asked for it a stream has one event more, before its end, and says so in all others, as Azure's do."""
    told = events(8, tells_usage=True)
    plain, asked = answer("stream-2ms-8"), answer("stream-2ms-8", tells_usage=True)
    body = b'{"stream_options":{"include_usage":true},"model":"stream-1ms-8"}'
    request = b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)

    async def run(port: int) -> None:
        load = ClosedLoop(request, lambda: StreamCheck(told))
        await load.open(port, 1)
        await load.run(2)
        load.close()
        await asyncio.sleep(0)

    asyncio.run(from_upstream(run))
    assert [event.replace(b',"usage":null', b"") for event in told if b'"usage":{' not in event] == list(EVENTS)
    assert json.loads(told[-2][5:])["choices"] == []
    assert isinstance(plain, Stream)
    assert isinstance(asked, Stream)
    assert len(asked.chunks) == len(plain.chunks) + 1


def test_upstream_reads_the_scenario_from_the_path_first() -> None:
    """A gateway that makes Azure's URL of a model is answered as one that passes the body on."""
    request = b"POST /openai/deployments/json-1k/chat/completions?api-version=1 HTTP/1.1\r\nContent-Length: 18\r\n\r\n"

    async def run(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        writer.write(b'{"model":"json-2k"}'[:18])
        assert await reader.readexactly(len(bytes(answer("json-1k") or b""))) == answer("json-1k")  # type: ignore[arg-type]
        writer.close()

    asyncio.run(from_upstream(run))


def test_upstream_knows_no_other_scenario() -> None:
    """What is no scenario is none; a stream has a beginning and an end."""
    assert answer("gpt-4o") is None
    assert isinstance(answer("stream-50ms-4"), Stream)
    with pytest.raises(ValueError, match="at least 4 chunks"):
        answer("stream-50ms-3")
    assert [number_of(json.loads(event[5:])) for event in EVENTS[:-1]] == [None, 1, 2, 3, 4, 5, None]


def test_paced_streams_are_measured_while_all_run() -> None:
    """Gaps, CPU time and memory are of the window in which all streams run; the pace is the upstream's."""
    measured: dict[str, float] = {}

    async def run(port: int) -> None:
        streams = PacedStreams(streamed(20, 15), 10, 1000, os.getpid())
        await streams.run(port)
        measured.update(streams.figures(resident_bytes(os.getpid())))
        streams.close()

    asyncio.run(from_upstream(run))

    assert measured.keys() >= {"gap_p99_ms", "first_chunk_p50_ms", "cpu_us_per_chunk", "resident_kb_per_stream"}
    assert 10 < measured["gap_p50_ms"] < 30
    assert measured["cpu_us_per_chunk"] > 0


def test_streams_that_never_all_run_have_no_window() -> None:
    """Where the first stream ends before the last begins only the time to the first chunk is measured."""
    measured: dict[str, float] = {}

    async def run(port: int) -> None:
        streams = PacedStreams(streamed(1, 4), 3, 10, os.getpid())
        await streams.run(port)
        measured.update(streams.figures(0))
        streams.close()

    asyncio.run(from_upstream(run))

    assert measured.keys() == {"first_chunk_p50_ms", "first_chunk_p99_ms"}


def test_fault_in_a_paced_stream_is_told() -> None:
    """A stream that is not right ends the measurement, and the fault names the stream."""
    wrong = streamed(1, 6)

    async def run(port: int) -> None:
        exchange = type(wrong)(wrong.request, lambda: StreamCheck(events(7)))
        await PacedStreams(exchange, 1, 100, None).run(port)

    with pytest.raises(Fault, match="stream 0: the chunk with the finish reason came where chunk 4 was due"):
        asyncio.run(from_upstream(run))


def test_cpu_time_is_that_of_the_process() -> None:
    """The clock of a process goes on while it works, by about the time that it works."""
    before, deadline = cpu_ns(os.getpid()), time.process_time_ns() + 20_000_000
    while time.process_time_ns() < deadline:
        pass

    assert 20_000_000 <= cpu_ns(os.getpid()) - before < 2_000_000_000


RESULTS = Results(
    rounds=[
        {"ours": {"cpu_us_per_request": 60.0, "gap_p99_ms": 110.0}, "nginx": {"cpu_us_per_request": 20.0}},
        {
            "ours": {"cpu_us_per_request": 90.0, "gap_p99_ms": 130.0},
            "ours-limited": {"cpu_us_per_request": 97.0},
            "ours-coalescing": {"cpu_us_per_request": 101.0},
            "nginx": {"cpu_us_per_request": 15.0},
        },
        {"ours": {"cpu_us_per_request": 50.0}, "nginx": {"cpu_us_per_request": 10.0}, "direct": {"gap_p99_ms": 1.0}},
        {"nginx": {"cpu_us_per_request": 99.0}, "direct": {"gap_p99_ms": 100.0}},
    ]
)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(spread([]), None, id="no values"),
        pytest.param(spread([3.0]), Spread(3, 3, 3), id="one value"),
        pytest.param(spread([4.0, 1.0]), Spread(2.5, 1, 4), id="between two"),
        pytest.param(RESULTS.spread("ours", "cpu_us_per_request"), Spread(60, 50, 90), id="rounds that have it"),
        pytest.param(RESULTS.spread("plain", "cpu_us_per_request"), None, id="a subject that was not measured"),
        pytest.param(RESULTS.ratio("cpu_us_per_request", "ours", "nginx"), Spread(5, 3, 6), id="ratio by rounds"),
        pytest.param(RESULTS.ratio("cpu_us_per_request", "ours", "plain"), None, id="ratio to nothing"),
        pytest.param(RESULTS.added("gap_p99_ms", "ours", "direct"), None, id="no round has both"),
        pytest.param(
            RESULTS.added("cpu_us_per_request", "ours", "nginx"), Spread(40, 40, 75), id="difference by rounds"
        ),
    ],
)
def test_medians_and_ratios(found: Spread | None, expected: Spread | None) -> None:
    """Ratios and differences are taken round by round, and the median of them is told."""
    assert found == expected


@pytest.mark.parametrize(
    ("percent", "expected"),
    [(0, 1), (1, 1), (50, 3), (60, 3), (61, 4), (99, 5), (100, 5)],
    ids=lambda value: str(value),
)
def test_percentiles(percent: float, expected: float) -> None:
    """A percentile is the nearest rank, never a value between."""
    assert percentile([1, 2, 3, 4, 5], percent) == expected


def test_percentile_of_nothing() -> None:
    """There is no percentile of no values."""
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_targets_are_judged_by_the_median_ratio() -> None:
    """A target is met up to its limit; what was not measured is not met, what did not run is not judged."""
    verdicts = judged({"json-1k": RESULTS})

    assert [(verdict.target.unit, verdict.value, verdict.is_met) for verdict in verdicts] == [
        ("x nginx", 5.0, True),
        ("x plain", None, False),
        ("µs", 7.0, True),
        ("µs", 11.0, False),
        ("µs", None, False),
    ]
    assert not Verdict(TARGETS[0], 5.01).is_met
    assert "not measured" in target_table(verdicts)


def test_what_this_gateway_does_besides_is_told_beside_the_rest() -> None:
    """The table has the difference to this gateway with nothing besides, round by round; of nobody else's."""
    told = row_table("json-1k", "JSON", RESULTS, ["ours", "ours-limited", "ours-coalescing", "ours-logged", "nginx"])

    assert [line.split() for line in told.splitlines() if "added" in line] == [
        ["added", "to", "ours", "-", "7.00", "11.0", "-", "-", "-"]
    ]
    assert "added to ours" not in row_table("json-1k", "JSON", RESULTS, ["ours-limited", "nginx"])
    assert "added to ours" not in row_table("json-1k", "JSON", RESULTS, ["ours", "nginx"])


def test_kept_answers_are_judged_beside_starlette() -> None:
    """What a kept answer costs is a ratio to what one costs that Starlette gives by itself."""
    rounds: list[dict[str, Figures]] = [
        {"ours-cached": {"cpu_us_per_request": 26.0}, "starlette": {"cpu_us_per_request": 20.0}}
    ]
    (verdict,) = judged({"cache-hit": Results(rounds)})
    told = row_table("cache-hit", "kept", Results(rounds), ["ours-cached", "starlette"])

    assert verdict.value == 1.3
    assert verdict.is_met
    assert "ours-cached/starlette" in told
    assert "1.30" in told


def test_fault_of_ours_misses_its_target() -> None:
    """A measurement of 2,000 streams that failed is counted against the gateway; one of nginx is not."""
    faults = [Failure(1, "nginx", "cut"), Failure(2, "ours", "stream 7: cut")]
    verdicts = judged({"streams-2000": Results([{}], faults)})
    told = row_table("streams-2000", "many streams", Results([{}], faults), ["ours", "nginx"])

    assert [verdict.value for verdict in verdicts if verdict.target.text == "faults in streams"] == [1.0]
    assert not any(verdict.is_met for verdict in verdicts)
    assert "FAULT in round 2, ours: stream 7: cut" in told


def bench(*options: str, tmp_path: Path) -> subprocess.Popen[str]:
    """The command, with its temporary files in a folder of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks", *options],
        cwd=ROOT,
        env={
            **os.environ,
            "TMPDIR": str(tmp_path),
            "ENDPOINT": "http://127.0.0.1:1",
            "HTTP_PROXY": "http://127.0.0.1:1",
        },
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_quick_run_prints_tables_and_writes_json(tmp_path: Path) -> None:
    """A quick run measures this gateway and none at all, whatever the environment holds, and leaves nothing behind."""
    file = tmp_path / "figures.json"
    subjects = "ours,ours-limited,ours-coalescing,ours-logged,direct,ours-cached,starlette"
    options = ("--quick", "--rows", "json-1k,cache-hit,streams-500", "--subjects", subjects, "--json", str(file))
    with bench(*options, tmp_path=tmp_path) as running:
        output, progress = running.communicate(timeout=50)
    written = json.loads(file.read_text())

    assert running.returncode == 0, output + progress
    assert "CPU, µs a request" in output
    assert "  added to ours" in output
    assert re.search(r"CPU of a relayed chunk +streams-500", output)
    assert "streams-500: round 1 of 1, direct" in progress
    assert written["rows"].keys() == {"json-1k", "cache-hit", "streams-500"}
    assert not any(row["faults"] for row in written["rows"].values())
    figures = {**written["rows"]["json-1k"]["rounds"][0], **written["rows"]["cache-hit"]["rounds"][0]}
    assert figures.keys() == {*subjects.split(",")}
    assert all(one["cpu_us_per_request"] > 0 for name, one in figures.items() if name != "direct")
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_stops_what_it_started(tmp_path: Path, number: signal.Signals) -> None:
    """After Ctrl+C or SIGTERM no process and no temporary file is left."""
    with bench("--quick", "--rows", "streams-2000", "--subjects", "ours", tmp_path=tmp_path) as running:
        assert running.stderr is not None
        assert "round 1" in running.stderr.readline()
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        running.send_signal(number)
        running.communicate(timeout=20)

    assert running.returncode == 1
    assert children
    assert not [child for child in children if Path(f"/proc/{child}").exists()]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        pytest.param(["--rows", "json-2k"], 2, "'json-2k' is none of json-1k, json-300k, chat-json", id="no such row"),
        pytest.param(
            ["--rows", "start", "--subjects", "direct"], 1, "none of these rows can be measured", id="of none"
        ),
    ],
)
def test_what_cannot_be_measured_is_told(options: Sequence[str], code: int, told: str, tmp_path: Path) -> None:
    """A row that there is not is named, with those that there are; a table without a column is not begun."""
    with bench(*options, tmp_path=tmp_path) as running:
        _, error = running.communicate(timeout=20)

    assert running.returncode == code
    assert told in error


def test_subject_that_failed_is_told_and_not_measured_again() -> None:
    """A fault stands in the row's results, with its round and its subject; the other subjects go on."""

    class Failing(RequestRow):
        def measure(self, name: str, subjects: Subjects, run: Any) -> Figures:
            if name == "ours":
                raise Fault("connection 3: cut")
            return {"cpu_us_per_request": 1.0}

    place = Place(Path("/nonexistent"), 0, Cores(0, 0), 0)
    results = measure_row(Failing("json-1k", "", 1, {}), ["ours", "nginx"], 2, Subjects(place), asyncio.run)

    assert results.faults == [Failure(1, "ours", "connection 3: cut")]
    assert results.rounds == [{"nginx": {"cpu_us_per_request": 1.0}}] * 2


@pytest.mark.parametrize(("head", "told"), [(b"HTTP/1.1 503 No\r\n\r\n", "503"), (b"", "the first answer is b''")])
def test_start_ends_with_a_right_answer(head: bytes, told: str) -> None:
    """A process that answers anything but 200, or nothing, has not started."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(head)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(NotStarted, match=told):
            first_answer(listener.getsockname()[1])
        thread.join()
