"""Outbound proxies for tests: real ones, in processes of their own."""

import contextlib
import socket
import subprocess
from collections.abc import Iterator

from tests.servers import eventually


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
    return port


@contextlib.contextmanager
def running(port: int, *command: str) -> Iterator[int]:
    """A proxy that listens on the port."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def listens() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return True
        return False

    try:
        assert eventually(listens, 10)
        yield port
    finally:
        process.kill()
        process.wait()
