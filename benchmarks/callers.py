"""Callers who never stop asking, in every way in turn, and what became of each of their calls."""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

MODEL = "gpt-4o"
PAUSE_SECONDS = 0.03  # between two calls of one caller
PATIENCE_SECONDS = 15  # of a caller


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to ask."""

    path: str
    stream: bool

    @property
    def body(self) -> bytes:
        """The request's body."""
        asked: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}]}
        if self.path == "/v1/gpt/chat":
            asked = {"prompt": "Hello"}
        return json.dumps({**asked, "model": MODEL, "stream": self.stream}).encode()

    @property
    def request(self) -> bytes:
        """The request, for a connection of its own."""
        body = self.body
        head = f"POST {self.path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n"
        return f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


KINDS = tuple(Kind(path, stream) for path in ("/v1/chat/completions", "/v1/gpt/chat") for stream in (False, True))


@dataclass(frozen=True, slots=True)
class Called:
    """One call, and what came of it; its times are the monotonic clock's."""

    kind: Kind
    started: float
    answered: float  # when the head of the answer was there
    ended: float
    status: int  # 0: no answer
    headers: Mapping[str, str]
    body: bytes
    has_ended: bool  # the answer came to its end, as HTTP has it

    @property
    def is_good(self) -> bool:
        """Whether it was answered, to the end; that of a stream is `[DONE]`."""
        if self.status != 200 or not self.has_ended:
            return False
        return not self.kind.stream or self.body.rstrip().endswith(b"data: [DONE]")

    @property
    def has_begun(self) -> bool:
        """Whether it is a stream that has begun, after which nobody else can answer."""
        return self.kind.stream and self.status == 200

    @property
    def attempts(self) -> int:
        """How many deployments were asked."""
        return int(self.headers.get("x-chat-api-attempts", 0))

    @property
    def deployment(self) -> str:
        """Who answered, or was asked last."""
        return self.headers.get("x-chat-api-deployment", "")

    @property
    def timing(self) -> dict[str, float]:
        """What `Server-Timing` says, in seconds."""
        text = self.headers["server-timing"]
        if not re.fullmatch(r"\w+;dur=-?[\d.]+(?:, \w+;dur=-?[\d.]+)*", text):
            raise ValueError(f"no Server-Timing: {text}")
        pairs = (entry.split(";dur=") for entry in text.split(", "))
        return {name: float(milliseconds) / 1000 for name, milliseconds in pairs}


async def call(port: int, kind: Kind) -> Called:
    """Call over a connection of its own."""
    started = answered = time.monotonic()
    received = b""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(PATIENCE_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(kind.request)
                while piece := await reader.read(65536):
                    answered = answered if received else time.monotonic()
                    received += piece
            finally:
                writer.close()
    head_, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head_.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    status = int(first.split(" ")[1]) if first else 0
    if is_chunked := headers.get("transfer-encoding") == "chunked":
        body, has_ended = _unchunked(body)
    return Called(
        kind,
        started,
        answered,
        time.monotonic(),
        status,
        headers,
        body,
        has_ended if is_chunked else status > 0 and len(body) == int(headers.get("content-length", -1)),
    )


def _unchunked(body: bytes) -> tuple[bytes, bool]:
    """The content of a chunked body, and whether its last chunk has come."""
    content = b""
    while True:
        size, mark, rest = body.partition(b"\r\n")
        if not mark:
            return content, False
        length = int(size, 16)
        if not length:
            return content, rest == b"\r\n"
        content, body = content + rest[:length], rest[length + 2 :]


class Callers:
    """Callers, each of whom asks again as soon as it was answered, in every way in turn.

    Args:
        port: the gateway's.
        callers: how many.
        kinds: in which ways they ask.
        pause: seconds between two calls of one caller.
    """

    def __init__(self, port: int, callers: int, kinds: Sequence[Kind] = KINDS, pause: float = PAUSE_SECONDS) -> None:
        self.calls: list[Called] = []  # those that have ended
        self._port = port
        self._kinds = kinds
        self._callers = callers
        self._pause = pause
        self._goes_on = True
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Let them begin."""
        self._tasks = [asyncio.create_task(self._caller(number), name="caller") for number in range(self._callers)]

    async def stop(self) -> None:
        """Let each have its answer, and stop."""
        self._goes_on = False
        await asyncio.gather(*self._tasks)

    async def _caller(self, number: int) -> None:
        for kind in islice(cycle(self._kinds), number % len(self._kinds), None):
            if not self._goes_on:
                return
            self.calls.append(await call(self._port, kind))
            await asyncio.sleep(self._pause)

    def since(self, moment: float) -> list[Called]:
        """The calls that began after a moment."""
        return [one for one in self.calls if one.started > moment]
