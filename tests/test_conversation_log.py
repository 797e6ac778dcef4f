"""The conversation log: what is noted is written, and a disk that is full, slow or gone costs lines, never a call."""

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from chat_api.conversation_log import ConversationLog
from chat_api.exchanges import Exchange
from chat_api.redaction import parse_rule
from tests.conversations import AT, an_exchange, logging_into, until
from tests.processes import ROOT

CHAT_BODY = an_exchange().request
ANSWER = {"choices": [{"index": 0, "message": {"content": "the sea"}, "finish_reason": "stop"}]}


def numbered(number: int, **more: Any) -> Exchange:
    """An exchange that can be told from others."""
    return an_exchange(**{"answer": ANSWER, "request_id": str(number), **more})


def records(folder: Path) -> list[dict[str, Any]]:
    """What is in the folder's files."""
    lines = b"".join(path.read_bytes() for path in sorted(folder.glob("chat-*.jsonl")))
    return [json.loads(line) for line in lines.splitlines()]


def ids(folder: Path) -> list[int]:
    """The numbers of the exchanges in the folder's files."""
    return sorted(int(record["request_id"]) for record in records(folder))


def test_what_is_noted_is_written(tmp_path: Path) -> None:
    """Each exchange is a line of the day's file, in their order, and nothing waits when the log is closed."""
    with logging_into(tmp_path / "log") as log:
        for number in range(500):
            log.note(numbered(number))
        until(lambda: not log.state()["queued"])
        log.note(numbered(500))

    assert [record["request_id"] for record in records(tmp_path / "log")] == [str(number) for number in range(501)]
    assert [path.name for path in (tmp_path / "log").iterdir()] == ["chat-2026-11-21.jsonl"]
    assert log.state() == {"queued": 0, "queued_bytes": 0, "written": 501, "dropped": 0, "failed": 0, "failing": False}


def test_event_loop_is_never_blocked(tmp_path: Path) -> None:
    """Noting and closing do nothing in the event loop that waits for anything."""

    async def serve() -> ConversationLog:
        log = ConversationLog(tmp_path, clock=lambda: AT)
        log.start()
        for number in range(20):
            log.note(numbered(number))
            await asyncio.sleep(0)
        await log.aclose()
        return log

    assert asyncio.run(serve()).state()["written"] == 20
    assert ids(tmp_path) == list(range(20))


def test_log_that_was_never_started_is_closed(tmp_path: Path) -> None:
    """A start that fails elsewhere may close it."""
    log = ConversationLog(tmp_path / "log")
    asyncio.run(log.aclose())

    assert not (tmp_path / "log").exists()


def test_stream_is_noted_in_its_pieces(tmp_path: Path) -> None:
    """A stream's pieces count with what they take, and are one text in the record."""
    pieces = [b'data: {"choices":[{"delta":{"content":"%d"}}]}\n\n' % number for number in range(10)]
    with logging_into(tmp_path) as log:
        log.note(numbered(0, answer=pieces, is_stream=True))
        assert log.state()["queued_bytes"] in (0, 1024 + sum(map(len, [CHAT_BODY, *pieces])) + 64 * 10)

    assert records(tmp_path)[0]["answer"]["choices"][0]["message"]["content"] == "0123456789"


def test_days_and_sizes_have_files(tmp_path: Path) -> None:
    """The log goes on in another file when one is full, and on another day."""
    now = AT
    with logging_into(tmp_path, max_file_bytes=1000, clock=lambda: now) as log:
        for number in range(4):
            log.note(numbered(number))
            until(lambda: not log.state()["queued"])
        now += 86400
        log.note(numbered(4))

    assert len(list(tmp_path.glob("chat-2026-11-21*"))) > 1
    assert [path.name for path in tmp_path.glob("chat-2026-11-22*")] == ["chat-2026-11-22.jsonl"]
    assert ids(tmp_path) == [0, 1, 2, 3, 4]


class Disk:
    """A disk that can be full, and one that can stand still."""

    def __init__(self) -> None:
        self.is_full = False
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.calls = 0

    def __call__(self, descriptor: int, content: bytes) -> int:
        self.calls += 1
        assert self.goes_on.wait(30)
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.write(descriptor, content)


def test_full_disk_costs_lines_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Records wait until there is room, as many as fit; what comes beyond is dropped, and both are told once."""
    disk = Disk()
    disk.is_full = True
    with logging_into(tmp_path, write=disk, max_queue_records=5) as log:
        log.note(numbered(0))
        until(lambda: disk.calls > 3)
        for number in range(1, 10):
            log.note(numbered(number))
        state = log.state()
        assert (state["queued"], state["dropped"], state["failing"]) == (6, 4, True)
        disk.is_full = False
        until(lambda: not log.state()["queued"])
        log.note(numbered(10))

    assert ids(tmp_path) == [0, 1, 2, 3, 4, 5, 10]
    assert (log.state()["written"], log.state()["failing"]) == (7, False)
    messages = [record.message for record in caplog.records if record.name == "chat_api.conversation_log"]
    assert messages == [
        f"conversations cannot be logged in {tmp_path} (LOG_DIR): No space left on device; they wait",
        "conversations are logged again; 4 were dropped so far",
        "4 conversations were not logged",
    ]


def test_disk_that_stays_full_holds_no_stop_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """When the log is closed what still cannot be written is given up, and counted."""
    disk = Disk()
    disk.is_full = True
    with logging_into(tmp_path, write=disk, retry_seconds=60) as log:
        log.note(numbered(0))
        until(lambda: disk.calls)
        log.note(numbered(1))

    assert (log.state()["failed"], log.state()["written"], log.state()["queued"]) == (2, 0, 0)
    assert "2 conversations were not logged" in caplog.text


def test_slow_disk_costs_lines_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """While a write stands still calls go on, memory is bounded, and it is told once that lines are dropped."""
    disk = Disk()
    disk.goes_on.clear()
    with logging_into(tmp_path, write=disk, max_queue_bytes=10_000) as log:
        log.note(numbered(0))
        until(lambda: disk.calls)
        for number in range(1, 100):
            log.note(numbered(number))
            assert int(str(log.state()["queued_bytes"])) <= 10_000
        kept = int(str(log.state()["queued"]))
        assert (kept + int(str(log.state()["dropped"])), log.state()["failing"]) == (100, False)
        disk.goes_on.set()
        until(lambda: "keeps up again" in caplog.text)

    assert ids(tmp_path) == list(range(kept))
    assert caplog.text.count("does not keep up") == 1


def test_disk_that_stands_still_holds_no_stop_up(tmp_path: Path) -> None:
    """Closing waits so long and no longer; what waited is counted as not written."""
    disk = Disk()
    disk.goes_on.clear()
    log = ConversationLog(tmp_path, write=disk)
    log.start()
    log.note(numbered(0))
    until(lambda: disk.calls)
    asyncio.run(log.aclose(0.01))
    assert log.state()["written"] == 0
    disk.goes_on.set()
    asyncio.run(log.aclose())
    assert log.state()["written"] == 1


def test_record_that_fits_nowhere_is_dropped(tmp_path: Path) -> None:
    """An exchange larger than the whole queue is one line less."""
    with logging_into(tmp_path, max_queue_bytes=5000) as log:
        log.note(numbered(0, request=b"x" * 5000))
        log.note(numbered(1))

    assert (ids(tmp_path), log.state()["dropped"]) == ([1], 1)


def test_fault_of_ours_costs_its_record_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What a record cannot be made of is counted and logged, without its words, and the others are written."""
    with logging_into(tmp_path) as log:
        log.note(numbered(0, at="no time"))
        log.note(numbered(1))

    assert (ids(tmp_path), log.state()["failed"], log.state()["queued"]) == ([1], 1, 0)
    assert "a conversation could not be made a record" in caplog.text
    assert "the sea" not in caplog.text


def test_fault_in_writing_ends_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a write raises, it is told, and tried again."""
    faults = [ValueError("odd")]

    def write(descriptor: int, content: bytes) -> int:
        if faults:
            raise faults.pop()
        return os.write(descriptor, content)

    with logging_into(tmp_path, write=write) as log:
        log.note(numbered(0))
        until(lambda: log.state()["written"])

    assert ids(tmp_path) == [0]
    assert "cannot be logged" in caplog.text
    assert "ValueError: odd" in caplog.text


def test_folder_that_others_can_write_into_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is used all the same."""
    tmp_path.chmod(0o777)
    with logging_into(tmp_path) as log:
        log.note(numbered(0))

    assert f"others than its owner may write into {tmp_path} (LOG_DIR), where conversations are logged" in caplog.text
    assert ids(tmp_path) == [0]


def test_redaction_reaches_every_text(tmp_path: Path) -> None:
    """Words of the request and the answer are redacted before they are written."""
    rules = [parse_rule("(the) sea", r"\1 lake"), parse_rule("(?i)be KIND")]
    with logging_into(tmp_path, redact=rules) as log:
        log.note(numbered(0))

    (record,) = records(tmp_path)
    assert record["answer"]["choices"][0]["message"]["content"] == "the lake"
    assert record["messages"][0]["content"] == "***."


def test_expression_without_end_holds_nothing_up(tmp_path: Path) -> None:
    """While an expression takes for ever the event loop goes on; that record is bare, and the next one is whole."""
    evil = [{"role": "user", "content": "a" * 60 + "!"}]
    with logging_into(tmp_path, redact=[parse_rule("(a+)+b")], redact_seconds=0.1) as log:
        log.note(numbered(0, request=json.dumps({"messages": evil}).encode()))
        log.note(numbered(1))
        until(lambda: log.state()["written"] == 2)

    bare, whole = records(tmp_path)
    assert (bare["key"], "messages" in bare, bare["parameters"]) == ("alice", False, {"unreadable_bytes": 108})
    assert whole["answer"]["choices"][0]["message"]["content"] == "the sea"


KILLED = """
import sys, itertools, time
from pathlib import Path
from chat_api.conversation_log import ConversationLog
from tests.conversations import an_exchange, AT
log = ConversationLog(Path(sys.argv[1]), clock=lambda: AT)
log.start()
numbers = itertools.count()
print("on", flush=True)
while True:
    for number in itertools.islice(numbers, 50):
        log.note(an_exchange({"choices": [{"text": "x" * 2000}]}, request_id=str(number)))
    time.sleep(0.001)
"""


def is_larger(path: Path, size: int) -> bool:
    """Whether a file is there, and larger than so many bytes."""
    return path.exists() and path.stat().st_size > size


def test_kill_tears_the_last_line_at_most(tmp_path: Path) -> None:
    """A process that is killed while it writes, time and again, leaves whole lines but for its last one."""
    path = tmp_path / "chat-2026-11-21.jsonl"
    for _ in range(6):
        before = path.stat().st_size if path.exists() else 0
        process = subprocess.Popen([sys.executable, "-c", KILLED, tmp_path], stdout=subprocess.PIPE, cwd=ROOT)
        assert process.stdout is not None
        process.stdout.readline()
        until(partial(is_larger, path, before + 200_000))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()

    lines = path.read_bytes().split(b"\n")
    torn = [line for line in lines if not line.endswith(b"}") or not line.startswith(b'{"time"')]
    assert len(torn) <= 6  # the end of each run, the last of which may be nothing
    assert len([json.loads(line) for line in lines if line not in torn]) > 300
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
