"""Usage in a small JSON file, for all processes of one machine.

One line for each day: `"2026-11-21":[["alice","gpt-4o","east@host",3,120,45,0,0,1035]]`. After the three names come
requests, prompt, completion and cached tokens, errors and the cost in millionths, in the order of `Amounts`.
It is never changed in place: whoever writes holds a lock on `<path>.lock`, and puts a whole new file there.
"""

import asyncio
import contextlib
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from chat_api.counting import Amounts, Used
from chat_api.errors import StoreDown
from chat_api.tally import KEPT_DAYS, MAX_ROWS, merge, shrunk

try:
    import fcntl
except ImportError:  # Windows: the file is for one process there
    fcntl = None  # type: ignore[assignment]

SETTING = "USAGE_FILE"
LOCK_SECONDS = 5.0  # nobody holds it for longer than a write takes, unless stopped
MAX_BYTES = 1 << 30  # no file of ours is that large
SHRUNK_ROWS = 1000  # of a day that is over
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_Count = Annotated[int, Meta(ge=0)]


class _Row(Struct, array_like=True, forbid_unknown_fields=True):
    key: str
    model: str
    deployment: str
    requests: _Count
    prompt: _Count
    completion: _Count
    cached: _Count
    errors: _Count
    cost: _Count


class _File(Struct, forbid_unknown_fields=True):
    chat_api_usage: Literal[1]
    days: dict[str, Raw]  # only those that are asked for are read


_decode_file = msgspec.json.Decoder(_File).decode
_decode_rows = msgspec.json.Decoder(list[_Row]).decode


class UsageFile:
    """A `UsageStore` in a file; what blocks is done in a thread.

    Args:
        path: the file, which need not be there; its folder has to.
        lock_seconds: how long to wait for another process that writes.
    """

    def __init__(self, path: Path, *, lock_seconds: float = LOCK_SECONDS) -> None:
        self._path = path
        self._lock_seconds = lock_seconds
        self._in_process = threading.Lock()  # where there is no lock on files

    async def add(self, rows: Mapping[Used, Amounts]) -> None:
        """Count these on top of what is in the file.

        Raises:
            StoreDown: the file cannot be written, or is none of ours; it is as it was.
        """
        await asyncio.to_thread(self._add, rows)

    async def read(self, since: str, until: str) -> dict[Used, Amounts]:
        """What is in the file of the days from `since` to `until`; nothing, if there is none.

        Raises:
            StoreDown: it cannot be read, or is none of ours.
        """
        return await asyncio.to_thread(self._read, since, until)

    async def aclose(self) -> None:
        """Nothing is open."""

    def _add(self, rows: Mapping[Used, Amounts]) -> None:
        path = Path(os.path.realpath(self._path))  # a link stays one
        with self._told("written"), self._in_process, self._locked(path):
            days = self._days(path)
            is_new_day = not {used.day for used in rows} <= days.keys()
            for day in {used.day for used in rows}:
                of_day = self._rows(days, day)
                merge(of_day, {used: amounts for used, amounts in rows.items() if used.day == day}, MAX_ROWS)
                days[day] = _encoded(of_day)
            if is_new_day:  # once a day: what is long past, and what made-up names have left
                for day in sorted(days)[:-2]:
                    if bytes(days[day]).count(b"],[") >= SHRUNK_ROWS:
                        days[day] = _encoded(shrunk(self._rows(days, day), SHRUNK_ROWS))
            _replace(path, _content({day: days[day] for day in sorted(days)[-KEPT_DAYS:]}))

    def _read(self, since: str, until: str) -> dict[Used, Amounts]:
        rows: dict[Used, Amounts] = {}
        with self._told("read"):
            days = self._days(Path(os.path.realpath(self._path)))
            for day in sorted(days):
                if since <= day <= until:
                    rows |= self._rows(days, day)
        return rows

    def _days(self, path: Path) -> dict[str, Raw]:
        """The days in the file, by their names, none of them read yet."""
        try:
            status = path.stat()
        except FileNotFoundError:
            return {}
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
            raise self._foreign("it is no file of usage")
        content = path.read_bytes()
        if not content:  # somebody has made it, so that it is theirs to read
            return {}
        try:
            days = _decode_file(content).days
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._foreign(str(error)) from None
        if not all(map(_DAY.fullmatch, days)):
            raise self._foreign("it has days that are none")
        return days

    def _rows(self, days: Mapping[str, Raw], day: str) -> dict[Used, Amounts]:
        if day not in days:
            return {}
        rows: dict[Used, Amounts] = {}
        try:
            read = _decode_rows(days[day])
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._foreign(f"{day}: {error}") from None
        for row in read:
            amounts = Amounts(row.requests, row.prompt, row.completion, row.cached, row.errors, row.cost)
            rows.setdefault(Used(day, row.key, row.model, row.deployment), Amounts()).add(amounts)
        return rows

    def _foreign(self, why: str) -> StoreDown:
        what = "is broken, or something else than usage"
        return StoreDown(f"{self._path} ({SETTING}) {what} ({why}); it is left as it is: move it away, or name another")

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """What the system refuses becomes a `StoreDown` with the file and the setting in it."""
        try:
            yield
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            where = f" ({error.filename})" if error.filename and str(error.filename) != str(self._path) else ""
            raise StoreDown(f"{self._path} ({SETTING}) cannot be {what}: {reason}{where}") from None

    @contextlib.contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        if fcntl is None:
            yield
            return
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _wait(lambda: fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB), self._lock_seconds)
            yield
        finally:
            os.close(descriptor)  # which gives the lock back


def _wait(take: Callable[[], None], seconds: float) -> None:
    """Take a lock that another process may have; a thread may wait for it."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return take()
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"another process has had the lock for {seconds:g} s") from None
            time.sleep(0.005)


def _encoded(rows: Mapping[Used, Amounts]) -> Raw:
    lines = [
        _Row(used.key, used.model, used.deployment, *(getattr(amounts, name) for name in Amounts.__struct_fields__))
        for used, amounts in rows.items()
    ]
    return Raw(msgspec.json.encode(lines))


def _content(days: Mapping[str, Raw]) -> bytes:
    lines = b",\n".join(b'"%s":%s' % (day.encode(), bytes(rows)) for day, rows in days.items())
    return b'{"chat_api_usage":1,"days":{\n%s\n}}\n' % lines


def _replace(path: Path, content: bytes) -> None:
    """Put a new file in the place of the old one: at every moment there is the one or the other, and it is whole."""
    fresh = f"{path}.tmp"  # the lock is held, so it is nobody else's
    with contextlib.suppress(FileNotFoundError):
        os.unlink(fresh)  # of a process that was killed
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
    if fcntl is not None:
        # From here on it is counted, whatever happens: an error would have it counted twice.
        with contextlib.suppress(OSError):
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
