"""What is not to be written down: regular expressions, and what stands in the place of what they find."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from chat_api.conversation import OWN_WORDS

MASK = "***"


@dataclass(frozen=True, slots=True)
class Rule:
    """What is looked for, and what is written instead; `\\1` in it is a group of what was found."""

    pattern: re.Pattern[str]
    replace: str = MASK


def parse_rule(pattern: str, replace: str | None = None) -> Rule:
    """A rule of its texts.

    Raises:
        ValueError: it is no regular expression, it finds nothing at all everywhere, or names a group that it has not.
    """
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{error}" or "too deep") from None
    replace = MASK if replace is None else replace
    try:
        compiled.sub(replace, "")
    except (re.error, IndexError) as error:
        raise ValueError(f"its replacement: {error}") from None
    if compiled.search(""):
        raise ValueError("it finds what is empty, between any two letters")
    return Rule(compiled, replace)


def redacted_line(line: bytes, rules: Sequence[Rule]) -> bytes:
    """A record's line with every rule applied to every text in it; the names of its members stay, and our own words.

    Raises:
        msgspec.MsgspecError, RecursionError, UnicodeError: it cannot be read, or written again.
    """
    record = msgspec.json.decode(line)
    return msgspec.json.encode(
        {name: value if name in OWN_WORDS else _redacted(value, rules) for name, value in record.items()}
    )


def _redacted(value: Any, rules: Sequence[Rule]) -> Any:
    if isinstance(value, str):
        for rule in rules:
            value = rule.pattern.sub(rule.replace, value)
        return value
    if isinstance(value, dict):
        return {name: _redacted(one, rules) for name, one in value.items()}
    return [_redacted(one, rules) for one in value] if isinstance(value, list) else value
