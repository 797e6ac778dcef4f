"""The files of the conversation log: one for each day (UTC), and another when one is full.

`chat-2026-11-21.jsonl`, then `chat-2026-11-21.1.jsonl` and so on. Each is one process's alone, as long as it holds the
file's lock: with several processes a day has several files at a time. So lines never mix, on any file system; what a
full disk has cut is taken back; and only where a process is killed in the middle of a write a torn line is left, which
the next record does not follow, but begins a line after.
"""

import contextlib
import errno
import logging
import os
import re
import stat
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

from chat_api.tally import day_of

try:
    import fcntl
except ImportError:  # Windows: the folder is for one process there
    fcntl = None  # type: ignore[assignment]

NAME = re.compile(r"chat-(\d{4}-\d\d-\d\d)(?:\.(\d{1,6}))?\.jsonl", re.ASCII)
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_GUARDS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # no link to elsewhere, no pipe that waits
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # of a file system that has none
_MAX_FILES = 100_000  # of a day

log = logging.getLogger(__name__)

Write = Callable[[int, bytes], int]


class LogFiles:
    """Appends whole lines to the day's file. It blocks, and is for one thread.

    Args:
        folder: where they are; it is made if it is missing.
        max_file_bytes: how large a file gets; a single line may be larger.
        keep_days: how many days a file is kept beyond its own; 0 for ever.
        clock: the time in seconds since 1970.
        write: as `os.write`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_file_bytes: int,
        keep_days: int = 0,
        clock: Callable[[], float] = time.time,
        write: Write = os.write,
    ) -> None:
        self._folder = folder
        self._max_file_bytes = max_file_bytes
        self._keep_days = keep_days
        self._clock = clock
        self._write = write
        self._path = folder
        self._day = ""
        self._descriptor = -1
        self._size = 0
        self._swept = ""  # the day on which old files were last looked for

    def append(self, lines: list[bytes]) -> int:
        """Write lines, each of which ends with LF, into as many files as they need.

        Returns:
            How many of them are written. It is fewer than all of them only where a disk takes a part.

        Raises:
            OSError: none of them is written.
        """
        written = 0
        while written < len(lines):
            try:
                written += self._append_some(lines[written:])
            except OSError:
                if not written:
                    raise
                break
        return written

    def _append_some(self, lines: list[bytes]) -> int:
        """Write as many as the file has room for, one at the least; it says how many."""
        self._open_for(len(lines[0]))
        batch: list[bytes] = []
        size = self._size
        for line in lines:
            size += len(line)
            if batch and size > self._max_file_bytes:
                break
            batch.append(line)
        content = b"".join(batch)
        count = self._write(self._descriptor, content)
        if count == len(content):
            self._size += count
            return len(batch)
        whole = content.rfind(b"\n", 0, count) + 1
        self._take_back(self._size + whole)
        if not whole:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return content.count(b"\n", 0, whole)

    def _take_back(self, size: int) -> None:
        """Cut off what there is of a line that the disk has taken in part."""
        try:
            os.ftruncate(self._descriptor, size)
            self._size = size
        except OSError:
            self.close()  # whoever opens it begins a new line

    def _open_for(self, size: int) -> None:
        """Have the file open into which a line of this size goes."""
        day = day_of(self._clock())
        fits = self._descriptor >= 0 and day == self._day and not self._is_full(self._size, size)
        if fits and self._is_there():
            return
        self.close()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for number in range(_MAX_FILES):
            path = self._folder / (f"chat-{day}.{number}.jsonl" if number else f"chat-{day}.jsonl")
            if self._take(path, size):
                self._path, self._day = path, day
                break
        else:
            raise OSError(errno.EMFILE, f"there are {_MAX_FILES} files of {day}")
        self.sweep()

    def _is_there(self) -> bool:
        """Whether the file is still where it was: nobody has deleted or moved it."""
        try:
            found, own = os.stat(self._path), os.fstat(self._descriptor)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)

    def _take(self, path: Path, size: int) -> bool:
        """Open a file; False if it is another process's, is no file, or has no room for a line of this size."""
        try:
            if self._is_full(path.lstat().st_size, size):
                return False  # without opening each of the day's files
        except FileNotFoundError:
            pass
        try:
            descriptor = os.open(path, _FLAGS | _GUARDS, 0o600)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EMLINK):  # a link, a folder, a pipe
                return False
            raise
        try:
            is_ours = self._is_ours(descriptor, size)
        except OSError:
            os.close(descriptor)
            raise
        if not is_ours:
            os.close(descriptor)
        return is_ours

    def _is_ours(self, descriptor: int, size: int) -> bool:
        if fcntl is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            return False
        if self._is_full(found.st_size, size):
            return False
        if found.st_mode & 0o077 and hasattr(os, "fchmod"):
            with contextlib.suppress(OSError):
                os.fchmod(descriptor, 0o600)
        size = found.st_size
        if size and (os.lseek(descriptor, -1, os.SEEK_END), os.read(descriptor, 1))[1] != b"\n":
            size += self._write(descriptor, b"\n")  # the line before was torn when its process was killed
        self._descriptor, self._size = descriptor, size
        return True

    def _is_full(self, file_bytes: int, line_bytes: int) -> bool:
        """Whether a line goes into the next file; an empty one takes any."""
        return file_bytes > 0 and file_bytes + line_bytes > self._max_file_bytes

    def sweep(self) -> None:
        """Delete the files whose time is up; it looks for them once a day."""
        today = day_of(self._clock())
        if not self._keep_days or today == self._swept:
            return
        self._swept = today
        oldest = (date.fromisoformat(today) - timedelta(days=self._keep_days)).isoformat()
        try:
            names = os.listdir(self._folder)
        except OSError:
            return
        for name in names:
            match = NAME.fullmatch(name)
            if match and match[1] < oldest:
                try:
                    os.unlink(self._folder / name)
                except FileNotFoundError:  # another process was faster
                    pass
                except OSError as error:
                    log.warning("%s, whose time is up, cannot be deleted: %s", self._folder / name, error.strerror)

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._size = -1, 0


def who_else_may(folder: Path) -> str | None:
    """Who else than its owner may do what in a folder that is there: "write into" or "list"; None for nobody."""
    try:
        mode = folder.stat().st_mode
    except OSError:
        return None
    if os.name == "nt" or not mode & 0o077:
        return None
    return "write into" if mode & 0o022 else "list"
