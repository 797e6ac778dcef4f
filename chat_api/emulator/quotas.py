"""How many calls and tokens a deployment takes, counted as Azure counts them. Pure: `now` is given, in seconds.

A limit is enforced over a window, which begins with the first call after the last one has ended. Calls
are counted over 10 s, a sixth of what a minute may have; tokens over a minute, by an estimate, when a
call comes. What is refused counts as well.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

CALL_SECONDS = 10.0  # Azure enforces calls over 1 or 10 s
TOKEN_SECONDS = 60.0
CHARACTERS = 4  # stand for a token
UNNAMED = 16  # what a chat may answer that does not say, as Microsoft's simulator has it
_MOST = {
    "chat/completions": ("max_completion_tokens", "max_tokens"),
    "completions": ("max_tokens",),
    "responses": ("max_output_tokens",),
}
_PROMPTS = ("messages", "prompt", "input", "instructions")
_PARTS = ("content", "text")  # where the text of a message, or of a part of it, stands


@dataclass(frozen=True, slots=True)
class Limit:
    """What a deployment takes in a minute: calls, tokens, or both; None is no limit."""

    rpm: int | None = None
    tpm: int | None = None

    def __post_init__(self) -> None:
        if any(number is not None and number < 1 for number in (self.rpm, self.tpm)):
            raise ValueError("a limit is at least 1")

    @property
    def call_seconds(self) -> float:
        """The window of calls: 10 s, or as long as one call needs."""
        return max(CALL_SECONDS, 60 / self.rpm) if self.rpm else CALL_SECONDS

    @property
    def calls(self) -> int:
        """How many calls a window takes."""
        return math.floor((self.rpm or 0) * self.call_seconds / 60 + 1e-9)


class Admission(NamedTuple):
    """What became of a call at a limited deployment."""

    headers: dict[str, str]  # what the answer tells of the limits, whatever it is
    wait: float = 0.0  # seconds until the window ends that has no room for the call
    exceeded: str = ""  # `token` or `call`; nothing if the call was admitted


@dataclass
class _Window:
    """What was counted since the window began."""

    began: float = -math.inf
    used: int = 0

    def add(self, amount: int, seconds: float, now: float) -> None:
        if now >= self.began + seconds:
            self.began, self.used = now, 0
        self.used += amount


@dataclass
class _Account:
    calls: _Window = field(default_factory=_Window)
    tokens: _Window = field(default_factory=_Window)


class Quotas:
    """The limits of a resource's deployments, and how far each is used."""

    def __init__(self, limits: Mapping[str, Limit] | None = None) -> None:
        self.limits = dict(limits or {})  # may be changed at any time, as Azure does under load
        self._accounts: dict[str, _Account] = {}

    def admit(self, deployment: str, tokens: int, now: float) -> Admission | None:
        """Charge a call of so many tokens, and say whether there was room for it; None: there is no limit."""
        limit = self.limits.get(deployment)
        if limit is None:
            return None
        account = self._accounts.setdefault(deployment, _Account())
        rows = []
        if limit.rpm is not None:
            rows.append(("call", "requests", account.calls, 1, limit.calls, limit.call_seconds))
        if limit.tpm is not None:
            rows.append(("token", "tokens", account.tokens, tokens, limit.tpm, TOKEN_SECONDS))
        headers: dict[str, str] = {}
        wait, exceeded = 0.0, ""
        for name, unit, window, amount, most, seconds in rows:
            window.add(amount, seconds, now)
            left = window.began + seconds - now
            headers[f"x-ratelimit-limit-{unit}"] = str(most)
            headers[f"x-ratelimit-remaining-{unit}"] = str(max(0, most - window.used))
            headers[f"x-ratelimit-reset-{unit}"] = str(math.ceil(left))
            if window.used > most and left > wait:
                wait, exceeded = left, name
        return Admission(headers, wait, exceeded)


def estimate(operation: str, body: Mapping[str, Any]) -> int:
    """The tokens that a call is charged when it comes: those of its prompt, and the most that it asks for."""
    characters = _characters([body.get(name) for name in _PROMPTS])
    most = 0
    if names := _MOST.get(operation):
        given = [body[name] for name in names if isinstance(body.get(name), int)]
        best = body.get("best_of")
        most = max(0, given[0] if given else UNNAMED) * (best if isinstance(best, int) and best > 0 else 1)
    return math.ceil(characters / CHARACTERS) + most


def retry_headers(wait: float) -> dict[str, str]:
    """When to come again, in both of Azure's units."""
    return {"retry-after": str(math.ceil(wait)), "retry-after-ms": str(math.ceil(wait * 1000))}


def _characters(given: Any) -> int:
    """Of all text in prompts and messages, however they are nested; a token that is a number is four."""
    count, left = 0, [given]
    while left:
        one = left.pop()
        if isinstance(one, str):
            count += len(one)
        elif isinstance(one, int):
            count += CHARACTERS
        elif isinstance(one, list):
            left += one
        elif isinstance(one, dict):
            left += [one.get(name) for name in _PARTS]
    return count
