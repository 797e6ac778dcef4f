"""Emulators for tests, on sockets of their own, with a clock that stands still."""

import contextlib
from collections.abc import Iterator

import httpx2 as httpx

from chat_api.emulator import Emulator, open_emulator
from tests.servers import in_thread

CHAT = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"
V1 = "/openai/v1/chat/completions"


class Clock:
    """A clock that goes on when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextlib.contextmanager
def emulated(emulator: Emulator) -> Iterator[httpx.Client]:
    """A client of the emulator, which runs in a thread."""
    with in_thread() as run:
        stack = contextlib.AsyncExitStack()
        base_url = run(stack.enter_async_context(open_emulator(emulator)))
        try:
            with httpx.Client(base_url=base_url, headers={"api-key": "k"}, timeout=10) as client:
                yield client
        finally:
            run(stack.aclose())
