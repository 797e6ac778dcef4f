"""The exception tree, and the two bodies in which an error leaves the gateway.

    GatewayError                 500  a fault of ours
    ├── RequestError             400  the caller's request cannot be served as it is
    │   ├── UnknownPath          404
    │   ├── WrongMethod          405
    │   ├── BodyTooLarge         413
    │   └── UnsupportedMediaType 415
    ├── AuthError                401  no credential, or one that is not accepted
    ├── Forbidden                403  refused whoever asks
    ├── ClientGone               499  the client left; nobody reads the answer
    ├── RateLimited              429  the caller is beyond a limit of this server
    ├── StoreDown                503  nobody counts, and STORE_FAILURE=closed
    ├── NoUpstream               503  nothing upstream can take the call now
    │   ├── PoolTimeout          503  no connection came free in time
    │   └── Throttled            429  every deployment has asked to be left alone for a while
    └── UpstreamError            502  the upstream failed: unreachable, not HTTP, not an answer
        ├── UpstreamRefusal      (its own status) the upstream answered with an error
        ├── ConnectError         502  no connection: refused, unknown name, no trust
        ├── UpstreamClosed       502  it closed the connection without answering
        ├── NotHttp              502  what it said is no HTTP response
        ├── CutShort             502  its answer stopped before its end
        ├── StreamBroken         502  so did ours, which the client must see
        └── UpstreamTimeout      504
            ├── ConnectTimeout, TlsTimeout    no connection in time
            ├── WriteTimeout                  it took nothing of the request
            └── FirstByteTimeout, IdleTimeout it said nothing, or nothing more

Every class has a fixed `type` and `code`, so that logs and metrics stay low in cardinality.
No message may hold a key.
"""

from typing import Any

from chat_api.types import Headers


class GatewayError(Exception):
    """An error with everything needed to answer it: status, message, type, param, code, headers."""

    status = 500
    type: str = "server_error"
    code: str | None = "internal_error"

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, headers: Headers = ()
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.headers = tuple(headers)
        if code is not None:
            self.code = code


class RequestError(GatewayError):
    """The caller's request cannot be served as it is; `param` names the field."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_value"


class UnknownPath(RequestError):
    """Nothing is served at this path."""

    status = 404
    code = "unknown_path"


class WrongMethod(RequestError):
    """The path exists, but not for this method; `headers` carry `allow`."""

    status = 405
    code = "method_not_allowed"


class BodyTooLarge(RequestError):
    """The request body is larger than MAX_BODY_BYTES."""

    status = 413
    code = "body_too_large"


class UnsupportedMediaType(RequestError):
    """The request body's content type or charset is not one the endpoint reads."""

    status = 415
    code = "unsupported_media_type"


class AuthError(GatewayError):
    """No credential was presented, or none that is accepted."""

    status = 401
    type = "authentication_error"
    code = "missing_credential"


class Forbidden(GatewayError):
    """Refused whoever asks: a browser on another origin, a host name that is not ours."""

    status = 403
    type = "permission_error"
    code = "forbidden"


class ClientGone(GatewayError):
    """The client closed its connection before the answer was complete (nginx's 499)."""

    status = 499
    type = "client_error"
    code = "client_gone"


class RateLimited(GatewayError):
    """The caller is beyond a limit of this server's own; `headers` say when to come again (Retry-After)."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class StoreDown(GatewayError):
    """The store that counts cannot be reached."""

    status = 503
    code = "store_unavailable"


class NoUpstream(GatewayError):
    """No upstream can take the call at the moment."""

    status = 503
    code = "no_upstream"


class Throttled(NoUpstream):
    """Every deployment has asked to be left alone for a while; `headers` say until when (Retry-After)."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class UpstreamError(GatewayError):
    """The upstream could not be reached, or what it sent is not an answer."""

    status = 502
    type = "upstream_error"
    code: str | None = "upstream_error"


class UpstreamTimeout(UpstreamError):
    """The upstream did not connect, answer or go on within its time."""

    status = 504
    code = "upstream_timeout"


class PoolTimeout(NoUpstream):
    """Every connection to the upstream is busy, and none came free in time."""

    code = "pool_exhausted"


class ConnectError(UpstreamError):
    """No connection to the upstream could be made, or none that can be trusted."""

    code = "upstream_unreachable"


class UpstreamClosed(UpstreamError):
    """The upstream closed the connection, or broke it, without answering."""

    code = "upstream_closed"


class NotHttp(UpstreamError):
    """What the upstream said is no HTTP response, or one beyond every measure."""

    code = "upstream_not_http"


class CutShort(UpstreamError):
    """The upstream's answer stopped before its end."""

    code = "answer_cut_short"


class ConnectTimeout(UpstreamTimeout):
    """No connection came about within CONNECT_TIMEOUT."""


class TlsTimeout(UpstreamTimeout):
    """The TLS handshake did not end within CONNECT_TIMEOUT."""


class WriteTimeout(UpstreamTimeout):
    """The upstream took nothing of the request for IDLE_TIMEOUT."""


class FirstByteTimeout(UpstreamTimeout):
    """The upstream did not begin to answer within FIRST_BYTE_TIMEOUT."""


class IdleTimeout(UpstreamTimeout):
    """The upstream fell silent for IDLE_TIMEOUT within its answer."""


class StreamBroken(UpstreamError):
    """The upstream's answer stopped before its end."""

    code = "stream_broken"


class UpstreamRefusal(UpstreamError):
    """The upstream answered with an error of its own, kept here with its status and details.

    `inner` is Azure's `innererror` object (content filter results), where there is one.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        type: str | None,  # noqa: A002 - the wire's own word
        code: str | None,
        param: str | None = None,
        inner: Any = None,
        headers: Headers = (),
    ) -> None:
        super().__init__(message, param=param, headers=headers)
        self.status = status
        self.type = type or default_type(status)
        self.code = code
        self.inner = inner


def default_type(status: int) -> str:
    """The `type` of an error whose sender gave none: Azure's front end leaves it out."""
    by_status = {
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        408: "timeout_error",
        429: "rate_limit_error",
    }
    return by_status.get(status, "invalid_request_error" if status < 500 else "server_error")


def openai_body(error: GatewayError) -> dict[str, Any]:
    """OpenAI's error object: `{"error": {"message", "type", "param", "code"}}`."""
    detail: dict[str, Any] = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    if isinstance(error, UpstreamRefusal) and error.inner is not None:
        detail["innererror"] = error.inner
    return {"error": detail}


def simple_body(error: GatewayError) -> dict[str, Any]:
    """The simple endpoint's error object: OpenAI's, after `"success": 0` and the message."""
    return {"success": 0, "message": error.message, **openai_body(error)}
