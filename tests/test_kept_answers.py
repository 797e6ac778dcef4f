"""Answers that are kept, end to end, wherever they are kept: who gets them, for how long, and which never are."""

import json
import time
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import httpx2 as httpx
import pytest

from chat_api.keeping import Keeping
from tests.fleets import client_key
from tests.keepers import (
    BACKENDS,
    CHAT,
    EMBEDDINGS,
    SHARED,
    SIMPLE_CHAT,
    Front,
    asks,
    cache_at,
    config_of,
    fronts,
    says,
)
from tests.servers import eventually

TTL = 600
LIMIT = 100_000
ANN, BOB = {"authorization": "Bearer ann"}, {"authorization": "Bearer bob"}
HIT, MISS, BYPASS = "hit", "miss", "bypass"
_numbers = count()


class Clock:
    """The time, which goes on when a test says so as well."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        """In seconds since 1970."""
        return time.time() + self.ahead


class World(NamedTuple):
    """A gateway, another one where all callers share, and their clock."""

    here: Front
    shared: Front
    clock: Clock
    backend: str

    @property
    def asked(self) -> int:
        """How often the upstream was."""
        return self.here.asked


@pytest.fixture(scope="module", params=BACKENDS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """They count what is used, and have client keys."""
    folder, clock = tmp_path_factory.mktemp("kept"), Clock()
    keys = [
        client_key("cid", models=["gpt-4o-mini"]),
        client_key("ann", tokens=f"{LIMIT}/minute", requests="100000/minute"),
        client_key("bob"),
    ]
    environ = {
        **cache_at(request.param, request, folder),
        "CONFIG_FILE": config_of(folder, client_keys=keys, prices={"gpt-4o": {"prompt": 2.5, "completion": 10}}),
        "USAGE_FILE": str(folder / "usage.json"),
        "CACHE_TTL": str(TTL),
        "MAX_ATTEMPTS": "1",
        **SHARED,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("chat_api.services.Keeping", partial(Keeping, wall=clock))
        shared_by_all = {**environ, "CACHE_SHARED": "true"}
        if request.param == "lmdb":  # which a process opens once
            shared_by_all["CACHE_URL"] = str(folder / "shared")
        with fronts(environ, shared_by_all) as (here, shared):
            for one in (here, shared):
                one.client.headers.update(ANN)
            yield World(here, shared, clock, request.param)


def new() -> str:
    """A prompt that nobody has sent yet."""
    return f"Grüße {next(_numbers)}"


def wish(value: str) -> Mapping[str, str]:
    """The header of a caller who asks something of kept answers."""
    return {"cache-control": value}


def from_(got: httpx.Response) -> str:
    """Where an answer is from."""
    assert got.status_code == 200
    return says(got)[0]


def test_an_answer_is_kept_for_its_time(world: World) -> None:
    """It is given until its time is over, and says how old it is; then the upstream is asked again."""
    prompt, asked = new(), world.asked
    first = world.here.ask(prompt)
    assert says(first) == (MISS, None)
    for ahead in (0, 1, TTL - 5):
        world.clock.ahead += ahead
        hit = world.here.ask(prompt)
        kind, age = says(hit)
        assert (kind, hit.content) == (HIT, first.content)
        assert hit.headers["x-chat-api-deployment"] == first.headers["x-chat-api-deployment"]
        assert 0 <= int(age or -1) - sum((0, 1, TTL - 5)[: (0, 1, TTL - 5).index(ahead) + 1]) <= 3
    assert world.asked == asked + 1
    world.clock.ahead += 10
    assert says(world.here.ask(prompt)) == (MISS, None)
    assert from_(world.here.ask(prompt)) == HIT
    assert world.asked == asked + 2


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("path", [CHAT, SIMPLE_CHAT])
def test_what_a_caller_wishes(world: World, path: str, stream: bool) -> None:
    """no-cache asks anew and keeps that; no-store neither takes nor leaves one; max-age takes one that is young."""
    prompt, here, asked = new(), world.here, world.asked
    ask = partial(here.ask, prompt, path=path, stream=stream)
    assert from_(ask(headers=wish("no-store"))) == BYPASS
    assert from_(ask(headers=wish("max-age=100"))) == MISS
    assert from_(ask()) == HIT
    assert from_(ask(headers=wish("no-store"))) == BYPASS
    assert world.asked == asked + 3
    world.clock.ahead += 50
    assert from_(ask(headers=wish("max-age=100"))) == HIT
    assert from_(ask(headers=wish("max-age=20"))) == MISS
    assert int(says(ask())[1] or -1) < 20
    world.clock.ahead += 50
    assert from_(ask(headers=wish("private, no-cache"))) == MISS
    assert int(says(ask())[1] or -1) < 20
    assert from_(ask(headers=wish("max-age=0"))) == MISS
    assert from_(ask(headers=wish("max-stale=5, what=ever"))) == HIT
    assert world.asked == asked + 6


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"max_tokens": 1}, id="cut-short"),
        pytest.param({"max_tokens": 2, "n": 2}, id="both-cut-short"),
        pytest.param({"model": "fault-filter-answer"}, id="filtered"),
        pytest.param({"model": "fault-400"}, id="400"),
        pytest.param({"model": "fault-filter"}, id="filtered-prompt"),
        pytest.param({"model": "fault-500"}, id="500"),
        pytest.param({"model": "fault-empty"}, id="empty"),
        pytest.param({"store": True}, id="stored-upstream"),
    ],
)
def test_what_is_never_kept(world: World, fields: Mapping[str, Any], stream: bool) -> None:
    """Errors, answers that were cut or filtered, and those of calls that do more than answer, are asked for anew."""
    prompt, asked = new(), world.asked
    got = [world.here.ask(prompt, **fields, stream=stream) for _ in range(3)]
    assert not any(says(one)[0] == HIT or "age" in one.headers for one in got)
    assert world.asked == asked + 3


def test_choices_cut_short_are_not_kept(world: World) -> None:
    """An answer with fewer choices than were asked for, or with one that did not end, is asked for anew."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "x"}}
    answer = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    ended = [choice, {**choice, "index": 1}]
    cases: list[tuple[object, int, str]] = [
        (answer, 2, MISS),
        ({**answer, "choices": [choice, {**choice, "index": 1, "finish_reason": None}]}, 2, MISS),
        ({**answer, "choices": [choice, {**choice, "index": 1, "finish_reason": "length"}]}, 2, MISS),
        ({**answer, "choices": [choice, {**choice, "index": 2}]}, 2, MISS),
        ({**answer, "choices": []}, 1, MISS),
        ({**answer, "error": {"message": "no"}}, 1, MISS),
        (answer, 1, HIT),
        ({**answer, "choices": ended}, 2, HIT),
    ]
    for said, n, expected in cases:
        prompt = new()
        world.here.upstream.says = said
        try:
            first, second = world.here.ask(prompt, n=n), world.here.ask(prompt, n=n)
        finally:
            world.here.upstream.says = None
        assert (said, says(first)[0], says(second)[0]) == (said, MISS, expected)


def test_a_key_has_its_own_answers(world: World) -> None:
    """What one client key was answered another one is not given, unless all share; whose it was is no part of that."""
    prompt, asked = new(), world.asked
    assert from_(world.here.ask(prompt, headers=ANN)) == MISS
    assert from_(world.here.ask(prompt, headers=BOB)) == MISS
    assert from_(world.here.ask(prompt, headers=ANN)) == HIT
    assert from_(world.here.ask(prompt, headers={"api-key": "bob", "authorization": ""})) == HIT
    assert from_(world.shared.ask(prompt, headers=ANN)) == MISS
    assert from_(world.shared.ask(prompt, headers=BOB)) == HIT
    assert world.asked == asked + 3
    assert world.shared.ask(prompt, headers={"authorization": "Bearer nobody"}).status_code == 401
    assert world.shared.ask(prompt, headers={"authorization": "Bearer cid"}).status_code == 403


def test_what_makes_another_question(world: World) -> None:
    """User, the order of members and white space do not; a parameter, the model, the route and the query do."""
    prompt, here = new(), world.here
    messages = [{"role": "user", "content": prompt}]
    assert from_(here.ask(prompt, temperature=0.5, user="ann")) == MISS
    raw = json.dumps({"temperature": 5e-1, "messages": messages, "user": "bob", "model": "gpt-4o"}, indent=3)
    assert from_(here.client.post(CHAT, content=raw, headers={"content-type": "application/json"})) == HIT
    assert from_(here.ask(prompt, temperature=0.6)) == MISS
    assert from_(here.ask(prompt, temperature=0.5, model="gpt-4o-mini")) == MISS
    assert from_(here.ask(prompt, temperature=0.5, path=SIMPLE_CHAT)) == MISS
    azure = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"
    assert from_(here.post({"messages": messages, "temperature": 0.5}, path=azure)) == MISS
    assert from_(here.post({"messages": messages, "temperature": 0.5}, path=azure)) == HIT


def test_embeddings(world: World) -> None:
    """They are kept byte for byte, one or several, each of their forms for itself."""
    asked = world.asked
    model = {"model": "text-embedding-3-small", "path": EMBEDDINGS}
    for content in (new(), [new(), new()]):
        for form in ("float", "base64"):
            first = world.here.ask(content, encoding_format=form, **model)  # type: ignore[arg-type]
            hit = world.here.ask(content, encoding_format=form, **model)  # type: ignore[arg-type]
            assert (from_(first), from_(hit)) == (MISS, HIT)
            assert hit.content == first.content
    assert world.asked == asked + 4


def test_many_who_ask_what_is_not_kept_yet(world: World) -> None:
    """While an answer is on its way nobody asks for it again, and once it is there all are given it."""
    prompt, asked = new(), world.asked
    kinds = [asks(prompt, stream=bool(number % 2), key="ann") for number in range(40)]
    joined = world.here.kept()["sharing"]["joined"]
    world.here.hold()
    crowd = world.here.begin(*kinds)
    world.here.wait_for(joined=joined + len(kinds) - 1)
    world.here.open()
    calls = crowd.got()
    assert all(called.is_good for called in calls)
    assert sorted(called.headers["x-chat-api-cache"] for called in calls) == [MISS] + ["shared"] * (len(kinds) - 1)
    assert {called.headers["x-chat-api-cache"] for called in world.here.begin(*kinds).got()} == {HIT}
    assert world.asked == asked + 1


def test_what_a_hit_costs(world: World) -> None:
    """It takes no token of a caller's limit and one request; in the usage it is a request that `cache` answered."""
    prompt, here = new(), world.here

    def rows() -> dict[str, dict[str, Any]]:
        found = here.client.get("/usage", params={"by": "key,deployment"}).raise_for_status().json()["rows"]
        return {row["deployment"].partition("@")[0]: row for row in found if row["key"] == "ann"}

    def left(got: httpx.Response, of: str) -> int:
        return int(got.headers[f"x-ratelimit-remaining-{of}"])

    first, before = here.ask(prompt), rows()
    hits = [here.ask(prompt, stream=stream, path=CHAT) for stream in (False, True, False)]
    after = rows()

    assert {from_(hit) for hit in hits} == {HIT}
    assert [left(hit, "requests") for hit in hits] == [left(first, "requests") - number for number in (1, 2, 3)]
    assert left(hits[2], "tokens") >= left(hits[0], "tokens")  # what it might have taken is told, and given back
    known = before.get("cache", {"requests": 0})
    assert after["cache"]["requests"] == known["requests"] + len(hits)
    assert (after["cache"]["total_tokens"], after["cache"]["errors"], after["cache"]["cost"]) == (0, 0, 0.0)
    assert after["gpt-4o"] == before["gpt-4o"]


def test_what_operators_see(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The access log says where an answer is from, and `/status` what keeps it."""
    prompt = new()
    with caplog.at_level("INFO", logger="chat_api.access"):
        for path, stream in ((CHAT, False), (SIMPLE_CHAT, True)):
            for headers in ({}, {}, wish("no-store")):
                world.here.ask(prompt, headers=headers, path=path, stream=stream)

    def lines() -> list[str]:
        said = [record.getMessage() for record in caplog.records if "POST" in record.getMessage()]
        return sorted(line.split(" ")[2] + line.partition(" cache")[2] for line in said)

    assert eventually(lambda: len(lines()) == 6)  # a line comes when the answer has gone
    assert lines() == sorted(f"{path}={how} key=ann" for path in (CHAT, SIMPLE_CHAT) for how in (MISS, HIT, BYPASS))
    state = world.here.kept()
    assert (state["cache"]["kind"], state["cache"]["up"]) == (world.backend, True)
    assert state["sharing"]["flights"] == 0
