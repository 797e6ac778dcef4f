"""Which way requests go out: directly, or through the proxy that the settings or the environment name."""

import ssl
from urllib.parse import urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed has it not

from chat_api.settings import Settings
from chat_api.types import Proxies, Secret, UpstreamRequest, UpstreamResponse
from chat_api.upstream import HttpxTransport


def proxy_for(url: str, proxies: Proxies) -> Secret | None:
    """The proxy for a URL, as curl and every other client reads HTTP_PROXY, HTTPS_PROXY and NO_PROXY."""
    parts = urlsplit(url)
    proxy = proxies.https if parts.scheme == "https" else proxies.http
    if proxy is None or (proxies.bypass and proxy_bypass_environment(parts.hostname or "", {"no": proxies.bypass})):
        return None
    return proxy


class OutboundTransport:
    """Sends each request over the transport for its way out; a transport is made when it is first needed.

    Args:
        settings: the time limits and the proxies.
        verify: what verifies upstream certificates; the system's trust store without it.
    """

    def __init__(self, settings: Settings, *, verify: ssl.SSLContext | None = None) -> None:
        self._settings = settings
        self._verify = verify
        self._transports: dict[Secret | None, HttpxTransport] = {}

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send the request and return once the response's head has arrived."""
        proxy = proxy_for(request.url, self._settings.proxies)
        transport = self._transports.get(proxy)
        if transport is None:
            transport = HttpxTransport(self._settings, verify=self._verify, proxy=proxy)
            self._transports[proxy] = transport
        return await transport.send(request)

    async def aclose(self) -> None:
        """Close every connection."""
        for transport in self._transports.values():
            await transport.aclose()
