"""redis-py, as far as it is needed here: a client of a server or of a cluster, whichever is there, and its scripts.

Nothing is ever sent twice: an answer that did not come may have been one. Who asks bounds the time.
"""

import contextlib
import hashlib
import secrets
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ResponseError,
    TryAgainError,
)

from chat_api.types import Secret

Command = tuple[str | bytes | int, ...]

SLOTS = 16384
MARK_MS = 30_000  # after which the mark of a process that died is gone
SCANNED = 1000  # keys that are looked at in one round trip
_TRANSIENT = ("MISCONF", "NOREPLICAS")  # states of the server that redis-py has no class for


class Forgotten(Exception):
    """A server has lost what was stored in it."""


class Script:
    """A Lua script of the files that it is made of, and what stands for it on the wire."""

    def __init__(self, *names: str) -> None:
        self.text = "".join(Path(__file__).with_name(name).read_text() for name in names).encode()
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()

    def of(self, key: bytes, message: bytes) -> Command:
        """The command that runs it on a key."""
        return "EVALSHA", self.sha, 1, key, message


class RedisClient:
    """A client of the server, or the cluster, at a URL.

    Args:
        url: where it is.
        scripts: those that its commands run.
        is_forgetful: whether it is no matter if the server forgets, or is full.
    """

    def __init__(self, url: Secret, scripts: Sequence[Script], *, is_forgetful: bool = False) -> None:
        self._url = url
        self._is_forgetful = is_forgetful
        self._scripts: dict[object, bytes] = {script.sha: script.text for script in scripts}
        self._process = secrets.token_hex(8)
        self._marks: list[str] = []
        self._client: Redis | RedisCluster | None = None
        self._is_found = False  # whether it is known what it is

    async def open(self) -> None:
        """Connect, and see whether it can be written to; who is no cluster's node is a server of its own."""
        if self._client is None:
            self._client = Redis.from_url(_url(self._url), **_options())
        if not self._is_found:
            info: dict[str, Any] = {}
            with contextlib.suppress(NoPermissionError):
                info = await self._client.info("cluster")
            if info.get("cluster_enabled"):
                await self._client.aclose()
                self._client = RedisCluster.from_url(_url(self._url), **_options())
            self._is_found = True
        if isinstance(self._client, RedisCluster):
            await self._client.initialize()
        for text in self._scripts.values():
            await self._client.script_load(text)
        self._marks = list(self._keys_of_all())
        commands: list[Command] = [("SET", key, 1, "PX", MARK_MS) for key in self._marks]
        await self._answers([("EXISTS", key) for key in self._marks] if self._is_forgetful else commands)

    async def look(self) -> None:
        """See whether every primary answers, and still has what it was told.

        Raises:
            Forgotten: one has not; what answers may be another server than before.
        """
        if self._is_forgetful:
            await self._answers([("EXISTS", key) for key in self._marks])
        elif not all(await self._answers([("PEXPIRE", key, MARK_MS) for key in self._marks])):
            raise Forgotten("it has forgotten what was counted")

    async def _answers(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to commands of which none may be refused."""
        replies = await self.run(commands)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    def _keys_of_all(self) -> Iterator[str]:
        """Keys of this process's own, of which every primary has one."""
        client = self._connected
        missing = {node.name for node in client.get_primaries()} if isinstance(client, RedisCluster) else {""}
        for number in range(SLOTS):
            key = f"chat-api:{{{number}}}:process:{self._process}"
            name = ""
            if isinstance(client, RedisCluster):
                node = client.get_node_from_key(key)
                name = node.name if node is not None else ""
            if name in missing:
                missing.discard(name)
                yield key
            if not missing:
                return

    @property
    def _connected(self) -> Redis | RedisCluster:
        if self._client is None:
            raise ConnectionError("not connected")
        return self._client

    async def run(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to commands in one round trip, or one to each node; an exception for one that was refused.

        A script that a server does not know, as after its restart, is sent whole.
        """
        replies = await self._run(commands)
        unknown = [nth for nth, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            whole = [("EVAL", self._scripts[commands[nth][1]], *commands[nth][2:]) for nth in unknown]
            for nth, reply in zip(unknown, await self._run(whole), strict=True):
                replies[nth] = reply
        return [_refused(reply) for reply in replies] if self._is_forgetful else replies

    async def _run(self, commands: Sequence[Command]) -> list[Any]:
        pipeline = self._connected.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
        return replies

    async def keys(self, pattern: str) -> AsyncGenerator[bytes]:
        """All keys that match a pattern, on every primary; some may come twice."""
        async for key in self._connected.scan_iter(match=pattern, count=SCANNED):
            yield key

    async def aclose(self) -> None:
        """Let go of every connection; what was found out (a cluster's nodes, whom to trust) is kept for next time."""
        if self._client is not None:
            await self._client.aclose()


def _refused(reply: Any) -> Any:
    """A reply; that a server is full, or cannot save, is of the one command: what it has can still be read.

    Who cannot be written to for another reason, such as one that is now a replica, is better left.
    """
    if isinstance(reply, OutOfMemoryError) or (isinstance(reply, ResponseError) and str(reply).startswith(_TRANSIENT)):
        return ResponseError(f"it cannot be written to: {reply}")
    return reply


def is_outage(error: BaseException) -> bool:
    """Whether what was said instead of a reply is of the server, not of the one command."""
    if isinstance(error, NoPermissionError | TryAgainError):
        return False
    return type(error) is not ResponseError or str(error).startswith(_TRANSIENT)


def server_of(url: Secret) -> str:
    """Where it is, without credentials and parameters: `redis.example.com:6379`, or the path of a socket."""
    read = urlsplit(_url(url))
    if read.scheme == "unix":
        return unquote(read.path)
    host = read.hostname or "localhost"
    return f"[{host}]:{read.port or 6379}" if ":" in host else f"{host}:{read.port or 6379}"


def words_of(error: BaseException, url: Secret) -> str:
    """What an error says, without the password in the URL, should it be repeated."""
    text = str(error) or type(error).__name__
    password = urlsplit(_url(url)).password or ""
    for written in {password, unquote(password)} - {""}:
        text = text.replace(written, "***")
    return text


def _url(url: Secret) -> str:
    """The URL as redis-py reads it: Valkey speaks the same."""
    text = url.reveal()
    return f"redis{text[len('valkey') :]}" if text.startswith("valkey") else text


def _options() -> dict[str, Any]:
    return {
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,  # every server speaks it, and a connection is there one round trip sooner
        "driver_info": None,
        "socket_timeout": None,  # who asks bounds the time
        "socket_connect_timeout": None,
    }
