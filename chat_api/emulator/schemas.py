"""JSON that fits a JSON Schema, as a model gives it when an answer or a tool call has one. Pure."""

from typing import Any

_MAX_DEPTH = 50
_MAX_VALUES = 10_000  # a short schema can stand for a very large value
_BY_FORMAT = {
    "date-time": "2026-01-01T00:00:00Z",
    "date": "2026-01-01",
    "time": "00:00:00Z",
    "duration": "PT1S",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "email": "user@example.com",
    "uri": "https://example.com/",
}
_BY_TYPE: dict[str, Any] = {"boolean": False, "array": [], "null": None}


def filled(schema: dict[str, Any], text: str) -> Any:
    """A value for the schema: `text` for strings, 0, false and empty arrays for the rest, objects member by member."""
    return _Filler(schema, text).value(schema, ())


class _Filler:
    """Fills one schema; what refers to itself ends at null."""

    def __init__(self, root: dict[str, Any], text: str) -> None:
        self._root = root
        self._text = text
        self._left = _MAX_VALUES

    def value(self, schema: Any, inside: tuple[str, ...]) -> Any:
        """The value for a part of the schema; `inside` are the names of the definitions that it is part of."""
        self._left -= 1
        if not isinstance(schema, dict) or self._left < 0 or len(inside) > _MAX_DEPTH:
            return None
        if "const" in schema:
            return schema["const"]
        if isinstance(schema.get("enum"), list) and schema["enum"]:
            return schema["enum"][0]
        reference = schema.get("$ref")
        if isinstance(reference, str):
            return None if reference in inside else self.value(self._target(reference), (*inside, reference))
        for alternatives in (schema.get("anyOf"), schema.get("oneOf"), schema.get("allOf")):
            if isinstance(alternatives, list) and alternatives:
                return self._first(alternatives, inside)
        return self._typed(schema, inside)

    def _typed(self, schema: dict[str, Any], inside: tuple[str, ...]) -> Any:
        kind = schema.get("type")
        kind = str(kind[0]) if isinstance(kind, list) and kind else str(kind)
        members = schema.get("properties")
        if kind == "object" or isinstance(members, dict):
            pairs = members.items() if isinstance(members, dict) else ()
            return {name: self.value(member, (*inside, "")) for name, member in pairs}
        if kind in ("integer", "number"):
            least = schema.get("minimum")
            return max(0, least) if isinstance(least, int | float) else 0
        return _BY_TYPE[kind] if kind in _BY_TYPE else _BY_FORMAT.get(str(schema.get("format")), self._text)

    def _first(self, alternatives: list[Any], inside: tuple[str, ...]) -> Any:
        values = (self.value(alternative, inside) for alternative in alternatives)
        return next((value for value in values if value is not None), None)

    def _target(self, reference: str) -> Any:
        found: Any = self._root
        for name in reference.removeprefix("#").strip("/").split("/"):
            found = found.get(name) if isinstance(found, dict) and name else found
        return found
