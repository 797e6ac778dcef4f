"""Who is asked next, and what the caller is told: the real relay over regions that keep to a script."""

import asyncio
import gc
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from chat_api.errors import (
    AuthError,
    ClientGone,
    ConnectError,
    GatewayError,
    NoUpstream,
    StreamBroken,
    UpstreamClosed,
    UpstreamError,
    UpstreamTimeout,
)
from chat_api.models import Models
from chat_api.relay import Retries
from chat_api.types import Call, Reply, Secret
from tests.scripted import Front, Said, Scene, Script, deployment, new, settled
from tests.wires import run_skipping

A, B, C, D, E, F = (deployment(name) for name in "abcdef")
OK, E400, E404, E429, E500, E503 = Said(), Said(400), Said(404), Said(429), Said(500), Said(503)
THREAD = new(operation="threads")  # which is not made twice
RESPONSE = new(operation="responses")
NO_RESPONSE = Said(400, body=b'{"error":{"code":"previous_response_not_found","message":"m"}}')
NO_DEPLOYMENT = Said(404, body=b'{"error":{"code":"DeploymentNotFound","message":"m"}}')
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"word"}}]}\n\n'


def status_of(told: Reply | GatewayError) -> int:
    """Its status; what is told is one or the other."""
    return told.status


def all_say(line: Script) -> dict[str, Any]:
    """The same from everybody."""
    return dict.fromkeys("abcdef", line)


# One after the other.


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(E500, id="500"),
        pytest.param(E503, id="503"),
        pytest.param(E429, id="429"),
        pytest.param(Said(401), id="our-key"),
        pytest.param(Said(408), id="408"),
        pytest.param(NO_DEPLOYMENT, id="no-deployment"),
        pytest.param(ConnectError("m"), id="refused"),
        pytest.param(UpstreamClosed("m"), id="closed"),
        pytest.param(UpstreamTimeout("m"), id="timeout"),
        pytest.param(Said(events=[]), id="empty-stream"),
        pytest.param(Said(events=[b'data: {"error":{"code":"429","message":"m"}}\n\n']), id="error-in-a-stream"),
        pytest.param(Said(events=[StreamBroken("m")]), id="stream-breaks-before-it-begins"),
    ],
)
def test_next_one(first: Said | Exception) -> None:
    """Whatever is wrong with one deployment another one answers, and the trail tells of both."""
    scene = Scene(a=first, b=Said(events=[EVENT]))
    call = new(stream=True)
    told = scene.told(call)
    assert (told.status, scene.asked) == (200, "ab")
    assert [attempt.deployment for attempt in call.trail] == [A, B]
    assert all(attempt.ended for attempt in call.trail)


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(E400, id="400"),
        pytest.param(E404, id="404"),
        pytest.param(Said(413), id="413"),
        pytest.param(Said(501), id="501"),
        pytest.param(Said(505), id="505"),
        pytest.param(ClientGone("m"), id="left"),
        pytest.param(UpstreamError("m", code="unsendable"), id="unsendable"),
        pytest.param(UpstreamError("m", code="answer_too_large"), id="too-large"),
    ],
)
def test_callers_own(first: Said | Exception) -> None:
    """What is the caller's own is told as it came: no other one would say otherwise."""
    scene = Scene(a=first)
    told = scene.told()
    assert scene.asked == "a"
    if isinstance(first, Said):
        assert (told.status, scene.members["a"].failures) == (first.status, 0)
    else:
        assert told is first


def test_next_one_is_the_least_bad_where_none_is_well() -> None:
    """A call that fails while the others sit out an ejection is sent to one of them all the same."""
    scene = Scene(a=E500)
    scene.eject("b", 30.0)
    scene.eject("c", 20.0)
    assert (scene.told().status, scene.asked) == (200, "ac")


def test_first_one_is_the_least_bad_where_none_is_well() -> None:
    """Where all have failed calls go to the one that is soonest to be tried, then to the next one."""
    scene = Scene(c=E500)
    for name, seconds in (("a", 30.0), ("b", 20.0), ("c", 10.0)):
        scene.eject(name, seconds)
    assert (scene.told().status, scene.asked) == (200, "cb")


def test_others_may_be_back() -> None:
    """When one answers that was asked though none was well, the others are tried by the next calls."""
    scene = Scene()
    for name in "abc":
        scene.eject(name, 50.0)

    async def calls() -> None:
        for _ in range(6):
            await scene.call()

    run_skipping(calls())
    assert sorted(scene.asked[:3]) == ["a", "b", "c"]
    assert [one.ejected_until for one in scene.members.values()] == [0.0] * 3


def test_others_are_not_back_because_one_is_that_was_well() -> None:
    """That one answers which had not failed says nothing of those that had."""
    scene = Scene()
    scene.eject("b")
    scene.told()
    assert scene.members["b"].ejected_until == 1050.0


@pytest.mark.parametrize(("most", "asked"), [(1, "a"), (2, "ab"), (3, "abc"), (9, "abcdef")])
def test_most_attempts(most: int, asked: str) -> None:
    """No more are asked than MAX_ATTEMPTS, nor one of them twice."""
    scene = Scene(A, B, C, D, E, F, retries=Retries(most), **all_say(E503))
    assert (scene.told().status, scene.asked) == (503, asked)


def test_all_fail() -> None:
    """When all fail, each in its way, the caller is told of each, and to come again soon."""
    scene = Scene(a=E500, b=ConnectError("no connection"), c=Said(429, (b"retry-after", b"40")))
    told = scene.told()
    assert isinstance(told, NoUpstream)
    assert (told.status, told.headers) == (503, ((b"retry-after", b"1"),))
    assert [part.partition("@")[0] for part in told.message.partition("answer: ")[2].split("; ")] == ["a", "b", "c"]


def test_all_throttle() -> None:
    """When all throttle the caller gets the 429 of the last one, with the wait for the first that is back."""
    lines: dict[str, Any] = {
        name: Said(429, (b"retry-after", after)) for name, after in (("a", b"40"), ("b", b"9"), ("c", b"20"))
    }
    scene = Scene(**lines)
    told = scene.told()
    assert isinstance(told, Reply)
    assert (told.status, dict(told.headers)[b"retry-after"]) == (429, b"9")


def test_all_are_cooled_down() -> None:
    """While all are cooled down none is asked."""
    scene = Scene()
    for name in "abc":
        scene.cool(name, 7.0)
    told = scene.told()
    assert (told.status, told.headers, scene.asked) == (429, ((b"retry-after", b"7"),), "")


@pytest.mark.parametrize("count", [1, 2])
def test_all_are_full(count: int) -> None:
    """When all have as many calls as they may have that is a 503, be it a single one: nobody throttles."""
    scene = Scene(*(replace(one, max_in_flight=1) for one in (A, B)[:count]), a=(5.0, OK), b=(5.0, OK))

    async def calls() -> list[Reply | GatewayError]:
        return await asyncio.gather(*(scene.call() for _ in range(4)))

    told = run_skipping(calls())
    assert [one.status for one in told] == [200] * count + [503] * (4 - count)
    assert "busy" in getattr(told[-1], "message", "")
    scene.assert_idle()


# What is not done twice.


@pytest.mark.parametrize(
    ("first", "status"),
    [pytest.param(E500, 500, id="500"), pytest.param(Said(504), 504, id="504"), pytest.param(Said(408), 408, id="408")],
)
def test_own_answer_of_what_is_not_done_twice(first: Said, status: int) -> None:
    """What may have been done is not done again, and its own answer is told: no word of coming again, nor of others."""
    scene = Scene(a=first)
    told = scene.told(new(operation="threads"))
    assert isinstance(told, Reply)
    assert (told.status, scene.asked) == (status, "a")
    assert b"retry-after" not in dict(told.headers)


@pytest.mark.parametrize("error", [UpstreamClosed("m"), UpstreamTimeout("m")], ids=["closed", "timeout"])
def test_own_error_of_what_is_not_done_twice(error: GatewayError) -> None:
    """So is its own error."""
    scene = Scene(a=error)
    assert (scene.told(new(operation="threads")), scene.asked) == (error, "a")


@pytest.mark.parametrize("first", [E503, E429, Said(401), ConnectError("m")], ids=["503", "429", "401", "refused"])
def test_what_was_certainly_not_done(first: Said | Exception) -> None:
    """What was refused before anything was done is sent to another."""
    scene = Scene(a=first)
    assert (scene.told(new(operation="threads")).status, scene.asked) == (200, "ab")


@pytest.mark.parametrize("body", [b'{"background":true}', b'{"tools":[{"type":"mcp"}]}'], ids=["background", "mcp"])
def test_response_that_acts_is_not_made_twice(body: bytes) -> None:
    """A response that goes on by itself, or acts on other systems, is not made twice; any other one is."""
    scene, other = Scene(a=E500), Scene(a=E500)
    assert (scene.told(new(operation="responses", body=body)).status, scene.asked) == (500, "a")
    assert (other.told(new(operation="responses")).status, other.asked) == (200, "ab")


@pytest.mark.parametrize(
    "first", [E500, E429, E503, Said(401), ConnectError("m")], ids=["500", "429", "503", "401", "refused"]
)
def test_only_attempt(first: Said | Exception) -> None:
    """With MAX_ATTEMPTS=1 the caller gets what the only one that was asked said, as it came."""
    scene = Scene(a=first, retries=Retries(1))
    told = scene.told()
    assert scene.asked == "a"
    assert told is first if isinstance(first, Exception) else isinstance(told, Reply) and told.status == first.status


@pytest.mark.parametrize("operation", ["threads", "threads/runs", "files"])
def test_probe_is_nothing_that_is_not_done_twice(operation: str) -> None:
    """What is not done twice is not sent to one that is to be tried again while another is well, of any priority."""
    scene = Scene(A, replace(B, priority=1))
    scene.eject("a", -1.0)
    assert (scene.told(new(operation=operation)).status, scene.asked) == (200, "b")
    assert (scene.told().status, scene.asked) == (200, "ba")


# The budget.


@pytest.mark.parametrize("ill", [ConnectError("m"), E503, UpstreamClosed("m")], ids=["refused", "503", "closed"])
def test_burst_on_a_cold_gateway(ill: Said | Exception) -> None:
    """Sixty calls at once with one region of three dead are all answered, though there were none before."""
    scene = Scene(a=(0.1, ill), b=(0.5, OK), c=(0.5, OK))

    async def calls() -> list[Reply | GatewayError]:
        return await asyncio.gather(*(scene.call() for _ in range(60)))

    assert [one.status for one in run_skipping(calls())] == [200] * 60
    assert scene.asked.count("a") == 20
    scene.assert_idle()


def test_budget_is_used_up() -> None:
    """With no retry left the caller is told of the one that was asked."""
    scene = Scene(a=E503, b=E503, c=E503)

    async def exhausted() -> Reply | GatewayError:
        while scene.budget.take(scene.now()):
            pass
        return await scene.call()

    told = run_skipping(exhausted())
    assert isinstance(told, NoUpstream)
    assert scene.asked == "a"
    assert told.message.startswith('no deployment for model "m" could answer: a@a.test: 503 ')


def test_first_attempts_cost_nothing() -> None:
    """Calls that are answered at once use nothing of the budget, nor do those that are told at once that none can."""
    scene = Scene(A, B)

    async def calls() -> None:
        for _ in range(20):
            await scene.call()
        for name in "ab":
            scene.cool(name)
        for _ in range(20):
            await scene.call()

    run_skipping(calls())
    assert (scene.budget.calls, scene.budget.retries) == (40, 0)
    scene.assert_idle()


# Fallbacks.


def falling_back(**scripts: Any) -> Scene:
    """One deployment, and another model's that stands in for it."""
    return Scene(A, stand_ins=[B], **scripts)


def test_stand_in() -> None:
    """A stand-in answers, and the trail says which model that was."""
    call = new()
    assert falling_back(a=E503).told(call).status == 200
    assert [attempt.fallback for attempt in call.trail] == [None, "small"]


@pytest.mark.parametrize("refusal", [E400, E404, Said(422), E429, E500], ids=["400", "404", "422", "429", "500"])
def test_stand_ins_refusal_is_not_the_last_word(refusal: Said) -> None:
    """Where the model's own throttle, and a stand-in refuses what was not written for it, the own 429 is told."""
    scene = falling_back(a=Said(429, (b"retry-after", b"5"), body=b"own"), b=refusal)
    told = scene.told()
    assert isinstance(told, Reply)
    assert (told.status, told.body, scene.asked) == (429, b"own", "ab")
    assert scene.members["b"].state(1000.0) == ("available" if refusal is not E429 else "cooling down")


def test_stand_in_after_a_failure() -> None:
    """Where the model's own fail and a stand-in refuses, the caller is told of both, under a 503."""
    told = falling_back(a=E500, b=E400).told()
    assert isinstance(told, NoUpstream)
    assert told.message.count("; ") == 1


def test_stand_ins_refusal_is_not_blamed_on_it() -> None:
    """A stand-in that refuses is well."""
    scene = falling_back(a=E503, b=E400)
    scene.eject("b", -1.0)
    scene.told()
    assert scene.members["b"].ejected_until == 0


def test_wait_where_a_stand_in_refuses() -> None:
    """Where the model's own are cooled down and a stand-in refuses, the wait is that for the model's own."""
    scene = falling_back(b=E400)
    scene.cool("a", 40.0)
    told = scene.told()
    assert isinstance(told, GatewayError)
    assert (told.status, told.headers) == (429, ((b"retry-after", b"40"),))


# What only one of them has.


def test_response_of_another_region() -> None:
    """Where one does not know the response that a call goes on from, the next one may; nobody is blamed."""
    scene = Scene(a=NO_RESPONSE)
    assert (scene.told(new(operation="responses")).status, scene.asked) == (200, "ab")
    assert scene.members["a"].failures == 0


def test_response_of_none() -> None:
    """If none of them knows it the caller is told so, by the last one's own answer."""
    told = Scene(A, B, a=NO_RESPONSE, b=NO_RESPONSE).told(new(operation="responses"))
    assert (told.status, isinstance(told, Reply)) == (400, True)


def test_deployment_of_none() -> None:
    """If none has the deployment that is a 404, the first time and the second, and no word of coming again."""
    scene = Scene(A, B, a=NO_DEPLOYMENT, b=NO_DEPLOYMENT)

    async def calls() -> list[int]:
        return [status_of(await scene.call()) for _ in range(5)]

    assert run_skipping(calls()) == [404] * 5


# Hedges.


HEDGING = Retries(hedge_seconds=1.0)


def hedged(*deployments: Any, retries: Retries = HEDGING, **scripts: Any) -> Scene:
    """Deployments with HEDGE_AFTER=1."""
    return Scene(*deployments, retries=retries, **scripts)


def slow(line: Said | Exception = OK, seconds: float = 5.0) -> tuple[float, Said | Exception]:
    """It takes its time."""
    return seconds, line


def names(call: Call) -> str:
    """The deployments of a call's trail."""
    return "".join(attempt.deployment.name for attempt in call.trail)


def test_hedge(caplog: pytest.LogCaptureFixture) -> None:
    """Where one says nothing a second is asked; it answers, comes last in the trail, and the first is let go."""
    caplog.set_level(logging.INFO)
    scene, call = hedged(a=slow()), new()
    assert (scene.told(call).status, scene.asked) == (200, "ab")
    assert names(call) == "ab"
    assert (call.trail[0].status, call.trail[1].status) == (0, 200)
    assert [record.message for record in caplog.records] == [
        "attempt 1 of request r-1 at a@a.test: dropped before its answer"
    ]


def test_hedge_that_loses() -> None:
    """Where the first answers after all, it comes last in the trail."""
    scene, call = hedged(a=slow(OK, 2.0), b=slow()), new()
    assert (scene.told(call).status, scene.asked) == (200, "ab")
    assert names(call) == "ba"


def test_line_of_a_hedge_that_loses(caplog: pytest.LogCaptureFixture) -> None:
    """The line of the one that was let go has the number in which it was asked."""
    caplog.set_level(logging.INFO)
    hedged(a=slow(OK, 2.0), b=slow()).told()
    assert [record.message for record in caplog.records] == [
        "attempt 2 of request r-1 at b@b.test: dropped before its answer"
    ]


def test_no_hedge_for_who_answers_in_time() -> None:
    """One that answers in time is not hedged."""
    scene = hedged(a=slow(OK, 0.9))
    assert (scene.told().status, scene.asked, scene.budget.retries) == (200, "a", 0)


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(new(operation="threads"), id="thread"),
        pytest.param(new(operation="responses", body=b'{"background":true}'), id="background"),
        pytest.param(new(operation="files", method="DELETE"), id="delete"),
    ],
)
def test_no_hedge_for_what_is_not_done_twice(call: Call) -> None:
    """What is not done twice is not asked of two."""
    scene = hedged(a=slow())
    assert (scene.told(call).status, scene.asked) == (200, "a")


@pytest.mark.parametrize(("most", "asked"), [(1, "a"), (2, "ab"), (3, "abc")])
def test_hedges_are_attempts(most: int, asked: str) -> None:
    """No more are asked than MAX_ATTEMPTS, hedges included, whatever the first ones said."""
    scene = hedged(A, B, C, D, E, retries=Retries(most, hedge_seconds=1.0), **all_say(slow(E503)))
    assert (scene.told().status, scene.asked) == (503, asked)


def test_hedge_is_of_the_same_model() -> None:
    """What is merely slow is not answered by another model; it is where it fails."""
    scene = Scene(A, stand_ins=[B], retries=HEDGING, a=slow())
    assert (scene.told().status, scene.asked) == (200, "a")
    scene = Scene(A, stand_ins=[B], retries=HEDGING, a=slow(E503))
    assert (scene.told().status, scene.asked) == (200, "ab")


def test_stand_ins_hedge_each_other() -> None:
    """Where the model's own are away, what stands in is hedged by what stands in as well."""
    scene, call = Scene(A, stand_ins=[B, C], retries=HEDGING, b=slow()), new()
    scene.cool("a")
    assert (scene.told(call).status, scene.asked) == (200, "bc")
    assert [attempt.fallback for attempt in call.trail] == ["small", "small"]


def test_hedge_of_a_worse_priority() -> None:
    """Another priority of the same model may be the second."""
    scene = hedged(A, replace(B, priority=1), a=slow())
    assert (scene.told().status, scene.asked) == (200, "ab")


@pytest.mark.parametrize("seconds", [-1.0, 50.0], ids=["half-open", "ejected"])
def test_hedge_is_one_that_is_well(seconds: float) -> None:
    """One that has failed is no help against silence."""
    scene = hedged(A, replace(B, priority=1), a=slow())
    scene.eject("b", seconds)
    assert (scene.told().status, scene.asked) == (200, "a")


def test_hedges_take_from_the_budget() -> None:
    """A hedge is a call made twice: with nothing left there is none."""
    scene = hedged(a=slow())

    async def exhausted() -> Reply | GatewayError:
        while scene.budget.take(scene.now()):
            pass
        return await scene.call()

    assert run_skipping(exhausted()).status == 200
    assert scene.asked == "a"


def test_place_is_taken_at_the_pick() -> None:
    """Ten calls at once to two that take one each: two are answered, and never are there two at one."""
    scene = hedged(replace(A, max_in_flight=1), replace(B, max_in_flight=1), a=slow(OK, 0.5), b=slow(OK, 0.5))

    async def calls() -> list[int]:
        return [status_of(one) for one in await asyncio.gather(*(scene.call() for _ in range(10)))]

    assert sorted(run_skipping(calls())) == [200] * 2 + [503] * 8
    assert scene.regions.most == {"a": 1, "b": 1}
    scene.assert_idle()


def test_one_probe_though_calls_are_hedged() -> None:
    """Ten calls at once to one that is to be tried again: one of them tries it."""
    scene = hedged(A, B, a=slow(OK, 0.5), b=slow(OK, 0.5))
    scene.eject("a", -1.0)

    async def calls() -> None:
        await asyncio.gather(*(scene.call() for _ in range(10)))

    run_skipping(calls())
    assert scene.asked.count("a") == 1


@pytest.mark.parametrize(
    ("first", "second", "status", "last"),
    [
        pytest.param(slow(OK, 3.0), slow(E500, 0.5), 200, "a", id="hedge-fails"),
        pytest.param(slow(OK, 3.0), slow(E400, 0.5), 200, "a", id="hedge-refuses"),
        pytest.param(slow(OK, 3.0), slow(E404, 0.5), 200, "a", id="hedge-knows-nothing"),
        pytest.param(slow(OK, 3.0), slow(ConnectError("m"), 0.5), 200, "a", id="hedge-breaks"),
        pytest.param(slow(E500, 1.5), slow(OK, 3.0), 200, "b", id="first-fails"),
        pytest.param(slow(E400, 1.5), slow(OK, 3.0), 200, "b", id="first-refuses"),
        pytest.param(slow(E400, 1.5), slow(E500, 3.0), 400, "a", id="first-refuses-hedge-fails"),
        pytest.param(slow(E500, 1.5), slow(E400, 3.0), 400, "b", id="first-fails-hedge-refuses"),
        pytest.param(slow(E500, 3.0), slow(E400, 0.5), 400, "b", id="hedge-refuses-first-fails"),
    ],
)
def test_best_outcome_wins(first: Script, second: Script, status: int, last: str) -> None:
    """Of the two an answer counts most, then a refusal that is the caller's own, whoever was first with it."""
    scene, call = hedged(A, B, a=first, b=second), new()
    assert (scene.told(call).status, scene.asked) == (status, "ab")
    assert names(call)[-1] == last
    assert call.trail[-1].status == status


def test_both_fail() -> None:
    """Where both fail a third is asked, and is hedged as well; if all fail each is told of."""
    lines = all_say(slow(E503, 1.5))
    del lines["e"]
    call = new()
    assert hedged(A, B, C, D, E, **lines).told(call).status == 200
    assert names(call) == "abcde"
    told = hedged(A, B, C, D, **lines).told()
    assert isinstance(told, NoUpstream)
    assert told.message.count("@") == 4


@pytest.mark.parametrize("seed", range(5))
def test_both_answer_at_once(seed: int) -> None:
    """Where both answer at once one answer is the reply, and the other one's connection is let go."""
    lines = Said(events=[EVENT]), Said(events=[EVENT])
    scene, call = hedged(A, B, a=slow(lines[0], 2.0), b=slow(lines[1], 1.0)), new(stream=True)

    async def exchange() -> None:
        told = await scene.call(call)
        assert isinstance(told, Reply)
        assert told.deployment == call.trail[-1].deployment
        assert not isinstance(told.body, bytes)
        await settled()
        assert sum(line.closed for line in lines) == 1
        await told.body.aclose()
        await settled()

    run_skipping(exchange())
    assert [line.closed for line in lines] == [1, 1]
    scene.assert_idle()


def test_slower_is_said_of_the_attempt_that_was() -> None:
    """A probe that hangs, and was asked after another had failed, is ejected anew, for longer."""
    scene = hedged(A, B, C, a=slow(E500, 0.9), b=slow())

    async def exchange() -> None:
        scene.members["b"].release(failed := scene.members["b"].begin(1000.5))
        task = asyncio.ensure_future(scene.call())
        await asyncio.sleep(0.6)
        scene.members["b"].fail(failed, scene.now(), scene.relay._asking.rng)
        scene.members["b"].ejected_until = 1000.8
        await task
        await settled()

    scene.eject("b", 50.0)
    scene.members["b"].ejected_until = 0.0
    run_skipping(exchange())
    assert scene.asked == "abc"
    assert scene.members["b"].ejected_until > 1001.9


def test_hedges_lost_again_and_again() -> None:
    """One that is silent again and again is ejected, and asked no more."""
    scene = hedged(A, B, a=slow(OK, 500.0))

    async def calls() -> None:
        for _ in range(20):
            assert status_of(await scene.call()) == 200
        await settled()

    run_skipping(calls())
    assert scene.asked.count("a") < 10
    scene.assert_idle()


# The only deployment.


@pytest.mark.parametrize(
    ("lines", "asked", "status"),
    [
        pytest.param([Said(429, (b"retry-after", b"2")), OK], "aa", 200, id="throttled"),
        pytest.param([Said(429, (b"retry-after", b"6"))], "a", 429, id="throttled-for-longer"),
        pytest.param([E500, E503, OK], "aaa", 200, id="failed-twice"),
        pytest.param([E400], "a", 400, id="callers-own"),
        pytest.param([Said(401)], "a", 401, id="in-vain"),
        pytest.param([ConnectError("m"), OK], "aa", 200, id="refused"),
        pytest.param([E500], "aaaaa", 500, id="most-attempts"),
    ],
)
def test_only_one_is_waited_for(lines: Script, asked: str, status: int) -> None:
    """With RETRY_WAIT the only deployment is asked again, as long as that is short; its last answer is told."""
    scene = Scene(A, retries=Retries(5, wait_seconds=5.0), a=lines)
    scene.relay._sleep = asyncio.sleep
    assert (scene.told().status, scene.asked) == (status, asked)


@pytest.mark.parametrize("line", [E500, E429, ConnectError("m")], ids=["500", "429", "refused"])
def test_only_one_is_asked_though_it_is_away(line: Said | Exception) -> None:
    """The only deployment is asked by every call, ejected, cooled down or not, and what it says is told as it is."""
    scene = Scene(A, a=[line, line, line, OK])

    async def calls() -> list[int]:
        return [status_of(await scene.call()) for _ in range(4)]

    assert run_skipping(calls()) == [line.status if isinstance(line, Said) else 502] * 3 + [200]


# What a stream leaves behind.


def test_stream_keeps_its_place() -> None:
    """A stream takes up a place until it is read, or nobody reads on."""
    scene = Scene(A, B, a=Said(events=[EVENT, EVENT]))

    async def exchange() -> None:
        told = await scene.call(new(stream=True))
        assert isinstance(told, Reply)
        assert not isinstance(told.body, bytes)
        assert (scene.members["a"].in_flight, scene.budget.open) == (1, 0)
        await told.body.aclose()
        await told.body.aclose()
        assert scene.members["a"].in_flight == 0

    run_skipping(exchange())
    scene.assert_idle()


async def read(scene: Scene) -> None:
    """A streamed call to its end, which may be no good one."""
    told = await scene.call(new(stream=True))
    assert isinstance(told, Reply)
    assert not isinstance(told.body, bytes)
    try:
        async for _ in told.body:
            pass
    except UpstreamError:
        pass
    finally:
        await told.body.aclose()


def test_streams_that_break_again_and_again() -> None:
    """One whose streams all break off is ejected, though each of them had begun."""
    scene = Scene(A, B, a=Said(events=[EVENT, StreamBroken("m")]))

    async def calls() -> None:
        for _ in range(10):
            await read(scene)

    run_skipping(calls())
    assert scene.members["a"].ejected_until


def test_streams_that_break_now_and_then() -> None:
    """One whose streams break off now and then is not: one that comes to its end makes the break before it harmless."""
    scene = Scene(A, a=[Said(events=[EVENT, line] if line else [EVENT]) for line in (StreamBroken("m"), None) * 10])

    async def calls() -> None:
        for _ in range(20):
            await read(scene)

    run_skipping(calls())
    assert (scene.members["a"].failures, scene.members["a"].ejected_until) == (10, 0.0)


def test_stream_closes_the_breaker_when_it_begins() -> None:
    """One that is tried by a stream is back when that begins, not when it ends."""
    scene = Scene(A, B, a=Said(events=[EVENT]))
    scene.eject("a", -1.0)

    async def exchange() -> None:
        told = await scene.call(new(stream=True))
        assert scene.members["a"].state(1000.0) == "available"
        assert isinstance(told, Reply)
        assert not isinstance(told.body, bytes)
        await told.body.aclose()

    run_skipping(exchange())
    scene.assert_idle()


def test_probes_stream_that_breaks_has_one_strike() -> None:
    """A stream that closes the breaker and then breaks off is the first strike: what was before it does not count."""
    scene = Scene(A, B, a=Said(events=[EVENT, StreamBroken("m")]))
    scene.eject("a", -1.0)
    run_skipping(read(scene))
    assert scene.members["a"].state(1000.0) == "available"


def test_stream_that_falls_silent() -> None:
    """One whose stream falls silent is ejected at once."""
    scene = Scene(A, B, a=Said(events=[EVENT, UpstreamTimeout("m")]))
    run_skipping(read(scene))
    assert scene.members["a"].state(1000.5) == "ejected"
    scene.assert_idle()


# Nothing is left.


HANGS = slow(OK, 1e9)


@pytest.mark.parametrize(
    ("scene", "stream"),
    [
        pytest.param(lambda: Scene(A, a=slow()), False, id="only-one"),
        pytest.param(lambda: Scene(a=slow(E500), b=slow(E503)), False, id="failing-over"),
        pytest.param(lambda: Scene(a=Said(events=[EVENT])), True, id="stream"),
        pytest.param(lambda: hedged(a=slow(), b=slow()), False, id="hedged"),
        pytest.param(lambda: hedged(a=slow(E500), b=slow(E500)), False, id="hedged-failing"),
        pytest.param(lambda: hedged(a=slow(Said(events=[EVENT])), b=Said(events=[EVENT])), True, id="hedged-streams"),
        pytest.param(lambda: waiting(), False, id="waiting"),
    ],
)
def test_cancelled_at_any_moment(scene: Callable[[], Scene], stream: bool) -> None:
    """Whenever its caller leaves, a call leaves no place taken, no task, and no connection open."""
    for turns in range(100):
        here = scene()
        if run_skipping(cancelled(here, turns, stream)):
            break
        here.assert_idle()
        assert [said.closed > 0 or said.is_whole for said in here.regions.said].count(False) == 0, turns
    else:
        pytest.fail("the call never ended by itself")
    assert turns > 2


async def cancelled(scene: Scene, turns: int, stream: bool) -> bool:
    """Cancel a call after so many turns of the loop; whether it had ended before."""
    task = asyncio.ensure_future(scene.call(new(stream=stream)))
    for _ in range(turns):
        if task.done():
            return True
        await asyncio.sleep(0)
        if not task.done() and not _ready():
            await asyncio.sleep(0.5)  # the clock goes on
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await settled()
    if task.done() and not task.cancelled():
        told = task.result()
        if isinstance(told, Reply) and not isinstance(told.body, bytes):
            await told.body.aclose()
        return True
    return False


def _ready() -> bool:
    """Whether something is to be done at once."""
    return bool(asyncio.get_running_loop()._ready)  # type: ignore[attr-defined]


def waiting() -> Scene:
    """The only deployment, which is waited for."""
    scene = Scene(A, retries=Retries(wait_seconds=50.0), a=Said(429, (b"retry-after", b"9")))
    scene.relay._sleep = asyncio.sleep
    return scene


@pytest.fixture
def uncollected() -> Iterator[None]:
    """No cycle is collected by itself."""
    gc.collect()
    gc.freeze()  # of what other tests have left nothing is looked at
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


GARBAGE = [
    pytest.param(lambda: Scene(), id="answered"),
    pytest.param(lambda: Scene(a=E500), id="failed-over"),
    pytest.param(lambda: Scene(a=ConnectError("m"), b=UpstreamClosed("m"), c=UpstreamTimeout("m")), id="errors"),
    pytest.param(lambda: Scene(A, a=UpstreamClosed("m")), id="only-one"),
    pytest.param(lambda: Scene(a=UpstreamClosed("m"), retries=Retries(1)), id="only-attempt"),
    pytest.param(lambda: hedged(a=slow()), id="hedged"),
    pytest.param(lambda: hedged(a=slow(OK, 2.0), b=HANGS), id="hedge-lost"),
    pytest.param(lambda: hedged(a=slow(ConnectError("m"), 1.5), b=slow(UpstreamClosed("m"), 1.5)), id="hedged-errors"),
    pytest.param(lambda: hedged(a=ClientGone("m")), id="hedged-raises"),
    pytest.param(lambda: hedged(a=HANGS, b=ClientGone("m")), id="hedge-raises"),
    pytest.param(lambda: hedged(a=slow(ClientGone("m"), 2.0), b=HANGS), id="hedged-first-raises"),
    pytest.param(lambda: hedged(*(replace(one, key=None) for one in (A, B))), id="no-key"),
]


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("scene", GARBAGE)
def test_no_cycles(scene: Callable[[], Scene]) -> None:
    """However a call ends, all of it is gone with it: its body is not kept until Python looks for cycles."""

    async def exchange() -> int:
        here = scene()
        for _ in range(3):  # the first ones fill what is remembered
            await here.call()
            await settled()
        gc.collect()
        for _ in range(5):
            await here.call()
            await settled()
        return gc.collect()

    assert run_skipping(exchange()) == 0


@pytest.mark.usefixtures("uncollected")
def test_no_cycles_of_a_cancelled_call() -> None:
    """Nor is anything kept of a hedged call that was cancelled."""

    async def exchange() -> int:
        here = hedged(a=HANGS, b=HANGS)
        for count in range(6):
            task = asyncio.ensure_future(here.call())
            await asyncio.sleep(2.0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            del task
            await settled()
            if count == 2:
                gc.collect()
        return gc.collect()

    assert run_skipping(exchange()) == 0


# Through the gateway: what only one resource has.


WEST, EAST = deployment("west", key=Secret("key-of-west")), deployment("east", key=Secret("key-of-east"))
TWO = Models({"m": [WEST, EAST]}, [WEST, EAST])


def get(operation: str, **fields: Any) -> Call:
    """A call for what is there."""
    return new(operation=operation, model=None, method="GET", body=b"", **fields)


def statuses(told: list[Reply | GatewayError]) -> list[int]:
    """Of each."""
    return [one.status for one in told]


def test_what_nobody_knows_is_looked_for() -> None:
    """An id that this process does not know is asked of each resource in turn, and of the right one from then on."""
    front = Front(TWO, west=E404, east=Said(body=b'{"id":"file-123456"}'))
    assert statuses(front.told(*[get("files/file-123456")] * 3)) == [200] * 3
    assert front.asked == "westeast" + "east" * 2


@pytest.mark.parametrize("method", ["GET", "DELETE", "HEAD"])
def test_what_nobody_has(method: str) -> None:
    """What none of them has is a 404, and each was asked once."""
    front = Front(TWO, west=E404, east=Said(404, body=b"last"))
    (told,) = front.told(replace_method(get("files/file-123456"), method))
    assert isinstance(told, Reply)
    assert (told.status, front.asked) == (404, "westeast")


def replace_method(call: Call, method: str) -> Call:
    """The same with another method."""
    return new(operation=call.operation, model=None, method=method, body=b"")


def test_search_goes_on_past_one_that_is_down() -> None:
    """What is looked for is found though the first resource is down."""
    front = Front(TWO, west=ConnectError("m"))
    assert statuses(front.told(get("files/file-123456"))) == [200]


def test_not_found_is_not_said_while_one_is_down() -> None:
    """Where one of them could not be asked nobody says that it is not there."""
    front = Front(TWO, west=ConnectError("m"), east=E404)
    assert statuses(front.told(*[get("files/file-123456")] * 2)) == [503] * 2


def test_looking_costs_no_retries() -> None:
    """To look at the next resource is no retry: it is done with nothing left, and leaves others what there is."""
    front = Front(TWO, west=E404, east=Said(body=b'{"id":"file-123456"}'))
    while front.gateway.budget.take(1000.0):
        pass
    assert statuses(front.told(get("files/file-123456"))) == [200]
    front = Front(TWO, west=E404, east=E404)
    assert statuses(front.told(*(get(f"files/file-{number:06d}") for number in range(50)))) == [404] * 50
    assert front.gateway.budget.retries == 0


def test_response_is_looked_for_without_retries() -> None:
    """So is the response that a call goes on from."""
    scene = Scene(a=NO_RESPONSE)
    assert (scene.told(new(operation="responses")).status, scene.budget.retries) == (200, 0)


def test_last_of_many_is_asked_too() -> None:
    """With more resources than attempts nobody says that a thing is not there which the last one has."""
    six = [deployment(f"r{number}", key=Secret(f"key-of-r{number}")) for number in range(6)]
    missing: dict[str, Any] = {f"r{number}": E404 for number in range(5)}
    front = Front(Models({"m": six}, six), **missing)
    assert statuses(front.told(get("files/file-123456"))) == [200]


def test_content_is_looked_for_too() -> None:
    """So is a file's content, of which nothing is remembered."""
    content = Said(kind=b"application/octet-stream", body=b'{"id":"resp_666666"}')
    front = Front(TWO, west=[E404, OK], east=content)
    told = front.told(get("files/file-123456/content"), get("responses/resp_666666"))
    assert statuses(told) == [200, 200]
    assert front.asked == "westeast" + "west"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Said(body=b'{"id":"resp_666666"}'), id="json"),
        pytest.param(Said(events=[b'data: {"id":"resp_666666"}\n\n']), id="events"),
        pytest.param(Said(body=b'{"id":"resp_666666"}', kind=b"application/json; charset=utf-8"), id="charset"),
    ],
)
def test_answers_are_noted(answer: Said) -> None:
    """What an answer has made is asked of who gave it, plain or streamed."""
    front = Front(Models({"m": [EAST]}, [WEST, EAST]), east=answer, west=E404)
    front.told(new(operation="responses", stream=True), get("responses/resp_666666"))
    assert front.asked == "easteast"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Said(body=b'{"id":"resp_666666"}', kind=b"text/plain"), id="text"),
        pytest.param(Said(body=b'{"id":"resp_666666"}', kind=b"application/jsonl"), id="lines"),
        pytest.param(Said(400, body=b'{"id":"resp_666666"}'), id="refusal"),
    ],
)
def test_other_bodies_are_not_noted(answer: Said) -> None:
    """What is no answer of the API, but a file's lines say, binds no id to who sent it."""
    front = Front(Models({"m": [EAST]}, [WEST, EAST]), east=answer)
    front.told(new(operation="responses"), get("responses/resp_666666"))
    assert front.asked == "eastwest"


def test_ids_that_the_call_named_are_not_noted() -> None:
    """What an answer only repeats of the call is not that resource's."""
    answer = Said(body=b'{"id":"resp_666666","metadata":{"file_id":"file-123456"}}')
    front = Front(Models({"m": [EAST]}, [WEST, EAST]), east=answer)
    call = new(operation="responses", body=b'{"metadata":{"file_id":"file-123456"}}')
    front.told(call, get("files/file-123456"), get("responses/resp_666666"))
    assert front.asked == "east" + "west" + "east"


def test_answers_to_be_noted_are_not_compressed() -> None:
    """What is to be read here is not asked for compressed; a chat is, if its caller can open it."""
    front = Front(TWO)
    headers = ((b"accept-encoding", b"gzip"), (b"x-other", b"1"))
    front.told(new(operation="responses", headers=headers), new(headers=headers))
    response, chat = (dict(request.headers) for request in front.regions.requests)
    assert response[b"x-other"] == b"1"
    assert b"gzip" not in response[b"accept-encoding"]
    assert chat[b"accept-encoding"] == b"gzip"


def test_response_goes_on_where_it_is_known() -> None:
    """A response that goes on from one that nobody here knows is made where that is known."""
    front = Front(TWO, west=NO_RESPONSE)
    body = b'{"previous_response_id":"resp_123456"}'
    assert statuses(front.told(*(new(operation="responses", body=body) for _ in range(4)))) == [200] * 4


@pytest.mark.parametrize(
    "line", [E500, E503, Said(403), E429, ConnectError("m")], ids=["500", "503", "403", "429", "no"]
)
def test_files_say_nothing_of_models(line: Said | Exception) -> None:
    """However a resource fails over its files, its models are asked as before."""
    front = Front(TWO, west=line)
    front.told(*(get("files") for _ in range(3)))
    assert front.asked == "west" * 3
    assert [member.state(1000.0) for member in front.gateway.members()] == ["available"] * 2


@pytest.mark.parametrize(
    ("line", "known"),
    [
        pytest.param(OK, ["available"], id="well"),
        pytest.param(ConnectError("m"), ["ejected"], id="dead"),
        pytest.param(E429, ["cooling down"], id="throttling"),
        pytest.param(NO_DEPLOYMENT, [], id="missing"),
    ],
)
def test_deployments_that_only_callers_name(line: Said | Exception, known: list[str]) -> None:
    """A resource without a deployment's name is shown by what callers have named there, dead or not, if it is there."""
    nameless = replace(WEST, name="")
    front = Front(Models({}, [nameless]), west=line)
    front.told(new(model="gpt"))
    assert [member.state(1000.0) for member in front.gateway.members()] == known


def test_deployment_that_is_configured_twice_is_shown_once() -> None:
    """The default deployment that is a model's as well, with a priority, is one: neither /ready nor /status has two."""
    row = replace(WEST, priority=1, max_in_flight=5)
    front = Front(Models({"m": [row]}, [WEST]))
    assert [member.deployment for member in front.gateway.members()] == [row]


# Through the gateway: whose key goes where.


def keys(front: Front) -> list[tuple[str, bytes]]:
    """Who was asked with which key."""
    found = []
    for request in front.regions.requests:
        headers = dict(request.headers)
        key = headers.get(b"api-key") or headers[b"authorization"].removeprefix(b"Bearer ")
        found.append((request.url.split("//")[1].split(".")[0], key))
    return found


THEIRS = Secret("a-key-of-theirs")
NO_KEY = deployment("a", key=None)
NO_KEY_EITHER = deployment("b", key=None)
SERVER = deployment("c", key=None, kind="openai", api_version="v1")


def test_a_callers_key_goes_to_one_kind_of_server() -> None:
    """A caller's own key for Azure is tried at Azure's, and never at another server, though all of Azure's fail."""
    front = Front(Models({"m": [NO_KEY, SERVER, NO_KEY_EITHER]}, [NO_KEY]), a=E503, b=E503)
    (told,) = front.told(new(credential=THEIRS))
    assert told.status == 503
    assert sorted(keys(front)) == [("a", b"a-key-of-theirs"), ("b", b"a-key-of-theirs")]


def test_first_kind_gets_it() -> None:
    """It is the kind of the first one that counts, by priority, or of the model before what stands in for it."""
    front = Front(Models({"m": [NO_KEY, replace(SERVER, priority=-1)]}, [NO_KEY]), c=E503)
    front.told(new(credential=THEIRS))
    assert keys(front) == [("c", b"a-key-of-theirs")]
    front = Front(Models({"m": [NO_KEY], "n": [SERVER]}, [NO_KEY], "pass", {"m": "n"}), a=E503)
    front.told(new(credential=THEIRS))
    assert keys(front) == [("a", b"a-key-of-theirs")]


def test_our_key_helps_out() -> None:
    """Where ours is lent to all, one that has it may answer after one that has not, each asked with its own."""
    front = Front(Models({"m": [NO_KEY, replace(SERVER, key=Secret("a-key-of-ours"))]}, [NO_KEY]), a=E503)
    (told,) = front.told(new(credential=THEIRS))
    assert told.status == 200
    assert keys(front) == [("a", b"a-key-of-theirs"), ("c", b"a-key-of-ours")]


def test_client_key_goes_nowhere() -> None:
    """A key of this server's opens ours, and is itself sent to nobody."""
    client = Secret("a-client-key")
    models = Models({"m": [NO_KEY, replace(SERVER, key=Secret("a-key-of-ours"))]}, [NO_KEY])
    front = Front(models, client_keys=[client], c=E503)
    (told,) = front.told(new(credential=client))
    assert told.status == 503
    assert keys(front) == [("c", b"a-key-of-ours")]


def test_nobody_without_a_key() -> None:
    """Who has none is told so, and nobody is asked."""
    front = Front(Models({"m": [NO_KEY, SERVER]}, [NO_KEY]))
    (told,) = front.told(new())
    assert isinstance(told, AuthError)
    assert front.asked == ""


def test_429_to_a_callers_own_key_is_not_everybodys() -> None:
    """Another server's 429 to one caller's key leaves the next caller's calls alone."""
    other = replace(SERVER, name="d", base_url="https://d.test")
    front = Front(Models({"m": [SERVER, other]}, [SERVER]), c=Said(429, (b"retry-after", b"50")))
    told = front.told(*(new(credential=Secret(f"key-{number}")) for number in range(4)))
    assert statuses(told) == [200] * 4
    assert front.asked == "cd" + "d" + "cd" + "d"


def test_429_of_all_to_a_callers_own_key() -> None:
    """Where all other servers throttle a caller's own key that is told: a 429, not that nobody can answer."""
    other = replace(SERVER, name="d", base_url="https://d.test")
    front = Front(Models({"m": [SERVER, other]}, [SERVER]), c=E429, d=E429)
    assert statuses(front.told(new(credential=THEIRS))) == [429]
