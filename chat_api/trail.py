"""What callers and the log are told of a call's way: who was asked, how often, and where the time went. Pure."""

from collections.abc import Sequence
from functools import lru_cache

from chat_api.types import Attempt, Deployment, Headers

DEPLOYMENT = b"x-chat-api-deployment"
ATTEMPTS = b"x-chat-api-attempts"
FALLBACK = b"x-chat-api-fallback"
SERVER_TIMING = b"server-timing"


def told_of(trail: Sequence[Attempt], total_seconds: float) -> list[tuple[bytes, bytes]]:
    """The headers that tell of it.

    Args:
        trail: the attempts; the last is the one that answered, if one did.
        total_seconds: from the request's head to the answer's.
    """
    last = trail[-1]
    if not last.ended:
        return []  # the answer has begun before there is one: a comment keeps a stream open
    timing = (SERVER_TIMING, server_timing(trail, last, total_seconds))
    return [*_who(last.deployment, len(trail), last.fallback), timing]


def server_timing(trail: Sequence[Attempt], last: Attempt, total_seconds: float) -> bytes:
    """The Server-Timing (W3C) of an answer, in milliseconds.

    `queue` is the wait for a place among the connections, `connect` that for a new one, `upstream` the
    rest of the wait for the answer's first byte, `attempts` what went before the attempt that answered, and
    `gateway` all else, the time that the client took to send its request included.
    """
    queue, connect = last.queue_seconds, last.connect_seconds
    before = last.started - min(attempt.started for attempt in trail) if len(trail) > 1 else 0.0
    upstream = last.ended - last.started
    times = (queue * 1e3, connect * 1e3, (upstream - queue - connect) * 1e3, (total_seconds - upstream - before) * 1e3)
    text = b"queue;dur=%.1f, connect;dur=%.1f, upstream;dur=%.1f, gateway;dur=%.1f" % times
    return text if len(trail) == 1 else text + b", attempts;dur=%.1f" % (before * 1e3)


def in_words(trail: Sequence[Attempt]) -> str:
    """What the access log says of it: who answered, or was asked last, and after how many attempts."""
    return _words(trail[-1].deployment, len(trail))


# The same few deployments answer again and again, mostly at the first attempt. A caller may have named them in letters
# that no header and no log line should hold.


@lru_cache(maxsize=256)
def _who(deployment: Deployment, attempts: int, fallback: str | None) -> Headers:
    headers = [(DEPLOYMENT, deployment.label.encode("unicode_escape")), (ATTEMPTS, b"%d" % attempts)]
    if fallback is not None:
        headers.append((FALLBACK, fallback.encode("unicode_escape")))
    return tuple(headers)


@lru_cache(maxsize=256)
def label_of(deployment: Deployment) -> str:
    """What the deployment is called in the log, made once."""
    return deployment.label


@lru_cache(maxsize=256)
def _words(deployment: Deployment, attempts: int) -> str:
    label = deployment.label.encode("unicode_escape").decode()
    return f" {label}" if attempts == 1 else f" {label} ({attempts} attempts)"
