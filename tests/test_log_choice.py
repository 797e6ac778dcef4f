"""Which exchanges are meant: whose, from when until when."""

import pytest

from chat_api.log_choice import Choice, parse_when
from tests.conversation_logs import record

NOW = 1795255200.0  # 2026-11-21 10:00 UTC


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-21", NOW - 36_000),
        ("2026-11-21T10:00", NOW),
        ("2026-11-21 10:00:30", NOW + 30),
        ("2026-11-21T11:00+01:00", NOW),
        ("2026-11-21T10:00Z", NOW),
        ("30s", NOW - 30),
        ("5m", NOW - 300),
        (" 2h ", NOW - 7_200),
        ("3d", NOW - 259_200),
        ("1w", NOW - 604_800),
    ],
)
def test_when(text: str, seconds: float) -> None:
    """A day begins at its midnight (UTC); times and how long ago are what they say."""
    assert parse_when(text, NOW) == seconds


def test_a_day_is_meant_to_its_end() -> None:
    """Where it is the end of what is asked for; a time is that time."""
    assert parse_when("2026-11-21", NOW, is_end=True) == NOW + 14 * 3600
    assert parse_when("2026-11-21T10:00", NOW, is_end=True) == NOW


@pytest.mark.parametrize(
    "text", ["", "yesterday", "20261121", "2026-13-01", "2026-11-21T", "2 h", "h", "-2h", "\u0662h"]
)
def test_what_is_no_time(text: str) -> None:
    """The message says what is taken."""
    with pytest.raises(ValueError, match="such as 2026-11-21"):
        parse_when(text, NOW)


@pytest.mark.parametrize(
    ("choice", "is_taken"),
    [
        (Choice(), True),
        (Choice(key="alice"), True),
        (Choice(key="bob"), False),
        (Choice(key=""), False),
        (Choice(since=NOW), True),
        (Choice(since=NOW + 0.123), True),
        (Choice(since=NOW + 1), False),
        (Choice(until=NOW + 1), True),
        (Choice(until=NOW + 0.123), False),
        (Choice("alice", NOW, NOW + 1), True),
    ],
)
def test_choice(choice: Choice, is_taken: bool) -> None:
    """The beginning is within, the end is not."""
    assert choice.takes(record()) is is_taken


def test_without_a_key_or_a_time() -> None:
    """Calls without a key have the name of nobody; what has no time is in no span of time."""
    assert Choice(key="").takes(record(key=None))
    assert Choice().takes(record(time=None))
    assert not Choice(since=0).takes(record(time=None))
