"""The commands: `serve`, `check` and `emulate`. They print, listen and set exit codes; nothing else does."""

import logging.config
import os
import socket
import ssl
import sys
from types import FrameType
from typing import Any

import click
import uvicorn
from starlette.applications import Starlette

from chat_api import __version__
from chat_api import settings as settings_module
from chat_api.app import create_app
from chat_api.emulator import DEPLOYMENTS, Emulator, run_emulator
from chat_api.settings import Settings, SettingsError

BAD_SETTINGS = 3  # a process manager should not start it again before somebody has mended them
CANNOT_LISTEN = 1
# Load balancers keep their connections for about a minute; the side that closes first must be theirs,
# or a request that crosses our close is answered 502.
KEEPALIVE_SECONDS = 75
BACKLOG = 2048


@click.group()
@click.version_option(__version__, prog_name="chat-api")
def main() -> None:
    """A chat gateway for Azure OpenAI: one prompt in, one answer out."""


@main.command()
def serve() -> None:
    """Serve the API until SIGTERM or SIGINT."""
    settings = load_or_exit()
    logging.config.dictConfig(log_config(settings.log_level))
    sock = listen_or_exit(settings.host, settings.port, "HTTPS_PORT" if settings.enable_ssl else "HTTP_PORT")
    Server(server_config(settings, create_app(settings)), settings).run(sockets=[sock])


@main.command()
def check() -> None:
    """Check the settings and print them, keys masked; exit with 3 if they cannot be used."""
    settings = load_or_exit()
    for name in Settings.__dataclass_fields__:
        value = getattr(settings, name)
        click.echo(f"{name:20} {dict(value) if name == 'defaults' else '' if value is None else value}")


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8090, show_default=True, help="Port to listen on.")
@click.option("--key", "keys", multiple=True, help="A key to accept; may be repeated. Any key, if there is none.")
@click.option("--deployment", "names", multiple=True, help="A further deployment that answers; may be repeated.")
def emulate(host: str, port: int, keys: tuple[str, ...], names: tuple[str, ...]) -> None:
    """Run the Azure OpenAI emulator alone."""
    sock = listen_or_exit(host, port, "--port")
    emulator = Emulator((*DEPLOYMENTS, *names), frozenset(keys) or None)
    click.echo(f"Azure OpenAI emulator at http://{host}:{sock.getsockname()[1]}")
    click.echo(f"  deployments: {', '.join(emulator.deployments)}, and a fault-… for every fault")
    run_emulator(emulator, sock)


class Server(uvicorn.Server):
    """uvicorn's server, which says where it listens, and for which being told to stop is no failure."""

    def __init__(self, config: uvicorn.Config, settings: Settings) -> None:
        super().__init__(config)
        self._settings = settings

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and print what a person needs to try it."""
        await super().startup(sockets)
        if self.started and sockets:
            app: Starlette = self.config.app  # type: ignore[assignment]
            click.echo(banner(self._settings, sockets[0].getsockname()[1], app.state.upstream))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first signal, stop at once at a second SIGINT.

        uvicorn raises the signal again when it has drained, so that the process dies of it; a stop
        that was asked for and went well is exit code 0 here.
        """
        self.force_exit = self.should_exit and sig == 2
        self.should_exit = True


def server_config(settings: Settings, app: Starlette) -> uvicorn.Config:
    """How uvicorn runs the app."""
    return uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,  # `serve` sets logging up
        access_log=False,  # the app's own leaves query strings out, which may hold prompts
        server_header=False,
        timeout_keep_alive=KEEPALIVE_SECONDS,
        timeout_graceful_shutdown=settings.drain_timeout,
        ssl_certfile=settings.ssl_cert if settings.enable_ssl else None,
        ssl_keyfile=settings.ssl_key if settings.enable_ssl else None,
    )


def banner(settings: Settings, port: int, upstream: str) -> str:
    """What is said at the start: where it listens, who answers, and the curl to try."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    base = f"{'https' if settings.enable_ssl else 'http'}://{host}:{port}"
    if settings.endpoint is None:
        answers = f"No ENDPOINT is set: the built-in Azure OpenAI emulator answers, at {upstream}."
    else:
        deployment = settings.deployment_name or "the one each request names"
        answers = f"Answers come from {upstream}, deployment {deployment}, API version {settings.api_version}."
    return f"chat-api {__version__} listens at {base}\n{answers}\nTry:  curl {base}/v1/gpt/chat -d 'prompt=Say hello'"


def load_or_exit() -> Settings:
    """The settings; warnings are printed, and errors end the process with exit code 3."""
    try:
        settings = settings_module.load()
        if settings.enable_ssl:
            _check_certificate(settings)
    except SettingsError as error:
        click.echo(error, err=True)
        sys.exit(BAD_SETTINGS)
    for warning in settings.warnings:
        click.echo(f"Warning: {warning}", err=True)
    return settings


def listen_or_exit(host: str, port: int, setting: str) -> socket.socket:
    """A listening socket; where there can be none the process ends with exit code 1 and the reason."""
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        click.echo(f"Cannot listen at {host} port {port}: {reason}. See HOST and {setting}.", err=True)
        sys.exit(CANNOT_LISTEN)


def _check_certificate(settings: Settings) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without the callback OpenSSL would ask at the terminal for a passphrase.
        context.load_cert_chain(settings.ssl_cert or "", settings.ssl_key, password=lambda: b"")
    except (ssl.SSLError, OSError) as error:
        problem = f"SSL_CERT and SSL_KEY are not a certificate and its unencrypted key in PEM form: {error}"
        raise SettingsError([problem], settings_module.ENV_FILE) from error


def log_config(level: str) -> dict[str, Any]:
    """Python's logging set up: requests to standard output, the rest to standard error.

    uvicorn's own notes of starting and stopping are left to the banner. Libraries stay at warnings
    even when the level is debug: some of them log headers and prompts.
    """
    form = {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": form, "access": {"format": "%(asctime)s %(message)s"}},
        "filters": {"unfinished": {"()": Unfinished}},
        "handlers": {
            "stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["unfinished"]},
            "stdout": {"class": "logging.StreamHandler", "formatter": "access", "stream": "ext://sys.stdout"},
        },
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {
            "chat_api": {"level": level.upper()},
            "chat_api.access": {"handlers": ["stdout"], "propagate": False},
        },
    }


class Unfinished:
    """Drops uvicorn's remark on a response without an end: it is how a broken stream is cut, and logged with it."""

    def filter(self, record: Any) -> bool:
        """Whether the record is logged."""
        return "returned without completing response" not in record.getMessage()


if __name__ == "__main__":
    main()
