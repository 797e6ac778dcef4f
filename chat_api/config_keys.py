"""What the config file says of callers: the client keys, and what tokens cost."""

import ipaddress
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from chat_api.callers import ANY_MODEL, KEY_PREFIX, ClientKey, Network
from chat_api.config_entry import Entry, rows_of, whole
from chat_api.counting import Price, Rate, parse_rates
from chat_api.setting_parsers import LOG_CHAT, listed, parse_log_chat

NAME_FORM = "up to 64 letters, digits, dots, dashes and underscores"
DIGEST_FORM = "the sha256 that chat-api keys new NAME prints"
RATES_FORM = "limits such as 100/minute; 1000/day, or inf"
TOKENS_FORM = f"{RATES_FORM}; or a mapping of models to limits, * for all of them together"
EXPIRY_FORM = "a date such as 2027-01-31, or a time such as 2027-01-31T12:00:00Z"
MONEY_FORM = "an amount of money above 0, such as 50 or 0.25"
PRICE_FORM = "money per million tokens, such as 2.50, or 0"
CURRENCY_FORM = "a word such as EUR"
_PLAIN_KEY = {"key", "api_key", "token", "secret", "value"}  # what somebody may call a key that stands there as it is


def read_client_keys(content: Mapping[str, Any]) -> tuple[list[ClientKey], list[str]]:
    """The client keys of the file's content, and what is wrong with the others."""
    keys: dict[str, ClientKey] = {}
    problems: list[str] = []
    try:
        rows = rows_of(content, "client_keys")
    except ValueError as error:
        return [], [str(error)]
    for where, row in rows:
        key, found = read_client_key(row, where)
        if key:
            for other, one in keys.items():
                if one.name == key.name:
                    found.append(f'{where}: name "{key.name}" is that of {other}; each key has one of its own')
                if one.digest == key.digest:
                    found.append(f"{where} ({key.name}): sha256 is that of {other} ({one.name})")
            if key.budget and not content.get("prices"):
                found.append(f"{where}: budget is money, and the file has no prices; config.example.yaml shows some")
            keys[where] = key
        problems += found
    return list(keys.values()), problems


def read_client_key(row: Any, where: str) -> tuple[ClientKey | None, list[str]]:
    """The client key that an entry is; None, and everything that is wrong with it, if it is none."""
    if isinstance(row, Mapping) and (plain := _PLAIN_KEY & row.keys()):
        name = min(plain)
        return None, [f'{where} has an unknown name "{name}"; keys are stored as sha256: run chat-api keys new NAME']
    try:
        entry = Entry(row, where, set(_FIELDS))
    except ValueError as error:
        return None, [str(error)]
    values: dict[str, Any] = {}
    problems = []
    for name, (parse, expects, *kinds) in _FIELDS.items():
        secret = name == "sha256" or str(entry.row.get(name)).strip().startswith(KEY_PREFIX)
        try:
            values[name] = entry.read(name, parse, expects, kinds=(str, *kinds), secret=secret)
            if name in ("name", "sha256"):
                entry.needs(name, values[name], expects)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        return None, problems
    values["digest"], values["networks"] = values.pop("sha256"), values.pop("addresses") or ()
    values["tokens"] = MappingProxyType(values["tokens"] or {})
    return ClientKey(**values), []


def read_prices(content: Mapping[str, Any]) -> tuple[Mapping[str, Price], list[str]]:
    """What tokens cost, by model, and what is wrong with the other entries."""
    prices: dict[str, Price] = {}
    problems = []
    rows = content.get("prices") or {}
    if not isinstance(rows, Mapping):
        return prices, ["prices is no mapping of models to prices, such as gpt-4o: {prompt: 2.50, completion: 10.00}"]
    for model, row in rows.items():
        try:
            if model.lower() in map(str.lower, prices):  # Azure knows no case
                raise ValueError(f"prices of {model} are given twice")
            entry = Entry(row, f"prices of {model}", {"prompt", "completion", "cached"})
            prompt, completion, cached = (
                entry.read(name, _price, PRICE_FORM) for name in ("prompt", "completion", "cached")
            )
            entry.needs("prompt", prompt, PRICE_FORM)
            entry.needs("completion", completion, f"{PRICE_FORM} where there is none")
            prices[model] = Price(prompt, completion, prompt if cached is None else cached)
        except ValueError as error:
            problems.append(str(error))
    return MappingProxyType(prices), problems


def read_currency(content: Mapping[str, Any]) -> str:
    """The word that stands behind amounts of money.

    Raises:
        ValueError: it is none.
    """
    return str(Entry({"currency": content.get("currency")}, "the file", {"currency"}).read(*_CURRENCY) or "USD")


def _name(text: str) -> str:
    if text.startswith(KEY_PREFIX):
        raise ValueError("it is a key, and names are no secrets")
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", text):
        raise ValueError("no name of a key")
    return text


def _digest(text: str) -> bytes:
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise ValueError("it is not 64 hexadecimal digits; run chat-api keys new NAME")
    return bytes.fromhex(text)


def _items(value: str | list[Any]) -> list[str]:
    if isinstance(value, str):
        return listed(value)
    if not value:
        raise ValueError("it lists nothing")
    if not all(isinstance(item, str) and item for item in value):
        raise ValueError("not all of it is text")
    return value


def _models(value: str | list[Any]) -> frozenset[str] | None:
    models = frozenset(_items(value))
    return None if ANY_MODEL in models else models


def _tokens(value: str | Mapping[str, Any]) -> Mapping[str, tuple[Rate, ...]]:
    if isinstance(value, str):
        return {ANY_MODEL: parse_rates(value)}
    tokens: dict[str, tuple[Rate, ...]] = {}
    for model, text in value.items():
        if model.lower() in map(str.lower, tokens):  # Azure knows no case
            raise ValueError(f'"{model}" is given twice')
        if not (model and isinstance(text, str) and text):
            raise ValueError(f'"{model}" has no limit such as 100000/minute')
        try:
            tokens[model] = parse_rates(text)
        except ValueError as error:
            raise ValueError(f'"{model}": {error}') from None
    return tokens


def _expiry(text: str) -> float:
    try:
        if re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            time = datetime.fromisoformat(text) + timedelta(days=1)  # valid to its end
        elif re.match("[0-9]{4}-[0-9]{2}-[0-9]{2}[T ]", text):
            time = datetime.fromisoformat(text)
        else:  # other forms that Python reads would not be days to everybody
            raise ValueError
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise ValueError("no date and no time") from None


def _networks(value: str | list[Any]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(item, strict=False) for item in _items(value))


def _budget(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text):
        raise ValueError("no amount of money")
    if not Decimal(text):
        raise ValueError("not above 0")
    return int(Decimal(text) * 1_000_000)


def _price(text: str) -> float:
    if not re.fullmatch(r"[0-9]{0,6}\.?[0-9]{1,6}", text):
        raise ValueError("no amount of money")
    return float(text)


def _word(text: str) -> str:
    if not re.fullmatch(r"[^\W\d_]{1,8}|[$€£¥]", text):
        raise ValueError("no word")
    return text


_CURRENCY = ("currency", _word, CURRENCY_FORM)
# The names of an entry: how the value of each is read, what it takes, and as what else than text it may stand there.
_FIELDS: Mapping[str, tuple[Any, ...]] = {
    "name": (_name, NAME_FORM),
    "sha256": (_digest, DIGEST_FORM),
    "models": (_models, "names of models, as a list or separated by commas", list),
    "requests": (parse_rates, RATES_FORM),
    "tokens": (_tokens, TOKENS_FORM, dict),
    "max_parallel": (whole(1), "a whole number from 1"),
    "expires": (_expiry, EXPIRY_FORM),
    "addresses": (_networks, "IP addresses and networks, as a list or separated by commas", list),
    "budget": (_budget, MONEY_FORM),
    "log_chat": (parse_log_chat, " or ".join(LOG_CHAT)),
}
