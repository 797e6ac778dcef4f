"""Opens bodies that an upstream has compressed although they are to be read here: event streams and errors."""

import zlib
from collections.abc import AsyncIterator

from chat_api.errors import UpstreamError
from chat_api.headers import first
from chat_api.types import Headers, UpstreamResponse

MAX_PIECE_BYTES = 64 * 1024  # of what comes out at once: a few bytes can stand for very many
_WINDOW = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}


def decoded(response: UpstreamResponse) -> AsyncIterator[bytes]:
    """The response's body as it was before it was compressed, as it arrives.

    Raises:
        UpstreamError: its coding is not known here, or it is not what it says.
    """
    coding = _coding(response.headers)
    if coding == "identity":
        return response.chunks()
    if not is_readable(response.headers):
        raise UpstreamError(f'the upstream sent a body coded as "{coding}", which was not asked for')
    return _opened(response.chunks(), _WINDOW[coding])


def is_readable(headers: Headers) -> bool:
    """Whether a body with these headers can be opened."""
    return _coding(headers) in ("identity", *_WINDOW)


def _coding(headers: Headers) -> str:
    return (first(headers, b"content-encoding") or b"identity").strip().lower().decode("latin-1")


def without_coding(headers: Headers) -> Headers:
    """The headers of a body that has been opened: what they say of its coding and length is no longer so."""
    if first(headers, b"content-encoding") is None:
        return headers
    return tuple(pair for pair in headers if pair[0] not in (b"content-encoding", b"content-length"))


async def _opened(chunks: AsyncIterator[bytes], window: int) -> AsyncIterator[bytes]:
    opener = zlib.decompressobj(window)
    try:
        async for chunk in chunks:
            while chunk:
                if opener.eof:  # a gzip body may have several members (RFC 1952 section 2.2)
                    opener = zlib.decompressobj(window)
                if piece := opener.decompress(chunk, MAX_PIECE_BYTES):
                    yield piece
                chunk = opener.unused_data if opener.eof else opener.unconsumed_tail
        if piece := opener.flush():
            yield piece
    except zlib.error as error:
        raise UpstreamError(f"the upstream's compressed answer cannot be read: {error}") from error
    if not opener.eof:
        raise UpstreamError("the upstream broke off its compressed answer", code="answer_cut_short")
