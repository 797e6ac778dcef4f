"""The wire beside httpx: of the same bytes, however they are split, both make the same; where not, that is meant."""

import asyncio
import json
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.differences import EDIT, Made, edited, of_httpx, of_wire, responses, splits_at
from tests.hops import OK
from tests.wires import splits

AZURE = Path(__file__).parents[2] / "shared" / "azure" / "wire"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
JSON_HEADS = (
    b"Date: Fri, 21 Nov 2025 10:00:00 GMT\r\nContent-Type: application/json\r\nConnection: keep-alive\r\n"
    b"x-ms-region: Sweden Central\r\napim-request-id: 0a1b\r\nx-ratelimit-remaining-tokens: 9\r\nSet-Cookie: a=\r\n"
)
STREAM_HEADS = (
    b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\nstrict-transport-security: "
    b"max-age=31536000; includeSubDomains; preload\r\nx-ms-client-request-id: \r\nazureml-model-session: v1\r\n"
)


def chunked(*pieces: bytes) -> bytes:
    """A body in these chunks."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b""))


EVENTS = [b'data: {"choices":[],"created":0,"id":""}\n\n', b'data: {"a":"\xc3\xa9"}\n\ndata: [DONE]\n\n']
RESPONSES = {
    "answer": b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\n" + JSON_HEADS + b'\r\n{"choices": [{}]}',
    "stream": b"HTTP/1.1 200 OK\r\n" + STREAM_HEADS + b"\r\n" + chunked(*EVENTS),
    "throttled": b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\nContent-Length: 12\r\n"
    + JSON_HEADS
    + b'\r\n{"error":{}}',
    "front-end": b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html>Bad</html>",
    "deleted": b"HTTP/1.1 204 No Content\r\nx-ms-region: a\r\n\r\n",
    "unchanged": b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 9\r\n\r\n",
    "hinted": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" + OK,
    "old": b"HTTP/1.0 200 OK\r\nServer: x\r\n\r\nuntil the end",
    "terse": b"HTTP/1.1 200\r\na:\r\nB: 1 2 \r\n\r\n",
    "lines": b"HTTP/1.1 200 OK\nA: b\nContent-Length: 2\n\nok",
    "trailers": CHUNKED + b"1;a=b\r\nx\r\n0\r\nSum: 1\r\n\r\n",
    "short": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
    "chunks-cut": CHUNKED + b"5\r\nhello\r\n",
    "head-cut": b"HTTP/1.1 200 OK\r\nContent-Le",
    "switched": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "interim-only": b"HTTP/1.1 100 Continue\r\n\r\n",
    "nothing": b"",
    "garbage": b"<html>hello</html>\r\n\r\n",
}


def captured() -> list[ParameterSet]:
    """What Azure was seen to say, as it would arrive: streams event by event, errors with their headers."""
    if not AZURE.is_dir():
        return []
    found = []
    for path in sorted(AZURE.glob("*.sse")):
        events = [event + b"\n\n" for event in path.read_bytes().split(b"\n\n")]
        found.append(pytest.param(b"HTTP/1.1 200 OK\r\n" + STREAM_HEADS + b"\r\n" + chunked(*events), id=path.stem))
    for entry in json.loads((AZURE / "azure-errors.json").read_text())["errors"]:
        body = entry["body"].encode() if isinstance(entry["body"], str) else json.dumps(entry["body"]).encode()
        lines = "".join(f"{name}: {value}\r\n" for name, value in entry["headers"].items()).encode()
        head = b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n" % (entry["status"], len(body))
        found.append(pytest.param(head + lines + b"\r\n" + body, id=entry["name"]))
    return found


def both(pieces: Iterable[bytes], method: str = "POST") -> tuple[Made | None, Made | None]:
    """What the wire and httpx make of it."""
    pieces = list(pieces)

    async def main() -> tuple[Made | None, Made | None]:
        return await of_wire(pieces, method), await of_httpx(pieces, method)

    return asyncio.run(main())


@pytest.mark.parametrize("method", ["POST", "HEAD"])
@pytest.mark.parametrize("name", RESPONSES)
def test_response_is_the_same_at_every_split(name: str, method: str) -> None:
    """Whole, in two at every index and one by one: the wire makes of it what httpx does."""

    async def main() -> None:
        expected = await of_httpx([RESPONSES[name]], method)
        for pieces in splits(RESPONSES[name]):
            assert await of_wire(pieces, method) == expected, pieces
            assert await of_httpx(pieces, method) == expected, pieces

    asyncio.run(main())


@pytest.mark.parametrize("size", [13, 1000, 10_000_000])
@pytest.mark.parametrize("raw", captured())
def test_captured_response_is_the_same(raw: bytes, size: int) -> None:
    """What Azure was seen to say is the same through both."""
    wire, httpx = both(raw[at : at + size] for at in range(0, len(raw), size))

    assert wire is not None
    assert wire == httpx


@settings(max_examples=300, deadline=None)
@given(responses(), st.lists(st.integers(0, 10_000), max_size=6), st.sampled_from(["POST", "HEAD"]))
def test_generated_response_is_the_same(raw: bytes, at: list[int], method: str) -> None:
    """Any response that RFC 9112 allows, split anywhere, is the same through both, and is one."""
    wire, httpx = both(splits_at(raw, at), method)

    assert wire is not None
    assert wire == httpx


@settings(max_examples=200, deadline=None)
@given(responses(), st.data())
def test_response_that_is_cut_is_the_same(raw: bytes, data: st.DataObject) -> None:
    """A response that ends anywhere before its end is an error through both, or ends with its connection in both."""
    cut = raw[: data.draw(st.integers(0, len(raw)))]
    wire, httpx = both(splits_at(cut, data.draw(st.lists(st.integers(0, 10_000), max_size=3))))

    assert wire == httpx


REASON = re.compile(rb"((?:\A|\n\r?\n)HTTP/[0-9.]+ [0-9]+) [^\r\n]*")  # of any bytes
BLANK = re.compile(rb"(\r?\n\r?\n)[\r\n]+(?=HTTP/)")  # lines between an interim answer and the next


@settings(max_examples=600, deadline=None)
@given(responses() | st.sampled_from(list(RESPONSES.values())), st.lists(EDIT, min_size=1, max_size=3))
@example(OK, [(17, 0, b"transfer-encoding: chunked\r\n")])
@example(CHUNKED + b"1\r\nx\r\n0\r\n\r\n", [(48, 1, b"")])
def test_wire_is_never_the_more_lenient_one(raw: bytes, edits: list[tuple[int, int, bytes]]) -> None:
    """Whatever the bytes: where the wire reads a response, httpx reads the same one, but for what nobody reads."""
    raw = edited(raw, edits)
    wire, httpx = both([raw])

    if wire is not None and wire != httpx:
        assert wire == both([REASON.sub(rb"\1", BLANK.sub(rb"\1", raw))])[1]


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(OK.replace(b"length: 2", b"length: 2\r\ncontent-length: 2"), id="length-repeated"),
        pytest.param(OK.replace(b"length: 2", b"length: 2, 2"), id="length-list"),
        pytest.param(OK.replace(b"content", b"a: b\r\n c\r\ncontent"), id="folded-header"),
        pytest.param(OK.replace(b"content", b"a: \x01\r\ncontent"), id="control-in-value"),
        pytest.param(CHUNKED[:-2] + b"Content-Length: 2\r\n\r\n0\r\n\r\n", id="length-and-chunks"),
        pytest.param(CHUNKED + b"1 \r\nx\r\n0\r\n\r\n", id="space-after-chunk-size"),
        pytest.param(CHUNKED + b"1;\xff\x01\r\nx\r\n0\r\n\r\n", id="extension-is-none"),
        pytest.param(CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n", id="framing-in-trailers"),
        pytest.param(OK.replace(b"1.1", b"2.0"), id="version"),
        pytest.param(b"HTTP/1.1 100 Go\r\nConnection: close\r\n\r\n" + OK, id="interim-that-closes"),
        pytest.param(b"HTTP/1.0 100 Go\r\n\r\n" + OK, id="interim-1.0"),
        pytest.param(OK.replace(b"content", b"x: y\r\n" * 300 + b"content"), id="300-headers"),
        pytest.param(OK.replace(b"content", b"x: " + b"y" * 70_000 + b"\r\ncontent"), id="large-header"),
        pytest.param(CHUNKED + b"1\r\nx\r\n0\r\n" + b"x: y\r\n" * 15_000 + b"\r\n", id="large-trailers"),
    ],
)  # fmt: skip
def test_wire_is_stricter_on_purpose(raw: bytes) -> None:
    """What could be read in two ways, or has no measure, is refused, though httpx reads it."""
    wire, httpx = both(raw[at : at + 10_000] for at in range(0, len(raw), 10_000))

    assert wire is None
    assert httpx is not None
