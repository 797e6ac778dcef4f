import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from random import Random

import pytest

from chat_api.asking import MAX_STRAINED_SECONDS
from chat_api.errors import (
    AuthError,
    BodyTooLarge,
    ClientGone,
    ConnectError,
    FirstByteTimeout,
    GatewayError,
    PoolTimeout,
    RequestError,
    UpstreamClosed,
    UpstreamError,
)
from chat_api.health import MAX_EJECTION_SECONDS, Health
from chat_api.relay import Retries
from chat_api.types import Call, Deployment, Headers, Reply, Secret, UpstreamRequest
from tests.relays import group_of, relay_of
from tests.wires import run_skipping

A = Deployment("a", "https://a.openai.azure.com", "2024-10-21", Secret("key-of-a-resource"))
B = replace(A, name="b", base_url="https://b.openai.azure.com")
JSON: Headers = ((b"content-type", b"application/json"),)
MISSING = b'{"error":{"code":"DeploymentNotFound","message":"m"}}'
NO_RESPONSE = b'{"error":{"code":"previous_response_not_found","message":"m"}}'


class Answer:
    """A whole answer."""

    queue_seconds = connect_seconds = 0.0

    def __init__(self, status: int, *headers: tuple[bytes, bytes], body: bytes = b'{"choices":[]}') -> None:
        self.status = status
        self.headers: Headers = (*JSON, *headers)
        self.body = body

    def arrived(self) -> bytes | None:
        """All of it."""
        return self.body

    async def chunks(self) -> AsyncIterator[bytes]:
        """All of it."""
        yield self.body

    async def aclose(self) -> None:
        """There is nothing to close."""


class Upstream:
    """Answers everything the same way, after a while, and counts."""

    def __init__(self, result: Answer | Exception, seconds: float = 0.0) -> None:
        self.result = result
        self.seconds = seconds
        self.asked: list[str] = []

    async def send(self, request: UpstreamRequest) -> Answer:
        """Answer, or fail."""
        self.asked.append(request.url.partition("//")[2][:1])
        await asyncio.sleep(self.seconds)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    async def aclose(self) -> None:
        """There is nothing to close."""


def asked_once(result: Answer | Exception, *, deployment: Deployment = A) -> tuple[Health, Reply | GatewayError]:
    """A half-open deployment, after its probe has ended so; and what the caller was told."""

    async def exchange() -> tuple[Health, Reply | GatewayError]:
        group = group_of(deployment)
        member = group.members[0]
        relay = relay_of(Upstream(result), now=lambda: 1000.0, wall=lambda: 0.0)
        member.release(failed := member.begin(990.0))
        member.fail(failed, 990.0, Random(1))
        call = Call("chat/completions", "m", b"{}", False, verbatim=True)
        try:
            return member, await relay.exchange(call, group)
        except GatewayError as error:
            return member, error

    return asyncio.run(exchange())


@pytest.mark.parametrize(
    "result", [Answer(501), Answer(505), Answer(413)], ids=["not-implemented", "http-version", "too-large"]
)
def test_callers_own_refusals_are_answers(result: Answer) -> None:
    """What a server refuses as beyond it, for anybody, shows that it is there."""
    member, told = asked_once(result)
    assert isinstance(told, Reply)
    assert (member.state(1000.0), member.failures) == ("available", 1)


def test_answer_beyond_every_measure_says_nothing() -> None:
    """An answer that is too large to read neither fails the deployment nor closes its breaker."""
    member, told = asked_once(UpstreamError("m", code="answer_too_large"))
    assert isinstance(told, UpstreamError)
    assert member.state(1000.0) == "half-open"


@pytest.mark.parametrize(
    ("result", "state"),
    [
        pytest.param(Answer(200), "available", id="answer"),
        pytest.param(Answer(400), "available", id="refusal"),
        pytest.param(Answer(409), "available", id="conflict"),
        pytest.param(Answer(429, (b"retry-after", b"5")), "cooling down", id="throttled"),
        pytest.param(Answer(500), "ejected", id="failed"),
        pytest.param(Answer(401), "ejected", id="our-key"),
        pytest.param(UpstreamClosed("m"), "ejected", id="closed"),
        pytest.param(ConnectError("m"), "ejected", id="refused"),
        pytest.param(Answer(408), "half-open", id="timed-out"),
        pytest.param(Answer(400, body=NO_RESPONSE), "half-open", id="no-such-response"),
        pytest.param(PoolTimeout("m"), "half-open", id="no-connection-free"),
    ],
)
def test_probe(result: Answer | Exception, state: str) -> None:
    """What a probe's end makes of a deployment; its place is free again whatever it was."""
    member, _ = asked_once(result)
    assert (member.state(1000.0), member.in_flight, member._probe) == (state, 0, None)


@pytest.mark.parametrize(
    "error",
    [ClientGone("left"), BodyTooLarge("large"), RequestError("odd")],
    ids=["client-gone", "body-too-large", "request-error"],
)
def test_callers_fault_says_nothing_of_the_deployment(error: GatewayError) -> None:
    """A client that leaves while it uploads, or sends too much, says nothing: the breaker stays, nothing is counted."""
    member, told = asked_once(error)
    assert told is error
    assert (member.state(1000.0), member.in_flight, member.failures) == ("half-open", 0, 1)
    assert (member.told, member.last_error) == (((), 0.0), None)


def test_missing_key_says_nothing_of_the_deployment() -> None:
    """A call without a key is not sent, and says nothing of a deployment that has none of its own."""
    member, told = asked_once(Answer(200), deployment=replace(A, key=None))
    assert isinstance(told, AuthError)
    assert (member.state(1000.0), member.in_flight, member.failures) == ("half-open", 0, 1)
    assert (member.told, member.last_error) == (((), 0.0), None)


@pytest.mark.parametrize(
    ("strain", "part"),
    [
        pytest.param(0, 0.0, id="none"),
        pytest.param(3, 0.0, id="half-with-two-to-come"),
        pytest.param(4, 0.008, id="a-little-more"),
        pytest.param(6, 0.216, id="most"),
        pytest.param(7, 0.512, id="nearly-all"),
        pytest.param(8, 1.0, id="all-but-two"),
        pytest.param(10, 1.0, id="all"),
    ],
)
def test_strain_makes_cool_downs_longer(strain: int, part: float) -> None:
    """With more than half of the retry budget used up one that throttles is left alone for longer than it asks."""
    assert MAX_STRAINED_SECONDS == 60

    async def exchange() -> float:
        group = group_of(A)
        relay = relay_of(Upstream(Answer(429, (b"retry-after-ms", b"100"))), now=lambda: 1000.0, wall=lambda: 0.0)
        for _ in range(strain):
            relay.budget.take(1000.0)
        await relay.exchange(Call("chat/completions", "m", b"{}", False), group)
        return group.members[0].cooled_until - 1000.0

    assert asyncio.run(exchange()) == pytest.approx(max(0.1, part * MAX_STRAINED_SECONDS))


def after(*results: Answer | Exception, deployment: Deployment = A) -> Health:
    """A deployment that one call after the other was sent to, a second apart."""

    async def exchange() -> Health:
        group, upstream, times = group_of(deployment), Upstream(results[0]), iter(range(1000, 2000))
        now = [0.0]
        relay = relay_of(upstream, now=lambda: now[0], wall=lambda: 1.5e9 + now[0])
        for result in results:
            now[0] = next(times)
            upstream.result = result
            call = Call("chat/completions", "m", b"{}", False, Secret("a-key-of-theirs"), verbatim=True)
            with suppress(GatewayError):
                await relay.exchange(call, group)
        return group.members[0]

    return asyncio.run(exchange())


@pytest.mark.parametrize(
    ("results", "is_ejected"),
    [
        pytest.param([Answer(500)], False, id="once"),
        pytest.param([Answer(500), Answer(502)], True, id="twice"),
        pytest.param([Answer(500), Answer(200), Answer(500)], False, id="answer-between"),
        pytest.param([Answer(500), Answer(400), UpstreamClosed("m")], False, id="refusal-between"),
        pytest.param([Answer(500), ClientGone("m"), UpstreamClosed("m")], True, id="left-between"),
        pytest.param([Answer(500), PoolTimeout("m"), Answer(500)], True, id="nothing-between"),
        pytest.param([Answer(503)], True, id="503"),
        pytest.param([Answer(401)], True, id="key"),
        pytest.param([ConnectError("m")], True, id="refused"),
        pytest.param([FirstByteTimeout("m")], True, id="silent"),
    ],
)
def test_strikes(results: list[Answer | Exception], is_ejected: bool) -> None:
    """What happens now and then ejects at the second time in a row, anything else at once."""
    assert (after(*results).state(999.0 + len(results)) == "ejected") is is_ejected


@pytest.mark.parametrize(
    ("result", "seconds"),
    [
        pytest.param(Answer(503, (b"retry-after", b"20")), 20, id="503"),
        pytest.param(Answer(503, (b"retry-after", b"86400")), MAX_EJECTION_SECONDS, id="503-for-a-day"),
    ],
)
def test_ejection_that_is_asked_for(result: Answer, seconds: float) -> None:
    """A 503 that asks for a longer wait gets it, as far as there are such ejections."""
    assert after(result).ejected_until == 1000 + seconds


@pytest.mark.parametrize(
    ("deployment", "state"),
    [
        pytest.param(A, "cooling down", id="azure-our-key"),
        pytest.param(replace(A, key=None), "cooling down", id="azure-callers-key"),
        pytest.param(replace(A, kind="openai", api_version="v1"), "cooling down", id="other-our-key"),
        pytest.param(replace(A, kind="openai", api_version="v1", key=None), "available", id="other-callers-key"),
    ],
)
def test_429_to_a_callers_own_key(deployment: Deployment, state: str) -> None:
    """What another server answers to a caller's own key is nothing to the next caller; Azure throttles everybody."""
    assert after(Answer(429, (b"retry-after", b"5")), deployment=deployment).state(1000.0) == state


def test_only_good_answers_tell_of_the_quota() -> None:
    """What is left is read of the last good answer: a refusal has other headers, or none."""
    quota = (b"x-ratelimit-remaining-tokens", b"5"), (b"x-ratelimit-limit-tokens", b"100")
    for later in (Answer(400), Answer(429, (b"retry-after", b"1")), Answer(500), UpstreamClosed("m")):
        member = after(Answer(200, *quota), later)
        assert (member.told[1], member.share(1001.0)) == (1000.0, 0.25)
    assert after(Answer(200, *quota), Answer(200)).share(1001.0) == 1.0


@pytest.mark.parametrize(
    ("result", "words"),
    [
        pytest.param(Answer(500), "500", id="status"),
        pytest.param(Answer(429), "429", id="429"),
        pytest.param(Answer(408), "408", id="blameless"),
        pytest.param(UpstreamClosed("m"), "upstream_closed", id="error"),
        pytest.param(Answer(404, body=MISSING), "404", id="missing"),
    ],
)
def test_last_error(result: Answer | Exception, words: str) -> None:
    """What went wrong is noted with the time, and what goes well after it does not wipe that out."""
    assert after(result, Answer(200)).last_error == (1.5e9 + 1000, words)


def asked_with_hedges(max_attempts: int) -> list[str]:
    """Who is asked for a call to two that say nothing for a while."""

    async def exchange() -> list[str]:
        upstream = Upstream(Answer(200), 5.0)
        loop = asyncio.get_running_loop()
        relay = relay_of(upstream, Retries(max_attempts, hedge_seconds=1.0), now=loop.time, wall=loop.time)
        await relay.exchange(Call("chat/completions", "m", b"{}", False), group_of(A, B))
        return upstream.asked

    return run_skipping(exchange())


def test_hedge() -> None:
    """A second deployment is asked when the first says nothing for a while."""
    assert asked_with_hedges(2) == ["a", "b"]


def test_hedge_is_an_attempt() -> None:
    """No more deployments are asked than MAX_ATTEMPTS, hedges included."""
    assert asked_with_hedges(1) == ["a"]
