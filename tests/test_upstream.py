"""The upstream hop over real sockets: what cannot be reached, is too slow, or cannot be trusted."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trustme

from chat_api.errors import AuthError, GatewayError, NoUpstream, UpstreamError, UpstreamTimeout
from chat_api.settings import load
from chat_api.types import Call, Deployment, Secret, UpstreamRequest
from chat_api.upstream import HttpxTransport, credential

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
SETTINGS = load({"CONNECT_TIMEOUT": "0.3", "FIRST_BYTE_TIMEOUT": "0.3", "IDLE_TIMEOUT": "0.3"}, Path("/none/.env"))
PATIENT = load({"CONNECT_TIMEOUT": "0.2"}, Path("/none/.env"))
UNCHECKED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@contextlib.asynccontextmanager
async def server(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server that treats every connection so; gives its port."""

    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await serve(reader, writer)
        writer.close()

    listening = await asyncio.start_server(closing, "127.0.0.1", 0, ssl=tls)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


def answering(raw: bytes) -> Serve:
    """Reads a request's head and sends these bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        await writer.drain()

    return serve


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes everything and says nothing."""
    while await reader.read(65536):
        pass


async def fetch(
    url: str, tls: ssl.SSLContext = UNCHECKED, transport: HttpxTransport | None = None
) -> tuple[int, bytes]:
    """`(status, body)` of one request."""
    sender = transport or HttpxTransport(SETTINGS, verify=tls)
    try:
        response = await sender.send(UpstreamRequest("POST", url, ((b"api-key", b"canary"),), b"{}"))
        try:
            return response.status, b"".join([chunk async for chunk in response.chunks()])
        finally:
            await response.aclose()
    finally:
        if transport is None:
            await sender.aclose()


def failure(serve: Serve) -> GatewayError:
    """The error that a request to such a server ends in."""

    async def run() -> GatewayError:
        async with server(serve) as port:
            with pytest.raises(GatewayError) as caught:
                await fetch(f"http://127.0.0.1:{port}/x")
            return caught.value

    return asyncio.run(run())


def test_answer_comes_with_its_headers_in_lower_case_and_its_bytes_undecoded() -> None:
    """Status, raw header pairs and body are handed on as they came."""

    async def run() -> None:
        raw = b"HTTP/1.1 418 Teapot\r\nX-Ms-Region: a\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"
        async with server(answering(raw)) as port:
            transport = HttpxTransport(SETTINGS, verify=UNCHECKED)
            response = await transport.send(UpstreamRequest("POST", f"http://127.0.0.1:{port}/", (), b"{}"))
            assert response.status == 418
            assert (b"x-ms-region", b"a") in response.headers
            assert [chunk async for chunk in response.chunks()] == [b"abc"]
            await response.aclose()
            await transport.aclose()

    asyncio.run(run())


def test_refused_connection_is_502_that_says_why() -> None:
    """Nobody listening is told in the operating system's words, with what to check."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(UpstreamError) as caught:
        asyncio.run(fetch(f"http://127.0.0.1:{port}/"))

    assert caught.value.code == "upstream_unreachable"
    assert f"cannot reach 127.0.0.1:{port}" in caught.value.message
    assert "refused" in caught.value.message.lower()
    assert "check ENDPOINT" in caught.value.message


def test_name_that_does_not_resolve_is_502(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that DNS does not know is told as such."""

    async def unknown(*args: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", unknown)
    with pytest.raises(UpstreamError, match=r"cannot reach no-such-host: .*Name or service not known") as caught:
        asyncio.run(fetch("http://no-such-host/"))

    assert caught.value.status == 502


def test_connection_that_is_not_made_in_time_is_504() -> None:
    """A host that drops what it is sent is given up after CONNECT_TIMEOUT, which the message names."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        with contextlib.ExitStack() as stack:
            for _ in range(4):  # more than the queue of a listener that accepts nothing holds
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(("127.0.0.1", port))
            with pytest.raises(UpstreamTimeout, match=r"within CONNECT_TIMEOUT \(0.3 s\)"):
                asyncio.run(fetch(f"http://127.0.0.1:{port}/"))


@pytest.mark.parametrize(
    ("serve", "error", "code", "words"),
    [
        pytest.param(silent, UpstreamTimeout, "upstream_timeout", "FIRST_BYTE_TIMEOUT (0.3 s)", id="no-head"),
        pytest.param(answering(b"hello\r\n\r\n"), UpstreamError, "upstream_not_http", "not speak HTTP", id="garbage"),
        pytest.param(answering(b""), UpstreamError, "upstream_closed", "closed the connection", id="closed"),
        pytest.param(
            answering(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"),
            UpstreamError,
            "answer_cut_short",
            "broke off its answer",
            id="short-of-its-length",
        ),
        pytest.param(
            answering(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"),
            UpstreamError,
            "answer_cut_short",
            "broke off its answer",
            id="chunks-without-an-end",
        ),
    ],
)  # fmt: skip
def test_upstream_faults_are_told_apart(serve: Serve, error: type[GatewayError], code: str, words: str) -> None:
    """Each way to fail has its class, its code and its words; an early end is an error, never an end."""
    found = failure(serve)

    assert type(found) is error
    assert found.code == code
    assert words in found.message
    assert "canary" not in found.message


def test_silence_within_an_answer_is_504() -> None:
    """An answer that begins and goes silent is given up after IDLE_TIMEOUT."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc")(reader, writer)
        await reader.read()

    found = failure(serve)

    assert type(found) is UpstreamTimeout
    assert "IDLE_TIMEOUT (0.3 s) within its answer" in found.message


def test_all_connections_busy_is_503_with_retry_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """When no connection comes free in time the caller is asked to come back."""
    monkeypatch.setattr("chat_api.upstream.MAX_CONNECTIONS", 1)

    async def run() -> GatewayError:
        async with server(silent) as port:
            transport = HttpxTransport(PATIENT, verify=UNCHECKED)
            url = f"http://127.0.0.1:{port}/"
            first = asyncio.create_task(fetch(url, transport=transport))
            await asyncio.sleep(0)
            with pytest.raises(NoUpstream) as caught:
                await fetch(url, transport=transport)
            first.cancel()
            await asyncio.wait({first})
            await transport.aclose()
            return caught.value

    found = asyncio.run(run())

    assert (found.status, found.code) == (503, "pool_exhausted")
    assert found.headers == ((b"retry-after", b"1"),)


def test_tls_is_verified_against_the_trust_that_is_given() -> None:
    """A certificate of a known authority is accepted; one of a stranger is a 502 that says so."""
    authority, stranger = trustme.CA(), trustme.CA()
    served, trusting, other = (
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
        ssl.create_default_context(),
        ssl.create_default_context(),
    )
    authority.issue_cert("localhost").configure_cert(served)
    authority.configure_trust(trusting)
    stranger.configure_trust(other)

    async def run(tls: ssl.SSLContext) -> tuple[int, bytes]:
        raw = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
        async with server(answering(raw), served) as port:
            return await fetch(f"https://localhost:{port}/", tls)

    assert asyncio.run(run(trusting)) == (200, b"ok")
    with pytest.raises(UpstreamError, match=r"cannot reach localhost:.*certificate verify failed"):
        asyncio.run(run(other))


@pytest.mark.parametrize(
    ("key", "presented", "expected"),
    [
        pytest.param(Secret("ours"), Secret("theirs"), b"ours", id="the-servers-key-wins"),
        pytest.param(Secret("ours"), None, b"ours", id="only-the-servers"),
        pytest.param(None, Secret("theirs"), b"theirs", id="only-the-callers"),
    ],
)
def test_credential_is_the_servers_key_else_the_callers(
    key: Secret | None, presented: Secret | None, expected: bytes
) -> None:
    """The server's key goes upstream whatever the caller presents; without one the caller's does, as api-key."""
    deployment = Deployment("d", "https://x", "v1", key)

    assert credential(Call("op", None, b"", False, presented), deployment) == (b"api-key", expected)


def test_no_credential_is_401_before_anything_is_sent() -> None:
    """With neither key the error says what to send and what to set."""
    with pytest.raises(AuthError, match="api-key header or as Authorization: Bearer, or set KEY"):
        credential(Call("op", None, b"", False), Deployment("d", "https://x", "v1"))


@pytest.mark.parametrize(
    ("presented", "expected"),
    [
        pytest.param("eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJ4In0.c2ln-_x", b"authorization", id="entra-token"),
        pytest.param("0123456789abcdef0123456789abcdef", b"api-key", id="key"),
        pytest.param("eyJust.a-key", b"api-key", id="two-parts"),
    ],
)
def test_token_goes_on_as_bearer_and_a_key_as_api_key(presented: str, expected: bytes) -> None:
    """Azure takes Entra ID tokens as Bearer only, and keys as api-key everywhere."""
    name, value = credential(Call("op", None, b"", False, Secret(presented)), Deployment("d", "https://x", "v1"))

    assert name == expected
    assert value.removeprefix(b"Bearer ") == presented.encode()


@pytest.mark.parametrize("presented", ["a\tb", "a\r\nb", "\u00ff"])
def test_key_that_is_no_header_value_is_401(presented: str) -> None:
    """What a caller presents cannot break out of the header it is sent in."""
    with pytest.raises(AuthError) as caught:
        credential(Call("op", None, b"", False, Secret(presented)), Deployment("d", "https://x", "v1"))
    assert caught.value.code == "invalid_credential"
    assert presented not in caught.value.message


def test_url_that_is_none_is_502() -> None:
    """A URL that httpx refuses is the upstream's fault, not a stack trace."""
    with pytest.raises(UpstreamError, match="no request can be sent there"):
        asyncio.run(fetch("http://127.0.0.1/" + "x" * 70_000))
