"""The operations of OpenAI's API: what a request's path asks for, and how each is addressed at Azure. Pure.

Azure's documentation of both APIs gives the table: most operations that run a model are scoped to a
deployment, everything else to the resource; the v1 API serves neither audio nor legacy completions.
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote

from chat_api.azure_url import is_deployment_name
from chat_api.errors import RequestError, UnknownPath
from chat_api.types import Call

DEPLOYMENT_SCOPED = frozenset(
    {
        "audio/speech",
        "audio/transcriptions",
        "audio/translations",
        "chat/completions",
        "completions",
        "embeddings",
        "extensions/chat/completions",
        "images/edits",
        "images/generations",
        "images/variations",
    }
)
# The dated api-version with which a resource that is configured for v1 is asked for what v1 does not serve.
CLASSIC_ONLY = {
    "audio/speech": "2025-04-01-preview",  # no GA version serves it
    "audio/transcriptions": "2025-04-01-preview",
    "audio/translations": "2025-04-01-preview",
    "completions": "2024-10-21",
    "extensions/chat/completions": "2023-12-01-preview",
}
# The operations that answer with choices; their streams end with `[DONE]`.
CHAT = frozenset({"chat/completions", "completions", "extensions/chat/completions"})
# The operations that take a model but are scoped to the resource: the body says which.
MODEL_REQUIRED = DEPLOYMENT_SCOPED | {"responses", "assistants"}
# What lies in the resource and has nothing to do with a deployment: passed on without being read.
_UNROUTED = re.compile(r"(files|uploads|batches|fine_tuning|fine-tunes|vector_stores|containers|evals|models)(/|$)")

_PATH_OF_DEPLOYMENT = re.compile(r"(?:deployments|engines)/(.+)", re.IGNORECASE)
_KNOWN_AT_END = re.compile(r"(.+?)/(" + "|".join(sorted(DEPLOYMENT_SCOPED, key=len, reverse=True)) + ")", re.IGNORECASE)


_OPERATION_AT_END = re.compile(
    "/(" + "|".join(sorted(MODEL_REQUIRED | {"models", "files"}, key=len, reverse=True)) + ")/?$"
)


@dataclass(frozen=True, slots=True)
class Target:
    """What a path asks for: the operation, and the model or deployment that it names, if it names one."""

    operation: str
    model: str | None = None


def parse_path(path: str) -> Target:
    """The target of a path under the API's prefix, still quoted: `chat/completions`, `deployments/x/embeddings`.

    Raises:
        RequestError: it holds what no path does: `.` and `..`, quoted slashes or control characters.
        UnknownPath: it is empty, or has an empty segment (`//`).
    """
    path = path.removesuffix("/")
    segments = path.split("/")
    names_deployment = segments[0].lower() in ("deployments", "engines") and len(segments) > 2
    for index, segment in enumerate(segments):
        # In `deployments/{name}/…` a quoted slash is one of the name's.
        is_name = index == 1 and (names_deployment or segments[0] == "models")
        _check_segment(segment, path, may_have_slash=is_name)
    scoped = _PATH_OF_DEPLOYMENT.fullmatch(path)
    if scoped is None:
        return Target(_spelled(path))
    known = _KNOWN_AT_END.fullmatch(scoped[1])  # first, as some clients do not quote a slash within a name
    name, _, operation = (known[1], "", known[2]) if known else scoped[1].partition("/")
    if not operation:
        return Target(path)
    model = unquote(name)
    if not is_deployment_name(model):
        raise RequestError(f"no deployment is called {model!r}", param="model", code="invalid_model")
    return Target(_spelled(operation), model)


def _spelled(operation: str) -> str:
    """An operation that takes a model as it is spelled here: Azure reads paths in any letters."""
    lower = operation.lower()
    return lower if lower in MODEL_REQUIRED else operation


def path_meant(path: str) -> str | None:
    """The path that someone meant whose base URL lacks the `/v1`, or has something twice; None if it cannot be told."""
    collapsed = re.sub("/+", "/", path)
    azure = collapsed.find("/openai/deployments/")
    if azure > 0:
        return collapsed[azure:]
    known = _OPERATION_AT_END.search(collapsed)
    meant = f"/v1/{known[1]}" if known else None
    return meant if meant != path else None


def is_unrouted(method: str, operation: str) -> bool:
    """Whether nothing in the request's body says where it goes."""
    return method in ("GET", "HEAD", "DELETE") or _UNROUTED.match(operation) is not None


def is_known(operation: str) -> bool:
    """Whether OpenAI's API has an operation, as far as this table knows."""
    return operation in MODEL_REQUIRED or operation == "threads" or _UNROUTED.match(operation) is not None


def _check_segment(segment: str, path: str, *, may_have_slash: bool) -> None:
    if not segment:
        better = re.sub("/+", "/", path).strip("/")
        raise UnknownPath(f'the path has an empty segment ("//"); did you mean /v1/{better}?' if better else "no path")
    text = unquote(segment, errors="replace")
    is_bad = (
        not {".", ".."}.isdisjoint(text.split("/"))
        or "\\" in text
        or not text.isprintable()
        or "\N{REPLACEMENT CHARACTER}" in text
    )
    if is_bad or ("/" in text and not may_have_slash):
        raise RequestError(f"{segment[:200]!r} cannot stand in a path", code="invalid_path")


def route_of(call: Call) -> str:
    """The path that a call came by, in OpenAI's words, whatever it was really: `/v1/chat/completions`."""
    if not call.verbatim:
        return "/v1/gpt/chat"
    return f"{call.route}/v1/{call.operation}" if not call.operation.startswith("/") else call.route + call.operation
