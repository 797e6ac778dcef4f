"""The files of the conversation log: days, sizes, locks, torn lines, full disks and what is deleted."""

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from chat_api.log_files import LogFiles, who_else_may

DAY = 86400.0
NOON = 1795262400.0  # of 2026-11-21, UTC
LINE = b'{"a":1}\n'


class Clock:
    """A time that stands still until it is set."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Noon."""
    return Clock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that is not there yet."""
    return tmp_path / "logs" / "chat"


@contextmanager
def files(folder: Path, clock: Clock, **more: Any) -> Iterator[LogFiles]:
    """The files in a folder, closed in the end."""
    opened = LogFiles(folder, **{"max_file_bytes": 1 << 20, "clock": clock, **more})
    try:
        yield opened
    finally:
        opened.close()


def names(folder: Path) -> dict[str, bytes]:
    """What is in the folder's files, by their names."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_folder_and_file_are_their_owners_alone(folder: Path, clock: Clock) -> None:
    """Both are made where they are missing, and nobody else can read them; a file that others could is mended."""
    with files(folder, clock) as log:
        assert log.append([LINE]) == 1
    path = folder / "chat-2026-11-21.jsonl"

    assert [stat.S_IMODE(one.stat().st_mode) for one in (folder, path)] == [0o700, 0o600]
    assert who_else_may(folder) is None
    path.chmod(0o644)
    with files(folder, clock) as log:
        log.append([LINE])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("mode", "what"), [(0o755, "list"), (0o770, "write into"), (0o777, "write into"), (0o700, None)]
)
def test_folder_that_others_may_use_is_told(tmp_path: Path, mode: int, what: str | None) -> None:
    """A folder that others can look or write into is worth a warning; one that is not there is not."""
    tmp_path.chmod(mode)
    assert who_else_may(tmp_path) == what
    assert who_else_may(tmp_path / "none") is None
    tmp_path.chmod(0o700)


def test_each_day_has_a_file(folder: Path, clock: Clock) -> None:
    """The day is that of UTC; when it has ended the next line goes into another file."""
    with files(folder, clock) as log:
        log.append([LINE])
        clock.now += DAY / 2 - 1
        log.append([LINE])
        clock.now += 1
        log.append([LINE, LINE])

    assert names(folder) == {"chat-2026-11-21.jsonl": 2 * LINE, "chat-2026-11-22.jsonl": 2 * LINE}


def test_full_file_is_followed_by_another(folder: Path, clock: Clock) -> None:
    """No file grows beyond its size, but for one with a single line; a new start goes on where there is room."""
    with files(folder, clock, max_file_bytes=20) as log:
        assert log.append([LINE] * 5) == 5
        log.append([b"x" * 30 + b"\n"])
        log.append([LINE])
    with files(folder, clock, max_file_bytes=20) as log:
        log.append([LINE])

    assert names(folder) == {
        "chat-2026-11-21.jsonl": 2 * LINE,
        "chat-2026-11-21.1.jsonl": 2 * LINE,
        "chat-2026-11-21.2.jsonl": 2 * LINE,
        "chat-2026-11-21.3.jsonl": b"x" * 30 + b"\n",
        "chat-2026-11-21.4.jsonl": LINE,
    }


def test_processes_have_files_of_their_own(folder: Path, clock: Clock) -> None:
    """A file that somebody holds is left to them; who comes later has the next, and after them it is free again."""
    with files(folder, clock) as first, files(folder, clock) as second:
        first.append([b"1\n"])
        second.append([b"2\n"])
        first.append([b"1\n"])
        first.close()
        second.append([b"2\n"])
        with files(folder, clock) as third:
            third.append([b"3\n"])

    assert names(folder) == {"chat-2026-11-21.jsonl": b"1\n1\n3\n", "chat-2026-11-21.1.jsonl": b"2\n2\n"}


def test_file_system_without_locks_is_written_to(folder: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no locks the file is taken all the same; another error is one."""

    def flock(number: int) -> Callable[..., None]:
        def fail(*_: Any) -> None:
            raise OSError(number, os.strerror(number))

        return fail

    monkeypatch.setattr("chat_api.log_files.fcntl.flock", flock(errno.ENOLCK))
    with files(folder, clock) as log:
        assert log.append([LINE]) == 1
    monkeypatch.setattr("chat_api.log_files.fcntl.flock", flock(errno.EIO))
    with files(folder, clock) as log, pytest.raises(OSError, match="Input/output error"):
        log.append([LINE])
    monkeypatch.setattr("chat_api.log_files.fcntl", None)
    with files(folder, clock) as log:
        assert log.append([LINE]) == 1


def test_torn_line_does_not_swallow_the_next(folder: Path, clock: Clock) -> None:
    """After a process that was killed in the middle of a line the next record begins a line of its own."""
    folder.mkdir(parents=True)
    (folder / "chat-2026-11-21.jsonl").write_bytes(LINE + b'{"a"')
    with files(folder, clock) as log:
        log.append([LINE])

    assert names(folder) == {"chat-2026-11-21.jsonl": LINE + b'{"a"\n' + LINE}


def test_what_is_no_file_of_ours_is_left_alone(folder: Path, clock: Clock, tmp_path: Path) -> None:
    """Links, folders, pipes and files of two names are passed over: nothing is written to elsewhere."""
    folder.mkdir(parents=True)
    victim = tmp_path / "victim"
    victim.touch()
    (folder / "chat-2026-11-21.jsonl").symlink_to(victim)
    (folder / "chat-2026-11-21.1.jsonl").mkdir()
    os.mkfifo(folder / "chat-2026-11-21.2.jsonl")
    os.link(victim, folder / "chat-2026-11-21.3.jsonl")
    with files(folder, clock) as log:
        log.append([LINE])

    assert (folder / "chat-2026-11-21.4.jsonl").read_bytes() == LINE
    assert victim.read_bytes() == b""


def test_file_that_was_taken_away_is_begun_again(folder: Path, clock: Clock) -> None:
    """Who deletes or moves the file while it is open loses no line after that."""
    with files(folder, clock) as log:
        log.append([LINE])
        (folder / "chat-2026-11-21.jsonl").rename(folder / "moved")
        log.append([LINE])
        (folder / "chat-2026-11-21.jsonl").unlink()
        log.append([LINE])

    assert names(folder) == {"chat-2026-11-21.jsonl": LINE, "moved": LINE}


def test_old_files_are_deleted(folder: Path, clock: Clock) -> None:
    """Files of ours that are older than so many days go, once a day; everything else stays."""
    folder.mkdir(parents=True)
    kept = [
        "chat-2026-11-20.jsonl",
        "chat-2026-11-20.3.jsonl",
        "chat-2026-11-01.txt",
        "chat-2026-11-01.x.jsonl",
        "notes",
    ]
    for name in (*kept, "chat-2026-11-19.jsonl", "chat-2020-01-01.12.jsonl"):
        (folder / name).write_bytes(LINE)
    with files(folder, clock, keep_days=1) as log:
        log.append([LINE])
        assert set(names(folder)) == {*kept, "chat-2026-11-21.jsonl"}
        (folder / "chat-2020-01-01.jsonl").touch()
        log.sweep()
        assert (folder / "chat-2020-01-01.jsonl").exists()
        clock.now += DAY
        log.sweep()

    assert set(names(folder)) == {*kept[2:], "chat-2026-11-21.jsonl"}


def test_nothing_is_deleted_unless_it_is_asked_for(folder: Path, clock: Clock) -> None:
    """Without a number of days every file stays."""
    folder.mkdir(parents=True)
    (folder / "chat-2000-01-01.jsonl").touch()
    with files(folder, clock) as log:
        log.append([LINE])

    assert len(names(folder)) == 2


def test_what_cannot_be_deleted_is_told(folder: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A file that stays although its time is up is logged, and hinders nothing."""
    (folder / "chat-2000-01-01.jsonl").mkdir(parents=True)
    with files(folder, clock, keep_days=1) as log:
        log.append([LINE])
        log.sweep()
    with files(folder / "none", clock, keep_days=1) as log:
        log.sweep()

    assert "chat-2000-01-01.jsonl, whose time is up, cannot be deleted: " in caplog.text


class Disk:
    """A disk that takes so many bytes, and then no more."""

    def __init__(self, room: int) -> None:
        self.room = room

    def __call__(self, descriptor: int, content: bytes) -> int:
        taken = content[: self.room]
        if not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= len(taken)
        return os.write(descriptor, taken)


@pytest.mark.parametrize(("room", "whole"), [(8, 1), (15, 1), (16, 2), (23, 2)])
def test_full_disk_tears_no_line(folder: Path, clock: Clock, room: int, whole: int) -> None:
    """Lines that a disk takes in part are taken back; it is told how many are whole, and later the rest is written."""
    disk = Disk(room)
    with files(folder, clock, write=disk) as log:
        assert log.append([LINE] * 3) == whole
        assert names(folder) == {"chat-2026-11-21.jsonl": whole * LINE}
        disk.room = 5
        with pytest.raises(OSError, match="No space left"):
            log.append([LINE])
        with pytest.raises(OSError, match="No space left"):
            log.append([LINE])
        assert names(folder) == {"chat-2026-11-21.jsonl": whole * LINE}
        disk.room = 100
        assert log.append([LINE]) == 1

    assert names(folder) == {"chat-2026-11-21.jsonl": (whole + 1) * LINE}


def test_disk_that_is_full_at_the_second_file_keeps_the_first(folder: Path, clock: Clock) -> None:
    """Where a batch goes into two files, and only one is written, it is told how many lines that is."""
    with files(folder, clock, max_file_bytes=16, write=Disk(16)) as log:
        assert log.append([LINE] * 3) == 2


def test_line_that_cannot_be_taken_back_is_ended(folder: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a file cannot be cut the torn line stays, and the next record begins a line of its own."""

    def fail(*_: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    disk = Disk(11)
    monkeypatch.setattr(os, "ftruncate", fail)
    with files(folder, clock, write=disk) as log:
        assert log.append([LINE] * 2) == 1
        disk.room = 100
        log.append([LINE])

    assert names(folder) == {"chat-2026-11-21.jsonl": LINE + LINE[:3] + b"\n" + LINE}


def test_disk_that_is_full_at_a_torn_line_is_an_error(folder: Path, clock: Clock) -> None:
    """Not even the end of a torn line has room: that is an error like any other, and nothing stays open."""
    folder.mkdir(parents=True)
    (folder / "chat-2026-11-21.jsonl").write_bytes(b"torn")
    disk = Disk(0)
    with files(folder, clock, write=disk) as log:
        for _ in range(2):
            with pytest.raises(OSError, match="No space left"):
                log.append([LINE])
        disk.room = 100
        log.append([LINE])

    assert names(folder) == {"chat-2026-11-21.jsonl": b"torn\n" + LINE}


def test_folder_that_cannot_be_made_is_an_error(tmp_path: Path, clock: Clock) -> None:
    """A file in the way of the folder is told, whenever it is tried."""
    (tmp_path / "file").touch()
    with files(tmp_path / "file", clock) as log:
        for _ in range(2):
            with pytest.raises(OSError, match=r"File exists|Not a directory"):
                log.append([LINE])


def test_limit_of_the_system_tears_no_line(folder: Path) -> None:
    """A file that may not grow any more (RLIMIT_FSIZE) has whole lines, as many as fit."""
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from chat_api.log_files import LogFiles\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        f"files = LogFiles(Path(sys.argv[1]), max_file_bytes=1 << 20, clock=lambda: {NOON})\n"
        "print(files.append([b'x' * 299 + b'\\n'] * 5))\n"
        "try: files.append([b'y' * 299 + b'\\n'])\n"
        "except OSError as error: print(error.errno)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["3", str(errno.ENOSPC)]
    assert names(folder) == {"chat-2026-11-21.jsonl": 3 * (b"x" * 299 + b"\n")}
