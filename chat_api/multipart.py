"""Finds one field in a multipart form (RFC 7578) that comes in pieces, without taking the form apart. Pure.

The form itself goes on with the bytes it came with: a form that is built anew loses file names, types
and the order of its fields. Nothing here looks into a file's content but for the boundary.
"""

import re

from chat_api.errors import RequestError

MAX_PART_HEAD_BYTES = 16 * 1024
MAX_VALUE_BYTES = 1024
_BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_DISPOSITION = re.compile(rb"(?im)^content-disposition:([^\r\n]*)")
_PARAMETER = re.compile(rb';\s*([\w*-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]*))')


def boundary_of(content_type: bytes) -> bytes:
    """The boundary that a multipart content type names.

    Raises:
        RequestError: it names none.
    """
    match = _BOUNDARY.search(content_type.decode("latin-1"))
    if match is None:
        raise RequestError("the form's content type names no boundary", code="invalid_form")
    return (match[1] or match[2]).encode("latin-1")


class FieldFinder:
    """Follows a form as it comes and notes where the value of one field stands.

    Args:
        boundary: what separates the parts.
        name: the field that is looked for; the first part of that name counts.
    """

    def __init__(self, boundary: bytes, name: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._name = name
        # The first delimiter has no line end before it; with this one it is found like the others.
        self._window = bytearray(b"\r\n")
        self._offset = -2  # of the window's start within the form
        self._wanted = False
        self._in_head = False
        self._ended = False
        self._value_start = 0
        self.span: tuple[int, int] | None = None  # of the value, within the form
        self.value: bytes | None = None

    def feed(self, piece: bytes) -> None:
        """Look at the next piece.

        Raises:
            RequestError: a part's head or the field's value is larger than any that makes sense.
        """
        if self._ended or self.span is not None:
            return
        self._window += piece
        while self._step():
            pass

    def _step(self) -> bool:
        """Go on to the next mark in the window; False if it has not come yet."""
        return self._head() if self._in_head else self._content()

    def _content(self) -> bool:
        at = self._window.find(self._delimiter)
        if at < 0:
            if self._wanted:
                self._check_value(len(self._window) - len(self._delimiter))
            else:
                self._drop(len(self._window) - len(self._delimiter))
            return False
        if self._wanted:
            self._check_value(at)
            self.value = bytes(self._window[:at])
            self.span = (self._value_start, self._value_start + at)
            return False
        self._drop(at + len(self._delimiter))
        self._in_head = True
        return True

    def _check_value(self, size: int) -> None:
        if size > MAX_VALUE_BYTES:
            raise RequestError(f'the form\'s field "{self._name.decode()}" is too long', param="model")

    def _head(self) -> bool:
        if self._window.startswith(b"--"):
            self._ended = True
            return False
        end = self._window.find(b"\r\n\r\n")
        if (end if end >= 0 else len(self._window)) > MAX_PART_HEAD_BYTES:
            raise RequestError("the head of a part of the form is too long", code="invalid_form")
        if end < 0:
            return False
        if not self._window.lstrip(b" \t").startswith(b"\r\n"):
            self._in_head = False  # no delimiter, but text that begins like one
            return True
        self._wanted = _field_name(bytes(self._window[:end])) == self._name
        # A part without content has its delimiter right after its head, whose last line end is the delimiter's.
        self._drop(end + 4)
        self._value_start = self._offset
        self._in_head = False
        return True

    def _drop(self, count: int) -> None:
        if count > 0:
            del self._window[:count]
            self._offset += count


def _field_name(head: bytes) -> bytes | None:
    disposition = _DISPOSITION.search(head)
    for name, quoted, bare in _PARAMETER.findall(disposition[1] if disposition else b""):
        if name.lower() == b"name":
            return bytes(quoted or bare)
    return None
