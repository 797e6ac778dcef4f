"""Threads with their messages, vector stores and fine-tuning jobs: they are stored, and nothing is done with them."""

from collections.abc import Callable
from typing import Any

from chat_api.emulator.answers import CREATED, encode
from chat_api.emulator.found import Found, cut_name, deleted, failed, listed, shown
from chat_api.emulator.records import Shelf

Thing = dict[str, Any]
Make = Callable[[dict[str, Any]], Found]
KINDS = frozenset({"threads", "vector_stores", "fine_tuning"})
_COUNTS = ("cancelled", "failed", "in_progress")


class Things:
    """What callers have made in one resource.

    Args:
        resource: which resource it is: another one gives its things other ids.
        has_file: whether a file is there.
    """

    def __init__(self, resource: str, has_file: Callable[[str], bool]) -> None:
        self._resource = resource
        self._has_file = has_file
        self._made = 0
        self._threads: Shelf[Thing] = Shelf()
        self._messages: Shelf[Thing] = Shelf()
        self._stores: Shelf[Thing] = Shelf()
        self._jobs: Shelf[Thing] = Shelf()

    def answer(self, method: str, path: str) -> Found | None:
        """The answer to a request without a body; None: no such path."""
        kind, _, rest = path.partition("/")
        name, _, part = rest.partition("/")
        match method, kind, name, part:
            case (("GET" | "DELETE"), "threads", _, "") if name:
                message = f"No thread found with id '{name}'."
                return _one(self._threads, method, name, message, "thread.deleted")
            case "GET", "threads", _, "messages" if name:
                return self._messages_of(name)
            case "GET", "vector_stores", "", "":
                return _newest(self._stores.values())
            case (("GET" | "DELETE"), "vector_stores", _, ""):
                message = f"No vector store found with id '{name}'."
                return _one(self._stores, method, name, message, "vector_store.deleted")
            case "GET", "fine_tuning", "jobs", "":
                return _newest(self._jobs.values())
            case "GET", "fine_tuning", "jobs", _:
                return _one(self._jobs, method, part, f"Could not find fine tune: {part}")
        return None

    def maker(self, path: str) -> Make | None:
        """What makes a thing of a body that is posted to the path; None: no such path."""
        match path.split("/"):
            case ["threads"]:
                return self._thread
            case ["threads", name, "messages"]:
                return lambda body: self._message(name, body)
            case ["vector_stores"]:
                return self._store
            case ["fine_tuning", "jobs"]:
                return self._job
        return None

    def _thread(self, body: dict[str, Any]) -> Found:
        given = body.get("messages") or []
        thread = self._new("thread", "thread", body) | {"tool_resources": body.get("tool_resources", {})}
        if not isinstance(given, list) or not all(_is_message(one) for one in given):
            return failed(400, "Invalid value for 'messages'.", param="messages")
        for message in given:
            self._add(thread["id"], message)
        return _put(self._threads, thread)

    def _message(self, thread: str, body: dict[str, Any]) -> Found:
        if self._threads.get(thread) is None:
            return failed(404, f"No thread found with id '{thread}'.")
        if not _is_message(body):
            return failed(400, "'role' and 'content' are required properties")
        return shown(self._add(thread, body))

    def _add(self, thread: str, body: dict[str, Any]) -> Thing:
        content = body["content"]
        if isinstance(content, str):
            content = [{"text": {"annotations": [], "value": content}, "type": "text"}]
        message = self._new("msg", "thread.message", body)
        message |= {"assistant_id": None, "attachments": body.get("attachments", []), "content": content}
        message |= {"role": body["role"], "run_id": None, "thread_id": thread}
        _put(self._messages, message)
        return message

    def _messages_of(self, thread: str) -> Found:
        if self._threads.get(thread) is None:
            return failed(404, f"No thread found with id '{thread}'.")
        return _newest([message for message in self._messages.values() if message["thread_id"] == thread])

    def _store(self, body: dict[str, Any]) -> Found:
        files = body.get("file_ids") or []
        if not isinstance(files, list):
            return failed(400, "Invalid value for 'file_ids'.", param="file_ids")
        for name in files:
            if not self._has_file(str(name)):
                return failed(404, f"No such File object: {name}", param="file_ids")
        counts = {**dict.fromkeys(_COUNTS, 0), "completed": len(files), "total": len(files)}
        store = self._new("vs", "vector_store", body) | {"file_counts": counts, "name": body.get("name")}
        store |= {"expires_after": None, "expires_at": None, "last_active_at": CREATED}
        return _put(self._stores, store | {"status": "completed", "usage_bytes": 0})

    def _job(self, body: dict[str, Any]) -> Found:
        for name in ("model", "training_file"):
            if not isinstance(body.get(name), str):
                return failed(400, f"'{name}' is a required property")
        for name in ("training_file", "validation_file"):
            if body.get(name) is not None and not self._has_file(str(body[name])):
                return failed(400, f"invalid {name}: {body[name]}", param=name)
        job = self._new("ftjob", "fine_tuning.job", body)
        job |= {"error": None, "fine_tuned_model": None, "finished_at": None, "result_files": []}
        job |= {"model": body["model"], "status": "pending", "trained_tokens": None}
        job |= {"hyperparameters": body.get("hyperparameters", {}), "seed": body.get("seed", 0)}
        return _put(self._jobs, job | {name: body.get(name) for name in ("suffix", "training_file", "validation_file")})

    def _new(self, prefix: str, kind: str, body: dict[str, Any]) -> Thing:
        self._made += 1  # two things that are alike are two
        name = f"{prefix}{'-' if prefix == 'ftjob' else '_'}{cut_name(self._resource, [kind, self._made])}"
        return {"created_at": CREATED, "id": name, "metadata": body.get("metadata", {}), "object": kind}


def _is_message(given: Any) -> bool:
    return (
        isinstance(given, dict)
        and given.get("role") in ("user", "assistant")
        and isinstance(given.get("content"), str | list)
    )


def _put(shelf: Shelf[Thing], thing: Thing) -> Found:
    shelf.put(thing["id"], thing, len(encode(thing)))
    return shown(thing)


def _one(shelf: Shelf[Thing], method: str, name: str, missing: str, gone: str = "") -> Found:
    thing = shelf.pop(name) if method == "DELETE" else shelf.get(name)
    if thing is None:
        return failed(404, missing)
    return deleted(name, gone) if method == "DELETE" else shown(thing)


def _newest(things: list[Thing]) -> Found:
    return listed(things[::-1])
