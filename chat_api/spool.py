"""Request bodies that are not held in memory: forms that are spooled to disk, and uploads passed on as they come."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from io import RawIOBase
from typing import Any

from chat_api.errors import BodyTooLarge, ClientGone
from chat_api.headers import first
from chat_api.multipart import FieldFinder
from chat_api.types import Headers

MAX_MEMORY_BYTES = 1024 * 1024
PIECE_BYTES = 64 * 1024

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


async def pieces_of(receive: Receive, max_bytes: int, setting: str) -> AsyncIterator[bytes]:
    """A request's body as it comes (ASGI 3).

    Raises:
        BodyTooLarge: more than `max_bytes` have come, which `setting` says.
        ClientGone: the client left before it was complete.
    """
    size = 0
    more = True
    while more:
        piece, more = await _next_piece(receive)
        size += len(piece)
        if size > max_bytes:
            raise _too_large(max_bytes, setting)
        if piece:
            yield piece


async def whole(receive: Receive, max_bytes: int, setting: str) -> bytes:
    """A request's whole body; raises as `pieces_of` does."""
    body, more = await _next_piece(receive)
    if more:
        parts = [body]
        size = len(body)
        while more and size <= max_bytes:
            piece, more = await _next_piece(receive)
            parts.append(piece)
            size += len(piece)
        body = b"".join(parts)
    if len(body) > max_bytes:
        raise _too_large(max_bytes, setting)
    return body


async def _next_piece(receive: Receive) -> tuple[bytes, bool]:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone("the client left before its request was complete")
    return message.get("body", b""), message.get("more_body", False)


def declared_size(headers: Headers, max_bytes: int, setting: str) -> int | None:
    """The length in bytes that a request's head declares, if it does.

    Raises:
        BodyTooLarge: it is more than `max_bytes`, which `setting` says.
    """
    declared = first(headers, b"content-length")
    if declared is None or not declared.isdigit():
        return None
    size = int(declared[:20])
    if size > max_bytes:
        raise _too_large(max_bytes, setting)
    return size


def _too_large(max_bytes: int, setting: str) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than {setting} ({max_bytes} bytes)")


class Form:
    """A multipart form, kept as it came, and where its field `model` stands. Whoever reads it closes it."""

    is_repeatable = True

    def __init__(self, finder: FieldFinder) -> None:
        self._finder = finder
        self._memory = bytearray()
        self._file: RawIOBase | None = None
        self.size = 0

    @property
    def model(self) -> bytes | None:
        """The value of the field `model`, if the form has it."""
        return self._finder.value

    async def write(self, piece: bytes) -> None:
        """Add the next piece; beyond `MAX_MEMORY_BYTES` all of it is on disk.

        Raises:
            RequestError: the form is not one.
        """
        self._finder.feed(piece)
        self.size += len(piece)
        if self._file is None:
            self._memory += piece
            if self.size > MAX_MEMORY_BYTES:
                self._file = await asyncio.to_thread(_file_of, bytes(self._memory))
                self._memory.clear()
        else:
            await asyncio.to_thread(_write, self._file, piece)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self.pieces(0, self.size):
            yield piece

    async def pieces(self, start: int, end: int) -> AsyncIterator[bytes]:
        """The form's bytes from `start` to `end`; more than one reader may read at a time."""
        for at in range(start, end, PIECE_BYTES):
            count = min(PIECE_BYTES, end - at)
            if self._file is None:
                yield bytes(self._memory[at : at + count])
            else:
                yield await asyncio.to_thread(_read_at, self._file, at, count)

    def with_model(self, name: str) -> "Form | RenamedForm":
        """The same form with another value of its field `model`; itself, if it has none."""
        return RenamedForm(self, self._finder.span, name.encode()) if self._finder.span else self

    async def aclose(self) -> None:
        """Give back the memory and the disk."""
        self._memory.clear()
        if self._file is not None:
            await asyncio.to_thread(self._file.close)


class RenamedForm:
    """A form whose field `model` has another value; every other byte is the form's own."""

    is_repeatable = True

    def __init__(self, form: Form, span: tuple[int, int], value: bytes) -> None:
        self._form = form
        self._span = span
        self._value = value
        self.size = form.size - (span[1] - span[0]) + len(value)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._form.pieces(0, self._span[0]):
            yield piece
        yield self._value
        async for piece in self._form.pieces(self._span[1], self._form.size):
            yield piece

    def with_model(self, name: str) -> "RenamedForm":
        """The same form with yet another value."""
        return RenamedForm(self._form, self._span, name.encode())


class Upload:
    """A request body that is passed on as it comes, once.

    Args:
        receive: where it comes from (ASGI 3).
        size: what the client said its length is, or None.
        max_bytes: where it is refused, whatever the client said.
    """

    is_repeatable = False

    def __init__(self, receive: Receive, size: int | None, max_bytes: int) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._ended = asyncio.Event()
        self.size = size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in pieces_of(self._receive, self._max_bytes, "MAX_UPLOAD_BYTES"):
                yield piece
        finally:
            self._ended.set()

    def with_model(self, name: str) -> "Upload":
        """Itself: nothing in it is looked at."""
        return self

    async def after(self) -> MutableMapping[str, Any]:
        """What comes from the client once the body has been passed on: nobody else may listen before."""
        await self._ended.wait()
        return await self._receive()


def _file_of(content: bytes) -> RawIOBase:
    file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed with the form
    _write(file, content)
    return file


def _write(file: RawIOBase, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) or 0 :]


def _read_at(file: RawIOBase, at: int, count: int) -> bytes:
    return os.pread(file.fileno(), count, at)  # without a position of the file's, which readers would share
