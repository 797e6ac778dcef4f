"""A conversation log as it grows: files that are new, rotated, replaced or emptied are noticed by looking again."""

import contextlib
import time
from collections.abc import Callable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import Final

from chat_api.conversations import Record
from chat_api.log_reading import Entry, LogFile, LogReader, merged

MAX_OPEN: Final = 256  # of the files, those that were written last; older ones do not grow any more
POLL_SECONDS: Final = 0.25


class Follower:
    """The files of a log that may still grow, known by what they are rather than by their names.

    They stay open, so that one that is renamed or removed is read to its end, and none is taken for another.
    """

    def __init__(self, reader: LogReader, find: Callable[[], list[Path]]) -> None:
        self._reader = reader
        self._find = find
        self._open: dict[tuple[int, int], LogFile] = {}
        self._ignored: set[tuple[int, int]] = set()  # too old to be open

    def begin(self) -> Iterator[Record]:
        """The records that there are, in the order of their times."""
        paths = self._find()
        self._look(paths)
        followed = {file.path for file in self._open.values()}
        yield from self._reader.joined(
            merged(
                [(self._reader.start(path), self._reader.whole(path)) for path in paths if path not in followed]
                + [(0.0, self._reader.entries(file, to_end=False)) for file in self._open.values()]
            )
        )

    def news(self) -> Iterator[Record]:
        """The records that have come since."""
        gone = self._look(self._find())
        entries: list[Entry] = []
        for identity, file in self._open.items():
            file.restart_if_cut()
            entries += self._reader.entries(file, to_end=identity in gone)
        for identity in gone:
            self._open.pop(identity).close()
        yield from self._reader.joined(sorted(entries, key=itemgetter(0)))

    def follow(
        self, sleep: Callable[[float], object] = time.sleep, is_over: Callable[[], bool] = lambda: False
    ) -> Iterator[Record]:
        """The records as they come, until `is_over` says so."""
        while not is_over():
            yield from self.news()
            sleep(POLL_SECONDS)

    def close(self) -> None:
        """Let go of the files."""
        for file in self._open.values():
            file.close()
        self._open.clear()

    def _look(self, paths: list[Path]) -> set[tuple[int, int]]:
        """Open what is new; gives what is open and to be closed: it is not found any more, or too old."""
        found: dict[tuple[int, int], tuple[float, Path]] = {}
        for path in paths:
            with contextlib.suppress(OSError):  # it has just gone
                stat = path.stat()
                if path.suffix != ".gz":
                    found[stat.st_dev, stat.st_ino] = stat.st_mtime, path
        by_age = sorted(found.keys() - self._ignored, key=lambda identity: found[identity])
        self._ignored = (self._ignored & found.keys()) | set(by_age[:-MAX_OPEN])
        kept = set()
        for identity in by_age[-MAX_OPEN:]:
            path = found[identity][1]
            with contextlib.suppress(OSError):  # it has just gone, or will be readable later
                file = self._open.get(identity) or LogFile(path)
                file.path = path
                # Another than was found, if it was replaced just now.
                kept.add(file.identity)
                if self._open.setdefault(file.identity, file) is not file:
                    file.close()
        return self._open.keys() - kept
