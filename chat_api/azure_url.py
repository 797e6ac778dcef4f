"""What a person pastes as ENDPOINT or API_VERSION, made into the parts the gateway needs. Pure."""

import ipaddress
import re
from dataclasses import dataclass
from datetime import date
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

MAX_DEPLOYMENT_NAME = 128  # characters; Azure allows 64
DEFAULT_API_VERSION = "2024-10-21"  # the latest dated GA version
ENDPOINTS_FORM = (
    "http(s) URLs such as https://my-resource.openai.azure.com, without user name or password, separated by commas"
)
API_VERSION_FORM = "a date such as 2024-10-21 or 2025-04-01-preview, or v1"

PORTAL_HOSTS = ("portal.azure.com", "ai.azure.com", "oai.azure.com")

DATED = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(-preview)?")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")
# Everything from here on is an operation's path, not part of the resource's base URL.
# `/models/…` is the model inference API of Foundry hosts, whose portal shows it beside the OpenAI one.
_OPERATION_PATH = re.compile(r"/openai(/|$)|/models/(chat/completions|embeddings|images/)", re.IGNORECASE)
_DEPLOYMENT_PATH = re.compile(r"/openai/(?:v1/)?deployments/([^/]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A resource's base URL, and what else its URL said."""

    base_url: str  # scheme, host and path prefix, no trailing slash
    deployment: str | None = None
    api_version: str | None = None

    @property
    def host_name(self) -> str:
        """The host without its port."""
        return urlsplit(self.base_url).hostname or ""


def parse_endpoint(text: str) -> Endpoint:
    """The endpoint in a resource URL, a URL with a path prefix, or a whole operation URL.

    Raises:
        ValueError: it is not an http(s) URL of a host, or it holds a user name or password.
    """
    text = text.strip(" \t\r\n\"'<>")
    if "://" not in text:
        text = f"https://{text}"
    # The portal shows realtime URLs as wss://; the same host serves everything else over https.
    text = re.sub(r"^ws(s?)://", r"http\1://", text, flags=re.IGNORECASE)
    url = urlsplit(text)
    authority = _authority(url, text)
    base_path, deployment, version = _split_path(url)
    return Endpoint(f"{url.scheme.lower()}://{authority}{base_path}", deployment, version)


def parse_server(text: str) -> str:
    """The root URL of an OpenAI-compatible server: without the `/v1` at its end that clients want, if it has one.

    Raises:
        ValueError: it is not an http(s) URL of a host, or it holds a user name, a password or a query.
    """
    text = text.strip(" \t\r\n\"'<>")
    url = urlsplit(text if "://" in text else f"https://{text}")
    if url.query or url.fragment:
        raise ValueError("it has a query")
    authority = _authority(url, text)
    path = re.sub(r"/{2,}", "/", url.path).rstrip("/")
    # What follows is an operation's path, pasted with it.
    path = re.sub(r"(?i)/v1(/(chat/completions|completions|embeddings|models|responses))?$", "", path)
    return f"{url.scheme.lower()}://{authority}{path}"


def server_version(root: str) -> str:
    """The path segment between a server's root URL and its operations: `v1`, or none if the root names a version."""
    return "" if re.search(r"/v[0-9][0-9a-z]*(/|$)", urlsplit(root).path) else "v1"


def is_deployment_name(name: str) -> bool:
    """Whether a deployment may be called so: quoted, the name can stand in a path.

    Quoting makes every character harmless but the dots of a dot segment (RFC 3986 section 5.2.4), and
    a server behind might take a quoted slash for one that divides segments.
    """
    segments = re.split(r"[/\\]", name)
    return name.isprintable() and not {"", ".", ".."}.intersection(segments) and len(name) <= MAX_DEPLOYMENT_NAME


def parse_api_version(text: str) -> str:
    """The api-version as Azure spells it: a date, `v1`, or `preview` (of v1).

    Raises:
        ValueError: it is none of these.
    """
    version = text.strip().strip("\"'").removeprefix("api-version=").lower()
    if version in ("v1", "preview"):
        return version
    if not DATED.fullmatch(version):
        raise ValueError(f'"{text}" is not an api-version')
    date.fromisoformat(version.removesuffix("-preview"))  # raises ValueError: no such day
    return version


def _authority(url: SplitResult, text: str) -> str:
    """Host and port of a URL. No reason given here repeats the URL, which may hold a password or a key."""
    if url.scheme.lower() not in ("http", "https"):
        raise ValueError("not http or https")
    if "@" in url.netloc:
        raise ValueError("it holds a user name or password")
    try:
        port = url.port
    except ValueError:
        raise ValueError("its port is no port") from None
    host = (url.netloc if port is None else url.netloc[: url.netloc.rindex(":")]).lower().removesuffix(":")
    if not _HOST.fullmatch(host) or ".." in host or not text.isprintable() or " " in text:
        raise ValueError("no host name")
    if host in PORTAL_HOSTS:
        raise ValueError("that is the portal's own page; copy the endpoint or target URI that it shows")
    if re.fullmatch(r"[0-9.]+", host):
        ipaddress.ip_address(host)  # raises ValueError
    # A lone word is a resource's name, not its address: which of Azure's hosts it lives at is a guess.
    if "." not in host and ":" not in host and host != "localhost" and port is None:
        raise ValueError("a resource's name, not its URL")
    return host if port is None else f"{host}:{port}"


def _split_path(url: SplitResult) -> tuple[str, str | None, str | None]:
    """`(path prefix, deployment, api-version)` of a URL's path and query."""
    path = re.sub(r"/{2,}", "/", url.path)
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    operation = _OPERATION_PATH.search(path)
    if operation is None and path.rstrip("/") == "/models" and (url.hostname or "").endswith(".services.ai.azure.com"):
        return "", None, None
    if operation is None:
        return path.rstrip("/"), None, _version_or_none(query)
    prefix, rest = path[: operation.start()], path[operation.start() :]
    if rest.lower().startswith("/models"):
        return prefix, None, None
    named = _DEPLOYMENT_PATH.match(rest)
    deployment = unquote(named[1]) if named else query.get("deployment") or query.get("model")
    if deployment is not None and not is_deployment_name(deployment):
        raise ValueError("no deployment is called as it says")
    version = _version_or_none(query)
    if re.match(r"/openai/v1(/|$)", rest, re.IGNORECASE):
        version = "preview" if version == "preview" else "v1"
    return prefix, deployment, version


def _version_or_none(query: dict[str, str]) -> str | None:
    version = query.get("api-version")
    try:
        return parse_api_version(version) if version else None
    except ValueError:
        raise ValueError("its api-version is none") from None
