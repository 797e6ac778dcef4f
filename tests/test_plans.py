"""What is counted for a call: of its caller, its route, its model and its month."""

from datetime import UTC, datetime
from typing import Any

import pytest

from chat_api.callers import ANY_MODEL, Caller, ClientKey, by_address, by_key
from chat_api.counting import FIXED, MOVING, Claim, Counter, Rate
from chat_api.plans import MONTH_SECONDS, Limits, Plan, Planner, budget_counter, month_of, spent

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
CHAT = "/v1/chat/completions"
ADDRESS = by_address("10.0.0.1")


def key(**fields: Any) -> Caller:
    """The caller who has a key with these limits."""
    return by_key(ClientKey("alice", b"", **fields))


def planned(limits: Limits, caller: Caller = ADDRESS, route: str = CHAT, model: str = "m", now: float = NOW) -> Plan:
    """What is counted, where something is."""
    plan = Planner(limits, wall=lambda: now).plan(caller, route, model)
    assert plan is not None
    return plan


def claimed(plan: Plan, tokens: int = 7, cost: int = 9) -> dict[str, dict[str, tuple[int, int]]]:
    """Of each subject the names of its counters, with what is charged and the limit."""
    claims = plan.claims(tokens, cost)
    return {one.subject: {counter.name: (charge, counter.limit) for counter, charge in one.charges} for one in claims}


@pytest.mark.parametrize(
    ("limits", "caller", "route", "model"),
    [
        pytest.param(Limits(), ADDRESS, CHAT, "m", id="no-limit"),
        pytest.param(Limits(), key(), CHAT, "m", id="no-limit-and-a-key"),
        pytest.param(Limits(strategy=MOVING), ADDRESS, CHAT, "m", id="only-a-strategy"),
        pytest.param(Limits(tokens=(Rate(1, 60),)), ADDRESS, "/v1/files", "", id="tokens-without-a-model"),
        pytest.param(Limits(of_model={"m": (Rate(1, 60),)}), ADDRESS, CHAT, "other", id="another-model"),
        pytest.param(Limits(of_model={"m": (Rate(1, 60),)}), ADDRESS, "/v1/files", "", id="no-model"),
        pytest.param(Limits(of_route={"/v1/embeddings": (Rate(1, 60),)}), ADDRESS, CHAT, "m", id="another-route"),
        pytest.param(Limits(requests=(Rate(1, 60),), of_route={CHAT: ()}), ADDRESS, CHAT, "m", id="free-route"),
        pytest.param(Limits(requests=(Rate(1, 60),)), key(requests=()), CHAT, "m", id="free-key"),
        pytest.param(Limits(tokens=(Rate(1, 60),)), key(tokens={ANY_MODEL: ()}), CHAT, "m", id="free-tokens"),
        pytest.param(Limits(), key(tokens={"other": (Rate(1, 60),)}), CHAT, "m", id="another-model-of-the-key"),
        pytest.param(Limits(), key(budget=5), "/v1/files", "", id="budget-without-a-model"),
    ],
)
def test_nothing_is_counted(limits: Limits, caller: Caller, route: str, model: str) -> None:
    """A call that no limit concerns costs nothing."""
    planner = Planner(limits, wall=lambda: NOW)
    assert planner.plan(caller, route, model) is None
    assert planner.plan(caller, route, model) is None


@pytest.mark.parametrize(
    ("limits", "caller", "route", "model", "expected"),
    [
        pytest.param(
            Limits(requests=(Rate(10, 60), Rate(100, 3600))),
            ADDRESS,
            CHAT,
            "m",
            {"address 10.0.0.1": {"requests/60": (1, 10), "requests/3600": (1, 100)}},
            id="requests",
        ),
        pytest.param(
            Limits(requests=(Rate(10, 60), Rate(9, 1), Rate(5, 60), Rate(7, 60))),
            ADDRESS,
            CHAT,
            "m",
            {"address 10.0.0.1": {"requests/60": (1, 5), "requests/1": (1, 9)}},
            id="the-smaller-of-two-for-the-same-time",
        ),
        pytest.param(
            Limits(requests=(Rate(10, 60),)),
            ADDRESS,
            "/v1/files",
            "",
            {"address 10.0.0.1": {"requests/60": (1, 10)}},
            id="requests-without-a-model",
        ),
        pytest.param(
            Limits(requests=(Rate(10, 60),), of_route={CHAT: (Rate(5, 60),)}),
            ADDRESS,
            CHAT,
            "m",
            {"address 10.0.0.1": {f"requests {CHAT}/60": (1, 5)}},
            id="the-routes-own-instead",
        ),
        pytest.param(
            Limits(requests=(Rate(10, 60),), of_route={CHAT: (Rate(5, 60),)}),
            ADDRESS,
            "/v1/embeddings",
            "m",
            {"address 10.0.0.1": {"requests/60": (1, 10)}},
            id="the-other-routes",
        ),
        pytest.param(
            Limits(requests=(Rate(10, 60),), of_route={CHAT: (Rate(5, 60),)}),
            key(requests=(Rate(3, 60),)),
            CHAT,
            "m",
            {"key alice": {f"requests {CHAT}/60": (1, 5), "requests/60": (1, 3)}},
            id="the-keys-over-all-routes",
        ),
        pytest.param(
            Limits(requests=(Rate(10, 60),)),
            key(),
            CHAT,
            "m",
            {"key alice": {"requests/60": (1, 10)}},
            id="a-key-that-leaves-it-out",
        ),
        pytest.param(
            Limits(tokens=(Rate(1000, 60),)),
            ADDRESS,
            CHAT,
            "m",
            {"address 10.0.0.1": {"tokens/60": (7, 1000)}},
            id="tokens",
        ),
        pytest.param(
            Limits(tokens=(Rate(1000, 60),)),
            key(tokens={ANY_MODEL: (Rate(500, 60), Rate(5000, 86400)), "M": (Rate(50, 60),)}),
            CHAT,
            "m",
            {"key alice": {"tokens/60": (7, 500), "tokens/86400": (7, 5000), "tokens m/60": (7, 50)}},
            id="the-keys-tokens",
        ),
        pytest.param(
            Limits(tokens=(Rate(1000, 60),)),
            key(tokens={"m": (Rate(50, 60),)}),
            CHAT,
            "M",
            {"key alice": {"tokens/60": (7, 1000), "tokens m/60": (7, 50)}},
            id="the-keys-tokens-of-a-model-beside-the-general",
        ),
        pytest.param(
            Limits(of_model={"GPT-4o": (Rate(900, 60),)}),
            ADDRESS,
            CHAT,
            "gpt-4O",
            {"address 10.0.0.1": {}, "model gpt-4o": {"tokens/60": (7, 900)}},
            id="a-model-in-other-letters",
        ),
        pytest.param(
            Limits(),
            key(budget=500),
            CHAT,
            "m",
            {"key alice": {"cost 2026-11": (9, 500)}},
            id="budget",
        ),
        pytest.param(
            Limits(),
            key(budget=0),
            CHAT,
            "m",
            {"key alice": {"cost 2026-11": (9, 0)}},
            id="no-budget-at-all",
        ),
        pytest.param(
            Limits((Rate(10, 60),), {}, (Rate(1000, 60),), {"m": (Rate(900, 60),)}, 4),
            key(budget=500),
            CHAT,
            "m",
            {
                "key alice": {"requests/60": (1, 10), "tokens/60": (7, 1000), "cost 2026-11": (9, 500)},
                "model m": {"tokens/60": (7, 900)},
            },
            id="everything",
        ),
    ],
)
def test_claims(limits: Limits, caller: Caller, route: str, model: str, expected: dict[str, object]) -> None:
    """A call claims of its caller what the settings say, or his key in their place, and of its model what that has."""
    assert claimed(planned(limits, caller, route, model)) == expected


@pytest.mark.parametrize(
    ("limits", "caller", "expected"),
    [
        pytest.param(Limits(max_parallel=3), ADDRESS, 3, id="settings"),
        pytest.param(Limits(max_parallel=3), key(), 3, id="a-key-that-leaves-it-out"),
        pytest.param(Limits(max_parallel=3), key(max_parallel=7), 7, id="keys-own"),
        pytest.param(Limits(), key(max_parallel=7), 7, id="only-the-keys"),
        pytest.param(Limits(requests=(Rate(1, 60),)), ADDRESS, 0, id="any-number"),
    ],
)
def test_parallel(limits: Limits, caller: Caller, expected: int) -> None:
    """How many calls a caller may have under way is his key's word, or the settings'; a model has no such limit."""
    plan = planned(limits, caller)
    assert plan.max_parallel == expected
    assert plan.claims(0, 0)[0].max_parallel == expected


def test_model_has_no_places() -> None:
    """The claim on a model takes no place: calls in flight are the caller's."""
    own, of_model = planned(Limits(max_parallel=3, of_model={"m": (Rate(1, 60),)})).claims(0, 0)
    assert own == Claim("address 10.0.0.1", (), 3)
    assert (of_model.subject, of_model.max_parallel) == ("model m", 0)


def test_strategy() -> None:
    """Limits are counted as the settings say; a budget's month begins and ends with the calendar's."""
    plan = planned(Limits((Rate(1, 60),), {}, (Rate(1, 60),), {"m": (Rate(1, 60),)}, strategy=MOVING), key(budget=1))
    assert {one.strategy for one in (*plan.requests, *plan.tokens, *plan.of_model)} == {MOVING}
    assert plan.budget[0] == Counter("cost 2026-11", 1, MONTH_SECONDS, FIXED) == budget_counter("2026-11", 1)


def test_changes() -> None:
    """What a call took on top of its claim goes to its counters of tokens and cost; its requests stay as they are."""
    limits = Limits((Rate(1, 60), Rate(2, 3600)), {}, (Rate(1, 60),), {"m": (Rate(1, 60), Rate(2, 3600))})
    plan = planned(limits, key(budget=1))
    assert plan.changes(-5, 3) == [0, 0, -5, 3, -5, -5]
    assert len(plan.changes(0, 0)) == sum(len(claim.charges) for claim in plan.claims(0, 0))


@pytest.mark.parametrize(
    ("limits", "caller", "counts", "most"),
    [
        pytest.param(Limits(requests=(Rate(1, 60),)), ADDRESS, False, None, id="requests"),
        pytest.param(Limits(max_parallel=1), ADDRESS, False, None, id="parallel"),
        pytest.param(Limits(tokens=(Rate(9, 60), Rate(8, 3600))), ADDRESS, True, 8, id="tokens"),
        pytest.param(Limits(of_model={"m": (Rate(7, 60),)}), ADDRESS, True, 7, id="model"),
        pytest.param(Limits(tokens=(Rate(9, 60),), of_model={"m": (Rate(7, 60),)}), ADDRESS, True, 7, id="both"),
        pytest.param(Limits(), key(budget=5), True, None, id="budget"),
    ],
)
def test_tokens_are_estimated(limits: Limits, caller: Caller, counts: bool, most: int | None) -> None:
    """Tokens are estimated where a limit or a budget asks for them; no call may take more than the smallest limit."""
    plan = planned(limits, caller)
    assert plan.counts_tokens is counts
    assert plan.most_tokens == most


@pytest.mark.parametrize(("cost", "charged"), [(0, 0), (30, 30), (50, 50), (70, 50)])
def test_spent(cost: int, charged: int) -> None:
    """What a key has spent of its budget is claimed of this month's, as far as it has one; more than all is all."""
    counter = Counter("cost 2026-11", 50, MONTH_SECONDS)
    assert spent(ClientKey("alice", b"", budget=50), cost, NOW) == Claim("key alice", ((counter, charged),))


def test_routes_without_limits_are_one() -> None:
    """A route with limits of its own is counted apart; all others are one."""
    planner = Planner(Limits(requests=(Rate(1, 60),), of_route={CHAT: (Rate(2, 60),)}), wall=lambda: NOW)
    assert [planner.place(route) for route in (CHAT, "/v1/embeddings", "")] == [CHAT, "", ""]


def test_turn_of_the_month() -> None:
    """With the month ends what was counted of its budget: another counter, from the first second of the next (UTC)."""
    clock = [datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()]
    planner = Planner(Limits(), wall=lambda: clock[0])
    caller = key(budget=5)
    old = planner.plan(caller, CHAT, "m")
    assert old is not None
    assert old.budget[0].name == "cost 2026-12"
    clock[0] += 0.999
    assert planner.plan(caller, CHAT, "m") == old
    assert old.ends == clock[0] + 0.001
    clock[0] = old.ends
    new = planner.plan(caller, CHAT, "m")
    assert new is not None
    assert new.budget[0].name == "cost 2027-01"
    assert new.claims(1, 1) != old.claims(1, 1)


@pytest.mark.parametrize(
    ("date", "month", "ends"),
    [
        pytest.param((2026, 11, 1), "2026-11", (2026, 12, 1), id="beginning"),
        pytest.param((2026, 11, 30, 23, 59, 59), "2026-11", (2026, 12, 1), id="end"),
        pytest.param((2026, 12, 15), "2026-12", (2027, 1, 1), id="december"),
        pytest.param((2028, 2, 29), "2028-02", (2028, 3, 1), id="leap-day"),
        pytest.param((2026, 1, 31, 23), "2026-01", (2026, 2, 1), id="january"),
    ],
)
def test_month(date: tuple[int, ...], month: str, ends: tuple[int, int, int]) -> None:
    """Months are the calendar's, in UTC."""
    now = datetime(*date, tzinfo=UTC).timestamp()  # type: ignore[arg-type, misc]
    assert month_of(now) == (month, datetime(*ends, tzinfo=UTC).timestamp())


def test_budget_outlasts_its_month() -> None:
    """The counter of a month is kept to that month's end, whenever its first call came."""
    longest = max(
        month_of(now)[1] - now for now in (datetime(2026, m, 1, tzinfo=UTC).timestamp() for m in range(1, 13))
    )
    assert longest < MONTH_SECONDS
