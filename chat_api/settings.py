"""Settings: the table read from the environment and `.env` into one frozen `Settings`.

Blank means unset. Every problem is reported at once, in one message that names the setting, what it
got and what it accepts. A secret's value is never repeated. Nothing here is read at import time.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from types import MappingProxyType
from typing import Any

from chat_api import dropin
from chat_api.azure_url import DEFAULT_API_VERSION, Endpoint
from chat_api.cache_parsers import LIKE_LMDB, LMDB, MEMORY, REDIS
from chat_api.callers import unnamed_key
from chat_api.config_file import Config, mentions_callers, read_config
from chat_api.environment import SETTING_OF, Environment
from chat_api.setting_checks import conflicts_of, misspellings, warnings_of
from chat_api.setting_parsers import PARSERS, reason_for
from chat_api.setting_values import Server, Settings
from chat_api.settings_table import (
    CACHE,
    CALLER_LIMITS,
    CALLERS,
    CONVERSATIONS,
    DEFAULTS,
    LIMITS,
    MODELS,
    PROXY_FORM,
    SERVER,
    SEVERAL,
)
from chat_api.types import Proxies, Secret

__all__ = ["ENV_FILE", "Server", "Settings", "SettingsError", "load"]

_LISTS = (
    *("allow_ips", "deny_ips", "forwarded_allow_ips", "model_mapper", "cors_origins"),
    *("global_rate_limit", "caller_token_limit"),
)
_TABLES = ("req_rate_limit", "model_token_limit", "token_rate_limit")

MEMORY_BYTES = 64 * 1024 * 1024  # of kept answers, where nothing is said
DISK_BYTES = 1024 * 1024 * 1024
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


def load(
    environ: Mapping[str, str] | None = None, env_file: Path = ENV_FILE, overrides: Mapping[str, str] | None = None
) -> Settings:
    """Read the settings from `environ` (the process's own) and, for what is unset there, from `env_file`.

    `overrides` win over both; a blank one unsets.

    Raises:
        SettingsError: one or more settings cannot be used.
    """
    try:
        given = Environment(os.environ if environ is None else environ, env_file, overrides or {})
    except UnicodeDecodeError as error:
        raise SettingsError([f"{env_file} is not UTF-8 (byte {error.start}); save it as UTF-8"], env_file) from error
    except (OSError, ValueError) as error:  # ValueError: a directory
        raise SettingsError([f"{env_file} cannot be read: {error}"], env_file) from error
    values, problems = given.read()
    if values["LISTEN"] and "HTTP_PORT" in (overrides or {}):
        values["LISTEN"] = (values["LISTEN"][0], values["HTTP_PORT"])
    bad = {SETTING_OF.get(name, name) for name in (problem.partition(" ")[0] for problem in problems)}
    config = Config()
    if "CONFIG_FILE" not in bad:
        try:
            config = _read_config(values, env_file)
        except (ValueError, OSError) as error:
            problems.append(f"CONFIG_FILE is {error}")
            bad.add("CONFIG_FILE")
    proxies, unusable = _proxies(values, given.given)
    problems += unusable
    if config.listens_everywhere and not given.has("HOST") and "HOST" not in bad:
        values["HOST"] = "0.0.0.0"  # noqa: S104 - as there; who could then use a key is checked
    settings = _settled(values, config, proxies, given.implied_upstream, env_file)
    names = given.names_used()
    problems += [text for involved, text in conflicts_of(settings, values, names) if bad.isdisjoint(involved)]
    misspelled = misspellings(given.unknown_names())
    if problems:
        raise SettingsError([*problems, *misspelled], env_file)
    return replace(
        settings, warnings=(*misspelled, *warnings_of(settings, values, names), *dropin.unbuilt(given.given))
    )


def _read_config(values: dict[str, Any], env_file: Path) -> Config:
    """The config file that is named, or `config.yaml` beside `.env` where no ENDPOINT is set or it says who may call.

    Raises:
        ValueError: it cannot be used; the message begins with its path.
        OSError: it cannot be read.
    """
    named: Path | None = values["CONFIG_FILE"]
    path = named or env_file.with_name("config.yaml")
    values["CONFIG_FILE"] = None
    if not named and (not path.is_file() or (values["ENDPOINT"] and not mentions_callers(path))):
        return Config()
    try:
        config = read_config(path)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: {error}") from error
    callers = config.client_keys or config.prices or config.cache or config.redact
    if named and not (config.deployments or config.fallbacks or callers):
        raise ValueError(f"{path}: it has no deployments; config.example.yaml shows some")
    values["CONFIG_FILE"] = path
    return config


def _settled(
    values: Mapping[str, Any], config: Config, proxies: Proxies, implied_upstream: str | None, env_file: Path
) -> Settings:
    endpoints, default = _endpoints(values)
    servers = _servers(values["OPENAI_BASE_URL"], values["OPENAI_ROUTE_PREFIX"], values["OPENAI_API_KEY"])
    upstream = values["UPSTREAM"] or _upstream(values, config) or implied_upstream or "emulator"
    if upstream == "azure" and not (endpoints or config.deployments):
        upstream = "emulator"
    if upstream != "openai":  # which may be in the environment for another program's sake
        servers = tuple(server for server in servers if server.prefix)
    elif not servers:
        servers = _servers((OPENAI,), values["OPENAI_ROUTE_PREFIX"], values["OPENAI_API_KEY"])
    plain = _plain(values)
    fallbacks = dict((*config.fallbacks, *(plain.pop("model_fallback") or ())))
    unnamed = dict.fromkeys(unnamed_key(key.reveal()) for key in values["CLIENT_KEYS"] or ())
    file = values["USAGE_FILE"]
    settings = Settings(
        **plain,
        client_keys=(*unnamed, *config.client_keys),
        **_cache(values, env_file),
        usage_file=env_file.with_name("usage.json") if file is None else file or None,
        log_dir=values["LOG_DIR"] or env_file.with_name("log"),
        fallbacks=MappingProxyType(fallbacks),
        endpoints=endpoints,
        deployment_name=default.deployment,
        api_version=default.api_version or DEFAULT_API_VERSION,
        keys=values["KEY"] or (),
        config=config,
        openai=servers,
        extra=_servers(values["EXTRA_BASE_URL"], values["EXTRA_ROUTE_PREFIX"], None),
        upstream=upstream,
        proxies=proxies,
        defaults=MappingProxyType({row.name: values[row.name] for row in DEFAULTS if values[row.name] is not None}),
    )
    if values["CORS_ORIGINS"] is None and not settings.lends_key and not settings.client_keys:
        settings = replace(settings, cors_origins=("*",))  # a page can only use a key that it has itself
    return settings


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are what they were read as, by their fields."""
    rows = (*SERVER, *CALLERS, *CALLER_LIMITS, *CACHE, *MODELS, *SEVERAL, *LIMITS, *CONVERSATIONS)
    derived = {"CLIENT_KEYS", "USAGE_FILE", "CACHE_BACKEND", "CACHE_URL", "CACHE_MAX_BYTES", "LOG_DIR"}
    plain: dict[str, Any] = {row.name.lower(): values[row.name] for row in rows if row.name not in derived}
    listen = plain.pop("listen")
    if listen:
        plain["host"], port = listen
        plain |= {"http_port": port, "https_port": port}
    plain |= {name: plain[name] or () for name in _LISTS} | {name: plain[name] or {} for name in _TABLES}
    return plain


def _cache(values: Mapping[str, Any], env_file: Path) -> dict[str, Any]:
    """Where answers are kept, and how much of them."""
    backend = LMDB if values["CACHE_BACKEND"] in LIKE_LMDB else values["CACHE_BACKEND"]
    url = {MEMORY: None, LMDB: env_file.with_name("cache"), REDIS: values["STORE_URL"]}.get(backend)
    given = values["CACHE_URL"] if backend != MEMORY else None
    size = values["CACHE_MAX_BYTES"] or (DISK_BYTES if backend == LMDB else MEMORY_BYTES)
    return {"cache_backend": backend, "cache_url": given or url, "cache_max_bytes": size}


def _endpoints(values: Mapping[str, Any]) -> tuple[tuple[Endpoint, ...], Endpoint]:
    """ENDPOINT's, each with the deployment and the version that it is asked for; and what counts elsewhere.

    DEPLOYMENT_NAME and API_VERSION win over what a URL says. What a URL leaves out is what the first says that says it.
    """
    given: tuple[Endpoint, ...] = values["ENDPOINT"] or ()
    name, version = values["DEPLOYMENT_NAME"], values["API_VERSION"]
    default = Endpoint(
        "",
        name or next((one.deployment for one in given if one.deployment), None),
        version or next((one.api_version for one in given if one.api_version), DEFAULT_API_VERSION),
    )
    endpoints = tuple(
        Endpoint(
            one.base_url,
            name or one.deployment or default.deployment,
            version or one.api_version or default.api_version,
        )
        for one in given
    )
    return endpoints, default


def _upstream(values: Mapping[str, Any], config: Config) -> str | None:
    if values["ENDPOINT"] or config.deployments:
        return "azure"
    names = ("OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_ROUTE_PREFIX")
    return "openai" if any(values[name] for name in names) else None


def _servers(roots: Sequence[str] | None, prefixes: Sequence[str] | None, keys: Any) -> tuple[Server, ...]:
    """The servers with their prefixes; where their numbers differ, `_conflicts` says so."""
    pairs = zip_longest(roots or (), prefixes or (), fillvalue="/")
    return tuple(Server(root, prefix.rstrip("/"), keys or ()) for root, prefix in pairs if root != "/")


def _proxies(values: Mapping[str, Any], given: Callable[[str], str | None]) -> tuple[Proxies, list[str]]:
    """The proxies of the settings, else of the environment; and a problem for each variable that cannot be used."""
    explicit = values["UPSTREAM_SOCKS_PROXY"] or values["UPSTREAM_PROXY"]
    found: dict[str, Secret | None] = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), explicit)
    problems: dict[str, str] = {}
    for scheme in () if explicit else found:
        names = (scheme.lower(), scheme, "all_proxy", "ALL_PROXY")
        name = next((name for name in names if given(name)), None)
        try:
            found[scheme] = PARSERS["proxy"](given(name)) if name else None
        except ValueError as error:
            problems[str(name)] = f"{name} cannot be used ({reason_for(error, '***')}); it takes {PROXY_FORM}"
    bypass = given("no_proxy") or given("NO_PROXY") or ""
    return Proxies(found["HTTP_PROXY"], found["HTTPS_PROXY"], bypass), list(problems.values())
