"""Gateways in processes of their own, with client keys, over emulators: one in a process too, one that is watched."""

import contextlib
import json
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx
from starlette.types import Message, Receive, Scope, Send

from benchmarks.callers import MODEL
from chat_api.callers import digest_of
from chat_api.emulator import DEPLOYMENTS, Emulator, open_emulator
from chat_api.emulator.faults import FAULTS
from tests.processes import CLI, Process, process
from tests.servers import in_thread

KEY = "canary-azure-key"
START_SECONDS = 40  # several at once, on a machine that may be busy
WATCHED = "watched"  # the deployment in this process


class WatchedEmulator(Emulator):
    """An emulator that knows how many calls it had in flight at the most."""

    def __init__(self) -> None:
        super().__init__((WATCHED,), frozenset({KEY}))
        self._in_flight = 0
        self.most_in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3)."""
        is_over = False

        def end() -> None:
            nonlocal is_over
            self._in_flight -= not is_over
            is_over = True

        async def watched(message: Message) -> None:
            body = message.get("body", b"")
            if b"data: [DONE]" in body or (body and not message.get("more_body")):
                end()  # before the gateway can know, and admit another
            await send(message)

        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            await super().__call__(scope, receive, watched)
        finally:
            end()


@dataclass(frozen=True, slots=True)
class Fleet:
    """Gateways, and what is behind them."""

    processes: Sequence[Process]
    ports: Sequence[int]  # of each process, or of each worker
    watched: WatchedEmulator
    environ: Mapping[str, str]  # their settings

    def get(self, path: str, port: int | None = None) -> httpx.Response:
        """What an operator is told, by the first process unless a port is given."""
        return httpx.get(f"http://127.0.0.1:{port or self.ports[0]}{path}", timeout=20)

    def stop(self) -> None:
        """Stop all of them, as an init system does."""
        for one in self.processes:
            one.signal(signal.SIGTERM)
        assert [one.wait() for one in self.processes] == [0] * len(self.processes)


def client_key(name: str, **limits: object) -> dict[str, object]:
    """The entry of a client key that is its own name."""
    return {"name": name, "sha256": digest_of(name).hex(), **limits}


@contextlib.contextmanager
def fleet(
    keys: Sequence[Mapping[str, object]],
    *,
    processes: int = 1,
    workers: int = 1,
    each: Sequence[Mapping[str, str]] = (),
    **environ: str,
) -> Iterator[Fleet]:
    """Gateways with these client keys and settings.

    Args:
        keys: entries of the config file.
        processes: how many.
        workers: of each.
        each: settings of each process besides, instead of a number of them.
        environ: their settings.
    """
    with contextlib.ExitStack() as stack:
        emulator = stack.enter_context(process(CLI, "emulate", "--port", "0", "--key", KEY))
        run = stack.enter_context(in_thread())
        watched, opened = WatchedEmulator(), contextlib.AsyncExitStack()
        watched_url = run(opened.enter_async_context(open_emulator(watched)))
        stack.callback(lambda: run(opened.aclose()))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = emulator.wait_for(r"at (http://\S+)", START_SECONDS)[1]
        rows = [{"name": name, "endpoint": url, "key": KEY} for name in (*DEPLOYMENTS, *FAULTS)]
        rows.append({"name": WATCHED, "endpoint": watched_url, "key": KEY})
        (folder / "config.yaml").write_text(json.dumps({"deployments": rows, "client_keys": keys}))  # JSON is YAML
        values = {
            "CONFIG_FILE": str(folder / "config.yaml"),
            "DEPLOYMENT_NAME": MODEL,
            "LOG_LEVEL": "warning",
            "MAX_ATTEMPTS": "1",
            # The machine may be busy.
            **({"STORE_TIMEOUT": "10"} if "STORE_URL" in environ else {"USAGE_FILE": str(folder / "usage.json")}),
            **environ,
        }
        command = (CLI, "serve", *(("--workers", str(workers)) if workers > 1 else ()))
        started = [stack.enter_context(process(*command, **{**values, **own})) for own in each or [{}] * processes]
        ports = [int(one.wait_for(r"listens at http://127\.0\.0\.1:(\d+)", START_SECONDS)[1]) for one in started]
        yield Fleet(started, ports * workers, watched, values)
