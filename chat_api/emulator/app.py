"""The emulator's ASGI application: Azure's paths, versions and credentials in front of answers and faults."""

import asyncio
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qs

import msgspec
from starlette.types import Receive, Scope, Send

from chat_api.azure_url import DATED
from chat_api.emulator.answers import encode, invalid
from chat_api.emulator.error_bodies import BAD_KEY, BAD_TOKEN, NO_DEPLOYMENT, NO_VERSION_ON_V1, NOT_FOUND
from chat_api.emulator.exchange import REGION, Exchange, checked_region
from chat_api.emulator.faults import FAULTS
from chat_api.emulator.found import Found
from chat_api.emulator.latency import Latency, Pace
from chat_api.emulator.outages import Outage, Outages
from chat_api.emulator.quotas import Limit, Quotas, estimate
from chat_api.emulator.records import MAX_BODY_BYTES, Body, CallerGone, Received, Records, read
from chat_api.emulator.resource import DEFAULT_DEPLOYMENT, DEPLOYMENTS, Resource
from chat_api.emulator.responses import Response
from chat_api.emulator.routes import Route, route_of

__all__ = ["DEFAULT_DEPLOYMENT", "DEPLOYMENTS", "Emulator"]

_JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+")
_NOT_JSON = invalid("We could not parse the JSON body of your request.")
_NOT_FORM = invalid("We could not parse the multipart form of your request.")
_TOO_LARGE = invalid(f"Request content length exceeded {MAX_BODY_BYTES >> 20} MB limit.")


class Emulator:
    """One emulated resource, as an ASGI application.

    Args:
        deployments: the names that answer, beside the faults; others are `DeploymentNotFound`.
        keys: the keys that are accepted; None accepts any.
        region: what answers call the resource's region.
        name: tells resources of one region apart: what is stored has other ids in another region or under another name.
        limits: what a deployment takes in a minute, by its name; one limit is that of each deployment.
        latency: the seconds that it takes, before the answer if it is only a number.
        outages: when the resource, or one deployment, is out of order; their starts count from now.
        clock: the time in seconds, for limits and outages.
    """

    def __init__(
        self,
        deployments: tuple[str, ...] = DEPLOYMENTS,
        keys: frozenset[str] | None = None,
        *,
        region: str = REGION,
        name: str = "",
        limits: Limit | Mapping[str, Limit] | None = None,
        latency: Latency | float = 0.0,
        outages: Iterable[Outage] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.deployments = deployments
        self.keys = keys
        self.region = checked_region(region)
        self.open_calls = 0  # calls that are being answered right now
        self.asked: Counter[str] = Counter()  # the calls that have reached each deployment, however they ended
        self.ports: deque[int] = deque(maxlen=100)  # the callers' ports: equal ones are one connection
        self.on_outage: list[Callable[[], None]] = []  # what a server wants called when an outage was set
        self.latency = latency
        self._clock = clock
        self._records = Records()
        self._name = "" if (region, name) == (REGION, "") else f"{region}/{name}"
        self._resource = Resource(self._name)
        self._quotas = Quotas(dict.fromkeys(deployments, limits) if isinstance(limits, Limit) else limits)
        self._outages = Outages(outages, clock())

    @property
    def limits(self) -> dict[str, Limit]:
        """What each deployment takes in a minute; may be changed at any time."""
        return self._quotas.limits

    @property
    def latency(self) -> Latency | float:
        """The seconds that it takes; may be changed at any time, for the calls to come."""
        return self._pace.latency if self._pace else 0.0

    @latency.setter
    def latency(self, latency: Latency | float) -> None:
        given = latency if isinstance(latency, Latency) else Latency(latency)
        self._pace = Pace(given) if given.first or given.between else None

    @property
    def outage(self) -> Outage | None:
        """The outage that was set, beside those of the schedule; whoever hangs in it hangs on when it has ended."""
        return self._outages.current

    @outage.setter
    def outage(self, outage: Outage | None) -> None:
        self._outages.set(outage, self._clock())
        for follow in self.on_outage:
            follow()

    @property
    def refuses(self) -> bool:
        """Whether there should be nobody who listens."""
        return self._outages.refuses(self._clock())

    @property
    def received(self) -> deque[dict[str, Any]]:
        """The latest JSON bodies, oldest first."""
        return self._records.received

    @property
    def requests(self) -> deque[Received]:
        """The latest requests as they came, oldest first."""
        return self._records.requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3)."""
        if scope["type"] != "http":
            return
        self.open_calls += 1
        self.ports.append(scope["client"][1])
        try:
            await self._answer(scope, receive, send)
        except (asyncio.CancelledError, CallerGone):
            pass  # the server that runs it is stopping, or nobody is there to be answered
        finally:
            self.open_calls -= 1

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read(scope, receive)
        self._records.note(scope, body)
        exchange = Exchange(
            scope, receive, send, {}, "", "", 0, region=self.region, resource=self._name, pace=self._pace
        )
        route = route_of(scope["raw_path"])
        version = parse_qs(scope["query_string"].decode("latin-1")).get("api-version", [""])[0]
        found: Found | None = None
        runs_model = False
        if route is None or not (route.is_v1 or DATED.fullmatch(version)):
            route, found = None, Found(404, encode(NOT_FOUND))
        else:
            exchange.api_version = version or "v1"
            exchange.operation = route.operation
            if runs_model := scope["method"] == "POST" and route.runs_model:
                found = self._refused(scope, route, version) or self._read_into(exchange, route, body)
        if kind := self._outages.met(exchange.deployment, self._clock()):
            await FAULTS[f"fault-{kind}"].play(exchange)
            return
        if route and not runs_model:
            found = self._stored(scope, route, version, body)
        if found is not None:
            if not await exchange.late():
                await exchange.respond(found.status, found.body, content_type=found.content_type)
        else:
            await self._play(exchange)

    def _refused(self, scope: Scope, route: Route, version: str) -> Found | None:
        """The answer to a request that lacks its credential, or has a version where none belongs, or None."""
        if error := self._unauthorised(scope, route.is_v1):
            return Found(401, encode(error))
        if route.is_v1 and version not in ("", "v1", "preview"):
            return Found(400, encode(NO_VERSION_ON_V1))
        return None

    def _read_into(self, exchange: Exchange, route: Route, body: Body) -> Found | None:
        """Give the exchange its parameters and its deployment; the 400 if the body has none."""
        if body.form is not None:
            if not body.form.complete:
                return Found(400, encode(_NOT_FORM))
            exchange.body, exchange.is_form = body.form.fields, True
        else:
            parsed = _parse(body)
            if isinstance(parsed, Found):
                return parsed
            exchange.body = parsed
            self._records.note_json(parsed, body.size)
        name = exchange.deployment = route.deployment or str(exchange.body.get("model", ""))
        exchange.repeats = self.asked[name]
        if name in self.deployments or name in FAULTS:  # other names are without number
            self.asked[name] += 1
        return None

    def _stored(self, scope: Scope, route: Route, version: str, body: Body) -> Found:
        """The answer to a request that is about what the resource stores."""
        path = route.operation
        if not route.has_things:
            return Found(404, encode(NOT_FOUND))
        if refused := self._refused(scope, route, version):
            return refused
        if scope["method"] != "POST":
            return self._resource.answer(scope["method"], path, is_v1=route.is_v1) or Found(404, encode(NOT_FOUND))
        if path == "files":
            return self._resource.upload(body)
        make = self._resource.maker(path)
        if make is None:
            return Found(404, encode(NOT_FOUND))
        parsed = _parse(body) if body.size or path != "threads" else {}  # a thread needs no word
        if isinstance(parsed, Found):
            return parsed
        self._records.note_json(parsed, body.size)
        return make(parsed)

    async def _play(self, exchange: Exchange) -> None:
        deployment = exchange.deployment
        if deployment in self._quotas.limits:
            tokens = estimate(exchange.operation, exchange.body)
            admission = self._quotas.admit(deployment, tokens, self._clock())
            if admission is not None and await exchange.throttled(admission):
                return
        if await exchange.late():
            return
        if fault := FAULTS.get(deployment):
            await fault.play(exchange)
        elif deployment not in self.deployments:
            await exchange.respond(404, encode(NO_DEPLOYMENT))
        elif error := exchange.refusal() or self._resource.lacks(exchange.body):
            await exchange.respond(400, encode(error))
        else:
            if exchange.operation == "responses":
                self._resource.store(Response(exchange.body, deployment, self._name))
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


def _parse(body: Body) -> dict[str, Any] | Found:
    """The JSON object that the body is; the 400 if it is none."""
    if not body.kept:
        return Found(400, encode(_TOO_LARGE))
    try:
        parsed = msgspec.json.decode(body.data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        parsed = None
    if not isinstance(parsed, dict):
        return Found(400, encode(_NOT_JSON))
    return {name: value for name, value in parsed.items() if value is not None}  # null is as good as absent
