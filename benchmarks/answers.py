"""The canned answers of the upstream, byte for byte: what it sends, and what the load expects to get. Pure.

A scenario is the name of a deployment: `json-300k` is a completion of 300 kB, `stream-50ms-60` a stream of 60 chunks,
one each 50 ms. Every chunk of a stream is one event, `[DONE]` included, and one HTTP chunk. A stream may lack its end:
`cut-50ms-60-7` is closed within chunk 7, `reset-50ms-60-7` is reset after 7 chunks, `silent-50ms-60-7` says nothing
more after them, and with 0 chunks nothing at all.

A stream that was asked to tell what it took does so as Azure does: `"usage":null` in every chunk, and one more before
`[DONE]`.
"""

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

CUT, RESET, SILENT = "cut", "reset", "silent"
SCENARIO = re.compile(
    r"json-(?P<kilobytes>\d+)k"
    r"|(?P<kind>stream|(?P<breaks>cut|reset|silent))-(?P<interval>\d+)ms-(?P<chunks>\d+)(?(breaks)-(?P<sent>\d+))"
)
DONE = b"data: [DONE]\n\n"
FIRST_WITH_TEXT = 1  # chunk 0 only says that the prompt passed the filter, as Azure's does
MIN_CHUNKS = 4  # the filter's word, one with text, the finish, [DONE]

# What a completion and all chunks of a stream say alike.
_SAME = {
    "created": 1767225600,
    "id": "chatcmpl-BenchMark0123456789abcdefgh",
    "model": "gpt-4o-2024-11-20",
    "system_fingerprint": "fp_0123456789",
}
_USAGE = {
    "completion_tokens": 9,
    "completion_tokens_details": {
        "accepted_prediction_tokens": 0,
        "audio_tokens": 0,
        "reasoning_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
    "prompt_tokens": 9,
    "total_tokens": 18,
}
_SAFE = {name: {"filtered": False, "severity": "safe"} for name in ("hate", "self_harm", "sexual", "violence")}
_HEADERS = (
    b"apim-request-id: 3f0c8a52-6d1b-4c7e-9a44-0b8f6e2d7c15\r\n"
    b"azureml-model-session: d014-20260101000000\r\n"
    b"strict-transport-security: max-age=31536000; includeSubDomains; preload\r\n"
    b"x-content-type-options: nosniff\r\n"
    b"x-ms-client-request-id: 3f0c8a52-6d1b-4c7e-9a44-0b8f6e2d7c15\r\n"
    b"x-ms-deployment-name: gpt-4o\r\n"
    b"x-ms-region: Sweden Central\r\n"
    b"x-ratelimit-limit-requests: 30000\r\n"
    b"x-ratelimit-limit-tokens: 3000000\r\n"
    b"x-ratelimit-remaining-requests: 29999\r\n"
    b"x-ratelimit-remaining-tokens: 2999000\r\n"
    b"date: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
)


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream as it goes over the wire.

    Args:
        head: the head of the answer.
        chunks: its HTTP chunks, each holding one event; the last also ends the body.
        interval_ms: milliseconds between two chunks.
        breaks: how it breaks off after these chunks (`CUT`, `RESET`, `SILENT`); "" if it does not.
    """

    head: bytes
    chunks: tuple[bytes, ...]
    interval_ms: int
    breaks: str = ""


def completion(kilobytes: int) -> bytes:
    """A chat completion as Azure words it, of about so many kilobytes (1,000 bytes); at least 1.1 kB."""
    text = "Nothing is as practical as a good measurement. "
    empty = len(_completion_json(""))
    return _completion_json((text * (kilobytes * 1000 // len(text) + 1))[: max(kilobytes * 1000 - empty, 120)])


def events(count: int, *, tells_usage: bool = False) -> tuple[bytes, ...]:
    """The events of a stream: the filter's word on the prompt, numbered chunks, the finish, `[DONE]`.

    Args:
        count: how many they are.
        tells_usage: whether one more says what the answer took.

    Raises:
        ValueError: so few cannot be a stream.
    """
    if count < MIN_CHUNKS:
        raise ValueError(f"a stream has at least {MIN_CHUNKS} chunks")
    filtered = [{"prompt_index": 0, "content_filter_results": _SAFE}]
    told: dict[str, Any] = {"usage": None} if tells_usage else {}
    empty = {"choices": [], "created": 0, "id": "", "model": "", "object": ""}
    first = _event({**empty, "prompt_filter_results": filtered, **told})
    numbered = [_chunk({"content": f" word {number}"}, None, told) for number in range(FIRST_WITH_TEXT, count - 2)]
    last = [_event({**_SAME, "choices": [], "object": "chat.completion.chunk", "usage": _USAGE})] if tells_usage else []
    return (first, *numbered, _chunk({}, "stop", told), *last, DONE)


@lru_cache
def answer(scenario: str, *, tells_usage: bool = False) -> bytes | Stream | None:
    """What the upstream sends for a scenario: a whole answer, or a stream; None if there is no such scenario.

    Args:
        scenario: what is asked for.
        tells_usage: whether a stream says what it took, as a whole answer does in any case.
    """
    match = SCENARIO.fullmatch(scenario)
    if match is None:
        return None
    if match["kilobytes"]:
        body = completion(int(match["kilobytes"]))
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n" % len(body)
        return head + _HEADERS + b"\r\n" + body
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n"
    chunks = [b"%x\r\n%b\r\n" % (len(event), event) for event in events(int(match["chunks"]), tells_usage=tells_usage)]
    chunks[-1] += b"0\r\n\r\n"
    whole = Stream(head + _HEADERS + b"\r\n", tuple(chunks), int(match["interval"]))
    return _broken(whole, match["breaks"], int(match["sent"])) if match["breaks"] else whole


def number_of(event: Any) -> int | None:
    """The number that a chunk of a stream holds, None for one that holds none."""
    try:
        word = event["choices"][0]["delta"]["content"]
        return int(word.removeprefix(" word "))
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        return None


def _broken(whole: Stream, kind: str, sent: int) -> Stream:
    """A stream that breaks off after so many chunks; one that is cut, within the next."""
    chunks = whole.chunks[:sent]
    if kind == CUT:
        chunks += (whole.chunks[sent][: len(whole.chunks[sent]) // 2],)
    return Stream(whole.head if chunks else b"", chunks, whole.interval_ms, kind)


def _completion_json(text: str) -> bytes:
    message: dict[str, Any] = {"annotations": [], "content": text, "refusal": None, "role": "assistant"}
    choice = {"content_filter_results": _SAFE, "finish_reason": "stop", "index": 0, "logprobs": None}
    whole = {
        "choices": [{**choice, "message": message}],
        "object": "chat.completion",
        "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": _SAFE}],
        "usage": _USAGE,
    }
    return _encoded(_SAME | whole)


def _chunk(delta: dict[str, str], finish_reason: str | None, told: dict[str, Any]) -> bytes:
    choice = {"content_filter_results": _SAFE if delta else {}, "delta": delta, "finish_reason": finish_reason}
    choices = [{**choice, "index": 0, "logprobs": None}]
    return _event(_SAME | {"choices": choices, "object": "chat.completion.chunk", **told})


def _event(content: dict[str, Any]) -> bytes:
    return b"data: " + _encoded(content) + b"\n\n"


def _encoded(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()
