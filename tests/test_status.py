import json
from dataclasses import replace
from random import Random

import pytest

from chat_api.budget import RetryBudget
from chat_api.health import Health
from chat_api.status import deployments, is_ready, retry_budget
from chat_api.types import Deployment, Headers, Secret

NOW = 5000.0
D = Deployment("d", "https://d.openai.azure.com", "2024-10-21", Secret("secret-key"), priority=1, weight=2.0)


def cooled(deployment: Deployment = D) -> Health:
    """One that throttles for 7.25 s."""
    health = Health(deployment)
    health.cool_down(health.begin(NOW), 7.25, NOW)
    return health


def ejected(when: float = NOW) -> Health:
    """One that has failed; within a second it is half-open."""
    health = Health(D)
    attempt = health.begin(when)
    health.release(attempt)
    health.fail(attempt, when, Random(1))
    return health


def full() -> Health:
    """One with all the calls that it may have."""
    health = Health(replace(D, max_in_flight=1))
    health.begin(NOW)
    return health


@pytest.mark.parametrize(
    ("members", "ready"),
    [
        pytest.param([], True, id="none-is-known"),
        pytest.param([Health(D)], True, id="available"),
        pytest.param([cooled()], False, id="cooling-down"),
        pytest.param([ejected()], False, id="ejected"),
        pytest.param([ejected(NOW - 10)], True, id="half-open"),
        pytest.param([full()], True, id="full"),
        pytest.param([cooled(), ejected()], False, id="all-paused"),
        pytest.param([cooled(), ejected(), Health(D)], True, id="one-available"),
    ],
)
def test_ready(members: list[Health], ready: bool) -> None:
    """It is ready while a deployment takes calls, or may soon."""
    assert is_ready(members, NOW) is ready


def test_new() -> None:
    """Of a deployment that has not been asked everything is told that is configured, and nothing else."""
    assert deployments([Health(D)], {D.label: ["m", "n"], "other": ["o"]}, NOW) == [
        {
            "deployment": "d@d.openai.azure.com",
            "models": ["m", "n"],
            "priority": 1,
            "weight": 2.0,
            "max_in_flight": None,
            "state": "available",
            "in_flight": 0,
            "cool_down_seconds": 0.0,
            "ejected_seconds": 0.0,
            "calls": 0,
            "failures": 0,
            "throttled": 0,
            "last_error": None,
            "quota": {"requests": {"remaining": None, "limit": None}, "tokens": {"remaining": None, "limit": None}},
        }
    ]


def test_busy() -> None:
    """Of one in use its state, its calls, its last error and its quota are told, as JSON and without the key."""
    health = cooled()
    health.note(1.5, "429")
    headers: Headers = (
        (b"x-ratelimit-remaining-requests", b"3"),
        (b"x-ratelimit-limit-requests", b"60"),
        (b"x-ratelimit-remaining-tokens", b"0"),
    )
    health.told = (headers, NOW)
    (told,) = deployments([health], {}, NOW + 0.5)
    assert (told["models"], told["state"], told["in_flight"]) == ([], "cooling down", 1)
    assert (told["cool_down_seconds"], told["ejected_seconds"]) == (6.75, 0.0)
    assert (told["calls"], told["failures"], told["throttled"]) == (1, 0, 1)
    assert told["last_error"] == {"at": "1970-01-01T00:00:01.500+00:00", "what": "429"}
    assert told["quota"] == {"requests": {"remaining": 3.0, "limit": 60.0}, "tokens": {"remaining": 0.0, "limit": None}}
    assert "secret-key" not in json.dumps(told)


def test_times_end_at_0() -> None:
    """A pause that is over is 0 seconds."""
    (told,) = deployments([ejected(NOW - 10)], {}, NOW)
    assert (told["state"], told["ejected_seconds"]) == ("half-open", 0.0)


def test_retry_budget() -> None:
    """The budget is told as of now: what is older than its window is gone."""
    budget = RetryBudget()
    assert retry_budget(budget, NOW) == {"calls": 0, "retries": 0, "allowed": 10}
    for _ in range(78):
        budget.begin(NOW)
        budget.end()
    for _ in range(5):
        budget.take(NOW)
    assert retry_budget(budget, NOW) == {"calls": 78, "retries": 5, "allowed": 15}
    assert retry_budget(budget, NOW + 65) == {"calls": 0, "retries": 0, "allowed": 10}
