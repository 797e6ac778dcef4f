"""Header decisions: what goes on to the client, who presents a key, and who asked for plain text."""

import pytest

from chat_api.headers import (
    accepts_gzip,
    first,
    forwarded,
    media_type,
    prefers_text,
    presented_credential,
    relayed,
    relayed_verbatim,
)
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


@pytest.mark.parametrize(
    "name",
    [
        b"accept",
        b"accept-encoding",
        b"aoai-evals",
        b"content-encoding",
        b"content-type",
        b"idempotency-key",
        b"openai-beta",
        b"openai-organization",
        b"user-agent",
        b"x-ms-client-request-id",
        b"x-ms-spillover-deployment",
    ],
)
def test_forwarded_keeps(name: bytes) -> None:
    """What describes the body and the wish, and what Azure knows, goes upstream."""
    assert forwarded(((name, b"1"),)) == ((name, b"1"),)


@pytest.mark.parametrize(
    "name",
    [
        b"api-key",
        b"authorization",
        b"connection",
        b"content-length",
        b"cookie",
        b"expect",
        b"forwarded",
        b"host",
        b"ocp-apim-subscription-key",
        b"origin",
        b"proxy-authorization",
        b"referer",
        b"te",
        b"traceparent",
        b"transfer-encoding",
        b"upgrade",
        b"x-api-key",
        b"x-forwarded-for",
        b"x-ms",
        b"x-real-ip",
        b"x-request-id",
        b"x-stainless-lang",
    ],
)
def test_forwarded_drops(name: bytes) -> None:
    """No credential, cookie, address or word about the connection goes upstream."""
    assert forwarded(((name, b"1"),)) == ()


def test_forwarded_keeps_order_and_drops_what_is_no_value() -> None:
    """What goes upstream keeps its order and its repeats; a value that could end a header does not."""
    headers: Headers = (
        (b"user-agent", b"u"),
        (b"x-ms-a", b"1\r\nhost: evil"),
        (b"accept", b"a/b"),
        (b"openai-beta", b"caf\xe9"),
        (b"accept", b"c/d"),
    )
    assert forwarded(headers) == ((b"user-agent", b"u"), (b"accept", b"a/b"), (b"accept", b"c/d"))


@pytest.mark.parametrize(
    "name",
    [
        b"content-type",
        b"content-encoding",
        b"content-length",
        b"content-disposition",
        b"openai-processing-ms",
        b"openai-version",
        b"x-request-id",
        b"x-ms-region",
        b"x-ratelimit-remaining-tokens",
        b"retry-after",
        b"retry-after-ms",
        b"x-should-retry",
    ],
)
def test_relayed_verbatim_keeps(name: bytes) -> None:
    """With a body that goes on as it came goes what describes it, beside what is told of every answer."""
    assert relayed_verbatim(((name, b"1"),)) == ((name, b"1"),)


@pytest.mark.parametrize(
    "name",
    [
        b"access-control-allow-origin",
        b"alt-svc",
        b"connection",
        b"date",
        b"keep-alive",
        b"server",
        b"set-cookie",
        b"strict-transport-security",
        b"trailer",
        b"transfer-encoding",
        b"www-authenticate",
    ],
)
def test_relayed_verbatim_drops(name: bytes) -> None:
    """What concerns the connection, or the upstream's own site, stays behind."""
    assert relayed_verbatim(((name, b"1"),)) == ()


def test_relayed_verbatim_drops_what_is_no_value() -> None:
    """A value that could end a header stays behind; order and repeats are kept."""
    headers: Headers = ((b"x-ms-a", b"1"), (b"content-type", b"a\r\nb"), (b"content-type", b"a/b"), (b"x-ms-a", b"2"))
    assert relayed_verbatim(headers) == ((b"x-ms-a", b"1"), (b"content-type", b"a/b"), (b"x-ms-a", b"2"))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([], False, id="no-header"),
        pytest.param([b""], False, id="empty"),
        pytest.param([b"gzip"], True, id="gzip"),
        pytest.param([b"x-gzip"], True, id="x-gzip"),
        pytest.param([b"GZip"], True, id="case"),
        pytest.param([b"gzip, deflate, br, zstd"], True, id="browser"),
        pytest.param([b"br ; q=1.0 , gzip ; q=0.1"], True, id="low-quality"),
        pytest.param([b"br", b"gzip"], True, id="second-header"),
        pytest.param([b"*"], True, id="anything"),
        pytest.param([b"identity;q=1, *;q=0"], False, id="nothing-else"),
        pytest.param([b"gzip;q=0"], False, id="refused"),
        pytest.param([b"gzip;q=0.000"], False, id="refused-in-full"),
        pytest.param([b"gzip;q=x"], False, id="no-quality"),
        pytest.param([b"*;q=0, gzip"], True, id="gzip-alone"),
        pytest.param([b"identity"], False, id="identity"),
        pytest.param([b"deflate, br"], False, id="others"),
        pytest.param([b"gzipped"], False, id="another-word"),
        pytest.param([b"\xff, gzip"], True, id="bytes-beyond-ascii"),
    ],
)
def test_accepts_gzip(values: list[bytes], expected: bool) -> None:
    """A caller can read gzip who says so, or who takes anything."""
    assert accepts_gzip(tuple((b"accept-encoding", value) for value in values)) is expected


@pytest.mark.parametrize("value", [b"gzip;q=0, *", b"*, gzip;q=0"])
def test_gzip_refused_beside_anything(value: bytes) -> None:
    """A caller who takes anything but gzip gets no gzip (RFC 9110 section 12.5.3)."""
    assert not accepts_gzip(((b"accept-encoding", value),))


_UPGRADE = (b"upgrade", b"WebSocket")


@pytest.mark.parametrize(
    ("headers", "credential"),
    [
        pytest.param([_UPGRADE, (b"sec-websocket-protocol", b"realtime, openai-insecure-api-key.k1")], "k1", id="page"),
        pytest.param([_UPGRADE, (b"sec-websocket-protocol", b"realtime")], None, id="none-offered"),
        pytest.param([_UPGRADE, (b"sec-websocket-protocol", b"openai-insecure-api-key.")], None, id="empty"),
        pytest.param([(b"sec-websocket-protocol", b"openai-insecure-api-key.k1")], None, id="no-websocket"),
        pytest.param(
            [_UPGRADE, (b"api-key", b"k2"), (b"sec-websocket-protocol", b"openai-insecure-api-key.k1")],
            "k2",
            id="headers-first",
        ),
    ],
)
def test_a_websocket_presents_its_key_as_a_subprotocol(
    headers: list[tuple[bytes, bytes]], credential: str | None
) -> None:
    """A page's WebSocket, which can send no header of its own, has its key among the subprotocols; nobody else may."""
    assert presented_credential(headers) == credential
