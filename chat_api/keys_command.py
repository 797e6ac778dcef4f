"""`chat-api keys`: makes client keys, and lists those that are configured. No digest is ever listed."""

import json
import re
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import click

from chat_api.callers import ANY_MODEL, ClientKey, digest_of, new_key
from chat_api.config_keys import read_client_key
from chat_api.limit_words import rates_text
from chat_api.loading import load_or_exit, shown
from chat_api.setting_parsers import listed
from chat_api.settings import Settings

COLUMNS = ("name", "models", "requests", "tokens", "max_parallel", "budget", "expires", "addresses")

_LEFT_OUT = ("REQ_RATE_LIMIT", "GLOBAL_RATE_LIMIT", "CALLER_TOKEN_LIMIT", "CALLER_MAX_PARALLEL")


@click.group()
def keys() -> None:
    """Make client keys, and list those that are configured."""


@keys.command()
@click.argument("name")
@click.option("--model", "--models", "models", multiple=True, help="A model that it is for; may be repeated.")
@click.option("--requests", metavar="LIMITS", help="Requests over all routes: '100/minute; 1000/day'.")
@click.option("--tokens", metavar="LIMITS", help="Tokens of all models: '100000/minute; 1000000/day'.")
@click.option("--max-parallel", metavar="NUMBER", help="Calls in flight.")
@click.option("--expires", metavar="WHEN", help="A date, to whose end it is valid (UTC), or a time.")
@click.option(
    "--address", "addresses", multiple=True, help="An address or network that it is accepted from; may be repeated."
)
@click.option("--budget", metavar="MONEY", help="Money a calendar month; needs prices in the file.")
def new(name: str, **fields: Any) -> None:
    """Make a key for NAME, print it this once, and what to add to the config file, which has only its digest."""
    key = new_key()
    row = {"name": name, "sha256": digest_of(key).hex(), **{name: value for name, value in fields.items() if value}}
    row = {name: listed(",".join(value)) if isinstance(value, tuple) else value for name, value in row.items()}
    _, problems = read_client_key(row, "the key")
    if problems:
        raise click.UsageError("\n".join(problem.removeprefix("the key: ") for problem in problems))
    click.echo(f"# The key, which is shown this once and stored nowhere:\n{key}")
    click.echo(f"# What to add to the config file, under client_keys:\n{entry_text(row)}")


@keys.command("list")
@click.option("-c", "config_file", metavar="FILE", help="Sets CONFIG_FILE: a YAML file with client keys.")
def list_keys(config_file: str | None) -> None:
    """List the keys that are configured: names and limits, no keys."""
    settings = load_or_exit({"CONFIG_FILE": config_file} if config_file else None)
    for line in listing(settings, time.time()):
        click.echo(line)


def entry_text(row: dict[str, Any]) -> str:
    """An entry of `client_keys` in YAML, indented to stand below it."""
    lines = []
    for name, value in row.items():
        text = f"[{', '.join(map(_scalar, value))}]" if isinstance(value, list) else _scalar(value)
        lines.append(f"{name}: {text}")
    return "  - " + "\n    ".join(lines)


def listing(settings: Settings, now: float) -> list[str]:
    """The table of the client keys at a time, line by line, and what goes for those that leave something out."""
    if not settings.client_keys:
        return ["There are no client keys: chat-api keys new NAME makes one."]
    rows = [COLUMNS, *(_row(key, settings.config.currency, now) for key in settings.client_keys)]
    used = [column for column in zip(*rows, strict=True) if any(cell != "-" for cell in column[1:])]
    widths = [max(map(len, column)) for column in used]
    lines = ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in zip(*used, strict=True)]
    said = [f"{name}={shown(settings, name)}" for name in _LEFT_OUT if getattr(settings, name.lower())]
    return [*lines, f"# What a key leaves out: {', '.join(said)}."] if said else lines


def _row(key: ClientKey, currency: str, now: float) -> tuple[str, ...]:
    """The cells of a key; "-" for what it leaves to the settings, or has none of."""
    tokens = [f"{'' if model == ANY_MODEL else f'{model}: '}{rates_text(key.tokens[model])}" for model in key.tokens]
    return (
        key.name,
        _joined(sorted(key.models or ())),
        "-" if key.requests is None else rates_text(key.requests),
        _joined(tokens),
        str(key.max_parallel or "-"),
        f"{key.budget / 1_000_000:.2f} {currency}" if key.budget else "-",
        "-" if key.expires is None else _when(key.expires, now),
        _joined(map(str, key.networks)),
    )


def _joined(items: Iterable[str]) -> str:
    return ", ".join(items) or "-"


def _when(seconds: float, now: float) -> str:
    """A time of expiry; midnight as the day to whose end the key is valid."""
    is_day = seconds % 86400 == 0
    when = datetime.fromtimestamp(seconds - 86400 if is_day else seconds, UTC)
    return when.strftime("%Y-%m-%d" if is_day else "%Y-%m-%d %H:%M UTC") + (" (expired)" if seconds <= now else "")


def _scalar(text: str) -> str:
    """Text as YAML reads it, quoted where it must be."""
    return text if re.fullmatch(r"\w[\w./;*-]*( [\w./;*-]+)*", text, re.ASCII) else json.dumps(text, ensure_ascii=False)
