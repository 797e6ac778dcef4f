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
BACKLOG = 2048
FOLLOW_SECONDS = 5.0  # for a loop that is busy, before whoever sets an outage is told that it did not come
_OPTIONS = ["TCP_NODELAY", "TCP_NOTSENT_LOWAT"]  # what accepted connections inherit, where the system has it


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol, with a way for faults to reach the socket, and without an access log of its own."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.access_log = False  # not by configuration, which would silence the gateway's as well

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT: {"transport": self.transport}}


class _Server(uvicorn.Server):
    """A server that stops listening while the emulator's outage says that connections are refused."""

    def __init__(self, emulator: Emulator) -> None:
        super().__init__(_config(emulator))
        self._emulator = emulator
        self._loop: asyncio.AbstractEventLoop | None = None
        self._held: socket.socket | None = None  # has the port while nobody listens
        self._opening: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._emulator.on_outage.append(self._follow_at_once)

    async def on_tick(self, counter: int) -> bool:
        self._follow()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._emulator.on_outage.remove(self._follow_at_once)
        if self._opening:
            await self._opening
        if self._held:
            self._held.close()
        await super().shutdown(sockets)

    def _follow_at_once(self) -> None:
        """Follow the outage that was set just now, whichever thread has set it."""
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if self._loop in (here, None):
            self._follow()
        else:
            asyncio.run_coroutine_threadsafe(self._followed(), self._loop).result(FOLLOW_SECONDS)

    async def _followed(self) -> None:
        if self._opening:
            await self._opening
        self._follow()
        await asyncio.sleep(0)  # connections that were cut close in the loop's next turn

    def _follow(self) -> None:
        """Close the door or open it, as the emulator has it. Nothing here waits."""
        if self.should_exit or (self._opening and not self._opening.done()):
            return  # the task calls this once more when it is done
        if self._emulator.refuses and not self._held:
            self._held = _stand_in(self.servers[0])
            for connection in list(self.server_state.connections):
                connection.transport.abort()
        elif self._held and not self._emulator.refuses:
            self._held.listen(BACKLOG)  # who connects now waits until the task has run
            self._opening = asyncio.create_task(self.startup([self._held]), name="reopening")
            self._opening.add_done_callback(lambda _: self._follow())
            self._held = None


def _stand_in(server: asyncio.base_events.Server) -> socket.socket:
    """A socket with the server's address and options that does not listen, so that the port stays ours."""
    (old,) = server.sockets
    new = socket.socket(old.family, old.type)
    new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    options = [(socket.IPPROTO_TCP, getattr(socket, name)) for name in _OPTIONS if hasattr(socket, name)]
    if old.family == socket.AF_INET6:
        options.append((socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
    for level, option in options:
        new.setsockopt(level, option, old.getsockopt(level, option))
    address = old.getsockname()
    server.close()
    new.bind(address)
    return new


class _QuietServer(_Server):
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
        sock = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    host, port = sock.getsockname()[:2]
    server = _QuietServer(emulator)
    task = asyncio.create_task(server.serve(sockets=[sock]), name="emulator")
    try:
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        await task


def run_emulator(emulator: Emulator, sock: socket.socket) -> None:
    """Serve the emulator on `sock` until SIGTERM or SIGINT."""
    _Server(emulator).run(sockets=[sock])
