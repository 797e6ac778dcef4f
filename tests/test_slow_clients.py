"""Clients that are slow, silent or many, over raw sockets; what waits for them does not wait for ever."""

import contextlib
import json
import resource
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from tests.servers import Gateway, eventually, gateway

pytestmark = pytest.mark.alone  # it looks at what happens when

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
BODY = b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}'
WHOLE = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
LIMIT = 0.4  # seconds, of every kind of patience


@pytest.fixture(scope="module")
def server() -> Iterator[Gateway]:
    """A gateway with little patience."""
    seconds = {name: str(LIMIT) for name in ("HEADERS_TIMEOUT", "BODY_TIMEOUT", "READER_TIMEOUT")}
    with gateway(**seconds) as running:
        yield running


@contextlib.contextmanager
def connected(server: Gateway, *, receive_buffer: int | None = None) -> Iterator[socket.socket]:
    """A connection to the gateway."""
    with socket.socket() as sock:
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(10)
        sock.connect(("127.0.0.1", server.port))
        yield sock


def everything(sock: socket.socket) -> bytes:
    """What comes until the server closes."""
    received = b""
    while part := sock.recv(65536):
        received += part
    return received


STOPPED = {
    "head": (HEAD, "HEADERS_TIMEOUT"),
    "first-byte-of-a-head": (b"P", "HEADERS_TIMEOUT"),
    "no-body": (HEAD + b"content-length: 50\r\n\r\n", "BODY_TIMEOUT"),
    "part-of-a-body": (HEAD + b"content-length: 50\r\n\r\n{", "BODY_TIMEOUT"),
    "chunks": (HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n", "BODY_TIMEOUT"),
}


@pytest.fixture(scope="module")
def stopped(server: Gateway) -> dict[str, bytes]:
    """What each request that stops gets; all of them stop at the same time."""
    with contextlib.ExitStack() as stack:
        sockets = {name: stack.enter_context(connected(server)) for name in STOPPED}
        for name, sock in sockets.items():
            sock.sendall(STOPPED[name][0])
        return {name: everything(sock) for name, sock in sockets.items()}


@pytest.mark.parametrize("name", STOPPED)
def test_request_that_stops_is_answered_408(stopped: dict[str, bytes], name: str) -> None:
    """A head or a body that does not come is 408, names the setting, and the connection is closed."""
    answer = stopped[name]

    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert error["code"] == "request_timeout"
    assert STOPPED[name][1] in error["message"]


def test_head_that_trickles_is_not_waited_for(server: Gateway) -> None:
    """Sending a byte now and then does not buy time for a head: all of it has to come."""
    with connected(server) as sock:
        sock.settimeout(0.05)
        answer = b""
        deadline = time.monotonic() + 10
        while not answer and time.monotonic() < deadline:
            with contextlib.suppress(BrokenPipeError):
                sock.sendall(b"G" if deadline - time.monotonic() > 9.99 else b"E")
            with contextlib.suppress(TimeoutError):
                answer = sock.recv(65536)

    assert answer.startswith((b"HTTP/1.1 408 ", b"HTTP/1.1 400 "))


def test_body_that_goes_on_slowly_is_waited_for(server: Gateway) -> None:
    """Only silence within a body is timed, not the body."""
    with connected(server) as sock:
        sock.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(BODY))
        started = time.monotonic()
        for byte in BODY:
            sock.sendall(bytes([byte]))
            time.sleep(LIMIT / 16)
        answer = sock.recv(65536)

    assert time.monotonic() - started > 2 * LIMIT
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


def test_upload_that_falls_silent_lets_go_of_the_upstream(server: Gateway) -> None:
    """A file that stops half-way closes the call to the upstream as well."""
    with connected(server) as sock:
        head = b"POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=x\r\n"
        sock.sendall(head + b"content-length: 100000\r\n\r\n" + b"--x\r\n" + b"y" * 1000)
        answer = everything(sock)

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert eventually(lambda: server.emulator.open_calls == 0)


def test_reader_that_stalls_is_cut_and_its_upstream_let_go(server: Gateway) -> None:
    """A client that takes nothing of a long answer is cut, and the call upstream is closed."""
    prompt = "word " * 200_000
    body = json.dumps({"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": prompt}]}).encode()
    with connected(server, receive_buffer=4096) as sock:
        sock.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
        assert eventually(lambda: server.emulator.open_calls == 1, 5)
        assert eventually(lambda: server.emulator.open_calls == 0, 10)
        received = everything(sock)

    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"[DONE]" not in received


def test_waiting_for_the_upstream_is_not_the_clients_silence(server: Gateway) -> None:
    """Nobody is shed while it is the upstream that takes its time."""
    answer = server.client.post(
        "/v1/chat/completions", json={"model": "fault-slow", "messages": [{"role": "user", "content": "hi"}]}
    )

    assert answer.status_code == 200


def test_connection_that_says_nothing_is_closed(server: Gateway) -> None:
    """A client that connects and sends no head at all is let go of as well."""
    with connected(server) as sock:
        assert everything(sock) == b""


def test_pipelined_request_does_not_cut_the_answer_in_flight(server: Gateway) -> None:
    """The rest of a second request is not waited for: the first answer takes its time and arrives whole."""
    body = json.dumps({"model": "fault-slow", "messages": [{"role": "user", "content": "hi"}]}).encode()
    with connected(server) as sock:
        sock.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body + HEAD)
        answer = everything(sock)

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"}")


def test_body_that_ends_after_its_answer_leaves_an_idle_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection whose request was answered before it was complete is idle then, and closed like any other."""
    monkeypatch.setattr("chat_api.protocol.KEEPALIVE_SECONDS", LIMIT)
    with gateway() as server, connected(server) as sock:
        sock.sendall(b"POST /nowhere HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n12345")
        received = b""
        while not received.endswith(b"}"):
            received += sock.recv(65536)
        sock.sendall(b"67890")
        received += everything(sock)

    assert received.count(b"HTTP/1.1 ") == 1


def test_slow_reader_is_not_taken_for_one_that_stalls(server: Gateway) -> None:
    """A client that reads slowly but steadily gets all of a long answer."""
    prompt = "word " * 200_000
    body = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": prompt}]}).encode()
    with connected(server, receive_buffer=65536) as sock:
        sock.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += sock.recv(1000)
        length = int(answer.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        received = len(answer.partition(b"\r\n\r\n")[2])
        while received < length:
            received += len(sock.recv(65536) or pytest.fail("it was cut"))
            time.sleep(LIMIT / 8)

    assert received == length


def test_2000_idle_connections_disturb_nobody() -> None:
    """With 2,000 connections that say nothing, a call is answered as ever; and they are still there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 8192:
        pytest.skip(f"only {hard} open files are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 8192), hard))
    idle = []
    try:
        with gateway() as server:
            for _ in range(2000):
                sock = socket.create_connection(("127.0.0.1", server.port))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                idle.append(sock)
            statuses = [server.chat(prompt="hello").status_code for _ in range(20)]
            idle[0].sendall(WHOLE)
            answer = idle[0].recv(65536)
    finally:
        for sock in idle:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert statuses == [200] * 20
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
