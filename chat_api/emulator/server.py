"""Puts an emulator on a socket of its own, over real HTTP, within the running event loop or alone."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from chat_api.emulator.app import Emulator
from chat_api.emulator.exchange import TRANSPORT

KEEPALIVE_SECONDS = 120  # Azure keeps idle connections for about two minutes


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol, with a way for faults to reach the socket, and without an access log of its own."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.access_log = False  # not by configuration, which would silence the gateway's as well

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT: {"transport": self.transport}}


class _QuietServer(uvicorn.Server):
    """A server within another's event loop: the signals are that one's."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


def _config(emulator: Emulator) -> uvicorn.Config:
    return uvicorn.Config(
        emulator,
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        server_header=False,
        timeout_keep_alive=KEEPALIVE_SECONDS,
        timeout_graceful_shutdown=1,
    )


@contextlib.asynccontextmanager
async def open_emulator(emulator: Emulator, sock: socket.socket | None = None) -> AsyncIterator[str]:
    """Serve the emulator on a free loopback port, or on `sock`, while the context is open; gives its base URL."""
    if sock is None:
        sock = socket.create_server(("127.0.0.1", 0), backlog=2048)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    host, port = sock.getsockname()[:2]
    server = _QuietServer(_config(emulator))
    task = asyncio.create_task(server.serve(sockets=[sock]), name="emulator")
    try:
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        await task


def run_emulator(emulator: Emulator, sock: socket.socket) -> None:
    """Serve the emulator on `sock` until SIGTERM or SIGINT."""
    uvicorn.Server(_config(emulator)).run(sockets=[sock])
