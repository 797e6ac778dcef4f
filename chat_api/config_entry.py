"""How an entry of the config file is read: a problem names its place, what it got and what it takes.

Every scalar is text. No problem repeats a key or a password.
"""

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from chat_api.setting_parsers import reason_for, without_secrets


class Entry:
    """A mapping of the file.

    Args:
        row: what stands there.
        where: what a person calls the place: `deployments entry 1`.
        known: the names that it may have.

    Raises:
        ValueError: it is no mapping, or has a name that is not known.
    """

    def __init__(self, row: Any, where: str, known: set[str]) -> None:
        check_names(row, known, where)
        self.row: Mapping[str, Any] = row
        self.where = where

    def read(
        self,
        name: str,
        parse: Callable[[Any], Any],
        expects: str,
        *,
        kinds: tuple[type, ...] = (str,),
        secret: bool = False,
    ) -> Any:
        """The value of a name; None where it is left out or blank.

        Raises:
            ValueError: it is not of these kinds, or the parser refuses it.
        """
        value = self.row.get(name)
        if value in (None, ""):
            return None
        if not isinstance(value, kinds):
            raise ValueError(f"{self.where}: {name} takes {expects}")
        try:
            return parse(value.strip() if isinstance(value, str) else value)
        except ValueError as error:
            shown = without_secrets(value) if isinstance(value, str) and not secret else "***"
            what = f'is "{shown}"' if isinstance(value, str) and not secret else "cannot be used"
            reason = reason_for(error, shown if isinstance(value, str) else "")
            raise ValueError(f"{self.where}: {name} {what} ({reason}); it takes {expects}") from None

    def needs(self, name: str, value: Any, expects: str) -> None:
        """Raise a ValueError if there is no such value."""
        if value is None:
            raise ValueError(f"{self.where} has no {name}; it takes {expects}")


def check_names(content: Any, known: set[str], where: str) -> None:
    """Whether a place is a mapping of names that are known.

    Raises:
        ValueError: it is not; the message has the name that was meant, if one is near.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{where} is no mapping of names to values")
    for name in content:
        if name not in known:
            close = get_close_matches(str(name), known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it takes {', '.join(sorted(known))}"
            raise ValueError(f'{where} has an unknown name "{name}"; {hint}')


def rows_of(content: Mapping[str, Any], section: str) -> list[tuple[str, Any]]:
    """The entries of a section, each with its place.

    Raises:
        ValueError: the section is no list.
    """
    rows = content.get(section) or []
    if not isinstance(rows, list):
        raise ValueError(f"{section} is no list")
    return [(f"{section} entry {number}", row) for number, row in enumerate(rows, 1)]


def whole(low: int) -> Callable[[str], int]:
    """A parser of a whole number from `low`."""

    def parse(text: str) -> int:
        if not re.fullmatch("-?[0-9]{1,9}", text):
            raise ValueError("no whole number")
        if int(text) < low:
            raise ValueError("too small")
        return int(text)

    return parse
