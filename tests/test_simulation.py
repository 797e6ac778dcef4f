"""The relay over minutes of calls to deployments of every mood: nobody is asked who asked for quiet, nothing is lost.

Everything but the transport is the real thing; the clock skips what nobody does.
"""

import logging
from collections.abc import Callable, Iterator
from random import Random

import pytest

from chat_api.types import Headers
from tests.worlds import Fate, Ill, World, deployments, during, flapping, limited, sporadic, tiers, well

REFUSES = Ill()
NO_CONNECTION = Ill(seconds=10.0)  # CONNECT_TIMEOUT
BREAKS = Ill(500, seconds=0.05)
LATE_500 = Ill(500, seconds=3.0)
BAD_KEY = Ill(401)


def asks_for(seconds: int) -> Ill:
    """A 429 that asks to wait so long."""
    return Ill(429, ((b"retry-after", b"%d" % seconds),))


MILLISECONDS: Headers = ((b"retry-after-ms", b"100"), (b"retry-after", b"1"))
SATURATED = Ill(429, MILLISECONDS, seconds=0.02)


def always(ill: Ill) -> Fate:
    """It is never well."""
    return lambda _: ill


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of failed attempts are not logged."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


# Spread.

LATENCIES: dict[str, Callable[[Random], float]] = {
    "constant": lambda _: 0.2,
    "uniform": lambda rng: rng.uniform(0.05, 0.5),
    "exponential": lambda rng: rng.expovariate(5),
}


@pytest.mark.parametrize("callers", [1, 20, 100])
@pytest.mark.parametrize("latency", LATENCIES)
@pytest.mark.parametrize(
    "weights",
    [
        pytest.param((1, 1, 1), id="1:1:1"),
        pytest.param((3, 1), id="3:1"),
        pytest.param((10, 1), id="10:1"),
        pytest.param((1, 2, 5), id="1:2:5"),
    ],
)
def test_spread(weights: tuple[float, ...], latency: str, callers: int) -> None:
    """Calls are spread by weight within two in a hundred, however many there are at a time and long they take."""
    calls = min(400 * callers, 2000)
    world = World(deployments(*weights), seconds=LATENCIES[latency]).at_a_time(callers, calls)
    assert world.statuses == {200: calls}
    assert world.attempts == calls
    for one in world.deployments:
        assert abs(world.requests(one.name) / calls - one.weight / sum(weights)) <= 0.02


def test_slow_one_gets_fewer() -> None:
    """A deployment that answers ten times slower than its peers does not take their callers' time."""
    world = World(deployments(1, 1, 1), {"b": lambda _: Ill(200, seconds=2.0)}, seconds=lambda _: 0.2)
    world.at_a_time(50, 2000)
    assert world.statuses == {200: 2000}
    assert world.requests("b") < 500  # of 667 by weight


# Scenarios in which a deployment is there for every call, at every moment.

SOUND = [
    pytest.param({}, id="healthy"),
    pytest.param({"b": during(60, 180, REFUSES)}, id="one-dies"),
    pytest.param({"b": during(60, 180, BREAKS)}, id="one-breaks"),
    pytest.param({"b": during(60, 180, BAD_KEY)}, id="one-loses-its-key"),
    pytest.param({"b": during(60, 180, LATE_500)}, id="one-breaks-late"),
    pytest.param({"b": during(60, 180, NO_CONNECTION)}, id="one-is-silent"),
    pytest.param({"b": flapping(3, 3, REFUSES)}, id="flapping"),
    pytest.param({"b": flapping(0.5, 0.5, BREAKS)}, id="flapping-fast"),
    pytest.param({"b": flapping(10, 1, BREAKS)}, id="flapping-now-and-then"),
    pytest.param({"b": flapping(1, 10, BREAKS)}, id="well-now-and-then"),
    pytest.param({"b": limited(3, 10, asks_for(1))}, id="throttling-for-1"),
    pytest.param({"b": limited(3, 10, asks_for(5))}, id="throttling-for-5"),
    pytest.param({"b": limited(3, 10, asks_for(60))}, id="throttling-for-60"),
    pytest.param({"b": limited(3, 10, Ill(429))}, id="throttling-without-a-word"),
    pytest.param({"b": always(asks_for(0))}, id="throttling-for-nothing"),
    pytest.param({"b": always(REFUSES), "c": limited(3, 5, asks_for(2))}, id="one-dead-one-throttling"),
    pytest.param({"b": always(REFUSES), "c": flapping(3, 3, REFUSES)}, id="one-dead-one-flapping"),
    pytest.param({"b": flapping(3, 3, BREAKS), "c": limited(3, 5, asks_for(2))}, id="one-flapping-one-throttling"),
]


@pytest.mark.parametrize("fates", SOUND)
def test_nothing_is_lost(fates: dict[str, Fate]) -> None:
    """No call fails that a deployment could answer, none is asked that asked for quiet, few calls are made twice."""
    world = World(deployments(1, 1, 1), fates).at_rate(10, 200)
    assert world.statuses == {200: len(world.told)}
    assert world.wrongly == []
    assert world.overspent == []
    assert world.attempts <= len(world.told) * 1.2


@pytest.mark.parametrize(
    ("part", "most"), [pytest.param(0.03, 0.003, id="3-in-100"), pytest.param(0.1, 0.015, id="10-in-100")]
)
@pytest.mark.parametrize("count", [2, 3])
def test_failures_now_and_then(part: float, most: float, count: int) -> None:
    """Where every deployment fails now and then, another one answers nearly all of these calls."""
    fates = {name: sporadic(part, BREAKS, seed) for seed, name in enumerate("abc"[:count])}
    world = World(deployments(*[1] * count), fates).at_rate(50, 60)
    allowed = most if count == 3 else max(most, 1.5 * part**2)
    assert len(world.failed()) <= allowed * len(world.told)
    assert (world.wrongly, world.overspent) == ([], [])


@pytest.mark.parametrize("seed", range(2))
def test_four_of_every_mood(seed: int) -> None:
    """One that is well answers for three that are dead, flapping and throttling."""
    fates = {"b": always(REFUSES), "c": flapping(3, 3, REFUSES), "d": limited(3, 5, asks_for(2))}
    world = World(deployments(1, 1, 1, 1), fates, seed=seed).at_rate(20, 240)
    assert world.statuses == {200: len(world.told)}
    assert (world.wrongly, world.overspent) == ([], [])


@pytest.mark.parametrize(
    ("ill", "probes"),
    [
        pytest.param(REFUSES, 12, id="refuses"),
        pytest.param(BREAKS, 12, id="breaks"),
        pytest.param(BAD_KEY, 12, id="bad-key"),
        pytest.param(LATE_500, 30, id="breaks-late"),  # twenty are under way when the first one fails
    ],
)
def test_a_dead_one_is_left_alone(ill: Ill, probes: int) -> None:
    """A deployment that is dead for two minutes is asked about ten times, not four hundred."""
    world = World(deployments(1, 1, 1), {"b": during(60, 180, ill)}).at_rate(20, 300)
    assert 5 <= world.requests("b", 60, 180) <= probes


def test_few_wait_for_a_silent_one() -> None:
    """While a deployment is silent for four minutes no more calls wait for it than were under way, and a few probes."""
    world = World(deployments(1, 1, 1), {"b": during(60, 300, NO_CONNECTION)}).at_rate(20, 300)
    assert sum(told.ended - told.at > 9 for told in world.told if told.at > 75) <= 10


@pytest.mark.parametrize("ill", [REFUSES, BREAKS, NO_CONNECTION], ids=["refuses", "breaks", "silent"])
def test_one_probe_is_enough(ill: Ill) -> None:
    """When a deployment is back its first probe shows it, after a minute at most, and it has its share from then on."""
    world = World(deployments(1, 1, 1), {"b": during(60, 180, ill)}, seconds=lambda _: 0.2).at_rate(10, 360)
    back = [at for at in world.asked["b"] if at >= 180]
    assert back[0] - 180 <= 60 + ill.seconds  # the last probe of the outage may end so much later
    assert back[1] - back[0] >= 0.2  # nobody else was let through until it was answered
    since = back[1] + 1
    share = world.requests("b", since) / sum(world.requests(name, since) for name in "abc")
    assert share == pytest.approx(1 / 3, abs=0.02)


# A provisioned deployment that is saturated, before pay-as-you-go.


def saturated(per_second: float, part: float, seed: int = 1) -> World:
    """One that can do a part of the calls, or none of them."""
    fate = limited(per_second * part, 2, SATURATED) if part else always(SATURATED)
    return World(tiers("ptu", "payg"), {"ptu": fate}, seed=seed).at_rate(per_second, 60 if per_second > 5 else 600)


@pytest.mark.parametrize("part", [0, 0.5], ids=["always", "half"])
@pytest.mark.parametrize("per_second", [0.05, 20, 50])
def test_saturated(per_second: float, part: float) -> None:
    """Calls spill over to pay-as-you-go, few are made twice, and none fails."""
    world = saturated(per_second, part)
    assert world.statuses == {200: len(world.told)}
    assert (world.wrongly, world.overspent) == ([], [])


@pytest.mark.parametrize("part", [0, 0.5], ids=["always", "half"])
@pytest.mark.parametrize("per_second", [0.2, 0.5, 1, 2, 5])
def test_saturated_keeps_to_the_budget(per_second: float, part: float) -> None:
    """With few calls, too, no more are made again than the budget allows, and whoever is not answered has the 429."""
    world = saturated(per_second, part)
    assert (world.wrongly, world.overspent) == ([], [])
    assert set(world.statuses) <= {200, 429}


@pytest.mark.parametrize("per_second", [0.2, 0.5, 1, 2])
def test_saturated_with_few_calls(per_second: float) -> None:
    """With few calls, too, none fails while pay-as-you-go is available."""
    worlds = [saturated(per_second, 0, seed) for seed in range(4)]
    assert [len(world.failed()) for world in worlds] == [0, 0, 0, 0]


def test_what_is_provisioned_is_used() -> None:
    """A provisioned deployment that throttles now and then still gets every call at other times."""
    world = World(tiers("ptu", "payg"), {"ptu": flapping(9, 1, SATURATED)}).at_rate(20, 120)
    assert world.statuses == {200: len(world.told)}
    assert world.requests("payg") < 0.2 * len(world.told)


# Nobody is there.


@pytest.mark.parametrize("ill", [REFUSES, BREAKS, NO_CONNECTION], ids=["refuses", "breaks", "silent"])
def test_full_outage(ill: Ill) -> None:
    """An outage of a minute at 50 calls a second is not multiplied, and is over for every call the moment it ends."""
    world = World(deployments(1, 1, 1), {name: during(30, 90, ill) for name in "abc"}).at_rate(50, 100)
    calls = sum(30 <= told.at < 90 for told in world.told)
    just_before = sum(told.at < 30 <= told.ended for told in world.told)  # they may be made again within it
    # The window has five seconds more; where calls wait for nothing it is half of those under way.
    allowed = max(0.2 * sum(25 <= told.at < 90 for told in world.told), 0.5 * calls / 60 * ill.seconds)
    assert sum(world.requests(name, 30, 90) for name in "abc") <= calls + just_before + allowed
    assert (world.wrongly, world.overspent) == ([], [])
    # A call that waits for a connection when the outage ends may have a second deployment answer it.
    assert {told.status for told in world.failed()} == {503}
    assert len(world.failed(30, 90)) >= 0.8 * calls
    assert world.failed(0, 20) == []
    assert world.failed(90) == []
    assert {told.after for told in world.failed()} == {1}


@pytest.mark.parametrize("ill", [REFUSES, BREAKS, NO_CONNECTION], ids=["refuses", "breaks", "silent"])
@pytest.mark.parametrize("seconds", [0.5, 60])
def test_all_are_back_soon(ill: Ill, seconds: float) -> None:
    """A few seconds after an outage of all three each of them has its share again, however long it was."""
    end = 30 + seconds
    fates = {name: during(30, end, ill) for name in "abc"}
    world = World(deployments(1, 1, 1), fates, seconds=lambda _: 0.1).at_rate(30, end + 30)
    since = end + ill.seconds + 1  # a call that began before may say until then that one of them is away
    assert all(world.requests(name, end, since) for name in "abc")
    for name in "abc":
        share = world.requests(name, since, since + 15) / sum(world.requests(one, since, since + 15) for one in "abc")
        assert share == pytest.approx(1 / 3, abs=0.03)


def test_all_throttle() -> None:
    """While all throttle they are asked only when they want to be, and callers get a 429 that tells when."""
    world = World(deployments(1, 1, 1), {name: during(30, 90, asks_for(20)) for name in "abc"}).at_rate(20, 150)
    assert set(world.statuses) == {200, 429}
    assert (
        sum(world.requests(name, 30, 90) for name in "abc") <= 3 * 4 * 2
    )  # each at 30, 50, 70 and 90, a few at a time
    assert world.failed(0, 30) == []
    assert world.failed(111) == []
    assert (world.wrongly, world.overspent) == ([], [])
    assert max(told.after or 0 for told in world.failed()) <= 20


# Hardly any calls.


@pytest.mark.parametrize(
    "fates",
    [
        pytest.param({}, id="healthy"),
        pytest.param({"b": always(REFUSES)}, id="one-dead"),
        pytest.param({"b": always(NO_CONNECTION)}, id="one-silent"),
        pytest.param({"b": always(asks_for(30))}, id="one-throttling"),
        pytest.param({"a": flapping(50, 50, REFUSES), "b": always(REFUSES)}, id="one-dead-one-flapping"),
    ],
)
def test_low_traffic(fates: dict[str, Fate]) -> None:
    """With a call every twenty seconds, too, none fails."""
    world = World(deployments(1, 1, 1), fates).at_rate(0.05, 6000, steady=True)
    assert world.statuses == {200: len(world.told)}
    assert (world.wrongly, world.overspent) == ([], [])


@pytest.mark.parametrize("ill", [REFUSES, NO_CONNECTION], ids=["refuses", "silent"])
def test_low_traffic_leaves_a_dead_one_alone(ill: Ill) -> None:
    """With a call every twenty seconds a dead deployment is tried once a minute, by every third of them."""
    world = World(deployments(1, 1, 1), {"b": always(ill)}).at_rate(0.05, 6000, steady=True)
    assert world.requests("b") <= 0.36 * len(world.told)


def test_well() -> None:
    """What the scenarios take for granted: a deployment without a fate is well."""
    assert well(0.0) is None
