"""How long an upstream asks to wait, and what of it goes on to clients that would really wait."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat_api.retrying import (
    DEFAULT_COOL_DOWN_SECONDS,
    MAX_WAIT_SECONDS,
    QUOTA_SECONDS,
    Quota,
    bounded,
    cool_down_seconds,
    quota_of,
    wait_seconds,
)
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


# Cool-down and quota.


def limits(**values: str) -> Headers:
    """`x-ratelimit-*` headers: `remaining_tokens="5"`."""
    return tuple((b"x-ratelimit-" + name.replace("_", "-").encode(), value.encode()) for name, value in values.items())


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param((), DEFAULT_COOL_DOWN_SECONDS, id="nothing"),
        pytest.param(((b"retry-after", b"soon"),), DEFAULT_COOL_DOWN_SECONDS, id="nonsense"),
        pytest.param(((b"retry-after", b"7"),), 7, id="seconds"),
        pytest.param(((b"retry-after-ms", b"100"), (b"retry-after", b"1")), 0.1, id="milliseconds"),
        pytest.param(((b"retry-after", b"86400"),), 60, id="a-day"),
        pytest.param(((b"retry-after", b"9" * 19),), 60, id="for-ever"),
        pytest.param(((b"retry-after", b"Sun, 06 Nov 1994 08:49:47 GMT"),), 10, id="date"),
        pytest.param(((b"retry-after", b"7"), *limits(reset_tokens="30")), 7, id="wait-before-reset"),
        pytest.param(limits(reset_tokens="30"), 30, id="reset"),
        pytest.param(limits(reset_tokens="6m0s"), 60, id="reset-in-minutes"),
        pytest.param(limits(reset_requests="17ms"), 0.017, id="reset-in-milliseconds"),
        pytest.param(
            limits(remaining_requests="0", reset_requests="3", remaining_tokens="9", reset_tokens="50"),
            3,
            id="reset-of-what-is-used-up",
        ),
        pytest.param(limits(reset_requests="3", reset_tokens="50"), 50, id="later-reset"),
        pytest.param(limits(reset_tokens="never"), DEFAULT_COOL_DOWN_SECONDS, id="odd-reset"),
        pytest.param(limits(remaining_tokens="0"), DEFAULT_COOL_DOWN_SECONDS, id="no-reset"),
    ],
)
def test_cool_down_seconds(headers: Headers, expected: float) -> None:
    """A deployment is left alone as long as it asks, or until its quota is there again; for a minute at the most."""
    assert cool_down_seconds(headers, NOW) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("10", 10, id="seconds"),
        pytest.param("0", 0, id="zero"),
        pytest.param("1.5", 1.5, id="fraction"),
        pytest.param("300", 300, id="many"),
        pytest.param("6m0s", 360, id="minutes-and-seconds"),
        pytest.param("6m", 360, id="minutes"),
        pytest.param("17ms", 0.017, id="milliseconds"),
        pytest.param("1s", 1, id="a-second"),
        pytest.param("7.66s", 7.66, id="seconds-and-a-fraction"),
        pytest.param("1h2m3s", 3723, id="hours"),
        pytest.param("1h", 3600, id="an-hour"),
        pytest.param("1s500ms", 1.5, id="seconds-and-milliseconds"),
        pytest.param("1h2m3s4ms", 3723.004, id="everything"),
        pytest.param("9999h", 35_996_400, id="years"),
        pytest.param("", None, id="empty"),
        pytest.param("soon", None, id="word"),
        pytest.param("s", None, id="unit-alone"),
        pytest.param("3s2m", None, id="wrong-order"),
        pytest.param("-5s", None, id="negative"),
        pytest.param("1d", None, id="days"),
        pytest.param("1m30", None, id="no-unit-at-the-end"),
        pytest.param("inf", None, id="infinite"),
        pytest.param("nan", None, id="nan"),
        pytest.param("9" * 30, None, id="thirty-digits"),
        pytest.param("9" * 30 + "s", None, id="thirty-digits-of-seconds"),
        pytest.param("1" * 100_000 + "m", None, id="very-long"),
        pytest.param("\u0661s", None, id="other-digits"),
    ],
)
def test_reset(text: str, seconds: float | None) -> None:
    """A reset is seconds, as Azure writes it, or a duration, as OpenAI does; anything else says nothing."""
    reset = quota_of(limits(reset_tokens=text), NOW).reset_seconds
    assert reset == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("headers", "left"),
    [
        pytest.param((), 1.0, id="nothing"),
        pytest.param((OTHER,), 1.0, id="other-headers"),
        pytest.param(limits(remaining_tokens="25", limit_tokens="100"), 0.25, id="tokens"),
        pytest.param(limits(remaining_requests="1", limit_requests="10"), 0.1, id="requests"),
        pytest.param(
            limits(remaining_requests="1", limit_requests="10", remaining_tokens="5", limit_tokens="10"),
            0.1,
            id="the-smaller",
        ),
        pytest.param(limits(remaining_tokens="0", limit_tokens="100"), 0.0, id="used-up"),
        pytest.param(limits(remaining_tokens="200", limit_tokens="100"), 2.0, id="more-than-the-limit"),
        pytest.param(limits(remaining_tokens="5"), 1.0, id="no-limit"),
        pytest.param(limits(limit_tokens="5"), 1.0, id="no-remainder"),
        pytest.param(limits(remaining_tokens="0", limit_tokens="0"), 1.0, id="limit-of-0"),
        pytest.param(limits(remaining_tokens="-5", limit_tokens="100"), 1.0, id="negative"),
        pytest.param(limits(remaining_tokens="few", limit_tokens="many"), 1.0, id="words"),
    ],
)
def test_left(headers: Headers, left: float) -> None:
    """What is left is the smaller part of requests and tokens; nothing that is known is all."""
    assert quota_of(headers, NOW).left(NOW) == pytest.approx(left)


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [("10", 10), ("6m0s", QUOTA_SECONDS), ("9999h", QUOTA_SECONDS), ("", QUOTA_SECONDS), ("soon", QUOTA_SECONDS)],
)
def test_quota_ends(reset: str, seconds: float) -> None:
    """What was left says nothing after the reset, nor after a minute."""
    quota = quota_of(limits(remaining_tokens="0", limit_tokens="10", reset_tokens=reset), NOW)
    assert quota.left(NOW + seconds - 0.01) == 0
    assert quota.left(NOW + seconds) == 1


def test_quota() -> None:
    """All that the headers say is kept, requests and tokens apart."""
    headers = limits(
        remaining_requests="9", limit_requests="10", remaining_tokens="0", limit_tokens="100", reset_tokens="20"
    )
    assert quota_of(headers, NOW) == Quota((9.0, 10.0), (0.0, 100.0), 20.0, NOW + 20)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30) | st.from_regex(r"([0-9.]{1,9}(h|m|s|ms)?){1,4}"))
def test_any_reset(text: str) -> None:
    """Whatever a reset says, a cool-down is between nothing and a minute, and a quota ends within one."""
    headers: Headers = ((b"x-ratelimit-reset-tokens", text.encode("utf-8", "replace")),)
    assert 0 <= cool_down_seconds(headers, NOW) <= MAX_WAIT_SECONDS
    assert NOW <= quota_of(headers, NOW).ends <= NOW + QUOTA_SECONDS
