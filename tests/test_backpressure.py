"""An upstream that never ends, and clients that do not read: what a stream may cost."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import PYTHON_APP, Process, process
from tests.servers import eventually, in_thread

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc"),
    pytest.mark.alone,
]

STREAMS = 8
MAX_STREAM_BYTES = 4_000_000
CHAT = b'{"model":"d","stream":true}'
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(CHAT), CHAT)
)
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % (b"x" * 8000)
KINDS = {
    "events": b"text/event-stream",
    "bytes": b"audio/mpeg",
}


class Endless:
    """An upstream that sends the same piece for as long as it is taken, and counts."""

    def __init__(self, kind: str) -> None:
        self._type = KINDS[kind]
        self.sent = 0
        self.broken = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ntransfer-encoding: chunked\r\n\r\n" % self._type)
        try:
            while True:
                writer.write(b"%x\r\n%s\r\n" % (len(EVENT), EVENT))
                await writer.drain()
                self.sent += len(EVENT)
        except ConnectionError:
            self.broken += 1


@contextlib.contextmanager
def serving(upstream: Endless) -> Iterator[tuple[Process, int]]:
    """A gateway process in front of it, and its port."""
    with in_thread() as run:
        server = run(asyncio.start_server(upstream, "127.0.0.1", 0))
        port = server.sockets[0].getsockname()[1]
        settings = {"ENDPOINT": f"http://127.0.0.1:{port}", "KEY": "k", "DEPLOYMENT_NAME": "d"}
        try:
            with process(*PYTHON_APP, **settings) as gateway:
                yield gateway, int(gateway.wait_for(r"listens at http://127.0.0.1:(\d+)")[1])
        finally:
            server.close()


def resident_bytes(gateway: Process) -> int:
    """The memory that the process holds."""
    status = Path(f"/proc/{gateway.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def stalls(upstream: Endless) -> bool:
    """Whether the upstream gets rid of nothing more."""
    before = upstream.sent
    return not eventually(lambda: upstream.sent > before, 0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_endless_answer_to_clients_that_do_not_read_stays_small(kind: str) -> None:
    """What nobody takes is not read either: each stream holds less than 4 MB, and all end when their clients leave."""
    upstream = Endless(kind)
    clients = []
    with serving(upstream) as (gateway, port):
        try:
            with socket.create_connection(
                ("127.0.0.1", port)
            ) as first:  # what the first stream loads is no stream's own
                first.sendall(REQUEST)
                assert first.recv(65536)
            before = resident_bytes(gateway)
            for _ in range(STREAMS):
                client = socket.create_connection(("127.0.0.1", port))
                client.sendall(REQUEST)
                clients.append(client)
            assert eventually(lambda: stalls(upstream), 20)
            grown = resident_bytes(gateway) - before
            taken = [len(client.recv(65536)) for client in clients]
        finally:
            for client in clients:
                client.close()
        assert eventually(lambda: upstream.broken == STREAMS + 1, 10)

    assert all(taken)
    assert grown / STREAMS < MAX_STREAM_BYTES
