"""What the figures are to be, as ratios to what was measured beside them; the gateway's promises to itself. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.figures import Results, Spread
from benchmarks.subjects import CACHED, COALESCING, DIRECT, LIMITED, LOGGED, NGINX, OURS, PLAIN, STARLETTE

CPU_A_REQUEST, CPU_A_CHUNK = "cpu_us_per_request", "cpu_us_per_chunk"


@dataclass(frozen=True, slots=True)
class Target:
    """A figure that is not to exceed a limit.

    Args:
        row: the row that it is taken from.
        text: what it is.
        limit: what it is not to exceed.
        unit: of the limit and the figure.
        figure: takes it from the row's results.
    """

    row: str
    text: str
    limit: float
    unit: str
    figure: Callable[[Results], Spread | None]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a target; the value is None where it was not measured, and then it is not met."""

    target: Target
    value: float | None

    @property
    def is_met(self) -> bool:
        """Whether the figure was measured, and is within the limit."""
        return self.value is not None and self.value <= self.target.limit


def _times(figure: str, other: str, subject: str = OURS) -> Callable[[Results], Spread | None]:
    return lambda results: results.ratio(figure, subject, other)


def _added(figure: str, subject: str, other: str) -> Callable[[Results], Spread | None]:
    return lambda results: results.added(figure, subject, other)


def _own(figure: str) -> Callable[[Results], Spread | None]:
    return lambda results: results.spread(OURS, figure)


TARGETS = (
    Target("json-1k", "CPU of relayed JSON", 5, "x nginx", _times(CPU_A_REQUEST, NGINX)),
    Target("json-1k", "CPU of relayed JSON", 1 / 8, "x plain", _times(CPU_A_REQUEST, PLAIN)),
    Target("json-1k", "CPU of keys, limits, usage", 10, "µs", _added(CPU_A_REQUEST, LIMITED, OURS)),
    Target("json-1k", "CPU of coalescing", 10, "µs", _added(CPU_A_REQUEST, COALESCING, OURS)),
    Target("json-1k", "CPU of the conversation log", 10, "µs", _added(CPU_A_REQUEST, LOGGED, OURS)),
    Target("chat-json", "CPU of /v1/gpt/chat", 6, "x nginx", _times(CPU_A_REQUEST, NGINX)),
    Target("chat-json", "CPU of keys, limits, usage", 10, "µs", _added(CPU_A_REQUEST, LIMITED, OURS)),
    Target("cache-hit", "CPU of a kept answer", 1.3, "x starlette", _times(CPU_A_REQUEST, STARLETTE, CACHED)),
    Target("stream-fast", "CPU of a relayed chunk", 2, "x nginx", _times(CPU_A_CHUNK, NGINX)),
    Target("stream-fast", "the same, with limits", 2, "x nginx", _times(CPU_A_CHUNK, NGINX, LIMITED)),
    Target("streams-500", "CPU of a relayed chunk", 2, "x nginx", _times(CPU_A_CHUNK, NGINX)),
    Target("streams-2000", "CPU of a relayed chunk", 2, "x nginx", _times(CPU_A_CHUNK, NGINX)),
    Target("streams-2000", "faults in streams", 0, "", lambda results: _faults(results)),
    Target("streams-2000", "added to the gap, p99", 15, "ms", _added("gap_p99_ms", OURS, DIRECT)),
    Target("streams-2000", "memory of a stream", 30, "kB", _own("resident_kb_per_stream")),
    Target("start", "start to first answer", 500, "ms", _own("start_ms")),
    Target("start", "the same, with the emulator", 500, "ms", _own("start_emulator_ms")),
    Target("idle", "memory when idle", 60, "MB", _own("resident_mb")),
)


def judged(rows: Mapping[str, Results]) -> list[Verdict]:
    """Every target with what was measured for it; those of rows that did not run are left out."""
    spreads = [(target, target.figure(rows[target.row])) for target in TARGETS if target.row in rows]
    return [Verdict(target, found.median if found else None) for target, found in spreads]


def _faults(results: Results) -> Spread | None:
    """How many measurements of this gateway failed; None if there was none of it at all."""
    faults = float(sum(fault.subject == OURS for fault in results.faults))
    measured = any(OURS in one for one in results.rounds)
    return Spread(faults, faults, faults) if measured or faults else None
