"""The arithmetic: percentiles, medians over rounds with their spread, ratios round by round. Pure."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

Figures = Mapping[str, float]  # figure's name, which ends in its unit -> value


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of several rounds, with the smallest and the largest."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Failure:
    """A measurement that failed: the number of its round, of whom it was, and what went wrong."""

    round: int
    subject: str
    text: str


@dataclass(slots=True)
class Results:
    """What the rounds of one row gave.

    Args:
        rounds: for each round, the figures of each subject that was measured.
        faults: what went wrong.
    """

    rounds: list[dict[str, Figures]] = field(default_factory=list)
    faults: list[Failure] = field(default_factory=list)

    def values(self, subject: str, figure: str) -> list[float]:
        """A figure of a subject, round by round; rounds that lack it are left out."""
        return [one[subject][figure] for one in self.rounds if figure in one.get(subject, {})]

    def spread(self, subject: str, figure: str) -> Spread | None:
        """A figure of a subject over all rounds; None if no round has it."""
        return spread(self.values(subject, figure))

    def ratio(self, figure: str, subject: str, other: str) -> Spread | None:
        """How many times a figure of `other` a subject's is, over all rounds; None if no round has both.

        It is taken round by round: what slows a whole round down then slows both.
        """
        return spread(_pairwise(self.rounds, figure, subject, other, lambda ours, theirs: ours / theirs))

    def added(self, figure: str, subject: str, other: str) -> Spread | None:
        """By how much a figure of a subject exceeds that of `other`, over all rounds; None if no round has both."""
        return spread(_pairwise(self.rounds, figure, subject, other, lambda ours, theirs: ours - theirs))


def spread(values: Sequence[float]) -> Spread | None:
    """The median of some values, the smallest and the largest; None if there are none."""
    return Spread(statistics.median(values), min(values), max(values)) if values else None


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest of some values in ascending order that is not below so many percent of them (nearest rank).

    Raises:
        ValueError: there are no values.
    """
    if not ordered:
        raise ValueError("no values")
    return ordered[max(math.ceil(len(ordered) * percent / 100), 1) - 1]


def _pairwise(
    rounds: Sequence[Mapping[str, Figures]],
    figure: str,
    subject: str,
    other: str,
    combine: Callable[[float, float], float],
) -> list[float]:
    both = [(one.get(subject, {}), one.get(other, {})) for one in rounds]
    return [combine(ours[figure], theirs[figure]) for ours, theirs in both if figure in ours and figure in theirs]
