"""The figures as tables for people, and as one JSON document. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.figures import Results, Spread
from benchmarks.subjects import CACHED, DIRECT, NGINX, OURS, PLAIN, STARLETTE, WITHOUT_CACHE
from benchmarks.targets import Verdict

NONE = "-"  # where there is no figure
_RATIO, _ADDED = "ratio", "added"
_COMPARED = ((OURS, NGINX), (OURS, PLAIN), (CACHED, STARLETTE))
# Each figure in the order of a table: what it is called there, and how it is compared.
_SHOWN = {
    "cpu_us_per_request": ("CPU, µs a request", _RATIO),
    "cpu_us_per_chunk": ("CPU, µs a chunk", _RATIO),
    "cpu_percent": ("CPU, % of the core", None),
    "requests_per_s": ("requests a second", None),
    "first_chunk_p50_ms": ("first chunk p50, ms", _ADDED),
    "first_chunk_p99_ms": ("first chunk p99, ms", _ADDED),
    "gap_p50_ms": ("gap p50, ms", _ADDED),
    "gap_p99_ms": ("gap p99, ms", _ADDED),
    "resident_kb_per_stream": ("memory, kB a stream", _RATIO),
    "start_ms": ("with an upstream, ms", None),
    "start_emulator_ms": ("with the emulator, ms", None),
    "resident_mb": ("memory, MB", None),
}


def row_table(name: str, title: str, results: Results, subjects: Sequence[str]) -> str:
    """A row's figures: a column for each subject, then the ratios; median (lowest to highest) of the rounds."""
    compared = [pair for pair in _COMPARED if {*pair} <= {*subjects}]
    lines = [["", *subjects, *map("/".join, compared)]]
    for figure, (label, comparison) in _SHOWN.items():
        spreads = [results.spread(subject, figure) for subject in subjects]
        if any(spreads):
            ratios = [results.ratio(figure, *pair) if comparison == _RATIO else None for pair in compared]
            lines.append([label, *map(_cell, [*spreads, *ratios])])
        for than, more in _beside(subjects, comparison):
            added = [results.added(figure, subject, than) if subject in more else None for subject in subjects]
            if any(added):
                lines.append([f"  added to {than}", *map(_cell, [*added, *([None] * len(compared))])])
    notes = [_overrun(results, subject) for subject in subjects]
    faults = [f"  FAULT in round {fault.round}, {fault.subject}: {fault.text}" for fault in results.faults]
    return "\n".join([f"{name}: {title}", *aligned(lines), *filter(None, notes), *faults])


def target_table(verdicts: Iterable[Verdict]) -> str:
    """The targets, what was measured, and whether they are met."""
    lines = [["target", "row", "at most", "measured", "met"]]
    for verdict in verdicts:
        target = verdict.target
        measured = NONE if verdict.value is None else f"{_number(verdict.value)} {target.unit}"
        met = "yes" if verdict.is_met else "no" if verdict.value is not None else "not measured"
        lines.append([target.text, target.row, f"{target.limit:g} {target.unit}", measured, met])
    return "\n".join(aligned(lines))


def document(
    about: Mapping[str, str], titles: Mapping[str, str], rows: Mapping[str, Results], verdicts: Iterable[Verdict]
) -> dict[str, Any]:
    """Everything as JSON: on what, every figure of every round, the faults, the targets."""
    return {
        "about": dict(about),
        "rows": {
            name: {"title": titles[name], "rounds": results.rounds, "faults": [asdict(one) for one in results.faults]}
            for name, results in rows.items()
        },
        "targets": [
            {
                "text": one.target.text,
                "row": one.target.row,
                "unit": one.target.unit,
                "at_most": one.target.limit,
                "measured": one.value,
                "met": one.is_met,
            }
            for one in verdicts
        ],
    }


def _beside(subjects: Sequence[str], comparison: str | None) -> list[tuple[str, set[str]]]:
    """To whose figures, if anybody's, what others add is told, and who they are."""
    than, more = (DIRECT, {*subjects} - {DIRECT}) if comparison == _ADDED else (OURS, {*WITHOUT_CACHE} - {OURS})
    return [(than, more)] if comparison and than in subjects else []


def _overrun(results: Results, subject: str) -> str:
    """A word on the rounds in which the streams of a subject never all ran at one time; "" if there are none."""
    missed = len(results.values(subject, "first_chunk_p50_ms")) - len(results.values(subject, "gap_p50_ms"))
    if missed == 0:
        return ""
    return f"  {subject}, rounds without a window: {missed}; the first stream had ended before the last had begun"


def _cell(spread: Spread | None) -> str:
    if spread is None:
        return NONE
    if spread.low == spread.high:
        return _number(spread.median)
    return f"{_number(spread.median)} ({_number(spread.low)} to {_number(spread.high)})"


def _number(value: float) -> str:
    """A number with as many digits as it is worth."""
    size = abs(value)
    if size < 0.005:  # no "-0.00"
        return "0"
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, its columns one below the other."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return ["  " + "  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
