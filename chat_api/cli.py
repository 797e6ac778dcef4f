"""The commands. They print, listen and set exit codes; nothing else does."""

import logging
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

import click

from chat_api import __version__
from chat_api.app import create_app
from chat_api.emulator import (
    DEPLOYMENTS,
    FAULTS,
    REGION,
    Emulator,
    Latency,
    Limit,
    Outage,
    checked_region,
    parse_latency,
    parse_outage,
    run_emulator,
)
from chat_api.keys_command import keys
from chat_api.loading import BAD_SETTINGS, load_or_exit, shown, warn_of_lone_counting
from chat_api.log_command import log
from chat_api.logs import AccessLines, set_up_logging
from chat_api.middleware import access_log
from chat_api.server import Server, answering, listen, raise_file_limit, server_config
from chat_api.settings_table import TABLE
from chat_api.upstreams import MAIN, upstreams
from chat_api.usage_command import usage
from chat_api.workers import Workers

CANNOT_LISTEN = 1


def _parsed(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """The type of an option for what raises a ValueError that says what it takes."""

    def convert(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return convert


@click.group()
@click.version_option(__version__, prog_name="chat-api")
def main() -> None:
    """A chat gateway for Azure OpenAI: one prompt in, one answer out."""


def _settings_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that stand for settings, under the names that other gateways gave them."""
    options = (
        click.option("-c", "config_file", metavar="FILE", help="Sets CONFIG_FILE: a YAML file of deployments."),
        click.option("-l", "listen_at", metavar="ADDRESS", help="Sets HOST and HTTP_PORT: 0.0.0.0:8080, or :8080."),
        click.option("-s", "cors", is_flag=True, help="Sets CORS_ORIGINS=*: pages of any origin may call."),
        click.option("--port", type=int, help="Sets HTTP_PORT."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@main.command()
@_settings_options
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="How many processes serve.")
def serve(workers: int, **options: Any) -> None:
    """Serve the API until SIGTERM or SIGINT. The settings are in the environment and in .env: see sample.env."""
    settings = load_or_exit(overrides(**options))
    warn_of_lone_counting(settings, os.environ, workers)
    sock = listen_or_exit(settings.host, settings.port, "HTTPS_PORT" if settings.enable_ssl else "HTTP_PORT")
    set_up_logging(settings.log_level)
    raise_file_limit()

    def work() -> None:
        lines = AccessLines(sys.stdout) if sys.stdout and access_log.isEnabledFor(logging.INFO) else None
        app = create_app(settings, access=lines.write if lines else None)
        server = Server(server_config(settings, app), settings, lines)
        server.stops_with_parent = workers > 1
        server.run(sockets=[sock])

    if workers > 1:
        sys.exit(Workers(workers, work, final=(BAD_SETTINGS,)).run())
    work()


@main.command()
@_settings_options
@click.option("--workers", type=click.IntRange(1), help="As for serve; nothing is checked of it.")
def check(workers: int | None, **options: Any) -> None:
    """Check the settings and print them, keys masked; exit with 3 if they cannot be used."""
    settings = load_or_exit(overrides(**options))
    for row in TABLE:
        click.echo(f"{row.name}={shown(settings, row.name)}")
    default = next(iter(upstreams(settings)[MAIN].deployments), None) if settings.upstream != "emulator" else None
    for line in answering(settings, default.base_url if default else "a port of its own"):
        click.echo(f"# {line}")
    click.echo("# These settings can be used.")


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8090, show_default=True, help="Port to listen on.")
@click.option("--key", "keys", multiple=True, help="A key to accept; may be repeated. Any key, if there is none.")
@click.option("--deployment", "names", multiple=True, help="A further deployment that answers; may be repeated.")
@click.option("--rpm", type=click.IntRange(1), help="Calls a minute that each deployment takes.")
@click.option("--tpm", type=click.IntRange(1), help="Tokens a minute that each deployment takes.")
@click.option(
    "--latency",
    metavar="SECONDS",
    type=_parsed(parse_latency),
    help="Seconds before an answer; 0.2,0.01: and between events.",
)
@click.option(
    "--outage",
    "outages",
    multiple=True,
    metavar="START+SECONDS=KIND",
    type=_parsed(parse_outage),
    help="Out of order from second START: 10+60=503; may be repeated. See docs/emulator.md.",
)
@click.option(
    "--region",
    metavar="NAME",
    type=_parsed(checked_region),
    default=REGION,
    show_default=True,
    help="The resource's region.",
)
def emulate(
    host: str,
    port: int,
    keys: tuple[str, ...],
    names: tuple[str, ...],
    rpm: int | None,
    tpm: int | None,
    latency: Latency | None,
    outages: tuple[Outage, ...],
    region: str,
) -> None:
    """Run the Azure OpenAI emulator alone."""
    for name in {outage.deployment for outage in outages} - {None, *DEPLOYMENTS, *names, *FAULTS}:
        raise click.BadParameter(f"no deployment is called {name!r}", param_hint="--outage")
    sock = listen_or_exit(host, port, "--port")
    limits = Limit(rpm, tpm) if rpm or tpm else None
    emulator = Emulator(
        (*DEPLOYMENTS, *names),
        frozenset(keys) or None,
        region=region,
        limits=limits,
        latency=latency or 0.0,
        outages=outages,
    )
    click.echo(f"Azure OpenAI emulator at http://{host}:{sock.getsockname()[1]}")
    click.echo(f"  deployments: {', '.join(emulator.deployments)}, and a fault-… for every fault")
    run_emulator(emulator, sock)


main.add_command(keys)
main.add_command(usage)
main.add_command(log)


def overrides(
    config_file: str | None = None, listen_at: str | None = None, cors: bool = False, port: int | None = None
) -> dict[str, str]:
    """The settings that command-line options stand for; blank ones unset what the environment says."""
    values: dict[str, str] = {}
    if config_file:
        values["CONFIG_FILE"] = config_file
    if listen_at:
        host, colon, at = listen_at.rpartition(":")
        if not colon:
            raise click.BadParameter("it takes an address and port such as 0.0.0.0:8080 or :8080", param_hint="-l")
        # Two parts that are checked like the settings: `:8080` means every address.
        values |= {"LISTEN": "", "HOST": host or "0.0.0.0", "HTTP_PORT": at, "HTTPS_PORT": at}  # noqa: S104
    if port is not None:
        values |= {"HTTP_PORT": str(port), "HTTPS_PORT": str(port)}
    if cors:
        values["CORS_ORIGINS"] = "*"
    return values


def listen_or_exit(host: str, port: int, setting: str) -> socket.socket:
    """A listening socket; where there can be none the process ends with exit code 1 and the reason."""
    try:
        return listen(host, port)
    except OSError as error:
        in_words = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror)
        reason = in_words.partition(" (while")[0]
        click.echo(f"Cannot listen at {host} port {port}: {reason}. See HOST and {setting}.", err=True)
        sys.exit(CANNOT_LISTEN)


if __name__ == "__main__":
    main()
