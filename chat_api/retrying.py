"""How long an upstream asks to wait, and what of it clients are told. Pure; `now` is an argument.

Widely used clients sleep for whatever Retry-After says, a day if need be, or give up without a word.
So no more than a minute goes on, with the word not to try again, and the message tells the truth.
"""

import math
import re
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from chat_api.headers import first
from chat_api.types import Headers

MAX_WAIT_SECONDS = 60
DEFAULT_COOL_DOWN_SECONDS = 10.0  # where a 429 says nothing, as in Microsoft's samples
QUOTA_SECONDS = 60.0  # Azure counts tokens by the minute: what was left then says nothing after that
SHOULD_RETRY = b"x-should-retry"  # obeyed by OpenAI's clients
WAITS = (b"retry-after", b"retry-after-ms", b"x-ms-retry-after-ms")


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
        date = parsedate_to_datetime(after.decode("latin-1"))
        date = date if date.tzinfo else date.replace(tzinfo=UTC)  # HTTP's dates are, in whatever form (RFC 9110 5.6.7)
        return max(0.0, date.timestamp() - now)
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
    kept = [pair for pair in headers if pair[0] not in (*WAITS, SHOULD_RETRY)]
    return (*kept, (b"retry-after", b"%d" % MAX_WAIT_SECONDS), (SHOULD_RETRY, b"false")), wait


def cool_down_seconds(headers: Headers, now: float) -> float:
    """How long to leave a deployment alone that answered 429; at most a minute, whatever it asks."""
    wait = wait_seconds(headers, now)
    if wait is None:
        wait = quota_of(headers, now).reset_seconds
    return DEFAULT_COOL_DOWN_SECONDS if wait is None else min(wait, MAX_WAIT_SECONDS)


@dataclass(frozen=True, slots=True)
class Quota:
    """What a deployment's answer said is left of its requests and tokens a minute."""

    requests: tuple[float | None, float | None] = (None, None)  # left, and of how many
    tokens: tuple[float | None, float | None] = (None, None)
    reset_seconds: float | None = None  # until there is more of what there is least of
    ends: float = 0.0  # when it says nothing any more

    def left(self, now: float) -> float:
        """The smaller of the two, as a part of its limit; 1 where nothing is known."""
        if now >= self.ends:
            return 1.0
        parts = [left / limit for left, limit in (self.requests, self.tokens) if left is not None and limit]
        return max(0.0, min(parts, default=1.0))


def quota_of(headers: Headers, now: float) -> Quota:
    """The quota that an answer's `x-ratelimit-*` headers tell of; resets are seconds, or OpenAI's `6m0s` and `17ms`."""
    values = {name[12:]: value for name, value in headers if name.startswith(b"x-ratelimit-")}
    if not values:
        return Quota()

    def number(name: bytes) -> float | None:
        value = values.get(name, b"")
        return float(value) if _is_number(value) else None

    pairs = {kind: (number(b"remaining-" + kind), number(b"limit-" + kind)) for kind in (b"requests", b"tokens")}
    resets = {kind: _duration(values.get(b"reset-" + kind, b"")) for kind in pairs}
    # Of the one that is used up; which it was is not said where neither is.
    empty = [resets[kind] for kind, (left, _) in pairs.items() if left == 0] or list(resets.values())
    reset = max((seconds for seconds in empty if seconds is not None), default=None)
    ends = now + min(QUOTA_SECONDS if reset is None else reset, QUOTA_SECONDS)
    return Quota(pairs[b"requests"], pairs[b"tokens"], reset, ends)


_DURATION = re.compile(rb"(?:(\d{1,4})h)?(?:(\d{1,4})m(?!s))?(?:(\d{1,6}(?:\.\d*)?)s)?(?:(\d{1,8}(?:\.\d*)?)ms)?")


def _duration(text: bytes) -> float | None:
    """Seconds: `10`, `6m0s`, `17ms`."""
    if _is_number(text):
        return float(text)
    parts = _DURATION.fullmatch(text) if text else None
    if parts is None:
        return None
    hours, minutes, seconds, milliseconds = (float(part or 0) for part in parts.groups())
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000


def _is_number(text: bytes) -> bool:
    return text.strip().replace(b".", b"", 1).isdigit() and len(text) < 20
