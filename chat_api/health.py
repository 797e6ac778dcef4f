"""What is known of one deployment: whether it can take a call, and how much it should get. Pure; `now` is an argument.

Everything is learned from calls. A 429 cools a deployment down for as long as it asks. A failure ejects
it, for longer each time it fails again; then one call is let through to see (half-open), and its answer
closes the breaker. A client that leaves says nothing about anybody.
"""

from random import Random

from chat_api.retrying import Quota, quota_of
from chat_api.types import Attempt, Deployment, Headers

FIRST_EJECTION_SECONDS = 1.0
MAX_EJECTION_SECONDS = 60.0
JITTER = 0.2  # of an ejection: several processes do not come back at the same moment
STRIKES = 2
MAX_SLOW = 3  # hedges lost in a row; the next one is a failure
PROBE_PATIENCE_SECONDS = 10.0  # after which another call may see whether it is back: the first may take minutes
LEAST_COOL_DOWN_SECONDS = 0.1
LOW_QUOTA = 0.2  # of the limit: with less left, the share goes down
LEAST_SHARE = 0.05
LOOK_SECONDS = 0.2  # between two looks at what is left

NEVER = float("-inf")

AVAILABLE, FULL, COOLING_DOWN, EJECTED, HALF_OPEN = "available", "full", "cooling down", "ejected", "half-open"


class Health:
    """One deployment's.

    Attributes:
        in_flight: calls that it is answering.
        cooled_until: when it may be asked again after a 429.
        ejected_until: when it may be tried again after a failure; 0 with the breaker closed.
        calls, failures, throttled: how many there were.
        last_error: the time (seconds since 1970) and the words of the last failure or 429.
        told: the headers of its last good answer, which tell of its quota, and when they came.
    """

    __slots__ = (
        "_ejected_at",
        "_ejections",
        "_probe",
        "_relapse_until",
        "_share",
        "_share_until",
        "_slow",
        "_strikes",
        "calls",
        "cooled_until",
        "deployment",
        "ejected_until",
        "failures",
        "in_flight",
        "last_error",
        "throttled",
        "told",
    )

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.in_flight = 0
        self.cooled_until = 0.0
        self.ejected_until = 0.0
        self._ejected_at = NEVER
        self._ejections = 0  # in a row, with no long good time between
        self._relapse_until = 0.0  # a failure before that is one more in the row
        self._probe: Attempt | None = None
        self._slow = 0
        self._strikes = 0  # failures in a row, with the breaker closed
        self.told: tuple[Headers, float] = ((), 0.0)
        self._share = 1.0
        self._share_until = NEVER
        self.calls = self.failures = self.throttled = 0
        self.last_error: tuple[float, str] | None = None

    def state(self, now: float) -> str:
        """What it is, in a word or two."""
        if now < self.cooled_until:
            return COOLING_DOWN
        if now < self.ejected_until:
            return EJECTED
        if self.is_full:
            return FULL
        return HALF_OPEN if self.ejected_until else AVAILABLE

    def is_available(self, now: float) -> bool:
        """Whether it can take a call now: neither paused nor full, and half-open only until somebody tries."""
        if now < self.cooled_until or now < self.ejected_until or self.is_full:
            return False
        return not self.ejected_until or self._probe is None or now - self._probe.started >= PROBE_PATIENCE_SECONDS

    @property
    def is_full(self) -> bool:
        """Whether it has as many calls as it may have at a time."""
        most = self.deployment.max_in_flight
        return most is not None and self.in_flight >= most

    def share(self, now: float) -> float:
        """The part of its weight that it gets: less as its quota runs out, so that it gets less before it throttles."""
        if now >= self._share_until:
            left = self.quota().left(now)
            self._share = 1.0 if left >= LOW_QUOTA else max(left / LOW_QUOTA, LEAST_SHARE)
            self._share_until = now + LOOK_SECONDS
        return self._share

    def quota(self) -> Quota:
        """What its last good answer said is left."""
        return quota_of(*self.told)

    def wait_seconds(self, now: float) -> float:
        """How long until it may be asked; 0 if it may be now."""
        return max(0.0, self.cooled_until - now, self.ejected_until - now)

    def begin(self, now: float) -> Attempt:
        """A call goes there; every one that begins is released."""
        self.in_flight += 1
        self.calls += 1
        attempt = Attempt(self.deployment, now)
        if self.ejected_until:
            self._probe = attempt
        return attempt

    def release(self, attempt: Attempt) -> None:
        """The call is over, or nobody waits for it any more."""
        self.in_flight -= 1
        if self._probe is attempt:
            self._probe = None

    def answered(self, attempt: Attempt, *, is_whole: bool = True) -> bool:
        """It has answered, whatever it said of the call, or has begun to; whether that closes the breaker."""
        self._slow = 0
        if is_whole:
            self._strikes = 0
        if not self.ejected_until or attempt.started <= self._ejected_at:  # an answer of better days
            return False
        self.ejected_until = 0.0
        self._probe = None
        return True

    def cool_down(self, attempt: Attempt, seconds: float, now: float) -> None:
        """It throttles, and asks to be left alone for so long; it is there, then."""
        self.throttled += 1
        self.cooled_until = max(self.cooled_until, now + max(seconds, LEAST_COOL_DOWN_SECONDS))
        self.answered(attempt)

    def fail(
        self, attempt: Attempt, now: float, rng: Random, *, at_least: float = 0.0, is_sporadic: bool = False
    ) -> None:
        """It has failed: ejected, for twice as long as the last time if that was not long ago.

        What began before the ejection or within it says nothing new: a hundred calls that break together are
        one failure, and so are those that are sent to the least bad where all are down. Of what happens
        now and then to those who are well it takes two in a row.
        """
        self.failures += 1
        if attempt.started <= self._ejected_at or attempt.started < self.ejected_until:
            return
        self._strikes += 1
        if is_sporadic and self._strikes < STRIKES and not self.ejected_until:
            return
        self._ejections = self._ejections + 1 if self.ejected_until or now < self._relapse_until else 1
        seconds = min(FIRST_EJECTION_SECONDS * 2 ** min(self._ejections - 1, 10), MAX_EJECTION_SECONDS)
        seconds = max(seconds * rng.uniform(1 - JITTER, 1), at_least)
        self._ejected_at = now
        self.ejected_until = now + seconds
        self._relapse_until = now + 2 * seconds
        self._slow = self._strikes = 0

    def was_slower(self, attempt: Attempt, now: float, rng: Random) -> None:
        """Another deployment, asked later, has answered first. Once says little, again and again is a failure."""
        self._slow += 1
        if self._slow > MAX_SLOW or self.ejected_until:
            self.fail(attempt, now, rng)

    def may_be_back(self, now: float) -> None:
        """Others that had failed with it are back: whether it is as well may be seen now."""
        if self.ejected_until:
            self.ejected_until = min(self.ejected_until, now)

    @property
    def is_known(self) -> bool:
        """Whether it has answered well, or failed otherwise than by not being there."""
        return bool(self.told[0]) or ((self.failures or self.throttled) > 0 and not self.is_missing)

    @property
    def is_missing(self) -> bool:
        """Whether there is no such deployment, as it said last."""
        return self.last_error is not None and self.last_error[1] == "404"

    def note(self, when: float, words: str) -> None:
        """Keep what went wrong for those who ask."""
        self.last_error = (when, words)
