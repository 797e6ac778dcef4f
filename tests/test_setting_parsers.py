"""Text into the values of settings, as tables."""

import ipaddress
from pathlib import Path
from typing import Any

import pytest

from chat_api.azure_url import Endpoint
from chat_api.setting_parsers import PARSERS, listed, parse_model_mapper, reason_for, without_secrets
from chat_api.types import Secret

EAST = "https://east.example.com"


def network(text: str) -> Any:
    """An IP network."""
    return ipaddress.ip_network(text)


@pytest.mark.parametrize(
    ("text", "items"),
    [
        pytest.param("a", ["a"], id="one"),
        pytest.param("a,b", ["a", "b"], id="two"),
        pytest.param(" a , b ,", ["a", "b"], id="spaces-and-a-comma-too-many"),
        pytest.param("\"a\", 'b'", ["a", "b"], id="quotes-around-items"),
        pytest.param('a", "b', ["a", "b"], id="outer-quotes-taken-off-before"),
        pytest.param("a\n,b", ["a", "b"], id="lines"),
    ],
)
def test_lists(text: str, items: list[str]) -> None:
    """A list is written with commas; spaces and quotes around its items do not count."""
    assert listed(text) == items


@pytest.mark.parametrize("parser", ["keys", "networks", "origins", "model_mapper", "urls", "prefixes"])
@pytest.mark.parametrize("text", [",", " , ", '""', "','"])
def test_list_of_nothing(parser: str, text: str) -> None:
    """A list that was meant to be one is not silently none: it may say who is let in."""
    if parser == "origins":
        assert PARSERS["origins"]("none") == ()
    with pytest.raises(ValueError, match="it lists nothing"):
        PARSERS[parser](text)


GOOD = [
    pytest.param("listen", "0.0.0.0:8080", ("0.0.0.0", 8080), id="listen"),
    pytest.param("listen", ":80", ("0.0.0.0", 80), id="listen-port"),
    pytest.param("listen", "[::]:80", ("[::]", 80), id="listen-ipv6"),
    pytest.param("listen", "gateway.example.com:65535", ("gateway.example.com", 65535), id="listen-name"),
    pytest.param("keys", "sk-1", (Secret("sk-1"),), id="keys-one"),
    pytest.param("keys", "'sk-1', \"sk-2\" ,sk-3", (Secret("sk-1"), Secret("sk-2"), Secret("sk-3")), id="keys"),
    pytest.param("networks", "10.0.0.1", (network("10.0.0.1/32"),), id="networks-address"),
    pytest.param("networks", "10.1.2.3/8", (network("10.0.0.0/8"),), id="networks-host-bits"),
    pytest.param("networks", "::1, fd00::/8", (network("::1/128"), network("fd00::/8")), id="networks-ipv6"),
    pytest.param("origins", "*", ("*",), id="origins-any"),
    pytest.param("origins", "None", (), id="origins-none"),
    pytest.param("origins", "http://a:3000, https://b", ("http://a:3000", "https://b"), id="origins"),
    pytest.param("model_mapper", "a=b", (("a", "b"),), id="mapper-one"),
    pytest.param("model_mapper", " a = b , c=d ", (("a", "b"), ("c", "d")), id="mapper-spaces"),
    pytest.param("model_mapper", "a=x,b=x", (("a", "x"), ("b", "x")), id="mapper-same-deployment"),
    pytest.param("model_mapper", "org/model:7b=x", (("org/model:7b", "x"),), id="mapper-any-model"),
    pytest.param("model_fallback", "a=b , b=c/d", (("a", "b"), ("b", "c/d")), id="fallback"),
    pytest.param("unknown_model", "PASS", "pass", id="unknown-model"),
    pytest.param("upstream", "Azure", "azure", id="upstream"),
    pytest.param("urls", "https://a.example.com/", ("https://a.example.com",), id="urls-slash"),
    pytest.param(
        "urls", "http://127.0.0.1:1/v1, localhost:2", ("http://127.0.0.1:1", "https://localhost:2"), id="urls"
    ),
    pytest.param("urls", "https://a.example.com/api/v2", ("https://a.example.com/api/v2",), id="urls-path"),
    pytest.param("prefixes", "/", ("/",), id="prefixes-root"),
    pytest.param("prefixes", "a, /b/, /c/d", ("/a", "/b", "/c/d"), id="prefixes"),
    pytest.param("prefixes", "/v1.5~x_y-z", ("/v1.5~x_y-z",), id="prefixes-signs"),
    pytest.param("proxy", "127.0.0.1:3128", Secret("http://127.0.0.1:3128"), id="proxy-without-scheme"),
    pytest.param("proxy", "http://proxy", Secret("http://proxy"), id="proxy-without-port"),
    pytest.param("proxy", "https://u:p@proxy:1/", Secret("https://u:p@proxy:1"), id="proxy-slash"),
    pytest.param("proxy", "socks5h://u:p%40@[::1]:1", Secret("socks5h://u:p%40@[::1]:1"), id="proxy-socks"),
    pytest.param("endpoints", "east.example.com", (Endpoint("https://east.example.com"),), id="endpoint"),
    pytest.param(
        "endpoints",
        f"{EAST}/openai/deployments/d/chat/completions?api-version=2024-06-01 , '{EAST}:8443/', <https://w.example.com>,",
        (Endpoint(EAST, "d", "2024-06-01"), Endpoint(f"{EAST}:8443"), Endpoint("https://w.example.com")),
        id="endpoints",
    ),
    pytest.param("host", "[::1]", "[::1]", id="host-ipv6"),
    pytest.param("deployment_name", "my gpt", "my gpt", id="deployment-with-space"),
    pytest.param("log_level_name", "Warning", "warning", id="log-level"),
    pytest.param("log_chat", "True", "true", id="log-chat"),
    pytest.param("log_chat", "off", "false", id="log-chat-off"),
    pytest.param("log_chat", "META", "meta", id="log-chat-meta"),
    pytest.param("log_dir", "not/yet/there", Path("not/yet/there"), id="log-dir"),
]
NO_ADDRESS = "no host name and no address"
BAD = [
    pytest.param("listen", "8080", "no address and port", id="listen-port-only"),
    pytest.param("listen", "localhost", "no address and port", id="listen-host-only"),
    pytest.param("listen", "a:", "no address and port", id="listen-no-port"),
    pytest.param("listen", ":65536", "no address and port", id="listen-large"),
    pytest.param("listen", ":-1", "no address and port", id="listen-negative"),
    pytest.param("listen", "http://0.0.0.0:80", NO_ADDRESS, id="listen-url"),
    pytest.param("listen", "::1", NO_ADDRESS, id="listen-ipv6-without-brackets"),
    pytest.param("keys", "a,b c", "a space at position 2", id="keys-space"),
    pytest.param("keys", '{"sk-1": 0}', "it is JSON", id="keys-json"),
    pytest.param("networks", "10.0.0.0/33", "does not appear to be", id="networks-mask"),
    pytest.param("networks", "10.0.0.1 10.0.0.2", "does not appear to be", id="networks-spaces"),
    pytest.param("origins", "https://a/", '"https://a/" is no origin', id="origins-path"),
    pytest.param("origins", "https://a,b", '"b" is no origin', id="origins-no-scheme"),
    pytest.param("origins", "ftp://a", '"ftp://a" is no origin', id="origins-scheme"),
    pytest.param("origins", "none,https://a", '"none" is no origin', id="origins-none-among-others"),
    pytest.param("model_mapper", "a", '"a" is no pair', id="mapper-no-pair"),
    pytest.param("model_mapper", "a=", '"a=" is no pair', id="mapper-no-deployment"),
    pytest.param("model_mapper", "=b", '"=b" is no pair', id="mapper-no-model"),
    pytest.param("model_mapper", "a=../b", '"a=../b" is no pair', id="mapper-path"),
    pytest.param("model_mapper", "a=b,a=c", 'model "a" is mapped twice', id="mapper-twice"),
    pytest.param("model_fallback", "a", '"a" is no pair of model=model', id="fallback-no-pair"),
    pytest.param("model_fallback", "a=../b", '"a=../b" is no pair of model=model', id="fallback-path"),
    pytest.param("model_fallback", "a=b,a=c", 'model "a" falls back twice', id="fallback-twice"),
    pytest.param("unknown_model", "deny", "none of them", id="unknown-model"),
    pytest.param("upstream", "gcp", "none of them", id="upstream"),
    pytest.param("urls", "https://a.example.com?x=1", "it has a query", id="urls-query"),
    pytest.param("urls", "https://u:p@a.example.com", "it holds a user name or password", id="urls-password"),
    pytest.param("urls", "localai", "a resource's name, not its URL", id="urls-word"),
    pytest.param("prefixes", "/a b", "is no path prefix", id="prefixes-space"),
    pytest.param("prefixes", "/a//b", "is no path prefix", id="prefixes-empty-segment"),
    pytest.param("prefixes", "/a/../b", "is no path prefix", id="prefixes-dots"),
    pytest.param("prefixes", "/.", "is no path prefix", id="prefixes-dot"),
    pytest.param("prefixes", "/{x}", "is no path prefix", id="prefixes-braces"),
    pytest.param("prefixes", "/é", "is no path prefix", id="prefixes-not-ascii"),
    pytest.param("proxy", "ftp://proxy:1", "no URL of a proxy", id="proxy-scheme"),
    pytest.param("proxy", "http://", "no URL of a proxy", id="proxy-no-host"),
    pytest.param("proxy", "http://proxy/x", "no URL of a proxy", id="proxy-path"),
    pytest.param("proxy", "http://proxy?x", "no URL of a proxy", id="proxy-query"),
    pytest.param("proxy", "http://proxy#x", "no URL of a proxy", id="proxy-fragment"),
    pytest.param("proxy", "http://proxy:x", "its port is no port", id="proxy-port"),
    pytest.param("proxy", "socks5://proxy", "it names no port", id="proxy-socks"),
    pytest.param("endpoints", "my-resource", "a resource's name, not its URL", id="endpoint-word"),
    pytest.param("endpoints", f"{EAST},my-resource", "URL 2: a resource's name, not its URL", id="endpoints-word"),
    pytest.param("endpoints", ",", "it lists nothing", id="endpoints-none"),
    pytest.param("endpoints", f"{EAST},{EAST}/", "URL 2 is a resource that it lists already", id="endpoints-twice"),
    pytest.param(
        "endpoints",
        f"{EAST},https://w.example.com,{EAST}/openai/deployments/d/chat/completions",
        "URL 3 is a resource that it lists already",
        id="endpoints-twice-with-deployment",
    ),
    pytest.param("host", "a b", NO_ADDRESS, id="host-space"),
    pytest.param("deployment_name", "a/../b", "no deployment is called so", id="deployment-path"),
    pytest.param("stop", "[", "Input data was truncated", id="stop-broken"),
    pytest.param("log_level_name", "trace", "not a log level", id="log-level"),
    pytest.param("log_chat", "2", "none of them", id="log-chat"),
    pytest.param("log_dir", "/dev/null/log", "no folder can be written at /dev/null/log", id="log-dir"),
]


@pytest.mark.parametrize(("parser", "text", "value"), GOOD)
def test_good(parser: str, text: str, value: object) -> None:
    """Each setting is written as people write it."""
    assert PARSERS[parser](text) == value


@pytest.mark.parametrize(("parser", "text", "reason"), BAD)
def test_bad(parser: str, text: str, reason: str) -> None:
    """What cannot be used is refused with its reason."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the reason is compared
        PARSERS[parser](text)
    assert reason in str(caught.value)


def test_every_parser_of_ours_is_in_a_table() -> None:
    """The tables here and in the tests of settings try all parsers."""
    elsewhere = {"api_version", "key", "readable_file"}
    assert {str(param.values[0]) for param in (*GOOD, *BAD)} | elsewhere == set(PARSERS)


def test_mapper_keeps_its_order() -> None:
    """Models are listed in the order in which they were written."""
    assert [model for model, _ in parse_model_mapper("z=1,a=2,m=3")] == ["z", "a", "m"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("my-resource", "my-resource", id="word"),
        pytest.param("https://a.example.com/x", "https://a.example.com/x", id="url"),
        pytest.param("https://u:p@a.example.com", "***", id="password"),
        pytest.param("https://a.example.com?key=k", "https://a.example.com***", id="query"),
        pytest.param("https://a.example.com#k\nk", "https://a.example.com***", id="fragment-of-two-lines"),
        pytest.param("0123456789abcdef0123456789abcdef", "***", id="like-a-key"),
        pytest.param("https://a.example.com, 0123456789abcdef0123456789abcdef", "***", id="like-a-key-in-a-list"),
        pytest.param(
            "https://a.example.com,https://b.example.com", "https://a.example.com,https://b.example.com", id="list"
        ),
    ],
)
def test_what_may_be_shown(text: str, shown: str) -> None:
    """A value is shown without what may be a secret in it."""
    assert without_secrets(text) == shown


@pytest.mark.parametrize(
    ("reason", "shown", "told"),
    [
        pytest.param('"a" is no origin', "a", '"a" is no origin', id="value-is-shown"),
        pytest.param('"a" is no origin', "***", "*** is no origin", id="value-is-hidden"),
        pytest.param("netloc 'u:'p'@h' is bad", "***", "netloc *** is bad", id="quotes-in-the-value"),
        pytest.param("its port is no port", "***", "its port is no port", id="nothing-quoted"),
    ],
)
def test_reasons_quote_nothing_that_is_hidden(reason: str, shown: str, told: str) -> None:
    """Where a value is hidden its reason does not quote it."""
    assert reason_for(reason, shown) == told
