"""What operators and load balancers see: readiness, the live view, and the moment between a signal and the drain."""

import asyncio
import http.client
import json
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx2 as httpx
import pytest

from benchmarks.callers import KINDS, PATIENCE_SECONDS
from chat_api import settings
from chat_api.app import App, create_app
from chat_api.emulator import Outage
from tests.processes import PYTHON_APP, process
from tests.regions import KEY, Regions, regions
from tests.servers import NO_FILE, eventually

pytestmark = pytest.mark.alone  # it looks at what happens when

OPERATOR_KEY = "canary-operator-key"
CLIENT_KEY = "canary-client-key"
ELSEWHERE = {"host": "gateway.example.com"}
LISTENS = r"listens at http://127\.0\.0\.1:(\d+)"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Regions]:
    """A gateway that asks callers and operators for their keys."""
    with regions(2, CLIENT_KEYS=CLIENT_KEY, OPERATOR_KEY=OPERATOR_KEY) as running:
        yield running


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="this-machine"),
        pytest.param({"x-forwarded-for": "203.0.113.9"}, id="through-a-proxy"),
        pytest.param({**ELSEWHERE, "authorization": "Bearer wrong"}, id="another-host-and-a-wrong-key"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_anyone_may_ask_whether_it_is_ready(guarded: Regions, headers: dict[str, str], method: str) -> None:
    """A load balancer has no key; it learns a word and no more, and nothing on the way keeps it."""
    answer = guarded.client.request(method, "/ready", headers=headers)

    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert method == "HEAD" or answer.json() == {"ready": True}


@pytest.mark.parametrize("kind", ["503", "429"], ids=["ejected", "cooled-down"])
def test_not_ready_while_no_deployment_takes_calls(kind: str) -> None:
    """One that is left is enough; with none it fails, and when one is back it is ready again, before any call."""
    with regions(2) as running:
        seen = []
        for region in running.all:
            region.emulator.outage = Outage(kind)
            for _ in range(2):
                running.call(KINDS[0])
            seen.append(running.client.get("/ready").status_code)
        why = running.client.get("/ready").json()
        told = running.client.get("/status").json()["ready"]
        alive = running.client.get("/v1").status_code
        for region in running.all:
            region.emulator.outage = None
        is_back = eventually(lambda: running.client.get("/ready").status_code == 200, PATIENCE_SECONDS)
        answered = running.call(KINDS[0])

    assert seen == [200, 503]
    assert why == {"ready": False, "why": "no deployment is available"}
    assert told is False
    assert alive == 200
    assert is_back
    assert answered.is_good


ALLOWED = [
    pytest.param({}, id="this-machine"),
    pytest.param({"host": "localhost:1"}, id="by-name"),
    pytest.param({**ELSEWHERE, "authorization": f"Bearer {OPERATOR_KEY}"}, id="bearer"),
    pytest.param({**ELSEWHERE, "api-key": OPERATOR_KEY}, id="api-key"),
    pytest.param({"x-forwarded-for": "203.0.113.9", "api-key": OPERATOR_KEY}, id="through-a-proxy-with-the-key"),
]
REFUSED = [
    pytest.param({"x-forwarded-for": "127.0.0.1"}, id="x-forwarded-for"),
    pytest.param({"forwarded": "for=127.0.0.1"}, id="forwarded"),
    pytest.param({"x-real-ip": "127.0.0.1"}, id="x-real-ip"),
    pytest.param({"via": "1.1 proxy"}, id="via"),
    pytest.param(ELSEWHERE, id="another-host"),
    pytest.param({"host": "localhost.example.com"}, id="a-name-that-looks-local"),
    pytest.param({"origin": "http://localhost:3000"}, id="a-page-on-this-machine"),
    pytest.param({"origin": "https://example.com"}, id="a-page-elsewhere"),
    pytest.param({"origin": "null"}, id="a-page-of-nowhere"),
    pytest.param({**ELSEWHERE, "api-key": CLIENT_KEY}, id="a-client-key"),
    pytest.param({**ELSEWHERE, "api-key": OPERATOR_KEY[:-1]}, id="half-a-key"),
    pytest.param({**ELSEWHERE, "api-key": f"{KEY}0"}, id="our-key-of-the-resource"),
]


@pytest.mark.parametrize("headers", ALLOWED)
def test_status_is_for_this_machine_and_who_has_the_key(guarded: Regions, headers: dict[str, str]) -> None:
    """The live view tells of every deployment, and no key is in it."""
    answer = guarded.client.get("/status", headers=headers)

    assert answer.status_code == 200
    assert [row["deployment"] for row in answer.json()["deployments"]] == [region.label for region in guarded.all]
    assert "canary" not in answer.text
    assert "canary" not in str(answer.headers)


@pytest.mark.parametrize("headers", REFUSED)
def test_status_is_for_nobody_else(guarded: Regions, headers: dict[str, str]) -> None:
    """Not through a proxy on this machine, not from web pages, not under another name, not with another key."""
    answer = guarded.client.get("/status", headers=headers)

    assert answer.status_code == 403
    assert "deployments" not in answer.text
    assert "canary" not in answer.text


@pytest.mark.parametrize(
    ("client", "headers", "expected"),
    [
        pytest.param("127.0.0.1", {}, 200, id="this-machine"),
        pytest.param("::1", {}, 200, id="this-machine-ipv6"),
        pytest.param("203.0.113.9", {}, 403, id="elsewhere"),
        pytest.param("::ffff:203.0.113.9", {}, 403, id="elsewhere-mapped"),
        pytest.param("203.0.113.9", {"x-forwarded-for": "127.0.0.1"}, 403, id="elsewhere-that-says-it-is-here"),
        pytest.param("203.0.113.9", {"api-key": OPERATOR_KEY}, 200, id="elsewhere-with-the-key"),
        pytest.param("", {}, 403, id="nobody-knows-where"),
    ],
)
def test_status_looks_at_the_address_of_the_connection(client: str, headers: dict[str, str], expected: int) -> None:
    """What counts is who is connected, whatever the request says."""
    app = create_app(settings.load({"OPERATOR_KEY": OPERATOR_KEY, "CLIENT_KEYS": CLIENT_KEY}, NO_FILE))

    assert asyncio.run(_status_of(app, client, {"host": "localhost", **headers})) == expected


async def _status_of(app: App, client: str, headers: dict[str, str]) -> int:
    """The status that a client at this address gets."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    async with app.router.lifespan_context(app) as state:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/status",
            "raw_path": b"/status",
            "root_path": "",
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": (client, 50000) if client else None,
            "server": ("127.0.0.1", 8080),
            "state": state,
        }
        await app(scope, receive, send)
    status: int = sent[0]["status"]
    return status


@pytest.mark.parametrize("path", ["/status", "/ready"])
def test_operators_paths_do_nothing_but_answer(guarded: Regions, path: str) -> None:
    """Nothing is changed there: what is posted is refused, or answered as what is got."""
    answer = guarded.client.post(path, json={"state": "ejected"})

    assert answer.status_code == (405 if path == "/status" else 200)


def test_status_follows_what_happens() -> None:
    """Calls, failures, the state and for how long, the last error in a word, what is left of quota and budget."""
    with regions(2) as running:
        sick, well = running.all
        sick.emulator.outage = Outage("503")
        for kind in KINDS:
            assert running.call(kind).is_good
        rows = running.status()
        budget = running.client.get("/status").json()["retry_budget"]

    assert rows[sick.label]["state"] == "ejected"
    assert 0 < rows[sick.label]["ejected_seconds"] <= 1
    assert rows[sick.label]["calls"] == rows[sick.label]["failures"] == 1
    assert rows[sick.label]["last_error"]["what"] == "503"
    assert rows[well.label]["state"] == "available"
    assert (rows[well.label]["calls"], rows[well.label]["failures"]) == (4, 0)
    assert rows[well.label]["quota"]["requests"] == {"remaining": 99, "limit": 100}
    assert budget == {"calls": 4, "retries": 1, "allowed": 10}


def get(port: int, path: str) -> tuple[int, Any]:
    """The status and the JSON of an answer."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def refuses(port: int) -> bool:
    """Whether nobody listens."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return True
    return False


def test_readiness_fails_before_the_door_closes() -> None:
    """From the signal on it is not ready, but answers until DRAIN_WAIT has passed; then it drains and exits with 0."""
    with process(*PYTHON_APP, DRAIN_WAIT="2") as server:
        port = int(server.wait_for(LISTENS)[1])
        base_url = f"http://127.0.0.1:{port}"
        before = get(port, "/ready")
        slow = {"prompt": "one two three", "model": "fault-slow", "stream": True}
        with httpx.stream("POST", f"{base_url}/v1/gpt/chat", json=slow, timeout=PATIENCE_SECONDS) as stream:
            server.signal(signal.SIGTERM)
            is_told = eventually(lambda: get(port, "/ready")[0] == 503, PATIENCE_SECONDS)
            why = get(port, "/ready")[1]
            status = get(port, "/status")[1]
            answered = httpx.post(f"{base_url}/v1/gpt/chat", json={"prompt": "x"}).status_code
            events = "".join(stream.iter_text())
        is_closed = eventually(lambda: refuses(port), PATIENCE_SECONDS)
        code = server.wait()

    assert before == (200, {"ready": True})
    assert is_told
    assert why == {"ready": False, "why": "draining"}
    assert (status["ready"], status["draining"]) == (False, True)
    assert answered == 200
    assert events.rstrip().endswith("data: [DONE]")
    assert is_closed
    assert code == 0
    assert "Traceback" not in server.output
