"""The chain of phases: who may have a kept answer, what it takes, and what the conversation log is told of it."""

import asyncio
from typing import Any

import pytest
from msgspec import structs

from chat_api.callers import ClientKey
from chat_api.conversing import Conversations
from chat_api.counting import Amounts, Rate
from chat_api.errors import AuthError, Forbidden, GatewayError, RateLimited
from chat_api.exchanges import Exchange
from chat_api.gateway import Gateway
from chat_api.keeping import Keeping
from chat_api.ledger import Ledger
from chat_api.metering import Meter
from chat_api.models import Models
from chat_api.plans import Limits, Planner
from chat_api.pool import Pool
from chat_api.sharing import Sharing
from chat_api.stores.memory import MemoryStore
from chat_api.types import Call, Deployment, Reply
from tests.metered import key
from tests.relays import known, relay_of
from tests.scripted import Regions, Said, Script, deployment, settled
from tests.scripted_keeping import ANSWER, CHAT, TTL, Shelf, asking, how, whole

NO_LIMITS = Limits()
HERE = deployment("a")


class Written:
    """A conversation log that only remembers."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []

    def note(self, exchange: Exchange) -> None:
        """Remember it."""
        self.exchanges.append(exchange)


class House:
    """A gateway with every phase that a test wants, in front of regions.

    Attributes:
        regions: who is asked.
        written: what the conversation log was told.
    """

    def __init__(
        self,
        *deployments: Deployment,
        keys: tuple[ClientKey, ...] = (),
        limits: Limits | None = None,
        keeps: bool = True,
        shares: bool = False,
        is_shared: bool = False,
        logs: bool = False,
        **scripts: Script,
    ) -> None:
        deployments = deployments or (HERE,)
        self.regions = Regions(scripts or {"a": Said(body=ANSWER)})
        self.written = Written()
        self.shelf = Shelf()
        self.ledger = Ledger(None)
        meter = Meter(Planner(limits), MemoryStore(lambda: 1000.0), self.ledger) if limits else None
        sharing = Sharing() if shares else None
        keeping = Keeping({CHAT: TTL}, self.shelf, sharing, is_shared=is_shared) if keeps or shares else None
        conversations = Conversations(self.written, "true") if logs else None  # type: ignore[arg-type]  # all it needs
        models = {"": Models({"m": deployments}, deployments)}
        relay = relay_of(self.regions)
        self.gateway = Gateway(models, Pool(deployments), relay, keys, meter, keeping, conversations)

    async def ask(self, call: Call) -> Reply | GatewayError:
        """What a call is told."""
        try:
            call = structs.replace(call, trail=[], is_metered=self.gateway.reads.usage)
            return await self.gateway.handle(known(self.gateway, call))
        except GatewayError as error:
            return error

    def told(self, *calls: Call) -> list[Reply | GatewayError]:
        """What calls are told one after the other."""

        async def each() -> list[Reply | GatewayError]:
            return [await self.ask(call) for call in calls]

        return asyncio.run(each())

    async def usage(self) -> dict[str, Amounts]:
        """What was taken, by who answered."""
        rows = await self.ledger.rows("2000-01-01", "2999-12-31")
        return {used.deployment: amounts for used, amounts in rows.items()}


def sources(told: list[Reply | GatewayError]) -> list[str]:
    """Where each is from, or the status of an error."""
    return [how(one) if isinstance(one, Reply) else str(one.status) for one in told]


@pytest.mark.parametrize(
    ("options", "reads"),
    [
        pytest.param({"keeps": False}, (False, False), id="nothing"),
        pytest.param({}, (False, True), id="kept"),
        pytest.param({"keeps": False, "logs": True}, (False, True), id="written-down"),
        pytest.param({"keeps": False, "limits": NO_LIMITS}, (True, True), id="counted"),
    ],
)
def test_what_is_read_of_answers(options: dict[str, Any], reads: tuple[bool, bool]) -> None:
    """What they took only to count it, anything at all only if somebody here does something with it."""
    assert House(**options).gateway.reads == reads


def test_nothing_is_in_the_way_of_what_is_not_configured() -> None:
    """Where nothing is kept, counted or written down the relay's own coroutine is what is awaited."""
    house = House(keeps=False)
    coroutine: Any = house.gateway.handle(asking())
    assert coroutine.__qualname__.startswith("Asking.")
    coroutine.close()
    (reply,) = house.told(asking())
    assert isinstance(reply, Reply)
    assert (reply.kept, reply.source) == ((), None)


def test_other_operations_are_not_kept() -> None:
    """Nothing of a call that keeping does not concern is told or kept."""
    house = House()
    for call in (asking(operation="responses"), asking(operation="files", method="GET", model=None)):
        (reply,) = house.told(call)
        assert isinstance(reply, Reply)
        assert reply.kept == ()
    assert not house.shelf.kept


KEYS = (key("all"), key("n-only", models=frozenset({"n"})))


def test_who_may_not_have_the_model_gets_no_kept_answer_of_it() -> None:
    """Whether a key is for a model is asked before what is kept is looked at, though answers are shared."""
    house = House(keys=KEYS, is_shared=True)
    told = house.told(asking("all"), asking("n-only"), asking("nobody's"), asking(), asking("all"))
    assert sources(told) == ["miss", "403", "401", "401", "hit"]
    assert [type(one) for one in told[1:4]] == [Forbidden, AuthError, AuthError]
    assert house.shelf.looked == 2


def test_own_key_gets_what_it_has_paid_for() -> None:
    """Where callers bring keys of their own nobody gets what another's has paid for, though answers are shared."""
    house = House(deployment("a", key=None), is_shared=True)
    assert sources(house.told(asking("one"), asking("other"), asking(), asking("one"))) == [
        "miss",
        "miss",
        "401",
        "hit",
    ]
    assert house.regions.asked == "aa"


def test_kept_answer_takes_a_request_and_no_tokens() -> None:
    """What is kept costs nothing, but is not given beyond a limit of requests."""
    house = House(limits=Limits(requests=(Rate(3, 60),), tokens=(Rate(10_000, 60),)))
    told = house.told(*[asking()] * 4)
    assert sources(told) == ["miss", "hit", "hit", "429"]
    assert isinstance(told[3], RateLimited)
    remaining = [dict(one.quota)[b"x-ratelimit-remaining-requests"] for one in told if isinstance(one, Reply)]
    assert remaining == [b"2", b"1", b"0"]
    assert asyncio.run(house.usage()) == {HERE.label: Amounts(1, 3, 2), "cache": Amounts(2)}


def test_calls_that_share_are_counted_once() -> None:
    """Each takes a request; the tokens are his who began."""
    house = House(shares=True, limits=Limits(tokens=(Rate(10_000, 60),)), a=(0.0, Said(body=ANSWER)))

    async def main() -> tuple[list[str], dict[str, Amounts]]:
        tasks = [asyncio.create_task(house.ask(asking(stream=number > 2))) for number in range(5)]
        replies = await asyncio.gather(*tasks)
        for one in replies:
            assert isinstance(one, Reply)
            await whole(one)
        return sources(list(replies)), await house.usage()

    told, amounts = asyncio.run(main())
    assert told == ["miss", *["shared"] * 4]
    assert house.regions.asked == "a"
    assert amounts == {HERE.label: Amounts(1, 3, 2), "shared": Amounts(4)}


def test_errors_that_are_shared_tell_each_caller_of_his_own_limits() -> None:
    """Who fails together is told of his limits once, whatever the others are told."""
    house = House(
        shares=True, limits=Limits(requests=(Rate(5, 60),)), a=(0.0, GatewayError("no", headers=((b"x-a", b"1"),)))
    )

    async def main() -> list[Reply | GatewayError]:
        return list(await asyncio.gather(*[house.ask(asking()) for _ in range(3)]))

    told = asyncio.run(main())
    left = [[value for name, value in one.headers if name == b"x-ratelimit-remaining-requests"] for one in told]
    assert house.regions.asked == "a"
    assert sorted(left) == [[b"2"], [b"3"], [b"4"]]
    del told


def test_what_the_conversation_log_is_told() -> None:
    """Every call within the phases is written down, hits and what is beyond a limit as well, and where it is from."""
    house = House(logs=True, limits=Limits(requests=(Rate(2, 60),)))
    house.told(*[asking(request_id=name) for name in "abc"])
    seen = [(one.request_id, one.status, one.cache, one.attempts, one.ended) for one in house.written.exchanges]
    assert seen == [
        ("a", 200, "miss", 1, "complete"),
        ("b", 200, "hit", 0, "complete"),
        ("c", 429, "", 0, "refused"),
    ]
    assert [one.deployment for one in house.written.exchanges] == [HERE.label, HERE.label, ""]


def test_leader_who_leaves_and_who_joined_pays() -> None:
    """Nobody is served for nothing: who began and left has not been counted, so he who stayed is."""
    house = House(shares=True, limits=Limits(tokens=(Rate(10_000, 60),)), a=(0.0, Said(body=ANSWER)))

    async def main() -> dict[str, Amounts]:
        leader, joined = [asyncio.create_task(house.ask(asking())) for _ in range(2)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        leader.cancel()
        reply = await joined
        assert isinstance(reply, Reply)
        assert reply.body == ANSWER
        await settled()
        return await house.usage()

    assert asyncio.run(main()) == {HERE.label: Amounts(1), "shared": Amounts(1, 3, 2)}
