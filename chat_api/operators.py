"""What load balancers and operators ask: whether calls may come, what each deployment is doing, who used how much."""

import os
import re
import time
from collections.abc import Callable
from hmac import compare_digest
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from chat_api import __version__, status
from chat_api.errors import Forbidden, RequestError, UnknownPath, WrongMethod
from chat_api.gateway import Gateway
from chat_api.headers import is_loopback
from chat_api.ledger import Ledger
from chat_api.request_head import RequestHead, head_of
from chat_api.settings import Settings
from chat_api.tally import day_of, parse_day
from chat_api.types import Headers
from chat_api.usage_report import NOTHING_COUNTED, Question, as_csv, as_json, parse_by, question, report

# What proxies add: it is the proxy that is on this machine then, not the client.
_FORWARDED = (b"forwarded", b"via", b"x-forwarded-", b"x-real-ip", b"x-client-ip", b"true-client-ip", b"cf-")
_PORT = re.compile(rb":[0-9]*$")


class Ready:
    """`GET /ready`: 200 while calls can be answered; 503 while no deployment is available, or the server drains."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3)."""
        gateway: Gateway = scope["state"]["gateway"]
        if scope["app"].is_draining:
            answer = _json({"ready": False, "why": "draining"}, 503)
        elif not status.is_ready(gateway.members(), time.monotonic()):
            answer = _json({"ready": False, "why": "no deployment is available"}, 503)
        elif _is_shut(scope):
            answer = _json({"ready": False, "why": "the store cannot be reached, and STORE_FAILURE=closed"}, 503)
        else:
            answer = _json({"ready": True})
        await answer(scope, receive, send)


class Status:
    """`GET /status`: the deployments as this process sees them, for this machine and for who has the OPERATOR_KEY."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3).

        Raises:
            Forbidden: the request is from elsewhere and has not the key.
        """
        _check_operator(scope, "the status")
        gateway: Gateway = scope["state"]["gateway"]
        now = time.monotonic()
        members = gateway.members()
        content = {
            "version": __version__,
            "pid": os.getpid(),
            "started": scope["state"]["started"],
            "ready": status.is_ready(members, now) and not scope["app"].is_draining and not _is_shut(scope),
            "draining": scope["app"].is_draining,
            "retry_budget": status.retry_budget(gateway.budget, now),
            "limits": gateway.meter and {"store": gateway.meter.store.state(), "refused": gateway.meter.refused},
            "kept": gateway.keeping and gateway.keeping.state(),
            "conversation_log": gateway.conversations and gateway.conversations.log.state(),
            "deployments": status.deployments(members, gateway.models_by_deployment(), now),
        }
        await _json(content)(scope, receive, send)


def _is_shut(scope: Scope) -> bool:
    """Whether every call that is counted is refused: nobody counts."""
    gateway: Gateway = scope["state"]["gateway"]
    is_closed = scope["state"]["settings"].store_failure == "closed"
    return is_closed and gateway.meter is not None and gateway.meter.store.state().get("up") is False


class UsageTotals:
    """`GET /usage`: who used how much, for whom the status is for; as JSON or CSV."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3).

        Raises:
            Forbidden: the request is from elsewhere and has not the key.
            RequestError: it asks for what there is not.
            UnknownPath: usage is not counted.
            StoreDown: what is kept of it cannot be read.
        """
        _check_operator(scope, "the usage")
        settings: Settings = scope["state"]["settings"]
        ledger: Ledger | None = scope["state"].get("ledger")
        if ledger is None:
            raise UnknownPath(NOTHING_COUNTED, code="usage_not_counted")
        asked, wants_csv = usage_asked(scope["query_string"], day_of(self._wall()))
        rows = await ledger.rows(asked.since, asked.until)
        made = report(asked, rows, settings.config.currency if settings.config.prices else None)
        if wants_csv:
            name = f"usage-{asked.since}-{asked.until}.csv"
            headers = {"cache-control": "no-store", "content-disposition": f'attachment; filename="{name}"'}
            answer = Response(as_csv(made), 200, headers, "text/csv")
        else:
            answer = _json(as_json(made))
        await answer(scope, receive, send)


def usage_asked(query: bytes, today: str) -> tuple[Question, bool]:
    """What a query string asks of the usage, and whether it wants CSV.

    Raises:
        RequestError: it cannot be read so; the message names the parameter and what it takes.
    """
    values: dict[str, str] = {}
    for name, value in parse_qsl(query.decode("latin-1")):  # blank means unset
        if name not in ("by", "since", "until", "format"):
            raise RequestError(f'"{name[:64]}" is no parameter of /usage: by, since, until and format are')
        values[name] = f"{values[name]},{value}" if name == "by" and name in values else value

    def read(name: str, parse: Callable[[str], Any]) -> Any:
        try:
            return parse(values[name]) if name in values else None
        except ValueError as error:
            raise RequestError(f'{name} is "{values[name][:64]}"; {error}', param=name) from None

    since, until = read("since", parse_day), read("until", parse_day)
    by, is_csv = read("by", parse_by), read("format", _parse_format)
    try:
        return question(since, until, by or ("key",), today), bool(is_csv)
    except ValueError as error:
        raise RequestError(f"since is wrong: {error}", param="since") from None


def _parse_format(text: str) -> bool:
    if text not in ("json", "csv"):
        raise ValueError("it takes json or csv")
    return text == "csv"


def _check_operator(scope: Scope, what: str) -> None:
    """Refuse whatever is no GET, and whoever is neither on this machine nor has the operator key."""
    if scope["method"] not in ("GET", "HEAD"):
        raise WrongMethod(f"{scope['method']} is not served here; send a GET", headers=((b"allow", b"GET, HEAD"),))
    if not (_is_local(scope) or _has_key(head_of(scope), scope["state"]["settings"])):
        message = f"{what} is for this machine, and for who presents the OPERATOR_KEY (api-key or Bearer)"
        raise Forbidden(message, code="operators_only")


def _is_local(scope: Scope) -> bool:
    """Whether it comes from this machine itself, and from no web page that somebody here has open."""
    headers: Headers = scope["headers"]
    client = scope["client"][0] if scope.get("client") else ""
    head = head_of(scope)
    return (
        is_loopback(client)
        and all(is_loopback(_PORT.sub(b"", host).decode("latin-1")) for host in head.hosts)
        and not head.origins
        and scope["http_version"] != "1.0"  # nginx, unless it is told otherwise; no client of our days
        and not any(name.startswith(_FORWARDED) for name, _ in headers)
    )


def _has_key(head: RequestHead, settings: Settings) -> bool:
    if settings.operator_key is None or head.credential is None:
        return False
    return compare_digest(head.credential.reveal().encode(), settings.operator_key.reveal().encode())


def _json(content: object, code: int = 200) -> Response:
    return Response(msgspec.json.encode(content), code, {"cache-control": "no-store"}, "application/json")
