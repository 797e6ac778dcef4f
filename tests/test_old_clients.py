"""HTTP/1.0 clients, nginx's proxy among them: only the end of the connection tells them whether an answer is whole."""

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterator

import pytest

from tests.servers import gateway
from tests.test_relaying import listening, replying

WORD = b'data: {"choices":[{"index":0,"delta":{"content":"word"}}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
EVENTS = (WORD, STOP, b"data: [DONE]\n\n")
# What is asked, what the upstream answers, and what of that a client has to get.
KINDS = {
    "audio": ("/v1/audio/speech", {"model": "tts", "input": "x"}, "audio/mpeg", (b"mp3", b"mp3"), b"mp3"),
    "events": (
        "/v1/chat/completions",
        {"model": "m", "messages": [], "stream": True},
        "text/event-stream",
        EVENTS,
        WORD,
    ),
    "text": ("/v1/gpt/chat", {"prompt": "x", "stream": True}, "text/event-stream", EVENTS, b"word"),
}


@contextlib.contextmanager
def asked(kind: str, *, is_whole: bool, version: str) -> Iterator[socket.socket]:
    """A client's connection on which it has asked for an answer that has no length, and that may break off."""
    path, body, media_type, pieces, _ = KINDS[kind]
    chunks = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces]
    raw = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ntransfer-encoding: chunked\r\n\r\n" % media_type.encode()
    raw += b"".join([*chunks, b"0\r\n\r\n"] if is_whole else chunks[:1])
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/{version}\r\nhost: localhost\r\naccept: text/plain\r\ncontent-type: application/json\r\n"
    with (
        listening(replying(raw)) as port,
        gateway(ENDPOINT=f"http://127.0.0.1:{port}") as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock,
    ):
        sock.sendall(f"{head}connection: close\r\ncontent-length: {len(content)}\r\n\r\n".encode() + content)
        yield sock


def received(sock: socket.socket) -> tuple[bytes, bool]:
    """What comes, and whether it comes to an end, not to a reset."""
    got = b""
    try:
        while part := sock.recv(65536):
            got += part
    except ConnectionResetError:
        return got, False
    return got, True


@pytest.mark.parametrize("kind", KINDS)
def test_answer_that_broke_off_ends_in_a_reset(kind: str) -> None:
    """An answer whose length is told by nothing but its end does not look complete where it is not."""
    with asked(kind, is_whole=False, version="1.0") as sock:
        got, ended = received(sock)

    assert not ended
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\ntransfer-encoding:" not in got
    assert KINDS[kind][-1] in got


@pytest.mark.parametrize("kind", KINDS)
def test_complete_answer_ends_in_an_end(kind: str) -> None:
    """What is whole is not taken for broken, and none of it is lost."""
    with asked(kind, is_whole=True, version="1.0") as sock:
        got, ended = received(sock)

    assert ended
    head, _, body = got.partition(b"\r\n\r\n")
    assert b"\r\nconnection: close" in head
    assert body == {"audio": b"mp3mp3", "events": b"".join(EVENTS), "text": b"word"}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_newer_client_is_told_by_the_missing_last_chunk(kind: str) -> None:
    """A client that knows chunks gets no last one with an answer that broke off."""
    with asked(kind, is_whole=False, version="1.1") as sock:
        got, _ = received(sock)

    assert KINDS[kind][-1] in got
    assert not got.endswith(b"0\r\n\r\n")


def test_client_that_is_slow_gets_all_of_a_complete_answer() -> None:
    """A large answer that was sent whole arrives whole, however much of it was on its way when it ended."""
    size = 3_000_000

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\nconnection: close\r\n\r\n" + b"x" * size)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    with (
        listening(answer) as port,
        gateway(ENDPOINT=f"http://127.0.0.1:{port}") as server,
        socket.socket() as sock,
    ):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(10)
        sock.connect(("127.0.0.1", server.port))
        sock.sendall(b"GET /v1/files/f/content HTTP/1.0\r\nhost: localhost\r\n\r\n")
        got, ended = received(sock)

    assert ended
    assert len(got.partition(b"\r\n\r\n")[2]) == size
