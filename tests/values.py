"""How the tests look at values that are kept as they were written."""

from typing import Any

from msgspec import Raw


def plain(value: Any) -> Any:
    """The value with every Raw in it shown as its bytes."""
    if isinstance(value, Raw):
        return bytes(value)
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return value
