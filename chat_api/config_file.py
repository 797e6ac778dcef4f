"""The YAML file of deployments and client keys: our own form, and azure-openai-proxy's `deployment_config`.

Every scalar is read as text: YAML would make a date of an unquoted api-version, and numbers of keys.
"""

import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from chat_api.azure_url import Endpoint, is_deployment_name, parse_api_version, parse_endpoint, parse_server
from chat_api.callers import ClientKey
from chat_api.config_cache import CachedRoutes, read_cache
from chat_api.config_entry import Entry, check_names, rows_of, whole
from chat_api.config_keys import read_client_keys, read_currency, read_prices
from chat_api.config_log import read_redaction
from chat_api.counting import Price
from chat_api.redaction import Rule
from chat_api.setting_parsers import PARSERS, reason_for
from chat_api.types import Secret

KINDS = ("azure", "openai")
# Our form's names of what a deployment has, and the other form's.
_OURS = {
    *("name", "models", "model", "endpoint", "key", "api_version", "kind"),
    *("priority", "weight", "max_in_flight"),
}
_THEIRS = {
    "deployment_name": "name",
    "model_name": "model",
    "endpoint": "endpoint",
    "api_key": "key",
    "api_version": "api_version",
}
_TOP = {
    *("api_base", "deployments", "deployment_config", "fallbacks"),
    *("client_keys", "prices", "currency", "cache", "log"),
}


@dataclass(frozen=True, slots=True)
class ConfiguredDeployment:
    """A deployment as the file describes it; what it leaves out is what the settings say."""

    name: str
    models: tuple[str, ...]
    endpoint: Endpoint | None = None
    key: Secret | None = None
    api_version: str | None = None
    kind: str = "azure"
    priority: int = 0
    weight: float = 1.0
    max_in_flight: int | None = None

    @property
    def share(self) -> str:
        """What it gets of its models' calls, in words, where the entry says so."""
        said = (("priority", self.priority, 0), ("weight", self.weight, 1), ("max_in_flight", self.max_in_flight, None))
        return "".join(f", {name} {value:g}" for name, value, default in said if value is not None and value != default)


@dataclass(frozen=True, slots=True)
class Config:
    """What the file says."""

    deployments: tuple[ConfiguredDeployment, ...] = ()
    api_base: str = "/v1"
    listens_everywhere: bool = False  # its form is that of a gateway whose default address is any
    fallbacks: tuple[tuple[str, str], ...] = ()
    client_keys: tuple[ClientKey, ...] = ()
    prices: Mapping[str, Price] = field(default_factory=lambda: MappingProxyType({}))  # by model
    currency: str = "USD"
    cache: CachedRoutes = field(default_factory=lambda: MappingProxyType({}))  # by route
    redact: tuple[Rule, ...] = ()  # what is not written into the conversation log


def read_config(path: Path) -> Config:
    """What a file says.

    Raises:
        ValueError: it cannot be used; the message names the entry, what it got and what it takes.
    """
    content = _content(path)
    if content in (None, ""):
        return Config()
    check_names(content, _TOP, "the file")
    deployments, problems = _deployments(content)
    fallbacks = _collected(problems, _fallbacks, content.get("fallbacks") or {}) or ()
    client_keys, unusable = read_client_keys(content)
    prices, unpriced = read_prices(content)
    cache, uncached = read_cache(content)
    redact, unreadable = read_redaction(content)
    problems += unusable + unpriced + uncached + unreadable
    currency = _collected(problems, read_currency, content) or ""
    if problems:
        raise ValueError("; ".join(problems))
    base = PARSERS["prefixes"](str(content.get("api_base") or "/v1"))
    everywhere = "deployment_config" in content
    return Config(
        tuple(deployments), base[0], everywhere, fallbacks, tuple(client_keys), prices, currency, cache, redact
    )


def mentions_callers(path: Path) -> bool:
    """Whether a file seems to say who may call, what it costs, what is kept or redacted: not to be passed over.

    Raises:
        OSError: it cannot be read.
    """
    text = path.read_bytes().decode("utf-8", "replace")
    words = "client_keys|prices|cache|redact"
    return re.search(rf"^[^#\n]*\b({words})\b['\"]?\s*:", text, re.MULTILINE) is not None


def _deployments(content: Mapping[str, Any]) -> tuple[list[ConfiguredDeployment], list[str]]:
    entries: list[ConfiguredDeployment] = []
    problems: list[str] = []
    for section, names in (("deployments", {name: name for name in _OURS}), ("deployment_config", _THEIRS)):
        for where, row in rows_of(content, section):
            try:
                check_names(row, set(names), where)
                entries.append(_deployment(Entry({names[name]: row[name] for name in row}, where, _OURS)))
            except ValueError as error:
                problems.append(str(error))
    return entries, problems


def _collected(problems: list[str], read: Callable[[Any], Any], content: Any) -> Any:
    """What is read of the content; None, and the problem among the others, if it cannot be."""
    try:
        return read(content)
    except ValueError as error:
        problems.append(str(error))
        return None


def _content(path: Path) -> Any:
    try:
        return yaml.load(path.read_text("utf-8"), _TextLoader)  # noqa: S506 - it makes nothing but text
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 (byte {error.start})") from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        problem = error.problem or error.context
        hidden = "***" if isinstance(error, yaml.composer.ComposerError) else ""  # it quotes what may be a key
        raise ValueError(f"{line}{reason_for(problem, hidden)}") from None
    except yaml.YAMLError as error:
        raise ValueError(str(error).partition("\n")[0]) from None


class _TextLoader(yaml.BaseLoader):
    """Makes text of every scalar, and refuses a name that is given twice instead of taking the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a name is no text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f'"{key.value}" is given twice', key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _deployment(entry: Entry) -> ConfiguredDeployment:
    read, where = entry.read, entry.where
    kind = read("kind", PARSERS["upstream"], " or ".join(KINDS)) or "azure"
    if kind == "openai":
        endpoint = read("endpoint", _server, "an http(s) URL such as http://127.0.0.1:8000/v1")
    else:
        endpoint = read("endpoint", parse_endpoint, "an http(s) URL such as https://my-resource.openai.azure.com")
    name = read("name", PARSERS["deployment_name"], "the name of a deployment")
    name = name or (endpoint.deployment if endpoint else None)
    if not name:
        raise ValueError(f"{where} has no name; it takes the name of a deployment")
    if kind == "openai" and endpoint is None:
        raise ValueError(f"{where} has no endpoint; it takes an http(s) URL such as http://127.0.0.1:8000/v1")
    version = read("api_version", parse_api_version, "a date such as 2024-10-21 or 2025-04-01-preview, or v1")
    return ConfiguredDeployment(
        name=name,
        models=_models(entry.row, where) or (name,),
        endpoint=endpoint,
        key=read("key", PARSERS["key"], "a key of visible ASCII characters without spaces", secret=True),
        api_version=version or (endpoint.api_version if endpoint else None),
        kind=kind,
        priority=read("priority", whole(0), "a whole number from 0") or 0,
        weight=read("weight", _weight, "a number above 0") or 1.0,
        max_in_flight=read("max_in_flight", whole(1), "a whole number from 1"),
    )


def _server(text: str) -> Endpoint:
    return Endpoint(parse_server(text))


def _models(row: Mapping[str, Any], where: str) -> tuple[str, ...]:
    models = row.get("models") or []
    models = [models] if isinstance(models, str) else models
    names = [*models, *([row["model"]] if row.get("model") else [])]
    if not isinstance(models, list) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{where}: models takes a list of names")
    return tuple(names)


def _weight(text: str) -> float:
    if not re.fullmatch(r"-?[0-9]{0,9}\.?[0-9]{1,9}", text):
        raise ValueError("no number")
    if float(text) <= 0:
        raise ValueError("not above 0")
    return float(text)


def _fallbacks(content: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(content, Mapping):
        raise ValueError("fallbacks is no mapping of models to models, such as gpt-4o: gpt-4o-mini")
    pairs = []
    for model, other in content.items():
        if not isinstance(other, str):
            raise ValueError(f"fallbacks: {model} takes the name of one model")
        if not model or not is_deployment_name(other):
            raise ValueError(
                f'fallbacks: {model or "a model without a name"} is "{other}"; it takes the name of a model'
            )
        pairs.append((model, other))
    return tuple(pairs)
