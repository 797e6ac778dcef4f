"""The hop through an outbound proxy, HTTP or SOCKS, over httpx: the one seam where its exceptions become ours.

It never decides what to send.
"""

import ssl
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx2 as httpx

from chat_api.errors import GatewayError, UpstreamError
from chat_api.failures import Failures, Limits
from chat_api.types import Headers, Secret, UpstreamRequest

MAX_IDLE_CONNECTIONS = 50  # httpx looks at every idle connection in each call, so few are kept


class ProxiedResponse:
    """A response whose head has arrived, read as raw bytes."""

    def __init__(self, response: httpx.Response, failures: Failures) -> None:
        self.status = response.status_code
        self.headers: Headers = tuple((name.lower(), value) for name, value in response.headers.raw)
        self.queue_seconds = 0.0  # httpx does not tell, nor how long it took to connect
        self.connect_seconds = 0.0
        self._response = response
        self._failures = failures

    def arrived(self) -> None:
        """httpx does not tell."""

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, undecoded; raises `UpstreamError` where it breaks off."""
        try:
            async for chunk in self._response.stream:  # type: ignore[union-attr]
                yield chunk
        except httpx.TransportError as error:
            raise _in_body(error, self._failures) from error

    async def aclose(self) -> None:
        """Give the connection back if the body was read to its end, close it otherwise."""
        await self._response.aclose()


class ProxiedTransport:
    """Sends requests over pooled HTTP/1.1 connections; follows no redirect.

    Args:
        limits: how many connections, and how long each step may take.
        verify: what verifies the upstream's certificate.
        proxy: an HTTP or SOCKS5 proxy through which every connection goes; without one they go straight.
    """

    def __init__(self, limits: Limits, *, verify: ssl.SSLContext, proxy: Secret | None) -> None:
        self._limits = limits
        self._proxy = urlsplit(proxy.reveal()).netloc.rpartition("@")[2] if proxy else None
        self._pool = httpx.AsyncHTTPTransport(
            verify=verify,
            proxy=httpx.Proxy(proxy.reveal()) if proxy else None,
            limits=httpx.Limits(
                max_connections=limits.connections,
                max_keepalive_connections=MAX_IDLE_CONNECTIONS,
                keepalive_expiry=limits.keepalive_seconds,
            ),
        )

    async def send(self, request: UpstreamRequest) -> ProxiedResponse:
        """Send the request and return once the response's head has arrived."""
        limits = self._limits
        failures = Failures(urlsplit(request.url).netloc, request.setting, limits, self._proxy)
        times: dict[str, float | None] = {
            "pool": limits.connect_seconds,
            "connect": limits.connect_seconds,
            "write": limits.idle_seconds,
            "read": limits.first_byte_seconds,
        }
        try:
            outgoing = httpx.Request(
                request.method,
                request.url,
                headers=[*request.headers, *_length(request)],
                content=request.body,
                extensions={"timeout": times},
            )
            response = await self._pool.handle_async_request(outgoing)
        except httpx.InvalidURL as error:
            raise failures.unsendable(str(error)) from error
        except httpx.TransportError as error:
            raise _before_head(error, failures, is_proxied=self._proxy is not None) from error
        # The pool reads this same dict again when the body is first asked for: test_transport_failures guards that.
        times["read"] = limits.idle_seconds
        return ProxiedResponse(response, failures)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pool.aclose()


def _length(request: UpstreamRequest) -> Headers:
    """The length of a body that is not held in memory, where it is known; httpx would send it in chunks."""
    if isinstance(request.body, bytes) or request.body.size is None:
        return ()
    return ((b"content-length", b"%d" % request.body.size),)


def _before_head(error: httpx.TransportError, failures: Failures, *, is_proxied: bool) -> GatewayError:
    """The exception for a request that got no answer."""
    match error:
        case httpx.PoolTimeout():
            return failures.pool_timeout()
        case httpx.ConnectTimeout():
            return failures.connect_timeout()
        case httpx.ReadTimeout():
            return failures.first_byte_timeout()
        case httpx.WriteTimeout():
            return failures.write_timeout()
        case httpx.ConnectError():
            return failures.unreachable(error)
        case httpx.ProxyError() if is_proxied:
            return failures.unreachable(error)
        case httpx.RemoteProtocolError() if "disconnected" not in str(error):
            return failures.not_http()
        case httpx.RemoteProtocolError():
            return failures.closed()
        case httpx.LocalProtocolError():
            return failures.unsendable(str(error))
        case _:
            return failures.closed(error)


def _in_body(error: httpx.TransportError, failures: Failures) -> UpstreamError:
    """The exception for an answer that broke off."""
    return failures.idle_timeout() if isinstance(error, httpx.ReadTimeout) else failures.cut_short(error)
