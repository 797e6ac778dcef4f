"""What callers are told of their limits, and why a call is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_api.callers import Caller, ClientKey, by_address, by_key
from chat_api.counting import PARALLEL, Grant, Rate, Reading
from chat_api.limited import duration, refusal, told_of, too_large
from chat_api.plans import Limits, Plan, Planner
from chat_api.retrying import quota_of, wait_seconds

NOW = 1_795_262_400.0  # 2026-11-21 12:00 UTC
MINUTE = {b"retry-after": b"60", b"retry-after-ms": b"60000"}
ALICE = by_key(ClientKey("alice", b"", budget=5))


def plan_of(caller: Caller = ALICE, **limits: Any) -> Plan:
    """What is counted for a chat with the model m."""
    plan = Planner(Limits(**limits), wall=lambda: NOW).plan(caller, "/v1/chat/completions", "m")
    assert plan is not None
    return plan


# The readings of a plan stand in this order: requests, tokens, the budget, the model's.
FULL = plan_of(
    requests=(Rate(10, 60), Rate(100, 3600)), tokens=(Rate(1000, 60),), of_model={"m": (Rate(900, 60),)}, max_parallel=4
)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        pytest.param(0.0, b"0ms", id="nothing"),
        pytest.param(0.0001, b"1ms", id="hardly-anything"),
        pytest.param(0.85, b"850ms", id="milliseconds"),
        pytest.param(0.8501, b"851ms", id="rounded-up"),
        pytest.param(1.0, b"1s", id="second"),
        pytest.param(1.2, b"2s", id="second-and-more"),
        pytest.param(59.0, b"59s", id="seconds"),
        pytest.param(59.1, b"1m0s", id="nearly-a-minute"),
        pytest.param(60.0, b"1m0s", id="minute"),
        pytest.param(61.5, b"1m2s", id="minute-and-more"),
        pytest.param(3599.0, b"59m59s", id="nearly-an-hour"),
        pytest.param(3599.5, b"1h0m0s", id="hour"),
        pytest.param(90061.0, b"25h1m1s", id="a-day"),
    ],
)
def test_duration(seconds: float, expected: bytes) -> None:
    """A duration is written as OpenAI writes it, and never shorter than it is."""
    assert duration(seconds) == expected


@given(st.floats(0, 1e7))
def test_duration_is_read_again(seconds: float) -> None:
    """What clients read in a duration is no less than it was, and no more than a second over it."""
    headers = ((b"x-ratelimit-remaining-tokens", b"0"), (b"x-ratelimit-reset-tokens", duration(seconds)))
    read = quota_of(headers, NOW).reset_seconds
    assert read is not None
    assert seconds - 1e-9 <= read < seconds + 1


READINGS = (Reading(7, 30.0), Reading(90, 1800.0), Reading(400, 45.5), Reading(2, 1e6), Reading(100, 50.0))


def test_told() -> None:
    """Callers are told of their own requests and tokens; what is left of a budget is nothing that clients ask for."""
    assert list(told_of(FULL, Grant(READINGS))) == [
        (b"x-ratelimit-limit-requests", b"10"),
        (b"x-ratelimit-remaining-requests", b"7"),
        (b"x-ratelimit-reset-requests", b"30s"),
        (b"x-ratelimit-limit-tokens", b"1000"),
        (b"x-ratelimit-remaining-tokens", b"400"),
        (b"x-ratelimit-reset-tokens", b"46s"),
    ]


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        pytest.param((7, 90), b"10", id="the-first-is-nearer"),
        pytest.param((7, 6), b"100", id="the-second-is-nearer"),
        pytest.param((7, 7), b"10", id="the-first-where-both-are-as-near"),
        pytest.param((0, 0), b"10", id="both-are-used-up"),
        pytest.param((1, 0), b"100", id="only-the-second-is"),
    ],
)
def test_the_nearest_is_told(left: tuple[int, int], expected: bytes) -> None:
    """Of several limits of a kind the one of which least is left is told: it is the first to refuse."""
    readings = (Reading(left[0], 30.0), Reading(left[1], 1800.0), *READINGS[2:])
    assert told_of(FULL, Grant(readings))[0] == (b"x-ratelimit-limit-requests", expected)


@pytest.mark.parametrize(
    ("plan", "readings", "names"),
    [
        pytest.param(FULL, (), [], id="nobody-counted"),
        pytest.param(plan_of(requests=(Rate(1, 60),)), (Reading(0, 1.0), Reading(5, 1.0)), ["requests"], id="requests"),
        pytest.param(plan_of(tokens=(Rate(1, 60),)), (Reading(0, 1.0), Reading(5, 1.0)), ["tokens"], id="tokens"),
        pytest.param(plan_of(), (Reading(5, 1.0),), [], id="only-a-budget"),
        pytest.param(
            plan_of(by_address("a"), of_model={"m": (Rate(1, 60),)}), (Reading(5, 1.0),), ["tokens"], id="only-a-model"
        ),
        pytest.param(plan_of(max_parallel=1), (Reading(5, 1.0),), [], id="only-places"),
    ],
)
def test_told_of_what_is_limited(plan: Plan, readings: tuple[Reading, ...], names: list[str]) -> None:
    """Only what is limited and was counted is told."""
    headers = [name.decode() for name, _ in told_of(plan, Grant(readings))]
    assert headers == [f"x-ratelimit-{what}-{name}" for name in names for what in ("limit", "remaining", "reset")]


@pytest.mark.parametrize(
    ("limits", "readings", "expected"),
    [
        pytest.param(
            {}, [Reading(2, 1e6), Reading(100, 50.0), Reading(8000, 9.0)], (b"900", b"100", b"50s"), id="alone"
        ),
        pytest.param(
            {"requests": (Rate(10, 60), Rate(100, 3600))},
            [*READINGS[:2], Reading(2, 1e6), Reading(850, 50.0), Reading(90, 9.0)],
            (b"9000", b"90", b"9s"),
            id="with-requests-and-the-nearest-of-two",
        ),
        pytest.param(
            {"tokens": (Rate(1000, 60),)},
            [Reading(400, 45.5), Reading(2, 1e6), Reading(0, 50.0), Reading(0, 9.0)],
            (b"1000", b"400", b"46s"),
            id="not-beside-his-own",
        ),
    ],
)
def test_told_of_the_model(limits: dict[str, Any], readings: list[Reading], expected: tuple[bytes, ...]) -> None:
    """Whoever has no limit in tokens of his own is told of the model's: that is what he can run into."""
    plan = plan_of(of_model={"m": (Rate(900, 60), Rate(9000, 3600))}, **limits)
    told = dict(told_of(plan, Grant(tuple(readings))))
    assert tuple(told[b"x-ratelimit-%b-tokens" % what] for what in (b"limit", b"remaining", b"reset")) == expected
    assert (b"x-ratelimit-limit-requests" in told) is ("requests" in limits)


def refused(at: int | None, wait: float = 12.0, plan: Plan = FULL, readings: tuple[Reading, ...] = READINGS) -> Any:
    """The error of a call of 250 tokens that was refused so."""
    return refusal(plan, Grant(readings, at, 0, wait), 250, NOW)


@pytest.mark.parametrize(
    ("at", "code", "message"),
    [
        pytest.param(
            0,
            "rate_limit_exceeded",
            "the client key alice may make 10 requests a minute; try again in 12.0 s",
            id="requests",
        ),
        pytest.param(
            1,
            "rate_limit_exceeded",
            "the client key alice may make 100 requests an hour; try again in 12.0 s",
            id="requests-an-hour",
        ),
        pytest.param(
            2,
            "rate_limit_exceeded",
            "the client key alice has 1000 tokens a minute, of which 400 are left, and this call may take 250; "
            "try again in 12.0 s",
            id="tokens",
        ),
        pytest.param(
            3,
            "insufficient_quota",
            "the client key alice has used up its budget of this month; try again in 228 hours",
            id="budget",
        ),
        pytest.param(
            4,
            "rate_limit_exceeded",
            "model m has 900 tokens a minute, of which 100 are left, and this call may take 250; try again in 12.0 s",
            id="model",
        ),
        pytest.param(
            PARALLEL,
            "too_many_parallel_calls",
            "the client key alice has 4 calls under way already, as many as it may; try again when one has ended",
            id="parallel",
        ),
    ],
)
def test_refusal(at: int, code: str, message: str) -> None:
    """A refused caller is told which of its limits it is, what is left of it, and when to come again."""
    error = refused(at)
    assert (error.status, error.type, error.code, error.message) == (429, "rate_limit_error", code, message)


def test_refused_for_the_model_without_a_budget() -> None:
    """Which limit it was does not depend on whether there is a budget between them."""
    plan = plan_of(by_address("10.0.0.1"), tokens=(Rate(1000, 60),), of_model={"m": (Rate(900, 60),)})
    readings = (Reading(400, 1.0), Reading(100, 1.0))
    assert refused(0, plan=plan, readings=readings).message.startswith("the address 10.0.0.1 has 1000 tokens")
    assert refused(1, plan=plan, readings=readings).message.startswith("model m has 900 tokens a minute, of which 100")


def test_budget_at_the_end_of_its_month() -> None:
    """In its last second a month's budget is worth waiting for a second."""
    error = refusal(FULL, Grant(READINGS, 3, 0, 9999.0), 250, FULL.ends - 0.25)
    assert (dict(error.headers)[b"retry-after"], dict(error.headers)[b"retry-after-ms"]) == (b"1", b"1000")
    assert error.message.endswith("try again in 1.0 s")


def test_refused_address() -> None:
    """Who has no key is told by his address."""
    error = refused(0, plan=plan_of(by_address("10.0.0.1"), requests=(Rate(1, 1),)))
    assert error.message.startswith("the address 10.0.0.1 may make 1 requests a second;")


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        pytest.param(Rate(5, 1), "5 requests a second;", id="second"),
        pytest.param(Rate(5, 90), "5 requests in 90 seconds;", id="seconds"),
        pytest.param(Rate(5, 120), "5 requests in 2 minutes;", id="minutes"),
        pytest.param(Rate(5, 86400), "5 requests a day;", id="day"),
        pytest.param(Rate(5, 7 * 86400), "5 requests in 7 days;", id="week"),
        pytest.param(Rate(5, 30 * 86400), "5 requests a month;", id="month"),
        pytest.param(Rate(5, 360 * 86400), "5 requests a year;", id="year"),
        pytest.param(Rate(5, 720 * 86400), "5 requests in 2 years;", id="years"),
    ],
)
def test_span_in_words(rate: Rate, words: str) -> None:
    """The span of a limit is said in the largest unit that it is a multiple of."""
    assert words in refused(0, plan=plan_of(requests=(rate,))).message


@pytest.mark.parametrize(
    ("wait", "headers", "words"),
    [
        pytest.param(0.25, {b"retry-after": b"1", b"retry-after-ms": b"250"}, "try again in 0.2 s", id="milliseconds"),
        pytest.param(12.0, {b"retry-after": b"12", b"retry-after-ms": b"12000"}, "try again in 12.0 s", id="seconds"),
        pytest.param(12.0001, {b"retry-after": b"13", b"retry-after-ms": b"12001"}, "in 12.0 s", id="rounded-up"),
        pytest.param(60.0, MINUTE, "try again in 60.0 s", id="minute"),
        pytest.param(61.0, {**MINUTE, b"x-should-retry": b"false"}, "in 2 minutes", id="more"),
        pytest.param(7200.0, {**MINUTE, b"x-should-retry": b"false"}, "in 2 hours", id="hours"),
    ],
)
def test_wait(wait: float, headers: dict[bytes, bytes], words: str) -> None:
    """A caller waits for as long as it takes, a minute at most; after that it is told not to try, and the true time."""
    error = refused(0, wait)
    told = dict(error.headers)
    assert {name: value for name, value in told.items() if not name.startswith(b"x-ratelimit-")} == headers
    assert words in error.message
    assert (wait_seconds(error.headers, NOW) or 0) >= min(wait, 60)


def test_wait_for_a_place() -> None:
    """A place may come free at any time: in a second it is worth another look."""
    told = dict(refused(PARALLEL, 30.0).headers)
    assert (told[b"retry-after"], told[b"retry-after-ms"]) == (b"1", b"1000")


@pytest.mark.parametrize("at", [0, 2, 3, 4, PARALLEL])
def test_refused_caller_is_told_of_its_limits(at: int) -> None:
    """Whatever it was refused for, a caller is told how all its limits stand."""
    assert list(told_of(FULL, Grant(READINGS))) == [
        one for one in refused(at).headers if one[0].startswith(b"x-ratelimit-")
    ]


def test_refused_without_readings() -> None:
    """A store that says only no is enough for an answer."""
    assert refused(0, readings=()).message.startswith("the client key alice may make 10 requests")
    error = refused(2, readings=())
    assert "of which 0 are left" in error.message
    assert dict(error.headers) == {b"retry-after": b"12", b"retry-after-ms": b"12000"}


@pytest.mark.parametrize(
    ("prompt", "stated", "message", "param"),
    [
        pytest.param(
            100,
            5000,
            "this call is about 100 tokens and up to 5000 of the answer, and may take 900 at the most; send less",
            "max_tokens",
            id="answer",
        ),
        pytest.param(
            5000, None, "this call is about 5000 tokens, and may take 900 at the most; send less", None, id="prompt"
        ),
        pytest.param(5000, 0, "this call is about 5000 tokens, and may take 900 at the most; send less", None, id="no"),
    ],
)
def test_too_large(prompt: int, stated: int | None, message: str, param: str | None) -> None:
    """A call that could never be admitted says what would be, and that it is no use to try again."""
    error = too_large(prompt, stated, 900)
    assert (error.status, error.code, error.message, error.param) == (429, "request_too_large", message, param)
    assert dict(error.headers) == {b"x-should-retry": b"false"}
