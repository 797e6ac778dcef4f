"""Builds everything: the ASGI application, what lives as long as it does, and the middleware's order."""

import logging
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any, TypedDict
from urllib.parse import urlsplit

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from chat_api.asking import Asking
from chat_api.budget import RetryBudget
from chat_api.emulator import DEFAULT_DEPLOYMENT, DEPLOYMENTS, Emulator, open_emulator
from chat_api.endpoints import Routes, relayed_prefixes
from chat_api.gateway import Gateway
from chat_api.guards import AddressFilter, LoopbackGuard, RequestTarget
from chat_api.ledger import Ledger
from chat_api.middleware import REQUEST_ID, AccessLog, ErrorBoundary
from chat_api.models import Models
from chat_api.pool import Pool
from chat_api.relay import Relay, Retries
from chat_api.services import conversing, counting, keeping
from chat_api.settings import Settings
from chat_api.streaming import let_streams_drain
from chat_api.types import Deployment, Proxies, Secret, Transport
from chat_api.upstream import UpstreamTransport, trust_store
from chat_api.upstreams import MAIN, upstreams

# What a page's script may read of an answer's headers, besides those that are always readable.
EXPOSED = (
    "age",
    "apim-request-id",
    "azureml-model-session",
    "openai-processing-ms",
    "retry-after",
    "retry-after-ms",
    "server-timing",
    "x-chat-api-adapted",
    "x-chat-api-attempts",
    "x-chat-api-cache",
    "x-chat-api-deployment",
    "x-chat-api-fallback",
    "x-chat-api-finish-reason",
    "x-ms-deployment-name",
    "x-ms-region",
    "x-ratelimit-limit-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
    "x-request-id",
    "x-should-retry",
)


log = logging.getLogger(__name__)

Lifetime = AbstractAsyncContextManager[Mapping[str, Any]]


class State(TypedDict):
    """What the lifespan hands to every request."""

    settings: Settings
    gateway: Gateway
    ledger: Ledger | None  # what was used, where that is counted
    started: int  # when, in seconds since 1970


class App:
    """The gateway as an ASGI application: the filters, and the routes within.

    Args:
        routes: what answers.
        filters: what is around it, outermost first.
        lifespan: opens and closes what lives as long as the application.
    """

    def __init__(self, routes: ASGIApp, filters: list[Middleware], lifespan: Callable[["App"], Lifetime]) -> None:
        self.upstream = ""  # who answers at /v1, once it is known
        self.is_draining = False  # the server sets it, before it takes no more calls
        self.router = Router(lifespan=lifespan)  # for its lifespan; it has no routes
        self._served = routes
        for cls, args, kwargs in reversed(filters):
            self._served = cls(self._served, *args, **kwargs)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan (ASGI 3)."""
        scope["app"] = self
        await (self._served if scope["type"] == "http" else self.router)(scope, receive, send)


def create_app(
    settings: Settings, *, transport: Transport | None = None, access: Callable[[str], None] | None = None
) -> App:
    """The gateway as an ASGI application; what it opens is open while its lifespan runs.

    Args:
        settings: what `settings.load` gave.
        transport: sends requests upstream instead of `upstream`'s.
        access: takes the lines of the access log; Python's logging does without it.
    """

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[State]:
        let_streams_drain()
        async with AsyncExitStack() as stack:
            emulated = await stack.enter_async_context(_emulated(settings)) if settings.upstream == "emulator" else None
            tables = upstreams(settings, emulated, DEPLOYMENTS if emulated else ())
            app.upstream = tables[MAIN].resource()[0].base_url
            values = replace(settings, proxies=Proxies()) if emulated else settings  # it is in this very process
            sender = transport or UpstreamTransport(values, verify=_tls(tables))
            stack.push_async_callback(sender.aclose)
            ledger, meter = await counting(settings, stack)
            services = (meter, await keeping(settings, stack), conversing(settings, stack))
            yield {
                "settings": settings,
                "gateway": _gateway(settings, tables, sender, *services),
                "ledger": ledger,
                "started": int(time.time()),
            }

    prefixes = _prefixes(settings)
    return App(
        Routes(settings.config.api_base, prefixes),
        _middleware(settings, relayed_prefixes(settings.config.api_base, prefixes), access),
        lifespan,
    )


def _gateway(settings: Settings, tables: Mapping[str, Models], transport: Transport, *services: Any) -> Gateway:
    pool = Pool([one for models in tables.values() for one in models.deployments])
    budget = RetryBudget()
    retries = Retries(settings.max_attempts, settings.retry_wait, settings.hedge_after)
    relay = Relay(Asking(transport, budget), budget, retries)
    return Gateway(tables, pool, relay, settings.client_keys, *services)


def _prefixes(settings: Settings) -> tuple[str, ...]:
    return tuple(server.prefix for server in (*settings.openai, *settings.extra) if server.prefix)


def _middleware(settings: Settings, relayed: tuple[str, ...], access: Callable[[str], None] | None) -> list[Middleware]:
    """The filters, outermost first. None of them reads a body."""
    hosts = {urlsplit(url).hostname or "" for urls in settings.upstream_urls.values() for url in urls} | {settings.host}
    stack: list[Any] = [
        # Outermost, so that its line has the status that was really sent, and its id is there for all.
        Middleware(AccessLog, write=access),
        # Around the error boundary: a page has to be able to read errors as well.
        *_cors(settings),
        # Around everything that may raise: whatever it is, the client gets JSON and no stack trace.
        Middleware(ErrorBoundary, relayed=relayed),
        # Before all that looks at the path: it makes paths of the URLs that clients of a proxy send.
        Middleware(RequestTarget, hosts=hosts),
    ]
    if settings.allow_ips or settings.deny_ips:
        stack.append(Middleware(AddressFilter, allow=settings.allow_ips, deny=settings.deny_ips))
    if settings.lends_key:
        # Before the routes: a page of another origin must not reach anything that costs tokens.
        any_host = not settings.guards_loopback
        guard = Middleware(
            LoopbackGuard, any_host=any_host, hosts=hosts - {settings.host}, origins=settings.cors_origins
        )
        stack.append(guard)
    return stack


def _cors(settings: Settings) -> list[Middleware]:
    if not settings.cors_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],  # of which x-stainless-* is what OpenAI's client sends by the dozen
            allow_private_network=True,  # a page on the Internet may be allowed to call a server on this machine
            expose_headers=[*EXPOSED, REQUEST_ID.decode()],
            max_age=86400,
        )
    ]


@asynccontextmanager
async def _emulated(settings: Settings) -> AsyncIterator[Deployment]:
    """The default deployment of an emulator, which runs as long as the context."""
    name = settings.deployment_name or DEFAULT_DEPLOYMENT
    key = secrets.token_hex(16)
    mapped = [deployment for _, deployment in settings.model_mapper]
    emulator = Emulator((*DEPLOYMENTS, name, *mapped), frozenset({key}))
    async with open_emulator(emulator) as base_url:
        yield Deployment(name, base_url, settings.api_version, Secret(key))


def _tls(tables: Mapping[str, Models]) -> ssl.SSLContext:
    """What verifies upstreams; loading the trust store takes a tenth of the start, and http needs none."""
    urls = [one.base_url for models in tables.values() for one in models.deployments]
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if all(url.startswith("http://") for url in urls) else trust_store()
