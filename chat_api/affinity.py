"""Which resource made what: a response, a file or a thread is known to that one only. Pure.

What an answer calls by an id is remembered with the resource that gave the answer, and a call that
names the id goes there. The memory is bounded, and this process's own.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable

from chat_api.operations import DEPLOYMENT_SCOPED
from chat_api.types import ByteStream, Call, Resource, Sink

MAX_REMEMBERED = 50_000  # ids; the oldest are forgotten first
MAX_NOTED = 200  # of one answer

_WORD = rb"[a-z]{2,12}[_-][0-9A-Za-z_-]{6,128}"
_ID = rb'"(' + _WORD + rb')"'
_GIVEN = re.compile(rb'id"\s*:\s*' + _ID)  # "id", "response_id", "output_file_id"
_NAMED = re.compile(_ID)
_SEGMENT = re.compile("(?=.*[0-9A-Z])" + _WORD.decode())  # `input_tokens` is a word, and no id


class Affinity:
    """Remembers ids."""

    def __init__(self) -> None:
        self._made_by: dict[bytes, Resource] = {}

    def resource_of(self, call: Call) -> Resource | None:
        """The resource that knows what the call names, in its path or its body; None if it names nothing known."""
        if not self._made_by or call.operation in DEPLOYMENT_SCOPED:
            return None
        for segment in call.operation.split("/")[1:]:
            if found := self._made_by.get(segment.encode()):
                return found
        if isinstance(call.body, bytes):
            for named in _NAMED.finditer(call.body):
                if found := self._made_by.get(named[1]):
                    return found
        return None

    def note(self, answer: bytes, resource: Resource, named: frozenset[bytes] = frozenset()) -> None:
        """Remember the ids in an answer, or in a piece of one, but for those that the call itself had `named`."""
        for count, given in enumerate(_GIVEN.finditer(answer)):
            if count == MAX_NOTED:
                break
            if given[1] in named:
                continue  # the answer may only repeat it
            self._made_by.pop(given[1], None)
            self._made_by[given[1]] = resource
            if len(self._made_by) > MAX_REMEMBERED:
                del self._made_by[next(iter(self._made_by))]


def concerns(call: Call) -> bool:
    """Whether a call may name, or make, what only one resource knows; a file's content is nobody's word."""
    operation = call.operation
    return operation not in DEPLOYMENT_SCOPED and not operation.startswith("/") and not operation.endswith("/content")


def named_in(call: Call) -> frozenset[bytes]:
    """What may be ids in a call's body."""
    return frozenset(_NAMED.findall(call.body)) if isinstance(call.body, bytes) else frozenset()


def is_about_one(operation: str) -> bool:
    """Whether an operation's path has an id: `responses/resp_1`, `files/file-1/content`."""
    return any(_SEGMENT.fullmatch(segment) for segment in operation.split("/")[1:])


class NotedBody:
    """A body as it arrives (`ByteStream`), of which `note` gets each piece: an id that two of them share is missed."""

    def __init__(self, body: ByteStream, note: Callable[[bytes], None]) -> None:
        self._body = body
        self._note = note

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._body:
            self._note(chunk)
            yield chunk

    async def flow(self, sink: Sink) -> Awaitable[object] | None:
        """Give `sink` each chunk the moment it is there."""

        def noted(chunk: bytes) -> Awaitable[object] | None:
            self._note(chunk)
            return sink(chunk)

        return await self._body.flow(noted)

    def expect_end(self) -> None:
        """Only the end of the body is still to come."""
        self._body.expect_end()

    async def aclose(self) -> None:
        """Let go of the connection behind it."""
        await self._body.aclose()
