"""The protocol and the banner of the server, over raw sockets."""

import contextlib
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from chat_api.server import answering, banner, listen, raise_file_limit
from chat_api.settings import load
from tests.servers import Gateway, eventually, gateway

BODY = b"prompt=hello"
FORM = b"content-type: application/x-www-form-urlencoded\r\ncontent-length: 12\r\n"
POST = b"POST /v1/gpt/chat HTTP/1.1\r\nhost: localhost\r\naccept: text/plain\r\n" + FORM


@pytest.fixture(scope="module")
def server() -> Iterator[Gateway]:
    """A gateway with the least settings."""
    with gateway() as running:
        yield running


def talk(server: Gateway, *parts: bytes) -> bytes:
    """All that comes back for these bytes, sent part by part, until the server closes or is silent."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        for part in parts:
            sock.sendall(part)
        received = sock.recv(65536)
        sock.settimeout(0.3)
        with contextlib.suppress(TimeoutError):
            while part := sock.recv(65536):
                received += part
    return received


@pytest.mark.parametrize(
    "offer",
    [
        pytest.param(b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n", id="h2c"),
        pytest.param(b"connection: upgrade\r\nupgrade: websocket\r\n", id="websocket"),
    ],
)
@pytest.mark.parametrize("cut", [0, 5, len(BODY)])
def test_offer_to_upgrade_is_ignored_and_the_body_is_read(server: Gateway, offer: bytes, cut: int) -> None:
    """A POST that offers an upgrade, as Java's client and `curl --http2` do, is answered like any other."""
    received = talk(server, POST + offer + b"\r\n" + BODY[:cut], BODY[cut:])

    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert received.endswith(b'You said: "hello".')
    assert received.count(b"HTTP/1.1") == 1


def test_body_after_an_upgrade_is_no_request(server: Gateway) -> None:
    """What a body holds is never taken for a second request."""
    smuggled = b"GET /v1?smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n"
    head = b"POST /v1/gpt/chat HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\naccept: text/plain\r\n"
    offer = b"connection: upgrade\r\nupgrade: h2c\r\ncontent-length: %d\r\n\r\n" % len(smuggled)
    received = talk(server, head + offer, smuggled)

    assert received.count(b"HTTP/1.1 200 OK") == 1
    assert b'You said: "GET /v1?smuggled' in received


@pytest.mark.parametrize("together", [True, False])
def test_pipelined_request_is_not_taken(server: Gateway, together: bool) -> None:
    """The first of two requests at once is answered, and the connection is closed: the client asks again."""
    body = b"model=fault-slow&prompt=hello"
    request = POST.replace(b"12", b"%d" % len(body)) + b"\r\n" + body
    received = talk(server, request + request) if together else talk(server, request, request)

    assert received.count(b"HTTP/1.1 200 OK") == 1
    assert received.endswith(b'You said: "hello".')


def test_client_that_pipelines_and_leaves_is_noticed(server: Gateway) -> None:
    """A second request on the connection does not hide that the client of the first one left."""
    body = b"model=fault-hang&prompt=x"
    head = b"POST /v1/gpt/chat HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-www-form-urlencoded\r\n"
    request = head + b"content-length: %d\r\n\r\n" % len(body) + body
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(request)
        assert eventually(lambda: server.emulator.open_calls == 1)
        sock.sendall(request)

    assert eventually(lambda: server.emulator.open_calls == 0)


def test_requests_one_after_the_other_share_a_connection(server: Gateway) -> None:
    """Keep-alive works as before."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        for _ in range(3):
            sock.sendall(POST + b"\r\n" + BODY)
            received = b""
            while not received.endswith(b'You said: "hello".'):
                received += sock.recv(65536)


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(b"CONNECT localhost:1 HTTP/1.1\r\nhost: localhost\r\n\r\n", id="connect"),
        pytest.param(b"\x16\x03\x01\x02\x00", id="tls"),
        pytest.param(b"POST /v1 HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", id="two-lengths"),
        pytest.param(b"hello\r\n\r\n", id="garbage"),
    ],
)
def test_what_is_no_request_is_400_and_the_end(server: Gateway, request_: bytes) -> None:
    """The connection is answered and closed; the server goes on."""
    assert talk(server, request_).startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert server.chat(prompt="hello").status_code == 200


def test_refusal_of_a_body_that_was_not_sent_yet_ends_the_connection(server: Gateway) -> None:
    """With Expect: 100-continue the body was never asked for: what came next would be taken for it."""
    head = b"POST /nowhere HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 10\r\n\r\n"
    received = talk(server, head)

    assert received.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert b"\r\nconnection: close\r\n" in received


def test_body_that_was_refused_is_not_taken_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """After 413 what still comes is thrown away; beyond a limit the connection is closed."""
    monkeypatch.setattr("chat_api.protocol.MAX_DISCARDED_BYTES", 100_000)
    head = b"POST /v1/gpt/chat HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
    chunk = b"2710\r\n" + b"x" * 10_000 + b"\r\n"
    with gateway(MAX_BODY_BYTES="5000") as server, socket.create_connection(("127.0.0.1", server.port), 10) as sock:
        sock.sendall(head + chunk)
        refused = sock.recv(65536)
        with pytest.raises(ConnectionError):
            sock.sendall(chunk * 10_000)

    assert refused.startswith(b"HTTP/1.1 413 ")


def test_connections_send_at_once() -> None:
    """No answer waits for Nagle's algorithm, on any event loop."""
    with listen("127.0.0.1", 0) as listening:
        assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def test_as_many_files_are_allowed_as_may_be() -> None:
    """The soft limit of open files becomes the hard one, whatever the shell has left of it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        pytest.skip("no limit is set here, and some systems grant none")
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard - 1, hard))
        raise_file_limit()
        raised = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert raised == (hard, hard)


@pytest.mark.parametrize("error", [ValueError, OSError])
def test_limit_that_cannot_be_raised_stays(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    """Where the system does not grant what it calls the hard limit, the server starts all the same."""

    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(resource, "setrlimit", refuse)
    raise_file_limit()


AZURE = {"ENDPOINT": "https://x.y", "KEY": "k", "DEPLOYMENT_NAME": "d"}
ALL = {"HOST": "0.0.0.0", "ALLOW_ANONYMOUS": "1"}


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({}, ["at http://127.0.0.1:1\n", "emulator answers, at http://up", "curl http://127.0.0.1:1/"]),
        ({"HOST": "[::1]"}, ["at http://[::1]:1\n", "curl http://[::1]:1/"]),
        (ALL, ["at http://0.0.0.0:1\n", "curl http://localhost:1/"]),
        (AZURE, ["from http://up, deployment d, API 2024-10-21."]),
        (
            {"ENDPOINT": "https://x.y/openai/v1?model=d,https://z.y?api-version=2024-06-01", "KEY": "k1,k2"},
            [
                "Answers come from 2 endpoints:\n",
                "\n  https://x.y, deployment d, API v1\n",
                "\n  https://z.y, deployment d, API 2024-06-01\n",
            ],
        ),
        (
            {"ENDPOINT": "https://x.y,https://z.y", "KEY": "k"},
            ["2 endpoints; requests name the deployment as model:\n", "\n  https://z.y, API 2024-10-21\n"],
        ),
        ({"ENDPOINT": "https://x.y"}, ["requests name the deployment", "-d model=YOUR_DEPLOYMENT", "YOUR_KEY'"]),
        (
            {"CLIENT_KEYS": "SECRET,b", "CALLER_TOKEN_LIMIT": "9/day", "STORE_URL": "redis://:SECRET@r"},
            ["\nCallers present one of 2 client keys.\nLimited are tokens, counted in Redis at r:6379.\n", "YOUR_KEY'"],
        ),
        ({"LOG_CHAT": "true"}, ["\nConversations are logged in /none/log.\n"]),
        ({"LOG_CHAT": "meta", "LOG_DIR": "/tmp/l"}, ["\nConversations are logged in /tmp/l, without their words.\n"]),
    ],
    ids=[
        *("emulator", "ipv6", "all-addresses", "azure", "endpoints", "endpoints-without-deployment", "callers-own-key"),
        *("limits", "log", "log-of-facts"),
    ],
)
def test_banner_says_where_and_who_and_what_to_try(environ: dict[str, str], words: list[str]) -> None:
    """Its curl works as it stands, but for what only the caller knows."""
    said = banner(load(environ, Path("/none/.env")), 1, "http://up")

    for text in words:
        assert text in said


@pytest.mark.parametrize(
    ("endpoint", "lines"),
    [
        pytest.param("https://x.y", ["  a: a at http://up, API 2024-10-21", "  b: b at http://up, API v1"], id="one"),
        pytest.param(
            "https://x.y,https://z.y", ["  a: a at each endpoint", "  b: b at each endpoint, API v1"], id="two"
        ),
    ],
)
def test_banner_says_where_entries_without_an_endpoint_are(tmp_path: Path, endpoint: str, lines: list[str]) -> None:
    """They are at ENDPOINT, or at each of several, where the version is that one's unless they say one."""
    (tmp_path / "c.yaml").write_text("deployments: [{name: a}, {name: b, api_version: v1}]")
    settings = load({"ENDPOINT": endpoint, "CONFIG_FILE": str(tmp_path / "c.yaml")}, tmp_path / ".env")
    assert answering(settings, "http://up")[-2:] == lines


def test_banner_says_which_model_falls_back_on_which() -> None:
    """Fallbacks stand among the models."""
    settings = load({**AZURE, "MODEL_FALLBACK": "gpt-4o=d", "MODEL_MAPPER": "gpt-4o=e"}, Path("/none/.env"))
    assert answering(settings, "http://up")[-2:] == ["  gpt-4o: e", "  gpt-4o falls back on d"]
