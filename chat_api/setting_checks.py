"""What contradicts within settings that are each valid, and what is worth saying at the start."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlsplit

from chat_api.azure_url import ENDPOINTS_FORM
from chat_api.cache_checks import cache_conflicts, cache_warnings
from chat_api.callers import digest_of
from chat_api.headers import is_loopback
from chat_api.limit_checks import key_conflicts, limit_warnings
from chat_api.setting_values import Settings
from chat_api.settings_table import TABLE

RESERVED = frozenset({"/v1", "/health", "/healthz", "/ready", "/status", "/usage"})  # the paths that are ours
_UPSTREAM_SETTINGS = ("ENDPOINT", "CONFIG_FILE", "UPSTREAM", "OPENAI_BASE_URL")


def misspellings(unknown_names: list[str]) -> list[str]:
    """A warning for each name in the file that is nearly that of a setting, here or in another gateway."""
    warnings = []
    by_lower_case = {name.lower(): name for row in TABLE for name in (row.name, *row.aliases)}
    for name in unknown_names:
        if close := get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.8):
            meant = by_lower_case[close[0]]
            warnings.append(f"{name} in the .env file is not a setting; did you mean {meant}?")
    return warnings


def warnings_of(settings: Settings, values: Mapping[str, Any], names: Mapping[str, str]) -> tuple[str, ...]:
    """What is worth saying at the start, though it stops nothing."""
    warnings = []
    for name, value in (("HOST", settings.host), ("HTTP_PORT", settings.http_port)):
        if values["LISTEN"] and name in names and values[name] != value:
            warnings.append(f"{name} is not used: {names['LISTEN']} says where to listen")
    if values["OPENAI_BASE_URL"] and settings.upstream != "openai" and not settings.openai:
        who = "Azure" if settings.upstream == "azure" else "the built-in emulator"
        warnings.append(
            f"OPENAI_BASE_URL is not used: {who} answers at /v1; set UPSTREAM=openai, or an OPENAI_ROUTE_PREFIX"
        )
    if settings.upstream == "emulator" and (settings.keys or settings.deployment_name):
        name = "KEY" if settings.keys else "DEPLOYMENT_NAME"
        warnings.append(f"{name} is set but ENDPOINT is not: the built-in emulator answers, not Azure")
    for endpoint in settings.endpoints:
        if endpoint.base_url.startswith("http://") and not is_loopback(endpoint.host_name):
            what = "ENDPOINT" if len(settings.endpoints) == 1 else f"{endpoint.host_name} of ENDPOINT"
            warnings.append(f"{what} is http://, so the key travels unencrypted; Azure speaks https://")
    names_models = settings.model_mapper or settings.config.deployments
    if settings.upstream == "azure" and not settings.deployment_name and not names_models:
        warnings.append("DEPLOYMENT_NAME is not set; every request has to name its model")
    if len(settings.endpoints) > 1 and not settings.keys:
        warnings.append("ENDPOINT lists several resources and KEY is not set: a caller's own key opens one of them")
    if settings.allow_anonymous and settings.lends_key and not is_loopback(settings.host):
        warnings.append("ALLOW_ANONYMOUS is on: whoever reaches this port uses the server's Azure key")
    warnings += [*_log_warnings(settings), *limit_warnings(settings, values, names), *cache_warnings(settings, values)]
    return tuple(warnings)


def _log_warnings(settings: Settings) -> list[str]:
    if settings.config.redact and not settings.logs_conversations:
        return ["the redactions of the config file are not used: no conversation is logged (LOG_CHAT)"]
    return []


def conflicts_of(settings: Settings, values: Mapping[str, Any], names: Mapping[str, str]) -> list[tuple[set[str], str]]:
    """Problems between settings that are each valid: `(the settings involved, the problem)`.

    `names` has the name that was used for each setting that was given.
    """
    problems: list[tuple[set[str], str]] = []
    if values["ENABLE_SSL"]:
        problems += [
            ({name}, f"{name} is not set; with ENABLE_SSL=true it takes the path of a readable PEM file")
            for name in ("SSL_CERT", "SSL_KEY")
            if values[name] is None
        ]
    if settings.guards_loopback and not is_loopback(settings.host or ""):
        name = names.get("LISTEN" if values["LISTEN"] else "HOST", "HOST")
        implied = "" if name != "HOST" or "HOST" in names else " (what this file's other settings imply)"
        text = (
            f'{name} is "{settings.host}"{implied}, so the network could use the server\'s key without a key of its '
            "own; it takes 127.0.0.1, or set CLIENT_KEYS to ask callers for one, or ALLOW_ANONYMOUS=true to insist"
        )
        involved = {"ALLOW_ANONYMOUS", "CLIENT_KEYS", *_UPSTREAM_SETTINGS, "KEY", "OPENAI_API_KEY"}
        problems.append(({"LISTEN", "HOST", *involved}, text))
    problems += _loops(settings, names)
    problems += _unpaired_keys(settings, names)
    problems += _shared_operator_key(settings, values, names)
    problems += _fallback_conflicts(settings, values)
    problems += key_conflicts(settings)
    problems += cache_conflicts(settings, values)
    unpaired = False
    for urls, prefixes in (("OPENAI_BASE_URL", "OPENAI_ROUTE_PREFIX"), ("EXTRA_BASE_URL", "EXTRA_ROUTE_PREFIX")):
        count, expected = len(values[prefixes] or ()), len(values[urls] or ())
        if (count or expected > 1 or urls.startswith("EXTRA")) and count != expected and (expected or count > 1):
            text = f"{prefixes} has {count} items and {urls} has {expected}; they are pairs"
            problems.append(({urls, prefixes}, text))
            unpaired = True
    placed = settings.endpoints or any(row.endpoint for row in settings.config.deployments)
    if settings.upstream == "azure" and not placed:
        text = f"ENDPOINT is not set, and no deployment of the config file has an endpoint; it takes {ENDPOINTS_FORM}"
        problems.append((set(_UPSTREAM_SETTINGS), text))
    return problems if unpaired else problems + _route_conflicts(settings)


def _unpaired_keys(settings: Settings, names: Mapping[str, str]) -> list[tuple[set[str], str]]:
    """Several keys, and another number of endpoints: whose they are is anybody's guess."""
    keys, urls = len(settings.keys), len(settings.endpoints)
    if keys <= 1 or keys == urls:
        return []
    key, endpoint = names.get("KEY", "KEY"), names.get("ENDPOINT", "ENDPOINT")
    has = f"{urls} URL" if urls == 1 else f"{urls} URLs"
    text = f"{key} has {keys} keys and {endpoint} has {has}; it takes one key for all of them, or one for each"
    return [({"KEY", "ENDPOINT"}, text)]


def _shared_operator_key(
    settings: Settings, values: Mapping[str, Any], names: Mapping[str, str]
) -> list[tuple[set[str], str]]:
    """A key of operators that others have as well."""
    keys = {name: values[name] or () for name in ("CLIENT_KEYS", "KEY", "OPENAI_API_KEY")}
    keys["CONFIG_FILE"] = tuple(row.key for row in settings.config.deployments if row.key)
    shared = [name for name in keys if settings.operator_key in keys[name]]
    digests = {key.digest for key in settings.config.client_keys}
    if settings.operator_key and digest_of(settings.operator_key.reveal()) in digests:
        shared.append("CONFIG_FILE")
    return [
        (
            {"OPERATOR_KEY", name},
            f"OPERATOR_KEY is a key of {names.get(name, name)} as well; it takes one that nobody else has",
        )
        for name in dict.fromkeys(shared)
    ]


def _fallback_conflicts(settings: Settings, values: Mapping[str, Any]) -> list[tuple[set[str], str]]:
    """Models that fall back on themselves, on two others, or on one that is not served."""
    involved = {"MODEL_FALLBACK", "CONFIG_FILE"}
    own, file = dict(values["MODEL_FALLBACK"] or ()), dict(settings.config.fallbacks)
    problems = [
        f"MODEL_FALLBACK has {model}={own[model]} and the config file's fallbacks have {model}: {file[model]}; "
        "keep one of them"
        for model in own
        if file.get(model, own[model]) != own[model]
    ]
    for circle in _circles(settings.fallbacks):
        pairs = ", ".join(f"{model}={settings.fallbacks[model]}" for model in circle)
        whose = "MODEL_FALLBACK" if any(model in own for model in circle) else "fallbacks of the config file"
        problems.append(f"{whose}: {pairs} goes in a circle; it takes a model that does not lead back")
    found = [(involved, problem) for problem in problems]
    if settings.unknown_model != "reject" or settings.upstream == "emulator":  # which has models of its own
        return found
    served = settings.served_models
    for model in dict.fromkeys(name for pair in settings.fallbacks.items() for name in pair if name not in served):
        has_it = any(model in pair for pair in own.items())
        whose = "MODEL_FALLBACK" if has_it else "fallbacks of the config file"
        takes = ", ".join(served) or "none"
        text = f'{whose}: model "{model}" is served nowhere, and UNKNOWN_MODEL is reject; it takes {takes}'
        found.append((involved | {"MODEL_MAPPER", "UNKNOWN_MODEL", "DEPLOYMENT_NAME", *_UPSTREAM_SETTINGS}, text))
    return found


def _circles(fallbacks: Mapping[str, str]) -> list[list[str]]:
    """The models that fall back on themselves, by way of others or not; each circle once."""
    circles: list[list[str]] = []
    for start in fallbacks:
        way, model = [start], fallbacks[start]
        while model in fallbacks and model not in way:
            way.append(model)
            model = fallbacks[model]
        if model == start and not any(start in circle for circle in circles):
            circles.append(way)
    return circles


def _route_conflicts(settings: Settings) -> list[tuple[set[str], str]]:
    """Two upstreams at the same path."""
    problems: list[tuple[set[str], str]] = []
    prefixes = [server.prefix for server in (*settings.openai, *settings.extra)]
    at_root = any(not server.prefix for server in settings.extra)
    for prefix in {prefix for prefix in prefixes if prefixes.count(prefix) > 1 and (prefix or not at_root)}:
        text = f'two upstreams have the path prefix "{prefix or "/"}"; each takes one of its own'
        problems.append(({"OPENAI_ROUTE_PREFIX", "EXTRA_ROUTE_PREFIX"}, text))
    if at_root:
        text = 'EXTRA_ROUTE_PREFIX is "/", which the main upstream has; it takes a path prefix such as /localai'
        problems.append(({"EXTRA_ROUTE_PREFIX"}, text))
    for prefix in {prefix for prefix in prefixes if prefix in RESERVED or prefix.startswith("/v1/")}:
        text = f'the path prefix "{prefix}" is this server\'s own; it takes another one'
        problems.append(({"OPENAI_ROUTE_PREFIX", "EXTRA_ROUTE_PREFIX"}, text))
    return problems


def _loops(settings: Settings, names: Mapping[str, str]) -> list[tuple[set[str], str]]:
    """A gateway whose upstream is itself: one call would become as many as there are connections."""
    problems: list[tuple[set[str], str]] = []
    for setting, roots in settings.upstream_urls.items():
        for url in map(urlsplit, roots):
            here = is_loopback(url.hostname or "") or url.hostname == settings.host
            if here and url.port == settings.port != 0:
                name = names.get(setting, setting)
                text = f"{name} is this server itself, at port {settings.port}; it takes another one's URL"
                problems.append(({setting, "LISTEN", "HTTP_PORT", "HTTPS_PORT"}, text))
    return problems
