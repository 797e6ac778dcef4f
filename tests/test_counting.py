"""Limits as they are written, and what is added up of usage."""

import pytest

from chat_api.counting import STRATEGIES, Amounts, Counter, Grant, Price, Rate, Usage, parse_rates


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("100/minute", [Rate(100, 60)], id="minute"),
        pytest.param("1/second", [Rate(1, 1)], id="second"),
        pytest.param("1/hour", [Rate(1, 3600)], id="hour"),
        pytest.param("1/day", [Rate(1, 86400)], id="day"),
        pytest.param("1/month", [Rate(1, 2592000)], id="month"),
        pytest.param("1/year", [Rate(1, 31104000)], id="year"),
        pytest.param("100/2minutes", [Rate(100, 120)], id="two-minutes"),
        pytest.param("100/2 minutes", [Rate(100, 120)], id="two-minutes-with-a-space"),
        pytest.param("10 per second", [Rate(10, 1)], id="per"),
        pytest.param("10 per 15 seconds", [Rate(10, 15)], id="per-seconds"),
        pytest.param(" 10 PER Hour ", [Rate(10, 3600)], id="capitals"),
        pytest.param("10 / minute", [Rate(10, 60)], id="spaces"),
        pytest.param("60/minute;600/hour", [Rate(60, 60), Rate(600, 3600)], id="semicolon"),
        pytest.param("60/minute, 600/hour", [Rate(60, 60), Rate(600, 3600)], id="comma"),
        pytest.param("60/minute | 600/hour", [Rate(60, 60), Rate(600, 3600)], id="bar"),
        pytest.param("999999999999999/day", [Rate(999_999_999_999_999, 86400)], id="as-many-as-there-are"),
        pytest.param("inf", [], id="inf"),
        pytest.param(" INF ", [], id="inf-in-capitals"),
        pytest.param("", [], id="nothing"),
        pytest.param("  ", [], id="blank"),
    ],
)
def test_parse_rates(text: str, expected: list[Rate]) -> None:
    """Limits are read as the `limits` library writes them; `inf` and nothing are none."""
    assert parse_rates(text) == tuple(expected)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        pytest.param("100", "100", id="no-time"),
        pytest.param("/minute", "/minute", id="no-number"),
        pytest.param("100/fortnight", "100/fortnight", id="no-such-time"),
        pytest.param("0/minute", "0/minute", id="zero"),
        pytest.param("00/minute", "00/minute", id="zeros"),
        pytest.param("10/0minutes", "10/0minutes", id="no-time-at-all"),
        pytest.param("-1/minute", "-1/minute", id="below-zero"),
        pytest.param("1.5/minute", "1.5/minute", id="fraction"),
        pytest.param("1e3/minute", "1e3/minute", id="exponent"),
        pytest.param("10/minute;", "", id="nothing-after-it"),
        pytest.param("10/minute;;5/hour", "", id="nothing-between"),
        pytest.param("10/minute 5/hour", "10/minute 5/hour", id="nothing-that-separates"),
        pytest.param("10/minute;inf", "inf", id="inf-among-others"),
        pytest.param("10 minutes", "10 minutes", id="neither-per-nor-slash"),
        pytest.param("10/minutess", "10/minutess", id="word"),
        pytest.param("1000000000000000/minute", "1000000000000000/minute", id="beyond-sense"),
        pytest.param("10/1000000seconds", "10/1000000seconds", id="time-beyond-sense"),
    ],
)
def test_no_rates(text: str, part: str) -> None:
    """What is no limit is named, and nothing is taken for one that is nearly written so."""
    with pytest.raises(ValueError, match="is no limit such as 100/minute") as caught:
        parse_rates(text)
    assert str(caught.value).startswith(f'"{part}" is')


def test_strategies() -> None:
    """There are the four strategies that gateways know; a counter has the fixed one unless it says another."""
    assert set(STRATEGIES) == {
        "fixed-window",
        "fixed-window-elastic-expiry",
        "moving-window",
        "sliding-window-counter",
    }
    assert Counter("requests/60", 1, 60).strategy == "fixed-window"


def test_grant_of_nobody() -> None:
    """Where nobody counts a call is granted, without a reading."""
    assert Grant().refused is None
    assert Grant().readings == ()


def test_usage() -> None:
    """The tokens of an answer are its prompt's and its own; those that were cached are the prompt's."""
    assert Usage(10, 5, 8).total == 15
    assert Usage().total == 0


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        pytest.param(Usage(), 0, id="nothing"),
        pytest.param(Usage(1_000_000), 2_500_000, id="a-million"),
        pytest.param(Usage(0, 1_000_000), 10_000_000, id="a-million-in-answers"),
        pytest.param(Usage(1_000_000, 0, 1_000_000), 1_250_000, id="all-cached"),
        pytest.param(Usage(100, 10, 40), 300, id="all-kinds"),
        pytest.param(Usage(1), 3, id="half-a-millionth-counts"),
    ],
)
def test_cost(usage: Usage, expected: int) -> None:
    """A cost is in millionths of the currency; what was cached has its own price, and is not paid twice."""
    assert Price(2.50, 10.00, 1.25).cost(usage) == expected


def test_amounts() -> None:
    """Amounts are added field by field."""
    amounts = Amounts(1, 2, 3, 4, 5, 6)
    amounts.add(Amounts(10, 20, 30, 40, 50, 60))
    assert amounts == Amounts(11, 22, 33, 44, 55, 66)
