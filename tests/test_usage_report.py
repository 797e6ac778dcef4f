import csv
import io

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat_api.counting import Amounts, Used
from chat_api.tally import total
from chat_api.usage_report import COLUMNS, Question, as_csv, as_json, as_text, parse_by, question, report

TODAY = "2026-11-21"
MONTH = Question("2026-11-01", "2026-11-30")
ROWS = {
    Used("2026-11-02", "alice", "gpt-4o", "gpt-4o@east"): Amounts(10, 100_000, 2_000, 50_000, 1, 345_678),
    Used("2026-11-02", "bob", "gpt-4o", "gpt-4o@west"): Amounts(1_234, 5_000_000, 600_000, 0, 0, 18_500_000),
    Used("2026-11-03", "alice", "gpt-4o-mini", "mini@east"): Amounts(5, 100, 50, 0, 0, 45),
    Used("2026-10-31", "alice", "gpt-4o", "gpt-4o@east"): Amounts(1_000_000),
    Used("2026-12-01", "alice", "gpt-4o", "gpt-4o@east"): Amounts(1_000_000),
}
BOB = {"requests": 1234, "errors": 0, "prompt_tokens": 5_000_000, "cached_tokens": 0, "completion_tokens": 600_000}
ALICE = {"requests": 15, "errors": 1, "prompt_tokens": 100_100, "cached_tokens": 50_000, "completion_tokens": 2_050}


def test_report_as_json() -> None:
    """The sums of the days that were asked for, the largest first, and the total; money is in whole units."""
    assert as_json(report(MONTH, ROWS, "EUR")) == {
        "since": "2026-11-01",
        "until": "2026-11-30",
        "currency": "EUR",
        "by": ["key"],
        "rows": [
            {"key": "bob", **BOB, "total_tokens": 5_600_000, "cost": 18.5},
            {"key": "alice", **ALICE, "total_tokens": 102_150, "cost": 0.345723},
        ],
        "total": {
            "requests": 1249,
            "errors": 1,
            "prompt_tokens": 5_100_100,
            "cached_tokens": 50_000,
            "completion_tokens": 602_050,
            "total_tokens": 5_702_150,
            "cost": 18.845723,
        },
    }


def test_report_as_text() -> None:
    """A table that a person reads at a glance."""
    asked = Question("2026-11-01", "2026-11-30", ("key", "model"))

    assert as_text(report(asked, ROWS, "EUR")) == (
        "Usage from 2026-11-01 to 2026-11-30 (UTC)\n"
        "\n"
        "key    model        requests  errors     prompt  cached  completion     tokens      EUR\n"
        "-----  -----------  --------  ------  ---------  ------  ----------  ---------  -------\n"
        "bob    gpt-4o          1,234       0  5,000,000       0     600,000  5,600,000  18.5000\n"
        "alice  gpt-4o             10       1    100,000  50,000       2,000    102,000   0.3457\n"
        "alice  gpt-4o-mini         5       0        100       0          50        150   0.0000\n"
        "-----  -----------  --------  ------  ---------  ------  ----------  ---------  -------\n"
        "total                  1,249       1  5,100,100  50,000     602,050  5,702,150  18.8457\n"
    )


def test_report_as_csv() -> None:
    """A header and a line for each row; money with all its digits."""
    asked = Question("2026-11-01", "2026-11-30", ("key", "day"))

    assert as_csv(report(asked, ROWS, "EUR")) == (
        "key,day,requests,errors,prompt_tokens,cached_tokens,completion_tokens,total_tokens,cost,currency\n"
        "alice,2026-11-02,10,1,100000,50000,2000,102000,0.345678,EUR\n"
        "alice,2026-11-03,5,0,100,0,50,150,0.000045,EUR\n"
        "bob,2026-11-02,1234,0,5000000,0,600000,5600000,18.500000,EUR\n"
    )


def test_without_prices_nothing_is_said_of_money() -> None:
    """Not that it costs nothing."""
    made = report(MONTH, {Used(TODAY, "alice", "m", "d"): Amounts(1, 2, 3)}, None)
    read = as_json(made)

    assert read["currency"] is None
    assert read["rows"][0]["cost"] is read["total"]["cost"] is None
    assert as_csv(made).splitlines()[1] == "alice,1,0,2,0,3,5,,"
    assert as_text(made).splitlines()[2].split()[-2:] == ["completion", "tokens"]


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        pytest.param(("key",), [("bob",), ("alice",)], id="largest-first"),
        pytest.param(("day",), [("2026-11-02",), ("2026-11-03",)], id="days-in-order"),
        pytest.param(
            ("day", "key"), [("2026-11-02", "alice"), ("2026-11-02", "bob"), ("2026-11-03", "alice")], id="days-first"
        ),
        pytest.param(("deployment",), [("gpt-4o@west",), ("gpt-4o@east",), ("mini@east",)], id="deployments"),
        pytest.param(("model", "key"), [("gpt-4o", "bob"), ("gpt-4o", "alice"), ("gpt-4o-mini", "alice")], id="two"),
    ],
)
def test_order(by: tuple[str, ...], expected: list[tuple[str, ...]]) -> None:
    """Who took most comes first; where days are among what is asked for, they stand in their order."""
    assert [group for group, _ in report(Question("2026-11-01", "2026-11-30", by), ROWS, None).rows] == expected


def test_nothing_at_all() -> None:
    """A report of no rows is one."""
    made = report(MONTH, {}, None)

    assert as_json(made)["rows"] == []
    assert as_csv(made).count("\n") == 1
    assert as_text(made).splitlines()[-1].split() == ["total", *"000000"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("=1+1", "'=1+1", id="formula"),
        pytest.param("+1", "'+1", id="plus"),
        pytest.param("-1", "'-1", id="minus"),
        pytest.param("@SUM(A1)", "'@SUM(A1)", id="at"),
        pytest.param("  =1", "'  =1", id="spaces-before"),
        pytest.param("\t=1", r"\t=1", id="tab-before"),
        pytest.param('a,b\n"c"', r'"a,b\n""c"""', id="comma-line-quote"),
        pytest.param("gpt-4o=x", "gpt-4o=x", id="within"),
        pytest.param("größer", "größer", id="plain"),
    ],
)
def test_csv_is_safe_in_a_spreadsheet(name: str, expected: str) -> None:
    """Models are named by callers: no name is taken for a formula, and none ends its line."""
    made = report(MONTH, {Used(TODAY, name, "m", "d"): Amounts(1)}, None)

    assert as_csv(made).splitlines()[1:] == [f"{expected},1,0,0,0,0,0,,"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("\x1b[2J\x07", r"\x1b[2J\x07", id="terminal"),
        pytest.param("a\r\nb", r"a\r\nb", id="lines"),
        pytest.param("\u202eoge", r"\u202eoge", id="backwards"),
        pytest.param("", "-", id="nothing"),
    ],
)
def test_the_table_is_safe_in_a_terminal(name: str, expected: str) -> None:
    """No name moves the cursor, ends its line or turns the text around."""
    made = report(MONTH, {Used(TODAY, name, "m", "d"): Amounts(1)}, None)

    assert as_text(made).splitlines()[4].split()[0] == expected


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.builds(Used, st.sampled_from([TODAY, "2026-11-02", "2026-12-01"]), *[st.text(max_size=4)] * 3),
        st.builds(Amounts, *[st.integers(0, 2**60)] * 6),
        max_size=8,
    ),
    st.lists(st.sampled_from(COLUMNS), min_size=1, unique=True).map(tuple),
)
def test_whatever_it_is_by_the_total_is_the_same(rows: dict[Used, Amounts], by: tuple[str, ...]) -> None:
    """Nothing is lost or counted twice, and all forms can be read back."""
    made = report(Question("2026-11-01", "2026-11-30", by), rows, "USD")
    expected = total(amounts for used, amounts in rows.items() if used.day < "2026-12")
    lines = list(csv.reader(io.StringIO(as_csv(made))))

    assert made.total == total(amounts for _, amounts in made.rows) == expected
    assert sum(int(line[len(by)]) for line in lines[1:]) == expected.requests
    assert len(as_text(made).split("\n")) == len(made.rows) + 7
    assert msgspec.json.decode(msgspec.json.encode(as_json(made)))["total"]["requests"] == expected.requests


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("key", ("key",), id="one"),
        pytest.param("day, Model", ("day", "model"), id="two"),
        pytest.param("key,model,key", ("key", "model"), id="twice"),
    ],
)
def test_by(text: str, expected: tuple[str, ...]) -> None:
    """What it is by is a list."""
    assert parse_by(text) == expected


@pytest.mark.parametrize("text", ["", "user", "key,", "key model", "keys"])
def test_by_something_else(text: str) -> None:
    """The message says what there is."""
    with pytest.raises(ValueError, match="it takes one or more of key, model, deployment and day, separated by commas"):
        parse_by(text)


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        pytest.param(None, None, ("2026-11-01", TODAY), id="this-month"),
        pytest.param("2026-10-05", None, ("2026-10-05", TODAY), id="since"),
        pytest.param(None, "2026-09-15", ("2026-09-01", "2026-09-15"), id="until"),
        pytest.param("2026-09-15", "2026-09-15", ("2026-09-15", "2026-09-15"), id="one-day"),
        pytest.param("2026-12-05", None, ("2026-12-05", "2026-12-05"), id="to-come"),
    ],
)
def test_days_asked_for(since: str | None, until: str | None, expected: tuple[str, str]) -> None:
    """This month up to today, unless it is said; without its beginning a report has the month of its end."""
    asked = question(since, until, ("key",), TODAY)

    assert (asked.since, asked.until) == expected


def test_days_the_wrong_way_round() -> None:
    """They are not swapped in silence."""
    with pytest.raises(ValueError, match="2026-11-02 is after 2026-11-01, the last day"):
        question("2026-11-02", "2026-11-01", ("key",), TODAY)
