"""What an emulated resource holds beside its deployments: files, batches, stored responses, and the list of models."""

from typing import Any, NamedTuple

from chat_api.emulator import things
from chat_api.emulator.answers import CREATED, encode, invalid
from chat_api.emulator.found import Found, cut_name, deleted, failed, listed, shown
from chat_api.emulator.records import Body, Shelf
from chat_api.emulator.responses import Response

DEFAULT_DEPLOYMENT = "gpt-4o"
DEPLOYMENTS = (
    *(DEFAULT_DEPLOYMENT, "gpt-4o-mini", "gpt-4.1", "gpt-5-mini", "o4-mini"),
    *("text-embedding-3-small", "gpt-image-1", "tts-1", "whisper-1", "gpt-35-turbo-instruct"),
)
KINDS = things.KINDS | {"files", "batches", "models", "responses"}
OCTETS = "application/octet-stream"
_COUNTS = {"completed": 0, "failed": 0, "total": 0}
_UNSET = (
    *("cancelled_at", "cancelling_at", "completed_at", "error_file_id", "errors", "expired_at", "failed_at"),
    *("finalizing_at", "in_progress_at", "metadata", "output_file_id"),
)


class Stored(NamedTuple):
    """A file: what is said of it, and its bytes unless they are too many."""

    about: dict[str, Any]
    content: bytes | None


class Resource:
    """The things that callers put into one resource, and get out of it.

    Args:
        name: which resource it is: its things have other ids than those of a resource of another name.
    """

    def __init__(self, name: str = "") -> None:
        self._name = name
        self._files: Shelf[Stored] = Shelf()
        self._batches: Shelf[dict[str, Any]] = Shelf()
        self._responses: Shelf[bytes] = Shelf()
        self._things = things.Things(name, lambda file: self._files.get(file) is not None)

    def answer(self, method: str, path: str, *, is_v1: bool) -> Found | None:
        """The answer to a request without a body, for a path such as `files/file-1/content`; None: no such path."""
        kind, _, rest = path.partition("/")
        name, _, part = rest.partition("/")
        match method, kind, part:
            case "GET", "models", "":
                return self._models(name, is_v1)
            case "GET", "batches", "":
                return self._batch(name)
            case (("GET" | "DELETE"), "responses", "") if name:
                return self._response(method, name)
            case (("GET" | "DELETE"), "files", "") if name or method == "GET":
                return self._file(method, name)
            case "GET", "files", "content":
                return self._content(name)
        return self._things.answer(method, path)

    def maker(self, path: str) -> things.Make | None:
        """What makes a thing of a JSON body that is posted to the path; None: no such path."""
        return self._batch_of if path == "batches" else self._things.maker(path)

    def lacks(self, body: dict[str, Any]) -> dict[str, Any] | None:
        """The 400 for a request that goes on from a response that is not here, or None."""
        name = body.get("previous_response_id")
        if name is None or self._responses.get(str(name)) is not None:
            return None
        message = f"Previous response with id '{name}' not found."
        return invalid(message, param="previous_response_id", code="previous_response_not_found")

    def store(self, response: Response) -> None:
        """Keep a response, unless its request says otherwise."""
        if (whole := response.whole())["store"]:
            body = encode(whole)
            self._responses.put(response.id, body, len(body))

    def upload(self, body: Body) -> Found:
        """Store the file in a form."""
        form = body.form
        if form is None or not form.complete:
            return failed(400, "The request body is not a complete multipart form.")
        part = next((part for part in form.parts if part.name == "file" and part.filename is not None), None)
        purpose = form.fields.get("purpose")
        if part is None or not isinstance(purpose, str):
            return failed(400, f"'{'purpose' if part else 'file'}' is a required property")
        name = f"file-{cut_name(self._name, [part.field, purpose])}"
        about = {
            "bytes": part.size,
            "created_at": CREATED,
            "filename": part.filename,
            "id": name,
            "object": "file",
            "purpose": purpose,
            "status": "processed",
        }
        content = bytes(body.data[part.start : part.start + part.size]) if body.kept else None
        self._files.put(name, Stored(about, content), len(content or b""))
        return shown(about)

    def _batch_of(self, body: dict[str, Any]) -> Found:
        """Make a batch, which then waits for ever."""
        for name in ("completion_window", "endpoint", "input_file_id"):
            if not isinstance(body.get(name), str):
                return failed(400, f"'{name}' is a required property")
        given = {name: body[name] for name in ("completion_window", "endpoint", "input_file_id")}
        about: dict[str, Any] = dict.fromkeys(_UNSET)
        about |= {**given, "created_at": CREATED, "expires_at": CREATED + 86400, "metadata": body.get("metadata")}
        name = f"batch_{cut_name(self._name, about)}"
        about |= {"id": name, "object": "batch", "request_counts": _COUNTS, "status": "validating"}
        self._batches.put(about["id"], about, len(encode(about)))
        return shown(about)

    def _models(self, name: str, is_v1: bool) -> Found:
        if name and name not in DEPLOYMENTS:
            return failed(404, f"The model '{name}' does not exist.", "model_not_found")
        shape = _model_of_v1 if is_v1 else _model
        return shown(shape(name) if name else {"data": [shape(model) for model in DEPLOYMENTS], "object": "list"})

    def _batch(self, name: str) -> Found:
        if not name:
            return listed(self._batches.values())
        batch = self._batches.get(name)
        return shown(batch) if batch else failed(404, f"No such batch: '{name}'.")

    def _response(self, method: str, name: str) -> Found:
        body = self._responses.get(name) if method == "GET" else self._responses.pop(name)
        if body is None:
            return failed(404, f"Response with id '{name}' not found.")
        return Found(200, body) if method == "GET" else deleted(name, "response")

    def _file(self, method: str, name: str) -> Found:
        if not name:
            return listed([stored.about for stored in self._files.values()])
        stored = self._files.get(name) if method == "GET" else self._files.pop(name)
        if stored is None:
            return failed(404, f"No such File object: {name}")
        return shown(stored.about) if method == "GET" else deleted(name, "file")

    def _content(self, name: str) -> Found:
        stored = self._files.get(name)
        if stored is None or stored.content is None:
            return failed(404, f"No such File object: {name}")
        return Found(200, stored.content, OCTETS)


def _model_of_v1(name: str) -> dict[str, Any]:
    return {"created": CREATED, "id": name, "object": "model", "owned_by": "azure"}


def _model(name: str) -> dict[str, Any]:
    is_chat = name.startswith(("gpt-4", "gpt-5", "o"))
    return {
        "capabilities": {
            "chat_completion": is_chat,
            "completion": name.endswith("-instruct"),
            "embeddings": name.startswith("text-embedding"),
            "fine_tune": False,
            "inference": True,
        },
        "created_at": CREATED,
        "deprecation": {"inference": CREATED + 365 * 86400},
        "id": name,
        "lifecycle_status": "generally-available",
        "object": "model",
        "status": "succeeded",
    }
