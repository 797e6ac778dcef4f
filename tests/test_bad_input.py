"""What nobody should send, over raw sockets: each gets a JSON error, and the server goes on as before."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import CLI, PYTHON_APP, process
from tests.servers import Gateway, gateway

MIB = 1024 * 1024
HEAD = b"host: localhost\r\ncontent-type: application/json\r\n"
CHAT = b"POST /v1/chat/completions HTTP/1.1\r\n" + HEAD


@pytest.fixture(scope="module")
def server() -> Iterator[Gateway]:
    """A gateway with the least settings."""
    with gateway() as running:
        yield running


def chat(body: bytes) -> bytes:
    """A chat request with this body."""
    return CHAT + b"content-length: %d\r\n\r\n" % len(body) + body


def asking(model: str) -> bytes:
    """A chat request for a model."""
    return chat(json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}]}).encode())


def path(path: bytes) -> bytes:
    """A GET of a path."""
    return b"GET " + path + b" HTTP/1.1\r\n" + HEAD + b"\r\n"


def talk(port: int, request: bytes) -> tuple[int, dict[str, object], bool]:
    """`(status, JSON body, whether the server closed)` of the answer to these bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received:
            received += sock.recv(65536)
        head, _, body = received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        while len(body) < length:
            body += sock.recv(65536)
        sock.settimeout(0.05)
        closed = False
        with contextlib.suppress(TimeoutError):
            closed = sock.recv(1) == b""
    return int(head.split()[1]), json.loads(body), closed


BODIES = {
    "not-json": (chat(b"{nope"), 400, "invalid_json"),
    "array": (chat(b"[1]"), 400, "invalid_json"),
    "text": (chat(b'"hi"'), 400, "invalid_json"),
    "null": (chat(b"null"), 400, "invalid_json"),
    "not-utf-8": (chat(b'{"model": "\xff"}'), 400, "invalid_model"),
    "deep": (chat(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), 400, "invalid_json"),
    "empty": (chat(b""), 400, "empty_body"),
    "model-is-a-number": (chat(b'{"model": 5}'), 400, "invalid_model"),
    "model-is-an-object": (chat(b'{"model": {"a": 1}}'), 400, "invalid_model"),
    "messages-missing": (chat(b'{"model": "gpt-4o"}'), 400, None),
    "messages-of-a-wrong-type": (chat(b'{"model": "gpt-4o", "messages": 7}'), 400, None),
    "compressed": (
        CHAT + b"content-encoding: gzip\r\ncontent-length: 2\r\n\r\n\x1f\x8b",
        415,
        "unsupported_media_type",
    ),
    "form-without-boundary": (
        b"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data\r\n"
        b"content-length: 2\r\n\r\nxx",
        400,
        "invalid_form",
    ),
}
MODELS = {
    "slash": (asking("a/b"), 404, "DeploymentNotFound"),
    "dots": (asking(".."), 400, "invalid_model"),
    "traversal": (asking("../../files"), 400, "invalid_model"),
    "backslashes": (asking("..\\..\\files"), 400, "invalid_model"),
    "question-mark": (asking("a?api-version=x"), 404, "DeploymentNotFound"),
    "hash": (asking("a#b"), 404, "DeploymentNotFound"),
    "quoted-slash": (asking("a%2fb"), 404, "DeploymentNotFound"),
    "quoted-dots": (asking("%2e%2e%2f"), 404, "DeploymentNotFound"),
    "line-ends": (asking("a\r\nx-evil: 1"), 400, "invalid_model"),
    "nul": (asking("a\0b"), 400, "invalid_model"),
    "other-host": (asking("@evil.example"), 404, "DeploymentNotFound"),
    "very-long": (asking("a" * 5000), 400, "invalid_model"),
    "empty-is-none": (asking(""), 200, None),
}
PATHS = {
    "traversal": (path(b"/v1/../admin"), 400, "invalid_path"),
    "quoted-traversal": (path(b"/v1/%2e%2e/admin"), 400, "invalid_path"),
    "quoted-slashes": (path(b"/v1/files/..%2f..%2fadmin"), 400, "invalid_path"),
    "backslash": (path(b"/v1/files/..%5cadmin"), 400, "invalid_path"),
    "quoted-line-end": (path(b"/v1/files/a%0d%0ax"), 400, "invalid_path"),
    "quoted-tab": (path(b"/v1/files/a%09x"), 400, "invalid_path"),
    "not-utf-8": (path(b"/v1/files/%ff"), 400, "invalid_path"),
    "doubled-slash": (path(b"/v1//models"), 404, "unknown_path"),
    "doubled-slash-first": (path(b"//v1/models"), 404, "unknown_path"),
    "beside-the-simple-endpoint": (path(b"/v1/gpt/chatt"), 404, "unknown_path"),
    "unknown-operation": (path(b"/v1/nonsense"), 404, "404"),
    "deployment-traversal": (path(b"/openai/deployments/..%2f..%2fx/chat/completions"), 400, "invalid_path"),
}
HTTP = {
    "two-lengths": (CHAT + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello", 400, "invalid_http"),
    "length-and-chunks": (
        CHAT + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "invalid_http",
    ),
    "chunks-and-length": (
        CHAT + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
        400,
        "invalid_http",
    ),
    "negative-length": (CHAT + b"content-length: -1\r\n\r\n", 400, "invalid_http"),
    "no-chunk": (CHAT + b"transfer-encoding: chunked\r\n\r\nzz\r\n", 400, "invalid_http"),
    "no-http": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "invalid_http"),
    "control-character": (path(b"/v1/mod\x01els"), 400, "invalid_http"),
    "space": (path(b"/v1/mod els"), 400, "invalid_http"),
    "connect": (b"CONNECT api.openai.com:443 HTTP/1.1\r\nhost: api.openai.com:443\r\n\r\n", 400, "invalid_http"),
    "endless-head": (b"GET /v1/models HTTP/1.1\r\nx: " + b"a" * MIB, 431, "head_too_large"),
}
HOSTS = {
    "path-in-host": (chat(b"{}").replace(b"localhost", b"a/?x="), 400, "invalid_host"),
    "two-hosts": (chat(b"{}").replace(b"host:", b"host: localhost\r\nhost:"), 400, "invalid_host"),
    "user-in-host": (chat(b"{}").replace(b"localhost", b"localhost@evil.example"), 400, "invalid_host"),
}


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        pytest.param(*row, id=f"{group}-{name}")
        for group, rows in (("body", BODIES), ("model", MODELS), ("path", PATHS), ("host", HOSTS))
        for name, row in rows.items()
    ],
)
def test_bad_request_is_answered_in_json(server: Gateway, request_: bytes, status: int, code: str | None) -> None:
    """A bad body, model, path or host gets its status and code, on a connection that goes on."""
    answered, body, closed = talk(server.port, request_)

    assert answered == status
    if status != 200:
        error = body["error"]
        assert isinstance(error, dict)
        assert set(error) == {"message", "type", "param", "code"}
        assert (error["code"], bool(error["message"])) == (code, True)
    assert not closed


@pytest.mark.parametrize(("request_", "status", "code"), HTTP.values(), ids=HTTP)
def test_what_is_no_http_is_answered_and_the_connection_closed(
    server: Gateway, request_: bytes, status: int, code: str
) -> None:
    """After bytes that can be read in two ways nothing on that connection can be trusted."""
    with contextlib.suppress(ConnectionResetError):  # what was not read of a head without end
        answered, body, closed = talk(server.port, request_)
        error = body["error"]
        assert isinstance(error, dict)
        assert (answered, error["code"], closed) == (status, code, True)

    assert server.chat(prompt="hello").status_code == 200


def memory(pid: int) -> int:
    """The most memory that a process has had resident, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@pytest.mark.parametrize(
    ("path_", "framing"),
    [
        pytest.param(b"/v1/chat/completions", b"content-length: 209715200\r\n", id="json-with-a-length"),
        pytest.param(b"/v1/chat/completions", b"transfer-encoding: chunked\r\n", id="json-without"),
        pytest.param(b"/v1/files", b"content-length: 209715200\r\n", id="upload-with-a-length"),
        pytest.param(b"/v1/files", b"transfer-encoding: chunked\r\n", id="upload-without"),
    ],
)
def test_200_megabytes_are_refused_in_bounded_memory(large: tuple[int, int], path_: bytes, framing: bytes) -> None:
    """A body above the limit is 413, by its length or as it comes, and is never held."""
    pid, port = large
    before = memory(pid)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        sock.sendall(b"POST " + path_ + b" HTTP/1.1\r\n" + HEAD + framing + b"\r\n")
        pushing = threading.Thread(target=push, args=(sock, b"chunked" in framing))
        pushing.start()
        answer = b""
        while b"body_too_large" not in answer:
            answer += sock.recv(65536)
        sock.shutdown(socket.SHUT_RDWR)
        pushing.join()

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert memory(pid) - before < 24 * MIB


@pytest.fixture(scope="module")
def large() -> Iterator[tuple[int, int]]:
    """The process and port of a gateway whose limits are 4 MiB for JSON and 64 MiB for uploads."""
    limits = {"MAX_BODY_BYTES": str(4 * MIB), "MAX_UPLOAD_BYTES": str(64 * MIB), "KEY": "k", "DEPLOYMENT_NAME": "d"}
    with process(CLI, "emulate", "--port", "0") as emulator:
        upstream = emulator.wait_for(r"emulator at (http://\S+)")[1]
        with process(*PYTHON_APP, ENDPOINT=upstream, **limits) as running:
            yield running.pid, int(running.wait_for(r"listens at http://127\.0\.0\.1:(\d+)")[1])


def push(sock: socket.socket, chunked: bool) -> None:
    """Send 200 MB, or as much of it as is taken."""
    piece = b"x" * MIB
    with contextlib.suppress(OSError):
        for _ in range(200):
            sock.sendall(b"100000\r\n" + piece + b"\r\n" if chunked else piece)
