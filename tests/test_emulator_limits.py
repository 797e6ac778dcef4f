"""The emulator's limits: how they count, and what answers tell of them."""

from typing import Any

import httpx2 as httpx
import pytest

from chat_api.emulator import Emulator, Limit
from chat_api.emulator.quotas import Quotas, estimate, retry_headers
from tests.emulators import CHAT, V1, Clock, emulated

HI = [{"role": "user", "content": "12345678"}]


@pytest.mark.parametrize(
    ("limit", "calls", "seconds"),
    [
        pytest.param(Limit(rpm=600), 100, 10, id="sixth-of-a-minute"),
        pytest.param(Limit(rpm=6), 1, 10, id="one"),
        pytest.param(Limit(rpm=10), 1, 10, id="never-more-than-the-limit"),
        pytest.param(Limit(rpm=3), 1, 20, id="less-than-one-in-10-s"),
        pytest.param(Limit(rpm=1), 1, 60, id="one-a-minute"),
    ],
)
def test_calls_are_counted_over_short_windows(limit: Limit, calls: int, seconds: float) -> None:
    """A window takes its part of the minute's calls, refuses the next, and is empty again when it has ended."""
    quotas = Quotas({"d": limit})
    taken = [quotas.admit("d", 0, 100 + number / 1000) for number in range(calls + 1)]
    later = quotas.admit("d", 0, 100 + seconds)

    assert [one.exceeded for one in taken if one] == [""] * calls + ["call"]
    assert later is not None
    assert (later.exceeded, later.headers["x-ratelimit-remaining-requests"]) == ("", str(calls - 1))


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        pytest.param([(0, 40)], ("100", "60", "60", ""), id="room"),
        pytest.param([(0, 100)], ("100", "0", "60", ""), id="just-enough"),
        pytest.param([(0, 40), (12.5, 10)], ("100", "50", "48", ""), id="whole-seconds-rounded-up"),
        pytest.param([(0, 40), (30, 61)], ("100", "0", "30", "token"), id="too-many"),
        pytest.param([(0, 40), (30, 61), (31, 1)], ("100", "0", "29", "token"), id="what-is-refused-counts"),
        pytest.param([(0, 40), (30, 61), (60, 1)], ("100", "99", "60", ""), id="next-minute"),
        pytest.param([(0, 101)], ("100", "0", "60", "token"), id="more-than-there-ever-is"),
    ],
)
def test_tokens_are_counted_over_a_minute(steps: list[tuple[float, int]], told: tuple[str, str, str, str]) -> None:
    """Limit, rest and seconds until the window ends, and what was exceeded, after calls of so many tokens."""
    quotas = Quotas({"d": Limit(tpm=100)})
    for now, tokens in steps:
        last = quotas.admit("d", tokens, 1000 + now)

    assert last is not None
    assert tuple(last.headers[f"x-ratelimit-{name}-tokens"] for name in ("limit", "remaining", "reset")) == told[:3]
    assert last.exceeded == told[3]
    assert not any(name.endswith("requests") for name in last.headers)


def test_longer_wait_is_told_where_both_limits_are_exceeded() -> None:
    """A call that finds neither calls nor tokens left is told when both are back."""
    quotas = Quotas({"d": Limit(rpm=6, tpm=10)})
    quotas.admit("d", 10, 0.0)
    refused = quotas.admit("d", 10, 2.25)

    assert refused is not None
    assert (refused.wait, refused.exceeded) == (57.75, "token")
    assert retry_headers(refused.wait) == {"retry-after": "58", "retry-after-ms": "57750"}


def test_each_deployment_has_its_own_account() -> None:
    """What one deployment has used is not missing at another; one without a limit is not counted."""
    quotas = Quotas({"a": Limit(tpm=10), "b": Limit(tpm=10)})
    quotas.admit("a", 10, 0.0)
    other = quotas.admit("b", 10, 0.0)

    assert other is not None
    assert not other.exceeded
    assert quotas.admit("c", 10, 0.0) is None


@pytest.mark.parametrize("numbers", [{"rpm": 0}, {"tpm": -1}])
def test_limit_is_at_least_one(numbers: dict[str, int]) -> None:
    """A deployment that takes nothing is an outage, not a limit."""
    with pytest.raises(ValueError, match="at least 1"):
        Limit(**numbers)


@pytest.mark.parametrize(
    ("operation", "body", "tokens"),
    [
        ("chat/completions", {"messages": HI}, 2 + 16),
        ("chat/completions", {"messages": HI, "max_tokens": 5}, 2 + 5),
        ("chat/completions", {"messages": HI, "max_tokens": 5, "max_completion_tokens": 7}, 2 + 7),
        ("chat/completions", {"messages": [{"content": [{"type": "text", "text": "12345"}, {"type": "x"}]}]}, 2 + 16),
        ("completions", {"prompt": ["1234", "1234"], "max_tokens": 3, "best_of": 2}, 2 + 6),
        ("completions", {"prompt": [1, 2, 3], "max_tokens": 3}, 3 + 3),
        ("responses", {"input": "1234", "instructions": "1234", "max_output_tokens": 9}, 2 + 9),
        ("responses", {"input": HI}, 2 + 16),
        ("embeddings", {"input": "123456789"}, 3),
        ("embeddings", {"input": [[1, 2], [3]]}, 3),
        ("images/generations", {"prompt": "1234"}, 1),
        ("chat/completions", {"messages": 1.5, "max_tokens": "x", "best_of": "x"}, 16),
        ("chat/completions", {"max_tokens": -5}, 0),
    ],
)
def test_tokens_are_estimated(operation: str, body: dict[str, Any], tokens: int) -> None:
    """A quarter of the prompt's characters, and the most that may be answered: 16 if a chat does not say."""
    assert estimate(operation, body) == tokens


def test_very_deep_prompt_is_estimated() -> None:
    """Lists within lists do not exhaust the stack."""
    deep: list[Any] = ["1234"]
    for _ in range(5000):
        deep = [deep]

    assert estimate("embeddings", {"input": deep}) == 1


def chat(client: httpx.Client, path: str = CHAT, **members: Any) -> httpx.Response:
    """The answer to a chat."""
    return client.post(path, json={"model": "gpt-4o", "messages": HI, **members})


def test_limited_deployment_tells_of_its_limits_and_recovers() -> None:
    """Every answer has the six headers; the first call too many gets 429 with both retry headers, until the reset."""
    clock = Clock()
    with emulated(Emulator(limits=Limit(rpm=12, tpm=1000), clock=clock)) as client:
        first, broken = chat(client, max_tokens=100), chat(client, messages=[])
        clock.now += 2.5
        refused = chat(client)
        clock.now += 7.5
        after = chat(client, stream=True)

    assert [one.status_code for one in (first, broken, refused, after)] == [200, 400, 429, 200]
    names = ("limit-requests", "remaining-requests", "reset-requests", "limit-tokens", "remaining-tokens")
    told = [[one.headers[f"x-ratelimit-{name}"] for name in names] for one in (first, broken, refused, after)]
    assert told == [
        ["2", "1", "10", "1000", "898"],
        ["2", "0", "10", "1000", "882"],
        ["2", "0", "8", "1000", "864"],
        ["2", "1", "10", "1000", "846"],
    ]
    assert refused.headers["x-ratelimit-reset-tokens"] == "58"
    assert (refused.headers["retry-after"], refused.headers["retry-after-ms"]) == ("8", "7500")


def test_429_has_azures_words() -> None:
    """The classic API names the operation first, v1 the deployment and its region; both have the code 429."""
    limits = {"gpt-4o": Limit(tpm=1), "gpt-4.1": Limit(rpm=1)}
    with emulated(Emulator(region="East US", limits=limits, clock=Clock())) as client:
        tokens, newer = chat(client), chat(client, V1)
        (_, calls), (_, later) = (
            [chat(client, path, model="gpt-4.1") for _ in "ab"] for path in (CHAT.replace("gpt-4o", "gpt-4.1"), V1)
        )

    said = [one.json()["error"] for one in (tokens, newer, calls, later)]
    assert {error["code"] for error in said} == {"429"}
    assert "ChatCompletions_Create Operation under Azure OpenAI API version 2024-10-21" in said[0]["message"]
    assert "have exceeded token rate limit of your current OpenAI S0 pricing tier." in said[0]["message"]
    assert said[0]["message"].endswith("Please retry after 60 seconds.")
    assert said[1]["message"].startswith("Your requests to gpt-4o for gpt-4o in East US have exceeded the token rate")
    assert "have exceeded the call rate limit of" in said[2]["message"]
    assert "have exceeded the call rate limit for" in said[3]["message"]


def test_default_emulator_refuses_nobody() -> None:
    """Without limits the headers are what they were, and there is no reset."""
    with emulated(Emulator()) as client:
        headers = [chat(client).headers for _ in range(20)][-1]

    assert {name: value for name, value in headers.items() if name.startswith("x-ratelimit")} == {
        "x-ratelimit-limit-requests": "100",
        "x-ratelimit-limit-tokens": "100000",
        "x-ratelimit-remaining-requests": "99",
        "x-ratelimit-remaining-tokens": "99998",
    }
    assert headers["x-ms-region"] == "Emulated"


def test_limits_can_change_while_it_runs() -> None:
    """A limit that is lowered counts what was used before; one that is gone refuses nobody."""
    emulator = Emulator(limits={"gpt-4o": Limit(tpm=1000)}, clock=Clock())
    with emulated(emulator) as client:
        statuses = [chat(client).status_code]
        emulator.limits["gpt-4o"] = Limit(tpm=30)
        statuses.append(chat(client).status_code)
        del emulator.limits["gpt-4o"]
        statuses.append(chat(client).status_code)

    assert statuses == [200, 429, 200]


def test_emulators_can_be_told_apart() -> None:
    """Each says its region, and counts the calls that have reached its deployments."""
    emulators = [Emulator(region=name) for name in ("East US", "Sweden Central", "Japan East")]
    regions = []
    for number, emulator in enumerate(emulators):
        with emulated(emulator) as client:
            regions += [chat(client).headers["x-ms-region"] for _ in range(number + 1)]
            chat(client, CHAT.replace("gpt-4o", "nothing"))

    assert regions == ["East US", *["Sweden Central"] * 2, *["Japan East"] * 3]
    assert [dict(emulator.asked) for emulator in emulators] == [{"gpt-4o": 1}, {"gpt-4o": 2}, {"gpt-4o": 3}]


def test_region_has_to_fit_into_a_header() -> None:
    """A region that no header could carry is refused."""
    with pytest.raises(ValueError, match="printable ASCII"):
        Emulator(region="a\nb")
