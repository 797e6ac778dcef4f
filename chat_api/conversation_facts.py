"""What of an exchange is a fact and no word: of answers, parameters, usage. What is not listed here is left out."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from chat_api.chunks import NOTHING, UNREADABLE, read_object

# Parameters that are numbers, flags, or one of a few words.
_PARAMETERS = frozenset(
    {
        *("temperature", "top_p", "n", "best_of", "max_tokens", "max_completion_tokens", "max_output_tokens"),
        *("presence_penalty", "frequency_penalty", "seed", "logprobs", "top_logprobs", "echo", "store", "background"),
        *("parallel_tool_calls", "max_tool_calls", "tool_choice", "reasoning_effort", "verbosity", "service_tier"),
        *("truncation", "prompt_cache_retention"),
    }
)
_CHOICES = frozenset(
    {
        *("auto", "none", "required", "minimal", "low", "medium", "high", "xhigh", "default", "flex", "priority"),
        *("scale", "disabled", "in_memory", "24h"),
    }
)
_FOUND = ("filtered", "detected", "severity")
_REASONS = frozenset(
    {
        *("stop", "length", "tool_calls", "function_call", "content_filter", "max_output_tokens"),
        *("completed", "incomplete", "failed", "cancelled", "in_progress", "queued"),
        *("safe", "low", "medium", "high"),
    }
)


class _Outline(Struct):
    """Of a choice, or of what the filter found in a prompt, what may be a fact."""

    index: Any = None
    prompt_index: Any = None
    finish_reason: Any = None
    content_filter_results: Any = None  # `Raw` where it is read here


class _Read(_Outline):
    content_filter_results: Raw = NOTHING


_decode_outlines = msgspec.json.Decoder(list[_Read]).decode


def facts_of_parameters(parameters: Mapping[str, Raw]) -> dict[str, Any]:
    """The parameters whose names are known and whose values are no words."""
    facts = {}
    for name in parameters:
        if name in _PARAMETERS:
            value = _decoded(parameters[name])
            if _is_plain(value) or (isinstance(value, str) and value in _CHOICES):
                facts[name] = value
    return facts


def facts_of_usage(usage: bytes) -> dict[str, Any]:
    """The numbers of what was used."""
    numbers: dict[str, Any] = {}
    for name, value in read_object(usage).items():
        if isinstance(value, dict):
            numbers[name] = {detail: number for detail, number in value.items() if _is_plain(number)}
        elif _is_plain(value):
            numbers[name] = value
    return numbers


def facts_of_answer(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Why each choice ended, and what the filters found; for a response, how it ended."""
    if "unreadable_bytes" in answer:
        return dict(answer)
    facts: dict[str, Any] = {}
    for name in ("choices", "prompt_filter_results"):
        if name in answer:
            facts[name] = [_facts_of(one, is_choice=name == "choices") for one in _outlines(answer[name])]
    if _is_reason(status := _decoded(answer.get("status"))):
        facts["status"] = status
    details = _decoded(answer.get("incomplete_details"))
    if isinstance(details, dict) and _is_reason(details.get("reason")):
        facts["incomplete_details"] = {"reason": details["reason"]}
    error = _decoded(answer.get("error"))
    inner = error.get("innererror") if isinstance(error, dict) else None
    if isinstance(inner, dict) and isinstance(found := inner.get("content_filter_result"), dict):
        facts["error"] = {"innererror": {"content_filter_result": _filters(found)}}
    return facts


def _outlines(value: Any) -> Sequence[_Outline]:
    """Of a list of objects what facts are looked for in; what else is in it is not read."""
    try:
        if isinstance(value, Raw):
            return _decode_outlines(value)
    except UNREADABLE:
        value = _decoded(value)
    members = [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
    return [_Outline(*map(one.get, _Outline.__struct_fields__)) for one in members]


def _facts_of(one: _Outline, *, is_choice: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if type(one.index) is int:
        facts["index"] = one.index
    if type(one.prompt_index) is int:
        facts["prompt_index"] = one.prompt_index
    if is_choice and (one.finish_reason is None or _is_reason(one.finish_reason)):
        facts["finish_reason"] = one.finish_reason
    filters = one.content_filter_results
    if isinstance(filters, dict):
        facts["content_filter_results"] = _filters(filters)
    elif isinstance(filters, Raw) and (found := bytes(filters)).startswith(b"{"):
        facts["content_filter_results"] = _read_filters(found) if len(found) < 1024 else _filters(read_object(found))
    return facts


@functools.lru_cache(maxsize=256)
def _read_filters(found: bytes) -> dict[str, Any]:
    """They are nearly always the same: nothing was found."""
    return _filters(read_object(found))


def _filters(results: dict[str, Any]) -> dict[str, Any]:
    return {category: _found(found) for category, found in results.items() if isinstance(found, dict)}


def _found(found: dict[str, Any]) -> dict[str, Any]:
    facts = {}
    for name in _FOUND:
        value = found.get(name)
        if value is True or value is False or (value is not None and _is_reason(value)):
            facts[name] = value
    return facts


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float)


def _is_reason(value: Any) -> bool:
    return isinstance(value, str) and value in _REASONS


def _decoded(value: Any) -> Any:
    if not isinstance(value, Raw):
        return value
    try:
        return msgspec.json.decode(value)
    except UNREADABLE:
        return None
