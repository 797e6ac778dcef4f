"""What Azure was seen to send, and what its specifications have: driven through everything that decides on it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from chat_api.counting import Usage
from chat_api.errors import UpstreamRefusal
from chat_api.headers import relayed_verbatim
from chat_api.operations import is_unrouted, parse_path
from chat_api.refusals import relayable
from chat_api.repair import EventRepair
from chat_api.sse import DONE, Event, EventDecoder, read_chunk
from chat_api.tokens import usage_at_end, usage_in
from chat_api.translate import upstream_request
from chat_api.types import Call, Deployment, Reply, Secret

AZURE = Path(__file__).parents[2] / "shared" / "azure"
WIRE, SPECS = AZURE / "wire", AZURE / "specs"
pytestmark = pytest.mark.skipif(not WIRE.is_dir(), reason=f"the captures are not there: {AZURE}")

BASE_URL = "https://r.openai.azure.com"
D = Deployment("d", BASE_URL, "2024-10-21", Secret("k"))
CHAT = Call("chat/completions", "d", b"{}", False, verbatim=True)
FILTERS = ("obfuscation", "prompt_filter_results", "content_filter_results", "content_filter_offsets")
STREAMS = [
    pytest.param(path.name, id=path.stem.removeprefix("azure-stream-"))
    for path in sorted(WIRE.glob("*.sse"))
    if "error" not in path.name
]


def entries(kind: str) -> list[Any]:
    """The collected errors, or streams, as parameters."""
    if not WIRE.is_dir():
        return []
    return [pytest.param(each, id=each["name"]) for each in json.loads((WIRE / "azure-errors.json").read_text())[kind]]


def decoded(raw: bytes) -> list[Event]:
    """The events of a stream, its last one without a blank line included."""
    decoder = EventDecoder()
    return [*decoder.feed(raw), *decoder.flush()]


def passed(repair: EventRepair, raw: bytes, size: int) -> bytes:
    """What goes on of a stream that came in chunks of that size."""
    return b"".join(repair.feed(raw[start : start + size]) for start in range(0, len(raw), size)) + repair.finish()


def text_of(events: list[Event]) -> str:
    """What the chunks of a chat say."""
    chunks = [read_chunk(event.data) for event in events]
    choices = [choice for chunk in chunks if chunk for choice in chunk.choices or ()]
    return "".join(choice.delta.content or "" for choice in choices if choice.delta)


@pytest.mark.parametrize("size", [1, 1000, 10_000_000], ids=["bytes", "thousands", "whole"])
@pytest.mark.parametrize("name", STREAMS)
def test_stream_goes_on(name: str, size: int) -> None:
    """Every event of a captured stream goes on, with an end that every client finds."""
    raw = (WIRE / name).read_bytes()
    repair = EventRepair("chat/completions")
    out = passed(repair, raw, size)
    assert (repair.done, repair.complete, repair.error) == (True, True, None)
    assert out.endswith(b"\n\ndata: [DONE]\n\n")
    came = decoded(raw)
    assert decoded(out) == came[: came.index(Event(DONE)) + 1]


@pytest.mark.parametrize("name", STREAMS)
def test_stream_is_the_same_bytes(name: str) -> None:
    """Up to its [DONE], no byte of a captured stream is another."""
    raw = (WIRE / name).read_bytes()
    end = raw.index(b"data: [DONE]")
    assert passed(EventRepair("chat/completions"), raw, len(raw))[:end] == raw[:end]


@pytest.mark.parametrize("name", STREAMS)
def test_stream_without_done(name: str) -> None:
    """A captured stream that lacks [DONE] gets it; one that lacks its finish too is cut short."""
    raw = (WIRE / name).read_bytes()
    repair = EventRepair("chat/completions")
    assert passed(repair, raw[: raw.index(b"data: [DONE]")], 1000).endswith(b"\n\ndata: [DONE]\n\n")
    assert repair.error is None
    cut = EventRepair("chat/completions")
    out = passed(cut, raw[: raw.index(b'"finish_reason":"')], 1000)
    assert cut.error is not None
    assert cut.error.code == "answer_cut_short"
    assert out.endswith(b"\n\n")
    assert b"[DONE]" not in out


@pytest.mark.parametrize("name", STREAMS)
def test_strict_stream(name: str) -> None:
    """In compatibility mode a captured stream says the same, in chunks of OpenAI's shape and no other."""
    raw = (WIRE / name).read_bytes()
    events = decoded(passed(EventRepair("chat/completions", compat=True), raw, 1000))
    assert events.pop() == Event(DONE)
    assert text_of(events) == text_of(decoded(raw))
    for event in events:
        chunk = json.loads(event.data)
        assert chunk["id"]
        assert chunk["object"] == "chat.completion.chunk"
        assert chunk["created"] > 0
        assert chunk["choices"] or chunk["usage"]
        assert not set(FILTERS) & {*chunk, *[name for choice in chunk["choices"] for name in choice]}
        assert all("delta" in choice for choice in chunk["choices"])


@pytest.mark.parametrize("compat", [False, True], ids=["as-it-is", "strict"])
@pytest.mark.parametrize("entry", entries("streams"))
def test_odd_stream(entry: dict[str, Any], compat: bool) -> None:
    """Each odd stream that Azure was seen to send ends in what it says: an error, or an answer."""
    is_response = "responses" in entry["name"]
    repair = EventRepair("responses" if is_response else "chat/completions", compat=compat)
    raw = entry["body"].encode()
    out = passed(repair, raw, 7)
    if "first_event_error" in entry["name"]:
        assert out == b""
        assert isinstance(repair.error, UpstreamRefusal)
        assert repair.error.status == 429
    elif is_response:
        assert b"rate_limit_exceeded" in out
        assert repair.error is None
    elif "blocked" in entry["name"]:
        assert b'"finish_reason":"content_filter"' in out
        assert (repair.done, repair.error) == (True, None)
    else:
        assert out == (b"" if compat else raw[: len(out)])


def test_error_in_a_stream() -> None:
    """A fixture of another gateway's, whose events are one line each, is no answer however it is read."""
    repair = EventRepair("chat/completions")
    assert passed(repair, (WIRE / "azure-stream-error-chunk.sap.sse").read_bytes(), 7) == b""
    assert repair.error is not None


@pytest.mark.parametrize("entry", entries("errors"))
def test_error(entry: dict[str, Any]) -> None:
    """Every collected error goes on untouched if it has OpenAI's shape, and is raised to be given it if not."""
    body, detail = entry["body"], entry["body"].get("error", {}) if isinstance(entry["body"], dict) else {}
    raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    headers = [(b"content-type", entry["content_type"].encode())]
    headers += [(name.encode(), value.encode()) for name, value in entry["headers"].items()]
    reply = Reply(entry["status"], tuple(headers), raw, D)
    if {"message", "type", "param", "code"} <= detail.keys():
        assert relayable(reply, CHAT, 0) == reply
        return
    with pytest.raises(UpstreamRefusal) as caught:
        relayable(reply, CHAT, 0)
    error = caught.value
    assert error.status == entry["status"]
    assert error.type
    wait = entry["headers"].get("retry-after")
    if wait == "86400":
        assert "86400 seconds" in error.message
        assert dict(error.headers)[b"retry-after"] == b"60"
        assert dict(error.headers)[b"x-should-retry"] == b"false"
    elif wait:
        assert dict(error.headers)[b"retry-after"] == wait.encode()


@pytest.mark.parametrize("name", ["azure-chat-4o-mini-2025-08.json", "azure-chat-success.sap.json"])
def test_whole_answer(name: str) -> None:
    """A captured answer is one."""
    reply = Reply(200, ((b"content-type", b"application/json"),), (WIRE / name).read_bytes(), D)
    assert relayable(reply, CHAT, 0) is reply


def test_recorded_exchange() -> None:
    """Of a recorded answer's headers those go on that describe it, its service and its quota."""
    record = yaml.safe_load((WIRE / "azure-chat-gpt5-nano-2025-10.vcr.yaml").read_text())
    response = record["interactions"][0]["response"]
    headers = tuple(
        (name.lower().encode(), value.encode()) for name, values in response["headers"].items() for value in values
    )
    kept = {name for name, _ in relayed_verbatim(headers)}
    assert kept >= {b"apim-request-id", b"content-type", b"x-ms-region", b"x-ratelimit-remaining-tokens"}
    assert not kept & {b"set-cookie", b"server", b"date", b"strict-transport-security", b"access-control-allow-origin"}
    reply = Reply(200, headers, response["body"].encode(), D)
    assert relayable(reply, CHAT, 0) is reply


def usage_of(chunk: dict[str, Any]) -> Usage:
    """What it says that was taken."""
    told = chunk["usage"]
    details = told.get("prompt_tokens_details") or {}
    return Usage(told["prompt_tokens"], told["completion_tokens"], details.get("cached_tokens", 0))


@pytest.mark.parametrize("name", STREAMS)
def test_usage_of_stream(name: str) -> None:
    """What a captured stream took is read from its end, however little of it was kept."""
    raw = (WIRE / name).read_bytes()
    chunks = [json.loads(event.data) for event in decoded(raw) if event.data.strip() != DONE]
    (truth,) = [usage_of(chunk) for chunk in chunks if chunk.get("usage")]
    assert truth.completion > 0
    for kept in (400, 1000, 16384, len(raw)):
        assert usage_at_end(raw[-kept:], is_stream=True) == truth


@pytest.mark.parametrize("size", [1, 1000, 10_000_000], ids=["bytes", "thousands", "whole"])
@pytest.mark.parametrize("name", STREAMS)
def test_usage_of_stream_is_hidden(name: str, size: int) -> None:
    """A captured stream that was asked for usage goes on as it would have come, had it not been."""
    raw = (WIRE / name).read_bytes()
    expected = [
        event._replace(data=event.data.replace(b',"usage":null', b""))
        for event in decoded(raw)
        if b'"usage":{' not in event.data
    ]
    out = passed(EventRepair("chat/completions", hides_usage=True), raw, size)
    assert b"usage" not in out
    assert decoded(out) == expected[: expected.index(Event(DONE)) + 1]


@pytest.mark.parametrize("name", ["azure-chat-4o-mini-2025-08.json", "azure-chat-success.sap.json"])
def test_usage_of_answer(name: str) -> None:
    """What a captured answer took is read from it, and from its end."""
    raw = (WIRE / name).read_bytes()
    truth = usage_of(json.loads(raw))
    assert truth.prompt > 0
    assert usage_in(raw) == truth
    assert usage_at_end(raw[-600:], is_stream=False) == truth


def test_usage_of_recorded_exchange() -> None:
    """What a recorded answer took is read from it: what was thought about is of the completion."""
    record = yaml.safe_load((WIRE / "azure-chat-gpt5-nano-2025-10.vcr.yaml").read_text())
    body = record["interactions"][0]["response"]["body"].encode()
    assert usage_in(body) == usage_of(json.loads(body))


def paths(name: str) -> list[Any]:
    """The `(method, path)` pairs of a specification, with a value for each of the path's parameters."""
    path = SPECS / f"{name}.json"
    if not path.is_file():
        return []
    found = []
    for template, methods in json.loads(path.read_text())["paths"].items():
        filled = re.sub(r"\{[\w-]+\}", "x1", template.replace("{deployment-id}", "d"))
        found += [
            pytest.param(
                method.upper(),
                filled,
                id=f"{method}-{template}",
            )
            for method in methods
            if method in ("get", "post", "delete")
        ]
    return found


def url_of(method: str, path: str, deployment: Deployment) -> str:
    """The URL at which a call for a path, as clients put it behind /v1/ or /openai/, is sent."""
    target = parse_path(path.removeprefix("/"))
    reads_model = method == "POST" and not is_unrouted(method, target.operation)
    body = b'{"model":"d"}' if method == "POST" else b""
    call = Call(
        target.operation,
        target.model,
        body,
        False,
        method=method,
        verbatim=True,
        model_in_body="d" if reads_model else None,
    )
    request, _ = upstream_request(call, deployment, (b"api-key", b"k"))
    assert (request.method, request.body) == (method, body)
    return request.url


@pytest.mark.parametrize(("method", "path"), paths("azure-openai-inference-2024-10-21"))
def test_classic_specification(method: str, path: str) -> None:
    """Every path of the classic specification is asked for where it has it, by its own path or the operation's."""
    expected = f"{BASE_URL}/openai{path}?api-version=2024-10-21"
    assert url_of(method, path, D) == expected
    assert url_of(method, path.removeprefix("/deployments/d"), D) == expected


@pytest.mark.parametrize(("method", "path"), paths("azure-openai-inference-2025-03-01-preview"))
def test_preview_specification(method: str, path: str) -> None:
    """Every path of the dated preview's specification is asked for where it has it."""
    deployment = Deployment("d", BASE_URL, "2025-03-01-preview")
    assert url_of(method, path, deployment) == f"{BASE_URL}/openai{path}?api-version=2025-03-01-preview"


@pytest.mark.parametrize(("method", "path"), paths("azure-openai-v1-ga"))
def test_v1_specification(method: str, path: str) -> None:
    """Every path of v1's specification is asked for where it has it, without a version."""
    assert url_of(method, path, Deployment("d", BASE_URL, "v1")) == f"{BASE_URL}/openai/v1{path}"
