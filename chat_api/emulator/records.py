"""What the emulator keeps: the latest requests, for tests to look at, and what callers store. All of it bounded."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from starlette.types import Receive, Scope

from chat_api.emulator.forms import FormReader

MAX_BODY_BYTES = 64 * 1024 * 1024  # of a body that is kept; a larger one is only counted
MAX_KEPT = 100
_FORM = b"multipart/form-data"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came; a body that is too large to be kept is empty here, but for its size."""

    method: str
    target: str  # path and query
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    size: int = 0  # of the body


@dataclass
class Body:
    """A request's body: its bytes unless it is too large, its size, and its form if it is one."""

    data: bytearray = field(default_factory=bytearray)
    size: int = 0
    form: FormReader | None = None

    @property
    def kept(self) -> bool:
        """Whether the bytes are there."""
        return self.size == len(self.data)


class CallerGone(Exception):
    """The caller left before its request was complete."""


async def read(scope: Scope, receive: Receive) -> Body:
    """The request's body, read to its end."""
    content_type = dict(scope["headers"]).get(b"content-type", b"")
    body = Body(form=FormReader(content_type) if content_type.lower().startswith(_FORM) else None)
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerGone
        piece = message.get("body", b"")
        more = message.get("more_body", False)
        if body.form is not None:
            body.form.feed(piece)
        body.size += len(piece)
        if body.size <= MAX_BODY_BYTES:
            body.data += piece
        else:
            body.data.clear()
    return body


class Records:
    """The latest requests and JSON bodies, oldest first, of at most `MAX_BODY_BYTES` together in each."""

    def __init__(self) -> None:
        self.requests: deque[Received] = deque(maxlen=MAX_KEPT)
        self.received: deque[dict[str, Any]] = deque(maxlen=MAX_KEPT)
        self._sizes: deque[int] = deque(maxlen=MAX_KEPT)  # of what `received` was parsed from

    def note(self, scope: Scope, body: Body) -> None:
        """Keep a request."""
        query = scope["query_string"].decode("latin-1")
        target = scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
        kept = bytes(body.data) if body.kept else b""
        self.requests.append(Received(scope["method"], target, tuple(scope["headers"]), kept, body.size))
        while sum(len(request.body) for request in self.requests) > MAX_BODY_BYTES:
            self.requests.popleft()

    def note_json(self, parsed: dict[str, Any], size: int) -> None:
        """Keep a JSON body."""
        self.received.append(parsed)
        self._sizes.append(size)
        while len(self.received) < len(self._sizes) or sum(self._sizes) > MAX_BODY_BYTES:
            if len(self.received) == len(self._sizes):
                self.received.popleft()
            self._sizes.popleft()


class Shelf(Generic[T]):
    """What callers store, by name, up to so many things and bytes; what was stored first goes first."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[T, int]] = {}

    def put(self, name: str, thing: T, size: int) -> None:
        """Store it, in the place of what has its name."""
        self._kept.pop(name, None)
        self._kept[name] = (thing, size)
        while len(self._kept) > MAX_KEPT or sum(size for _, size in self._kept.values()) > MAX_BODY_BYTES:
            del self._kept[next(iter(self._kept))]

    def get(self, name: str) -> T | None:
        """What is stored under the name."""
        return self._kept[name][0] if name in self._kept else None

    def pop(self, name: str) -> T | None:
        """Take it away."""
        return self._kept.pop(name, (None, 0))[0]

    def values(self) -> list[T]:
        """Everything, in the order in which it was stored."""
        return [thing for thing, _ in self._kept.values()]
