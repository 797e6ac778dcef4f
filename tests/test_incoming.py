"""Requests made into calls that are relayed: whether what they take is counted, and told."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message

from chat_api import settings
from chat_api.callers import by_address
from chat_api.gateway import Reads
from chat_api.incoming import read_call
from chat_api.operations import parse_path
from chat_api.request_head import head_of
from chat_api.types import Call

SETTINGS = settings.load({}, Path("/nonexistent/.env"))
FORM = b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nm\r\n--b--\r\n'
MODEL = b'{"model":"m"}'


def called(
    path: str, body: bytes = MODEL, method: str = "POST", kind: bytes = b"application/json", *, reads_usage: bool = True
) -> Call:
    """The call that a request makes."""
    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "path": f"/v1/{path}",
        "query_string": b"",
        "headers": [(b"content-type", kind), (b"content-length", b"%d" % len(body))],
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def read() -> Call:
        head, target = head_of(scope), parse_path(path)
        caller = by_address("a")
        call = await read_call(
            scope, receive, head, target, SETTINGS, route="", caller=caller, reads=Reads(reads_usage, reads_usage)
        )
        assert call.caller is caller
        if not isinstance(call.body, bytes) and hasattr(call.body, "aclose"):
            await call.body.aclose()
        return call

    return asyncio.run(read())


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("chat/completions", True, id="chat"),
        pytest.param("completions", True, id="legacy"),
        pytest.param("responses", True, id="response"),
        pytest.param("embeddings", True, id="embedding"),
        pytest.param("images/generations", True, id="picture"),
        pytest.param("audio/speech", True, id="speech"),
        pytest.param("deployments/d/chat/completions", True, id="deployment"),
        pytest.param("Deployments/d/Chat/Completions", True, id="deployment-in-other-letters"),
        pytest.param("threads/runs", True, id="run-with-a-model"),
        pytest.param("responses/compact", True, id="operation-that-names-a-model"),
        pytest.param("messages", True, id="another-api"),
        pytest.param("rerank", True, id="unknown-operation"),
        pytest.param("files", False, id="file"),
        pytest.param("batches", False, id="batch"),
        pytest.param("fine_tuning/jobs", False, id="fine-tuning"),
    ],
)
def test_what_is_counted(path: str, expected: bool) -> None:
    """What runs a model, or names one, is counted where anybody wants to know; what is only kept is not."""
    assert called(path).is_metered is expected
    assert not called(path, reads_usage=False).is_metered


@pytest.mark.parametrize(
    ("path", "body", "method", "expected"),
    [
        pytest.param("chat/completions", b"{}", "POST", True, id="chat-with-the-default"),
        pytest.param("threads/t/runs", b'{"assistant_id":"a"}', "POST", False, id="run-of-an-assistant"),
        pytest.param("responses/r/cancel", b"", "POST", False, id="cancelled"),
        pytest.param("chat/completions", b"", "GET", False, id="list-of-stored-chats"),
        pytest.param("deployments/d/chat/completions", b"", "HEAD", False, id="head"),
        pytest.param("responses/r", b"", "DELETE", False, id="deleted"),
        pytest.param("chat/completions", MODEL, "PUT", False, id="put"),
    ],
)
def test_what_names_no_model_is_counted_where_it_runs_one(path: str, body: bytes, method: str, expected: bool) -> None:
    """Only what makes an answer takes tokens."""
    assert called(path, body, method).is_metered is expected


def test_form_is_counted() -> None:
    """A form runs a model as well."""
    call = called("audio/transcriptions", FORM, kind=b"multipart/form-data; boundary=b")
    assert (call.model, call.is_metered) == ("m", True)


@pytest.mark.parametrize(
    ("options", "asks", "hides"),
    [
        pytest.param({"include_usage": True}, True, False, id="asks"),
        pytest.param({"include_usage": False}, False, True, id="does-not"),
        pytest.param(None, False, True, id="null"),
    ],
)
def test_who_asks_for_usage(options: dict[str, bool] | None, asks: bool, hides: bool) -> None:
    """Usage is hidden from a stream's caller who did not ask for it; from no other call, for it has none apart."""
    body = {"model": "m", "stream": True, "stream_options": options}
    call = called("chat/completions", json.dumps(body).encode())
    assert (call.asks_usage, call.hides_usage) == (asks, hides)
    assert not called("chat/completions", json.dumps({**body, "stream": False}).encode()).hides_usage
    assert not called("chat/completions", json.dumps(body).encode(), reads_usage=False).hides_usage
