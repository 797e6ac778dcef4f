"""What is opened beside the relay, as the settings want it, and closed with it."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from chat_api import services
from chat_api.exchanges import Exchange
from chat_api.settings import Settings, load
from chat_api.types import Reply
from tests.scripted import settled
from tests.scripted_keeping import Shelf, plain

KEYS = "client_keys:\n  - {name: a, sha256: " + "0f" * 32 + "%s}\n"
BASE = {"ENDPOINT": "https://r.openai.azure.com", "KEY": "k", "DEPLOYMENT_NAME": "m"}

Read = Callable[..., Settings]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads settings from keyword arguments, and from the text of a `config.yaml`."""

    def read(config: str = "", /, **environ: str) -> Settings:
        (tmp_path / "config.yaml").write_text(config)
        return load({**BASE, **environ}, tmp_path / ".env")

    return read


def opened(service: Callable[[AsyncExitStack], Any], look: Callable[[Any], Any]) -> Any:
    """What `look` sees of a service while it is open."""

    async def main() -> Any:
        async with AsyncExitStack() as stack:
            made = service(stack)
            found = look(await made if isinstance(made, Coroutine) else made)
            return await found if isinstance(found, Awaitable) else found

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("environ", "has"),
    [
        pytest.param({}, (False, False), id="nothing"),
        pytest.param({"GLOBAL_RATE_LIMIT": "5/minute"}, (False, True), id="limits"),
        pytest.param({"CALLER_MAX_PARALLEL": "2"}, (False, True), id="calls-at-a-time"),
    ],
)
def test_who_counts(read: Read, environ: dict[str, str], has: tuple[bool, bool]) -> None:
    """Nobody does where nothing is limited and nobody wants to know what was used."""
    values = read(**environ)
    found = opened(lambda stack: services.counting(values, stack), lambda one: (one[0] is not None, one[1] is not None))
    assert found == has


@pytest.mark.parametrize(
    ("config", "environ", "expected"),
    [
        pytest.param("", {}, None, id="nothing"),
        pytest.param("", {"CACHE_SHARED": "true", "CACHE_TTL": "9"}, None, id="how-but-not-what"),
        pytest.param("", {"COALESCE": "true"}, (None, True), id="shared"),
        pytest.param("", {"CACHE_EMBEDDINGS": "true"}, ("memory", False), id="kept"),
        pytest.param("", {"CACHE_CHAT_COMPLETION": "true", "COALESCE": "true"}, ("memory", True), id="both"),
        pytest.param("cache:\n  /v1/embeddings: {ttl: 5}\n", {}, ("memory", False), id="by-route"),
        pytest.param("cache:\n  /v1/embeddings: false\n", {"CACHE_EMBEDDINGS": "true"}, None, id="not-this-route"),
        pytest.param("", {"CACHE_EMBEDDINGS": "true", "CACHE_BACKEND": "lmdb"}, ("lmdb", False), id="on-disk"),
    ],
)
def test_who_keeps(read: Read, config: str, environ: dict[str, str], expected: tuple[Any, bool] | None) -> None:
    """A store where answers of any route are kept, calls in flight where they share; nobody where neither is."""
    values = read(config, **environ)

    def look(keeping: Any) -> tuple[Any, bool] | None:
        if keeping is None:
            return None
        state = keeping.state()
        return state["cache"] and state["cache"]["kind"], state["sharing"] is not None

    assert opened(lambda stack: services.keeping(values, stack), look) == expected


def test_store_is_closed_after_the_calls_that_fill_it(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the server stops, what is in flight ends first; nothing is put into a store that is closed."""
    told: list[str] = []

    class Closing(Shelf):
        async def aclose(self) -> None:
            told.append("store")

    async def open_shelf(*_: Any, **__: Any) -> Shelf:
        return Closing()

    async def ask() -> Reply:
        try:
            await asyncio.Event().wait()
        finally:
            told.append("call")
        return plain()

    monkeypatch.setattr(services, "open_cache", open_shelf)
    values = read(CACHE_CHAT_COMPLETION="true", COALESCE="true")

    async def main() -> asyncio.Task[Any]:
        async with AsyncExitStack() as stack:
            keeping = await services.keeping(values, stack)
            assert keeping is not None
            assert keeping.sharing is not None
            waiting = asyncio.create_task(keeping.sharing.reply(b"k", ask))
            await settled()
        await settled()
        return waiting

    assert asyncio.run(main()).cancelled()
    assert told == ["call", "store"]


def test_settings_of_the_store(read: Read, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is opened with what the settings say, and its answers are for whom they say."""
    asked: list[Any] = []

    async def open_shelf(*values: Any, **more: Any) -> Shelf:
        asked.extend((*values, more))
        return Shelf()

    monkeypatch.setattr(services, "open_cache", open_shelf)
    folder = str(tmp_path / "kept")
    values = read(
        CACHE_EMBEDDINGS="true",
        CACHE_BACKEND="lmdb",
        CACHE_URL=folder,
        CACHE_MAX_BYTES="2000000",
        STORE_TIMEOUT="1.5",
        CACHE_TTL="7",
        CACHE_SHARED="true",
    )
    found = opened(lambda stack: services.keeping(values, stack), lambda one: (one._ttls, one._is_shared))
    assert asked == ["lmdb", Path(folder), 2_000_000, {"timeout_seconds": 1.5}]
    assert found == ({"/v1/embeddings": 7.0}, True)


@pytest.mark.parametrize(
    ("config", "log_chat", "is_written"),
    [
        pytest.param("", "false", False, id="off"),
        pytest.param("", "true", True, id="on"),
        pytest.param("", "meta", True, id="facts"),
        pytest.param(KEYS % ", log_chat: meta", "false", True, id="of-one-key"),
        pytest.param(KEYS % ", log_chat: false", "false", False, id="of-no-key"),
    ],
)
def test_who_writes_down(read: Read, tmp_path: Path, config: str, log_chat: str, is_written: bool) -> None:
    """A conversation log where any caller's are logged; what was said is in its folder when it is closed."""
    values = read(config, LOG_CHAT=log_chat, LOG_DIR=str(tmp_path / "said"))

    def look(conversations: Any) -> bool:
        if conversations is None:
            return False
        conversations.log.note(Exchange(1e9, "r-1", "", "", "/v1/chat/completions", "chat/completions", "m", b"{}"))
        return True

    assert opened(lambda stack: _now(services.conversing(values, stack)), look) is is_written
    files = list((tmp_path / "said").glob("*")) if is_written else []
    assert any(b'"r-1"' in one.read_bytes() for one in files) is is_written


async def _now(value: Any) -> Any:
    return value
