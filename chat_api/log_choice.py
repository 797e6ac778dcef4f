"""Which exchanges of a conversation log are meant: whose, and from when until when. Pure."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from chat_api.conversations import Record

DAY: Final = 86400.0
WHEN_FORM: Final = (
    "it takes a day or a time (UTC) such as 2026-11-21 or 2026-11-21T10:00, or how long ago, such as 30m, 2h or 3d"
)
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": DAY, "w": 7 * DAY}
_AGO: Final = re.compile(r"(\d{1,9})([smhdw])", re.ASCII)
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


@dataclass(frozen=True, slots=True)
class Choice:
    """What is meant; None is all."""

    key: str | None = None
    since: float | None = None  # in seconds since 1970, itself included
    until: float | None = None  # itself not

    def takes(self, record: Record) -> bool:
        """Whether a record is meant. One without a time is not, where a time is asked for."""
        if self.key is not None and record.text("key") != self.key:
            return False
        if self.since is None and self.until is None:
            return True
        at = record.at
        if at is None:
            return False
        return (self.since is None or at >= self.since) and (self.until is None or at < self.until)


def parse_when(text: str, now: float, *, is_end: bool = False) -> float:
    """A time in seconds since 1970.

    Args:
        text: a day, a time or how long ago.
        now: what that is counted from.
        is_end: a day is meant to its end.

    Raises:
        ValueError: it is something else; the message says what is taken.
    """
    text = text.strip()
    if ago := _AGO.fullmatch(text):
        return now - int(ago[1]) * _UNITS[ago[2]]
    try:
        when = datetime.fromisoformat(text) if _DATE.match(text) else None
        at = None if when is None else (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        at = None
    if at is None:
        raise ValueError(WHEN_FORM)
    return at + DAY if is_end and _DATE.fullmatch(text) else at
