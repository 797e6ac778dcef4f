"""Real Redis servers for tests, in processes of their own: one, or a cluster of three; they keep nothing on disk."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis import Redis, RedisError

import chat_api.stores.redis_usage  # noqa: F401 - imported in an event loop it would block it
from chat_api.stores.redis_client import RedisClient, server_of, words_of
from chat_api.stores.redis_link import Link
from chat_api.stores.redis_store import ADMIT, LEASE_SECONDS, SETTLE, RedisStore
from chat_api.types import Secret
from tests.proxies import free_port
from tests.servers import eventually

NODES = 3
SLOTS = 16384
START_SECONDS = 10


def need_redis() -> None:
    """Skip the test where there is no redis-server; where there has to be one, fail it."""
    if shutil.which("redis-server") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("redis-server is not installed, and CI=true")
        pytest.skip("redis-server is not installed")


class RedisServer:
    """A redis-server on a port of its own.

    Args:
        options: what its command line says besides: `--requirepass`, "secret".
        password: what `client` presents.
    """

    def __init__(self, *options: str, password: str | None = None) -> None:
        self.port = free_port()
        self._folder = tempfile.TemporaryDirectory()
        self._options = options
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None
        self.client: Any = Redis(port=self.port, password=password, socket_timeout=START_SECONDS)

    @property
    def url(self) -> str:
        """Where it is, for `STORE_URL`."""
        return f"redis://{f':{self._password}@' if self._password else ''}127.0.0.1:{self.port}/0"

    @property
    def folder(self) -> Path:
        """Where it runs."""
        return Path(self._folder.name)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen([*command, *self._options], cwd=self.folder, stdout=subprocess.DEVNULL)
        assert eventually(self.answers, START_SECONDS), "redis-server does not answer"

    def answers(self) -> bool:
        """Whether it does."""
        with contextlib.suppress(RedisError):
            return bool(self.client.ping())
        return False

    def kill(self) -> None:
        """End it as a machine that fails does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Have it answer nobody, with its connections open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Have it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Start it again; it has forgotten everything."""
        self.kill()
        self.start()

    def close(self) -> None:
        """End it for good."""
        self.client.close()
        self.kill()
        self._folder.cleanup()


@contextlib.contextmanager
def redis_server_of(*options: str, password: str | None = None) -> Iterator[RedisServer]:
    """A server of its own for a test that stops it, or wants it otherwise."""
    need_redis()
    server = RedisServer(*options, password=password)
    try:
        server.start()
        yield server
    finally:
        server.close()


class RedisCluster:
    """Three primaries that share the slots."""

    def __init__(self) -> None:
        self._bus_ports = [free_port() for _ in range(NODES)]
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "500", "--cluster-port")
        self.nodes = [RedisServer(*options, str(port)) for port in self._bus_ports]

    @property
    def url(self) -> str:
        """One of its nodes, which knows the others."""
        return self.nodes[0].url

    def start(self) -> None:
        """Start it; it takes Redis two seconds to trust in itself."""
        for nth, (node, bus_port) in enumerate(zip(self.nodes, self._bus_ports, strict=True)):
            node.start()
            slots = SLOTS * nth // NODES, SLOTS * (nth + 1) // NODES - 1
            node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", *slots)
            self.nodes[0].client.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, bus_port)
        assert eventually(lambda: all(map(_is_ready, self.nodes)), START_SECONDS), "the cluster does not come about"
        for node in self.nodes:  # short only while they meet: a busy machine's nodes may be silent for longer
            node.client.config_set("cluster-node-timeout", 15_000)

    def close(self) -> None:
        """End it for good."""
        for node in self.nodes:
            node.close()


def _is_ready(node: RedisServer) -> bool:
    """Whether it knows of all, and serves."""
    info = node.client.execute_command("CLUSTER", "INFO").decode()
    return "cluster_state:ok" in info and f"cluster_known_nodes:{NODES}" in info


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """The server that most tests share."""
    with redis_server_of() as server:
        yield server


@pytest.fixture
def redis(shared_redis: RedisServer) -> RedisServer:
    """A server with nothing in it."""
    shared_redis.client.flushall()
    return shared_redis


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisCluster]:
    """A cluster; tests take subjects of their own."""
    need_redis()
    cluster = RedisCluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


def redis_store(
    url: str,
    *,
    failure: str = "open",
    timeout_seconds: float = START_SECONDS,
    lease_seconds: float = LEASE_SECONDS,
    now: Callable[[], int] = int,
) -> RedisStore:
    """A store at a URL, patient unless it is told otherwise."""
    where = Secret(url)
    link = Link(
        RedisClient(where, (ADMIT, SETTLE)),
        timeout_seconds=timeout_seconds,
        name=server_of(where),
        words=partial(words_of, url=where),
    )
    return RedisStore(link, failure=failure, lease_seconds=lease_seconds, now=now)
