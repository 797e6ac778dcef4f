"""Calls that share one: each in the form that it asks for, at whose cost, and what becomes of it when some leave."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

import pytest
from msgspec import structs

from chat_api.caching import Wish
from chat_api.errors import ConnectError, CutShort, GatewayError
from chat_api.keeping import MAX_FORMED_BYTES
from chat_api.sharing import Sharing
from chat_api.sharing.body import SharedBody
from chat_api.terms import read_json
from chat_api.trail import FALLBACK
from chat_api.types import Adaptation, Call, Reply, Sink
from tests.scripted import settled
from tests.scripted_keeping import (
    ANSWER,
    HERE,
    SILENT,
    TELLING,
    Arrived,
    Kitchen,
    Shelf,
    asking,
    broken,
    events,
    how,
    keyed,
    label,
    plain,
    whole,
)
from tests.sharers import assert_over, in_loop

STREAM: dict[str, Any] = {"stream": True}
PLAIN: dict[str, Any] = {}
MIB = 1024 * 1024


class Halting(Arrived):
    """A body whose second half comes when the test says `more`."""

    def __init__(self) -> None:
        super().__init__(TELLING[:200], TELLING[200:])
        self.more = asyncio.Event()

    async def flow(self, sink: Sink) -> Awaitable[object] | None:
        """Piece by piece."""
        return await super().flow(lambda piece: sink(piece) or self.more.wait())


class Slow(Kitchen):
    """A kitchen whose upstream answers when the test opens the gate; its calls share."""

    def __init__(self, *replies: Reply | Exception, fallback: str | None = None, **options: Any) -> None:
        self.sharing = Sharing()
        super().__init__(*replies, sharing=self.sharing, **options)
        self.gate = asyncio.Event()
        self._fallback = fallback

    async def ask(self, call: Call, fallback: str | None = None) -> Reply:
        """After the gate."""
        await self.gate.wait()
        return await super().ask(call, self._fallback)

    async def callers(self, *calls: Call) -> list[asyncio.Task[Reply]]:
        """Tasks that wait for the reply to each, begun one after the other."""
        tasks = []
        for call in calls:
            tasks.append(asyncio.create_task(self.reply(call)))
            await settled()
        return tasks


async def told(tasks: Sequence[asyncio.Task[Reply]]) -> list[str]:
    """Where each reply is from."""
    return [how(await task) for task in tasks]


async def bodies(tasks: Sequence[asyncio.Task[Reply]]) -> list[bytes]:
    """All of each."""
    return [await whole(await task) for task in tasks]


@pytest.mark.parametrize(
    ("reply", "first", "second", "body"),
    [
        pytest.param(lambda: plain(), PLAIN, PLAIN, ANSWER, id="plain"),
        pytest.param(lambda: plain(), PLAIN, STREAM, TELLING, id="plain-as-events"),
        pytest.param(lambda: plain(Arrived(ANSWER[:9], ANSWER[9:])), PLAIN, PLAIN, ANSWER, id="large"),
        pytest.param(lambda: plain(Arrived(ANSWER[:9], ANSWER[9:])), PLAIN, STREAM, TELLING, id="large-as-events"),
        pytest.param(lambda: events(TELLING[:99], TELLING[99:]), STREAM, STREAM, TELLING, id="events"),
        pytest.param(lambda: events(TELLING[:99], TELLING[99:]), STREAM, PLAIN, None, id="events-as-plain"),
        pytest.param(lambda: events(SILENT), STREAM, STREAM, SILENT, id="events-without-usage"),
        pytest.param(lambda: plain(b"<html>"), PLAIN, PLAIN, b"<html>", id="what-is-no-answer"),
    ],
)
@in_loop
async def test_one_call_answers_both(reply: Any, first: Any, second: Any, body: bytes | None) -> None:
    """Whoever joins gets all of the same answer in his own form, and is told where it is from and whose it is."""
    kitchen = Slow(reply(), shelf=Shelf())
    tasks = await kitchen.callers(asking(**first), asking(**second))
    kitchen.gate.set()
    leader, joined = await asyncio.gather(*tasks)
    leaders, got = await asyncio.gather(whole(leader), whole(joined))

    assert (how(leader), how(joined)) == ("miss", "shared")
    assert len(kitchen.asked) == 1
    assert got == body if body is not None else read_json(got) == read_json(ANSWER)
    assert leaders
    assert (label(leader), label(joined)) == (None, HERE.label.encode())
    assert leader.source is None
    assert joined.source is not None
    assert (joined.source.name, joined.source.is_free) == ("shared", True)
    kind = dict(joined.headers)[b"content-type"].decode()
    assert kind.startswith("text/event-stream" if second else "application/json")
    assert_over(kitchen.sharing)


@pytest.mark.parametrize(
    ("replies", "first", "others"),
    [
        pytest.param((events(SILENT), plain()), STREAM, PLAIN, id="events-without-usage"),
        pytest.param((events(TELLING[:-14]), plain()), STREAM, PLAIN, id="events-without-end"),
        pytest.param((plain(b"<html>"), events()), PLAIN, STREAM, id="no-answer"),
        pytest.param(
            (events(*[b": " + b"x" * MIB + b"\n\n"] * (MAX_FORMED_BYTES // MIB), TELLING), plain()),
            STREAM,
            PLAIN,
            id="too-large",
        ),
    ],
)
@in_loop
async def test_what_cannot_be_made_of_it_is_shared_by_those_who_ask_for_it(
    replies: tuple[Reply, ...], first: dict[str, Any], others: dict[str, Any]
) -> None:
    """Where the form that others ask for cannot be made they share one more call, whoever of them is asked for it."""
    kitchen = Slow(*replies)
    tasks = await kitchen.callers(asking(**first), *[asking(**others) for _ in range(5)])
    kitchen.gate.set()
    leaders = await whole(await tasks[0])
    got = await asyncio.gather(*tasks[1:])
    sources = [how(one) for one in got]
    read = [await whole(one) for one in got]

    assert leaders
    assert sorted(sources) == ["bypass", *["shared"] * 4]
    assert set(read) == {TELLING if others else ANSWER}
    assert len(kitchen.asked) == 2
    assert_over(kitchen.sharing)


@pytest.mark.parametrize("wish", [Wish(0.0), Wish(0.0, may_be_kept=False)], ids=["no-cache", "no-store"])
@in_loop
async def test_who_wants_an_answer_of_his_own(wish: Wish) -> None:
    """Whoever asks for a new answer neither joins a call in flight nor is joined."""
    kitchen = Slow(shelf=Shelf())
    tasks = await kitchen.callers(asking(), asking(wish=wish), asking())
    kitchen.gate.set()
    assert await told(tasks) == ["miss", "miss" if wish.may_be_kept else "bypass", "shared"]
    assert len(kitchen.asked) == 2


@in_loop
async def test_keys_share_with_nobody_else() -> None:
    """Two keys that ask the same at the same time make a call each, unless answers are shared."""
    for is_shared, asked in ((False, 2), (True, 1)):
        kitchen = Slow(is_shared=is_shared)
        tasks = await kitchen.callers(keyed("a"), keyed("b"), keyed("a"))
        kitchen.gate.set()
        await told(tasks)
        assert len(kitchen.asked) == asked


@in_loop
async def test_kept_once() -> None:
    """What several share is put down once, as the upstream gave it; who comes later gets it from there."""
    kitchen = Slow(events(TELLING), shelf=(shelf := Shelf()))
    tasks = await kitchen.callers(*[asking(**STREAM) for _ in range(3)])
    kitchen.gate.set()
    assert await bodies(tasks) == [TELLING] * 3
    (kept,) = shelf.kept.values()
    assert (kept.body, kept.is_stream, kept.deployment) == (TELLING, True, HERE.label)
    assert how(await kitchen.reply(asking())) == "hit"


@in_loop
async def test_refusal_is_everybodys() -> None:
    """An upstream's no reaches all as it is, in whichever form they asked, and the next one asks again."""
    kitchen = Slow(plain(b'{"error":{}}', 429), shelf=Shelf())
    tasks = await kitchen.callers(asking(), asking(**STREAM))
    kitchen.gate.set()
    replies = [await task for task in tasks]
    assert [(one.status, one.body) for one in replies] == [(429, b'{"error":{}}')] * 2
    await kitchen.reply(asking())
    assert len(kitchen.asked) == 2


@in_loop
async def test_error_is_each_ones_own() -> None:
    """Who fails together gets an error each: what one is told besides, such as his limits, no other is."""
    kitchen = Slow(ConnectError("no", headers=((b"retry-after", b"1"),)), plain())
    tasks = await kitchen.callers(asking(), asking(), asking(**STREAM))
    kitchen.gate.set()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    for number, error in enumerate(errors):
        assert isinstance(error, GatewayError)
        error.headers += ((b"x-ratelimit-remaining-requests", b"%d" % number),)
    assert [len(error.headers) for error in errors if isinstance(error, GatewayError)] == [2, 2, 2]
    assert how(await kitchen.reply(asking())) == "bypass"
    del errors, error


@in_loop
async def test_stream_that_breaks_is_no_answer_for_anybody() -> None:
    """Who wants it as JSON is told that it broke; nothing is kept."""
    kitchen = Slow(broken(TELLING[:200]), shelf=(shelf := Shelf()))
    leader, joined = await kitchen.callers(asking(**STREAM), asking())
    kitchen.gate.set()
    results = await asyncio.gather(whole(await leader), joined, return_exceptions=True)
    assert [type(one) for one in results] == [CutShort, CutShort]
    assert not shelf.kept
    assert_over(kitchen.sharing)
    del results


@pytest.mark.parametrize("reply", [plain(), events()], ids=["plain", "events"])
@in_loop
async def test_stand_in_is_told(reply: Reply) -> None:
    """Whoever joins a call that another model answered is told so, as he who made it is."""
    kitchen = Slow(reply, fallback="small")
    fields = PLAIN if isinstance(reply.body, bytes) else STREAM
    leader, joined = await kitchen.callers(asking(**fields), asking(**fields))
    kitchen.gate.set()
    assert dict((await joined).kept)[FALLBACK] == b"small"
    assert FALLBACK not in dict((await leader).kept)  # his trail tells
    await bodies([leader, joined])


@in_loop
async def test_adaptations_are_told() -> None:
    """So is what was changed in its parameters."""
    changed = (Adaptation("max_tokens", "max_completion_tokens"),)
    kitchen = Slow(structs.replace(plain(), adaptations=changed))
    tasks = await kitchen.callers(asking(), asking(**STREAM))
    kitchen.gate.set()
    assert [(await task).adaptations for task in tasks] == [changed, changed]


@pytest.mark.parametrize(
    ("leaves", "is_free"), [("never", True), ("before", False), ("mid-way", False), ("after", True)]
)
@in_loop
async def test_joined_answer_is_free_while_its_leader_is_counted(leaves: str, is_free: bool) -> None:
    """It costs nothing unless he who began has left before its end, whoever else is still there."""
    body = Halting()
    kitchen = Slow(Reply(200, events().headers, body, HERE))
    leader, joined, third = await kitchen.callers(*[asking(**STREAM) for _ in range(3)])
    if leaves == "before":
        leader.cancel()
    await settled()
    kitchen.gate.set()
    reply = await joined
    if leaves == "mid-way":
        own = (await leader).body
        assert isinstance(own, SharedBody)
        await own.aclose()
    body.more.set()
    await settled()
    if leaves == "after":
        await whole(await leader)
    assert await bodies([joined, third]) == [TELLING] * 2
    assert reply.source is not None
    assert reply.source.is_free is is_free
    if leaves == "never":
        await whole(await leader)
    assert body.closed == 1
    assert_over(kitchen.sharing)


@pytest.mark.parametrize("fields", [PLAIN, STREAM], ids=["plain", "events"])
@in_loop
async def test_last_one_to_leave_ends_the_call(fields: dict[str, Any]) -> None:
    """When all have left, in whatever form they waited, nothing is asked for any more and nothing is kept."""
    kitchen = Slow(shelf=(shelf := Shelf()))
    tasks = await kitchen.callers(asking(**STREAM), asking(**fields))
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert (kitchen.asked, shelf.kept) == ([], {})
    assert_over(kitchen.sharing)


@pytest.mark.parametrize("all_leave", [False, True])
@in_loop
async def test_who_leaves_while_it_is_put_together(all_leave: bool) -> None:
    """Who wants events as JSON and leaves before their end lets go of them, for the others or for good."""
    body = Halting()
    kitchen = Slow(Reply(200, events().headers, body, HERE))
    leader, joined = await kitchen.callers(asking(**STREAM), asking())
    kitchen.gate.set()
    await settled()
    own = (await leader).body
    assert isinstance(own, SharedBody)
    if all_leave:
        await own.aclose()
    joined.cancel()
    await settled()
    assert joined.cancelled()
    assert body.closed == all_leave
    body.more.set()
    if not all_leave:
        assert await whole(await leader) == TELLING
    await settled()
    assert body.closed == 1
    assert_over(kitchen.sharing)


@in_loop
async def test_server_that_stops_ends_what_is_in_flight() -> None:
    """Whoever waits is cancelled, and no task is left."""
    kitchen = Slow()
    tasks = await kitchen.callers(asking(), asking(**STREAM))
    await kitchen.sharing.aclose()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    assert_over(kitchen.sharing)
