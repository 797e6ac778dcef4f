"""What the config file says of the conversation log: what is not to be written down."""

from collections.abc import Mapping
from typing import Any

from chat_api.config_entry import Entry, check_names, rows_of
from chat_api.redaction import Rule, parse_rule

PATTERN_FORM = r"a regular expression such as \b\d{16}\b"
REPLACE_FORM = "a text, such as *** or (card ending in \\1)"


def read_redaction(content: Mapping[str, Any]) -> tuple[tuple[Rule, ...], list[str]]:
    """The rules of `log: redact:`, and what is wrong with the others."""
    log = content.get("log") or {}
    rules: list[Rule] = []
    problems: list[str] = []
    try:
        check_names(log, {"redact"}, "log")
        rows = [(f"log: {where}", row) for where, row in rows_of(log, "redact")]
    except ValueError as error:
        return (), [str(error)]
    for where, row in rows:
        try:
            rules.append(_rule({"pattern": row} if isinstance(row, str) else row, where))
        except ValueError as error:
            problems.append(str(error))
    return tuple(rules), problems


def _rule(row: Any, where: str) -> Rule:
    entry = Entry(row, where, {"pattern", "replace"})
    for name, form in (("pattern", PATTERN_FORM), ("replace", REPLACE_FORM)):
        if not isinstance(entry.row.get(name, ""), str):
            raise ValueError(f"{where}: {name} takes {form}")
    if not (pattern := entry.row.get("pattern")):  # spaces are part of one
        raise ValueError(f"{where} has no pattern; it takes {PATTERN_FORM}")
    try:
        return parse_rule(pattern, entry.row.get("replace"))
    except ValueError as error:
        raise ValueError(f'{where}: pattern "{pattern}" cannot be used ({error}); it takes {PATTERN_FORM}') from None
