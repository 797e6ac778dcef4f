"""The settings that a command runs with, or the end of it; and what it says of them."""

import os
import ssl
import sys
from collections.abc import Mapping

import click
import msgspec

from chat_api import settings as settings_module
from chat_api.cache_checks import lone_caching
from chat_api.limit_words import lone_counting, pace_text, process_count, rates_json, rates_text
from chat_api.settings import Settings, SettingsError

BAD_SETTINGS = 3  # a process manager should not start it again before somebody has mended them


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


def warn_of_lone_counting(settings: Settings, environ: Mapping[str, str], workers: int = 1) -> None:
    """Say so where several processes serve, and limits hold for each of them alone, or each keeps its own answers."""
    processes = process_count(environ, workers)
    for warning in filter(None, (lone_counting(settings, processes), lone_caching(settings, processes))):
        click.echo(f"Warning: {warning}", err=True)


def shown(settings: Settings, name: str) -> str:
    """A setting's value as it is used, in the words of a `.env` file; keys are masked."""
    derived = {**_shown_lists(settings), **_shown_limits(settings)}
    if name in derived:
        return derived[name]
    value = settings.defaults.get(name, getattr(settings, name.lower(), None))
    if isinstance(value, tuple):
        value = ",".join("=".join(item) if isinstance(item, tuple) else str(item) for item in value)
    if isinstance(value, bool | list):
        return msgspec.json.encode(value).decode()
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _shown_lists(settings: Settings) -> dict[str, str]:
    own_keys = len(settings.client_keys) - len(settings.config.client_keys)
    lists = {
        "CLIENT_KEYS": ["***"] * own_keys,
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
    return {name: ",".join(items) for name, items in lists.items()}


def _shown_limits(settings: Settings) -> dict[str, str]:
    caller, tokens = settings.global_rate_limit, settings.caller_token_limit
    return {
        "REQ_RATE_LIMIT": rates_json(settings.req_rate_limit),
        "GLOBAL_RATE_LIMIT": rates_text(caller) if caller else "",
        "CALLER_TOKEN_LIMIT": rates_text(tokens) if tokens else "",
        "MODEL_TOKEN_LIMIT": rates_json(settings.model_token_limit),
        "TOKEN_RATE_LIMIT": pace_text(settings.token_rate_limit),
        "USAGE_FILE": str(settings.usage_file or "none"),
    }


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
