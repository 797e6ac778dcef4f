"""What happens while an answer is on its way: first chunks, pings, clients that leave, connections kept."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Iterator

import pytest
from msgspec import structs

from chat_api.errors import StreamBroken, UpstreamError
from chat_api.streaming import ChatEvents
from chat_api.types import Adaptation, Call, Deployment, Reply, Sink
from tests.servers import Gateway, eventually, gateway


@pytest.fixture(scope="module")
def server() -> Iterator[Gateway]:
    """A gateway with the least settings."""
    with gateway() as running:
        yield running


@pytest.mark.parametrize("accept", ["*/*", "text/plain"])
def test_first_chunk_arrives_while_the_upstream_is_still_sending(server: Gateway, accept: str) -> None:
    """The client reads the beginning of an answer that has no end yet."""
    with call(server, model="fault-endless", stream=True, accept=accept) as sock:
        received = read_until(sock, b"You")
        still_sending = server.emulator.open_calls

    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert still_sending == 1
    assert eventually(lambda: server.emulator.open_calls == 0)


PHASES = {
    "before-headers": ("fault-hang", b""),
    "before-first-byte": ("fault-silent", b""),
    "mid-answer": ("fault-stall", b"You"),
}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("accept", ["*/*", "text/plain"])
@pytest.mark.parametrize("stream", [True, False])
def test_client_that_leaves_closes_the_upstream_connection_within_a_second(
    server: Gateway, stream: bool, accept: str, phase: str
) -> None:
    """Streamed or not, in every phase, nobody goes on paying for an answer that nobody reads."""
    model, arrives = PHASES[phase]
    sock = call(server, model=model, stream=stream, accept=accept)
    assert eventually(lambda: server.emulator.open_calls == 1, seconds=5)
    if stream and arrives:
        read_until(sock, arrives)
    sock.close()

    assert eventually(lambda: server.emulator.open_calls == 0, seconds=1)


def test_client_that_leaves_while_it_sends_costs_nothing(server: Gateway) -> None:
    """A request that is never complete never goes upstream."""
    before = len(server.emulator.received)
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(b"POST /v1/gpt/chat HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{")
    healthy = server.chat(prompt="hello").status_code

    assert healthy == 200
    assert len(server.emulator.received) == before + 1


def test_client_that_resets_is_as_good_as_gone(server: Gateway) -> None:
    """A connection that ends in a reset closes the upstream one as well."""
    sock = call(server, model="fault-endless", stream=True)
    read_until(sock, b"You")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    sock.close()

    assert eventually(lambda: server.emulator.open_calls == 0)


def test_silent_stream_is_kept_open_by_pings_from_before_the_upstream_answers() -> None:
    """After PING_INTERVAL a stream begins with comments; what follows is the answer, or an error event and a cut."""
    with (
        gateway(PING_INTERVAL="0.05", FIRST_BYTE_TIMEOUT="0.4") as server,
        call(server, model="fault-hang", stream=True) as sock,
    ):
        received = read_until(sock, b"\r\n0\r\n\r\n", until_cut=True)

    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert body.count(b": ping\n\n") >= 2
    last = json.loads(body.rpartition(b"data: ")[2].partition(b"\n\n")[0])
    assert last["error"]["code"] == "upstream_timeout"
    assert not received.endswith(b"0\r\n\r\n")


def test_answer_that_comes_after_the_first_ping_is_complete() -> None:
    """A stream that began with a ping goes on with the answer and ends with `[DONE]`."""
    with gateway(PING_INTERVAL="0.3") as server:
        events = server.chat(prompt="hello", model="fault-slow", stream=True).text.split("\n\n")

    assert events[-2:] == ["data: [DONE]", ""]
    assert ": ping" in events


def test_client_that_leaves_after_the_first_ping_closes_the_upstream_connection() -> None:
    """A call that is still waiting for the upstream's head, behind a stream that has begun, is given up too."""
    with gateway(PING_INTERVAL="0.05", FIRST_BYTE_TIMEOUT="30") as server:
        sock = call(server, model="fault-hang", stream=True)
        read_until(sock, b": ping\n\n")
        sock.close()

        assert eventually(lambda: server.emulator.open_calls == 0)


def test_refusal_just_as_the_stream_begins_is_an_error_event() -> None:
    """A call that is answered between the first ping and the first step is judged like any other."""
    answer = Reply(429, (), b'{"error":{"message":"busy","code":"429"}}', Deployment("d", "https://x", "v1"))

    async def run() -> list[bytes]:
        task = asyncio.ensure_future(asyncio.sleep(0, answer))
        response = ChatEvents(task, Call("chat/completions", None, b"{}", True), 15)
        await task
        events = aiter(response.body_iterator)
        came = [bytes(await anext(events)) for _ in range(2)]  # type: ignore[arg-type]
        with pytest.raises(StreamBroken):
            await anext(events)
        return came

    ping, error = asyncio.run(run())
    assert ping == b": ping\n\n"
    assert json.loads(error.removeprefix(b"data: "))["error"]["code"] == "429"


class Body:
    """A body of these chunks, which then ends or breaks off."""

    def __init__(self, *chunks: bytes, error: UpstreamError | None = None) -> None:
        self._chunks = list(chunks)
        self._error = error
        self.end_expected = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._chunks:
            return self._chunks.pop(0)
        raise self._error or StopAsyncIteration

    async def flow(self, sink: Sink) -> Awaitable[object] | None:
        """The simple endpoint iterates."""
        raise NotImplementedError

    def expect_end(self) -> None:
        """Note that the answer was complete."""
        self.end_expected = True

    async def aclose(self) -> None:
        """Nothing to close."""


CALL = Call("chat/completions", None, b"{}", True)


def streamed(
    body: Body, *, early: bool = False, adaptations: tuple[Adaptation, ...] = (), call: Call = CALL
) -> list[bytes]:
    """The events that such a body becomes."""
    reply = Reply(200, (), body, Deployment("d", "https://x", "v1"), adaptations)

    async def run() -> list[bytes]:
        task = asyncio.ensure_future(asyncio.sleep(0, reply))
        if not early:
            await task
        response = ChatEvents(task, call, 15)
        return [bytes(event) async for event in response.body_iterator]  # type: ignore[arg-type]

    return asyncio.run(run())


WORD = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"


def test_adaptation_is_told_in_a_comment_where_the_header_is_out() -> None:
    """A stream that began with a ping tells what was changed before the first chunk."""
    renamed = Adaptation("max_tokens", "max_completion_tokens")

    assert streamed(Body(STOP, DONE), early=True, adaptations=(renamed,)) == [
        b": ping\n\n",
        b": max_tokens sent as max_completion_tokens\n\n",
        STOP,
        DONE,
    ]


def test_finished_stream_that_lacks_only_done_is_complete() -> None:
    """Where every choice has said why it ends, neither an early end nor silence makes the answer a broken one."""
    for body in (Body(WORD, STOP), Body(WORD, STOP, error=UpstreamError("silent"))):
        assert streamed(body) == [WORD, STOP, DONE]
        assert body.end_expected


FILTER = b'data: {"choices":[],"prompt_filter_results":[{"prompt_index":0}],"usage":null}\n\n'
NULL = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}],"usage":null}\n\n'
USAGE = b'data: {"choices":[],"usage":{"total_tokens":3}}\n\n'


def test_usage_that_nobody_asked_for_is_hidden() -> None:
    """Where a stream tells what it took only to be counted, its caller gets the chunks as they would have been."""
    metered = structs.replace(CALL, is_metered=True, is_read=True)
    expected = [FILTER.replace(b',"usage":null', b""), WORD, STOP, DONE]

    assert streamed(Body(FILTER, NULL, STOP, USAGE, DONE), call=metered) == expected
    assert b"".join(streamed(Body(FILTER + NULL + STOP + USAGE + DONE), call=metered)) == b"".join(expected)


def test_usage_that_was_asked_for_is_told() -> None:
    """Who asked for it gets every chunk as it came, counted or not."""
    for asked in (CALL, structs.replace(CALL, is_metered=True, is_read=True, asks_usage=True)):
        assert streamed(Body(FILTER, NULL, STOP, USAGE, DONE), call=asked) == [FILTER, NULL, STOP, USAGE, DONE]


def test_last_chunk_without_its_blank_line_is_not_lost() -> None:
    """What the upstream sent whole but for its line end goes on, and `[DONE]` after it."""
    assert streamed(Body(WORD, STOP.rstrip())) == [WORD, STOP, DONE]


def test_data_of_several_lines_stays_one_event() -> None:
    """An event whose JSON spans lines is written as several data lines."""
    lines = b'data: {"choices":\ndata: [{"index":0,"finish_reason":"stop"}]}\n\n'

    assert streamed(Body(lines)) == [lines, DONE]


def test_no_ping_interval_means_no_pings() -> None:
    """PING_INTERVAL=0 waits for the upstream however long it takes, and then answers with a true status."""
    with gateway(PING_INTERVAL="0", FIRST_BYTE_TIMEOUT="0.3") as server:
        response = server.chat(prompt="hello", model="fault-hang", stream=True)

    assert response.status_code == 504
    assert response.json()["error"]["code"] == "upstream_timeout"


def test_upstream_connection_is_kept_for_the_next_call(server: Gateway) -> None:
    """Answers that were complete leave their connection to later calls; the next one may come before it is let go."""
    for _ in range(3):
        server.chat(prompt="hello")
        server.chat(prompt="hello", stream=True)
        server.client.post("/v1/gpt/chat", json={"prompt": "x", "stream": True}, headers={"accept": "text/plain"})
    ports = list(server.emulator.ports)[-9:]

    assert len(ports) == 9
    assert len(set(ports)) <= 2


def test_many_clients_that_leave_at_once_leave_nothing_behind(server: Gateway) -> None:
    """Fifty clients in every phase leave together: no upstream call stays open, and the next one is answered."""
    models = ["fault-hang", "fault-silent", "fault-stall", "fault-endless", "fault-slow"]
    socks = [call(server, model=models[number % 5], stream=number % 2 == 0) for number in range(50)]
    assert eventually(lambda: server.emulator.open_calls >= 30, seconds=5)
    for sock in socks:
        sock.close()

    assert eventually(lambda: server.emulator.open_calls == 0, seconds=3)
    assert server.chat(prompt="hello").status_code == 200


def call(server: Gateway, *, model: str, stream: bool, accept: str = "*/*") -> socket.socket:
    """A connection on which a call has been sent and nothing read."""
    body = json.dumps({"prompt": "hello", "model": model, "stream": stream}).encode()
    head = (
        f"POST /v1/gpt/chat HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    sock.sendall(head.encode() + body)
    return sock


def read_until(sock: socket.socket, mark: bytes, *, until_cut: bool = False) -> bytes:
    """What comes up to a mark, or up to the end of the connection."""
    received = b""
    while mark not in received:
        part = sock.recv(65536)
        if not part:
            assert until_cut, f"the connection ended before {mark!r}: {received!r}"
            break
        received += part
    return received
