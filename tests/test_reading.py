"""A request made into fields: its body as it arrives, and its content types."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest
from msgspec import Raw

from chat_api.errors import BodyTooLarge, ClientGone, RequestError, UnsupportedMediaType
from chat_api.reading import read_body, read_fields
from chat_api.types import Headers

FORM = b"application/x-www-form-urlencoded"
ACCEPTED = "application/json, application/x-www-form-urlencoded or text/plain"


class Client:
    """The `receive` of an ASGI server whose client sends these messages and no more."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.messages = list(messages)
        self.calls = 0

    async def receive(self) -> MutableMapping[str, Any]:
        """The next message."""
        self.calls += 1
        return self.messages.pop(0)


def part(body: bytes, more: bool = False) -> dict[str, Any]:
    """A piece of a request body."""
    return {"type": "http.request", "body": body, "more_body": more}


DISCONNECT: dict[str, Any] = {"type": "http.disconnect"}


def read(client: Client, max_bytes: int, *headers: tuple[bytes, bytes]) -> bytes:
    """The body that this client sends."""
    return asyncio.run(read_body({"type": "http", "headers": list(headers)}, client.receive, max_bytes))


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        pytest.param([part(b"")], b"", id="empty"),
        pytest.param([part(b"hello")], b"hello", id="one"),
        pytest.param([part(b"he", True), part(b"", True), part(b"llo")], b"hello", id="several"),
        pytest.param([part(b"hello", True), part(b"")], b"hello", id="empty-last"),
        pytest.param([{"type": "http.request"}], b"", id="members-left-out"),
        pytest.param([part(b"0123456789")], b"0123456789", id="as-large-as-allowed"),
        pytest.param([part(b"01234", True), part(b"56789")], b"0123456789", id="parts-as-large-as-allowed"),
    ],
)
def test_read_body(messages: list[dict[str, Any]], expected: bytes) -> None:
    """The parts of a body are joined, and nothing is read after the last."""
    client = Client(*messages, DISCONNECT)
    assert read(client, 10) == expected
    assert client.calls == len(messages)


@pytest.mark.parametrize(
    "declared",
    [
        pytest.param(b"11", id="one-more"),
        pytest.param(b"00011", id="leading-zeros"),
        pytest.param(b"99999999999999999999", id="beyond-64-bits"),
        pytest.param(
            b"9" * 5000,
            id="5000-digits",
        ),
    ],
)
def test_read_body_refuses_by_content_length(declared: bytes) -> None:
    """A body that is declared too large is refused before any of it is received."""
    client = Client(part(b"0123456789a"))
    with pytest.raises(BodyTooLarge) as caught:
        read(client, 10, (b"host", b"x"), (b"content-length", declared))
    assert caught.value.message == "the body is larger than MAX_BODY_BYTES (10 bytes)"
    assert (caught.value.status, client.calls) == (413, 0)


@pytest.mark.parametrize("declared", [b"10", b"5", b"-1", b"abc", b"", b"1.5"])
def test_read_body_counts_what_comes(declared: bytes) -> None:
    """A length that is small or no number does not stop a body within the limit, nor let a larger one pass."""
    header = (b"content-length", declared)
    assert read(Client(part(b"0123456789")), 10, header) == b"0123456789"
    with pytest.raises(BodyTooLarge):
        read(Client(part(b"0123456789a")), 10, header)


@pytest.mark.parametrize(
    ("messages", "calls"),
    [
        pytest.param([part(b"0123456789a")], 1, id="one-part"),
        pytest.param([part(b"01234", True), part(b"56789a", True), part(b"b" * 99)], 2, id="chunked"),
    ],
)
def test_read_body_refuses_as_it_comes(messages: list[dict[str, Any]], calls: int) -> None:
    """A chunked body is refused by the part that makes it too large; the rest is not received."""
    client = Client(*messages, DISCONNECT)
    with pytest.raises(BodyTooLarge) as caught:
        read(client, 10)
    assert caught.value.message == "the body is larger than MAX_BODY_BYTES (10 bytes)"
    assert client.calls == calls


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([], id="at-once"),
        pytest.param([part(b"{", True)], id="half-way"),
    ],
)
def test_read_body_of_a_client_that_left(messages: list[dict[str, Any]]) -> None:
    """A client that leaves before its body is complete is gone; half a body is never used."""
    with pytest.raises(ClientGone) as caught:
        read(Client(*messages, DISCONNECT), 10)
    assert caught.value.status == 499


def fields(content_type: bytes | None, body: bytes, query: bytes = b"") -> dict[str, object]:
    """The fields of a request, with those of JSON as the bytes they were written in."""
    headers: Headers = () if content_type is None else ((b"host", b"x"), (b"content-type", content_type))
    given = read_fields(headers, body, query)
    return {name: bytes(value) if isinstance(value, Raw) else value for name, value in given.items()}


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        pytest.param(b"application/json", b'{"prompt":"hi"}', {"prompt": b'"hi"'}, id="json"),
        pytest.param(b"Application/JSON; charset=utf-8", b'{"n":1.0}', {"n": b"1.0"}, id="json-case-and-charset"),
        pytest.param(b"application/json", b'\xef\xbb\xbf{"n":1}', {"n": b"1"}, id="json-bom"),
        pytest.param(b"text/json", b'{"n":1}', {"n": b"1"}, id="text-json"),
        pytest.param(b"application/vnd.x+json", b'{"n":1}', {"n": b"1"}, id="json-suffix"),
        pytest.param(FORM, b"prompt=a+b&n=2", {"prompt": "a b", "n": "2"}, id="form"),
        pytest.param(FORM + b"; charset=utf-8", "prompt=é".encode(), {"prompt": "é"}, id="form-unescaped-utf-8"),
        pytest.param(FORM, b"stop=a&stop=b", {"stop": ["a", "b"]}, id="form-two-stops"),
        pytest.param(FORM, b"", {}, id="form-empty"),
        pytest.param(FORM, b'{"prompt":"a&b=c"}', {"prompt": b'"a&b=c"'}, id="form-that-is-json"),
        pytest.param(FORM, b'\r\n {"n":1}', {"n": b"1"}, id="form-that-is-json-after-white-space"),
        pytest.param(b"text/plain", b"hi\n", {"prompt": "hi\n"}, id="text"),
        pytest.param(b"text/plain", b'{"prompt":"hi"}', {"prompt": '{"prompt":"hi"}'}, id="text-that-is-json"),
        pytest.param(b"text/plain", b"a=b&c=d", {"prompt": "a=b&c=d"}, id="text-that-is-a-form"),
        pytest.param(b"text/plain", "é😀".encode(), {"prompt": "é😀"}, id="text-utf-8"),
        pytest.param(b"text/plain; charset=UTF-8", "é".encode(), {"prompt": "é"}, id="text-charset-case"),
        pytest.param(b"text/plain;charset=iso-8859-1", b"caf\xe9 \x80", {"prompt": "café \x80"}, id="text-latin-1"),
        pytest.param(b'text/plain; Charset="Latin1"', b"caf\xe9", {"prompt": "café"}, id="text-charset-quoted"),
        pytest.param(b"text/plain;charset=windows-1252", b"\x80\xe9", {"prompt": "€é"}, id="text-windows-1252"),
        pytest.param(b"text/plain;charset=us-ascii", "é".encode(), {"prompt": "é"}, id="text-ascii-is-utf-8"),
        pytest.param(b"text/plain;charset=utf-16", "é😀".encode("utf-16"), {"prompt": "é😀"}, id="text-utf-16"),
        pytest.param(
            b"text/plain; format=flowed; charset=latin1", b"\xe9", {"prompt": "é"}, id="text-charset-after-another"
        ),
        pytest.param(None, b'{"prompt":"hi"}', {"prompt": b'"hi"'}, id="no-type-json"),
        pytest.param(None, b' {"prompt":"hi"}', {"prompt": b'"hi"'}, id="no-type-json-after-white-space"),
        pytest.param(None, b"hi", {"prompt": "hi"}, id="no-type-text"),
        pytest.param(None, b"a=b", {"prompt": "a=b"}, id="no-type-form-is-text"),
        pytest.param(b"", b"hi", {"prompt": "hi"}, id="empty-type"),
    ],
)
def test_read_fields(content_type: bytes | None, body: bytes, expected: dict[str, object]) -> None:
    """A body is read by its content type: JSON, a form, or text that is the prompt."""
    assert fields(content_type, body) == expected


@pytest.mark.parametrize(
    "content_type",
    [
        b"application/xml",
        b"text/xml",
        b"text/html",
        b"multipart/form-data; boundary=x",
        b"application/octet-stream",
        b"application/jsonl",
        b"application/vnd.x+xml",
        b"json",
    ],
)
def test_other_content_types(content_type: bytes) -> None:
    """Another content type is refused with the three that are read, even if the body would do."""
    with pytest.raises(UnsupportedMediaType) as caught:
        fields(content_type, b'{"prompt":"hi"}')
    kind = content_type.decode().partition(";")[0]
    assert caught.value.message.startswith(f'content type "{kind}" is not read here; send {ACCEPTED}')
    assert ("-d, not -F" in caught.value.message) is (kind == "multipart/form-data")
    assert caught.value.status == 415


@pytest.mark.parametrize("charset", ["koi8-r", "utf-7", "idna", "punycode", "rot13", "hex", "x"])
def test_other_charsets(charset: str) -> None:
    """A charset that is not on the list is refused, known to Python or not."""
    with pytest.raises(UnsupportedMediaType) as caught:
        fields(f"text/plain; charset={charset.upper()}".encode(), b"hi")
    assert caught.value.message == f'charset "{charset}" is not read here; send utf-8'
    assert caught.value.status == 415


@pytest.mark.parametrize(
    ("content_type", "body", "charset", "position"),
    [
        pytest.param(b"text/plain", b"caf\xe9", "utf-8", 3, id="text"),
        pytest.param(None, b"\xff", "utf-8", 0, id="no-type"),
        pytest.param(FORM, b"prompt=\xe9", "utf-8", 7, id="form"),
        pytest.param(b"text/plain; charset=windows-1252", b"a\x81", "cp1252", 1, id="windows-1252"),
        pytest.param(b"text/plain; charset=utf-16", b"\xff\xfea", "utf-16", 2, id="half-a-utf-16-unit"),
    ],
)
def test_text_in_another_charset(content_type: bytes | None, body: bytes, charset: str, position: int) -> None:
    """Bytes that are not text in their charset are refused with the place of the first."""
    with pytest.raises(RequestError) as caught:
        fields(content_type, body)
    assert caught.value.message == (
        f"the body is not {charset} (byte {position}); send it as utf-8, or name its charset"
    )
    assert (caught.value.status, caught.value.code) == (400, "invalid_text")


@pytest.mark.parametrize("content_type", [b"application/json", b"application/vnd.x+json"])
def test_json_that_is_none(content_type: bytes) -> None:
    """A JSON content type is taken at its word: an empty body and a form are refused."""
    with pytest.raises(RequestError) as empty:
        fields(content_type, b"")
    with pytest.raises(RequestError) as form:
        fields(content_type, b"prompt=hi")
    assert (empty.value.code, form.value.code) == ("empty_body", "invalid_json")


@pytest.mark.parametrize(
    ("content_type", "body", "query", "expected"),
    [
        pytest.param(
            b"text/plain",
            b"hi",
            b"systemPrompt=be+brief&temperature=0.5",
            {"prompt": "hi", "systemPrompt": "be brief", "temperature": "0.5"},
            id="text",
        ),
        pytest.param(b"application/json", b'{"n":1}', b"prompt=hi", {"n": b"1", "prompt": "hi"}, id="json"),
        pytest.param(FORM, b"n=1", b"prompt=%C3%A9", {"n": "1", "prompt": "é"}, id="form"),
        pytest.param(FORM, b"", b"prompt=hi", {"prompt": "hi"}, id="query-alone"),
        pytest.param(b"text/plain", b"hi", b"stop=a&stop=b", {"prompt": "hi", "stop": ["a", "b"]}, id="two-stops"),
        pytest.param(
            None,
            b"",
            b"prompt=hi",
            {"prompt": "hi"},
            id="query-alone-without-type",
        ),
        pytest.param(
            b"text/plain",
            b"hi",
            "systemPrompt=é".encode(),
            {"prompt": "hi", "systemPrompt": "é"},
            id="unescaped-utf-8",
        ),
    ],
)
def test_query_string(content_type: bytes | None, body: bytes, query: bytes, expected: dict[str, object]) -> None:
    """The fields of the query string join those of the body."""
    assert fields(content_type, body, query) == expected


@pytest.mark.parametrize(
    ("content_type", "body", "query", "param"),
    [
        pytest.param(b"text/plain", b"hi", b"prompt=hi", "prompt", id="text"),
        pytest.param(b"application/json", b'{"n":1}', b"n=1", "n", id="json"),
        pytest.param(FORM, b"stop=a", b"stop=b", "stop", id="form"),
    ],
)
def test_query_string_conflict(content_type: bytes, body: bytes, query: bytes, param: str) -> None:
    """A field in both places is refused."""
    with pytest.raises(RequestError) as caught:
        fields(content_type, body, query)
    assert caught.value.message == f'field "{param}" is given twice: in the body and in the query string'
    assert caught.value.param == param


@pytest.mark.parametrize("encoding", [b"gzip", b"br", b"GZIP"])
def test_encoded_body_is_refused(encoding: bytes) -> None:
    """A compressed body is told as such, not as broken text."""
    headers = ((b"content-type", b"application/json"), (b"content-encoding", encoding))
    with pytest.raises(UnsupportedMediaType, match="content-encoding"):
        read_fields(headers, b"\x1f\x8b", b"")


def test_identity_is_no_encoding() -> None:
    """`content-encoding: identity` says nothing."""
    assert read_fields(((b"content-encoding", b"identity"),), b"hi", b"") == {"prompt": "hi"}
