"""The HTTP server: uvicorn's, with a protocol that is stricter where it has to be, a drain that ends well, a banner."""

import logging
import signal
import socket
from types import FrameType
from typing import Any

import click
import httptools
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from chat_api import __version__
from chat_api.settings import Settings

# Load balancers keep their connections for about a minute; the side that closes first must be theirs,
# or a request that crosses our close is answered 502.
KEEPALIVE_SECONDS = 75
BACKLOG = 2048
# Of a body that was refused by its size: a client that reads only when it has sent all gets its answer.
MAX_DISCARDED_BYTES = 64 * 1024 * 1024

_UPGRADE_HEADERS = (b"connection", b"upgrade", b"http2-settings")


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol, but for three things.

    1. A request that comes before the last one is answered (pipelining, RFC 9112 section 9.3.2) is not
       taken: uvicorn would queue it, and then no longer notice that the client of the first one left.
       The connection is closed after the first answer, and the client sends the second one again.
    2. An offer to upgrade (`Upgrade: h2c`, as Java's client and `curl --http2` send it) is ignored, as
       RFC 9110 section 7.8 allows. uvicorn would lose the request's body.
    3. A body that goes on after its answer is thrown away up to a limit, not for ever.
    """

    _pipelined = False
    _discarded = 0

    def on_message_begin(self) -> None:
        """A request begins."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._pipelined = True
            self.cycle.keep_alive = False
            raise RuntimeError("pipelined")  # stops the parser
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head of a request is complete; one that offers an upgrade begins again without the offer."""
        if not self.parser.should_upgrade():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The parser has read all it will of a request, which is not all where an upgrade was offered."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a request's body; one that was answered already is thrown away, but not for ever."""
        if self.cycle.response_complete:
            self._discarded += len(body)
            if self._discarded > MAX_DISCARDED_BYTES:
                self.transport.close()
            return
        super().on_body(body)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        if self._pipelined:
            return
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._begin_again(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            if not self._pipelined:
                self.send_400_response("Invalid HTTP request received.")

    def _begin_again(self, rest: bytes) -> None:
        method = self.parser.get_method()
        if method == b"CONNECT":
            self.send_400_response("CONNECT is not served here.")
            return
        version = self.parser.get_http_version().encode()
        head = [b"%s %s HTTP/%s\r\n" % (method, self.url, version)]
        head += [b"%s: %s\r\n" % pair for pair in self.headers if pair[0] not in _UPGRADE_HEADERS]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"".join(head) + b"\r\n" + rest)


class Server(uvicorn.Server):
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
        http=Protocol,
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
    if settings.endpoint is None:
        answers = f"No ENDPOINT is set: the built-in Azure OpenAI emulator answers, at {upstream}."
    elif settings.deployment_name:
        answers = f"Answers come from {upstream}, deployment {settings.deployment_name}, API {settings.api_version}."
    else:
        answers = f"Answers come from {upstream}, API {settings.api_version}; requests name the deployment as model."
    words: list[Any] = [f"curl {scheme}://{reach}:{port}/v1/gpt/chat -d 'prompt=Say hello'"]
    if settings.endpoint is not None and not settings.deployment_name:
        words.append("-d model=YOUR_DEPLOYMENT")
    if not settings.lends_key:
        words.append("-H 'api-key: YOUR_KEY'")
    return f"chat-api {__version__} listens at {scheme}://{listens}:{port}\n{answers}\nTry:  {' '.join(words)}"
