"""Safe by default: who is answered by a server that lends its key."""

import logging
from collections.abc import Iterator

import pytest

from tests.servers import KEY, Gateway, gateway


@pytest.fixture(scope="module")
def server() -> Iterator[Gateway]:
    """A gateway that holds a key and asks for none."""
    with gateway() as running:
        yield running


def status(server: Gateway, headers: dict[str, str], method: str = "POST", path: str = "/v1/gpt/chat") -> int:
    """The status that a request with these headers gets."""
    body = {"content": b"hello"} if method == "POST" else {}
    given = {"content-type": "text/plain", **headers}
    return server.client.request(method, path, headers=given, **body).status_code  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", 200),
        ("localhost:8080", 200),
        ("LOCALHOST:8080", 200),
        ("app.localhost:8080", 200),
        ("127.0.0.1:8080", 200),
        ("127.1.2.3", 200),
        ("[::1]:8080", 200),
        ("", 403),
        ("example.com", 403),
        ("localhost.example.com", 403),
        ("127.0.0.1.example.com", 403),
        ("notlocalhost", 403),
        ("192.168.0.7:8080", 403),
        ("0.0.0.0:8080", 403),
        ("[::2]", 403),
        ("localhost/?x=", 400),
        ("example.com@localhost", 400),
    ],
)
def test_only_loopback_host_names_are_answered(server: Gateway, host: str, expected: int) -> None:
    """A name that merely points at 127.0.0.1 (DNS rebinding) is refused before anything is spent."""
    assert status(server, {"host": host}) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param({}, 200, id="curl"),
        pytest.param({"origin": "http://localhost:8080"}, 200, id="own-origin"),
        pytest.param({"origin": "http://LOCALHOST:8080", "sec-fetch-site": "same-origin"}, 200, id="own-origin-case"),
        pytest.param({"sec-fetch-site": "none"}, 200, id="typed-by-the-user"),
        pytest.param({"origin": "https://example.com"}, 403, id="other-site"),
        pytest.param({"origin": "http://localhost:3000"}, 403, id="other-port"),
        pytest.param({"origin": "null"}, 403, id="sandboxed"),
        pytest.param({"sec-fetch-site": "cross-site"}, 403, id="cross-site-without-origin"),
        pytest.param({"sec-fetch-site": "same-site", "origin": "http://localhost:8080"}, 403, id="same-site"),
        pytest.param({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403, id="form-post"),
    ],
)
def test_browser_requests_from_another_origin_are_refused(
    server: Gateway, headers: dict[str, str], expected: int
) -> None:
    """A form on any web page can post here without a preflight; it is refused by what the browser adds."""
    assert status(server, {"host": "localhost:8080", **headers}) == expected


def test_link_from_another_page_may_be_followed(server: Gateway) -> None:
    """A GET that a person made by clicking a link shows the front page."""
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}

    assert status(server, headers, method="GET", path="/") == 200
    assert status(server, {"sec-fetch-site": "cross-site"}, method="GET", path="/") == 403


def test_refusal_says_what_lifts_it(server: Gateway) -> None:
    """The refusal of a host name names the setting that allows it, and costs no upstream call."""
    calls = len(server.emulator.received)
    response = server.client.post("/v1/gpt/chat", json={"prompt": "x"}, headers={"host": "example.com"})

    assert response.json()["error"]["code"] == "host_not_allowed"
    assert "ALLOW_ANONYMOUS=true" in response.json()["message"]
    assert len(server.emulator.received) == calls


def test_allow_anonymous_answers_any_host_but_no_other_origin() -> None:
    """ALLOW_ANONYMOUS lifts the limit on host names; web pages elsewhere still cannot spend the key."""
    with gateway(ALLOW_ANONYMOUS="true") as server:
        assert status(server, {"host": "chat.example.com"}) == 200
        assert status(server, {"host": "chat.example.com", "origin": "https://chat.example.com"}) == 200
        assert status(server, {"host": "chat.example.com", "origin": "https://example.com"}) == 403


def test_server_without_a_key_needs_no_guard() -> None:
    """Where each caller presents a key of their own there is nothing to lend, so nothing to guard."""
    with gateway(KEY="") as server:
        assert status(server, {"host": "example.com", "origin": "https://example.org", "api-key": KEY}) == 200


def test_keys_and_prompts_are_in_no_answer_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """The server's key, a caller's key and a prompt in the query string appear in no body, header or log line."""
    caplog.set_level(logging.DEBUG, logger="chat_api")
    caplog.set_level(logging.DEBUG, logger="uvicorn")
    seen = ""
    for environ in ({}, {"KEY": ""}):
        with gateway(**environ) as server:
            for model in ("gpt-4o", "nope", "fault-401", "fault-reset", "fault-cut", "fault-not-http", "o4-mini"):
                response = server.client.post(
                    f"/v1/gpt/chat?model={model}&systemPrompt=canary-prompt&max_tokens=5",
                    content=b"hello",
                    headers={"content-type": "text/plain", "authorization": "Bearer canary-caller-key"},
                )
                seen += f"{response.status_code} {response.text} {response.headers}\n"
    logged = "\n".join(record.getMessage() for record in caplog.records)

    assert KEY not in seen + logged
    assert "canary-caller-key" not in seen + logged
    assert "canary-prompt" not in logged
    assert "POST /v1/gpt/chat 200" in logged
    assert "401 Access denied" in logged


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("[::1]evil.com", 400),
        ("localhost:8080@evil.com", 400),
        ("127.0.0.1:abc", 400),
        ("localhost:80:80", 400),
        ("2130706433", 403),
        ("0x7f.1", 403),
    ],
)
def test_names_that_merely_look_like_loopback_are_refused(server: Gateway, host: str, expected: int) -> None:
    """The whole of Host is matched, not its beginning; what is no host name at all is a bad request."""
    assert status(server, {"host": host}) == expected


def test_second_origin_counts_too(server: Gateway) -> None:
    """Every Origin and Sec-Fetch-Site is looked at, in any case."""
    two = [("host", "localhost"), ("origin", "http://localhost"), ("origin", "http://evil.com")]
    shouted = [("host", "localhost"), ("sec-fetch-site", "Cross-Site")]

    for headers in (two, shouted):
        assert server.client.post("/v1/gpt/chat", content=b"hi", headers=headers).status_code == 403


def test_forwarded_headers_of_a_local_process_name_nobody(server: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    """X-Forwarded-For does not change who the log says was there, nor X-Forwarded-Proto what the front page shows."""
    caplog.set_level(logging.INFO, "chat_api.access")
    headers = {"x-forwarded-for": "10.9.9.9 forged", "x-forwarded-proto": "wss"}
    page = server.client.get("/", headers=headers).json()

    assert page["try"].startswith("curl http://")
    assert "10.9.9.9" not in caplog.text
