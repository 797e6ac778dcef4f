"""What a caller's Cache-Control asks of answers that are kept."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_api.cache_control import parse_cache_control
from chat_api.caching import Wish
from chat_api.request_head import head_of

ANY = Wish()
NEW = Wish(0.0)
NOT_KEPT = Wish(0.0, may_be_kept=False)


@pytest.mark.parametrize(
    ("value", "wish"),
    [
        pytest.param(None, ANY, id="none"),
        pytest.param(b"", ANY, id="empty"),
        pytest.param(b"no-cache", NEW, id="no-cache"),
        pytest.param(b"No-Cache", NEW, id="any-letters"),
        pytest.param(b' , no-cache="authorization" ,', NEW, id="with-an-argument"),
        pytest.param(b"no-store", NOT_KEPT, id="no-store"),
        pytest.param(b"no-store, max-age=60", NOT_KEPT, id="no-store-and-an-age"),
        pytest.param(b"max-age=60, no-store", NOT_KEPT, id="an-age-and-no-store"),
        pytest.param(b"no-cache, no-store", NOT_KEPT, id="both"),
        pytest.param(b"no-store, no-cache", NOT_KEPT, id="both-the-other-way-round"),
        pytest.param(b"max-age=60", Wish(60.0), id="max-age"),
        pytest.param(b"max-age = 60", Wish(60.0), id="spaces"),
        pytest.param(b'MAX-AGE="60"', Wish(60.0), id="quoted"),
        pytest.param(b"max-age=0", NEW, id="max-age-0"),
        pytest.param(b"max-age=60, max-age=5", Wish(5.0), id="the-lesser"),
        pytest.param(b"max-age=5, max-age=60", Wish(5.0), id="the-lesser-first"),
        pytest.param(b"max-age=60, no-cache", NEW, id="no-cache-after-an-age"),
        pytest.param(b"max-age=9999999999", Wish(9999999999.0), id="largest"),
        pytest.param(b"max-age=99999999999", ANY, id="too-large"),
        pytest.param(b"max-age", ANY, id="no-age"),
        pytest.param(b"max-age=", ANY, id="empty-age"),
        pytest.param(b"max-age=-1", ANY, id="below-0"),
        pytest.param(b"max-age=1.5", ANY, id="fraction"),
        pytest.param(b"max-age=soon", ANY, id="no-number"),
        pytest.param(b"max-age=\xb2", ANY, id="superscript"),
        pytest.param(b"s-maxage=1", ANY, id="of-shared-caches"),
        pytest.param(b"only-if-cached, max-stale=5, no-transform", ANY, id="what-means-nothing-here"),
        pytest.param(b"xno-store", ANY, id="another-word"),
        pytest.param(b"\xff\x00", ANY, id="garbage"),
    ],
)
def test_directives(value: bytes | None, wish: Wish) -> None:
    """no-cache wants a new answer, no-store one that is not kept, max-age none that is older; the strictest counts."""
    assert parse_cache_control(value) == wish


@given(st.binary(max_size=40))
def test_nothing_is_refused_for_it(value: bytes) -> None:
    """Whatever it is, it is read."""
    wish = parse_cache_control(value)
    assert 0 <= wish.max_age_seconds <= math.inf
    assert wish.may_be_kept or wish.max_age_seconds == 0


@pytest.mark.parametrize(
    ("headers", "wish"),
    [
        pytest.param((), ANY, id="none"),
        pytest.param(((b"cache-control", b"no-cache"),), NEW, id="one"),
        pytest.param(((b"cache-control", b"max-age=5"), (b"cache-control", b"no-store")), NOT_KEPT, id="two-lines"),
    ],
)
def test_all_lines_of_it_count(headers: tuple[tuple[bytes, bytes], ...], wish: Wish) -> None:
    """Several lines are one list (RFC 9110 section 5.3)."""
    assert head_of({"headers": [*headers, (b"host", b"a")]}).wish == wish
