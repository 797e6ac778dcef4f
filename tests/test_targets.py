"""Who is addressed: absolute-form request targets under both parsers, CORS, OPTIONS, addresses that may call."""

import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import process
from tests.servers import Gateway, gateway

UVICORN = str(Path(sys.executable).with_name("uvicorn"))
BODY = b'{"messages":[{"role":"user","content":"hi"}]}'
PAGE = "https://chat.example.com"


@pytest.fixture(scope="module")
def server() -> Iterator[Gateway]:
    """A gateway with the least settings."""
    with gateway() as running:
        yield running


@pytest.fixture(scope="module", params=["httptools", "h11"])
def uvicorn_port(request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of the app under uvicorn's own command, with each of its parsers."""
    with process(UVICORN, "app:app", "--port", "0", "--http", request.param, "--no-access-log") as running:
        yield int(running.wait_for(r"Uvicorn running on http://127\.0\.0\.1:(\d+)")[1])


def ask(port: int, target: str, host: str = "localhost") -> tuple[int, dict[str, object]]:
    """`(status, JSON body)` of a chat that is posted to a request target."""
    head = f"POST {target} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\nconnection: close\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(head.encode() + b"content-length: %d\r\n\r\n" % len(BODY) + BODY)
        received = b""
        while part := sock.recv(65536):
            received += part
    head_, _, body = received.partition(b"\r\n\r\n")
    return int(head_.split()[1]), json.loads(body)


TARGETS = {
    "origin-form": ("/v1/chat/completions", 200),
    "openai": ("http://api.openai.com/v1/chat/completions", 200),
    "openai-and-port": ("http://api.openai.com:443/v1/chat/completions", 200),
    "upper-case": ("HTTP://API.OPENAI.COM/v1/chat/completions", 200),
    "own-name": ("http://localhost:8080/v1/chat/completions", 200),
    "own-address": ("http://127.0.0.1/v1/chat/completions", 200),
    "own-host-name": (f"http://{socket.gethostname()}/v1/chat/completions", 200),
    "query": ("http://api.openai.com/v1/chat/completions?a=b", 200),
    "https": ("https://api.openai.com/v1/chat/completions", 200),
    "other-host": ("http://example.com/v1/chat/completions", 403),
    "user-name": ("http://api.openai.com@example.com/v1/chat/completions", 403),
    "openai-with-a-suffix": ("http://api.openai.com.example.com/v1/chat/completions", 403),
}


@pytest.mark.parametrize(("target", "status"), TARGETS.values(), ids=TARGETS)
def test_request_target_in_absolute_form(server: Gateway, target: str, status: int) -> None:
    """A client that takes this for a proxy is answered for OpenAI's host and our own, and refused for any other."""
    answered, body = ask(server.port, target)

    assert answered == status
    if status == 403:
        assert "is no proxy" in str(body["error"])


def test_host_of_openai_is_answered_on_a_guarded_server(server: Gateway) -> None:
    """A client of a proxy sends OpenAI's name as Host, which no page elsewhere can have."""
    assert ask(server.port, "http://api.openai.com/v1/chat/completions", "api.openai.com")[0] == 200


def test_configured_upstreams_may_be_named(server: Gateway) -> None:
    """A client that was told to reach the Azure resource through this server is answered by it."""
    with gateway(ENDPOINT="http://my-resource.test:9/", CONNECT_TIMEOUT="1") as running:
        status, body = ask(running.port, "http://my-resource.test/openai/v1/chat/completions", "my-resource.test")

    assert status == 502
    assert "cannot reach my-resource.test:9" in str(body["error"])


@pytest.mark.parametrize("target", ["openai", "own-name", "origin-form", "query"])
def test_absolute_form_under_uvicorns_own_parsers(uvicorn_port: int, target: str) -> None:
    """Whichever parser uvicorn's own command uses, the request is answered like one in origin form."""
    assert ask(uvicorn_port, TARGETS[target][0])[0] == 200


def test_other_hosts_are_not_fetched_under_uvicorns_own_parsers(uvicorn_port: int) -> None:
    """Nothing is relayed to a host that a request target names: it is refused, by its Host at the latest."""
    status, body = ask(uvicorn_port, "http://example.com/v1/chat/completions", "example.com")

    assert status == 403
    assert "example.com" in str(body["error"])


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/openai/v1/responses"])
def test_options_without_cors(server: Gateway, path: str) -> None:
    """OPTIONS says what is served; a page of another origin is told nothing that lets it in."""
    answer = server.client.options(path)

    assert answer.status_code == 204
    assert "POST" in answer.headers["allow"]
    assert "access-control-allow-origin" not in answer.headers


PREFLIGHT = {
    "origin": PAGE,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-os,x-stainless-lang",
}


@pytest.mark.parametrize("origins", ["*", PAGE, f"https://other.example.com, {PAGE}"])
def test_pages_of_allowed_origins_may_call(origins: str) -> None:
    """The preflight of OpenAI's client passes, x-stainless headers included, and so does the call itself."""
    with gateway(CORS_ORIGINS=origins) as running:
        preflight = running.client.options("/v1/chat/completions", headers=PREFLIGHT)
        headers = {"origin": PAGE, "sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"}
        answer = running.client.post("/v1/chat/completions", content=BODY, headers=headers)
        error = running.client.post("/v1/chat/completions", content=b"[", headers=headers)

    assert preflight.status_code == 200
    assert "x-stainless-os" in preflight.headers["access-control-allow-headers"]
    for one, status in ((answer, 200), (error, 400)):
        assert one.status_code == status
        assert one.headers["access-control-allow-origin"] in ("*", PAGE)
        exposed = one.headers["access-control-expose-headers"]
        assert {"retry-after", "x-request-id", "x-chat-api-request-id"} <= set(exposed.split(", "))


@pytest.mark.parametrize(
    ("environ", "allowed"),
    [
        pytest.param({}, False, id="lends-its-key"),
        pytest.param({"KEY": ""}, True, id="callers-have-keys-of-their-own"),
        pytest.param({"KEY": "", "CORS_ORIGINS": "none"}, False, id="none"),
        pytest.param({"CORS_ORIGINS": "https://other.example.com"}, False, id="another-origin"),
        pytest.param({"CLIENT_KEYS": "k"}, False, id="client-keys"),
    ],
)
def test_which_pages_are_let_in(environ: dict[str, str], allowed: bool) -> None:
    """By default pages may call only where they can use nothing but a key that they have themselves."""
    with gateway(**environ) as running:
        preflight = running.client.options("/v1/chat/completions", headers=PREFLIGHT)

    assert ("access-control-allow-origin" in preflight.headers) == allowed


@pytest.mark.parametrize(
    ("environ", "status"),
    [
        ({"ALLOW_IPS": "127.0.0.1"}, 200),
        ({"ALLOW_IPS": "10.0.0.0/8, 127.0.0.0/8"}, 200),
        ({"IP_WHITELIST": "10.0.0.1"}, 403),
        ({"DENY_IPS": "127.0.0.1"}, 403),
        ({"IP_BLACKLIST": "10.0.0.1"}, 200),
        ({"ALLOW_IPS": "127.0.0.0/8", "DENY_IPS": "127.0.0.1"}, 403),
    ],
)
def test_addresses_that_may_call(environ: dict[str, str], status: int) -> None:
    """A list of addresses lets in or keeps out, networks too; what is denied is denied whoever allows it."""
    with gateway(HOST="127.0.0.1", **environ) as running:
        answer = running.client.get("/v1/models")

    assert answer.status_code == status
    assert status == 200 or answer.json()["error"]["code"] == "ip_not_allowed"
