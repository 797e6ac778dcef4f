"""The requests that are sent, and what their answers have to be."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks.answers import completion, events
from benchmarks.checks import BodyCheck, Check, LearnedBody, StreamCheck

INSTRUCTION = "You are an assistant that answers briefly and to the point."
QUESTION = "What is the difference between a ratio that was measured and one that is hoped for?"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request, and what its answers have to be.

    Args:
        request: its bytes.
        new_check: makes what checks the next answer.
    """

    request: bytes
    new_check: Callable[[], Check]


def whole(kilobytes: int) -> Exchange:
    """A relayed completion of so many kilobytes."""
    return Exchange(_chat(f"json-{kilobytes}k", stream=False), partial(BodyCheck, completion(kilobytes)))


def streamed(interval_ms: int, chunks: int) -> Exchange:
    """A relayed stream of so many chunks, one each so many milliseconds."""
    return Exchange(_chat(f"stream-{interval_ms}ms-{chunks}", stream=True), partial(StreamCheck, events(chunks)))


def prompted(kilobytes: int) -> Exchange:
    """A prompt to the simple endpoint, answered with a completion of so many kilobytes."""
    body = {"prompt": QUESTION, "systemPrompt": INSTRUCTION, "temperature": 0.7, "model": f"json-{kilobytes}k"}
    return Exchange(_post("/v1/gpt/chat", body), LearnedBody(completion(kilobytes)))


def any_prompt() -> bytes:
    """The request with a prompt that every upstream can answer."""
    return _post("/v1/gpt/chat", {"prompt": QUESTION})


def _chat(model: str, *, stream: bool) -> bytes:
    messages = [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": QUESTION}]
    return _post("/v1/chat/completions", {"messages": messages, "model": model, "temperature": 0.7, "stream": stream})


def _post(path: str, body: dict[str, object]) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: benchmarks\r\naccept: */*\r\n"
    return f"{head}content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n".encode() + content
