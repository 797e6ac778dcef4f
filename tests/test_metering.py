"""Calls that are counted: what they reserve, what they are settled with, and what their callers are told."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from chat_api import metering
from chat_api.callers import ANY_MODEL
from chat_api.counting import Amounts, Claim, Grant, Price, Rate, Reading, Usage
from chat_api.errors import ConnectError, GatewayError, RateLimited, StoreDown, UpstreamError
from chat_api.expectations import FIRST_DENSITY, FIRST_GUESS
from chat_api.metered_body import HELD_CHUNKS, TAIL_BYTES, MeteredBody
from chat_api.metering import Meter
from chat_api.models import Models
from chat_api.plans import Limits, Planner
from chat_api.types import Call, Deployment, Reply
from tests.metered import ADDRESS, BEGIN, CHAT, Counted, chat, key, limiting, rate_limits, run, statuses
from tests.scripted import Said, deployment, settled

MINUTE = Limits(tokens=(Rate(10_000, 60),))
USAGE = b'"usage":{"prompt_tokens":11,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":4}}'
ANSWER = b'{"choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}],%b}' % USAGE
LATER = b'{"id":"resp_1","status":"queued","usage":null}'
EMBEDDED = b'{"data":[],"usage":{"prompt_tokens":9,"total_tokens":9}}'
ERROR = b'{"error":{"message":"no","type":"invalid_request_error","param":null,"code":null}}'

TEXT = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}],"usage":null}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}\n\n'
TOLD = b'data: {"choices":[],%b}\n\n' % USAGE
DONE = b"data: [DONE]\n\n"
BROKEN = UpstreamError("it broke")
FAILED = b'data: {"error":{"code":"429","message":"exceeded"}}\n\n'
COMPLETED = b'data: {"type":"response.completed","response":{"usage":{"input_tokens":11,"output_tokens":7}}}\n\n'


def reserved(about: int) -> int:
    """What a prompt of this size reserves while nothing is known of its model."""
    return int(about * FIRST_DENSITY)


PROMPT = reserved(10)  # a plain chat's


def answer(body: bytes = ANSWER) -> Said:
    """A whole one."""
    return Said(body=body)


def named(region: str, name: str) -> Deployment:
    """A region's deployment that is called so."""
    return replace(deployment(region), name=name)


def stream(*events: bytes | Exception) -> Said:
    """One that comes in these pieces."""
    return Said(events=events)


def refused(status: int, *headers: tuple[bytes, bytes]) -> Said:
    """The upstream's no."""
    return Said(status, *headers, body=ERROR)


ENDINGS = [
    pytest.param(chat(), answer(), 18, Amounts(1, 11, 7, 4), id="answer"),
    pytest.param(chat(), answer(b'{"choices":[]}'), PROMPT + FIRST_GUESS,
                 Amounts(1, PROMPT, FIRST_GUESS), id="answer-without-usage"),
    pytest.param(chat(operation="responses"), answer(LATER), PROMPT + FIRST_GUESS,
                 Amounts(1, PROMPT, FIRST_GUESS), id="answer-in-the-background"),
    pytest.param(limiting(10, 90), answer(LATER), PROMPT + 90, Amounts(1, PROMPT, 90), id="background-with-max-tokens"),
    pytest.param(chat(operation="embeddings"), answer(EMBEDDED), 9, Amounts(1, 9), id="embedding"),
    pytest.param(chat(stream=True), stream(TEXT, STOP, TOLD, DONE), 18, Amounts(1, 11, 7, 4), id="stream"),
    pytest.param(chat(stream=True), stream(TEXT + STOP + TOLD + DONE), 18, Amounts(1, 11, 7, 4), id="stream-at-once"),
    pytest.param(chat(stream=True), stream(TEXT, TEXT, STOP, DONE), 14, Amounts(1, 10, 4), id="stream-without-usage"),
    pytest.param(chat(stream=True), stream(TEXT, TEXT, BROKEN), 12, Amounts(1, 10, 2, errors=1), id="stream-breaks"),
    pytest.param(
        chat(stream=True), stream(TEXT, STOP, TOLD, BROKEN), 18, Amounts(1, 11, 7, 4, errors=1), id="breaks-after-usage"
    ),
    pytest.param(chat(stream=True), stream(FAILED), 0, Amounts(1, errors=1), id="stream-that-fails-at-once"),
    pytest.param(
        chat(stream=True, operation="responses"), stream(COMPLETED), 18, Amounts(1, 11, 7), id="stream-of-a-response"
    ),
    pytest.param(
        limiting(20, 90, stream=True, operation="responses", more=b',"background":true'),
        stream(b'data: {"type":"response.queued","response":{"usage":null}}\n\n', BROKEN),
        reserved(20) + 90,
        Amounts(1, reserved(20), 90, errors=1),
        id="stream-of-a-response-in-the-background",
    ),
    pytest.param(chat(), refused(400), 0, Amounts(1, errors=1), id="refused"),
    pytest.param(chat(), refused(429), 0, Amounts(1, errors=1), id="throttled"),
    pytest.param(chat(), refused(500), 0, Amounts(1, errors=1), id="failed"),
    pytest.param(chat(), ConnectError("no"), 0, Amounts(1, errors=1), id="not-reached"),
    pytest.param(chat(stream=True), answer(b"<html>"), 0, Amounts(1, errors=1), id="no-stream"),
    pytest.param(chat(is_metered=False), answer(), 0, Amounts(1), id="not-metered"),
    pytest.param(chat(is_metered=False, operation="responses/r", method="GET", body=b"", model=None), answer(), 0,
                 Amounts(1), id="read-again"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "said", "tokens", "amounts"), ENDINGS)
def test_settled(call: Call, said: Said | Exception, tokens: int, amounts: Amounts) -> None:
    """However a call ends, it has taken the tokens that it really took, one request and no place any more."""
    front = Counted(replace(MINUTE, requests=(Rate(5, 60),), max_parallel=2), a=said)

    async def one() -> Amounts:
        told = await front.told(structs.replace(call, trail=[]))
        fails = isinstance(said, Exception) or said.pieces[-1] in (BROKEN, b"<html>")
        assert isinstance(told, UpstreamError) is fails
        (amounts,) = (await front.usage()).values()
        return amounts

    assert run(one()) == amounts
    assert [one.closed >= 1 for one in front.regions.said if not one.is_whole] in ([], [True])
    assert front.used().get("tokens/60", 0) == tokens
    assert front.used()["requests/60"] == 1
    assert front.in_flight() == 0


@pytest.mark.parametrize(
    ("events", "read", "completion"),
    [
        pytest.param([TEXT, TEXT, TEXT, STOP, TOLD, DONE], 1, 1, id="after-the-first-event"),
        pytest.param([TEXT, TEXT, TEXT, STOP, TOLD, DONE], 3, 3, id="mid-stream"),
        pytest.param([TEXT + TEXT, TEXT, STOP, TOLD, DONE], 1, 2, id="two-events-at-once"),
    ],
)
def test_client_that_leaves_mid_stream(events: list[bytes], read: int, completion: int) -> None:
    """A stream that nobody reads on is settled with its prompt and as many tokens as events were relayed."""
    front = Counted(replace(MINUTE, max_parallel=1), a=stream(*events))

    async def leave() -> dict[Any, Amounts]:
        reply = await front.ask(chat(stream=True))
        assert isinstance(reply, Reply)
        assert not isinstance(reply.body, bytes)
        chunks = aiter(reply.body)
        for _ in range(read):
            await anext(chunks)
        assert front.in_flight() == 1
        await reply.body.aclose()
        await reply.body.aclose()
        return await front.usage()

    (amounts,) = run(leave()).values()
    assert amounts == Amounts(1, 10, completion)
    assert front.used() == {"tokens/60": 10 + completion}
    assert front.in_flight() == 0


def test_client_that_reads_nothing() -> None:
    """An answer that has begun and that nobody reads has taken its prompt."""
    front = Counted(MINUTE, a=stream(TEXT, STOP, TOLD, DONE))

    async def leave() -> None:
        reply = await front.ask(chat(stream=True))
        assert isinstance(reply, Reply)
        assert not isinstance(reply.body, bytes)
        assert front.used() == {"tokens/60": PROMPT + FIRST_GUESS}
        await reply.body.aclose()

    run(leave())
    assert front.used() == {"tokens/60": 10}


def test_client_that_leaves_before_the_answer() -> None:
    """A call whose client left before there was an answer has taken nothing but its turn."""
    front = Counted(replace(MINUTE, requests=(Rate(5, 60),), max_parallel=1), a=(50.0, answer()))

    async def leave() -> dict[Any, Amounts]:
        task = asyncio.ensure_future(front.ask(chat()))
        await asyncio.sleep(10)
        assert front.used() == {"requests/60": 1, "tokens/60": PROMPT + FIRST_GUESS}
        assert front.in_flight() == 1
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        return await front.usage()

    (amounts,) = run(leave()).values()
    assert amounts == Amounts(1)
    assert front.used() == {"requests/60": 1, "tokens/60": 0}
    assert front.in_flight() == 0


def sink_of(taken: list[bytes], waits_at: int) -> Callable[[bytes], Any]:
    """A sink that lets wait for every so many chunks."""

    def sink(chunk: bytes) -> Any:
        taken.append(chunk)
        return asyncio.sleep(0) if len(taken) % waits_at == 0 else None

    return sink


@pytest.mark.parametrize("waits_at", [1, 2, 100])
@pytest.mark.parametrize(
    ("events", "ends", "amounts"),
    [
        pytest.param([TEXT, STOP, TOLD, DONE], None, Amounts(1, 11, 7, 4), id="whole"),
        pytest.param([TEXT, TEXT, BROKEN], UpstreamError, Amounts(1, 10, 2, errors=1), id="broken"),
    ],
)
def test_chunks_that_flow(
    waits_at: int, events: list[bytes | Exception], ends: type[Exception] | None, amounts: Amounts
) -> None:
    """A stream that flows is counted as one that is iterated over, and every chunk goes on as it came."""
    front = Counted(MINUTE, a=stream(*events))
    taken: list[bytes] = []

    async def flow() -> dict[Any, Amounts]:
        reply = await front.ask(chat(stream=True))
        assert isinstance(reply, Reply)
        assert not isinstance(reply.body, bytes)
        sink = sink_of(taken, waits_at)
        try:
            while (waiting := await reply.body.flow(sink)) is not None:
                await waiting
        except UpstreamError:
            assert ends is UpstreamError
        await reply.body.aclose()
        return await front.usage()

    (counted,) = run(flow()).values()
    assert counted == amounts
    assert taken == [event for event in events if isinstance(event, bytes)]
    assert front.used() == {"tokens/60": amounts.prompt + amounts.completion}


def expected(front: Counted) -> tuple[int, int]:
    """What is expected of the next plain chat: its prompt, and its answer."""
    expectation = front.meter.expectations.of("m")
    return expectation.of_prompt(10), expectation.of_answer()


def test_stream_that_is_left_at_its_end() -> None:
    """Who stops at the end of the answer, before that of the body, has a whole answer: what it took is learned."""
    front = Counted(MINUTE, a=stream(TEXT, STOP, TOLD, DONE, b": more\n\n"))

    async def stop() -> None:
        reply = await front.ask(chat(stream=True))
        assert isinstance(reply, Reply)
        assert not isinstance(reply.body, bytes)
        taken: list[bytes] = []
        while (waiting := await reply.body.flow(sink_of(taken, 1))) is not None and taken[-1] != DONE:
            await waiting
        if asyncio.iscoroutine(waiting):
            waiting.close()
        reply.body.expect_end()
        await reply.body.aclose()

    run(stop())
    assert front.used() == {"tokens/60": 18}
    assert expected(front) == (22, 14)


@pytest.mark.parametrize(
    ("call", "claimed"),
    [
        pytest.param(chat(), PROMPT + FIRST_GUESS, id="nothing-stated"),
        pytest.param(limiting(20, 100), reserved(20) + 100, id="max-tokens"),
        pytest.param(chat(choices=3), PROMPT + 3 * FIRST_GUESS, id="choices"),
        pytest.param(limiting(6, 0), reserved(6), id="none"),
    ],
)
def test_reserved(call: Call, claimed: int) -> None:
    """While it is under way a call counts with what it may take at the most, or with what answers took so far."""
    front = Counted(MINUTE, a=(50.0, answer()))

    async def look() -> None:
        task = asyncio.ensure_future(front.ask(structs.replace(call, trail=[])))
        await settled()
        assert front.used() == {"tokens/60": claimed}
        await task
        assert front.used() == {"tokens/60": 18}

    run(look())


def test_reserved_for_choices_without_number() -> None:
    """A call with choices beyond counting reserves for a hundred: it is no more than the limit at that."""
    front = Counted(Limits(tokens=(Rate(1_000_000, 60),)), a=(50.0, answer()))

    async def look() -> None:
        task = asyncio.ensure_future(front.ask(chat(choices=10**9)))
        await settled()
        assert front.used() == {"tokens/60": PROMPT + 100 * FIRST_GUESS}
        await task

    run(look())


@pytest.mark.parametrize("choices", [1, 4])
def test_expectation_is_learned(choices: int) -> None:
    """A call reserves what prompts and, unless it says how much that may be, answers of its model took so far."""
    said = ANSWER.replace(b'"completion_tokens":7', b'"completion_tokens":%d' % (20 * choices))
    script: list[Any] = [answer(said)] * 100
    front = Counted(Limits(tokens=(Rate(1_000_000, 60),)), a=[*script, (50.0, answer(said))])

    async def look() -> int:
        for _ in range(100):
            await front.told(chat(choices=choices))
            await asyncio.sleep(60)
        before = front.used()["tokens/60"]
        task = asyncio.ensure_future(front.ask(chat(choices=choices)))
        await settled()
        claimed = front.used()["tokens/60"] - before
        await task
        return claimed

    assert run(look()) == 11 + 21 * choices


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(answer(b'{"choices":[]}'), id="no-usage"),
        pytest.param(answer(LATER), id="background"),
        pytest.param(stream(TEXT, STOP, DONE), id="stream-without-usage"),
        pytest.param(stream(TEXT, BROKEN), id="broken-stream"),
        pytest.param(stream(TEXT, STOP, TOLD, BROKEN), id="usage-of-a-stream-that-breaks"),
        pytest.param(refused(400), id="refused"),
    ],
)
def test_nothing_is_learned(said: Said) -> None:
    """What an answer did not say of itself, whole, is not expected of the next: estimates would feed themselves."""
    front = Counted(Limits(tokens=(Rate(10**9, 60),)), a=said)
    front.all_told(*[chat(stream=said.pieces[0].startswith(b"data:")) for _ in range(5)])  # type: ignore[union-attr]
    assert expected(front) == (PROMPT, FIRST_GUESS)


def test_limit_in_tokens() -> None:
    """Calls are admitted as long as what was taken and what they reserve fits, and again when the window is over."""
    front = Counted(Limits(tokens=(Rate(150, 60),)), a=answer())

    async def calls() -> list[int]:
        told = [
            await front.told(limiting(20, 80)) for _ in range(5)
        ]  # 18 each, but 120 at first, and 100 when prompts are known
        await asyncio.sleep(60)
        return statuses([*told, await front.told(limiting(20, 80))])

    assert run(calls()) == [200, 200, 200, 429, 429, 200]


def test_limit_holds_for_calls_at_once() -> None:
    """Calls that come together count what the others have reserved: the limit is not overrun by calling all at once."""
    front = Counted(Limits(tokens=(Rate(10 * (reserved(20) + 80), 60),)), a=(5.0, answer()))

    async def calls() -> list[Reply | GatewayError]:
        return await asyncio.gather(*[front.told(limiting(20, 80)) for _ in range(50)])

    assert sorted(statuses(run(calls()))) == [200] * 10 + [429] * 40
    assert front.regions.most == {"a": 10}
    assert front.used() == {"tokens/60": 180}


WAVE = 200  # calls at once
LIMIT = 20_000


def worded(word: bytes, bytes_per_token: float) -> tuple[Call, bytes, int]:
    """A chat of such words that is two hundred tokens and a few, its answer, and what that takes."""
    body = b'{"max_tokens":7,"x":"%b"}' % (word * int(200 * bytes_per_token / len(word)))
    prompt = int(len(body) / bytes_per_token)
    return chat(body), ANSWER.replace(b'"prompt_tokens":11', b'"prompt_tokens":%d' % prompt), prompt + 7


async def waves(front: Counted, call: Call, most: int = 1000) -> list[int]:
    """How many calls of each wave are answered, until none is."""
    answered: list[int] = []
    while len(answered) < most and (not answered or answered[-1]):
        told = await asyncio.gather(*[front.told(structs.replace(call, trail=[])) for _ in range(WAVE)])
        answered.append(statuses(told).count(200))
    return answered


@pytest.mark.parametrize(
    ("word", "bytes_per_token"),
    [
        pytest.param(b"a ", 2.0, id="one-letter-words"),
        pytest.param(b"letters ", 4.0, id="words"),
        pytest.param(b"ordinary ", 5.0, id="ordinary-words"),
    ],
)
def test_limit_holds_for_words_of_any_length(word: bytes, bytes_per_token: float) -> None:
    """Calls at once never take more than the limit, from the first on, and in the end nearly all of it."""
    call, said, each = worded(word, bytes_per_token)
    front = Counted(Limits(tokens=(Rate(LIMIT, 86400),)), a=(5.0, answer(said)))
    answered = run(waves(front, call))
    assert 0 < answered[0] < WAVE
    assert 0.95 * LIMIT <= sum(answered) * each <= LIMIT
    assert front.used() == {"tokens/86400": sum(answered) * each}


def test_denser_prompts_are_learned() -> None:
    """Prompts of a token for every byte are more than is expected of the first; after that the limit holds for them."""
    call, said, each = worded("ꀀ".encode(), 1.0)
    front = Counted(Limits(tokens=(Rate(LIMIT, 60),)), a=(5.0, answer(said)))

    async def calls() -> list[int]:
        await front.told(structs.replace(call, trail=[]))
        await asyncio.sleep(60)
        return await waves(front, call)

    answered = run(calls())
    assert 0.95 * LIMIT <= sum(answered) * each <= LIMIT


@pytest.mark.parametrize(
    ("said", "took", "amounts"),
    [
        pytest.param(answer(), 18, Amounts(1, 11, 7, 4), id="answer"),
        pytest.param(answer(LATER), 100, Amounts(1, 100), id="background"),
    ],
)
def test_prompt_that_may_be_larger_than_the_limit(said: Said, took: int, amounts: Amounts) -> None:
    """A call is admitted alone whose size is within the limit, though its prompt may turn out to be more than that."""
    assert 60 + 20 < 100 < reserved(60)
    front = Counted(Limits(tokens=(Rate(100, 60),)), a=(5.0, said))

    async def calls() -> list[int]:
        task = asyncio.ensure_future(front.told(limiting(60, 20)))
        await settled()
        assert front.used() == {"tokens/60": 100}
        return statuses([await front.told(limiting(1, 1)), await task])

    assert run(calls()) == [429, 200]
    assert front.used() == {"tokens/60": took}
    assert list(run(front.usage()).values()) == [amounts]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        pytest.param(
            limiting(20, 1000), "about 20 tokens and up to 1000 of the answer, and may take 1000", id="answer"
        ),
        pytest.param(limiting(1001, 1), "about 1001 tokens and up to 1 of the answer", id="prompt-and-answer"),
        pytest.param(chat(b'{"x":"' + b"x" * 4100 + b'"}'), "about 1027 tokens, and may take 1000", id="prompt"),
    ],
)
def test_call_larger_than_the_limit(call: Call, words: str) -> None:
    """A call that could never be admitted is refused at once, is told so, and nobody is asked."""
    front = Counted(Limits(tokens=(Rate(1000, 60), Rate(90_000, 3600))), a=answer())
    (told,) = front.all_told(call)
    assert isinstance(told, RateLimited)
    assert (told.code, dict(told.headers)[b"x-should-retry"]) == ("request_too_large", b"false")
    assert words in told.message
    assert (front.regions.asked, front.used()) == ("", {})


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(limiting(20, 80), id="prompt-and-answer"),
        pytest.param(chat(b'{"x":"' + b"x" * 392 + b'"}'), id="prompt"),
        pytest.param(limiting(100, 0), id="prompt-without-an-answer"),
    ],
)
def test_call_exactly_as_large_as_the_limit(call: Call) -> None:
    """What fits to the last token is admitted."""
    assert statuses(Counted(Limits(tokens=(Rate(100, 60),)), a=answer()).all_told(call)) == [200]


def test_call_that_may_be_as_large_as_the_limit() -> None:
    """A call that says nothing is admitted alone, though more may be expected of it than the limit has."""
    front = Counted(Limits(tokens=(Rate(100, 60),)), a=(5.0, answer()))

    async def calls() -> list[int]:
        both = await asyncio.gather(front.told(chat()), front.told(chat()))
        return statuses([*both, await front.told(chat())])

    assert run(calls()) == [200, 429, 200]


def test_more_than_was_reserved() -> None:
    """An answer that took more than was reserved counts with all of it: the next calls wait for that."""
    front = Counted(Limits(tokens=(Rate(1000, 60),)), a=answer(ANSWER.replace(b":7,", b":5000,")))
    assert statuses(front.all_told(chat(), chat())) == [200, 429]
    assert front.used() == {"tokens/60": 5011}


def test_parallel() -> None:
    """A caller has so many calls under way at a time; a place is free again the moment that a call has ended."""
    front = Counted(Limits(max_parallel=2), a=(5.0, answer()))

    async def calls() -> list[int]:
        told = await asyncio.gather(*[front.told(chat()) for _ in range(4)])
        return statuses([*told, await front.told(chat())])

    assert run(calls()) == [200, 200, 429, 429, 200]
    assert front.in_flight() == 0


def test_parallel_streams() -> None:
    """A stream has its place until its last byte has gone on, and not until its answer has begun."""
    front = Counted(Limits(max_parallel=1), a=stream(TEXT, STOP, TOLD, DONE))

    async def calls() -> list[int]:
        first = await front.ask(chat(stream=True))
        second = await front.ask(chat(stream=True))
        assert isinstance(second, RateLimited)
        assert second.code == "too_many_parallel_calls"
        assert isinstance(first, Reply)
        assert not isinstance(first.body, bytes)
        await first.body.aclose()
        return statuses([first, second, await front.told(chat(stream=True))])

    assert run(calls()) == [200, 429, 200]


def test_refused_call_takes_nothing() -> None:
    """A call that is refused for one of its limits has taken nothing of the others, nor a place."""
    limits = Limits(requests=(Rate(9, 60),), tokens=(Rate(1000, 60),), of_model={"m": (Rate(100, 60),)}, max_parallel=1)
    front = Counted(limits, a=answer())
    told = front.all_told(limiting(20, 30), limiting(20, 70))
    assert statuses(told) == [200, 429]
    assert front.used() == {"requests/60": 1, "tokens/60": 18}
    assert front.used("model m") == {"tokens/60": 18}
    assert (front.in_flight(), front.meter.refused, front.regions.asked) == (0, 1, "a")


def test_refused_calls_are_not_in_the_usage() -> None:
    """Usage tells of calls that went upstream; how many were refused is counted apart."""
    front = Counted(Limits(requests=(Rate(1, 60),)), a=answer())
    front.all_told(chat(), chat(), chat())
    (amounts,) = run(front.usage()).values()
    assert (amounts.requests, front.meter.refused) == (1, 2)


TWO = Models(
    {"m": [named("a", "d-a"), named("b", "D-b")], "n": [deployment("c")]},
    [named("c", "n")],
)


@pytest.mark.parametrize("name", ["m", "M", "d-a", "D-A", "d-b", "D-b"])
def test_limit_of_a_model(name: str) -> None:
    """A model's limit is over all callers, by whatever name they call it, and in whatever letters."""
    front = Counted(
        Limits(of_model={"M": (Rate(100, 60),)}), [key("alice"), key("bob")], models=TWO, a=answer(), b=answer()
    )
    first = limiting(20, 70, presents="alice")
    told = front.all_told(first, limiting(20, 70, presents="bob", model=name))
    assert statuses(told) == [200, 429]
    assert isinstance(told[1], RateLimited)
    assert told[1].message.startswith("model m has 100 tokens a minute, of which 82 are left")
    assert [rate_limits(one)["limit-tokens"] for one in told] == ["100", "100"]
    assert rate_limits(told[1])["remaining-tokens"] == "82"
    assert statuses(front.all_told(limiting(20, 70, presents="bob", model="n"))) == [200]


@pytest.mark.parametrize("name", ["m", "D-B"])
def test_limit_of_a_key_for_a_model(name: str) -> None:
    """A key's own limit for a model holds by whatever name it calls it; other models and keys have theirs."""
    tight = key("alice", tokens={"M": (Rate(100, 60),), ANY_MODEL: (Rate(1000, 60),)})
    front = Counted(Limits(), [tight, key("bob")], models=TWO, a=answer(), b=answer(), c=answer())
    told = front.all_told(
        limiting(20, 70, presents="alice"),
        limiting(20, 70, presents="alice", model=name),
        limiting(20, 70, presents="alice", model="n"),
        limiting(20, 70, presents="bob", model=name),
    )
    assert statuses(told) == [200, 429, 200, 200]
    assert front.used("key alice") == {"tokens/60": 36, "tokens m/60": 18}


def test_each_caller_has_its_own() -> None:
    """Callers are counted by their keys, and without one by their addresses."""
    front = Counted(Limits(requests=(Rate(1, 60),)), [key("alice"), key("bob")], a=answer())
    names = ["alice", "bob", "alice", "bob"]
    assert statuses(front.all_told(*[chat(presents=name) for name in names])) == [200, 200, 429, 429]
    assert (front.used("key alice"), front.used("key bob")) == ({"requests/60": 1}, {"requests/60": 1})


def test_limits_of_routes() -> None:
    """A route's own limit is counted for that route, by whatever path its deployment is named; the others share one."""
    limits = Limits(requests=(Rate(2, 60),), of_route={"/v1/embeddings": (Rate(1, 60),)})
    front = Counted(limits, a=answer())
    told = front.all_told(*[chat(operation=name) for name in ("embeddings", "embeddings", "responses", "completions")])
    assert statuses(told) == [200, 429, 200, 200]
    assert statuses(front.all_told(chat(), chat(operation="embeddings"))) == [429, 429]
    assert front.used() == {"requests /v1/embeddings/60": 1, "requests/60": 2}


@pytest.mark.parametrize(
    ("fields", "route"),
    [
        pytest.param({}, "/v1/chat/completions", id="relayed"),
        pytest.param({"verbatim": False}, "/v1/gpt/chat", id="simple"),
        pytest.param({"operation": "/tokenize", "model": None, "is_metered": False}, "/tokenize", id="outside-of-v1"),
    ],
)
def test_route_in_our_words(fields: dict[str, Any], route: str) -> None:
    """A route is what the settings call it: the simple endpoint's, an operation's, or a path of another server's."""
    front = Counted(Limits(of_route={route: (Rate(1, 60),)}), a=answer())
    assert statuses(front.all_told(chat(**fields), chat(**fields))) == [200, 429]


PRICES = {"m": Price(2.0, 10.0, 1.0)}
COST = 7 * 2 + 4 * 1 + 7 * 10  # millionths


def test_cost() -> None:
    """What a call costs is counted with its tokens, what was cached at its own price."""
    front = Counted(prices=PRICES, a=answer())
    front.all_told(chat(), chat())
    (amounts,) = run(front.usage()).values()
    assert amounts == Amounts(2, 22, 14, 8, 0, 2 * COST)


def test_cost_by_deployment() -> None:
    """A price may be that of a deployment, in whatever letters; a call that took nothing costs nothing."""
    front = Counted(prices={"D-A": PRICES["m"], "D-B": PRICES["m"]}, models=TWO, a=answer(), b=answer())
    front.all_told(chat())
    assert [row.cost for row in run(front.usage()).values()] == [COST]
    front = Counted(prices=PRICES, a=refused(400))
    front.all_told(chat())
    assert [row.cost for row in run(front.usage()).values()] == [0]


def test_without_a_price() -> None:
    """A model without a price costs nothing, and uses up no budget."""
    front = Counted(Limits(), [key("alice", budget=1)], prices={"other": PRICES["m"]}, a=answer())
    assert statuses(front.all_told(chat(presents="alice"), chat(presents="alice"))) == [200, 200]
    assert [row.cost for row in run(front.usage()).values()] == [0]


def test_without_a_ledger() -> None:
    """Calls are limited as well where nobody keeps what was used; then streams are not asked for it."""
    front = Counted(Limits(requests=(Rate(1, 60),)), a=answer())
    meter = Meter(Planner(Limits(requests=(Rate(1, 60),)), wall=front.wall), front.memory, wall=front.wall)
    assert (front.meter.reads_usage, meter.reads_usage) == (True, False)
    front.gateway.meter = meter
    assert statuses(front.all_told(chat(is_metered=False), chat(is_metered=False))) == [200, 429]


def test_cost_of_what_stands_in() -> None:
    """A model that stands in for another has its own price; the usage is that of the model that was asked for."""
    prices = {**PRICES, "n": Price(4.0, 20.0, 2.0)}
    models = Models({"m": [deployment("a")], "n": [deployment("b")]}, [deployment("a")], "pass", {"m": "n"})
    front = Counted(prices=prices, models=models, a=refused(500), b=answer())
    front.all_told(chat())
    assert {row: one.cost for row, one in run(front.usage()).items()} == {("127.0.0.1", "m", "b@b.test"): 2 * COST}


def test_budget() -> None:
    """A key is served until its budget is used up; what it reserved and did not need is its own again."""
    poor = key("poor", budget=2 * COST + 1000)
    front = Counted(Limits(), [poor], prices=PRICES, a=answer())
    calls = [limiting(20, 96, presents="poor") for _ in range(4)]  # 20 * 2 + 96 * 10 = 1000, prompts known
    told = front.all_told(*calls)
    assert statuses(told) == [200, 200, 200, 429]
    assert isinstance(told[3], RateLimited)
    assert told[3].code == "insufficient_quota"
    assert front.used("key poor") == {"cost 2026-11": 3 * COST}


def test_budget_holds_for_calls_at_once() -> None:
    """A call reserves of a budget what its prompt may be, not what it is by its size: dense ones do not overrun it."""
    each = reserved(200) * 2  # the prompt's price, in millionths a token
    said = ANSWER.replace(b":11,", b":400,").replace(b":7,", b":0,").replace(b":4}", b":0}")
    front = Counted(Limits(), [key("poor", budget=3 * each)], prices=PRICES, a=(5.0, answer(said)))

    async def calls() -> list[Reply | GatewayError]:
        return await asyncio.gather(*[front.told(limiting(200, 0, presents="poor")) for _ in range(10)])

    assert sorted(statuses(run(calls()))) == [200] * 3 + [429] * 7
    assert front.used("key poor") == {"cost 2026-11": 3 * 800}


def test_budget_begins_anew_with_the_month() -> None:
    """On the first of the next month (UTC) a budget is there again; what was begun before belongs to the old one."""
    poor = key("poor", budget=1000)
    front = Counted(
        Limits(), [poor], prices=PRICES, a=[answer(), (20.0, answer(ANSWER.replace(b":7,", b":700,"))), answer()]
    )
    december = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    call = limiting(20, 90, presents="poor")

    async def calls() -> list[int]:
        await asyncio.sleep(december - 10 - front.wall())
        told = [await front.told(call)]
        task = asyncio.ensure_future(front.told(chat(presents="poor")))
        await settled()
        refused_call = await front.told(structs.replace(call, trail=[]))
        assert dict(refused_call.headers)[b"retry-after"] == b"10"
        await asyncio.sleep(10)
        told += [refused_call, await front.told(structs.replace(call, trail=[])), await task]
        return statuses(told)

    front.meter.expectations.of("m").note(10, Usage(10, 20), 1)
    assert run(calls()) == [200, 429, 200, 200]
    assert front.used("key poor") == {"cost 2026-11": COST + 7018, "cost 2026-12": COST}


UPSTREAMS = (
    (b"x-ratelimit-remaining-tokens", b"77"),
    (b"x-ratelimit-limit-tokens", b"999"),
    (b"x-ratelimit-remaining-requests", b"88"),
    (b"x-ratelimit-reset-requests", b"1s"),
)
OF_REQUESTS = {"limit-requests": "3", "remaining-requests": "2", "reset-requests": "1m0s"}
OF_TOKENS = {"limit-tokens": "10000", "remaining-tokens": str(10_000 - PROMPT - FIRST_GUESS), "reset-tokens": "1m0s"}
BOTH = replace(MINUTE, requests=(Rate(3, 60),))


@pytest.mark.parametrize(
    ("stream_", "said"),
    [
        pytest.param(False, Said(200, *UPSTREAMS, body=ANSWER), id="answer"),
        pytest.param(True, Said(200, *UPSTREAMS, events=[TEXT, STOP, TOLD, DONE]), id="stream"),
        pytest.param(False, refused(400, *UPSTREAMS), id="refused"),
        pytest.param(False, refused(429, *UPSTREAMS, (b"retry-after", b"7")), id="throttled"),
        pytest.param(False, refused(503, *UPSTREAMS), id="failed"),
        pytest.param(False, ConnectError("no"), id="not-reached"),
        pytest.param(True, Said(200, *UPSTREAMS, body=b"<html>"), id="no-stream"),
    ],
)
def test_told_of_limits(stream_: bool, said: Said | Exception) -> None:
    """A limited caller is told of its limits with every answer, an error's too, and of nobody else's."""
    (told,) = Counted(BOTH, a=said).all_told(chat(stream=stream_))
    assert rate_limits(told) == OF_REQUESTS | OF_TOKENS
    if isinstance(said, Said) and said.status == 429:
        assert dict(told.headers)[b"retry-after"] == b"7"


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        pytest.param(replace(MINUTE, requests=()), OF_TOKENS, id="tokens"),
        pytest.param(Limits(requests=(Rate(3, 60),)), OF_REQUESTS, id="requests"),
        pytest.param(Limits(of_model={"m": MINUTE.tokens}), OF_TOKENS, id="model"),
        pytest.param(replace(MINUTE, of_model={"m": (Rate(9_000, 60),)}), OF_TOKENS, id="his-own-before-the-models"),
        pytest.param(
            Limits(requests=(Rate(3, 60),), of_model={"m": MINUTE.tokens}),
            OF_REQUESTS | OF_TOKENS,
            id="requests-and-model",
        ),
    ],
)
def test_told_of_one_limit(limits: Limits, expected: dict[str, str]) -> None:
    """Where there are limits of one kind only, the upstream's of the other kind are not mixed in."""
    (told,) = Counted(limits, a=Said(200, *UPSTREAMS, body=ANSWER)).all_told(chat())
    assert rate_limits(told) == expected


@pytest.mark.parametrize(
    "limits",
    [Limits(), Limits(max_parallel=3), Limits(of_model={"n": (Rate(10_000, 60),)})],
    ids=["no", "places", "another-model"],
)
def test_upstreams_limits_are_told(limits: Limits) -> None:
    """A caller without limits, his own or the model's, is told of the upstream's."""
    (told,) = Counted(limits, a=Said(200, *UPSTREAMS, body=ANSWER)).all_told(chat())
    assert rate_limits(told) == {name[12:].decode(): value.decode() for name, value in UPSTREAMS}


def test_upstreams_limits_are_not_told_while_nobody_counts() -> None:
    """A limited caller whose call passes uncounted is told of no limits: the upstream's are not his."""
    front = Counted(MINUTE, store=Waiting(Grant()), a=Said(200, *UPSTREAMS, body=ANSWER))
    (told,) = front.all_told(chat())
    assert rate_limits(told) == {}


def test_refused_caller_is_told_when_to_come_again() -> None:
    """A refused caller is told of its limits and when there is room: then it is admitted, and not before."""
    front = Counted(BOTH, a=answer())

    async def calls() -> list[Reply | GatewayError]:
        told = []
        for _ in range(4):
            told.append(await front.told(chat()))
            await asyncio.sleep(5.25)
        return told

    told = run(calls())
    headers = dict(told[3].headers)
    assert statuses(told) == [200, 200, 200, 429]
    assert (headers[b"retry-after"], headers[b"retry-after-ms"]) == (b"45", b"44250")
    assert rate_limits(told[3]) == {
        "limit-requests": "3",
        "remaining-requests": "0",
        "reset-requests": "45s",
        "limit-tokens": "10000",
        "remaining-tokens": str(10_000 - 3 * 18),
        "reset-tokens": "45s",
    }


class Waiting:
    """A store that answers when it is told to, or not at all."""

    def __init__(self, grant: Grant | Exception) -> None:
        self._grant = grant
        self.settled: list[tuple[Grant, list[int]]] = []

    def account(self, counters: Any) -> None:
        """It is always to be asked."""

    async def admit(self, claims: Any) -> Grant:
        """Wait for a second."""
        await asyncio.sleep(1)
        if isinstance(self._grant, Exception):
            raise self._grant
        return self._grant

    def settle(self, claims: Any, grant: Grant, changes: Any) -> None:
        """Note it."""
        self.settled.append((grant, list(changes)))

    def state(self) -> dict[str, object]:
        """Nobody asks."""
        return {}

    async def aclose(self) -> None:
        """Nothing is open."""


def test_store_that_is_waited_for() -> None:
    """Where the store has to be asked, nobody upstream is until it has answered."""
    grant = Grant((Reading(9, 1.0, 5),))
    store = Waiting(grant)
    front = Counted(MINUTE, store=store, a=answer())

    async def calls() -> int:
        task = asyncio.ensure_future(front.told(chat()))
        await asyncio.sleep(0.9)
        assert front.regions.asked == ""
        return statuses([await task])[0]

    assert run(calls()) == 200
    assert store.settled == [(grant, [18 - PROMPT - FIRST_GUESS])]


def test_client_that_leaves_while_the_store_is_asked() -> None:
    """A call that leaves before it was admitted is not settled, and nobody upstream is asked."""
    store = Waiting(Grant())
    front = Counted(MINUTE, store=store, a=answer())

    async def leave() -> None:
        task = asyncio.ensure_future(front.told(chat()))
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.wait({task})

    run(leave())
    assert (store.settled, front.regions.asked) == ([], "")


def test_nobody_counts() -> None:
    """Where nobody counts, and it is to go on so, calls are answered without a word of limits."""
    grant = Grant()
    store = Waiting(grant)
    (told,) = Counted(MINUTE, store=store, a=answer()).all_told(chat())
    assert (told.status, rate_limits(told)) == (200, {})
    assert store.settled[0][0] is grant


def test_nobody_counts_and_nobody_is_served() -> None:
    """Where nobody counts, and it is not to go on so, callers get the store's 503, and nobody upstream is asked."""
    front = Counted(MINUTE, store=Waiting(StoreDown("gone")), a=answer())
    (told,) = front.all_told(chat())
    assert (told.status, front.regions.asked) == (503, "")


def test_without_limits_the_store_is_not_asked() -> None:
    """What no limit concerns is not claimed, and not settled; its usage is counted."""

    class Nobody(Waiting):
        async def admit(self, claims: Any) -> Grant:
            raise AssertionError(claims)

    store = Nobody(Grant())
    front = Counted(Limits(of_model={"other": (Rate(1, 60),)}), store=store, a=answer())
    assert statuses(front.all_told(chat())) == [200]
    assert store.settled == []
    (amounts,) = run(front.usage()).values()
    assert amounts.requests == 1


def test_usage_is_counted_by_names() -> None:
    """Usage has the caller's name, never its key; the model's one name; and the label of who answered."""
    front = Counted(Limits(), [key("alice")], models=TWO, a=answer(), b=answer())
    front.all_told(chat(presents="alice", model="d-a"), chat(presents="alice", model="D-b"), chat(presents="alice"))
    assert sorted(run(front.usage())) == [("alice", "m", "D-b@b.test"), ("alice", "m", "d-a@a.test")]


ONE = Models({"m": [deployment("a", max_in_flight=1)]}, [deployment("c")])


def test_usage_of_a_call_that_reached_nobody() -> None:
    """A call that was made and reached nobody is an error of no deployment's."""
    front = Counted(Limits(), [key("alice")], models=ONE, a=(9.0, answer()))

    async def calls() -> dict[Any, Amounts]:
        await asyncio.gather(front.told(chat(presents="alice")), front.told(chat(presents="alice")))
        return await front.usage()

    rows = run(calls())
    assert rows[("alice", "m", "a@a.test")].requests == 1
    assert rows[("alice", "m", "-")] == Amounts(1, errors=1)


def test_claims_of_a_call() -> None:
    """The store is asked for all that concerns a call at once: the caller's claims and the model's."""
    asked: list[Claim] = []

    class Listing(Waiting):
        async def admit(self, claims: Any) -> Grant:
            asked.extend(claims)
            return Grant()

    limits = Limits(requests=(Rate(3, 60),), tokens=(Rate(1000, 60),), of_model={"m": (Rate(900, 60),)}, max_parallel=4)
    Counted(limits, store=Listing(Grant()), a=answer()).all_told(limiting(20, 80))
    tokens = reserved(20) + 80
    subjects = {claim.subject: ([amount for _, amount in claim.charges], claim.max_parallel) for claim in asked}
    assert subjects == {ADDRESS: ([1, tokens], 4), "model m": ([tokens], 0)}


class Pieces:
    """A body that comes in these pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces
        self.calls: list[str] = []

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece

    async def flow(self, sink: Any) -> Any:
        """Whether what the sink gives is awaited or not does not matter here."""
        while self._pieces:
            if (waiting := sink(self._pieces.pop(0))) is not None:
                return waiting
        return None

    def expect_end(self) -> None:
        """Note it."""
        self.calls.append("expect_end")

    async def aclose(self) -> None:
        """Note it."""
        self.calls.append("aclose")


def metered(pieces: list[bytes], *, flows: bool, is_stream: bool = True) -> tuple[bytes, Usage | None, int, bool]:
    """What goes on of a body in pieces, what it says that it took, its events, and whether it was whole."""
    told: list[tuple[Any, ...]] = []
    body = MeteredBody(Pieces(list(pieces)), lambda *ended: told.append(ended), lines=2 * is_stream)
    taken: list[bytes] = []

    async def read() -> None:
        if flows:
            while (waiting := await body.flow(sink_of(taken, 3))) is not None:
                await waiting
        else:
            taken.extend([chunk async for chunk in body])
        await body.aclose()

    asyncio.run(read())
    ((usage, events, is_error, is_whole),) = told
    assert not is_error
    return b"".join(taken), usage, events, is_whole


WORDS = st.text(max_size=20) | st.sampled_from(
    ['"usage":{"prompt_tokens":1}', "data: ", "\n\ndata: [DONE]\n\n", "}", '"']
)


@settings(deadline=None, max_examples=100)
@given(
    words=st.lists(WORDS, max_size=8),
    tells=st.booleans(),
    sizes=st.lists(st.integers(1, 300), min_size=1, max_size=30),
    flows=st.booleans(),
)
def test_any_split_counts_the_same(words: list[str], tells: bool, sizes: list[int], flows: bool) -> None:
    """Whatever a model says and in whatever pieces it comes: every byte goes on, and what it took is what it tells."""
    chunks: list[Any] = [{"choices": [{"delta": {"content": word}}], "usage": None} for word in words]
    if tells:
        chunks.append({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7}})
    raw = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + DONE
    pieces, at = [], 0
    for size in itertools.cycle(sizes):
        pieces.append(raw[at : at + size])
        at += size
        if at >= len(raw):
            break
    out, usage, events, is_whole = metered(pieces, flows=flows)
    assert out == raw
    assert (usage, is_whole) == ((Usage(11, 7), True) if tells else (None, False))
    assert events == len(chunks) + 1


def test_body_behind_is_told() -> None:
    """That only the end is still to come, and that nobody reads on, is told to the body behind."""
    behind, told = Pieces([]), list[Any]()
    body = MeteredBody(behind, lambda *ended: told.append(ended), lines=2)
    body.expect_end()
    asyncio.run(body.aclose())
    asyncio.run(body.aclose())
    assert behind.calls == ["expect_end", "aclose", "aclose"]
    assert told == [(None, 0, False, False)]


@pytest.mark.parametrize("size", [1000, TAIL_BYTES - 1, TAIL_BYTES, TAIL_BYTES + 1, 10**6])
def test_only_the_end_is_kept(size: int) -> None:
    """However long an answer is, and in whatever pieces, its end is kept, and no more than that and some pieces."""
    raw = TEXT * 2000 + TOLD + DONE
    pieces = [raw[at : at + size] for at in range(0, len(raw), size)]
    body = MeteredBody(Pieces(list(pieces)), lambda *_: None, lines=2)

    async def read() -> None:
        async for _ in body:
            assert sum(map(len, [*body._tail, *body._held])) < TAIL_BYTES + 2 * HELD_CHUNKS * size
        await body.aclose()

    asyncio.run(read())
    assert raw.endswith(b"".join(body._tail))
    assert len(b"".join(body._tail)) >= TAIL_BYTES
    assert metered(pieces, flows=True)[1::2] == (Usage(11, 7, 4), True)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param(b'{"data":[%b],' % (b"0.1," * 500_000) + USAGE + b"}", Usage(11, 7, 4), id="json"),
        pytest.param(b"ID3" + bytes(100_000), None, id="sound"),
        pytest.param(b'{"data":"data: data: data: ' + b"x" * 50_000, None, id="json-that-breaks"),
    ],
)
def test_large_answer(raw: bytes, expected: Usage | None) -> None:
    """An answer that is too large to be held says at its end what it took, or does not."""
    pieces = [raw[at : at + 65536] for at in range(0, len(raw), 65536)]
    assert metered(pieces, flows=False, is_stream=False)[:2] == (raw, expected)


def test_begins_when_it_should() -> None:
    """The clock of these tests is where they think it is."""
    assert datetime.fromtimestamp(BEGIN + 1000, UTC) == datetime(2026, 11, 21, 12, tzinfo=UTC)
    assert len(CHAT) // 4 == 10


def test_lines_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers make up models and come from anywhere: what is known of the oldest is forgotten, and found again."""
    monkeypatch.setattr(metering, "MAX_LINES", 3)
    limits = Limits(requests=(Rate(10, 60),))
    front = Counted(limits, models=Models({}, [deployment("a")]), a=[answer()] * 6)
    assert statuses(front.all_told(*[chat(model=name) for name in "abcdab"])) == [200] * 6
    assert [model for _, _, model in front.meter._lines] == ["d", "a", "b"]
    assert front.used()["requests/60"] == 6
