"""Outbound proxies, tried with real ones: tinyproxy (HTTP, CONNECT) and microsocks (SOCKS5), both with passwords."""

import asyncio
import gc
import shutil
import ssl
from collections.abc import Iterator

import pytest
import trustme

from chat_api.errors import UpstreamError
from chat_api.settings import Settings, load
from chat_api.types import UpstreamRequest
from chat_api.upstream import UpstreamTransport
from tests.proxies import free_port, running
from tests.servers import NO_FILE, gateway

USER, PASSWORD = "alice", "canary-proxy-password"
MISSING = [name for name in ("tinyproxy", "microsocks") if shutil.which(name) is None]
pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    # httpcore leaves the socket of a refused handshake to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What a test leaves to the garbage collector is collected within it."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def http_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an HTTP proxy that asks for a password."""
    port = free_port()
    config = tmp_path_factory.mktemp("tinyproxy") / "tinyproxy.conf"
    config.write_text(f"Port {port}\nListen 127.0.0.1\nAllow 127.0.0.1\nBasicAuth {USER} {PASSWORD}\nTimeout 60\n")
    with running(port, "tinyproxy", "-d", "-c", str(config)):
        yield port


@pytest.fixture(scope="module")
def socks_port() -> Iterator[int]:
    """The port of a SOCKS5 proxy that asks for a password."""
    port = free_port()
    with running(port, "microsocks", "-i", "127.0.0.1", "-p", str(port), "-u", USER, "-P", PASSWORD):
        yield port


PROXIES = ("http", "socks5", "socks5h")


def url(scheme: str, http_port: int, socks_port: int, password: str = PASSWORD) -> str:
    """The URL of the proxy of that scheme."""
    return f"{scheme}://{USER}:{password}@127.0.0.1:{http_port if scheme == 'http' else socks_port}"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("scheme", PROXIES)
def test_calls_go_through_the_proxy(http_port: int, socks_port: int, scheme: str, stream: bool) -> None:
    """With its credentials the proxy carries calls and streams; its name for the setting does not matter."""
    name = "AZURE_OPENAI_HTTP_PROXY" if scheme == "http" else "AZURE_OPENAI_SOCKS_PROXY"
    with gateway(HOST="127.0.0.1", **{name: url(scheme, http_port, socks_port)}) as server:
        body = {"model": "gpt-4o", "stream": stream, "messages": [{"role": "user", "content": "hi"}]}
        answer = server.client.post("/v1/chat/completions", json=body)

    assert answer.status_code == 200
    assert "hi" in answer.text
    assert answer.text.endswith("data: [DONE]\n\n") == stream


@pytest.mark.parametrize("scheme", PROXIES)
def test_wrong_password_is_told_without_it(
    http_port: int, socks_port: int, scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A proxy that refuses is a 502 that names it; its password is nowhere, neither the right nor the wrong one."""
    with gateway(UPSTREAM_PROXY=url(scheme, http_port, socks_port, "canary-wrong-password")) as server:
        answer = server.chat(prompt="hello")

    # To plain http an HTTP proxy answers itself; this one with a page that it may cut short.
    assert answer.json()["error"]["code"] == "proxy_failed" or scheme == "http"
    assert answer.status_code in (401, 502)
    assert "canary" not in answer.text + caplog.text


@pytest.mark.parametrize("scheme", PROXIES)
def test_proxy_that_is_down_is_named(scheme: str) -> None:
    """A proxy that cannot be reached is a 502 that names it and the setting."""
    port = free_port()
    with gateway(UPSTREAM_PROXY=url(scheme, port, port)) as server:
        error = server.chat(prompt="hello").json()["error"]

    assert error["code"] == "proxy_failed"
    assert f"127.0.0.1:{port}" in error["message"]
    assert "UPSTREAM_PROXY" in error["message"]
    assert PASSWORD not in error["message"]


@pytest.mark.parametrize("scheme", PROXIES)
def test_tls_goes_through_the_proxy_end_to_end(http_port: int, socks_port: int, scheme: str) -> None:
    """An https upstream is verified through the proxy (CONNECT, SOCKS5), which sees none of it."""
    authority = trustme.CA()
    served, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(served)
    authority.configure_trust(trusting)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
        writer.close()

    async def run(settings: Settings) -> bytes:
        listening = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=served)
        port = listening.sockets[0].getsockname()[1]
        transport = UpstreamTransport(settings, verify=trusting)
        async with listening:
            try:
                response = await transport.send(UpstreamRequest("GET", f"https://localhost:{port}/", (), b""))
                return b"".join([chunk async for chunk in response.chunks()])
            finally:
                await transport.aclose()  # before the server, which waits for its connections

    through = load({"HTTPS_PROXY": url(scheme, http_port, socks_port)}, NO_FILE)
    wrong = {"HTTPS_PROXY": url(scheme, http_port, socks_port, "wrong")}
    assert asyncio.run(run(through)) == b"ok"
    assert asyncio.run(run(load({**wrong, "NO_PROXY": "localhost"}, NO_FILE))) == b"ok"
    with pytest.raises(UpstreamError, match="does not connect to localhost"):
        asyncio.run(run(load(wrong, NO_FILE)))


def test_built_in_emulator_is_never_reached_through_a_proxy() -> None:
    """HTTP_PROXY in the environment of someone who tries the server does not get in the way."""
    with gateway(ENDPOINT="", KEY="", HTTP_PROXY=f"http://127.0.0.1:{free_port()}") as server:
        assert server.chat(prompt="hello").status_code == 200
