"""What contradicts among keys and limits, what of them is worth a warning, and what people are told of them."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from chat_api.callers import digest_of, unnamed_key
from chat_api.limit_words import limits_line, lone_counting, process_count
from chat_api.settings import Settings, SettingsError, load

AZURE = "https://r.openai.azure.com"
DIGEST = digest_of("sk-1").hex()
PRICES = "prices: {gpt-4o: {prompt: 1, completion: 1}}"
DEPLOYMENTS = "deployments: [{name: east, models: [gpt-4o, gpt-4], endpoint: 'https://east.openai.azure.com'}]"

Read = Callable[..., Settings]


def key(more: str = "", name: str = "alice", digest: str = DIGEST) -> str:
    """The config file's section of one client key."""
    return f"client_keys: [{{name: {name}, sha256: {digest}{', ' if more else ''}{more}}}]\n"


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads settings from keyword arguments as the environment, and from a config file."""

    def read(config: str = "", /, **environ: str) -> Settings:
        (tmp_path / "config.yaml").write_text(config)
        return load(environ, tmp_path / ".env")

    return read


@pytest.mark.parametrize(
    ("config", "environ", "problem"),
    [
        pytest.param(
            key(),
            {"CLIENT_KEYS": "a,sk-1"},
            f"CLIENT_KEYS has a key ({unnamed_key('sk-1').name}) that is alice's in the config file; keep one of them",
            id="in-both",
        ),
        pytest.param(
            key(name=unnamed_key("sk-2").name),
            {"CLIENT_KEYS": "sk-2"},
            f"client key {unnamed_key('sk-2').name} of the config file has the name of one of CLIENT_KEYS; rename it",
            id="same-name",
        ),
        pytest.param(
            key(),
            {"OPERATOR_KEY": "sk-1"},
            "OPERATOR_KEY is a key of CONFIG_FILE as well; it takes one that nobody else has",
            id="operators",
        ),
    ],
)
def test_keys_that_contradict(read: Read, config: str, environ: dict[str, str], problem: str) -> None:
    """A key has one name and one set of limits, and callers are no operators; no message has a key."""
    with pytest.raises(SettingsError) as caught:
        read(config, **environ)
    assert caught.value.problems == (problem,)


SERVED = {"ENDPOINT": AZURE, "DEPLOYMENT_NAME": "d", "KEY": "k"}
NOWHERE = "which is served nowhere, and UNKNOWN_MODEL is reject"


@pytest.mark.parametrize(
    ("config", "environ", "warning"),
    [
        pytest.param("", {"STORE_FAILURE": "closed"}, "STORE_FAILURE is not used: STORE_URL is not set", id="failure"),
        pytest.param("", {"STORE_TIMEOUT": "1"}, "STORE_TIMEOUT is not used: STORE_URL is not set", id="timeout"),
        pytest.param("", {"STORE_FAILURE": "open", "STORE_TIMEOUT": "0.25"}, None, id="defaults"),
        pytest.param("", {"STORE_FAILURE": "closed", "STORE_TIMEOUT": "1", "STORE_URL": "redis://r"}, None, id="store"),
        pytest.param(
            "",
            {"STORE_URL": "redis://r", "USAGE_FILE": "usage.json"},
            "USAGE_FILE is not used: usage is kept in the store",
            id="usage-file",
        ),
        pytest.param("", {"USAGE_FILE": "none"}, None, id="no-usage-file"),
        pytest.param(
            "",
            {"FORWARDED_ALLOW_IPS": "*", "DENY_IPS": "10.0.0.1"},
            "FORWARDED_ALLOW_IPS is *: whoever reaches this port can say that it calls from any address",
            id="anybody-is-believed",
        ),
        pytest.param(
            key("addresses: [10.0.0.1]"),
            {"FORWARDED_ALLOW_IPS": "*"},
            "FORWARDED_ALLOW_IPS is *: whoever reaches this port can say that it calls from any address",
            id="anybody-is-believed-for-a-key",
        ),
        pytest.param("", {"FORWARDED_ALLOW_IPS": "*"}, None, id="nobody-asks-for-addresses"),
        pytest.param("", {"FORWARDED_ALLOW_IPS": "10.0.0.1", "ALLOW_IPS": "10.0.0.2"}, None, id="one-is-believed"),
        pytest.param("", {"REQ_RATE_LIMIT": '{"/v1/chat/completions": "1/day"}'}, None, id="route"),
        pytest.param("", {"REQ_RATE_LIMIT": '{"/v1/gpt/chat/": "1/day"}'}, None, id="route-of-the-simple-chat"),
        pytest.param("", {"REQ_RATE_LIMIT": '{"/v1/files": "1/day", "/v1/threads": "inf"}'}, None, id="routes"),
        pytest.param("", {"TOKEN_RATE_LIMIT": "60/second"}, None, id="pace-of-all"),
        pytest.param(
            "",
            {"REQ_RATE_LIMIT": '{"/v1/chat/completion": "1/day"}'},
            "REQ_RATE_LIMIT: no calls are served at /v1/chat/completion; did you mean /v1/chat/completions?",
            id="route-misspelt",
        ),
        pytest.param(
            "",
            {"TOKEN_RATE_LIMIT": '{"/healthz": "1/day"}'},
            "TOKEN_RATE_LIMIT: no calls are served at /healthz; "
            "it takes routes such as /v1/chat/completions or /v1/gpt/chat",
            id="route-of-no-call",
        ),
        pytest.param(
            "",
            {"REQ_RATE_LIMIT": '{"/openai/v1/chat/completions": "1/day"}'},
            "REQ_RATE_LIMIT: no calls are served at /openai/v1/chat/completions; did you mean /v1/chat/completions?",
            id="route-of-no-prefix",
        ),
        pytest.param(
            "",
            {
                "REQ_RATE_LIMIT": '{"/local/v1/chat/completions": "1/day", "/local/x": "1/day"}',
                "EXTRA_BASE_URL": "http://a.example.com",
                "EXTRA_ROUTE_PREFIX": "/local",
            },
            None,
            id="routes-of-a-prefix",
        ),
        pytest.param(
            "", {"UPSTREAM": "openai", "REQ_RATE_LIMIT": '{"/v1/moderations": "1/day"}'}, None, id="route-of-openai"
        ),
        pytest.param(
            "",
            {"REQ_RATE_LIMIT": '{"/v1/moderations": "1/day"}'},
            "REQ_RATE_LIMIT: no calls are served at /v1/moderations; "
            "it takes routes such as /v1/chat/completions or /v1/gpt/chat",
            id="route-that-azure-has-not",
        ),
        pytest.param(
            "",
            {**SERVED, "MODEL_TOKEN_LIMIT": '{"D": "1/day", "e": "1/day"}', "UNKNOWN_MODEL": "reject"},
            f'MODEL_TOKEN_LIMIT names model "e", {NOWHERE}',
            id="model-limit",
        ),
        pytest.param("", {**SERVED, "MODEL_TOKEN_LIMIT": '{"e": "1/day"}'}, None, id="any-model"),
        pytest.param(
            "", {"MODEL_TOKEN_LIMIT": '{"e": "1/day"}', "UNKNOWN_MODEL": "reject"}, None, id="emulators-own-models"
        ),
        pytest.param(
            key("models: [d, e]"),
            {**SERVED, "UNKNOWN_MODEL": "reject"},
            f'client key alice names model "e", {NOWHERE}',
            id="key",
        ),
        pytest.param(
            key("tokens: {e: 1/day, '*': 1/day}"),
            {**SERVED, "UNKNOWN_MODEL": "reject"},
            f'client key alice names model "e", {NOWHERE}',
            id="tokens-of-a-key",
        ),
        pytest.param(
            DEPLOYMENTS,
            {"MODEL_TOKEN_LIMIT": '{"East": "1/day", "GPT-4": "1/day"}'},
            'MODEL_TOKEN_LIMIT limits "East", a deployment that is counted as model gpt-4o',
            id="deployment-limit",
        ),
        pytest.param(
            key("tokens: {west: 1/day}"),
            {**SERVED, "MODEL_MAPPER": "gpt-4o=west,gpt-4=west"},
            'client key alice limits "west", a deployment that is counted as model gpt-4o',
            id="mapped-deployment-limit",
        ),
        pytest.param(
            key("models: [a], tokens: {A: 1/day, b: 1/day, '*': 1/day}"),
            SERVED,
            "client key alice has a limit of tokens for b, which is none of its models",
            id="tokens-of-another-model",
        ),
        pytest.param(
            key("budget: 5, models: [GPT-4o, o3]") + PRICES,
            SERVED,
            "client key alice has a budget, and there is no price for o3: that costs it nothing",
            id="no-price",
        ),
        pytest.param(key("budget: 5, models: [gpt-4o]") + PRICES, SERVED, None, id="priced"),
        pytest.param(
            key("budget: 5") + DEPLOYMENTS + "\n" + PRICES,
            {},
            "client key alice has a budget, and there is no price for gpt-4: that costs it nothing",
            id="no-price-of-a-served-model",
        ),
        pytest.param(
            key("budget: 5") + DEPLOYMENTS + "\nprices: {EAST: {prompt: 1, completion: 1}}",
            {},
            None,
            id="deployment-priced",
        ),
        pytest.param(
            key("budget: 5") + PRICES,
            {**SERVED, "MODEL_MAPPER": "gpt-4o=west"},
            "client key alice has a budget, and there is no price for d: that costs it nothing",
            id="no-price-of-the-default",
        ),
    ],
)
def test_warnings(read: Read, config: str, environ: dict[str, str], warning: str | None) -> None:
    """What does less than it seems is told at the start, with its name."""
    assert read(config, HOST="127.0.0.1", **environ).warnings == (() if warning is None else (warning,))


@pytest.mark.parametrize(
    ("config", "environ", "limits", "counts"),
    [
        pytest.param("", {}, False, False, id="nothing"),
        pytest.param("", {"GLOBAL_RATE_LIMIT": "inf", "REQ_RATE_LIMIT": '{"/v1/x": "inf"}'}, False, False, id="lifted"),
        pytest.param("", {"GLOBAL_RATE_LIMIT": "1/day"}, True, False, id="requests"),
        pytest.param("", {"REQ_RATE_LIMIT": '{"/v1/x": "1/day"}'}, True, False, id="requests-of-a-route"),
        pytest.param("", {"CALLER_MAX_PARALLEL": "1"}, True, False, id="parallel"),
        pytest.param("", {"CALLER_TOKEN_LIMIT": "1/day"}, True, True, id="tokens"),
        pytest.param("", {"MODEL_TOKEN_LIMIT": '{"m": "1/day"}'}, True, True, id="tokens-of-a-model"),
        pytest.param("", {"TOKEN_RATE_LIMIT": "1/second"}, False, False, id="pace"),
        pytest.param("", {"STORE_URL": "redis://r"}, False, True, id="store"),
        pytest.param("", {"CLIENT_KEYS": "a"}, False, True, id="keys"),
        pytest.param(PRICES, {}, False, True, id="prices"),
        pytest.param(key(), {}, False, True, id="key"),
        pytest.param(key("requests: inf, tokens: inf"), {}, False, True, id="key-without-limit"),
        pytest.param(key("requests: 1/day"), {}, True, True, id="requests-of-a-key"),
        pytest.param(key("tokens: {m: 1/day}"), {}, True, True, id="tokens-of-a-key"),
        pytest.param(key("max_parallel: 1"), {}, True, True, id="parallel-of-a-key"),
        pytest.param(key("budget: 1") + PRICES, {}, True, True, id="budget"),
    ],
)
def test_what_is_counted(read: Read, config: str, environ: dict[str, str], limits: bool, counts: bool) -> None:
    """Usage is counted where somebody is told apart or held to it; several processes matter where a limit is."""
    settings = read(config, **environ)
    assert (settings.limits_callers, settings.counts_usage) == (limits, counts)
    assert (lone_counting(settings, 2) is not None) is limits


@pytest.mark.parametrize(
    ("config", "environ", "line"),
    [
        pytest.param("", {}, None, id="nothing"),
        pytest.param("", {"CLIENT_KEYS": "a"}, "Usage is counted in this process.", id="usage"),
        pytest.param("", {"TOKEN_RATE_LIMIT": "1/second"}, "Streams are paced.", id="pace"),
        pytest.param("", {"GLOBAL_RATE_LIMIT": "1/day"}, "Limited are requests, counted in this process.", id="one"),
        pytest.param(
            key("tokens: 1/day"),
            {"REQ_RATE_LIMIT": '{"/v1/responses": "1/day"}', "STORE_URL": "redis://u:SECRET@r"},
            "Limited are requests and tokens, counted in Redis at r:6379.",
            id="two-in-a-store",
        ),
        pytest.param(
            key("budget: 1, requests: 1/day, max_parallel: 2") + PRICES,
            {"MODEL_TOKEN_LIMIT": '{"m": "1/day"}', "TOKEN_RATE_LIMIT": "1/second"},
            "Limited are requests, tokens, calls in flight and money, counted in this process; streams are paced.",
            id="all",
        ),
    ],
)
def test_limits_in_a_line(read: Read, config: str, environ: dict[str, str], line: str | None) -> None:
    """The start says in one line what is limited, and where that is counted."""
    assert limits_line(read(config, **environ)) == line


@pytest.mark.parametrize(
    ("environ", "workers", "count"),
    [
        ({}, 1, 1),
        ({}, 4, 4),
        ({"NODE_APP_INSTANCE": "0"}, 1, 1),
        ({"NODE_APP_INSTANCE": "2"}, 1, 3),
        ({"NODE_APP_INSTANCE": "1"}, 4, 4),
        ({"NODE_APP_INSTANCE": "main"}, 1, 1),
        ({"WEB_CONCURRENCY": "4"}, 1, 1),  # which is for servers that start us
    ],
)
def test_processes_that_can_be_known(environ: Mapping[str, str], workers: int, count: int) -> None:
    """There are at least our own workers, and as many as PM2 has numbered."""
    assert process_count(environ, workers) == count


def test_processes_that_count_alone(read: Read) -> None:
    """Several processes multiply what a caller may take: that is said, and what helps; with a store it is not so."""
    limited = {"GLOBAL_RATE_LIMIT": "60/minute"}

    assert lone_counting(read(**limited), 4) == (
        "4 processes serve, and each counts by itself: callers get up to 4 times their limits; "
        "STORE_URL has them count together"
    )
    assert lone_counting(read(**limited), 1) is None
    assert lone_counting(read(**limited, STORE_URL="redis://r"), 4) is None
