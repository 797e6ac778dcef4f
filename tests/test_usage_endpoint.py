"""`GET /usage` over a real socket: who may read it, what may be asked, and what it answers."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from chat_api import settings
from chat_api.app import create_app
from chat_api.config_file import Config
from chat_api.counting import Price, Usage
from chat_api.ledger import Ledger
from chat_api.operators import usage_asked
from chat_api.stores.usage_file import UsageFile
from chat_api.usage_report import Question
from tests.servers import NO_FILE, in_thread, serving

OPERATOR_KEY, CLIENT_KEY = "canary-operator-key", "canary-client-key"
ELSEWHERE = {"host": "gateway.example.com"}
NOON = 1795262400.0  # of 2026-11-21
NOVEMBER = {"since": "2026-11-01", "until": "2026-11-30"}
PRICED = Config(prices={"gpt-4o": Price(2.5, 10.0, 1.25)}, currency="EUR")


@contextlib.contextmanager
def counting(ledger: Ledger | None, config: Config = PRICED) -> Iterator[httpx.Client]:
    """A gateway that has this ledger."""
    values = replace(settings.load({"CLIENT_KEYS": CLIENT_KEY, "OPERATOR_KEY": OPERATOR_KEY}, NO_FILE), config=config)
    app = create_app(values)
    opened = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> Any:
        async with opened(app) as state:
            yield {**(state or {}), "ledger": ledger}

    app.router.lifespan_context = lifespan
    with in_thread() as run:
        stack = contextlib.AsyncExitStack()
        port = run(stack.enter_async_context(serving(app, values)))
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
                yield client
        finally:
            run(stack.aclose())


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    """A gateway where alice and bob have called, on 21 November."""
    ledger = Ledger(None, wall=lambda: NOON)
    for _ in range(3):
        ledger.note("alice", "gpt-4o", "gpt-4o@east", Usage(100, 20, 50), is_error=False, cost=450)
    ledger.note("bob", "gpt-4o-mini", "mini@east", None, is_error=True)
    with counting(ledger) as client:
        yield client


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param({}, 200, id="this-machine"),
        pytest.param({**ELSEWHERE, "authorization": f"Bearer {OPERATOR_KEY}"}, 200, id="bearer"),
        pytest.param({**ELSEWHERE, "api-key": OPERATOR_KEY}, 200, id="api-key"),
        pytest.param(ELSEWHERE, 403, id="elsewhere"),
        pytest.param({"x-forwarded-for": "127.0.0.1"}, 403, id="through-a-proxy"),
        pytest.param({"origin": "http://localhost:3000"}, 403, id="a-page-on-this-machine"),
        pytest.param({**ELSEWHERE, "api-key": CLIENT_KEY}, 403, id="a-client-key"),
    ],
)
def test_usage_is_for_whom_the_status_is(client: httpx.Client, headers: dict[str, str], expected: int) -> None:
    """This machine, and who has the operator key; nobody else learns a name."""
    answer = client.get("/usage", params=NOVEMBER, headers=headers)

    assert answer.status_code == expected
    assert ("alice" in answer.text) is (expected == 200)
    assert expected == 200 or answer.json()["error"]["code"] == "operators_only"
    assert "canary" not in answer.text


def test_who_used_how_much(client: httpx.Client) -> None:
    """The shape that is documented, to the last member."""
    answer = client.get("/usage", params={"by": "key,model", **NOVEMBER})
    bob = {"requests": 1, "errors": 1, "prompt_tokens": 0, "cached_tokens": 0, "completion_tokens": 0}
    alice = {"requests": 3, "errors": 0, "prompt_tokens": 300, "cached_tokens": 150, "completion_tokens": 60}

    assert answer.headers["cache-control"] == "no-store"
    assert answer.json() == {
        "since": "2026-11-01",
        "until": "2026-11-30",
        "currency": "EUR",
        "by": ["key", "model"],
        "rows": [
            {"key": "alice", "model": "gpt-4o", **alice, "total_tokens": 360, "cost": 0.00135},
            {"key": "bob", "model": "gpt-4o-mini", **bob, "total_tokens": 0, "cost": 0.0},
        ],
        "total": {**alice, "requests": 4, "errors": 1, "total_tokens": 360, "cost": 0.00135},
    }


def test_csv(client: httpx.Client) -> None:
    """It comes as a file, whose name says of which days it is."""
    answer = client.get("/usage", params={"by": "day", "format": "csv", **NOVEMBER})

    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="usage-2026-11-01-2026-11-30.csv"'
    assert answer.text.splitlines()[1] == "2026-11-21,4,1,300,150,60,360,0.001350,EUR"


@pytest.mark.parametrize(
    ("query", "param", "message"),
    [
        pytest.param("by=user", "by", 'by is "user"; it takes one or more of key, model, deployment', id="by"),
        pytest.param("since=yesterday", "since", 'since is "yesterday"; it takes a day such as 2026-11-21', id="since"),
        pytest.param("until=2026-11-31", "until", 'until is "2026-11-31"; it takes a day such as', id="until"),
        pytest.param("format=xml", "format", 'format is "xml"; it takes json or csv', id="format"),
        pytest.param("since=2026-11-02&until=2026-11-01", "since", "2026-11-02 is after 2026-11-01", id="swapped"),
        pytest.param("form=csv", None, '"form" is no parameter of /usage: by, since, until and format are', id="name"),
    ],
)
def test_wrong_questions(client: httpx.Client, query: str, param: str | None, message: str) -> None:
    """The answer names the parameter, what it got and what it takes."""
    answer = client.get(f"/usage?{query}")
    error = answer.json()["error"]

    assert answer.status_code == 400
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert message in error["message"]


def test_nothing_but_reading(client: httpx.Client) -> None:
    """What is counted cannot be changed there."""
    answer = client.delete("/usage")

    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"
    assert client.head("/usage").status_code == 200


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param(b"", (Question("2026-11-01", "2026-11-21"), False), id="nothing"),
        pytest.param(b"by=&since=&format=", (Question("2026-11-01", "2026-11-21"), False), id="blank"),
        pytest.param(
            b"by=day&by=key&until=2026-10-31",
            (Question("2026-10-01", "2026-10-31", ("day", "key")), False),
            id="by-twice",
        ),
        pytest.param(
            b"by=model%2Ckey&format=csv",
            (Question("2026-11-01", "2026-11-21", ("model", "key")), True),
            id="encoded",
        ),
    ],
)
def test_what_a_query_asks(query: bytes, expected: tuple[Question, bool]) -> None:
    """This month by key, unless it says otherwise."""
    assert usage_asked(query, "2026-11-21") == expected


def test_where_nothing_is_counted() -> None:
    """The answer says what switches it on."""
    with counting(None) as client:
        answer = client.get("/usage")

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "usage_not_counted"
    for words in ("CLIENT_KEYS", "token limit", "prices", "STORE_URL"):
        assert words in answer.json()["message"]


def test_a_store_that_cannot_be_read(tmp_path: Path) -> None:
    """503 with the file and the setting in it, in the shape of all errors there."""
    broken = tmp_path / "usage.json"
    broken.write_text("{")
    with counting(Ledger(UsageFile(broken))) as client:
        answer = client.get("/usage")

    assert answer.status_code == 503
    assert answer.json()["success"] == 0
    assert answer.json()["error"]["code"] == "store_unavailable"
    assert f"{broken} (USAGE_FILE)" in answer.json()["message"]


def test_without_prices(tmp_path: Path) -> None:
    """Where nothing has a price there is no currency, and no cost."""
    with counting(Ledger(UsageFile(tmp_path / "usage.json")), Config()) as client:
        read = client.get("/usage").json()

    assert read["currency"] is None
    assert read["total"]["cost"] is None
