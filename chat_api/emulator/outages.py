"""When a resource is out of order, and how. Pure: `now` is given, in seconds."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

REFUSED = "refused"  # nobody listens: it is the server that plays this one
FLAPPING = "flapping"
STATUSES = ("401", "403", "404", "408", "429", "500", "503")
KINDS = (*STATUSES, "hang", "reset", "closed", REFUSED, FLAPPING)
_NUMBER = r"\d{1,9}(?:\.\d{1,9})?"
_SCHEDULED = re.compile(rf"(?:([\w.-]+):)?({_NUMBER})\+({_NUMBER})=(\w+)(?:/({_NUMBER}))?")


@dataclass(frozen=True, slots=True)
class Outage:
    """One time out of order.

    Args:
        kind: what calls meet, one of `KINDS`: a status; `hang`, `reset` and `closed` without an answer; `refused`,
            while nobody listens; `flapping`, where every other call meets 503, the first of them one.
        deployment: which deployment is out of order; None: all of the resource.
        start: the seconds from when it was set, or, in a schedule, from when the emulator was made.
        seconds: how long it lasts.
        period: if it is not 0, it comes and goes: it is out of order for so many seconds, in order for as many.
    """

    kind: str
    deployment: str | None = None
    start: float = 0.0
    seconds: float = math.inf
    period: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.kind!r} is no kind of outage: {', '.join(KINDS)}")
        if self.kind == REFUSED and self.deployment is not None:
            raise ValueError("connections are refused by a whole resource, not by one deployment")

    def on(self, elapsed: float) -> bool:
        """Whether it is there, so many seconds after what its start counts from."""
        since = elapsed - self.start
        if not 0 <= since < self.seconds:
            return False
        return not self.period or int(since // self.period) % 2 == 0


def parse(text: str) -> Outage:
    """The outage in a text such as `10+60=503`, `10+60=503/5` or `gpt-4o:10+60=hang`.

    Raises:
        ValueError: it is none.
    """
    found = _SCHEDULED.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{text!r} is not START+SECONDS=KIND such as 10+60=503, with /PERIOD after it or DEPLOYMENT: before it"
        )
    deployment, start, seconds, kind, period = found.groups()
    return Outage(kind, deployment, float(start), float(seconds), float(period or 0))


class Outages:
    """The outages of one resource: those of a schedule, and the one that was set just now."""

    def __init__(self, schedule: Iterable[Outage], now: float) -> None:
        self.current: Outage | None = None
        self._since = self._made = now
        self._schedule = tuple(schedule)
        self._flaps = 0

    def set(self, outage: Outage | None, now: float) -> None:
        """Let an outage begin in the place of the one that was set before; None ends that one."""
        self.current, self._since, self._flaps = outage, now, 0

    def refuses(self, now: float) -> bool:
        """Whether nobody listens."""
        return any(outage.kind == REFUSED for outage in self._on(now))

    def met(self, deployment: str, now: float) -> str | None:
        """The kind of outage that a call of the deployment meets, a status or a word; None: all is well."""
        for outage in self._on(now):
            if outage.kind == REFUSED or outage.deployment not in (None, deployment):
                continue
            if outage.kind != FLAPPING:
                return outage.kind
            self._flaps += 1
            if self._flaps % 2:
                return "503"
        return None

    def _on(self, now: float) -> list[Outage]:
        current = [self.current] if self.current and self.current.on(now - self._since) else []
        return current + [outage for outage in self._schedule if outage.on(now - self._made)]
