"""The upstream hop: straight to the origin over `wire`, or through the outbound proxy that the settings name."""

import ssl
from collections.abc import Coroutine
from typing import Any
from urllib.parse import urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed has it not

from chat_api.failures import Limits
from chat_api.settings import Settings
from chat_api.types import Proxies, Secret, Transport, UpstreamRequest, UpstreamResponse
from chat_api.wire import WireTransport


def trust_store() -> ssl.SSLContext:
    """What verifies upstream certificates: the system's authorities, or those in SSL_CERT_FILE.

    Raises:
        OSError: SSL_CERT_FILE cannot be read, or holds no certificate.
    """
    import httpx2 as httpx  # here and below: the start waits for it, and most have no use for it

    return httpx.create_ssl_context()


def limits(settings: Settings) -> Limits:
    """What the settings allow the hop."""
    return Limits(
        connect_seconds=settings.connect_timeout,
        first_byte_seconds=settings.first_byte_timeout,
        idle_seconds=settings.idle_timeout,
        connections=settings.max_connections,
    )


def proxy_for(url: str, proxies: Proxies) -> Secret | None:
    """The proxy for a URL, as curl and every other client reads HTTP_PROXY, HTTPS_PROXY and NO_PROXY."""
    parts = urlsplit(url)
    proxy = proxies.https if parts.scheme == "https" else proxies.http
    if proxy is None or (proxies.bypass and proxy_bypass_environment(parts.hostname or "", {"no": proxies.bypass})):
        return None
    return proxy


class UpstreamTransport:
    """Sends each request over the transport for its way out; one through a proxy is made when it is first needed.

    Args:
        settings: the time limits and the proxies.
        verify: what verifies upstream certificates; the system's trust store without it.
    """

    def __init__(self, settings: Settings, *, verify: ssl.SSLContext | None = None) -> None:
        self._proxies = settings.proxies
        self._limits = limits(settings)
        self._verify = verify or trust_store()
        self._direct = WireTransport(self._limits, verify=self._verify)
        self._proxied: dict[Secret, Transport] = {}
        self._has_proxies = self._proxies != Proxies(bypass=self._proxies.bypass)

    def send(self, request: UpstreamRequest) -> Coroutine[Any, Any, UpstreamResponse]:
        """Send the request and return once the response's head has arrived."""
        proxy = proxy_for(request.url, self._proxies) if self._has_proxies else None
        return self._direct.send(request) if proxy is None else self._through(proxy).send(request)

    def _through(self, proxy: Secret) -> Transport:
        transport = self._proxied.get(proxy)
        if transport is None:
            from chat_api.proxied import ProxiedTransport

            transport = self._proxied[proxy] = ProxiedTransport(self._limits, verify=self._verify, proxy=proxy)
        return transport

    async def aclose(self) -> None:
        """Close every connection."""
        await self._direct.aclose()
        for transport in self._proxied.values():
            await transport.aclose()
