"""The HTTP server: uvicorn's, with a protocol of our own, a drain that ends well, a banner."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import time
from functools import partial
from types import FrameType
from typing import Any

import click
import uvicorn

from chat_api import __version__
from chat_api.app import App
from chat_api.azure_url import Endpoint
from chat_api.cache_checks import cache_line
from chat_api.limit_words import limits_line
from chat_api.logs import AccessLines
from chat_api.protocol import KEEPALIVE_SECONDS, Protocol, SheddingServer
from chat_api.settings import Settings

try:
    import resource
except ImportError:  # pragma: no cover - Windows has none
    resource = None  # type: ignore[assignment]

BACKLOG = 2048
GARBAGE_THRESHOLD = 2_000  # objects, before Python looks for cycles among the youngest; requests make hardly any
FLUSH_SECONDS = 0.1  # that an access line waits for others
NEVER = float("inf")
MAX_UNSENT_BYTES = 128 * 1024  # that the kernel holds for a connection


class Server(SheddingServer):
    """uvicorn's server, which says what it does, and for which being told to stop is no failure."""

    stops_with_parent = False

    def __init__(self, config: uvicorn.Config, settings: Settings, lines: AccessLines | None = None) -> None:
        super().__init__(config)
        self._settings = settings
        self._flush = lines.flush if lines else _nothing
        self._parent = os.getppid()
        self._stop_at = NEVER  # when no more calls are taken

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second; a worker whose parent is gone stops, so that the port is free for the next."""
        self.should_exit = (
            self.should_exit
            or time.monotonic() >= self._stop_at
            or (self.stops_with_parent and os.getppid() != self._parent)
        )
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and print what a person needs to try it."""
        self._flusher = asyncio.create_task(self._flush_often())
        await super().startup(sockets)
        # What is there now stays: the garbage collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GARBAGE_THRESHOLD, 10, 5)
        if self.started and sockets:
            app: App = self.config.app  # type: ignore[assignment]
            click.echo(banner(self._settings, sockets[0].getsockname()[1], app.upstream))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain and stop."""
        app: App = self.config.app  # type: ignore[assignment]
        app.is_draining = True
        if count := len(self.server_state.tasks):
            answers = "One answer" if count == 1 else f"{count} answers"
            seconds = self._settings.drain_timeout
            click.echo(f"Stopping: {answers} in flight may take up to {seconds} s; Ctrl+C again cuts them.")
        await super().shutdown(sockets)
        if self.force_exit:
            logging.disable()  # what is cut on demand need not explain itself, trace by trace
        self._flusher.cancel()
        self._flush()
        click.echo("Stopped.")

    async def _flush_often(self) -> None:
        """Write the access lines, to the last: on draining too, when nothing ticks any more."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            self._flush()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Fail readiness at the first signal, drain after DRAIN_WAIT, stop at once at a second SIGINT.

        uvicorn raises the signal again when it has drained, so that the process dies of it; a stop
        that was asked for and went well is exit code 0 here.
        """
        app: App = self.config.app  # type: ignore[assignment]
        self.force_exit = app.is_draining and sig == signal.SIGINT
        wait = self._settings.drain_wait
        if not app.is_draining:
            app.is_draining = True
            self._stop_at = time.monotonic() + wait
            if wait:
                click.echo(f"Stopping in {wait:g} s: until then /ready fails, and calls are still answered.")
        self.should_exit = self.should_exit or self.force_exit or wait == 0


def _nothing() -> None:
    pass


def server_config(settings: Settings, app: App) -> uvicorn.Config:
    """How uvicorn runs the app."""
    return uvicorn.Config(
        app,
        http=partial(Protocol, settings=settings),  # type: ignore[arg-type]  # it is called, no more
        ws="none",
        lifespan="on",
        log_config=None,  # the command line sets logging up
        access_log=False,  # the app's own leaves query strings out, which may hold prompts
        server_header=False,
        # Else any local process could name another client.
        proxy_headers=bool(settings.forwarded_allow_ips),
        forwarded_allow_ips=list(settings.forwarded_allow_ips),
        timeout_keep_alive=KEEPALIVE_SECONDS,
        timeout_graceful_shutdown=settings.drain_timeout,
        ssl_certfile=settings.ssl_cert if settings.enable_ssl else None,
        ssl_keyfile=settings.ssl_key if settings.enable_ssl else None,
    )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket whose connections send what they have at once.

    Raises:
        OSError: there can be none.
    """
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.create_server((host, port), family=family, backlog=BACKLOG)
    # asyncio sets this only on sockets that it has made itself; accepted ones inherit it.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        # Else the kernel takes megabytes for a slow reader, and whether it reads shows only in large steps.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT_BYTES)
    return sock


def raise_file_limit() -> None:
    """Let this process open as many files as it may: a stream takes two, and shells allow 1,024."""
    if resource is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.suppress(ValueError, OSError):  # macOS lets nobody have what it calls unlimited
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def banner(settings: Settings, port: int, upstream: str) -> str:
    """What is said at the start: where it listens, who answers, and the curl to try."""
    scheme = "https" if settings.enable_ssl else "http"
    host = settings.host.strip("[]")
    listens = f"[{host}]" if ":" in host else host
    reach = "localhost" if host in ("0.0.0.0", "::") else listens  # noqa: S104 - compared, not bound
    words: list[Any] = [f"curl {scheme}://{reach}:{port}/v1/gpt/chat -d 'prompt=Say hello'"]
    if settings.upstream != "emulator" and not settings.deployment_name:
        words.append("-d model=YOUR_DEPLOYMENT" if settings.upstream == "azure" else "-d model=YOUR_MODEL")
    if settings.client_keys or not settings.lends_key:
        words.append("-H 'api-key: YOUR_KEY'")
    lines = [
        f"chat-api {__version__} listens at {scheme}://{listens}:{port}",
        *answering(settings, upstream),
        f"OpenAI clients take {scheme}://{reach}:{port}/v1 as their base URL.",
        f"Try:  {' '.join(words)}",
    ]
    return "\n".join(lines)


def answering(settings: Settings, upstream: str) -> list[str]:
    """Who answers, and on what terms, line by line; no key and no password."""
    lines = []
    if settings.upstream == "emulator":
        lines.append(f"No ENDPOINT is set: the built-in Azure OpenAI emulator answers, at {upstream}.")
    elif settings.upstream == "openai":
        keys = len(settings.openai[0].keys)
        turns = f", with {keys} keys in turn" if keys > 1 else ""
        lines.append(f"Answers come from {upstream}, which speaks OpenAI's API{turns}.")
    elif not settings.endpoints:
        lines.append(f"Answers come from the deployments in {settings.config_file}.")
    elif len(settings.endpoints) > 1:
        named = "" if settings.deployment_name else "; requests name the deployment as model"
        lines.append(f"Answers come from {len(settings.endpoints)} endpoints{named}:")
        lines += [f"  {one.base_url}{_asked(one)}" for one in settings.endpoints]
    elif settings.deployment_name:
        name, version = settings.deployment_name, settings.api_version
        lines.append(f"Answers come from {upstream}, deployment {name}, API {version}.")
    else:
        version = settings.api_version
        lines.append(f"Answers come from {upstream}, API {version}; requests name the deployment as model.")
    several = settings.upstream == "azure" and len(settings.endpoints) > 1
    for row in settings.config.deployments:
        at_each = several and row.endpoint is None
        where = row.endpoint.base_url if row.endpoint else "each endpoint" if at_each else upstream
        number = row.api_version or ("" if at_each else settings.api_version)
        version = f", API {number}" if number and row.kind == "azure" else ""
        lines.append(f"  {', '.join(row.models)}: {row.name} at {where}{version}{row.share}")
    lines += [f"  {model}: {name}" for model, name in settings.model_mapper]
    lines += [f"  {model} falls back on {other}" for model, other in settings.fallbacks.items()]
    lines += [f"  {one.prefix}/: {one.root}" for one in (*settings.openai, *settings.extra) if one.prefix]
    if settings.client_keys:
        lines.append(f"Callers present one of {len(settings.client_keys)} client keys.")
    lines += filter(None, (limits_line(settings), cache_line(settings), _log_line(settings)))
    if settings.upstream != "emulator" and (settings.proxies.http or settings.proxies.https):
        lines.append("Requests go out through a proxy.")
    return lines


def _log_line(settings: Settings) -> str | None:
    """Where conversations are written down, if any are."""
    if not settings.logs_conversations:
        return None
    whose = " of some client keys" if settings.log_chat == "false" else ""
    without = ", without their words" if settings.log_chat == "meta" else ""
    return f"Conversations{whose} are logged in {settings.log_dir}{without}."


def _asked(endpoint: Endpoint) -> str:
    name = f", deployment {endpoint.deployment}" if endpoint.deployment else ""
    return f"{name}, API {endpoint.api_version}"
