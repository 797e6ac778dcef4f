"""What the config file says of kept answers: on which routes, and for how long."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from chat_api.config_entry import Entry

SIMPLE_CHAT, CHAT, EMBEDDINGS = ROUTES = ("/v1/gpt/chat", "/v1/chat/completions", "/v1/embeddings")
FORM = "true or false, or {ttl: 600}"
TTL_FORM = "a number of seconds above 0"

CachedRoutes = Mapping[str, float | bool]  # seconds, or True for CACHE_TTL, or False for never


def read_cache(content: Mapping[str, Any]) -> tuple[CachedRoutes, list[str]]:
    """What the file says of each route that it names, and what is wrong with the other entries."""
    routes: dict[str, float | bool] = {}
    problems = []
    section = content.get("cache") or {}
    if not isinstance(section, Mapping):
        return routes, [f"cache is no mapping of routes to {FORM}, such as {CHAT}: true"]
    for name, value in section.items():
        try:
            routes[_route(name)] = _kept(value, f"cache of {name}")
        except ValueError as error:
            problems.append(str(error))
    return MappingProxyType(routes), problems


def _route(name: str) -> str:
    if name in ROUTES:
        return name
    close = get_close_matches(name, ROUTES, n=1, cutoff=0.7)
    hint = f"did you mean {close[0]}?" if close else f"it takes {', '.join(ROUTES)}"
    raise ValueError(f'cache has a route of which no answer is kept, "{name}"; {hint}')


def _kept(value: Any, where: str) -> float | bool:
    if isinstance(value, Mapping):
        ttl = Entry(value, where, {"ttl"}).read("ttl", _seconds, TTL_FORM)
        return True if ttl is None else float(ttl)
    if not isinstance(value, str) or value.lower() not in ("true", "false"):
        shown = f' is "{value}";' if isinstance(value, str) else ""
        raise ValueError(f"{where}{shown or ' cannot be used;'} it takes {FORM}")
    return value.lower() == "true"


def _seconds(text: str) -> float:
    if not re.fullmatch(r"-?[0-9]{0,9}\.?[0-9]{1,9}", text):
        raise ValueError("no number")
    if float(text) <= 0:
        raise ValueError("not above 0")
    return float(text)
