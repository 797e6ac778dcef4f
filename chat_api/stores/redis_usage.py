"""Usage in Redis: a hash for each key and day, `chat-api:{alice}:usage:2026-11-21`, of amounts by what they are of."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import cast

import msgspec

from chat_api.counting import Amounts, Used
from chat_api.errors import StoreDown
from chat_api.stores.keys import tagged, untagged
from chat_api.stores.redis_client import Command, RedisClient, Script
from chat_api.stores.redis_link import Down, Link

KEEP_SECONDS = 400 * 86400
FIELDS = Amounts.__struct_fields__
KIND = "usage:"  # and the day

COUNT = Script("usage.lua")

_encode = msgspec.msgpack.Encoder().encode
_field = msgspec.json.Encoder().encode
_read_field = msgspec.json.Decoder(tuple[str, str, str]).decode


class RedisUsage:
    """A `UsageStore` over the link that the counters use as well.

    Args:
        link: the way to Redis.
        client: what it goes over.
    """

    def __init__(self, link: Link, client: RedisClient) -> None:
        self._link = link
        self._client = client
        self._process = secrets.token_hex(8)
        self._sent = 0
        self._unsure: list[Command] = []  # of which nobody knows whether they were counted
        self._turn = asyncio.Lock()

    async def add(self, rows: Mapping[Used, Amounts]) -> None:
        """Count these on top of what is kept. What gets no answer is sent again before anything else, counted once.

        Raises:
            StoreDown: Redis cannot be asked; none of them was counted, or will be.
        """
        async with self._turn:
            self._unsure = [command for command, _ in await self._lost(self._unsure)]
            if self._unsure:
                raise _down()
            lost = await self._lost(self._commands(rows))
            if lost and all(isinstance(error, Down) for _, error in lost):
                raise _down()
            self._unsure = [command for command, _ in lost]

    def _commands(self, rows: Mapping[Used, Amounts]) -> list[Command]:
        """A script for each key and day."""
        amounts_of: dict[tuple[str, str], list[object]] = {}
        for used, amounts in rows.items():
            fields = amounts_of.setdefault((used.key, used.day), [])
            for name in FIELDS:
                if amount := getattr(amounts, name):
                    fields += (_field((used.model, used.deployment, name)).decode(), amount)
        self._sent += 1
        return [
            COUNT.of(tagged(key, KIND + day), _encode((self._process, self._sent, KEEP_SECONDS, fields)))
            for (key, day), fields in amounts_of.items()
            if fields
        ]

    async def _lost(self, commands: Sequence[Command]) -> list[tuple[Command, Exception]]:
        """Run these; those that got no answer, and what came instead."""
        replies = [(command, self._asked(command)) for command in commands]
        return [(command, there) for command, reply in replies if isinstance(there := await reply, Exception)]

    def _asked(self, command: Command) -> asyncio.Future[object]:
        reply: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._link.ask(command, lambda there: None if reply.done() else reply.set_result(there))
        return reply

    async def read(self, since: str, until: str) -> dict[Used, Amounts]:
        """What is kept of the days from `since` to `until`, both included ("2026-11-01").

        Raises:
            StoreDown: it cannot be read.
        """
        found: dict[Used, Amounts] = {}
        replies = {}
        async for key in self._keys():
            name, kind = untagged(key)
            day = kind.removeprefix(KIND)
            if since <= day <= until and key not in replies:
                replies[key] = name, day, self._asked(("HGETALL", key))
        for name, day, reply in replies.values():
            fields = await reply
            if isinstance(fields, Exception):
                raise _down()
            for field, amount in cast("dict[bytes, bytes]", fields).items():
                if not field.startswith(b"#"):
                    model, deployment, what = _read_field(field)
                    amounts = found.setdefault(Used(day, name, model, deployment), Amounts())
                    setattr(amounts, what, int(amount))
        return found

    async def _keys(self) -> AsyncIterator[bytes]:
        """The keys of all days, on every primary; some may come twice."""
        if isinstance(await self._asked(("EXISTS", tagged("", KIND))), Exception):  # it is connected now, or down
            raise _down()
        found = self._client.keys(tagged("*", KIND + "*").decode())
        try:
            while True:
                async with asyncio.timeout(self._link.timeout_seconds):
                    key = await anext(found, None)
                if key is None:
                    return
                yield key
        except Exception as error:  # whatever stands in the way of the next key
            raise _down() from error
        finally:
            await found.aclose()

    async def aclose(self) -> None:
        """Let go of every connection, which the counters use as well."""
        await self._link.aclose()


def _down() -> StoreDown:
    return StoreDown(
        "The store that keeps usage does not answer. Try again in a second.", headers=[(b"retry-after", b"1")]
    )
