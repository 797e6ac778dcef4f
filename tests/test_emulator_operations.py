"""Every operation of the emulator over HTTP: what it answers, what it keeps and what it refuses."""

import base64
import gzip
import json
import struct
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import httpx2 as httpx
import pytest

from chat_api.emulator import DEPLOYMENTS, Emulator, open_emulator, records
from tests.servers import in_thread

KEY = {"api-key": "k"}
DATE = "?api-version=2025-04-01-preview"
HELLO = [{"role": "user", "content": "hé→😀"}]
SAID = 'You said: "hé→😀".'
FILE = ("a.bin", bytes(range(256)) * 4 + b"\r\n--\r\n--x", "application/octet-stream")
SENT = "a.bin: 1033 bytes, sha256 "
JSON_BODIES: dict[str, dict[str, Any]] = {
    "chat/completions": {"messages": HELLO},
    "completions": {"prompt": "hi"},
    "embeddings": {"input": "hi"},
    "responses": {"input": "hi"},
    "images/generations": {"prompt": "hi"},
    "audio/speech": {"input": "hi", "voice": "alloy"},
}
CLASSIC_ONLY = ("completions", "audio/speech", "audio/transcriptions", "audio/translations")


class Azure(NamedTuple):
    """A running emulator and a client of it."""

    emulator: Emulator
    client: httpx.Client

    def post(self, operation: str, deployment: str = "gpt-4o", **body: Any) -> httpx.Response:
        """Post JSON on the classic path."""
        return self.client.post(classic(operation, deployment), json={"model": deployment, **body})

    def form(self, operation: str, deployment: str = "gpt-4o", **fields: str) -> httpx.Response:
        """Post a form with a file on the classic path."""
        name = "image" if operation.startswith("images") else "file"
        return self.client.post(classic(operation, deployment), data=fields, files={name: FILE})


@pytest.fixture(scope="module")
def azure() -> Iterator[Azure]:
    """An emulated resource and a client that has its key."""
    emulator = Emulator(keys=frozenset({"k"}))
    with in_thread() as run:
        stack = AsyncExitStack()
        base_url = run(stack.enter_async_context(open_emulator(emulator)))
        with httpx.Client(base_url=base_url, headers=KEY, timeout=10) as client:
            yield Azure(emulator, client)
        run(stack.aclose())


def classic(operation: str, deployment: str = "gpt-4o") -> str:
    """The classic path of an operation."""
    scope = (
        "" if operation.split("/")[0] in ("responses", "files", "batches", "models") else f"/deployments/{deployment}"
    )
    return f"/openai{scope}/{operation}{DATE}"


def events(response: httpx.Response) -> list[tuple[str, Any]]:
    """The `(name, data)` of each event; `[DONE]` as it is."""
    found = []
    for block in response.text.removesuffix("\n\n").split("\n\n"):
        name, _, data = block.rpartition("data: ")
        found.append((name.removeprefix("event: ").strip(), data if data == "[DONE]" else json.loads(data)))
    return found


@pytest.mark.parametrize("operation", JSON_BODIES)
def test_operation_is_deterministic_on_both_paths(azure: Azure, operation: str) -> None:
    """The classic path and v1 give the same bytes, each time; what v1 does not serve is 404 there."""
    body = {"model": "gpt-4o", **JSON_BODIES[operation]}
    first, second = (azure.client.post(classic(operation), json=body) for _ in "ab")
    v1 = azure.client.post(f"/openai/v1/{operation}", json=body)

    assert first.status_code == 200
    assert first.content == second.content
    if operation in CLASSIC_ONLY:
        assert (v1.status_code, v1.json()["error"]["code"]) == (404, "404")
    else:
        assert v1.content == first.content


@pytest.mark.parametrize("operation", [*JSON_BODIES, "audio/transcriptions", "images/edits"])
@pytest.mark.parametrize(
    ("deployment", "status", "code"),
    [
        ("nothing", 404, "DeploymentNotFound"),
        ("fault-400", 400, None),
        ("fault-401", 401, "401"),
        ("fault-429", 429, "429"),
        ("fault-500", 500, None),
    ],
)
def test_every_operation_fails_alike(
    azure: Azure, operation: str, deployment: str, status: int, code: str | None
) -> None:
    """An unknown deployment and the faults with a status are the same for every operation, JSON or form."""
    body = JSON_BODIES.get(operation)
    fields = {"prompt": "hi", "model": deployment}
    response = azure.post(operation, deployment, **body) if body else azure.form(operation, deployment, **fields)

    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/openai/v1/chat/completions", 404),
        ("POST", "/openai/v1/nothing", 404),
        ("POST", "/openai/v1/deployments/gpt-4o/embeddings", 404),
        ("POST", f"/openai/embeddings{DATE}", 404),
        ("POST", f"/openai/deployments/gpt-4o/responses{DATE}", 404),
        ("POST", f"/openai/models{DATE}", 404),
        ("GET", "/openai/models", 404),
        ("GET", f"/openai/v1/models{DATE}", 400),
        ("DELETE", "/openai/v1/files", 404),
        ("GET", "/openai/v1/files/none/content", 404),
        ("GET", "/openai/v1/batches/none", 404),
        ("GET", "/openai/v1/models/none", 404),
        ("DELETE", "/openai/v1/responses/none", 404),
    ],
)
def test_path_that_azure_does_not_have(azure: Azure, method: str, path: str, status: int) -> None:
    """What is asked for on the wrong path, with the wrong version or method, or by a name that is unknown."""
    response = azure.client.request(method, path, json=None if method != "POST" else {"input": "hi"})

    assert response.status_code == status
    assert response.json()["error"]["message"]


def test_things_of_the_resource_want_a_credential(azure: Azure) -> None:
    """Files and the like are behind the key, and nothing is done without it."""
    name = azure.form("files", purpose="batch").json()["id"]
    for method in ("GET", "DELETE"):
        assert azure.client.request(method, f"/openai/v1/files/{name}", headers={"api-key": "no"}).status_code == 401
    assert azure.client.get(f"/openai/v1/files/{name}").status_code == 200


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        ("completions", {"prompt": 1}),
        ("embeddings", {}),
        ("embeddings", {"input": []}),
        ("embeddings", {"input": "hi", "dimensions": 0}),
        ("responses", {}),
        ("responses", {"input": "hi", "previous_response_id": "none"}),
        ("images/generations", {"n": 2}),
        ("audio/speech", {"input": "hi"}),
        ("audio/transcriptions", {"file": "text"}),
        ("images/edits", {"prompt": "hi"}),
    ],
)
def test_body_that_an_operation_cannot_take_is_400(azure: Azure, operation: str, body: dict[str, Any]) -> None:
    """A parameter that is missing or wrong is refused in the model's own family, by faults of answers too."""
    for deployment in ("gpt-4o", "fault-cut"):
        if "previous_response_id" in body and deployment != "gpt-4o":
            continue
        response = azure.post(operation, deployment, **body)
        assert response.status_code == 400
        assert response.json()["error"]["type"] == "invalid_request_error"


def test_completion_has_a_choice_for_each_prompt(azure: Azure) -> None:
    """Legacy completions answer each prompt `n` times, and are counted."""
    answer = azure.post("completions", prompt=["a b", "c"], n=2, max_tokens=3).json()

    assert answer["object"] == "text_completion"
    assert [(choice["index"], choice["text"], choice["finish_reason"]) for choice in answer["choices"]] == [
        (0, 'You said: "a', "length"),
        (1, 'You said: "a', "length"),
        (2, 'You said: "c".', "stop"),
        (3, 'You said: "c".', "stop"),
    ]
    assert answer["usage"] == {"completion_tokens": 12, "prompt_tokens": 3, "total_tokens": 15}


def test_completion_streams_text(azure: Azure) -> None:
    """A legacy stream has `text` in its choices, Azure's prompt filter first, and ends with `[DONE]`."""
    options = {"include_usage": True}
    *chunks, done = events(azure.post("completions", prompt="hé", stream=True, stream_options=options))

    assert done == ("", "[DONE]")
    assert chunks[0][1]["prompt_filter_results"]
    assert "".join(choice["text"] for _, chunk in chunks for choice in chunk["choices"]) == 'You said: "hé".'
    assert chunks[-2][1]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1][1]["usage"]["total_tokens"] == 4


def test_embeddings_are_the_same_in_both_encodings(azure: Azure) -> None:
    """Base64 is the little-endian float32 of the very numbers; each text has its own vector of length 1."""
    plain = azure.post("embeddings", input=["a", "b"], dimensions=5).json()
    coded = azure.post("embeddings", input=["a", "b"], dimensions=5, encoding_format="base64").json()

    assert len(azure.post("embeddings", input=[1, 2]).json()["data"][0]["embedding"]) == 8
    assert plain["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    for numbers, text in zip(plain["data"], coded["data"], strict=True):
        assert list(struct.unpack("<5f", base64.b64decode(text["embedding"]))) == numbers["embedding"]
        assert sum(number**2 for number in numbers["embedding"]) == pytest.approx(1)
    assert plain["data"][0]["embedding"] != plain["data"][1]["embedding"]


def test_response_is_kept_until_it_is_deleted(azure: Azure) -> None:
    """A response can be fetched and gone on from, unless it was deleted or not to be stored."""
    made = azure.post("responses", input="keep", instructions="be brief").json()
    path = f"/openai/v1/responses/{made['id']}"
    lost = azure.post("responses", input="lose", store=False).json()

    assert made["output"][0]["content"][0]["text"] == 'You said: "keep". I was told: "be brief".'
    assert azure.client.get(path).json() == made
    assert azure.post("responses", input="on", previous_response_id=made["id"]).status_code == 200
    assert azure.client.delete(path).json()["deleted"] is True
    assert azure.client.get(path).status_code == 404
    assert azure.client.get(f"/openai/v1/responses/{lost['id']}").status_code == 404


def test_response_streams_named_events(azure: Azure) -> None:
    """A Responses stream has numbered events called by their type, and no `[DONE]`."""
    found = events(azure.post("responses", input="a b", stream=True))
    names = [name for name, _ in found]

    assert names == [
        *("response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"),
        *["response.output_text.delta"] * 4,
        *("response.output_text.done", "response.content_part.done", "response.output_item.done"),
        "response.completed",
    ]
    assert [data["sequence_number"] for _, data in found] == list(range(len(found)))
    assert [data["type"] for _, data in found] == names
    assert "".join(data.get("delta", "") for _, data in found) == 'You said: "a b".'


def test_response_that_is_cut_is_incomplete(azure: Azure) -> None:
    """`max_output_tokens` ends a response early, and says so."""
    answer = azure.post("responses", input="a b", max_output_tokens=2).json()
    last = events(azure.post("responses", input="a b", max_output_tokens=2, stream=True))[-1]

    assert (answer["status"], answer["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert last[0] == "response.incomplete"


def test_speech_comes_in_pieces(azure: Azure) -> None:
    """Speech is bytes without a length, and other words are other bytes."""
    response = azure.post("audio/speech", input="hi", voice="alloy")

    assert response.headers["content-type"] == "application/octet-stream"
    assert "content-length" not in response.headers
    assert len(response.content) == 100_000
    assert response.content != azure.post("audio/speech", input="ho", voice="alloy").content


@pytest.mark.parametrize(
    ("form", "content_type"),
    [
        ({}, "application/json"),
        ({"response_format": "verbose_json"}, "application/json"),
        ({"response_format": "text"}, "text/plain; charset=utf-8"),
        ({"response_format": "srt"}, "text/plain; charset=utf-8"),
        ({"response_format": "vtt"}, "text/plain; charset=utf-8"),
    ],
)
def test_transcription_tells_what_arrived(azure: Azure, form: dict[str, str], content_type: str) -> None:
    """What is heard is the file's name, size and digest, in the format that was asked for."""
    response = azure.form("audio/transcriptions", **form)

    assert response.headers["content-type"] == content_type
    assert SENT in response.text
    assert SENT in azure.form("audio/translations", **form).text


def test_edited_image_tells_what_arrived(azure: Azure) -> None:
    """An image is a PNG; the revised prompt of an edit names its files."""
    several = [("image[]", FILE), ("image[]", ("empty.png", b"", "image/png"))]
    one = azure.form("images/edits", prompt="hi").json()
    two = azure.client.post(classic("images/edits"), data={"prompt": "hi", "n": "2"}, files=several).json()

    assert base64.b64decode(one["data"][0]["b64_json"]).startswith(b"\x89PNG\r\n\x1a\n")
    assert one["data"][0]["revised_prompt"].startswith(f"hi, {SENT}")
    assert len(two["data"]) == 2
    assert "empty.png: 0 bytes" in two["data"][0]["revised_prompt"]


def test_file_comes_back_as_it_was(azure: Azure) -> None:
    """A file is listed, described and given back to the byte until it is deleted."""
    about = azure.form("files", purpose="batch").json()
    path = f"/openai/v1/files/{about['id']}"

    assert (about["bytes"], about["filename"], about["purpose"]) == (1033, "a.bin", "batch")
    assert about in azure.client.get("/openai/v1/files").json()["data"]
    assert azure.client.get(path).json() == about
    content = azure.client.get(f"{path}/content")
    assert (content.headers["content-type"], content.content) == ("application/octet-stream", FILE[1])
    assert azure.client.delete(path).json()["deleted"] is True
    assert azure.client.get(path).status_code == 404


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"--x--\r\n"),
        ("multipart/form-data; boundary=x", b'--x\r\ncontent-disposition: form-data; name="file"'),
        ("multipart/form-data; boundary=x", b"--x--\r\n"),
        ("application/json", b"{}"),
    ],
)
def test_upload_without_a_file_is_400(azure: Azure, content_type: str, body: bytes) -> None:
    """A form that is broken off, names no boundary or has no file is refused."""
    headers = {"content-type": content_type}
    for path in (classic("files"), classic("audio/transcriptions")):
        assert azure.client.post(path, content=body, headers=headers).status_code == 400


def test_batch_waits(azure: Azure) -> None:
    """A batch is made once its members are there, and can be fetched."""
    body = {"input_file_id": "f", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    made = azure.client.post("/openai/v1/batches", json=body).json()

    assert (made["object"], made["status"]) == ("batch", "validating")
    assert azure.client.get(f"/openai/batches/{made['id']}{DATE}").json() == made
    assert made in azure.client.get("/openai/v1/batches").json()["data"]
    for broken in (b"{}", b"["):
        assert azure.client.post("/openai/v1/batches", content=broken).status_code == 400


def test_models_have_the_shape_of_their_api(azure: Azure) -> None:
    """The classic list says `created_at` and no owner, the v1 list is OpenAI's."""
    old = azure.client.get(f"/openai/models{DATE}").json()["data"]
    new = azure.client.get("/openai/v1/models").json()["data"]

    assert [model["id"] for model in old] == [model["id"] for model in new] == list(DEPLOYMENTS)
    assert "created_at" in old[0]
    assert "owned_by" not in old[0]
    assert set(new[0]) == {"created", "id", "object", "owned_by"}
    assert azure.client.get("/openai/v1/models/tts-1").json()["id"] == "tts-1"


def test_requests_are_recorded_as_they_came(azure: Azure) -> None:
    """Every request is kept with its target, headers and bytes; JSON bodies are kept parsed as well."""
    path = "/openai/v1/chat/completions?api-version=preview&x=%20a"
    azure.client.post(path, content=b'{"model":"nothing" }', headers={b"x-one": b"\xe4"})
    azure.form("files", purpose="batch")
    chat, upload = list(azure.emulator.requests)[-2:]

    assert (chat.method, chat.target, chat.body, chat.size) == ("POST", path, b'{"model":"nothing" }', 20)
    assert (b"x-one", b"\xe4") in chat.headers
    assert FILE[1] in upload.body
    assert azure.emulator.received[-1] == {"model": "nothing"}


def test_what_is_kept_is_bounded(azure: Azure, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body beyond the limit is counted, hashed and not kept; the oldest things make room for the latest."""
    monkeypatch.setattr(records, "MAX_BODY_BYTES", 1800)
    about = azure.form("files", purpose="assistants").json()
    azure.client.post(classic("files"), data={"purpose": "batch"}, files={"file": ("large", b"x" * 3000)})
    large = azure.client.get("/openai/v1/files").json()["data"][-1]
    refused = azure.post("chat/completions", messages=[{"role": "user", "content": "x" * 3000}])

    assert azure.client.get(f"/openai/v1/files/{about['id']}/content").content == FILE[1]
    assert large["bytes"] == 3000
    assert azure.client.get(f"/openai/v1/files/{large['id']}/content").status_code == 404
    assert refused.status_code == 400
    counted = [request for request in azure.emulator.requests if request.size > 3000]
    assert [request.body for request in counted] == [b"", b""]
    assert sum(len(request.body) for request in azure.emulator.requests) <= 1800
    for number in range(20):
        azure.post("chat/completions", messages=[{"role": "user", "content": f"{number:02}" * 50}])
    assert 1 < len(azure.emulator.received) < 20


def stream(azure: Azure, deployment: str, operation: str = "chat/completions") -> tuple[httpx.Headers, bytes]:
    """The head and the raw body of a streamed answer, as far as it comes."""
    asked: dict[str, Any] = {"messages": HELLO} if operation == "chat/completions" else {"input": "hi"}
    body = {**asked, "model": deployment, "stream": True}
    headers = {"accept-encoding": "identity"}
    raw = b""
    with azure.client.stream("POST", classic(operation, deployment), json=body, headers=headers) as response:
        try:
            for piece in response.iter_raw():
                raw += piece
        except httpx.RemoteProtocolError:
            raw += b"<cut>"
        return response.headers, raw


def test_crlf_fault_is_the_same_stream_with_other_line_ends(azure: Azure) -> None:
    """Every line of `fault-crlf` ends with CRLF, and there are comments."""
    _, raw = stream(azure, "fault-crlf")

    assert raw.count(b"\n") == raw.count(b"\r\n") > 10
    assert raw.startswith(b": ")
    assert raw.endswith(b"data: [DONE]\r\n\r\n")


@pytest.mark.parametrize(
    ("deployment", "end"),
    [
        ("fault-split", b"data: [DONE]\n\n"),
        ("fault-spaced-done", b"data: [DONE] \n\n"),
        ("fault-no-last-newline", b"data: [DONE]"),
        ("fault-no-marker", b'"system_fingerprint":"fp_emulated"}\n\n'),
        ("fault-error-only", b"}}\n\n"),
        ("fault-truncated", b"<cut>"),
    ],
)
def test_fault_ends_its_stream_as_it_says(azure: Azure, deployment: str, end: bytes) -> None:
    """The ends that are unusual are there to the byte."""
    _, raw = stream(azure, deployment)

    assert raw.endswith(end)
    assert ("hé→😀".encode() in raw) == (deployment not in ("fault-error-only", "fault-truncated"))


def test_truncated_fault_ends_within_an_event(azure: Azure) -> None:
    """What comes before the cut is no whole event."""
    _, raw = stream(azure, "fault-truncated")

    assert not raw.removesuffix(b"<cut>").endswith(b"\n\n")


def test_gzip_fault_codes_what_nobody_asked_to_be_coded(azure: Azure) -> None:
    """Both kinds of answer come as gzip, although identity was asked for."""
    head, raw = stream(azure, "fault-gzip")
    whole = azure.post("embeddings", "fault-gzip", input="hi")

    assert head["content-encoding"] == whole.headers["content-encoding"] == "gzip"
    assert gzip.decompress(raw).endswith(b"data: [DONE]\n\n")
    assert whole.json()["object"] == "list"


def test_async_filter_fault_annotates_without_delta(azure: Azure) -> None:
    """Chunks without a delta and with empty ids come between the texts and after the finish."""
    _, raw = stream(azure, "fault-async-filter")
    chunks = [json.loads(block.removeprefix("data: ")) for block in raw.decode().split("\n\n")[1:-2]]
    noted = ["delta" not in chunk["choices"][0] for chunk in chunks]

    assert noted == [False, False, True, False, True, False, True, False, True]
    assert {(chunk["id"], chunk["object"], chunk["model"]) for chunk in chunks[2::2]} == {("", "", "")}


def test_responses_stream_fails_before_it_says_why(azure: Azure) -> None:
    """The first event of a Responses stream that fails has no error, the second nests it."""
    for deployment, before in (("fault-error-event", 0), ("fault-late-error-event", 5)):
        found = events(azure.post("responses", deployment, input="hi", stream=True))
        (failed_name, failed), (error_name, error) = found[before:]
        assert (failed_name, failed["response"]["error"]) == ("response.failed", None)
        assert (error_name, error["error"]["code"]) == ("error", "rate_limit_exceeded")
        assert [data["sequence_number"] for _, data in found] == list(range(before + 2))


@pytest.mark.parametrize("deployment", ["fault-no-done", "fault-cut", "fault-truncated"])
def test_responses_stream_breaks_off(azure: Azure, deployment: str) -> None:
    """A Responses stream that breaks off never says that it is complete."""
    _, raw = stream(azure, deployment, "responses")

    assert b"response.output_text.delta" in raw
    assert b"response.completed" not in raw


def test_fault_of_a_day_says_so(azure: Azure) -> None:
    """The longest wait that Azure was seen to ask for is a day."""
    response = azure.post("responses", "fault-429-day", input="hi")

    assert (response.status_code, response.headers["retry-after"]) == (429, "86400")
    assert "Responses_Create" in response.json()["error"]["message"]
