"""Builds everything: the ASGI application, what lives as long as it does, and the middleware's order."""

import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypedDict

from starlette.applications import Starlette
from starlette.middleware import Middleware

from chat_api.emulator import DEFAULT_DEPLOYMENT, DEPLOYMENTS, Emulator, open_emulator
from chat_api.endpoints import not_found, routes
from chat_api.gateway import Gateway
from chat_api.middleware import AccessLog, ErrorBoundary, LoopbackGuard
from chat_api.relay import Relay
from chat_api.settings import Settings
from chat_api.streaming import let_streams_drain
from chat_api.types import Deployment, Secret, Transport
from chat_api.upstream import HttpxTransport


class State(TypedDict):
    """What the lifespan hands to every request."""

    settings: Settings
    gateway: Gateway


def create_app(settings: Settings, *, transport: Transport | None = None) -> Starlette:
    """The gateway as an ASGI application; what it opens is open while its lifespan runs.

    Args:
        settings: what `settings.load` gave.
        transport: sends requests upstream instead of httpx.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[State]:
        let_streams_drain()
        async with AsyncExitStack() as stack:
            deployment = await stack.enter_async_context(_default_deployment(settings))
            app.state.upstream = deployment.base_url
            sender = transport or HttpxTransport(settings, verify=_tls(deployment))
            stack.push_async_callback(sender.aclose)
            yield {"settings": settings, "gateway": Gateway(deployment, Relay(sender))}

    app = Starlette(routes=routes(), middleware=_middleware(settings), lifespan=lifespan)
    app.router.redirect_slashes = False
    app.router.default = not_found
    return app


def _middleware(settings: Settings) -> list[Middleware]:
    """The filters, outermost first. None of them reads a body."""
    stack: list[Any] = [
        # Outermost, so that its line has the status that was really sent, and its id is there for all.
        Middleware(AccessLog),
        # Around everything that may raise: whatever it is, the client gets JSON and no stack trace.
        Middleware(ErrorBoundary),
    ]
    if settings.lends_key:
        # Before the routes: a page of another origin must not reach anything that costs tokens.
        stack.append(Middleware(LoopbackGuard, any_host=not settings.guards_loopback))
    return stack


@asynccontextmanager
async def _default_deployment(settings: Settings) -> AsyncIterator[Deployment]:
    """The deployment of the settings; without an ENDPOINT, an emulator's, which runs as long as the context."""
    version = settings.api_version
    if settings.endpoint is not None:
        yield Deployment(settings.deployment_name or "", settings.endpoint.base_url, version, settings.key)
        return
    name = settings.deployment_name or DEFAULT_DEPLOYMENT
    key = secrets.token_hex(16)
    emulator = Emulator((*DEPLOYMENTS, name), frozenset({key}))
    async with open_emulator(emulator) as base_url:
        yield Deployment(name, base_url, version, Secret(key))


def _tls(deployment: Deployment) -> ssl.SSLContext | None:
    """What verifies the upstream; loading the trust store takes a tenth of the start, and http needs none."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if deployment.base_url.startswith("http://") else None
