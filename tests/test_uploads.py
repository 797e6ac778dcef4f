"""Uploads that an upstream refuses before they have come: how long that may take, and who may end it."""

import asyncio
import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from tests.servers import Gateway, eventually, gateway
from tests.test_relaying import listening

HEAD = b"POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=x\r\n"
BEGUN = HEAD + b"content-length: 10000000\r\n\r\n" + b"x" * 300_000  # more than is held of a request
REFUSAL = b"HTTP/1.1 413 Content Too Large\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{"
IDLE_SECONDS = 0.4


class Refusing:
    """An upstream that refuses an upload, but not to the end of what it has to say.

    Args:
        reads: whether it goes on reading the upload; if not, it does when it is told to.
    """

    def __init__(self, *, reads: bool) -> None:
        self._reads = threading.Event()
        if reads:
            self.read_on()
        self.refused = False
        self.let_go = False

    def read_on(self) -> None:
        """Go on reading the upload: else it would not see its end."""
        self._reads.set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        await reader.readuntil(b"\r\n\r\n")
        writer.write(REFUSAL)
        await writer.drain()
        self.refused = True
        await asyncio.to_thread(self._reads.wait, 20)
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass
        self.let_go = True
        writer.close()


@contextlib.contextmanager
def refused(upstream: Refusing, *, idle_seconds: float) -> Iterator[tuple[Gateway, socket.socket]]:
    """A gateway in front of it, and a client that has sent a part of its upload, and sends no more."""
    with (
        listening(upstream) as port,
        gateway(ENDPOINT=f"http://127.0.0.1:{port}", IDLE_TIMEOUT=str(idle_seconds)) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock,
    ):
        sock.sendall(BEGUN)
        assert eventually(lambda: upstream.refused, 5)
        try:
            yield server, sock
        finally:
            upstream.read_on()


@pytest.mark.parametrize("reads", [True, False], ids=["upload-is-read", "upload-is-not-read"])
def test_refusal_that_stalls_ends_by_idle_timeout(reads: bool) -> None:
    """A refusal of which a part does not come is 504 within two times IDLE_TIMEOUT, and its connection is closed."""
    upstream = Refusing(reads=reads)
    with refused(upstream, idle_seconds=IDLE_SECONDS) as (_, sock):
        begun = time.monotonic()
        answer = sock.recv(65536)
        seconds = time.monotonic() - begun
        upstream.read_on()
        assert eventually(lambda: upstream.let_go, 5)

    assert answer.startswith(b"HTTP/1.1 504 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "upstream_timeout"
    assert seconds < 2 * IDLE_SECONDS + 1


@pytest.mark.parametrize("resets", [True, False], ids=["reset", "end"])
@pytest.mark.parametrize("reads", [True, False], ids=["upload-is-read", "upload-is-not-read"])
def test_client_that_leaves_ends_its_refused_upload(reads: bool, resets: bool) -> None:
    """Though most of its upload was never asked for, a client that leaves is noticed, and its call let go of."""
    upstream = Refusing(reads=reads)
    with refused(upstream, idle_seconds=600) as (_, sock):
        if resets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        upstream.read_on()
        assert eventually(lambda: upstream.let_go, 5)


def test_gateway_goes_on_after_a_refused_upload() -> None:
    """The connection of an upload that was refused is closed, and the next request has a new one."""
    upstream = Refusing(reads=True)
    with refused(upstream, idle_seconds=IDLE_SECONDS) as (server, sock):
        assert sock.recv(65536).startswith(b"HTTP/1.1 504 ")
        answers = [server.client.get("/health").status_code, server.client.get("/v1/files/f").status_code]

    assert answers == [200, 504]
