"""The frozen values that travel between the rooms, and the protocols they meet at.

Those that are made for every call are msgspec's structs, which cost a tenth of a frozen dataclass.
"""

import dataclasses
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from msgspec import Struct, field

from chat_api.caching import Source, Wish
from chat_api.callers import Caller

MAX_LABEL_CHARS = 128  # of a name that a caller may have made up

Headers = Sequence[tuple[bytes, bytes]]  # raw pairs, names in lower case


class Secret:
    """Text that never prints: `repr` and `str` hide it, `reveal()` gives it."""

    __slots__ = ("_digest", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._digest = b""

    def reveal(self) -> str:
        """The text itself, for the one place that puts it on the wire."""
        return self._text

    @property
    def digest(self) -> bytes:
        """What it is known by where it is not known itself: its SHA-256."""
        if not self._digest:
            self._digest = hashlib.sha256(self._text.encode()).digest()
        return self._digest

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


Resource = tuple[str, Secret | None]  # its base URL, and our key for it: another key may be another account's


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where a call can go: a deployment at Azure, or a model at an OpenAI-compatible server; our key for it."""

    name: str
    base_url: str  # scheme, host and path prefix, no trailing slash
    api_version: str  # a date, "v1" or "preview" (of v1); of an OpenAI-compatible server "v1", or "" if its URL has it
    key: Secret | None = None
    kind: str = "azure"  # or "openai"
    priority: int = 0  # the lowest of a model's deployments that can take a call gets it
    weight: float = 1.0  # its share among those of the same priority
    max_in_flight: int | None = None  # calls at a time
    in_file: bool = dataclasses.field(default=False, compare=False)  # the config file has its URL

    def __hash__(self) -> int:
        return hash((self.name, self.base_url))  # enough to tell them apart, and they are looked up for every call

    @property
    def url_setting(self) -> str:
        """What a person would look at for its URL."""
        if self.in_file:
            return "its endpoint in CONFIG_FILE"
        return "ENDPOINT" if self.kind == "azure" else "OPENAI_BASE_URL"

    @property
    def key_setting(self) -> str:
        """What a person would look at for its key."""
        if self.in_file:
            return "its key in CONFIG_FILE"
        return "KEY" if self.kind == "azure" else "OPENAI_API_KEY"

    @property
    def host(self) -> str:
        """Host and port, as people name the resource in messages."""
        return self.base_url.partition("://")[2].partition("/")[0]

    @property
    def resource(self) -> Resource:
        """What it belongs to, with all that is stored there."""
        return self.base_url, self.key

    @property
    def label(self) -> str:
        """Both, as the log and `x-chat-api-deployment` have them: `gpt-4o@my-resource.openai.azure.com`."""
        return f"{self.name[:MAX_LABEL_CHARS] or '-'}@{self.host}".replace(" ", "+")

    @property
    def identity(self) -> "Deployment":
        """What makes it this one, whatever share of which model's calls it gets."""
        if (self.priority, self.weight, self.max_in_flight) == (0, 1.0, None):
            return self
        return replace(self, priority=0, weight=1.0, max_in_flight=None)


@dataclass(frozen=True, slots=True)
class Proxies:
    """The outbound proxies by the scheme of the URL that is asked; they may hold a password."""

    http: Secret | None = None
    https: Secret | None = None
    bypass: str = ""  # the hosts that are asked directly, as NO_PROXY lists them


class Body(Protocol):
    """A request body that is not held in memory: sent on as it comes, or from disk."""

    @property
    def size(self) -> int | None:
        """Its length in bytes, where that is known before it has come."""
        ...

    @property
    def is_repeatable(self) -> bool:
        """Whether it can be iterated over again, from its beginning."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Its bytes, in pieces."""
        ...

    def with_model(self, name: str) -> "Body":
        """The same body with another value of its field `model`, if it is a form that has one."""
        ...


class Attempt(Struct, eq=False):
    """One time that a deployment was asked; it is filled in as it goes. Times are the monotonic clock's, in seconds."""

    deployment: Deployment
    started: float
    ended: float = 0.0  # when its answer was there, for a stream its first decisive event; or when it failed
    status: int = 0  # of the answer; 0 if there was none
    code: str | None = None  # of the error, if it failed otherwise
    queue_seconds: float = 0.0  # for a place among the connections
    connect_seconds: float = 0.0  # TLS included
    fallback: str | None = None  # the model that stands in for the one that was asked for


class Call(Struct, frozen=True):
    """One call as the gateway understands it, free of ASGI."""

    # "chat/completions": the path under /v1/, as it was quoted. What lies outside of /v1 begins with a slash.
    operation: str
    model: str | None  # as the caller named it; None means the default deployment
    body: bytes | Body
    stream: bool
    credential: Secret | None = None  # what the caller presented, if anything
    # Parameters in `body` that came from the environment's defaults, not from the caller.
    defaulted: frozenset[str] = frozenset()
    method: str = "POST"
    query: str = ""  # as it came, without what is ours to decide (api-version, api-key)
    headers: Headers = ()  # of the caller's, those that go on
    # The body and the answer are the caller's and the upstream's own: nothing but the model's name may change.
    verbatim: bool = False
    model_in_body: str | None = None
    choices: int = 1  # how many answers to a chat were asked for
    route: str = ""  # the path prefix of the upstream that was addressed; "" is the main one
    request_id: str = ""  # for the log
    caller: Caller | None = None  # who asks, where anybody wants to know
    address: str = ""  # the client's, for who writes conversations down
    wish: Wish = Wish()  # what the caller asks of answers that are kept
    is_metered: bool = False  # whether what its answer took is counted
    is_read: bool = False  # whether anybody here reads its answer: to count, to keep it or to write it down
    asks_usage: bool = False  # whether the caller wants to be told that in a stream
    most_tokens: int | None = None  # that the answer may have, over all its choices; None if it is not said
    trail: list[Attempt] = field(default_factory=list)  # who was asked so far, in order

    @property
    def is_followed(self) -> bool:
        """Whether an event stream that answers it is relayed, and one whose events and end are known here."""
        return self.verbatim and self.method == "POST" and not self.operation.startswith("/")

    @property
    def hides_usage(self) -> bool:
        """Whether a stream is asked to tell what it took only to be read here."""
        return self.is_read and self.stream and not self.asks_usage


@dataclass(frozen=True, slots=True)
class Adaptation:
    """What a deployment taught us about one parameter: its other name, or None to leave it out."""

    parameter: str
    renamed: str | None

    def __str__(self) -> str:
        return f"{self.parameter} sent as {self.renamed}" if self.renamed else f"default {self.parameter} left out"


class UpstreamRequest(Struct, frozen=True):
    """One HTTP request, ready to send."""

    method: str
    url: str
    headers: Headers  # they carry the credential
    body: bytes | Body
    setting: str = "ENDPOINT"  # what a person would look at if nobody answers there

    def __repr__(self) -> str:
        return f"UpstreamRequest(method={self.method!r}, url={self.url!r}, setting={self.setting!r})"


# Takes a piece of a body; gives what has to be awaited before the next, or None to go on at once.
Sink = Callable[[bytes], Awaitable[object] | None]


class ByteStream(Protocol):
    """A body that is still arriving; whoever takes it closes it, read to its end or not.

    Iterating raises `UpstreamError` where the upstream breaks off: an end is the upstream's own end.
    """

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The chunks as they come."""
        ...

    async def flow(self, sink: Sink) -> Awaitable[object] | None:
        """Give `sink` each chunk the moment it is there, until there is something to await, which is returned.

        None is the end. A chunk that is passed on so wakes no task, whereas each step of an iteration does.
        """
        ...

    def expect_end(self) -> None:
        """The answer is complete: only the end of the body is still to come, and `aclose` may wait for it."""
        ...

    async def aclose(self) -> None:
        """Let go of the connection behind it."""
        ...


class Reply(Struct, frozen=True):
    """The answer to a call: a whole body, or one that is still arriving."""

    status: int
    headers: Headers
    body: bytes | ByteStream
    deployment: Deployment
    adaptations: tuple[Adaptation, ...] = ()
    quota: Headers = ()  # `x-ratelimit-*` of ours, which go on instead of the upstream's
    kept: Headers = ()  # what callers are told of where it is from, and how old it is
    source: Source | None = None  # where it is from, if not from an upstream that was asked for it alone


class UpstreamResponse(Protocol):
    """A response whose head has arrived. `aclose` releases or closes the connection, always.

    Its request has waited so many seconds for a place among the connections, and for a new one to be made.
    """

    status: int
    headers: Headers
    queue_seconds: float
    connect_seconds: float

    def arrived(self) -> bytes | None:
        """The whole body, undecoded, if it is there already and nobody has read of it."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, undecoded; raises `UpstreamError` where it breaks off."""
        ...

    async def aclose(self) -> None:
        """Give the connection back if the body was read to its end, close it otherwise."""
        ...


class Transport(Protocol):
    """Sends requests upstream. Every failure is an `UpstreamError` or a `NoUpstream`."""

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send the request and return once the response's head has arrived."""
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...
