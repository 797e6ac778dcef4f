"""Say it once: an answer that was kept is given again, and identical calls in flight share one.

What is the same is for `canonical` to say, within what one caller asks by one route, or what all do.
"""

import time
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from msgspec import structs

from chat_api.assembly import assembled
from chat_api.caching import CacheStore, Kept
from chat_api.canonical import OPERATIONS, asked_choices, canonical_key
from chat_api.headers import media_type, shaping
from chat_api.keepable import is_complete_json, is_complete_stream
from chat_api.kept_bodies import KeptBody, ReplayedBody
from chat_api.operations import route_of
from chat_api.pool import Group
from chat_api.replay import as_events, with_usage
from chat_api.sharing import Sharing
from chat_api.sharing.flight import Flight, Form
from chat_api.trail import DEPLOYMENT, FALLBACK
from chat_api.types import ByteStream, Call, Headers, Reply

CACHE = b"x-chat-api-cache"
AGE = b"age"
MAX_STREAM_BYTES = 1024 * 1024  # of a stream that is kept: to see whether it is whole takes a while
MAX_COMPARED_BYTES = 1024 * 1024  # of a request: a larger one would hold everybody up for as long as it is read
MAX_FORMED_BYTES = 8 * 1024 * 1024  # of another caller's answer that is held to be given in another form
_JSON, _EVENTS = (b"content-type", b"application/json"), (b"content-type", b"text/event-stream; charset=utf-8")
_OURS = frozenset({"us"})  # whose keys a group is asked with
_HOW = {how: (CACHE, how.encode()) for how in ("hit", "miss", "shared", "bypass")}
Ask = Callable[..., Coroutine[Any, Any, Reply]]


class _Cached:
    """A kept answer: whoever asked first has been counted for it."""

    name = "cache"
    is_free = True


class _Joined:
    """Another caller's: he is counted for it, unless he has left, with which he might get it for nothing."""

    name = "shared"

    def __init__(self, flight: Flight) -> None:
        self._flight = flight

    @property
    def is_free(self) -> bool:
        return self._flight.is_led


class Keeping:
    """Answers calls from what is kept, and from each other.

    Args:
        ttls: for how many seconds the answers of which routes are kept.
        store: keeps them; None if nothing is.
        sharing: the calls in flight; None if they do not share.
        is_shared: whether callers get each other's answers.
        wall: the time, in seconds since 1970.
    """

    def __init__(
        self,
        ttls: Mapping[str, float],
        store: CacheStore | None,
        sharing: Sharing | None,
        *,
        is_shared: bool = False,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._ttls = ttls
        self.store = store
        self.sharing = sharing
        self._is_shared = is_shared
        self._wall = wall

    def concerns(self, call: Call) -> bool:
        """Whether the answer of a call may be kept, or shared."""
        if call.operation not in OPERATIONS or call.method != "POST" or not isinstance(call.body, bytes):
            return False
        if len(call.body) > MAX_COMPARED_BYTES:
            return False
        return self.sharing is not None or route_of(call) in self._ttls

    async def answer(self, call: Call, group: Group, ask: Ask, *more: Any) -> Reply:
        """The reply to a call.

        Args:
            call: what is asked.
            group: those that might answer.
            ask: asks the upstream; it gets the call, and what is known of it besides.
            more: that.

        Raises:
            GatewayError: the upstream gave no answer.
        """
        assert isinstance(call.body, bytes)  # noqa: S101 - it concerns us
        route = route_of(call)
        ttl = self._ttls.get(route) if self.store is not None else None
        key = canonical_key(call.body, call.operation, scope=self._scope(call, route, group))
        if key is None:
            return _told(await ask(call, *more), "bypass")
        if self.store is not None and ttl is not None and call.wish.max_age_seconds > 0:
            found = self.store.get(key)
            kept = found if found is None or isinstance(found, Kept) else await found
            if kept is not None and (hit := self._again(kept, call, group)) is not None:
                return hit
        kept_as = "miss" if ttl is not None and call.wish.may_be_kept else "bypass"
        made = partial(self._made, call, key, ttl if call.wish.may_be_kept else None, ask, more)
        if self.sharing is None or call.wish.max_age_seconds <= 0:
            return _told(await made(), kept_as)
        reply, flight = await self.sharing.reply(key, made)
        if flight is not None:
            if (formed := await _formed(reply, call, flight)) is not None:
                return _shared(formed, flight)
            # What is asked for cannot be made of that one: whoever asks for it in this form shares another.
            reply, flight = await self.sharing.reply(key + (b"events" if call.stream else b"JSON"), made)
        return _told(reply, kept_as) if flight is None else _shared(reply, flight)

    def _scope(self, call: Call, route: str, group: Group) -> str:
        """What only a call within the same one shares its answers with.

        What a key of the caller's own has paid for, and whether it is one, only its server knows: that is never
        another caller's.
        """
        key = call.caller.key if call.caller is not None else None
        whose = ""
        if not (self._is_shared and (key is not None or group.keyed_by == _OURS)):
            whose = f"key {key.name}" if key is not None else call.credential.digest.hex() if call.credential else "-"
        # A default is left out where a model refuses it; what a caller sends is not.
        defaulted = ",".join(sorted(call.defaulted)) if call.defaulted else ""
        asked = f"{call.model or ''}\0{call.query}\0{defaulted}\0{shaping(call.headers)}"
        return f"{whose}\0{route}\0{asked}\0{group.served_by}"

    def _again(self, kept: Kept, call: Call, group: Group) -> Reply | None:
        """The reply that a kept answer is, if it is what the caller wants."""
        now = self._wall()
        age = max(0.0, now - kept.stored)
        if now >= kept.expires or age > call.wish.max_age_seconds:
            return None
        form = _form_of(kept.body, call, is_stream=kept.is_stream)
        if form is None:
            return None
        told = (
            _HOW["hit"],
            (AGE, b"%d" % age),
            (DEPLOYMENT, kept.deployment.encode("unicode_escape")),
        )
        headers = kept.headers if kept.is_stream is call.stream else _headers_of(call)
        return Reply(200, headers, _body_of(form), group.members[0].deployment, (), (), told, _Cached())

    async def _made(self, call: Call, key: bytes, ttl: float | None, ask: Ask, more: tuple[Any, ...]) -> Reply:
        """What the upstream replies, kept if it is whole."""
        reply = await ask(call, *more)
        body = reply.body
        if call.trail and (stand_in := call.trail[-1].fallback) is not None:
            # The model itself may be back for the next caller; whoever shares this answer is told whose it is.
            return structs.replace(reply, kept=((FALLBACK, stand_in.encode("unicode_escape")),))
        if ttl is None or reply.status != 200:
            return reply
        put = partial(self._put, call, key, ttl, reply)
        if isinstance(body, bytes):
            put(body)
        elif media_type(reply.headers) == "text/event-stream":
            return structs.replace(reply, body=KeptBody(body, put, MAX_STREAM_BYTES))
        return reply

    def _put(self, call: Call, key: bytes, ttl: float, reply: Reply, body: bytes) -> None:
        """Keep an answer, if it is whole."""
        assert isinstance(call.body, bytes)  # noqa: S101 - it concerns us
        choices = asked_choices(call.body, call.operation)
        is_stream = media_type(reply.headers) == "text/event-stream"
        is_complete = is_complete_stream if is_stream else is_complete_json
        if self.store is None or choices is None or not is_complete(body, call.operation, choices):
            return
        now = self._wall()
        headers = tuple(pair for pair in reply.headers if pair[0].startswith((b"content-type", b"openai-")))
        self.store.put(key, Kept(body, is_stream, headers, reply.deployment.label, now, now + ttl))

    def state(self) -> Mapping[str, object]:
        """What operators are told of it."""
        return {
            "cache": self.store.state() if self.store is not None else None,
            "sharing": self.sharing.state() if self.sharing is not None else None,
        }


def _form_of(body: bytes, call: Call, *, is_stream: bool) -> Form | None:
    """An answer in the form that a call asks for: JSON, or events in pieces; None if it cannot be made."""
    if not call.stream:
        # A plain answer tells what it took.
        return body if not is_stream else assembled(body) if with_usage(body) is not None else None
    if is_stream:
        return None if call.asks_usage and with_usage(body) is None else [body]
    return as_events(body, include_usage=True) or (None if call.asks_usage else as_events(body, include_usage=False))


def _headers_of(call: Call) -> Headers:
    return (_EVENTS if call.stream else _JSON,)


def _body_of(form: Form) -> bytes | ByteStream:
    return form if isinstance(form, bytes) else ReplayedBody(form)


async def _formed(reply: Reply, call: Call, flight: Flight) -> Reply | None:
    """Another caller's reply in the form that this one asks for; None if it cannot be made.

    However many ask for that form, it is made once: the answer may be long.
    """
    is_stream = media_type(reply.headers) == "text/event-stream"
    if reply.status != 200 or is_stream is call.stream:
        return reply
    body = reply.body if isinstance(reply.body, bytes) else await _read(reply.body)
    if body is None:
        return None
    if call.asks_usage not in flight.forms:
        flight.forms[call.asks_usage] = _form_of(body, call, is_stream=is_stream)
    form = flight.forms[call.asks_usage]
    return None if form is None else structs.replace(reply, headers=_headers_of(call), body=_body_of(form))


async def _read(body: ByteStream) -> bytes | None:
    """All of a body; None if that is too much."""
    pieces: list[bytes] = []
    room = MAX_FORMED_BYTES
    try:
        async for chunk in body:
            room -= len(chunk)
            if room < 0:
                return None
            pieces.append(chunk)
    finally:
        await body.aclose()
    return b"".join(pieces)


def _told(reply: Reply, how: str) -> Reply:
    told = (_HOW[how],)
    return Reply(reply.status, reply.headers, reply.body, reply.deployment, reply.adaptations, reply.quota, told)


def _shared(reply: Reply, flight: Flight) -> Reply:
    label = reply.deployment.label.encode("unicode_escape")
    told = (_HOW["shared"], (DEPLOYMENT, label), *reply.kept)
    return Reply(
        reply.status, reply.headers, reply.body, reply.deployment, reply.adaptations, (), told, _Joined(flight)
    )
