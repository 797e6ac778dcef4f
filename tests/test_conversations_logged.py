"""What the conversation log has of calls to a real server in front of the emulator: each exchange, as it ended."""

import base64
import contextlib
import json
import os
import socket
import stat
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import httpx2 as httpx
import pytest

from tests.canaries import spilled_into
from tests.conversations import until
from tests.servers import Gateway, gateway

WORDS_KEY, META_KEY, OFF_KEY, POOR_KEY = (f"canary-{name}-client" for name in ("words", "meta", "off", "poor"))
CHAT, SIMPLE = "/v1/chat/completions", "/v1/gpt/chat"
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"properties": {"city": {"type": "string"}}}}}
REDACT = r"""
log:
  redact:
    - '[\w.+-]+@[\w-]+\.[\w.]+'
"""


class Log(NamedTuple):
    """A server that logs, and what it has logged."""

    server: Gateway
    folder: Path

    def records(self) -> list[dict[str, Any]]:
        """All records so far."""
        text = "".join(path.read_text() for path in sorted(self.folder.glob("chat-*.jsonl")))
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def of(self, words: str) -> dict[str, Any]:
        """The only record with these words, or of the request of this id, once it is there."""
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            found[:] = [one for one in self.records() if words in json.dumps(one, ensure_ascii=False)]
            return bool(found)

        until(is_there)
        assert len(found) == 1
        return found[0]

    def post(self, path: str, body: dict[str, Any], key: str = WORDS_KEY, **headers: str) -> dict[str, Any]:
        """The record of a call that is made."""
        headers = {"authorization": f"Bearer {key}", **headers}
        cut = contextlib.suppress(httpx.RemoteProtocolError)
        with cut, self.server.client.stream("POST", path, json=body, headers=headers) as response:
            request_id = response.headers["x-chat-api-request-id"]
            for _ in response.iter_bytes():
                pass
        return self.of(request_id)

    def chat(
        self, words: str, *, path: str = CHAT, key: str = WORDS_KEY, accept: str = "", **more: Any
    ) -> dict[str, Any]:
        """The record of a chat."""
        body = {"messages": [{"role": "user", "content": words}], **more}
        headers = {"accept": accept} if accept else {}
        return self.post(path, {"prompt": words, **more} if path == SIMPLE else body, key, **headers)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    """A server that logs, keeps and shares answers."""
    folder = tmp_path_factory.mktemp("conversations")
    keys = [
        {"name": "alice", "sha256": sha256(WORDS_KEY.encode()).hexdigest()},
        {"name": "bob", "sha256": sha256(META_KEY.encode()).hexdigest(), "log_chat": "meta"},
        {"name": "carol", "sha256": sha256(OFF_KEY.encode()).hexdigest(), "log_chat": False},
        {"name": "dave", "sha256": sha256(POOR_KEY.encode()).hexdigest(), "requests": "1/day"},
    ]
    (folder / "config.yaml").write_text(f"client_keys: {json.dumps(keys)}{REDACT}")
    environ = {
        "CONFIG_FILE": str(folder / "config.yaml"),
        "LOG_CHAT": "true",
        "LOG_DIR": str(folder / "log"),
        "CACHE_CHAT_COMPLETION": "true",
        "COALESCE": "true",
        "OPERATOR_KEY": "canary-operator",
        "IDLE_TIMEOUT": "2",
        "USAGE_FILE": str(folder / "usage.json"),
    }
    with gateway(**environ) as server:
        made = Log(server, folder / "log")
        yield made
        state = server.client.get("/status", headers={"authorization": "Bearer canary-operator"}).json()
        assert state["conversation_log"]["dropped"] == state["conversation_log"]["failed"] == 0
    records = made.records()
    ids = [one["request_id"] for one in records]
    assert len(ids) == len(set(ids))
    assert not any(one.get("key") == "carol" for one in records)
    assert spilled_into(folder / "log") == []


def said(record: dict[str, Any]) -> Any:
    """The text of the first choice."""
    return record["answer"]["choices"][0]["message"]["content"]


@pytest.mark.parametrize("stream", [False, True])
def test_chat_is_logged_with_all_that_is_known_of_it(log: Log, stream: bool) -> None:
    """A record has who asked what of whom, when, and the whole answer, put together if it was streamed."""
    record = log.chat(f"all of it {stream}", stream=stream, temperature=0.5, model="gpt-4o")

    assert record.pop("time").startswith("20")
    timings = record.pop("timings")
    assert 0 < timings["first_byte_seconds"] <= timings["seconds"]
    assert len(record.pop("request_id")) == 16
    (choice,) = record["answer"].pop("choices")
    assert (choice["message"]["content"], choice["finish_reason"]) == (f'You said: "all of it {stream}".', "stop")
    assert record["answer"].pop("prompt_filter_results")
    usage = record.pop("usage")
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert record.pop("deployment").startswith("gpt-4o@127.0.0.1")
    parameters = record.pop("parameters")
    assert parameters == {"temperature": 0.5}
    assert record == {
        "key": "alice",
        "address": "127.0.0.1",
        "path": CHAT,
        "operation": "chat/completions",
        "model": "gpt-4o",
        "status": 200,
        "stream": stream,
        "messages": [{"role": "user", "content": f"all of it {stream}"}],
        "answer": {},
        "attempts": 1,
        "cache": "miss",
        "ended": "complete",
    }


@pytest.mark.parametrize(
    ("form", "more", "accept"),
    [
        ("json", {}, ""),
        ("events", {"stream": True}, ""),
        ("text", {}, "text/plain"),
        ("texts", {"stream": True}, "text/plain"),
    ],
)
def test_simple_endpoint_is_logged_in_all_its_forms(log: Log, form: str, more: dict[str, Any], accept: str) -> None:
    """`/v1/gpt/chat` is logged as it was asked upstream, whichever way it is answered."""
    record = log.chat(f"simply {form}", path=SIMPLE, accept=accept, **more)

    assert (record["path"], record["operation"], record["ended"]) == (SIMPLE, "chat/completions", "complete")
    assert record["messages"][-1] == {"role": "user", "content": f"simply {form}"}
    assert said(record) == f'You said: "simply {form}".'
    assert record["stream"] is bool(more)


@pytest.mark.parametrize("stream", [False, True])
def test_tool_calls_are_logged(log: Log, stream: bool) -> None:
    """A call of a tool has its name and all its arguments."""
    record = log.chat(f"Paris {stream}", tools=[TOOL], tool_choice="required", stream=stream)

    (choice,) = record["answer"]["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert (call["type"], call["function"]["name"]) == ("function", "weather")
    assert json.loads(call["function"]["arguments"]) == {"city": f"Paris {stream}"}


@pytest.mark.parametrize("stream", [False, True])
def test_completions_and_responses_are_logged(log: Log, stream: bool) -> None:
    """The prompt and the text of a completion, the input and the output of a response."""
    completion = log.post("/v1/completions", {"model": "gpt-4o", "prompt": f"old {stream}", "stream": stream})
    response = log.post("/v1/responses", {"model": "gpt-4o", "input": f"new {stream}", "stream": stream})

    assert (completion["operation"], completion["prompt"], completion["ended"]) == (
        "completions",
        f"old {stream}",
        "complete",
    )
    assert f"old {stream}" in completion["answer"]["choices"][0]["text"]
    assert (response["operation"], response["input"], response["ended"]) == ("responses", f"new {stream}", "complete")
    assert f"new {stream}" in json.dumps(response["answer"])
    assert response["answer"]["status"] == "completed"
    assert response["usage"]["total_tokens"]


@pytest.mark.parametrize("path", [CHAT, SIMPLE])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("fault-400", 400, ""),
        ("fault-401", 401, "401"),
        ("fault-filter", 400, "content_filter"),
        ("fault-429", 429, "429"),
        ("fault-500", 500, "server_error"),
        ("fault-503", 503, ""),
        ("fault-closed", 502, ""),
        ("fault-error-event", 429, "rate_limit_exceeded"),
    ],
)
def test_refusal_is_logged_with_its_status_and_reason(
    log: Log, path: str, stream: bool, fault: str, status: int, code: str
) -> None:
    """What an upstream refuses, or does not answer at all, is refused: with its status and words."""
    record = log.chat(f"refuse {path} {stream} {fault}", path=path, stream=stream, model=fault)

    assert (record["ended"], record["status"], record["attempts"]) == ("refused", status, 1)
    assert record["deployment"].startswith(f"{fault}@")
    if status != 503:  # which has a body of plain text
        assert record["error"]["message"]
        assert code in record["error"]["code"]


@pytest.mark.parametrize("path", [CHAT, SIMPLE])
@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("fault-cut", "answer_cut_short"),
        ("fault-truncated", "answer_cut_short"),
        ("fault-no-done", "answer_cut_short"),
        ("fault-late-error-event", "rate_limit_exceeded"),
    ],
)
def test_stream_that_breaks_is_logged_as_far_as_it_came(log: Log, path: str, fault: str, code: str) -> None:
    """What was said so far, and why it ended: it broke off, fell silent, ended too early, or told of an error."""
    words = "one two three four five six seven eight " + fault + path
    record = log.chat(words, path=path, stream=True, model=fault)

    assert (record["ended"], record["status"], record["stream"]) == ("broken", 200, True)
    text = said(record)
    assert 0 < len(text) < len(words)
    assert f'You said: "{words}".'.startswith(text)
    assert record["error"]["message"]
    assert record["error"]["code"] == code


def test_stream_that_falls_silent_is_broken(log: Log) -> None:
    """What was said before the silence is there, and that there was one."""
    record = log.chat("one two three four", stream=True, model="fault-stall")

    assert (record["ended"], said(record)[:3]) == ("broken", "You")
    assert record["error"]["code"] == "upstream_timeout"


@pytest.mark.parametrize("path", [CHAT, SIMPLE])
@pytest.mark.parametrize(
    "fault",
    ["fault-no-marker", "fault-spaced-done", "fault-crlf", "fault-split", "fault-gzip", "fault-no-last-newline"],
)
def test_odd_streams_are_whole(log: Log, path: str, fault: str) -> None:
    """A stream that is merely unusual is logged as complete, with all that was said."""
    words = f"odd {fault} {path} größe"
    record = log.chat(words, path=path, stream=True, model=fault)

    assert (record["ended"], said(record), "error" in record) == ("complete", f'You said: "{words}".', False)


@contextlib.contextmanager
def asking(log: Log, path: str, words: str, **more: Any) -> Iterator[socket.socket]:
    """A client who asks, and leaves when the block ends."""
    content = {"prompt": words} if path == SIMPLE else {"messages": [{"role": "user", "content": words}]}
    body = json.dumps({**content, **more}).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {WORDS_KEY}\r\ncontent-type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", log.server.port), timeout=10) as sock:
        sock.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        yield sock


@pytest.mark.parametrize("path", [CHAT, SIMPLE])
@pytest.mark.parametrize("stream", [False, True])
def test_client_who_leaves_before_the_answer(log: Log, path: str, stream: bool) -> None:
    """What was asked is there, though nobody was answered."""
    words = f"never mind {path} {stream}"
    open_calls = log.server.emulator.open_calls
    with asking(log, path, words, model="fault-hang", stream=stream):
        until(lambda: log.server.emulator.open_calls > open_calls)

    record = log.of(words)
    assert (record["ended"], record["attempts"], "status" in record) == ("client left", 1, False)
    assert record["deployment"].startswith("fault-hang@")
    assert "first_byte_seconds" not in record["timings"]
    assert "answer" not in record


@pytest.mark.parametrize("path", [CHAT, SIMPLE])
def test_client_who_leaves_within_the_answer(log: Log, path: str) -> None:
    """What was said until then is there."""
    words = f"too much {path}"
    with asking(log, path, words, model="fault-endless", stream=True) as sock:
        come = b""
        while b"You" not in come:
            come += sock.recv(65536)

    record = log.of(words)
    assert (record["ended"], record["status"], "error" in record) == ("client left", 200, False)
    assert said(record).startswith("You")


@pytest.mark.parametrize("path", [CHAT, SIMPLE])
def test_answers_that_were_kept_are_logged_for_each_who_gets_them(log: Log, path: str) -> None:
    """A hit has the same answer, in the form that was asked for, and nobody was asked."""
    records = [log.chat(f"kept {path}", path=path, stream=stream) for stream in (False, False, True)]

    assert [one["cache"] for one in records] == ["miss", "hit", "hit"]
    assert [one["attempts"] for one in records] == [1, 0, 0]
    assert [one["stream"] for one in records] == [False, False, True]
    assert len({said(one) for one in records}) == len({one["deployment"] for one in records}) == 1
    assert {one["ended"] for one in records} == {"complete"}
    assert records[0]["usage"] == records[1]["usage"] == records[2]["usage"]


def test_callers_own_word_on_the_log(log: Log) -> None:
    """A key may leave the words out, or leave nothing at all."""
    meta = log.chat("secret wish", key=META_KEY, temperature=0.25, user="me")
    headers = {"authorization": f"Bearer {OFF_KEY}"}
    body = {"messages": [{"role": "user", "content": "off the record"}]}
    assert log.server.client.post(CHAT, json=body, headers=headers).status_code == 200

    assert (meta["key"], meta["parameters"], meta["ended"]) == ("bob", {"temperature": 0.25}, "complete")
    assert meta["answer"]["choices"][0]["finish_reason"] == "stop"
    assert meta["usage"]["total_tokens"]
    assert "secret wish" not in json.dumps(meta)
    log.chat("after that")  # what is written is written in turn
    assert "off the record" not in json.dumps(log.records())


def test_refusal_for_a_limit_is_logged(log: Log) -> None:
    """Whoever is beyond his limit is refused, and nobody was asked."""
    assert log.chat("first of the day", key=POOR_KEY)["ended"] == "complete"
    record = log.chat("second of the day", key=POOR_KEY)

    assert (record["key"], record["ended"], record["status"], record["attempts"]) == ("dave", "refused", 429, 0)
    assert record["error"]["code"] == "rate_limit_exceeded"
    assert "deployment" not in record


@pytest.mark.parametrize("stream", [False, True])
def test_redaction_reaches_questions_and_answers(log: Log, stream: bool) -> None:
    """What is not to be written is not in the question, and not in an answer that came in pieces."""
    record = log.chat(f"write to carol@example.com {stream}", stream=stream)

    assert "carol@example.com" not in json.dumps(record)
    assert f" {stream}" in said(record)
    assert said(record).count("write to ") == 1


def test_images_and_large_answers(log: Log) -> None:
    """An image is told by its size; a long answer is there to its last word, streamed or not."""
    image = "data:image/png;base64," + base64.b64encode(os.urandom(30_000)).decode()
    long = "word " * 20_000
    parts = [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": image}}]
    pictured = log.post(CHAT, {"messages": [{"role": "user", "content": parts}]})
    whole = log.chat(long)
    streamed = log.chat(long, stream=True)

    assert len(json.dumps(pictured)) < 3000
    assert pictured["messages"][0]["content"][1]["image_url"]["url"].startswith("data:image/png;base64,")
    assert said(pictured)
    assert said(whole) == said(streamed) == f'You said: "{long}".'
    assert (whole["ended"], streamed["ended"]) == ("complete", "complete")


def test_what_is_no_conversation_is_not_logged(log: Log) -> None:
    """Embeddings, audio, lists of models, and what is refused before anybody could be asked."""
    headers = {"authorization": f"Bearer {WORDS_KEY}"}
    client = log.server.client
    before = len(log.records())
    form = {"files": {"file": ("a.wav", b"RIFF")}, "data": {"model": "whisper-1"}}
    assert client.post("/v1/embeddings", json={"model": "gpt-4o", "input": "a"}, headers=headers).is_success
    assert client.post("/v1/audio/transcriptions", headers=headers, **form).is_success  # type: ignore[arg-type]
    assert client.get("/v1/models", headers=headers).is_success
    assert client.get(CHAT, headers=headers).status_code >= 400
    assert client.post(CHAT, content=b"{", headers=headers).status_code == 400
    assert client.post(CHAT, json={"messages": []}, headers={"authorization": "Bearer canary-none"}).status_code == 401

    marker = log.chat("the end of that")
    records = log.records()
    place = records.index(marker)
    assert [one["ended"] for one in records[before:place]] == ["refused"] * (place - before)


def test_files_are_their_owners(log: Log) -> None:
    """Nobody else may read the files, or look into the folder."""
    log.chat("whose?")

    assert stat.S_IMODE(log.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in log.folder.iterdir()} == {0o600}
