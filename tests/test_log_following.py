"""A log as it grows: rotation, new days, files that are replaced, emptied or removed; no line twice, none lost."""

import gzip
import os
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path

import pytest

from chat_api import log_following
from chat_api.log_following import POLL_SECONDS, Follower
from chat_api.log_reading import LogFile, LogReader, Problem, find_files
from tests.conversation_logs import line


class Log:
    """A follower of a folder, and what it has to tell."""

    def __init__(self, folder: Path, *named: Path) -> None:
        self.problems: list[Problem] = []
        self.follower = Follower(LogReader(self.problems.append, UTC), lambda: find_files(named, folder))

    def begin(self) -> list[str]:
        """The request ids that there are."""
        return [made.text("request_id") for made in self.follower.begin()]

    def news(self) -> list[str]:
        """The request ids that came since."""
        return [made.text("request_id") for made in self.follower.news()]


@pytest.fixture
def day(tmp_path: Path) -> Path:
    """Today's file, with a record in it."""
    path = tmp_path / "chat-2026-11-21.jsonl"
    path.write_text(line(0))
    return path


@pytest.fixture
def log(tmp_path: Path, day: Path) -> Iterator[Log]:
    """A follower that has begun."""
    log = Log(tmp_path)
    assert log.begin() == ["req-0"]
    yield log
    log.follower.close()


def append(path: Path, text: str) -> None:
    """Write more to a file."""
    with path.open("a") as out:
        out.write(text)


def test_what_is_appended(log: Log, day: Path) -> None:
    """Whole lines come once; the beginning of one waits for its end."""
    assert log.news() == []
    append(day, line(1) + line(2)[:30])
    assert log.news() == ["req-1"]
    append(day, line(2)[30:])
    assert log.news() == ["req-2"]
    assert (log.news(), log.problems) == ([], [])


def test_a_new_day_and_another_process(log: Log, day: Path) -> None:
    """New files are read from their beginning; what came at the same time is in the order of its times."""
    append(day, line(1) + line(4))
    append(day.with_name("chat-2026-11-22.jsonl"), line(3))
    append(day.with_name("chat-2026-11-21.77.jsonl"), line(2) + line(5))

    assert log.news() == ["req-1", "req-2", "req-3", "req-4", "req-5"]


def test_rotation_by_renaming(log: Log, day: Path) -> None:
    """The file that has another name is the one that was read; what was written to it last is not lost."""
    append(day, line(1))
    day.rename(day.with_name("chat-2026-11-21.1.jsonl"))
    append(day, line(2))

    assert log.news() == ["req-1", "req-2"]
    assert log.news() == []


def test_a_file_that_is_packed(log: Log, day: Path) -> None:
    """Its rest is read before it goes; the packed one is not read again."""
    append(day, line(1))
    day.with_name(f"{day.name}.gz").write_bytes(gzip.compress(day.read_bytes()))
    day.unlink()

    assert log.news() == ["req-1"]
    assert log.news() == []


def test_a_file_that_is_removed_in_the_middle_of_a_line(log: Log, day: Path) -> None:
    """That line has no end any more, which is told."""
    append(day, line(1)[:20])
    assert log.news() == []
    day.unlink()

    assert log.news() == []
    assert [problem.number for problem in log.problems] == [2]


def test_a_file_that_is_emptied(log: Log, day: Path) -> None:
    """It is read from its beginning again."""
    append(day, line(1) + line(2)[:9])
    assert log.news() == ["req-1"]
    day.write_text(line(3))

    assert log.news() == ["req-3"]
    assert log.problems == []


def test_a_line_that_is_taken_back(log: Log, day: Path) -> None:
    """What a full disk took of a line is cut off again: nothing comes twice, and the line comes when it is whole."""
    append(day, line(1) + line(2)[:40])
    assert log.news() == ["req-1"]
    os.truncate(day, day.stat().st_size - 40)
    assert log.news() == []
    append(day, line(2))

    assert (log.news(), log.problems) == (["req-2"], [])


def test_a_named_file_that_comes_later_and_is_replaced(tmp_path: Path) -> None:
    """As `tail -F` has it: the name counts."""
    path = tmp_path / "other.jsonl"
    log = Log(tmp_path, path)
    assert log.begin() == []
    path.write_text(line(0))
    assert log.news() == ["req-0"]
    (tmp_path / "new").write_text(line(1))
    (tmp_path / "new").replace(path)
    assert log.news() == ["req-1"]
    log.follower.close()


def test_a_file_that_is_replaced_while_it_is_opened(tmp_path: Path, day: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not taken for the one that it was: what is in it comes once."""
    new = tmp_path / "new"
    new.write_text(line(1))

    def replaced(path: Path) -> LogFile:
        if new.exists():
            new.replace(path)
        return LogFile(path)

    monkeypatch.setattr(log_following, "LogFile", replaced)
    log = Log(tmp_path, day)
    found = [*log.begin(), *log.news(), *log.news()]
    log.follower.close()

    assert found == ["req-1"]


def test_a_torn_line_is_told_once(log: Log, day: Path) -> None:
    """It does not stop what follows."""
    append(day, line(1)[:30] + "\n" + line(2))

    assert log.news() == ["req-2"]
    assert [(problem.path, problem.number) for problem in log.problems] == [(day, 2)]


def test_old_files_are_read_but_not_watched(day: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many stay open, those that were written last; one that is too old never comes again. Packed ones do."""
    monkeypatch.setattr(log_following, "MAX_OPEN", 1)
    day.with_name("chat-2026-11-20.jsonl.gz").write_bytes(gzip.compress(line(2).encode()))
    newer, newest = day.with_name("chat-2026-11-22.jsonl"), day.with_name("chat-2026-11-23.jsonl")
    newer.write_text(line(1))
    os.utime(day, (1, 1))
    log = Log(day.parent)

    assert log.begin() == ["req-0", "req-1", "req-2"]
    append(newer, line(3))
    os.utime(newer, (2, 2))
    append(newest, line(4))
    assert log.news() == ["req-3", "req-4"]
    append(day, line(5))
    append(newest, line(6))
    assert log.news() == ["req-6"]
    log.follower.close()


def test_it_looks_again_and_again(log: Log, day: Path) -> None:
    """Between two looks it waits; records come one by one."""
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        append(day, line(len(waits)))

    following = log.follower.follow(sleep)

    assert [next(following).text("request_id") for _ in range(3)] == ["req-1", "req-2", "req-3"]
    assert waits == [POLL_SECONDS] * 3
