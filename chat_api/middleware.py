"""Pure-ASGI filters that never read a body: access log, error boundary, and the guard of an open server."""

import asyncio
import logging
import re
import secrets
import time

import msgspec
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chat_api.errors import ClientGone, Forbidden, GatewayError, NoUpstream, StreamBroken, UpstreamError, simple_body
from chat_api.headers import first, is_loopback
from chat_api.types import Headers

REQUEST_ID = b"x-chat-api-request-id"

_AUTHORITY = re.compile(r"([\w.-]+|\[[0-9a-fA-F:.]+\])(?::[0-9]+)?", re.ASCII)

access_log = logging.getLogger("chat_api.access")
log = logging.getLogger(__name__)


class AccessLog:
    """Names every request and logs one line when it has ended: who, what, status, milliseconds.

    The query string stays out of it: it may hold a prompt. 499 stands for a client that left.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3)."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = secrets.token_hex(8)
        scope["chat_api.request_id"] = request_id
        status: int | None = None
        complete = False

        async def named(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (REQUEST_ID, request_id.encode())]
            elif not message.get("more_body", False):
                complete = True
            await send(message)

        try:
            await self.app(scope, receive, named)
        finally:
            client = scope["client"][0] if scope.get("client") else "-"
            path = scope.get("raw_path", b"").decode("latin-1")
            # Nothing was sent to a client that left before; an answer without its end was cut.
            shown = "499" if status is None else f"{status}{'' if complete else ' (cut short)'}"
            milliseconds = (time.perf_counter() - started) * 1000
            access_log.info("%s %s %s %s %.1f ms %s", client, scope["method"], path, shown, milliseconds, request_id)


class ErrorBoundary:
    """Makes every exception an answer in the simple endpoint's shape; no stack trace goes out.

    Where the answer has begun already nothing is added: returning without its end makes the server
    cut the connection, which is how a client learns that it is not complete.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3)."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except (Exception, asyncio.CancelledError) as error:
            answer = _answer_to(error, scope.get("chat_api.request_id", ""))
            if answer is not None and not started:
                response = error_response(answer)
                if first(scope["headers"], b"expect") is not None:
                    # The body was perhaps never asked for; what comes next would be taken for it (RFC 9110 10.1.1).
                    response.raw_headers.append((b"connection", b"close"))
                await response(scope, receive, send)


def _answer_to(error: BaseException, request_id: str) -> GatewayError | None:
    """What the client is told of an exception, if it can be told; logs what an operator should know."""
    match error:
        case ClientGone():
            return None
        case StreamBroken():
            log.warning("answer cut short: %s (request %s)", error.message, request_id)
            return None
        case GatewayError():
            if error.status >= 500 or (isinstance(error, UpstreamError) and error.status != 400):
                log.warning("%d %s (request %s)", error.status, error.message, request_id)
            else:  # the message may quote the caller
                log.info("%d %s (request %s)", error.status, error.code, request_id)
            return error
        case asyncio.CancelledError():
            # The server cancels what has not ended within DRAIN_TIMEOUT; it has no further use for the exception.
            log.warning("cut short: the server stops (request %s)", request_id)
            return NoUpstream("the server is stopping", code="stopping")
        case _:
            log.error("a fault of ours (request %s)", request_id, exc_info=error)
            return GatewayError(f"internal error; the log has it under request {request_id}")


class LoopbackGuard:
    """Protects a server that asks its callers for no key from web pages in its users' browsers.

    Any page can send a form to localhost without asking first, and a page's host name can be made to
    point at 127.0.0.1 (DNS rebinding). So only loopback host names are answered (unless `any_host`),
    and no request that a browser made for another origin, links that a person follows excepted.
    """

    def __init__(self, app: ASGIApp, *, any_host: bool = False) -> None:
        self.app = app
        self.any_host = any_host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3)."""
        if scope["type"] == "http":
            headers: Headers = scope["headers"]
            if not self.any_host:
                _check_address(scope)
                _check_host(headers)
            _check_origin(scope["method"], headers)
        await self.app(scope, receive, send)


def error_response(error: GatewayError) -> Response:
    """The error as the simple endpoint answers it, with its own headers (Retry-After, Allow)."""
    response = Response(msgspec.json.encode(simple_body(error)), error.status, media_type="application/json")
    response.raw_headers.extend(error.headers)
    return response


def _check_address(scope: Scope) -> None:
    """The start-up check of HOST, for servers that were told another address than the settings say."""
    server = scope.get("server")
    if server and server[1] is not None and not is_loopback(server[0]):
        message = (
            f"requests to {server[0]} are not answered: this server lends its key to whoever asks, so it answers "
            "on loopback addresses only; ALLOW_ANONYMOUS=true lifts that"
        )
        raise Forbidden(message, code="address_not_allowed")


def _check_host(headers: Headers) -> None:
    hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
    if not hosts:
        return  # HTTP/1.0 probes; browsers, which this guards against, always name a host
    named = _AUTHORITY.fullmatch(hosts[0])
    if len(hosts) != 1 or named is None or not is_loopback(named[1]):
        shown = hosts[0]
        message = (
            f'host "{shown}" is not answered: this server lends its key to whoever asks, so it answers loopback '
            "names only (localhost, 127.0.0.1); ALLOW_ANONYMOUS=true lifts that"
        )
        raise Forbidden(message, code="host_not_allowed")


def _check_origin(method: str, headers: Headers) -> None:
    if method in ("GET", "HEAD") and first(headers, b"sec-fetch-mode") == b"navigate":
        return  # a link that a person follows; the page it is on does not see the answer
    own = (first(headers, b"host") or b"").lower()
    same_origin = all(_authority(value) == own for name, value in headers if name == b"origin")
    sites = {value.lower() for name, value in headers if name == b"sec-fetch-site"}
    if not same_origin or sites & {b"cross-site", b"same-site"}:
        raise Forbidden("requests from web pages of another origin are not answered", code="origin_not_allowed")


def _authority(origin: bytes) -> bytes:
    """Host and port of an origin, which is compared with Host: neither names a scheme's own port."""
    return origin.partition(b"://")[2].lower()
