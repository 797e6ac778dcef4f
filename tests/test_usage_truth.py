"""What is kept of the usage of real gateways, beside what their callers have seen; and several that count alone."""

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from chat_api.counting import Usage
from tests.fleets import Fleet, client_key, fleet
from tests.processes import CLI, process
from tests.redis_servers import RedisServer
from tests.servers import eventually
from tests.truth import PATIENCE_SECONDS, Asked, burst, ways

pytestmark = pytest.mark.alone  # it looks at what happens when

LENGTHS = (5, 30, 60)  # of prompts, in words
KEYS = (
    *(client_key("requests", requests="60/day"), client_key("tokens", tokens="4000/day")),
    *(client_key("unlucky"), client_key("late")),
)
LIMITED = (*ways("requests", words=LENGTHS), *ways("tokens", words=LENGTHS, max_tokens=40))

Amounts = tuple[int, int, Usage]  # requests, those of them that failed, tokens


def calls(gateways: Fleet, kinds: Sequence[Asked], times: int | None = None) -> dict[str, Amounts]:
    """What callers have seen who call so many times, or until they are refused; by their keys."""
    tally = asyncio.run(burst(gateways.ports, kinds, callers=20, calls=times))
    seen = {}
    for key in {kind.key for kind in kinds}:
        failed = [called for called in tally.of(key).calls if called.status == 400]
        assert tally.of(key).requests or failed
        seen[key] = tally.of(key).requests + len(failed), len(failed), tally.of(key).usage
    return seen


def told(report: str) -> dict[str, Amounts]:
    """The sums of a report, by key."""
    return {
        row["key"]: (row["requests"], row["errors"], Usage(row["prompt_tokens"], row["completion_tokens"]))
        for row in json.loads(report)["rows"]
    }


def since() -> str:
    """A day before this one, should it end meanwhile."""
    return (datetime.now(UTC) - timedelta(days=2)).date().isoformat()


def kept(gateways: Fleet) -> dict[str, Amounts]:
    """What the command says."""
    with process(CLI, "usage", "--json", "--since", since(), **gateways.environ) as command:
        assert command.wait() == 0, command.output
    return told(command.output)


def test_usage_in_redis(redis: RedisServer) -> None:
    """Every process tells what the callers of all of them have seen, to the last token, and so does the command."""
    with fleet(KEYS, processes=2, STORE_URL=redis.url) as gateways:
        seen = calls(gateways, LIMITED) | calls(gateways, ways("unlucky", model="fault-400"), 2)

        def is_told(port: int) -> bool:
            return told(gateways.get(f"/usage?since={since()}", port).text) == seen

        for port in gateways.ports:
            assert eventually(partial(is_told, port), PATIENCE_SECONDS)
        assert kept(gateways) == seen
        seen |= calls(gateways, ways("late"), 2)
        gateways.stop()

        assert kept(gateways) == seen


def test_usage_in_a_file() -> None:
    """What workers have written to the file that they share is what their callers have seen."""
    with fleet(KEYS, workers=2) as gateways:
        seen = calls(gateways, ways("unlucky", model="fault-400"), 2) | calls(gateways, ways("late", words=LENGTHS), 4)
        gateways.stop()

        assert kept(gateways) == seen


@pytest.mark.parametrize("has_store", [False, True])
def test_several_that_count_alone(has_store: bool, tmp_path: Path) -> None:
    """The start of several processes says that each counts by itself, unless there is a store."""
    place = {"STORE_URL": "redis://127.0.0.1:1"} if has_store else {"USAGE_FILE": str(tmp_path / "usage.json")}
    with process(CLI, "serve", "--workers", "2", GLOBAL_RATE_LIMIT="60/minute", **place) as server:
        server.wait_for("listens at")

    warning = "Warning: 2 processes serve, and each counts by itself: callers get up to 2 times their limits"
    assert (warning in server.output) is not has_store
