"""What a path of the resource asks for. Pure."""

import re
from typing import NamedTuple
from urllib.parse import unquote

from chat_api.emulator.replies import OPERATIONS
from chat_api.emulator.resource import KINDS

_PATH = re.compile(r"/openai/(?:(v1)/|deployments/([^/]+)/)?(.+)")
_NOT_ON_V1 = frozenset({"completions", "audio/speech", "audio/transcriptions", "audio/translations"})
_OF_RESOURCE = frozenset({"responses"})  # the model is in the body on classic paths as well


class Route(NamedTuple):
    """What a path asks for, and of which of the two APIs."""

    is_v1: bool
    deployment: str | None
    operation: str

    @property
    def runs_model(self) -> bool:
        """Whether it is an operation of a deployment that this API has."""
        if self.operation not in OPERATIONS or (self.is_v1 and self.operation in _NOT_ON_V1):
            return False
        return self.is_v1 or (self.deployment is None) == (self.operation in _OF_RESOURCE)

    @property
    def has_things(self) -> bool:
        """Whether it is about what the resource stores."""
        kind = self.operation.partition("/")[0]
        if self.is_v1 and kind == "threads":
            return False
        return kind in KINDS and (self.deployment is None or self.operation == "batches")


def route_of(path: bytes) -> Route | None:
    """The route of a path, still quoted; None if it is not one of Azure's."""
    found = _PATH.fullmatch(path.decode("latin-1"))
    return Route(found[1] is not None, unquote(found[2]) if found[2] else None, unquote(found[3])) if found else None
