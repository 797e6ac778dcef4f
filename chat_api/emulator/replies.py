"""Every operation that runs a model: what it answers, whole or as events, and what it refuses. Pure."""

from typing import Any

import msgspec

from chat_api.emulator import completions, embeddings, media
from chat_api.emulator.answers import Answer, encode, misfit, refused
from chat_api.emulator.responses import Body as ResponsesBody
from chat_api.emulator.responses import Response

DONE = b"data: [DONE]\n\n"
CHAT = "chat/completions"
STREAMED = frozenset({CHAT, "completions", "responses"})

# Operation → the types of its parameters; a chat's are checked by its own rules.
_SHAPES: dict[str, type[msgspec.Struct]] = {
    "completions": completions.Body,
    "embeddings": embeddings.Body,
    "responses": ResponsesBody,
    "images/generations": media.ImageBody,
    "images/edits": media.EditBody,
    "audio/speech": media.SpeechBody,
    "audio/transcriptions": media.HeardBody,
    "audio/translations": media.HeardBody,
}
OPERATIONS = frozenset({CHAT, *_SHAPES})


def refusal(operation: str, body: dict[str, Any], deployment: str, *, is_form: bool = False) -> dict[str, Any] | None:
    """The 400 that the model answers to a request it cannot take, or None."""
    if operation == CHAT:
        return refused(body, deployment)
    if operation == "images/edits":
        body = {"image": body.get("image[]"), **body} if "image[]" in body else body
    return misfit(body, _SHAPES[operation], is_form=is_form)


def whole(operation: str, body: dict[str, Any], deployment: str, resource: str = "") -> tuple[bytes, str]:
    """The whole answer, and its content type."""
    kind = operation.partition("/")[2]
    match operation:
        case "audio/speech":
            return media.speech(body), "application/octet-stream"
        case "audio/transcriptions" | "audio/translations":
            return media.heard(body, {"transcriptions": "transcribe"}.get(kind, "translate"))
        case "chat/completions":
            answer = Answer(body, deployment).whole()
        case "completions":
            answer = completions.Completion(body, deployment).whole()
        case "embeddings":
            answer = embeddings.embeddings(body, deployment)
        case "responses":
            answer = Response(body, deployment, resource).whole()
        case _:
            answer = media.images(body)
    return encode(answer), "application/json"


def events(operation: str, body: dict[str, Any], deployment: str, resource: str = "") -> list[bytes]:
    """The stream's events, but for what marks its end."""
    if operation == "responses":
        return [named_event(event) for event in Response(body, deployment, resource).events()]
    answer = Answer(body, deployment) if operation == CHAT else completions.Completion(body, deployment)
    return [event(chunk) for chunk in answer.chunks()]


def end_mark(operation: str) -> bytes:
    """What follows the last event: the Responses API has no mark."""
    return b"" if operation == "responses" else DONE


def error_events(
    operation: str, body: dict[str, Any], deployment: str, error: Any, after: int, resource: str = ""
) -> list[bytes]:
    """How a stream tells of an error after so many events."""
    if operation != "responses":
        return [event(error)]
    nested = {**error["error"], "type": "too_many_requests", "param": None}
    return [named_event(failure) for failure in Response(body, deployment, resource).failed(after, nested)]


def event(content: Any) -> bytes:
    """An event that is only data."""
    return b"data: " + encode(content) + b"\n\n"


def named_event(content: dict[str, Any]) -> bytes:
    """An event that is called by its type."""
    return f"event: {content['type']}\n".encode() + event(content)
