"""A gateway that paces its streams, over real sockets, beside one that does not."""

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2 as httpx
import openai
import pytest

from tests.servers import Gateway, eventually, gateway

UPSTREAM = re.compile(rb"127\.0\.0\.1:\d+")
RATE = 250  # events a second
SAYS = "Grüße, 世界 😀"
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": SAYS}], "stream": True}


@pytest.fixture(scope="module")
def plain() -> Iterator[Gateway]:
    """A gateway without a pace."""
    with gateway() as running:
        yield running


@pytest.fixture(scope="module")
def paced() -> Iterator[Gateway]:
    """A gateway with a pace for all routes."""
    with gateway(TOKEN_RATE_LIMIT=f"{RATE}/second") as running:
        yield running


def received(server: Gateway, path: str, body: dict[str, Any], accept: str = "*/*") -> tuple[bytes, bool]:
    """The bytes of an answer, whoever the upstream is, and whether it came to its end."""
    got = b""
    with server.client.stream("POST", path, json=body, headers={"accept": accept}) as response:
        assert response.status_code == 200
        try:
            for chunk in response.iter_bytes():
                got += chunk
        except httpx.RemoteProtocolError:
            return UPSTREAM.sub(b"upstream", got), False
    return got, True


FAULTS = (
    "split",
    "crlf",
    "no-marker",
    "no-last-newline",
    "spaced-done",
    "gzip",
    "late-error-event",
    "cut",
    "truncated",
)
CALLS: dict[str, tuple[str, dict[str, Any], str]] = {
    "chat": ("/v1/chat/completions", {**CHAT, "stream_options": {"include_usage": True}}, "*/*"),
    "responses": ("/v1/responses", {"model": "gpt-4o", "input": SAYS, "stream": True}, "*/*"),
    "events": ("/v1/gpt/chat", {"prompt": SAYS, "stream": True}, "*/*"),
    "text": ("/v1/gpt/chat", {"prompt": SAYS, "stream": True}, "text/plain"),
    **{name: ("/v1/chat/completions", {**CHAT, "model": f"fault-{name}"}, "*/*") for name in FAULTS},
    **{f"events-{name}": ("/v1/gpt/chat", {"prompt": SAYS, "model": f"fault-{name}", "stream": True}, "*/*")
       for name in ("split", "late-error-event", "cut")},
}  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_answer_is_the_same(plain: Gateway, paced: Gateway, call: str) -> None:
    """Whatever the upstream does, a paced answer has every byte that it has otherwise, and ends the same."""
    without = received(plain, *CALLS[call])
    assert received(paced, *CALLS[call]) == without
    assert without[1] is not call.endswith(("event", "cut", "truncated"))


def chat(client: openai.OpenAI) -> list[Any]:
    """The chunks of a chat."""
    with client.chat.completions.create(model="gpt-4o", messages=CHAT["messages"], stream=True) as stream:  # type: ignore[call-overload]
        return list(stream)


def response(client: openai.OpenAI) -> list[Any]:
    """The events of a response."""
    with client.responses.create(model="gpt-4o", input=SAYS, stream=True) as stream:
        return list(stream)


@pytest.mark.parametrize("ask", [chat, response])
def test_openai_client_gets_the_same_in_its_time(
    plain: Gateway, paced: Gateway, ask: Callable[[openai.OpenAI], list[Any]]
) -> None:
    """OpenAI's own client reads the same chunks, and not all of them at once."""
    answers, seconds = [], []
    for server in (plain, paced):
        with openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="x", max_retries=0) as client:
            start = time.monotonic()
            answers.append([one.model_dump_json() for one in ask(client)])
            seconds.append(time.monotonic() - start)

    assert answers[0] == answers[1]
    turns = sum(not one.startswith('{"choices":[]') and '"choices":[]' not in one for one in answers[0])
    assert turns > 4
    assert seconds[1] >= (turns - 1) / RATE


@pytest.mark.parametrize("call", ["chat", "events", "text"])
def test_only_routes_that_have_a_pace_are_paced(call: str) -> None:
    """A path in TOKEN_RATE_LIMIT is that of the request; what is not among them goes out as it comes."""
    path, body, accept = CALLS[call]
    other = "/v1/gpt/chat" if call == "chat" else "/v1/chat/completions"
    with gateway(TOKEN_RATE_LIMIT=json.dumps({path: f"{RATE}/second", other: "1/day"})) as server:
        start = time.monotonic()
        _, complete = received(server, path, body, accept)
        assert complete
        assert time.monotonic() - start >= 4 / RATE


@pytest.mark.parametrize("call", ["chat", "events", "text"])
def test_client_that_leaves_while_its_next_event_waits(call: str) -> None:
    """The upstream's connection is closed, however long the event would still have waited."""
    path, body, accept = CALLS[call]
    with gateway(TOKEN_RATE_LIMIT="1/day") as server:
        raw = json.dumps({**body, "model": "fault-endless"}).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\ncontent-type: application/json\r\n"
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
            sock.sendall(f"{head}content-length: {len(raw)}\r\n\r\n".encode() + raw)
            got = b""
            while b"\r\n\r\n" not in got:
                got += sock.recv(65536)
            assert server.emulator.open_calls == 1

        assert eventually(lambda: server.emulator.open_calls == 0)
