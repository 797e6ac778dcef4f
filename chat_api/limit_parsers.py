"""Parsers of settings that limit callers; each takes text and raises ValueError with its reason.

No reason given here repeats a password.
"""

import ipaddress
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote, urlsplit

from chat_api.counting import STRATEGIES, Rate, parse_rates
from chat_api.pace import ANY_ROUTE
from chat_api.setting_parsers import choice, listed
from chat_api.types import Secret

STORE_FAILURE = ("open", "closed")
_STORE_SCHEMES = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss", "unix": "unix"}


def rates_by_route(text: str) -> Mapping[str, tuple[Rate, ...]]:
    """The limits of a JSON object such as `{"/v1/chat/completions": "100/2minutes"}`; none for `inf`, as elsewhere."""
    limits = {}
    for name, value in _members(text):
        route = _route(name)
        if route in limits:
            raise ValueError(f'"{route}" is given twice')
        if value:
            limits[route] = _rates(value, name)
    return MappingProxyType(limits)


def rates_by_model(text: str) -> Mapping[str, tuple[Rate, ...]]:
    """The limits of a JSON object such as `{"gpt-4o": "500000/minute"}`."""
    limits: dict[str, tuple[Rate, ...]] = {}
    for model, value in _members(text):
        if not model:
            raise ValueError("a model without a name")
        if model.lower() in map(str.lower, limits):  # Azure knows no case
            raise ValueError(f'"{model}" is given twice')
        limits[model] = _rates(value, model)
    return MappingProxyType({model: rates for model, rates in limits.items() if rates})


def pace_by_route(text: str) -> Mapping[str, Rate]:
    """One rate for the streams of every route, or a JSON object with one each."""
    if not text.startswith("{"):
        every = _pace(parse_rates(text))
        return MappingProxyType({ANY_ROUTE: every} if every else {})
    paces = {}
    for route, rates in rates_by_route(text).items():
        try:
            pace = _pace(rates)
        except ValueError as error:
            raise ValueError(f'"{route}": {error}') from None
        if pace:
            paces[route] = pace
    return MappingProxyType(paces)


def parse_store_url(text: str) -> Secret:
    """The URL of a Redis server, `valkey` written as `redis`."""
    if "#" in text:
        raise ValueError("it has a fragment; # is written %23 in a password")
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:  # which would quote it
        raise ValueError("its host or its port is none") from None
    scheme = _STORE_SCHEMES.get(url.scheme)
    if scheme is None:
        raise ValueError("no URL that begins with redis://, rediss:// or unix://")
    if scheme == "unix":
        if url.hostname or not url.path.startswith("/"):
            raise ValueError("it names no socket; unix:///run/redis.sock does")
    elif not url.hostname or port == 0:
        raise ValueError("it names no host")
    elif not (url.path in ("", "/") or url.path[1:].isdigit()):
        raise ValueError("its path is no number of a database")
    return Secret(scheme + text[len(url.scheme) :])


def store_name(url: Secret) -> str:
    """Where the store is, without user, password and parameters: `127.0.0.1:6379/0`."""
    read = urlsplit(url.reveal())
    host = f"[{read.hostname}]" if ":" in (read.hostname or "") else read.hostname
    return unquote(read.path) if read.scheme == "unix" else f"{host}:{read.port or 6379}{read.path.rstrip('/')}"


def parse_usage_file(text: str) -> Path | bool:
    """The path of a file that can be written; False for `none`."""
    if text.lower() == "none":
        return False
    path = Path(text)
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ValueError(f"no file can be written at {path.absolute()}")
    return path


def parse_forwarders(text: str) -> tuple[str, ...]:
    """The addresses and networks of a list, as uvicorn takes them; `*` among them is any."""
    items = listed(text)
    networks = [ipaddress.ip_network(item, strict=False) for item in items if item != "*"]
    if "*" in items:
        return ("*",)
    return tuple(str(one.network_address if one.num_addresses == 1 else one) for one in networks)


def _members(text: str) -> list[tuple[str, str]]:
    try:
        members = json.loads(text, object_pairs_hook=_pairs)
    except (ValueError, RecursionError):
        raise ValueError("no JSON") from None
    if not isinstance(members, tuple):
        raise ValueError("no JSON object")
    for name, value in members:
        if not isinstance(value, str):
            raise ValueError(f'the limit of "{name}" is no text such as "100/minute"')
    return [(name.strip(), value.strip()) for name, value in members]


def _pairs(members: list[tuple[str, Any]]) -> tuple[tuple[str, Any], ...]:
    """An object with every member that it has, those with the same name too."""
    return tuple(members)


def _route(name: str) -> str:
    if not name.startswith("/") or not name.isprintable() or set(name) & set(" ?#"):
        raise ValueError(f'"{name}" is no path')
    return name.rstrip("/") or "/"


def _rates(text: str, name: str) -> tuple[Rate, ...]:
    try:
        return parse_rates(text)
    except ValueError as error:
        raise ValueError(f'"{name}": {error}') from None


def _pace(rates: tuple[Rate, ...]) -> Rate | None:
    if len(rates) > 1:
        raise ValueError("several rates; a stream has one pace")
    return rates[0] if rates else None


LIMIT_PARSERS = {
    "rates": parse_rates,
    "rates_by_route": rates_by_route,
    "rates_by_model": rates_by_model,
    "pace_by_route": pace_by_route,
    "strategy": choice(*STRATEGIES),
    "store_url": parse_store_url,
    "store_failure": choice(*STORE_FAILURE),
    "usage_file": parse_usage_file,
    "forwarders": parse_forwarders,
}
