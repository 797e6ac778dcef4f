"""What keeps answers, and what gives them, for tests: each says what a test has it say."""

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from typing import Any

from msgspec import structs

from chat_api.caching import Kept
from chat_api.callers import by_key
from chat_api.errors import CutShort
from chat_api.keeping import CACHE, Keeping
from chat_api.pool import Group
from chat_api.replay import as_events
from chat_api.sharing import Sharing
from chat_api.trail import DEPLOYMENT
from chat_api.types import Attempt, ByteStream, Call, Headers, Reply, Secret, Sink
from tests.metered import key
from tests.relays import group_of
from tests.scripted import deployment

NOW = 1_800_000_000.0
TTL = 100.0
CHAT = "/v1/chat/completions"
QUESTION = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
USAGE = b'"usage":{"completion_tokens":2,"prompt_tokens":3,"total_tokens":5}'
ANSWER = (
    b'{"choices":[{"finish_reason":"stop","index":0,"message":{"content":"hello","role":"assistant"}}],'
    b'"created":1,"id":"c-1","model":"m","object":"chat.completion",%b}' % USAGE
)
JSON: Headers = ((b"content-type", b"application/json"), (b"x-request-id", b"r-9"), (b"openai-processing-ms", b"7"))
EVENTS: Headers = ((b"content-type", b"text/event-stream; charset=utf-8"), (b"x-request-id", b"r-9"))
TELLING = b"".join(as_events(ANSWER, include_usage=True) or ())
SILENT = b"".join(as_events(ANSWER, include_usage=False) or ())
HERE = deployment("a")


def asking(presents: str | None = None, **fields: Any) -> Call:
    """A chat that may be kept; `presents` is a credential that is nobody's client key."""
    values: dict[str, Any] = {"verbatim": True, "is_read": True, "model_in_body": "m", **fields}
    credential = Secret(presents) if presents else None
    call = Call("chat/completions", "m", QUESTION, False, credential)
    return structs.replace(call, **{"trail": [], **values})


def keyed(name: str, **fields: Any) -> Call:
    """The same of whoever has the client key of that name."""
    return asking(name, caller=by_key(key(name)), **fields)


class Arrived:
    """A body that comes in pieces; an exception breaks it off.

    Attributes:
        closed: how often.
        is_end_next: whether somebody said so.
    """

    def __init__(self, *pieces: bytes | Exception) -> None:
        self._pieces = iter(pieces)
        self.closed = 0
        self.is_end_next = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    async def flow(self, sink: Sink) -> Awaitable[object] | None:
        """Piece by piece."""
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            if (waiting := sink(piece)) is not None:
                return waiting
        return None

    def expect_end(self) -> None:
        """Only the end is still to come."""
        self.is_end_next = True

    async def aclose(self) -> None:
        """Count it."""
        self.closed += 1


class Shelf:
    """A store that keeps everything; `waits` has whoever looks wait for it, as for Redis."""

    def __init__(self, *, waits: bool = False) -> None:
        self.kept: dict[bytes, Kept] = {}
        self.looked = 0
        self._waits = waits

    def get(self, key: bytes) -> Kept | Awaitable[Kept | None] | None:
        """What is there."""
        self.looked += 1
        return self._late(key) if self._waits else self.kept.get(key)

    async def _late(self, key: bytes) -> Kept | None:
        return self.kept.get(key)

    def put(self, key: bytes, kept: Kept) -> None:
        """Keep it."""
        self.kept[key] = kept

    def state(self) -> Mapping[str, object]:
        """How many there are."""
        return {"answers": len(self.kept)}

    async def aclose(self) -> None:
        """There is nothing to close."""


class Kitchen:
    """Answers out of what is kept, and asks an upstream that gives one reply after another, the last again and again.

    Attributes:
        asked: the calls that it was asked.
    """

    def __init__(
        self,
        *replies: Reply | Exception,
        shelf: Shelf | None = None,
        sharing: Sharing | None = None,
        is_shared: bool = False,
        routes: Sequence[str] = (CHAT,),
        group: Group | None = None,
    ) -> None:
        self.now = NOW
        self.shelf = shelf
        self.asked: list[Call] = []
        self._replies = list(replies or [plain()])
        ttls = dict.fromkeys(routes, TTL)
        self.keeping = Keeping(ttls, shelf, sharing, is_shared=is_shared, wall=lambda: self.now)
        self.group = group or group_of(HERE)

    async def ask(self, call: Call, fallback: str | None = None) -> Reply:
        """The upstream's next reply; by a stand-in, if `fallback` names one."""
        self.asked.append(call)
        call.trail.append(Attempt(HERE, 0.0, 1.0, fallback=fallback))
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def reply(self, call: Call, *more: Any) -> Reply:
        """The reply to a call."""
        return await self.keeping.answer(call, self.group, self.ask, *more)

    async def said(self, call: Call, *more: Any) -> tuple[str, bytes]:
        """Where a call's answer is from, and all of it."""
        reply = await self.reply(call, *more)
        return how(reply), await whole(reply)


def plain(body: bytes | ByteStream = ANSWER, status: int = 200, headers: Headers = JSON) -> Reply:
    """A reply in JSON."""
    return Reply(status, headers, body, HERE)


def events(*pieces: bytes | Exception) -> Reply:
    """A reply in events."""
    return Reply(200, EVENTS, Arrived(*(pieces or (TELLING,))), HERE)


def broken(body: bytes) -> Reply:
    """One that breaks off after so much."""
    return events(body, CutShort("it broke off"))


def how(reply: Reply) -> str:
    """Where a reply is from, as its caller is told."""
    return dict(reply.kept)[CACHE].decode()


def label(reply: Reply) -> bytes | None:
    """Who answered, as its caller is told."""
    return dict(reply.kept).get(DEPLOYMENT)


async def whole(reply: Reply) -> bytes:
    """All of a reply's body, which is closed then."""
    body = reply.body
    if isinstance(body, bytes):
        return body
    try:
        return b"".join([chunk async for chunk in body])
    finally:
        await body.aclose()
