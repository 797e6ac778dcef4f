"""Every fault of the emulator, as docs/emulator.md says both endpoints answer it, over real sockets."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from chat_api.emulator import FAULTS
from tests.servers import Gateway, gateway

PAGE = Path(__file__).parents[1] / "docs" / "emulator.md"
ROW = re.compile(r"^\| `(fault-[\w-]+)` \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)
ONCE = "fault-500-once"  # counts the calls: it gets a server of its own
ROWS: dict[str, tuple[str, str, str]] = {row[1]: (row[2], row[3], row[4]) for row in ROW.finditer(PAGE.read_text())}


SIMPLE, RELAYED = "/v1/gpt/chat", "/v1/chat/completions"


@pytest.fixture(scope="module")
def server() -> Iterator[Gateway]:
    """A gateway whose patience for hanging upstreams is short, and longer than the slow ones take."""
    with gateway(FIRST_BYTE_TIMEOUT="2", IDLE_TIMEOUT="0.5") as running:
        yield running


def test_page_lists_every_fault_and_no_other() -> None:
    """docs/emulator.md and the code name the same faults, in the same words and order."""
    assert [(name, does) for name, (does, _, _) in ROWS.items()] == [
        (name, fault.does) for name, fault in FAULTS.items()
    ]


@pytest.mark.parametrize("name", [name for name in ROWS if name != ONCE])
@pytest.mark.parametrize("path", [SIMPLE, RELAYED])
def test_fault_of_a_plain_call(server: Gateway, path: str, name: str) -> None:
    """A call gets the documented status and code, in the endpoint's own shape."""
    status, _, code = ROWS[name][1].partition(" ")
    response = server.client.post(path, json=fields(path, name))

    assert response.status_code == int(status)
    assert_answer_or_error(path, response, code.strip("`") or None)


@pytest.mark.parametrize("name", [name for name in ROWS if name not in (ONCE, "fault-endless")])
@pytest.mark.parametrize("path", [SIMPLE, RELAYED])
def test_fault_of_a_streamed_call(server: Gateway, path: str, name: str) -> None:
    """A stream gets the documented status; if it breaks, its last event is the error and its connection is cut."""
    said = ROWS[name][2]
    text, broken = read_stream(server, name, path=path)

    status, _, rest = said.partition(",")
    assert text.startswith(f"HTTP/1.1 {status.partition(' ')[0]} ")
    if rest == " complete":
        assert text.rstrip().endswith("data: [DONE]")
        assert not broken
    elif rest:
        last = json.loads(text.rstrip().rpartition("data: ")[2])
        assert (last.get("success", 0), last["error"]["code"]) == (0, rest.removeprefix(" then ").strip("`"))
        assert "[DONE]" not in text
        assert broken
    else:
        body = json.loads(text.partition("\n\n")[2])
        assert (body.get("success", 0), body["error"]["code"]) == (0, status.partition(" ")[2].strip("`") or None)


def test_fault_429_keeps_both_retry_headers(server: Gateway) -> None:
    """Retry-After and retry-after-ms reach the caller as Azure sent them, and none is made up."""
    told = server.chat(prompt="hello", model="fault-429")
    bare = server.chat(prompt="hello", model="fault-429-bare")

    assert (told.headers["retry-after"], told.headers["retry-after-ms"]) == ("1", "1000")
    assert "retry-after" not in bare.headers


def test_fault_500_once_is_an_answer_the_second_time() -> None:
    """The gateway does not repeat a failed call by itself; the caller's own second call is answered."""
    with gateway() as server:
        assert [server.chat(prompt="hello", model=ONCE).status_code for _ in range(3)] == [500, 200, 200]


def test_content_filter_keeps_its_details(server: Gateway) -> None:
    """What the filter found comes with the error."""
    error = server.chat(prompt="hello", model="fault-filter").json()["error"]

    assert error["innererror"]["content_filter_result"] == {"violence": {"filtered": True, "severity": "medium"}}


@pytest.mark.parametrize("name", ["fault-cut", "fault-stall", "fault-no-done", "fault-late-error-event"])
def test_text_stream_that_breaks_is_cut(server: Gateway, name: str) -> None:
    """A text stream has no place for an error: that it broke shows in the connection."""
    text, broken = read_stream(server, name, accept="text/plain")

    assert text.startswith("HTTP/1.1 200 ")
    assert broken
    assert "success" not in text


def fields(path: str, model: str, *, stream: bool = False) -> dict[str, object]:
    """The body that asks for the model at a path."""
    said = {"prompt": "hello"} if path == SIMPLE else {"messages": [{"role": "user", "content": "hello"}]}
    return {**said, "model": model, "stream": stream}


def assert_answer_or_error(path: str, response: httpx.Response, code: str | None) -> None:
    """The one way these tests look at a body."""
    body = response.json()
    if response.status_code == 200:
        assert body.get("success") == (1 if path == SIMPLE else None)
        assert body["object"] == "chat.completion"
        return
    assert set(body) == ({"success", "message", "error"} if path == SIMPLE else {"error"})
    assert body.get("success", 0) == 0
    assert body.get("message", body["error"]["message"]) == body["error"]["message"]
    assert {"message", "type", "param", "code"} <= set(body["error"])
    assert body["error"]["code"] == code


def read_stream(server: Gateway, model: str, accept: str = "*/*", path: str = SIMPLE) -> tuple[str, bool]:
    """`(status line and body, whether the connection was cut)` of a streamed call."""
    body = fields(path, model, stream=True)
    with server.client.stream("POST", path, json=body, headers={"accept": accept}) as response:
        text = f"HTTP/1.1 {response.status_code} \n\n"
        try:
            for part in response.iter_text():
                text += part
        except httpx.RemoteProtocolError:
            return text, True
    return text, False


def test_a_filtered_stream_tells_what_it_took(server: Gateway) -> None:
    """A stream that the filter stopped has its usage after its finish reason, if it is asked for."""
    asked = {**fields(RELAYED, "fault-filter-answer"), "stream": True, "stream_options": {"include_usage": True}}
    events = server.client.post(RELAYED, json=asked).text.split("\n\n")

    assert '"finish_reason":"content_filter"' in events[-4]
    assert '"total_tokens"' in events[-3]
    assert events[-2:] == ["data: [DONE]", ""]
