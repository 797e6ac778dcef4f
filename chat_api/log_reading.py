"""The files of a conversation log: which there are, their lines, their records in the order of their times.

Records are read one by one, whatever a file's size. What cannot be read is told, and skipped.
"""

import gzip
import heapq
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from datetime import tzinfo
from io import BufferedReader
from operator import itemgetter
from pathlib import Path
from typing import Final, NamedTuple

from chat_api.conversations import Record, Unreadable, is_record, parse_record
from chat_api.forward_log import Half, Joiner, half_of, parse_literal

PATTERNS: Final = ("chat-*.jsonl", "chat-*.jsonl.gz", "chat*.log", "chat*.log.gz")
MAX_LINE_BYTES: Final = 64 << 20
RECORD_HEAD: Final = b'{"time":"'  # within a record it cannot stand: there its quotes are escaped
PIECE_BYTES: Final = 1 << 20
BUFFER_BYTES: Final = 1 << 16
PEEKED_LINES: Final = 100  # how far a file is searched for its first record's time


class Problem(NamedTuple):
    """What could not be read, and why; number 0 is the file as a whole."""

    path: Path
    number: int
    reason: str


Entry = tuple[float, Record | Half]
"""Something that was read, and a time that never runs backwards within a file."""


def find_files(named: Iterable[Path], folder: Path, since: float | None = None) -> list[Path]:
    """The files of a log: those that are named, a folder standing for the logs in it, or else those of the folder.

    Args:
        named: files and folders.
        folder: where the log is if nothing is named.
        since: leaves out what was last written before this time, in seconds since 1970; not what is named by its file.
    """
    found: list[Path] = []
    for path in list(named) or [folder]:
        found += _logs_in(path, since) if os.path.isdir(path) else [path] if named else []
    return list(dict.fromkeys(found))


def _logs_in(folder: Path, since: float | None) -> list[Path]:
    paths = {path for pattern in PATTERNS for path in folder.glob(pattern)}
    return sorted(path for path in paths if since is None or _written(path) >= since)


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # it has just gone
        return float("inf")


def read_line(line: bytes) -> Record | Half:
    """What a line of a log is.

    Raises:
        Unreadable: it is nothing that is known.
    """
    literal = parse_literal(line)
    members = parse_record(line) if literal is None else literal
    if is_record(members):
        return Record(members, line if literal is None else b"")
    half = half_of(members, len(line))
    if half is None:
        raise Unreadable("it is no record of a conversation")
    return half


def _after_torn(line: bytes) -> Record | Half | None:
    """The record that a process wrote after the beginning of one which another did not live to end."""
    start = line.rfind(RECORD_HEAD)
    try:
        return read_line(line[start:]) if start > 0 else None
    except Unreadable:
        return None


class LogFile:
    """A file's lines, as far as they are written; it may be asked again when there are more.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0  # of the line read last
        self._raw = path.open("rb", buffering=0)
        is_packed = path.suffix == ".gz"
        self._file = gzip.GzipFile(fileobj=self._raw) if is_packed else BufferedReader(self._raw, BUFFER_BYTES)
        self._begun = bytearray()  # of a line that is not read to its end yet; nothing where it is too long
        self._size = 0  # of that line
        self._told = 0
        self._is_broken = False

    @property
    def identity(self) -> tuple[int, int]:
        """Which file it is, under whatever name."""
        stat = os.fstat(self._raw.fileno())
        return stat.st_dev, stat.st_ino

    def advance(self) -> int:
        """How many bytes, as they are on the disk, were read since this was asked last."""
        told, self._told = self._told, self._raw.tell() if self._raw.seekable() else 0
        return max(0, self._told - told)

    def restart_if_cut(self) -> None:
        """Go back if there is less of it than was read: where a line was taken back, or to its beginning."""
        size, read = os.fstat(self._raw.fileno()).st_size, self._file.tell()
        if size < read:
            whole = read - self._size
            if size < whole:  # somebody emptied it
                whole = self.number = 0
            self._file.seek(whole)
            self._take_line()

    def lines(self, *, to_end: bool) -> Iterator[bytes | Unreadable]:
        """The next lines; one that has no end yet comes only where the file is read to its end.

        What stands in place of a line says why it is not read.
        """
        while not self._is_broken:
            try:
                piece = self._file.readline(PIECE_BYTES)
            except (OSError, EOFError, zlib.error) as error:
                self._is_broken = True
                self._take_line()
                self.number += 1
                yield Unreadable(f"the rest of the file cannot be read: {error}")
                return
            self._size += len(piece)
            self._begun += piece if self._size <= MAX_LINE_BYTES else b""
            if not piece.endswith(b"\n"):
                if piece:
                    continue
                if not (to_end and self._size):
                    return
            self.number += 1
            yield self._take_line()

    def _take_line(self) -> bytes | Unreadable:
        line, size = bytes(self._begun), self._size
        self._begun.clear()
        self._size = 0
        return line if size <= MAX_LINE_BYTES else Unreadable(f"it is longer than {MAX_LINE_BYTES} bytes")

    def close(self) -> None:
        """Let go of it."""
        self._file.close()
        self._raw.close()


class LogReader:
    """Reads records of several files, merged by their times; halves of records are joined across them."""

    def __init__(
        self,
        report: Callable[[Problem], object],
        zone: tzinfo | None = None,
        progress: Callable[[int], object] = lambda more: None,
    ) -> None:
        self._report = report
        self._progress = progress
        self._zone = zone
        self._joiner = Joiner(zone)
        self.read = 0  # lines that were read, and that could not be
        self.unread = 0

    @property
    def lonely(self) -> int:
        """How many answers there were whose request is nowhere."""
        return self._joiner.lonely

    def records(self, paths: Iterable[Path]) -> Iterator[Record]:
        """The records of whole files, in the order of their times."""
        yield from self.joined(merged((self.start(path), self.whole(path)) for path in paths))
        yield from self._joiner.rest()

    def joined(self, entries: Iterable[Entry]) -> Iterator[Record]:
        """Records as they are, halves joined as far as they can be."""
        for _, item in entries:
            if isinstance(item, Half):
                yield from self._joiner.add(item)
            else:
                yield item

    def entries(self, file: LogFile, *, to_end: bool) -> Iterator[Entry]:
        """What the next lines of a file are; the others are reported."""
        last = 0.0
        for line in file.lines(to_end=to_end):
            self._progress(file.advance())
            try:
                if isinstance(line, Unreadable):
                    raise line
                item = read_line(line) if line.strip() else None
            except Unreadable as error:
                self.unread += 1
                self._report(Problem(file.path, file.number, str(error)))
                item = None if isinstance(line, Unreadable) else _after_torn(line)
            if item is not None:
                self.read += 1
                last = max(last, self._time_of(item) or last)
                yield last, item

    def whole(self, path: Path) -> Iterator[Entry]:
        """The same of a whole file, which is open no longer than it is read."""
        try:
            file = LogFile(path)
        except OSError as error:
            self.unread += 1
            self._report(Problem(path, 0, error.strerror or str(error)))
            return
        try:
            yield from self.entries(file, to_end=True)
        finally:
            file.close()

    def _time_of(self, item: Record | Half) -> float | None:
        return item.at if isinstance(item, Record) else item.at(self._zone)

    def start(self, path: Path) -> float:
        """The time of a file's first record; 0 where it does not say. What is unreadable in it is reported later."""
        try:
            if not path.is_file():  # what is read from a pipe is gone
                return 0.0
            file = LogFile(path)
        except OSError:
            return 0.0
        try:
            for line, _ in zip(file.lines(to_end=True), range(PEEKED_LINES), strict=False):
                try:
                    at = None if isinstance(line, Unreadable) else self._time_of(read_line(line))
                except Unreadable:
                    continue
                if at is not None:
                    return at
            return 0.0
        finally:
            file.close()


def merged(sources: Iterable[tuple[float, Iterator[Entry]]]) -> Iterator[Entry]:
    """Entries of several sources in the order of their times; a source is begun only when its time has come.

    Args:
        sources: each with the time that it begins at.
    """
    waiting = sorted(sources, key=itemgetter(0))[::-1]
    heap: list[tuple[float, int, Record | Half, Iterator[Entry]]] = []
    order = 0
    while heap or waiting:
        while waiting and (not heap or waiting[-1][0] <= heap[0][0]):
            _, source = waiting.pop()
            order += 1  # of equal times the source that began first goes first
            if (first := next(source, None)) is not None:
                heapq.heappush(heap, (first[0], order, first[1], source))
        if not heap:
            continue
        at, place, item, source = heap[0]
        yield at, item
        if (following := next(source, None)) is None:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, (following[0], place, following[1], source))
