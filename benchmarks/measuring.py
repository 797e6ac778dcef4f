"""The rounds of a row: each measures every subject once, one after the other, so that all see the same weather."""

from collections.abc import Sequence

import click

from benchmarks.checks import Fault
from benchmarks.figures import Failure, Figures, Results
from benchmarks.processes import NotStarted
from benchmarks.rows import Row, Run
from benchmarks.subjects import Subjects


def measure_row(row: Row, names: Sequence[str], rounds: int, subjects: Subjects, run: Run) -> Results:
    """Measure a row; progress and faults go to standard error. A subject that failed is not measured again.

    Args:
        row: what to measure.
        names: the subjects.
        rounds: how often.
        subjects: starts them.
        run: runs what is asynchronous.
    """
    results = Results()
    for number in range(1, rounds + 1):
        figures: dict[str, Figures] = {}
        failed = {failure.subject for failure in results.faults}
        for name in names:
            if name in failed:
                continue
            click.echo(f"{row.name}: round {number} of {rounds}, {name}", err=True)
            try:
                figures[name] = row.measure(name, subjects, run)
            except (Fault, NotStarted, OSError, TimeoutError) as error:
                text = str(error) or "it hangs"
                results.faults.append(Failure(number, name, text))
                click.echo(f"{row.name}: {name} failed: {text}", err=True)
        results.rounds.append(figures)
    return results
