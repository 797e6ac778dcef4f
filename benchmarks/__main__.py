"""The command: `python -m benchmarks`. It starts everything, measures, prints, and stops everything."""

import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import click
import uvloop

from benchmarks.figures import Results
from benchmarks.machine import described
from benchmarks.measuring import measure_row
from benchmarks.processes import choose_cores, raise_file_limit, stop_on_signals
from benchmarks.report import document, row_table, target_table
from benchmarks.rows import Row, Run, all_rows
from benchmarks.subjects import NGINX, SUBJECTS, Place, Subjects, nginx_binary, take_snapshot, upstream_process
from benchmarks.targets import judged

ROUNDS, QUICK_ROUNDS = 5, 1
LEGEND = """\
Each figure is the median of its rounds (lowest to highest); ratios and differences are taken round by round.
CPU is that of the subject's process alone. The first chunk is the first with text, from when it was asked for."""
ROW_NAMES = tuple(all_rows(quick=True))


class Names(click.ParamType[tuple[str, ...]]):
    """Some of some names, separated by commas; all of them if it is left out."""

    name = "names"

    def __init__(self, known: tuple[str, ...]) -> None:
        self._known = known

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """The names, in the order in which they are known."""
        if isinstance(value, tuple):
            return value
        wanted = [name.strip() for name in str(value).split(",")]
        for name in wanted:
            if name not in self._known:
                self.fail(f"{name!r} is none of {', '.join(self._known)}", param, ctx)
        return tuple(name for name in self._known if name in wanted)


@click.command()
@click.option("--rows", type=Names(ROW_NAMES), default=ROW_NAMES, help=f"Some of {', '.join(ROW_NAMES)}.")
@click.option("--subjects", type=Names(SUBJECTS), default=SUBJECTS, help=f"Some of {', '.join(SUBJECTS)}.")
@click.option("--rounds", type=click.IntRange(1), help=f"How often each row is measured; {ROUNDS} if not said.")
@click.option("--quick", is_flag=True, help="Measure little, once: whether it works, not how fast.")
@click.option("--json", "file", type=click.File("w", lazy=False), help="Write every figure there.")
def main(
    rows: tuple[str, ...], subjects: tuple[str, ...], rounds: int | None, quick: bool, file: IO[str] | None
) -> None:
    """Measure what this gateway adds to a call, beside nginx and a plain gateway, as ratios.

    It is measured as it is, and with each thing that it may do besides: limits and usage, calls that share an answer,
    the conversation log, answers that are kept. These are beside Starlette, which answers by itself.

    The exit code is 1 if an answer was not right or a subject did not answer.
    """
    if sys.platform != "linux":
        raise click.ClickException("other processes' CPU time is read as Linux tells it; this is no Linux")
    if nginx_binary() is None:
        subjects = tuple(name for name in subjects if name != NGINX)
    rounds = rounds or (QUICK_ROUNDS if quick else ROUNDS)
    chosen = (row for name, row in all_rows(quick=quick).items() if name in rows)
    table = {row.name: row for row in chosen if set(row.subjects) & set(subjects)}
    if not table:
        raise click.ClickException("none of these rows can be measured of these subjects on this machine")
    stop_on_signals()
    with _bench() as (place, run):
        about = described() | {"rounds": str(rounds), "cores": _cores(place)}
        click.echo(_header(about))
        if quick:
            click.echo("Measured quickly: the figures mean little.\n")
        results = {name: _measured(row, subjects, rounds, place, run) for name, row in table.items()}
    verdicts = judged(results)
    if verdicts:
        click.echo(target_table(verdicts))
    if file is not None:
        titles = {name: row.title for name, row in table.items()}
        file.write(json.dumps(document(about, titles, results, verdicts), indent=1) + "\n")
    if any(one.faults for one in results.values()):
        sys.exit(1)


def _measured(row: Row, subjects: tuple[str, ...], rounds: int, place: Place, run: Run) -> Results:
    """Measure a row and print its table."""
    subjects = tuple(name for name in subjects if name in row.subjects)
    with Subjects(place) as started:
        results = measure_row(row, subjects, rounds, started, run)
    click.echo(row_table(row.name, row.title, results, subjects) + "\n")
    return results


@contextlib.contextmanager
def _bench() -> Iterator[tuple[Place, Run]]:
    """Everything that all rows share: a folder, the upstream, an event loop; all gone in the end."""
    files, cores = raise_file_limit(), choose_cores()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-")))
        take_snapshot(folder)
        os.sched_setaffinity(0, {cores.load})
        upstream = stack.enter_context(upstream_process(folder, cores))
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        yield Place(folder, upstream, cores, files), runner.run


def _cores(place: Place) -> str:
    if place.cores.are_shared:
        return f"ONE, {place.cores.load}, for all: what waits for what is not what is measured elsewhere"
    return f"{place.cores.subject} for the subject, {place.cores.load} for load and upstream"


def _header(about: Mapping[str, str]) -> str:
    width = max(map(len, about))
    return "\n".join([*(f"{name.ljust(width)}  {value}" for name, value in about.items()), "", LEGEND, ""])


if __name__ == "__main__":
    main()
