"""How long a resource takes. It decides how long to wait, and never waits."""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Latency:
    """What callers wait for.

    Args:
        first: seconds before an answer begins.
        between: seconds between the events of a stream.
        jitter: by which part of itself each wait is longer or shorter at random: 0.1 is up to a tenth.
        seed: equal seeds give equal waits in equal order.
    """

    first: float = 0.0
    between: float = 0.0
    jitter: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.first < 1e6 and 0 <= self.between < 1e6 and 0 <= self.jitter <= 1):
            raise ValueError("a latency is 0 or more seconds, its jitter 0 to 1")


class Pace:
    """The waits of one resource."""

    def __init__(self, latency: Latency) -> None:
        self.latency = latency
        self._random = random.Random(latency.seed)  # noqa: S311 - no secret: it is to be repeatable

    def first(self) -> float:
        """The seconds before the next answer."""
        return self._varied(self.latency.first)

    def between(self) -> float:
        """The seconds before the next event."""
        return self._varied(self.latency.between)

    def _varied(self, seconds: float) -> float:
        if not seconds or not self.latency.jitter:
            return seconds
        return seconds * (1 + self.latency.jitter * self._random.uniform(-1, 1))


def parse(text: str) -> Latency:
    """The latency in a text: `0.2`, or `0.2,0.01` with the seconds between events.

    Raises:
        ValueError: it is none.
    """
    first, comma, between = text.partition(",")
    try:
        return Latency(float(first), float(between) if comma else 0.0)
    except ValueError:
        raise ValueError(f"{text!r} is not SECONDS such as 0.2, or with those between events 0.2,0.01") from None
