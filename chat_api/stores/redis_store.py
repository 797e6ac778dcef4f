"""Counts in Redis, for all processes together: one script a subject at admission, and one at settlement.

The time is Redis's own. What a process has in flight is held there under its name, for a lease that it renews: if it
dies, its places are free again when the lease ends. Where Redis cannot be asked, calls pass uncounted, or get 503.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import cast

import msgspec
from msgspec.structs import replace

from chat_api.counting import PARALLEL, Account, Claim, Counters, Grant, Reading
from chat_api.errors import StoreDown
from chat_api.stores.keys import tagged
from chat_api.stores.memory import PARALLEL_WAIT_SECONDS
from chat_api.stores.redis_client import Script
from chat_api.stores.redis_link import UP, Done, Link

LEASE_SECONDS = 30.0
RENEWALS = 3  # in a lease
AS_TOLD = -1  # of the places that are given back: as many as are too many

UNCOUNTED = Grant()  # of a call that passes although nobody counts; known by its identity

ADMIT = Script("windows.lua", "subject.lua", "admit.lua")
SETTLE = Script("windows.lua", "subject.lua", "settle.lua")

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[int]).decode


class _Flights:
    """A subject's calls in flight in this process."""

    __slots__ = ("asked", "count")

    def __init__(self) -> None:
        self.count = 0  # granted and not settled
        self.asked = 0  # scripts under way


class RedisStore:
    """A `Store` for many processes.

    Args:
        link: the way to Redis.
        failure: "open" or "closed": what happens to calls while Redis cannot be asked.
        lease_seconds: after which the places of a process that died are free.
        now: the time in milliseconds since 1970, for tests.
    """

    def __init__(
        self,
        link: Link,
        *,
        failure: str = "open",
        lease_seconds: float = LEASE_SECONDS,
        now: Callable[[], int] = int,
    ) -> None:
        self._link = link
        self._failure = failure
        self._lease_seconds = lease_seconds
        self._now = now
        self._process = secrets.token_hex(8)
        self._flights: dict[str, _Flights] = {}
        self._renewal: asyncio.Task[None] | None = None
        self._not_settled = 0
        link.on_up = self._renew

    async def admit(self, claims: Sequence[Claim]) -> Grant:
        """Charge the claims of a call and take its places, if every one of them is within its limits.

        Raises:
            StoreDown: Redis cannot be asked, and STORE_FAILURE is `closed`.
        """
        if not claims:
            return Grant()
        admission = _Admission(self, claims)
        try:
            grant = await admission.grant
        except asyncio.CancelledError:
            admission.leave()
            raise
        if grant is not None:
            return grant
        if self._failure == "closed":
            raise StoreDown(
                "What callers use cannot be counted at the moment: the store does not answer. Try again in a second.",
                headers=[(b"retry-after", b"1")],
            )
        self._link.not_counted += 1
        return UNCOUNTED

    def ask(self, claim: Claim, done: Done) -> None:
        """Ask Redis for what a claim takes; `done` gets its reply, or an exception."""
        if claim.max_parallel and claim.subject not in self._flights:
            self._flights[claim.subject] = _Flights()
            if self._renewal is None:
                self._renewal = asyncio.get_running_loop().create_task(self._renew_for_ever())
        charges = [
            (counter.name, counter.strategy, counter.seconds * 1000, counter.limit, amount)
            for counter, amount in claim.charges
        ]
        self._send(ADMIT, claim.subject, (claim.max_parallel, charges), done)

    def granted(self, claim: Claim) -> None:
        """Redis has granted a claim."""
        if claim.max_parallel:
            self._flights[claim.subject].count += 1

    def settle(self, claims: Sequence[Claim], grant: Grant, changes: Sequence[int]) -> None:
        """A call that was granted is over: correct each of its charges by so much, and give its places back."""
        if grant is UNCOUNTED or grant.refused is not None:
            return
        place = 0
        for claim in claims:
            end = place + len(claim.charges)
            self.correct(claim, grant.readings[place:end], changes[place:end])
            place = end

    def correct(self, claim: Claim, readings: Sequence[Reading], changes: Sequence[int]) -> None:
        """Correct what a claim was charged, and give its place back."""
        corrections = [
            (counter.name, counter.strategy, counter.seconds * 1000, reading.stamp, change)
            for (counter, _), reading, change in zip(claim.charges, readings, changes, strict=True)
            if change
        ]
        if claim.max_parallel:
            self._flights[claim.subject].count -= 1
        if corrections or claim.max_parallel:
            self._send(SETTLE, claim.subject, (1 if claim.max_parallel else 0, corrections), self._settled)

    def _settled(self, reply: object) -> None:
        if isinstance(reply, Exception):
            self._not_settled += 1

    def _send(self, script: Script, subject: str, rest: tuple[object, ...], done: Done) -> None:
        flights = self._flights.get(subject)
        own = flights.count if flights is not None else 0
        lease_ms = int(self._lease_seconds * 1000)
        message = _encode((self._now(), self._process, self._link.number, lease_ms, own, *rest))
        if flights is not None:
            flights.asked += 1
            done = partial(self._arrived, subject, flights, done)
        self._link.ask(script.of(tagged(subject, "limits"), message), done)

    def _arrived(self, subject: str, flights: _Flights, done: Done, reply: object) -> None:
        flights.asked -= 1
        done(reply)
        if not flights.count and not flights.asked:
            self._flights.pop(subject, None)

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._lease_seconds / RENEWALS)
            self._renew()

    def _renew(self) -> None:
        """Hold the places of this process for another lease; also where Redis has come back and knows of none."""
        for subject, flights in list(self._flights.items()):
            if flights.count and self._link.state is UP:
                self._send(SETTLE, subject, (0 if flights.asked else AS_TOLD, ()), _ignored)

    def account(self, counters: Counters) -> Account | None:
        """Nobody: what is counted is in Redis."""
        return None

    def state(self) -> Mapping[str, object]:
        """What operators are told of it."""
        link = self._link
        return {
            "kind": "redis",
            "server": link.name,
            "up": link.state is UP,
            "failures": link.failures,
            "not_counted": link.not_counted,
            "not_settled": self._not_settled,
            "down_seconds": round(link.down_seconds, 3),
        }

    async def aclose(self) -> None:
        """Settle what is still to be settled, and let go of every connection."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait({self._renewal})
        await self._link.aclose()


class _Admission:
    """A call's claims on their way through Redis, each by itself; what is granted to a caller who has gone goes back.

    Attributes:
        grant: what comes of it; None if Redis did not say.
    """

    def __init__(self, store: RedisStore, claims: Sequence[Claim]) -> None:
        self.grant: asyncio.Future[Grant | None] = asyncio.get_running_loop().create_future()
        self._store = store
        self._claims = claims
        self._replies: list[list[int] | None] = [None] * len(claims)
        self._missing = len(claims)
        for nth, claim in enumerate(claims):
            store.ask(claim, partial(self._arrived, nth))

    def _arrived(self, nth: int, reply: object) -> None:
        if not isinstance(reply, Exception):
            self._replies[nth] = decoded = _decode(cast("bytes", reply))
            if not decoded[0]:
                self._store.granted(self._claims[nth])
        self._missing -= 1
        if self._missing:
            return
        grant = self._outcome()
        if grant is None or grant.refused is not None or self.grant.done():
            self._give_back()
        if not self.grant.done():
            self.grant.set_result(grant)

    def leave(self) -> None:
        """Its caller has gone."""
        if self.grant.done() and not self.grant.cancelled():  # it was granted at the last moment
            grant = self.grant.result()
            if grant is not None and grant.refused is None:
                self._give_back()

    def _give_back(self) -> None:
        """Undo the claims that were granted."""
        for claim, reply in zip(self._claims, self._replies, strict=True):
            if reply is not None and not reply[0]:
                self._store.correct(claim, _readings(reply), [-amount for _, amount in claim.charges])

    def _outcome(self) -> Grant | None:
        """What the replies come to: the refusal that lasts longest, if there is one."""
        grants: list[tuple[Claim, list[int]]] = []
        for claim, reply in zip(self._claims, self._replies, strict=True):
            if reply is None:
                return None
            grants.append((claim, reply))
        refusals: list[tuple[int, int, int]] = []
        readings: list[Reading] = []
        for nth, (_, reply) in enumerate(grants):
            if reply[0]:
                refusals.append((reply[1], PARALLEL if reply[0] == PARALLEL else len(readings) + reply[0] - 1, nth))
            readings += _readings(reply)
        if not refusals:
            return Grant(tuple(readings))
        place = 0
        for claim, reply in grants:
            for _, amount in claim.charges:
                if not reply[0]:  # what was granted is given back
                    readings[place] = replace(readings[place], left=readings[place].left + amount)
                place += 1
        wait_ms, refused, refused_claim = max(refusals, key=lambda refusal: refusal[0])
        return Grant(tuple(readings), refused, refused_claim, wait_ms / 1000 or PARALLEL_WAIT_SECONDS)


def _readings(reply: list[int]) -> list[Reading]:
    return [Reading(reply[at], reply[at + 1] / 1000, reply[at + 2]) for at in range(2, len(reply), 3)]


def _ignored(_: object) -> None:
    """A lease that is not renewed now is renewed later."""
