"""The live view for operators: what each deployment is doing, in JSON terms. Pure; no key is in it."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from chat_api.budget import RetryBudget
from chat_api.health import AVAILABLE, FULL, HALF_OPEN, Health
from chat_api.retrying import Quota


def is_ready(members: Iterable[Health], now: float) -> bool:
    """Whether there is a deployment that takes calls, or may: one that is full soon does, of none is nothing known."""
    states = [member.state(now) for member in members]
    return not states or any(state in (AVAILABLE, FULL, HALF_OPEN) for state in states)


def deployments(members: Iterable[Health], models: Mapping[str, list[str]], now: float) -> list[dict[str, Any]]:
    """The deployments, in the order in which they are configured.

    Args:
        members: their healths.
        models: the models of each, by its label.
        now: the time by the clock that their times are of.
    """
    return [_deployment(member, models.get(member.deployment.label, []), now) for member in members]


def _deployment(member: Health, models: list[str], now: float) -> dict[str, Any]:
    deployment = member.deployment
    error = member.last_error
    return {
        "deployment": deployment.label,
        "models": models,
        "priority": deployment.priority,
        "weight": deployment.weight,
        "max_in_flight": deployment.max_in_flight,
        "state": member.state(now),
        "in_flight": member.in_flight,
        "cool_down_seconds": _left(member.cooled_until, now),
        "ejected_seconds": _left(member.ejected_until, now),
        "calls": member.calls,
        "failures": member.failures,
        "throttled": member.throttled,
        "last_error": {"at": _time(error[0]), "what": error[1]} if error else None,
        "quota": _quota(member.quota()),
    }


def _quota(quota: Quota) -> dict[str, Any]:
    return {
        name: {"remaining": left, "limit": limit}
        for name, (left, limit) in (("requests", quota.requests), ("tokens", quota.tokens))
    }


def retry_budget(budget: RetryBudget, now: float) -> dict[str, Any]:
    """What is left of the retry budget, over the last minute."""
    budget.look(now)
    return {"calls": budget.calls, "retries": budget.retries, "allowed": int(budget.allowed)}


def _left(until: float, now: float) -> float:
    return round(max(0.0, until - now), 3)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
