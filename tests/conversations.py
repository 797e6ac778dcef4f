"""Exchanges for tests of the conversation log, with answers as the emulator gives them."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chat_api.conversation import line_of
from chat_api.conversation_log import ConversationLog
from chat_api.exchanges import Exchange

AT = 1795255200.123  # 2026-11-21T10:00:00.123Z
CHAT = {
    "model": "gpt-4o",
    "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Größe 😀?"}],
    "temperature": 0.2,
    "user": "u-1",
}


def encoded(value: Any) -> bytes:
    """JSON as Azure writes it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def stream_of(chunks: Iterable[dict[str, Any]], *, is_named: bool = False) -> bytes:
    """Chunks as a stream of events; those of the Responses API have names, and no `[DONE]`."""
    if is_named:
        return b"".join(b"event: %s\ndata: %s\n\n" % (one["type"].encode(), encoded(one)) for one in chunks)
    return b"".join(b"data: %s\n\n" % encoded(chunk) for chunk in chunks) + b"data: [DONE]\n\n"


def an_exchange(answer: Any = b"", request: Any = CHAT, **more: Any) -> Exchange:
    """An exchange that began at `AT`; JSON terms are written as JSON."""
    pieces = answer if isinstance(answer, list) else [answer] if isinstance(answer, bytes) else [encoded(answer)]
    common: dict[str, Any] = {
        "at": AT,
        "request_id": "r-1",
        "key": "alice",
        "address": "127.0.0.1",
        "path": "/v1/chat/completions",
        "operation": "chat/completions",
        "model": "gpt-4o",
        "deployment": "gpt-4o@host",
        "attempts": 1,
        "status": 200,
        "seconds": 1.25,
        "request": request if isinstance(request, bytes) else encoded(request),
        "answer": pieces,
    }
    return Exchange(**(common | more))


def written(exchange: Exchange) -> dict[str, Any]:
    """The record of an exchange as somebody reads it."""
    line = line_of(exchange)
    assert b"\n" not in line
    assert b"\r" not in line
    record = json.loads(line.decode())
    assert isinstance(record, dict)
    return record


@contextmanager
def logging_into(folder: Path, **more: Any) -> Iterator[ConversationLog]:
    """A log that is started, and closed in the end."""
    log = ConversationLog(folder, **{"clock": lambda: AT, "retry_seconds": 0.001, **more})
    log.start()
    try:
        yield log
    finally:
        asyncio.run(log.aclose())


def until(is_so: Callable[[], object]) -> None:
    """Wait for something that a thread does."""
    news = threading.Event()
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        news.wait(0.001)
