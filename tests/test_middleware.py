"""The filters by themselves, driven as ASGI callables."""

import asyncio
import logging
from typing import Any

import msgspec
import pytest
from starlette.types import Message, Receive, Scope, Send

from chat_api.callers import Caller, ClientKey, by_address, by_key
from chat_api.errors import ClientGone, NoUpstream, RequestError, StreamBroken
from chat_api.guards import LoopbackGuard
from chat_api.middleware import AccessLog, ErrorBoundary, address_of, note_caller

SCOPE: dict[str, Any] = {
    "type": "http",
    "method": "POST",
    "path": "/v1/gpt/chat",
    "raw_path": b"/v1/gpt/chat",
    "query_string": b"prompt=secret",
    "headers": [],
    "client": ("127.0.0.1", 5),
}


def drive(app: Any, **changes: Any) -> list[Message]:
    """The messages that the app sends for one request."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(app({**SCOPE, **changes}, receive, send))
    return sent


def raising(error: BaseException, *, after_start: bool = False) -> Any:
    """An app that raises, before or after its response began."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if after_start:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    return app


def test_stray_exception_is_a_500_without_a_trace(caplog: pytest.LogCaptureFixture) -> None:
    """A fault of ours tells the client a request id only; the log has the trace."""
    start, body = drive(AccessLog(ErrorBoundary(raising(ZeroDivisionError("secret detail")))))

    answer = msgspec.json.decode(body["body"])
    request_id = dict(start["headers"])[b"x-chat-api-request-id"].decode()
    assert start["status"] == 500
    assert answer["error"]["code"] == "internal_error"
    assert request_id in answer["message"]
    assert "secret" not in answer["message"]
    assert "ZeroDivisionError" in caplog.text


def test_error_keeps_its_status_and_headers() -> None:
    """A gateway error is answered with its own status and headers, in the simple endpoint's shape."""
    error = NoUpstream("all busy", headers=((b"retry-after", b"1"),))
    start, body = drive(AccessLog(ErrorBoundary(raising(error))))

    assert start["status"] == 503
    assert (b"retry-after", b"1") in start["headers"]
    assert msgspec.json.decode(body["body"])["success"] == 0


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(StreamBroken("cut"), id="broken-stream"),
        pytest.param(RequestError("late"), id="gateway-error"),
        pytest.param(ZeroDivisionError(), id="stray"),
        pytest.param(asyncio.CancelledError(), id="cancelled"),
    ],
)
def test_answer_that_has_begun_is_left_without_its_end(error: BaseException) -> None:
    """Nothing is added to a response that broke: its missing end makes the server cut the connection."""
    sent = drive(AccessLog(ErrorBoundary(raising(error, after_start=True))))

    assert [message["type"] for message in sent] == ["http.response.start"]


def test_client_that_left_gets_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is sent to a client that is gone; the access log has 499."""
    caplog.set_level(logging.INFO, "chat_api.access")
    sent = drive(AccessLog(ErrorBoundary(raising(ClientGone("gone")))))

    assert sent == []
    assert " POST /v1/gpt/chat 499 " in caplog.text


def test_cancelled_request_is_answered_503() -> None:
    """What the server cancels at the end of its drain time is told so, if nothing was sent yet."""
    start, _ = drive(ErrorBoundary(raising(asyncio.CancelledError())))

    assert start["status"] == 503


def test_access_log_leaves_the_query_out_and_marks_what_was_cut(caplog: pytest.LogCaptureFixture) -> None:
    """The query string may hold a prompt; a status whose answer has no end says so."""
    caplog.set_level(logging.INFO, "chat_api.access")
    drive(AccessLog(ErrorBoundary(raising(StreamBroken("cut"), after_start=True))))

    assert "127.0.0.1 POST /v1/gpt/chat 200 (cut short)" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("caller", "end"),
    [
        pytest.param(by_key(ClientKey("alice", b"")), " key=alice", id="key"),
        pytest.param(by_address("127.0.0.1"), "", id="address"),
        pytest.param(None, "", id="nobody-asked"),
    ],
)
@pytest.mark.parametrize("error", [None, RequestError("late"), ClientGone("gone")], ids=["answer", "error", "gone"])
def test_access_log_names_the_client_key(caller: Caller | None, end: str, error: Exception | None) -> None:
    """However a request ends, its line ends with the name of the key that was presented, where one was."""
    lines: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        note_caller(scope, caller)
        if error is not None:
            raise error
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    drive(AccessLog(ErrorBoundary(app), write=lines.append))

    (line,) = lines
    assert line.endswith(f" {line.split()[6]}{end}")


@pytest.mark.parametrize(
    ("client", "address"), [(("10.0.0.1", 5), "10.0.0.1"), (("::1", 5), "::1"), (("", 0), ""), (None, "")]
)
def test_address(client: tuple[str, int] | None, address: str) -> None:
    """The client's address is the server's word; over a socket without addresses there is none."""
    assert address_of({**SCOPE, "client": client}) == address


@pytest.mark.parametrize("middleware", [AccessLog, ErrorBoundary, LoopbackGuard])
def test_lifespan_passes_through(middleware: Any) -> None:
    """What is not HTTP is none of a filter's business."""
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    drive(middleware(app), type="lifespan")

    assert seen == ["lifespan"]


@pytest.mark.parametrize(
    ("server", "status"), [(("127.0.0.1", 8080), 204), (("::1", 8080), 204), (("192.168.0.7", 8080), 403), (None, 204)]
)
def test_requests_to_another_address_are_refused(server: tuple[str, int] | None, status: int) -> None:
    """A server that was told to listen on other addresses than the settings say still lends its key to none of them."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})

    start = drive(ErrorBoundary(LoopbackGuard(app)), server=server, headers=[(b"host", b"localhost")])[0]

    assert start["status"] == status


def test_request_without_a_host_is_a_probe() -> None:
    """HTTP/1.0 probes name no host; browsers always do."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})

    assert drive(ErrorBoundary(LoopbackGuard(app)))[0]["status"] == 204


def test_request_with_two_host_headers_is_refused() -> None:
    """One of two names would be believed by somebody else."""
    hosts = [(b"host", b"localhost"), (b"host", b"localhost")]
    start, _ = drive(ErrorBoundary(LoopbackGuard(raising(AssertionError("reached")))), headers=hosts)

    assert start["status"] == 403
