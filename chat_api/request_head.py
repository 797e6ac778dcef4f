"""What a request's head says, read once: everything that anybody here asks of it. Pure.

The same client sends the same head again and again, but for the length of its body; so what was
made of the last few is remembered.
"""

from collections.abc import MutableMapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from chat_api.cache_control import parse_cache_control
from chat_api.caching import Wish
from chat_api.headers import first, forwarded, media_type, presented_credential
from chat_api.types import Headers, Secret

MAX_REMEMBERED = 64  # heads, each of which may have 64 KiB
_IN_SCOPE = "chat_api.head"


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The facts of a head; its Content-Length is none of them."""

    hosts: tuple[bytes, ...]
    origins: tuple[bytes, ...]
    fetch_mode: bytes | None  # of browsers (Sec-Fetch-Mode), as is the next
    fetch_sites: frozenset[bytes]
    expects: bool  # Expect was sent
    accept: bytes | None
    content_type: bytes
    media_type: str
    coding: bytes | None  # Content-Encoding
    is_chunked: bool
    credential: Secret | None  # what the caller presents, if anything
    wish: Wish  # what is asked of answers that are kept
    forwarded: Headers  # what goes upstream
    forwarded_as_json: Headers  # the same with a body that is JSON, whatever it was called


def head_of(scope: MutableMapping[str, Any]) -> RequestHead:
    """The facts of an ASGI request's head."""
    head: RequestHead | None = scope.get(_IN_SCOPE)
    if head is None:
        headers = [pair for pair in scope["headers"] if pair[0] != b"content-length"]
        try:
            head = _read(tuple(headers))
        except TypeError:  # pairs that are lists, as ASGI allows
            head = _read(tuple((name, value) for name, value in headers))
        scope[_IN_SCOPE] = head
    return head


@lru_cache(maxsize=MAX_REMEMBERED)
def _read(headers: Headers) -> RequestHead:
    presented = presented_credential(headers)
    going_on = forwarded(headers)
    return RequestHead(
        hosts=tuple(_all(headers, b"host")),
        origins=tuple(_all(headers, b"origin")),
        fetch_mode=first(headers, b"sec-fetch-mode"),
        fetch_sites=frozenset(value.lower() for value in _all(headers, b"sec-fetch-site")),
        expects=first(headers, b"expect") is not None,
        accept=first(headers, b"accept"),
        content_type=first(headers, b"content-type") or b"",
        media_type=media_type(headers),
        coding=first(headers, b"content-encoding"),
        is_chunked=first(headers, b"transfer-encoding") is not None,
        credential=Secret(presented) if presented else None,
        wish=parse_cache_control(b",".join(_all(headers, b"cache-control"))),
        forwarded=going_on,
        forwarded_as_json=_as_json(going_on),
    )


def _all(headers: Headers, wanted: bytes) -> list[bytes]:
    return [value for name, value in headers if name == wanted]


def _as_json(headers: Headers) -> Headers:
    """The headers of a JSON body, which curl calls a form unless it is told otherwise."""
    if media_type(headers) not in ("", "application/x-www-form-urlencoded", "text/plain"):
        return headers
    return (*(pair for pair in headers if pair[0] != b"content-type"), (b"content-type", b"application/json"))
