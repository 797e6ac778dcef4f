"""Header decisions over raw `(name, value)` byte pairs with lower-case names: no I/O, no framework."""

import ipaddress
from collections.abc import Callable
from functools import lru_cache

from chat_api.types import Headers

# What an answer's reader can use: who served it, what is left of the quota, when to come back.
RELAYED = frozenset(
    {
        b"apim-request-id",
        b"azureml-model-session",
        b"retry-after",
        b"retry-after-ms",
        b"x-request-id",
        b"x-should-retry",
    }
)
RELAYED_PREFIXES = (b"x-ms-", b"x-ratelimit-")
# What is left of a quota, in OpenAI's words. Where limits of ours are told the upstream's are left out.
QUOTA_OF_REQUESTS = (b"x-ratelimit-limit-requests", b"x-ratelimit-remaining-requests", b"x-ratelimit-reset-requests")
QUOTA_OF_TOKENS = (b"x-ratelimit-limit-tokens", b"x-ratelimit-remaining-tokens", b"x-ratelimit-reset-tokens")
QUOTA = frozenset((*QUOTA_OF_REQUESTS, *QUOTA_OF_TOKENS))
# What describes a body that goes on as it came.
OF_BODY = frozenset({b"content-type", b"content-encoding", b"content-length", b"content-disposition"})
# What goes upstream of a caller's headers: Azure refuses more than ten that it does not know.
FORWARDED = frozenset(
    {b"content-type", b"content-encoding", b"accept", b"accept-encoding", b"idempotency-key", b"user-agent"}
)
MAX_DECISIONS = 128  # names whose fate is remembered
FORWARDED_PREFIXES = (b"x-ms-", b"aoai-", b"openai-")
# Of those, what says who sent a request, or which one it is; every other one may shape its answer.
OF_REQUEST = frozenset({b"x-ms-client-request-id", b"x-ms-date", b"x-ms-return-client-request-id", b"x-ms-useragent"})


def first(headers: Headers, name: bytes) -> bytes | None:
    """The value of the first header of that lower-case name, or None."""
    for key, value in headers:
        if key == name:
            return value
    return None


def media_type(headers: Headers) -> str:
    """The lower-case media type of Content-Type without its parameters; "" where there is none."""
    value = first(headers, b"content-type")
    return _media_type(value) if value else ""


@lru_cache(maxsize=64)
def _media_type(value: bytes) -> str:
    return value.split(b";", 1)[0].strip().lower().decode("latin-1")


def relayed(headers: Headers, quota: Headers = (), kept: Headers = ()) -> Headers:
    """The upstream headers that go on to the client; its quota is ours, if there is one, and so is `kept`."""
    decided = _relayed_but_quota if quota else _relayed
    return (*_sound([pair for pair in headers if decided[pair[0]]]), *quota, *kept)


def relayed_verbatim(headers: Headers, quota: Headers = (), kept: Headers = ()) -> Headers:
    """The upstream headers that go on with a body that goes on as it came; its quota is ours, if there is one."""
    decided = _verbatim_but_quota if quota else _relayed_verbatim
    return (*_sound([pair for pair in headers if decided[pair[0]]]), *quota, *kept)


def relayed_whole(headers: Headers, quota: Headers = (), kept: Headers = ()) -> Headers:
    """The same with a body that is held: its length is counted anew."""
    decided = _whole_but_quota if quota else _relayed_whole
    return (*_sound([pair for pair in headers if decided[pair[0]]]), *quota, *kept)


def forwarded(headers: Headers) -> Headers:
    """The caller's headers that go upstream: an allow-list, so no credential, cookie or forwarding note does."""
    return _sound([pair for pair in headers if _forwarded[pair[0]]])


@lru_cache(maxsize=64)
def shaping(headers: Headers) -> str:
    """What of the headers that go upstream may shape an answer."""
    pairs = [pair for pair in headers if pair[0].startswith(FORWARDED_PREFIXES) and pair[0] not in OF_REQUEST]
    return "\n".join([b": ".join(pair).decode("latin-1") for pair in sorted(pairs)])


def _sound(headers: list[tuple[bytes, bytes]]) -> Headers:
    """Those whose values are values; mostly all of them are, which one look tells."""
    if is_value(b"".join([value for _, value in headers])):
        return tuple(headers)
    return tuple(pair for pair in headers if is_value(pair[1]))


class _Decisions(dict[bytes, bool]):
    """What is decided of each name: the same few come in every message, and a look at a dictionary costs least."""

    def __init__(self, decide: Callable[[bytes], bool]) -> None:
        super().__init__()
        self._decide = decide

    def __missing__(self, name: bytes) -> bool:
        if len(self) >= MAX_DECISIONS:
            self.clear()
        self[name] = decided = self._decide(name)
        return decided


_relayed = _Decisions(lambda name: name in RELAYED or name.startswith(RELAYED_PREFIXES))
_relayed_verbatim = _Decisions(lambda name: name in OF_BODY or _relayed[name] or name.startswith(b"openai-"))
_relayed_but_quota = _Decisions(lambda name: name not in QUOTA and _relayed[name])
_relayed_whole = _Decisions(lambda name: name != b"content-length" and _relayed_verbatim[name])
_whole_but_quota = _Decisions(lambda name: name not in QUOTA and _relayed_whole[name])
_verbatim_but_quota = _Decisions(lambda name: name not in QUOTA and _relayed_verbatim[name])
_forwarded = _Decisions(lambda name: name in FORWARDED or name.startswith(FORWARDED_PREFIXES))


def accepts_gzip(headers: Headers) -> bool:
    """Whether the caller can read a gzip-encoded body (RFC 9110 section 12.5.3)."""
    qualities = {}
    for name, value in headers:
        if name == b"accept-encoding":
            for part in value.decode("latin-1").lower().split(","):
                coding, *parameters = (piece.strip() for piece in part.split(";"))
                qualities[coding.removeprefix("x-")] = _quality(parameters)
    return qualities.get("gzip", qualities.get("*", 0.0)) > 0


def breaks_out(fields: bytes) -> bool:
    """Whether header fields, without the ends of their lines, hold a CR, LF or NUL: it came in with a value."""
    return fields.find(b"\r") >= 0 or fields.find(b"\n") >= 0 or fields.find(b"\0") >= 0


def is_value(value: bytes) -> bool:
    """Whether a header may have this value: no control characters (RFC 9110 section 5.5), ASCII only."""
    return value.isascii() and value.decode().isprintable()


@lru_cache(maxsize=64)
def is_loopback(host: str) -> bool:
    """Whether a host name or address, without a port, names this machine itself."""
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return host.lower() == "localhost" or host.lower().endswith(".localhost")


_KEY_PROTOCOL = "openai-insecure-api-key."


def presented_credential(headers: Headers) -> str | None:
    """The key or token that a caller presents as `api-key` or as Bearer (RFC 6750), or None.

    A page's WebSocket can send no headers of its own, and has it among its subprotocols, as OpenAI's client does.
    """
    key = first(headers, b"api-key")
    if key and key.strip():
        return key.strip().decode("latin-1")
    scheme, _, token = (first(headers, b"authorization") or b"").partition(b" ")
    if scheme.lower() == b"bearer" and token.strip():
        return token.strip().decode("latin-1")
    if (first(headers, b"upgrade") or b"").lower() == b"websocket":
        offered = (first(headers, b"sec-websocket-protocol") or b"").decode("latin-1").split(",")
        keys = (one.strip().removeprefix(_KEY_PROTOCOL) for one in offered if one.strip().startswith(_KEY_PROTOCOL))
        return next(keys, None) or None
    return None


def prefers_text(accept: bytes | None) -> bool:
    """Whether Accept prefers text/plain to JSON (RFC 9110 section 12.5.1).

    The higher quality wins, then the more specific range; a tie, a bare `*/*` and no header at
    all are JSON, so that only those get text who ask for it.
    """
    if not accept:
        return False
    text = json = (0.0, 0)
    for part in accept.decode("latin-1").lower().split(","):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        quality = _quality(parameters)
        if media in ("text/plain", "text/*", "*/*"):
            text = _more_specific(text, (quality, _specificity(media)))
        if media in ("application/json", "application/*", "*/*"):
            json = _more_specific(json, (quality, _specificity(media)))
    return text[0] > 0 and text > json


def _specificity(media: str) -> int:
    return 1 if media == "*/*" else 2 if media.endswith("/*") else 3


def _more_specific(old: tuple[float, int], new: tuple[float, int]) -> tuple[float, int]:
    return new if new[1] > old[1] else old


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                quality = float(value)
            except ValueError:
                return 0.0
            return quality if 0 <= quality <= 1 else 0.0  # not a quality: nan, inf, 5
    return 1.0
