"""The log's files: found, read line by line, merged by their times; what cannot be read is told and skipped."""

import gzip
import os
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat_api import log_reading
from chat_api.conversation_forms import FORMS, Writing, form_of
from chat_api.conversations import Record
from chat_api.log_reading import Entry, LogReader, Problem, find_files, merged
from tests.conversation_logs import answer_line, asked_line, line, record


def read(*paths: Path) -> tuple[list[str], list[Problem]]:
    """The request ids of the records in files, and what could not be read."""
    problems: list[Problem] = []
    records = LogReader(problems.append, UTC).records(paths)
    return [made.text("request_id") for made in records], problems


def test_which_files_are_a_log(tmp_path: Path) -> None:
    """Of a folder its own and openai-forward's files, packed or not; what is named is taken as it is."""
    for name in ("chat-2026-11-21.jsonl", "chat-2026-11-21.4711.1.jsonl", "chat-2026-11-20.jsonl.gz", "chat.log"):
        (tmp_path / name).touch()
    for name in ("chat.2023-10-17_15-27-12_345678.log", "usage.json", "chat-2026-11-21.jsonl.tmp", "other.jsonl"):
        (tmp_path / name).touch()
    in_it = find_files([], tmp_path)

    assert [path.name for path in in_it] == [
        "chat-2026-11-20.jsonl.gz",
        "chat-2026-11-21.4711.1.jsonl",
        "chat-2026-11-21.jsonl",
        "chat.2023-10-17_15-27-12_345678.log",
        "chat.log",
    ]
    other = tmp_path / "other.jsonl"
    assert find_files([other, tmp_path, other], tmp_path / "none") == [other, *in_it]
    assert find_files([tmp_path / "none"], tmp_path) == [tmp_path / "none"]
    assert find_files([], tmp_path / "none") == []


def test_files_of_long_ago_are_not_read(tmp_path: Path) -> None:
    """What was last written before the time in question has nothing of it; a file that is named is read."""
    old = tmp_path / "chat-2020-01-01.jsonl"
    old.touch()
    os.utime(old, (1_000, 1_000))

    assert find_files([], tmp_path, since=1_001) == []
    assert find_files([], tmp_path, since=1_000) == find_files([old], tmp_path, since=1_001) == [old]


def test_records_of_several_files_are_in_the_order_of_their_times(tmp_path: Path) -> None:
    """Those of several processes are merged; packed files are read as others are."""
    (tmp_path / "b.jsonl").write_text(line(1) + line(4) + "\n" + line(5))
    (tmp_path / "a.jsonl").write_text(line(2) + line(3) + line(6).rstrip("\n"))
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(line(0).encode()))
    (tmp_path / "empty.jsonl").touch()

    assert read(*sorted(tmp_path.iterdir())) == ([f"req-{number}" for number in range(7)], [])


def test_a_file_is_opened_when_its_time_has_come() -> None:
    """Days that follow one another are read one after the other; of equal times the first goes first."""
    opened = []

    def source(name: str, *times: float) -> Iterator[Entry]:
        opened.append(name)
        for at in times:
            yield at, record(request_id=name)

    found = merged([(5, source("late", 5, 6)), (1, source("early", 1, 5)), (0, source("none"))])

    assert next(found)[0] == 1
    assert opened == ["none", "early"]
    assert [(at, item.text("request_id")) for at, item in found if isinstance(item, Record)] == [
        (5, "early"),
        (5, "late"),
        (6, "late"),
    ]


def test_halves_are_joined_over_files(tmp_path: Path) -> None:
    """An answer may stand in the file that came after a rotation."""
    (tmp_path / "chat.log").write_text(asked_line("b", second=2) + answer_line("a") + answer_line("b"))
    (tmp_path / "chat.2023.log").write_text(asked_line("a", second=1))

    assert read(tmp_path / "chat.log", tmp_path / "chat.2023.log") == (["a", "b"], [])


@pytest.mark.parametrize(
    ("content", "number"),
    [
        pytest.param(line(1)[:40].encode(), 2, id="torn"),
        pytest.param(b'{"a":1}\n', 2, id="another-object"),
        pytest.param(b"\x00" * 100 + b"\n", 2, id="zeros"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, content: bytes, number: int) -> None:
    """With its file and line; the rest is read."""
    path = tmp_path / "chat.jsonl"
    path.write_bytes(line(0).encode() + content)
    found, problems = read(path)

    assert found == ["req-0"]
    assert [(problem.path, problem.number) for problem in problems] == [(path, number)]


def test_a_record_after_a_torn_one_in_its_line_is_read(tmp_path: Path) -> None:
    """A process that was killed ended no line; the next one's record is there all the same."""
    path = tmp_path / "chat.jsonl"
    torn = line(0, messages=[{"role": "user", "content": '{"time":"'}])
    path.write_text(torn[:-9] + line(1) + line(2))
    found, problems = read(path)

    assert found == ["req-1", "req-2"]
    assert [problem.number for problem in problems] == [1]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """One that is not there, one that is not packed, one that is packed and torn: what there is of them is read."""
    (tmp_path / "no.jsonl.gz").write_text(line(0))
    packed = gzip.compress((line(1) + os.urandom(5_000).hex()).encode())
    (tmp_path / "torn.jsonl.gz").write_bytes(packed[:-1_000])
    found, problems = read(tmp_path / "none.jsonl", tmp_path / "no.jsonl.gz", tmp_path / "torn.jsonl.gz")

    assert found == ["req-1"]
    assert [(problem.path.name, problem.number) for problem in problems] == [
        ("none.jsonl", 0),
        ("no.jsonl.gz", 1),
        ("torn.jsonl.gz", 2),
    ]
    assert problems[0].reason == "No such file or directory"


def test_a_line_without_an_end_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line beyond the bound is skipped as a whole, and the next is read."""
    monkeypatch.setattr(log_reading, "MAX_LINE_BYTES", 1_000)
    monkeypatch.setattr(log_reading, "PIECE_BYTES", 64)
    path = tmp_path / "chat.jsonl"
    path.write_text(line(0) + line(1, key="x" * 1_000) + line(2))
    found, problems = read(path)

    assert found == ["req-0", "req-2"]
    assert [problem[1:] for problem in problems] == [(2, "it is longer than 1000 bytes")]


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    """Looking for its first time would lose what is read for it."""
    reading, writing = os.pipe()
    with open(writing, "w") as out:
        out.write(line(0) + line(1))
    try:
        assert read(Path(f"/dev/fd/{reading}")) == (["req-0", "req-1"], [])
    finally:
        os.close(reading)


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_torn_anywhere(tmp_path: Path, data: st.DataObject) -> None:
    """However a log is cut off and gone on with, all whole lines are read, and what is left of others is told."""
    lines = [line(number, key=data.draw(st.text(max_size=5))) for number in range(4)]
    cut = data.draw(st.integers(0, len(lines) - 1))
    text = lines[cut].encode()
    end = data.draw(st.integers(1, len(text) - 2))
    torn = text[:end] + data.draw(st.sampled_from([b"\n", b""]))
    content = b"".join(torn if number == cut else lines[number].encode() for number in range(4))
    (tmp_path / "chat.jsonl").write_bytes(content)
    found, problems = read(tmp_path / "chat.jsonl")

    assert found == [f"req-{number}" for number in range(4) if number != cut]
    assert len(problems) == 1


def megabytes_of(action: Callable[[], object]) -> float:
    """How much memory something takes at most."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("form", "count", "words"), [("jsonl", 10_000, 100), *((form, 250, 10_000) for form in FORMS)])
def test_memory_is_bounded(tmp_path: Path, form: str, count: int, words: int) -> None:
    """Some ten megabytes of log are in memory one record at a time, whatever they become."""
    path = tmp_path / "chat.jsonl"
    with path.open("w") as out:
        for number in range(count):
            out.write(line(number % 3_000, messages=[{"role": "user", "content": "word " * words}]))
    writing, reader = Writing(form_of(form)), LogReader(print)

    peak = megabytes_of(lambda: sum(map(len, writing.pieces(reader.records([path])))))

    assert reader.read == count
    assert path.stat().st_size > 10_000_000
    assert peak < 3


def test_memory_is_bounded_where_requests_have_no_answers(tmp_path: Path) -> None:
    """openai-forward's log of calls that all failed: they wait for their answers up to a bound."""
    path = tmp_path / "chat.log"
    path.write_text("".join(asked_line(str(number), "word " * 25_000) for number in range(200)))
    reader = LogReader(print, UTC)

    assert megabytes_of(lambda: sum(1 for _ in reader.records([path]))) < 12
    assert reader.read == 200
    assert path.stat().st_size > 25_000_000
