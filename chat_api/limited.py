"""What callers are told of their limits: how much is left, and why a call is refused. Pure."""

import math
from functools import lru_cache

from chat_api.counting import PARALLEL, Counter, Grant, Nearest, Reading
from chat_api.errors import RateLimited
from chat_api.headers import QUOTA_OF_REQUESTS, QUOTA_OF_TOKENS
from chat_api.plans import Plan
from chat_api.retrying import MAX_WAIT_SECONDS, SHOULD_RETRY, bounded
from chat_api.types import Headers

PARALLEL_WAIT_SECONDS = 1.0  # after which a place may be free
_PERIODS = {1: "second", 60: "minute", 3600: "hour", 86400: "day", 2592000: "month", 31104000: "year"}


def told_of(plan: Plan, grant: Grant) -> Headers:
    """The headers that tell of what a store granted, or did not.

    The model's limits are told to whoever has none of his own.
    """
    readings = grant.readings
    if not readings:
        return ()
    first, of_model = len(plan.requests), len(readings) - len(plan.of_model)
    tokens = _nearest(plan.tokens, readings[first:]) or _nearest(plan.of_model, readings[of_model:])
    return quota(_nearest(plan.requests, readings), tokens)


def _nearest(counters: tuple[Counter, ...], readings: tuple[Reading, ...]) -> Nearest | None:
    pairs = zip(counters, readings, strict=False)
    counter, reading = min(pairs, key=lambda pair: pair[1].left, default=(None, None))
    return Nearest(counter.limit, reading.left, reading.reset_seconds) if counter and reading else None


def quota(requests: Nearest | None, tokens: Nearest | None) -> Headers:
    """OpenAI's `x-ratelimit-*` headers: of the limits in requests and in tokens those of which least is left."""
    of_tokens = _three(QUOTA_OF_TOKENS, tokens) if tokens is not None else ()
    return _three(QUOTA_OF_REQUESTS, requests) + of_tokens if requests is not None else of_tokens


def _three(names: tuple[bytes, bytes, bytes], nearest: Nearest) -> tuple[tuple[bytes, bytes], ...]:
    limit, remaining, reset = names
    return _limit(limit, nearest.limit), (remaining, b"%d" % nearest.left), (reset, duration(nearest.reset_seconds))


@lru_cache(maxsize=256)
def _limit(name: bytes, limit: int) -> tuple[bytes, bytes]:
    return name, b"%d" % limit


def duration(seconds: float) -> bytes:
    """A duration as OpenAI writes it: `850ms`, `12s`, `6m0s`, `1h0m0s`; never shorter than it is."""
    return b"%dms" % math.ceil(seconds * 1000) if seconds < 1 else _in_seconds(math.ceil(seconds))


@lru_cache(maxsize=256)
def _in_seconds(whole: int) -> bytes:
    if whole < 60:
        return b"%ds" % whole
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return b"%dm%ds" % (minutes, rest)
    return b"%dh%dm%ds" % (minutes // 60, minutes % 60, rest)


def refusal(plan: Plan, grant: Grant, asked: int, now: float) -> RateLimited:
    """The error of a call that was not granted.

    Args:
        plan: what is counted for it.
        grant: what the store said.
        asked: how many tokens it may take.
        now: the time, in seconds since 1970.
    """
    who = f"the client key {plan.caller.name}" if plan.caller.key else f"the address {plan.caller.name}"
    if grant.refused in (None, PARALLEL):
        message = (
            f"{who} has {plan.max_parallel} calls under way already, as many as it may; try again when one has ended"
        )
        return _limited(message, PARALLEL_WAIT_SECONDS, "too_many_parallel_calls", plan, grant, now)
    at = grant.refused or 0
    requests, tokens = len(plan.requests), len(plan.requests) + len(plan.tokens)
    counters = (*plan.requests, *plan.tokens, *plan.budget, *plan.of_model)
    counter, wait = counters[at], grant.wait_seconds
    left = grant.readings[at].left if at < len(grant.readings) else 0
    if at < requests:
        message = f"{who} may make {counter.limit} requests {_each(counter.seconds)}"
        code = "rate_limit_exceeded"
    elif at < tokens or at >= tokens + len(plan.budget):
        whose = who if at < tokens else f"model {plan.model}"
        message = (
            f"{whose} has {counter.limit} tokens {_each(counter.seconds)}, of which {left} are left, "
            f"and this call may take {asked}"
        )
        code = "rate_limit_exceeded"
    else:
        message = f"{who} has used up its budget of this month"
        code, wait = "insufficient_quota", max(1.0, plan.ends - now)
    return _limited(f"{message}; try again in {_in_words(wait)}", wait, code, plan, grant, now)


def too_large(prompt: int, stated: int | None, most: int) -> RateLimited:
    """The error of a call that no wait will let through.

    Args:
        prompt: about how many tokens its prompt is.
        stated: how many tokens it allows the answer, if it says.
        most: how many it may take.
    """
    answer = f" and up to {stated} of the answer" if stated else ""
    message = f"this call is about {prompt} tokens{answer}, and may take {most} at the most; send less"
    headers = ((SHOULD_RETRY, b"false"),)
    return RateLimited(message, param="max_tokens" if stated else None, code="request_too_large", headers=headers)


def _limited(message: str, wait: float, code: str, plan: Plan, grant: Grant, now: float) -> RateLimited:
    asked = ((b"retry-after", b"%d" % math.ceil(wait)), (b"retry-after-ms", b"%d" % math.ceil(wait * 1000)))
    headers, shortened = bounded(asked, now)
    if shortened is not None:
        headers = (*headers, (b"retry-after-ms", b"%d" % (MAX_WAIT_SECONDS * 1000)))
    return RateLimited(message, code=code, headers=(*headers, *told_of(plan, grant)))


def _each(seconds: int) -> str:
    for period in sorted(_PERIODS, reverse=True):
        if seconds % period == 0:
            count = seconds // period
            article = "an" if period == 3600 else "a"
            return f"{article} {_PERIODS[period]}" if count == 1 else f"in {count} {_PERIODS[period]}s"
    raise AssertionError(seconds)  # a second is a part of all of them


def _in_words(seconds: float) -> str:
    if seconds <= 60:
        return f"{seconds:.1f} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} minutes" if minutes < 120 else f"{math.ceil(minutes / 60)} hours"
