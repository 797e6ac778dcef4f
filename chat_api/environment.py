"""The settings as they are given: the environment over `.env`, every name of each, blank read as unset.

Every problem is collected, with the name that was used, what it got and what it accepts. A secret's
value is never repeated.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dotenv.parser import parse_stream
from environs import Env, EnvValidationError, ValidationError

from chat_api import dropin
from chat_api.cache_parsers import CACHE_PARSERS
from chat_api.limit_parsers import LIMIT_PARSERS
from chat_api.setting_parsers import PARSERS, reason_for, without_secrets
from chat_api.settings_table import TABLE, Setting

_PARSERS = {**PARSERS, **LIMIT_PARSERS, **CACHE_PARSERS}
NAMES = {row.name: (row.name, *row.aliases) for row in TABLE}
SETTING_OF = {name: setting for setting, names in NAMES.items() for name in names}


class Environment(Env):
    """environs over one mapping and one file, with blank values read as unset."""

    def __init__(self, environ: Mapping[str, str], env_file: Path, overrides: Mapping[str, str]) -> None:
        super().__init__(eager=False)
        self._overrides = overrides
        self._given = {name: _unquoted(value) for name, value in environ.items() if _unquoted(value)}
        self._env_file = env_file
        self.read_env(env_file, recurse=False)
        self._defaults = dropin.defaults_for(self.given)
        self.implied_upstream = self._defaults.pop("UPSTREAM", None)  # where nothing else says which
        for name, parse in _PARSERS.items():
            self.add_parser(name, _checked(parse))

    def _get_value(self, env_key: str, default: Any) -> Any:
        if env_key in self._overrides:
            return self._overrides[env_key] or default
        for name in NAMES.get(env_key, (env_key,)):
            if value := self.given(name):
                return value
        return self._defaults.get(env_key) or default

    def read(self) -> tuple[dict[str, Any], list[str]]:
        """The value of every setting by its name, and every problem; what has one is None."""
        values = {row.name: getattr(self, row.parser)(row.name, row.default, **row.options) for row in TABLE}
        problems = [*_unreadable_lines(self._env_file), *self._contradictions()]
        try:
            self.seal()
        except EnvValidationError as error:
            reasons = error.error_messages
            assert isinstance(reasons, Mapping)  # noqa: S101 - seal() gives them by name
            problems += [_problem(row, self, reasons[row.name]) for row in TABLE if row.name in reasons]
            values |= dict.fromkeys(reasons)
        return values, problems

    def name_of(self, row: Setting) -> str:
        """The name under which a setting was given."""
        if row.name in self._overrides:
            return row.name
        return next((name for name in NAMES[row.name] if self.given(name)), row.name)

    def names_used(self) -> dict[str, str]:
        """The name under which each setting that was given was given."""
        return {row.name: self.name_of(row) for row in TABLE if self.has(row.name)}

    def has(self, setting: str) -> bool:
        """Whether a setting was given, under any of its names."""
        return bool(self._overrides.get(setting)) or any(self.given(name) for name in NAMES[setting])

    def _contradictions(self) -> list[str]:
        """A problem for each setting that was given under two names with two values."""
        problems = []
        for row in TABLE:
            if row.name in self._overrides:
                continue
            names = [name for name in NAMES[row.name] if self.given(name)]
            if len({str(self.given(name)).rstrip("/") for name in names}) > 1:
                problems.append(f"{' and '.join(names)} are the same setting with different values; keep one of them")
        return problems

    def given(self, name: str) -> str | None:
        """What was set, environment before file; None where neither says anything."""
        return self._given.get(name) or _unquoted(self._environ.get(name, "")) or None

    def shown(self, name: str) -> str:
        """What was given under a name, for a message."""
        return self._overrides.get(name) or self.given(name) or ""

    def unknown_names(self) -> list[str]:
        """The names that the file sets and that are no setting."""
        known = {*SETTING_OF, *dropin.NOT_YET}
        return [name for name in self._environ if name not in known]


def _unquoted(value: str) -> str:
    """The value without spaces around it, nor the quotes that some tools (docker --env-file) leave on."""
    value = value.strip()
    return value[1:-1].strip() if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value


def _checked(parse: Any) -> Any:
    """An environs parser of `parse`, which raises ValueError; a default that is not text passes."""

    def parser(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return parse(value)
        except ValueError as error:
            raise ValidationError(str(error)) from error

    return parser


def _problem(row: Setting, reader: Environment, reasons: Any) -> str:
    name = reader.name_of(row)
    if row.secret:
        return f"{name} cannot be used ({reason_for(reasons[0], '***')}); it takes {row.accepts}"
    shown = without_secrets(reader.shown(name))
    reason = f" ({reason_for(reasons[0], shown)})" if row.parser in _PARSERS else ""
    return f'{name} is "{shown}"{reason}; it takes {row.accepts}'


def _unreadable_lines(env_file: Path) -> list[str]:
    """A problem for each line of the file that is no setting: what it meant to set would be silently missing."""
    if not env_file.is_file():
        return []
    with env_file.open(encoding="utf-8") as lines:
        return [
            f"{env_file} line {binding.original.line} is not NAME=value; is a quote left open?"
            for binding in parse_stream(lines)
            if binding.error
        ]
