"""The ways in which the hop to an upstream fails: an exception for each, in words that name the host and the setting.

Pure. Every transport raises these and no others, so that nobody above can tell one transport from another.
"""

import os
import ssl
from dataclasses import dataclass

from chat_api.errors import (
    ConnectError,
    ConnectTimeout,
    CutShort,
    FirstByteTimeout,
    IdleTimeout,
    NotHttp,
    PoolTimeout,
    TlsTimeout,
    UpstreamClosed,
    UpstreamError,
    WriteTimeout,
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the hop to an upstream is allowed: seconds, and connections to one origin."""

    connect_seconds: float = 10.0  # for a connection and its TLS; before that, for a place among the connections
    first_byte_seconds: float = 120.0
    idle_seconds: float = 60.0
    keepalive_seconds: float = 60.0  # Azure closes idle connections after about two minutes; we let go of them first
    connections: int = 5000


class Failures:
    """Makes the exceptions of one upstream.

    Args:
        host: host and port, as people name the upstream in messages.
        setting: what a person would look at if nobody answers there.
        limits: those that the messages quote.
        proxy: host and port of the outbound proxy, if there is one between.
    """

    __slots__ = ("_host", "_limits", "_proxy", "_setting")

    def __init__(self, host: str, setting: str, limits: Limits, proxy: str | None = None) -> None:
        self._host = host
        self._setting = setting
        self._limits = limits
        self._proxy = proxy

    def pool_timeout(self) -> PoolTimeout:
        """No connection came free in time."""
        message = f"all {self._limits.connections} connections to {self._host} are busy; try again shortly"
        return PoolTimeout(message, headers=((b"retry-after", b"1"),))

    def connect_timeout(self) -> ConnectTimeout:
        """No connection was made in time."""
        seconds = self._limits.connect_seconds
        return ConnectTimeout(f"no connection to {self._host} within CONNECT_TIMEOUT ({seconds:g} s)")

    def tls_timeout(self) -> TlsTimeout:
        """A connection was made, but TLS was not ready in time."""
        seconds = self._limits.connect_seconds
        return TlsTimeout(f"no TLS handshake with {self._host} within CONNECT_TIMEOUT ({seconds:g} s)")

    def write_timeout(self) -> WriteTimeout:
        """The request was not taken."""
        seconds = self._limits.idle_seconds
        return WriteTimeout(f"{self._host} took nothing of the request for IDLE_TIMEOUT ({seconds:g} s)")

    def first_byte_timeout(self) -> FirstByteTimeout:
        """The request was not answered in time."""
        seconds = self._limits.first_byte_seconds
        return FirstByteTimeout(f"no answer from {self._host} within FIRST_BYTE_TIMEOUT ({seconds:g} s)")

    def idle_timeout(self) -> IdleTimeout:
        """The answer did not go on."""
        seconds = self._limits.idle_seconds
        return IdleTimeout(f"{self._host} went silent for IDLE_TIMEOUT ({seconds:g} s) within its answer")

    def unreachable(self, error: BaseException) -> ConnectError:
        """No connection could be made, or the proxy between makes none."""
        reason = reason_of(error)
        if self._proxy:
            message = f"the proxy {self._proxy} does not connect to {self._host}: {reason}"
            return ConnectError(f"{message}; check UPSTREAM_PROXY or HTTPS_PROXY", code="proxy_failed")
        return ConnectError(f"cannot reach {self._host}: {reason}; {_advice(reason, self._setting)}")

    def not_http(self, what: str = "does not speak HTTP") -> NotHttp:
        """What came is no response."""
        return NotHttp(f"{self._host} {what}; check {self._setting}")

    def closed(self, error: BaseException | None = None) -> UpstreamClosed:
        """The connection ended before the answer began."""
        if error is None:
            return UpstreamClosed(f"{self._host} closed the connection without answering")
        return UpstreamClosed(f"{self._host} broke the connection without answering: {reason_of(error)}")

    def cut_short(self, error: BaseException | str) -> CutShort:
        """The answer ended before its end."""
        reason = error if isinstance(error, str) else reason_of(error)
        return CutShort(f"{self._host} broke off its answer: {reason}")

    def unsendable(self, reason: str) -> UpstreamError:
        """There can be no such request."""
        message = f"no request can be sent there: {reason}; check {self._setting} and model"
        return UpstreamError(message, code="unsendable")


def _advice(reason: str, setting: str) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return "if you trust its authority, name that in SSL_CERT_FILE"
    if "WRONG_VERSION_NUMBER" in reason:
        return f"it speaks no TLS there; check whether {setting} is http:// and its port"
    return f"check {setting} and the network"


def reason_of(error: BaseException) -> str:
    """What went wrong in the operating system's words, from under the wrappers around them."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        if isinstance(cause, OSError) and cause.errno is not None and not isinstance(cause, ssl.SSLError):
            return os.strerror(cause.errno) if cause.errno > 0 else str(cause.strerror)  # DNS errors are below 0
        cause = cause.__cause__ or cause.__context__
    return str(error) or type(error).__name__
