"""A multipart form (RFC 7578), read as it comes: its fields, and what its files are, without keeping them. Pure."""

import hashlib
import re
from typing import Any

_MAX_HEAD = 16 * 1024
_MAX_VALUE = 64 * 1024  # of a field that is no file; a longer one is cut
_BOUNDARY = re.compile(rb'boundary=(?:"([^"]+)"|([^\s;]+))', re.IGNORECASE)
_NAME = re.compile(rb';\s*name="((?:[^"\\]|\\.)*)"', re.IGNORECASE)
_FILENAME = re.compile(rb';\s*filename="((?:[^"\\]|\\.)*)"', re.IGNORECASE)


class Part:
    """One part of a form: what it is called, where its content stands, and what that content is."""

    def __init__(self, head: bytes, start: int) -> None:
        name, filename = _NAME.search(head), _FILENAME.search(head)
        self.name = name[1].decode("utf-8", "replace") if name else ""
        self.filename = filename[1].decode("utf-8", "replace") if filename else None
        self.start = start  # of the content, within the form
        self.size = 0
        self._value = bytearray()
        self._hash = hashlib.sha256()

    def add(self, content: bytes) -> None:
        """Take in a piece of the content."""
        self.size += len(content)
        self._hash.update(content)
        self._value += content[: max(0, _MAX_VALUE - len(self._value))]

    @property
    def field(self) -> Any:
        """The value of a field; of a file its name, size and digest."""
        if self.filename is None:
            return self._value.decode("utf-8", "replace")
        return {"filename": self.filename, "bytes": self.size, "sha256": self._hash.hexdigest()}


class FormReader:
    """Takes a form apart as it comes; nothing of a file is kept but its digest."""

    def __init__(self, content_type: bytes) -> None:
        boundary = _BOUNDARY.search(content_type)
        self._delimiter = b"\r\n--" + ((boundary[1] or boundary[2]) if boundary else b"")
        self._window = bytearray(b"\r\n")  # the first delimiter has no line end before it
        self._offset = -2
        self._part: Part | None = None
        self._in_head = False
        self.parts: list[Part] = []
        self.complete = False  # whether the closing delimiter has come
        self.broken = boundary is None

    @property
    def fields(self) -> dict[str, Any]:
        """Name → value, or the list of them where a name comes again."""
        fields: dict[str, Any] = {}
        for part in self.parts:
            before = fields.get(part.name)
            if part.name in fields:
                fields[part.name] = [*(before if isinstance(before, list) else [before]), part.field]
            else:
                fields[part.name] = part.field
        return fields

    def feed(self, piece: bytes) -> None:
        """Take in the next piece."""
        if self.complete or self.broken:
            return
        self._window += piece
        while not (self.complete or self.broken) and (self._head() if self._in_head else self._content()):
            pass

    def _content(self) -> bool:
        at = self._window.find(self._delimiter)
        if at < 0:
            self._take(len(self._window) - len(self._delimiter) + 1)
            return False
        self._take(at)
        if self._part is not None:
            self.parts.append(self._part)
            self._part = None
        self._drop(len(self._delimiter))
        self._in_head = True
        return True

    def _head(self) -> bool:
        if self._window.startswith(b"--"):
            self.complete = True
            return False
        end = self._window.find(b"\r\n\r\n")
        if end < 0:
            self.broken = len(self._window) > _MAX_HEAD
            return False
        head = bytes(self._window[:end])
        self._drop(end + 4)
        self._part = Part(head, self._offset)
        self._in_head = False
        return True

    def _take(self, count: int) -> None:
        if count > 0:
            if self._part is not None:
                self._part.add(bytes(self._window[:count]))
            self._drop(count)

    def _drop(self, count: int) -> None:
        del self._window[:count]
        self._offset += count
