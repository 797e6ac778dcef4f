"""What a request's head says."""

from typing import Any

import pytest

from chat_api.request_head import head_of
from chat_api.types import Headers, Secret

JSON = (b"content-type", b"application/json")


def facts(*headers: tuple[bytes, bytes]) -> Any:
    """The facts of a request with these headers."""
    return head_of({"headers": list(headers)})


@pytest.mark.parametrize(
    ("fact", "headers", "expected"),
    [
        pytest.param("hosts", [(b"host", b"a"), (b"host", b"b")], (b"a", b"b"), id="every-host"),
        pytest.param("hosts", [], (), id="no-host"),
        pytest.param("origins", [(b"origin", b"http://a")], (b"http://a",), id="origin"),
        pytest.param("fetch_mode", [(b"sec-fetch-mode", b"cors")], b"cors", id="fetch-mode"),
        pytest.param("fetch_sites", [(b"sec-fetch-site", b"Cross-Site")], {b"cross-site"}, id="fetch-site"),
        pytest.param("expects", [(b"expect", b"100-continue")], True, id="expect"),
        pytest.param("expects", [], False, id="no-expect"),
        pytest.param("accept", [(b"accept", b"*/*")], b"*/*", id="accept"),
        pytest.param("content_type", [(b"content-type", b"A/B; c=d")], b"A/B; c=d", id="content-type"),
        pytest.param("content_type", [], b"", id="no-content-type"),
        pytest.param("media_type", [(b"content-type", b"A/B; c=d")], "a/b", id="media-type"),
        pytest.param("coding", [(b"content-encoding", b"gzip")], b"gzip", id="coding"),
        pytest.param("is_chunked", [(b"transfer-encoding", b"chunked")], True, id="chunked"),
        pytest.param("is_chunked", [(b"content-length", b"5")], False, id="with-a-length"),
        pytest.param("credential", [(b"authorization", b"Bearer k")], Secret("k"), id="bearer"),
        pytest.param("credential", [], None, id="no-credential"),
        pytest.param("forwarded", [JSON, (b"cookie", b"x")], (JSON,), id="forwarded"),
        pytest.param("forwarded_as_json", [(b"content-type", b"text/plain")], (JSON,), id="text-is-json"),
        pytest.param(
            "forwarded_as_json",
            [(b"content-type", b"application/x-www-form-urlencoded"), (b"accept", b"*/*")],
            ((b"accept", b"*/*"), JSON),
            id="curls-form-is-json",
        ),
        pytest.param(
            "forwarded_as_json",
            [(b"content-type", b"multipart/form-data; boundary=b")],
            ((b"content-type", b"multipart/form-data; boundary=b"),),
            id="a-form-stays-one",
        ),
    ],
)
def test_fact(fact: str, headers: Headers, expected: object) -> None:
    """Each fact is what its headers say."""
    assert getattr(facts(*headers), fact) == expected


def test_head_is_read_once() -> None:
    """Heads that differ only in the length of their bodies are one: what was made of the first serves the next."""
    assert facts(JSON, (b"content-length", b"5")) is facts((b"content-length", b"700"), JSON)


def test_heads_that_differ_are_two() -> None:
    """Another credential is another head."""
    one, other = (facts((b"authorization", b"Bearer " + key)) for key in (b"k1", b"k2"))

    assert (one.credential, other.credential) == (Secret("k1"), Secret("k2"))


def test_head_never_prints_its_credential() -> None:
    """The facts may end up in a trace; the key does not."""
    assert "canary" not in repr(facts((b"api-key", b"canary-key")).credential)
