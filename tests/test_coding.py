"""Bodies that an upstream compressed although they are read here: opened piece by piece, or refused."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator

import pytest

from chat_api.coding import MAX_PIECE_BYTES, decoded, without_coding
from chat_api.errors import UpstreamError
from chat_api.types import Headers

BODY = b"".join(b"%d " % number for number in range(10_000))


class Response:
    """A response of these chunks with that content coding."""

    status = 200
    queue_seconds = connect_seconds = 0.0

    def __init__(self, coding: bytes | None, *chunks: bytes) -> None:
        self.headers: Headers = ((b"content-encoding", coding),) if coding is not None else ()
        self._chunks = chunks

    def arrived(self) -> bytes | None:
        """It is read as it comes."""
        return None

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes."""
        for chunk in self._chunks:
            yield chunk

    async def aclose(self) -> None:
        """There is nothing to close."""


def opened(coding: bytes | None, *chunks: bytes) -> list[bytes]:
    """The pieces that come out of these chunks."""

    async def read() -> list[bytes]:
        return [piece async for piece in decoded(Response(coding, *chunks))]

    return asyncio.run(read())


def split(raw: bytes, size: int) -> list[bytes]:
    """The bytes in chunks of that size."""
    return [raw[start : start + size] for start in range(0, len(raw), size)]


@pytest.mark.parametrize("size", [1, 100, 1_000_000], ids=["bytes", "hundreds", "whole"])
@pytest.mark.parametrize(
    ("coding", "raw"),
    [
        pytest.param(b"gzip", gzip.compress(BODY), id="gzip"),
        pytest.param(b" GZip ", gzip.compress(BODY), id="case-and-spaces"),
        pytest.param(b"x-gzip", gzip.compress(BODY), id="x-gzip"),
        pytest.param(b"deflate", zlib.compress(BODY), id="deflate"),
        pytest.param(b"identity", BODY, id="identity"),
        pytest.param(b"", BODY, id="empty"),
        pytest.param(None, BODY, id="none"),
    ],
)
def test_decoded(coding: bytes | None, raw: bytes, size: int) -> None:
    """A body comes out as it was before it was compressed, however it is split."""
    assert b"".join(opened(coding, *split(raw, size))) == BODY


def test_identity_is_not_touched() -> None:
    """The chunks of a body that is not compressed are its own."""
    chunks = [b"a" * 200_000, b"", b"b"]
    assert opened(None, *chunks) == chunks


def test_flushed_events_come_at_once() -> None:
    """What the upstream flushed comes out with the chunk that holds it, not at the end."""
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    chunks = [packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH) for part in (b"data: a\n\n", b"data: b\n\n")]
    assert opened(b"gzip", *chunks, packer.flush()) == [b"data: a\n\n", b"data: b\n\n"]


def test_bomb_comes_in_pieces() -> None:
    """A few bytes that stand for very many come out in pieces of bounded size."""
    pieces = opened(b"gzip", gzip.compress(b"\0" * 20_000_000))
    assert sum(map(len, pieces)) == 20_000_000
    assert max(map(len, pieces)) <= MAX_PIECE_BYTES


def test_bomb_is_not_opened_ahead() -> None:
    """Whoever stops reading a bomb has only what was read: the rest is not opened."""

    async def first() -> bytes:
        pieces = decoded(Response(b"gzip", gzip.compress(b"\0" * 20_000_000)))
        return await anext(pieces)

    assert len(asyncio.run(first())) == MAX_PIECE_BYTES


@pytest.mark.parametrize("coding", [b"br", b"zstd", b"gzip, br", b"compress", b"\xff"])
def test_unknown_coding(coding: bytes) -> None:
    """A coding that was never asked for is the upstream's fault, and is named."""
    with pytest.raises(UpstreamError, match="which was not asked for") as caught:
        opened(coding, BODY)
    assert caught.value.status == 502
    assert coding.decode("latin-1") in caught.value.message


@pytest.mark.parametrize(
    ("coding", "raw"),
    [
        pytest.param(b"gzip", gzip.compress(BODY), id="gzip"),
        pytest.param(b"deflate", zlib.compress(BODY), id="deflate"),
    ],
)
@pytest.mark.parametrize("kept", [0, 1, 12, 1000, -1], ids=["nothing", "a-byte", "the-head", "some", "all-but-one"])
def test_truncated(coding: bytes, raw: bytes, kept: int) -> None:
    """A compressed body that breaks off is cut short, not complete."""
    with pytest.raises(UpstreamError, match="broke off") as caught:
        opened(coding, raw[:kept])
    assert caught.value.code == "answer_cut_short"


@pytest.mark.parametrize(
    "raw", [b"not compressed at all", gzip.compress(BODY)[:-8] + b"\0" * 8], ids=["plain", "wrong-checksum"]
)
def test_not_what_it_says(raw: bytes) -> None:
    """A body that is not what its coding says is the upstream's fault."""
    with pytest.raises(UpstreamError, match="cannot be read"):
        opened(b"gzip", raw)


def test_gzip_of_several_members() -> None:
    """A gzip body may be several, one after the other; none of them is lost."""
    assert b"".join(opened(b"gzip", gzip.compress(b"a") + gzip.compress(b"b"))) == b"ab"


def test_without_coding() -> None:
    """The headers of an opened body say nothing of its coding and its compressed length."""
    plain = ((b"content-type", b"a/b"), (b"content-length", b"7"))
    assert without_coding(plain) == plain
    assert without_coding((*plain, (b"content-encoding", b"gzip"))) == plain[:1]
