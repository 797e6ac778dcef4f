"""Failover over real sockets: three regions, thirty callers, and one region after the other out of order."""

import math
import time
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from benchmarks.callers import KINDS, PATIENCE_SECONDS, Called, Kind
from chat_api import health
from chat_api.emulator import Emulator, Limit, Outage
from chat_api.emulator.latency import Latency
from tests.emulators import Clock
from tests.regions import CALLERS, KEY, Regions, regions
from tests.servers import eventually

pytestmark = pytest.mark.alone  # it looks at what happens when

PAUSED = ("ejected", "cooling down")
PLAIN, STREAM = Kind("/v1/chat/completions", False), Kind("/v1/chat/completions", True)
WARM_UP_CALLS = 120  # a fifth of them may be made again: more than are under way in one region
PROBES = 3
COUNT = 60  # calls in which it shows how things are now
slightly_slow = partial(Emulator, latency=Latency(0.02, jitter=0.5))  # so that calls are under way when it happens


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ejections are half as long, for tests that wait for their end."""
    monkeypatch.setattr(health, "FIRST_EJECTION_SECONDS", 0.5)


def failed(calls: Sequence[Called]) -> list[tuple[Any, ...]]:
    """What the callers saw who were not answered."""
    return [(one.kind, one.status, one.headers, one.body[-300:]) for one in calls if not one.is_good]


def repeated(calls: Sequence[Called]) -> list[Called]:
    """The calls for which more than one deployment was asked."""
    return [one for one in calls if one.attempts > 1]


def attempts_logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines of attempts that were nobody's answer."""
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("attempt ")]


def check_headers(calls: Sequence[Called], running: Regions) -> None:
    """Each answer says who gave it, after how many attempts, and where the time went."""
    for one in calls:
        assert one.deployment in [region.label for region in running.all]
        assert 1 <= one.attempts <= len(running.all)
        assert {"queue", "connect", "upstream", "gateway"} <= set(one.timing)
        assert ("attempts" in one.timing) == (one.attempts > 1)
        assert min(one.timing.values()) > -0.001
        assert sum(one.timing.values()) <= one.answered - one.started + 0.001


FAULTS = [
    pytest.param(Outage("refused"), {}, id="killed"),
    pytest.param(Outage("hang"), {"FIRST_BYTE_TIMEOUT": "0.7"}, id="hanging"),
    pytest.param(Outage("hang"), {"HEDGE_AFTER": "0.25"}, id="hanging-and-hedged"),
    pytest.param(Outage("reset"), {}, id="resetting"),
    pytest.param(Outage("503"), {}, id="503"),
    pytest.param(Outage("401"), {}, id="our-key-refused"),
    pytest.param(Outage("429"), {}, id="429-with-retry-after"),
]


@pytest.mark.parametrize(("outage", "environ"), FAULTS)
def test_region_out_of_order_costs_no_call(
    outage: Outage, environ: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Another answers; once the fault is noticed nobody is sent there; when it has ended the first try succeeds."""
    caplog.set_level("INFO")
    is_hedged = "HEDGE_AFTER" in environ
    with regions(make=slightly_slow, **environ) as running, running.load() as load:
        sick = running.all[0]
        load.wait_for(WARM_UP_CALLS)
        broke = time.monotonic()
        sick.emulator.outage = outage
        noticed, until = running.wait_for_state(sick, *PAUSED)
        load.wait_for(COUNT)
        mended = time.monotonic()
        sick.emulator.outage = None
        load.wait_until(lambda one: one.deployment == sick.label)
        load.wait_for(COUNT)

    lost = [one for one in load.calls if not (one.is_good or (one.has_begun and one.started < broke))]
    assert failed(lost) == []
    warned = [one for one in load.since(noticed) if one.ended < until]
    assert warned
    assert {one.deployment for one in warned} == {region.label for region in running.all[1:]}
    if not is_hedged:  # which may come for any call, on a busy machine
        assert repeated(warned) == []
        assert repeated(load.since(mended)) == []
        lines = attempts_logged(caplog)
        assert len(lines) == sum(one.attempts - 1 for one in load.calls)
        assert all(f" at {sick.label}: " in line for line in lines)
    assert repeated(load.calls)
    check_headers(load.calls, running)
    assert KEY not in caplog.text


def test_region_that_stays_away_is_probed_seldom() -> None:
    """One call a probe is sent elsewhere, and each probe comes later than the one before."""
    with regions() as running, running.load() as load:
        sick = running.all[0]
        load.wait_for(WARM_UP_CALLS)
        sick.emulator.outage = Outage("503")
        noticed, _ = running.wait_for_state(sick, "ejected")
        assert eventually(lambda: len(repeated(load.since(noticed))) >= PROBES, PATIENCE_SECONDS)

    assert failed(load.calls) == []
    probes = sorted(repeated(load.since(noticed)), key=lambda one: one.started)
    waits = [later.ended - earlier.started for earlier, later in pairwise(probes)]
    assert waits[0] > 0.8  # an ejection of 1 s, that may be a fifth shorter
    assert waits[1] > 1.6


FLAPS = [
    pytest.param(Outage("flapping"), id="every-other-call"),
    pytest.param(Outage("reset", period=0.2), id="resets-for-a-fifth-of-a-second"),
]


@pytest.mark.parametrize("outage", FLAPS)
def test_flapping_region_costs_no_call(outage: Outage) -> None:
    """What comes and goes is left alone for longer and longer, and nobody misses it; then it is there again."""
    with regions(make=slightly_slow) as running, running.load() as load:
        sick = running.all[0]
        load.wait_for(WARM_UP_CALLS)
        sick.emulator.outage = outage
        first = running.wait_for_state(sick, "ejected")[0]
        assert eventually(lambda: time.monotonic() > first + 1.2, PATIENCE_SECONDS)
        sick.emulator.outage = None
        mended = time.monotonic()
        load.wait_until(lambda one: one.deployment == sick.label)

    assert failed(load.calls) == []
    assert repeated(load.calls)
    assert repeated(load.since(mended)) == []


@pytest.mark.parametrize(
    ("name", "state"),
    [
        pytest.param("fault-error-event", "cooling down", id="error-as-first-event"),
        pytest.param("fault-empty", "ejected", id="empty-200"),
        pytest.param("fault-500", "ejected", id="500"),
        pytest.param("fault-404", "ejected", id="no-such-deployment"),
        pytest.param("fault-closed", "ejected", id="connection-closed"),
    ],
)
def test_fault_from_the_beginning_is_seen_before_the_caller_is_told(
    name: str, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A deployment that answers 200 and then says no, or nothing, is passed over as one that says no at once."""
    caplog.set_level("INFO")
    with regions(make=slightly_slow, entries=[{"name": name}]) as running, running.load(12) as load:
        sick = running.all[0]
        noticed, until = running.wait_for_state(sick, state)
        load.wait_for(COUNT)

    assert failed(load.calls) == []
    assert sick.label not in {one.deployment for one in load.calls}
    assert repeated([one for one in load.since(noticed) if one.ended < until]) == []
    assert repeated(load.calls)
    assert len(attempts_logged(caplog)) == sum(one.attempts - 1 for one in load.calls)
    check_headers(load.calls, running)
    assert KEY not in caplog.text


def test_stream_that_dies_before_its_first_word_goes_on_elsewhere(caplog: pytest.LogCaptureFixture) -> None:
    """The prompt filter's event has come, and then the region dies: the caller's stream is the other region's."""
    caplog.set_level("INFO")
    streams = [kind for kind in KINDS if kind.stream]
    with regions(2) as running, running.load(8, streams) as load:
        sick = running.all[0]
        load.wait_for(8)
        sick.emulator.latency = Latency(0, between=60)
        assert eventually(lambda: sick.emulator.open_calls >= 4, PATIENCE_SECONDS)
        load.wait_for(8)  # by now the first event of each has come
        sick.emulator.outage = Outage("refused")
        load.wait_for(8)

    assert failed(load.calls) == []
    lines = attempts_logged(caplog)
    assert len(lines) == len(repeated(load.calls)) >= 4
    assert sum("before" in line or "end" in line for line in lines) >= 4, lines


def test_real_limit_is_met_by_no_caller() -> None:
    """A region that takes ten calls a second gets its share until it refuses one, and again after its window."""
    clock = Clock()
    with regions(make=partial(slightly_slow, clock=clock)) as running:
        small = running.all[0]
        small.emulator.limits["gpt-4o"] = Limit(rpm=600)  # 100 calls in 10 s
        with running.load() as load:
            load.wait_for(CALLERS)
            clock.now += 9  # the window ends in a second, says the 429
            noticed, until = running.wait_for_state(small, "cooling down")
            asked = small.emulator.asked["gpt-4o"]
            load.wait_for(COUNT)
            clock.now += 1.1
            load.wait_until(lambda one: one.deployment == small.label)

    assert failed(load.calls) == []
    refused = asked - 100
    assert 1 <= refused <= CALLERS
    assert len([one for one in repeated(load.calls) if one.started < noticed]) == refused
    assert repeated([one for one in load.since(noticed) if one.ended < until]) == []


def test_limits_of_all_are_told_with_the_shortest_wait() -> None:
    """When no region takes calls the caller gets Azure's 429, with how long until the first of them does."""
    with regions(2, make=partial(slightly_slow, clock=Clock(), limits=Limit(rpm=6))) as running:
        answers = [running.call(kind) for kind in KINDS]

    assert [one.status for one in answers] == [200, 200, 429, 429]
    assert [one.attempts for one in answers] == [1, 1, 2, 0]  # the last is not asked of anyone
    assert all(9 <= int(one.headers["retry-after"]) <= 10 for one in answers[2:])


def test_server_timing_tells_where_the_time_went() -> None:
    """The wait for a region that hangs, the wait for the one that answers; together no more than the caller waited."""
    with regions(2, FIRST_BYTE_TIMEOUT="0.5") as running:
        slow, quick = running.all
        quick.emulator.latency = 0.1
        slow.emulator.outage = Outage("hang")
        for kind in KINDS:
            slow.emulator.outage = Outage("hang")
            called = running.call(kind)
            if called.attempts == 2:
                break
    timing = called.timing

    assert called.deployment == quick.label
    assert timing["attempts"] >= 0.499
    assert timing["upstream"] + timing["connect"] >= 0.099
    assert 0.599 <= sum(timing.values()) <= called.answered - called.started + 0.001


def test_weights_and_priorities_are_kept_under_load() -> None:
    """By weight among equals; who has a lower priority gets nothing until those above are gone."""
    entries = [{"weight": 3}, {"weight": 1}, {"priority": 1}]
    with regions(entries=entries) as running, running.load(8) as load:
        load.wait_for(120)
        first, second, third = running.all
        before = [region.emulator.asked["gpt-4o"] for region in running.all]
        first.emulator.outage = second.emulator.outage = Outage("503")
        running.wait_for_state(first, "ejected")
        running.wait_for_state(second, "ejected")
        load.wait_for(COUNT)

    assert failed(load.calls) == []
    assert before[2] == 0
    assert math.isclose(before[0] / before[1], 3, rel_tol=0.35)
    assert third.emulator.asked["gpt-4o"] > 0


OUTAGES = [
    pytest.param("refused", 503, id="refused"),
    pytest.param("503", 503, id="503"),
    pytest.param("429", 429, id="429-with-retry-after"),
]


def retry_after(one: Called) -> int:
    """The seconds after which the caller is told to come again."""
    return int(one.headers["retry-after"])


@pytest.mark.parametrize(("kind", "status"), OUTAGES)
def test_outage_of_all_regions_is_not_multiplied(kind: str, status: int) -> None:
    """Hardly more attempts than calls; each caller is told at once to come again soon; then all is well at once."""
    with regions(make=slightly_slow) as running, running.load() as load:
        load.wait_for(WARM_UP_CALLS)
        began = time.monotonic()
        for region in running.all:
            region.emulator.outage = Outage(kind)
        load.wait_until(lambda one: not one.is_good)
        tried, counted = calls_of(running), len(load.calls)
        assert eventually(lambda: time.monotonic() > began + 1, PATIENCE_SECONDS)
        tried, counted = calls_of(running) - tried, len(load.calls) - counted
        for region in running.all:
            region.emulator.outage = None
        pauses = [row["ejected_seconds"] for row in running.status().values()]
        mended = time.monotonic() + (1 if kind == "429" else 0)  # it was told to stay away for a second
        load.wait_for(COUNT)
        assert eventually(lambda: len(load.since(mended)) >= COUNT, PATIENCE_SECONDS)

    # A fifth more of all calls of the last minute, and those that have not ended yet.
    assert tried <= counted + max(10, 0.2 * len(load.calls)) + CALLERS
    refused = [one for one in load.calls if one.started > began and not one.is_good and not one.has_begun]
    assert len(refused) > CALLERS
    assert {one.status for one in refused} == {status}
    assert all(1 <= retry_after(one) <= 5 for one in refused)
    assert max(pauses) < 5  # all regions are asked again soon, however many calls have met the outage
    assert max(one.ended - one.started for one in refused) < 5
    assert failed(load.since(mended)) == []


def calls_of(running: Regions) -> int:
    """How many attempts there were, at all regions."""
    return sum(row["calls"] for row in running.status().values())
