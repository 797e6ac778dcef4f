"""A gateway that counts, in front of scripted regions, on a clock that skips."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from msgspec import structs

from chat_api.callers import ClientKey, digest_of
from chat_api.counting import Amounts, Price, Store
from chat_api.errors import GatewayError
from chat_api.headers import relayed
from chat_api.ledger import Ledger
from chat_api.metering import Meter
from chat_api.models import Models
from chat_api.plans import Limits, Planner
from chat_api.routing import read_routing
from chat_api.stores.memory import MemoryStore
from chat_api.types import Call, Reply, Secret
from tests.relays import gateway_of, known
from tests.scripted import Regions, Script, deployment
from tests.wires import run_skipping

BEGIN = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp() - 1000  # the skipping clock begins at 1000
CHAT = b'{"messages":"' + b"x" * 25 + b'"}'  # ten tokens, about
ADDRESS = "address 127.0.0.1"
NO_LIMITS = Limits()


def key(name: str, **fields: Any) -> ClientKey:
    """A client key; it is called and presented by its name."""
    return ClientKey(name, digest_of(name), **fields)


def chat(body: bytes = CHAT, *, presents: str | None = None, model: str | None = "m", **fields: Any) -> Call:
    """A chat that is counted."""
    credential = Secret(presents) if presents else None
    plain = Call(
        "chat/completions",
        model,
        body,
        False,
        credential,
        verbatim=True,
        is_metered=True,
        is_read=True,
        model_in_body=model,
    )
    return structs.replace(plain, trail=[], **fields)


def limiting(tokens: int, max_tokens: int, more: bytes = b"", **fields: Any) -> Call:
    """A chat that is about so many tokens, and says how many the answer may have, and more."""
    body = b'{"max_tokens":%d%b,"x":"' % (max_tokens, more)
    body += b"x" * (4 * tokens - len(body) - 2) + b'"}'
    return chat(body, **{"most_tokens": read_routing(body).most_tokens, **fields})


class Counted:
    """The gateway; whoever presents no key is an address.

    Args:
        limits: what the settings say.
        keys: the client keys; their upstream has ours.
        models: the table; without one `m` is answered by the region `a`.
        prices: money a million tokens.
        store: counts; the memory does without one.
        scripts: what the regions say.
    """

    def __init__(
        self,
        limits: Limits = NO_LIMITS,
        keys: Sequence[ClientKey] = (),
        *,
        models: Models | None = None,
        prices: Mapping[str, Price] | None = None,
        store: Store | None = None,
        **scripts: Script,
    ) -> None:
        self.regions = Regions(scripts)
        self._looked_at = 0.0
        self.memory = MemoryStore(self.now)
        self.ledger = Ledger(None, wall=self.wall)
        self.meter = Meter(Planner(limits, wall=self.wall), store or self.memory, self.ledger, prices, wall=self.wall)
        self.gateway = gateway_of(
            {"": models or Models({"m": [deployment("a")]}, [deployment("a")])},
            self.regions,
            keys,
            meter=self.meter,
            now=self.now,
            wall=self.wall,
        )

    def now(self) -> float:
        """The time on the clock that skips."""
        self._looked_at = asyncio.get_running_loop().time()
        return self._looked_at

    def wall(self) -> float:
        """The time of day on it."""
        return BEGIN + self.now()

    async def ask(self, call: Call) -> Reply | GatewayError:
        """What a call is told; its answer is not read yet."""
        try:
            return await self.gateway.handle(known(self.gateway, call))
        except GatewayError as error:
            return error

    async def told(self, call: Call) -> Reply | GatewayError:
        """What a call is told, all of its answer read."""
        told = await self.ask(call)
        if isinstance(told, GatewayError) or isinstance(told.body, bytes):
            return told
        try:
            body = b"".join([chunk async for chunk in told.body])
        except GatewayError as error:
            return error
        finally:
            await told.body.aclose()
        return structs.replace(told, body=body)

    def all_told(self, *calls: Call) -> list[Reply | GatewayError]:
        """What calls are told, one after the other."""

        async def each() -> list[Reply | GatewayError]:
            return [await self.told(one) for one in calls]

        return run_skipping(each())

    def used(self, subject: str = ADDRESS) -> dict[str, int]:
        """What is counted of a subject, by its counters."""
        with suppress(RuntimeError):  # no loop is running any more
            self.now()
        known_subject = self.memory._subjects.get(subject)
        windows = known_subject.windows if known_subject else {}
        return {name: window.look(int(self._looked_at * 1000)) for name, window in windows.items()}

    def in_flight(self, subject: str = ADDRESS) -> int:
        """How many calls a subject has under way."""
        return self.memory._subjects[subject].in_flight

    async def usage(self) -> dict[tuple[str, str, str], Amounts]:
        """What the ledger has: by the caller, the model and the deployment."""
        rows = await self.ledger.rows("2026-01-01", "2027-12-31")
        return {(used.key, used.model, used.deployment): amounts for used, amounts in rows.items()}


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """What it returns, without the time that it waits."""
    return run_skipping(main)


def statuses(told: Sequence[Reply | GatewayError]) -> list[int]:
    """The status of each."""
    return [one.status for one in told]


def rate_limits(told: Reply | GatewayError) -> dict[str, str]:
    """What it tells of limits."""
    prefix = b"x-ratelimit-"
    headers = relayed(told.headers, told.quota) if isinstance(told, Reply) else told.headers
    pairs = [(name[len(prefix) :].decode(), value.decode()) for name, value in headers if name.startswith(prefix)]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)
