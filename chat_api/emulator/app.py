"""The emulator's ASGI application: Azure's paths, versions and credentials in front of answers and faults."""

import asyncio
import re
from collections import Counter, deque
from typing import Any
from urllib.parse import parse_qs, unquote

import msgspec
from starlette.types import Receive, Scope, Send

from chat_api.azure_url import DATED
from chat_api.emulator.answers import encode, invalid, refused
from chat_api.emulator.exchange import Exchange
from chat_api.emulator.faults import BAD_KEY, BAD_TOKEN, FAULTS, NO_DEPLOYMENT

DEFAULT_DEPLOYMENT = "gpt-4o"
DEPLOYMENTS = (DEFAULT_DEPLOYMENT, "gpt-4o-mini", "gpt-4.1", "gpt-5-mini", "o4-mini")

_CLASSIC = re.compile(rb"/openai/deployments/([^/]+)/chat/completions")
_V1 = b"/openai/v1/chat/completions"
_JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+")
_NOT_FOUND = {"error": {"code": "404", "message": "Resource not found"}}
_NO_VERSION_ON_V1 = {
    "error": {"code": "BadRequest", "message": "api-version query parameter is not allowed when using /v1 path"}
}
_NOT_JSON = invalid("We could not parse the JSON body of your request.")


class Emulator:
    """One emulated resource, as an ASGI application.

    Args:
        deployments: the names that answer, beside the faults; others are `DeploymentNotFound`.
        keys: the keys that are accepted; None accepts any.
    """

    def __init__(self, deployments: tuple[str, ...] = DEPLOYMENTS, keys: frozenset[str] | None = None) -> None:
        self.deployments = deployments
        self.keys = keys
        self.open_calls = 0  # calls that are being answered right now
        self.received: deque[dict[str, Any]] = deque(maxlen=100)  # the latest bodies, oldest first
        self.ports: deque[int] = deque(maxlen=100)  # the callers' ports: equal ones are one connection
        self._asked: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3)."""
        if scope["type"] != "http":
            return
        self.open_calls += 1
        self.ports.append(scope["client"][1])
        try:
            await self._answer(scope, receive, send)
        except asyncio.CancelledError:
            pass  # the server that runs it is stopping
        finally:
            self.open_calls -= 1

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _read(receive)
        exchange = Exchange(scope, receive, send, {}, "", "", 0)
        path: bytes = scope["raw_path"]
        is_v1 = path == _V1
        classic = _CLASSIC.fullmatch(path)
        version = parse_qs(scope["query_string"].decode("latin-1")).get("api-version", [""])[0]
        if scope["method"] != "POST" or not (is_v1 or (classic and DATED.fullmatch(version))):
            await exchange.respond(404, encode(_NOT_FOUND))
            return
        if error := self._unauthorised(scope, is_v1):
            await exchange.respond(401, encode(error))
            return
        if is_v1 and version not in ("", "v1", "preview"):
            await exchange.respond(400, encode(_NO_VERSION_ON_V1))
            return
        parsed = _parse(body)
        if parsed is None:
            await exchange.respond(400, encode(_NOT_JSON))
            return
        exchange.body = parsed
        exchange.deployment = unquote(classic[1].decode()) if classic else str(parsed.get("model", ""))
        exchange.api_version = version or "v1"
        await self._play(exchange)

    async def _play(self, exchange: Exchange) -> None:
        self.received.append(exchange.body)
        exchange.repeats = self._asked[exchange.deployment]
        if fault := FAULTS.get(exchange.deployment):
            self._asked[exchange.deployment] += 1
            await fault.play(exchange)
        elif exchange.deployment not in self.deployments:
            await exchange.respond(404, encode(NO_DEPLOYMENT))
        elif error := refused(exchange.body, exchange.deployment):
            await exchange.respond(400, encode(error))
        else:
            await exchange.ordinary()

    def _unauthorised(self, scope: Scope, is_v1: bool) -> dict[str, Any] | None:
        """The 401 body for a request without an accepted credential, or None.

        The classic API takes keys as `api-key` only: there, Bearer is for Entra ID tokens.
        """
        headers = dict(scope["headers"])
        key = headers.get(b"api-key", b"").decode("latin-1")
        if key:
            return None if self.keys is None or key in self.keys else BAD_KEY
        scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return BAD_KEY
        is_key = is_v1 and (self.keys is None or token in self.keys)
        return None if is_key or _JWT.fullmatch(token) else BAD_TOKEN


async def _read(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _parse(body: bytes) -> dict[str, Any] | None:
    try:
        parsed = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    if not isinstance(parsed, dict):
        return None
    return {name: value for name, value in parsed.items() if value is not None}  # null is as good as absent
