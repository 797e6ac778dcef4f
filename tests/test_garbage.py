"""What a connection leaves in memory once it is closed: nothing, and without Python's collector of cycles."""

import asyncio
import gc
import json
import re
import socket
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from chat_api.answer import Cycle
from chat_api.judging import RelayedBody
from chat_api.passing import EventPassage
from chat_api.protocol import Protocol
from chat_api.wire.connection import Connection
from chat_api.wire.response import Response
from tests.hops import LOOPS, Peer
from tests.servers import Gateway, eventually, gateway
from tests.test_relaying import listening

TYPES = (Protocol, Cycle, Connection, Response, RelayedBody, EventPassage)
CONNECTIONS = 10
PATIENCE = 5.0  # seconds
CLIENT_KEY = "canary-client-key"
CHAT = "/v1/chat/completions"
WORD = b'data: {"choices":[{"index":0,"delta":{"content":"word"}}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
EVENTS = WORD + STOP + b"data: [DONE]\n\n"
ERROR = b'{"error":{"message":"no","type":"t","param":null,"code":"c"}}'
COMPLETION = b'{"choices":[{"index":0,"message":{"content":"word"},"finish_reason":"stop"}]}'


def said(kind: bytes, body: bytes, status: bytes = b"200 OK", *, missing: int = 0) -> bytes:
    """What an upstream says: an answer, of which some bytes may be missing."""
    size = len(body) + missing
    head = b"HTTP/1.1 %s\r\nconnection: close\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n"
    return head % (status, kind, size) + body


class Asked(NamedTuple):
    """A call: where it goes, whether it is for a stream, what the upstream says to it, and what its answer is."""

    path: str
    stream: bool
    said: bytes
    status: int
    end: bytes = b"}"


# No upstream connection is kept: each of them has to be gone as well.
CALLS = {
    "whole": Asked(CHAT, False, said(b"application/json", COMPLETION), 200),
    "stream": Asked(CHAT, True, said(b"text/event-stream", EVENTS), 200, b"[DONE]\n\n\r\n0\r\n\r\n"),
    "bytes": Asked("/v1/audio/speech", False, said(b"audio/mpeg", b"mp3"), 200, b"mp3"),
    "simple": Asked("/v1/gpt/chat", False, said(b"application/json", COMPLETION), 200),
    "path-that-is-none": Asked("/v1/../x", False, b"", 400),
    "not-found": Asked("/nowhere", False, b"", 404),
    "other-method": Asked("/v1/models", False, b"", 405),
    "refused": Asked(CHAT, True, said(b"application/json", ERROR, b"400 Bad"), 400),
}
FAILED = {
    "no-key": Asked(CHAT, False, b"", 401),
    "refused-in-no-shape": Asked(CHAT, False, said(b"application/json", b"{}", b"429 Too Many"), 429),
    "no-http": Asked(CHAT, False, b"nonsense\r\n\r\n", 502),
    "broken-json": Asked(CHAT, False, said(b"application/json", b"{", missing=9), 502),
    "simple-refused": Asked("/v1/gpt/chat", False, said(b"application/json", b"{}", b"429 Too Many"), 429),
    "simple-no-answer": Asked("/v1/gpt/chat", False, said(b"application/json", b"{}"), 502),
}
CUT = {
    "broken-stream": Asked(CHAT, True, said(b"text/event-stream", WORD, missing=9), 200),
    "broken-bytes": Asked("/v1/audio/speech", False, said(b"audio/mpeg", b"mp3", missing=9), 200),
}
LEFT = {
    "hangs": Asked(CHAT, False, b"", 0),
    "stalls": Asked(CHAT, True, said(b"text/event-stream", WORD, missing=100), 0),
    "stalls-too": Asked("/v1/audio/speech", False, said(b"audio/mpeg", b"mp3", missing=100), 0),
}


EVERY = CALLS | FAILED | CUT | LEFT


class Upstream:
    """Says to each deployment's call what the table has for it, and leaves open what a client is to leave."""

    def __init__(self) -> None:
        self.waiting = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        peer = Peer(reader, writer)
        deployment = re.search(rb"/deployments/([^/]+)/", (await peer.request()).head)
        assert deployment is not None
        kind = deployment[1].decode()
        await peer.send(EVERY[kind].said)
        if kind in LEFT:
            self.waiting += 1
            await peer.ended()
            self.waiting -= 1
        writer.close()


@pytest.fixture(scope="module")
def upstream() -> Upstream:
    """What stands behind the gateway."""
    return Upstream()


@pytest.fixture(scope="module", params=LOOPS)
def server(request: pytest.FixtureRequest, upstream: Upstream) -> Iterator[Gateway]:
    """A gateway on each kind of event loop."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "new_event_loop", LOOPS[request.param])
        with (
            listening(upstream) as port,
            gateway(ENDPOINT=f"http://127.0.0.1:{port}", CLIENT_KEYS=CLIENT_KEY) as running,
        ):
            yield running


@pytest.fixture(autouse=True)
def uncollected() -> Iterator[None]:
    """No cycle is collected while a test runs."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def alive() -> Counter[str]:
    """How many there are of what a connection, or an answer, consists of."""
    return Counter(type(one).__name__ for one in gc.get_objects() if type(one) in TYPES)


def request(kind: str, *, close: bool = False) -> bytes:
    """The bytes of a call."""
    asked = EVERY[kind]
    content = json.dumps({"model": kind, "messages": [], "prompt": "x", "stream": asked.stream}).encode()
    head = (
        f"POST {asked.path} HTTP/1.1\r\nhost: localhost\r\napi-key: {CLIENT_KEY}\r\ncontent-type: application/json\r\n"
    )
    head += f"connection: {'close' if close else 'keep-alive'}\r\ncontent-length: {len(content)}\r\n\r\n"
    return head.encode() + content


def answer(sock: socket.socket, asked: Asked) -> bytes:
    """An answer, to its end."""
    received = b""
    while b"\r\n\r\n" not in received or not received.endswith(asked.end):
        part = sock.recv(65536)
        assert part, received
        received += part
    return received


@pytest.mark.parametrize("kind", CALLS)
def test_closed_connections_leave_nothing(server: Gateway, kind: str) -> None:
    """Whether a call is answered or refused, of its connections and its answer nothing is left when they are closed."""
    before = alive()
    for number in range(CONNECTIONS):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
            sock.sendall(request(kind, close=number % 2 == 0))
            assert answer(sock, CALLS[kind]).startswith(b"HTTP/1.1 %d " % CALLS[kind].status)

    assert eventually(lambda: alive() == before, PATIENCE), alive()


@pytest.mark.parametrize("kind", LEFT)
def test_clients_that_leave_leave_nothing(server: Gateway, upstream: Upstream, kind: str) -> None:
    """A client that goes while its answer is still to come, or is coming, takes everything with it."""
    before = alive()
    for _ in range(CONNECTIONS):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
            sock.sendall(request(kind))
            assert eventually(lambda: upstream.waiting == 1, PATIENCE)
        assert eventually(lambda: upstream.waiting == 0, PATIENCE)

    assert eventually(lambda: alive() == before, PATIENCE), alive()


@pytest.mark.parametrize("kind", CALLS)
def test_kept_connection_gathers_nothing(server: Gateway, kind: str) -> None:
    """After many requests a connection holds what it held after the first, and when it is closed nothing."""
    before = alive()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        for _ in range(CONNECTIONS):
            sock.sendall(request(kind))
            answer(sock, CALLS[kind])
        assert eventually(lambda: alive() - before == Counter(Protocol=1, Cycle=1), PATIENCE), alive()

    assert eventually(lambda: alive() == before, PATIENCE), alive()


@pytest.mark.parametrize("kind", [*FAILED, *CUT])
def test_calls_that_fail_leave_nothing(server: Gateway, kind: str) -> None:
    """However a call fails, nothing is left of its connections when they are closed."""
    raw = request(kind)
    if kind == "no-key":
        raw = raw.replace(CLIENT_KEY.encode(), b"another")
    before = alive()
    for _ in range(CONNECTIONS):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
            sock.sendall(raw)
            if kind in CUT:
                while sock.recv(65536):
                    pass
            else:
                assert answer(sock, FAILED[kind]).startswith(b"HTTP/1.1 %d " % FAILED[kind].status)

    assert eventually(lambda: alive() == before, PATIENCE), alive()
