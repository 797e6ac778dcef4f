"""The simple endpoint's language: its fields made into an Azure chat body, Azure's answer made into its own.

Pure: values in, bytes out; bytes in, bytes out.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Raw

from chat_api.errors import RequestError, UpstreamError
from chat_api.fields import FIELDS, Given, kind_of, read_value
from chat_api.routing import asks_usage, checked_model

_PROMPT_FIELDS = ("prompt", "userPrompt", "systemPrompt", "assistantPrompt", "messages", "extra")
PARAMETERS = tuple(name for name in FIELDS if name not in (*_PROMPT_FIELDS, "model"))
_NOT_IN_EXTRA = ("messages", "model", "stream")


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A prompt ready to go: Azure's chat body, and what the gateway has to know about it."""

    body: bytes
    model: str | None
    stream: bool
    defaulted: frozenset[str]  # parameters in `body` that are the environment's
    asks_usage: bool = False  # whether a stream is to tell what it took
    most_tokens: int | None = None  # that the answer may have; None if it is not said


def build(given: Given, defaults: Mapping[str, Any]) -> ChatPrompt:
    """The Azure chat body of a request's fields; `defaults` fill in parameters it leaves out.

    Messages come in the order system, earlier turns, user, assistant. Null and empty mean unset.

    Raises:
        RequestError: a field is unknown, missing or of the wrong kind; it names the field.
    """
    values = {name: value for name, raw in given.items() if (value := read_value(name, raw)) is not None}
    prompt = _prompt(values, given)
    model = checked_model(values.pop("model")) if "model" in values else None
    messages = _messages(values, prompt)
    extra = _extra(values.pop("extra", None), values)
    own = {name: values[name] for name in PARAMETERS if name in values} | extra
    if "max_completion_tokens" in own:  # the same limit under its newer name: Azure refuses both at once
        defaults = {name: value for name, value in defaults.items() if name != "max_tokens"}
    filled = {name: value for name, value in defaults.items() if name not in own}
    parameters = {**filled, **own}
    return ChatPrompt(
        body=msgspec.json.encode({"messages": messages, **parameters}),
        model=model,
        stream=parameters.get("stream") is True,
        defaulted=frozenset(filled) - {"stream"},  # what the answer looks like is not up for adaptation
        most_tokens=_most_tokens(parameters),
        asks_usage="stream_options" in own and asks_usage(msgspec.json.encode(own["stream_options"])),
    )


def _most_tokens(parameters: Mapping[str, Any]) -> int | None:
    stated = [parameters.get(name) for name in ("max_tokens", "max_completion_tokens")]
    numbers = [number for number in stated if type(number) is int and number >= 0]
    n = parameters.get("n")
    return max(numbers) * (n if type(n) is int and n > 0 else 1) if numbers else None


class _Message(msgspec.Struct):
    content: Any = None


class _Choice(msgspec.Struct):
    message: _Message
    index: int = 0
    finish_reason: str | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice]


def answer_json(body: bytes) -> bytes:
    """Azure's completion as it came, with `"success": 1` and `"text"` put before its own members.

    Raises:
        UpstreamError: it is not a chat completion.
    """
    text, _ = answer_text(body)
    head = msgspec.json.encode({"success": 1, "text": text})
    return head[:-1] + b"," + body.lstrip()[1:]


def answer_text(body: bytes) -> tuple[str | None, str | None]:
    """`(content, finish_reason)` of a completion's first choice; content is None for a tool call.

    Raises:
        UpstreamError: it is not a chat completion.
    """
    try:
        choices = _decode_answer(body).choices
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise UpstreamError("the upstream's answer is not a chat completion", code="not_an_answer") from None
    first = min(choices, key=lambda choice: choice.index, default=None)
    if first is None:
        return None, None
    content = first.message.content
    return content if isinstance(content, str) else None, first.finish_reason


_decode_answer = msgspec.json.Decoder(_Answer).decode


def _prompt(values: dict[str, Any], given: Given) -> str:
    prompts = [(name, values.pop(name)) for name in ("prompt", "userPrompt") if name in values]
    if len({text for _, text in prompts}) > 1:
        raise RequestError("prompt and userPrompt are two names for one field; send one of them", param="prompt")
    if not prompts or not prompts[0][1].strip():
        name = "userPrompt" if "userPrompt" in given and "prompt" not in given else "prompt"
        message = f"{name} is empty" if name in given else "prompt is missing"
        raise RequestError(f"{message}; it takes {FIELDS[name].expects}", param=name, code="missing_prompt")
    return str(prompts[0][1])


def _messages(values: dict[str, Any], prompt: str) -> list[Any]:
    messages: list[Any] = []
    if system := values.pop("systemPrompt", None):
        messages.append({"role": "system", "content": system})
    earlier: Iterable[Raw] = values.pop("messages", ())
    for number, message in enumerate(earlier):
        if not _has_role(message):
            expected = "an object with a role"
            raise RequestError(f"messages[{number}] is {kind_of(message)}; it takes {expected}", param="messages")
        messages.append(message)
    messages.append({"role": "user", "content": prompt})
    if assistant := values.pop("assistantPrompt", None):
        messages.append({"role": "assistant", "content": assistant})
    return messages


class _Role(msgspec.Struct):
    role: str


def _has_role(message: Raw) -> bool:
    try:
        return bool(msgspec.json.decode(message, type=_Role).role)
    except (msgspec.MsgspecError, RecursionError):
        return False


def _extra(extra: Mapping[str, Raw] | None, values: Mapping[str, Any]) -> dict[str, Raw]:
    for name in extra or ():
        if name in _NOT_IN_EXTRA:
            raise RequestError(f'extra may not hold "{name}"; send {name} as a field of its own', param="extra")
        if name in values:
            raise RequestError(f'"{name}" is given twice: as a field and in extra', param=name)
    return dict(extra or {})
