"""Settings: the table read from the environment and `.env` into one frozen `Settings`.

Blank means unset. Every problem is reported at once, in one message that names the setting, what it
got and what it accepts. A secret's value is never repeated. Nothing here is read at import time.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import zip_longest
from pathlib import Path
from types import MappingProxyType
from typing import Any

from chat_api import dropin
from chat_api.azure_url import DEFAULT_API_VERSION, Endpoint
from chat_api.config_file import Config, read_config
from chat_api.environment import Environment
from chat_api.headers import is_loopback
from chat_api.setting_parsers import PARSERS, Network
from chat_api.settings_table import CALLERS, DEFAULTS, LIMITS, MODELS, SERVER, TABLE
from chat_api.types import Proxies, Secret

OPENAI = "https://api.openai.com"
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
class Server:
    """An OpenAI-compatible server: its root URL, the path prefix that leads to it ("" for none), our keys for it."""

    root: str
    prefix: str
    keys: tuple[Secret, ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be configured, validated. Times are seconds, sizes bytes."""

    host: str
    http_port: int
    enable_ssl: bool
    https_port: int
    ssl_cert: Path | None
    ssl_key: Path | None
    client_keys: tuple[Secret, ...]
    allow_anonymous: bool
    allow_ips: tuple[Network, ...]
    deny_ips: tuple[Network, ...]
    cors_origins: tuple[str, ...]
    endpoint: Endpoint | None
    deployment_name: str | None
    api_version: str
    key: Secret | None
    model_mapper: tuple[tuple[str, str], ...]
    unknown_model: str
    config_file: Path | None
    config: Config
    openai: tuple[Server, ...]  # OpenAI-compatible servers; the first is the main upstream, unless Azure is
    extra: tuple[Server, ...]
    upstream: str  # "azure", "openai" or "emulator": who answers at /v1
    proxies: Proxies
    defaults: Mapping[str, Any]  # parameters of /v1/gpt/chat that a request may leave out
    connect_timeout: float
    first_byte_timeout: float
    idle_timeout: float
    ping_interval: float
    compat_chunks: bool
    headers_timeout: float
    body_timeout: float
    reader_timeout: float
    drain_timeout: int
    max_body_bytes: int
    max_upload_bytes: int
    log_level: str
    warnings: tuple[str, ...] = ()

    @property
    def port(self) -> int:
        """The port to listen on."""
        return self.https_port if self.enable_ssl else self.http_port

    @property
    def lends_key(self) -> bool:
        """Whether whoever reaches the server uses its upstream key (the emulator counts as one)."""
        has_key = self.key or self.upstream == "emulator" or any(row.key for row in self.config.deployments)
        return bool(has_key or any(server.keys for server in self.openai)) and not self.client_keys

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
        given = Environment(os.environ if environ is None else environ, env_file)
    except UnicodeDecodeError as error:
        raise SettingsError([f"{env_file} is not UTF-8 (byte {error.start}); save it as UTF-8"], env_file) from error
    except (OSError, ValueError) as error:  # ValueError: a directory
        raise SettingsError([f"{env_file} cannot be read: {error}"], env_file) from error
    values, problems = given.read()
    bad = {problem.partition(" ")[0] for problem in problems}
    path = values["CONFIG_FILE"] or _config_beside(env_file, values["ENDPOINT"])
    config = Config()
    try:
        config = read_config(path) if path and "CONFIG_FILE" not in bad else config
    except (ValueError, OSError) as error:
        problems.append(f"CONFIG_FILE is {path}: {error}")
    settings = _settled(values, config, given.given)
    problems += [text for names, text in _conflicts(settings, values) if bad.isdisjoint(names)]
    if problems:
        raise SettingsError(problems, env_file)
    warnings = (*_warnings(settings, given.unknown_names()), *dropin.unbuilt(given.given))
    return replace(settings, warnings=warnings)


def _config_beside(env_file: Path, endpoint: Endpoint | None) -> Path | None:
    """`config.yaml` beside `.env` counts where no ENDPOINT is set."""
    path = env_file.with_name("config.yaml")
    return path if endpoint is None and path.is_file() else None


def _settled(values: Mapping[str, Any], config: Config, given: Callable[[str], str | None]) -> Settings:
    endpoint: Endpoint | None = values["ENDPOINT"]
    from_url = endpoint or Endpoint("")
    servers = _servers(values["OPENAI_BASE_URL"], values["OPENAI_ROUTE_PREFIX"], values["OPENAI_API_KEY"])
    upstream = values["UPSTREAM"] or _upstream(values, config)
    if upstream == "azure" and not (endpoint or config.deployments):
        upstream = "emulator"
    if upstream == "openai" and not servers:
        servers = _servers((OPENAI,), values["OPENAI_ROUTE_PREFIX"], values["OPENAI_API_KEY"])
    plain = {row.name.lower(): values[row.name] for row in (*SERVER, *CALLERS, *MODELS, *LIMITS)}
    listen = plain.pop("listen")
    if listen:
        plain["host"], plain["http_port"] = listen
    lists = ("client_keys", "allow_ips", "deny_ips", "model_mapper", "cors_origins")
    plain |= {name: plain[name] or () for name in lists}
    settings = Settings(
        **plain,
        endpoint=endpoint,
        deployment_name=values["DEPLOYMENT_NAME"] or from_url.deployment,
        api_version=values["API_VERSION"] or from_url.api_version or DEFAULT_API_VERSION,
        key=values["KEY"],
        config=config,
        openai=servers,
        extra=_servers(values["EXTRA_BASE_URL"], values["EXTRA_ROUTE_PREFIX"], None),
        upstream=upstream,
        proxies=_proxies(values, given),
        defaults=MappingProxyType({row.name: values[row.name] for row in DEFAULTS if values[row.name] is not None}),
    )
    if values["CORS_ORIGINS"] is None and not settings.lends_key and not settings.client_keys:
        settings = replace(settings, cors_origins=("*",))  # a page can only use a key that it has itself
    return settings


def _upstream(values: Mapping[str, Any], config: Config) -> str:
    if values["ENDPOINT"] or config.deployments:
        return "azure"
    return "openai" if values["OPENAI_BASE_URL"] or values["OPENAI_API_KEY"] else "emulator"


def _servers(roots: Sequence[str] | None, prefixes: Sequence[str] | None, keys: Any) -> tuple[Server, ...]:
    """The servers with their prefixes; where their numbers differ, `_conflicts` says so."""
    pairs = zip_longest(roots or (), prefixes or (), fillvalue="/")
    return tuple(Server(root, prefix.rstrip("/"), keys or ()) for root, prefix in pairs if root != "/")


def _proxies(values: Mapping[str, Any], given: Callable[[str], str | None]) -> Proxies:
    def from_environment(*names: str) -> Secret | None:
        text = next((value for name in names for value in (given(name.lower()), given(name)) if value), None)
        return PARSERS["proxy"](text) if text else None

    bypass = given("no_proxy") or given("NO_PROXY") or ""
    explicit = values["UPSTREAM_SOCKS_PROXY"] or values["UPSTREAM_PROXY"]
    try:
        http = explicit or from_environment("HTTP_PROXY", "ALL_PROXY")
        https = explicit or from_environment("HTTPS_PROXY", "ALL_PROXY")
    except ValueError:
        return Proxies()  # `_conflicts` says so
    return Proxies(http, https, bypass)


def _warnings(settings: Settings, unknown_names: list[str]) -> tuple[str, ...]:
    """What is worth saying at the start, though it stops nothing."""
    warnings = []
    by_lower_case = {row.name.lower(): row.name for row in TABLE}
    for name in unknown_names:
        if close := get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.8):
            meant = by_lower_case[close[0]]
            warnings.append(f"{name} in the .env file is not a setting; did you mean {meant}?")
    endpoint = settings.endpoint
    if settings.upstream == "emulator" and (settings.key or settings.deployment_name):
        name = "KEY" if settings.key else "DEPLOYMENT_NAME"
        warnings.append(f"{name} is set but ENDPOINT is not: the built-in emulator answers, not Azure")
    if endpoint and endpoint.base_url.startswith("http://") and not is_loopback(endpoint.host_name):
        warnings.append("ENDPOINT is http://, so the key travels unencrypted; Azure speaks https://")
    if settings.upstream == "azure" and not settings.deployment_name:
        warnings.append("DEPLOYMENT_NAME is not set; every request has to name its model")
    if settings.allow_anonymous and settings.lends_key and not is_loopback(settings.host):
        warnings.append("ALLOW_ANONYMOUS is on: whoever reaches this port uses the server's Azure key")
    return tuple(warnings)


def _conflicts(settings: Settings, values: Mapping[str, Any]) -> list[tuple[set[str], str]]:
    """Problems between settings that are each valid: `(the settings involved, the problem)`."""
    problems: list[tuple[set[str], str]] = []
    if values["ENABLE_SSL"]:
        problems += [
            ({name}, f"{name} is not set; with ENABLE_SSL=true it takes the path of a readable PEM file")
            for name in ("SSL_CERT", "SSL_KEY")
            if values[name] is None
        ]
    if settings.guards_loopback and not is_loopback(settings.host or ""):
        name = "LISTEN" if values["LISTEN"] else "HOST"
        text = (
            f'{name} is "{settings.host}", so the network could use the server\'s key without a key of its own; it '
            "takes 127.0.0.1, or set CLIENT_KEYS to ask callers for one, or ALLOW_ANONYMOUS=true to insist"
        )
        problems.append(({name, "HOST", "ALLOW_ANONYMOUS", "CLIENT_KEYS", "ENDPOINT", "KEY"}, text))
    for urls, prefixes in (("OPENAI_BASE_URL", "OPENAI_ROUTE_PREFIX"), ("EXTRA_BASE_URL", "EXTRA_ROUTE_PREFIX")):
        count, expected = len(values[prefixes] or ()), len(values[urls] or ())
        if (count or expected > 1 or urls.startswith("EXTRA")) and count != expected and (expected or count > 1):
            text = f"{prefixes} has {count} items and {urls} has {expected}; they are pairs"
            problems.append(({urls, prefixes}, text))
    problems += _route_conflicts(settings)
    return problems


def _route_conflicts(settings: Settings) -> list[tuple[set[str], str]]:
    """Two upstreams at the same path."""
    problems: list[tuple[set[str], str]] = []
    prefixes = [server.prefix for server in (*settings.openai, *settings.extra)]
    for prefix in {prefix for prefix in prefixes if prefixes.count(prefix) > 1}:
        text = f'two upstreams have the path prefix "{prefix or "/"}"; each takes one of its own'
        problems.append(({"OPENAI_ROUTE_PREFIX", "EXTRA_ROUTE_PREFIX"}, text))
    if any(not server.prefix for server in settings.extra):
        text = 'EXTRA_ROUTE_PREFIX is "/", which the main upstream has; it takes a path prefix such as /localai'
        problems.append(({"EXTRA_ROUTE_PREFIX"}, text))
    if settings.upstream == "azure" and any(not server.prefix for server in settings.openai):
        text = (
            "ENDPOINT and OPENAI_BASE_URL are both set, and one of them can answer at /v1; "
            "set UPSTREAM=openai, or an OPENAI_ROUTE_PREFIX"
        )
        problems.append(({"ENDPOINT", "OPENAI_BASE_URL"}, text))
    return problems
