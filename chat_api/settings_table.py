"""The settings table: for every setting its name, default, what it accepts, what it means, and its parser.

`sample.env`, the README's table and the error messages all say what stands here; tests keep them alike.
"""

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from environs import validate

from chat_api.azure_url import (
    API_VERSION_FORM,
    DEFAULT_API_VERSION,
    ENDPOINT_FORM,
    is_deployment_name,
    parse_api_version,
    parse_endpoint,
)
from chat_api.fields import FIELDS
from chat_api.types import Secret

LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
SECONDS = "a number of seconds above 0"


@dataclass(frozen=True, slots=True)
class Setting:
    """A row of the settings table: how one variable is read, and what people are told about it."""

    name: str
    parser: str  # the environs method that reads it
    default: Any
    accepts: str
    meaning: str
    options: Mapping[str, Any] = field(default_factory=dict)
    secret: bool = False

    @property
    def default_text(self) -> str:
        """The default as it would be written in a `.env` file; "" for none."""
        if self.default is None:
            return ""
        return str(self.default).lower() if isinstance(self.default, bool) else str(self.default)


def _between(low: float | None, high: float | None = None) -> dict[str, Any]:
    return {"validate": validate.Range(min=low, max=high)}


_ABOVE_0 = {"validate": validate.Range(min=0, min_inclusive=False)}
_PORT = "a port number from 0 to 65535 (0 takes a free one)"
_BOOL = "true or false"

SERVER = (
    Setting("HOST", "host", "127.0.0.1", "an address or host name, without scheme or port", "Address to listen on."),
    Setting("HTTP_PORT", "int", 8080, _PORT, "Port for HTTP.", _between(0, 65535)),
    Setting("ENABLE_SSL", "bool", False, _BOOL, "Serve HTTPS on `HTTPS_PORT` instead of HTTP."),
    Setting("HTTPS_PORT", "int", 8443, _PORT, "Port for HTTPS.", _between(0, 65535)),
    Setting(
        "SSL_CERT",
        "readable_file",
        None,
        "the path of a readable PEM file",
        "Certificate chain; with `ENABLE_SSL`.",
    ),
    Setting(
        "SSL_KEY",
        "readable_file",
        None,
        "the path of a readable PEM file",
        "Its private key; with `ENABLE_SSL`.",
    ),
    Setting(
        "ALLOW_ANONYMOUS",
        "bool",
        False,
        _BOOL,
        "Let anyone who can reach the server use its `KEY`: lifts the limit to loopback addresses and host names.",
    ),
)
AZURE = (
    Setting(
        "ENDPOINT",
        "endpoint",
        None,
        ENDPOINT_FORM,
        "Your Azure OpenAI resource: its URL, or any URL that the portal shows for a deployment. "
        "Unset: the built-in emulator answers.",
    ),
    Setting(
        "DEPLOYMENT_NAME",
        "deployment_name",
        None,
        "the name of a deployment",
        "Deployment that answers when a request names no `model`. Unset: the one in `ENDPOINT`, if it has one.",
    ),
    Setting(
        "API_VERSION",
        "api_version",
        None,
        API_VERSION_FORM,
        f"Version of the Azure API; `v1` selects the v1 API. Unset: the one in `ENDPOINT`, else {DEFAULT_API_VERSION}.",
    ),
    Setting(
        "KEY",
        "key",
        None,
        "a key of visible ASCII characters without spaces",
        "Key of the resource. Unset: each caller presents their own (`api-key` or Bearer).",
        secret=True,
    ),
)
_PARSER_OF_KIND = {"number": "float", "integer": "int", "flag": "bool", "text": "str", "stop": "stop"}


def _default(name: str, meaning: str, accepts: str | None = None) -> Setting:
    """The setting for a field's default: it accepts what the field does."""
    field_ = FIELDS[name]
    limits = {} if field_.low is None else _between(field_.low, field_.high)
    return Setting(name, _PARSER_OF_KIND[field_.kind], None, accepts or field_.expects, meaning, limits)


DEFAULTS = (
    _default("temperature", "How freely the model words its answers."),
    _default("top_p", "The share of likely words that it picks from."),
    _default("n", "How many answers to a prompt."),
    _default("stream", "Whether answers are streamed."),
    _default("stop", "Where an answer ends.", "text, or a JSON array of up to 4 texts"),
    _default("max_tokens", "How long an answer may be."),
    _default("presence_penalty", "How much it avoids what it has mentioned."),
    _default("frequency_penalty", "How much it avoids what it repeats."),
    _default("user", "Who is asking, as told to Azure."),
)
LIMITS = (
    Setting("CONNECT_TIMEOUT", "float", 5, SECONDS, "Seconds to connect to the upstream, TLS included.", _ABOVE_0),
    Setting(
        "FIRST_BYTE_TIMEOUT",
        "float",
        600,
        SECONDS,
        "Seconds from the request to the first byte of the upstream's answer.",
        _ABOVE_0,
    ),
    Setting("IDLE_TIMEOUT", "float", 120, SECONDS, "Seconds of silence within the upstream's answer.", _ABOVE_0),
    Setting(
        "PING_INTERVAL",
        "float",
        15,
        "a number of seconds, 0 for never",
        "Seconds between the comments that keep a silent event stream open.",
        _between(0),
    ),
    Setting(
        "DRAIN_TIMEOUT",
        "int",
        30,
        "a whole number of seconds from 0",
        "Seconds that answers in flight get to finish after SIGTERM or SIGINT.",
        _between(0),
    ),
    Setting(
        "MAX_BODY_BYTES",
        "int",
        32 * 1024 * 1024,
        "a whole number of bytes from 1",
        "Largest request body; larger ones are answered 413.",
        _between(1),
    ),
    Setting("LOG_LEVEL", "log_level_name", "info", " or ".join(LOG_LEVELS), "How much is logged."),
)
GROUPS = {
    "Where to listen": SERVER,
    "Azure OpenAI": AZURE,
    "Defaults for what a request leaves out": DEFAULTS,
    "Limits and logging": LIMITS,
}
TABLE: tuple[Setting, ...] = tuple(setting for group in GROUPS.values() for setting in group)


def _parse_host(text: str) -> str:
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


# The parsers beyond those of environs; each raises ValueError with its reason.
PARSERS = {
    "endpoint": parse_endpoint,
    "api_version": parse_api_version,
    "deployment_name": _parse_deployment_name,
    "host": _parse_host,
    "key": _parse_key,
    "stop": _parse_stop,
    "readable_file": _parse_readable_file,
    "log_level_name": _parse_log_level,
}
