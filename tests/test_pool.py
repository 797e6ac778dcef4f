import asyncio
from collections import Counter
from dataclasses import replace
from math import sqrt
from random import Random

import pytest

from chat_api.errors import GatewayError
from chat_api.health import FIRST_EJECTION_SECONDS, Health
from chat_api.pool import Group, Pool
from chat_api.types import Attempt, Call, Deployment, Headers, Reply, Secret, UpstreamRequest, UpstreamResponse
from tests.relays import group_of, relay_of

NOW = 1000.0
A = Deployment("a", "https://a.openai.azure.com", "2024-10-21", Secret("key-a"))
B = replace(A, name="b", base_url="https://b.openai.azure.com")
C = replace(A, name="c", base_url="https://c.openai.azure.com")
LOW_QUOTA: Headers = ((b"x-ratelimit-remaining-tokens", b"1"), (b"x-ratelimit-limit-tokens", b"100"))


def member(group: Group, deployment: Deployment) -> Health:
    """The deployment's health in a group."""
    return next(one for one in group.members if one.deployment == deployment)


def picked(group: Group, *, passed_over: tuple[Health, ...] = (), now: float = NOW, probe: bool = True) -> str | None:
    """The name of the deployment that gets the next call."""
    found = group.pick(now, passed_over, probe=probe)
    return found[0].deployment.name if found else None


def turns(group: Group, count: int) -> str:
    """The names of those that get so many calls, one after the other."""
    return "".join(picked(group) or "-" for _ in range(count))


def cool(health: Health, seconds: float = 30.0, now: float = NOW) -> None:
    """It throttles."""
    attempt = health.begin(now)
    health.cool_down(attempt, seconds, now)
    health.release(attempt)


def eject(health: Health, now: float = NOW) -> None:
    """It fails; the ejection is between 0.8 and 1 s."""
    attempt = health.begin(now)
    health.release(attempt)
    health.fail(attempt, now, Random(1))


def give_up(health: Health, seconds: float) -> None:
    """It is ejected for so long yet."""
    health.ejected_until = NOW + seconds


def half_open(health: Health) -> None:
    """It has failed, long enough ago to be tried again."""
    eject(health, NOW - 100)


# Whose turn it is.


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        pytest.param((1, 1), "abab", id="1:1"),
        pytest.param((1, 1, 1), "abcabc", id="1:1:1"),
        pytest.param((3, 1), {"a": 3, "b": 1}, id="3:1"),
        pytest.param((1, 2, 5), {"a": 1, "b": 2, "c": 5}, id="1:2:5"),
        pytest.param((10, 1), {"a": 10, "b": 1}, id="10:1"),
        pytest.param((0.5, 0.1), {"a": 5, "b": 1}, id="fractions"),
    ],
)
def test_turns(weights: tuple[float, ...], expected: str | dict[str, int]) -> None:
    """Calls that come one by one are spread exactly by weight, from the first on."""
    group = group_of(*(replace(one, weight=weight) for one, weight in zip((A, B, C), weights, strict=False)))
    if isinstance(expected, str):
        assert turns(group, len(expected)) == expected
        return
    for rounds in range(1, 50):
        counts = Counter(turns(group, sum(expected.values())))
        assert all(abs(counts[name] - count) <= 1 for name, count in expected.items()), rounds


def test_turns_never_run_ahead() -> None:
    """After any number of calls no deployment is more than two calls from its share."""
    group = group_of(replace(A, weight=1), replace(B, weight=2), replace(C, weight=5))
    counts: Counter[str] = Counter()
    for count in range(1, 2000):
        counts[turns(group, 1)] += 1
        for name, weight in (("a", 1), ("b", 2), ("c", 5)):
            assert abs(counts[name] - count * weight / 8) <= 2


def test_priority() -> None:
    """The lowest priority that is available gets every call, whatever the weights."""
    group = group_of(replace(A, priority=1, weight=100), replace(B, priority=0), replace(C, priority=2))
    assert turns(group, 4) == "bbbb"
    cool(member(group, replace(B, priority=0)))
    assert turns(group, 4) == "aaaa"
    cool(member(group, replace(A, priority=1, weight=100)))
    assert turns(group, 4) == "cccc"


def test_back_at_its_priority() -> None:
    """What has been cooled down gets the calls again the moment that its time is over."""
    group = group_of(A, replace(B, priority=1))
    cool(group.members[0], 0.1)
    assert [picked(group, now=NOW + later) for later in (0, 0.09, 0.1)] == ["b", "b", "a"]


def test_nothing_is_owed() -> None:
    """One that was away gets its share from then on, and no more for the time that it was away."""
    group = group_of(A, B, C)
    cool(member(group, A), 10.0)
    for _ in range(1000):
        picked(group)
    counts = Counter(picked(group, now=NOW + 10) for _ in range(30))
    assert all(abs(counts[name] - 10) <= 1 for name in "abc")


def test_alone_is_not_charged() -> None:
    """One that answered alone while the others were away is not passed over when they are back."""
    group = group_of(A, B)
    cool(member(group, B), 10.0)
    assert turns(group, 1000) == "a" * 1000
    assert Counter(picked(group, now=NOW + 10) for _ in range(20)) == {"a": 10, "b": 10}


def test_low_quota_takes_fewer() -> None:
    """One whose quota is nearly used up gets a twentieth of its share."""
    group = group_of(A, B)
    member(group, A).told = (LOW_QUOTA, NOW)
    counts = Counter(turns(group, 210))
    assert counts["a"] == pytest.approx(10, abs=1)


def busy(group: Group, deployment: Deployment, count: int) -> list[Attempt]:
    """So many calls are under way there."""
    return [member(group, deployment).begin(NOW) for _ in range(count)]


@pytest.mark.parametrize(
    ("others", "most"),
    [
        pytest.param(0, 2, id="none"),
        pytest.param(3, 6, id="three"),
        pytest.param(15, 20, id="fifteen"),
        pytest.param(99, 110, id="ninety-nine"),
    ],
)
def test_slow_one_is_passed_over(others: int, most: int) -> None:
    """One may have more in flight than its peer by the square root of that, as chance has it, and no more."""
    group = group_of(A, B)
    busy(group, B, others)
    calls = busy(group, A, most)
    assert "a" in turns(group, 2)
    calls += busy(group, A, 1)
    assert turns(group, 20) == "b" * 20
    member(group, A).release(calls.pop())
    assert "a" in turns(group, 2)


@pytest.mark.parametrize("weight", [1.0, 3.0, 10.0])
def test_room_is_by_weight(weight: float) -> None:
    """How many one may have in flight while another has none is its share and its root, whatever its weight."""
    group = group_of(replace(A, weight=weight), B)
    heavy = group.members[0]
    while "a" in turns(group, 50):
        heavy.begin(NOW)
    assert heavy.in_flight == int(weight + sqrt(weight)) + 1


def test_silent_one_gets_few() -> None:
    """One that never answers gets three of a hundred calls that come one by one, while its peer answers at once."""
    group = group_of(A, B)
    for _ in range(100):
        found = group.pick(NOW)
        assert found is not None
        attempt = found[0].begin(NOW)
        if found[0].deployment == B:
            found[0].release(attempt)
    assert member(group, A).in_flight == 3


# Who is asked at all.


def test_unavailable() -> None:
    """None that is cooled down, ejected or full is picked while another is available; with none, nobody is."""
    full = replace(C, max_in_flight=1)
    group = group_of(A, B, full)
    cool(member(group, A))
    eject(member(group, B))
    assert turns(group, 3) == "ccc"
    member(group, full).begin(NOW)
    assert picked(group) is None


def test_passed_over() -> None:
    """Those that were asked, or may not be, are passed over."""
    group = group_of(A, B, C)
    a, b, c = group.members
    assert {picked(group, passed_over=(a, c)) for _ in range(5)} == {"b"}
    assert picked(group, passed_over=(a, b, c)) is None


def test_at() -> None:
    """A call that belongs to a resource goes to none but its deployments, of whatever priority."""
    group = group_of(A, replace(B, priority=1), replace(A, name="a2", priority=2))
    assert {found[0].deployment.name for _ in range(4) if (found := group.pick(NOW, at=B.resource))} == {"b"}
    cool(group.members[0])
    assert (found := group.pick(NOW, at=A.resource)) is not None
    assert found[0].deployment.name == "a2"
    assert group.pick(NOW, at=C.resource) is None
    assert group.pick(NOW, at=(A.base_url, Secret("another key"))) is None


def test_half_open_first() -> None:
    """One that is to be tried again gets the next call, and only that, though others are available."""
    group = group_of(A, B, C)
    half_open(member(group, B))
    assert picked(group) == "b"
    member(group, B).begin(NOW)
    assert "b" not in turns(group, 20)


def test_half_open_waits_for_its_priority() -> None:
    """One that is to be tried again gets no call while a better priority is available."""
    group = group_of(A, replace(B, priority=1))
    half_open(group.members[1])
    assert turns(group, 5) == "aaaaa"


def test_half_open_not_for_what_cannot_be_sent_again() -> None:
    """A body that cannot be sent again goes to one that is sound, if there is one beside it."""
    group = group_of(A, B)
    half_open(member(group, A))
    assert {picked(group, probe=False) for _ in range(10)} == {"b"}
    assert picked(group, probe=False, passed_over=(member(group, B),)) == "a"


def test_half_open_not_while_a_worse_priority_is_sound() -> None:
    """A body that cannot be sent again goes to one that is sound, be it of a worse priority."""
    group = group_of(A, replace(B, priority=1))
    half_open(group.members[0])
    assert picked(group, probe=False) == "b"


def test_half_open_of_the_best_priority_where_none_is_sound() -> None:
    """Where none is sound it goes to the best priority that is to be tried again, not to the last."""
    group = group_of(A, replace(B, priority=1), replace(C, priority=2))
    for one in group.members[:2]:
        half_open(one)
    cool(group.members[2])
    assert picked(group, probe=False) == "a"


# The least bad.


def least_bad(group: Group, *passed_over: Health) -> str | None:
    """The name of the one that is asked where none is available."""
    found = group.least_bad(NOW, passed_over)
    return found[0].deployment.name if found else None


def test_least_bad() -> None:
    """Where all have failed the one whose ejection ends first is asked."""
    group = group_of(A, B, C)
    for one, when in zip(group.members, (NOW - 0.1, NOW - 0.3, NOW - 0.2), strict=True):
        eject(one, when)
    assert picked(group) is None
    assert least_bad(group) == "b"
    assert least_bad(group, group.members[1]) == "c"
    assert least_bad(group, *group.members) is None


def test_least_bad_of_equals_is_the_best_priority() -> None:
    """Of two whose ejections end together the one of the better priority is asked."""
    group = group_of(replace(A, priority=1), B)
    for one in group.members:
        one.ejected_until = NOW + 1
    assert least_bad(group) == "b"


def test_least_bad_does_not_throttle() -> None:
    """None that has asked to be left alone is asked, nor one that is full; if all are, nobody is."""
    full = replace(B, max_in_flight=1)
    group = group_of(A, full, C)
    cool(member(group, A))
    member(group, full).begin(NOW)
    eject(member(group, C))
    assert least_bad(group) == "c"
    cool(member(group, C))
    assert least_bad(group) is None


def test_least_bad_at() -> None:
    """A call that belongs to a resource goes to none but its deployments, failed or not."""
    group = group_of(A, B)
    eject(member(group, A), NOW - 0.5)
    eject(member(group, B), NOW)
    found = group.least_bad(NOW, at=B.resource)
    assert found is not None
    assert found[0].deployment == B


def test_least_bad_is_asked_while_it_is_probed() -> None:
    """Where none is available calls do not wait for the probe: they are sent to the one that is being tried."""
    group = group_of(A, B)
    for one, until in zip(group.members, (-0.1, 0.3), strict=True):
        eject(one, NOW - 0.7)
        give_up(one, until)
    group.members[0].begin(NOW)
    assert picked(group) is None
    assert least_bad(group) == "a"


# What is told of the group.


def test_allowed() -> None:
    """A call may go to those that its caller may use, at the resource that it belongs to, whatever they do just now."""
    group = group_of(A, replace(A, name="a2", priority=1), B)
    a, b, second = group.members
    cool(a)
    eject(b)
    assert group.allowed((), None) == [a, b, second]
    assert group.allowed((a,), None) == [b, second]
    assert group.allowed((), A.resource) == [a, second]
    assert group.allowed((a,), A.resource) == [second]
    assert group.allowed((), C.resource) == []


def test_may_be_back() -> None:
    """When one of them all is back the others are tried at once, those excepted that throttle."""
    group = group_of(A, B, C, replace(C, name="sound"))
    a, b, c, sound = group.members
    for one, seconds in ((a, 5.0), (b, 50.0), (c, 50.0)):
        give_up(one, seconds)
    cool(c)
    give_up(c, 50.0)
    group.may_be_back(NOW)
    assert [one.state(NOW) for one in (a, b, c, sound)] == ["half-open", "half-open", "cooling down", "available"]


def bound_to(resource: Deployment, group: Group) -> Reply | GatewayError:
    """What a call is told that belongs to a resource, when nobody there may be asked."""

    async def exchange() -> Reply | GatewayError:
        relay = relay_of(NotAsked(), now=lambda: NOW)
        try:
            return await relay.exchange(Call("responses", "m", b"{}", False), group, at=resource.resource)
        except GatewayError as error:
            return error

    return asyncio.run(exchange())


class NotAsked:
    """A transport that nothing is sent over."""

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """It is an error."""
        raise RuntimeError("it was asked")

    async def aclose(self) -> None:
        """There is nothing to close."""


def test_wait_of_a_call_that_belongs_to_a_resource() -> None:
    """A call that has to go to a resource that throttles is told how long that does, though others are available."""
    group = group_of(A, B)
    cool(member(group, A), 30.0)
    told = bound_to(A, group)
    assert (told.status, told.headers) == (429, ((b"retry-after", b"30"),))


def test_failures_elsewhere_do_not_concern_a_resource() -> None:
    """A call that has to go to a resource that throttles is told so, though one elsewhere has failed."""
    group = group_of(A, B)
    cool(member(group, A), 30.0)
    eject(member(group, B))
    assert bound_to(A, group).status == 429


def test_full_is_not_throttled() -> None:
    """A call that finds all deployments full is told that they are busy, which is no rate limit."""
    group = group_of(replace(A, max_in_flight=1), replace(B, max_in_flight=1))
    for one in group.members:
        one.begin(NOW)
    told = bound_to(A, group)
    assert isinstance(told, GatewayError)
    assert told.status == 503
    assert "busy" in told.message


# Groups.


def test_configured_deployments_are_shared() -> None:
    """A deployment that is configured is one and the same in every group: what is learned in one counts in all."""
    pool = Pool([A, B])
    first, second = pool.group("m", (None, [A, B])), pool.group("n", (None, [replace(A), C]))
    assert first.members[0] is second.members[0] is pool.members[A]
    cool(first.members[0])
    assert picked(second) == "c"


def test_one_deployment_with_two_shares() -> None:
    """A deployment that is configured twice, with two priorities and weights, has one health and two shares."""
    often, seldom = replace(A, weight=3.0), replace(A, priority=1, weight=0.5)
    pool = Pool([often, B, seldom, C])
    assert len(pool.members) == 3
    first, second = pool.group("m", (None, [often, B])), pool.group("n", (None, [seldom, C]))
    assert first.members[0] is second.members[-1] is pool.members[A]
    assert Counter(turns(first, 40)) == {"a": 30, "b": 10}
    assert turns(second, 3) == "ccc"
    eject(first.members[0])
    assert turns(first, 3) == "bbb"
    cool(member(second, C))
    assert picked(second) is None


@pytest.mark.parametrize("first", [0, 1], ids=["plain-first", "plain-last"])
def test_limit_of_one_with_two_shares(first: int) -> None:
    """The entry that says something of its share is the one that is shown and that limits its calls, wherever it is."""
    rows = [A, replace(A, max_in_flight=2, priority=1)]
    pool = Pool(rows[first:] + rows[:first])
    group = pool.group("m", (None, rows[:1]))
    assert pool.members[A].deployment == rows[1]
    for _ in range(2):
        group.members[0].begin(NOW)
    assert group.members[0].is_full


def test_quota_does_not_outlive_a_weight() -> None:
    """Two shares of one deployment both go down with its quota."""
    pool = Pool([A, B])
    for weight in (1.0, 4.0):
        group = pool.group("m", (None, [replace(A, weight=weight), B]))
        pool.members[A].told = (LOW_QUOTA, NOW)
        assert Counter(turns(group, int(100 * (1 + weight / 20))))["a"] == pytest.approx(100 * weight / 20, abs=1)


def test_search() -> None:
    """What only one of several may have is looked for at one after the other, in order."""
    pool = Pool([A, B, C])
    group = pool.search([B, A, C])
    assert [[one.deployment.name for one in tier.members] for tier in group.tiers] == [["b"], ["a"], ["c"]]
    assert [(tier.is_search, tier.fallback) for tier in group.tiers] == [(True, None)] * 3
    assert not any(tier.is_search for tier in pool.group("m", (None, [A, B])).tiers)
    assert turns(group, 3) == "bbb"
    cool(pool.members[B])
    assert turns(group, 3) == "aaa"


def test_named_deployments_are_not_shared() -> None:
    """A deployment that is not configured is known to its group only, and the pool does not grow by it."""
    pool = Pool([A])
    first, second = pool.group("m", (None, [C])), pool.group("n", (None, [C]))
    assert first.members[0] is not second.members[0]
    assert list(pool.members) == [A]


def test_turns_are_each_groups_own() -> None:
    """Two models that share deployments take turns each on its own."""
    pool = Pool([A, B])
    first, second = pool.group("m", (None, [A, B])), pool.group("n", (None, [A, B]))
    assert turns(first, 1) + turns(second, 1) + turns(first, 1) + turns(second, 1) == "aabb"


def test_duplicates() -> None:
    """A deployment that is listed twice is there once, with its share of one."""
    group = group_of(A, B, replace(A), B)
    assert [one.deployment for one in group.members] == [A, B]
    assert turns(group, 4) == "abab"


def test_another_key_is_another_deployment() -> None:
    """The same name at the same place under another key is another account's, with a health of its own."""
    group = group_of(A, replace(A, key=Secret("another")), replace(A, key=None))
    assert len(group.members) == 3


@pytest.mark.parametrize(
    ("deployments", "expected"),
    [
        pytest.param((A, B), {"us"}, id="ours"),
        pytest.param((A, replace(B, key=None)), {"us", "azure"}, id="ours-and-theirs"),
        pytest.param((replace(A, key=None), replace(B, key=None)), {"azure"}, id="theirs"),
        pytest.param((replace(A, key=None), replace(B, key=None, kind="openai")), {"azure", "openai"}, id="two-kinds"),
        pytest.param((A, replace(B, kind="openai")), {"us"}, id="ours-for-two-kinds"),
    ],
)
def test_keyed_by(deployments: tuple[Deployment, ...], expected: set[str]) -> None:
    """A group knows whose keys it is asked with: ours, or the callers' for one kind of server or another."""
    assert group_of(*deployments).keyed_by == expected


def test_only() -> None:
    """A group of one deployment says so, however often it is listed."""
    group = group_of(A, A)
    assert group.only is group.members[0]
    assert group_of(A, B).only is None


def test_fallback() -> None:
    """What stands in for a model comes after all of its own priorities, and is named."""
    pool = Pool([A, B, C])
    late, stand_in = replace(B, priority=5), replace(C, priority=0)
    group = pool.group("m", (None, [late, A]), ("n", [stand_in]))
    assert [tier.fallback for tier in group.tiers] == [None, None, "n"]
    assert [[one.deployment.name for one in tier.members] for tier in group.tiers] == [["a"], ["b"], ["c"]]
    for expected, fallback in (("a", None), ("b", None), ("c", "n")):
        found = group.pick(NOW)
        assert found is not None
        assert (found[0].deployment.name, found[1].fallback) == (expected, fallback)
        cool(found[0])
    assert group.pick(NOW) is None


def test_fallback_to_the_same_deployment() -> None:
    """A deployment that serves both the model and its stand-in is one member, and is not asked twice."""
    pool = Pool([A, B])
    group = pool.group("m", (None, [A]), ("n", [A, B]))
    assert [one.deployment for one in group.members] == [A, B]
    assert picked(group, passed_over=(group.members[0],)) == "b"


def test_ejection_is_short() -> None:
    """What the tests here take for granted: a first ejection is over within its second."""
    group = group_of(A)
    eject(group.members[0])
    assert not group.members[0].is_available(NOW + 0.7 * FIRST_EJECTION_SECONDS)
    assert group.members[0].is_available(NOW + FIRST_EJECTION_SECONDS)
