"""What load balancers and operators ask: whether calls may come, and what each deployment is doing."""

import os
import re
import time
from hmac import compare_digest

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from chat_api import __version__, status
from chat_api.errors import Forbidden, WrongMethod
from chat_api.gateway import Gateway
from chat_api.headers import is_loopback
from chat_api.request_head import RequestHead, head_of
from chat_api.settings import Settings
from chat_api.types import Headers

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
        if scope["method"] not in ("GET", "HEAD"):
            raise WrongMethod(f"{scope['method']} is not served here; send a GET", headers=((b"allow", b"GET, HEAD"),))
        settings: Settings = scope["state"]["settings"]
        if not (_is_local(scope) or _has_key(head_of(scope), settings)):
            message = "the status is for this machine, and for who presents the OPERATOR_KEY (api-key or Bearer)"
            raise Forbidden(message, code="operators_only")
        gateway: Gateway = scope["state"]["gateway"]
        now = time.monotonic()
        members = gateway.members()
        content = {
            "version": __version__,
            "pid": os.getpid(),
            "started": scope["state"]["started"],
            "ready": status.is_ready(members, now) and not scope["app"].is_draining,
            "draining": scope["app"].is_draining,
            "retry_budget": status.retry_budget(gateway.budget, now),
            "deployments": status.deployments(members, gateway.models_by_deployment(), now),
        }
        await _json(content)(scope, receive, send)


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
