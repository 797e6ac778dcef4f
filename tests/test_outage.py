"""The outage run: its figures, its judgement, and one short run."""

import subprocess
import sys

import pytest

from benchmarks.callers import KINDS, Called
from benchmarks.outage import PHASES, Period, faults_of
from tests.processes import ROOT

pytestmark = pytest.mark.alone  # it looks at what happens when


def called(status: int = 200, *, attempts: int = 1, seconds: float = 0.1, ended: bool = True) -> Called:
    """A call that wanted no stream."""
    headers = {"x-chat-api-attempts": str(attempts)}
    return Called(KINDS[0], 0, seconds / 2, seconds, status, headers, b"{}", ended)


GOOD = Period("before", [called()] * 100, 100)


def test_period_in_figures() -> None:
    """Calls, attempts, those that were repeated, times, and what the callers got."""
    calls = [*[called()] * 98, called(attempts=2, seconds=0.4), called(503, seconds=2)]

    assert Period("during", calls, 101).row() == [
        *("during", "100", "101", "1"),
        *("100", "400", "2,000"),
        "200: 99, 503: 1",
    ]


@pytest.mark.parametrize(
    ("name", "during", "lag", "found"),
    [
        pytest.param("killed", GOOD, 1, [], id="nothing-lost"),
        pytest.param("killed", Period("during", [called(503)], 1), 1, ["1 calls failed during it"], id="lost"),
        pytest.param("killed", Period("during", [called(ended=False)], 1), 1, ["1 calls failed during it"], id="cut"),
        pytest.param("killed", GOOD, 90, ["a region was not asked again"], id="not-back"),
        pytest.param("all-503", Period("during", [called(503)] * 100, 140), 1, [], id="not-multiplied"),
        pytest.param(
            "all-503", Period("during", [called(503)] * 100, 141), 1, ["141 attempts for 100 calls"], id="multiplied"
        ),
        pytest.param("all-503", Period("during", [called(503)], 21), 1, [], id="a-few"),
    ],
)
def test_what_is_a_fault(name: str, during: Period, lag: float, found: list[str]) -> None:
    """With one region out of order a call that fails; with all of them too many attempts; a region that stays away."""
    assert faults_of(PHASES[name], [GOOD, during, GOOD], lag) == found


def test_run() -> None:
    """A short run of one phase prints its table, and all is well."""
    options = ("--phases", "503", "--seconds", "0.5", "--around", "0.5")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.outage", *options], cwd=ROOT, capture_output=True, text=True, timeout=50
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "503, 0.5 s; all regions are asked again after" in done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines()[2:5]] == ["before", "during", "after"]
