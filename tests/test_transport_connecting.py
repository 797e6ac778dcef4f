"""How every transport fails to connect, over real sockets: each way has its class, its code and its words."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator

import pytest

from chat_api.errors import ConnectError, ConnectTimeout, GatewayError, TlsTimeout, UpstreamError
from chat_api.failures import Limits
from tests.hops import (
    HASTY,
    HTTPX,
    PATIENT,
    UNCHECKED,
    WIRE,
    WIRE_UVLOOP,
    Hop,
    Peer,
    asking,
    fetch,
    keeping,
    trusted,
    upstream,
)


@pytest.fixture(params=[WIRE, WIRE_UVLOOP, HTTPX], ids=str)
def hop(request: pytest.FixtureRequest) -> Hop:
    """Every transport."""
    found: Hop = request.param
    return found


def failing(hop: Hop, url: str, limits: Limits = HASTY, verify: ssl.SSLContext = UNCHECKED) -> GatewayError:
    """The error that a request ends in."""

    async def main() -> GatewayError:
        async with hop.transport(limits, verify) as transport:
            with pytest.raises(GatewayError) as caught:
                await fetch(transport, asking(url))
            return caught.value

    return hop.run(main())


def test_refused_connection_says_why(hop: Hop) -> None:
    """Nobody listening is told in the operating system's words, with what to check."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    error = failing(hop, f"http://127.0.0.1:{port}/")

    assert type(error) is ConnectError
    assert (error.status, error.code) == (502, "upstream_unreachable")
    expected = f"cannot reach 127.0.0.1:{port}: Connection refused; check ENDPOINT and the network"
    assert error.message == expected


def test_name_that_does_not_resolve(hop: Hop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that DNS does not know is told as such."""

    async def unknown(*args: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def main() -> GatewayError:
        monkeypatch.setattr(type(asyncio.get_running_loop()), "getaddrinfo", unknown)
        async with hop.transport() as transport:
            with pytest.raises(ConnectError) as caught:
                await fetch(transport, asking("http://no-such-host/"))
            return caught.value

    error = hop.run(main())
    assert (error.status, error.code) == (502, "upstream_unreachable")
    assert error.message.startswith("cannot reach no-such-host: ")
    assert "Name or service not known" in error.message


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..example"])
def test_name_that_is_none(hop: Hop, host: str) -> None:
    """A host that DNS cannot even be asked for is one that cannot be reached."""
    assert type(failing(hop, f"http://{host}/", PATIENT)) is ConnectError


@contextlib.contextmanager
def full() -> Iterator[int]:
    """The port of a listener that takes nobody in any more."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        port: int = listening.getsockname()[1]
        for _ in range(4):  # more than its queue holds
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        yield port


def test_connection_that_is_not_made_in_time(hop: Hop) -> None:
    """A host that drops what it is sent is given up after CONNECT_TIMEOUT, which the message names."""
    with full() as port:
        error = failing(hop, f"http://127.0.0.1:{port}/")

    assert type(error) is ConnectTimeout
    assert (error.status, error.code) == (504, "upstream_timeout")
    assert error.message == f"no connection to 127.0.0.1:{port} within CONNECT_TIMEOUT (0.2 s)"


def test_tls_handshake_that_does_not_end(hop: Hop) -> None:
    """A peer that takes the connection but says nothing of TLS is given up after CONNECT_TIMEOUT."""
    closed = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.ended()
        closed.set()

    async def main() -> GatewayError:
        async with upstream(serve) as up, hop.transport(HASTY) as transport:
            with pytest.raises(GatewayError) as caught:
                await fetch(transport, asking(f"https://{up.host}/"))
            await asyncio.wait_for(closed.wait(), 5)
            return caught.value

    error = hop.run(main())
    assert type(error) is (ConnectTimeout if hop == HTTPX else TlsTimeout)  # httpx does not tell them apart
    assert (error.status, error.code) == (504, "upstream_timeout")
    assert "within CONNECT_TIMEOUT (0.2 s)" in error.message


def test_request_that_is_cancelled_while_it_connects(hop: Hop) -> None:
    """Whoever leaves before there is a connection leaves none behind."""
    opened, closed = asyncio.Event(), asyncio.Event()

    async def serve(peer: Peer) -> None:
        opened.set()
        await peer.ended()
        closed.set()

    async def main() -> None:
        async with upstream(serve) as up, hop.transport() as transport:
            task = asyncio.create_task(fetch(transport, asking(f"https://{up.host}/")))
            await opened.wait()
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled()
            await asyncio.wait_for(closed.wait(), 5)

    hop.run(main())


def test_certificate_of_a_stranger(hop: Hop) -> None:
    """A certificate that nobody vouches for ends the connection, and the message says which setting could."""
    served, _ = trusted()
    _, other = trusted()

    async def main() -> GatewayError:
        async with upstream(keeping, served) as up, hop.transport(verify=other) as transport:
            with pytest.raises(ConnectError) as caught:
                await fetch(transport, asking(up.url))
            return caught.value

    error = hop.run(main())
    assert (error.status, error.code) == (502, "upstream_unreachable")
    assert "certificate verify failed" in error.message
    assert error.message.endswith("if you trust its authority, name that in SSL_CERT_FILE")


def test_upstream_that_speaks_no_tls(hop: Hop) -> None:
    """Plain HTTP behind an https URL is a connection that cannot be made, with what to check."""

    async def serve(peer: Peer) -> None:
        await peer.read(1000)
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.ended()

    async def main() -> GatewayError:
        async with upstream(serve) as up, hop.transport() as transport:
            with pytest.raises(ConnectError) as caught:
                await fetch(transport, asking(f"https://{up.host}/"))
            return caught.value

    assert "it speaks no TLS there; check whether ENDPOINT is http:// and its port" in hop.run(main()).message


@pytest.mark.parametrize("path", ["x" * 70_000, "a\x00b"], ids=["too-long", "no-character"])
def test_url_that_is_none(hop: Hop, path: str) -> None:
    """A URL that cannot be sent is an error that says so, not a stack trace."""
    error = failing(hop, f"http://127.0.0.1/{path}")

    assert type(error) is UpstreamError
    assert (error.status, error.code) == (502, "unsendable")
    assert error.message.startswith("no request can be sent there: ")
    assert error.message.endswith("; check ENDPOINT and model")
