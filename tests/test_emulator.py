"""The emulator over HTTP: paths, versions and credentials as Azure has them."""

from collections.abc import Iterator
from contextlib import AsyncExitStack

import httpx2 as httpx
import pytest

from chat_api.emulator import Emulator, open_emulator
from tests.servers import in_thread

CLASSIC = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"
V1 = "/openai/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "hi"}], "model": "gpt-4o"}
TOKEN = "eyJh.eyJz.c2ln"


@pytest.fixture(scope="module")
def azure() -> Iterator[httpx.Client]:
    """A client of an emulated resource whose only key is `k`."""
    with in_thread() as run:
        stack = AsyncExitStack()
        base_url = run(stack.enter_async_context(open_emulator(Emulator(keys=frozenset({"k"})))))
        with httpx.Client(base_url=base_url, timeout=10) as client:
            yield client
        run(stack.aclose())


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        pytest.param(CLASSIC, {"api-key": "k"}, 200, None, id="classic-key"),
        pytest.param(V1, {"api-key": "k"}, 200, None, id="v1-key"),
        pytest.param(V1, {"authorization": "Bearer k"}, 200, None, id="v1-key-as-bearer"),
        pytest.param(CLASSIC, {"authorization": f"Bearer {TOKEN}"}, 200, None, id="classic-token"),
        pytest.param(CLASSIC, {"authorization": "Bearer k"}, 401, None, id="classic-key-as-bearer"),
        pytest.param(CLASSIC, {"api-key": "x"}, 401, "401", id="wrong-key"),
        pytest.param(CLASSIC, {}, 401, "401", id="no-key"),
        pytest.param(CLASSIC.partition("?")[0], {"api-key": "k"}, 404, "404", id="no-version"),
        pytest.param(CLASSIC + "x", {"api-key": "k"}, 404, "404", id="unknown-version"),
        pytest.param(V1 + "?api-version=2024-10-21", {"api-key": "k"}, 400, "BadRequest", id="dated-version-on-v1"),
        pytest.param(V1 + "?api-version=preview", {"api-key": "k"}, 200, None, id="preview-on-v1"),
        pytest.param(CLASSIC.replace("gpt-4o", "x"), {"api-key": "k"}, 404, "DeploymentNotFound", id="deployment"),
        pytest.param("/openai/nothing", {"api-key": "k"}, 404, "404", id="path"),
    ],
)
def test_paths_versions_and_credentials(
    azure: httpx.Client, path: str, headers: dict[str, str], status: int, code: str | None
) -> None:
    """Each path wants its version and its credential, and says no in Azure's own words."""
    response = azure.post(path, json=BODY, headers=headers)

    assert response.status_code == status
    assert response.json().get("error", {}).get("code") == code
    assert "apim-request-id" in response.headers
    if status == 401 and code is None:
        assert response.json()["statusCode"] == 401  # API Management's family: no error object


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"messages": []}', b"{}"])
def test_body_that_is_no_chat_is_400(azure: httpx.Client, body: bytes) -> None:
    """What the model cannot read is an error of the model's own family."""
    response = azure.post(CLASSIC, content=body, headers={"api-key": "k"})

    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_same_request_gets_the_same_bytes(azure: httpx.Client) -> None:
    """Answers are deterministic, streamed ones too."""
    for stream in (False, True):
        first, second = (azure.post(CLASSIC, json={**BODY, "stream": stream}, headers={"api-key": "k"}) for _ in "ab")
        assert first.content == second.content
        assert first.headers["x-ms-deployment-name"] == "gpt-4o"


def test_throttled_deployment_sends_both_retry_headers(azure: httpx.Client) -> None:
    """429 comes with Retry-After in seconds and retry-after-ms."""
    response = azure.post(CLASSIC.replace("gpt-4o", "fault-429"), json=BODY, headers={"api-key": "k"})

    assert response.status_code == 429
    assert (response.headers["retry-after"], response.headers["retry-after-ms"]) == ("1", "1000")
