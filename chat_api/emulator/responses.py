"""What the emulated model answers through the Responses API: an object, or the events that build it up. Pure."""

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from chat_api.emulator.answers import CREATED, arguments, content_of, digest_of, encode, json_said, limited, pieces_of

# What the response repeats of the request, and its value where the request does not say.
_REPEATED: dict[str, Any] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


class _Text(msgspec.Struct):
    format: dict[str, Any] | None = None


class Body(msgspec.Struct):
    """The types of the parameters that shape the answer."""

    input: str | Annotated[list[Any], Meta(min_length=1)]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    stream: bool | None = None
    text: _Text | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None


class Response:
    """The answer to one request of the Responses API; at another resource the same answer has another id."""

    def __init__(self, body: dict[str, Any], deployment: str, resource: str = "") -> None:
        self._body = body
        self._deployment = deployment
        self._digest = digest_of(body, deployment, resource)
        self.id = f"resp_{self._digest[:48]}"
        self._told = _messages(body)
        self._tool = _demanded_tool(body)
        self._pieces, self._reason = limited(self._said(), {"max_tokens": body.get("max_output_tokens")})

    def whole(self) -> dict[str, Any]:
        """The `response` object."""
        is_cut = self._reason == "length" and not self._tool
        ended: dict[str, Any] = {"output": [self._item()], "status": "completed", "usage": self._usage()}
        if is_cut:
            ended |= {"incomplete_details": {"reason": "max_output_tokens"}, "status": "incomplete"}
        return self._common() | ended

    def events(self) -> Iterator[dict[str, Any]]:
        """The events, each with its `type` and its `sequence_number`."""
        for number, event in enumerate(self._unnumbered()):
            yield {**event, "sequence_number": number}

    def failed(self, number: int, error: dict[str, Any]) -> list[dict[str, Any]]:
        """The events of a response that fails: the first does not say why, the second nests the error."""
        response = {**self._common(), "status": "failed"}
        return [
            {"response": response, "sequence_number": number, "type": "response.failed"},
            {"error": error, "sequence_number": number + 1, "type": "error"},
        ]

    def _unnumbered(self) -> Iterator[dict[str, Any]]:
        common, whole = self._common(), self.whole()
        yield {"response": common, "type": "response.created"}
        yield {"response": common, "type": "response.in_progress"}
        (item,) = whole["output"]
        begun: dict[str, Any] = {"arguments": ""} if self._tool else {"content": []}
        yield {
            "item": {**item, **begun, "status": "in_progress"},
            "output_index": 0,
            "type": "response.output_item.added",
        }
        yield from self._called(item) if self._tool else self._spoken(item)
        yield {"item": item, "output_index": 0, "type": "response.output_item.done"}
        yield {"response": whole, "type": f"response.{whole['status']}"}

    def _spoken(self, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
        place = {"content_index": 0, "item_id": item["id"], "output_index": 0}
        (part,) = item["content"]
        yield {**place, "part": {**part, "text": ""}, "type": "response.content_part.added"}
        for piece in self._pieces:
            yield {**place, "delta": piece, "logprobs": [], "type": "response.output_text.delta"}
        yield {**place, "logprobs": [], "text": part["text"], "type": "response.output_text.done"}
        yield {**place, "part": part, "type": "response.content_part.done"}

    def _called(self, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
        place = {"item_id": item["id"], "output_index": 0}
        given = item["arguments"]
        yield {**place, "delta": given, "type": "response.function_call_arguments.delta"}
        yield {**place, "arguments": given, "name": item["name"], "type": "response.function_call_arguments.done"}

    def _common(self) -> dict[str, Any]:
        repeated = {name: self._body.get(name, value) for name, value in _REPEATED.items()}
        if not repeated["text"].get("format"):
            repeated["text"] = {**repeated["text"], **_REPEATED["text"]}
        return repeated | {
            "content_filters": None,
            "created_at": CREATED,
            "error": None,
            "id": self.id,
            "incomplete_details": None,
            "model": f"{self._deployment}-emulated",
            "object": "response",
            "output": [],
            "service_tier": "default",
            "status": "in_progress",
            "usage": None,
        }

    def _item(self) -> dict[str, Any]:
        if self._tool:
            given = arguments(self._tool.get("parameters"), {"messages": self._told})
            call = {"arguments": given, "call_id": "call_emulated", "name": self._tool.get("name", "")}
            return {**call, "id": f"fc_{self._digest[:48]}", "status": "completed", "type": "function_call"}
        part = {"annotations": [], "logprobs": [], "text": "".join(self._pieces), "type": "output_text"}
        status = "incomplete" if self._reason == "length" else "completed"
        item = {"content": [part], "role": "assistant", "status": status, "type": "message"}
        return {**item, "id": f"msg_{self._digest[:48]}"}

    def _said(self) -> str:
        text = " ".join(content_of(message) for message in self._told[-1:])
        wanted = (self._body.get("text") or {}).get("format") or {}
        if wanted.get("type") in ("json_object", "json_schema"):
            return encode(json_said(text, wanted.get("schema"))).decode()
        instruction = self._body.get("instructions")
        return f'You said: "{text}".' + (f' I was told: "{instruction}".' if instruction else "")

    def _usage(self) -> dict[str, Any]:
        read = sum(len(pieces_of(content_of(message))) for message in self._told)
        written = 0 if self._tool else len(self._pieces)
        return {
            "input_tokens": read,
            "input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": 0},
            "output_tokens": written,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": read + written,
        }


def _messages(body: dict[str, Any]) -> list[dict[str, Any]]:
    """What the user said, as messages."""
    given = body["input"]
    if isinstance(given, str):
        return [{"content": given, "role": "user"}]
    return [item for item in given if isinstance(item, dict) and item.get("role") == "user"]


def _demanded_tool(body: dict[str, Any]) -> dict[str, Any] | None:
    """The function that `tool_choice` demands, if it does."""
    choice = body.get("tool_choice")
    tools = [tool for tool in body.get("tools") or [] if tool.get("type") == "function"]
    if isinstance(choice, dict):
        return next((tool for tool in tools if tool.get("name") == choice.get("name")), None)
    return tools[0] if tools and choice == "required" else None
