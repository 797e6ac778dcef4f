"""Python's logging set up for the command line; and the access lines, which do without it: it costs too much a line."""

import contextlib
import logging
import logging.config
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

MAX_WRITE_CHARS = 4096  # PIPE_BUF of Linux; what is not ASCII in them is escaped, or rare
MAX_HELD_CHARS = 64 * 1024


class Clock:
    """Seconds since 1970 into `2026-11-21 14:42:01,123`, the costly part of it once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._text = ""

    def text(self, now: float) -> str:
        """The time in words, in the machine's time zone."""
        second = int(now)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        return f"{self._text},{int((now - second) * 1000):03d}"


class AccessLines:
    """Writes access lines many at a time: when it is told to, as the server does ten times a second.

    Args:
        stream: where they go.
        now: the time, in seconds since 1970.
    """

    def __init__(self, stream: TextIO, now: Callable[[], float] = time.time) -> None:
        self._stream = stream
        self._now = now
        self._clock = Clock()
        self._lines: list[str] = []
        self._chars = 0

    def write(self, line: str) -> None:
        """Take one line."""
        self._lines.append(f"{self._clock.text(self._now())} {line}\n")
        self._chars += len(line)
        if self._chars > MAX_HELD_CHARS:
            self.flush()

    def flush(self) -> None:
        """Write what there is; where that cannot be, as into a pipe that nobody reads any more, it is lost."""
        lines, self._lines, self._chars = self._lines, [], 0
        with contextlib.suppress(OSError, ValueError):
            for text in _together(lines):
                encoding = self._stream.encoding or "utf-8"
                # A caller may name a model in letters that the stream does not have.
                self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
                self._stream.flush()


def _together(lines: list[str]) -> Iterator[str]:
    """The lines in pieces that a pipe takes whole, so that those of two processes do not get mixed up."""
    text = ""
    for line in lines:
        if text and len(text) + len(line) > MAX_WRITE_CHARS:
            yield text
            text = ""
        text += line
    if text:
        yield text


class Unfinished:
    """Drops uvicorn's remark on a response without an end: it is how a broken stream is cut, and logged with it."""

    def filter(self, record: Any) -> bool:
        """Whether the record is logged."""
        return "returned without completing response" not in record.getMessage()


def set_up_logging(level: str) -> None:
    """Log to standard error, `chat_api` from this level on.

    uvicorn's own notes of starting and stopping are left to the banner. Libraries stay at warnings
    even when the level is debug: some of them log headers and prompts.
    """
    form = {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": form},
            "filters": {"unfinished": {"()": Unfinished}},
            "handlers": {
                "stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["unfinished"]},
            },
            "root": {"handlers": ["stderr"], "level": "WARNING"},
            "loggers": {"chat_api": {"level": level.upper()}},
        }
    )
