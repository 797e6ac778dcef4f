"""The wire as a transport: a pool for each origin, and a second try where a kept connection was already dead."""

import asyncio
import ssl

from chat_api.errors import UpstreamClosed
from chat_api.failures import Failures, Limits
from chat_api.types import UpstreamRequest
from chat_api.wire.connection import Connection
from chat_api.wire.pool import Pool
from chat_api.wire.request import Address, Origin, Unsendable, address, head
from chat_api.wire.response import Response


class WireTransport:
    """Sends requests over pooled HTTP/1.1 connections, straight to their origins; follows no redirect.

    Args:
        limits: how many connections, and how long each step may take.
        verify: what verifies the certificates of https origins.
    """

    def __init__(self, limits: Limits, *, verify: ssl.SSLContext) -> None:
        self._limits = limits
        self._verify = verify
        self._pools: dict[tuple[Origin, str], Pool] = {}

    async def send(self, request: UpstreamRequest) -> Response:
        """Send the request and return once the response's head has arrived.

        A connection that was kept may have been closed meanwhile, unnoticed. Where it ends before a
        byte of an answer, the request goes out once more, over a new one. A body that can be sent only
        once is sent over a new connection at once.

        Raises:
            UpstreamError: what went wrong.
            PoolTimeout: every connection is busy.
        """
        body = request.body
        try:
            to = address(request.url)
            raw = head(request.method, to, request.headers, body)
        except Unsendable as error:
            raise Failures("", request.setting, self._limits).unsendable(str(error)) from None
        pool = self._pools.get((to.origin, request.setting)) or self._new_pool(to, request.setting)
        without_body = request.method == "HEAD"
        is_repeatable = isinstance(body, bytes) or body.is_repeatable
        connection = pool.take() if is_repeatable else None
        queued = connecting = 0.0
        if connection is None:
            connection, queued, connecting = await _connected(pool)
        try:
            response = await connection.exchange(raw, body, without_body=without_body)
        except UpstreamClosed:
            if connection.exchanges == 1 or connection.answer_begun or not is_repeatable:
                raise
            connection, queued, connecting = await _connected(pool)
            response = await connection.exchange(raw, body, without_body=without_body)
        if queued or connecting:
            response.queue_seconds, response.connect_seconds = queued, connecting
        return response

    def _new_pool(self, to: Address, setting: str) -> Pool:
        failures = Failures(to.authority, setting, self._limits)
        pool = Pool(to.origin, self._limits, failures, self._verify)
        self._pools[to.origin, setting] = pool
        return pool

    async def aclose(self) -> None:
        """Close every connection."""
        for pool in self._pools.values():
            pool.close()


async def _connected(pool: Pool) -> tuple[Connection, float, float]:
    """A connection that was not there yet, and the seconds that it took: for a place, and to be made."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    connection = await pool.connect()
    taken = loop.time() - started
    making = 0.0 if connection.exchanges else connection.connect_seconds
    return connection, max(0.0, taken - making), making
