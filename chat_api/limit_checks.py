"""What contradicts among client keys and limits that are each valid, and what of them is worth saying at the start."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from chat_api.callers import ANY_MODEL, ClientKey
from chat_api.operations import MODEL_REQUIRED, is_known
from chat_api.pace import ANY_ROUTE
from chat_api.setting_values import Settings
from chat_api.settings_limits import CALLER_LIMITS

SIMPLE_CHAT = "/v1/gpt/chat"
_DEFAULTS = {row.name: row.default for row in CALLER_LIMITS}


def key_conflicts(settings: Settings) -> list[tuple[set[str], str]]:
    """Keys that are in CLIENT_KEYS and in the config file: `(the settings involved, the problem)`."""
    of_file = settings.config.client_keys
    unnamed = [key for key in settings.client_keys if key not in of_file]
    problems = []
    for key, other in ((key, other) for key in unnamed for other in of_file):
        if key.digest == other.digest:
            text = f"CLIENT_KEYS has a key ({key.name}) that is {other.name}'s in the config file; keep one of them"
            problems.append(text)
        elif key.name == other.name:
            problems.append(f"client key {key.name} of the config file has the name of one of CLIENT_KEYS; rename it")
    return [({"CLIENT_KEYS", "CONFIG_FILE"}, problem) for problem in problems]


def limit_warnings(settings: Settings, values: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    """What of the limits does not do what somebody may think."""
    warnings = [
        f"{name} is not used: STORE_URL is not set"
        for name in ("STORE_FAILURE", "STORE_TIMEOUT")
        if settings.store_url is None and values[name] != _DEFAULTS[name]
    ]
    if settings.store_url and "USAGE_FILE" in names:
        warnings.append("USAGE_FILE is not used: usage is kept in the store")
    by_address = settings.allow_ips or settings.deny_ips or any(key.networks for key in settings.client_keys)
    if "*" in settings.forwarded_allow_ips and by_address:
        warnings.append("FORWARDED_ALLOW_IPS is *: whoever reaches this port can say that it calls from any address")
    for name, routes in (("REQ_RATE_LIMIT", settings.req_rate_limit), ("TOKEN_RATE_LIMIT", settings.token_rate_limit)):
        warnings += [f"{name}: {text}" for route in routes if (text := _unserved(route, settings))]
    warnings += _misnamed(settings)
    for key in settings.client_keys:
        warnings += [f"client key {key.name} {text}" for text in _oddities(key, settings)]
    return warnings


def _unserved(route: str, settings: Settings) -> str | None:
    """Why nothing is ever limited at a route; None if calls are served there."""
    prefixes = [server.prefix for server in (*settings.openai, *settings.extra) if server.prefix]
    if route in (ANY_ROUTE, SIMPLE_CHAT) or route.startswith(tuple(f"{prefix}/" for prefix in prefixes)):
        return None
    operation = route.removeprefix("/v1/")
    if operation != route and is_known(operation):
        return None
    close = get_close_matches(
        route, [SIMPLE_CHAT, *(f"/v1/{name}" for name in sorted(MODEL_REQUIRED))], n=1, cutoff=0.8
    )
    if operation != route and settings.upstream == "openai" and not close:
        return None  # which may serve more than Azure
    hint = f"did you mean {close[0]}?" if close else "it takes routes such as /v1/chat/completions or /v1/gpt/chat"
    return f"no calls are served at {route}; {hint}"


def _misnamed(settings: Settings) -> list[str]:
    """Models that are limited, or that a key is for, under names by which nothing is counted."""
    limited: dict[str, Iterable[str]] = {"MODEL_TOKEN_LIMIT": settings.model_token_limit}
    allowed: dict[str, Iterable[str]] = {}
    for key in settings.client_keys:
        limited[f"client key {key.name}"] = key.tokens.keys() - {ANY_MODEL}
        allowed[f"client key {key.name}"] = (key.models or frozenset()) - key.tokens.keys()
    counted, served = _counted(settings), {name.lower() for name in settings.served_models}
    warnings = [
        f'{who} limits "{model}", a deployment that is counted as model {counted[model.lower()]}'
        for who, models in limited.items()
        for model in sorted(models)
        if model.lower() in counted
    ]
    if settings.unknown_model == "reject" and settings.upstream != "emulator":  # which has models of its own
        warnings += [
            f'{who} names model "{model}", which is served nowhere, and UNKNOWN_MODEL is reject'
            for who, models in (*limited.items(), *allowed.items())
            for model in sorted(models)
            if model.lower() not in served
        ]
    return warnings


def _counted(settings: Settings) -> dict[str, str]:
    """What the deployments are counted as that have models of other names: the first of these."""
    rows = [(row.name, model) for row in settings.config.deployments for model in row.models]
    pairs = [*rows, *((deployment, model) for model, deployment in settings.model_mapper)]
    models = {model.lower() for _, model in pairs}
    return {name.lower(): model for name, model in reversed(pairs) if name.lower() not in models}


def _oddities(key: ClientKey, settings: Settings) -> list[str]:
    """What in the entry of a key has no effect, or less than it seems."""
    odd = []
    if key.budget and (unpriced := _unpriced(key, settings)):
        odd.append(f"has a budget, and there is no price for {', '.join(unpriced)}: that costs it nothing")
    if key.models is not None:
        allowed = {ANY_MODEL, *map(str.lower, key.models)}
        useless = sorted(model for model in key.tokens if model.lower() not in allowed)
        odd += [f"has a limit of tokens for {model}, which is none of its models" for model in useless]
    return odd


def _unpriced(key: ClientKey, settings: Settings) -> list[str]:
    """The models that a key is for, or all, that have no price, nor have their deployments."""
    prices = {name.lower() for name in settings.config.prices}
    names: dict[str, set[str]] = {}
    for row in settings.config.deployments:
        for model in row.models:
            names.setdefault(model, set()).add(row.name.lower())
    for model, deployment in settings.model_mapper:
        names.setdefault(model, set()).add(deployment.lower())
    models = sorted(key.models) if key.models is not None else [*names, *filter(None, [settings.deployment_name])]
    return [
        model
        for model in dict.fromkeys(models)
        if model.lower() not in prices and not (model in names and names[model] <= prices)
    ]
