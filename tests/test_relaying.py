"""The relay of OpenAI's API over real sockets: bytes, headers, keys, uploads, pings, models, further upstreams."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.servers import KEY, Gateway, eventually, gateway, in_thread

CHAT = "/v1/chat/completions"
HELLO: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
JWT = "eyJhbGciOiJub25lIn0.e30.c2ln"
# Everything that a JSON library would write otherwise.
ODD = (
    b'{ "seed" : 12345678901234567890123, "temperature":1.0,\n\t"top_p":1E-1 , "user":"\\u00e9\\ud83d\\ude00",'
    b'"metadata":{"b":1,"a":2},  "messages":[{"content":"hi\\/there","role":"user"}], "model":"gpt-4o" }  '
)


@pytest.fixture(scope="module")
def server() -> Iterator[Gateway]:
    """A gateway to Azure's classic API, with a model that is mapped."""
    with gateway(MODEL_MAPPER="gpt-3.5-turbo=gpt-4o-mini") as running:
        yield running


@pytest.fixture(scope="module")
def v1() -> Iterator[Gateway]:
    """A gateway to Azure's v1 API."""
    with gateway(API_VERSION="v1", MODEL_MAPPER="gpt-3.5-turbo=gpt-4o-mini") as running:
        yield running


def arrived(server: Gateway) -> Any:
    """The latest request that came to the upstream."""
    return server.emulator.requests[-1]


def test_body_goes_on_byte_for_byte(server: Gateway, v1: Gateway) -> None:
    """Spaces, big integers, float spelling, escapes and order survive where the model keeps its name."""
    for one in (server, v1):
        assert one.client.post(CHAT, content=ODD).status_code == 200
        assert arrived(one).body == ODD


def test_body_goes_on_byte_for_byte_under_a_mapped_name(server: Gateway) -> None:
    """On the classic API the path names the deployment, so even a mapped model leaves the body alone."""
    body = ODD.replace(b"gpt-4o", b"gpt-3.5-turbo")
    assert server.client.post(CHAT, content=body).status_code == 200

    assert arrived(server).body == body
    assert arrived(server).target.startswith("/openai/deployments/gpt-4o-mini/chat/completions?")


def test_only_the_model_changes_where_it_has_to(v1: Gateway) -> None:
    """On the v1 API a mapped model's name is replaced; every other value stays as it was spelled."""
    assert v1.client.post(CHAT, content=ODD.replace(b"gpt-4o", b"gpt-3.5-turbo")).status_code == 200

    body: bytes = arrived(v1).body
    assert json.loads(body)["model"] == "gpt-4o-mini"
    for piece in (
        b"12345678901234567890123",
        b"1.0",
        b"1E-1",
        b'"\\u00e9\\ud83d\\ude00"',
        b'{"b":1,"a":2}',
        b"hi\\/there",
    ):
        assert piece in body
    assert list(json.loads(body)) == list(json.loads(ODD))


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        pytest.param("application/x-www-form-urlencoded", b"application/json", id="curl"),
        pytest.param("application/json; charset=utf-8", b"application/json; charset=utf-8", id="json"),
        pytest.param("application/vnd.x+json", b"application/vnd.x+json", id="another-json"),
    ],
)
def test_json_that_curl_calls_a_form(server: Gateway, label: str, expected: bytes) -> None:
    """`curl -d` without a header works: what was read as JSON is sent on as JSON."""
    assert server.client.post(CHAT, content=ODD, headers={"content-type": label}).status_code == 200

    assert dict(arrived(server).headers)[b"content-type"] == expected
    assert arrived(server).body == ODD


HEADERS = {
    "accept": "application/json",
    "user-agent": "my-tool/1.0",
    "x-ms-client-request-id": "abc",
    "aoai-evals": "preview",
    "openai-beta": "assistants=v2",
    "idempotency-key": "key-1",
    "cookie": "session=canary",
    "x-forwarded-for": "10.0.0.1",
    "forwarded": "for=10.0.0.1",
    "x-stainless-os": "Linux",
    "x-custom": "canary",
    "te": "trailers",
    "authorization": "Bearer canary-of-the-caller",
}


def test_request_headers_are_an_allow_list(server: Gateway) -> None:
    """What describes the call goes upstream; credentials, cookies, forwarding notes and the rest do not."""
    assert server.client.post(CHAT, json=HELLO, headers=HEADERS).status_code == 200

    headers = {name.decode(): value.decode() for name, value in arrived(server).headers}
    kept = ("accept", "user-agent", "x-ms-client-request-id", "aoai-evals", "openai-beta", "idempotency-key")
    assert {name: headers[name] for name in kept} == {name: HEADERS[name] for name in kept}
    assert headers["api-key"] == KEY
    assert set(headers) == {*kept, "api-key", "content-type", "content-length", "accept-encoding", "host"}


@pytest.mark.parametrize(
    ("key", "headers", "expected"),
    [
        pytest.param(KEY, {"authorization": "Bearer other"}, ("api-key", KEY), id="the-servers-key-wins"),
        pytest.param(KEY, {}, ("api-key", KEY), id="the-servers-key-alone"),
        pytest.param("", {"authorization": f"Bearer {KEY}"}, ("api-key", KEY), id="bearer-becomes-api-key"),
        pytest.param("", {"api-key": KEY}, ("api-key", KEY), id="api-key"),
        pytest.param("", {"authorization": f"Bearer {JWT}"}, ("authorization", f"Bearer {JWT}"), id="entra-token"),
    ],
)
def test_which_key_goes_upstream(key: str, headers: dict[str, str], expected: tuple[str, str]) -> None:
    """The server's key if it has one, else the caller's; one credential and no more."""
    with gateway(KEY=key) as server:
        assert server.client.post(CHAT, json=HELLO, headers=headers).status_code == 200
        sent = {name.decode(): value.decode() for name, value in arrived(server).headers}

    assert {name: sent[name] for name in ("api-key", "authorization") if name in sent} == dict([expected])


@pytest.mark.parametrize("path", [CHAT, "/v1/files", "/openai/deployments/gpt-4o/embeddings"])
def test_call_without_any_key_is_401_and_no_round_trip(path: str) -> None:
    """Without a key of the server or the caller nothing is sent upstream."""
    with gateway(KEY="") as server:
        answer = server.client.post(path, json=HELLO)

        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "missing_credential"
        assert not server.emulator.requests


def test_errors_have_openais_shape_and_a_request_id(server: Gateway) -> None:
    """An error of our own has the four members and the id under which the log has it."""
    answer = server.client.post(CHAT, content=b"{")

    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.headers["x-request-id"] == answer.headers["x-chat-api-request-id"]


def form(*parts: tuple[str, bytes]) -> tuple[bytes, dict[str, str]]:
    """A multipart form with these `(head, content)` parts, and its headers."""
    boundary = "----odd'boundary(1)"
    pieces = [f"--{boundary}\r\n{head}\r\n\r\n".encode() + content + b"\r\n" for head, content in parts]
    return b"".join(pieces) + f"--{boundary}--\r\n".encode(), {
        "content-type": f'multipart/form-data; boundary="{boundary}"'
    }


@pytest.mark.parametrize("size", [0, 1000, 3_000_000])
@pytest.mark.parametrize("model_first", [True, False])
def test_form_goes_on_byte_for_byte(server: Gateway, size: int, model_first: bool) -> None:
    """Wherever the model stands, and however large the file, the form keeps its bytes, boundary and file name."""
    file = (
        'Content-Disposition: form-data; name="file"; filename="a \\"b\\".wav"\r\nContent-Type: x/y',
        b"\r\n--x" * size,
    )
    model = ('content-disposition: form-data; name="model"', b"whisper-1")
    body, headers = form(*([model, file] if model_first else [file, model]))
    answer = server.client.post("/v1/audio/transcriptions", content=body, headers=headers)

    assert answer.status_code == 200, answer.text
    assert arrived(server).body == body
    assert arrived(server).target.startswith("/openai/deployments/whisper-1/audio/transcriptions?api-version=")
    sent = dict(arrived(server).headers)
    assert sent[b"content-type"].decode() == headers["content-type"]


@pytest.mark.parametrize("size", [10, 2_000_000])
def test_only_the_model_changes_in_a_form(size: int) -> None:
    """For an OpenAI-compatible server a mapped model's name is replaced within the form, and nothing else."""
    with openai_upstream(MODEL_MAPPER="whisper=whisper-one", OPENAI_API_KEY="sk-1") as (server, received):
        file = ('content-disposition: form-data; name="file"; filename="a.wav"', b"y" * size)
        model = ('content-disposition: form-data; name="model"', b"whisper")
        body, headers = form(file, model)
        assert server.client.post("/v1/audio/transcriptions", content=body, headers=headers).status_code == 200

    head, _, sent = received[-1].partition(b"\r\n\r\n")
    assert sent == body.replace(b"\r\n\r\nwhisper\r\n", b"\r\n\r\nwhisper-one\r\n")
    assert f"content-length: {len(sent)}".encode() in head.lower()
    assert head.startswith(b"POST /v1/audio/transcriptions HTTP/1.1\r\n")


@contextlib.contextmanager
def openai_upstream(prefix: str = "", **environ: str) -> Iterator[tuple[Gateway, list[bytes]]]:
    """A gateway to an OpenAI-compatible server that says yes, and the requests that come there, as raw bytes."""
    received: list[bytes] = []
    yes = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 12\r\n\r\n{"id":"yes"}'
    with listening(replying(yes, received=received)) as port:
        urls = {"OPENAI_BASE_URL": f"http://127.0.0.1:{port}{prefix}", "ENDPOINT": "", "KEY": "", "DEPLOYMENT_NAME": ""}
        with gateway(HOST="127.0.0.1", **{**urls, **environ}) as server:
            yield server, received


def replying(response: bytes, *, received: list[bytes] | None = None, after: float = 0) -> Any:
    """A raw server's answer to every request: these bytes, and the end of the connection."""

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        body = await reader.readexactly(int(lines[0][15:]) if lines else 0)  # unread, it would reset the connection
        if received is not None:
            received.append(head + body)
        await asyncio.sleep(after)
        writer.write(response.replace(b"\r\n", b"\r\nconnection: close\r\n", 1))
        await writer.drain()
        writer.close()

    return reply


@contextlib.contextmanager
def listening(serve: Any) -> Iterator[int]:
    """A raw server in a thread; gives its port."""
    with in_thread() as run:
        server = run(asyncio.start_server(serve, "127.0.0.1", 0))
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        pytest.param("", b"/v1/chat/completions", id="origin"),
        pytest.param("/v1", b"/v1/chat/completions", id="as-clients-want-it"),
        pytest.param("/some/path", b"/some/path/v1/chat/completions", id="path"),
        pytest.param("/api/v3", b"/api/v3/chat/completions", id="version-of-its-own"),
        pytest.param("/v1beta/openai", b"/v1beta/openai/chat/completions", id="version-within"),
    ],
)
def test_openai_compatible_upstream(prefix: str, expected: bytes) -> None:
    """An OpenAI-compatible server gets the call at its own path, with the caller's key as Bearer."""
    with openai_upstream(prefix) as (server, received):
        answer = server.client.post(CHAT, content=ODD, headers={"api-key": "sk-caller"})

    assert answer.status_code == 200
    head, _, body = received[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST " + expected + b" HTTP/1.1\r\n")
    assert b"authorization: bearer sk-caller" in head.lower()
    assert b"api-key" not in head.lower()
    assert body == ODD


def test_keys_take_turns() -> None:
    """Several keys of an upstream are used one after the other, whatever the caller presents."""
    with openai_upstream(OPENAI_API_KEY="sk-1, sk-2,'sk-3'") as (server, received):
        for _ in range(4):
            server.client.post(CHAT, json=HELLO, headers={"authorization": "Bearer mine"})

    used = [head.lower().partition(b"bearer ")[2].split(b"\r\n")[0] for head in received]
    assert used == [b"sk-1", b"sk-2", b"sk-3", b"sk-1"]


def test_client_keys_are_asked_for_and_never_sent_on() -> None:
    """With CLIENT_KEYS the server's key is for those who present one of them, which itself stays here."""
    with openai_upstream(OPENAI_API_KEY="sk-1", FORWARD_KEY="fk-1,fk-2") as (server, received):
        statuses = [
            server.client.post(CHAT, json=HELLO, headers={"authorization": f"Bearer {key}"}).status_code
            for key in ("fk-1", "fk-2", "fk-3", "sk-1")
        ]
        statuses.append(server.client.post(CHAT, json=HELLO).status_code)
        statuses.append(server.client.get("/v1/dashboard/billing/usage").status_code)

    assert statuses == [200, 200, 401, 401, 401, 401]
    assert len(received) == 2
    assert all(b"fk-" not in request for request in received)


def test_further_upstreams_at_their_prefixes() -> None:
    """Each prefix leads to its own server; what is not under v1/ goes to the same path there."""
    received: list[bytes] = []

    raw = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nextra"
    answer = replying(raw, received=received)

    with listening(answer) as port:
        extra = {"EXTRA_BASE_URL": f"http://127.0.0.1:{port}/root", "EXTRA_ROUTE_PREFIX": "/local-ai"}
        with openai_upstream(OPENAI_ROUTE_PREFIX="/openai", OPENAI_API_KEY="sk-1", **extra) as (server, main):
            caller = {"authorization": "Bearer mine"}
            main_status = server.client.post("/openai/v1/chat/completions", json=HELLO).status_code
            v1_status = server.client.post(CHAT, json=HELLO).status_code
            extras = [
                server.client.get(path, headers=caller).text
                for path in ("/local-ai/v1/files?limit=2&api-version=x", "/local-ai/translate/a%20b")
            ]

    assert (main_status, v1_status, len(main)) == (200, 200, 2)
    assert extras == ["extra", "extra"]
    assert [request.split(b" ")[1] for request in received] == [b"/root/v1/files?limit=2", b"/root/translate/a%20b"]
    assert all(b"bearer mine" in request.lower() for request in received)


def test_upload_is_passed_on_while_it_comes() -> None:
    """The upstream has the first bytes of a file before the client has sent the last."""
    got = bytearray()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while b"LAST" not in got:
            got.extend(await reader.read(65536))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
        await writer.drain()
        writer.close()

    head = b"POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=x\r\n"
    with (
        listening(answer) as port,
        gateway(ENDPOINT=f"http://127.0.0.1:{port}") as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock,
    ):
        sock.sendall(head + b"transfer-encoding: chunked\r\n\r\n5\r\nFIRST\r\n")
        assert eventually(lambda: b"FIRST" in got)
        sock.sendall(b"4\r\nLAST\r\n0\r\n\r\n")
        received = sock.recv(65536)

    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert got.startswith(b"POST /openai/files?api-version=2024-10-21 HTTP/1.1\r\n")


def test_silence_before_the_answer_is_filled_with_comments() -> None:
    """After PING_INTERVAL 200 and a comment go out; an error can then only be an event, and the stream is cut."""
    with gateway(PING_INTERVAL="0.2") as server:
        started = time.monotonic()
        body = {**HELLO, "model": "fault-delayed-error", "stream": True}
        with server.client.stream("POST", CHAT, json=body) as answer:
            chunks = []
            waited = None
            with contextlib.suppress(httpx.RemoteProtocolError):
                for chunk in answer.iter_raw():
                    waited = waited or time.monotonic() - started
                    chunks.append(chunk)

    text = b"".join(chunks).decode()
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert waited is not None
    assert waited < 1
    assert text.startswith(": ping\n\n")
    assert text.count(": ping\n\n") > 2
    assert json.loads(text.rpartition("data: ")[2])["error"]["code"] == "429"
    assert "[DONE]" not in text


def test_silence_within_a_stream_is_filled_with_comments() -> None:
    """While an answer stalls comments go out, until IDLE_TIMEOUT ends it with an error event."""
    with gateway(PING_INTERVAL="0.1", IDLE_TIMEOUT="0.8") as server:
        body = {**HELLO, "model": "fault-stall", "stream": True}
        text = ""
        with server.client.stream("POST", CHAT, json=body) as answer, contextlib.suppress(httpx.RemoteProtocolError):
            for part in answer.iter_text():
                text += part

    data, _, rest = text.partition(": ping\n\n")
    assert data.startswith("data: {")
    assert ": ping\n\n" in rest
    assert json.loads(rest.rpartition("data: ")[2])["error"]["code"] == "upstream_timeout"


def test_compat_chunks_are_strict() -> None:
    """With COMPAT_CHUNKS every chunk has OpenAI's shape: a delta in each choice, names filled in, no Azure members."""
    with gateway(COMPAT_CHUNKS="true") as server:
        for model in ("gpt-4o", "fault-async-filter"):
            body = {**HELLO, "model": model, "stream": True, "stream_options": {"include_usage": True}}
            events = server.client.post(CHAT, json=body).text.split("\n\n")
            chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]

            assert events[-2:] == ["data: [DONE]", ""]
            for chunk in chunks:
                assert chunk["object"] == "chat.completion.chunk"
                assert chunk["id"]
                assert chunk["choices"] or chunk["usage"]
                assert not {"prompt_filter_results", "obfuscation"} & set(chunk)
                for choice in chunk["choices"]:
                    assert "delta" in choice
                    assert "content_filter_results" not in choice
            assert chunks[-1]["usage"] or model != "gpt-4o"


@pytest.mark.parametrize(
    ("environ", "model", "status", "deployment"),
    [
        pytest.param({}, "gpt-4.1", 200, "gpt-4.1", id="passes-through"),
        pytest.param({}, None, 200, "gpt-4o", id="none-is-the-default"),
        pytest.param({"UNKNOWN_MODEL": "default"}, "text-davinci-003", 200, "gpt-4o", id="default"),
        pytest.param({"UNKNOWN_MODEL": "reject"}, "gpt-4.1", 404, None, id="reject"),
        pytest.param({"UNKNOWN_MODEL": "reject"}, "gpt-4o", 200, "gpt-4o", id="reject-knows-the-default"),
        pytest.param({"DEPLOYMENT_NAME": ""}, None, 400, None, id="none-and-no-default"),
    ],
)
def test_unknown_models(environ: dict[str, str], model: str | None, status: int, deployment: str | None) -> None:
    """What a model gets that is mapped nowhere is a setting; a refusal lists the models that are known."""
    with gateway(MODEL_MAPPER="mini=gpt-4o-mini", **environ) as server:
        answer = server.client.post(CHAT, json={**HELLO, "model": model})
        targets = [request.target for request in server.emulator.requests]

    assert answer.status_code == status
    assert targets == (
        [f"/openai/deployments/{deployment}/chat/completions?api-version=2024-10-21"] if deployment else []
    )
    if status == 404:
        assert "mini" in answer.json()["error"]["message"]


def test_models_are_listed_in_both_shapes(server: Gateway) -> None:
    """The list has OpenAI's members and those that UIs of 2023 read; each entry can be had alone."""
    listing = server.client.get("/v1/models").json()
    names = [entry["id"] for entry in listing["data"]]

    assert listing["object"] == "list"
    assert names == ["gpt-3.5-turbo", "gpt-4o"]
    assert server.client.get("/v1/models/gpt-3.5-turbo").json() == listing["data"][0]
    assert {"id", "object", "created", "owned_by", "permission", "root", "parent"} == set(listing["data"][0])
    assert server.client.get("/v1/models/none").json()["error"]["code"] == "model_not_found"
    assert server.client.head("/v1/models").status_code == 200
    assert server.client.delete("/v1/models/gpt-4o").status_code == 405


@pytest.mark.parametrize("name", ["subscription", "usage?start_date=2024-01-01", "credit_grants"])
def test_old_probes_are_answered(server: Gateway, name: str) -> None:
    """What old chat UIs ask before they let anyone in."""
    assert server.client.get(f"/v1/dashboard/billing/{name}").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v1/engines/text-embedding-3-small/embeddings",
        "/openai/deployments/text-embedding-3-small/embeddings?api-version=2020-01-01&api-key=canary",
        "/openai/v1/deployments/text-embedding-3-small/embeddings",
        "/v1/embeddings/",
    ],
)
def test_other_spellings_of_a_path(server: Gateway, path: str) -> None:
    """Engines, Azure's own paths and a slash at the end lead to the deployment; the api-version is ours to say."""
    answer = server.client.post(path, json={"input": "hi", "model": "text-embedding-3-small"})

    assert answer.status_code == 200, answer.text
    assert arrived(server).target == "/openai/deployments/text-embedding-3-small/embeddings?api-version=2024-10-21"


def test_head_and_health() -> None:
    """HEAD on the front page and any method on /health are 200, for probes."""
    with gateway() as server:
        assert server.client.head("/").status_code == 200
        for method in ("GET", "HEAD", "POST"):
            assert server.client.request(method, "/health").status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_client_that_leaves_closes_the_call(server: Gateway, stream: bool) -> None:
    """Whether it waits for an answer, reads a stream or sends a file, a client that leaves costs nothing more."""
    body = json.dumps({**HELLO, "model": "fault-stall" if stream else "fault-hang", "stream": stream}).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body)
        sock.sendall(head + body)
        assert eventually(lambda: server.emulator.open_calls == 1)
        if stream:
            assert sock.recv(1000)

    assert eventually(lambda: server.emulator.open_calls == 0)


def test_gzip_is_relayed_as_it_came(server: Gateway) -> None:
    """A compressed JSON answer reaches a client that takes it with its own bytes and coding."""
    answer = server.client.post(CHAT, json={**HELLO, "model": "fault-gzip"}, headers={"accept-encoding": "gzip"})

    assert answer.headers["content-encoding"] == "gzip"
    assert answer.json()["object"] == "chat.completion"


def test_wait_of_a_day_is_capped_and_told(server: Gateway) -> None:
    """No client sleeps for a day: the header says a minute, the message says the truth, and not to try again."""
    answer = server.client.post(CHAT, json={**HELLO, "model": "fault-429-day"})

    assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
    assert answer.headers["x-should-retry"] == "false"
    assert "86400" in answer.json()["error"]["message"]


def test_download_that_breaks_off_is_cut() -> None:
    """Bytes that end before their length do not look complete: the connection is cut as well."""

    raw = b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: 1000\r\n\r\n" + b"x" * 500
    answer = replying(raw)

    with listening(answer) as port, gateway(ENDPOINT=f"http://127.0.0.1:{port}") as server:
        got = b""
        with server.client.stream("GET", "/v1/files/f/content") as response:
            parts = response.iter_raw()
            with pytest.raises(httpx.RemoteProtocolError):  # noqa: PT012 - after how many parts is the network's affair
                while True:
                    got += next(parts)

    assert response.status_code == 200
    assert response.headers["content-length"] == "1000"
    assert got == b"x" * 500


def test_error_after_the_first_comment_keeps_its_words() -> None:
    """An error whose body has OpenAI's shape is the stream's last event, once it is too late for a status."""
    error = b'{"error":{"message":"canary message","type":"t","param":"p","code":"c"}}'

    head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(error)
    raw = head + error
    answer = replying(raw, after=0.3)

    with listening(answer) as port, gateway(ENDPOINT=f"http://127.0.0.1:{port}", PING_INTERVAL="0.1") as server:
        text = ""
        asked = server.client.stream("POST", CHAT, json={**HELLO, "stream": True})
        with asked as response, contextlib.suppress(httpx.RemoteProtocolError):
            for part in response.iter_text():
                text += part

    assert response.status_code == 200
    assert json.loads(text.rpartition("data: ")[2]) == json.loads(error)


@pytest.mark.parametrize("chunked", [False, True])
def test_form_that_is_too_large_is_refused(chunked: bool) -> None:
    """A form above MAX_UPLOAD_BYTES is 413, by its length or as it comes, and nothing of it goes upstream."""
    body, headers = form(('content-disposition: form-data; name="file"; filename="a"', b"x" * 20_000))
    content: Any = (body[at : at + 1000] for at in range(0, len(body), 1000)) if chunked else body
    with gateway(MAX_UPLOAD_BYTES="10000") as server:
        answer = server.client.post("/v1/audio/transcriptions", content=content, headers=headers)
        assert not server.emulator.requests

    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert "MAX_UPLOAD_BYTES" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/files", "/v1/audio/transcriptions"])
def test_client_that_leaves_within_its_upload(server: Gateway, path: str) -> None:
    """An upload whose client leaves half-way is let go of, whether it was on its way upstream or not."""
    before = len(server.emulator.requests)
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=x\r\n"
        sock.sendall(head.encode() + b"content-length: 100000\r\n\r\n--x\r\n" + b"y" * 50_000)
        if path == "/v1/files":
            assert eventually(lambda: server.emulator.open_calls == 1)

    assert eventually(lambda: server.emulator.open_calls == 0)
    assert len(server.emulator.requests) == before
    assert server.chat(prompt="hello").status_code == 200


def test_trailers_are_no_headers_and_have_an_end(server: Gateway) -> None:
    """What follows a chunked body changes nothing of the request, and is refused when it does not end."""
    body = json.dumps(HELLO).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    chunks = b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n" % (len(body), body)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        sock.sendall(head + chunks + b"x-ms-injected: yes\r\ncontent-type: text/evil\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
    sent = dict(arrived(server).headers)
    assert b"x-ms-injected" not in sent
    assert sent[b"content-type"] == b"application/json"

    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock:
        try:
            sock.sendall(head + chunks)
            for _ in range(200):
                sock.sendall(b"x: " + b"y" * 1000 + b"\r\n")
            answer = sock.recv(65536)
        except ConnectionError:  # it did not read to the end of what was sent
            return
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_operation_has_one_spelling(server: Gateway) -> None:
    """A path that is quoted without need means the same, its rules included."""
    body = {**HELLO, "model": "fault-no-done", "stream": True}
    with server.client.stream("POST", "/v1/%63hat/%63ompletions", json=body) as answer:
        text = ""
        with contextlib.suppress(httpx.RemoteProtocolError):
            for part in answer.iter_text():
                text += part

    assert json.loads(text.rstrip().rpartition("data: ")[2])["error"]["code"] == "answer_cut_short"


def test_quoted_query_names_are_ours_as_well(server: Gateway) -> None:
    """However it is spelled, the api-version is not the caller's to say."""
    assert server.client.post(f"{CHAT}?api%2Dversion=1&API-KEY=x&a=b", json=HELLO).status_code == 200

    assert arrived(server).target.endswith("?a=b&api-version=2024-10-21")


def test_answer_that_is_no_stream_after_a_comment() -> None:
    """Bytes that come where events were promised do not end as if they had: the stream ends with an error."""

    raw = b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: 3\r\n\r\nmp3"
    answer = replying(raw, after=0.3)

    with listening(answer) as port, gateway(ENDPOINT=f"http://127.0.0.1:{port}", PING_INTERVAL="0.1") as server:
        text = ""
        asked = server.client.stream("POST", "/v1/audio/speech", json={"model": "tts-1", "stream": True})
        with asked as response, pytest.raises(httpx.RemoteProtocolError):  # noqa: PT012
            for part in response.iter_text():
                text += part

    assert json.loads(text.rpartition("data: ")[2])["error"]["code"] == "not_an_answer"


def test_first_event_may_be_large() -> None:
    """A picture that comes as the first event of a stream is no reason to refuse it."""
    event = b'event: image_generation.partial_image\ndata: {"b64_json":"' + b"A" * 2_000_000 + b'"}\n\n'

    raw = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n" + event
    answer = replying(raw)

    with listening(answer) as port, gateway(ENDPOINT=f"http://127.0.0.1:{port}") as server:
        got = server.client.post("/v1/images/generations", json={"model": "gpt-image-1", "prompt": "x", "stream": True})

    assert got.status_code == 200
    assert got.content == event


def test_unreadable_coding_of_an_error_keeps_its_status() -> None:
    """A refusal whose body cannot be opened is still a refusal of its status, with its headers."""

    head = b"HTTP/1.1 429 Too Many Requests\r\ncontent-encoding: br\r\nretry-after: 7\r\ncontent-length: 3\r\n\r\nabc"
    raw = head
    answer = replying(raw)

    with listening(answer) as port, gateway(ENDPOINT=f"http://127.0.0.1:{port}") as server:
        got = server.client.post(CHAT, json=HELLO)

    assert (got.status_code, got.headers["retry-after"]) == (429, "7")


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/chat/completions", "/v1/chat/completions"),
        ("//v1/chat/completions", "/v1/chat/completions"),
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/openai/deployments/d/chat/completions", "/openai/deployments/d/chat/completions"),
        ("/models", "/v1/models"),
    ],
)
def test_base_url_that_is_nearly_right(server: Gateway, path: str, meant: str) -> None:
    """The commonest mistake, a base URL without its `/v1` or with two, is told with what was meant."""
    answer = server.client.post(f"http://127.0.0.1:{server.port}{path}", json=HELLO)

    assert answer.status_code == 404
    assert f"id you mean {meant}?" in answer.json()["error"]["message"]


def test_files_stay_with_one_key() -> None:
    """What belongs to no model always goes to the first key: another account would not know it."""
    with openai_upstream(OPENAI_API_KEY="sk-1,sk-2") as (server, received):
        for _ in range(3):
            server.client.get("/v1/files/f")

    assert all(b"bearer sk-1" in request.lower() for request in received)
    assert len(received) == 3


def test_log_names_who_answered(server: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    """The access line ends with deployment and host; a refusal's line has the id that the client was given."""
    caplog.set_level("INFO", "chat_api")
    refused = server.client.post(CHAT, json={**HELLO, "model": "fault-429"})

    assert eventually(lambda: "fault-429@127.0.0.1:" in caplog.text)
    assert refused.headers["x-request-id"] in caplog.text


def test_key_that_the_upstream_repeats_is_masked(caplog: pytest.LogCaptureFixture) -> None:
    """A server that quotes the key it refuses gives it away to nobody: not to the caller, not to the log."""

    error = b'{"error":{"message":"Incorrect key: %b","type":"t","param":null,"code":"c"}}' % KEY.encode()
    head = b"HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(error)
    raw = head + error
    answer = replying(raw)

    with listening(answer) as port, gateway(ENDPOINT=f"http://127.0.0.1:{port}") as server:
        answers = [server.client.post(CHAT, json=HELLO), server.chat(prompt="hello")]

    assert [answer.status_code for answer in answers] == [401, 401]
    assert all("Incorrect key: ***" in answer.text for answer in answers)
    assert KEY not in "".join([caplog.text, *(answer.text for answer in answers)])


def test_further_base_path_of_the_config_file(tmp_path: Path) -> None:
    """`api_base` of a config file puts OpenAI's API under a path of its own as well, errors in its shape."""
    file = tmp_path / "config.yaml"
    file.write_text("api_base: /api/\ndeployments:\n- {name: gpt-4o-mini, models: [small]}\n")
    with gateway(CONFIG_FILE=str(file)) as server:
        answer = server.client.post("/api/chat/completions", json={**HELLO, "model": "small"})
        error = server.client.post("/api/chat/completions", content=b"{")
        assert arrived(server).target.startswith("/openai/deployments/gpt-4o-mini/chat/completions?")

    assert answer.status_code == 200
    assert set(error.json()) == {"error"}


def test_stream_that_is_cut_after_its_finish_is_not_complete() -> None:
    """What breaks off behind the finish reason has lost something too, the usage perhaps: it gets no `[DONE]`."""
    finish = b'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\n'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 1000\r\n\r\n"
    with listening(replying(head + finish)) as port, gateway(ENDPOINT=f"http://127.0.0.1:{port}") as server:
        text = ""
        asked = server.client.stream("POST", CHAT, json={**HELLO, "stream": True})
        with asked as response, contextlib.suppress(httpx.RemoteProtocolError):
            for part in response.iter_text():
                text += part

    assert "[DONE]" not in text
    assert json.loads(text.rstrip().rpartition("data: ")[2])["error"]["code"] == "answer_cut_short"


@pytest.mark.parametrize("environ", [{"CLIENT_KEYS": "ck"}, {"KEY": ""}])
def test_body_is_not_read_of_a_caller_without_a_key(environ: dict[str, str]) -> None:
    """A caller who cannot be answered is refused before anything of the body has come, and told no model's name."""
    with gateway(UNKNOWN_MODEL="reject", MODEL_MAPPER="canary=x", **environ) as server:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n{"
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock:
            sock.sendall(head)
            answer = sock.recv(65536)

    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"canary" not in answer
