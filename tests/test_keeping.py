"""Answers that are kept: for whom, in which form, for how long; and which are not."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from chat_api.caching import Wish
from chat_api.errors import ConnectError, CutShort
from chat_api.keeping import MAX_COMPARED_BYTES, MAX_STREAM_BYTES, Keeping
from chat_api.multipart import FieldFinder
from chat_api.pool import Pool
from chat_api.sharing import Sharing
from chat_api.spool import Form
from chat_api.terms import read_json
from chat_api.types import Call, Headers, Reply
from tests.relays import group_of
from tests.scripted import deployment
from tests.scripted_keeping import (
    ANSWER,
    CHAT,
    EVENTS,
    HERE,
    NOW,
    QUESTION,
    SILENT,
    TELLING,
    TTL,
    USAGE,
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

STREAM: dict[str, Any] = {"stream": True}
SIMPLE: dict[str, Any] = {"verbatim": False}
THEIRS = deployment("t", key=None)


def run(main: Awaitable[Any]) -> Any:
    """What it returns."""

    async def awaited() -> Any:
        return await main

    return asyncio.run(awaited())


@pytest.mark.parametrize(
    ("call", "routes", "shares", "concerns"),
    [
        pytest.param(asking(), [CHAT], False, True, id="cached"),
        pytest.param(asking(), [], True, True, id="shared"),
        pytest.param(asking(), [], False, False, id="another-route"),
        pytest.param(asking(**SIMPLE), [CHAT], False, False, id="simple-endpoint-is-another-route"),
        pytest.param(asking(**SIMPLE), ["/v1/gpt/chat"], False, True, id="simple-endpoint"),
        pytest.param(asking(route="/eu"), [CHAT], False, False, id="another-upstream"),
        pytest.param(asking(route="/eu"), ["/eu/v1/chat/completions"], False, True, id="that-upstream"),
        pytest.param(asking(operation="embeddings"), ["/v1/embeddings"], False, True, id="embeddings"),
        pytest.param(asking(operation="responses"), [CHAT, "/v1/responses"], True, False, id="another-operation"),
        pytest.param(asking(method="GET"), [CHAT], True, False, id="not-asked"),
        pytest.param(asking(body=b"[" * MAX_COMPARED_BYTES), [CHAT], True, True, id="as-large-as-may-be"),
        pytest.param(asking(body=b"[" * (MAX_COMPARED_BYTES + 1)), [CHAT], True, False, id="too-large"),
        pytest.param(asking(body=Form(FieldFinder(b"b", b"model"))), [CHAT], True, False, id="not-held"),
    ],
)
def test_which_calls_it_concerns(call: Call, routes: list[str], shares: bool, concerns: bool) -> None:
    """A POST that is held, of an operation and a route whose answers are kept, or any that may be shared."""
    sharing = Sharing() if shares else None
    assert Keeping(dict.fromkeys(routes, TTL), Shelf(), sharing).concerns(call) is concerns


@pytest.mark.parametrize("waits", [False, True], ids=["at-hand", "far"])
def test_kept_answer_is_given_again(waits: bool) -> None:
    """The second caller gets the same bytes, is told how old they are and who made them, and nobody is asked."""
    kitchen = Kitchen(shelf=Shelf(waits=waits))

    async def main() -> tuple[Reply, Reply]:
        first = await kitchen.reply(asking())
        kitchen.now += 9.9
        return first, await kitchen.reply(asking())

    first, again = run(main())

    assert (how(first), how(again)) == ("miss", "hit")
    assert dict(again.kept)[b"age"] == b"9"
    assert label(again) == HERE.label.encode()
    assert (again.status, again.body) == (200, ANSWER)
    assert again.headers == ((b"content-type", b"application/json"), (b"openai-processing-ms", b"7"))
    assert first.source is None
    assert again.source is not None
    assert (again.source.name, again.source.is_free) == ("cache", True)
    assert len(kitchen.asked) == 1
    assert not kitchen.asked[0].stream


@pytest.mark.parametrize(
    ("wish", "seconds", "told", "is_put"),
    [
        pytest.param(Wish(), TTL - 0.1, "hit", False, id="until-it-expires"),
        pytest.param(Wish(), TTL, "miss", True, id="expired"),
        pytest.param(Wish(), -5.0, "hit", False, id="a-clock-that-went-back"),
        pytest.param(Wish(10.0), 10.0, "hit", False, id="young-enough"),
        pytest.param(Wish(10.0), 10.1, "miss", True, id="too-old"),
        pytest.param(Wish(0.0), 0.0, "miss", True, id="no-cache"),
        pytest.param(Wish(0.0, may_be_kept=False), 1.0, "bypass", False, id="no-store"),
        pytest.param(Wish(math.inf, may_be_kept=False), 0.0, "hit", False, id="not-to-be-kept"),
    ],
)
def test_what_callers_ask_of_it(wish: Wish, seconds: float, told: str, is_put: bool) -> None:
    """An answer that has expired, or is too old for its caller, is made again; and kept, unless he says not to."""
    shelf = Shelf()
    kitchen = Kitchen(shelf=shelf)

    async def main() -> str:
        await kitchen.reply(asking())
        kitchen.now += seconds
        return how(await kitchen.reply(asking(wish=wish)))

    assert run(main()) == told
    (kept,) = shelf.kept.values()
    assert kept.stored == (NOW + seconds if is_put else NOW)
    assert kept.expires == kept.stored + TTL


def test_clock_that_went_back_makes_nothing_younger_than_new() -> None:
    """Age is never below 0."""
    kitchen = Kitchen(shelf=Shelf())

    async def main() -> Reply:
        await kitchen.reply(asking())
        kitchen.now -= 5
        return await kitchen.reply(asking())

    assert dict(run(main()).kept)[b"age"] == b"0"


def test_nobody_looks_for_what_the_caller_would_not_have() -> None:
    """With no-cache the store is not even asked."""
    kitchen = Kitchen(shelf=(shelf := Shelf()))
    run(kitchen.reply(asking(wish=Wish(0.0))))
    assert shelf.looked == 0


def test_request_that_cannot_be_compared() -> None:
    """What has no key is passed on, and told so; nothing is looked for or kept."""
    kitchen = Kitchen(shelf=(shelf := Shelf()), sharing=None)
    reply = run(kitchen.reply(asking(body=b'{"store":true,"messages":[]}')))
    assert (how(reply), reply.body) == ("bypass", ANSWER)
    assert (shelf.looked, shelf.kept) == (0, {})


UNTOLD = ANSWER.replace(b"," + USAGE, b"")
ASKS_USAGE: dict[str, Any] = {"stream": True, "asks_usage": True}


@pytest.mark.parametrize(
    ("kept", "fields", "is_hit"),
    [
        pytest.param(ANSWER, STREAM, True, id="plain-as-events"),
        pytest.param(ANSWER, ASKS_USAGE, True, id="plain-as-events-with-usage"),
        pytest.param(UNTOLD, STREAM, True, id="without-usage-as-events"),
        pytest.param(UNTOLD, ASKS_USAGE, False, id="without-usage-where-it-is-asked-for"),
        pytest.param(TELLING, {}, True, id="events-as-plain"),
        pytest.param(SILENT, {}, False, id="events-without-usage-as-plain"),
        pytest.param(TELLING, STREAM, True, id="events"),
        pytest.param(SILENT, STREAM, True, id="events-without-usage"),
        pytest.param(TELLING, ASKS_USAGE, True, id="events-with-usage"),
        pytest.param(SILENT, ASKS_USAGE, False, id="events-that-lack-usage"),
    ],
)
def test_forms(kept: bytes, fields: dict[str, Any], is_hit: bool) -> None:
    """A kept answer serves either form, wherever that tells what its caller is to be told."""
    is_stream = kept.startswith(b"data:")
    kitchen = Kitchen(events(kept) if is_stream else plain(kept), plain(b"another"), shelf=Shelf())

    async def main() -> tuple[Reply, bytes]:
        await whole(await kitchen.reply(asking(stream=is_stream)))
        again = await kitchen.reply(asking(**fields))
        return again, await whole(again)

    again, body = run(main())

    assert how(again) == ("hit" if is_hit else "miss")
    if not is_hit:
        assert body == b"another"
    elif fields.get("stream"):
        assert dict(again.headers)[b"content-type"] == b"text/event-stream; charset=utf-8"
        assert body.endswith(b"data: [DONE]\n\n")
        assert (body.find(USAGE) >= 0) is (kept not in (SILENT, UNTOLD))
    else:
        assert dict(again.headers)[b"content-type"] == b"application/json"
        assert read_json(body) == read_json(ANSWER)


CUT = ANSWER.replace(b'"stop"', b'"length"')


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(lambda: plain(status=201), id="another-status"),
        pytest.param(lambda: plain(b'{"error":{}}', 400), id="refusal"),
        pytest.param(lambda: plain(CUT), id="cut-short"),
        pytest.param(lambda: plain(ANSWER.replace(b'"stop"', b'"content_filter"')), id="filtered"),
        pytest.param(lambda: plain(b"<html>"), id="no-json"),
        pytest.param(lambda: plain(Arrived(ANSWER)), id="too-large-to-be-held"),
        pytest.param(lambda: events(TELLING[:-14]), id="no-done"),
        pytest.param(lambda: events(TELLING.replace(b'"stop"', b'"length"')), id="events-cut-short"),
        pytest.param(lambda: events(b": " + b"x" * MAX_STREAM_BYTES + b"\n\n", TELLING), id="too-many-bytes"),
    ],
)
def test_what_is_not_kept(reply: Callable[[], Reply]) -> None:
    """Only a whole 200 is kept, of a stream only up to a size; its caller gets it nevertheless."""
    kitchen = Kitchen(reply(), shelf=(shelf := Shelf()))
    told, body = run(kitchen.said(asking(stream=reply().headers == EVENTS)))
    assert told == "miss"
    assert body
    assert not shelf.kept


def test_choices_that_are_missing() -> None:
    """One answer where two were asked for is not kept."""
    kitchen = Kitchen(shelf=(shelf := Shelf()))
    run(kitchen.reply(asking(body=QUESTION[:-1] + b',"n":2}')))
    assert not shelf.kept


def test_stream_that_breaks_is_not_kept() -> None:
    """All of its bytes were there, but not its end."""
    kitchen = Kitchen(broken(TELLING), shelf=(shelf := Shelf()))

    async def main() -> None:
        with pytest.raises(CutShort):
            await kitchen.said(asking(**STREAM))

    run(main())
    assert not shelf.kept


def test_error_is_nothing_to_keep() -> None:
    """Where nobody answers the caller is told, and the next one asks again."""
    kitchen = Kitchen(ConnectError("no"), plain(), shelf=Shelf())

    async def main() -> str:
        with pytest.raises(ConnectError):
            await kitchen.reply(asking())
        return how(await kitchen.reply(asking()))

    assert run(main()) == "miss"


@pytest.mark.parametrize("first", [plain(), events()], ids=["plain", "events"])
def test_answer_of_a_stand_in_is_not_kept(first: Reply) -> None:
    """What another model answered is not given for the one that was asked for, once that is back."""
    kitchen = Kitchen(first, shelf=(shelf := Shelf()))
    run(kitchen.said(asking(stream=first.headers == EVENTS), "small"))
    assert not shelf.kept


MIXED = group_of(HERE, THEIRS)
POLICY: Headers = ((b"user-agent", b"curl"), (b"x-ms-policy", b"strict"), (b"openai-project", b"p"))


@pytest.mark.parametrize(
    ("one", "other", "options", "is_same"),
    [
        pytest.param(asking(), asking(), {}, True, id="nobody"),
        pytest.param(asking("a"), asking("b"), {}, False, id="credentials"),
        pytest.param(asking("a"), asking("a"), {}, True, id="credential"),
        pytest.param(asking("a"), asking(), {}, False, id="credential-and-none"),
        pytest.param(keyed("a"), keyed("b"), {}, False, id="keys"),
        pytest.param(keyed("a"), asking("a"), {}, False, id="key-and-credential"),
        pytest.param(keyed("a"), keyed("b"), {"is_shared": True}, True, id="keys-shared"),
        pytest.param(asking("a"), asking("b"), {"is_shared": True}, True, id="credentials-shared"),
        pytest.param(asking("a"), asking("b"), {"is_shared": True, "group": group_of(THEIRS)}, False, id="own-keys"),
        pytest.param(asking("a"), asking(), {"is_shared": True, "group": group_of(THEIRS)}, False, id="own-or-none"),
        pytest.param(asking("a"), asking("b"), {"is_shared": True, "group": MIXED}, False, id="own-keys-among-ours"),
        pytest.param(keyed("a"), keyed("b"), {"is_shared": True, "group": MIXED}, True, id="keys-shared-among-others"),
        pytest.param(keyed("a"), asking("b"), {"is_shared": True, "group": MIXED}, False, id="ours-and-own"),
        pytest.param(asking(), asking(model="n"), {}, False, id="models-in-the-path"),
        pytest.param(asking(), asking(model=None), {}, False, id="model-and-default"),
        pytest.param(asking(), asking(route="/eu"), {"routes": [CHAT, "/eu" + CHAT]}, False, id="upstreams"),
        pytest.param(asking(), asking(**SIMPLE), {"routes": [CHAT, "/v1/gpt/chat"]}, False, id="endpoints"),
        pytest.param(asking(), asking(query="x=1"), {}, False, id="queries"),
        pytest.param(asking(), asking(headers=POLICY), {}, False, id="headers-that-shape"),
        pytest.param(asking(headers=POLICY), asking(headers=POLICY[::-1]), {}, True, id="order-of-headers"),
        pytest.param(asking(), asking(headers=((b"user-agent", b"x"),)), {}, True, id="headers-that-do-not"),
        pytest.param(
            asking(), asking(headers=((b"x-ms-client-request-id", b"7"),)), {}, True, id="a-request's-own-id"
        ),
        pytest.param(
            asking(**SIMPLE),
            asking(defaulted=frozenset({"temperature"}), **SIMPLE),
            {"routes": ["/v1/gpt/chat"]},
            False,
            id="what-is-only-a-default",
        ),
        pytest.param(asking(), asking(body=QUESTION.replace(b"hi", b"ho")), {}, False, id="questions"),
        pytest.param(asking(), asking(body=QUESTION.replace(b":", b" : ")), {}, True, id="white-space"),
        pytest.param(asking(), asking(request_id="r-2", address="10.0.0.1"), {}, True, id="requests"),
    ],
)  # fmt: skip
def test_whose_answers_are_the_same(one: Call, other: Call, options: dict[str, Any], is_same: bool) -> None:
    """Callers get each other's answers only if they share, are answered by keys of ours, and ask the same."""
    kitchen = Kitchen(shelf=Shelf(), **options)

    async def main() -> str:
        await kitchen.reply(one)
        return how(await kitchen.reply(other))

    assert run(main()) == ("hit" if is_same else "miss")


@pytest.mark.parametrize(
    "fields",
    [{"name": "b"}, {"base_url": "https://b.test"}, {"api_version": "2025-01-01"}, {"kind": "openai"}],
    ids=str,
)
def test_answer_of_another_configuration(fields: dict[str, Any]) -> None:
    """What is kept for long is not given for what another deployment would answer by now."""
    shelf = Shelf()
    before = Kitchen(shelf=shelf)
    after = Kitchen(shelf=shelf, group=group_of(replace(HERE, **fields)))
    shared_out = Kitchen(shelf=shelf, group=group_of(replace(HERE, weight=2.0, priority=1, max_in_flight=3)))

    async def main() -> list[str]:
        return [how(await one.reply(asking())) for one in (before, after, shared_out)]

    assert run(main()) == ["miss", "miss", "hit"]


def test_stand_in_changes_nothing_of_what_is_kept() -> None:
    """Whoever might stand in answers none of it: what was kept without one is given as well."""
    shelf, stand_in = Shelf(), deployment("b")
    group = Pool((HERE, stand_in)).group("m", (None, [HERE]), ("small", [stand_in]))

    async def main() -> list[str]:
        return [how(await one.reply(asking())) for one in (Kitchen(shelf=shelf), Kitchen(shelf=shelf, group=group))]

    assert run(main()) == ["miss", "hit"]


def test_state() -> None:
    """Operators are told of both; of neither where there is none."""
    assert Keeping({}, None, None).state() == {"cache": None, "sharing": None}
    told = Keeping({}, Shelf(), Sharing()).state()
    assert told == {"cache": {"answers": 0}, "sharing": {"flights": 0, "joined": 0}}
