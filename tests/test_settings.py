import dataclasses
import importlib
import ipaddress
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from chat_api.azure_url import Endpoint
from chat_api.callers import unnamed_key
from chat_api.config_file import Config, ConfiguredDeployment
from chat_api.counting import Rate
from chat_api.settings import Server, Settings, SettingsError, load
from chat_api.settings_table import PROXY_FORM, TABLE
from chat_api.types import Proxies, Secret
from chat_api.upstream import proxy_for

AZURE = "https://r.openai.azure.com"
DEPLOYMENT_URL = f"{AZURE}/openai/deployments/d/chat/completions?api-version=2024-06-01"
NO_DEPLOYMENT = "DEPLOYMENT_NAME is not set; every request has to name its model"
UNENCRYPTED = "ENDPOINT is http://, so the key travels unencrypted; Azure speaks https://"
UNLISTED = "is set but ENDPOINT is not: the built-in emulator answers, not Azure"
ANONYMOUS = "ALLOW_ANONYMOUS is on: whoever reaches this port uses the server's Azure key"

Read = Callable[..., Settings]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads settings from keyword arguments as the environment, and from `file` as the `.env` file's text."""

    def read(file: str | bytes | None = None, /, **environ: str) -> Settings:
        env_file = tmp_path / ".env"
        if file is not None:
            env_file.write_bytes(file if isinstance(file, bytes) else file.encode())
        return load(environ, env_file)

    return read


@pytest.fixture
def problems(read: Read) -> Callable[..., tuple[str, ...]]:
    """The problems that settings are refused for."""

    def problems(file: str | None = None, /, **environ: str) -> tuple[str, ...]:
        with pytest.raises(SettingsError) as caught:
            read(file, **environ)
        return caught.value.problems

    return problems


Problems = Callable[..., tuple[str, ...]]


def test_defaults(read: Read, tmp_path: Path) -> None:
    """Without any setting the emulator answers on the loopback address, at port 8080."""
    assert read() == Settings(
        host="127.0.0.1",
        http_port=8080,
        enable_ssl=False,
        https_port=8443,
        ssl_cert=None,
        ssl_key=None,
        client_keys=(),
        operator_key=None,
        allow_anonymous=False,
        allow_ips=(),
        deny_ips=(),
        forwarded_allow_ips=(),
        cors_origins=(),
        req_rate_limit={},
        global_rate_limit=(),
        rate_limit_strategy="fixed-window",
        caller_token_limit=(),
        model_token_limit={},
        caller_max_parallel=None,
        token_rate_limit={},
        store_url=None,
        store_failure="open",
        store_timeout=0.25,
        usage_file=tmp_path / "usage.json",
        cache_chat_completion=False,
        cache_embeddings=False,
        cache_backend="memory",
        cache_url=None,
        cache_ttl=86400,
        cache_max_bytes=64 * 1024 * 1024,
        cache_shared=False,
        coalesce=False,
        endpoints=(),
        deployment_name=None,
        api_version="2024-10-21",
        keys=(),
        model_mapper=(),
        unknown_model="pass",
        fallbacks={},
        config_file=None,
        config=Config((), "/v1"),
        max_attempts=5,
        retry_wait=0,
        hedge_after=0,
        openai=(),
        extra=(),
        upstream="emulator",
        proxies=Proxies(None, None, ""),
        defaults={},
        connect_timeout=5,
        first_byte_timeout=600,
        max_connections=5000,
        idle_timeout=120,
        ping_interval=15,
        compat_chunks=False,
        headers_timeout=10,
        body_timeout=30,
        reader_timeout=120,
        drain_wait=0,
        drain_timeout=30,
        max_body_bytes=33554432,
        max_upload_bytes=536870912,
        log_level="info",
        log_chat="false",
        log_dir=tmp_path / "log",
        log_max_file_bytes=104857600,
        log_keep_days=0,
        warnings=(),
    )


GOOD_VALUES = {
    "HOST": "::1",
    "HTTP_PORT": "0",
    "ENABLE_SSL": "yes",
    "HTTPS_PORT": "65535",
    "SSL_CERT": "cert.pem",
    "SSL_KEY": "key.pem",
    "CLIENT_KEYS": "client-1, client-2",
    "OPERATOR_KEY": "operator-1",
    "ALLOW_ANONYMOUS": "on",
    "ALLOW_IPS": "10.0.0.0/8,::1",
    "DENY_IPS": "10.0.0.7",
    "FORWARDED_ALLOW_IPS": "10.0.0.1, 10.1.2.3/16",
    "CORS_ORIGINS": "https://chat.example.com",
    "REQ_RATE_LIMIT": '{"/v1/chat/completions/": "100/2minutes", "/v1/gpt/chat": "inf"}',
    "GLOBAL_RATE_LIMIT": "60/minute;600/hour",
    "RATE_LIMIT_STRATEGY": "Moving-Window",
    "CALLER_TOKEN_LIMIT": "100000/minute; 2000000 per day",
    "MODEL_TOKEN_LIMIT": '{"gpt-4o": "500000/minute", "gpt-4o-mini": "inf"}',
    "CALLER_MAX_PARALLEL": "10",
    "TOKEN_RATE_LIMIT": "60/second",
    "STORE_URL": "rediss://user:password@redis.example.com:6380/1",
    "STORE_FAILURE": "Closed",
    "STORE_TIMEOUT": "0.5",
    "USAGE_FILE": "used.json",
    "CACHE_CHAT_COMPLETION": "true",
    "CACHE_EMBEDDINGS": "true",
    "CACHE_BACKEND": "LMDB",
    "CACHE_URL": "lmdb:///var/lib/chat-api",
    "CACHE_TTL": "600.5",
    "CACHE_MAX_BYTES": "1048576",
    "CACHE_SHARED": "on",
    "COALESCE": "1",
    "ENDPOINT": f"{AZURE}/",
    "DEPLOYMENT_NAME": "my-gpt",
    "API_VERSION": "2025-04-01-preview",
    "KEY": "0123456789abcdef",
    "MODEL_MAPPER": "gpt-4o=east,gpt-4o-mini=small",
    "UNKNOWN_MODEL": "Reject",
    "MODEL_FALLBACK": "gpt-4o=gpt-4o-mini,gpt-4o-mini=west",
    "CONFIG_FILE": "config.yaml",
    "MAX_ATTEMPTS": "1",
    "RETRY_WAIT": "1.5",
    "HEDGE_AFTER": "10",
    "UPSTREAM": "azure",
    "OPENAI_BASE_URL": "https://api.openai.com/v1,http://127.0.0.1:8000",
    "OPENAI_ROUTE_PREFIX": "/openai,vllm/",
    "OPENAI_API_KEY": "sk-1,sk-2",
    "EXTRA_BASE_URL": "http://127.0.0.1:8001",
    "EXTRA_ROUTE_PREFIX": "/localai",
    "UPSTREAM_PROXY": "127.0.0.1:3128",
    "UPSTREAM_SOCKS_PROXY": "socks5://user:password@127.0.0.1:1080",
    "temperature": "0.5",
    "top_p": "1",
    "n": "128",
    "stream": "true",
    "stop": "END",
    "max_tokens": "1",
    "presence_penalty": "-2",
    "frequency_penalty": "2",
    "user": "somebody",
    "CONNECT_TIMEOUT": "0.5",
    "FIRST_BYTE_TIMEOUT": "60",
    "MAX_CONNECTIONS": "20",
    "IDLE_TIMEOUT": "30",
    "PING_INTERVAL": "0",
    "COMPAT_CHUNKS": "true",
    "HEADERS_TIMEOUT": "1",
    "BODY_TIMEOUT": "2",
    "READER_TIMEOUT": "3.5",
    "DRAIN_WAIT": "2.5",
    "DRAIN_TIMEOUT": "0",
    "MAX_BODY_BYTES": "1",
    "MAX_UPLOAD_BYTES": "2",
    "LOG_LEVEL": "DEBUG",
    "LOG_CHAT": "Meta",
    "LOG_DIR": "conversations",
    "LOG_MAX_FILE_BYTES": "1",
    "LOG_KEEP_DAYS": "30",
}  # LISTEN stands in the place of HOST and HTTP_PORT, and has a test of its own


def test_every_setting_is_read(read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting reaches its field, in its type."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cert.pem").touch()
    (tmp_path / "key.pem").touch()
    (tmp_path / "config.yaml").write_text("deployments: [{name: west}]")
    keys = (Secret("sk-1"), Secret("sk-2"))
    socks = Secret("socks5://user:password@127.0.0.1:1080")

    assert read(**GOOD_VALUES) == Settings(
        host="::1",
        http_port=0,
        enable_ssl=True,
        https_port=65535,
        ssl_cert=Path("cert.pem"),
        ssl_key=Path("key.pem"),
        client_keys=(unnamed_key("client-1"), unnamed_key("client-2")),
        operator_key=Secret("operator-1"),
        allow_anonymous=True,
        allow_ips=(ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1")),
        deny_ips=(ipaddress.ip_network("10.0.0.7"),),
        forwarded_allow_ips=("10.0.0.1", "10.1.0.0/16"),
        cors_origins=("https://chat.example.com",),
        req_rate_limit={"/v1/chat/completions": (Rate(100, 120),), "/v1/gpt/chat": ()},
        global_rate_limit=(Rate(60, 60), Rate(600, 3600)),
        rate_limit_strategy="moving-window",
        caller_token_limit=(Rate(100000, 60), Rate(2000000, 86400)),
        model_token_limit={"gpt-4o": (Rate(500000, 60),)},
        caller_max_parallel=10,
        token_rate_limit={"*": Rate(60, 1)},
        store_url=Secret("rediss://user:password@redis.example.com:6380/1"),
        store_failure="closed",
        store_timeout=0.5,
        usage_file=Path("used.json"),
        cache_chat_completion=True,
        cache_embeddings=True,
        cache_backend="lmdb",
        cache_url=Path("/var/lib/chat-api"),
        cache_ttl=600.5,
        cache_max_bytes=1048576,
        cache_shared=True,
        coalesce=True,
        endpoints=(Endpoint(AZURE, "my-gpt", "2025-04-01-preview"),),
        deployment_name="my-gpt",
        api_version="2025-04-01-preview",
        keys=(Secret("0123456789abcdef"),),
        model_mapper=(("gpt-4o", "east"), ("gpt-4o-mini", "small")),
        unknown_model="reject",
        fallbacks={"gpt-4o": "gpt-4o-mini", "gpt-4o-mini": "west"},
        config_file=Path("config.yaml"),
        config=Config((ConfiguredDeployment("west", ("west",)),)),
        max_attempts=1,
        retry_wait=1.5,
        hedge_after=10.0,
        openai=(Server("https://api.openai.com", "/openai", keys), Server("http://127.0.0.1:8000", "/vllm", keys)),
        extra=(Server("http://127.0.0.1:8001", "/localai"),),
        upstream="azure",
        proxies=Proxies(socks, socks),
        defaults={
            "temperature": 0.5,
            "top_p": 1.0,
            "n": 128,
            "stream": True,
            "stop": "END",
            "max_tokens": 1,
            "presence_penalty": -2.0,
            "frequency_penalty": 2.0,
            "user": "somebody",
        },
        connect_timeout=0.5,
        first_byte_timeout=60.0,
        max_connections=20,
        idle_timeout=30.0,
        ping_interval=0.0,
        compat_chunks=True,
        headers_timeout=1.0,
        body_timeout=2.0,
        reader_timeout=3.5,
        drain_wait=2.5,
        drain_timeout=0,
        max_body_bytes=1,
        max_upload_bytes=2,
        log_level="debug",
        log_chat="meta",
        log_dir=Path("conversations"),
        log_max_file_bytes=1,
        log_keep_days=30,
        warnings=("USAGE_FILE is not used: usage is kept in the store",),
    )


def test_every_setting_has_a_good_value() -> None:
    """The table of good values has every setting."""
    assert [row.name for row in TABLE if row.name != "LISTEN"] == list(GOOD_VALUES)


@pytest.mark.parametrize("blank", [pytest.param("", id="empty"), pytest.param(" \t", id="spaces")])
def test_blank_is_unset(read: Read, blank: str) -> None:
    """A blank value is as good as none: every setting keeps its default."""
    names = [name for row in TABLE for name in (row.name, *row.aliases)]
    from_environ = read(**dict.fromkeys(names, blank))
    from_file = read("".join(f"{name}={blank}\n" for name in names))
    assert from_file.warnings == ()
    assert from_environ == from_file
    assert (from_environ.host, from_environ.http_port, from_environ.defaults) == ("127.0.0.1", 8080, {})
    assert from_environ == read()


@pytest.mark.parametrize(
    ("environ", "port"),
    [
        pytest.param({}, 9001, id="file"),
        pytest.param({"HTTP_PORT": "9002"}, 9002, id="environment-beats-file"),
        pytest.param({"HTTP_PORT": ""}, 9001, id="empty-falls-through"),
        pytest.param({"HTTP_PORT": "  "}, 9001, id="blank-falls-through"),
    ],
)
def test_environment_and_file(read: Read, environ: dict[str, str], port: int) -> None:
    """The environment beats the file, unless it is blank."""
    assert read("HTTP_PORT=9001\n", **environ).http_port == port


@pytest.mark.parametrize(
    ("text", "key"),
    [
        pytest.param("KEY=abc\n", "abc", id="plain"),
        pytest.param("\ufeffKEY=abc\n", "abc", id="byte-order-mark"),
        pytest.param("KEY=abc\r\nstop=END\r\n", "abc", id="crlf"),
        pytest.param("export KEY=abc", "abc", id="export"),
        pytest.param("KEY = 'a#b'  # a remark\n", "a#b", id="quotes-and-remark"),
        pytest.param("# KEY=abc\n", None, id="remark"),
        pytest.param("KEY\n", None, id="no-equals-sign"),
    ],
)
def test_file_forms(read: Read, text: str, key: str | None) -> None:
    """The `.env` file may have the forms that editors and shells leave in it."""
    assert read(text).keys == (() if key is None else (Secret(key),))


def test_file_leaves_the_process_alone(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a mapping the process's own environment is read, and the file's values stay out of it."""
    monkeypatch.setenv("DEPLOYMENT_NAME", "from-process")
    assert load(env_file=Path("does-not-exist")).deployment_name == "from-process"
    assert read("DEPLOYMENT_NAME=from-file").deployment_name == "from-file"
    assert load(env_file=Path("does-not-exist")).deployment_name == "from-process"


PORT = "a port number from 0 to 65535 (0 takes a free one)"
PEM = "the path of a readable PEM file"
SECONDS = "a number of seconds above 0"
FROM_0 = "a number of seconds from 0"
BYTES = "a whole number of bytes from 1"
LISTEN = "an address and port such as 0.0.0.0:8080 or :8080"
NETWORKS = "IP addresses and networks such as 10.0.0.0/8, separated by commas"
ORIGINS = "origins such as https://chat.example.com, separated by commas, * for any, or none"
RATES = "limits such as 60/minute;600/hour, or inf"
ROUTE_RATES = 'JSON of paths and limits such as {"/v1/chat/completions": "100/2minutes", "/v1/gpt/chat": "inf"}'
MODEL_RATES = 'JSON of models and limits such as {"gpt-4o": "500000/minute"}'
PACES = 'one rate such as 60/second, or JSON of paths and rates such as {"/v1/chat/completions": "60/second"}'
STRATEGY = "fixed-window or fixed-window-elastic-expiry or moving-window or sliding-window-counter"
PAIRS = "pairs of model=deployment, separated by commas"
PREFIXES = "path prefixes such as /localai, separated by commas"
URLS = "http(s) URLs without user name or password, separated by commas"
BAD_VALUES = [
    pytest.param("HTTP_PORT", "65536", PORT, id="HTTP_PORT-large"),
    pytest.param("HTTP_PORT", "-1", PORT, id="HTTP_PORT-negative"),
    pytest.param("HTTP_PORT", "80.0", PORT, id="HTTP_PORT-fraction"),
    pytest.param("ENABLE_SSL", "perhaps", "true or false", id="ENABLE_SSL"),
    pytest.param("HTTPS_PORT", "https", PORT, id="HTTPS_PORT"),
    pytest.param("SSL_CERT", "/does/not/exist.pem", PEM, id="SSL_CERT-missing"),
    pytest.param("SSL_KEY", "/", PEM, id="SSL_KEY-directory"),
    pytest.param("LISTEN", "8080", LISTEN, id="LISTEN"),
    pytest.param("ALLOW_ANONYMOUS", "2", "true or false", id="ALLOW_ANONYMOUS"),
    pytest.param("ALLOW_IPS", "10.0.0.0/33", NETWORKS, id="ALLOW_IPS"),
    pytest.param("DENY_IPS", "example.com", NETWORKS, id="DENY_IPS"),
    pytest.param("FORWARDED_ALLOW_IPS", "nginx", f"{NETWORKS}, or * for any", id="FORWARDED_ALLOW_IPS"),
    pytest.param("CORS_ORIGINS", "chat.example.com", ORIGINS, id="CORS_ORIGINS"),
    pytest.param("REQ_RATE_LIMIT", "60/minute", ROUTE_RATES, id="REQ_RATE_LIMIT"),
    pytest.param("GLOBAL_RATE_LIMIT", "60/fortnight", RATES, id="GLOBAL_RATE_LIMIT"),
    pytest.param("RATE_LIMIT_STRATEGY", "token-bucket", STRATEGY, id="RATE_LIMIT_STRATEGY"),
    pytest.param("CALLER_TOKEN_LIMIT", "100000", RATES, id="CALLER_TOKEN_LIMIT"),
    pytest.param("MODEL_TOKEN_LIMIT", '{"gpt-4o": 500000}', MODEL_RATES, id="MODEL_TOKEN_LIMIT"),
    pytest.param("CALLER_MAX_PARALLEL", "0", "a whole number from 1", id="CALLER_MAX_PARALLEL"),
    pytest.param("TOKEN_RATE_LIMIT", "60/second;600/minute", PACES, id="TOKEN_RATE_LIMIT"),
    pytest.param("STORE_FAILURE", "ignore", "open or closed", id="STORE_FAILURE"),
    pytest.param("STORE_TIMEOUT", "0", SECONDS, id="STORE_TIMEOUT"),
    pytest.param("USAGE_FILE", "/does/not/exist.json", "the path of a file that can be written, or none", id="USAGE"),
    pytest.param("CACHE_CHAT_COMPLETION", "maybe", "true or false", id="CACHE_CHAT_COMPLETION"),
    pytest.param("CACHE_EMBEDDINGS", "maybe", "true or false", id="CACHE_EMBEDDINGS"),
    pytest.param("CACHE_BACKEND", "disk", "memory or lmdb or redis", id="CACHE_BACKEND"),
    pytest.param("CACHE_TTL", "0", SECONDS, id="CACHE_TTL"),
    pytest.param("CACHE_MAX_BYTES", "1048575", "a whole number of bytes from 1048576", id="CACHE_MAX_BYTES"),
    pytest.param("CACHE_SHARED", "maybe", "true or false", id="CACHE_SHARED"),
    pytest.param("COALESCE", "maybe", "true or false", id="COALESCE"),
    pytest.param(
        "ENDPOINT",
        "my-resource",
        "http(s) URLs such as https://my-resource.openai.azure.com, without user name or password, separated by commas",
        id="ENDPOINT",
    ),
    pytest.param("DEPLOYMENT_NAME", "..", "the name of a deployment", id="DEPLOYMENT_NAME"),
    pytest.param("API_VERSION", "latest", "a date such as 2024-10-21 or 2025-04-01-preview, or v1", id="API_VERSION"),
    pytest.param("MODEL_MAPPER", "gpt-4o", PAIRS, id="MODEL_MAPPER"),
    pytest.param("UNKNOWN_MODEL", "ignore", "pass or default or reject", id="UNKNOWN_MODEL"),
    pytest.param("MODEL_FALLBACK", "gpt-4o", "pairs of model=model, separated by commas", id="MODEL_FALLBACK"),
    pytest.param("MAX_ATTEMPTS", "0", "a whole number from 1", id="MAX_ATTEMPTS"),
    pytest.param("RETRY_WAIT", "-1", FROM_0, id="RETRY_WAIT"),
    pytest.param("RETRY_WAIT", "inf", FROM_0, id="RETRY_WAIT-infinite"),
    pytest.param("HEDGE_AFTER", "1s", FROM_0, id="HEDGE_AFTER"),
    pytest.param("DRAIN_WAIT", "-0.1", FROM_0, id="DRAIN_WAIT"),
    pytest.param("CONFIG_FILE", "/does/not/exist.yaml", "the path of a readable YAML file", id="CONFIG_FILE"),
    pytest.param("UPSTREAM", "anthropic", "azure or openai", id="UPSTREAM"),
    pytest.param("OPENAI_BASE_URL", "ftp://a.example.com", URLS, id="OPENAI_BASE_URL"),
    pytest.param("OPENAI_ROUTE_PREFIX", "/a b", PREFIXES, id="OPENAI_ROUTE_PREFIX"),
    pytest.param("EXTRA_BASE_URL", "localai", URLS, id="EXTRA_BASE_URL"),
    pytest.param("EXTRA_ROUTE_PREFIX", "/../x", PREFIXES, id="EXTRA_ROUTE_PREFIX"),
    pytest.param("temperature", "2.1", "a number from 0 to 2", id="temperature-large"),
    pytest.param("temperature", "nan", "a number from 0 to 2", id="temperature-nan"),
    pytest.param("temperature", "hot", "a number from 0 to 2", id="temperature-word"),
    pytest.param("top_p", "-0.1", "a number from 0 to 1", id="top_p"),
    pytest.param("n", "0", "a whole number from 1 to 128", id="n-small"),
    pytest.param("n", "129", "a whole number from 1 to 128", id="n-large"),
    pytest.param("stream", "maybe", "true or false", id="stream"),
    pytest.param("stop", "[1]", "text, or a JSON array of up to 4 texts", id="stop-number"),
    pytest.param("stop", "[]", "text, or a JSON array of up to 4 texts", id="stop-none"),
    pytest.param("stop", '["a","b","c","d","e"]', "text, or a JSON array of up to 4 texts", id="stop-five"),
    pytest.param("stop", '["a"', "text, or a JSON array of up to 4 texts", id="stop-not-json"),
    pytest.param("max_tokens", "0", "a whole number from 1", id="max_tokens"),
    pytest.param("presence_penalty", "2.5", "a number from -2 to 2", id="presence_penalty"),
    pytest.param("frequency_penalty", "-3", "a number from -2 to 2", id="frequency_penalty"),
    pytest.param("CONNECT_TIMEOUT", "0", SECONDS, id="CONNECT_TIMEOUT-zero"),
    pytest.param("CONNECT_TIMEOUT", "inf", SECONDS, id="CONNECT_TIMEOUT-infinite"),
    pytest.param("FIRST_BYTE_TIMEOUT", "-1", SECONDS, id="FIRST_BYTE_TIMEOUT"),
    pytest.param("MAX_CONNECTIONS", "0", "a whole number from 1", id="MAX_CONNECTIONS"),
    pytest.param("IDLE_TIMEOUT", "10s", SECONDS, id="IDLE_TIMEOUT"),
    pytest.param("PING_INTERVAL", "-1", "a number of seconds, 0 for never", id="PING_INTERVAL"),
    pytest.param("COMPAT_CHUNKS", "maybe", "true or false", id="COMPAT_CHUNKS"),
    pytest.param("HEADERS_TIMEOUT", "0", SECONDS, id="HEADERS_TIMEOUT"),
    pytest.param("BODY_TIMEOUT", "nan", SECONDS, id="BODY_TIMEOUT"),
    pytest.param("READER_TIMEOUT", "-5", SECONDS, id="READER_TIMEOUT"),
    pytest.param("DRAIN_TIMEOUT", "1.5", "a whole number of seconds from 0", id="DRAIN_TIMEOUT"),
    pytest.param("MAX_BODY_BYTES", "32MB", BYTES, id="MAX_BODY_BYTES"),
    pytest.param("MAX_UPLOAD_BYTES", "0", BYTES, id="MAX_UPLOAD_BYTES"),
    pytest.param("LOG_LEVEL", "loud", "debug or info or warning or error or critical", id="LOG_LEVEL"),
    pytest.param("LOG_CHAT", "words", "false or true or meta", id="LOG_CHAT"),
    pytest.param("LOG_DIR", "/dev/null", "the path of a folder that can be written", id="LOG_DIR"),
    pytest.param("LOG_MAX_FILE_BYTES", "0", BYTES, id="LOG_MAX_FILE_BYTES"),
    pytest.param("LOG_KEEP_DAYS", "-1", "a whole number of days from 0 to 36500 (0 keeps them for ever)", id="KEEP"),
]


@pytest.mark.parametrize(("name", "value", "accepts"), BAD_VALUES)
@pytest.mark.parametrize("source", ["environment", "file"])
def test_bad_value(problems: Problems, source: str, name: str, value: str, accepts: str) -> None:
    """A value that cannot be used is reported with the setting's name, what it is and what it takes."""
    found = problems(**{name: value}) if source == "environment" else problems(f"{name}='{value}'\n")
    assert len(found) == 1
    assert found[0].startswith(f'{name} is "{value}"')
    assert found[0].endswith(f"; it takes {accepts}")


def test_every_checked_setting_has_a_bad_value() -> None:
    """The table of bad values has every setting but those that take any text, and secrets, which have their own."""
    tried = {str(param.values[0]) for param in (*BAD_VALUES, *BAD_SECRETS)}
    assert {row.name for row in TABLE} - tried == {"HOST", "user"}  # HOST has a test of its own


def test_all_problems_at_once(read: Read, tmp_path: Path) -> None:
    """One message lists every problem, and says where to mend them."""
    with pytest.raises(SettingsError) as caught:
        read("HTTPS_PORT=x\n", HTTP_PORT="70000", ENABLE_SSL="true", SSL_KEY="/nowhere.pem", temperature="3")
    assert str(caught.value) == (
        "5 settings need attention:\n"
        '  HTTP_PORT is "70000"; it takes a port number from 0 to 65535 (0 takes a free one)\n'
        '  HTTPS_PORT is "x"; it takes a port number from 0 to 65535 (0 takes a free one)\n'
        '  SSL_KEY is "/nowhere.pem" (no readable file at /nowhere.pem); it takes the path of a readable PEM file\n'
        '  temperature is "3"; it takes a number from 0 to 2\n'
        "  SSL_CERT is not set; with ENABLE_SSL=true it takes the path of a readable PEM file\n"
        f"Set them in the environment or in {tmp_path / '.env'}; sample.env explains every setting."
    )


def test_one_problem_is_singular(read: Read) -> None:
    """A lone problem is announced as one."""
    with pytest.raises(SettingsError, match=r"^One setting needs attention:\n  n is "):
        read(n="0")


SPACE = "a space at position 7"
NOT_VISIBLE = "a character that is not visible ASCII at position"
NO_STORE = "no URL that begins with redis://, rediss:// or unix://"
BAD_SECRETS = [
    pytest.param("KEY", "SECRET with space", SPACE, id="space"),
    pytest.param("KEY", "SECRET\tkey", SPACE, id="tab"),
    pytest.param("KEY", "SECRET\nkey", SPACE, id="line-feed"),
    pytest.param("KEY", "SECRET-ключ", f"{NOT_VISIBLE} 8", id="not-ascii"),
    pytest.param("KEY", "SECRET\x7f", f"{NOT_VISIBLE} 7", id="delete"),
    pytest.param("KEY", "https://SECRET.com", "it is a URL; are ENDPOINT and KEY swapped?", id="swapped"),
    pytest.param("CLIENT_KEYS", "a,SECRET key", SPACE, id="client-key-with-space"),
    pytest.param("CLIENT_KEYS", " , ,", "it lists nothing", id="no-client-key"),
    pytest.param("OPERATOR_KEY", "SECRET key", SPACE, id="operator-key-with-space"),
    pytest.param("OPENAI_API_KEY", "a,SECRET\u00e9", f"{NOT_VISIBLE} 7", id="openai-key"),
    pytest.param("OPENAI_API_KEY", '{"SECRET":0}', "it is JSON", id="openai-key-json"),
    pytest.param(
        "STORE_URL",
        "http://user:SECRET@redis",
        "no URL that begins with redis://, rediss:// or unix://",
        id="store-scheme",
    ),
    pytest.param("STORE_URL", "redis://user:SECRET@redis:port", "its host or its port is none", id="store-port"),
    pytest.param(
        "CACHE_URL",
        "http://user:SECRET@redis",
        "no URL that begins with redis://, rediss:// or unix://",
        id="cache-scheme",
    ),
    pytest.param("CACHE_URL", "redis://user:SECRET@redis:port", "its host or its port is none", id="cache-port"),
    pytest.param("CACHE_URL", "lmdb://SECRET", "it names no folder; lmdb:///var/lib/chat-api does", id="cache-folder"),
    pytest.param("UPSTREAM_PROXY", "ftp://user:SECRET@proxy", "no URL of a proxy", id="proxy-scheme"),
    pytest.param("UPSTREAM_PROXY", "http://user:SECRET@proxy:port", "its port is no port", id="proxy-port"),
    pytest.param("UPSTREAM_PROXY", "http://user:SEC/RET@proxy:1", "its port is no port", id="proxy-slash"),
    pytest.param("UPSTREAM_PROXY", "http://user:12#SECRET@proxy:1", "no URL of a proxy", id="proxy-hash"),
    pytest.param("UPSTREAM_SOCKS_PROXY", "socks5://user:SECRET@proxy", "it names no port", id="socks-without-port"),
]


@pytest.mark.parametrize(("name", "value", "reason"), BAD_SECRETS)
def test_bad_secret_is_not_repeated(problems: Problems, name: str, value: str, reason: str) -> None:
    """A secret that cannot be used is refused without a word of it."""
    accepts = next(row.accepts for row in TABLE if row.name == name)
    assert problems(**{name: value}) == (f"{name} cannot be used ({reason}); it takes {accepts}",)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("ENDPOINT", "https://user:SECRET\u2100@r.openai.azure.com", id="endpoint-not-normal"),
        pytest.param("ENDPOINT", "https://user:[SECRET]@r.openai.azure.com", id="endpoint-brackets"),
        pytest.param("UPSTREAM_PROXY", "http://user:SECRET\u2100@proxy:1", id="proxy-not-normal"),
        pytest.param("UPSTREAM_PROXY", "http://user:[SECRET]@proxy:1", id="proxy-brackets"),
        pytest.param("HTTP_PROXY", "http://user:[SECRET]@proxy:1", id="environment-proxy-brackets"),
        pytest.param("OPENAI_BASE_URL", "https://a.example.com,https://u:SECRET@b.example.com", id="server-password"),
        pytest.param("EXTRA_BASE_URL", "https://a.example.com?key=SECRET", id="server-query"),
        pytest.param("CORS_ORIGINS", "https://user:SECRET@chat.example.com/x", id="origin"),
    ],
)
def test_password_in_a_url_is_not_repeated(problems: Problems, name: str, value: str) -> None:
    """What Python says of a URL quotes it; what is told of it does not."""
    found = problems(**{name: value})
    assert found[0].startswith(f"{name} ")
    assert "SECRET" not in str(found)


@pytest.mark.parametrize(
    "endpoint",
    [
        pytest.param("https://user:SECRET@r.openai.azure.com", id="password"),
        pytest.param("https://SECRET@r.openai.azure.com", id="user"),
        pytest.param("https://user:SECR@SECRET@r.openai.azure.com", id="password-with-at-sign"),
        pytest.param("https://user:SECRET@r.openai.azure.com:99999", id="password-and-bad-port"),
        pytest.param("wss://user:SECRET@r.openai.azure.com", id="password-in-wss"),
        pytest.param("https://my-resource?api-key=SECRET", id="query"),
        pytest.param("https://r.openai.azure.com:x?api-key=SECRET", id="query-and-bad-port"),
        pytest.param("https://r openai.azure.com/?api-key=SECRET&x=1", id="query-and-space"),
        pytest.param("user:SECRET@r.openai.azure.com", id="password-without-scheme"),
        pytest.param("https://user:x/SECRET@r.openai.azure.com", id="password-with-slash"),
        pytest.param("https://user:SECRET/x@r.openai.azure.com", id="password-before-slash"),
        pytest.param("https://user:SECRET#x@r.openai.azure.com", id="password-with-hash"),
        pytest.param("https://user:SECRET?x@r.openai.azure.com", id="password-with-question-mark"),
        pytest.param(f"{AZURE}?api-version=2024-10-21;api-key=SECRET", id="query-as-version"),
        pytest.param("https://my-resource?a=1\nSECRET", id="query-of-two-lines"),
    ],
)
def test_bad_endpoint_hides_password_and_query(problems: Problems, endpoint: str) -> None:
    """What is wrong with ENDPOINT is said without the password and the query that it holds."""
    found = problems(ENDPOINT=endpoint)
    assert found[0].startswith("ENDPOINT is ")
    assert "SECR" not in found[0]


@pytest.mark.parametrize(
    ("environ", "is_fine"),
    [
        pytest.param({"HOST": "0.0.0.0"}, False, id="emulator"),
        pytest.param({"HOST": "0.0.0.0", "KEY": "k"}, False, id="emulator-and-key"),
        pytest.param({"HOST": "0.0.0.0", "KEY": "k", "ENDPOINT": AZURE}, False, id="key"),
        pytest.param({"HOST": "::", "KEY": "k", "ENDPOINT": AZURE}, False, id="ipv6"),
        pytest.param({"HOST": "192.0.2.1", "KEY": "k", "ENDPOINT": AZURE}, False, id="address"),
        pytest.param({"HOST": "gateway.example.com", "KEY": "k", "ENDPOINT": AZURE}, False, id="name"),
        pytest.param({"HOST": "127.0.0.1.example.com", "KEY": "k", "ENDPOINT": AZURE}, False, id="looks-like-loopback"),
        pytest.param({"HOST": "0.0.0.0", "OPENAI_API_KEY": "k"}, False, id="openai-key"),
        pytest.param({"HOST": "0.0.0.0", "ENDPOINT": AZURE}, True, id="callers-bring-keys"),
        pytest.param({"HOST": "0.0.0.0", "OPENAI_BASE_URL": "http://a.example.com"}, True, id="callers-bring-openais"),
        pytest.param({"HOST": "0.0.0.0", "ENDPOINT": AZURE, "KEY": "k", "CLIENT_KEYS": "c"}, True, id="client-keys"),
        pytest.param({"HOST": "0.0.0.0", "CLIENT_KEYS": "c"}, True, id="emulator-with-client-keys"),
        pytest.param({"HOST": "0.0.0.0", "ALLOW_ANONYMOUS": "true"}, True, id="emulator-for-all"),
        pytest.param(
            {"HOST": "0.0.0.0", "ALLOW_ANONYMOUS": "true", "KEY": "k", "ENDPOINT": AZURE}, True, id="key-for-all"
        ),
        pytest.param({"HOST": "127.0.0.1", "KEY": "k", "ENDPOINT": AZURE}, True, id="loopback"),
        pytest.param({"HOST": "127.9.9.9", "KEY": "k", "ENDPOINT": AZURE}, True, id="loopback-network"),
        pytest.param({"HOST": "::1", "KEY": "k", "ENDPOINT": AZURE}, True, id="ipv6-loopback"),
        pytest.param({"HOST": "[::1]", "KEY": "k", "ENDPOINT": AZURE}, True, id="ipv6-loopback-in-brackets"),
        pytest.param({"HOST": "LocalHost", "KEY": "k", "ENDPOINT": AZURE}, True, id="localhost"),
    ],
)
def test_who_may_use_the_key(read: Read, environ: dict[str, str], is_fine: bool) -> None:
    """A server that lends its key, or the emulator, listens beyond loopback only if ALLOW_ANONYMOUS insists."""
    if is_fine:
        assert read(**environ).host == environ["HOST"]
        return
    with pytest.raises(SettingsError) as caught:
        read(**environ)
    assert caught.value.problems == (
        f'HOST is "{environ["HOST"]}", so the network could use the server\'s key without a key of its own; '
        "it takes 127.0.0.1, or set CLIENT_KEYS to ask callers for one, or ALLOW_ANONYMOUS=true to insist",
    )


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        pytest.param({"ALLOW_ANONYMOUS": "maybe"}, "ALLOW_ANONYMOUS", id="allow-anonymous"),
        pytest.param({"ENDPOINT": "my-resource"}, "ENDPOINT", id="endpoint"),
        pytest.param({"AZURE_OPENAI_ENDPOINT": "my-resource"}, "AZURE_OPENAI_ENDPOINT", id="endpoint-alias"),
        pytest.param({"ENDPOINT": AZURE, "KEY": "k", "CLIENT_KEYS": "a b"}, "CLIENT_KEYS", id="client-keys"),
        pytest.param({"ENDPOINT": AZURE, "KEY": "k", "FORWARD_KEY": "a b"}, "FORWARD_KEY", id="client-keys-alias"),
        pytest.param({"OPENAI_API_KEY": "a b"}, "OPENAI_API_KEY", id="openai-key"),
        pytest.param({"OPENAI_BASE_URL": "x"}, "OPENAI_BASE_URL", id="openai-url"),
        pytest.param({"UPSTREAM": "x"}, "UPSTREAM", id="upstream"),
        pytest.param({"CONFIG_FILE": "/none.yaml"}, "CONFIG_FILE", id="config-file"),
        pytest.param({"CONFIG_FILE": __file__}, "CONFIG_FILE", id="config-file-unusable"),
        pytest.param(
            {"ENDPOINT": AZURE, "OPENAI_BASE_URL": "http://a.example.com", "OPENAI_ROUTE_PREFIX": "/a b"},
            "OPENAI_ROUTE_PREFIX",
            id="prefix",
        ),
    ],
)
def test_no_problem_that_follows_from_another(problems: Problems, environ: dict[str, str], name: str) -> None:
    """A refused value is the only problem: nothing is concluded from its absence."""
    found = problems(HOST="0.0.0.0", **environ)
    assert [problem.partition(" ")[0] for problem in found] == [name]


@pytest.mark.parametrize(
    ("environ", "lends_key", "guards_loopback"),
    [
        pytest.param({}, True, True, id="emulator"),
        pytest.param({"ENDPOINT": AZURE}, False, False, id="callers-bring-keys"),
        pytest.param({"ENDPOINT": AZURE, "KEY": "k"}, True, True, id="key"),
        pytest.param({"ENDPOINT": AZURE, "KEY": "k", "ALLOW_ANONYMOUS": "true"}, True, False, id="key-for-all"),
        pytest.param({"ENDPOINT": AZURE, "KEY": "k", "CLIENT_KEYS": "c"}, False, False, id="client-keys"),
        pytest.param({"CLIENT_KEYS": "c"}, False, False, id="emulator-with-client-keys"),
        pytest.param({"OPENAI_API_KEY": "k"}, True, True, id="openai-key"),
        pytest.param({"OPENAI_BASE_URL": "http://a.example.com"}, False, False, id="openai-without-key"),
        pytest.param({"UPSTREAM": "openai", "KEY": "k"}, False, False, id="key-that-is-not-used"),
        pytest.param(
            {
                "ENDPOINT": AZURE,
                "OPENAI_BASE_URL": "http://a.example.com",
                "OPENAI_ROUTE_PREFIX": "/a",
                "OPENAI_API_KEY": "k",
            },
            True,
            True,
            id="key-of-a-further-server",
        ),
    ],
)
def test_lent_key(read: Read, environ: dict[str, str], lends_key: bool, guards_loopback: bool) -> None:
    """A key of the server's own is guarded by the loopback rule, unless ALLOW_ANONYMOUS lifts it."""
    settings = read(**environ)
    assert (settings.lends_key, settings.guards_loopback) == (lends_key, guards_loopback)


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        pytest.param((), ("SSL_CERT", "SSL_KEY"), id="neither"),
        pytest.param(("SSL_CERT",), ("SSL_KEY",), id="certificate"),
        pytest.param(("SSL_KEY",), ("SSL_CERT",), id="key"),
    ],
)
def test_ssl_needs_both_files(
    problems: Problems, tmp_path: Path, given: tuple[str, ...], missing: tuple[str, ...]
) -> None:
    """ENABLE_SSL needs SSL_CERT and SSL_KEY, and names the one that is not there."""
    pem = tmp_path / "file.pem"
    pem.touch()
    found = problems(ENABLE_SSL="true", **dict.fromkeys(given, str(pem)))
    assert found == tuple(
        f"{name} is not set; with ENABLE_SSL=true it takes the path of a readable PEM file" for name in missing
    )


def test_port(read: Read, tmp_path: Path) -> None:
    """The port is HTTP_PORT, or HTTPS_PORT with ENABLE_SSL."""
    pem = tmp_path / "file.pem"
    pem.touch()
    ports = {"HTTP_PORT": "8001", "HTTPS_PORT": "8002"}
    assert read(**ports).port == 8001
    assert read(**ports, ENABLE_SSL="true", SSL_CERT=str(pem), SSL_KEY=str(pem)).port == 8002


@pytest.mark.parametrize(
    ("environ", "deployment", "version"),
    [
        pytest.param({"ENDPOINT": AZURE}, None, "2024-10-21", id="neither"),
        pytest.param({"ENDPOINT": DEPLOYMENT_URL}, "d", "2024-06-01", id="from-url"),
        pytest.param({"ENDPOINT": DEPLOYMENT_URL, "DEPLOYMENT_NAME": "x"}, "x", "2024-06-01", id="own-deployment"),
        pytest.param({"ENDPOINT": DEPLOYMENT_URL, "API_VERSION": "v1"}, "d", "v1", id="own-version"),
        pytest.param(
            {"ENDPOINT": DEPLOYMENT_URL, "DEPLOYMENT_NAME": " ", "API_VERSION": ""}, "d", "2024-06-01", id="blank"
        ),
        pytest.param({"ENDPOINT": f"{AZURE}/openai/v1/"}, None, "v1", id="v1-url"),
        pytest.param({"DEPLOYMENT_NAME": "x", "API_VERSION": "v1"}, "x", "v1", id="emulator"),
    ],
)
def test_deployment_and_version(read: Read, environ: dict[str, str], deployment: str | None, version: str) -> None:
    """Deployment and version come from their settings, else from ENDPOINT's URL, else there is the default version."""
    settings = read(**environ)
    assert (settings.deployment_name, settings.api_version) == (deployment, version)


WEST = "https://west.openai.azure.com"
WEST_URL = f"{WEST}/openai/deployments/w/chat/completions?api-version=2025-04-01-preview"


@pytest.mark.parametrize(
    ("environ", "endpoints"),
    [
        pytest.param({}, ((AZURE, None, "2024-10-21"), (WEST, None, "2024-10-21")), id="neither"),
        pytest.param(
            {"ENDPOINT": f"{DEPLOYMENT_URL},{WEST_URL}"},
            ((AZURE, "d", "2024-06-01"), (WEST, "w", "2025-04-01-preview")),
            id="each-its-own",
        ),
        pytest.param(
            {"ENDPOINT": f"{DEPLOYMENT_URL},{WEST_URL}", "DEPLOYMENT_NAME": "x", "API_VERSION": "v1"},
            ((AZURE, "x", "v1"), (WEST, "x", "v1")),
            id="settings-win-for-all",
        ),
        pytest.param(
            {"ENDPOINT": f"{DEPLOYMENT_URL},{WEST}"},
            ((AZURE, "d", "2024-06-01"), (WEST, "d", "2024-06-01")),
            id="said-by-the-first",
        ),
        pytest.param(
            {"ENDPOINT": f"{AZURE},{WEST_URL}"},
            ((AZURE, "w", "2025-04-01-preview"), (WEST, "w", "2025-04-01-preview")),
            id="said-by-the-second",
        ),
        pytest.param(
            {"ENDPOINT": f"{AZURE}/openai/v1,{WEST_URL}"},
            ((AZURE, "w", "v1"), (WEST, "w", "2025-04-01-preview")),
            id="said-by-one-each",
        ),
    ],
)
def test_several_endpoints(
    read: Read, environ: dict[str, str], endpoints: tuple[tuple[str, str | None, str], ...]
) -> None:
    """Each endpoint has its URL's deployment and version; what it leaves out another says, and the settings win."""
    settings = read(**{"ENDPOINT": f"{AZURE}, {WEST}", **environ})
    assert settings.endpoints == tuple(Endpoint(*endpoint) for endpoint in endpoints)
    assert settings.endpoint == settings.endpoints[0]
    assert settings.upstream_urls["ENDPOINT"] == [AZURE, WEST]
    assert settings.upstream == "azure"


@pytest.mark.parametrize(
    ("keys", "expected", "lends_key"),
    [
        pytest.param("", (), False, id="callers-own"),
        pytest.param("k", (Secret("k"),), True, id="one-for-all"),
        pytest.param("k1, k2", (Secret("k1"), Secret("k2")), True, id="one-each"),
        pytest.param("k,k", (Secret("k"), Secret("k")), True, id="one-each-alike"),
    ],
)
def test_keys_of_several_endpoints(read: Read, keys: str, expected: tuple[Secret, ...], lends_key: bool) -> None:
    """Several endpoints have a key each, one for all of them, or the callers' own."""
    settings = read(ENDPOINT=f"{AZURE},{WEST}", KEY=keys)
    assert (settings.keys, settings.lends_key) == (expected, lends_key)


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        pytest.param({"ENDPOINT": AZURE, "KEY": "S1,S2"}, "KEY has 2 keys and ENDPOINT has 1 URL;", id="one-endpoint"),
        pytest.param(
            {"ENDPOINT": f"{AZURE},{WEST}", "KEY": "S1,S2,S3"}, "KEY has 3 keys and ENDPOINT has 2 URLs;", id="too-many"
        ),
        pytest.param(
            {"ENDPOINT": f"{AZURE},{WEST},https://n.example.com", "KEY": "S1,S2"},
            "KEY has 2 keys and ENDPOINT has 3 URLs;",
            id="too-few",
        ),
        pytest.param({"KEY": "S1,S2"}, "KEY has 2 keys and ENDPOINT has 0 URLs;", id="no-endpoint"),
        pytest.param(
            {"AZURE_OPENAI_ENDPOINT": AZURE, "AZURE_OPENAI_API_KEY": "S1,S2"},
            "AZURE_OPENAI_API_KEY has 2 keys and AZURE_OPENAI_ENDPOINT has 1 URL;",
            id="other-names",
        ),
    ],
)
def test_keys_that_belong_to_no_endpoint(problems: Problems, environ: dict[str, str], problem: str) -> None:
    """Other numbers of keys are refused with both names and both numbers."""
    assert problems(**environ) == (f"{problem} it takes one key for all of them, or one for each",)


def test_same_endpoint_twice(problems: Problems) -> None:
    """A resource that is listed twice is a slip, or two deployments of one, for which there is the config file."""
    (problem,) = problems(ENDPOINT=f"{AZURE},{WEST},{AZURE}/")
    assert problem.startswith(f'ENDPOINT is "{AZURE},{WEST},{AZURE}/" (URL 3 is a resource that it lists already); it')


def test_every_endpoint_is_looked_at(problems: Problems, read: Read) -> None:
    """This server itself, and a key that travels unencrypted, are found at any place of the list."""
    (problem,) = problems(ENDPOINT=f"{AZURE},http://localhost:8080")
    assert problem.startswith("ENDPOINT is this server itself, at port 8080")
    warnings = read(ENDPOINT=f"{AZURE},http://a.example.com", DEPLOYMENT_NAME="d", KEY="k").warnings
    assert warnings == (f"a.example.com of {UNENCRYPTED}",)


def test_several_endpoints_without_a_key(read: Read) -> None:
    """A caller's own key belongs to one resource: with several of them that is worth a word."""
    (warning,) = read(ENDPOINT=f"{AZURE},{WEST}", DEPLOYMENT_NAME="d").warnings
    assert warning.startswith("ENDPOINT lists several resources and KEY is not set")


@pytest.mark.parametrize(
    ("file", "environ", "warnings"),
    [
        pytest.param("", {}, (), id="emulator"),
        pytest.param("", {"ENDPOINT": AZURE, "DEPLOYMENT_NAME": "d", "KEY": "k"}, (), id="all-is-well"),
        pytest.param("", {"ENDPOINT": DEPLOYMENT_URL}, (), id="deployment-in-url"),
        pytest.param("", {"ENDPOINT": AZURE}, (NO_DEPLOYMENT,), id="no-deployment"),
        pytest.param("", {"ENDPOINT": "http://a.example.com", "DEPLOYMENT_NAME": "d"}, (UNENCRYPTED,), id="http"),
        pytest.param(
            "", {"ENDPOINT": "http://localhost.example.com", "DEPLOYMENT_NAME": "d"}, (UNENCRYPTED,), id="not-localhost"
        ),
        pytest.param("", {"ENDPOINT": "http://localhost:8090", "DEPLOYMENT_NAME": "d"}, (), id="http-localhost"),
        pytest.param("", {"ENDPOINT": "http://127.0.0.1:8090", "DEPLOYMENT_NAME": "d"}, (), id="http-loopback"),
        pytest.param("", {"ENDPOINT": "http://[::1]:8090", "DEPLOYMENT_NAME": "d"}, (), id="http-ipv6-loopback"),
        pytest.param(
            "",
            {"HOST": "0.0.0.0", "ENDPOINT": AZURE, "DEPLOYMENT_NAME": "d", "KEY": "k", "ALLOW_ANONYMOUS": "true"},
            (ANONYMOUS,),
            id="anonymous",
        ),
        pytest.param(
            "",
            {"ENDPOINT": AZURE, "DEPLOYMENT_NAME": "d", "KEY": "k", "ALLOW_ANONYMOUS": "true"},
            (),
            id="anonymous-on-loopback",
        ),
        pytest.param(
            "ENDPIONT=x\n",
            {},
            ("ENDPIONT in the .env file is not a setting; did you mean ENDPOINT?",),
            id="typo",
        ),
        pytest.param(
            "temprature=1\n",
            {},
            ("temprature in the .env file is not a setting; did you mean temperature?",),
            id="typo-in-default",
        ),
        pytest.param("SOMETHING_ELSE=1\n", {}, (), id="other-programs-variable"),
        pytest.param("", {"ENDPIONT": "x"}, (), id="typo-in-environment"),
    ],
)
def test_warnings(read: Read, file: str, environ: dict[str, str], warnings: tuple[str, ...]) -> None:
    """What stops nothing, but is worth saying, is a warning."""
    assert read(file, **environ).warnings == warnings


@pytest.mark.parametrize(
    ("file", "environ", "defaults"),
    [
        pytest.param("", {"USER": "root"}, {}, id="environment"),
        pytest.param("USER=root\n", {}, {}, id="file"),
        pytest.param("", {"USER": "root", "user": "alice"}, {"user": "alice"}, id="both"),
    ],
)
def test_login_name_is_not_a_default(
    read: Read, file: str, environ: dict[str, str], defaults: dict[str, object]
) -> None:
    """The shell's USER is not the parameter `user`."""
    assert read(file, **environ).defaults == defaults


@pytest.mark.parametrize(
    ("text", "stop"),
    [
        pytest.param("END", "END", id="text"),
        pytest.param("a,b", "a,b", id="text-with-comma"),
        pytest.param('["END"]', ["END"], id="array"),
        pytest.param('["a", "b\\n", "c", "d"]', ["a", "b\n", "c", "d"], id="four"),
    ],
)
def test_stop(read: Read, text: str, stop: object) -> None:
    """`stop` is text, or a JSON array of texts."""
    assert read(stop=text).defaults["stop"] == stop
    assert read(f"stop='{text}'\n").defaults["stop"] == stop


@pytest.mark.parametrize(
    ("text", "stream"),
    [
        *(pytest.param(text, True, id=text) for text in ("true", "TRUE", "1", "yes", "on")),
        *(pytest.param(text, False, id=text) for text in ("false", "False", "0", "no", "off")),
    ],
)
def test_flags(read: Read, text: str, stream: bool) -> None:
    """A flag is spelt as people spell it; one that is off is still a default."""
    assert read(stream=text).defaults == {"stream": stream}


def test_zero_is_a_default(read: Read) -> None:
    """A default of zero is not the same as none."""
    assert read(temperature="0").defaults == {"temperature": 0.0}


def test_settings_are_frozen(read: Read) -> None:
    """Nothing in the settings can be changed after they were read."""
    settings = read(temperature="1")
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.host = "0.0.0.0"  # type: ignore[misc]
    defaults: Any = settings.defaults
    with pytest.raises(TypeError):
        defaults["temperature"] = 2


def test_repr_hides_the_key(read: Read) -> None:
    """The key appears neither in the settings' text nor in the secret's own; `reveal` gives it."""
    settings = read(KEY="SECRET")
    (key,) = settings.keys
    assert "SECRET" not in f"{settings} {settings!r} {key} {key!r}"
    assert key.reveal() == "SECRET"


def test_file_that_is_not_utf_8(read: Read) -> None:
    """A `.env` file in another encoding is a problem with the settings, not a crash."""
    with pytest.raises(SettingsError):
        read("KEY=clé\n".encode("latin-1"))


def test_file_that_is_a_directory(tmp_path: Path) -> None:
    """A directory named `.env`, as Docker makes for a missing mount, is a problem with the settings, not a crash."""
    with pytest.raises(SettingsError):
        load({}, tmp_path)


@pytest.fixture
def entry(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The top-level module `app`, imported afresh where reading the settings is an error."""

    def load(*_: object, **__: object) -> Settings:
        raise AssertionError("the settings were read")

    monkeypatch.setattr("chat_api.settings.load", load)
    monkeypatch.delitem(sys.modules, "app", raising=False)
    return importlib.import_module("app")


def test_import_reads_no_settings(entry: ModuleType) -> None:
    """Importing `app` reads no settings; asking for its `app` does."""
    with pytest.raises(AssertionError, match="the settings were read"):
        entry.app  # noqa: B018


def test_app_is_built_from_the_settings(entry: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """`app.app` is what `create_app` makes of the settings that were read."""
    settings = load({"ENDPOINT": "https://x.openai.azure.com"}, Path("/none/.env"))
    monkeypatch.setattr("chat_api.loading.load_or_exit", lambda: settings)
    monkeypatch.setattr("chat_api.app.create_app", lambda settings: ("application", settings))
    assert entry.app == ("application", settings)


@pytest.mark.parametrize(("number", "is_warned"), [("4", True), ("1", False), ("many", False), ("", False)])
def test_processes_of_another_server_are_warned_of(
    entry: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: str,
    is_warned: bool,
) -> None:
    """uvicorn and gunicorn start as many processes as WEB_CONCURRENCY says: limits of each alone are told."""
    settings = load({"GLOBAL_RATE_LIMIT": "60/minute"}, Path("/none/.env"))
    monkeypatch.setattr("chat_api.loading.load_or_exit", lambda: settings)
    monkeypatch.setattr("chat_api.app.create_app", lambda settings: settings)
    monkeypatch.setenv("WEB_CONCURRENCY", number)

    assert entry.app is settings
    assert ("4 processes serve" in capsys.readouterr().err) is is_warned


def test_entry_has_no_other_attribute(entry: ModuleType) -> None:
    """Any other attribute is an AttributeError, as of any module."""
    with pytest.raises(AttributeError, match="module 'app' has no attribute 'application'"):
        entry.application  # noqa: B018


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param('ENDPOINT="https://x.openai.azure.com\nKEY=SECRET\n', 1, id="open-quote"),
        pytest.param("KEY=SECRET\nENDPOINT: https://x.openai.azure.com\n", 2, id="yaml"),
    ],
)
def test_line_of_the_file_that_is_no_setting_is_told(tmp_path: Path, text: str, line: int) -> None:
    """A broken line would leave its setting out, and the emulator would answer in Azure's place."""
    (tmp_path / ".env").write_text(text)
    with pytest.raises(SettingsError) as caught:
        load({}, tmp_path / ".env")
    assert f"{tmp_path / '.env'} line {line} is not NAME=value" in str(caught.value)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("name", ["KEY", "DEPLOYMENT_NAME"])
def test_azure_settings_without_an_endpoint_are_warned_of(name: str) -> None:
    """What only Azure needs is set, but the emulator would answer: that is said."""
    (warning,) = load({name: "x"}, Path("/none/.env")).warnings
    assert warning == f"{name} is set but ENDPOINT is not: the built-in emulator answers, not Azure"


@pytest.mark.parametrize("host", ["http://localhost", "127.0.0.1:8080", "a b", "localhost/"])
def test_host_that_is_none_is_no_invitation_to_open_the_server(host: str) -> None:
    """A slip in HOST is told as what it is, not answered with ALLOW_ANONYMOUS."""
    with pytest.raises(SettingsError) as caught:
        load({"HOST": host}, Path("/none/.env"))
    assert caught.value.problems == (
        f'HOST is "{host}" (no host name and no address); it takes an address or host name, without scheme or port',
    )


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "[::1]", "127.0.0.2"])
def test_loopback_hosts(host: str) -> None:
    """Every name of this machine itself will do."""
    assert load({"HOST": host}, Path("/none/.env")).host == host


def test_quotes_around_a_value_are_taken_off() -> None:
    """docker --env-file hands quotes on."""
    assert load({"HTTP_PORT": '"8403"', "HOST": "'localhost'"}, Path("/none/.env")).http_port == 8403


def test_key_in_the_place_of_the_endpoint_is_not_shown() -> None:
    """ENDPOINT and KEY swapped: neither message repeats the key."""
    with pytest.raises(SettingsError) as caught:
        load({"ENDPOINT": "0123456789abcdef0123456789abcdef", "KEY": "https://x.openai.azure.com"}, Path("/none/.env"))
    assert "0123456789abcdef" not in str(caught.value)
    assert "swapped" in str(caught.value)


ALIASES = {alias: row for row in TABLE for alias in row.aliases}
OTHER_VALUES = {
    "LISTEN": ("127.0.0.1:9001", "127.0.0.1:9002"),
    "CLIENT_KEYS": ("client-1", "client-2"),
    "ALLOW_IPS": ("10.0.0.1", "10.0.0.2"),
    "DENY_IPS": ("10.0.0.1", "10.0.0.2"),
    "CACHE_CHAT_COMPLETION": ("true", "false"),
    "CACHE_EMBEDDINGS": ("true", "false"),
    "ENDPOINT": (AZURE, "https://s.openai.azure.com"),
    "API_VERSION": ("2024-06-01", "2024-02-01"),
    "KEY": ("key-1", "key-2"),
    "MODEL_MAPPER": ("gpt-4o=east", "gpt-4o=west"),
    "UPSTREAM": ("openai", "azure"),
    "OPENAI_ROUTE_PREFIX": ("/one", "/two"),
    "UPSTREAM_PROXY": ("http://127.0.0.1:1", "http://127.0.0.1:2"),
    "UPSTREAM_SOCKS_PROXY": ("socks5://127.0.0.1:1", "socks5://127.0.0.1:2"),
}
# What makes every value above count for something, and keeps the defaults of other gateways out.
AROUND = {
    "HOST": "127.0.0.1",
    "HTTP_PORT": "8080",
    "CLIENT_KEYS": "c",
    "OPENAI_BASE_URL": "http://127.0.0.1:8000",
    "UPSTREAM": "openai",
    "MODEL_MAPPER": "gpt-4=x",
    "RETRY_WAIT": "0",
}


def around(name: str) -> dict[str, str]:
    """The settings beside the one that is tried."""
    unless = {name, "OPENAI_BASE_URL"} if name == "UPSTREAM" else {name}
    return {other: value for other, value in AROUND.items() if other not in unless}


@pytest.mark.parametrize("source", ["environment", "file"])
@pytest.mark.parametrize("alias", ALIASES)
def test_alias_sets_its_setting(read: Read, source: str, alias: str) -> None:
    """A setting may be given under the name that another gateway has for it."""
    row = ALIASES[alias]
    value, _ = OTHER_VALUES[row.name]
    other = around(row.name)
    own = read("", **other, **{row.name: value})
    under_alias = read(**other, **{alias: value}) if source == "environment" else read(f"{alias}={value}\n", **other)

    assert replace(under_alias, warnings=()) == replace(own, warnings=())
    assert own != read("", **other)


@pytest.mark.parametrize("alias", ALIASES)
def test_two_names_with_different_values_contradict(problems: Problems, alias: str) -> None:
    """A setting that is given twice, differently, is an error that names both; the values are not told."""
    row = ALIASES[alias]
    one, other = OTHER_VALUES[row.name]

    assert problems(f"{alias}={other}\n", **around(row.name), **{row.name: one}) == (
        f"{row.name} and {alias} are the same setting with different values; keep one of them",
    )


@pytest.mark.parametrize("alias", ALIASES)
def test_two_names_with_the_same_value_are_fine(read: Read, alias: str) -> None:
    """A setting may be given twice, alike."""
    row = ALIASES[alias]
    value, _ = OTHER_VALUES[row.name]

    assert read(f"{alias}={value}\n", **around(row.name), **{row.name: value})


@pytest.mark.parametrize("alias", ALIASES)
def test_environment_beats_file_under_an_alias(read: Read, alias: str) -> None:
    """The environment beats the file for other names as well."""
    row = ALIASES[alias]
    one, other = OTHER_VALUES[row.name]
    in_environment = {**around(row.name), alias: one}

    assert read(f"{alias}={other}\n", **in_environment) == read("", **in_environment)


@pytest.mark.parametrize(
    ("alias", "value", "shown"),
    [
        pytest.param("AZURE_OPENAI_ENDPOINT", "x", 'is "x" (', id="endpoint"),
        pytest.param("AZURE_OPENAI_APIVERSION", "latest", 'is "latest" (', id="api-version"),
        pytest.param("AZURE_OPENAI_PROXY_ADDRESS", "localhost", 'is "localhost" (', id="address"),
        pytest.param("AZURE_OPENAI_PROXY_MODE", "Bing", 'is "Bing" (', id="mode"),
        pytest.param("IP_WHITELIST", "here", 'is "here" (', id="addresses"),
        pytest.param("AZURE_OPENAI_TOKEN", "a b", "cannot be used (a space at position 2)", id="key"),
        pytest.param("PROXY", "ftp://x", "cannot be used (no URL of a proxy)", id="proxy"),
    ],
)
def test_problem_names_the_name_that_was_used(problems: Problems, alias: str, value: str, shown: str) -> None:
    """Nobody is told of a setting that they did not write."""
    (problem,) = problems(HOST="127.0.0.1", **{alias: value})
    assert problem.startswith(f"{alias} {shown}")


@pytest.mark.parametrize(
    ("listen", "host", "port"),
    [
        pytest.param("127.0.0.1:9000", "127.0.0.1", 9000, id="both"),
        pytest.param(":9000", "0.0.0.0", 9000, id="port-only"),
        pytest.param("[::1]:0", "[::1]", 0, id="ipv6"),
        pytest.param("localhost:9000", "localhost", 9000, id="name"),
    ],
)
def test_listen_is_host_and_port(read: Read, listen: str, host: str, port: int) -> None:
    """LISTEN says in one what HOST and HTTP_PORT say in two, and wins over them."""
    settings = read(LISTEN=listen, ENDPOINT=AZURE, HOST="192.0.2.1", HTTP_PORT="1")
    assert (settings.host, settings.port) == (host, port)


def test_listen_beyond_loopback_is_a_problem_with_listen(problems: Problems) -> None:
    """A key is no more offered to the network by LISTEN than by HOST."""
    (problem,) = problems(LISTEN=":9000", ENDPOINT=AZURE, KEY="k")
    assert problem.startswith('LISTEN is "0.0.0.0", so the network could use the server\'s key')


@pytest.mark.parametrize(
    ("environ", "origins"),
    [
        pytest.param({}, (), id="emulator"),
        pytest.param({"ENDPOINT": AZURE}, ("*",), id="callers-bring-keys"),
        pytest.param({"OPENAI_BASE_URL": "http://a.example.com"}, ("*",), id="callers-bring-openais"),
        pytest.param({"ENDPOINT": AZURE, "KEY": "k"}, (), id="key-is-lent"),
        pytest.param({"ENDPOINT": AZURE, "KEY": "k", "CLIENT_KEYS": "c"}, (), id="client-keys"),
        pytest.param({"ENDPOINT": AZURE, "CORS_ORIGINS": "none"}, (), id="none"),
        pytest.param({"ENDPOINT": AZURE, "CORS_ORIGINS": "http://a"}, ("http://a",), id="one"),
        pytest.param({"ENDPOINT": AZURE, "KEY": "k", "CORS_ORIGINS": "*"}, ("*",), id="any"),
    ],
)
def test_pages_of_any_origin_may_call_only_with_their_own_key(
    read: Read, environ: dict[str, str], origins: tuple[str, ...]
) -> None:
    """Without CORS_ORIGINS every page may call where it can use only a key that it has itself."""
    assert read(**environ).cors_origins == origins


OPENAI = "https://api.openai.com"
LOCAL = "http://127.0.0.1:8000"


@pytest.mark.parametrize(
    ("environ", "upstream", "roots"),
    [
        pytest.param({}, "emulator", (), id="none"),
        pytest.param({"KEY": "k"}, "emulator", (), id="key-only"),
        pytest.param({"UPSTREAM": "azure"}, "emulator", (), id="azure-without-endpoint"),
        pytest.param({"ENDPOINT": AZURE}, "azure", (), id="endpoint"),
        pytest.param({"ENDPOINT": AZURE, "OPENAI_API_KEY": "k"}, "azure", (), id="endpoint-beats-openai-key"),
        pytest.param({"OPENAI_API_KEY": "k"}, "openai", (OPENAI,), id="openai-key"),
        pytest.param({"OPENAI_BASE_URL": f"{LOCAL}/v1/"}, "openai", (LOCAL,), id="openai-url"),
        pytest.param({"UPSTREAM": "OpenAI"}, "openai", (OPENAI,), id="openai-by-name"),
        pytest.param({"UPSTREAM": "openai", "ENDPOINT": AZURE}, "openai", (OPENAI,), id="openai-despite-endpoint"),
        pytest.param(
            {"ENDPOINT": AZURE, "OPENAI_BASE_URL": LOCAL, "OPENAI_ROUTE_PREFIX": "/local"}, "azure", (LOCAL,), id="both"
        ),
    ],
)
def test_who_answers(read: Read, environ: dict[str, str], upstream: str, roots: tuple[str, ...]) -> None:
    """Azure answers where an ENDPOINT is set, OpenAI where its URL or key is, else the emulator."""
    settings = read(**environ)
    assert (settings.upstream, tuple(server.root for server in settings.openai)) == (upstream, roots)


@pytest.mark.parametrize(
    ("environ", "prefixes"),
    [
        pytest.param({"OPENAI_BASE_URL": LOCAL}, [""], id="one-without-prefix"),
        pytest.param({"OPENAI_BASE_URL": LOCAL, "OPENAI_ROUTE_PREFIX": "/"}, [""], id="one-at-the-root"),
        pytest.param({"OPENAI_BASE_URL": LOCAL, "OPENAI_ROUTE_PREFIX": "a/"}, ["/a"], id="one-with-prefix"),
        pytest.param({"OPENAI_API_KEY": "k", "OPENAI_ROUTE_PREFIX": "/a"}, ["/a"], id="openais-own-with-prefix"),
        pytest.param({"OPENAI_BASE_URL": f"{LOCAL},{OPENAI}", "OPENAI_ROUTE_PREFIX": "/,/o"}, ["", "/o"], id="two"),
        pytest.param({"OPENAI_ROUTE_PREFIX": "/a", "ENDPOINT": AZURE}, [], id="prefix-of-nothing"),
    ],
)
def test_prefixes_of_servers(read: Read, environ: dict[str, str], prefixes: list[str]) -> None:
    """Each server has the prefix that stands at its place in the list; a lone one needs none."""
    assert [server.prefix for server in read(HOST="127.0.0.1", **environ).openai] == prefixes


def test_further_servers_get_no_key_of_ours(read: Read) -> None:
    """The server's key is for the servers of OPENAI_BASE_URL only."""
    servers = {"OPENAI_BASE_URL": OPENAI, "EXTRA_BASE_URL": LOCAL, "EXTRA_ROUTE_PREFIX": "/tts"}
    settings = read(HOST="127.0.0.1", OPENAI_API_KEY="k", **servers)
    assert settings.openai == (Server(OPENAI, "", (Secret("k"),)),)
    assert settings.extra == (Server(LOCAL, "/tts", ()),)


TWICE = 'two upstreams have the path prefix "/a"; each takes one of its own'


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        pytest.param(
            {"OPENAI_BASE_URL": f"{LOCAL},{OPENAI}"},
            "OPENAI_ROUTE_PREFIX has 0 items and OPENAI_BASE_URL has 2; they are pairs",
            id="two-without-prefix",
        ),
        pytest.param(
            {"OPENAI_BASE_URL": LOCAL, "OPENAI_ROUTE_PREFIX": "/a,/b"},
            "OPENAI_ROUTE_PREFIX has 2 items and OPENAI_BASE_URL has 1; they are pairs",
            id="two-prefixes-for-one",
        ),
        pytest.param(
            {"OPENAI_API_KEY": "k", "OPENAI_ROUTE_PREFIX": "/a,/b"},
            "OPENAI_ROUTE_PREFIX has 2 items and OPENAI_BASE_URL has 0; they are pairs",
            id="two-prefixes-for-openais-own",
        ),
        pytest.param(
            {"EXTRA_BASE_URL": LOCAL},
            "EXTRA_ROUTE_PREFIX has 0 items and EXTRA_BASE_URL has 1; they are pairs",
            id="further-without-prefix",
        ),
        pytest.param(
            {"EXTRA_BASE_URL": LOCAL, "EXTRA_ROUTE_PREFIX": "/"},
            'EXTRA_ROUTE_PREFIX is "/", which the main upstream has; it takes a path prefix such as /localai',
            id="further-at-the-root",
        ),
        pytest.param({"OPENAI_BASE_URL": f"{LOCAL},{OPENAI}", "OPENAI_ROUTE_PREFIX": "/a,a/"}, TWICE, id="twice"),
        pytest.param(
            {
                "OPENAI_BASE_URL": LOCAL,
                "OPENAI_ROUTE_PREFIX": "/a",
                "EXTRA_BASE_URL": OPENAI,
                "EXTRA_ROUTE_PREFIX": "/a",
            },
            TWICE,
            id="twice-over-both-lists",
        ),
        pytest.param(
            {"OPENAI_BASE_URL": LOCAL, "OPENAI_ROUTE_PREFIX": "/v1"},
            'the path prefix "/v1" is this server\'s own; it takes another one',
            id="our-own-path",
        ),
    ],
)
def test_servers_that_have_no_place(problems: Problems, environ: dict[str, str], problem: str) -> None:
    """Every server has a path of its own; where it has none, one message says so."""
    assert problems(HOST="127.0.0.1", **environ) == (problem,)


def test_openai_base_url_beside_an_endpoint_is_not_used(read: Read) -> None:
    """What another program of the same shell reads does not stop the start; that it is not used is said."""
    settings = read(ENDPOINT=AZURE, OPENAI_BASE_URL=LOCAL, DEPLOYMENT_NAME="d")
    assert (settings.upstream, settings.openai) == ("azure", ())
    assert any("OPENAI_BASE_URL is not used" in warning for warning in settings.warnings)


@pytest.mark.parametrize(
    "environ",
    [
        pytest.param({"ENDPOINT": "http://localhost:8080"}, id="azure"),
        pytest.param({"OPENAI_BASE_URL": "http://127.0.0.1:8080/v1"}, id="openai"),
        pytest.param({"ENDPOINT": "http://[::1]:9000", "HTTP_PORT": "9000"}, id="another-port"),
        pytest.param({"EXTRA_BASE_URL": "http://127.0.0.1:8080", "EXTRA_ROUTE_PREFIX": "/a"}, id="extra"),
    ],
)
def test_gateway_to_itself_is_refused(problems: Problems, environ: dict[str, str]) -> None:
    """An upstream that is this very server would make a thousand calls of one."""
    (problem,) = problems(HOST="127.0.0.1", **environ)
    assert "is this server itself" in problem


HTTP = Secret("http://h:1")
HTTPS = Secret("http://s:2")
ALL = Secret("socks5://a:3")
SOCKS = Secret("socks5://u:p@k:4")


@pytest.mark.parametrize(
    ("environ", "proxies"),
    [
        pytest.param({"HTTP_PROXY": "http://h:1"}, Proxies(HTTP), id="http"),
        pytest.param({"https_proxy": "s:2"}, Proxies(None, HTTPS), id="https-lower-case"),
        pytest.param({"ALL_PROXY": "socks5://a:3"}, Proxies(ALL, ALL), id="all"),
        pytest.param({"all_proxy": "socks5://a:3", "HTTP_PROXY": "h:1"}, Proxies(HTTP, ALL), id="all-for-the-rest"),
        pytest.param({"http_proxy": "h:1", "HTTP_PROXY": "x:9"}, Proxies(HTTP), id="lower-case-wins"),
        pytest.param(
            {"HTTP_PROXY": "h:1", "HTTPS_PROXY": "s:2", "ALL_PROXY": "socks://a:3"},
            Proxies(HTTP, HTTPS),
            id="unusable-but-not-used",
        ),
        pytest.param({"NO_PROXY": "a.example.com"}, Proxies(bypass="a.example.com"), id="bypass"),
        pytest.param({"no_proxy": "a", "NO_PROXY": "b"}, Proxies(bypass="a"), id="bypass-lower-case-wins"),
        pytest.param({"UPSTREAM_PROXY": "h:1", "HTTPS_PROXY": "x:9"}, Proxies(HTTP, HTTP), id="own"),
        pytest.param({"UPSTREAM_PROXY": "h:1", "HTTPS_PROXY": "ftp://"}, Proxies(HTTP, HTTP), id="own-not-unusable"),
        pytest.param(
            {"UPSTREAM_PROXY": "h:1", "UPSTREAM_SOCKS_PROXY": "socks5://u:p@k:4"},
            Proxies(SOCKS, SOCKS),
            id="socks-wins",
        ),
        pytest.param({"HTTP_PROXY": " "}, Proxies(), id="blank"),
    ],
)
def test_proxies(read: Read, environ: dict[str, str], proxies: Proxies) -> None:
    """Requests go out through the proxy of the settings, else of the environment as curl reads it."""
    assert read(**environ).proxies == proxies
    assert read("".join(f"{name}={value}\n" for name, value in environ.items())).proxies == proxies


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        pytest.param({"HTTP_PROXY": "ftp://u:SECRET@x"}, ["HTTP_PROXY"], id="http"),
        pytest.param({"https_proxy": "http://u:SECRET@x:y"}, ["https_proxy"], id="https-lower-case"),
        pytest.param({"ALL_PROXY": "socks://u:SECRET@x:1"}, ["ALL_PROXY"], id="all"),
        pytest.param({"HTTP_PROXY": "ftp://", "HTTPS_PROXY": "ftp://"}, ["HTTP_PROXY", "HTTPS_PROXY"], id="both"),
    ],
)
def test_unusable_proxy_of_the_environment(problems: Problems, environ: dict[str, str], names: list[str]) -> None:
    """A proxy that cannot be used is an error that names its variable: to go out directly might leak."""
    found = problems(**environ)
    assert [problem.partition(" cannot be used (")[0] for problem in found] == names
    assert all(problem.endswith(f"; it takes {PROXY_FORM}") for problem in found)
    assert "SECRET" not in str(found)


@pytest.mark.parametrize(
    ("url", "bypass", "proxy"),
    [
        pytest.param("http://a.example.com/v1", "", HTTP, id="http"),
        pytest.param("https://a.example.com/v1", "", HTTPS, id="https"),
        pytest.param("https://a.example.com", "example.com", None, id="domain"),
        pytest.param("https://a.example.com", ".example.com", None, id="domain-with-dot"),
        pytest.param("https://example.com:8443/x", "a.org, example.com", None, id="one-of-several"),
        pytest.param("https://notexample.com", "example.com", HTTPS, id="other-domain"),
        pytest.param("https://A.Example.com", "a.example.COM", None, id="case"),
        pytest.param("http://127.0.0.1:8000", "localhost,127.0.0.1", None, id="address"),
        pytest.param("http://[::1]:8000", "::1", None, id="ipv6"),
        pytest.param("http://a.example.com", "*", None, id="all"),
    ],
)
def test_proxy_for(url: str, bypass: str, proxy: Secret | None) -> None:
    """A URL's scheme picks its proxy, and NO_PROXY lists the hosts that are asked directly."""
    assert proxy_for(url, Proxies(HTTP, HTTPS, bypass)) == proxy


def test_settings_hide_every_secret(read: Read) -> None:
    """No key and no proxy's password is in the settings' text."""
    names = ("KEY", "CLIENT_KEYS", "OPENAI_API_KEY")
    settings = read(
        **dict.fromkeys(names, "SECRET"),
        STORE_URL="redis://:SECRET@r",
        OPERATOR_KEY="SECRET-too",
        UPSTREAM_PROXY="http://u:SECRET@p:1",
        UPSTREAM="openai",
    )
    assert "SECRET" not in f"{settings} {settings!r}"


def test_other_names_are_not_taken_for_typos(read: Read) -> None:
    """Every alias is known, so that no other name is suggested for it."""
    names = "".join(f"{alias}={OTHER_VALUES[row.name][0]}\n" for alias, row in ALIASES.items() if alias != "PROXY")
    text = names.replace("AZURE_OPENAI_APIVERSION=2024-06-01\n", "").replace("AZURE_OPENAI_API_KEY=key-1\n", "")
    assert not [warning for warning in read(text).warnings if "did you mean" in warning]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("CLIENT_KEYS", "c,SECRET", id="client-key"),
        pytest.param("FORWARD_KEY", "SECRET", id="client-key-under-another-name"),
        pytest.param("KEY", "SECRET", id="key"),
        pytest.param("OPENAI_API_KEY", "o,SECRET", id="openai-key"),
    ],
)
def test_operators_key_is_theirs_alone(problems: Problems, name: str, value: str) -> None:
    """Who calls is no operator for it: a key that is another setting's as well is refused, and not told."""
    found = problems(HOST="127.0.0.1", ENDPOINT=AZURE, OPERATOR_KEY="SECRET", **{name: value})
    assert found == (f"OPERATOR_KEY is a key of {name} as well; it takes one that nobody else has",)


def test_operators_key_is_none_of_the_file(problems: Problems, tmp_path: Path) -> None:
    """A key of the config file is no key of operators either."""
    (tmp_path / "config.yaml").write_text(f"deployments: [{{name: a, endpoint: '{AZURE}', key: SECRET}}]")
    assert problems(OPERATOR_KEY="SECRET") == (
        "OPERATOR_KEY is a key of CONFIG_FILE as well; it takes one that nobody else has",
    )


def test_operators_key_lends_nothing(read: Read) -> None:
    """With a key for operators alone callers are asked for none of this server's."""
    assert read(OPERATOR_KEY="o").lends_key
    assert not read(ENDPOINT=AZURE, OPERATOR_KEY="o").lends_key


FILE = "fallbacks of the config file"
LEADS_BACK = "goes in a circle; it takes a model that does not lead back"


@pytest.mark.parametrize(
    ("file", "setting", "fallbacks"),
    [
        pytest.param("{a: b, b: c}", "", {"a": "b", "b": "c"}, id="file"),
        pytest.param("{}", "a=b,c=b", {"a": "b", "c": "b"}, id="setting"),
        pytest.param("{a: b}", "c=d", {"a": "b", "c": "d"}, id="both"),
        pytest.param("{a: b}", "a=b", {"a": "b"}, id="alike"),
    ],
)
def test_fallbacks(read: Read, tmp_path: Path, file: str, setting: str, fallbacks: dict[str, str]) -> None:
    """Fallbacks of the setting and of the config file are one table."""
    (tmp_path / "c.yaml").write_text(f"{{deployments: [{{name: x}}], fallbacks: {file}}}")
    settings = read(ENDPOINT=AZURE, CONFIG_FILE=str(tmp_path / "c.yaml"), MODEL_FALLBACK=setting)
    assert settings.fallbacks == fallbacks


def test_file_of_fallbacks_alone(read: Read, tmp_path: Path) -> None:
    """A config file may have fallbacks and nothing else."""
    (tmp_path / "c.yaml").write_text("fallbacks: {a: b}")
    settings = read(ENDPOINT=AZURE, CONFIG_FILE=str(tmp_path / "c.yaml"))
    assert (settings.upstream, settings.fallbacks) == ("azure", {"a": "b"})


def test_file_that_says_nothing_is_refused(problems: Problems, tmp_path: Path) -> None:
    """A config file that is named, and has neither deployments nor fallbacks, is not the one that was meant."""
    (tmp_path / "c.yaml").write_text("api_base: /v1")
    (problem,) = problems(ENDPOINT=AZURE, CONFIG_FILE=str(tmp_path / "c.yaml"))
    assert problem.endswith("c.yaml: it has no deployments; config.example.yaml shows some")


@pytest.mark.parametrize(
    ("file", "setting", "expected"),
    [
        pytest.param("{}", "a=a", (f"MODEL_FALLBACK: a=a {LEADS_BACK}",), id="itself"),
        pytest.param("{}", "a=b,b=c,c=a", (f"MODEL_FALLBACK: a=b, b=c, c=a {LEADS_BACK}",), id="circle"),
        pytest.param("{}", "x=a,a=b,b=a", (f"MODEL_FALLBACK: a=b, b=a {LEADS_BACK}",), id="way-into-a-circle"),
        pytest.param(
            "{}",
            "a=a,b=c,c=b",
            (f"MODEL_FALLBACK: a=a {LEADS_BACK}", f"MODEL_FALLBACK: b=c, c=b {LEADS_BACK}"),
            id="two-circles",
        ),
        pytest.param("{a: a}", "", (f"{FILE}: a=a {LEADS_BACK}",), id="itself-in-the-file"),
        pytest.param("{a: b}", "b=a", (f"MODEL_FALLBACK: a=b, b=a {LEADS_BACK}",), id="circle-of-both"),
        pytest.param(
            "{a: b, c: d}",
            "a=x,c=d",
            ("MODEL_FALLBACK has a=x and the config file's fallbacks have a: b; keep one of them",),
            id="contradiction",
        ),
    ],
)
def test_fallbacks_that_lead_nowhere(
    problems: Problems, tmp_path: Path, file: str, setting: str, expected: tuple[str, ...]
) -> None:
    """A model that falls back on itself, or on two others, is told with the pairs that say so."""
    (tmp_path / "c.yaml").write_text(f"{{deployments: [{{name: x}}], fallbacks: {file}}}")
    given = {"ENDPOINT": AZURE, "CONFIG_FILE": str(tmp_path / "c.yaml"), "MODEL_FALLBACK": setting}
    assert problems(**given) == expected


@pytest.mark.parametrize(
    ("environ", "model"),
    [
        pytest.param({"MODEL_FALLBACK": "m=nowhere"}, "nowhere", id="fallback"),
        pytest.param({"MODEL_FALLBACK": "nowhere=m"}, "nowhere", id="model"),
        pytest.param({"MODEL_FALLBACK": "m=n,n=m2,m2=east,east=w"}, None, id="all-are-served"),
        pytest.param({"MODEL_FALLBACK": "m=d", "DEPLOYMENT_NAME": "d"}, None, id="default"),
        pytest.param({"MODEL_FALLBACK": "m=nowhere", "UNKNOWN_MODEL": "pass"}, None, id="pass"),
        pytest.param({"MODEL_FALLBACK": "m=nowhere", "UNKNOWN_MODEL": "default"}, None, id="default-for-all"),
    ],
)
def test_fallbacks_are_served(
    read: Read, problems: Problems, tmp_path: Path, environ: dict[str, str], model: str | None
) -> None:
    """Where only the table is served, a fallback is from one of its models to another."""
    (tmp_path / "c.yaml").write_text("deployments: [{name: east, models: [m, n]}]")
    given = {"ENDPOINT": AZURE, "CONFIG_FILE": str(tmp_path / "c.yaml"), "MODEL_MAPPER": "m2=w"}
    given |= {"UNKNOWN_MODEL": "reject", **environ}
    if model is None:
        assert read(**given).fallbacks
        return
    (problem,) = problems(**given)
    assert problem == (
        f'MODEL_FALLBACK: model "{model}" is served nowhere, and UNKNOWN_MODEL is reject; it takes m, n, east, m2, w'
    )


def test_fallback_of_the_file_that_is_served_nowhere(problems: Problems, tmp_path: Path) -> None:
    """A fallback of the config file is told as the file's."""
    (tmp_path / "c.yaml").write_text("{deployments: [{name: a}], fallbacks: {a: b}}")
    given = {"ENDPOINT": AZURE, "CONFIG_FILE": str(tmp_path / "c.yaml"), "UNKNOWN_MODEL": "reject"}
    assert problems(**given) == (f'{FILE}: model "b" is served nowhere, and UNKNOWN_MODEL is reject; it takes a',)


def test_emulators_models_are_its_own(read: Read) -> None:
    """Which models the emulator serves the settings do not know: any will do."""
    assert read(MODEL_FALLBACK="gpt-4o=gpt-4o-mini", UNKNOWN_MODEL="reject").fallbacks == {"gpt-4o": "gpt-4o-mini"}
