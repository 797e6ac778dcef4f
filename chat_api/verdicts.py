"""What the outcome of an attempt says of the deployment, and whether another may be asked. Pure.

| Outcome | The deployment | Another one |
|---|---|---|
| an answer; a refusal that is the caller's own | is well | - |
| 429 | throttles: cooled down | may be asked |
| 401 and 403 to our key, 404 of a deployment that is not there, 503 | has failed: ejected | may be asked |
| no connection, no answer in time | has failed: ejected | may be asked |
| another 5xx, a broken connection, nothing in the answer | has failed, if it is the second in a row | may be asked |
| 408, all our connections there busy, another server's 429 to the caller's own key | - | may be asked |
| it does not know the response that the call goes on from | - | may be asked |
| an answer beyond every measure, a request that cannot be sent, 501, 505 | - | - |
| the client left | - | - |
"""

import math
from collections.abc import Sequence
from enum import Enum
from random import Random

from msgspec import Struct, structs

from chat_api.errors import (
    ConnectError,
    ConnectTimeout,
    GatewayError,
    NoUpstream,
    PoolTimeout,
    Throttled,
    TlsTimeout,
    UpstreamError,
    UpstreamTimeout,
)
from chat_api.health import Health
from chat_api.operations import DEPLOYMENT_SCOPED
from chat_api.refusals import read_refusal
from chat_api.retrying import WAITS, cool_down_seconds, wait_seconds
from chat_api.types import Attempt, Call, Reply

# What may run twice: it costs tokens, but leaves nothing behind that matters.
_RUNS_MODEL = DEPLOYMENT_SCOPED | {"responses"}
# Nothing has been sent when one of these comes.
_NEVER_SENT = (ConnectError, ConnectTimeout, TlsTimeout, PoolTimeout)
_NOT_DONE = frozenset({400, 401, 403, 404, 429, 503})  # a server that says so has done nothing
_CALLERS_OWN = frozenset({501, 505})  # what the server cannot do, for anybody
_NOT_ITS_FAULT = frozenset({"answer_too_large", "unsendable"})
# In a response's body: it goes on by itself, or acts on other systems.
_ACTS = (b'"background"', b'"mcp"')
_SAID_BY_ALL = frozenset({400, 404, 429})  # that it is not there, or that this caller's key is throttled
_IN_VAIN = frozenset({401, 403, 404})  # the same deployment says the same again
MAX_WORDS = 200
FIRST_BACKOFF_SECONDS = 0.1  # before the only deployment is asked again that has failed


class Verdict(Enum):
    """What an outcome says of the deployment."""

    WELL = "well"
    THROTTLED = "throttled"
    FAILED = "failed"
    BLAMELESS = "blameless"  # it says nothing, but another one may do better
    ELSEWHERE = "elsewhere"  # it has not what the call names; another one may


# What is not there, by the error's code: a deployment, or what another resource may have.
_NOT_THERE = {"DeploymentNotFound": Verdict.FAILED, "previous_response_not_found": Verdict.ELSEWHERE}
_CODES = tuple(code.encode() for code in _NOT_THERE)


class Outcome(Struct, frozen=True):
    """How an attempt ended, and what that says. Not the error itself, whose trace would keep all of this alive."""

    attempt: Attempt
    member: Health
    verdict: Verdict
    reply: Reply | None = None
    error: str = ""  # in words, where there is no reply
    never_sent: bool = False  # nothing of the request has gone out
    timed_out: bool = False


def outcome_of(attempt: Attempt, member: Health, result: Reply | GatewayError) -> Outcome:
    """The outcome of an attempt that ended with this."""
    if isinstance(result, Reply):
        return Outcome(attempt, member, of_reply(result), result)
    never_sent, timed_out = isinstance(result, _NEVER_SENT), isinstance(result, UpstreamTimeout)
    return Outcome(attempt, member, of_error(result), None, result.message, never_sent, timed_out)


def of_reply(reply: Reply) -> Verdict:
    """The verdict on a deployment that gave this reply."""
    status = reply.status
    if status < 400:
        return Verdict.WELL
    if status == 429:
        # Azure throttles the deployment, whoever asks; other servers whose key it is.
        is_everybodys = reply.deployment.kind == "azure" or reply.deployment.key is not None
        return Verdict.THROTTLED if is_everybodys else Verdict.BLAMELESS
    if status >= 500:
        return Verdict.WELL if status in _CALLERS_OWN else Verdict.FAILED
    if status == 408:
        return Verdict.BLAMELESS
    if status in (401, 403) and reply.deployment.key is not None:
        return Verdict.FAILED
    if status in (400, 404) and isinstance(reply.body, bytes) and any(word in reply.body for word in _CODES):
        return _NOT_THERE.get(read_refusal(status, reply.headers, reply.body).code or "", Verdict.WELL)
    return Verdict.WELL


def of_error(error: GatewayError) -> Verdict:
    """The verdict on a deployment where this happened."""
    if isinstance(error, PoolTimeout):
        return Verdict.BLAMELESS
    if isinstance(error, UpstreamError) and error.code not in _NOT_ITS_FAULT:
        return Verdict.FAILED
    return Verdict.WELL


def is_sporadic(outcome: Outcome) -> bool:
    """Whether a failure is one that happens now and then to a deployment that is well."""
    if outcome.reply is not None:
        return outcome.reply.status not in _NOT_DONE
    return not (outcome.never_sent or outcome.timed_out)


def may_run_twice(call: Call) -> bool:
    """Whether it does no harm if two deployments answer it: a model may run again, but a batch is not made again."""
    if call.method in ("GET", "HEAD"):
        return is_held(call)
    if call.operation == "responses" and isinstance(call.body, bytes) and any(word in call.body for word in _ACTS):
        return False
    return call.operation in _RUNS_MODEL and is_held(call)


def is_held(call: Call) -> bool:
    """Whether the call's body is there still when it has been sent."""
    return isinstance(call.body, bytes) or call.body.is_repeatable


def may_be_repeated(outcome: Outcome, call: Call) -> bool:
    """Whether the call may be sent again after this: nobody has answered it, and nothing is done twice that counts."""
    if outcome.verdict is Verdict.WELL or not is_held(call):
        return False
    if may_run_twice(call):
        return True
    return outcome.never_sent if outcome.reply is None else outcome.reply.status in _NOT_DONE


def wait_before_again(outcome: Outcome, tries: int, left: float, wall: float, rng: Random) -> float | None:
    """How long to wait before the only deployment is asked again, in seconds; None if it is not.

    Args:
        outcome: how the last of the tries ended.
        tries: how many there were.
        left: how long the call may still wait.
        wall: the time, in seconds since 1970.
        rng: for jitter.
    """
    if outcome.reply is not None and outcome.reply.status in _IN_VAIN:
        return None
    if outcome.verdict is Verdict.THROTTLED and outcome.reply is not None:
        wait = wait_seconds(outcome.reply.headers, wall) or cool_down_seconds(outcome.reply.headers, wall)
        return wait if wait <= left else None
    wait = FIRST_BACKOFF_SECONDS * 2 ** (tries - 1) * rng.uniform(1, 1.5)
    return wait if wait <= left else None


def conclusion(outcomes: Sequence[Outcome], rest: Sequence[Health], *, model: str, now: float) -> Reply:
    """The reply when none of several deployments could answer: the refusal of one, if all throttle or know of nothing.

    Args:
        outcomes: what was tried.
        rest: the deployments that were not, of those that the call may go to.
        model: what was asked for; "" for the default model.
        now: the time by the clock that their times are of.

    Raises:
        Throttled: all do, and none was asked.
        NoUpstream: they fail, each in its way.
    """
    own = [outcome for outcome in outcomes if outcome.attempt.fallback is None]  # what a stand-in says is not of them
    seconds = _retry_after([*rest, *(outcome.member for outcome in own)], now)
    after = (b"retry-after", b"%d" % seconds)
    what = f'no deployment for model "{model}"' if model else "no deployment"
    have_failed = any(one.ejected_until and not one.is_missing for one in rest)
    if not own and (rest or not outcomes):
        if have_failed or any(one.is_full for one in rest):
            raise NoUpstream(f"{what} takes calls now: all are busy, throttled or failing", headers=(after,))
        message = f"{what} takes calls now: all are throttled; the first one does again in {seconds} s"
        raise Throttled(message, headers=(after,))
    refusals = [outcome.reply for outcome in own if outcome.reply is not None]
    if refusals and not have_failed and len(refusals) == len(own):
        if all(outcome.verdict is Verdict.THROTTLED for outcome in own):
            kept = [pair for pair in refusals[-1].headers if pair[0] not in WAITS]
            return structs.replace(refusals[-1], headers=(*kept, after))
        if len({reply.status for reply in refusals}) == 1 and refusals[-1].status in _SAID_BY_ALL:
            return refusals[-1]
    tried = "; ".join(f"{outcome.attempt.deployment.label}: {words_of(outcome)}" for outcome in outcomes)
    raise NoUpstream(f"{what} could answer: {tried}", headers=(after,))


def _retry_after(members: Sequence[Health], now: float) -> int:
    """Seconds until one of them may be asked; those that have failed are asked again whenever there is nobody else."""
    waits = [max(one.cooled_until - now, min(one.wait_seconds(now), 1.0)) for one in members]
    return max(1, math.ceil(min(waits, default=1.0)))


def words_of(outcome: Outcome) -> str:
    """What went wrong, in a line."""
    reply = outcome.reply
    if reply is None or not isinstance(reply.body, bytes):
        return " ".join(outcome.error.split())
    message = " ".join(read_refusal(reply.status, reply.headers, reply.body).message.split())
    return f"{reply.status} {message if len(message) <= MAX_WORDS else message[:MAX_WORDS] + '…'}"
