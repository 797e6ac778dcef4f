"""The HTTP server: uvicorn's, with a protocol of our own, a drain that ends well, a banner."""

import logging
import signal
import socket
from functools import partial
from types import FrameType
from typing import Any

import click
import uvicorn
from starlette.applications import Starlette

from chat_api import __version__
from chat_api.protocol import KEEPALIVE_SECONDS, Protocol, SheddingServer
from chat_api.settings import Settings

BACKLOG = 2048


class Server(SheddingServer):
    """uvicorn's server, which says what it does, and for which being told to stop is no failure."""

    def __init__(self, config: uvicorn.Config, settings: Settings) -> None:
        super().__init__(config)
        self._settings = settings

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and print what a person needs to try it."""
        await super().startup(sockets)
        if self.started and sockets:
            app: Starlette = self.config.app  # type: ignore[assignment]
            click.echo(banner(self._settings, sockets[0].getsockname()[1], app.state.upstream))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain and stop."""
        if count := len(self.server_state.tasks):
            answers = "One answer" if count == 1 else f"{count} answers"
            seconds = self._settings.drain_timeout
            click.echo(f"Stopping: {answers} in flight may take up to {seconds} s; Ctrl+C again cuts them.")
        await super().shutdown(sockets)
        if self.force_exit:
            logging.disable()  # what is cut on demand need not explain itself, trace by trace
        click.echo("Stopped.")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first signal, stop at once at a second SIGINT.

        uvicorn raises the signal again when it has drained, so that the process dies of it; a stop
        that was asked for and went well is exit code 0 here.
        """
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def server_config(settings: Settings, app: Starlette) -> uvicorn.Config:
    """How uvicorn runs the app."""
    return uvicorn.Config(
        app,
        http=partial(Protocol, settings=settings),  # type: ignore[arg-type]  # it is called, no more
        ws="none",
        lifespan="on",
        log_config=None,  # the command line sets logging up
        access_log=False,  # the app's own leaves query strings out, which may hold prompts
        server_header=False,
        proxy_headers=False,  # any local process could name another client
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
    return sock


def banner(settings: Settings, port: int, upstream: str) -> str:
    """What is said at the start: where it listens, who answers, and the curl to try."""
    scheme = "https" if settings.enable_ssl else "http"
    host = settings.host.strip("[]")
    listens = f"[{host}]" if ":" in host else host
    reach = "localhost" if host in ("0.0.0.0", "::") else listens  # noqa: S104 - compared, not bound
    if settings.upstream == "emulator":
        answers = f"No ENDPOINT is set: the built-in Azure OpenAI emulator answers, at {upstream}."
    elif settings.upstream == "openai":
        answers = f"Answers come from {upstream}, which speaks OpenAI's API."
    elif settings.deployment_name:
        answers = f"Answers come from {upstream}, deployment {settings.deployment_name}, API {settings.api_version}."
    else:
        answers = f"Answers come from {upstream}, API {settings.api_version}; requests name the deployment as model."
    words: list[Any] = [f"curl {scheme}://{reach}:{port}/v1/gpt/chat -d 'prompt=Say hello'"]
    if settings.upstream != "emulator" and not settings.deployment_name:
        words.append("-d model=YOUR_DEPLOYMENT" if settings.upstream == "azure" else "-d model=YOUR_MODEL")
    if settings.client_keys or not settings.lends_key:
        words.append("-H 'api-key: YOUR_KEY'")
    openai = f"OpenAI clients take {scheme}://{reach}:{port}/v1 as their base URL."
    return (
        f"chat-api {__version__} listens at {scheme}://{listens}:{port}\n{answers}\n{openai}\nTry:  {' '.join(words)}"
    )
