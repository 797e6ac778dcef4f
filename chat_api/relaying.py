"""`/v1/*`: OpenAI's API, relayed; and what is answered here: the list of models, and what old chat UIs probe."""

import logging
import re
import time
from functools import lru_cache
from urllib.parse import unquote

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from chat_api.callers import Caller
from chat_api.errors import GatewayError, UnknownPath, WrongMethod
from chat_api.gateway import Gateway
from chat_api.incoming import read_call
from chat_api.keyring import check_model
from chat_api.middleware import TRAIL, address_of, note_caller, note_kept, upstream_id
from chat_api.models import Models
from chat_api.operations import DEPLOYMENT_SCOPED, Target, parse_path, path_meant
from chat_api.pace import interval_of
from chat_api.passing import EventPassage, is_event_stream, pass_bytes, pass_whole
from chat_api.refusals import relayable
from chat_api.request_head import head_of
from chat_api.settings import Settings
from chat_api.spool import Form, Upload
from chat_api.streaming import Watch, close
from chat_api.types import Call, Reply
from chat_api.upstreams import MAIN

METHODS = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
# Letters, digits and marks that mean the same unquoted (RFC 3986 section 6.2.2.2): an operation has one spelling.
_NEEDLESSLY_QUOTED = re.compile(r"%(?:2[dDeE]|3[0-9]|4[1-9a-fA-F]|5[0-9aA]|5[fF]|6[1-9a-fA-F]|7[0-9aA]|7[eE])")
MAX_REMEMBERED_BYTES = 512  # of a path
_FAR = 4102444800  # 2100-01-01


log = logging.getLogger(__name__)


class RelayedApi:
    """OpenAI's API under one path prefix, for any method and operation.

    Args:
        prefix: the path before the operation, with its last slash: `/v1/`, `/openai/`.
        route: the upstream that answers.
        whole: whether the prefix leads to a whole server: what is not under `v1/` is no operation, and
            goes to the same path there.
    """

    def __init__(self, prefix: str, route: str = MAIN, *, whole: bool = False) -> None:
        self._prefix = prefix
        self._route = route
        self._whole = whole

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3)."""
        gateway: Gateway = scope["state"]["gateway"]
        settings: Settings = scope["state"]["settings"]
        if scope["method"] == "OPTIONS":
            await Response(status_code=204, headers={"allow": METHODS})(scope, receive, send)
            return
        target = self._target(scope)
        head = head_of(scope)
        models = gateway.models(self._route)
        if target.operation not in DEPLOYMENT_SCOPED and _is_answered_here(target.operation, models):
            caller = gateway.holder(head.credential, address_of(scope))
            note_caller(scope, caller)
            gateway.authenticate(caller, head.credential, models.resource()[0])
            own = _own_answer(target.operation, scope["method"], models, scope["state"]["started"], caller)
            await own(scope, receive, send)
            return
        caller = gateway.admit(head.credential, address_of(scope), self._route)
        if caller is not None:
            note_caller(scope, caller)
        call = await read_call(
            scope, receive, head, target, settings, route=self._route, caller=caller, reads=gateway.reads
        )
        await _relay(scope, receive, send, call, gateway, settings)

    def _target(self, scope: Scope) -> Target:
        path: bytes = scope["raw_path"]
        read = _target_again if len(path) <= MAX_REMEMBERED_BYTES else _target
        return read(path, len(scope.get("root_path", "")), self._prefix, self._whole)


def _target(raw_path: bytes, root_chars: int, prefix: str, whole: bool) -> Target:
    raw = _NEEDLESSLY_QUOTED.sub(lambda quoted: unquote(quoted[0]), raw_path.decode("latin-1"))
    path = raw[root_chars + len(prefix) :]
    if prefix == "/v1/" and path.startswith(("v1/", "openai/")):
        meant = path_meant(f"/v1/{path}")
        raise UnknownPath(f"/v1/{path} is not served here" + (f"; did you mean {meant}?" if meant else ""))
    target = parse_path(path.removeprefix("v1/"))
    return Target(f"/{path}") if whole and not path.startswith("v1/") else target


_target_again = lru_cache(maxsize=1024)(_target)  # the same few paths come again and again


async def _relay(scope: Scope, receive: Receive, send: Send, call: Call, gateway: Gateway, settings: Settings) -> None:
    scope[TRAIL] = call.trail
    paces = settings.token_rate_limit
    pace = interval_of(paces, call.route, "/v1/", call.operation) if paces else 0.0
    passage = EventPassage(call, send, ping=settings.ping_interval, compat=settings.compat_chunks, pace_seconds=pace)
    reply: Reply | None = None
    try:
        # As long as an upload comes, whoever reads it notices that its client has left.
        with Watch({}, call.body.after) if isinstance(call.body, Upload) else Watch(scope, receive):
            if call.stream:
                passage.keep_open()
            try:
                reply = await gateway.handle(call)
                if reply.kept:
                    note_kept(scope, reply)
                answer = relayable(reply, call, time.time())
            except GatewayError as error:
                if not passage.has_begun:
                    raise
                await passage.fail(error)
            if answer.status >= 400:
                _note(answer, scope)
            if isinstance(answer.body, bytes) and not passage.has_begun:
                passage.close()
                await pass_whole(answer, send, head_only=call.method == "HEAD")
            else:
                await _pass(answer, call, send, passage)
    finally:
        passage.close()
        try:
            if reply is not None and not isinstance(reply.body, bytes):
                await close(reply)
        finally:
            if isinstance(call.body, Form):
                await call.body.aclose()


async def _pass(answer: Reply, call: Call, send: Send, passage: EventPassage) -> None:
    if passage.has_begun or (call.is_followed and is_event_stream(answer)):
        return await passage.carry(answer)
    passage.close()
    return await pass_bytes(answer, send)


def _note(refusal: Reply, scope: Scope) -> None:
    """Log a refusal whose body goes on as it is; the others are logged as errors."""
    ids = (scope.get("chat_api.request_id", ""), upstream_id(refusal.headers))
    log.info("%d from %s (request %s%s)", refusal.status, refusal.deployment.host, *ids)


def _is_answered_here(operation: str, models: Models) -> bool:
    """Whether no upstream needs to be asked, or could tell."""
    if operation.partition("/")[0] == "models":
        return not models.relays_list
    return operation == "realtime" or operation.startswith("dashboard/billing/")


def _own_answer(operation: str, method: str, models: Models, started: int, caller: Caller | None) -> Response:
    if operation.startswith("dashboard/billing/"):
        return _billing(operation)
    if operation == "realtime":
        raise UnknownPath("realtime is not served: this server does not relay WebSockets yet")
    if method not in ("GET", "HEAD"):
        raise WrongMethod(f"{method} is not served here; send a GET", headers=((b"allow", b"GET, HEAD"),))
    name = unquote(operation.partition("/")[2])
    key = caller.key if caller is not None else None
    if not name:
        return _json(models.listing(started, key.models if key is not None else None))
    if key is not None:
        check_model(key, [name], operation, is_read=True)
    return _json(models.entry(name, started))


def _billing(operation: str) -> Response:
    """What chat UIs of 2023 ask before they let anyone in: a subscription without an end, and nothing used."""
    if operation == "dashboard/billing/subscription":
        return _json(
            {
                "object": "billing_subscription",
                "has_payment_method": True,
                "soft_limit_usd": 1000000.0,
                "hard_limit_usd": 1000000.0,
                "system_hard_limit_usd": 1000000.0,
                "access_until": _FAR,
            }
        )
    if operation == "dashboard/billing/usage":
        return _json({"object": "list", "total_usage": 0.0, "daily_costs": []})
    if operation == "dashboard/billing/credit_grants":
        return _json({"object": "credit_summary", "total_granted": 0.0, "total_used": 0.0, "total_available": 0.0})
    raise UnknownPath(f"/v1/{operation} is not served here")


def _json(content: object) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")
