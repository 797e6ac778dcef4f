"""The upstream hop: the httpx transport, its TLS and time limits, and the credential a call is sent with.

The one seam where httpx's exceptions become the gateway's. It never decides what to send.
"""

import os
import re
import ssl
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx2 as httpx

from chat_api.errors import AuthError, GatewayError, NoUpstream, UpstreamError, UpstreamTimeout
from chat_api.headers import is_value
from chat_api.settings import Settings
from chat_api.types import Call, Deployment, Headers, Secret, UpstreamRequest

MAX_CONNECTIONS = 1000
MAX_IDLE_CONNECTIONS = 50  # each call looks at every idle connection, so few are kept
# Azure closes idle connections after about two minutes; we let go of them first.
KEEPALIVE_SECONDS = 60.0

_JWT = re.compile(rb"eyJ[\w-]*\.[\w-]+\.[\w-]*")


def trust_store() -> ssl.SSLContext:
    """What verifies upstream certificates: the system's authorities, or those in SSL_CERT_FILE.

    Raises:
        OSError: SSL_CERT_FILE cannot be read, or holds no certificate.
    """
    return httpx.create_ssl_context()


def credential(call: Call, deployment: Deployment) -> tuple[bytes, bytes]:
    """The header that authenticates `call` upstream: the server's key if it has one, else the caller's own.

    Raises:
        AuthError: there is neither.
    """
    key = check_key(deployment.key or call.credential, deployment)
    text = key.reveal().encode()
    if deployment.kind == "openai":
        return (b"authorization", b"Bearer " + text)
    # Azure takes Entra ID tokens, which are JWTs, as Bearer only, and keys as api-key on every API.
    return (b"authorization", b"Bearer " + text) if _JWT.fullmatch(text) else (b"api-key", text)


def check_key(key: Secret | None, deployment: Deployment) -> Secret:
    """The key with which a deployment is asked.

    Raises:
        AuthError: there is none, or it cannot be one.
    """
    if key is None:
        where = deployment.key_setting
        message = f"no key: send yours as an api-key header or as Authorization: Bearer, or set {where} on the server"
        raise AuthError(message)
    if not is_value(key.reveal().encode("utf-8")):
        raise AuthError("the key that was presented holds a character that no key has", code="invalid_credential")
    return key


class HttpxResponse:
    """A response whose head has arrived, read as raw bytes."""

    def __init__(self, response: httpx.Response, seam: "_Seam") -> None:
        self.status = response.status_code
        self.headers: Headers = tuple((name.lower(), value) for name, value in response.headers.raw)
        self._response = response
        self._seam = seam

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, undecoded; raises `UpstreamError` where it breaks off."""
        try:
            async for chunk in self._response.stream:  # type: ignore[union-attr]
                yield chunk
        except httpx.TransportError as error:
            raise self._seam.in_body(error) from error

    async def aclose(self) -> None:
        """Give the connection back if the body was read to its end, close it otherwise."""
        await self._response.aclose()


class HttpxTransport:
    """Sends requests over pooled HTTP/1.1 connections; follows no redirect.

    Args:
        settings: the time limits.
        verify: what verifies the upstream's certificate; the system's trust store without it.
        proxy: an HTTP or SOCKS5 proxy through which every connection goes.
    """

    def __init__(
        self, settings: Settings, *, verify: ssl.SSLContext | None = None, proxy: Secret | None = None
    ) -> None:
        self._settings = settings
        self._proxy = urlsplit(proxy.reveal()).netloc.rpartition("@")[2] if proxy else None
        self._pool = httpx.AsyncHTTPTransport(
            verify=verify or trust_store(),
            proxy=httpx.Proxy(proxy.reveal()) if proxy else None,
            limits=httpx.Limits(
                max_connections=MAX_CONNECTIONS,
                max_keepalive_connections=MAX_IDLE_CONNECTIONS,
                keepalive_expiry=KEEPALIVE_SECONDS,
            ),
        )

    async def send(self, request: UpstreamRequest) -> HttpxResponse:
        """Send the request and return once the response's head has arrived."""
        seam = _Seam(request, self._settings, self._proxy)
        times: dict[str, float | None] = {
            "pool": self._settings.connect_timeout,
            "connect": self._settings.connect_timeout,
            "write": self._settings.idle_timeout,
            "read": self._settings.first_byte_timeout,
        }
        try:
            outgoing = httpx.Request(
                request.method,
                request.url,
                headers=list(request.headers),
                content=request.body,
                extensions={"timeout": times},
            )
            response = await self._pool.handle_async_request(outgoing)
        except httpx.InvalidURL as error:
            message = f"no request can be sent there: {error}; check {request.setting} and model"
            raise UpstreamError(message) from error
        except httpx.TransportError as error:
            raise seam.before_head(error) from error
        # The pool reads this same dict again when the body is first asked for: test_upstream guards that.
        times["read"] = self._settings.idle_timeout
        return HttpxResponse(response, seam)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pool.aclose()


class _Seam:
    """Makes httpx's exceptions ours, in words that name the host and the setting."""

    def __init__(self, request: UpstreamRequest, settings: Settings, proxy: str | None) -> None:
        self._url = request.url
        self._setting = request.setting
        self._settings = settings
        self._proxy = proxy

    @property
    def _host(self) -> str:
        return urlsplit(self._url).netloc

    def before_head(self, error: httpx.TransportError) -> GatewayError:
        """The error for a call that got no answer."""
        host, settings = self._host, self._settings
        match error:
            case httpx.PoolTimeout():
                message = f"all {MAX_CONNECTIONS} connections to {host} are busy; try again shortly"
                return NoUpstream(message, code="pool_exhausted", headers=((b"retry-after", b"1"),))
            case httpx.ConnectTimeout():
                seconds = settings.connect_timeout
                return UpstreamTimeout(f"no connection to {host} within CONNECT_TIMEOUT ({seconds:g} s)")
            case httpx.ReadTimeout():
                seconds = settings.first_byte_timeout
                return UpstreamTimeout(f"no answer from {host} within FIRST_BYTE_TIMEOUT ({seconds:g} s)")
            case httpx.WriteTimeout():
                seconds = settings.idle_timeout
                return UpstreamTimeout(f"{host} took nothing of the request for IDLE_TIMEOUT ({seconds:g} s)")
            case httpx.ProxyError() | httpx.ConnectError() if self._proxy:
                message = f"the proxy {self._proxy} does not connect to {host}: {_reason(error)}"
                message += "; check UPSTREAM_PROXY or HTTPS_PROXY"
                return UpstreamError(message, code="proxy_failed")
            case httpx.ConnectError():
                reason = _reason(error)
                message = f"cannot reach {host}: {reason}; {_advice(reason, self._setting)}"
                return UpstreamError(message, code="upstream_unreachable")
            case httpx.RemoteProtocolError() if "disconnected" not in str(error):
                return UpstreamError(f"{host} does not speak HTTP; check {self._setting}", code="upstream_not_http")
            case httpx.RemoteProtocolError():
                return UpstreamError(f"{host} closed the connection without answering", code="upstream_closed")
            case _:
                message = f"{host} broke the connection without answering: {_reason(error)}"
                return UpstreamError(message, code="upstream_closed")

    def in_body(self, error: httpx.TransportError) -> UpstreamError:
        """The error for an answer that broke off."""
        if isinstance(error, httpx.ReadTimeout):
            seconds = self._settings.idle_timeout
            return UpstreamTimeout(f"{self._host} went silent for IDLE_TIMEOUT ({seconds:g} s) within its answer")
        message = f"{self._host} broke off its answer: {_reason(error)}"
        return UpstreamError(message, code="answer_cut_short")


def _advice(reason: str, setting: str) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return "if you trust its authority, name that in SSL_CERT_FILE"
    if "WRONG_VERSION_NUMBER" in reason:
        return f"it speaks no TLS there; check whether {setting} is http:// and its port"
    return f"check {setting} and the network"


def _reason(error: Exception) -> str:
    """What went wrong in the operating system's words, from under the wrappers around them."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        if isinstance(cause, OSError) and cause.errno is not None and not isinstance(cause, ssl.SSLError):
            return os.strerror(cause.errno) if cause.errno > 0 else str(cause.strerror)  # DNS errors are below 0
        cause = cause.__cause__ or cause.__context__
    return str(error) or type(error).__name__
