"""Places where answers are kept that are full, broken or gone; several processes; what the settings turn on."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from chat_api.emulator import Outage
from chat_api.keeping import MAX_STREAM_BYTES
from tests.fleets import client_key, fleet
from tests.keepers import (
    CHAT,
    EMBEDDINGS,
    KEPT,
    PATIENCE_SECONDS,
    SHARED,
    SIMPLE_CHAT,
    Front,
    asks,
    cache_at,
    config_of,
    front,
    fronts,
    says,
)
from tests.redis_servers import RedisServer, redis_server_of
from tests.servers import KEY, eventually

CODING = b"accept-encoding"
LEAST_BYTES = 1024 * 1024
LONG = "word " * 5_000  # an answer of about 26 kB
REDIS = {**KEPT, "CACHE_BACKEND": "redis", "MAX_ATTEMPTS": "1"}


def told(got: httpx.Response) -> str:
    """Where an answer is from, which is whole."""
    assert got.status_code == 200
    assert '"content":"You' in got.text
    return says(got)[0]


@pytest.mark.parametrize("backend", ["memory", "lmdb"])
def test_a_full_cache_lets_go(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """More answers than there is room for are all given; the latest are kept, and one that is too large is not."""
    with front(**cache_at(backend, request, tmp_path), CACHE_MAX_BYTES=str(LEAST_BYTES)) as server:
        for number in range(60):
            assert told(server.ask(f"{number} {LONG}")) == "miss"
        assert told(server.ask(f"59 {LONG}")) == "hit"
        assert eventually(lambda: not server.kept()["cache"].get("waiting"), PATIENCE_SECONDS)
        assert told(server.ask(f"0 {LONG}")) == "miss"
        assert [told(server.ask(LONG * 8)) for _ in range(2)] == ["miss"] * 2
        state = server.kept()["cache"]
    assert state["up"]
    assert 0 < state["bytes"] <= LEAST_BYTES
    assert state["evicted"] > 0
    assert state["too_large"] == 2


def test_a_stream_that_is_too_long_is_not_kept() -> None:
    """What of a stream would take too long to look at goes on whole, and is asked for anew."""
    words = "w " * 4000  # in a stream each has an event of its own
    with front(**KEPT) as server:
        first = server.ask(words, stream=True)
        assert len(first.content) > MAX_STREAM_BYTES
        assert first.content.endswith(b"data: [DONE]\n\n")
        assert [says(server.ask(words, stream=True))[0] for _ in range(2)] == ["miss"] * 2
        assert server.kept()["cache"]["answers"] == 0


@pytest.mark.parametrize("is_damaged", [False, True], ids=["no-folder", "damaged"])
def test_a_folder_that_cannot_be_used(tmp_path: Path, is_damaged: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Every call is answered by the upstream, and operators are told why; a damaged file costs what was kept only."""
    folder = tmp_path / "cache"
    if is_damaged:
        folder.mkdir()
        for name in ("data.mdb", "lock.mdb"):
            (folder / name).write_bytes(b"no database" * 1000)
    else:
        (tmp_path / "file").write_text("")
        folder = tmp_path / "file" / "cache"
    with front(**KEPT, CACHE_BACKEND="lmdb", CACHE_URL=str(folder)) as server:
        found = [told(server.ask("Grüße", stream=bool(number % 2))) for number in range(4)]
        state = server.kept()["cache"]
    assert found == ["miss"] * 4 or (is_damaged and found == ["miss", "hit", "hit", "hit"])
    assert state["up"] is (found[-1] == "hit")
    assert state["up"] or (state["reason"] and "no answer is kept" in caplog.text)


def test_redis_that_comes_and_goes() -> None:
    """While Redis is down, or silent, every call is answered by the upstream, and afterwards from what is kept."""
    with redis_server_of() as server, front(**REDIS, CACHE_URL=server.url) as gateway:
        assert [told(gateway.ask("a")) for _ in range(2)] == ["miss", "hit"]
        server.kill()
        assert [told(gateway.ask("a", stream=stream)) for stream in (False, True)] == ["miss"] * 2
        assert eventually(lambda: not gateway.kept()["cache"]["up"], PATIENCE_SECONDS)
        assert told(gateway.ask("a")) == "miss"
        server.start()
        assert eventually(lambda: told(gateway.ask("a")) == "hit", PATIENCE_SECONDS)
        server.pause()
        assert told(gateway.ask("a")) == "miss"
        server.resume()
        assert eventually(lambda: told(gateway.ask("a")) == "hit", PATIENCE_SECONDS)
        state = gateway.kept()["cache"]
    assert state["failures"] > 0
    assert state["not_asked"] > 0


def test_redis_that_is_full() -> None:
    """What Redis has no room for is counted, and asked for anew; what it has is given."""
    full = ("--maxmemory", "3mb", "--maxmemory-policy", "noeviction")
    with redis_server_of(*full) as server, front(**REDIS, CACHE_URL=server.url) as gateway:
        assert [told(gateway.ask("a")) for _ in range(2)] == ["miss", "hit"]
        for number in range(60):
            assert told(gateway.ask(f"{number} {LONG * 2}")) == "miss"
        assert eventually(lambda: gateway.kept()["cache"]["not_kept"] > 0, PATIENCE_SECONDS)
        assert told(gateway.ask(f"59 {LONG * 2}")) == "miss"
        assert told(gateway.ask("a")) == "hit"


def test_something_else_is_kept_there(redis: RedisServer) -> None:
    """What nobody here wrote is a miss, and is written over."""
    with front(**REDIS, CACHE_URL=redis.url, STORE_TIMEOUT="10") as gateway:
        assert told(gateway.ask("a")) == "miss"
        assert eventually(lambda: len(redis.client.keys()) == 1)
        (name,) = redis.client.keys()
        for strange in (b"", b"{}", b"\xff" * 100, redis.client.get(name)[:-1]):
            redis.client.set(name, strange)
            assert [told(gateway.ask("a")) for _ in range(2)] == ["miss", "hit"]
        redis.client.delete(name)
        redis.client.lpush(name, "a list")
        assert told(gateway.ask("a")) == "miss"
        assert gateway.kept()["cache"]["unreadable"] == 4


def test_two_gateways_over_one_redis(redis: RedisServer) -> None:
    """Each gives what the other one was answered, in either form."""
    environ = {**REDIS, "CACHE_URL": redis.url, "STORE_TIMEOUT": "10"}
    with fronts(environ, environ) as (one, other):
        first = [one.ask(f"{number}", stream=bool(number % 2)) for number in range(6)]
        assert eventually(lambda: len(redis.client.keys()) == 6)
        second = [other.ask(f"{number}", stream=bool(number % 2)) for number in range(6)]
        assert [told(got) for got in second] == ["hit"] * 6
        assert [got.content for got in second] == [got.content for got in first]
        assert [told(other.ask(f"{number}", stream=not number % 2)) for number in range(6)] == ["hit"] * 6
        assert one.asked == 6


def test_two_processes_over_one_folder(tmp_path: Path) -> None:
    """Processes of one machine give each other's answers, to the key that asked for them."""
    where = {**KEPT, "CACHE_BACKEND": "lmdb", "CACHE_URL": str(tmp_path / "cache")}
    with fleet([client_key("ann"), client_key("bob")], each=[where, where]) as running:

        def ask(port: int, key: str, number: int, stream: bool) -> httpx.Response:
            fields = {"model": "gpt-4o", "messages": [{"role": "user", "content": f"{number}"}], "stream": stream}
            url = f"http://127.0.0.1:{port}{CHAT}"
            return httpx.post(url, json=fields, headers={"api-key": key}, timeout=PATIENCE_SECONDS)

        def waiting() -> int:
            found: int = running.get("/status", one).json()["kept"]["cache"]["waiting"]
            return found

        one, other = running.ports
        first = [ask(one, "ann", number, bool(number % 2)) for number in range(4)]
        assert eventually(lambda: waiting() == 0, PATIENCE_SECONDS)
        second = [ask(other, "ann", number, bool(number % 2)) for number in range(4)]
        assert [told(got) for got in second] == ["hit"] * 4
        assert [got.content for got in second] == [got.content for got in first]
        assert told(ask(other, "ann", 0, True)) == "hit"
        assert told(ask(other, "bob", 0, False)) == "miss"


WITH_TIMES = {SIMPLE_CHAT: {"ttl": 60}, EMBEDDINGS: {"ttl": 9}}
ROUTES: list[tuple[dict[str, Any], dict[str, str], tuple[bool, bool, bool]]] = [
    ({}, {"CACHE_CHAT_COMPLETION": "true"}, (True, True, False)),
    ({}, {"CACHE_EMBEDDINGS": "true"}, (False, False, True)),
    ({CHAT: True}, {}, (True, False, False)),
    ({SIMPLE_CHAT: False}, {"CACHE_CHAT_COMPLETION": "true"}, (True, False, False)),
    (WITH_TIMES, {}, (False, True, True)),
    # As files of openai-forward have it.
    ({}, {"CACHE_OPENAI": "true", "CACHE_BACKEND": "MEMORY"}, (True, True, False)),
    ({}, {"CACHE_EMBEDDING": "True", "CACHE_BACKEND": "LMDB", "CACHE_ROOT_PATH_OR_URL": "."}, (False, False, True)),
    ({}, {}, (False, False, False)),
]


def test_which_routes(tmp_path: Path) -> None:
    """The environment and config.yaml say of which routes answers are kept; the others say nothing of it."""
    environs = []
    for number, (routes, given, _) in enumerate(ROUTES):
        (folder := tmp_path / str(number)).mkdir()
        environ = {**given, **({"CONFIG_FILE": config_of(folder, cache=routes)} if routes else {})}
        environs.append({**environ, "CACHE_URL": str(folder / "cache")} if "ROOT" in str(given) else environ)
    with fronts(*environs) as servers:
        for number, (server, (_, _, expected)) in enumerate(zip(servers, ROUTES, strict=True)):
            for path, is_kept in zip((CHAT, SIMPLE_CHAT, EMBEDDINGS), expected, strict=True):
                model = "text-embedding-3-small" if path == EMBEDDINGS else "gpt-4o"
                found = [says(server.ask("a", path=path, model=model))[0] for _ in range(2)]
                assert (number, path, found) == (number, path, ["miss", "hit"] if is_kept else ["-", "-"])
        assert servers[-1].kept() is None


def test_who_brings_a_key_of_his_own() -> None:
    """Where callers bring the upstream's key each of them has his own answers, and a wrong one is given nobody's."""
    with front(**KEPT, **SHARED, KEY="") as server:
        right, wrong = {"api-key": KEY}, {"api-key": "wrong"}
        assert [told(server.ask("a", headers=right)) for _ in range(2)] == ["miss", "hit"]
        assert [server.ask("a", headers=wrong).status_code for _ in range(2)] == [401] * 2
        assert told(server.ask("a", headers={"authorization": f"Bearer {KEY}"})) == "hit"
        assert server.asked == 1


def test_hits_need_no_upstream() -> None:
    """What is kept is given while the upstream is out of order, and costs it nothing."""
    with front(**KEPT, MAX_ATTEMPTS="1") as server:
        assert told(server.ask("a")) == "miss"
        server.upstream.outage = Outage("500")
        assert [server.ask("b", stream=stream).status_code for stream in (False, True)] == [500] * 2
        assert [told(server.ask("a", stream=stream)) for stream in (False, True)] == ["hit"] * 2


def test_no_coding_is_asked_for() -> None:
    """An upstream is not asked to compress what is to be read here, and what it says of a coding is not given on."""
    with front(**KEPT) as server:
        for number, (stream, model) in enumerate([(False, "gpt-4o"), (True, "gpt-4o"), (False, "fault-gzip")]):
            first, hit = (server.ask(f"{number}", stream=stream, model=model) for _ in range(2))
            assert (told(first), told(hit)) == ("miss", "hit")
            assert hit.content == first.content
            assert "content-encoding" not in first.headers | hit.headers
        codings = {value for asked in server.upstream.requests for name, value in asked.headers if name == CODING}
        assert codings == {b"identity"}


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """A gateway that counts, shares and keeps nothing."""
    folder = tmp_path_factory.mktemp("counted")
    keys = [client_key("ann"), client_key("bob")]
    with front(CONFIG_FILE=config_of(folder, client_keys=keys), USAGE_FILE=str(folder / "usage.json"), **SHARED) as one:
        yield one


def used(server: Front, key: str) -> dict[str, tuple[int, int]]:
    """How many requests of a key were answered by whom, and how many tokens they took."""
    rows = server.client.get("/usage", params={"by": "key,deployment"}).raise_for_status().json()["rows"]
    return {
        row["deployment"].partition("@")[0]: (row["requests"], row["total_tokens"]) for row in rows if row["key"] == key
    }


def test_keys_do_not_join_each_other(counted: Front) -> None:
    """Two client keys that ask the same at the same time are two upstream calls, and each is counted for its own."""
    joined, asked = counted.kept()["sharing"]["joined"], counted.asked
    counted.hold()
    crowd = counted.begin(*[asks("a b c", key=key) for key in ("ann", "bob")] * 5)
    assert eventually(lambda: counted.upstream.waiting == 2, PATIENCE_SECONDS)
    counted.wait_for(joined + 8)
    counted.open()
    assert all(called.is_good for called in crowd.got())
    assert counted.asked == asked + 2
    tokens = json.loads(counted.begin(asks("a b c", key="bob")).got()[0].body)["usage"]["total_tokens"]
    assert used(counted, "ann") == {"gpt-4o": (1, tokens), "shared": (4, 0)}
    assert used(counted, "bob") == {"gpt-4o": (2, 2 * tokens), "shared": (4, 0)}


def test_who_pays_when_the_first_has_left(counted: Front) -> None:
    """Joiners pay nothing for a whole answer of somebody who is counted; if he left, the answer is paid for."""
    kind = asks(" ".join(["word"] * 30), key="ann", stream=True)
    joined, before = counted.kept()["sharing"]["joined"], used(counted, "ann").get("shared", (0, 0))
    counted.hold(after=10)
    first = counted.begin(kind)
    assert eventually(lambda: counted.upstream.waiting == 1, PATIENCE_SECONDS)
    second = counted.begin(kind)
    counted.wait_for(joined + 1)
    first.leave(0)
    counted.open()
    (called,) = second.got()
    assert called.is_good
    assert eventually(lambda: used(counted, "ann")["shared"][0] == before[0] + 1, PATIENCE_SECONDS)
    assert used(counted, "ann")["shared"][1] > before[1] + 30


def test_a_paced_hit() -> None:
    """Where streams are paced a kept one is as well, and is the same."""
    with front(**KEPT, TOKEN_RATE_LIMIT="100/second") as server:
        server.ask("a b c d e f g h i j")
        started = time.monotonic()
        first, second = (server.ask("1 2 3 4 5 6 7 8 9", stream=True) for _ in range(2))
        assert (told(first), told(second)) == ("miss", "hit")
        assert second.content == first.content
        assert time.monotonic() - started > 2 * 8 / 100
