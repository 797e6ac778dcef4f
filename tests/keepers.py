"""Gateways that keep and share answers, on real sockets, over an upstream that answers when a test says so."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from benchmarks.callers import MODEL, Called, Kind, call
from chat_api import settings
from chat_api.app import create_app
from chat_api.emulator import Emulator, open_emulator
from chat_api.emulator.records import CallerGone
from tests.redis_servers import RedisServer
from tests.servers import KEY, NO_FILE, eventually, in_thread, serving

CHAT, SIMPLE_CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/gpt/chat", "/v1/embeddings"
PATIENCE_SECONDS = 15.0
NO_HEADERS: Mapping[str, str] = {}
BACKENDS = ("memory", "lmdb", "redis")
KEPT = {"CACHE_CHAT_COMPLETION": "true", "CACHE_EMBEDDINGS": "true"}
SHARED = {"COALESCE": "true", "PING_INTERVAL": "0"}


class HeldEmulator(Emulator):
    """An emulator whose answers wait at a gate, and that notices who does not wait for them.

    Attributes:
        is_held: whether answers wait.
        after: how many messages go out before: an answer's head is the first.
        waiting: the answers that wait now.
        left: how often a caller has left meanwhile.
        says: what is answered instead, as JSON, whoever asks what.
    """

    def __init__(self) -> None:
        super().__init__(keys=frozenset({KEY}))
        self.is_held = False
        self.after = self.waiting = self.left = 0
        self.says: object = None
        self._gate: asyncio.Event | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3)."""
        sent = 0

        async def held(message: Message) -> None:
            nonlocal sent
            if self.is_held and sent >= self.after:
                await self._wait(receive)
            sent += 1
            await send(message)

        if self.says is None:
            await super().__call__(scope, receive, held)
            return
        self.asked["says"] += 1
        while (await receive()).get("more_body"):
            pass
        await held({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await held({"type": "http.response.body", "body": json.dumps(self.says).encode()})

    async def _wait(self, receive: Receive) -> None:
        self._gate = self._gate or asyncio.Event()
        opened, gone = asyncio.create_task(self._gate.wait()), asyncio.create_task(_gone(receive))
        self.waiting += 1
        try:
            await asyncio.wait({opened, gone}, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                self.left += 1
                raise CallerGone
        finally:
            self.waiting -= 1
            opened.cancel()
            gone.cancel()

    def hold(self, after: int) -> None:
        """From now on answers wait at the gate, after so many messages."""
        self.after, self.is_held, self._gate = after, True, None

    async def open(self) -> None:
        """Let go what waits, and what comes."""
        self.is_held = False
        if self._gate is not None:
            self._gate.set()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@dataclass(frozen=True, slots=True)
class Chat(Kind):
    """A question of the test's own."""

    fields: str = "{}"  # as JSON
    accept: str = "*/*"
    key: str = ""

    @property
    def request(self) -> bytes:
        """The request, for a connection of its own."""
        begins, rest = Kind.request.__get__(self).split(b"\r\n", 1)
        return b"%s\r\naccept: %s\r\napi-key: %s\r\n%s" % (begins, self.accept.encode(), self.key.encode(), rest)

    @property
    def body(self) -> bytes:
        """The request's body."""
        return json.dumps({**json.loads(self.fields), **({"stream": True} if self.stream else {})}).encode()


def asks(content: str = "Hello", *, stream: bool = False, path: str = CHAT, key: str = "", **fields: object) -> Chat:
    """A question, by either path."""
    said: dict[str, object] = {"messages": [{"role": "user", "content": content}]}
    if path == SIMPLE_CHAT:
        said = {"prompt": content}
    return Chat(path, stream, json.dumps({"model": MODEL, **said, **fields}), key=key)


@dataclass(frozen=True, slots=True)
class Front:
    """A gateway in a thread, and the upstream behind it."""

    client: httpx.Client
    port: int
    upstream: HeldEmulator
    run: Callable[..., Any] = field(repr=False)  # runs a coroutine in their event loop

    @property
    def asked(self) -> int:
        """How often the upstream was."""
        return sum(self.upstream.asked.values())

    def kept(self) -> dict[str, Any]:
        """What operators are told of what is kept and shared."""
        kept: dict[str, Any] = self.client.get("/status").raise_for_status().json()["kept"]
        return kept

    def ask(
        self, content: str = "Hello", *, path: str = CHAT, headers: Mapping[str, str] = NO_HEADERS, **fields: object
    ) -> httpx.Response:
        """Ask, and read all of the answer."""
        said: dict[str, object] = {"messages": [{"role": "user", "content": content}]}
        if path == SIMPLE_CHAT:
            said = {"prompt": content}
        elif path == EMBEDDINGS:
            said = {"input": content}
        return self.post({"model": MODEL, **said, **fields}, path=path, headers=headers)

    def post(self, fields: object, *, path: str = CHAT, headers: Mapping[str, str] = NO_HEADERS) -> httpx.Response:
        """Post the fields as JSON, and read all of the answer."""
        return self.client.post(path, json=fields, headers=dict(headers))

    def begin(self, *kinds: "Chat") -> "Crowd":
        """Callers who ask at the same time, each over a connection of his own."""
        return Crowd(self, kinds)

    def hold(self, after: int = 0) -> None:
        """From now on answers wait at the gate, after so many messages."""
        self.upstream.hold(after)

    def open(self) -> None:
        """Let go what waits, and what comes."""
        self.run(self.upstream.open())

    def wait_for(self, joined: int) -> None:
        """Wait until so many calls have joined another one, and that waits at the gate."""
        assert eventually(lambda: self.upstream.waiting > 0, PATIENCE_SECONDS)
        assert eventually(lambda: self.kept()["sharing"]["joined"] == joined, PATIENCE_SECONDS), self.kept()


class Crowd:
    """Callers under way."""

    def __init__(self, front: Front, kinds: tuple[Chat, ...]) -> None:
        self._front = front
        self._tasks: list[asyncio.Task[Called]] = front.run(self._begin(kinds))

    async def _begin(self, kinds: tuple[Chat, ...]) -> list[asyncio.Task[Called]]:
        return [asyncio.create_task(call(self._front.port, kind)) for kind in kinds]

    def leave(self, *which: int) -> None:
        """So many leave, as clients do that have had enough."""
        self._front.run(self._leave([self._tasks[number] for number in which]))

    async def _leave(self, tasks: list[asyncio.Task[Called]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        self._tasks = [task for task in self._tasks if task not in set(tasks)]

    def got(self) -> list[Called]:
        """What those have been told who are still there, once all have."""
        found: list[Called] = self._front.run(self._got())
        return found

    async def _got(self) -> list[Called]:
        return await asyncio.gather(*self._tasks)


@contextlib.contextmanager
def front(**environ: str) -> Iterator[Front]:
    """A gateway with these settings in a thread, over an upstream of its own."""
    with fronts(environ) as (only,):
        yield only


@contextlib.contextmanager
def fronts(*environs: Mapping[str, str]) -> Iterator[list[Front]]:
    """Gateways with these settings in a thread, over one upstream."""
    upstream = HeldEmulator()
    with in_thread() as run:
        stacks = [contextlib.AsyncExitStack() for _ in range(1 + len(environs))]
        clients: list[httpx.Client] = []
        try:
            url = run(stacks[0].enter_async_context(open_emulator(upstream)))
            found = []
            for stack, environ in zip(stacks[1:], environs, strict=True):
                values = settings.load({"ENDPOINT": url, "DEPLOYMENT_NAME": MODEL, "KEY": KEY, **environ}, NO_FILE)
                port = run(stack.enter_async_context(serving(create_app(values), values)))
                clients.append(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS))
                found.append(Front(clients[-1], port, upstream, run))
            yield found
        finally:
            for client in clients:
                client.close()
            run(_closed(stacks))


async def _closed(stacks: list[contextlib.AsyncExitStack]) -> None:
    """Close them at the same time: each takes the moment that it needs to notice."""
    await asyncio.gather(*(stack.aclose() for stack in stacks))


def config_of(folder: Path, **sections: object) -> str:
    """A config file with these sections, beside what the environment says of the upstream."""
    path = folder / "config.yaml"
    path.write_text(json.dumps(sections))  # JSON is YAML
    return str(path)


def cache_at(backend: str, request: pytest.FixtureRequest, folder: Path) -> dict[str, str]:
    """The settings of a cache of this kind, with nothing in it that anybody has asked for."""
    if backend == "redis":
        server: RedisServer = request.getfixturevalue("shared_redis")
        return {**KEPT, "CACHE_BACKEND": "redis", "CACHE_URL": server.url, "STORE_TIMEOUT": "10"}
    return {**KEPT, "CACHE_BACKEND": backend, **({"CACHE_URL": str(folder / "cache")} if backend == "lmdb" else {})}


def says(got: httpx.Response) -> tuple[str, str | None]:
    """Where an answer is from, and how old it says it is."""
    return got.headers.get("x-chat-api-cache", "-"), got.headers.get("age")
