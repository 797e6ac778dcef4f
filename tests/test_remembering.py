"""What is remembered from one request to the next: short, and no caller decides how much."""

import socket
from collections.abc import Iterator

import pytest

from chat_api.relaying import MAX_REMEMBERED_BYTES, _target_again
from chat_api.wire.request import MAX_REMEMBERED_CHARS, _address_again, address
from tests.servers import Gateway, gateway

CALLERS = 1_100  # more than either of them remembers
LONG = "a" * 60_000


@pytest.fixture(autouse=True)
def nothing_remembered() -> None:
    """What other tests have asked for is forgotten."""
    _target_again.cache_clear()
    _address_again.cache_clear()


def asked(server: Gateway, paths: Iterator[str], *headers: str) -> set[bytes]:
    """The status lines of the answers to GETs on one connection."""
    statuses = set()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock, sock.makefile("rb") as answers:
        for path in paths:
            sock.sendall("\r\n".join([f"GET {path} HTTP/1.1", "host: localhost", *headers, "", ""]).encode())
            statuses.add(answers.readline())
            length = 0
            while line := answers.readline().strip():
                if line.startswith(b"content-length:"):
                    length = int(line[15:])
            answers.read(length)
    return statuses


def test_long_paths_without_a_key_are_not_remembered() -> None:
    """Whoever may not call leaves nothing behind: not one of 1,100 paths of 60 kB, each of which differs."""
    with gateway(CLIENT_KEYS="canary-client-key") as server:
        statuses = asked(server, (f"/v1/files/{number}{LONG}" for number in range(CALLERS)))

    assert statuses == {b"HTTP/1.1 401 Unauthorized\r\n"}
    assert _target_again.cache_info().currsize == 0


def test_long_paths_that_go_on_are_not_remembered() -> None:
    """Nor are those of callers who may call, neither as they came nor as the URLs that they became."""
    with gateway() as server:
        statuses = asked(server, (f"/v1/files/{number}{LONG}/content" for number in range(5)))
        before = _address_again.cache_info().currsize
        received = len(server.emulator.requests)

    assert statuses == {b"HTTP/1.1 404 Not Found\r\n"}
    assert received == 5
    assert before == 0
    assert _target_again.cache_info().currsize == 0


def test_long_urls_are_not_remembered() -> None:
    """No number of long URLs is kept, and each of them is read like a short one."""
    for number in range(CALLERS):
        assert address(f"http://host/{number}{LONG}").target == f"/{number}{LONG}".encode()

    assert _address_again.cache_info().currsize == 0


def test_short_paths_are_remembered() -> None:
    """The same few paths cost their reading once, up to the length that is said."""
    base = "/v1/files/"
    longest = base + "a" * (MAX_REMEMBERED_BYTES - len(base))
    with gateway() as server:
        for path in (longest, longest, f"{longest}a"):
            asked(server, iter([path]))
    targets = _target_again.cache_info()
    _address_again.cache_clear()
    url = "http://host/" + "a" * (MAX_REMEMBERED_CHARS - len("http://host/"))
    for one in (url, url, f"{url}a"):
        address(one)

    assert (targets.currsize, targets.hits) == (1, 1)
    assert (_address_again.cache_info().currsize, _address_again.cache_info().hits) == (1, 1)
