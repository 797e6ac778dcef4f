"""The simple endpoint over real sockets, in front of the emulator."""

import json
from collections.abc import Iterator

import httpx2 as httpx
import pytest

from tests.servers import Gateway, gateway

HELLO = 'You said: "hello".'


@pytest.fixture(scope="module")
def server() -> Iterator[Gateway]:
    """A gateway with the least settings, for all tests that need no other."""
    with gateway() as running:
        yield running


def events(response: httpx.Response) -> list[str]:
    """The data of each event of a stream."""
    assert response.headers["content-type"].partition(";")[0] == "text/event-stream"
    blocks = response.text.split("\n\n")
    assert blocks.pop() == ""
    return [block.removeprefix("data: ") for block in blocks]


def streamed_text(response: httpx.Response) -> str:
    """The text that a stream adds up to."""
    chunks = [json.loads(event) for event in events(response)[:-1]]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def test_json_answer_is_azures_object_with_success_and_text(server: Gateway) -> None:
    """A JSON answer is Azure's completion, unchanged, plus `success` and the first choice's `text`."""
    answer = server.chat(prompt="hello").json()

    assert answer.pop("success") == 1
    assert answer.pop("text") == HELLO
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"] == {
        "annotations": [],
        "content": HELLO,
        "refusal": None,
        "role": "assistant",
    }


def test_upstream_gets_the_messages_in_order_and_the_key_as_api_key(server: Gateway) -> None:
    """Azure gets system, earlier turns, user and assistant, in this order."""
    earlier = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    server.chat(prompt="c", systemPrompt="s", assistantPrompt="d", messages=earlier)

    roles = [(message["role"], message["content"]) for message in server.emulator.received[-1]["messages"]]
    assert roles == [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]


@pytest.mark.parametrize(
    ("content_type", "body", "query"),
    [
        pytest.param("application/json", b'{"prompt": "hello", "n": 2}', "", id="json"),
        pytest.param("application/json; charset=utf-8", b'{"userPrompt": "hello", "n": "2"}', "", id="json-as-text"),
        pytest.param("application/x-www-form-urlencoded", b"prompt=hello&n=2", "", id="form"),
        pytest.param("application/x-www-form-urlencoded", b'{"prompt": "hello", "n": 2}', "", id="unlabelled-json"),
        pytest.param("text/plain", b"hello", "?n=2", id="text"),
        pytest.param("text/plain; charset=utf-8", b"hello", "?n=2&user=me", id="text-charset"),
    ],
)
def test_every_way_to_send_a_prompt_means_the_same(server: Gateway, content_type: str, body: bytes, query: str) -> None:
    """JSON, a form, unlabelled JSON and plain text with a query string give the same call."""
    response = server.client.post(f"/v1/gpt/chat{query}", content=body, headers={"content-type": content_type})

    assert response.status_code == 200
    assert [choice["message"]["content"] for choice in response.json()["choices"]] == [HELLO, HELLO]
    assert server.emulator.received[-1]["n"] == 2


def test_stream_is_azures_chunks_as_data_only_events_ended_by_done(server: Gateway) -> None:
    """With `stream`, each chunk is one data-only event, Azure's prompt filter chunk first and `[DONE]` last."""
    response = server.chat(prompt="hello", stream=True, stream_options={"include_usage": True})

    first, *_, usage, last = events(response)
    assert json.loads(first)["choices"] == []
    assert json.loads(usage)["usage"]["completion_tokens"] == 3
    assert last == "[DONE]"
    assert streamed_text(response) == HELLO
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("stream", [False, True])
def test_accept_text_plain_gives_just_the_text(server: Gateway, stream: bool) -> None:
    """`Accept: text/plain` gives the text alone, streamed or not."""
    accept = {"accept": "text/plain"}
    response = server.client.post("/v1/gpt/chat", json={"prompt": "hello", "stream": stream}, headers=accept)

    assert response.text == HELLO
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert ("transfer-encoding" in response.headers) is stream


def test_text_of_a_filtered_answer_tells_why_it_is_empty(server: Gateway) -> None:
    """An empty text comes with the finish reason that explains it."""
    fields = {"prompt": "hello", "model": "fault-filter-answer"}
    response = server.client.post("/v1/gpt/chat", json=fields, headers={"accept": "text/plain"})

    assert response.text == ""
    assert response.headers["x-chat-api-finish-reason"] == "content_filter"


def test_tool_call_has_null_text(server: Gateway) -> None:
    """An answer that calls a tool has `text` null and the call where Azure puts it."""
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    answer = server.chat(prompt="hello", tools=tools, tool_choice="required").json()

    assert answer["text"] is None
    assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "look"


def test_useful_upstream_headers_go_on_to_the_client(server: Gateway) -> None:
    """The ids, the region and what is left of the quota reach the caller, with the gateway's own request id."""
    headers = server.chat(prompt="hello").headers

    assert headers["x-ms-region"] == "Emulated"
    assert headers["x-ratelimit-remaining-tokens"] == "99998"
    assert {"apim-request-id", "x-request-id", "x-chat-api-request-id"} <= set(headers)
    assert "server" not in headers
    assert not [name for name in headers if name.startswith("access-control-")]


def test_defaults_from_the_environment_fill_in_and_the_caller_wins() -> None:
    """A default is sent where the request is silent, null or empty, and the request's own value beats it."""
    with gateway(temperature="0.25", stop="###", max_tokens="64") as server:
        server.chat(prompt="hello", temperature=1.5, stop=None, max_tokens="")
        received = server.emulator.received[-1]

    assert received == {
        "messages": [{"role": "user", "content": "hello"}],
        "temperature": 1.5,
        "stop": "###",
        "max_tokens": 64,
    }


def test_stream_can_be_the_default_and_be_declined() -> None:
    """`stream=true` in the environment streams, and a request may say false."""
    with gateway(stream="true") as server:
        assert events(server.chat(prompt="hello"))[-1] == "[DONE]"
        assert server.chat(prompt="hello", stream=False).json()["text"] == HELLO


def test_reasoning_model_is_asked_again_with_the_parameters_it_takes_and_remembered() -> None:
    """max_tokens is renamed, a default temperature left out; it is told, and the next call is right at once."""
    with gateway(temperature="0.5", DEPLOYMENT_NAME="o4-mini") as server:
        first = server.chat(prompt="hello", max_tokens=50)
        asked = len(server.emulator.received)
        second = server.chat(prompt="hello", max_tokens=50, stream=True)
        received = list(server.emulator.received)

    told = "max_tokens sent as max_completion_tokens, default temperature left out"
    assert first.status_code == 200
    assert first.headers["x-chat-api-adapted"] == second.headers["x-chat-api-adapted"] == told
    assert (asked, len(received)) == (3, 4)
    assert received[-1]["max_completion_tokens"] == 50
    assert {"temperature", "max_tokens"}.isdisjoint(received[-1])


def test_value_that_the_caller_sent_is_never_dropped() -> None:
    """A temperature of the caller's that the model refuses is a 400 that names it."""
    with gateway(DEPLOYMENT_NAME="o4-mini") as server:
        response = server.chat(prompt="hello", temperature=0.5)
        attempts = len(server.emulator.received)

    assert response.status_code == 400
    assert response.json()["error"]["param"] == "temperature"
    assert response.json()["error"]["code"] == "unsupported_value"
    assert attempts == 1


def test_v1_api_gets_the_deployment_as_model() -> None:
    """API_VERSION=v1 selects the v1 path, which refuses dated versions, with the deployment in the body."""
    with gateway(API_VERSION="v1") as server:
        assert server.chat(prompt="hello", model="gpt-4.1").json()["text"] == HELLO
        assert server.emulator.received[-1]["model"] == "gpt-4.1"


def test_extra_is_merged_as_it_is(server: Gateway) -> None:
    """What `extra` holds reaches Azure, whose own error comes back for what it does not know."""
    response = server.chat(prompt="hello", extra={"wishes": True})

    assert response.status_code == 400
    assert response.json()["message"].startswith("Unrecognized request argument supplied: wishes")


XML = {"content": b"<x/>", "headers": {"content-type": "application/xml"}}
TYPE = "unsupported_media_type"
NOT_FOUND = 'Hint: deployment "nope" not found at host 127.0.0.1'


@pytest.mark.parametrize(
    ("request_", "status", "code", "param", "message"),
    [
        ({"json": {}}, 400, "missing_prompt", "prompt", "prompt is missing"),
        ({"json": {"promt": "x"}}, 400, "unknown_field", "promt", 'did you mean "prompt"'),
        ({"json": {"prompt": "x", "n": 0}}, 400, "invalid_value", "n", "n is 0; it takes"),
        ({"json": [1]}, 400, "invalid_json", None, "the body is an array"),
        (XML, 415, TYPE, None, "application/xml"),
        ({"files": {"prompt": b"x"}}, 415, TYPE, None, "multipart/form-data"),
        ({"json": {"prompt": "x", "model": "nope"}}, 404, "DeploymentNotFound", None, NOT_FOUND),
        ({"json": {"prompt": "x", "model": ".."}}, 400, "invalid_model", "model", "no deployment is called"),
    ],
    ids=["nothing", "typo", "range", "array", "xml", "multipart", "deployment", "dots"],
)
def test_bad_input_names_what_is_wrong(
    server: Gateway, request_: dict[str, object], status: int, code: str, param: str | None, message: str
) -> None:
    """Every refusal is JSON with a true status, a code, and a message that names the field."""
    response = server.client.post("/v1/gpt/chat", **request_)  # type: ignore[arg-type]
    answer = response.json()

    assert response.status_code == status
    assert answer["success"] == 0
    assert answer["error"]["message"] == answer["message"]
    assert message in answer["message"]
    assert (answer["error"]["code"], answer["error"]["param"]) == (code, param)


def test_body_above_the_limit_is_413_with_and_without_a_length() -> None:
    """MAX_BODY_BYTES holds for bodies that announce their length and for chunked ones."""
    with gateway(MAX_BODY_BYTES="100") as server:
        declared = server.client.post("/v1/gpt/chat", content=b"x" * 101, headers={"content-type": "text/plain"})
        chunked = server.client.post(
            "/v1/gpt/chat", content=iter([b"x" * 60, b"x" * 60]), headers={"content-type": "text/plain"}
        )
        fits = server.client.post("/v1/gpt/chat", content=b"x" * 100, headers={"content-type": "text/plain"})

    for response in (declared, chunked):
        assert response.status_code == 413
        assert response.json()["error"]["code"] == "body_too_large"
    assert fits.status_code == 200


def test_without_a_key_the_callers_own_is_used_and_needed() -> None:
    """With KEY unset the caller's api-key or Bearer goes upstream as the key; without one it is a 401 of ours."""
    with gateway(KEY="") as server:
        own = server.client.post("/v1/gpt/chat", json={"prompt": "hello"}, headers={"api-key": "canary-azure-key"})
        bearer = {"authorization": "Bearer canary-azure-key"}
        borne = server.client.post("/v1/gpt/chat", json={"prompt": "hello"}, headers=bearer)
        calls = len(server.emulator.received)
        none = server.chat(prompt="hello")

        assert own.status_code == borne.status_code == 200
        assert none.status_code == 401
        assert none.json()["error"]["code"] == "missing_credential"
        assert len(server.emulator.received) == calls == 2


def test_without_a_deployment_a_request_has_to_name_its_model() -> None:
    """No DEPLOYMENT_NAME and no model is a 400 that names both."""
    with gateway(DEPLOYMENT_NAME="") as server:
        refused = server.chat(prompt="hello")
        named = server.chat(prompt="hello", model="gpt-4o")

    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "model"
    assert "DEPLOYMENT_NAME" in refused.json()["message"]
    assert named.status_code == 200


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/v1", "/v1/"])
def test_any_method_on_v1_says_that_the_api_is_there(server: Gateway, method: str, path: str) -> None:
    """`/v1` and `/v1/` answer every method alike, without a redirect."""
    response = server.client.request(method, path)

    assert response.status_code == 200
    assert response.content == b'{"success":1,"message":"GPT API: OK"}'


@pytest.mark.parametrize("path", ["/health", "/healthz", "/"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_health_checks_are_200(server: Gateway, method: str, path: str) -> None:
    """What probes ask is answered 200."""
    assert server.client.request(method, path).status_code == 200


def test_front_page_shows_a_browser_what_this_is_and_others_json(server: Gateway) -> None:
    """A browser gets a short page with the curl to try, everything else the same as JSON."""
    page = server.client.get("/", headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    other = server.client.get("/")

    curl = f"curl http://127.0.0.1:{server.port}/v1/gpt/chat -d prompt=hello"
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert curl in page.text
    assert "{{" not in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert other.json()["try"] == curl


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "allow"),
    [
        pytest.param("GET", "/v1/gpt/chat", 405, "method_not_allowed", "POST", id="get-chat"),
        pytest.param("POST", "/", 405, "method_not_allowed", "GET, HEAD", id="post-root"),
        pytest.param("POST", "/v1/gpt/chatt", 404, "unknown_path", None, id="path"),
        pytest.param("GET", "/v1/gpt/../../etc/passwd", 404, "unknown_path", None, id="traversal"),
        pytest.param("GET", "//v1", 404, "unknown_path", None, id="doubled-slash"),
    ],
)
def test_what_is_not_served_is_json_too(
    server: Gateway, method: str, path: str, status: int, code: str, allow: str | None
) -> None:
    """Wrong paths and methods answer in the endpoint's own error shape."""
    response = server.client.request(method, httpx.URL(server.client.base_url, raw_path=path.encode()))

    assert response.status_code == status
    assert response.json()["success"] == 0
    assert response.json()["error"]["code"] == code
    assert response.headers.get("allow") == allow
