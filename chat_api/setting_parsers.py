"""Parsers of settings beyond those of environs; each takes text and raises ValueError with its reason.

No reason given here repeats a key or a password.
"""

import ipaddress
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from chat_api.azure_url import Endpoint, is_deployment_name, parse_api_version, parse_endpoint, parse_server
from chat_api.types import Secret

LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
UNKNOWN_MODEL = ("pass", "default", "reject")
UPSTREAMS = ("azure", "openai")
LOG_CHAT = ("false", "true", "meta")
_FLAGS = {"true": ("true", "t", "yes", "y", "on", "1"), "false": ("false", "f", "no", "n", "off", "0")}
PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def listed(text: str) -> list[str]:
    """The items of a list that is separated by commas, quotes around single items taken off."""
    items = [item for item in (part.strip().strip("\"'").strip() for part in text.split(",")) if item]
    if not items:
        raise ValueError("it lists nothing")
    return items


def without_secrets(text: str) -> str:
    """The value as it may be shown: a URL may hold a password before its host, or a key in its query."""
    items = (item.strip() for item in text.split(","))
    has_key = any(len(item) >= 32 and "." not in item and ":" not in item for item in items)
    return "***" if "@" in text or has_key else re.sub(r"[?#].*", "***", text, flags=re.DOTALL)


def reason_for(error: object, shown: str) -> str:
    """What is wrong with a value, without what the reason quotes of it where the value is not shown in full."""
    return re.sub(r"(['\"]).*\1", "***", str(error), flags=re.DOTALL) if "***" in shown else str(error)


def parse_host(text: str) -> str:
    """A host name or address to listen on."""
    if not re.fullmatch(r"[\w.-]+", text, re.ASCII):
        try:
            ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
        except ValueError:
            raise ValueError("no host name and no address") from None
    return text


def _parse_key(text: str) -> Secret:
    """No reason given here repeats the key."""
    if "://" in text:
        raise ValueError("it is a URL; are ENDPOINT and KEY swapped?")
    for position, character in enumerate(text, 1):
        if not ("!" <= character <= "~"):
            what = "a space" if character.isspace() else "a character that is not visible ASCII"
            raise ValueError(f"{what} at position {position}")
    return Secret(text)


def _parse_deployment_name(text: str) -> str:
    if not is_deployment_name(text):
        raise ValueError("no deployment is called so")
    return text


def _parse_stop(text: str) -> str | list[str]:
    if not text.startswith("["):
        return text
    try:
        stops = msgspec.json.decode(text, type=list[str])
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error
    if not 1 <= len(stops) <= 4:
        raise ValueError("not 1 to 4 texts")
    return stops


def _parse_readable_file(text: str) -> Path:
    path = Path(text)
    if not (path.is_file() and os.access(path, os.R_OK)):
        raise ValueError(f"no readable file at {path.absolute()}")
    return path


def _parse_log_level(text: str) -> str:
    if text.lower() not in LOG_LEVELS:
        raise ValueError("not a log level")
    return text.lower()


def parse_log_chat(text: str) -> str:
    """Whether conversations are logged: "true", "false" or "meta"."""
    word = text.lower()
    for meant, words in _FLAGS.items():
        if word in words:
            return meant
    if word not in LOG_CHAT:
        raise ValueError("none of them")
    return word


def _parse_folder(text: str) -> Path:
    path = Path(text)
    nearest = next((folder for folder in (path, *path.absolute().parents) if folder.exists()), path)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"no folder can be written at {path.absolute()}")
    return path


def _parse_listen(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError("no address and port")
    return parse_host(host) if host else "0.0.0.0", int(port)  # noqa: S104 - what an address left out means


def _parse_keys(text: str) -> tuple[Secret, ...]:
    if text.startswith("{"):  # as later versions of openai-forward have it
        raise ValueError("it is JSON")
    return tuple(_parse_key(key) for key in listed(text))


def _parse_endpoints(text: str) -> tuple[Endpoint, ...]:
    items = listed(text)
    endpoints: list[Endpoint] = []
    for number, item in enumerate(items, 1):
        try:
            endpoint = parse_endpoint(item)
        except ValueError as error:
            if len(items) == 1:
                raise
            raise ValueError(f"URL {number}: {error}") from None
        if any(endpoint.base_url == known.base_url for known in endpoints):
            raise ValueError(f"URL {number} is a resource that it lists already")
        endpoints.append(endpoint)
    return tuple(endpoints)


def _parse_networks(text: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(item, strict=False) for item in listed(text))


def _parse_origins(text: str) -> tuple[str, ...]:
    if text.lower() == "none":
        return ()
    for item in listed(text):
        url = urlsplit(item)
        if item != "*" and (url.scheme not in ("http", "https") or not url.netloc or url.path or url.query):
            raise ValueError(f'"{item}" is no origin')
    return tuple(listed(text))


def parse_model_mapper(text: str) -> tuple[tuple[str, str], ...]:
    """The pairs of a list such as `gpt-4o=east,gpt-4o-mini=small`."""
    return _pairs(text, "model=deployment", "is mapped twice")


def _parse_model_fallback(text: str) -> tuple[tuple[str, str], ...]:
    return _pairs(text, "model=model", "falls back twice")


def _pairs(text: str, form: str, twice: str) -> tuple[tuple[str, str], ...]:
    pairs: list[tuple[str, str]] = []
    for item in listed(text):
        model, equals, other = (part.strip() for part in item.partition("="))
        if not (model and equals) or not is_deployment_name(other):
            raise ValueError(f'"{item}" is no pair of {form}')
        if any(model == known for known, _ in pairs):
            raise ValueError(f'model "{model}" {twice}')
        pairs.append((model, other))
    return tuple(pairs)


def _parse_urls(text: str) -> tuple[str, ...]:
    return tuple(parse_server(item) for item in listed(text))


def _parse_prefixes(text: str) -> tuple[str, ...]:
    prefixes = tuple("/" + item.strip("/") for item in listed(text))
    for prefix in prefixes:
        if not re.fullmatch(r"/|(/(?!\.{1,2}(/|$))[\w.~-]+)+", prefix, re.ASCII):
            raise ValueError(f'"{prefix}" is no path prefix')
    return prefixes


def _parse_proxy(text: str) -> Secret:
    url = urlsplit(text if "://" in text else f"http://{text}")
    try:
        has_port = url.port is not None
    except ValueError:
        raise ValueError("its port is no port") from None
    if url.scheme not in PROXY_SCHEMES or not url.hostname or url.path.strip("/") or url.query or url.fragment:
        raise ValueError("no URL of a proxy")
    if url.scheme.startswith("socks") and not has_port:
        raise ValueError("it names no port")
    return Secret(f"{url.scheme}://{url.netloc}")


def choice(*options: str):  # type: ignore[no-untyped-def]
    """A parser of one of these words, in any case."""

    def parse(text: str) -> str:
        if text.lower() not in options:
            raise ValueError("none of them")
        return text.lower()

    return parse


PARSERS = {
    "listen": _parse_listen,
    "keys": _parse_keys,
    "networks": _parse_networks,
    "origins": _parse_origins,
    "model_mapper": parse_model_mapper,
    "model_fallback": _parse_model_fallback,
    "unknown_model": choice(*UNKNOWN_MODEL),
    "upstream": choice(*UPSTREAMS),
    "urls": _parse_urls,
    "prefixes": _parse_prefixes,
    "proxy": _parse_proxy,
    "endpoints": _parse_endpoints,
    "api_version": parse_api_version,
    "deployment_name": _parse_deployment_name,
    "host": parse_host,
    "key": _parse_key,
    "stop": _parse_stop,
    "readable_file": _parse_readable_file,
    "log_level_name": _parse_log_level,
    "log_chat": parse_log_chat,
    "log_dir": _parse_folder,
}
