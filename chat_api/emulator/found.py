"""What the resource answers about the things that it stores, in Azure's shapes. Pure."""

import hashlib
from typing import Any, NamedTuple

from chat_api.emulator.answers import encode, invalid


class Found(NamedTuple):
    """An answer of the resource."""

    status: int
    body: bytes
    content_type: str = "application/json"


def shown(content: Any) -> Found:
    """A thing, or a list of them."""
    return Found(200, encode(content))


def failed(status: int, message: str, code: str | None = None, param: str | None = None) -> Found:
    """An error."""
    return Found(status, encode(invalid(message, code=code, param=param)))


def listed(data: list[dict[str, Any]]) -> Found:
    """The list of things."""
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return shown({"data": data, "has_more": False, "object": "list", **ends})


def deleted(name: str, kind: str) -> Found:
    """What is said of a thing that is gone."""
    return shown({"deleted": True, "id": name, "object": kind})


def cut_name(resource: str, content: Any) -> str:
    """The digits of a thing's id: those of its content, and others at another resource."""
    return hashlib.sha256(encode(content) + resource.encode()).hexdigest()[:32]
