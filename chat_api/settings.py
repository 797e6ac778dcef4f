"""Settings: the table read from the environment and `.env` into one frozen `Settings`.

Blank means unset. Every problem is reported at once, in one message that names the setting, what it
got and what it accepts. A secret's value is never repeated. Nothing here is read at import time.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dotenv.parser import parse_stream
from environs import Env, EnvValidationError, ValidationError

from chat_api.azure_url import DEFAULT_API_VERSION, Endpoint
from chat_api.headers import is_loopback
from chat_api.settings_table import DEFAULTS, LIMITS, PARSERS, SERVER, TABLE, Setting
from chat_api.types import Secret

ENV_FILE = Path(__file__).resolve().parent.parent / ".env"


class SettingsError(Exception):
    """The settings cannot be used; the message lists every problem and what would be accepted."""

    def __init__(self, problems: list[str], env_file: Path) -> None:
        count = "One setting needs" if len(problems) == 1 else f"{len(problems)} settings need"
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(
            f"{count} attention:\n{lines}\n"
            f"Set them in the environment or in {env_file}; sample.env explains every setting."
        )
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be configured, validated. Times are seconds, sizes bytes."""

    host: str
    http_port: int
    enable_ssl: bool
    https_port: int
    ssl_cert: Path | None
    ssl_key: Path | None
    allow_anonymous: bool
    endpoint: Endpoint | None  # None: the built-in emulator answers
    deployment_name: str | None
    api_version: str
    key: Secret | None
    defaults: Mapping[str, Any]  # parameters of /v1/gpt/chat that a request may leave out
    connect_timeout: float
    first_byte_timeout: float
    idle_timeout: float
    ping_interval: float
    drain_timeout: int
    max_body_bytes: int
    log_level: str
    warnings: tuple[str, ...] = ()

    @property
    def port(self) -> int:
        """The port to listen on."""
        return self.https_port if self.enable_ssl else self.http_port

    @property
    def lends_key(self) -> bool:
        """Whether whoever reaches the server uses its upstream key (the emulator counts as one)."""
        return _lends_key(self.key, self.endpoint)

    @property
    def guards_loopback(self) -> bool:
        """Whether only loopback host names are answered, because the key is lent to all who ask."""
        return self.lends_key and not self.allow_anonymous


def load(environ: Mapping[str, str] | None = None, env_file: Path = ENV_FILE) -> Settings:
    """Read the settings from `environ` (the process's own) and, for what is unset there, from `env_file`.

    Raises:
        SettingsError: one or more settings cannot be used.
    """
    try:
        reader = _Reader(os.environ if environ is None else environ, env_file)
    except UnicodeDecodeError as error:
        raise SettingsError([f"{env_file} is not UTF-8 (byte {error.start}); save it as UTF-8"], env_file) from error
    except (OSError, ValueError) as error:  # ValueError: a directory
        raise SettingsError([f"{env_file} cannot be read: {error}"], env_file) from error
    values = {row.name: getattr(reader, row.parser)(row.name, row.default, **row.options) for row in TABLE}
    problems = _unreadable_lines(env_file)
    try:
        reader.seal()
    except EnvValidationError as error:
        reasons = error.error_messages
        assert isinstance(reasons, Mapping)  # noqa: S101 - seal() gives them by name
        problems += [_problem(row, reader, reasons[row.name]) for row in TABLE if row.name in reasons]
    bad = {problem.partition(" ")[0] for problem in problems}
    problems += [text for names, text in _conflicts(values) if bad.isdisjoint(names)]
    if problems:
        raise SettingsError(problems, env_file)
    return _settled(values, _warnings(values, reader.file_names()))


class _Reader(Env):
    """environs over one mapping and one file, with blank values read as unset."""

    def __init__(self, environ: Mapping[str, str], env_file: Path) -> None:
        super().__init__(eager=False)
        self._given = {name: _unquoted(value) for name, value in environ.items() if _unquoted(value)}
        self.read_env(env_file, recurse=False)
        for name, parse in PARSERS.items():
            self.add_parser(name, _checked(parse))

    def _get_value(self, env_key: str, default: Any) -> Any:
        return self.given(env_key) or default

    def given(self, name: str) -> str | None:
        """What was set, environment before file; None where neither says anything."""
        return self._given.get(name) or _unquoted(self._environ.get(name, "")) or None

    def file_names(self) -> tuple[str, ...]:
        """The names that the file sets."""
        return tuple(self._environ)


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


def _problem(row: Setting, reader: _Reader, reasons: Any) -> str:
    if row.secret:
        return f"{row.name} cannot be used ({reasons[0]}); it takes {row.accepts}"
    shown = _without_secrets(reader.given(row.name) or "")
    reason = f" ({reasons[0]})" if row.parser in PARSERS else ""
    return f'{row.name} is "{shown}"{reason}; it takes {row.accepts}'


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


def _without_secrets(text: str) -> str:
    """The value as it may be shown: a URL may hold a password before its host, or a key in its query."""
    looks_like_key = len(text) >= 32 and "." not in text and ":" not in text
    return "***" if "@" in text or looks_like_key else re.sub(r"[?#].*", "***", text, flags=re.DOTALL)


def _conflicts(values: Mapping[str, Any]) -> list[tuple[set[str], str]]:
    """Problems between settings that are each valid: `(the settings involved, the problem)`."""
    problems: list[tuple[set[str], str]] = []
    if values["ENABLE_SSL"]:
        problems += [
            ({name}, f"{name} is not set; with ENABLE_SSL=true it takes the path of a readable PEM file")
            for name in ("SSL_CERT", "SSL_KEY")
            if values[name] is None
        ]
    open_to_all = _lends_key(values["KEY"], values["ENDPOINT"]) and not values["ALLOW_ANONYMOUS"]
    if open_to_all and not is_loopback(values["HOST"] or ""):
        text = (
            f'HOST is "{values["HOST"]}", so the network could use the server\'s Azure key without a key of its own; '
            "it takes 127.0.0.1, or set ALLOW_ANONYMOUS=true to insist"
        )
        problems.append(({"HOST", "ALLOW_ANONYMOUS", "ENDPOINT", "KEY"}, text))
    return problems


def _lends_key(key: Secret | None, endpoint: Endpoint | None) -> bool:
    return key is not None or endpoint is None


def _warnings(values: Mapping[str, Any], file_names: tuple[str, ...]) -> tuple[str, ...]:
    """What is worth saying at the start, though it stops nothing."""
    known = {row.name for row in TABLE}
    warnings = []
    by_lower_case = {name.lower(): name for name in known}
    for name in file_names:
        if name not in known and (close := get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.8)):
            meant = by_lower_case[close[0]]
            warnings.append(f"{name} in the .env file is not a setting; did you mean {meant}?")
    endpoint: Endpoint | None = values["ENDPOINT"]
    if endpoint is None and (values["KEY"] or values["DEPLOYMENT_NAME"]):
        name = "KEY" if values["KEY"] else "DEPLOYMENT_NAME"
        warnings.append(f"{name} is set but ENDPOINT is not: the built-in emulator answers, not Azure")
    if endpoint and endpoint.base_url.startswith("http://") and not is_loopback(endpoint.host_name):
        warnings.append("ENDPOINT is http://, so the key travels unencrypted; Azure speaks https://")
    if endpoint and not (values["DEPLOYMENT_NAME"] or endpoint.deployment):
        warnings.append("DEPLOYMENT_NAME is not set; every request has to name its model")
    if values["ALLOW_ANONYMOUS"] and values["KEY"] and not is_loopback(values["HOST"]):
        warnings.append("ALLOW_ANONYMOUS is on: whoever reaches this port uses the server's Azure key")
    return tuple(warnings)


def _settled(values: Mapping[str, Any], warnings: tuple[str, ...]) -> Settings:
    endpoint: Endpoint | None = values["ENDPOINT"]
    from_url = endpoint or Endpoint("")
    defaults = {row.name: values[row.name] for row in DEFAULTS if values[row.name] is not None}
    server = {row.name.lower(): values[row.name] for row in (*SERVER, *LIMITS)}
    return Settings(
        **server,
        endpoint=endpoint,
        deployment_name=values["DEPLOYMENT_NAME"] or from_url.deployment,
        api_version=values["API_VERSION"] or from_url.api_version or DEFAULT_API_VERSION,
        key=values["KEY"],
        defaults=MappingProxyType(defaults),
        warnings=warnings,
    )
