"""Identical calls in flight share one: it is made once, and each caller gets the whole answer, at his own pace.

What makes calls identical is for whoever makes their keys. Of a flight that is over nothing is remembered.
"""

import asyncio
from collections.abc import Mapping

from chat_api.sharing.flight import Ask, Flight
from chat_api.sharing.stream import AHEAD_BYTES, MAX_SHARED_BYTES
from chat_api.types import Reply


class Sharing:
    """The calls in flight, which others may join.

    Args:
        max_shared_bytes: how much of one stream is held. When so much has come nobody can join any more, and
            who falls behind by more is cut off, unless nobody reads faster.
        ahead_bytes: how much of a stream is read before its only reader wants it.
    """

    def __init__(self, max_shared_bytes: int = MAX_SHARED_BYTES, ahead_bytes: int = AHEAD_BYTES) -> None:
        self._max_bytes = max_shared_bytes
        self._ahead_bytes = min(ahead_bytes, max_shared_bytes)
        self._open: dict[bytes, Flight] = {}
        self._flights: set[Flight] = set()
        self._joined = 0

    async def reply(self, key: bytes, ask: Ask) -> tuple[Reply, Flight | None]:
        """The reply to a call, and the flight that it joined, if there was one in flight already.

        A body that is still arriving is the caller's own, from its beginning; he closes it.

        Args:
            key: the same for calls that are identical.
            ask: makes the call, if there is none to join.

        Raises:
            GatewayError: the call failed; each caller gets an error of his own.
            CancelledError: the caller is cancelled; or the call was, when all were.
        """
        flight = self._open.get(key)
        if flight is not None:
            self._joined += 1
            return await flight.reply(), flight
        flight = Flight(key, self._open, self._max_bytes, self._ahead_bytes)
        flight.begin(ask, self._flights)
        return await flight.reply(), None

    def state(self) -> Mapping[str, int]:
        """What operators are told: the upstream calls in flight now, and how many calls have joined one."""
        return {"flights": len(self._flights), "joined": self._joined}

    async def aclose(self) -> None:
        """End what is in flight; whoever still waits for it is cancelled."""
        if tasks := [flight.task for flight in self._flights if flight.task is not None]:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
