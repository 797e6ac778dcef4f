"""The command `usage`: what is kept of it, as a table, CSV or JSON."""

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any

import click
import msgspec

from chat_api.counting import Amounts, Used
from chat_api.errors import StoreDown
from chat_api.ledger import Ledger
from chat_api.loading import load_or_exit
from chat_api.settings import Settings
from chat_api.stores import open_store
from chat_api.stores.usage_file import UsageFile
from chat_api.tally import day_of, parse_day
from chat_api.usage_report import (
    COLUMNS,
    NOTHING_COUNTED,
    Question,
    as_csv,
    as_json,
    as_text,
    parse_by,
    question,
    report,
)

CANNOT_READ = 1
PATIENCE_SECONDS = 5.0  # nobody's call waits here


@click.command()
@click.option("-c", "config_file", metavar="FILE", help="Sets CONFIG_FILE: a YAML file with prices.")
@click.option(
    "--by",
    metavar="|".join(COLUMNS),
    multiple=True,
    help="What is summed up together; may be repeated.  [default: key]",
)
@click.option("--since", metavar="DAY", help="The first day (UTC).  [default: the first of the month]")
@click.option("--until", metavar="DAY", help="The last day (UTC).  [default: today]")
@click.option("--csv", "form", flag_value="csv", help="Print CSV.")
@click.option("--json", "form", flag_value="json", help="Print JSON, as GET /usage has it.")
def usage(config_file: str | None, form: str | None, **options: Any) -> None:
    """Print who used how many tokens; exit with 1 if what is kept of it cannot be read."""
    asked = _question(**options)
    settings = load_or_exit({"CONFIG_FILE": config_file} if config_file else None)
    rows = _rows_or_exit(settings, asked.since, asked.until)
    made = report(asked, rows, settings.config.currency if settings.config.prices else None)
    if form == "json":
        click.echo(msgspec.json.encode(as_json(made)))
    elif form == "csv":
        click.echo(as_csv(made), nl=False)
    elif made.rows:
        click.echo(as_text(made), nl=False)
    else:
        click.echo(f"No usage from {asked.since} to {asked.until} (UTC).")
    if not settings.counts_usage:
        click.echo(f"Note: {NOTHING_COUNTED}.", err=True)


def _question(by: tuple[str, ...], since: str | None, until: str | None) -> Question:
    def read(name: str, parse: Callable[[str], Any], text: str | None) -> Any:
        try:
            return parse(text) if text else None
        except ValueError as error:
            raise click.BadParameter(f'"{text}": {error}', param_hint=name) from None

    columns = read("--by", parse_by, ",".join(by))
    first, last = read("--since", parse_day, since), read("--until", parse_day, until)
    try:
        return question(first, last, columns or ("key",), day_of(time.time()))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--since") from None


def _rows_or_exit(settings: Settings, since: str, until: str) -> dict[Used, Amounts]:
    if settings.store_url is None and settings.usage_file is None and settings.counts_usage:
        click.echo(
            "Usage is in the memory of the server only, where GET /usage reads it: USAGE_FILE is none, and there is "
            "no STORE_URL.",
            err=True,
        )
        sys.exit(CANNOT_READ)
    store = open_store(settings.store_url, timeout_seconds=max(settings.store_timeout, PATIENCE_SECONDS)).usage
    if store is None and settings.usage_file is not None:
        store = UsageFile(settings.usage_file)

    async def rows() -> dict[Used, Amounts]:
        ledger = Ledger(store)
        try:
            return await ledger.rows(since, until)
        finally:
            await ledger.aclose()

    try:
        return asyncio.run(rows())
    except StoreDown as error:
        where = " See STORE_URL." if settings.store_url else ""
        click.echo(f"The usage cannot be read: {error.message.rstrip('.')}.{where}", err=True)
        sys.exit(CANNOT_READ)
