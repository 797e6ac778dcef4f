"""Records of the conversation log, as the server writes them."""

import json
from typing import Any

from chat_api.conversations import Record


def members(second: int = 0, **changes: Any) -> dict[str, Any]:
    """The members of a record of the 21st of November 2026; None leaves one out."""
    made = {
        "time": f"2026-11-21T10:{second // 60:02d}:{second % 60:02d}.123Z",
        "request_id": f"req-{second}",
        "key": "alice",
        "address": "127.0.0.1",
        "path": "/v1/chat/completions",
        "operation": "chat/completions",
        "model": "gpt-4o",
        "deployment": "gpt-4o@east",
        "status": 200,
        "stream": True,
        "parameters": {"temperature": 0.2},
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}],
        "answer": {
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi!"}, "finish_reason": "stop"}]
        },
        "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15},
        "timings": {"seconds": 1.234, "first_byte_seconds": 0.4},
        "attempts": 1,
        "cache": "miss",
        "ended": "complete",
    } | changes
    return {name: value for name, value in made.items() if value is not None}


def record(second: int = 0, **changes: Any) -> Record:
    """A record that was not read from a line."""
    return Record(members(second, **changes))


def line(second: int = 0, **changes: Any) -> str:
    """A line of the log, with its end."""
    return json.dumps(members(second, **changes), ensure_ascii=False, separators=(",", ":")) + "\n"


def asked_line(uid: str, content: str = "hi", second: int = 0) -> str:
    """openai-forward's line for what was asked."""
    return (
        str(
            {
                "messages": [{"role": "user", "content": content}],
                "model": "gpt-4",
                "stream": True,
                "max_tokens": None,
                "temperature": 1,
                "ip": "10.1.2.3",
                "uid": uid,
                "datetime": f"2023-10-17 15:27:{second:02d}",
            }
        )
        + "\n"
    )


def answer_line(uid: str, content: str = "Hello!") -> str:
    """openai-forward's line for the answer."""
    return str({"assistant": content, "is_function_call": False, "uid": uid}) + "\n"
