"""Deployments that live, die, flap and throttle on a clock that skips, and the relay's calls to them."""

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from random import Random

from chat_api.asking import Asking
from chat_api.budget import BUCKET_SECONDS, LEAST, OPEN_SHARE, SHARE, WINDOW_SECONDS, RetryBudget
from chat_api.errors import ConnectError, ConnectTimeout, GatewayError
from chat_api.health import Health
from chat_api.relay import Relay, Retries
from chat_api.types import Attempt, Call, Deployment, Headers, Secret, UpstreamRequest
from tests.relays import group_of
from tests.wires import run_skipping

JSON: Headers = ((b"content-type", b"application/json"),)
MINUTES_LATER = 600.0  # than the clock's beginning, so that nothing depends on where that is


@dataclass(frozen=True)
class Ill:
    """What a deployment does instead of answering: it refuses connections, lets them time out, or has a status."""

    status: int = 0  # 0: no connection
    headers: Headers = ()
    seconds: float = 0.002  # until that is known


Fate = Callable[[float], Ill | None]  # seconds since the beginning → what is wrong then, if anything is


def well(_: float) -> Ill | None:
    """It answers."""
    return None


def during(since: float, until: float, ill: Ill) -> Fate:
    """It is ill for a time."""
    return lambda now: ill if since <= now < until else None


def flapping(good: float, bad: float, ill: Ill) -> Fate:
    """It is well and ill in turn."""
    return lambda now: ill if now % (good + bad) >= good else None


def sporadic(part: float, ill: Ill, seed: int) -> Fate:
    """It is well, but now and then a call goes wrong."""
    rng = Random(seed)
    return lambda _: ill if rng.random() < part else None


def limited(per_second: float, burst: float, ill: Ill) -> Fate:
    """It takes so many calls a second, and is `ill` to the others."""
    tokens, last = burst, 0.0

    def fate(now: float) -> Ill | None:
        nonlocal tokens, last
        tokens, last = min(burst, tokens + (now - last) * per_second), now
        if tokens < 1:
            return ill
        tokens -= 1
        return None

    return fate


class _Answer:
    """A whole answer that has arrived."""

    queue_seconds = connect_seconds = 0.0

    def __init__(self, status: int, headers: Headers) -> None:
        self.status = status
        self.headers = headers

    def arrived(self) -> bytes | None:
        """All of it."""
        return b'{"choices":[]}'

    async def chunks(self) -> AsyncIterator[bytes]:
        """All of it."""
        yield b'{"error":{"code":"c","message":"m"}}'

    async def aclose(self) -> None:
        """There is nothing to close."""


@dataclass
class Told:
    """What became of a call."""

    at: float  # when it came, in seconds since the beginning
    status: int
    trail: list[Attempt]
    ended: float
    after: int | None  # the seconds that it is told to wait


@dataclass
class World:
    """Deployments, each with its fate, and what they were asked.

    Attributes:
        deployments: who there is.
        fates: what is wrong with them, by name; those that are not named are always well.
        seconds: how long an answer takes.
        asked: when each was asked, by name.
        wrongly: the calls to one that was not to be asked while another could be.
    """

    deployments: Sequence[Deployment]
    fates: dict[str, Fate] = field(default_factory=dict)
    seconds: Callable[[Random], float] = lambda rng: rng.expovariate(1 / 0.2)
    retries: Retries = Retries()  # noqa: RUF009 - it is frozen
    seed: int = 1
    asked: dict[str, list[float]] = field(default_factory=dict)
    told: list[Told] = field(default_factory=list)
    wrongly: list[tuple[float, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = Random(self.seed)
        self.group = group_of(*self.deployments)
        self.asked = {one.name: [] for one in self.deployments}

    # The transport.

    def now(self) -> float:
        """Seconds since the beginning."""
        return asyncio.get_running_loop().time() - self.began

    async def send(self, request: UpstreamRequest) -> _Answer:
        """Answer as the deployment does now."""
        name = request.url.split("//")[1].split(".")[0]
        now = self.now()
        self.asked[name].append(now)
        ill = self.fates.get(name, well)(now)
        if ill is None:
            await asyncio.sleep(self.seconds(self.rng))
            return _Answer(200, JSON)
        await asyncio.sleep(ill.seconds)
        if ill.status:
            return _Answer(ill.status, (*JSON, *ill.headers))
        raise ConnectTimeout("no connection") if ill.seconds > 1 else ConnectError("refused")

    async def aclose(self) -> None:
        """There is nothing to close."""

    # Calls.

    async def one(self) -> None:
        """One call, from its coming to its end."""
        call = Call("chat/completions", "m", b"{}", False, verbatim=True)
        at = self.now()
        try:
            reply = await self.relay.exchange(call, self.group)
            status, headers = reply.status, reply.headers
        except GatewayError as error:
            status, headers = error.status, error.headers
        after = dict(headers).get(b"retry-after")
        insort(
            self.told, Told(at, status, call.trail, self.now(), int(after) if after else None), key=lambda one: one.at
        )

    def _run(self, drive: Callable[[], "asyncio.Future[None] | asyncio.Task[None]"]) -> "World":
        async def run() -> None:
            loop = asyncio.get_running_loop()
            self.began = loop.time()
            self.origin = self.began + MINUTES_LATER
            self.budget = RetryBudget()
            asking = _Watched(self, self.budget)
            self.relay = Relay(asking, self.budget, self.retries)
            await drive()

        run_skipping(run())
        return self

    def at_rate(self, per_second: float, seconds: float, *, steady: bool = False) -> "World":
        """Calls come at a rate, evenly or as they happen to, until the time is over."""

        async def drive() -> None:
            calls = []
            at = 0.0
            while at < seconds:
                await asyncio.sleep(max(0.0, at - self.now()))
                calls.append(asyncio.ensure_future(self.one()))
                at += 1 / per_second if steady else self.rng.expovariate(per_second)
            await asyncio.gather(*calls)

        return self._run(lambda: asyncio.ensure_future(drive()))

    def at_a_time(self, callers: int, calls: int) -> "World":
        """So many callers, each with one call after the other."""

        async def drive() -> None:
            left = iter(range(calls))

            async def caller() -> None:
                for _ in left:
                    await self.one()

            await asyncio.gather(*(caller() for _ in range(callers)))

        return self._run(lambda: asyncio.ensure_future(drive()))

    # What came of it.

    @property
    def attempts(self) -> int:
        """How many requests went upstream."""
        return sum(map(len, self.asked.values()))

    @property
    def statuses(self) -> Counter[int]:
        """How many calls had which status."""
        return Counter(told.status for told in self.told)

    def failed(self, since: float = 0.0, until: float = float("inf")) -> list[Told]:
        """The calls of that time that were not answered."""
        return [told for told in self.told if told.status != 200 and since <= told.at < until]

    @property
    def overspent(self) -> list[float]:
        """When a retry was made that no budget allows: more than ten, a fifth of the calls, half of the most at once.

        All are those of the last 60 to 65 seconds, as the budget counts them.
        """
        calls = [told.at + self.origin for told in self.told]
        changes = [(told.at + self.origin, 1) for told in self.told] + [
            (told.ended + self.origin, -1) for told in self.told
        ]
        changes.sort(key=lambda change: (change[0], -change[1]))
        under_way = list(accumulate(change for _, change in changes))
        times = [at for at, _ in changes]
        retries = sorted(attempt.started for told in self.told for attempt in told.trail[1:])
        found = []
        for place, at in enumerate(retries):
            since = (at // BUCKET_SECONDS) * BUCKET_SECONDS - WINDOW_SECONDS
            lately = place + 1 - bisect_left(retries, since)
            came = bisect_right(calls, at) - bisect_left(calls, since)
            most = max(under_way[max(0, bisect_left(times, since) - 1) : bisect_right(times, at)])
            if lately > max(LEAST, SHARE * came, OPEN_SHARE * most):
                found.append(at - self.origin)
        return found

    def requests(self, name: str, since: float = 0.0, until: float = float("inf")) -> int:
        """How often a deployment was asked in that time."""
        return sum(since <= at < until for at in self.asked[name])


class _Watched(Asking):
    """Sees who is asked while another one could be."""

    def __init__(self, world: World, budget: RetryBudget) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(
            world, budget, now=lambda: loop.time() + MINUTES_LATER, wall=lambda: loop.time() + 1.7e9, rng=world.rng
        )
        self._world = world

    def begin(self, call: Call, member: Health, fallback: str | None = None) -> Attempt:
        """Note it if it is wrong, and begin."""
        now = self.now()
        if not member.is_available(now):
            been = [attempt.deployment for attempt in call.trail]
            others = [one for one in self._world.group.members if one.deployment not in been and one is not member]
            if any(one.is_available(now) for one in others):
                self._world.wrongly.append((now, member.deployment.name, member.state(now)))
        return super().begin(call, member, fallback)


def deployments(*weights: float) -> list[Deployment]:
    """As many deployments, named a, b, …"""
    return [
        Deployment(name, f"https://{name}.test", "2024-10-21", Secret("a-key-of-ours"), weight=weight)
        for name, weight in zip("abcdefgh", weights, strict=False)
    ]


def tiers(*names: str) -> list[Deployment]:
    """A deployment for each priority, the best first."""
    return [
        Deployment(name, f"https://{name}.test", "2024-10-21", Secret("a-key-of-ours"), priority=place)
        for place, name in enumerate(names)
    ]
