"""Client keys and their limits over real sockets: who is let in, for what, how often, and what each is told."""

import contextlib
import gzip
import json
import logging
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from chat_api.callers import digest_of
from tests.servers import Gateway, eventually, gateway

CHAT, SIMPLE = "/v1/chat/completions", "/v1/gpt/chat"
HELLO: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
PROMPT = {"prompt": "hi", "model": "gpt-4o"}


def entry(name: str, **fields: object) -> dict[str, object]:
    """A key of the config file, which is presented by its name."""
    return {"name": name, "sha256": digest_of(f"key-of-{name}").hex(), **fields}


@contextlib.contextmanager
def keyed(*keys: dict[str, object], **environ: str) -> Iterator[Gateway]:
    """A gateway with these client keys."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.yaml")
        config.write_text(json.dumps({"client_keys": list(keys)}))
        with gateway(CONFIG_FILE=str(config), USAGE_FILE="none", **environ) as running:
            yield running


def bearer(name: str) -> dict[str, str]:
    """What the holder of a key presents."""
    return {"authorization": f"Bearer key-of-{name}"}


def asked(server: Gateway, name: str, path: str = CHAT, **fields: Any) -> httpx.Response:
    """The answer to a chat of a key's."""
    body = PROMPT if path == SIMPLE else HELLO
    return server.client.post(path, json={**body, **fields}, headers=bearer(name))


def limits_of(response: httpx.Response) -> dict[str, str]:
    """What an answer tells of limits."""
    begin = "x-ratelimit-"
    return {name[len(begin) :]: value for name, value in response.headers.items() if name.startswith(begin)}


@pytest.fixture(scope="module")
def server() -> Iterator[Gateway]:
    """A gateway with keys of many kinds."""
    keys = (
        entry("plain"),
        entry("few", models=["o4-mini", "gpt-3.5-turbo"]),
        entry("old", expires="2020-01-01"),
        entry("away", addresses=["203.0.113.0/24"]),
        entry("counted", tokens="1000000/day", requests="100000/day"),
    )
    with keyed(*keys, MODEL_MAPPER="gpt-3.5-turbo=gpt-4o-mini") as running:
        yield running


HEADS = [
    pytest.param(b"", 401, b"missing_credential", id="no-key"),
    pytest.param(b"authorization: Bearer wrong\r\n", 401, b"invalid_credential", id="wrong-key"),
    pytest.param(b"authorization: Basic a2V5LW9mLXBsYWlu\r\n", 401, b"missing_credential", id="another-scheme"),
    pytest.param(b"api-key: key-of-old\r\n", 401, b"expired_credential", id="expired"),
    pytest.param(b"api-key: key-of-away\r\n", 403, b"ip_not_allowed", id="from-elsewhere"),
]
PATHS = [CHAT, SIMPLE, "/openai/deployments/gpt-4o/chat/completions", "/v1/files", "/v1/audio/transcriptions", "/v1/x"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("header", "status", "code"), HEADS)
def test_refused_before_the_body_is_read(server: Gateway, path: str, header: bytes, status: int, code: bytes) -> None:
    """Who may not call is told so with nothing but his head read, at every path, and nobody upstream is asked."""
    calls = len(server.emulator.requests)
    head = b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n%b\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        sock.sendall(head % (path.encode(), header))
        answer = received(sock, code)

    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert len(server.emulator.requests) == calls


def received(sock: socket.socket, mark: bytes) -> bytes:
    """What comes, up to a mark."""
    answer = b""
    while mark not in answer:
        part = sock.recv(65536)
        assert part, answer
        answer += part
    return answer


@pytest.mark.parametrize("headers", [{"authorization": "bearer key-of-plain"}, {"api-key": "key-of-plain"}])
@pytest.mark.parametrize("path", [CHAT, SIMPLE])
def test_key_is_presented_either_way(server: Gateway, path: str, headers: dict[str, str]) -> None:
    """As Bearer or as an api-key; Azure gets our own key, and nothing of the caller's."""
    body = PROMPT if path == SIMPLE else HELLO
    assert server.client.post(path, json=body, headers=headers).status_code == 200

    presented = [
        value for name, value in server.emulator.requests[-1].headers if name in (b"api-key", b"authorization")
    ]
    assert presented == [b"canary-azure-key"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param(CHAT, HELLO, id="model"),
        pytest.param(CHAT, {**HELLO, "model": None}, id="default"),
        pytest.param(CHAT, {**HELLO, "model": "GPT-4O"}, id="other-letters"),
        pytest.param("/openai/deployments/gpt-4o/chat/completions", {**HELLO, "model": "gpt-4o-mini"}, id="path"),
        pytest.param(
            "/openai/Deployments/gpt-4o/Chat/Completions", {**HELLO, "model": "gpt-4o-mini"}, id="path-letters"
        ),
        pytest.param("/v1/engines/gpt-4o/completions", {"model": "gpt-4o-mini", "prompt": "x"}, id="engine"),
        pytest.param("/v1/responses", {"model": "gpt-4o", "input": "hi"}, id="response"),
        pytest.param("/v1/assistants", {"model": "gpt-4o"}, id="assistant"),
        pytest.param("/v1/threads/t/runs", {"assistant_id": "a"}, id="run"),
        pytest.param("/v1/batches", {"input_file_id": "file-1"}, id="batch"),
        pytest.param(SIMPLE, PROMPT, id="simple"),
        pytest.param(SIMPLE, {"prompt": "hi"}, id="simple-default"),
    ],
)
def test_other_models_are_refused(server: Gateway, path: str, body: dict[str, Any]) -> None:
    """A key that is for some models gets a 403 for any other, however it is called, in the endpoint's own shape."""
    calls = len(server.emulator.requests)
    response = server.client.post(path, json=body, headers=bearer("few"))

    assert response.status_code == 403
    assert response.json()["error"]["code"] == "model_not_allowed"
    assert ("success" in response.json()) == (path == SIMPLE)
    assert "few" in response.json()["error"]["message"]
    assert len(server.emulator.requests) == calls


@pytest.mark.parametrize("path", [CHAT, SIMPLE])
@pytest.mark.parametrize("model", ["o4-mini", "gpt-3.5-turbo", "gpt-4o-mini"])
def test_own_models_are_served(server: Gateway, path: str, model: str) -> None:
    """A key opens its models by their names and by their deployments'."""
    assert asked(server, "few", path, model=model).status_code == 200


def test_list_of_models_is_the_keys(server: Gateway) -> None:
    """Each caller is told of the models that it may use; who has no key of nothing."""

    def models(name: str) -> list[str]:
        return [each["id"] for each in server.client.get("/v1/models", headers=bearer(name)).json()["data"]]

    assert models("plain") == ["gpt-3.5-turbo", "gpt-4o"]
    assert models("few") == ["gpt-3.5-turbo"]
    assert server.client.get("/v1/models/gpt-3.5-turbo", headers=bearer("few")).status_code == 200
    assert server.client.get("/v1/models/gpt-4o", headers=bearer("few")).status_code == 403
    assert server.client.get("/v1/models").status_code == 401
    assert server.client.get("/v1/models", headers=bearer("old")).status_code == 401
    assert server.client.get("/v1/models", headers=bearer("away")).status_code == 403


@pytest.mark.parametrize(
    ("path", "status"), [(CHAT, 200), (SIMPLE, 200), ("/v1/models", 200), ("/v1/files/nope", 404)], ids=str
)
def test_log_names_the_key(server: Gateway, caplog: pytest.LogCaptureFixture, path: str, status: int) -> None:
    """The access log has the key's name at the end of its line; of who has none it has the address alone."""
    caplog.set_level(logging.INFO, "chat_api.access")
    if path.startswith("/v1/chat") or path == SIMPLE:
        assert asked(server, "plain", path).status_code == status
    else:
        assert server.client.get(path, headers=bearer("plain")).status_code == status
    assert eventually(lambda: f" {path} {status} " in caplog.text)

    assert caplog.messages[-1].endswith(" key=plain")
    assert "key-of-" not in caplog.text


def test_log_names_no_key_of_others(server: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    """What is presented and is none of ours is in no line."""
    caplog.set_level(logging.INFO)
    assert asked(server, "nobody").status_code == 401
    assert eventually(lambda: " 401 " in caplog.text)

    assert "key=" not in caplog.text
    assert "nobody" not in caplog.text


@pytest.mark.parametrize("path", [CHAT, SIMPLE])
@pytest.mark.parametrize(
    ("fields", "status"),
    [
        pytest.param({}, 200, id="answer"),
        pytest.param({"stream": True}, 200, id="stream"),
        pytest.param({"temperature": 0.5, "model": "gpt-5-mini"}, 400, id="refused"),
        pytest.param({"model": "fault-500"}, 500, id="failed"),
        pytest.param({"model": "nope"}, 404, id="unknown-model"),
        pytest.param({"model": "fault-reset"}, 502, id="broken"),
    ],
)
def test_every_answer_tells_of_limits(server: Gateway, path: str, fields: dict[str, Any], status: int) -> None:
    """A limited caller is told of its limits with every answer, and of Azure's with none."""
    response = asked(server, "counted", path, **fields)

    assert response.status_code == status
    told = limits_of(response)
    assert sorted(told) == [f"{what}-{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")]
    assert (told["limit-requests"], told["limit-tokens"]) == ("100000", "1000000")
    assert len(response.headers.get_list("x-ratelimit-limit-tokens")) == 1


@pytest.mark.parametrize("path", [CHAT, SIMPLE])
@pytest.mark.parametrize("fields", [{}, {"stream": True}], ids=["answer", "stream"])
def test_unlimited_caller_is_told_of_azures_limits(server: Gateway, path: str, fields: dict[str, Any]) -> None:
    """Who has no limits here is told of Azure's."""
    assert limits_of(asked(server, "plain", path, **fields)).get("limit-tokens") not in (None, "1000000")


def events(response: httpx.Response) -> list[dict[str, Any]]:
    """The chunks of a stream, which ends as it should."""
    *chunks, done, rest = response.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(chunk.removeprefix("data: ")) for chunk in chunks]


@pytest.mark.parametrize("path", [CHAT, SIMPLE])
def test_usage_of_streams_is_hidden_from_who_did_not_ask(server: Gateway, path: str) -> None:
    """Azure is asked what a stream took; the caller gets the chunks that it would have got without."""
    chunks = events(asked(server, "counted", path, stream=True))

    assert json.loads(server.emulator.requests[-1].body)["stream_options"] == {"include_usage": True}
    assert all("usage" not in chunk for chunk in chunks)
    assert [len(chunk["choices"]) for chunk in chunks].count(0) == 1  # Azure's prompt filter


@pytest.mark.parametrize("path", [CHAT, SIMPLE])
def test_usage_of_streams_is_told_to_who_asked(server: Gateway, path: str) -> None:
    """Who asks for usage gets it as Azure sends it."""
    chunks = events(asked(server, "counted", path, stream=True, stream_options={"include_usage": True}))

    assert chunks[-1]["usage"]["total_tokens"] > 0
    assert chunks[1]["usage"] is None


WAYS = [
    pytest.param(CHAT, HELLO, id="plain"),
    pytest.param(f"{CHAT}/", HELLO, id="slash"),
    pytest.param(f"{CHAT}?x=1", HELLO, id="query"),
    pytest.param("/v1/%63hat/completions", HELLO, id="quoted"),
    pytest.param("/v1/Chat/Completions", HELLO, id="letters"),
    pytest.param("/openai/deployments/gpt-4o/chat/completions", HELLO, id="deployment"),
    pytest.param("/openai/Deployments/GPT-4O/chat/completions", HELLO, id="deployment-letters"),
    pytest.param("/v1/engines/gpt-4o/chat/completions", HELLO, id="engine"),
    pytest.param("/openai/v1/chat/completions", HELLO, id="azures-v1"),
    pytest.param(CHAT, {**HELLO, "model": "Gpt-4o"}, id="model-letters"),
    pytest.param(CHAT, {**HELLO, "model": None}, id="default"),
    pytest.param(CHAT, {**HELLO, "stream": True}, id="stream"),
    pytest.param(CHAT, {**HELLO, "stream_options": None}, id="options"),
    pytest.param(SIMPLE, PROMPT, id="simple"),
    pytest.param(SIMPLE, {**PROMPT, "stream": True}, id="simple-stream"),
    pytest.param("/v1/responses", {"model": "gpt-4o", "input": "hi"}, id="response"),
    pytest.param("/v1/completions", {"model": "gpt-4o", "prompt": "hi"}, id="legacy"),
    pytest.param("/v1/threads/runs", {"model": "gpt-4o", "assistant_id": "a"}, id="run-with-a-model"),
]


@pytest.fixture(scope="module")
def used_up() -> Iterator[Gateway]:
    """A gateway whose model has had all its tokens of this day."""
    limits = {"MODEL_TOKEN_LIMIT": '{"gpt-4o": "100/day"}', "REQ_RATE_LIMIT": f'{{"{CHAT}": "1/day"}}'}
    with keyed(entry("one"), entry("two"), **limits) as running:
        words = [{"role": "user", "content": "a " * 60}]
        assert asked(running, "one", messages=words, max_tokens=30).status_code == 200
        yield running


@pytest.mark.parametrize(("path", "body"), WAYS)
def test_no_way_around_the_limit_of_a_model(used_up: Gateway, path: str, body: dict[str, Any]) -> None:
    """Whoever calls a model by whatever name and path: it has had its tokens."""
    calls = len(used_up.emulator.requests)
    named = "max_output_tokens" if path == "/v1/responses" else "max_tokens"
    response = used_up.client.post(path, json={**body, named: 20}, headers=bearer("two"))

    assert response.status_code == 429
    assert response.json()["error"]["message"].startswith("model gpt-4o has 100 tokens a day")
    assert len(used_up.emulator.requests) == calls


@pytest.mark.parametrize(("path", "body"), [way for way in WAYS if way.id in ("slash", "quoted", "letters", "engine")])
def test_no_way_around_the_limit_of_a_route(used_up: Gateway, path: str, body: dict[str, Any]) -> None:
    """However a path is spelled, it is the route that it is."""
    response = used_up.client.post(path, json={**body, "model": "gpt-4o-mini"}, headers=bearer("one"))

    assert response.status_code == 429
    assert "may make 1 requests a day" in response.json()["error"]["message"]


@pytest.fixture(scope="module")
def tight() -> Iterator[Gateway]:
    """A gateway whose keys may do next to nothing."""
    keys = [entry(f"once-{number}", requests="1/day") for number in range(10)]
    with keyed(*keys, entry("few-tokens", tokens="200/day"), entry("alone", max_parallel=1)) as running:
        yield running


@pytest.mark.parametrize("path", [CHAT, SIMPLE])
def test_refused_caller_is_told_in_the_shape_of_the_endpoint(tight: Gateway, path: str) -> None:
    """A 429 has OpenAI's error, when to come again and all limits; at the simple endpoint its own shape."""
    name = "once-0" if path == CHAT else "once-1"
    assert asked(tight, name, path).status_code == 200
    response = asked(tight, name, path)

    assert response.status_code == 429
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert error["message"].startswith(f"the client key {name} may make 1 requests a day; try again in ")
    assert ("success" in response.json()) == (path == SIMPLE)
    assert (response.headers["retry-after"], response.headers["x-should-retry"]) == ("60", "false")
    told = limits_of(response)
    assert (told["limit-requests"], told["remaining-requests"]) == ("1", "0")


def test_refused_stream_has_a_true_status(tight: Gateway) -> None:
    """A streamed call that is refused is no stream."""
    assert [asked(tight, "once-2", path, stream=True).status_code for path in (CHAT, SIMPLE)] == [200, 429]


def test_old_http_is_counted(tight: Gateway) -> None:
    """So are requests of HTTP/1.0."""
    body = json.dumps(HELLO).encode()
    head = b"POST %b HTTP/1.0\r\nhost: localhost\r\napi-key: key-of-once-4\r\ncontent-length: %d\r\n\r\n"
    answers = []
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", tight.port), timeout=10) as sock:
            sock.sendall(head % (CHAT.encode(), len(body)) + body)
            answers.append(received(sock, b"\r\n\r\n").split(b" ")[1])

    assert answers == [b"200", b"429"]


@pytest.mark.parametrize(
    ("name", "method", "path"),
    [("once-5", "HEAD", "/v1/files/x"), ("once-6", "GET", "/v1/files"), ("once-7", "PUT", CHAT)],
)
def test_every_request_that_goes_upstream_is_one(tight: Gateway, name: str, method: str, path: str) -> None:
    """Whatever the method, and however it ended: what went upstream was a request."""
    calls = len(tight.emulator.requests)
    body = json.dumps(HELLO).encode() if method == "PUT" else None
    answers = [tight.client.request(method, path, content=body, headers=bearer(name)).status_code for _ in range(2)]

    assert answers[1] == 429
    assert len(tight.emulator.requests) == calls + 1


def test_what_never_goes_upstream_is_no_request(tight: Gateway) -> None:
    """A call that cannot be made, and what is answered here, takes nothing of a limit."""
    headers = bearer("once-8")
    assert tight.client.post(CHAT, content=b"{", headers=headers).status_code == 400
    assert tight.client.get("/v1/models", headers=headers).status_code == 200
    packed = {**headers, "content-encoding": "gzip", "content-type": "application/json"}
    assert tight.client.post(CHAT, content=gzip.compress(json.dumps(HELLO).encode()), headers=packed).status_code == 415
    assert [asked(tight, "once-8").status_code for _ in range(2)] == [200, 429]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"max_tokens": 300}, id="max-tokens"),
        pytest.param({"max_completion_tokens": 10**30}, id="beyond-sense"),
        pytest.param({"max_tokens": 50, "n": 5}, id="choices"),
        pytest.param({"messages": [{"role": "user", "content": "word " * 1000}]}, id="prompt"),
    ],
)
def test_call_that_is_larger_than_any_limit(tight: Gateway, fields: dict[str, Any]) -> None:
    """A call that could take more than its caller may ever have is refused, with the word not to try again."""
    response = asked(tight, "few-tokens", **fields)

    assert response.status_code == 429
    assert response.json()["error"]["code"] == "request_too_large"
    assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("path", [CHAT, SIMPLE])
@pytest.mark.parametrize(
    ("model", "stream"), [("fault-hang", False), ("fault-hang", True), ("fault-stall", False), ("fault-stall", True)]
)
def test_place_of_a_client_that_left_is_free(tight: Gateway, path: str, model: str, stream: bool) -> None:
    """Whenever a client leaves, before the answer or within it, its place is the next one's."""
    body = json.dumps({**(PROMPT if path == SIMPLE else HELLO), "model": model, "stream": stream}).encode()
    head = b"POST %b HTTP/1.1\r\nhost: localhost\r\napi-key: key-of-alone\r\ncontent-type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", tight.port), timeout=10) as sock:
        sock.sendall(head % path.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
        assert eventually(lambda: tight.emulator.open_calls == 1, seconds=5)
        refused = asked(tight, "alone", path)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_parallel_calls")
        assert refused.headers["retry-after"] == "1"

    assert eventually(lambda: asked(tight, "alone", path).status_code == 200, seconds=5)
