"""A few regions that say what a test has written down for them, and the relay's or the gateway's calls to them."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from random import Random
from typing import Any

from msgspec import structs

from chat_api.errors import GatewayError
from chat_api.health import Health
from chat_api.models import Models
from chat_api.pool import Pool
from chat_api.relay import Relay, Retries
from chat_api.types import Call, Deployment, Headers, Reply, Secret, UpstreamRequest
from tests.relays import gateway_of, known, relay_of
from tests.wires import run_skipping

OURS = Secret("a-key-of-ours")
CHAT = Call("chat/completions", "m", b"{}", False, verbatim=True, request_id="r-1")


def deployment(name: str, **fields: Any) -> Deployment:
    """One that is called so, and whose region is."""
    values: dict[str, Any] = {"api_version": "2024-10-21", "key": OURS, **fields}
    return Deployment(**{"name": name, "base_url": f"https://{name}.test", **values})


def new(**fields: Any) -> Call:
    """A chat, or another call, that nobody has been asked for yet."""
    return structs.replace(CHAT, trail=[], **fields)


async def settled() -> None:
    """All that ends by itself has ended."""
    for _ in range(10):
        await asyncio.sleep(0)


class Said:
    """A response: whole, or in pieces of an event stream, where an exception breaks it off."""

    queue_seconds = connect_seconds = 0.0

    def __init__(
        self,
        status: int = 200,
        *headers: tuple[bytes, bytes],
        body: bytes = b'{"choices":[]}',
        events: Sequence[bytes | Exception] | None = None,
        kind: bytes = b"application/json",
    ) -> None:
        self.status = status
        self.headers: Headers = ((b"content-type", b"text/event-stream" if events is not None else kind), *headers)
        self.pieces = [body] if events is None else events
        self.is_whole = events is None and kind == b"application/json"
        self.closed = 0

    def arrived(self) -> bytes | None:
        """All of it, if it comes at once."""
        piece = self.pieces[0]
        return piece if self.is_whole and isinstance(piece, bytes) else None

    async def chunks(self) -> AsyncIterator[bytes]:
        """A piece at a time."""
        for piece in self.pieces:
            await asyncio.sleep(0)
            if isinstance(piece, Exception):
                raise piece
            yield piece

    async def aclose(self) -> None:
        """Count it."""
        await asyncio.sleep(0)
        self.closed += 1


Line = Said | Exception
Script = Line | tuple[float, Line] | list[Any]


class Regions:
    """A transport: each region says the lines of its script, the last one again and again; without one it answers.

    A line may have a time before it, in seconds.

    Attributes:
        asked: who was, in that order.
        requests: what.
        most: how many requests were under way at once, by region.
        said: the responses that were given.
    """

    def __init__(self, scripts: Mapping[str, Script]) -> None:
        self._scripts: dict[str, list[Line | tuple[float, Line]]] = {
            name: list(one) if isinstance(one, list) else [one] for name, one in scripts.items()
        }
        self._open: dict[str, int] = {}
        self.asked = ""
        self.requests: list[UpstreamRequest] = []
        self.most: dict[str, int] = {}
        self.said: list[Said] = []

    async def send(self, request: UpstreamRequest) -> Said:
        """Say the next line."""
        name = request.url.partition("//")[2].partition(".")[0]
        self.asked += name
        self.requests.append(request)
        lines = self._scripts.get(name, [Said()])
        said = lines.pop(0) if len(lines) > 1 else lines[0]
        seconds, line = said if isinstance(said, tuple) else (0.0, said)
        self._open[name] = self._open.get(name, 0) + 1
        self.most[name] = max(self.most.get(name, 0), self._open[name])
        try:
            await asyncio.sleep(seconds)
        finally:
            self._open[name] -= 1
        if isinstance(line, Exception):
            raise line
        self.said.append(line)
        return line

    async def aclose(self) -> None:
        """There is nothing to close."""


class Scene:
    """A model's deployments and their regions, on a clock that skips; what stands in for the model comes last."""

    def __init__(
        self,
        *deployments: Deployment,
        stand_ins: Sequence[Deployment] = (),
        retries: Retries | None = None,
        **scripts: Script,
    ) -> None:
        deployments = deployments or (deployment("a"), deployment("b"), deployment("c"))
        self.regions = Regions(scripts)
        self.relay: Relay = relay_of(self.regions, retries, now=self.now, wall=lambda: self.now() + 1.5e9)
        self.budget = self.relay.budget
        pool = Pool((*deployments, *stand_ins))
        served = [(None, deployments), ("small", stand_ins)] if stand_ins else [(None, deployments)]
        self.group = pool.group("m", *served)
        self.members = {one.deployment.name: one for one in self.group.members}

    def now(self) -> float:
        """The time on the clock that skips."""
        return asyncio.get_running_loop().time()

    @property
    def asked(self) -> str:
        """Who was, in that order."""
        return self.regions.asked

    async def call(self, call: Call | None = None, **options: Any) -> Reply | GatewayError:
        """What a call is told."""
        try:
            return await self.relay.exchange(call or new(), self.group, **options)
        except GatewayError as error:
            return error

    def told(self, call: Call | None = None, **options: Any) -> Reply | GatewayError:
        """What one call is told, and nothing of it is left."""

        async def one() -> Reply | GatewayError:
            told = await self.call(call, **options)
            if isinstance(told, Reply) and not isinstance(told.body, bytes):
                await told.body.aclose()
            await settled()
            return told

        told = run_skipping(one())
        self.assert_idle()
        return told

    def eject(self, name: str, seconds: float = 50.0) -> Health:
        """One has failed, and may be asked again so much after the beginning (1000 on the clock)."""
        member = self.members[name]
        member.release(attempt := member.begin(990.0))
        member.fail(attempt, 990.0, _Longest())
        member.ejected_until = 1000.0 + seconds
        return member

    def cool(self, name: str, seconds: float = 50.0) -> Health:
        """One throttles, until so much after the beginning."""
        member = self.members[name]
        member.release(attempt := member.begin(1000.0))
        member.cool_down(attempt, seconds, 1000.0)
        return member

    def assert_idle(self) -> None:
        """Nobody has a place, no call is open, and no task runs."""
        assert {name: one.in_flight for name, one in self.members.items()} == dict.fromkeys(self.members, 0)
        assert [one._probe for one in self.members.values()] == [None] * len(self.members)
        assert self.budget.open == 0
        assert not self.relay._abandoned


class _Longest(Random):
    """Ejections without jitter."""

    def uniform(self, a: float, b: float) -> float:
        """The most of it."""
        return b


class Front:
    """A gateway in front of scripted regions, on a clock that skips."""

    def __init__(self, models: Models, *, client_keys: Sequence[Secret] = (), **scripts: Script) -> None:
        self.regions = Regions(scripts)
        self.gateway = gateway_of({"": models}, self.regions, client_keys, now=self.now, wall=self.now)

    def now(self) -> float:
        """The time on the clock that skips."""
        return asyncio.get_running_loop().time()

    @property
    def asked(self) -> str:
        """Who was, in that order."""
        return self.regions.asked

    def told(self, *calls: Call) -> list[Reply | GatewayError]:
        """What each of the calls is told, one after the other, all of its answer read."""

        async def each() -> list[Reply | GatewayError]:
            return [await self._call(one) for one in calls]

        return run_skipping(each())

    async def _call(self, call: Call) -> Reply | GatewayError:
        try:
            reply = await self.gateway.handle(known(self.gateway, call))
        except GatewayError as error:
            return error
        if isinstance(reply.body, bytes):
            return reply
        body = b"".join([chunk async for chunk in reply.body])
        await reply.body.aclose()
        return structs.replace(reply, body=body)
