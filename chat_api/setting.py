"""A row of the settings table, and the words and ranges that several rows share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from environs import validate

FLAG = "true or false"
COUNT = "a whole number from 1"
SECONDS = "a number of seconds above 0"
SECONDS_FROM_0 = "a number of seconds from 0"
KEY = "a key of visible ASCII characters without spaces"
KEYS = "keys of visible ASCII characters without spaces, separated by commas"


@dataclass(frozen=True, slots=True)
class Setting:
    """A row of the settings table: how one variable is read, and what people are told about it."""

    name: str
    parser: str  # the environs method that reads it
    default: Any
    accepts: str
    meaning: str
    options: Mapping[str, Any] = field(default_factory=dict)
    secret: bool = False
    aliases: tuple[str, ...] = ()  # what other gateways call it

    @property
    def default_text(self) -> str:
        """The default as it would be written in a `.env` file; "" for none."""
        if self.default is None:
            return ""
        return str(self.default).lower() if isinstance(self.default, bool) else str(self.default)


def between(low: float | None, high: float | None = None) -> dict[str, Any]:
    """The options of a number from `low` to `high`; None for no limit."""
    return {"validate": validate.Range(min=low, max=high)}


ABOVE_0 = {"validate": validate.Range(min=0, min_inclusive=False)}
