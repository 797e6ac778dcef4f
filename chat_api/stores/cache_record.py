"""A kept answer as it is written down, where it may be read by another process, or another version. Pure.

Four bytes name the form, four are a checksum of what follows, which is msgpack of `Kept`. What is anything else is
a miss: a foreign value, that of a version to come, or one that a disk has spoilt.
"""

import zlib

import msgspec

from chat_api.caching import Kept

FORM = b"ca1\n"  # another one for every change of `Kept`
HEAD_BYTES = len(FORM) + 4

ENTRY_BYTES = 550  # what an answer takes besides its body and its headers
HEADER_BYTES = 130  # what a header takes besides its text

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Kept).decode


def size_of(kept: Kept) -> int:
    """About how many bytes an answer takes in memory."""
    size = ENTRY_BYTES + len(kept.body)
    for name, value in kept.headers:
        size += HEADER_BYTES + len(name) + len(value)
    return size


def written(kept: Kept) -> bytes:
    """An answer as it is written down."""
    content = _encode(kept)
    return b"%b%b%b" % (FORM, zlib.crc32(content).to_bytes(4, "big"), content)


def read(record: object) -> Kept | None:
    """The answer that was written down in bytes, or whatever a server has said; None if it is none of ours."""
    if not isinstance(record, bytes | memoryview) or record[: len(FORM)] != FORM:
        return None
    content = memoryview(record)[HEAD_BYTES:]
    if zlib.crc32(content) != int.from_bytes(record[len(FORM) : HEAD_BYTES], "big"):
        return None
    try:
        return _decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
