"""The settings of the server itself: where it listens, who may call, what a request leaves out, limits and logging."""

from chat_api.fields import FIELDS
from chat_api.setting import ABOVE_0, COUNT, FLAG, KEY, KEYS, SECONDS, SECONDS_FROM_0, Setting, between
from chat_api.setting_parsers import LOG_LEVELS

_PORT = "a port number from 0 to 65535 (0 takes a free one)"
_PEM = "the path of a readable PEM file"
_IPS = "IP addresses and networks such as 10.0.0.0/8, separated by commas"

SERVER = (
    Setting("HOST", "host", "127.0.0.1", "an address or host name, without scheme or port", "Address to listen on."),
    Setting("HTTP_PORT", "int", 8080, _PORT, "Port for HTTP.", between(0, 65535)),
    Setting("ENABLE_SSL", "bool", False, FLAG, "Serve HTTPS on `HTTPS_PORT` instead of HTTP."),
    Setting("HTTPS_PORT", "int", 8443, _PORT, "Port for HTTPS.", between(0, 65535)),
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
        KEYS,
        "Keys that callers present to use the server's own. Unset: whoever reaches the server uses them.",
        secret=True,
        aliases=("FORWARD_KEY",),
    ),
    Setting(
        "OPERATOR_KEY",
        "key",
        None,
        KEY,
        "Key with which operators read `/status` and `/usage` from elsewhere than this machine.",
        secret=True,
    ),
    Setting(
        "ALLOW_ANONYMOUS",
        "bool",
        False,
        FLAG,
        "Let anyone who can reach the server use its `KEY`: lifts the limit to loopback addresses and host names.",
    ),
    Setting("ALLOW_IPS", "networks", None, _IPS, "Only these addresses are answered.", aliases=("IP_WHITELIST",)),
    Setting("DENY_IPS", "networks", None, _IPS, "These addresses are not answered.", aliases=("IP_BLACKLIST",)),
    Setting(
        "FORWARDED_ALLOW_IPS",
        "forwarders",
        None,
        f"{_IPS}, or * for any",
        "Proxies in front of this server, whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed. Unset: the "
        "client is whoever connects.",
    ),
    Setting(
        "CORS_ORIGINS",
        "origins",
        None,
        "origins such as https://chat.example.com, separated by commas, * for any, or none",
        "Web pages of these origins may call. Unset: any where callers present keys of their own, none otherwise.",
    ),
)
_PARSER_OF_KIND = {"number": "float", "integer": "int", "flag": "bool", "text": "str", "stop": "stop"}


def _default(name: str, meaning: str, accepts: str | None = None) -> Setting:
    """The setting for a field's default: it accepts what the field does."""
    field_ = FIELDS[name]
    limits = {} if field_.low is None else between(field_.low, field_.high)
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
    Setting("CONNECT_TIMEOUT", "float", 5, SECONDS, "Seconds to connect to the upstream, TLS included.", ABOVE_0),
    Setting(
        "FIRST_BYTE_TIMEOUT",
        "float",
        600,
        SECONDS,
        "Seconds from the request to the first byte of the upstream's answer.",
        ABOVE_0,
    ),
    Setting("MAX_CONNECTIONS", "int", 5000, COUNT, "Connections to one upstream; more calls wait.", between(1)),
    Setting("IDLE_TIMEOUT", "float", 120, SECONDS, "Seconds of silence within the upstream's answer.", ABOVE_0),
    Setting(
        "PING_INTERVAL",
        "float",
        15,
        "a number of seconds, 0 for never",
        "Seconds between the comments that keep a silent event stream open.",
        between(0),
    ),
    Setting(
        "COMPAT_CHUNKS",
        "bool",
        False,
        FLAG,
        "Leave what only Azure puts into chat chunks out of the streams of `/v1/chat/completions`.",
    ),
    Setting("HEADERS_TIMEOUT", "float", 10, SECONDS, "Seconds a client gets to send the head of a request.", ABOVE_0),
    Setting("BODY_TIMEOUT", "float", 30, SECONDS, "Seconds of silence within a request's body.", ABOVE_0),
    Setting("READER_TIMEOUT", "float", 120, SECONDS, "Seconds a client may take nothing of its answer.", ABOVE_0),
    Setting(
        "DRAIN_WAIT",
        "float",
        0,
        SECONDS_FROM_0,
        "Seconds after SIGTERM in which `/ready` already fails while new calls are still taken, so that a load "
        "balancer can turn away first.",
        between(0),
    ),
    Setting(
        "DRAIN_TIMEOUT",
        "int",
        30,
        "a whole number of seconds from 0",
        "Seconds that answers in flight get to finish after SIGTERM or SIGINT.",
        between(0),
    ),
    Setting(
        "MAX_BODY_BYTES",
        "int",
        32 * 1024 * 1024,
        "a whole number of bytes from 1",
        "Largest request body; larger ones are answered 413.",
        between(1),
    ),
    Setting(
        "MAX_UPLOAD_BYTES",
        "int",
        512 * 1024 * 1024,
        "a whole number of bytes from 1",
        "Largest upload (files, audio, images), which is not held in memory; larger ones are answered 413.",
        between(1),
    ),
    Setting("LOG_LEVEL", "log_level_name", "info", " or ".join(LOG_LEVELS), "How much is logged."),
)
