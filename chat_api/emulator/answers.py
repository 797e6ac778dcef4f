"""What the emulated model says in a chat, in Azure's shapes. Pure and deterministic: same request, same bytes."""

import hashlib
import re
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from chat_api.emulator.schemas import filled

CREATED = 1767225600  # 2026-01-01: a time that never changes, so that answers can be compared
SAFE = {name: {"filtered": False, "severity": "safe"} for name in ("hate", "self_harm", "sexual", "violence")}
_REASONING = re.compile(r"(o\d|gpt-5)")
_NOT_FOR_REASONING = (
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "logprobs",
    "top_logprobs",
    "logit_bias",
)
_KNOWN = {
    *("messages", "model", "temperature", "top_p", "n", "stream", "stop", "max_tokens", "presence_penalty"),
    *("frequency_penalty", "user", "max_completion_tokens", "reasoning_effort", "logit_bias", "seed"),
    *("response_format", "tools", "tool_choice", "logprobs", "top_logprobs", "stream_options", "functions"),
    *("function_call", "parallel_tool_calls", "data_sources", "modalities", "audio", "prediction", "store"),
    *("metadata", "user_security_context", "service_tier", "verbosity", "prompt_cache_key", "safety_identifier"),
}


def encode(content: Any) -> bytes:
    """JSON with its members in alphabetical order, as Azure sends it."""
    return msgspec.json.encode(content, order="sorted")


def digest_of(body: dict[str, Any], deployment: str, resource: str = "") -> str:
    """64 hexadecimal digits that stand for a request: every id in its answer is cut from them."""
    return hashlib.sha256(encode({"body": body, "deployment": deployment}) + resource.encode()).hexdigest()


def refused(body: dict[str, Any], deployment: str) -> dict[str, Any] | None:
    """The 400 that the model answers to a chat it cannot take, or None."""
    for name in body:
        if name not in _KNOWN:
            return invalid(f"Unrecognized request argument supplied: {name}")
    if body.get("messages") is None:
        return invalid("'messages' is a required property")
    if error := misfit(body, _Body):
        return error
    if _REASONING.match(deployment):
        if "max_tokens" in body:
            return unsupported_max_tokens()
        if body.get("temperature", 1) != 1:
            return unsupported_temperature(body["temperature"])
        for name in _NOT_FOR_REASONING:
            if name in body:
                message = f"Unsupported parameter: '{name}' is not supported with this model."
                return invalid(message, param=name, code="unsupported_parameter")
    return None


def misfit(body: dict[str, Any], shape: type[msgspec.Struct], *, is_form: bool = False) -> dict[str, Any] | None:
    """The 400 for the first parameter that does not have the type that the shape gives it, or None."""
    try:
        msgspec.convert(body, shape, strict=not is_form)
    except msgspec.ValidationError as error:
        expected, _, path = str(error).partition(" - at `$.")
        if missing := re.match(r"Object missing required field `(\w+)`", expected):
            return invalid(f"'{missing[1]}' is a required property")
        name = re.split(r"\W", path)[0]
        return invalid(f"Invalid value for '{name}': {expected.lower()}.", param=name)
    return None


def invalid(message: str, *, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """An error body of the model's own family."""
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def unsupported_max_tokens() -> dict[str, Any]:
    """How a reasoning model refuses `max_tokens`."""
    message = (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    )
    return invalid(message, param="max_tokens", code="unsupported_parameter")


def unsupported_temperature(value: Any) -> dict[str, Any]:
    """How a reasoning model refuses a temperature."""
    message = (
        f"Unsupported value: 'temperature' does not support {value} with this model. Only the default (1) is supported."
    )
    return invalid(message, param="temperature", code="unsupported_value")


class _Function(msgspec.Struct):
    name: str


class _Tool(msgspec.Struct):
    function: _Function


class _ResponseFormat(msgspec.Struct):
    type: str
    json_schema: dict[str, Any] | None = None


class _Body(msgspec.Struct):
    """The types of the parameters that shape an emulated answer."""

    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stop: str | list[Annotated[str, Meta(min_length=1)]] | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    response_format: _ResponseFormat | None = None
    tools: list[_Tool] | None = None
    tool_choice: str | _Tool | None = None


class Answer:
    """The answer to one chat request: `whole()` as one object, `chunks()` as a stream's events."""

    def __init__(self, body: dict[str, Any], deployment: str) -> None:
        self._body = body
        digest = digest_of(body, deployment)
        self._common = {"created": CREATED, "id": f"chatcmpl-{digest[:29]}", "model": f"{deployment}-emulated"}
        self._call = _called_tool(body)
        self._pieces, self._finish_reason = limited(_said(body), body)
        if self._call:
            self._pieces, self._finish_reason = [], "tool_calls"

    def whole(self) -> dict[str, Any]:
        """The `chat.completion` object."""
        text = "".join(self._pieces)
        message: dict[str, Any] = {"annotations": [], "content": text, "refusal": None, "role": "assistant"}
        if self._call:
            message |= {"content": None, "tool_calls": [self._call]}
        choice = {
            "content_filter_results": SAFE,
            "finish_reason": self._finish_reason,
            "logprobs": None,
            "message": message,
        }
        return {
            **self._common,
            "choices": [{**choice, "index": index} for index in range(self._choices)],
            "object": "chat.completion",
            "prompt_filter_results": [{"content_filter_results": SAFE, "prompt_index": 0}],
            "system_fingerprint": "fp_emulated",
            "usage": self._usage(),
        }

    def chunks(self) -> Iterator[dict[str, Any]]:
        """The `chat.completion.chunk` objects: prompt filter, roles, pieces, finish, usage if asked for."""
        wants_usage = bool((self._body.get("stream_options") or {}).get("include_usage"))
        yield {
            "choices": [],
            "created": 0,
            "id": "",
            "model": "",
            "object": "",
            "prompt_filter_results": [{"content_filter_results": SAFE, "prompt_index": 0}],
        }
        common = {**self._common, "object": "chat.completion.chunk", "system_fingerprint": "fp_emulated"}
        if wants_usage:
            common["usage"] = None
        for index in range(self._choices):
            start = {"content": None if self._call else "", "refusal": None, "role": "assistant"}
            yield {**common, "choices": [_choice(index, start)]}
            if self._call:
                yield {**common, "choices": [_choice(index, {"tool_calls": [{**self._call, "index": 0}]})]}
            for piece in self._pieces:
                yield {**common, "choices": [{**_choice(index, {"content": piece}), "content_filter_results": SAFE}]}
            yield {**common, "choices": [_choice(index, {}, self._finish_reason)]}
        if wants_usage:
            yield {**common, "choices": [], "usage": self._usage()}

    @property
    def _choices(self) -> int:
        return int(self._body.get("n") or 1)

    def _usage(self) -> dict[str, Any]:
        prompt = sum(len(pieces_of(content_of(message))) for message in self._body["messages"])
        completion = len(self._pieces) * self._choices
        details = {"accepted_prediction_tokens": 0, "audio_tokens": 0, "reasoning_tokens": 0}
        return {
            "completion_tokens": completion,
            "completion_tokens_details": {**details, "rejected_prediction_tokens": 0},
            "prompt_tokens": prompt,
            "prompt_tokens_details": {"audio_tokens": 0, "cached_tokens": 0},
            "total_tokens": prompt + completion,
        }


def _choice(index: int, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {
        "content_filter_results": {},
        "delta": delta,
        "finish_reason": finish_reason,
        "index": index,
        "logprobs": None,
    }


def _said(body: dict[str, Any]) -> str:
    """The emulated model repeats what it was told, which shows that it arrived."""
    told = {"system": "", "user": ""}
    for message in body["messages"]:
        if isinstance(message, dict):
            role = "system" if message.get("role") == "developer" else message.get("role")
            if role in told:
                told[role] = content_of(message)
    wanted = body.get("response_format") or {}
    if wanted.get("type") in ("json_object", "json_schema"):
        return encode(json_said(told["user"], (wanted.get("json_schema") or {}).get("schema"))).decode()
    instruction = f' I was told: "{told["system"]}".' if told["system"] else ""
    return f'You said: "{told["user"]}".{instruction}'


def json_said(text: str, schema: Any) -> Any:
    """What was told, as JSON: in the properties that a schema names, else in one of its own."""
    fits = isinstance(schema, dict) and (schema.get("properties") or "$ref" in schema)
    return filled(schema, text) if fits else {"said": text}


def arguments(schema: Any, body: dict[str, Any]) -> str:
    """The arguments of a tool call, as text: what the user said in every property of the tool's schema."""
    told = [content_of(message) for message in body.get("messages", []) if message.get("role") == "user"]
    return encode(filled(schema, told[-1] if told else "")).decode() if isinstance(schema, dict) else "{}"


def content_of(message: Any) -> str:
    """The text of a message, or of its parts."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def pieces_of(text: str) -> list[str]:
    """The text cut as a model would send it; a piece stands for a token."""
    return re.findall(r"\s*\S+|\s+$", text)


def limited(text: str, body: dict[str, Any]) -> tuple[list[str], str]:
    """The text's pieces up to a stop text or the token limit, and why they end there."""
    stops = body.get("stop") or []
    for stop in [stops] if isinstance(stops, str) else stops:
        text = text.partition(stop)[0]
    pieces = pieces_of(text)
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or len(pieces)
    return pieces[:limit], "length" if limit < len(pieces) else "stop"


def _called_tool(body: dict[str, Any]) -> dict[str, Any] | None:
    """The tool call that `tool_choice` demands, if it does."""
    choice, tools = body.get("tool_choice"), body.get("tools")
    if not tools or choice in (None, "none", "auto"):
        return None
    name = choice["function"]["name"] if isinstance(choice, dict) else tools[0]["function"]["name"]
    schema = next((tool["function"].get("parameters") for tool in tools if tool["function"]["name"] == name), None)
    return {"function": {"arguments": arguments(schema, body), "name": name}, "id": "call_emulated", "type": "function"}
