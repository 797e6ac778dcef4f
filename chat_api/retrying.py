"""How long an upstream asks to wait, and what of it clients are told. Pure; `now` is an argument.

Widely used clients sleep for whatever Retry-After says, a day if need be, or give up without a word.
So no more than a minute goes on, with the word not to try again, and the message tells the truth.
"""

import math
from email.utils import parsedate_to_datetime

from chat_api.headers import first
from chat_api.types import Headers

MAX_WAIT_SECONDS = 60
SHOULD_RETRY = b"x-should-retry"  # obeyed by OpenAI's clients
_WAITS = (b"retry-after", b"retry-after-ms", b"x-ms-retry-after-ms")


def wait_seconds(headers: Headers, now: float) -> float | None:
    """How many seconds the headers ask to wait: retry-after-ms, or Retry-After as seconds or as a date."""
    for name in (b"retry-after-ms", b"x-ms-retry-after-ms"):
        milliseconds = first(headers, name)
        if milliseconds is not None and _is_number(milliseconds):
            return float(milliseconds) / 1000
    after = first(headers, b"retry-after")
    if after is None:
        return None
    if _is_number(after):
        return float(after)
    try:
        return max(0.0, parsedate_to_datetime(after.decode("latin-1")).timestamp() - now)
    except (ValueError, OverflowError, OSError):
        return None


def bounded(headers: Headers, now: float) -> tuple[Headers, float | None]:
    """The headers with a wait that clients can live with, and the true wait in seconds where it was shortened."""
    wait = wait_seconds(headers, now)
    if wait is None:
        return headers, None
    if wait <= MAX_WAIT_SECONDS:
        in_seconds = wait_seconds([pair for pair in headers if pair[0] == b"retry-after"], now)
        if in_seconds is None or in_seconds <= MAX_WAIT_SECONDS:
            return headers, None
        # Two headers that contradict: the one in milliseconds counts, and the other is made to say the same.
        others = [pair for pair in headers if pair[0] != b"retry-after"]
        return (*others, (b"retry-after", b"%d" % math.ceil(wait))), None
    kept = [pair for pair in headers if pair[0] not in (*_WAITS, SHOULD_RETRY)]
    return (*kept, (b"retry-after", b"%d" % MAX_WAIT_SECONDS), (SHOULD_RETRY, b"false")), wait


def _is_number(text: bytes) -> bool:
    return text.strip().replace(b".", b"", 1).isdigit() and len(text) < 20
