"""Counts for one process. Every call passes here twice, so that it is written for speed."""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from chat_api.counting import FIXED, PARALLEL, Claim, Counters, Grant, Reading
from chat_api.stores.account import Account, Subject

MAX_SUBJECTS = 50_000  # addresses among them
LOOKED_AT = 2  # of those that are known, for each that is new: so that those with nothing left go sooner than they come
PARALLEL_WAIT_SECONDS = 1.0  # nobody knows when a call will end


class MemoryStore:
    """A `Store` that lives and dies with the process.

    Args:
        clock: the time, in seconds.
        max_subjects: how many it remembers; beyond that old ones are forgotten, but for those with calls in flight.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, max_subjects: int = MAX_SUBJECTS) -> None:
        self._clock = clock
        self._max_subjects = max_subjects
        self._subjects: OrderedDict[str, Subject] = OrderedDict()

    def account(self, counters: Counters) -> Account | None:
        """Who counts the ordinary calls that are counted so, sooner than `admit` does; None if nobody can."""
        together = (*counters.requests, *counters.tokens, *counters.budget, *counters.of_model)
        own = self._subjects.get(counters.subject)
        model = self._subjects.get(counters.model_subject) if counters.of_model else None
        if own is None or (model is None and counters.of_model) or any(one.strategy != FIXED for one in together):
            return None  # until there is something to have at hand
        return Account(self._clock, counters, own, model)

    def admit(self, claims: Sequence[Claim]) -> Grant:
        """Charge the claims of a call and take its places, if every one of them is within its limits."""
        now = int(self._clock() * 1000)
        readings: list[Reading] = []
        for nth, claim in enumerate(claims):
            subject = self._subjects.get(claim.subject) or self._new(claim.subject, now)
            if claim.max_parallel and subject.in_flight >= claim.max_parallel:
                return self._refuse(claims, nth, readings, now)
            subject.in_flight += 1
            windows = subject.windows
            for counter, amount in claim.charges:
                window = windows.get(counter.name) or subject.window(counter)
                reading = window.take(amount, counter.limit, now)
                if reading is None:
                    return self._refuse(claims, nth + 1, readings, now)
                readings.append(reading)
        return Grant(tuple(readings))

    def _refuse(self, claims: Sequence[Claim], places: int, taken: Sequence[Reading], now: int) -> Grant:
        """Give back the places and the charges that were taken already; tell what it is that takes longest to fit."""
        self._give_back(claims, places, taken, now)
        refused: int | None = None
        refused_claim = longest_ms = 0
        readings: list[Reading] = []
        for nth, claim in enumerate(claims):
            subject = self._subjects.get(claim.subject) or self._new(claim.subject, now)
            if refused is None and claim.max_parallel and subject.in_flight >= claim.max_parallel:
                refused, refused_claim = PARALLEL, nth
            for counter, amount in claim.charges:
                window = subject.window(counter)
                used = window.look(now)
                window.touch(now)
                if used + max(amount, 1) > counter.limit:
                    wait_ms = window.wait_ms(max(amount, 1), counter.limit, now)
                    if wait_ms > longest_ms:
                        refused, refused_claim, longest_ms = len(readings), nth, wait_ms
                readings.append(window.reading(counter.limit, now))
        return Grant(tuple(readings), refused, refused_claim, longest_ms / 1000 or PARALLEL_WAIT_SECONDS)

    def _give_back(self, claims: Sequence[Claim], places: int, taken: Sequence[Reading], now: int) -> None:
        for claim in claims[:places]:
            self._subjects[claim.subject].in_flight -= 1
        charged = [(claim.subject, *charge) for claim in claims for charge in claim.charges]
        for (subject, counter, amount), reading in zip(charged, taken, strict=False):
            self._subjects[subject].window(counter).correct(reading.stamp, -amount, now)

    def settle(self, claims: Sequence[Claim], grant: Grant, changes: Sequence[int]) -> None:
        """A call that was granted is over: correct each of its charges by so much, and give its places back."""
        if grant.refused is not None:
            return
        place = now = 0
        for claim in claims:
            subject = self._subjects[claim.subject]
            subject.in_flight -= 1
            for counter, _ in claim.charges:
                if change := changes[place]:
                    now = now or int(self._clock() * 1000)
                    subject.windows[counter.name].correct(grant.readings[place].stamp, change, now)
                place += 1

    def _new(self, name: str, now: int) -> Subject:
        """Make room for a subject."""
        for _ in range(min(LOOKED_AT, len(self._subjects))):
            oldest, known = next(iter(self._subjects.items()))
            is_one_too_many = len(self._subjects) >= self._max_subjects and not known.in_flight
            if is_one_too_many or not known.is_used(now):
                del self._subjects[oldest]
                known.forget()
            else:
                self._subjects.move_to_end(oldest)
        subject = self._subjects[name] = Subject()
        return subject

    def state(self) -> Mapping[str, object]:
        """What operators are told of it."""
        return {"kind": "memory"}

    async def aclose(self) -> None:
        """There is nothing to let go of."""
