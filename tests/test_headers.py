"""Header decisions: what goes on to the client, who presents a key, and who asked for plain text."""

import pytest

from chat_api.headers import first, media_type, prefers_text, presented_credential, relayed
from chat_api.types import Headers

BROWSER = b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        pytest.param(None, False, id="no-header"),
        pytest.param(b"", False, id="empty"),
        pytest.param(b" ", False, id="blank"),
        pytest.param(b",,;", False, id="only-separators"),
        pytest.param(b"*/*", False, id="curl"),
        pytest.param(BROWSER, False, id="browser"),
        pytest.param(b"application/json, text/plain, */*", False, id="axios"),
        pytest.param(b"application/json", False, id="json"),
        pytest.param(b"text/event-stream", False, id="events"),
        pytest.param(b"text/html", False, id="html"),
        pytest.param(b"text/plain", True, id="text"),
        pytest.param(b"Text/PLAIN", True, id="case"),
        pytest.param(b"text/plain; charset=utf-8", True, id="charset"),
        pytest.param(b"text/*", True, id="text-range"),
        pytest.param(b"text/html, text/plain", True, id="html-and-text"),
        pytest.param(b"text/plain, */*", True, id="text-more-specific-than-anything"),
        pytest.param(b"*/*, text/plain", True, id="order-does-not-matter"),
        pytest.param(b"text/*, */*", True, id="text-range-more-specific-than-anything"),
        pytest.param(b"text/plain;q=0.5, */*;q=0.5", True, id="same-quality-more-specific"),
        pytest.param(b"text/plain;q=0.5, */*;q=0.8", False, id="anything-preferred"),
        pytest.param(b"text/plain, application/json", False, id="tie"),
        pytest.param(b"text/*, application/*", False, id="tie-of-ranges"),
        pytest.param(b"text/plain, application/*", True, id="text-more-specific-than-json-range"),
        pytest.param(b"text/*, application/json", False, id="json-more-specific-than-text-range"),
        pytest.param(b"text/plain;q=0.9, application/json;q=0.8", True, id="higher-quality"),
        pytest.param(b"text/plain;q=0.8, application/json;q=0.9", False, id="lower-quality"),
        pytest.param(b"text/plain ; q=0.9 , application/json ; q=0.8", True, id="spaces"),
        pytest.param(b"text/plain;Q=0.1, application/json;q=0.2", False, id="upper-case-q"),
        pytest.param(b"text/plain;charset=utf-8;q=0.1, application/json;q=0.2", False, id="q-after-charset"),
        pytest.param(b"text/plain;q=0", False, id="text-refused"),
        pytest.param(b"text/plain;q=0, text/*", False, id="text-refused-in-its-range"),
        pytest.param(b"text/plain;q=0, */*", False, id="text-refused-in-anything"),
        pytest.param(b"application/json;q=0, */*", True, id="json-refused-in-anything"),
        pytest.param(b"application/json;q=0, text/plain;q=0", False, id="both-refused"),
        pytest.param(b"text/plain;q=abc", False, id="garbage-quality-is-none"),
        pytest.param(b"text/plain;q=", False, id="empty-quality-is-none"),
        pytest.param(b"text/plain;q=-1", False, id="negative-quality"),
        pytest.param(b"text/plain, application/json;q=abc", True, id="garbage-quality-of-json"),
        pytest.param(b"text/plain, application/json;q=nan", True, id="json-nan"),
        pytest.param(b"text/plain;q=inf, application/json", False, id="text-inf"),
        pytest.param(b"\xff\xfe, text/plain", True, id="bytes-beyond-ascii"),
    ],
)
def test_prefers_text(accept: bytes | None, expected: bool) -> None:
    """Only a caller who asks for text/plain above JSON gets plain text."""
    assert prefers_text(accept) is expected


@pytest.mark.parametrize(
    "name",
    [
        b"apim-request-id",
        b"azureml-model-session",
        b"retry-after",
        b"retry-after-ms",
        b"x-request-id",
        b"x-ms-region",
        b"x-ms-client-request-id",
        b"x-ratelimit-limit-tokens",
        b"x-ratelimit-remaining-requests",
        b"x-ratelimit-reset-tokens",
    ],
)
def test_relayed_keeps(name: bytes) -> None:
    """What tells of the service, the quota and when to come back goes on to the client."""
    assert relayed(((name, b"1"),)) == ((name, b"1"),)


@pytest.mark.parametrize(
    "name",
    [
        b"content-type",
        b"content-length",
        b"content-encoding",
        b"transfer-encoding",
        b"connection",
        b"date",
        b"server",
        b"set-cookie",
        b"strict-transport-security",
        b"access-control-allow-origin",
        b"api-key",
        b"authorization",
        b"x-content-type-options",
        b"x-ms",
        b"x-ratelimit",
        b"not-x-ms-region",
        b"retry-after-s",
    ],
)
def test_relayed_drops(name: bytes) -> None:
    """Everything else stays behind."""
    assert relayed(((name, b"1"),)) == ()


def test_relayed_keeps_order_values_and_repeats() -> None:
    """What is relayed keeps its order and comes twice if it came twice; a value that is no header value stays out."""
    headers: Headers = (
        (b"x-ms-region", b"Sweden Central"),
        (b"date", b"now"),
        (b"x-request-id", b"\xff 1"),
        (b"x-ms-a", b"1\r\nset-cookie: a"),
        (b"x-ms-region", b""),
    )
    assert relayed(headers) == (
        (b"x-ms-region", b"Sweden Central"),
        (b"x-ms-region", b""),
    )


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param((), None, id="nothing"),
        pytest.param(((b"api-key", b"k1"),), "k1", id="api-key"),
        pytest.param(((b"api-key", b"  k1\t"),), "k1", id="api-key-in-spaces"),
        pytest.param(((b"authorization", b"Bearer t1"),), "t1", id="bearer"),
        pytest.param(((b"authorization", b"bearer t1"),), "t1", id="lower-case-scheme"),
        pytest.param(((b"authorization", b"BEARER t1"),), "t1", id="upper-case-scheme"),
        pytest.param(((b"authorization", b"Bearer   t1 "),), "t1", id="bearer-in-spaces"),
        pytest.param(((b"authorization", b"Bearer t1"), (b"api-key", b"k1")), "k1", id="api-key-beats-bearer"),
        pytest.param(((b"authorization", b"Bearer t1"), (b"api-key", b" ")), "t1", id="blank-api-key"),
        pytest.param(((b"authorization", b"Bearer t1"), (b"api-key", b"")), "t1", id="empty-api-key"),
        pytest.param(((b"api-key", b" "),), None, id="only-a-blank-api-key"),
        pytest.param(((b"authorization", b""),), None, id="empty-authorization"),
        pytest.param(((b"authorization", b"Bearer"),), None, id="scheme-alone"),
        pytest.param(((b"authorization", b"Bearer  "),), None, id="blank-token"),
        pytest.param(((b"authorization", b"Basic dTpw"),), None, id="basic"),
        pytest.param(((b"authorization", b"sk-t1"),), None, id="no-scheme"),
        pytest.param(((b"authorization", b"Bearer caf\xe9"),), "caf\xe9", id="latin-1"),
        pytest.param(((b"x-api-key", b"k1"),), None, id="another-header"),
    ],
)
def test_presented_credential(headers: Headers, expected: str | None) -> None:
    """The credential is the api-key, or else the Bearer token; no other scheme counts."""
    assert presented_credential(headers) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param((), "", id="nothing"),
        pytest.param(((b"content-type", b""),), "", id="empty"),
        pytest.param(((b"content-type", b"; charset=utf-8"),), "", id="only-a-parameter"),
        pytest.param(((b"content-type", b"application/json"),), "application/json", id="plain"),
        pytest.param(((b"content-type", b"application/json;charset=utf-8"),), "application/json", id="parameter"),
        pytest.param(((b"content-type", b" Text/Plain ; q=1; x=2"),), "text/plain", id="case-and-spaces"),
        pytest.param(((b"accept", b"text/html"), (b"content-type", b"a/b")), "a/b", id="among-others"),
    ],
)
def test_media_type(headers: Headers, expected: str) -> None:
    """The media type is in lower case and without its parameters."""
    assert media_type(headers) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param(b"a", b"1", id="first-of-two"),
        pytest.param(b"b", b"", id="empty-value"),
        pytest.param(b"c", None, id="absent"),
    ],
)
def test_first(name: bytes, expected: bytes | None) -> None:
    """A header that comes twice counts by its first value; an empty value is not an absent one."""
    assert first(((b"a", b"1"), (b"b", b""), (b"a", b"2")), name) == expected
