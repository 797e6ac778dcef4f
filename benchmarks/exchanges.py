"""The requests that are sent, and what their answers have to be."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

from benchmarks.answers import completion, events
from benchmarks.checks import BodyCheck, Check, LearnedBody, RefusalCheck, StreamCheck

INSTRUCTION = "You are an assistant that answers briefly and to the point."
QUESTION = "What is the difference between a ratio that was measured and one that is hoped for?"
_ASKS = b"What is "  # how it begins, in whose place a number may stand

CLIENT_KEY = "sk-chat-benchmark"
RATE_LIMITS = frozenset(
    b"x-ratelimit-%b-%b" % (what, of) for what in (b"limit", b"remaining", b"reset") for of in (b"requests", b"tokens")
)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request, and what its answers have to be.

    Args:
        request: its bytes.
        new_check: makes what checks the next answer.
        status: what its answers have to be.
        headers: that its answers have to have: names in lower case, or `name: value`.
        new_request: makes the next request, where none is to be like another; they are as long as `request`.
    """

    request: bytes
    new_check: Callable[[], Check]
    status: int = 200
    headers: frozenset[bytes] = frozenset()
    new_request: Callable[[], bytes] | None = None


def whole(kilobytes: int) -> Exchange:
    """A relayed completion of so many kilobytes."""
    return Exchange(_chat(f"json-{kilobytes}k", stream=False), partial(BodyCheck, completion(kilobytes)))


def streamed(interval_ms: int, chunks: int) -> Exchange:
    """A relayed stream of so many chunks, one each so many milliseconds."""
    check = partial(StreamCheck, events(chunks))
    return Exchange(relayed_stream_request(f"stream-{interval_ms}ms-{chunks}"), check)


def prompted(kilobytes: int) -> Exchange:
    """A prompt to the simple endpoint, answered with a completion of so many kilobytes."""
    body = {"prompt": QUESTION, "systemPrompt": INSTRUCTION, "temperature": 0.7, "model": f"json-{kilobytes}k"}
    return Exchange(_post("/v1/gpt/chat", body), LearnedBody(completion(kilobytes)))


def limited(exchange: Exchange) -> Exchange:
    """The same for a caller who has a client key: its answers tell what is left of its limits."""
    head, end, body = exchange.request.partition(b"\r\n\r\n")
    request = b"%b\r\napi-key: %b%b%b" % (head, CLIENT_KEY.encode(), end, body)
    return replace(exchange, request=request, headers=RATE_LIMITS)


def kept(exchange: Exchange) -> Exchange:
    """The same, of which every answer was kept."""
    return replace(exchange, headers=frozenset({b"x-chat-api-cache: hit"}))


def unlike(exchange: Exchange) -> Exchange:
    """The same with another question each time, so that no call has an answer that another could share."""
    before, _, after = exchange.request.partition(_ASKS)
    numbers = count()
    return replace(
        exchange,
        headers=frozenset({b"x-chat-api-cache: bypass"}),
        new_request=lambda: b"%b%0*d%b" % (before, len(_ASKS), next(numbers), after),
    )


def relayed_stream_request(scenario: str) -> bytes:
    """Asks for a relayed stream, whatever becomes of it."""
    return _chat(scenario, stream=True)


def prompted_stream_request(scenario: str) -> bytes:
    """Asks the simple endpoint for a stream, whatever becomes of it."""
    return _post("/v1/gpt/chat", {"prompt": QUESTION, "model": scenario, "stream": True})


def prompted_stream(interval_ms: int, chunks: int) -> Exchange:
    """A stream of the simple endpoint's, of so many chunks, one each so many milliseconds."""
    check = partial(StreamCheck, events(chunks))
    return Exchange(prompted_stream_request(f"stream-{interval_ms}ms-{chunks}"), check)


def refused(path: str, body: bytes, status: int, code: str) -> Exchange:
    """A request that is refused by the gateway, with this status and this code."""
    return Exchange(_posted(path, body), partial(RefusalCheck, code), status)


def any_prompt() -> bytes:
    """The request with a prompt that every upstream can answer."""
    return _post("/v1/gpt/chat", {"prompt": QUESTION})


def _chat(model: str, *, stream: bool) -> bytes:
    messages = [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": QUESTION}]
    return _post("/v1/chat/completions", {"messages": messages, "model": model, "temperature": 0.7, "stream": stream})


def _post(path: str, body: dict[str, object]) -> bytes:
    return _posted(path, json.dumps(body).encode())


def _posted(path: str, content: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: benchmarks\r\naccept: */*\r\n"
    return f"{head}content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n".encode() + content
