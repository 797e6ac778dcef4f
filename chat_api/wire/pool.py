"""The connections to one origin: kept, bounded, waited for, and closed in time."""

import asyncio
import socket
import ssl
from collections import deque

from aiohappyeyeballs import start_connection

from chat_api.failures import Failures, Limits
from chat_api.wire.connection import NEVER, Connection
from chat_api.wire.request import Origin

NEXT_ADDRESS_SECONDS = 0.25  # after which the next of a host's addresses is tried as well (RFC 8305 section 5)
KEEPALIVE_PROBE_SECONDS = 60  # Azure's load balancers forget a connection on which nothing goes for four minutes
DEADLINE_GRAIN_SECONDS = 0.05  # by which a deadline may be missed, so that many near ones cost one look


class Pool:
    """Keeps the connections to one origin; the most recently used serves first, so that the others may expire.

    Args:
        origin: where they go.
        limits: how many, and how long each step may take.
        failures: makes the exceptions.
        tls: what verifies the origin's certificate, where it has one.
    """

    def __init__(self, origin: Origin, limits: Limits, failures: Failures, tls: ssl.SSLContext) -> None:
        self.limits = limits
        self.failures = failures
        self._origin = origin
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._open: set[Connection] = set()
        self._idle: list[Connection] = []  # the most recently used last
        self._is_closed = False
        self._count = 0  # open ones, and those that are being made
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = NEVER

    def take(self) -> Connection | None:
        """The most recently used idle connection, if there is one."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        return None

    async def connect(self) -> Connection:
        """A new connection; where there may be no more, the first that comes free.

        Raises:
            PoolTimeout: none came free in time.
            ConnectError: none could be made.
            ConnectTimeout: none was made in time.
            TlsTimeout: the same of its TLS.
            UpstreamClosed: it was closed as soon as it was made, or the pool was.
        """
        if self._is_closed:
            raise self.failures.closed()
        if self._count >= self.limits.connections:
            if self._idle:
                self._idle[0].close()  # it was wanted new
            elif (connection := await self._turn()) is not None:
                return connection
            else:
                self._count -= 1  # the place that was kept for it
                if self._is_closed:
                    raise self.failures.closed()
        self._count += 1
        try:
            return await self._made()
        except BaseException:
            self._give_up_place()
            raise

    async def _turn(self) -> Connection | None:
        """Wait for a connection that comes free, or for the place of one that is closed."""
        waiter: asyncio.Future[Connection | None] = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(self.limits.connect_seconds):
                return await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled():  # it came at the last moment
                connection = waiter.result()
                if connection is None:
                    self._give_up_place()
                elif connection.is_open:
                    self.freed(connection)
            if isinstance(error, TimeoutError):
                raise self.failures.pool_timeout() from None
            raise

    async def _made(self) -> Connection:
        started = self._loop.time()
        deadline = started + self.limits.connect_seconds
        try:
            async with asyncio.timeout_at(deadline):
                sock = await self._connected()
        except TimeoutError:
            raise self.failures.connect_timeout() from None
        except (OSError, UnicodeError) as error:  # some names cannot be asked for (idna)
            raise self.failures.unreachable(error) from error
        host = self._origin.host if self._origin.is_tls else None
        tls = self._tls if self._origin.is_tls else None
        try:
            async with asyncio.timeout_at(deadline):
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self, self._loop), sock=sock, ssl=tls, server_hostname=host
                )
        except BaseException as error:
            sock.close()
            if isinstance(error, TimeoutError):
                raise self.failures.tls_timeout() from None
            if isinstance(error, OSError):
                raise self.failures.unreachable(error) from error
            raise
        if not connection.is_open:
            raise self.failures.closed()
        connection.connect_seconds = self._loop.time() - started
        self._open.add(connection)
        return connection

    async def _connected(self) -> socket.socket:
        host, port = self._origin.host, self._origin.port
        found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        sock = await start_connection(found, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS, interleave=1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_PROBE_SECONDS)
        return sock

    def freed(self, connection: Connection) -> None:
        """An exchange is over: whoever waits gets the connection, else it waits itself."""
        if (waiter := self._next_waiter()) is not None:
            waiter.set_result(connection)
        else:
            self._idle.append(connection)

    def lost(self, connection: Connection) -> None:
        """A connection is closed."""
        if connection in self._open:
            self._open.discard(connection)
            if connection in self._idle:
                self._idle.remove(connection)
            self._give_up_place()

    def _give_up_place(self) -> None:
        """There may be one more connection: whoever waits may make it."""
        if (waiter := self._next_waiter()) is not None:
            waiter.set_result(None)  # its place stays counted
        else:
            self._count -= 1

    def _next_waiter(self) -> "asyncio.Future[Connection | None] | None":
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                return waiter
        return None

    def watch(self, deadline: float) -> None:
        """Look at the connections' deadlines at this time: one timer serves all of them."""
        if deadline < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = deadline
            self._timer = self._loop.call_at(deadline, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        self._timer, self._timer_at = None, NEVER
        for connection in [one for one in self._open if one.deadline <= now]:
            connection.expire(now)
        if self._open:
            self.watch(max(min(one.deadline for one in self._open), now + DEADLINE_GRAIN_SECONDS))

    def close(self) -> None:
        """Close every connection, and make no other."""
        self._is_closed = True
        for connection in list(self._open):
            connection.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._timer_at = None, NEVER
