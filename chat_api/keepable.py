"""Which answers may be given again: those that are whole, and that nobody has cut or filtered. Pure."""

from collections.abc import Iterable
from typing import Any

from chat_api.terms import read_chunks, read_json

# Every other word for an end is another way of being cut short; what it means is not for us to guess.
_WHOLE_ENDS = frozenset({"stop", "tool_calls", "function_call"})
_SAYS = {"chat/completions": ("message", dict), "completions": ("text", str)}
_FILTER_RESULTS = ("content_filter_results", "content_filter_result")


def is_complete_json(body: bytes, operation: str, choices: int = 1) -> bool:
    """Whether the body of a 200 is an answer that may be given again.

    Args:
        body: the JSON, decompressed.
        operation: "chat/completions", "completions" or "embeddings"; of another nothing is kept.
        choices: how many answers were asked for, see `canonical.asked_choices`.
    """
    try:
        answer = read_json(body)
    except (ValueError, RecursionError):
        return False
    if type(answer) is not dict or answer.get("error"):
        return False
    if operation == "embeddings":
        return _are_embeddings(answer.get("data"), choices)
    said = answer.get("choices")
    if operation not in _SAYS or type(said) is not list:
        return False
    name, kind = _SAYS[operation]
    if not all(type(choice) is dict and type(choice.get(name)) is kind for choice in said):
        return False
    if any(not _is_whole_end(choice.get("finish_reason")) or _is_filtered(choice) for choice in said):
        return False
    return _are_all(_indexes(said), choices) and len(said) == len(_indexes(said))


def is_complete_stream(body: bytes, operation: str, choices: int = 1) -> bool:
    """The same of all events of a stream, `[DONE]` included."""
    chunks = read_chunks(body) if operation in _SAYS else None
    if chunks is None:
        return False
    begun: set[int] = set()
    finished: set[int] = set()
    for chunk in chunks:
        said = chunk.get("choices") or []
        if type(said) is not list:
            return False
        for choice in said:
            if type(choice) is not dict or type(index := choice.get("index")) is not int or _is_filtered(choice):
                return False
            begun.add(index)
            reason = choice.get("finish_reason")
            if reason is not None:
                if not _is_whole_end(reason):
                    return False
                finished.add(index)
    return begun == finished and _are_all(finished, choices)


def _are_embeddings(data: Any, choices: int) -> bool:
    return type(data) is list and len(data) >= max(1, choices) and all(type(item) is dict for item in data)


def _indexes(choices: Iterable[dict[str, Any]]) -> set[int]:
    return {index for choice in choices if type(index := choice.get("index")) is int}


def _are_all(indexes: set[int], choices: int) -> bool:
    return len(indexes) >= max(1, choices) and indexes == set(range(len(indexes)))


def _is_whole_end(reason: Any) -> bool:
    return type(reason) is str and reason in _WHOLE_ENDS


def _is_filtered(choice: dict[str, Any]) -> bool:
    """Whether Azure's filter has taken something out, or could not look: then it may say otherwise next time."""
    for name in _FILTER_RESULTS:
        results = choice.get(name)
        if type(results) is dict and results:
            if results.get("error"):
                return True
            if any(type(result) is dict and result.get("filtered") for result in results.values()):
                return True
    return False
