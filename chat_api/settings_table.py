"""The settings table: for every setting its names, default, what it accepts, what it means, and its parser.

`sample.env`, the README's table and the error messages all say what stands here; tests keep them alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from environs import validate

from chat_api.azure_url import API_VERSION_FORM, DEFAULT_API_VERSION, ENDPOINT_FORM
from chat_api.fields import FIELDS
from chat_api.setting_parsers import LOG_LEVELS, UNKNOWN_MODEL, UPSTREAMS

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
    aliases: tuple[str, ...] = ()  # what other gateways call it

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
_COUNT = "a whole number from 1"

_PEM = "the path of a readable PEM file"
_PREFIXES = "path prefixes such as /localai, separated by commas"
_URLS = "http(s) URLs without user name or password, separated by commas"
PROXY_FORM = "a URL such as http://127.0.0.1:3128 or socks5://user:password@127.0.0.1:1080"
_IPS = "IP addresses and networks such as 10.0.0.0/8, separated by commas"

SERVER = (
    Setting("HOST", "host", "127.0.0.1", "an address or host name, without scheme or port", "Address to listen on."),
    Setting("HTTP_PORT", "int", 8080, _PORT, "Port for HTTP.", _between(0, 65535)),
    Setting("ENABLE_SSL", "bool", False, _BOOL, "Serve HTTPS on `HTTPS_PORT` instead of HTTP."),
    Setting("HTTPS_PORT", "int", 8443, _PORT, "Port for HTTPS.", _between(0, 65535)),
    Setting("SSL_CERT", "readable_file", None, _PEM, "Certificate chain; with `ENABLE_SSL`."),
    Setting("SSL_KEY", "readable_file", None, _PEM, "Its private key; with `ENABLE_SSL`."),
    Setting(
        "LISTEN",
        "listen",
        None,
        "an address and port such as 0.0.0.0:8080 or :8080",
        "Address and port in one, instead of `HOST` and `HTTP_PORT`.",
        aliases=("AZURE_OPENAI_PROXY_ADDRESS",),
    ),
)
CALLERS = (
    Setting(
        "CLIENT_KEYS",
        "keys",
        None,
        "keys of visible ASCII characters without spaces, separated by commas",
        "Keys that callers present to use the server's own. Unset: whoever reaches the server uses them.",
        secret=True,
        aliases=("FORWARD_KEY",),
    ),
    Setting(
        "ALLOW_ANONYMOUS",
        "bool",
        False,
        _BOOL,
        "Let anyone who can reach the server use its `KEY`: lifts the limit to loopback addresses and host names.",
    ),
    Setting("ALLOW_IPS", "networks", None, _IPS, "Only these addresses are answered.", aliases=("IP_WHITELIST",)),
    Setting("DENY_IPS", "networks", None, _IPS, "These addresses are not answered.", aliases=("IP_BLACKLIST",)),
    Setting(
        "CORS_ORIGINS",
        "origins",
        None,
        "origins such as https://chat.example.com, separated by commas, * for any, or none",
        "Web pages of these origins may call. Unset: any where callers present keys of their own, none otherwise.",
    ),
)
AZURE = (
    Setting(
        "ENDPOINT",
        "endpoint",
        None,
        ENDPOINT_FORM,
        "Your Azure OpenAI resource: its URL, or any URL that the portal shows for a deployment. "
        "Unset, and no other upstream set: the built-in emulator answers.",
        aliases=("AZURE_OPENAI_ENDPOINT",),
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
        aliases=("AZURE_OPENAI_API_VER", "AZURE_OPENAI_APIVERSION"),
    ),
    Setting(
        "KEY",
        "key",
        None,
        "a key of visible ASCII characters without spaces",
        "Key of the resource. Unset: each caller presents their own (`api-key` or Bearer).",
        secret=True,
        aliases=("AZURE_OPENAI_TOKEN", "AZURE_OPENAI_API_KEY"),
    ),
)
MODELS = (
    Setting(
        "MODEL_MAPPER",
        "model_mapper",
        None,
        "pairs of model=deployment, separated by commas",
        "Which deployment answers for which model.",
        aliases=("AZURE_OPENAI_MODEL_MAPPER",),
    ),
    Setting(
        "UNKNOWN_MODEL",
        "unknown_model",
        "pass",
        " or ".join(UNKNOWN_MODEL),
        "What a model gets that is mapped nowhere: `pass` takes it for a deployment's name, `default` sends it to "
        "`DEPLOYMENT_NAME`, `reject` refuses it.",
    ),
    Setting(
        "CONFIG_FILE",
        "readable_file",
        None,
        "the path of a readable YAML file",
        "Deployments with an endpoint, key and version each; see `config.example.yaml`. Unset: `config.yaml` beside "
        "`.env`, where no `ENDPOINT` is set.",
    ),
)
OTHERS = (
    Setting(
        "UPSTREAM",
        "upstream",
        None,
        " or ".join(UPSTREAMS),
        "`openai` relays to an OpenAI-compatible server. Unset: `openai` if `OPENAI_BASE_URL` or `OPENAI_API_KEY` is "
        "set and `ENDPOINT` is not.",
        aliases=("AZURE_OPENAI_PROXY_MODE",),
    ),
    Setting(
        "OPENAI_BASE_URL",
        "urls",
        None,
        _URLS,
        "OpenAI-compatible servers. Unset: OpenAI's own, where one is asked for.",
    ),
    Setting(
        "OPENAI_ROUTE_PREFIX",
        "prefixes",
        None,
        _PREFIXES,
        "The path prefix of each; `/` for none.",
        aliases=("ROUTE_PREFIX",),
    ),
    Setting(
        "OPENAI_API_KEY",
        "keys",
        None,
        "keys of visible ASCII characters without spaces, separated by commas",
        "Their key; several are used in turn. Unset: each caller presents their own.",
        secret=True,
    ),
    Setting("EXTRA_BASE_URL", "urls", None, _URLS, "Further servers, reached with the callers' own keys only."),
    Setting("EXTRA_ROUTE_PREFIX", "prefixes", None, _PREFIXES, "The path prefix of each."),
    Setting(
        "UPSTREAM_PROXY",
        "proxy",
        None,
        PROXY_FORM,
        "Proxy to the upstream. Unset: `HTTPS_PROXY` and `HTTP_PROXY`, but for what `NO_PROXY` lists.",
        secret=True,
        aliases=("AZURE_OPENAI_HTTP_PROXY", "PROXY"),
    ),
    Setting(
        "UPSTREAM_SOCKS_PROXY",
        "proxy",
        None,
        PROXY_FORM,
        "The same; it wins over `UPSTREAM_PROXY`.",
        secret=True,
        aliases=("AZURE_OPENAI_SOCKS_PROXY",),
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
    Setting("MAX_CONNECTIONS", "int", 5000, _COUNT, "Connections to one upstream; more calls wait.", _between(1)),
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
        "COMPAT_CHUNKS",
        "bool",
        False,
        _BOOL,
        "Leave what only Azure puts into chat chunks out of the streams of `/v1/chat/completions`.",
    ),
    Setting("HEADERS_TIMEOUT", "float", 10, SECONDS, "Seconds a client gets to send the head of a request.", _ABOVE_0),
    Setting("BODY_TIMEOUT", "float", 30, SECONDS, "Seconds of silence within a request's body.", _ABOVE_0),
    Setting("READER_TIMEOUT", "float", 120, SECONDS, "Seconds a client may take nothing of its answer.", _ABOVE_0),
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
    Setting(
        "MAX_UPLOAD_BYTES",
        "int",
        512 * 1024 * 1024,
        "a whole number of bytes from 1",
        "Largest upload (files, audio, images), which is not held in memory; larger ones are answered 413.",
        _between(1),
    ),
    Setting("LOG_LEVEL", "log_level_name", "info", " or ".join(LOG_LEVELS), "How much is logged."),
)
GROUPS = {
    "Where to listen": SERVER,
    "Who may call": CALLERS,
    "Azure OpenAI": AZURE,
    "Models": MODELS,
    "Other upstreams and proxies": OTHERS,
    "Defaults for what a request leaves out": DEFAULTS,
    "Limits and logging": LIMITS,
}
TABLE: tuple[Setting, ...] = tuple(setting for group in GROUPS.values() for setting in group)
