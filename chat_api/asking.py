"""One attempt: a deployment is asked, has a place taken until its answer has been read, and is judged by it."""

import logging
import time
from collections.abc import Callable
from random import Random

from chat_api.budget import RetryBudget
from chat_api.errors import GatewayError, UpstreamError
from chat_api.health import MAX_EJECTION_SECONDS, Health
from chat_api.judging import RelayedBody
from chat_api.retrying import cool_down_seconds, wait_seconds
from chat_api.sending import Sending
from chat_api.types import Attempt, Call, Reply, Transport
from chat_api.verdicts import Outcome, Verdict, is_sporadic, outcome_of

MAX_STRAINED_SECONDS = 60.0  # of cool-down, whatever was asked for, when hardly a retry is left

log = logging.getLogger(__name__)


class Asking:
    """Asks deployments, and keeps their health.

    Args:
        transport: sends requests.
        budget: when it runs out, deployments that throttle are left alone for longer.
        now: the clock, in seconds.
        wall: the time, in seconds since 1970.
        rng: for jitter.
    """

    def __init__(
        self,
        transport: Transport,
        budget: RetryBudget,
        *,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        rng: Random | None = None,
    ) -> None:
        self._sending = Sending(transport)
        self._budget = budget
        self.now = now
        self.wall = wall
        self.rng = rng or Random()  # noqa: S311 - jitter is no secret

    def begin(self, call: Call, member: Health, fallback: str | None = None) -> Attempt:
        """The next attempt of a call, which `ask` then ends.

        Args:
            call: what is asked.
            member: who is asked.
            fallback: the model that it stands for, if that is not the one that was asked for.
        """
        attempt = member.begin(self.now())
        attempt.fallback = fallback
        call.trail.append(attempt)
        return attempt

    async def ask(self, call: Call, member: Health, attempt: Attempt | None = None) -> Reply:
        """The deployment's reply (`Sending.send`); what it says of the deployment is noted.

        Args:
            call: what is asked.
            member: who is asked.
            attempt: the one that has begun; without it one begins now.

        Raises:
            GatewayError: there is no credential, or the upstream could not be reached or understood.
        """
        if attempt is None:
            attempt = self.begin(call, member)
        try:
            reply = await self._sending.send(call, attempt)
        except BaseException as error:
            attempt.ended = self.now()
            member.release(attempt)
            if isinstance(error, GatewayError):
                attempt.code = error.code
                self._learn(outcome_of(attempt, member, error))
            raise
        attempt.ended = self.now()
        attempt.status = reply.status
        if isinstance(reply.body, RelayedBody):
            reply.body.place = _Place(self, member, attempt)
        else:
            member.release(attempt)
        if reply.status >= 400:
            self._learn(outcome_of(attempt, member, reply))
            return reply
        member.told = (reply.headers, attempt.ended)
        if member.answered(attempt, is_whole=isinstance(reply.body, bytes)):
            log.info("%s answers again", member.deployment.label)
        return reply

    def broke(self, member: Health, attempt: Attempt, error: UpstreamError) -> None:
        """An answer has broken off while it was read."""
        attempt.code = error.code
        self._learn(outcome_of(attempt, member, error))

    def _learn(self, outcome: Outcome) -> None:
        """Take note of what an outcome says of the deployment."""
        now, wall, attempt, member = self.now(), self.wall(), outcome.attempt, outcome.member
        headers = outcome.reply.headers if outcome.reply is not None else ()
        match outcome.verdict:
            case Verdict.WELL:
                if outcome.reply is not None:  # else it was not asked at all, or its answer was beyond every measure
                    member.answered(attempt)
                return
            case Verdict.THROTTLED:
                least = MAX_STRAINED_SECONDS * max(0.0, 2 * self._budget.strain(now) - 1) ** 3
                member.cool_down(attempt, max(cool_down_seconds(headers, wall), least), now)
            case Verdict.FAILED:
                asked = min(wait_seconds(headers, wall) or 0.0, MAX_EJECTION_SECONDS)
                member.fail(attempt, now, self.rng, at_least=asked, is_sporadic=is_sporadic(outcome))
        member.note(wall, str(attempt.status) if outcome.reply is not None else str(attempt.code))


class _Place:
    """What a body that is still arriving takes up at its deployment (`judging.Place`)."""

    __slots__ = ("_asking", "_attempt", "_has_broken", "_member")

    def __init__(self, asking: Asking, member: Health, attempt: Attempt) -> None:
        self._asking = asking
        self._member: Health | None = member
        self._attempt = attempt
        self._has_broken = False

    def broke(self, error: UpstreamError) -> None:
        if self._member is not None:
            self._asking.broke(self._member, self._attempt, error)
            self._has_broken = True

    def leave(self) -> None:
        member, self._member = self._member, None
        if member is not None:
            member.release(self._attempt)
            if not self._has_broken:
                member.answered(self._attempt)
