"""Pure-ASGI filters that decide whether a request is for this server, before anything is read of its body.

They have nothing to do after it, so what they give is what the app gives to be awaited.
"""

import ipaddress
import re
import socket
from collections.abc import Awaitable, Collection, Sequence
from functools import lru_cache
from urllib.parse import unquote, urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from chat_api.errors import Forbidden, RequestError
from chat_api.headers import is_loopback
from chat_api.request_head import RequestHead, head_of
from chat_api.setting_parsers import Network

# What a client that takes this server for a proxy asks for.
OPENAI_HOST = "api.openai.com"
AUTHORITY = "chat_api.authority"  # in the scope: host and port of an absolute-form request target

_AUTHORITY = re.compile(r"([\w.-]+|\[[0-9a-fA-F:.]+\])(?::[0-9]+)?", re.ASCII)


class RequestTarget:
    """Takes requests in absolute form (RFC 9112 section 3.2.2) for those servers that this one stands for.

    A client with `http_proxy` set sends `POST http://api.openai.com/v1/… HTTP/1.1`. It is answered like
    any other; but nothing is ever fetched from the host it names, and other hosts are refused.

    Args:
        app: what answers.
        hosts: the host names that may be named, besides loopback ones and this machine's own.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str] = ()) -> None:
        self.app = app
        self.hosts = {*hosts, OPENAI_HOST, socket.gethostname().lower()}

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request (ASGI 3)."""
        if scope["type"] == "http":
            authority = scope.get(AUTHORITY)
            if not scope["path"].startswith("/") and scope["path"] != "*":  # uvicorn's h11 leaves the URL in the path
                try:
                    url = urlsplit(scope["raw_path"].decode("latin-1"))
                except ValueError:
                    raise RequestError("the request target is no URL", code="invalid_path") from None
                authority = url.netloc
                scope["raw_path"] = (url.path or "/").encode("latin-1")
                scope["path"] = unquote(url.path or "/")
            if authority is not None:
                self._check(authority, scope)
            _check_host_form(head_of(scope).hosts)
        return self.app(scope, receive, send)

    def _check(self, authority: str, scope: Scope) -> None:
        named = _AUTHORITY.fullmatch(authority)
        host = named[1].lower() if named else ""
        own = (scope.get("server") or ("",))[0]
        if not host or not (host in self.hosts or is_loopback(host) or host.strip("[]") == own):
            elsewhere = authority.rpartition("@")[2][:200]  # without a password
            message = f'this server is no proxy: "{elsewhere}" is not reached through it'
            raise Forbidden(message, code="not_a_proxy")


class AddressFilter:
    """Answers only the client addresses that the settings allow."""

    def __init__(self, app: ASGIApp, *, allow: Sequence[Network], deny: Sequence[Network]) -> None:
        self.app = app
        self.allow = allow
        self.deny = deny

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request (ASGI 3)."""
        if scope["type"] == "http":
            host = scope["client"][0] if scope.get("client") else ""
            if not self._admits(host):
                raise Forbidden(f"requests from {host or 'an unknown address'} are not answered", code="ip_not_allowed")
        return self.app(scope, receive, send)

    def _admits(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return not self.allow
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        if any(address in network for network in self.deny):
            return False
        return not self.allow or any(address in network for network in self.allow)


class LoopbackGuard:
    """Protects a server that asks its callers for no key from web pages in its users' browsers.

    Any page can send a form to localhost without asking first, and a page's host name can be made to
    point at 127.0.0.1 (DNS rebinding). So only loopback host names are answered (unless `any_host`),
    and no request that a browser made for another origin, links that a person follows excepted.

    Args:
        app: what answers.
        any_host: whether every host name is answered.
        hosts: the names that are answered besides loopback ones: nobody else's page can have them.
        origins: the origins whose pages may call; `*` for any.
    """

    def __init__(
        self, app: ASGIApp, *, any_host: bool = False, hosts: Collection[str] = (), origins: Collection[str] = ()
    ) -> None:
        self.app = app
        self.any_host = any_host
        self.hosts = {*hosts, OPENAI_HOST}
        self.origins = origins

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request (ASGI 3)."""
        if scope["type"] == "http":
            head = head_of(scope)
            if not self.any_host:
                _check_address(scope)
                _check_host(head.hosts, self.hosts)
            if (head.origins or head.fetch_sites) and "*" not in self.origins:
                _check_origin(scope["method"], head, self.origins)
        return self.app(scope, receive, send)


@lru_cache(maxsize=64)
def _host_named(authority: bytes) -> str | None:
    """The host in a Host header, in lower case; None if it is no host with an optional port."""
    named = _AUTHORITY.fullmatch(authority.decode("latin-1"))
    return named[1].lower() if named else None


def _check_host_form(hosts: Sequence[bytes]) -> None:
    """A request has at most one Host, and it is a host (RFC 9112 section 3.2); HTTP/1.0 needs none."""
    if len(hosts) > 1 or (hosts and hosts[0] and _host_named(hosts[0]) is None):
        raise RequestError("the Host header is no host name with an optional port", code="invalid_host")


def _check_address(scope: Scope) -> None:
    """The start-up check of HOST, for servers that were told another address than the settings say."""
    server = scope.get("server")
    if server and server[1] is not None and not is_loopback(server[0]):
        message = (
            f"requests to {server[0]} are not answered: this server lends its key to whoever asks, so it answers "
            "on loopback addresses only; CLIENT_KEYS or ALLOW_ANONYMOUS=true lifts that"
        )
        raise Forbidden(message, code="address_not_allowed")


def _check_host(hosts: Sequence[bytes], known: Collection[str]) -> None:
    if not hosts:
        return  # HTTP/1.0 probes; browsers, which this guards against, always name a host
    named = _host_named(hosts[0])
    if len(hosts) != 1 or named is None or not (is_loopback(named) or named in known):
        shown = hosts[0].decode("latin-1")
        message = (
            f'host "{shown}" is not answered: this server lends its key to whoever asks, so it answers loopback '
            "names only (localhost, 127.0.0.1); CLIENT_KEYS or ALLOW_ANONYMOUS=true lifts that"
        )
        raise Forbidden(message, code="host_not_allowed")


def _check_origin(method: str, head: RequestHead, allowed: Collection[str]) -> None:
    if method in ("GET", "HEAD") and head.fetch_mode == b"navigate":
        return  # a link that a person follows; the page it is on does not see the answer
    origin = head.origins[0] if head.origins else None
    if origin is not None and origin.decode("latin-1") in allowed:
        return
    own = head.hosts[0].lower() if head.hosts else b""
    same_origin = all(_authority(value) == own for value in head.origins)
    if not same_origin or head.fetch_sites & {b"cross-site", b"same-site"}:
        shown = "another origin" if origin is None else origin.decode("latin-1")[:200]
        message = f"requests from web pages of {shown} are not answered; CORS_ORIGINS names those that are"
        raise Forbidden(message, code="origin_not_allowed")


def _authority(origin: bytes) -> bytes:
    """Host and port of an origin, which is compared with Host: neither names a scheme's own port."""
    return origin.partition(b"://")[2].lower()
