"""What a process holds at some moments of a soak run, and whether that is no more than it should be. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.processes import Ended
from benchmarks.report import aligned

MAX_GROWTH_PERCENT = 5.0  # of resident memory; that there is less of it is no leak
MAX_END_SECONDS = 2.0  # an end that waits for anything takes the 30 s of DRAIN_TIMEOUT
_TROUBLE = re.compile(r"Traceback \(|never retrieved|never awaited|was destroyed| ERROR | CRITICAL ")


@dataclass(frozen=True, slots=True)
class Holding:
    """What the process holds at one moment.

    Args:
        name: which moment that is.
        resident_bytes: its memory.
        files: its file descriptors, connections included.
        clients: connections with clients.
        upstreams: connections with the upstream.
    """

    name: str
    resident_bytes: int
    files: int
    clients: int
    upstreams: int

    @property
    def other_files(self) -> int:
        """File descriptors that are no connections."""
        return self.files - self.clients - self.upstreams


@dataclass(frozen=True, slots=True)
class Course:
    """How a soak run went.

    Args:
        started: what the process held when it had answered one request.
        warm: the same after the warm-up, the load's connections open.
        points: the same on the way.
        end: the same after all clients had left.
        open_streams: how many calls the upstream was still answering then.
        waited: whether the upstream's connections had the time to expire.
        ended: how the process ended.
        printed: all that it printed.
        faults: answers that were not right.
    """

    started: Holding
    warm: Holding
    points: Sequence[Holding]
    end: Holding
    open_streams: int
    waited: bool
    ended: Ended
    printed: str = ""
    faults: Sequence[str] = field(default=())


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was to be, what was found, and whether that is it."""

    text: str
    wanted: str
    found: str
    is_met: bool


def findings(course: Course) -> list[Finding]:
    """Everything that was to be, judged."""
    return [*_answers(course), *_memory(course), *_connections(course), *_end(course)]


def _answers(course: Course) -> list[Finding]:
    trouble = [line for line in course.printed.splitlines() if _TROUBLE.search(line)]
    return [
        Finding("answers that were not right", "0", str(len(course.faults)), not course.faults),
        Finding("errors in its log", "0", str(len(trouble)), not trouble),
    ]


def _memory(course: Course) -> list[Finding]:
    growths = [(one.resident_bytes / course.warm.resident_bytes - 1) * 100 for one in (*course.points, course.end)]
    wanted = f"at most +{MAX_GROWTH_PERCENT:g} %"
    texts = ("memory, most on the way", "memory at the end")
    values = (max(growths), growths[-1])
    return [
        Finding(text, wanted, f"{value:+.1f} %", value <= MAX_GROWTH_PERCENT)
        for text, value in zip(texts, values, strict=True)
    ]


def _connections(course: Course) -> list[Finding]:
    end, started = course.end, course.started
    found = [
        _none("connections of clients at the end", end.clients),
        _none("calls open at the upstream at the end", course.open_streams),
        _as_before("other file descriptors at the end", started.other_files, end.other_files),
    ]
    if course.waited:
        found.append(_none("connections to the upstream at the end", end.upstreams))
        files = started.files - started.clients - started.upstreams
        found.append(_as_before("all file descriptors at the end", files, end.files))
    return found


def _none(text: str, count: int) -> Finding:
    return Finding(text, "0", str(count), count == 0)


def _as_before(text: str, before: int, after: int) -> Finding:
    return Finding(text, f"{before}, as before", str(after), after == before)


def _end(course: Course) -> list[Finding]:
    ended = course.ended
    code = "killed" if ended.code is None else str(ended.code)
    waits = "in flight" in ended.output
    return [
        Finding("exit code after SIGTERM", "0", code, ended.code == 0),
        Finding("time from SIGTERM to its end", f"{MAX_END_SECONDS:g} s", f"{ended.seconds:.2f} s", _at_once(ended)),
        Finding('waits for what is "in flight"', "no", "yes" if waits else "no", not waits),
    ]


def _at_once(ended: Ended) -> bool:
    return ended.seconds <= MAX_END_SECONDS


def counts_table(counts: Mapping[str, int]) -> str:
    """How many of each kind it took."""
    return "\n".join(aligned([["", "number"], *([name, f"{count:,}"] for name, count in counts.items())]))


def moments_table(course: Course) -> str:
    """What was held at each moment."""
    lines = [["", "memory, MB", "to warm", "files", "of clients", "to upstream", "others"]]
    for one in (course.started, course.warm, *course.points, course.end):
        growth = (one.resident_bytes / course.warm.resident_bytes - 1) * 100
        counts = map(str, (one.files, one.clients, one.upstreams, one.other_files))
        lines.append([one.name, f"{one.resident_bytes / 1e6:.2f}", f"{growth:+.1f} %", *counts])
    return "\n".join(aligned(lines))


def findings_table(found: Sequence[Finding]) -> str:
    """What was to be, and whether it is."""
    lines = [["", "wanted", "found", "met"]]
    lines += [[one.text, one.wanted, one.found, "yes" if one.is_met else "NO"] for one in found]
    return "\n".join(aligned(lines))


def document(about: Mapping[str, str], counts: Mapping[str, int], course: Course) -> dict[str, Any]:
    """Everything as JSON: on what, how many of each kind, each moment, what was found."""
    return {
        "about": dict(about),
        "counts": dict(counts),
        "moments": [asdict(one) for one in (course.started, course.warm, *course.points, course.end)],
        "findings": [asdict(one) for one in findings(course)],
        "faults": list(course.faults),
    }
