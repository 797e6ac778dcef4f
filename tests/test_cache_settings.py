"""The settings of kept answers: what they take, what the config file says by route, and what is said at the start."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from chat_api.cache_checks import cache_line, lone_caching
from chat_api.cache_parsers import CACHE_PARSERS, parse_cache_url
from chat_api.loading import shown, warn_of_lone_counting
from chat_api.settings import Settings, SettingsError, load
from chat_api.settings_table import CACHE
from chat_api.types import Secret

CHAT, SIMPLE, EMBEDDINGS = "/v1/chat/completions", "/v1/gpt/chat", "/v1/embeddings"
ON = {"CACHE_CHAT_COMPLETION": "true"}
REDIS = {**ON, "CACHE_BACKEND": "redis"}
FORM = "true or false, or {ttl: 600}"
URL = "a URL such as redis://127.0.0.1:6379/1"

Read = Callable[..., Settings]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads settings from keyword arguments as the environment, and from the text of a `config.yaml`."""

    def read(config: str = "", /, **environ: str) -> Settings:
        (tmp_path / "config.yaml").write_text(config)
        return load(environ, tmp_path / ".env")

    return read


@pytest.fixture
def problem(read: Read) -> Callable[..., str]:
    """The one problem that settings are refused for."""

    def problem(config: str = "", /, **environ: str) -> str:
        with pytest.raises(SettingsError) as caught:
            read(config, **environ)
        (text,) = caught.value.problems
        return text

    return problem


Problem = Callable[..., str]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("redis://127.0.0.1:6379/1", Secret("redis://127.0.0.1:6379/1"), id="redis"),
        pytest.param("valkeys://:p@r", Secret("rediss://:p@r"), id="valkey"),
        pytest.param("unix:///run/redis.sock", Secret("unix:///run/redis.sock"), id="socket"),
        pytest.param("lmdb:///var/lib/chat-api", Path("/var/lib/chat-api"), id="lmdb"),
        pytest.param("LMDB:///a%20b", Path("/a b"), id="lmdb-escaped"),
        pytest.param("/var/lib/chat-api", Path("/var/lib/chat-api"), id="folder"),
        pytest.param("kept", Path("kept"), id="folder-here"),
    ],
)
def test_cache_url(text: str, value: object) -> None:
    """A Redis, or a folder, which need not be there."""
    assert parse_cache_url(text) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("lmdb://var/lib", "it names no folder", id="lmdb-host"),
        pytest.param("lmdb:kept", "it names no folder", id="lmdb-without-slashes"),
        pytest.param("lmdb:///var?x=1", "it names no folder", id="lmdb-query"),
        pytest.param("memcached://r", "no URL that begins with", id="scheme"),
        pytest.param("redis://", "it names no host", id="redis-without-host"),
        pytest.param(__file__, "no folder at ", id="file"),
    ],
)
def test_no_cache_url(text: str, reason: str) -> None:
    """Anything else is refused, with the reason."""
    with pytest.raises(ValueError, match=reason):
        parse_cache_url(text)


@pytest.mark.parametrize("text", ["MEMORY", "Lmdb", "redis", "RocksDB", "LEVELDB"])
def test_backends_in_any_case(text: str) -> None:
    """A backend is named in any case, as openai-forward has it."""
    assert CACHE_PARSERS["cache_backend"](text) == text.lower()


@pytest.mark.parametrize(
    ("environ", "backend", "url", "max_bytes"),
    [
        pytest.param({}, "memory", None, 64 << 20, id="default"),
        pytest.param({"CACHE_BACKEND": "lmdb"}, "lmdb", "cache", 1 << 30, id="lmdb"),
        pytest.param({"CACHE_BACKEND": "LMDB", "CACHE_URL": "/k"}, "lmdb", Path("/k"), 1 << 30, id="folder"),
        pytest.param({"CACHE_BACKEND": "ROCKSDB"}, "lmdb", "cache", 1 << 30, id="rocksdb"),
        pytest.param({**REDIS, "STORE_URL": "redis://a"}, "redis", Secret("redis://a"), 64 << 20, id="store"),
        pytest.param(
            {**REDIS, "STORE_URL": "redis://a", "CACHE_URL": "redis://b"},
            "redis",
            Secret("redis://b"),
            64 << 20,
            id="url",
        ),
        pytest.param({"CACHE_MAX_BYTES": "2000000"}, "memory", None, 2_000_000, id="bytes"),
        pytest.param({"CACHE_URL": "/k"}, "memory", None, 64 << 20, id="memory-needs-no-url"),
    ],
)
def test_where_answers_are_kept(
    read: Read, tmp_path: Path, environ: Mapping[str, str], backend: str, url: object, max_bytes: int
) -> None:
    """Each backend has a place and a bound of its own, where nothing else is said."""
    settings = read(**environ)
    expected = tmp_path / url if isinstance(url, str) else url
    assert (settings.cache_backend, settings.cache_url, settings.cache_max_bytes) == (backend, expected, max_bytes)


@pytest.mark.parametrize(
    ("config", "environ", "routes"),
    [
        pytest.param("", {}, {}, id="off"),
        pytest.param("", ON, {CHAT: 86400, SIMPLE: 86400}, id="chat"),
        pytest.param("", {"CACHE_EMBEDDINGS": "true", "CACHE_TTL": "60"}, {EMBEDDINGS: 60}, id="embeddings"),
        pytest.param(f"cache: {{{CHAT}: true}}", {}, {CHAT: 86400}, id="by-route"),
        pytest.param(f"cache: {{{SIMPLE}: False}}", ON, {CHAT: 86400}, id="but-one"),
        pytest.param(
            f"cache: {{{EMBEDDINGS}: {{ttl: 0.5}}}}", ON, {CHAT: 86400, SIMPLE: 86400, EMBEDDINGS: 0.5}, id="ttl"
        ),
        pytest.param(f"cache: {{{CHAT}: {{ttl: 600}}}}", ON, {CHAT: 600, SIMPLE: 86400}, id="ttl-of-one"),
        pytest.param(f"cache: {{{CHAT}: {{}}}}", {"CACHE_TTL": "5"}, {CHAT: 5}, id="empty"),
        pytest.param("cache:", ON, {CHAT: 86400, SIMPLE: 86400}, id="blank"),
        pytest.param(
            f"cache: {{{CHAT}: true}}", {"ENDPOINT": "https://e.openai.azure.com"}, {CHAT: 86400}, id="endpoint"
        ),
    ],
)
def test_what_is_kept(read: Read, config: str, environ: Mapping[str, str], routes: Mapping[str, float]) -> None:
    """The switches say it, and the config file by route, instead of them; also beside an ENDPOINT."""
    assert read(config, **environ).cached_routes == routes


@pytest.mark.parametrize(
    ("config", "text"),
    [
        pytest.param("cache: true", f"cache is no mapping of routes to {FORM}, such as {CHAT}: true", id="no-mapping"),
        pytest.param(
            "cache: {/v1/embedding: true}",
            f'cache has a route of which no answer is kept, "/v1/embedding"; did you mean {EMBEDDINGS}?',
            id="near",
        ),
        pytest.param(
            "cache: {/health: true}",
            f'cache has a route of which no answer is kept, "/health"; it takes {SIMPLE}, {CHAT}, {EMBEDDINGS}',
            id="another-route",
        ),
        pytest.param(f"cache: {{{CHAT}: often}}", f'cache of {CHAT} is "often"; it takes {FORM}', id="word"),
        pytest.param(f"cache: {{{CHAT}: [true]}}", f"cache of {CHAT} cannot be used; it takes {FORM}", id="list"),
        pytest.param(
            f"cache: {{{CHAT}: {{tll: 1}}}}", f'cache of {CHAT} has an unknown name "tll"; did you mean ttl?', id="name"
        ),
        pytest.param(
            f"cache: {{{CHAT}: {{ttl: 0}}}}",
            f'cache of {CHAT}: ttl is "0" (not above 0); it takes a number of seconds above 0',
            id="zero",
        ),
        pytest.param(
            f"cache: {{{CHAT}: {{ttl: 1h}}}}",
            f'cache of {CHAT}: ttl is "1h" (no number); it takes a number of seconds above 0',
            id="unit",
        ),
    ],
)
def test_config_that_cannot_be_used(problem: Problem, tmp_path: Path, config: str, text: str) -> None:
    """A problem names the file, the entry, what it got and what it takes."""
    assert problem(config) == f"CONFIG_FILE is {tmp_path / 'config.yaml'}: {text}"


def test_a_file_may_say_nothing_else(tmp_path: Path) -> None:
    """A config file that only says what is kept is one."""
    (tmp_path / "other.yaml").write_text(f"cache: {{{CHAT}: true}}")
    assert load({"CONFIG_FILE": str(tmp_path / "other.yaml")}, tmp_path / ".env").cached_routes == {CHAT: 86400}


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        pytest.param(
            REDIS, f"CACHE_URL is not set, nor is STORE_URL; with CACHE_BACKEND=redis it takes {URL}", id="no-redis"
        ),
        pytest.param(
            {**REDIS, "CACHE_URL": "/kept"},
            f"CACHE_URL is a folder, and CACHE_BACKEND is redis; it takes {URL}, or set CACHE_BACKEND=lmdb",
            id="folder",
        ),
        pytest.param(
            {**ON, "CACHE_BACKEND": "lmdb", "CACHE_URL": "redis://:canary@r"},
            "CACHE_URL is a Redis, and CACHE_BACKEND is lmdb; it takes the path of a folder, or set "
            "CACHE_BACKEND=redis",
            id="redis",
        ),
    ],
)
def test_contradictions(problem: Problem, read: Read, environ: dict[str, str], text: str) -> None:
    """A backend without its place is refused, with what it takes; where nothing is kept it does not matter."""
    assert problem(**environ) == text
    assert read(**{name: value for name, value in environ.items() if name not in ON}).cached_routes == {}


@pytest.mark.parametrize(
    ("environ", "warning"),
    [
        pytest.param(
            {"CACHE_BACKEND": "RocksDB"},
            "CACHE_BACKEND is rocksdb, which is not here: answers are kept with lmdb",
            id="rocksdb",
        ),
        pytest.param({"CACHE_URL": "/k"}, "CACHE_URL is not used: CACHE_BACKEND is memory", id="url"),
        pytest.param({**ON, "CACHE_SHARED": "true", "CLIENT_KEYS": "c"}, None, id="shared"),
        pytest.param({**ON, "CACHE_SHARED": "true"}, None, id="shared-and-lent"),
        pytest.param({**ON, "CACHE_BACKEND": "lmdb"}, None, id="lmdb"),
        pytest.param({"CACHE_BACKEND": "memory"}, None, id="nothing-kept"),
    ],
)
def test_warnings(read: Read, environ: Mapping[str, str], warning: str | None) -> None:
    """What does not do what it says is said."""
    assert read(**environ).warnings == ((warning,) if warning else ())


def test_shared_with_anybody(read: Read) -> None:
    """Where each caller's own key goes upstream, answers that are shared need none: that is said."""
    open_to_all = {"ENDPOINT": "https://e.openai.azure.com", "DEPLOYMENT_NAME": "d", **ON, "CACHE_SHARED": "true"}
    assert read(**open_to_all).warnings == (
        "CACHE_SHARED is on and CLIENT_KEYS is not set: whoever reaches this port is given kept answers, whatever key "
        "they present",
    )
    assert read(**open_to_all, CLIENT_KEYS="c").warnings == ()


def test_several_processes(read: Read, capsys: pytest.CaptureFixture[str]) -> None:
    """Each process has a memory of its own: that is said where several serve and keep answers so."""
    said = (
        "3 processes serve, and each keeps answers of its own: the same is asked up to 3 times; CACHE_BACKEND=lmdb or "
        "redis has them share"
    )
    assert lone_caching(read(**ON), 3) == said
    assert lone_caching(read(**ON), 1) is None
    assert lone_caching(read(), 3) is None
    assert lone_caching(read(**ON, CACHE_BACKEND="lmdb"), 3) is None
    warn_of_lone_counting(read(**ON), {}, 3)
    assert capsys.readouterr().err == f"Warning: {said}\n"


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        pytest.param({}, None, id="nothing"),
        pytest.param(
            {"CACHE_EMBEDDINGS": "true"},
            f"Answers of {EMBEDDINGS} are kept in this process, for each caller.",
            id="one",
        ),
        pytest.param(
            {**ON, "CACHE_BACKEND": "lmdb", "CACHE_URL": "/k", "CACHE_SHARED": "true"},
            f"Answers of {SIMPLE} and {CHAT} are kept in /k, for all callers.",
            id="lmdb",
        ),
        pytest.param(
            {**REDIS, "CACHE_EMBEDDINGS": "true", "CACHE_URL": "redis://u:canary@r/2", "COALESCE": "true"},
            f"Answers of {SIMPLE}, {CHAT} and {EMBEDDINGS} are kept in Redis at r:6379/2, for each caller; callers "
            "who ask the same at the same time share one answer.",
            id="redis",
        ),
        pytest.param(
            {"COALESCE": "true"}, "Callers who ask the same at the same time share one answer.", id="coalesce-alone"
        ),
    ],
)
def test_in_a_line(read: Read, environ: Mapping[str, str], line: str | None) -> None:
    """The start says in one line what is kept, where and for whom."""
    assert cache_line(read(**environ)) == line


def test_shown(read: Read) -> None:
    """Settings are shown as they are used; of a URL no more than that it is there."""
    environ = {**REDIS, "CACHE_URL": "redis://u:canary@r/2", "COALESCE": "yes"}
    assert [shown(read(**environ), row.name) for row in CACHE] == [
        *("true", "false", "redis", "***", "86400", "67108864", "false", "true")
    ]
    assert shown(read(CACHE_BACKEND="lmdb", CACHE_URL="/k"), "CACHE_URL") == "/k"
