"""Keys and passwords that tests hand out so that they can be looked for: none of them may come out anywhere."""

import base64
import re
from collections.abc import Iterable
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MARK = "canary-"  # every key, token and password in the tests that matters begins so
_INPUTS = (".env", ".yaml", ".yml")  # files that tests write for the server to read its keys from


def _in_base64(text: str) -> Iterable[str]:
    """What it becomes within something that is coded so, wherever it begins."""
    for before in range(3):
        coded = base64.b64encode(b"\0" * before + text.encode()).decode()
        yield coded[-(-before * 8 // 6) : (before + len(text)) * 8 // 6]


_SPILLED = re.compile("|".join([rf"{MARK}[\w-]*", *map(re.escape, _in_base64(MARK))]))


def spilled(text: str) -> list[str]:
    """The canaries in a text, as they are or in base64."""
    return sorted(set(_SPILLED.findall(text)))


def spilled_into(folder: Path) -> list[str]:
    """The canaries in the files below a folder and in their names, but for files that are read by the server."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.endswith(_INPUTS):
            found += [f"{one} in {path}" for one in spilled(path.name + path.read_bytes().decode("latin-1"))]
    return found


class Listening:
    """An app, and the canaries in what it has sent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.heard: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3)."""

        def sent(message: Message):  # type: ignore[no-untyped-def]  # the server's own may be no coroutine
            headers = b"\n".join(name + b": " + value for name, value in message.get("headers", ()))
            if found := spilled((headers + message.get("body", b"")).decode("latin-1")):
                self.heard.append(f"{', '.join(found)} from {scope.get('path')}")
            return send(message)

        await self._app(scope, receive, sent)
