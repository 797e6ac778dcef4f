"""Answers that no upstream was asked for: what they take, what they cost, and who is named for them."""

from typing import Any

import pytest
from msgspec import structs

from chat_api.callers import by_address, by_key
from chat_api.counting import Amounts, Price, Rate
from chat_api.errors import CutShort
from chat_api.plans import Limits
from chat_api.trail import FALLBACK
from chat_api.types import Call, Reply
from tests.metered import Counted, chat, key, limiting, run
from tests.scripted_keeping import ANSWER, HERE, SILENT, TELLING, Arrived, events, plain, whole

LIMITS = Limits(requests=(Rate(5, 60),), tokens=(Rate(10_000, 60),), max_parallel=2)
PRICES = {"m": Price(2.0, 10.0, 1.0), "small": Price(1.0, 1.0, 1.0)}
COST = 3 * 2 + 2 * 10
FREE, TAKEN = Amounts(1), Amounts(1, 3, 2, 0, 0, COST)


class Given:
    """Where a reply is from; whether it is free may change until it has ended."""

    def __init__(self, name: str = "shared", *, is_free: bool) -> None:
        self.name = name
        self.is_free = is_free


def given(reply: Reply, source: Given, **fields: Any) -> Reply:
    """A reply that is from there."""
    return structs.replace(reply, source=source, **fields)


async def carried(front: Counted, reply: Reply, call: Call | None = None) -> Reply:
    """A reply to a call, counted."""

    async def ask(_: Call) -> Reply:
        return reply

    call = call or chat(stream=not isinstance(reply.body, bytes))
    return await front.meter.carry(structs.replace(call, caller=call.caller or by_address("127.0.0.1")), "m", ask)


def usage(front: Counted) -> tuple[str, Amounts]:
    """Who is named for the only call, and what it took."""
    ((who, amounts),) = run(front.usage()).items()
    return who[2], amounts


@pytest.mark.parametrize(
    ("reply", "is_free", "tokens", "amounts"),
    [
        pytest.param(lambda: plain(), True, 0, FREE, id="free"),
        pytest.param(lambda: plain(), False, 5, TAKEN, id="leader-has-left"),
        pytest.param(lambda: events(), True, 0, FREE, id="free-events"),
        pytest.param(lambda: events(), False, 5, TAKEN, id="events-whose-leader-has-left"),
        pytest.param(lambda: events(SILENT), True, 0, FREE, id="free-events-that-do-not-tell"),
        pytest.param(lambda: plain(Arrived(ANSWER)), True, 0, FREE, id="free-and-large"),
        pytest.param(lambda: plain(Arrived(ANSWER)), False, 5, TAKEN, id="large-whose-leader-has-left"),
    ],
)
def test_what_it_takes(reply: Any, is_free: bool, tokens: int, amounts: Amounts) -> None:
    """What somebody else is counted for takes a request and nothing else; all else takes, and costs, what it says."""
    front = Counted(LIMITS, prices=PRICES)

    async def main() -> None:
        await whole(await carried(front, given(reply(), Given(is_free=is_free))))

    run(main())
    assert usage(front) == ("shared", amounts)
    assert front.used()["tokens/60"] == tokens
    assert front.used()["requests/60"] == 1
    assert front.in_flight() == 0


@pytest.mark.parametrize("is_free", [True, False])
def test_whether_it_is_free_is_asked_at_its_end(is_free: bool) -> None:
    """Who began it may leave while it goes on."""
    front = Counted(LIMITS, prices=PRICES)

    async def main() -> None:
        source = Given(is_free=not is_free)
        reply = await carried(front, given(events(TELLING[:200], TELLING[200:]), source))
        assert not isinstance(reply.body, bytes)
        await anext(chunks := aiter(reply.body))
        source.is_free = is_free
        async for _ in chunks:
            pass
        await reply.body.aclose()

    run(main())
    assert usage(front) == ("shared", FREE if is_free else TAKEN)


def test_free_answer_that_is_left() -> None:
    """Nobody pays for what somebody else has."""
    front = Counted(LIMITS, prices=PRICES)

    async def main() -> None:
        reply = await carried(front, given(events(TELLING[:200], TELLING[200:]), Given("cache", is_free=True)))
        assert not isinstance(reply.body, bytes)
        await anext(aiter(reply.body))
        await reply.body.aclose()

    run(main())
    assert usage(front) == ("cache", FREE)
    assert (front.used()["tokens/60"], front.in_flight()) == (0, 0)


def test_free_answer_that_breaks() -> None:
    """It is an error, and takes nothing."""
    front = Counted(LIMITS)

    async def main() -> None:
        with pytest.raises(CutShort):
            await whole(await carried(front, given(events(TELLING, CutShort("no")), Given(is_free=True))))

    run(main())
    assert usage(front) == ("shared", Amounts(1, errors=1))


def test_refusal_that_is_shared() -> None:
    """It takes a request and no tokens, and is counted where it came from."""
    front = Counted(LIMITS)
    run(carried(front, given(plain(b"{}", 429), Given(is_free=True))))
    assert usage(front) == ("shared", Amounts(1, errors=1))
    assert (front.used()["tokens/60"], front.in_flight()) == (0, 0)


def test_free_answer_teaches_nothing() -> None:
    """What is expected of the next call is as it was, and its limits are told as ever."""
    front = Counted(LIMITS)

    async def main() -> Reply:
        before = front.meter.expectations.of("m").of_answer()
        reply = await carried(front, given(plain(), Given(is_free=True), kept=((b"age", b"1"),)))
        assert front.meter.expectations.of("m").of_answer() == before
        return reply

    reply = run(main())
    assert dict(reply.quota)[b"x-ratelimit-remaining-requests"] == b"4"
    assert reply.kept == ((b"age", b"1"),)
    assert reply.source is not None


@pytest.mark.parametrize("reply", [plain, events])
@pytest.mark.parametrize(("stand_in", "cost"), [(None, COST), ("small", 5), ("nobody-knows-its-price", 0)])
def test_budget_is_used_up_by_what_its_leader_has_left(reply: Any, stand_in: str | None, cost: int) -> None:
    """Nobody gets round a budget by having another call of his own begin, and leave."""
    poor = key("poor", budget=1_000_000)
    front = Counted(Limits(), [poor], prices=PRICES)
    kept = ((FALLBACK, stand_in.encode()),) if stand_in else ()

    async def main() -> None:
        call = limiting(20, 90, caller=by_key(poor), stream=reply is events)
        await whole(await carried(front, given(reply(), Given(is_free=False), kept=kept), call))

    run(main())
    (used,) = [count for name, count in front.used("key poor").items() if name.startswith("cost")]
    assert used == cost
    assert usage(front)[1] == Amounts(1, 3, 2, 0, 0, cost)


def test_price_of_a_deployment() -> None:
    """It costs what it costs whoever answered, where the price is that of the deployment."""
    front = Counted(Limits(), prices={HERE.name.upper(): PRICES["m"]})
    run(carried(front, given(plain(), Given(is_free=False))))
    assert usage(front)[1].cost == COST
