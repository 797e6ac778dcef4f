"""The attempt loop: pick a deployment, ask it, judge, fail over.

Invariant: every attempt is identical to the first except for the deployment, and for what that taught us
about its parameters. Nothing is repeated once a byte has gone downstream, and nothing is waited for,
unless there is only one deployment and RETRY_WAIT allows it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine
from dataclasses import dataclass
from typing import Any, NamedTuple

from msgspec import structs

from chat_api.asking import Asking
from chat_api.budget import RetryBudget
from chat_api.errors import GatewayError
from chat_api.health import Health
from chat_api.pool import Group, Tier
from chat_api.types import Attempt, Call, Reply, Resource
from chat_api.verdicts import (
    Outcome,
    Verdict,
    conclusion,
    may_be_repeated,
    may_run_twice,
    outcome_of,
    wait_before_again,
    words_of,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Retries:
    """What the settings say of attempts; seconds, 0 for never."""

    max_attempts: int = 5
    wait_seconds: float = 0.0  # for the only deployment
    hedge_seconds: float = 0.0  # of silence, before a second deployment is asked


class Asked(NamedTuple):
    """An attempt at a deployment, as it was picked."""

    member: Health
    tier: Tier
    attempt: Attempt
    is_last_resort: bool  # there was none that was available


class Relay:
    """Carries calls to deployments.

    Args:
        asking: asks one of them.
        budget: how many calls may be made again.
        retries: what the settings allow.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        asking: Asking,
        budget: RetryBudget,
        retries: Retries = Retries(),
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._asking = asking
        self.budget = budget
        self._retries = retries
        self._sleep = sleep
        self._abandoned: set[asyncio.Future[Any]] = set()  # tasks that end soon, and that nobody else remembers

    def exchange(
        self, call: Call, group: Group, *, barred: Collection[Health] = (), at: Resource | None = None
    ) -> Coroutine[Any, Any, Reply]:
        """The reply to a call: an answer, or the refusal that is left when nobody could give one.

        Args:
            call: what is asked; its `trail` gets every attempt.
            group: the deployments that may answer.
            barred: those among them that this caller may not use.
            at: the resource that the call belongs to, where it has to go.

        Raises:
            GatewayError: there is no credential, or no deployment could be reached or understood.
        """
        only = group.only
        if only is None or only.is_full:
            return self._over(call, group, barred, at)
        return self._again(call, only) if self._retries.wait_seconds else self._asking.ask(call, only)

    async def _over(self, call: Call, group: Group, barred: Collection[Health], at: Resource | None) -> Reply:
        """Ask one deployment after the other until one answers, each the best that is left."""
        self.budget.begin(self._asking.now())
        asked: list[Health] = [*barred]
        outcomes: list[Outcome] = []
        try:
            while (picked := self._next(call, group, outcomes, asked, at)) is not None:
                if self._retries.hedge_seconds and may_run_twice(call):
                    outcomes += await self._hedged(call, group, picked, asked, at)
                else:
                    outcomes.append(await self._outcome(call, picked))
                last = outcomes[-1]
                if last.reply is not None and self._is_final(last, call):
                    if last.verdict is Verdict.WELL and picked.is_last_resort:
                        group.may_be_back(self._asking.now())
                    return last.reply
        finally:
            self.budget.end()
        rest = [one for one in group.allowed(barred, at) if one not in asked]
        return conclusion(outcomes, rest, model=group.model, now=self._asking.now())

    def _is_final(self, outcome: Outcome, call: Call) -> bool:
        """Whether the caller gets just that: an answer, or what nobody else may be asked after."""
        return self._retries.max_attempts == 1 or not may_be_repeated(outcome, call)

    def _next(
        self, call: Call, group: Group, outcomes: list[Outcome], asked: list[Health], at: Resource | None
    ) -> Asked | None:
        """Pick the deployment of the next attempt, which begins; None if there is to be none."""
        now = self._asking.now()
        is_retry = bool(outcomes) and outcomes[-1].verdict is not Verdict.ELSEWHERE  # looking for a thing is none
        if is_retry and len(call.trail) >= self._retries.max_attempts:
            return None
        picked = group.pick(now, asked, at=at, probe=may_run_twice(call))
        picked = picked or group.least_bad(now, asked, at=at)
        if picked is None or (is_retry and not self.budget.take(now)):
            return None
        return self._begun(call, picked, asked)

    def _begun(self, call: Call, picked: tuple[Health, Tier], asked: list[Health]) -> Asked:
        """An attempt has its place from the moment it is picked: the next call is not to count on it."""
        member, tier = picked
        asked.append(member)
        is_last_resort = not member.is_available(self._asking.now())
        return Asked(member, tier, self._asking.begin(call, member, tier.fallback), is_last_resort)

    async def _outcome(self, call: Call, asked: Asked) -> Outcome:
        """Ask one of several; what is not its fault is raised."""
        try:
            outcome = outcome_of(asked.attempt, asked.member, await self._asking.ask(call, asked.member, asked.attempt))
        except GatewayError as error:
            outcome = outcome_of(asked.attempt, asked.member, error)
            if self._is_final(outcome, call):
                raise
        if outcome.verdict is Verdict.WELL and asked.attempt.status >= 400:
            outcome = structs.replace(outcome, verdict=_verdict(asked))
        if outcome.verdict is not Verdict.WELL:
            _log(call, outcome, self._asking.now())
        return outcome

    async def _hedged(
        self, call: Call, group: Group, first: Asked, asked: list[Health], at: Resource | None
    ) -> list[Outcome]:
        """Ask one, and a second one if it says nothing for a while; the best outcome comes last."""
        running = {asyncio.ensure_future(self._outcome(call, first)): first}
        early = next(iter(running))
        outcomes: list[Outcome] = []
        try:
            await asyncio.wait(running, timeout=self._retries.hedge_seconds)
            if not early.done() and (second := self._second(call, group, first, asked, at)):
                running[asyncio.ensure_future(self._outcome(call, second))] = second
            while running and not (outcomes and _rank(outcomes[-1]) == BEST):
                task = (await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED))[0].pop()
                del running[task]
                outcomes.append(task.result())
                outcomes.sort(key=_rank)
            if early in running:
                first.member.was_slower(first.attempt, self._asking.now(), self._asking.rng)
            _put_last(call.trail, outcomes[-1].attempt)
            return outcomes
        finally:
            for task, one in running.items():
                self._abandon(call, task, one)
            del task, early, running  # an error's trace knows this frame

    def _second(self, call: Call, group: Group, first: Asked, asked: list[Health], at: Resource | None) -> Asked | None:
        """The hedge: another deployment of the same model, that is known to be well."""
        now = self._asking.now()
        if len(call.trail) >= self._retries.max_attempts:
            return None
        picked = group.pick(now, asked, at=at, probe=False)
        if picked is None or picked[0].ejected_until or picked[1].fallback != first.tier.fallback:
            return None
        return self._begun(call, picked, asked) if self.budget.take(now) else None

    def _abandon(self, call: Call, task: asyncio.Future[Outcome], asked: Asked) -> None:
        """Cancel what is still being asked; what answers nevertheless is closed."""
        number, label = _number(call, asked.attempt), asked.member.deployment.label
        log.info("attempt %d of request %s at %s: dropped before its answer", number, call.request_id, label)

        def dispose(task: asyncio.Future[Outcome]) -> None:
            self._abandoned.discard(task)
            if not asked.attempt.ended:  # it had not even begun
                asked.attempt.ended = self._asking.now()
                asked.member.release(asked.attempt)
            reply = None if task.cancelled() or task.exception() else task.result().reply
            if reply is not None and not isinstance(reply.body, bytes):
                closing = asyncio.ensure_future(reply.body.aclose())
                self._abandoned.add(closing)
                closing.add_done_callback(self._abandoned.discard)

        self._abandoned.add(task)
        task.add_done_callback(dispose)
        task.cancel()

    async def _again(self, call: Call, member: Health) -> Reply:
        """Ask the only deployment, and wait for it where that is short."""
        left = self._retries.wait_seconds
        self.budget.begin(self._asking.now())
        try:
            return await self._until_answered(call, member, left)
        finally:
            self.budget.end()

    async def _until_answered(self, call: Call, member: Health, left: float) -> Reply:
        while True:
            attempt = self._asking.begin(call, member)
            try:
                reply = await self._asking.ask(call, member, attempt)
                outcome = outcome_of(attempt, member, reply)
                if (wait := self._wait(call, outcome, left)) is None:
                    return reply
            except GatewayError as error:
                outcome = outcome_of(attempt, member, error)
                if (wait := self._wait(call, outcome, left)) is None:
                    raise
            _log(call, outcome, self._asking.now())
            left -= wait
            await self._sleep(wait)

    def _wait(self, call: Call, outcome: Outcome, left: float) -> float | None:
        tries = len(call.trail)
        if tries >= self._retries.max_attempts or not may_be_repeated(outcome, call):
            return None
        wait = wait_before_again(outcome, tries, left, self._asking.wall(), self._asking.rng)
        return wait if wait is not None and self.budget.take(self._asking.now()) else None


def _verdict(asked: Asked) -> Verdict:
    """The verdict on a refusal that is the caller's own, if it is the last word.

    It is not that of a stand-in, whose model is another, nor that of one that has not what is looked for.
    """
    if asked.tier.is_search and asked.attempt.status == 404:
        return Verdict.ELSEWHERE
    return Verdict.BLAMELESS if asked.tier.fallback is not None else Verdict.WELL


BEST = 2


def _rank(outcome: Outcome) -> int:
    """How good an outcome is: an answer, a refusal that is the caller's own, nothing."""
    if outcome.verdict is not Verdict.WELL:
        return 0
    return BEST if outcome.attempt.status < 400 else BEST - 1


def _put_last(trail: list[Attempt], attempt: Attempt) -> None:
    """The attempt that answered comes last, whenever it began."""
    if trail[-1] is not attempt:
        trail.remove(attempt)
        trail.append(attempt)


def _number(call: Call, attempt: Attempt) -> int:
    return 1 + sum(other.started < attempt.started for other in call.trail)


def _log(call: Call, outcome: Outcome, now: float) -> None:
    """One line for each attempt that was not the call's answer; that one is in the access log."""
    level = logging.WARNING if outcome.verdict is Verdict.FAILED else logging.INFO
    member, wait = outcome.member, outcome.member.wait_seconds(now)
    then = f"; {member.state(now)} for {wait:.1f} s" if wait else ""
    number, label = _number(call, outcome.attempt), member.deployment.label
    log.log(level, "attempt %d of request %s at %s: %s%s", number, call.request_id, label, words_of(outcome), then)
