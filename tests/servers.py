"""Real servers for tests: a gateway and its emulated resource, on sockets of their own, in a thread."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
from starlette.types import ASGIApp

from chat_api import settings
from chat_api.app import create_app
from chat_api.emulator import Emulator, open_emulator
from chat_api.protocol import SheddingServer
from chat_api.server import listen, server_config
from tests.canaries import Listening

KEY = "canary-azure-key"
NO_FILE = Path("/nonexistent/.env")


@dataclass
class Gateway:
    """A running gateway: a client for it, its port, and the emulator behind it."""

    client: httpx.Client
    port: int
    emulator: Emulator

    def chat(self, **fields: object) -> httpx.Response:
        """Post the fields as JSON."""
        return self.client.post("/v1/gpt/chat", json=fields)


class _Server(SheddingServer):
    """A server in a thread: the signals are pytest's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        """What happens ten times a second happens a hundred times."""
        counter = 0
        while not await self.on_tick(counter):
            counter += 1
            await asyncio.sleep(0.01)


@contextlib.contextmanager
def gateway(**environ: str) -> Iterator[Gateway]:
    """A gateway with these settings, in front of an emulator that accepts only `KEY`."""
    emulator = Emulator(keys=frozenset({KEY}))
    with in_thread() as run:
        stack = contextlib.AsyncExitStack()
        base_url = run(stack.enter_async_context(open_emulator(emulator)))
        values = settings.load({"ENDPOINT": base_url, "DEPLOYMENT_NAME": "gpt-4o", "KEY": KEY, **environ}, NO_FILE)
        port = run(stack.enter_async_context(serving(create_app(values), values)))
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
                yield Gateway(client, port, emulator)
        finally:
            run(stack.aclose())


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, values: settings.Settings):  # type: ignore[no-untyped-def]
    """Serve the app as the command line does, but on a free port and without its logging; gives the port."""
    sock = listen("127.0.0.1", 0)
    listening = Listening(app)
    config = server_config(values, listening)  # type: ignore[arg-type]
    config.timeout_graceful_shutdown = 1
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        yield sock.getsockname()[1]
    finally:
        server.should_exit = True
        await task
    assert not listening.heard, f"keys came out: {listening.heard}"


@contextlib.contextmanager
def in_thread() -> Iterator[Callable[..., Any]]:
    """An event loop in a thread; the function it gives runs a coroutine there and returns its result."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result(20)
    finally:
        asyncio.run_coroutine_threadsafe(_cancel_the_rest(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _cancel_the_rest() -> None:
    """What asyncio.run does at its end, for tasks such as sse-starlette's watcher, which outlives its server."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


def eventually(true: Callable[[], bool], seconds: float = 1.0) -> bool:
    """Whether it becomes true within so many seconds."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
