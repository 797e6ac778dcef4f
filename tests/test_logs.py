"""Access lines: their time, when they are written, and where they cannot be."""

import http.client
import io
import logging
import signal
import time
from contextlib import closing

import pytest

from chat_api.logs import MAX_HELD_CHARS, AccessLines, Clock, Unfinished
from tests.processes import CLI, process


def test_time_is_what_pythons_logging_would_say() -> None:
    """A line's time has the form that every other log line has, to the millisecond."""
    now = 1_800_000_000.25
    record = logging.makeLogRecord({"created": now, "msecs": 250.0})

    assert Clock().text(now) == logging.Formatter("%(asctime)s").format(record)


def test_time_goes_on() -> None:
    """The costly part of the time is kept for a second, and no longer."""
    clock = Clock()
    texts = [clock.text(now) for now in (1000.0, 1000.999, 1001.0, 1000.5)]

    assert texts == [
        time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(int(now))) + f",{milliseconds}"
        for now, milliseconds in ((1000, "000"), (1000, "999"), (1001, "000"), (1000, "500"))
    ]


def test_lines_are_written_together() -> None:
    """Lines wait until they are asked for, in their order."""
    stream = io.StringIO()
    lines = AccessLines(stream, lambda: 0.0)
    lines.write("one")
    lines.write("two")
    before = stream.getvalue()
    lines.flush()
    lines.flush()

    assert before == ""
    assert [line.rpartition(" ")[2] for line in stream.getvalue().splitlines()] == ["one", "two"]


def test_many_lines_do_not_wait() -> None:
    """No more than so much is held, whoever forgets to ask for it."""
    stream = io.StringIO()
    lines = AccessLines(stream)
    lines.write("x" * MAX_HELD_CHARS)
    before = stream.getvalue()
    lines.write("y")

    assert before == ""
    assert len(stream.getvalue().splitlines()) == 2


def test_letter_that_the_stream_does_not_have_is_escaped() -> None:
    """A model's name in another script ends nothing, whatever the locale."""
    raw = io.BytesIO()
    lines = AccessLines(io.TextIOWrapper(raw, encoding="ascii"))
    lines.write("\u6f22")
    lines.flush()

    assert raw.getvalue().endswith(b" \\u6f22\n")


def test_pipe_that_nobody_reads_ends_nothing() -> None:
    """Where lines cannot be written they are lost, and the server goes on."""

    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    lines = AccessLines(Broken())
    lines.write("x")
    lines.flush()


@pytest.mark.parametrize(
    ("message", "logged"),
    [("ASGI callable returned without completing response.", False), ("another", True)],
)
def test_remark_on_a_response_without_end_is_dropped(message: str, logged: bool) -> None:
    """uvicorn's remark on what is cut on purpose is not logged beside our own line."""
    assert Unfinished().filter(logging.makeLogRecord({"msg": message})) is logged


def test_lines_are_written_while_the_server_drains() -> None:
    """What ends while a long answer is waited for is in the log before that answer has ended."""
    with process(CLI, "serve", DRAIN_TIMEOUT="600") as server:
        port = int(server.wait_for(r"listens at http://127\.0\.0\.1:(\d+)")[1])
        with (
            closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as long,
            closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as short,
        ):
            long.request("POST", "/v1/gpt/chat", '{"prompt":"x","model":"fault-endless","stream":true}')
            endless = long.getresponse()
            short.request("POST", "/v1/gpt/chat", '{"prompt":"a b c d e","model":"fault-slow","stream":true}')
            slow = short.getresponse()
            slow.read1(1)
            server.signal(signal.SIGTERM)
            server.wait_for("Stopping: 2 answers")
            whole = slow.read()
            server.wait_for(r"POST /v1/gpt/chat 200 \d+\.\d ms \S+ fault-slow@", seconds=5)

            assert whole.endswith(b"data: [DONE]\n\n")
            assert endless.read1(100)
            assert "Stopped." not in server.output
            assert "fault-endless@" not in server.output
