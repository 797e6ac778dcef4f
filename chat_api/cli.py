"""The commands: `serve`, `check` and `emulate`. They print, listen and set exit codes; nothing else does."""

import logging
import os
import socket
import ssl
import sys
from collections.abc import Callable, Mapping
from typing import Any

import click
import msgspec

from chat_api import __version__
from chat_api import settings as settings_module
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
from chat_api.logs import AccessLines, set_up_logging
from chat_api.middleware import access_log
from chat_api.server import Server, answering, listen, raise_file_limit, server_config
from chat_api.settings import Settings, SettingsError
from chat_api.settings_table import TABLE
from chat_api.upstreams import MAIN, upstreams
from chat_api.workers import Workers

BAD_SETTINGS = 3  # a process manager should not start it again before somebody has mended them
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


def shown(settings: Settings, name: str) -> str:
    """A setting's value as it is used, in the words of a `.env` file; keys are masked."""
    derived = {
        "ENDPOINT": [endpoint.base_url for endpoint in settings.endpoints],
        "KEY": ["***" for _ in settings.keys],
        "MODEL_FALLBACK": [f"{model}={other}" for model, other in settings.fallbacks.items()],
        "OPENAI_BASE_URL": [server.root for server in settings.openai],
        "OPENAI_ROUTE_PREFIX": [server.prefix or "/" for server in settings.openai],
        "OPENAI_API_KEY": ["***" for server in settings.openai[:1] for _ in server.keys],
        "EXTRA_BASE_URL": [server.root for server in settings.extra],
        "EXTRA_ROUTE_PREFIX": [server.prefix for server in settings.extra],
        "UPSTREAM_PROXY": ["***"] if settings.proxies.https or settings.proxies.http else [],
    }
    if name in derived:
        return ",".join(derived[name])
    value = settings.defaults.get(name, getattr(settings, name.lower(), None))
    if isinstance(value, tuple):
        value = ",".join("=".join(item) if isinstance(item, tuple) else str(item) for item in value)
    if isinstance(value, bool | list):
        return msgspec.json.encode(value).decode()
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def load_or_exit(overrides: Mapping[str, str] | None = None) -> Settings:
    """The settings, `overrides` first; warnings are printed, and errors end the process with exit code 3."""
    try:
        settings = settings_module.load(overrides=overrides)
        _check_trust()
        if settings.enable_ssl:
            _check_certificate(settings)
    except SettingsError as error:
        click.echo(error, err=True)
        sys.exit(BAD_SETTINGS)
    for warning in settings.warnings:
        click.echo(f"Warning: {warning}", err=True)
    return settings


def listen_or_exit(host: str, port: int, setting: str) -> socket.socket:
    """A listening socket; where there can be none the process ends with exit code 1 and the reason."""
    try:
        return listen(host, port)
    except OSError as error:
        in_words = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror)
        reason = in_words.partition(" (while")[0]
        click.echo(f"Cannot listen at {host} port {port}: {reason}. See HOST and {setting}.", err=True)
        sys.exit(CANNOT_LISTEN)


def _check_trust() -> None:
    file = os.environ.get("SSL_CERT_FILE")
    try:
        if file:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except (ssl.SSLError, OSError) as error:
        problem = f"SSL_CERT_FILE is {file}, which holds no certificates in PEM form that can be read: {error}"
        raise SettingsError([problem], settings_module.ENV_FILE) from error


def _check_certificate(settings: Settings) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without the callback OpenSSL would ask at the terminal for a passphrase.
        context.load_cert_chain(settings.ssl_cert or "", settings.ssl_key, password=lambda: b"")
    except (ssl.SSLError, OSError) as error:
        problem = f"SSL_CERT and SSL_KEY are not a certificate and its unencrypted key in PEM form: {error}"
        raise SettingsError([problem], settings_module.ENV_FILE) from error


if __name__ == "__main__":
    main()
