"""How long an upstream asks to wait, and what of it goes on to clients that would really wait."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat_api.retrying import MAX_WAIT_SECONDS, bounded, wait_seconds
from chat_api.types import Headers

NOW = 784111777.0  # Sun, 06 Nov 1994 08:49:37 GMT
OTHER = (b"x-request-id", b"i")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param((), None, id="nothing"),
        pytest.param(((b"retry-after", b"7"),), 7, id="seconds"),
        pytest.param(((b"retry-after", b"0"),), 0, id="zero"),
        pytest.param(((b"retry-after", b" 7 "),), 7, id="spaces"),
        pytest.param(((b"retry-after", b"1.5"),), 1.5, id="fraction"),
        pytest.param(((b"retry-after", b"86400"),), 86400, id="a-day"),
        pytest.param(((b"retry-after-ms", b"1500"),), 1.5, id="milliseconds"),
        pytest.param(((b"x-ms-retry-after-ms", b"1500"),), 1.5, id="azures-milliseconds"),
        pytest.param(((b"retry-after", b"9"), (b"retry-after-ms", b"120")), 0.12, id="milliseconds-first"),
        pytest.param(((b"retry-after", b"9"), (b"retry-after-ms", b"soon")), 9, id="odd-milliseconds"),
        pytest.param(((b"retry-after", b"Sun, 06 Nov 1994 08:49:47 GMT"),), 10, id="date"),
        pytest.param(((b"retry-after", b"Sunday, 06-Nov-94 08:49:47 GMT"),), 10, id="rfc-850-date"),
        pytest.param(((b"retry-after", b"Sun Nov  6 08:49:47 1994"),), 10, id="asctime-date"),
        pytest.param(((b"retry-after", b"Sun, 06 Nov 1994 09:49:47 +0100"),), 10, id="date-with-a-zone"),
        pytest.param(((b"retry-after", b"Sun, 06 Nov 1994 08:49:37 GMT"),), 0, id="date-now"),
        pytest.param(((b"retry-after", b"Sun, 06 Nov 1994 08:00:00 GMT"),), 0, id="date-gone-by"),
        pytest.param(((b"retry-after", b"Mon, 07 Nov 1994 08:49:37 GMT"),), 86400, id="date-tomorrow"),
        pytest.param(((b"retry-after", b"soon"),), None, id="word"),
        pytest.param(((b"retry-after", b""),), None, id="empty"),
        pytest.param(((b"retry-after", b"."),), None, id="point"),
        pytest.param(((b"retry-after", b"-5"),), None, id="negative"),
        pytest.param(((b"retry-after", b"inf"),), None, id="infinite"),
        pytest.param(((b"retry-after", b"nan"),), None, id="nan"),
        pytest.param(((b"retry-after", b"9" * 400),), None, id="beyond-sense"),
        pytest.param(((b"retry-after", b"Fri, 99 Foo 1994 99:99:99 GMT"),), None, id="no-date"),
        pytest.param(((b"retry-after", b"\xff\xfe"),), None, id="no-text"),
    ],
)
def test_wait_seconds(headers: Headers, expected: float | None) -> None:
    """A wait is read as milliseconds, seconds or a date; what is none of these asks for nothing."""
    assert wait_seconds(headers, NOW) == expected


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param((OTHER,), id="none"),
        pytest.param(((b"retry-after", b"7"), OTHER), id="short"),
        pytest.param(((b"retry-after", b"60"), (b"retry-after-ms", b"60000")), id="a-minute"),
        pytest.param(((b"retry-after", b"Sun, 06 Nov 1994 08:50:37 GMT"),), id="date-within-a-minute"),
        pytest.param(((b"retry-after", b"7"), (b"x-should-retry", b"true")), id="with-a-word-of-its-own"),
    ],
)
def test_bearable_wait(headers: Headers) -> None:
    """A wait of up to a minute goes on as it came."""
    assert bounded(headers, NOW) == (headers, None)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        pytest.param(((b"retry-after", b"86400"),), 86400, id="a-day"),
        pytest.param(((b"retry-after", b"60.1"),), 60.1, id="just-over-a-minute"),
        pytest.param(((b"retry-after-ms", b"61000"), (b"retry-after", b"61")), 61, id="both"),
        pytest.param(((b"x-ms-retry-after-ms", b"61000"),), 61, id="azures-milliseconds"),
        pytest.param(((b"retry-after", b"Mon, 07 Nov 1994 08:49:37 GMT"),), 86400, id="date"),
        pytest.param(((b"retry-after", b"100"), (b"x-should-retry", b"true")), 100, id="with-a-word-of-its-own"),
    ],
)
def test_unbearable_wait(headers: Headers, wait: float) -> None:
    """A longer wait becomes a minute and the word not to try again, and is told; other headers stay."""
    expected = (OTHER, (b"retry-after", b"%d" % MAX_WAIT_SECONDS), (b"x-should-retry", b"false"))
    assert bounded((OTHER, *headers), NOW) == (expected, wait)


def test_waits_that_differ() -> None:
    """No header that asks for more than a minute goes on, though another one asks for less."""
    headers, _ = bounded(((b"retry-after-ms", b"500"), (b"retry-after", b"86400")), NOW)
    assert (b"retry-after", b"86400") not in headers


@pytest.mark.parametrize(
    "date",
    [
        pytest.param(b"Wed, 21 Oct 2015 99999999999999999999:28:00 GMT", id="hour"),
        pytest.param(b"Wed, 21 Oct 2015 07:28:00 +9999999999999999999999", id="zone"),
    ],
)
def test_date_beyond_any(date: bytes) -> None:
    """A date that cannot be asks for nothing."""
    assert wait_seconds(((b"retry-after", date),), NOW) is None


@settings(max_examples=100, deadline=None)
@given(
    st.text(max_size=20) | st.from_regex(r"[A-Z][a-z]{2}, [0-9]{1,3} Nov [0-9]{1,5} [0-9:]{1,9} [A-Z+-]{1,3}[0-9]{0,4}")
)
def test_any_value(value: str) -> None:
    """Whatever a header says, what goes on asks for a minute at most, or for nothing that is understood."""
    headers, _ = bounded(((b"retry-after", value.encode("utf-8", "replace")),), NOW)
    wait = wait_seconds(headers, NOW)
    assert wait is None or 0 <= wait <= MAX_WAIT_SECONDS
