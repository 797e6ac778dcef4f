"""All routes: the simple chat endpoint, OpenAI's API, the liveness answers and the front page."""

import html
from collections.abc import Awaitable, Iterable
from pathlib import Path

import msgspec
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from chat_api import __version__
from chat_api.errors import UnknownPath, UpstreamError, WrongMethod
from chat_api.gateway import Gateway
from chat_api.headers import first, is_value, prefers_text, relayed
from chat_api.middleware import TRAIL, address_of, note_caller, note_kept
from chat_api.operations import path_meant
from chat_api.operators import Ready, Status, UsageTotals
from chat_api.pace import interval_of
from chat_api.passing import send_whole
from chat_api.prompts import answer_json, answer_text, build
from chat_api.reading import read_body, read_fields
from chat_api.refusals import accepted, hidden_refusal
from chat_api.relaying import RelayedApi
from chat_api.request_head import head_of
from chat_api.settings import Settings
from chat_api.streaming import ChatEvents, ChatText, Watch, adapted_text, close, let_go, until_gone
from chat_api.types import Call, Headers, Reply

ROUTE = "/v1/gpt/chat"
ADAPTED = b"x-chat-api-adapted"
FINISH_REASON = b"x-chat-api-finish-reason"
_JSON = (b"content-type", b"application/json")
_TEXT = (b"content-type", b"text/plain; charset=utf-8")
PAGE = Path(__file__).with_name("static") / "index.html"


class SimpleChat:
    """`POST /v1/gpt/chat`: a prompt in; JSON, server-sent events or plain text out."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3)."""
        if scope["method"] != "POST":
            allow = ((b"allow", b"POST"),)
            raise WrongMethod(
                f"{scope['method']} is not served here; send a POST, such as curl -d prompt=hello", headers=allow
            )
        gateway: Gateway = scope["state"]["gateway"]
        settings: Settings = scope["state"]["settings"]
        call = await _read_call(scope, receive, gateway, settings)
        scope[TRAIL] = call.trail
        wants_text = prefers_text(head_of(scope).accept)
        if call.stream and not wants_text:
            await _chat_events(scope, receive, send, call)
            return
        with Watch(scope, receive):
            reply = await gateway.handle(call)
        note_kept(scope, reply)
        try:
            answer = accepted(reply, call)
            if isinstance(answer.body, bytes):
                await _send_whole(send, answer, answer.body, call, wants_text=wants_text)
            else:
                await _told(ChatText(answer, call, _pace(settings)), answer)(scope, receive, send)
        finally:
            await close(reply)


async def _read_call(scope: Scope, receive: Receive, gateway: Gateway, settings: Settings) -> Call:
    """The call that a request makes; who may not call is refused before its body is read."""
    head = head_of(scope)
    address = address_of(scope)
    caller = gateway.admit(head.credential, address)
    note_caller(scope, caller)
    sent = await read_body(scope, receive, settings.max_body_bytes)
    prompt = build(read_fields(scope["headers"], sent, scope["query_string"]), settings.defaults)
    return Call(
        operation="chat/completions",
        model=prompt.model,
        body=prompt.body,
        stream=prompt.stream,
        credential=head.credential,
        defaulted=prompt.defaulted,
        request_id=scope.get("chat_api.request_id", ""),
        caller=caller,
        address=address,
        wish=head.wish,
        is_metered=gateway.reads.usage,
        is_read=gateway.reads.answers,
        asks_usage=prompt.asks_usage,
        most_tokens=prompt.most_tokens,
    )


async def _chat_events(scope: Scope, receive: Receive, send: Send, call: Call) -> None:
    """Answer with an event stream, which is kept open with pings, from before the upstream has answered at all."""
    gateway: Gateway = scope["state"]["gateway"]
    settings: Settings = scope["state"]["settings"]
    ping = settings.ping_interval
    task = await until_gone(gateway.handle(call), scope, receive, ping or None)
    try:
        response = ChatEvents(task, call, ping, _pace(settings))
        if task.done():
            reply = accepted(task.result(), call)
            note_kept(scope, reply)
            if isinstance(reply.body, bytes):
                return await _send_whole(send, reply, reply.body, call)
            _told(response, reply)
        await response(scope, receive, send)
    finally:
        await let_go(task)


def _pace(settings: Settings) -> float:
    return interval_of(settings.token_rate_limit, ROUTE)


async def _send_whole(send: Send, reply: Reply, body: bytes, call: Call, *, wants_text: bool = False) -> None:
    try:
        if wants_text:
            text, finish_reason = answer_text(body)
            content, headers = (text or "").encode(), [_TEXT]
            if finish_reason and is_value(finish_reason.encode()):
                headers.append((FINISH_REASON, finish_reason.encode()))
        else:
            content, headers = answer_json(body), [_JSON]
    except UpstreamError as error:
        raise hidden_refusal(reply, call) or error from None
    headers += [(b"content-length", b"%d" % len(content)), *_told_of(reply)]
    await send_whole(send, 200, headers, content)


def _told_of(reply: Reply) -> Headers:
    """The headers that tell of the upstream and of what was changed."""
    headers = relayed(reply.headers, reply.quota, reply.kept)
    return (*headers, (ADAPTED, adapted_text(reply).encode("latin-1", "replace"))) if reply.adaptations else headers


def _told(response: Response, reply: Reply) -> Response:
    response.raw_headers.extend(_told_of(reply))
    return response


class FrontPage:
    """`GET /`: what this is and the curl to try, as a page for a browser and as JSON for the rest."""

    def __init__(self) -> None:
        self._page = PAGE.read_text("utf-8")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3)."""
        if scope["method"] not in ("GET", "HEAD"):
            raise WrongMethod(f"{scope['method']} is not served here; send a GET", headers=((b"allow", b"GET, HEAD"),))
        headers: Headers = scope["headers"]
        host = (first(headers, b"host") or b"localhost").decode("latin-1")
        curl = f"curl {scope['scheme']}://{host}/v1/gpt/chat -d prompt=hello"
        if b"text/html" in (first(headers, b"accept") or b""):
            page = self._page.replace("{{curl}}", html.escape(curl)).replace("{{version}}", __version__)
            policy = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
            response: Response = HTMLResponse(page, headers=policy)
        else:
            response = _json({"success": 1, "message": "chat-api: a chat gateway for Azure OpenAI", "try": curl})
        await response(scope, receive, send)


class NotFound:
    """Everything else."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3)."""
        meant = path_meant(scope["path"])
        raise UnknownPath(f"API Not found. Did you mean {meant}?" if meant else "API Not found.")


class Routes:
    """Every path that is served, whatever the method: by its whole name, or by how it begins.

    Args:
        api_base: a further path under which OpenAI's API is, besides `/v1`.
        prefixes: the path prefixes of upstreams besides the main one, which are their routes as well.
    """

    def __init__(self, api_base: str, prefixes: Iterable[str]) -> None:
        chat = SimpleChat()
        status = _json({"success": 1, "message": "GPT API: OK"})  # for any method: says that the API is there
        health = PlainTextResponse("OK")  # for any method: the process is up
        self._exact: dict[str, ASGIApp] = {
            "/v1/gpt/chat": chat,
            "/v1/gpt/chat/": chat,
            "/v1": status,
            "/v1/": status,
            "/health": health,
            "/healthz": health,
            "/ready": Ready(),
            "/status": Status(),
            "/usage": UsageTotals(),
            "/": FrontPage(),
        }
        self._under: list[tuple[str, ASGIApp]] = [
            ("/v1/gpt/", NotFound()),
            *[(f"{prefix}/", RelayedApi(f"{prefix}/", prefix, whole=True)) for prefix in prefixes],
            *[(prefix, RelayedApi(prefix)) for prefix in relayed_prefixes(api_base, ())],
        ]
        self._none = NotFound()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request (ASGI 3)."""
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        return (self._exact.get(path) or self._app_under(path))(scope, receive, send)

    def _app_under(self, path: str) -> ASGIApp:
        for prefix, app in self._under:
            if path.startswith(prefix):
                return app
        return self._none


def relayed_prefixes(api_base: str, prefixes: Iterable[str]) -> tuple[str, ...]:
    """The beginnings of all paths of OpenAI's API: its own, Azure's two, and those of further upstreams."""
    base = api_base.rstrip("/")
    own = ("/v1/", "/openai/", *([f"{base}/"] if base not in ("", "/v1", "/openai") else []))
    return (*own, *(f"{prefix}/" for prefix in prefixes))


def _json(content: object) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")
