"""Callers of real gateways who count for themselves what they got, whatever the gateways count."""

import asyncio
import contextlib
import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import cycle, islice
from typing import Any

from benchmarks.callers import MODEL, Called, Kind, call
from chat_api.counting import Usage
from chat_api.emulator.answers import Answer
from chat_api.tokens import CHARS_PER_TOKEN

CALLERS = 50  # of each gateway
REFUSALS = 2  # that a caller takes, before he thinks that it is all used up
PAUSE_SECONDS = 0.05  # at the most, before he comes again
USABLE = 0.95  # of a limit, at least
PATIENCE_SECONDS = 20.0  # for what is given back behind an answer
OTHER_EVENTS = 6  # of a stream, which carry no token

_TOLD = re.compile(rb'"usage": ?(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')
_AMOUNT = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Asked(Kind):
    """A way to ask, for somebody with a client key."""

    key: str = ""
    words: int = 8  # of the prompt
    fields: str = "{}"  # others of the body, as JSON
    word: str = "wording"

    @property
    def chat(self) -> dict[str, Any]:
        """What the upstream gets."""
        content = " ".join([self.word] * self.words)
        asked: dict[str, Any] = {
            "model": MODEL,
            "messages": [{"role": "user", "content": content}],
            "stream": self.stream,
        }
        asked.update(json.loads(self.fields))
        return asked

    @property
    def body(self) -> bytes:
        """The request's body."""
        asked = self.chat
        if self.path == "/v1/gpt/chat":
            asked["prompt"] = asked.pop("messages")[0]["content"]
        return json.dumps(asked).encode()

    @property
    def request(self) -> bytes:
        """The request, for a connection of its own."""
        return request_of(self.path, self.key, self.body)

    @property
    def usage(self) -> Usage:
        """What it takes, as the emulator counts."""
        return _usage(json.dumps(self.chat))

    @property
    def most_if_cut(self) -> int:
        """How many tokens are counted for its stream at the most if that is cut: by its bytes, and by its events."""
        return len(self.body) // CHARS_PER_TOKEN + self.usage.completion + OTHER_EVENTS


@cache
def _usage(body: str) -> Usage:
    told = Answer(json.loads(body), MODEL).whole()["usage"]
    return Usage(told["prompt_tokens"], told["completion_tokens"])


def request_of(path: str, key: str, body: bytes) -> bytes:
    """A request for a connection of its own."""
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\napi-key: {key}\r\n"
    return f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def one_way(key: str, *, model: str = MODEL, words: int = 8, stream: bool = False, **fields: object) -> Asked:
    """A call of OpenAI's API."""
    return Asked("/v1/chat/completions", stream, key, words, json.dumps({"model": model, **fields}))


def ways(key: str, *, model: str = MODEL, words: Sequence[int] = (8,), **fields: object) -> list[Asked]:
    """The ways to ask: streamed and not, relayed and not, with the usage asked for and not, of all lengths."""
    found = []
    for count in words:
        for stream in (False, True):
            relayed = one_way(key, model=model, words=count, stream=stream, **fields)
            found += [relayed, replace(relayed, path="/v1/gpt/chat")]
        options = {"include_usage": True}
        found.append(one_way(key, model=model, words=count, stream=True, stream_options=options, **fields))
    return found


@dataclass(slots=True)
class Tally:
    """What callers were answered."""

    calls: list[Called] = field(default_factory=list)

    @property
    def admitted(self) -> list[Called]:
        """The calls that were answered."""
        return [one for one in self.calls if one.status == 200]

    @property
    def refused(self) -> list[Called]:
        """The calls that were told to come again."""
        return [one for one in self.calls if one.status == 429]

    @property
    def requests(self) -> int:
        """How many calls were answered."""
        return len(self.admitted)

    @property
    def usage(self) -> Usage:
        """The tokens that they took."""
        told = list(map(usage_of, self.admitted))
        return Usage(sum(one.prompt for one in told), sum(one.completion for one in told))

    def of(self, key: str) -> "Tally":
        """Those of one key."""
        return Tally([one for one in self.calls if isinstance(one.kind, Asked) and one.kind.key == key])


def usage_of(called: Called) -> Usage:
    """The tokens that an answer took: those that it tells, which is what the emulator counts, if it tells them."""
    assert isinstance(called.kind, Asked)
    assert called.is_good, called
    told = _TOLD.findall(called.body)
    asked_for_it = not called.kind.stream or "include_usage" in called.kind.fields
    assert len(told) == asked_for_it, called
    if told:
        assert json.loads(told[0])["total_tokens"] == called.kind.usage.total
    return called.kind.usage


async def burst(
    ports: Sequence[int],
    kinds: Sequence[Asked],
    *,
    callers: int = CALLERS,
    refusals: int = REFUSALS,
    calls: int | None = None,
) -> Tally:
    """So many callers for each gateway, all at once.

    Args:
        ports: the gateways'.
        kinds: in which ways each of them asks, in turn.
        callers: how many, of each gateway.
        refusals: after which each goes away.
        calls: after which each goes away.
    """
    tally, rng = Tally(), random.Random(0)

    async def caller(number: int) -> None:
        refused = 0
        begin = number % len(kinds)
        for kind in islice(cycle(kinds), begin, calls and begin + calls):
            called = await call(ports[number % len(ports)], kind)
            tally.calls.append(called)
            if called.status != 200:
                refused += 1
                if refused == refusals:
                    return
                await asyncio.sleep(rng.uniform(0, PAUSE_SECONDS))

    await asyncio.gather(*(caller(number) for number in range(callers * len(ports))))
    return tally


async def use_up(ports: Sequence[int], kinds: Sequence[Asked], tally: Tally, is_enough: Callable[[], bool]) -> None:
    """Call on, one call at a time, until one is refused although it was enough; then many come once more.

    What an answer gives back reaches the store behind it, so that callers may be refused for a moment who need not be.
    """
    async with asyncio.timeout(PATIENCE_SECONDS):
        for number in range(1_000_000):
            called = await call(ports[number % len(ports)], kinds[number % len(kinds)])
            tally.calls.append(called)
            if called.status != 200:
                if is_enough():
                    break
                await asyncio.sleep(PAUSE_SECONDS)
    tally.calls += (await burst(ports, kinds, callers=10, refusals=2)).calls


async def call_until_answered(port: int, kind: Asked) -> list[Called]:
    """Call, and again as soon as one is told to."""
    calls = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            calls.append(called := await call(port, kind))
            if called.status == 200:
                return calls
            await asyncio.sleep(int(called.headers["retry-after-ms"]) / 1000)


async def leave(port: int, kind: Asked, seconds: float, *, at_first_event: bool = False) -> bytes:
    """Call, and leave after a time, or that long after the first event; what has come by then."""
    received = b""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(ConnectionError, TimeoutError):
        writer.write(kind.request)
        if at_first_event:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while b"\n\n" not in received.partition(b"\r\n\r\n")[2] and (piece := await reader.read(65536)):
                    received += piece
        async with asyncio.timeout(seconds):
            while piece := await reader.read(65536):
                received += piece
    if len(received) % 2:
        writer.close()  # in good order
    else:
        writer.transport.abort()
    return received


async def fail(port: int, kind: Asked) -> bytes:
    """Call what fails, as soon as there is a place for it; what has come of it."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            received = await leave(port, kind, PATIENCE_SECONDS)
            if b"too_many_parallel_calls" not in received:
                return received
            await asyncio.sleep(PAUSE_SECONDS)


async def places(ports: Sequence[int], kind: Asked, wanted: int) -> tuple[int, int]:
    """How many calls can be in flight, one more than wanted at the most; and how many were, one after the other.

    Args:
        ports: the gateways'.
        kind: a stream that begins, and does not end.
        wanted: how many there should be. They are waited for: a place is given back behind the answer.
    """
    held: list[asyncio.StreamWriter] = []
    begun = 0
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            for port in cycle(ports):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(kind.request)
                if (await reader.readline()).startswith(b"HTTP/1.1 200 "):
                    begun += 1
                    held.append(writer)
                    if len(held) > wanted:
                        break
                else:
                    writer.close()
                    if len(held) == wanted:
                        break
                    await asyncio.sleep(PAUSE_SECONDS)
    finally:
        for writer in held:
            writer.close()
    return len(held), begun


def check_refusals(tally: Tally, code: str, *, of: Sequence[str] = ()) -> None:
    """Every call that was not answered was refused as the documentation says.

    Args:
        tally: the calls.
        code: the error's code.
        of: "requests" or "tokens", or both: what the headers tell of.
    """
    assert tally.refused, "nobody was refused"
    for called in tally.calls:
        if called.status == 200:
            continue
        assert called.status == 429, called
        assert json.loads(called.body)["error"]["code"] == code, called
        wait_ms = int(called.headers["retry-after-ms"])
        assert 0 < wait_ms <= 60_000
        assert 0 <= int(called.headers["retry-after"]) * 1000 - wait_ms < 1000
        for what in of:
            check_told(called, what)


def check_told(called: Called, what: str) -> None:
    """An answer tells how a limit stands."""
    limit, left = (int(called.headers[f"x-ratelimit-{which}-{what}"]) for which in ("limit", "remaining"))
    assert 0 <= left <= limit
    assert _AMOUNT.match(called.headers[f"x-ratelimit-reset-{what}"])
