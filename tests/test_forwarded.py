"""Who the client is behind proxies, on real sockets: FORWARDED_ALLOW_IPS, and what depends on addresses."""

import logging
from collections.abc import Iterator

import pytest

from tests.servers import Gateway, eventually, gateway

CLIENT, ELSEWHERE = "203.0.113.7", "198.51.100.1"
PROXY, INNER = "127.0.0.1", "10.0.0.5"  # the test's own client is the proxy

Headers = list[tuple[str, str]]


def forwarded(*hops: str) -> Headers:
    """X-Forwarded-For, a header for each."""
    return [("x-forwarded-for", hop) for hop in hops]


def status(server: Gateway, headers: Headers, path: str = "/v1/gpt/chat") -> int:
    """The status that a chat with these headers gets, or a page."""
    if path != "/v1/gpt/chat":
        return server.client.get(path, headers=headers).status_code
    return server.client.post(path, content=b"hello", headers=[("content-type", "text/plain"), *headers]).status_code


@pytest.fixture(scope="module")
def behind() -> Iterator[Gateway]:
    """A gateway behind two proxies, which answers one client alone, and denies another."""
    allowed = {"ALLOW_IPS": f"{CLIENT},2001:db8::/32,{ELSEWHERE}", "DENY_IPS": ELSEWHERE}
    with gateway(FORWARDED_ALLOW_IPS=f"{PROXY}, 10.0.0.0/8", **allowed) as running:
        yield running


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param(forwarded(CLIENT), 200, id="allowed"),
        pytest.param(forwarded(f"{CLIENT}:40001"), 200, id="with-its-port"),
        pytest.param(forwarded("2001:db8::7"), 200, id="ipv6"),
        pytest.param(forwarded("[2001:db8::7]:40001"), 200, id="ipv6-with-its-port"),
        pytest.param(forwarded(f"{CLIENT}, {INNER}"), 200, id="two-hops"),
        pytest.param(forwarded(CLIENT, INNER), 200, id="two-hops-in-two-headers"),
        pytest.param(forwarded(f"{ELSEWHERE}, {CLIENT}"), 200, id="what-the-client-said-itself-is-passed-over"),
        pytest.param(forwarded(ELSEWHERE), 403, id="denied"),
        pytest.param(forwarded(f"{CLIENT}, {ELSEWHERE}"), 403, id="denied-that-says-it-is-allowed"),
        pytest.param(forwarded(CLIENT, ELSEWHERE), 403, id="denied-that-says-so-in-a-header-of-its-own"),
        pytest.param(forwarded(f"{CLIENT}, {ELSEWHERE}, {INNER}"), 403, id="denied-behind-two-hops"),
        pytest.param(forwarded("192.0.2.9"), 403, id="not-allowed"),
        pytest.param(forwarded("unknown"), 403, id="no-address"),
        pytest.param([], 403, id="the-proxy-itself"),
        pytest.param(forwarded(""), 403, id="blank"),
        pytest.param([("forwarded", f"for={CLIENT}")], 403, id="another-header"),
        pytest.param([("x-real-ip", CLIENT)], 403, id="a-header-that-nobody-reads"),
    ],
)
def test_addresses_are_those_of_clients(behind: Gateway, headers: Headers, expected: int) -> None:
    """Behind proxies that are named the client is whom the nearest of them does not vouch for as one of them."""
    assert status(behind, headers) == expected


@pytest.mark.parametrize("trusted", ["", "192.0.2.1", "192.0.2.0/24"], ids=["unset", "another", "another-network"])
def test_who_is_no_proxy_is_not_believed(trusted: str) -> None:
    """From a peer that is not named the header changes nothing: neither lets it in nor keeps it out."""
    with gateway(FORWARDED_ALLOW_IPS=trusted, ALLOW_IPS=PROXY, DENY_IPS=CLIENT) as server:
        assert status(server, forwarded(CLIENT)) == 200
    with gateway(FORWARDED_ALLOW_IPS=trusted, ALLOW_IPS=CLIENT) as server:
        assert status(server, forwarded(CLIENT)) == 403


def test_anybody_may_be_believed() -> None:
    """With * the first address counts, whoever says it."""
    with gateway(FORWARDED_ALLOW_IPS="*", DENY_IPS=CLIENT) as server:
        assert status(server, forwarded(f"{CLIENT}, 192.0.2.1")) == 403
        assert status(server, forwarded(f"192.0.2.1, {CLIENT}")) == 200


@pytest.mark.parametrize("trusted", ["", PROXY, f"{PROXY},10.0.0.0/8", "*"])
def test_who_says_to_be_this_machine_is_no_operator(trusted: str) -> None:
    """/status is for who is on this machine: X-Forwarded-For cannot say so, whoever is believed."""
    with gateway(FORWARDED_ALLOW_IPS=trusted) as server:
        assert status(server, [], "/status") == 200
        for headers in (
            forwarded("127.0.0.1"),
            forwarded("::1"),
            forwarded("127.0.0.1, 127.0.0.1"),
            forwarded(CLIENT, "127.0.0.1"),
            forwarded("localhost"),
            forwarded(""),
        ):
            assert status(server, headers, "/status") == 403


def test_clients_are_named_in_the_log(behind: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    """The access log has the client that is meant, not the proxy, and its scheme is what the proxy says."""
    caplog.set_level(logging.INFO, "chat_api.access")
    page = behind.client.get("/", headers=[*forwarded(CLIENT), ("x-forwarded-proto", "https")])

    assert page.json()["try"].startswith("curl https://")
    assert eventually(lambda: f"{CLIENT} GET / 200" in caplog.text)  # the line comes after the answer
