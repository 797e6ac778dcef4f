"""Pure-ASGI filters around everything, which never read a body: the access log and the error boundary."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable

import msgspec
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chat_api.callers import Caller
from chat_api.errors import (
    ClientGone,
    GatewayError,
    NoUpstream,
    StoreDown,
    StreamBroken,
    UpstreamError,
    openai_body,
    simple_body,
)
from chat_api.headers import first
from chat_api.request_head import head_of
from chat_api.retrying import SHOULD_RETRY
from chat_api.trail import in_words, told_of
from chat_api.types import Headers, Reply

REQUEST_ID = b"x-chat-api-request-id"
# In the scope, for the access log: who was asked, and the status with which the server itself refused the request.
TRAIL = "chat_api.trail"
REFUSED = "chat_api.refused"
KEY_NAME = "chat_api.key_name"  # of the client key that was presented
KEPT = "chat_api.kept"  # where its answer is from, if answers are kept or shared: "hit", "miss" …
# The status of the answer, once it has begun.
STATUS = "chat_api.status"
# What is wrong now is wrong in a second too: OpenAI's clients are told not to try again.
SENSELESS_TO_REPEAT = frozenset({"answer_too_large", "internal_error", "not_an_answer", "upstream_not_http"})

access_log = logging.getLogger("chat_api.access")
log = logging.getLogger(__name__)


def address_of(scope: Scope) -> str:
    """The client's address; "" where the server does not tell."""
    client = scope.get("client")
    return client[0] if client else ""


def note_caller(scope: Scope, caller: Caller | None) -> None:
    """The access log is to name the client key that was presented."""
    if caller is not None and caller.key is not None:
        scope[KEY_NAME] = caller.name


def note_kept(scope: Scope, reply: Reply) -> None:
    """The access log is to say where the answer is from."""
    if reply.kept:
        scope[KEPT] = reply.kept[0][1].decode()


class AccessLog:
    """Names every request and logs one line when it has ended: who, what, status, milliseconds, answered by whom.

    The query string stays out of it: it may hold a prompt. 499 stands for a client that left.

    Args:
        app: what answers.
        write: takes each line; Python's logging does without it.
    """

    def __init__(self, app: ASGIApp, *, write: Callable[[str], None] | None = None) -> None:
        self.app = app
        self._write = write or access_log.info
        self._ids = random.Random()  # noqa: S311 - seeded by the system; an id is no secret

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3)."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = f"{self._ids.getrandbits(64):016x}"
        scope["chat_api.request_id"] = request_id
        complete = False

        def named(message: Message) -> Awaitable[None]:
            nonlocal complete
            if message["type"] == "http.response.start":
                scope[STATUS] = message["status"]
                trail = scope.get(TRAIL)
                told = told_of(trail, time.perf_counter() - started) if trail else ()
                message["headers"] = [*message.get("headers", ()), (REQUEST_ID, request_id.encode()), *told]
            elif not message.get("more_body", False):
                complete = True
            return send(message)

        try:
            await self.app(scope, receive, named)
        finally:
            client = address_of(scope) or "-"
            path = scope.get("raw_path", b"").decode("latin-1")
            # Nothing was sent to a client that left before; an answer without its end was cut.
            status = scope.get(STATUS) or scope.get(REFUSED, 499)
            cut = "" if complete or STATUS not in scope else " (cut short)"
            milliseconds = (time.perf_counter() - started) * 1000
            trail = scope.get(TRAIL)
            served = in_words(trail) if trail else ""
            words = f"{client} {scope['method']} {path} {status}{cut} {milliseconds:.1f} ms {request_id}{served}"
            if KEPT in scope:
                words += f" cache={scope[KEPT]}"
            if KEY_NAME in scope:
                words += f" key={scope[KEY_NAME]}"
            self._write(words)


class ErrorBoundary:
    """Makes every exception an answer, in OpenAI's shape or the simple endpoint's; no stack trace goes out.

    Where the answer has begun already (`AccessLog`, around it, notes that) nothing is added: returning
    without its end makes the server cut the connection, which is how a client learns that it is not complete.
    """

    def __init__(self, app: ASGIApp, *, relayed: tuple[str, ...] = ()) -> None:
        self.app = app
        self.relayed = relayed  # the path prefixes of OpenAI's API

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3)."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            await self.app(scope, receive, send)
        except (Exception, asyncio.CancelledError) as error:
            # Not here: a name for it besides `error` would keep its trace, and this frame with it, alive.
            await self._answer(error, scope, receive, send)

    async def _answer(self, error: BaseException, scope: Scope, receive: Receive, send: Send) -> None:
        answer = _answer_to(error, scope.get("chat_api.request_id", ""))
        if answer is None or STATUS in scope:
            return
        response = relay_error(answer, scope) if _is_under(scope["path"], self.relayed) else error_response(answer)
        if head_of(scope).expects:
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
            # That the store is down is logged by itself, once; calls that it refuses may be very many.
            is_grave = error.status >= 500 and not isinstance(error, StoreDown)
            if is_grave or (isinstance(error, UpstreamError) and error.status != 400):
                log.warning("%d %s (request %s%s)", error.status, error.message, request_id, upstream_id(error.headers))
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


def upstream_id(headers: Headers) -> str:
    """The upstream's own id of a request, in the words of the log; "" where it gave none."""
    value = first(headers, b"x-request-id") or first(headers, b"apim-request-id")
    return f", upstream's {value.decode('latin-1')}" if value else ""


def error_response(error: GatewayError) -> Response:
    """The error as the simple endpoint answers it, with its own headers (Retry-After, Allow)."""
    response = Response(msgspec.json.encode(simple_body(error)), error.status, media_type="application/json")
    response.raw_headers.extend(error.headers)
    return response


def relay_error(error: GatewayError, scope: Scope) -> Response:
    """The error as OpenAI's API answers it, with the request's id where its clients look for one."""
    response = Response(msgspec.json.encode(openai_body(error)), error.status, media_type="application/json")
    response.raw_headers.extend(error.headers)
    if first(error.headers, b"x-request-id") is None and "chat_api.request_id" in scope:
        response.raw_headers.append((b"x-request-id", scope["chat_api.request_id"].encode()))
    if error.code in SENSELESS_TO_REPEAT:
        response.raw_headers.append((SHOULD_RETRY, b"false"))
    return response


def _is_under(path: str, prefixes: tuple[str, ...]) -> bool:
    return path.startswith(prefixes) and path != "/v1/" and not path.startswith("/v1/gpt/")
