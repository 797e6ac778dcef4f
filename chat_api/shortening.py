"""JSON without the files in it: images and sounds in base64 are told by their size. What is left is JSON as before."""

import re

MIN_CHARS = 1024  # of base64; less stays as it is
_MIN_BYTES = 2048  # of JSON; whatever is in less of it stays
_MARK = b";base64,"
_NAMES = tuple(b'"%s"' % name for name in (b"data", b"file_data", b"b64_json", b"result"))  # members that are files
_STOPS = (b"\\", b" ", b")", b"'", b"<", b",")  # what ends one within a text
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_"
_BEGINNING = 1024  # characters that are looked at to tell that it is base64
_VALUE = re.compile(rb'\s*:\s*"')
_SLASHED = re.compile(rb"(?:[A-Za-z0-9+=_-]++|\\?/)*+")  # as some write JSON: slashes with a backslash


def shortened(body: bytes) -> bytes:
    """JSON with each data URL as `data:image/png;base64,… (123456 characters)`, and files that are no URL likewise.

    It looks for what begins and what ends one, and at nothing between: a megabyte takes a millisecond.
    """
    if len(body) < _MIN_BYTES:
        return body
    if body.find(_MARK) >= 0:
        body = _without(body, _MARK)
    for name in _NAMES:
        if body.find(name) >= 0:
            body = _without(body, name, is_member=True)
    return body


def short_text(text: str) -> str:
    """A text that is a file as a whole."""
    if len(text) < MIN_CHARS or not text[:_BEGINNING].isascii() or not _is_base64(text[:_BEGINNING].encode()):
        return text
    return f"… ({len(text)} characters)"


def _without(body: bytes, mark: bytes, *, is_member: bool = False) -> bytes:
    pieces = []
    done = 0
    at = body.find(mark)
    while at >= 0:
        begin = at + len(mark)
        if is_member:
            value = _VALUE.match(body, begin)
            begin = value.end() if value else len(body)
        end = _end_of(body, begin)
        if end - begin > MIN_CHARS and _is_base64(body[begin : min(end, begin + _BEGINNING)].replace(b"\\/", b"")):
            pieces += [body[done:begin], f"… ({end - begin} characters)".encode()]
            done = end
        at = body.find(mark, at + len(mark))
    return b"".join((*pieces, body[done:]))


def _end_of(body: bytes, begin: int) -> int:
    """Where base64 ends, if it is some: at the end of its string, or before."""
    end = body.find(b'"', begin)
    if end < 0:
        return begin
    for stop in _STOPS:
        found = body.find(stop, begin, end)
        end = found if found >= 0 else end
    if body[end : end + 2] == b"\\/" and (match := _SLASHED.match(body, begin)):
        return match.end()
    return end


def _is_base64(piece: bytes) -> bool:
    return not piece.translate(None, _ALPHABET)
