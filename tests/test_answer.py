"""An answer into bytes: framing, headers that cannot be sent, messages out of order, a client that is slow or gone."""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from starlette.types import Message
from uvicorn.protocols.http.flow_control import FlowControl

from chat_api.answer import MAX_COPIED_BYTES, Cycle
from chat_api.passing import BODY_FOLLOWS, SENT

Pairs = Iterable[tuple[bytes, bytes]]


class Wire:
    """A transport that notes each write, and whether it was closed."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        """Note it."""
        self.writes.append(data)

    def writelines(self, parts: Iterable[bytes]) -> None:
        """Note them as one."""
        self.writes.append(b"".join(parts))

    def close(self) -> None:
        """Note it."""
        self.closed = True

    def pause_reading(self) -> None:
        """Nothing is read here."""

    def resume_reading(self) -> None:
        """Nothing is read here."""

    def get_extra_info(self, name: str) -> None:
        """There is no socket."""

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.closed


def cycle_on(wire: Wire, *, method: str = "POST", version: str = "1.1", keep_alive: bool = True) -> Cycle:
    """The state of a request that came over the wire."""
    options: dict[str, Any] = {
        "scope": {"method": method, "http_version": version},
        "transport": wire,
        "flow": FlowControl(wire),  # type: ignore[arg-type]
        "logger": None,
        "access_logger": None,
        "access_log": False,
        "default_headers": [(b"date", b"now")],
        "message_event": asyncio.Event(),
        "expect_100_continue": False,
        "keep_alive": keep_alive,
        "on_response": lambda: None,
    }
    return Cycle(**options)


def start(headers: Pairs = (), status: int = 200, **more: Any) -> Message:
    """The message that begins a response."""
    return {"type": "http.response.start", "status": status, "headers": headers, **more}


def body(content: bytes, *, more: bool = False) -> Message:
    """A part of a response's body."""
    return {"type": "http.response.body", "body": content, "more_body": more}


def sent(*messages: Message, **request: Any) -> Wire:
    """What goes over the wire of these messages."""

    async def run() -> Wire:
        wire = Wire()
        cycle = cycle_on(wire, **request)
        for message in messages:
            await cycle.send(message)
        return wire

    return asyncio.run(run())


LENGTH_2 = ((b"content-length", b"2"),)


@pytest.mark.parametrize(
    ("messages", "request_", "expected", "closed"),
    [
        pytest.param(
            (start(LENGTH_2), body(b"ok")), {}, b"date: now\r\ncontent-length: 2\r\n\r\nok", False, id="length"
        ),
        pytest.param(
            (start(), body(b"ok")),
            {},
            b"date: now\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            False,
            id="chunked",
        ),
        pytest.param(
            (start(), body(b"")), {}, b"date: now\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", False, id="nothing"
        ),
        pytest.param(
            (start(), body(b"ok")),
            {"version": "1.0", "keep_alive": False},
            b"date: now\r\nconnection: close\r\n\r\nok",
            True,
            id="until-close-for-http-1.0",
        ),
        pytest.param(
            (start(), body(b"ok")),
            {"version": "1.0", "keep_alive": True},
            b"date: now\r\nconnection: close\r\n\r\nok",
            True,
            id="http-1.0-is-not-kept-without-a-length",
        ),
        pytest.param(
            (start(LENGTH_2), body(b"")),
            {"method": "HEAD"},
            b"date: now\r\ncontent-length: 2\r\n\r\n",
            False,
            id="head-has-no-body",
        ),
        pytest.param(
            (start(LENGTH_2), body(b"ok")),
            {"method": "HEAD"},
            b"date: now\r\ncontent-length: 2\r\n\r\n",
            False,
            id="head-whose-app-sends-one",
        ),
        pytest.param(
            (start(LENGTH_2), body(b"ok")),
            {"keep_alive": False},
            b"date: now\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
            True,
            id="connection-that-ends",
        ),
        pytest.param(
            (start((*LENGTH_2, (b"connection", b"close"))), body(b"ok")),
            {},
            b"date: now\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
            True,
            id="connection-that-the-app-ends",
        ),
    ],
)
def test_answer_is_framed(
    messages: tuple[Message, ...], request_: dict[str, Any], expected: bytes, closed: bool
) -> None:
    """An answer has the framing that its head, its method and its version call for, in one write."""
    wire = sent(*messages, **request_)

    assert wire.writes == [b"HTTP/1.1 200 OK\r\n" + expected]
    assert wire.closed == closed


def test_no_content_has_no_framing() -> None:
    """A 204 has neither a length nor chunks (RFC 9110 section 15.3.5)."""
    assert sent(start(status=204), body(b"")).writes == [b"HTTP/1.1 204 No Content\r\ndate: now\r\n\r\n"]


def test_large_body_goes_out_with_its_head() -> None:
    """A large body is not copied to be in one piece with its head, but goes out in the same call."""
    content = b"x" * MAX_COPIED_BYTES
    (raw,) = sent(start(((b"content-length", b"%d" % len(content)),)), body(content)).writes

    assert raw.endswith(b"\r\n\r\n" + content)


def test_each_piece_of_a_stream_is_a_chunk() -> None:
    """Pieces go out one by one, an empty one as nothing: a chunk of nothing would be the end."""
    wire = sent(start(), body(b"a", more=True), body(b"", more=True), body(b"bc", more=True), body(b""))

    assert b"".join(wire.writes).endswith(b"\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n")


def test_head_does_not_wait_for_a_body_that_is_late() -> None:
    """The head goes out by itself when nothing of the body follows at once."""

    async def run() -> tuple[list[bytes], list[bytes]]:
        wire = Wire()
        cycle = cycle_on(wire)
        await cycle.send(start())
        before = list(wire.writes)
        await asyncio.sleep(0)
        return before, wire.writes

    before, after = asyncio.run(run())

    assert before == []
    assert after == [b"HTTP/1.1 200 OK\r\ndate: now\r\ntransfer-encoding: chunked\r\n\r\n"]


def test_head_waits_for_a_body_that_was_promised() -> None:
    """An app that says that the body comes at once gets no separate write of the head."""

    async def run() -> list[bytes]:
        wire = Wire()
        await cycle_on(wire).send(start(LENGTH_2, **{BODY_FOLLOWS: True}))
        await asyncio.sleep(0)
        return wire.writes

    assert asyncio.run(run()) == []


@pytest.mark.parametrize(
    "pair",
    [(b"x", b"a\r\nb: c"), (b"x", b"a\nb"), (b"x", b"a\rb"), (b"x", b"a\0b"), (b"x\r\ny", b"a")],
    ids=["line-end", "lf", "cr", "nul", "name"],
)
def test_no_header_breaks_out_of_its_line(pair: tuple[bytes, bytes]) -> None:
    """A value with a line end in it is a fault of ours, and nothing of the answer goes out."""
    with pytest.raises(RuntimeError, match="line end or a NUL"):
        sent(start((pair,)), body(b""))


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param((body(b"x"),), id="body-before-its-head"),
        pytest.param((start(), start()), id="two-heads"),
        pytest.param((start(), body(b""), body(b"x")), id="body-after-its-end"),
        pytest.param((start(LENGTH_2), body(b"x")), id="too-short"),
        pytest.param((start(LENGTH_2), body(b"xyz")), id="too-long"),
        pytest.param((start(LENGTH_2), body(b"xy", more=True), body(b"z")), id="too-long-in-pieces"),
    ],
)
def test_what_makes_no_response_is_refused(messages: tuple[Message, ...]) -> None:
    """An app that sends messages out of order, or a body of another length than it said, hears of it."""
    with pytest.raises(RuntimeError):
        sent(*messages)


def test_client_that_is_gone_gets_nothing() -> None:
    """What is sent to a client that left is dropped."""

    async def run() -> list[bytes]:
        wire = Wire()
        cycle = cycle_on(wire)
        cycle.disconnected = True
        await cycle.send(start())
        await cycle.send(body(b"x"))
        await asyncio.sleep(0)
        return wire.writes

    assert asyncio.run(run()) == []


def test_only_a_slow_client_has_to_be_waited_for() -> None:
    """There is nothing to await of what has gone out; while the client reads nothing there is."""

    async def run() -> tuple[bool, list[bytes], list[bytes]]:
        wire = Wire()
        cycle = cycle_on(wire)
        at_once = cycle.send(start(LENGTH_2)) is SENT
        cycle.flow.pause_writing()
        waiting = asyncio.ensure_future(cycle.send(body(b"ok")))
        await asyncio.sleep(0.01)
        before = list(wire.writes)
        cycle.flow.resume_writing()
        await waiting
        return at_once, before, wire.writes

    at_once, before, after = asyncio.run(run())

    assert at_once
    assert not b"".join(before).endswith(b"ok")
    assert b"".join(after).endswith(b"\r\n\r\nok")
